//! Who is here, in a room (`docs/protocol.md` section 7.7).
//!
//! [`table`] is the machine: what sessions say of themselves, published once for each tick. Here is what the room does
//! with it. A member has no queue of presence either: what it is sent follows from what it
//! has been told.

mod table;

use bytes::Bytes;

use self::table::Owner;
pub(super) use self::table::{Table, Told};
use super::member::{Member, MemberState};
use super::{MemberOutput, Room, RoomEvent, RoomOutput, stats};
use crate::ids::SessionId;
use crate::planted::Bug;
use crate::time::Time;

impl Room {
    /// Takes what a session says of itself; `None`: nothing any more. Others are told at the next tick.
    pub fn handle_presence(&mut self, now: Time, session: SessionId, state: Option<Bytes>) {
        if let Some(member) = self.members.get(&session)
            && member.has_opened()
            && member.may_read()
        {
            let owner = member.presence_owner();
            self.presence.set(session, owner, state);
            self.turn(now);
        }
    }

    /// Takes a session out that was cut off. Others go on seeing it for a while, in case it comes back.
    pub fn handle_lost(&mut self, now: Time, session: SessionId) {
        if !self.config.has(Bug::PresenceKept) {
            self.presence.lose(now, session);
        }
        self.handle_close(now, session);
    }

    /// A session has been told that it has opened the document: the whole table is next, and the place of the session that
    /// it was before is its own.
    pub(super) fn join_presence(&mut self, session: SessionId) {
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        self.presence.resume(session, member.presence_owner());
        // It may show somebody from before who is not here any more.
        let may_show = member.was_told_presence || member.open.is_resumed;
        member.presence = matches!(member.state, MemberState::Streaming(_)).then(|| {
            if may_show {
                Told::NOTHING
            } else {
                self.presence.start()
            }
        });
    }

    /// Publishes what is due, and wakes whoever is to be told.
    pub(super) fn tick_presence(&mut self, now: Time) {
        if !self.presence.handle_timeout(now) {
            return;
        }
        for (session, member) in &mut self.members {
            if member.presence.is_some() && !member.awake {
                member.awake = true;
                self.outputs.push_back(RoomOutput::Wake(*session));
            }
        }
        while let Some(event) = self.presence.poll_event() {
            self.outputs.push_back(RoomOutput::Event(event));
        }
    }

    /// The room ends, and with it the places of those who have not come back.
    pub(super) fn clear_presence(&mut self) {
        for session in self.presence.sessions() {
            self.event(RoomEvent::PresenceLeft { session });
        }
        self.presence.clear();
    }

    /// The next message about who is here, for a member that has not had it. Members are sent such messages and others in
    /// turn, so that a slow one gets both.
    pub(super) fn poll_presence(&mut self, session: SessionId) -> Option<MemberOutput> {
        let frame = self.next_presence(session)?;
        let member = self.members.get_mut(&session)?;
        member.presence_was_last = true;
        member.was_told_presence = true;
        member.awake = true;
        stats::add(&mut member.bytes_out, frame.len());
        self.counts.handed_out(frame.len());
        Some(MemberOutput::Frame(frame))
    }

    fn next_presence(&mut self, session: SessionId) -> Option<Bytes> {
        let member = self.members.get_mut(&session)?;
        if member.permit.is_stopped() {
            return None;
        }
        let compression = member.compression();
        let told = member.presence.as_mut()?;
        loop {
            let piece = self.presence.next_piece(self.channel, told)?;
            // What it has said itself it knows.
            if piece.only != Some(session) {
                return piece.frame(compression);
            }
        }
    }
}

impl Member {
    fn presence_owner(&self) -> Owner {
        Owner {
            user: self.open.user.clone(),
            origin: self.open.origin,
            token: self.open.token,
        }
    }
}
