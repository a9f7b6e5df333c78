//! What rooms count and tell about themselves: plain numbers, added up where the thing happens, and read on demand.

use std::collections::BTreeMap;
use std::time::Duration;

use super::room::RoomPhase;
use crate::error::ErrorCode;
use crate::history::{Cursor, Epoch, Seq};
use crate::ids::{EngineId, OriginId, SessionId, User};
use crate::time::Time;
use crate::wire::AccessLevel;

/// How long something took, many times: counted in buckets, each twice as wide as the one before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Latencies {
    counts: [u64; Self::BUCKETS],
    sum_micros: u64,
}

impl Latencies {
    /// Buckets; the last one has no upper bound.
    pub const BUCKETS: usize = 19;

    /// Binary logarithm of the first bucket's upper bound, in microseconds: 64 µs, about what waking a task takes.
    const FIRST: u32 = 6;

    /// The bucket that counts so many microseconds.
    #[must_use]
    pub fn bucket(micros: u64) -> usize {
        // Rounded up: an upper bound belongs to its bucket.
        let log = u64::BITS - micros.saturating_sub(1).leading_zeros();
        let bucket = usize::try_from(log.saturating_sub(Self::FIRST)).unwrap_or(usize::MAX);
        bucket.min(Self::BUCKETS - 1)
    }

    /// Upper bound of a bucket; `None` for the last.
    #[must_use]
    pub fn upper_bound(bucket: usize) -> Option<Duration> {
        let shift = u32::try_from(bucket).ok()?;
        (bucket < Self::BUCKETS - 1).then(|| Duration::from_micros(1 << (Self::FIRST + shift)))
    }

    /// Latencies that were counted elsewhere.
    #[must_use]
    pub const fn from_counts(counts: [u64; Self::BUCKETS], sum_micros: u64) -> Self {
        Self { counts, sum_micros }
    }

    /// Counts one.
    pub fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get_mut(Self::bucket(micros)) {
            *count += 1;
        }
        self.sum_micros = self.sum_micros.saturating_add(micros);
    }

    /// Counts what another one counted.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_micros = self.sum_micros.saturating_add(other.sum_micros);
    }

    /// Of each bucket, how many it has.
    #[must_use]
    pub const fn counts(&self) -> &[u64; Self::BUCKETS] {
        &self.counts
    }

    /// How many there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all of them took together.
    #[must_use]
    pub const fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_micros)
    }

    /// The upper bound of the bucket in which this part of them ends, such as 0.99; the longest bound if it has none, zero
    /// if nothing was counted.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Duration {
        let count = self.count();
        let mut left = count;
        for (bucket, n) in self.counts.iter().enumerate() {
            left -= n;
            if count > 0 && share(left, count) <= 1.0 - part {
                let longest = || Self::upper_bound(Self::BUCKETS - 2);
                return Self::upper_bound(bucket)
                    .or_else(longest)
                    .unwrap_or_default();
            }
        }
        Duration::ZERO
    }
}

#[expect(
    clippy::as_conversions,
    reason = "there is no other way, and nothing depends on the last digits"
)]
fn share(part: u64, all: u64) -> f64 {
    part as f64 / all as f64
}

/// How often something happens: its number in the last while, older ones counting less the older they are (a moving
/// average with exponential weights).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Frequency {
    per_second: f64,
    at: Time,
}

impl Frequency {
    /// Seconds after which something counts for about a third.
    const WINDOW_SECONDS: f64 = 10.0;

    /// Counts so many that happen now.
    pub fn add(&mut self, now: Time, n: u32) {
        self.per_second = self.per_second(now) + f64::from(n) / Self::WINDOW_SECONDS;
        self.at = now;
    }

    /// How many there are in a second.
    #[must_use]
    pub fn per_second(&self, now: Time) -> f64 {
        let age = now.since(self.at).as_secs_f64();
        self.per_second * (-age / Self::WINDOW_SECONDS).exp()
    }
}

/// What a room has counted since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoomCounters {
    /// Changes that sessions pushed and the registry committed.
    pub changes: u64,
    /// Bytes of changes pushed.
    pub bytes_in: u64,
    /// Bytes of frames handed out.
    pub bytes_out: u64,
    /// Errors that clients were told, by code; those that refuse a change or an open among them.
    pub errors: BTreeMap<ErrorCode, u64>,
    /// From a push's arrival until its change was committed, for each change.
    pub commits: Latencies,
    /// From an open's arrival until it was answered.
    pub opens: Latencies,
}

impl RoomCounters {
    /// Adds what another room counted.
    pub fn add(&mut self, other: &Self) {
        self.changes += other.changes;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        for (code, n) in &other.errors {
            *self.errors.entry(*code).or_default() += n;
        }
        self.commits.add(&other.commits);
        self.opens.add(&other.opens);
    }
}

/// How a room stands.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RoomStats {
    /// Where it is in its life.
    pub phase: RoomPhase,
    /// The document's engine, once it has been read.
    pub engine: Option<EngineId>,
    /// The document's history, likewise.
    pub epoch: Option<Epoch>,
    /// Last sequence published.
    pub head: Seq,
    /// Sequence of the snapshot; 0 if there is none.
    pub snapshot_seq: Seq,
    /// Bytes of the snapshot, if the room has seen it made.
    pub snapshot_bytes: Option<usize>,
    /// Bytes of changes published since the snapshot, or since the room was made.
    pub log_bytes: usize,
    /// Bytes of recent frames kept for all sessions together.
    pub ring_bytes: usize,
    /// Sessions in the room.
    pub n_sessions: usize,
    /// Sessions that say something of themselves, those included that were cut off and may come back.
    pub n_present: usize,
    /// Those of all sessions that are served from the registry, or by a snapshot, because the ring does not reach back to them.
    pub n_lagging: usize,
    /// How many changes the session has yet to be sent that has most of them before it.
    pub lag_max: u64,
    /// Changes that wait to be checked or appended.
    pub n_waiting: usize,
    /// Whether the log is being folded.
    pub is_folding: bool,
    /// Changes committed in a second.
    pub changes_per_second: f64,
}

/// How a session stands in a room.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemberStats {
    /// The session.
    pub session: SessionId,
    /// Whose it is.
    pub user: User,
    /// The process start of its client.
    pub origin: OriginId,
    /// What it may do.
    pub access: AccessLevel,
    /// What it is doing.
    pub state: MemberPhase,
    /// The cursor that it opened the document with.
    pub opened_at: Option<Cursor>,
    /// Sequence through which it has been sent the history; 0 while it is being sent a snapshot.
    pub sent: Seq,
    /// Changes that it has yet to be sent.
    pub lag: u64,
    /// Whether it is served from the registry, or by a snapshot, because the ring does not reach back to it.
    pub is_lagging: bool,
    /// Bytes of changes that it has pushed.
    pub bytes_in: u64,
    /// Bytes of frames that it was handed.
    pub bytes_out: u64,
}

/// What a session does in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberPhase {
    /// The registry is being read for the answer to its open.
    Opening,
    /// Another client reconciles, and it waits.
    Waiting,
    /// It is sent the history.
    Streaming,
    /// It has been told to open again.
    Stopped,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(n: u64) -> Duration {
        Duration::from_micros(n)
    }

    #[test]
    fn each_latency_is_counted_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        for (took, bucket) in [
            (0, 0),
            (64, 0),
            (65, 1),
            (128, 1),
            (129, 2),
            (8_388_608, 17),
            (8_388_609, 18),
            (u64::MAX, 18),
        ] {
            assert_eq!(Latencies::bucket(took), bucket, "{took}");
            let bound = Latencies::upper_bound(bucket);
            assert!(bound.is_none_or(|bound| micros(took) <= bound), "{took}");
        }
        assert_eq!(Latencies::upper_bound(0), Some(micros(64)));
        assert_eq!(Latencies::upper_bound(17), Some(micros(8_388_608)));
        assert_eq!(Latencies::upper_bound(18), None);
    }

    #[test]
    fn latencies_add_up_and_know_their_quantiles() {
        let mut fast = Latencies::default();
        assert_eq!(fast.quantile(0.5), Duration::ZERO);
        for _ in 0..99 {
            fast.record(micros(100));
        }
        let mut all = Latencies::default();
        all.record(micros(1_000));
        all.add(&fast);
        assert_eq!((all.count(), all.sum()), (100, micros(10_900)));
        assert_eq!(all.quantile(0.5), micros(128));
        assert_eq!(all.quantile(0.99), micros(128));
        assert_eq!(all.quantile(1.0), micros(1_024));
        all.record(Duration::MAX);
        assert_eq!(all.quantile(1.0), micros(8_388_608));
    }

    #[test]
    fn a_rate_settles_at_what_happens_and_fades_when_nothing_does() {
        let mut rate = Frequency::default();
        let mut now = Time::ZERO;
        for _ in 0..600 {
            now = now + Duration::from_millis(100);
            rate.add(now, 5);
        }
        let per_second = rate.per_second(now);
        assert!((49.0..51.0).contains(&per_second), "{per_second}");
        assert!(rate.per_second(now + Duration::from_secs(60)) < 0.5);
    }
}
