//! What the server says, and whom it concerns.

use super::ephemeral::Buckets;
use super::{ClientState, Link, Output, SESSION_CHANNEL, presence};
use crate::client::document::{DocumentState, Turn};
use crate::client::event::{ClientEvent, EndReason, FailedReason};
use crate::error::{Action, ErrorCode, PeerError};
use crate::ids::Channel;
use crate::rng::Rng;
use crate::time::Time;
use crate::wire::{Close, ErrorMessage, Message, Reference, Welcome};

impl ClientState {
    pub(super) fn handle_welcome(&mut self, now: Time, welcome: &Welcome) {
        self.server_clock = Some((now, welcome.server_time_ms));
        let Link::Up(up) = &mut self.link else { return };
        up.welcomed = Some(welcome.limits);
        up.buckets = Buckets::new(&welcome.limits);
        up.presences = presence::rate(&welcome.limits);
        self.welcome_presence(welcome);
        self.due.extend(self.documents.keys().cloned());
        self.event(ClientEvent::SessionStarted {
            session: welcome.session,
        });
        self.tell_status();
    }

    pub(super) fn handle_message(&mut self, now: Time, message: Message) {
        match message {
            Message::Opened(opened) => {
                let Link::Up(up) = &mut self.link else { return };
                let Some(document) = up.requests.get(&opened.request).cloned() else {
                    return;
                };
                if !self.documents.contains_key(&document) {
                    // Closed meanwhile, with nothing to deliver.
                    up.requests.remove(&opened.request);
                    self.healthy();
                    let channel = opened.channel;
                    return self.send(&Message::Close(Close { channel }), channel, false);
                }
                if opened.next != crate::wire::Continuation::Wait {
                    up.requests.remove(&opened.request);
                    up.channels.insert(opened.channel, document.clone());
                }
                self.healthy();
                let access = opened.access;
                let opened = self.turn(now, &document, |state, rng, turn| {
                    state.handle_opened(opened, rng, turn)
                });
                if opened == Some(true) {
                    self.event(ClientEvent::DocumentOpened { document, access });
                }
            }
            Message::Changes(changes) => {
                self.on_channel(now, changes.channel, |state, rng, turn| {
                    state.handle_changes(now, changes, rng, turn);
                })
            }
            Message::Ack(ack) => {
                self.on_channel(now, ack.channel, |state, rng, turn| {
                    state.handle_ack(now, ack, rng, turn)
                });
            }
            Message::Author(author) => self.on_channel(now, author.channel, |state, _, _| {
                state.handle_author(author.origin, author.author);
            }),
            Message::Refuse(refuse) => {
                self.on_channel(now, refuse.channel, |state, _, turn| {
                    state.handle_refuse(refuse, turn)
                });
            }
            Message::Snapshot(snapshot) => {
                self.on_channel(now, snapshot.channel, |state, rng, turn| {
                    state.handle_snapshot(now, snapshot, rng, turn);
                })
            }
            Message::Access(access) => self.on_channel(now, access.channel, |state, _, turn| {
                state.handle_access(access.access, turn);
            }),
            Message::Closed(closed) => self.on_channel(now, closed.channel, |state, rng, turn| {
                state.handle_closed(now, closed.reason, rng, turn);
            }),
            Message::Pong(pong) => {
                if pong.heads.is_empty() {
                    self.healthy();
                }
                for (channel, head) in pong.heads {
                    self.on_channel(now, channel, |state, _, turn| state.handle_head(head, turn));
                }
            }
            Message::Ping(ping) => {
                let pong = Message::Pong(crate::wire::Pong {
                    nonce: ping.nonce,
                    heads: Vec::new(),
                });
                self.send(&pong, Channel(0), true);
            }
            Message::GoAway(go_away) => {
                let reconnect_in = self.rng.up_to(go_away.reconnect_within);
                if let Link::Up(up) = &mut self.link {
                    up.leave_at = Some(now + reconnect_in);
                }
                self.event(ClientEvent::GoingAway { reconnect_in });
            }
            Message::Error(error) => self.handle_error(now, error),
            Message::Auth(_) if self.config.refreshes => {
                self.outputs.push_back(Output::Credentials);
            }
            // The same ones again would not help: the server ends the session when they do.
            Message::Auth(_) => {}
            Message::Ignored { kind } => self.event(ClientEvent::Ignored { kind }),
            Message::Extension(extension) => self.on_extension(extension),
            Message::Broadcast(broadcast) => self.on_broadcast(broadcast),
            Message::FoldRequest(request) => {
                let Link::Up(up) = &self.link else { return };
                let max = up.welcomed.map_or(0, |limits| limits.message_bytes_max);
                self.on_channel(now, request.channel, |state, _, turn| {
                    state.handle_fold_request(request.seq, max, turn);
                });
            }
            Message::Presence(presence) => self.handle_presence(presence),
            message @ (Message::Hello(_)
            | Message::Welcome(_)
            | Message::Open(_)
            | Message::Push(_)
            | Message::FoldOffer(_)
            | Message::Close(_)
            | Message::Fragment(_)) => {
                let what = format!("{} is not for a client", message.name());
                self.protocol_error(now, PeerError::new(ErrorCode::UnexpectedMessage, what));
            }
        }
    }

    pub(super) fn handle_error(&mut self, now: Time, message: ErrorMessage) {
        let mut error = PeerError::new(message.code, message.message);
        error.retry_after = message.retry_after;
        let action = message.action;
        match message.reference {
            Reference::Session => self.session_error(now, error, action),
            Reference::Request(request) => {
                let Link::Up(up) = &mut self.link else { return };
                let Some(document) = up.requests.remove(&request) else {
                    return;
                };
                self.turn(now, &document, |state, rng, turn| {
                    state.handle_request_error(now, &error, action, rng, turn);
                });
                self.event(ClientEvent::DocumentError { document, error });
            }
            Reference::Channel(channel) | Reference::Change(channel, _) => {
                let Link::Up(up) = &self.link else { return };
                if channel == SESSION_CHANNEL {
                    return self.event(ClientEvent::SessionError { error });
                }
                let Some(document) = up.channels.get(&channel).cloned() else {
                    return;
                };
                self.handle_presence_error(now, channel, &error);
                if !error.code.leaves_channel_open() {
                    self.on_channel(now, channel, |state, rng, turn| {
                        state.handle_channel_error(now, &error, action, rng, turn);
                    });
                }
                self.event(ClientEvent::DocumentError { document, error });
            }
        }
    }

    pub(super) fn session_error(&mut self, now: Time, error: PeerError, action: Action) {
        let code = error.code.close_code();
        let retry_after = error.retry_after;
        self.end(EndReason::Server(error.clone()), code);
        match action {
            Action::RefreshAuth if self.config.refreshes => {
                self.wait(now, retry_after.unwrap_or_default());
            }
            Action::Retry | Action::Resync => {
                self.wait(now, retry_after.unwrap_or_default());
            }
            Action::RefreshAuth | Action::Refuse | Action::Upgrade | Action::Stop => {
                let reason = match error.code {
                    ErrorCode::Superseded => FailedReason::Superseded,
                    _ => FailedReason::Server(error),
                };
                self.forget_presence();
                self.set_link(Link::Failed(reason));
            }
        }
    }

    /// Only a session that has got as far as a document resets the backoff: a server that accepts and then fails would be
    /// stormed otherwise.
    pub(super) fn healthy(&mut self) {
        if matches!(self.link, Link::Up(_)) {
            self.backoff.reset();
        }
    }

    pub(super) fn on_channel(
        &mut self,
        now: Time,
        channel: Channel,
        f: impl FnOnce(&mut DocumentState, &mut Rng, &mut Turn),
    ) {
        let Link::Up(up) = &self.link else { return };
        // A channel that we have left: what arrives was sent before the server knew.
        let Some(document) = up.channels.get(&channel).cloned() else {
            return;
        };
        self.turn(now, &document, f);
    }
}
