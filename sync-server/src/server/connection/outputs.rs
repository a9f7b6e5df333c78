//! What the session wants done.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use sync_core::ids::{DocumentId, RequestId, User};
use sync_core::server::{JoinRequest, SessionEvent, SessionOutput};
use sync_core::transport::Transport;
use sync_core::wire::AccessLevel;
use tokio::time::Instant;

use super::super::admission::network;
use super::super::budget::Payer;
use super::super::statistics::SessionInfo;
use super::{Answer, Closing, Connection};
use crate::auth::ConnectRequest;
use crate::event::ServerEvent;

/// How long the last frames and the goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

impl<T: Transport> Connection<T> {
    /// Does what the session wants.
    pub(super) fn carry_out(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                SessionOutput::Send(frame) => {
                    self.answers_bytes += frame.len();
                    self.answers.push_back(frame);
                }
                SessionOutput::Authenticate(request) => {
                    let mut connect = ConnectRequest::new(self.peer.clone());
                    connect.origin = Some(request.origin);
                    connect.credentials = request.credentials;
                    connect.software = request.software;
                    self.authenticate(connect);
                }
                SessionOutput::Authorize { request, document } => {
                    self.authorize(request, document);
                }
                SessionOutput::Join(join) => self.join(&join),
                SessionOutput::Push(push) => {
                    if let Some(room) = self.rooms.get(&push.channel) {
                        room.push(self.session.id(), push);
                    }
                }
                SessionOutput::StopPush { channel, error } => {
                    if let Some(room) = self.rooms.get(&channel) {
                        room.stop_push(self.session.id(), error);
                    }
                }
                SessionOutput::Broadcast(broadcast) => {
                    if let Some(room) = self.rooms.get(&broadcast.channel) {
                        let room = Arc::clone(room);
                        self.broadcast(&room, broadcast);
                    }
                }
                SessionOutput::Extension {
                    kind,
                    channel,
                    document,
                    bytes,
                } => self.extension(kind, channel, document, bytes),
                SessionOutput::Presence { channel, state } => {
                    if let Some(room) = self.rooms.get(&channel) {
                        room.presence(self.session.id(), state);
                    }
                }
                SessionOutput::FoldOffer(offer) => {
                    if let Some(room) = self.rooms.get(&offer.channel) {
                        room.fold_offer(self.session.id(), offer);
                    }
                }
                SessionOutput::Leave(channel) => {
                    if let Some(room) = self.rooms.remove(&channel) {
                        self.closed(&room);
                        room.close(self.session.id());
                        self.ready.retain(|ready| !Arc::ptr_eq(ready, &room));
                        self.held.remove(&channel);
                        self.note(channel, None);
                    }
                }
                SessionOutput::Refreshed(user) => {
                    for room in self.rooms.values() {
                        room.user(self.session.id(), user.clone());
                    }
                    if let Some((_, theirs)) = &mut self.client {
                        *theirs = user;
                    }
                }
                SessionOutput::Heads { nonce } => {
                    let id = self.session.id();
                    let heads = self
                        .rooms
                        .iter()
                        .filter_map(|(channel, room)| Some((*channel, room.head_for(id)?)))
                        .collect();
                    self.session
                        .handle_heads(self.server.clock.now(), nonce, heads);
                }
                SessionOutput::Event(event) => self.tell(event),
                SessionOutput::Close { code, reason } => {
                    self.closing = Some(Closing {
                        code,
                        reason,
                        deadline: Instant::now() + CLOSE_TIMEOUT,
                    });
                }
                _ => {}
            }
        }
    }

    fn tell(&mut self, event: SessionEvent) {
        let session = self.session.id();
        let event = match event {
            SessionEvent::Opened {
                user,
                origin,
                connection,
            } => {
                let client = (origin, user.clone());
                self.client = Some(client.clone());
                let _ = self.mailbox.info.set(SessionInfo {
                    user: user.clone(),
                    origin,
                    peer: self.peer.clone(),
                    since: self.server.clock.now(),
                });
                let (now, payer) = (self.server.clock.now(), self.payer(&user));
                self.mailbox.set_budget(self.server.budgets.of(now, payer));
                self.server.take_over(session, client, connection);
                ServerEvent::SessionOpened {
                    session,
                    user,
                    peer: self.peer.clone(),
                }
            }
            SessionEvent::ProtocolError(error) => {
                tracing::debug!(%session, peer = %self.peer, %error, "a client broke the protocol");
                ServerEvent::ProtocolError { session, error }
            }
            SessionEvent::Ignored { message } => ServerEvent::MessageIgnored { session, message },
            SessionEvent::ErrorSent(code) => return self.server.count_error(code),
            SessionEvent::PeerReported(error) => {
                let (code, message) = (error.code, error.message);
                tracing::warn!(%session, peer = %self.peer, %code, message, "a client complains");
                return;
            }
            _ => return,
        };
        self.server.events.send(event);
    }

    fn payer(&self, user: &User) -> Payer {
        if !self.is_anonymous {
            return Payer::User(user.clone());
        }
        network(&self.peer).map_or(Payer::Session(self.session.id()), Payer::Address)
    }

    fn authenticate(&mut self, request: ConnectRequest) {
        let server = Arc::clone(&self.server);
        let call = if self.client.is_none() {
            // The session gives up by itself when this takes too long.
            self.connect(request).map(Answer::Authenticated).boxed()
        } else {
            let asked = server.identify_in_time(request);
            asked.map(Answer::Authenticated).boxed()
        };
        self.calls.push(call);
    }

    fn authorize(&self, request: RequestId, document: DocumentId) {
        let Some((_, user)) = self.client.clone() else {
            return;
        };
        let asked_at = self.server.doubts.count();
        let (server, session) = (Arc::clone(&self.server), self.session.id());
        let call = async move {
            let asked = Arc::clone(&server).ask_access(user.clone(), document.clone());
            let mut answer = asked.await;
            if let Ok(grant) = answer
                && grant.level > AccessLevel::None
                && let Err(error) = server
                    .ask_open(&user, session, &document, grant.level)
                    .await
            {
                answer = Err(error);
            }
            Answer::Authorized(request, asked_at, answer)
        };
        self.calls.push(call.boxed());
    }

    fn join(&mut self, join: &JoinRequest) {
        if let Some(line) = &mut self.line {
            line.opened(join.document.clone());
        }
        let server = &self.server;
        let room = server.join(&join.document, &self.mailbox, &join.open, self.asked_at);
        let now = self.server.clock.now();
        self.session
            .handle_joined(now, join.document.clone(), room.channel());
        self.rooms.insert(room.channel(), room);
    }
}
