//! How a node writes to a connection: the session's own answers first, then what rooms have, in turns, and no more than the
//! connection takes. As `sync_server`'s connections do.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use sync_core::engine::{Engine, Validator};
use sync_core::error::ErrorCode;
use sync_core::ids::{Channel, DocumentId, SessionId};
use sync_core::server::{Allowance, MemberOutput, Occupied, Room};
use sync_core::time::Time;

use super::links::Down;
use super::{Target, World};

/// Bytes handed over before it is asked again whether the connection takes more.
const WRITE_BYTES: usize = 16 * 1024;
/// Bytes of the session's own answers beyond which nothing is read.
const ANSWERS_BYTES_MAX: usize = 256 * 1024;
/// How long the last frames and the goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What waits to be written to a connection.
#[derive(Debug, Default)]
pub(super) struct Writer {
    answers: VecDeque<Bytes>,
    answers_bytes: usize,
    /// Rooms that have something; each gets its turn.
    ready: VecDeque<DocumentId>,
    /// Which of them is sending a message of several frames.
    in_message: Option<Channel>,
    /// Those that are reading the log for the session, or have rows of it in memory.
    catching_up: BTreeSet<Channel>,
    /// Rooms that may be waiting for leave to do either.
    held: BTreeMap<Channel, DocumentId>,
    /// The session has ended: the goodbye, and by when it has to be out.
    closing: Option<(u16, Time)>,
}

impl Writer {
    /// Whether frames of the client are read.
    pub(super) const fn takes_frames(&self) -> bool {
        self.answers_bytes <= ANSWERS_BYTES_MAX && self.closing.is_none()
    }

    /// When a connection that is being closed is given up.
    pub(super) fn closes_by(&self) -> Option<Time> {
        self.closing.map(|(_, at)| at)
    }

    /// Bytes that wait.
    pub(super) const fn bytes(&self) -> usize {
        self.answers_bytes
    }

    pub(super) fn answer(&mut self, frame: Bytes) {
        self.answers_bytes += frame.len();
        self.answers.push_back(frame);
    }

    pub(super) fn close(&mut self, now: Time, code: u16) {
        self.closing = Some((code, now + CLOSE_TIMEOUT));
        self.ready.clear();
    }

    pub(super) fn ready(&mut self, document: &DocumentId) {
        if self.closing.is_none() && !self.ready.contains(document) {
            self.ready.push_back(document.clone());
        }
    }

    /// The session has left a room.
    pub(super) fn forget(&mut self, channel: Channel, document: &DocumentId) {
        self.ready.retain(|ready| ready != document);
        self.held.remove(&channel);
        self.note(channel, None);
    }

    /// Notes what a room has under way for the session, if it is still there; others may go on when it is done.
    fn note(&mut self, channel: Channel, occupied: Option<Occupied>) {
        let was_in_message = self.in_message == Some(channel);
        let in_message = occupied.is_some_and(|occupied| occupied.in_message);
        if in_message {
            self.in_message = Some(channel);
        } else if was_in_message {
            self.in_message = None;
        }
        let catching_up = occupied.is_some_and(|occupied| occupied.catching_up);
        let was_catching_up = if catching_up {
            !self.catching_up.insert(channel)
        } else {
            self.catching_up.remove(&channel)
        };
        if (was_in_message && !in_message) || (was_catching_up && !catching_up) {
            for document in std::mem::take(&mut self.held).into_values() {
                self.ready(&document);
            }
        }
    }

    fn allowance(&self, channel: Channel, reads_max: usize) -> Allowance {
        Allowance {
            large: self.in_message.is_none_or(|sending| sending == channel),
            read: self.catching_up.len() < reads_max,
        }
    }
}

impl<E: Engine + Validator> World<E> {
    /// Hands frames to the connection while it takes them.
    pub(super) fn write(&mut self, session: SessionId) {
        loop {
            let buffer = self.weather.buffer_bytes;
            let Some(link) = self.links.get_mut(&session).filter(|link| link.has_server) else {
                return;
            };
            if link.down_bytes > buffer {
                return;
            }
            let mut bytes = 0;
            let mut frames = Vec::new();
            while bytes < WRITE_BYTES
                && let Some(frame) = link.writer.answers.pop_front()
            {
                bytes += frame.len();
                link.writer.answers_bytes -= frame.len();
                frames.push(frame);
            }
            let room = (bytes < WRITE_BYTES)
                .then(|| link.writer.ready.pop_front())
                .flatten();
            let is_idle = frames.is_empty() && room.is_none();
            for frame in frames {
                self.put_down(session, Down::Frame(frame));
            }
            if let Some(document) = room {
                self.write_room(session, &document, WRITE_BYTES - bytes);
            }
            if is_idle {
                return self.close_if_written(session);
            }
        }
    }

    fn close_if_written(&mut self, session: SessionId) {
        let link = self.links.get(&session);
        if link.is_some_and(|link| link.writer.closing.is_some()) {
            self.finish_close(session);
        }
    }

    /// Says goodbye, whether it is heard or not, and leaves.
    pub(super) fn finish_close(&mut self, session: SessionId) {
        let Some(link) = self.links.get_mut(&session) else {
            return;
        };
        let code = link.writer.closing.take().map(|(code, _)| code);
        let was_superseded = link.ended_by == Some(ErrorCode::Superseded);
        self.put_down(session, Down::Close(code));
        self.leave_link(session, was_superseded);
    }

    /// Hands over some frames of one room, and puts the room at the end of the line if it has more.
    fn write_room(&mut self, session: SessionId, document: &DocumentId, bytes_max: usize) {
        let now = self.now;
        let reads_max = (self.limits.catch_up_bytes_max / self.catch_up_bytes.max(1)).max(1);
        let Some(link) = self.links.get_mut(&session) else {
            return;
        };
        let node = link.node;
        let Some(room) = self.nodes[node].rooms.get_mut(document) else {
            return;
        };
        let channel = room.channel();
        let allowance = link.writer.allowance(channel, reads_max);
        let (outputs, has_more, occupied) = poll(room, now, session, bytes_max, allowance);
        for output in outputs {
            let Some(link) = self.links.get_mut(&session) else {
                break;
            };
            match output {
                MemberOutput::Frame(frame) => self.put_down(session, Down::Frame(frame)),
                MemberOutput::Settled(charge) => link.session.handle_settled(charge),
                MemberOutput::Left => {
                    link.rooms.remove(&channel);
                    link.session.handle_left(now, channel);
                    link.writer.forget(channel, document);
                }
                _ => {}
            }
        }
        if let Some(link) = self.links.get_mut(&session) {
            link.writer.note(channel, Some(occupied));
            if has_more || allowance != link.writer.allowance(channel, reads_max) {
                link.writer.ready(document);
            } else if allowance != Allowance::ALL {
                link.writer.held.insert(channel, document.clone());
            }
        }
        self.perform_room(node, document);
        self.perform_session(session);
    }

    /// A room has something for a session.
    pub(super) fn wake(&mut self, session: SessionId, document: &DocumentId) {
        if let Some(link) = self.links.get_mut(&session).filter(|link| link.has_server) {
            link.writer.ready(document);
            self.schedule(Some(self.now), Target::Link(session));
        }
    }
}

/// Takes what the room has for a session, up to about so many bytes; whether there may be more, and what is under way.
fn poll(
    room: &mut Room,
    now: Time,
    session: SessionId,
    bytes_max: usize,
    allowance: Allowance,
) -> (Vec<MemberOutput>, bool, Occupied) {
    let (mut outputs, mut bytes) = (Vec::new(), 0);
    while bytes < bytes_max {
        let Some(output) = room.poll_member_within(now, session, allowance) else {
            return (outputs, false, room.occupied(session));
        };
        if let MemberOutput::Frame(frame) = &output {
            bytes += frame.len();
        }
        outputs.push(output);
    }
    (outputs, true, room.occupied(session))
}
