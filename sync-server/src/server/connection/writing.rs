//! Writing: the session's own answers first, then what rooms have, in turns.

use std::sync::Arc;
use std::task::Context;

use bytes::Bytes;
use sync_core::ids::Channel;
use sync_core::server::{Allowance, MemberOutput, Occupied};
use sync_core::time::Time;
use sync_core::transport::{Transport, TransportError};

use super::{Connection, RoomHandle};

/// Bytes handed to the transport before it is asked again whether it takes more.
const WRITE_BYTES: usize = 16 * 1024;

impl<T: Transport> Connection<T> {
    /// Hands frames to the transport while it takes them; true if any were.
    pub(super) fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, TransportError> {
        let mut wrote = false;
        let now = self.server.clock.now();
        while !self.answers.is_empty() || (!self.ready.is_empty() && self.may_serve(now)) {
            if self.transport.poll_ready(cx)?.is_pending() {
                return Ok(wrote);
            }
            let mut bytes = 0;
            while bytes < WRITE_BYTES
                && let Some(frame) = self.answers.pop_front()
            {
                bytes += frame.len();
                self.answers_bytes -= frame.len();
                self.send(frame)?;
            }
            if bytes < WRITE_BYTES
                && self.may_serve(now)
                && let Some(room) = self.ready.pop_front()
            {
                self.write_room(room, WRITE_BYTES - bytes)?;
            }
            wrote = true;
        }
        let paced = self.paced(now);
        if paced != self.paced_until {
            self.paced_until = paced;
            // Once more, for the timer.
            wrote |= paced.is_some();
        }
        if !self.is_flushed && self.transport.poll_flush(cx)?.is_ready() {
            self.is_flushed = true;
        }
        Ok(wrote)
    }

    /// When something may be served again that may not be now.
    fn paced(&self, now: Time) -> Option<Time> {
        if self.ready.is_empty() || self.closing.is_some() || self.may_serve(now) {
            return None;
        }
        self.mailbox.budget().map(|budget| budget.serves_at())
    }

    /// Hands some frames of one room to the transport, and puts the room at the end of the line if it has more.
    fn write_room(
        &mut self,
        room: Arc<RoomHandle>,
        bytes_max: usize,
    ) -> Result<(), TransportError> {
        let mut polled = std::mem::take(&mut self.polled);
        let channel = room.channel();
        let allowance = self.allowance(channel);
        let (has_more, occupied) = room.poll(self.session.id(), bytes_max, allowance, &mut polled);
        let mut bytes = 0;
        for output in polled.drain(..) {
            match output {
                MemberOutput::Frame(frame) => {
                    bytes += frame.len();
                    self.send(frame)?;
                }
                MemberOutput::Settled(charge) => self.session.handle_settled(charge),
                MemberOutput::Left => {
                    let now = self.server.clock.now();
                    self.session.handle_left(now, room.channel());
                    self.rooms.remove(&room.channel());
                    self.closed(&room);
                }
                _ => {}
            }
        }
        self.polled = polled;
        if let Some(budget) = self.mailbox.budget().filter(|_| bytes > 0) {
            budget.serve(self.server.clock.now(), bytes);
        }
        self.note(channel, Some(occupied));
        if has_more {
            self.ready.push_back(room);
        } else if allowance != self.allowance(channel) {
            // It has made room itself, and gets in line for that.
            self.ready.push_back(room);
        } else if allowance != Allowance::ALL {
            self.held.insert(channel, room);
        }
        Ok(())
    }

    /// What a room may do for this session now.
    fn allowance(&self, channel: Channel) -> Allowance {
        let config = &self.server.room_config;
        let at_once = config.limits.catch_up_bytes_max / config.catch_up_bytes.max(1);
        Allowance {
            large: self.in_message.is_none_or(|sending| sending == channel),
            read: self.catching_up.len() < at_once.max(1),
        }
    }

    /// Notes what a room has under way for this session, if it is still there; others may go on when it is done.
    pub(super) fn note(&mut self, channel: Channel, occupied: Option<Occupied>) {
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
            self.ready
                .extend(std::mem::take(&mut self.held).into_values());
        }
    }

    fn send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        self.is_flushed = false;
        self.mailbox.traffic.sent(frame.len());
        self.transport.start_send(frame)
    }
}
