//! The server's end of each connection: new ones, and what their sessions ask for.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use sync_core::client::AttemptId;
use sync_core::engine::{Engine, Validator};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::Seq;
use sync_core::ids::{Channel, DocumentId, OriginId, ResumeToken, SessionId, User};
use sync_core::server::{
    JoinRequest, Room, ServerSession, SessionConfig, SessionEvent, SessionOutput,
};
use sync_core::time::Time;
use sync_core::transport::DialError;

use super::calls::Step;
use super::links::{Deaf, Link};
use super::writing::Writer;
use super::{Target, World};

impl<E: Engine + Validator> World<E> {
    /// A client's attempt to connect succeeds or fails.
    pub(super) fn connect(&mut self, client: usize, attempt: AttemptId) {
        let node = self.choose_node(client);
        let refused = self.clients[client].next_dial.take();
        let fails = refused.is_none() && self.happens(self.weather.dial_failures);
        let error = match (refused, node) {
            (Some(error), _) => Some(error),
            (None, None) => Some(DialError::Unreachable("nobody is there".into())),
            (None, Some(_)) => fails.then(|| DialError::Unreachable("bad luck".into())),
        };
        let (Some(node), None) = (node, &error) else {
            self.count("fault", "no connection");
            let error = error.unwrap_or_else(|| DialError::Unreachable("nobody".into()));
            let state = &mut self.clients[client].state;
            state.handle_dial_failed(self.now, attempt, error);
            return self.perform_client(client);
        };
        let session = SessionId(self.fresh_id());
        let link = Link {
            client,
            node,
            attempt,
            session: self.session(client, node, session),
            writer: Writer::default(),
            rooms: BTreeMap::new(),
            up: VecDeque::new(),
            down: VecDeque::new(),
            down_bytes: 0,
            has_client: true,
            has_server: true,
            ended_by: None,
            lost_at: None,
            ends: None,
            is_deaf: Deaf::default(),
            reads_at: Time::ZERO,
            trickle: self.clients[client].trickle,
            breaks_in_message: false,
            asked_at: 0,
        };
        self.links.insert(session, link);
        self.schedule_link(session);
        let it = &mut self.clients[client];
        it.link = Some(session);
        it.state.handle_connected(self.now, attempt);
        self.perform_client(client);
    }

    fn session(&mut self, client: usize, node: usize, session: SessionId) -> ServerSession {
        let mut config = SessionConfig::new(self.limits.clone());
        if self.permits.credentials.is_none() {
            config.user = Some(self.clients[client].user.clone());
        }
        let token = (self.rng.next_u128(), self.rng.next_u128());
        let mut bytes = [0; ResumeToken::BYTES];
        let random = token
            .0
            .to_be_bytes()
            .into_iter()
            .chain(token.1.to_be_bytes());
        for (byte, random) in bytes.iter_mut().zip(random) {
            *byte = random;
        }
        config.resume_token = Some(ResumeToken::new(bytes));
        config.start_wall_ms = self.nodes[node].clock.wall_ms(Time::ZERO);
        ServerSession::new(self.now, config, session)
    }

    pub(super) fn perform_session(&mut self, session: SessionId) {
        let mut has_written = false;
        while let Some(link) = self.links.get_mut(&session).filter(|link| link.has_server)
            && let Some(output) = link.session.poll_output()
        {
            let node = link.node;
            match output {
                SessionOutput::Send(frame) => {
                    link.writer.answer(frame);
                    has_written = true;
                }
                SessionOutput::Authenticate(request) => {
                    let user = self.user_of(request.credentials.as_deref());
                    self.call_for(node, Step::Identify(session, user));
                }
                SessionOutput::Authorize { request, document } => {
                    let user = self.clients[link.client].user.clone();
                    let asked = self.nodes[node].doubts.count();
                    let step = Step::AskOpen(session, request, asked, user);
                    self.call_of(node, &document, step);
                }
                SessionOutput::Join(join) => self.join(session, node, join),
                SessionOutput::Push(push) => {
                    let now = self.now;
                    self.in_room(node, push.channel, |room| {
                        room.handle_push(now, session, push);
                    });
                }
                SessionOutput::StopPush { channel, error } => {
                    let now = self.now;
                    self.in_room(node, channel, |room| {
                        room.handle_stop_push(now, session, error);
                    });
                }
                SessionOutput::Broadcast(broadcast) => {
                    self.in_room(node, broadcast.channel, |room| {
                        room.handle_broadcast(session, broadcast);
                    });
                }
                SessionOutput::Presence { channel, state } => {
                    let now = self.now;
                    self.in_room(node, channel, |room| {
                        room.handle_presence(now, session, state);
                    });
                }
                SessionOutput::FoldOffer(offer) => {
                    let now = self.now;
                    self.in_room(node, offer.channel, |room| {
                        room.handle_fold_offer(now, session, offer);
                    });
                }
                SessionOutput::Leave(channel) => {
                    let now = self.now;
                    if let Some(document) = link.rooms.remove(&channel) {
                        link.writer.forget(channel, &document);
                        self.in_room(node, channel, |room| room.handle_close(now, session));
                    }
                }
                SessionOutput::Refreshed(user) => {
                    let channels: Vec<_> = link.rooms.keys().copied().collect();
                    let now = self.now;
                    for channel in channels {
                        let user = user.clone();
                        self.in_room(node, channel, |room| room.handle_user(now, session, user));
                    }
                }
                SessionOutput::Extension { kind, bytes, .. } => {
                    self.received_extension(session, kind, bytes);
                }
                SessionOutput::Heads { nonce } => self.heads(session, nonce),
                SessionOutput::Event(event) => self.on_session_event(session, event),
                SessionOutput::Close { code, reason } => {
                    link.ended_by = Some(reason.code);
                    link.writer.close(self.now, code);
                    has_written = true;
                    self.count("closed by server", reason.code.name());
                }
                _ => {}
            }
        }
        if has_written {
            self.schedule(Some(self.now), Target::Link(session));
        }
        self.schedule_link(session);
    }

    fn on_session_event(&mut self, session: SessionId, event: SessionEvent) {
        match event {
            SessionEvent::Opened {
                user,
                origin,
                connection,
            } => self.take_over((origin, user), connection, session),
            SessionEvent::ProtocolError(error) => {
                self.count("protocol error", error.code.name());
                assert!(
                    self.takes_nonsense,
                    "a client of ours broke the protocol: {error:?}"
                );
            }
            SessionEvent::PeerReported(error) => {
                self.count("peer reported", error.code.name());
                assert!(
                    self.takes_nonsense,
                    "a client of ours says that the server broke the protocol: {error:?}"
                );
            }
            SessionEvent::ErrorSent(code) => self.count("told by session", code.name()),
            _ => {}
        }
    }

    /// Runs something on the room of a channel, if it is live.
    fn in_room(&mut self, node: usize, channel: Channel, f: impl FnOnce(&mut Room)) {
        let it = &mut self.nodes[node];
        if let Some(document) = it.channels.get(&channel).cloned()
            && let Some(room) = it.rooms.get_mut(&document)
        {
            f(room);
            self.perform_room(node, &document);
        }
    }

    fn join(&mut self, session: SessionId, node: usize, join: JoinRequest) {
        let now = self.now;
        let JoinRequest {
            document, mut open, ..
        } = join;
        self.room(node, &document);
        let it = &mut self.nodes[node];
        let Some(link) = self.links.get_mut(&session) else {
            return;
        };
        if it.doubts.concern(link.asked_at, &open.user, &document) {
            // What was said may not be so any more: the room asks again before it goes by that.
            open.valid_until = Some(now);
        }
        let room = it.rooms.get_mut(&document).unwrap();
        let channel = room.channel();
        room.handle_open(now, session, open).unwrap();
        link.rooms.retain(|_, known| *known != document);
        link.rooms.insert(channel, document.clone());
        link.session.handle_joined(now, document.clone(), channel);
        self.perform_room(node, &document);
        self.start_polling(node);
    }

    fn heads(&mut self, session: SessionId, nonce: u64) {
        self.pings += 1;
        let Some(link) = self.links.get_mut(&session) else {
            return;
        };
        let rooms = &self.nodes[link.node].rooms;
        let head = |(channel, document): (&Channel, &DocumentId)| {
            let room = rooms.get(document)?;
            Some((*channel, room.head_for(session)?))
        };
        let heads: Vec<(Channel, Seq)> = link.rooms.iter().filter_map(head).collect();
        link.session.handle_heads(self.now, nonce, heads);
    }

    /// Protocol 6.2.
    fn take_over(&mut self, owner: (OriginId, User), connection: u64, session: SessionId) {
        let Some(link) = self.links.get(&session) else {
            return;
        };
        let owners = &mut self.nodes[link.node].owners;
        let older = match owners.get(&owner).copied() {
            Some((theirs, _)) if theirs > connection => session,
            other => {
                owners.insert(owner, (connection, session));
                let Some((_, older)) = other else { return };
                older
            }
        };
        self.supersede(older);
    }

    /// Has a session end because its client has another one. It hears of that like everything else that others leave for it:
    /// a moment later, and before it reads anything more.
    pub(super) fn supersede(&mut self, session: SessionId) {
        let error = PeerError::new(ErrorCode::Superseded, "a newer connection took over");
        self.end_soon(session, error);
    }

    /// Has a session end for this reason.
    pub(super) fn end_soon(&mut self, session: SessionId, reason: PeerError) {
        let at = self.now + self.rng.up_to(Duration::from_micros(200));
        if let Some(link) = self.links.get_mut(&session) {
            link.ends.get_or_insert((at, reason));
        }
        self.schedule(Some(at), Target::Link(session));
    }
}
