//! The hybrid logical clock that orders writes: wall time where clocks are sound, causality always.
//!
//! After Kulkarni, Demirbas, Madappa, Avva, Leone, "Logical Physical Clocks" (OPODIS 2014): a stamp is wall time
//! plus a counter, a local event takes the larger of wall time and what was seen, and what is received moves the
//! clock forward. Two deviations, both against clocks that run ahead (decision 0003):
//!
//! - A received stamp more than [`CLOCK_AHEAD_MAX_MS`] ahead of this replica's wall clock does not move the clock,
//!   so that one wrong clock does not become everybody's; the paper leaves bounding the drift to the user.
//! - A write over an entry is always stamped after that entry ([`Clock::stamp_after`]), however far ahead the
//!   entry's stamp is. So whoever has seen a value can replace it, without waiting for a wrong clock's future.

use super::VersionVector;

/// How far ahead of its own wall clock a replica lets received stamps move it: 2 hours, in milliseconds.
///
/// Chosen above the error that people make most, a clock set for the wrong time zone or daylight saving (1 hour),
/// so that the sound majority still follows it as the paper wants; a clock a day ahead moves nobody.
pub const CLOCK_AHEAD_MAX_MS: u64 = 2 * 60 * 60 * 1000;

/// Largest time of a stamp, in milliseconds since the Unix epoch: 48 bits, the year 10889.
pub const STAMP_TIME_MAX: u64 = (1 << 48) - 1;

/// Names one replica of one document: a process start that edits it. Random, never chosen by the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

/// Names one commit: who made it, and which of theirs it is, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Dot {
    /// The replica that committed.
    pub replica: ReplicaId,
    /// Counts the replica's commits, from 1.
    pub number: u64,
}

impl Dot {
    /// A commit's name.
    #[must_use]
    pub const fn new(replica: ReplicaId, number: u64) -> Self {
        Self { replica, number }
    }
}

/// When a write was made, and in which commit. The order of the fields is the order of stamps: time, then
/// counter, then replica, so that equal times are decided by who wrote, the same everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Stamp {
    /// Milliseconds since the Unix epoch, by the hybrid clock; at most [`STAMP_TIME_MAX`].
    pub time: u64,
    /// Tells writes of one millisecond apart.
    pub counter: u32,
    /// Who wrote.
    pub replica: ReplicaId,
    /// Which of the replica's commits wrote, from 1.
    pub number: u64,
}

impl Stamp {
    /// A stamp.
    #[must_use]
    pub const fn new(time: u64, counter: u32, dot: Dot) -> Self {
        Self {
            time,
            counter,
            replica: dot.replica,
            number: dot.number,
        }
    }

    /// The commit that wrote.
    #[must_use]
    pub const fn dot(&self) -> Dot {
        Dot {
            replica: self.replica,
            number: self.number,
        }
    }
}

/// A replica's hybrid logical clock. It reads no clock itself: [`set_wall`](Self::set_wall) tells it the time.
#[derive(Debug, Clone)]
pub struct Clock {
    replica: ReplicaId,
    /// Commits finished under `replica`.
    n_commits: u64,
    /// What was told last; `None` before that, and then nothing counts as being ahead: a plain Lamport clock.
    wall: Option<u64>,
    /// The last (time, counter) given or accepted.
    latest: (u64, u32),
}

impl Clock {
    /// The clock of a new replica.
    #[must_use]
    pub const fn new(replica: ReplicaId) -> Self {
        Self {
            replica,
            n_commits: 0,
            wall: None,
            latest: (0, 0),
        }
    }

    /// Tells the wall clock's time in milliseconds since the Unix epoch. It may go backwards.
    pub fn set_wall(&mut self, unix_ms: u64) {
        let wall = unix_ms.min(STAMP_TIME_MAX);
        self.wall = Some(wall);
        // A wall clock that was far ahead has been put right: its own old stamps must not hold the clock there.
        if self.is_ahead(self.latest.0) {
            self.latest = (wall, 0);
        }
    }

    /// Takes note of a stamp received from elsewhere, unless it is too far ahead to be believed.
    pub fn observe(&mut self, stamp: &Stamp) {
        if !self.is_ahead(stamp.time) {
            self.latest = self.latest.max((stamp.time, stamp.counter));
        }
    }

    /// Moves on by one event, and names the commit that the next stamps belong to.
    ///
    /// `seen` is what the document has seen. If it holds a commit of this replica that was not made here (an id
    /// restored from a copy, or forged), the replica goes on under another id rather than use a dot twice.
    pub(crate) fn tick(&mut self, seen: &VersionVector) {
        while seen.last(self.replica) > self.n_commits {
            self.replica = ReplicaId(self.replica.0.wrapping_mul(REPLICA_STEP).wrapping_add(1));
            self.n_commits = 0;
        }
        self.latest = match self.wall {
            Some(wall) if wall > self.latest.0 => (wall, 0),
            _ => successor(self.latest.0, self.latest.1),
        };
    }

    /// The commit of the last [`tick`](Self::tick) is part of the document: the next one has the next number.
    pub(crate) const fn finish(&mut self) {
        self.n_commits = self.n_commits.saturating_add(1);
    }

    /// The commit in progress.
    #[must_use]
    pub const fn dot(&self) -> Dot {
        Dot {
            replica: self.replica,
            number: self.n_commits.saturating_add(1),
        }
    }

    /// The stamp for a write of the commit in progress over what bears the stamp `seen`, if there is anything.
    /// Larger than `seen`; for everything that is not ahead of the clock it is the same in the whole commit, so
    /// that one of two concurrent commits wins on all entries that both wrote.
    #[must_use]
    pub fn stamp_after(&self, seen: Option<&Stamp>) -> Stamp {
        let (time, counter) = match seen {
            Some(seen) if (seen.time, seen.counter) >= self.latest => {
                successor(seen.time, seen.counter)
            }
            _ => self.latest,
        };
        Stamp {
            time,
            counter,
            replica: self.replica,
            number: self.dot().number,
        }
    }

    fn is_ahead(&self, time: u64) -> bool {
        self.wall
            .is_some_and(|wall| time > wall.saturating_add(CLOCK_AHEAD_MAX_MS))
    }
}

/// The next larger (time, counter): the counter carries into the time.
///
/// Stops at the last one, which no sound clock reaches in 8,000 years. Somebody who forges it owns that entry
/// until the document is rewound; any finite stamp has such an end.
const fn successor(time: u64, counter: u32) -> (u64, u32) {
    match counter.checked_add(1) {
        Some(counter) => (time, counter),
        None if time < STAMP_TIME_MAX => (time + 1, 0),
        None => (time, counter),
    }
}

/// Odd multiplier of a full-period generator (Knuth, MMIX): another id, not one that somebody is likely to have.
const REPLICA_STEP: u64 = 6_364_136_223_846_793_005;

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(replica: u64, wall: u64) -> Clock {
        let mut clock = Clock::new(ReplicaId(replica));
        clock.set_wall(wall);
        clock
    }

    fn next(clock: &mut Clock) -> Stamp {
        clock.tick(&VersionVector::new());
        let stamp = clock.stamp_after(None);
        clock.finish();
        stamp
    }

    /// Scenario 6, its second half.
    #[test]
    fn seventy_thousand_stamps_of_one_millisecond_are_distinct_and_ordered() {
        let mut clock = clock(1, 1_000);
        let stamps: Vec<Stamp> = (0..70_000).map(|_| next(&mut clock)).collect();
        assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(stamps.iter().all(|stamp| stamp.time == 1_000));
    }

    #[test]
    fn the_counter_carries_into_the_time_and_stops_at_the_end() {
        assert_eq!(successor(7, 3), (7, 4));
        assert_eq!(successor(7, u32::MAX), (8, 0));
        assert_eq!(
            successor(STAMP_TIME_MAX, u32::MAX),
            (STAMP_TIME_MAX, u32::MAX)
        );
    }

    #[test]
    fn stamps_keep_growing_when_the_wall_clock_goes_backwards_a_little() {
        let mut clock = clock(1, 10_000_000);
        let before = next(&mut clock);
        clock.set_wall(9_999_000);
        assert!(next(&mut clock) > before);
    }

    #[test]
    fn a_slow_clock_follows_what_it_received() {
        let hour = 60 * 60 * 1000;
        let seen = next(&mut clock(1, 10 * hour));
        let mut slow = clock(2, 9 * hour);
        slow.observe(&seen);
        assert!(next(&mut slow) > seen);
    }

    #[test]
    fn a_clock_a_day_ahead_moves_nobody_and_is_still_overwritten() {
        let day = 24 * 60 * 60 * 1000;
        let ahead = next(&mut clock(1, 2 * day));
        let mut sound = clock(2, day);
        sound.observe(&ahead);
        let fresh = next(&mut sound);
        assert_eq!(fresh.time, day);
        sound.tick(&VersionVector::new());
        assert!(sound.stamp_after(Some(&ahead)) > ahead);
    }

    #[test]
    fn a_clock_that_was_put_right_does_not_go_on_in_the_future() {
        let day = 24 * 60 * 60 * 1000;
        let mut clock = clock(1, 2 * day);
        next(&mut clock);
        clock.set_wall(day);
        assert_eq!(next(&mut clock).time, day);
    }

    #[test]
    fn a_replica_id_that_somebody_else_used_is_given_up() {
        let mut clock = clock(5, 1_000);
        let mut seen = VersionVector::new();
        seen.insert(Dot::new(ReplicaId(5), 1));
        clock.tick(&seen);
        assert_ne!(clock.dot().replica, ReplicaId(5));
        assert_eq!(clock.dot().number, 1);
    }
}
