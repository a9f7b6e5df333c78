//! Members as a whole: waking them, prompt messages, stopping, ending and removing them.

use super::member::{Member, MemberState, Writing};
use super::{Room, RoomEvent, RoomOutput};
use crate::error::PeerError;
use crate::history::Seq;
use crate::ids::SessionId;
use crate::planted::Bug;
use crate::time::Time;
use crate::wire::{Closed, ErrorMessage, Message, Reference, abort_frame, encode_frame, split};

impl Room {
    pub(super) fn wake(&mut self, session: SessionId) {
        if let Some(member) = self.members.get_mut(&session)
            && !member.awake
        {
            member.awake = true;
            self.outputs.push_back(RoomOutput::Wake(session));
        }
    }

    /// Queues a message that waits for nothing.
    pub(super) fn prompt(&mut self, session: SessionId, message: &Message) {
        let compression = match self.members.get(&session) {
            Some(member) => member.compression(),
            None => return,
        };
        let id = self.fragmented_id();
        let frames = split(encode_frame(message, compression), self.channel, id);
        if let Some(member) = self.members.get_mut(&session) {
            member.prompt.extend(frames);
        }
        self.wake(session);
    }

    pub(super) fn live(&mut self, (session, generation): (SessionId, u32)) -> Option<&mut Member> {
        self.members
            .get_mut(&session)
            .filter(|member| member.generation == generation)
    }

    /// Forgets what a member was being sent, but for the frames that wait for nothing: `Opened` is among them.
    pub(super) fn reset_member(&mut self, session: SessionId) {
        let channel = self.channel;
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        if let Some(id) = member.begun_message() {
            member.abort = Some(abort_frame(channel, id));
        }
        member.settled = member.take_unsettled();
        member.writing = Writing::Closed;
        member.origins.clear();
        member.last_commit = Seq::ZERO;
        member.presence = None;
        self.wake(session);
        self.drop_unused_snapshot();
    }

    /// Stops sending a member a history that is not the document's any more.
    pub(super) fn stop(&mut self, now: Time, session: SessionId, error: PeerError) {
        self.reset_member(session);
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        member.state = MemberState::Stopped;
        let generation = member.generation;
        self.leave_slot(now, (session, generation));
        self.counts.told(error.code);
        let error = ErrorMessage::new(error, Reference::Channel(self.channel));
        self.prompt(session, &Message::Error(error));
    }

    /// Ends a member's part in the room with a last message; it is removed when it has polled that.
    pub(super) fn end(&mut self, now: Time, session: SessionId, error: PeerError) {
        self.reset_member(session);
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        let code = error.code;
        // Who waits for a turn knows no channel yet.
        let was_opened = !matches!(member.state, MemberState::Opening(_) | MemberState::Waiting);
        let request = member.open.request;
        member.state = MemberState::Ended;
        self.presence.leave(session);
        let generation = member.generation;
        self.leave_slot(now, (session, generation));
        let message = if was_opened {
            Message::Closed(Closed {
                channel: self.channel,
                reason: Some(error.code),
                message: error.message,
            })
        } else {
            Message::Error(ErrorMessage::new(error, Reference::Request(request)))
        };
        self.counts.told(code);
        self.prompt(session, &message);
    }

    pub(super) fn remove(&mut self, now: Time, session: SessionId) {
        self.end_permit(session);
        let Some(mut member) = self.members.remove(&session) else {
            return;
        };
        let key = (member.open.origin, member.open.user.clone());
        self.offers.left(session);
        if !self.config.has(Bug::PresenceKept) {
            self.presence.leave(session);
        }
        if self.by_origin.get(&key) == Some(&session) {
            self.by_origin.remove(&key);
        }
        let settled = member.take_unsettled();
        if settled > 0 {
            self.outputs
                .push_back(RoomOutput::Settled(session, settled));
        }
        if member.announced {
            self.event(RoomEvent::Left { session });
        }
        self.leave_slot(now, (session, member.generation));
        drop(member);
        self.drop_unused_snapshot();
    }
}
