//! The connections of a world, with the server's session at their ends.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use sync_core::client::AttemptId;
use sync_core::engine::{Engine, Validator};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::Seq;
use sync_core::ids::{Channel, OriginId, SessionId, User};
use sync_core::server::{ServerSession, SessionConfig, SessionEvent, SessionOutput};
use sync_core::time::Time;
use sync_core::transport::DialError;
use sync_core::wire::decode_frame;

use super::{Link, Target, World};

impl<E: Engine + Validator> World<E> {
    pub(super) fn leave(&mut self, session: SessionId) {
        let gone_at = self.now + self.rng.up_to(self.weather.linger_max);
        if let Some(link) = self.links.get_mut(&session) {
            link.down.clear();
            link.gone_at = Some(gone_at);
        }
        self.schedule(Some(gone_at), Target::Link(session));
    }

    pub(super) fn run_link(&mut self, session: SessionId) {
        while let Some(link) = self.links.get_mut(&session) {
            let Some((_, frame)) = link.up.pop_front_if(|(at, _)| *at <= self.now) else {
                break;
            };
            link.session.handle_frame(self.now, frame);
            self.perform_session(session);
        }
        if let Some(link) = self.links.get_mut(&session)
            && link.session.poll_timeout().is_some_and(|at| at <= self.now)
        {
            link.session.handle_timeout(self.now);
            self.perform_session(session);
        }
        while let Some(link) = self.links.get_mut(&session) {
            let Some((_, frame)) = link.down.pop_front_if(|(at, _)| *at <= self.now) else {
                break;
            };
            let (client, attempt) = (link.client, link.attempt);
            self.clients[client]
                .state
                .handle_frame(self.now, attempt, frame);
            self.perform_client(client);
        }
        if self
            .links
            .get(&session)
            .is_some_and(|link| link.gone_at.is_some_and(|at| at <= self.now))
        {
            self.end_link(session);
        }
        self.schedule_link(session);
    }

    pub(super) fn schedule_link(&mut self, session: SessionId) {
        let Some(link) = self.links.get(&session) else {
            return;
        };
        let front = |queue: &VecDeque<(Time, Bytes)>| queue.front().map(|(at, _)| *at);
        let times = [
            front(&link.up),
            front(&link.down),
            link.gone_at,
            link.session.poll_timeout(),
        ];
        self.schedule(times.into_iter().flatten().min(), Target::Link(session));
    }

    pub(super) fn connect(&mut self, client: usize, attempt: AttemptId) {
        if !self.server_up || !self.clients[client].online {
            self.clients[client].state.handle_dial_failed(
                self.now,
                attempt,
                DialError::Unreachable("nobody is there".into()),
            );
            return self.perform_client(client);
        }
        let session = SessionId(self.fresh_id());
        let mut config = SessionConfig::new(self.limits.clone());
        config.user = Some(self.clients[client].user.clone());
        self.links.insert(
            session,
            Link {
                client,
                attempt,
                session: ServerSession::new(self.now, config, session),
                up: VecDeque::new(),
                down: VecDeque::new(),
                gone_at: None,
                documents: BTreeSet::new(),
            },
        );
        self.schedule_link(session);
        self.clients[client].link = Some(session);
        self.clients[client]
            .state
            .handle_connected(self.now, attempt);
        self.perform_client(client);
    }

    /// Frames on one direction of one connection stay in order.
    pub(super) fn arrival(&mut self, last: Option<Time>) -> Time {
        let at = self.soon(self.weather.delay_max);
        last.map_or(at, |last| at.max(last))
    }

    pub(super) fn perform_session(&mut self, session: SessionId) {
        while let Some(output) = self
            .links
            .get_mut(&session)
            .and_then(|link| link.session.poll_output())
        {
            match output {
                SessionOutput::Send(frame) => self.send_down(session, frame),
                SessionOutput::Authenticate(_) => panic!("the user is given"),
                SessionOutput::Authorize { request, .. } => {
                    let user = self.clients[self.links[&session].client].user.clone();
                    let answer = self.answer_question(&user);
                    let link = self.links.get_mut(&session).unwrap();
                    link.session.handle_authorized(self.now, request, answer);
                }
                SessionOutput::Join(join) => {
                    let document = join.document.clone();
                    self.room(&document);
                    let room = self.rooms.get_mut(&document).unwrap();
                    let link = self.links.get_mut(&session).unwrap();
                    link.session
                        .handle_joined(self.now, document.clone(), room.channel());
                    link.documents.insert(document.clone());
                    room.handle_open(self.now, session, join.open).unwrap();
                    self.perform_room(&document);
                }
                SessionOutput::Push(push) => {
                    if let Some(document) = self.channels.get(&push.channel).cloned()
                        && let Some(room) = self.rooms.get_mut(&document)
                    {
                        room.handle_push(self.now, session, push);
                        self.perform_room(&document);
                    }
                }
                SessionOutput::StopPush { channel, error } => {
                    if let Some(document) = self.channels.get(&channel).cloned()
                        && let Some(room) = self.rooms.get_mut(&document)
                    {
                        room.handle_stop_push(self.now, session, error);
                        self.perform_room(&document);
                    }
                }
                SessionOutput::FoldOffer(offer) => {
                    if let Some(document) = self.channels.get(&offer.channel).cloned()
                        && let Some(room) = self.rooms.get_mut(&document)
                    {
                        room.handle_fold_offer(self.now, session, offer);
                        self.perform_room(&document);
                    }
                }
                SessionOutput::Leave(channel) => {
                    if let Some(document) = self.channels.get(&channel).cloned()
                        && let Some(room) = self.rooms.get_mut(&document)
                    {
                        room.handle_close(self.now, session);
                        self.perform_room(&document);
                    }
                }
                SessionOutput::Heads { nonce } => {
                    self.pings += 1;
                    let link = self.links.get_mut(&session).unwrap();
                    let heads: Vec<(Channel, Seq)> = link
                        .session
                        .channels()
                        .filter_map(|(channel, document)| {
                            Some((channel, self.rooms.get(document)?.head_for(session)?))
                        })
                        .collect();
                    link.session.handle_heads(self.now, nonce, heads);
                }
                SessionOutput::Event(SessionEvent::Opened {
                    user,
                    origin,
                    connection,
                }) => {
                    self.take_over((origin, user), connection, session);
                }
                SessionOutput::Event(_) => {}
                SessionOutput::Close { code, .. } => {
                    if let Some(link) = self.links.get(&session) {
                        let (client, attempt, here) =
                            (link.client, link.attempt, link.gone_at.is_none());
                        self.end_link(session);
                        if here {
                            self.clients[client].link = None;
                            self.clients[client]
                                .state
                                .handle_lost(self.now, attempt, Some(code));
                            self.perform_client(client);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Protocol 6.2.
    pub(super) fn take_over(
        &mut self,
        owner: (OriginId, User),
        connection: u64,
        session: SessionId,
    ) {
        let older = match self.owners.get(&owner).copied() {
            Some((theirs, _)) if theirs > connection => session,
            other => {
                self.owners.insert(owner, (connection, session));
                let Some((_, older)) = other else { return };
                older
            }
        };
        if let Some(link) = self.links.get_mut(&older) {
            link.up.clear();
            let error = PeerError::new(ErrorCode::Superseded, "a newer connection took over");
            link.session.handle_end(self.now, error);
        }
        self.perform_session(older);
    }

    pub(super) fn end_link(&mut self, session: SessionId) {
        let Some(link) = self.links.remove(&session) else {
            return;
        };
        self.owners.retain(|_, (_, owner)| *owner != session);
        for document in link.documents {
            if let Some(room) = self.rooms.get_mut(&document) {
                room.handle_close(self.now, session);
                self.perform_room(&document);
            }
        }
    }

    pub(super) fn send_down(&mut self, session: SessionId, frame: Bytes) {
        let Some(link) = self.links.get(&session) else {
            return;
        };
        let (client, last, here) = (
            link.client,
            link.down.back().map(|(at, _)| *at),
            link.gone_at.is_none(),
        );
        if !here {
            return;
        }
        let message = decode_frame(frame.clone(), usize::MAX - 1).unwrap();
        self.check_sent(client, &message);
        self.traffic[client].down.push(message);
        let at = self.arrival(last.map(|last| last + self.trickle));
        if let Some(link) = self.links.get_mut(&session) {
            link.down.push_back((at, frame));
        }
        self.schedule(Some(at), Target::Link(session));
    }
}
