//! How the room stands, read on demand: nothing here is kept up beside what the room needs anyway.

use super::member::{Member, MemberState};
use super::ring::Ring;
use super::{MemberPhase, MemberStats, Room, RoomCounters, RoomStats};
use crate::error::ErrorCode;
use crate::history::Seq;
use crate::server::stats::Frequency;
use crate::time::Time;

/// What the room counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub(super) totals: RoomCounters,
    pub(super) changes: Frequency,
}

impl Counts {
    pub(super) fn told(&mut self, code: ErrorCode) {
        *self.totals.errors.entry(code).or_default() += 1;
    }

    /// Changes have been committed, at most as many as one append has.
    pub(super) fn committed(&mut self, now: Time, n: usize) {
        if n > 0 {
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            self.totals.changes += u64::from(n);
            self.changes.add(now, n);
        }
    }

    pub(super) fn pushed(&mut self, bytes: usize) {
        add(&mut self.totals.bytes_in, bytes);
    }

    pub(super) fn handed_out(&mut self, bytes: usize) {
        add(&mut self.totals.bytes_out, bytes);
    }
}

pub(super) fn add(total: &mut u64, bytes: usize) {
    *total = total.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
}

impl Room {
    /// What the room has counted.
    #[must_use]
    pub const fn counters(&self) -> &RoomCounters {
        &self.counts.totals
    }

    /// How the room stands. Looks at each member.
    #[must_use]
    pub fn stats(&self, now: Time) -> RoomStats {
        let head = self.head();
        let lags = || self.members.values().map(|member| member.lag(head));
        let lagging = |member: &&Member| member.is_lagging(head, &self.ring);
        RoomStats {
            phase: self.phase,
            engine: self.folding.engine().cloned(),
            epoch: self.history.as_ref().map(|history| history.epoch),
            head,
            snapshot_seq: self.folding.snapshot_seq,
            snapshot_bytes: self.folding.snapshot_bytes(),
            log_bytes: self.folding.log_bytes(),
            ring_bytes: self.ring.bytes(),
            n_sessions: self.members.len(),
            n_present: self.presence.len(),
            n_lagging: self.members.values().filter(lagging).count(),
            lag_max: lags().max().unwrap_or(0),
            n_waiting: self.queue.len() + self.checks.len(),
            is_folding: self.folding.is_running(),
            changes_per_second: self.counts.changes.per_second(now),
        }
    }

    /// How each session stands in the room.
    pub fn member_stats(&self) -> impl Iterator<Item = MemberStats> {
        let head = self.head();
        self.members.iter().filter_map(move |(session, member)| {
            Some(MemberStats {
                session: *session,
                user: member.open.user.clone(),
                origin: member.open.origin,
                access: member.open.access,
                state: member.phase()?,
                opened_at: member.open.cursor,
                sent: member.sent(),
                lag: member.lag(head),
                is_lagging: member.is_lagging(head, &self.ring),
                bytes_in: member.bytes_in,
                bytes_out: member.bytes_out,
            })
        })
    }
}

impl Member {
    /// `None` if it is on its way out.
    const fn phase(&self) -> Option<MemberPhase> {
        Some(match &self.state {
            MemberState::Opening(_) => MemberPhase::Opening,
            MemberState::Waiting => MemberPhase::Waiting,
            MemberState::Streaming(_) => MemberPhase::Streaming,
            MemberState::Stopped => MemberPhase::Stopped,
            MemberState::Ended => return None,
        })
    }

    /// Through where it has been sent the history.
    pub(super) fn sent(&self) -> Seq {
        match &self.state {
            MemberState::Streaming(stream) if stream.snapshot.is_none() => {
                Seq(stream.next.0.saturating_sub(1))
            }
            _ => Seq::ZERO,
        }
    }

    /// How much of the history it has yet to be sent.
    fn lag(&self, head: Seq) -> u64 {
        match &self.state {
            MemberState::Streaming(_) => head.0.saturating_sub(self.sent().0),
            _ => 0,
        }
    }

    fn is_lagging(&self, head: Seq, ring: &Ring) -> bool {
        let MemberState::Streaming(stream) = &self.state else {
            return false;
        };
        let is_sending = stream.sending.is_some();
        stream.snapshot.is_some()
            || self.is_catching_up()
            || (stream.next <= head && !is_sending && ring.starting_at(stream.next).is_none())
    }
}
