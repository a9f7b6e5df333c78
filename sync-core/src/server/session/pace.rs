//! Changes that come too fast: they wait, unacknowledged, while everything else of the session goes on
//! (`docs/protocol.md` section 7.3).

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::error::{ErrorCode, PeerError};
use crate::ids::Channel;
use crate::limits::{Limits, push_charge};
use crate::rate::TokenBucket;
use crate::time::Time;
use crate::wire::Push;

/// How long pushes wait for a user's budget before the client is told to come back later.
const HOLD_MAX: Duration = Duration::from_secs(10);

/// The line in which a session's pushes wait for their turn.
#[derive(Debug, Clone)]
pub(super) struct Pace {
    changes: TokenBucket,
    bytes: TokenBucket,
    window: usize,
    line: VecDeque<Push>,
    /// Of what is in the line.
    charge: usize,
    n_changes: usize,
    /// What the user has cost is more than its budget, until then.
    held_until: Time,
    /// Channels that have been told, and not opened since: what they send is not looked at.
    refused: BTreeSet<Channel>,
}

/// What becomes of a push.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Paced {
    Go(Push),
    Waits,
    /// Nothing more of the channel is taken until it is opened again; so much had been taken in vain.
    Refused(PeerError, usize),
    /// It has been told before.
    Ignored,
}

impl Pace {
    pub(super) const fn new(limits: &Limits) -> Self {
        Self {
            changes: TokenBucket::new(limits.push_changes),
            bytes: TokenBucket::new(limits.push_bytes),
            window: limits.push_window_bytes,
            line: VecDeque::new(),
            charge: 0,
            n_changes: 0,
            held_until: Time::ZERO,
            refused: BTreeSet::new(),
        }
    }

    /// What the changes in the line count for.
    pub(super) const fn held_bytes(&self) -> usize {
        self.charge
    }

    /// Takes what came in.
    pub(super) fn push(&mut self, now: Time, push: Push) -> Paced {
        if self.refused.contains(&push.channel) {
            return Paced::Ignored;
        }
        let charge = push_charge(&push.changes);
        if self.line.is_empty() && self.try_take(now, push.changes.len(), charge) {
            return Paced::Go(push);
        }
        let channel = push.channel;
        // One larger push may always wait alone.
        let is_too_much = !self.line.is_empty() && self.charge.saturating_add(charge) > self.window;
        self.charge = self.charge.saturating_add(charge);
        self.n_changes = self.n_changes.saturating_add(push.changes.len());
        self.line.push_back(push);
        if is_too_much {
            let error = PeerError::new(
                ErrorCode::RateLimited,
                format!(
                    "{} changes of {} bytes wait because the limit is {} each second of {} bytes together",
                    self.n_changes,
                    self.charge,
                    self.changes.rate().per_second,
                    self.bytes.rate().per_second,
                ),
            );
            return self.refuse(now, channel, error);
        }
        self.check_hold(now, channel).unwrap_or(Paced::Waits)
    }

    /// The next push whose turn it is, and what becomes of it.
    pub(super) fn next(&mut self, now: Time) -> Option<(Channel, Paced)> {
        let front = self.line.front()?;
        let (channel, n) = (front.channel, front.changes.len());
        let charge = push_charge(&front.changes);
        if self.try_take(now, n, charge) {
            let push = self.line.pop_front()?;
            self.charge = self.charge.saturating_sub(charge);
            self.n_changes = self.n_changes.saturating_sub(n);
            return Some((channel, Paced::Go(push)));
        }
        self.check_hold(now, channel).map(|paced| (channel, paced))
    }

    /// When the next push has its turn.
    pub(super) fn next_at(&self) -> Option<Time> {
        let front = self.line.front()?;
        let n = wide(front.changes.len());
        let charge = wide(push_charge(&front.changes));
        Some(
            self.changes
                .ready_at(n)
                .max(self.bytes.ready_at(charge))
                .max(self.held_until),
        )
    }

    /// Nothing has its turn before.
    pub(super) fn hold(&mut self, until: Time) {
        self.held_until = until;
    }

    /// The channel is another's from now on, or nobody's. Returns the charge of what waited.
    pub(super) fn forget(&mut self, channel: Channel) -> usize {
        self.refused.remove(&channel);
        self.drop_line(channel)
    }

    fn drop_line(&mut self, channel: Channel) -> usize {
        let mut dropped = 0_usize;
        let mut n = 0_usize;
        self.line.retain(|push| {
            let stays = push.channel != channel;
            if !stays {
                dropped = dropped.saturating_add(push_charge(&push.changes));
                n = n.saturating_add(push.changes.len());
            }
            stays
        });
        self.charge = self.charge.saturating_sub(dropped);
        self.n_changes = self.n_changes.saturating_sub(n);
        dropped
    }

    fn try_take(&mut self, now: Time, n: usize, charge: usize) -> bool {
        let (n, charge) = (wide(n), wide(charge));
        let is_there = now >= self.held_until
            && self.changes.wait(now, n).is_zero()
            && self.bytes.wait(now, charge).is_zero();
        if is_there {
            self.changes.take(now, n);
            self.bytes.take(now, charge);
        }
        is_there
    }

    fn check_hold(&mut self, now: Time, channel: Channel) -> Option<Paced> {
        if self.held_until.since(now) <= HOLD_MAX {
            return None;
        }
        let error = PeerError::new(
            ErrorCode::QuotaExceeded,
            "this user has used up what it may cost",
        );
        Some(self.refuse(now, channel, error))
    }

    fn refuse(&mut self, now: Time, channel: Channel, error: PeerError) -> Paced {
        let rate = self
            .changes
            .time_to(now, wide(self.n_changes))
            .max(self.bytes.time_to(now, wide(self.charge)));
        let wait = self.held_until.since(now).max(rate);
        self.refused.insert(channel);
        let charge = self.drop_line(channel);
        Paced::Refused(error.retry_after(wait.min(RETRY_AFTER_MAX)), charge)
    }
}

/// Longer than that nobody is sent away; with a rate of nothing it would be for ever.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::OriginId;
    use crate::rate::Rate;

    const ONE: Channel = Channel(1);
    const OTHER: Channel = Channel(2);

    const fn ms(millis: u64) -> Time {
        Time::from_micros(millis * 1_000)
    }

    fn pace(changes: Rate, bytes: Rate) -> Pace {
        Pace::new(&Limits {
            push_changes: changes,
            push_bytes: bytes,
            push_window_bytes: 1_000,
            ..Limits::default()
        })
    }

    fn push(channel: Channel, first_number: u64, n: usize, bytes: usize) -> Push {
        Push {
            channel,
            origin: OriginId(1),
            first_number,
            changes: vec![vec![0; bytes].into(); n],
            reconciling: false,
        }
    }

    fn gone(paced: Option<(Channel, Paced)>) -> (Channel, u64) {
        match paced {
            Some((channel, Paced::Go(push))) => (channel, push.first_number),
            other => panic!("{other:?}"),
        }
    }

    fn refused(paced: Paced) -> (ErrorCode, Option<Duration>, usize) {
        match paced {
            Paced::Refused(error, charge) => (error.code, error.retry_after, charge),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_comes_too_fast_goes_on_in_its_order_when_its_time_has_come() {
        let mut pace = pace(Rate::new(10, 1), Rate::UNLIMITED);
        assert!(matches!(
            pace.push(ms(0), push(ONE, 1, 1, 10)),
            Paced::Go(_)
        ));
        assert_eq!(pace.push(ms(0), push(OTHER, 2, 1, 10)), Paced::Waits);
        // Not past the one that waits, although its own time would have come.
        assert_eq!(pace.push(ms(100), push(ONE, 3, 1, 10)), Paced::Waits);
        assert_eq!(pace.next_at(), Some(ms(100)));
        assert_eq!(pace.next(ms(99)), None);
        assert_eq!(gone(pace.next(ms(100))), (OTHER, 2));
        assert_eq!(pace.next(ms(199)), None);
        assert_eq!(gone(pace.next(ms(200))), (ONE, 3));
        assert_eq!((pace.next(ms(900)), pace.next_at()), (None, None));
    }

    #[test]
    fn bytes_are_held_to_their_own_rate() {
        let mut pace = pace(Rate::UNLIMITED, Rate::new(1_000, 100));
        assert!(matches!(
            pace.push(ms(0), push(ONE, 1, 1, 100)),
            Paced::Go(_)
        ));
        // A tiny one counts for 32.
        assert_eq!(pace.push(ms(0), push(ONE, 2, 1, 1)), Paced::Waits);
        assert_eq!(pace.next_at(), Some(ms(32)));
    }

    #[test]
    fn up_to_the_window_waits_and_what_is_beyond_it_is_refused_with_when_to_come_again() {
        let mut pace = pace(Rate::new(10, 1), Rate::UNLIMITED);
        assert!(matches!(
            pace.push(ms(0), push(ONE, 1, 1, 500)),
            Paced::Go(_)
        ));
        assert_eq!(pace.push(ms(0), push(ONE, 2, 1, 500)), Paced::Waits);
        assert_eq!(pace.push(ms(0), push(OTHER, 1, 1, 500)), Paced::Waits);
        let refusal = refused(pace.push(ms(0), push(ONE, 3, 1, 32)));
        let wait = Duration::from_millis(300);
        assert_eq!(refusal, (ErrorCode::RateLimited, Some(wait), 532));
        // Until it is opened again; the other one is not concerned.
        assert_eq!(pace.push(ms(500), push(ONE, 4, 1, 10)), Paced::Ignored);
        assert_eq!(gone(pace.next(ms(500))), (OTHER, 1));
        assert_eq!(pace.forget(ONE), 0);
        assert!(matches!(
            pace.push(ms(900), push(ONE, 2, 1, 10)),
            Paced::Go(_)
        ));
    }

    #[test]
    fn one_that_is_larger_than_the_window_waits_alone() {
        let mut pace = pace(Rate::new(10, 1), Rate::UNLIMITED);
        assert!(matches!(
            pace.push(ms(0), push(ONE, 1, 1, 10)),
            Paced::Go(_)
        ));
        assert_eq!(pace.push(ms(0), push(ONE, 2, 1, 5_000)), Paced::Waits);
        assert_eq!(gone(pace.next(ms(100))), (ONE, 2));
    }

    #[test]
    fn what_waits_of_a_channel_is_forgotten_with_it() {
        let mut pace = pace(Rate::new(10, 1), Rate::UNLIMITED);
        assert!(matches!(
            pace.push(ms(0), push(ONE, 1, 1, 10)),
            Paced::Go(_)
        ));
        assert_eq!(pace.push(ms(0), push(ONE, 2, 2, 400)), Paced::Waits);
        assert_eq!(pace.push(ms(0), push(OTHER, 1, 1, 10)), Paced::Waits);
        assert_eq!(pace.forget(ONE), 800);
        assert_eq!(gone(pace.next(ms(100))), (OTHER, 1));
        assert_eq!(pace.next_at(), None);
    }

    #[test]
    fn a_short_hold_is_waited_for_and_a_long_one_is_not() {
        let mut pace = pace(Rate::UNLIMITED, Rate::UNLIMITED);
        pace.hold(ms(10_000));
        assert_eq!(pace.push(ms(0), push(ONE, 1, 1, 10)), Paced::Waits);
        assert_eq!(pace.next_at(), Some(ms(10_000)));
        assert_eq!(pace.next(ms(9_999)), None);
        assert_eq!(gone(pace.next(ms(10_000))), (ONE, 1));
        pace.hold(ms(20_001));
        let refusal = refused(pace.push(ms(10_000), push(ONE, 2, 1, 10)));
        let wait = Duration::from_millis(10_001);
        assert_eq!(refusal, (ErrorCode::QuotaExceeded, Some(wait), 32));
    }
}
