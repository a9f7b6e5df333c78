//! The connections of a world: frames on their way, and what each end knows of the other.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use sync_core::client::AttemptId;
use sync_core::engine::{Engine, Validator};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::ids::{Channel, DocumentId, SessionId};
use sync_core::server::ServerSession;
use sync_core::time::Time;
use sync_core::wire::{Message, decode_frame};

use super::writing::Writer;
use super::{Target, World};

/// A connection. It is there until both ends have let go of it: a client may hold on to one whose server is long gone.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: usize,
    pub(super) node: usize,
    pub(super) attempt: AttemptId,
    pub(super) session: ServerSession,
    pub(super) writer: Writer,
    /// What the session has open.
    pub(super) rooms: BTreeMap<Channel, DocumentId>,
    pub(super) up: VecDeque<(Time, Up)>,
    pub(super) down: VecDeque<(Time, Down)>,
    /// Bytes of those.
    pub(super) down_bytes: usize,
    pub(super) has_client: bool,
    pub(super) has_server: bool,
    /// Why the session has ended, if it has.
    pub(super) ended_by: Option<ErrorCode>,
    /// When the server notices that the client is gone, which has not said so.
    pub(super) lost_at: Option<Time>,
    /// What others have the session end with, and when it hears of that.
    pub(super) ends: Option<(Time, PeerError)>,
    /// Nothing arrives any more that is sent one way, or the other.
    pub(super) is_deaf: Deaf,
    /// The client reads nothing before.
    pub(super) reads_at: Time,
    /// Each frame arrives so much later than the one before it.
    pub(super) trickle: Duration,
    /// Breaks when a part of a message has arrived at either end and the rest has not.
    pub(super) breaks_in_message: bool,
    /// What the doubts of its node were when the last answer was asked for that an open waited for.
    pub(super) asked_at: u64,
}

/// Which ends of a connection hear nothing any more.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Deaf {
    pub(super) server: bool,
    pub(super) client: bool,
}

/// On its way to the server.
#[derive(Debug)]
pub(super) enum Up {
    Frame(Bytes),
    /// The client closes the connection with this code.
    Close(u16),
}

/// On its way to the client.
#[derive(Debug)]
pub(super) enum Down {
    Frame(Bytes),
    /// The server closes the connection; without a code if its process is gone.
    Close(Option<u16>),
}

impl Link {
    /// When something happens by itself.
    fn next_time(&self) -> Option<Time> {
        let up = self.up.front().map(|(at, _)| *at);
        let down = self.down.front().map(|(at, _)| (*at).max(self.reads_at));
        let mut next = down.filter(|_| self.has_client && !self.is_deaf.client);
        if self.has_server {
            let ends = self.ends.as_ref().map(|(at, _)| *at);
            let times = [
                next,
                up.filter(|_| self.writer.takes_frames()),
                self.lost_at,
                ends,
                self.session.poll_timeout(),
                self.writer.closes_by(),
            ];
            next = times.into_iter().flatten().min();
        }
        next
    }
}

impl<E: Engine + Validator> World<E> {
    pub(super) fn run_link(&mut self, session: SessionId) {
        self.run_server_end(session);
        self.deliver_down(session);
        self.write(session);
        self.schedule_link(session);
    }

    fn run_server_end(&mut self, session: SessionId) {
        let now = self.now;
        let Some(link) = self.links.get_mut(&session).filter(|link| link.has_server) else {
            return;
        };
        if let Some((_, reason)) = link.ends.take_if(|(at, _)| *at <= now) {
            link.session.handle_end(now, reason);
            self.perform_session(session);
        }
        while let Some(link) = self.links.get_mut(&session)
            && link.has_server
            && link.writer.takes_frames()
            && let Some((_, up)) = link.up.pop_front_if(|(at, _)| *at <= now)
        {
            match up {
                Up::Frame(frame) => {
                    let breaks = link.breaks_in_message && is_part(&frame);
                    link.session.handle_frame(now, frame);
                    self.perform_session(session);
                    if breaks {
                        self.break_link(session);
                    }
                }
                Up::Close(code) => self.leave_link(session, may_return(Some(code))),
            }
        }
        let Some(link) = self.links.get_mut(&session).filter(|link| link.has_server) else {
            return;
        };
        let timeout = link.session.poll_timeout();
        if link.lost_at.is_some_and(|at| at <= now) {
            self.leave_link(session, true);
        } else if link.writer.closes_by().is_some_and(|at| at <= now) {
            // It did not take the last frames; and it will see no goodbye either.
            self.finish_close(session);
        } else if timeout.is_some_and(|at| at <= now) {
            link.session.handle_timeout(now);
            self.perform_session(session);
        }
    }

    fn deliver_down(&mut self, session: SessionId) {
        let now = self.now;
        while let Some(link) = self.links.get_mut(&session)
            && link.has_client
            && !link.is_deaf.client
            && link.reads_at <= now
            && let Some((_, down)) = link.down.pop_front_if(|(at, _)| *at <= now)
        {
            let (client, attempt) = (link.client, link.attempt);
            match down {
                Down::Frame(frame) => {
                    link.down_bytes -= frame.len();
                    let breaks = link.breaks_in_message && is_part(&frame);
                    let state = &mut self.clients[client].state;
                    state.handle_frame(now, attempt, frame);
                    self.perform_client(client);
                    if breaks {
                        self.break_link(session);
                    }
                }
                Down::Close(code) => {
                    self.forget_client_end(session);
                    self.clients[client].link = None;
                    self.clients[client].state.handle_lost(now, attempt, code);
                    self.perform_client(client);
                }
            }
        }
    }

    /// A connection breaks in the middle of a message.
    fn break_link(&mut self, session: SessionId) {
        if let Some(link) = self.links.get_mut(&session)
            && std::mem::take(&mut link.breaks_in_message)
        {
            let client = link.client;
            self.count("fault", "cut in a message");
            self.cut(client);
        }
    }

    pub(super) fn schedule_link(&mut self, session: SessionId) {
        let next = self.links.get(&session).and_then(Link::next_time);
        self.schedule(next, Target::Link(session));
    }

    /// A frame of the client's.
    pub(super) fn send_up(&mut self, client: usize, attempt: AttemptId, frame: Bytes) {
        self.note_message("sent by clients", client, &frame, |traffic| &mut traffic.up);
        let Some(session) = self.clients[client].link else {
            return;
        };
        self.put_up(session, attempt, Up::Frame(frame));
    }

    pub(super) fn put_up(&mut self, session: SessionId, attempt: AttemptId, up: Up) {
        let found = self.links.get(&session);
        let Some(link) = found.filter(|link| link.attempt == attempt) else {
            return;
        };
        if link.is_deaf.server || !link.has_server {
            return;
        }
        let last = link.up.back().map(|(at, _)| *at);
        let at = self.arrival(last);
        if let Some(link) = self.links.get_mut(&session) {
            link.up.push_back((at, up));
        }
        self.schedule(Some(at), Target::Link(session));
    }

    /// A frame of the server's; or its goodbye, if there is none.
    pub(super) fn put_down(&mut self, session: SessionId, down: Down) {
        let Some(link) = self.links.get(&session).filter(|link| link.has_client) else {
            return;
        };
        let (client, trickle) = (link.client, link.trickle.max(self.trickle));
        let last = link.down.back().map(|(at, _)| *at + trickle);
        if let Down::Frame(frame) = &down {
            let frame = frame.clone();
            let message = self.note_message("sent by servers", client, &frame, |traffic| {
                &mut traffic.down
            });
            self.check_sent(client, &message);
            self.check_opened(session, &message);
        }
        let at = self.arrival(last);
        if let Some(link) = self.links.get_mut(&session) {
            if let Down::Frame(frame) = &down {
                link.down_bytes += frame.len();
            }
            link.down.push_back((at, down));
        }
        self.schedule(Some(at), Target::Link(session));
    }

    /// Looks at a message that is sent.
    fn note_message(
        &mut self,
        by: &'static str,
        client: usize,
        frame: &Bytes,
        kept: impl FnOnce(&mut super::Traffic) -> &mut Vec<Message>,
    ) -> Message {
        let message = decode_frame(frame.clone(), usize::MAX - 1).unwrap();
        self.count(by, message.name());
        if self.keeps_traffic {
            kept(&mut self.traffic[client]).push(message.clone());
        }
        message
    }

    /// Frames on one direction of one connection stay in order.
    fn arrival(&mut self, last: Option<Time>) -> Time {
        let at = self.soon(self.weather.delay_max);
        last.map_or(at, |last| at.max(last))
    }

    /// The client has nothing to do with the connection any more.
    pub(super) fn forget_client_end(&mut self, session: SessionId) {
        if let Some(link) = self.links.get_mut(&session) {
            link.has_client = false;
            link.down.clear();
            link.down_bytes = 0;
            if !link.has_server {
                self.links.remove(&session);
            }
        }
    }

    /// The server's end of a connection is gone: the session is out of its rooms. Others may go on seeing who it was for a
    /// while, in case it comes back.
    pub(super) fn leave_link(&mut self, session: SessionId, may_return: bool) {
        let Some(link) = self.links.get_mut(&session).filter(|link| link.has_server) else {
            return;
        };
        link.has_server = false;
        link.up.clear();
        link.writer = Writer::default();
        let (node, rooms) = (link.node, std::mem::take(&mut link.rooms));
        if !link.has_client {
            self.links.remove(&session);
        }
        let owners = &mut self.nodes[node].owners;
        owners.retain(|_, (_, owner)| *owner != session);
        for document in rooms.into_values() {
            if let Some(room) = self.nodes[node].rooms.get_mut(&document) {
                if may_return {
                    room.handle_lost(self.now, session);
                } else {
                    room.handle_close(self.now, session);
                }
                self.perform_room(node, &document);
            }
        }
    }
}

/// Whether a client that closes a connection with this code may be back soon, as the same to others: as the server has it.
fn may_return(code: Option<u16>) -> bool {
    !matches!(code, Some(1000 | 1001))
}

/// Whether this is a part of a message, and not the last.
fn is_part(frame: &Bytes) -> bool {
    match decode_frame(frame.clone(), usize::MAX - 1) {
        Ok(Message::Fragment(part)) => part.total > 0 && part.index + 1 < part.total,
        _ => false,
    }
}
