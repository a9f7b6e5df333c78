//! Broadcasts and extension messages: sent to whoever has the document open now, and kept for nobody else
//! (`docs/protocol.md` section 7.5).

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::member::{Member, MemberState};
use super::ring::{Encoded, Ring, Sending};
use super::stream::Need;
use super::{Allowance, MemberOutput, Room, RoomEvent};
use crate::error::{ErrorCode, PeerError};
use crate::history::Seq;
use crate::ids::{Channel, SessionId};
use crate::limits::BROADCAST_CHARGE_MIN;
use crate::wire::{
    AccessLevel, Broadcast, Compression, ErrorMessage, Extension, Message, Reference, encode_frame,
};

/// What waits for one member. The frames are shared with all others that have yet to send them.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting {
    frames: VecDeque<Arc<Encoded>>,
    charge: usize,
    /// Dropped since the member was told last.
    missed: u64,
    /// The message being sent.
    sending: Option<Sending>,
    /// The member's last frame was one of these: its stream is next.
    was_last: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.missed == 0 && self.sending.is_none()
    }

    pub(super) const fn is_in_message(&self) -> bool {
        self.sending.is_some()
    }

    pub(super) fn frames(&self) -> impl Iterator<Item = &Arc<Encoded>> {
        self.frames.iter()
    }

    pub(super) const fn missed(&self) -> u64 {
        self.missed
    }

    /// Adds a frame, and drops the oldest where it does not fit. The newest always stays.
    fn push(&mut self, frame: Arc<Encoded>, bytes_max: usize) {
        self.charge = self.charge.saturating_add(charge(&frame));
        self.frames.push_back(frame);
        while self.charge > bytes_max && self.frames.len() > 1 {
            self.pop();
            self.missed = self.missed.saturating_add(1);
        }
    }

    fn pop(&mut self) {
        if let Some(frame) = self.frames.pop_front() {
            self.charge = self.charge.saturating_sub(charge(&frame));
        }
    }
}

fn charge(frame: &Encoded) -> usize {
    frame.len().max(BROADCAST_CHARGE_MIN)
}

impl Room {
    /// Takes a broadcast of a session and hands it to all others, with the name of who sent it. The session is told if
    /// it may not.
    pub fn handle_broadcast(&mut self, session: SessionId, broadcast: Broadcast) {
        if let Err(error) = self.may_broadcast(session) {
            return self.refuse_broadcast(session, error);
        }
        let Some(member) = self.members.get(&session) else {
            return;
        };
        let user = member.open.user.id.to_string();
        let message = Message::Broadcast(Broadcast {
            channel: self.channel,
            sender: Some((session, user)),
            missed: 0,
            ..broadcast
        });
        self.send_to_all(&message, Some(session));
    }

    /// Tells a session that a broadcast of its was not sent. The channel stays as it is.
    pub fn refuse_broadcast(&mut self, session: SessionId, error: PeerError) {
        let error = ErrorMessage::new(error, Reference::Channel(self.channel));
        self.prompt(session, &Message::Error(error));
    }

    /// Whether a session may broadcast here: it must be allowed to write.
    ///
    /// # Errors
    /// What to tell the session.
    pub fn may_broadcast(&self, session: SessionId) -> Result<(), PeerError> {
        let member = self.members.get(&session);
        if member.is_some_and(|member| member.permit.is_stopped()) {
            return Err(PeerError::new(
                ErrorCode::BroadcastUnavailable,
                "it is not known now who may broadcast",
            ));
        }
        if member.is_some_and(|member| member.announced && member.open.access >= AccessLevel::Write)
        {
            return Ok(());
        }
        Err(PeerError::new(
            ErrorCode::BroadcastRefused,
            "broadcasts are for those who may write",
        ))
    }

    /// Sends a broadcast of the server itself. To how many sessions.
    pub fn broadcast(&mut self, topic: String, bytes: Bytes) -> usize {
        let message = Message::Broadcast(Broadcast {
            channel: self.channel,
            topic,
            bytes,
            sender: None,
            missed: 0,
        });
        self.send_to_all(&message, None)
    }

    /// Sends an extension message about the document. To how many sessions.
    pub fn extend(&mut self, kind: u8, bytes: Bytes) -> usize {
        let message = Message::Extension(Extension {
            kind,
            channel: Some(self.channel),
            bytes,
        });
        self.send_to_all(&message, None)
    }

    /// Encodes a message once, for everybody who has the document open but for its sender.
    fn send_to_all(&mut self, message: &Message, sender: Option<SessionId>) -> usize {
        let id = self.fragmented_id();
        let frame = encode_frame(message, Compression::None);
        let bytes = frame.len();
        let frame = Arc::new(Encoded::new(self.channel, id, frame));
        let bytes_max = self.config.limits.broadcast_queue_bytes_max;
        let mut recipients = Vec::new();
        for (session, member) in &mut self.members {
            let is_here = member.announced && !matches!(member.state, MemberState::Ended);
            if is_here && Some(*session) != sender {
                member.waiting.push(Arc::clone(&frame), bytes_max);
                recipients.push(*session);
            }
        }
        let n_recipients = recipients.len();
        for session in recipients {
            self.wake(session);
        }
        if matches!(message, Message::Broadcast(_)) {
            self.event(RoomEvent::Broadcast {
                sender,
                bytes,
                n_recipients,
            });
        }
        n_recipients
    }
}

impl Member {
    /// The next frame: of the stream, or one of those that wait. They take turns, so that neither holds up the other.
    pub(super) fn poll(
        &mut self,
        channel: Channel,
        session: SessionId,
        head: Seq,
        ring: &Ring,
        allowance: Allowance,
    ) -> Result<MemberOutput, Need> {
        let must_wait = self.has_prompt()
            || self.permit.is_stopped()
            || matches!(self.state, MemberState::Ended);
        if self.waiting.is_empty() || must_wait {
            return self.poll_stream(channel, session, head, ring, allowance);
        }
        if !std::mem::take(&mut self.waiting.was_last)
            && let Some(frame) = self.next_waiting(channel, allowance)
        {
            return Ok(MemberOutput::Frame(frame));
        }
        let large = allowance.large && !self.waiting.is_in_message();
        let within = Allowance { large, ..allowance };
        self.poll_stream(channel, session, head, ring, within)
            .or_else(|need| {
                let frame = self.next_waiting(channel, allowance).ok_or(need)?;
                Ok(MemberOutput::Frame(frame))
            })
    }

    fn next_waiting(&mut self, channel: Channel, allowance: Allowance) -> Option<Bytes> {
        let compression = self.compression();
        let is_stream_in_message = self.begun_message().is_some();
        let waiting = &mut self.waiting;
        let mut sending = if let Some(sending) = waiting.sending.take() {
            sending
        } else if waiting.missed > 0 {
            waiting.was_last = true;
            let told = Message::Broadcast(Broadcast {
                channel,
                topic: String::new(),
                bytes: Bytes::new(),
                sender: None,
                missed: std::mem::take(&mut waiting.missed),
            });
            return Some(encode_frame(&told, Compression::None));
        } else {
            let sending = waiting.frames.front()?.send(compression);
            if !sending.is_single() && (!allowance.large || is_stream_in_message) {
                return None;
            }
            waiting.pop();
            sending
        };
        waiting.was_last = true;
        let frame = sending.next();
        if !sending.is_done() {
            waiting.sending = Some(sending);
        }
        frame
    }
}
