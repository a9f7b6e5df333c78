//! What members may do, and until when that is known (`docs/protocol.md` section 7.6).
//!
//! The room says when to ask, and whoever drives it asks, off its turn. What was said last is looked at in the turn that
//! appends a change, and each time that a member is sent something: once it is not known any more, nothing later is sent,
//! and what is pushed waits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::member::{Member, MemberState, Writing};
use super::push::Item;
use super::{Room, RoomEvent, RoomOutput};
use crate::error::{ErrorCode, PeerError};
use crate::history::Seq;
use crate::ids::{ChangeId, OriginId, SessionId, User};
use crate::planted::Bug;
use crate::server::grant::Grant;
use crate::server::registry::RequestNumber;
use crate::time::Time;
use crate::wire::{Access, AccessLevel, Ack, Compression, Message, encode_frame};

/// Delay before a question that nobody could answer is asked again; doubles with each, up to the longest.
const ASK_AGAIN_MIN: Duration = Duration::from_millis(500);
const ASK_AGAIN_MAX: Duration = Duration::from_secs(15);

/// What is known of what a member may do; how much that is, is in its open.
#[derive(Debug, Clone, Default)]
pub(super) struct Permit {
    /// Until when it is to be believed; `None`: as long as the session has the document open.
    until: Option<Time>,
    /// When to ask again, unless that is under way.
    ask_at: Option<Time>,
    /// The question under way. Answers to earlier ones are not looked at.
    asked: Option<RequestNumber>,
    /// Questions in a row that nobody could answer.
    failures: u32,
    /// Once it is not known, or is nothing: the last sequence that the member is sent.
    limit: Option<Seq>,
    /// What the member pushed since, in order. Counts as not answered, so it is bounded by the push window.
    pub(super) withheld: VecDeque<Item>,
    /// Its changes that have been committed since, in order: the last number of each run of one origin.
    committed: Vec<(OriginId, u64)>,
}

impl Permit {
    pub(super) const fn until(&self) -> Option<Time> {
        self.until
    }

    /// The last sequence that may be sent.
    pub(super) fn limit(&self) -> Seq {
        self.limit.unwrap_or(Seq(u64::MAX))
    }

    /// Whether nothing new may be sent, and nothing is taken.
    pub(super) const fn is_stopped(&self) -> bool {
        self.limit.is_some()
    }

    /// Whether its time is over.
    pub(super) fn is_over(&self, now: Time) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Notes a change that has been committed behind the limit.
    pub(super) fn note_commit(&mut self, id: ChangeId, seq: Seq) {
        if seq <= self.limit() {
            return;
        }
        match self.committed.last_mut() {
            Some((origin, last)) if *origin == id.origin => *last = id.number,
            _ => self.committed.push((id.origin, id.number)),
        }
    }

    /// Forgets what has been withheld; its charge.
    pub(super) fn take_withheld_charge(&mut self) -> usize {
        self.withheld.drain(..).map(|item| item.charge).sum()
    }
}

/// The questions of a room.
#[derive(Debug, Clone, Default)]
pub(super) struct Questions {
    /// When each is to be asked.
    due: BTreeSet<(Time, SessionId)>,
    pending: BTreeMap<RequestNumber, SessionId>,
    /// Those who may nothing, and have yet to be sent what comes before.
    leaving: BTreeSet<SessionId>,
}

impl Questions {
    pub(super) fn deadline(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }
}

impl Room {
    /// Says that what users may do may have changed: what this user may, or everybody. From this turn on they are sent
    /// nothing that is published later, and nothing of theirs is appended, until it has been asked anew.
    pub fn handle_reauthorize(&mut self, now: Time, user: Option<&User>) {
        let is_meant = |found: &User| user.is_none_or(|user| user == found);
        let head = self.head();
        let sessions: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| is_meant(&member.open.user) && member.may_read())
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            self.stop_at(session, head);
            self.ask(session);
        }
        self.drop_departed(is_meant);
        self.turn(now);
    }

    /// Takes fresh credentials of a member into account: they may say more or less of the same user.
    pub fn handle_user(&mut self, now: Time, session: SessionId, user: User) {
        if let Some(member) = self.members.get_mut(&session)
            && member.open.user == user
        {
            member.open.user = user;
            if member.may_read() {
                self.ask(session);
            }
        }
        self.turn(now);
    }

    /// Takes the answer to a [`RoomOutput::Authorize`]. An error is no no: it is asked again.
    pub fn handle_authorized(
        &mut self,
        now: Time,
        number: RequestNumber,
        answer: Result<Grant, PeerError>,
    ) {
        let session = self.questions.pending.remove(&number);
        if let Some(session) = session
            && let Some(member) = self.members.get_mut(&session)
            && member.permit.asked == Some(number)
        {
            member.permit.asked = None;
            match answer {
                Ok(grant) => self.learn_access(now, session, grant),
                Err(error) => {
                    let doubled = 1_u32.checked_shl(member.permit.failures);
                    let delay = ASK_AGAIN_MIN.saturating_mul(doubled.unwrap_or(u32::MAX));
                    let delay = error.retry_after.unwrap_or(delay.min(ASK_AGAIN_MAX));
                    member.permit.failures = member.permit.failures.saturating_add(1);
                    self.ask_later(session, now + delay);
                }
            }
        }
        self.turn(now);
    }

    /// Begins to mind what a session may do that opens the document.
    pub(super) fn begin_permit(&mut self, now: Time, session: SessionId) {
        self.end_permit(session);
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        let until = member.open.valid_until;
        member.permit = Permit {
            until,
            ..Permit::default()
        };
        match until {
            None => {}
            Some(until) if until <= now => {
                self.stop_at(session, Seq::ZERO);
                self.ask(session);
            }
            Some(until) => self.ask_later(session, self.ask_time(now, session, until)),
        }
    }

    pub(super) fn end_permit(&mut self, session: SessionId) {
        self.questions.leaving.remove(&session);
        if let Some(member) = self.members.get_mut(&session) {
            member.permit.asked = None;
            if let Some(at) = member.permit.ask_at.take() {
                self.questions.due.remove(&(at, session));
            }
        }
    }

    /// Between half and three quarters of the time: early enough for a few attempts, and not for all sessions at once.
    fn ask_time(&self, now: Time, session: SessionId, until: Time) -> Time {
        let quarter = until.since(now) / 4;
        let [spread, ..] = (session.0 ^ u64::from(self.channel.0)).to_le_bytes();
        now + quarter * 2 + quarter * u32::from(spread) / 256
    }

    fn ask_later(&mut self, session: SessionId, at: Time) {
        if let Some(member) = self.members.get_mut(&session) {
            if let Some(earlier) = member.permit.ask_at.replace(at) {
                self.questions.due.remove(&(earlier, session));
            }
            self.questions.due.insert((at, session));
        }
    }

    /// Asks what it is time to ask.
    pub(super) fn ask_due(&mut self, now: Time) {
        while let Some((at, session)) = self.questions.due.first().copied()
            && at <= now
        {
            self.questions.due.remove(&(at, session));
            self.ask(session);
        }
    }

    fn ask(&mut self, session: SessionId) {
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        if let Some(at) = member.permit.ask_at.take() {
            self.questions.due.remove(&(at, session));
        }
        self.next_request += 1;
        let number = RequestNumber(self.next_request);
        member.permit.asked = Some(number);
        self.questions.pending.insert(number, session);
        let user = member.open.user.clone();
        self.outputs.push_back(RoomOutput::Authorize(number, user));
    }

    /// Stops a member whose time is over where it stands.
    pub(super) fn stop_if_over(&mut self, now: Time, session: SessionId) {
        if let Some(member) = self.members.get(&session)
            && member.permit.is_over(now)
        {
            self.stop_at(session, member.sent());
        }
    }

    /// From here on nothing after this is sent to a member, and nothing of it is appended.
    fn stop_at(&mut self, session: SessionId, limit: Seq) {
        let is_ignored = self.config.has(Bug::RevocationIgnoredByRing);
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        if let Some(before) = &mut member.permit.limit {
            *before = limit.min(*before);
            return;
        }
        member.permit.limit = Some(if is_ignored { Seq(u64::MAX) } else { limit });
        if let Some(stream) = member.stream() {
            // Others of the session's documents may read instead.
            stream.catch_up.clear();
            stream.is_reading = false;
        }
        let withheld = self.take_lined_up(session);
        if let Some(member) = self.members.get_mut(&session) {
            member.permit.withheld = withheld;
        }
    }

    /// Somebody has said what a member may do.
    fn learn_access(&mut self, now: Time, session: SessionId, grant: Grant) {
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        let access = grant.level.min(member.open.access_max);
        member.permit.failures = 0;
        member.permit.until = grant.valid_for.map(|time| now + time);
        if access == AccessLevel::None {
            return self.deny(now, session);
        }
        if let Some(until) = member.permit.until {
            self.ask_later(session, self.ask_time(now, session, until));
        }
        self.change_access(now, session, access);
        self.go_on(session, access);
        self.wake(session);
    }

    /// Takes what has been withheld, or refuses it.
    fn go_on(&mut self, session: SessionId, access: AccessLevel) {
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        member.permit.limit = None;
        member.permit.committed.clear();
        if access < AccessLevel::Write {
            return self.refuse_lined_up(session);
        }
        for item in std::mem::take(&mut member.permit.withheld) {
            self.line_up(item);
        }
    }

    fn change_access(&mut self, now: Time, session: SessionId, access: AccessLevel) {
        let from = self.head().next();
        let channel = self.channel;
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        if std::mem::replace(&mut member.open.access, access) == access {
            return;
        }
        let key = (session, member.generation);
        let (is_streaming, is_waiting) = (
            matches!(member.state, MemberState::Streaming(_)),
            matches!(member.state, MemberState::Waiting),
        );
        self.offers.joined(session, access);
        if access < AccessLevel::Write {
            self.leave_slot(now, key);
            if is_waiting {
                // Who may only read takes no turn, and waits for none.
                self.start_open(key);
            }
        }
        // Otherwise `Opened` says it.
        if is_streaming {
            let message = Access {
                channel,
                access,
                from,
            };
            self.prompt(session, &Message::Access(message));
            self.event(RoomEvent::AccessChanged { session, access });
        }
    }

    /// A member may do nothing any more. It is sent what its own changes need to be acknowledged, and ends.
    fn deny(&mut self, now: Time, session: SessionId) {
        self.end_permit(session);
        self.offers.left(session);
        self.presence.leave(session);
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        member.open.access = AccessLevel::None;
        let key = (session, member.generation);
        if !matches!(member.state, MemberState::Streaming(_)) {
            let error = member.denied();
            self.refuse_lined_up(session);
            return self.end(now, session, error);
        }
        member.permit.until = None;
        member.writing = Writing::Closed;
        let needed = member.sent().max(member.last_commit);
        self.stop_at(session, needed);
        self.leave_slot(now, key);
        self.refuse_lined_up(session);
        self.questions.leaving.insert(session);
        self.event(RoomEvent::AccessChanged {
            session,
            access: AccessLevel::None,
        });
        self.wake(session);
    }

    /// Wakes those who may nothing when what they pushed before has been answered.
    pub(super) fn wake_leaving(&mut self) {
        let leaving: Vec<_> = self.questions.leaving.iter().copied().collect();
        for session in leaving {
            if !self.has_lined_up(session) {
                self.wake(session);
            }
        }
    }

    /// Ends a member that may nothing and has been sent all that it may be sent. Whether it has.
    pub(super) fn end_denied(&mut self, now: Time, session: SessionId) -> bool {
        let channel = self.channel;
        if self.has_lined_up(session) {
            return false;
        }
        let Some(member) = self.members.get_mut(&session) else {
            return false;
        };
        // Others' changes are between these and what it has been sent.
        for (_, number) in std::mem::take(&mut member.permit.committed) {
            let ack = Message::Ack(Ack {
                channel,
                check: 0,
                number,
                count: 0,
            });
            member
                .prompt
                .push_back(encode_frame(&ack, Compression::None));
        }
        for control in std::mem::take(&mut member.controls) {
            member.settled = member.settled.saturating_add(control.charge);
            member.prompt.push_back(control.frame);
        }
        let error = member.denied();
        self.questions.leaving.remove(&session);
        self.end(now, session, error);
        true
    }
}

impl Member {
    /// Whether it has not been said that it may not.
    pub(super) fn may_read(&self) -> bool {
        self.open.access > AccessLevel::None && !matches!(self.state, MemberState::Ended)
    }

    /// What it is told that wants more than it may.
    pub(super) fn denied(&self) -> PeerError {
        let user = &self.open.user.id;
        let what = match self.open.access {
            AccessLevel::None => format!("{user} may not open the document"),
            _ => format!("{user} may only read the document"),
        };
        PeerError::new(ErrorCode::AccessDenied, what)
    }
}
