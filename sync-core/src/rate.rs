//! How fast something may go on: a bucket of tokens that fills with time.
//!
//! The token bucket of RFC 2697, counted from the top: what is kept is how much is missing, so that a bucket that has not
//! been used for a while is equal to a new one, and can be forgotten.

use std::time::Duration;

use crate::time::Time;

/// What one token is counted in, so that a microsecond's worth of any rate is a whole number.
const PARTS: u128 = 1_000_000;

/// How much of something may come: so much each second, and so much at once after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// What may come each second in the long run. With 0 there is the burst, and then nothing more.
    pub per_second: u64,
    /// What may come at once after a pause. Something larger may come too, alone, after a pause that fills the whole burst.
    pub burst: u64,
}

impl Rate {
    /// Anything at any time.
    pub const UNLIMITED: Self = Self::new(u64::MAX, u64::MAX);

    /// So much each second, and so much at once.
    #[must_use]
    pub const fn new(per_second: u64, burst: u64) -> Self {
        Self { per_second, burst }
    }
}

/// Holds what comes to a [`Rate`]. Keeps no clock: whoever asks says what time it is, and time that runs backwards counts
/// as no time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBucket {
    rate: Rate,
    /// What is missing from a full bucket, in parts of a token. May be more than the bucket holds: a debt.
    missing: u128,
    /// When that was so.
    at: Time,
}

impl TokenBucket {
    /// A full bucket.
    #[must_use]
    pub const fn new(rate: Rate) -> Self {
        Self {
            rate,
            missing: 0,
            at: Time::ZERO,
        }
    }

    /// What it holds things to.
    #[must_use]
    pub const fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes `n` if that much is there.
    ///
    /// # Errors
    /// How long to wait before it is; nothing was taken.
    pub fn try_take(&mut self, now: Time, n: u64) -> Result<(), Duration> {
        match self.wait(now, n) {
            Duration::ZERO => {
                self.take(now, n);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// Takes `n` in any case. What is not there is owed: nothing can be had until time has paid for it. For what is only
    /// known, or counted, when it has been done.
    pub fn take(&mut self, now: Time, n: u64) {
        self.missing = self
            .missing(now)
            .saturating_add(u128::from(n).saturating_mul(PARTS));
        self.at = self.at.max(now);
    }

    /// How long until `n` is there; zero if it is, [`Duration::MAX`] if it never will be. More than the burst is there when
    /// the bucket is full.
    #[must_use]
    pub fn wait(&self, now: Time, n: u64) -> Duration {
        self.time_to(now, n.min(self.rate.burst))
    }

    /// How long until `n` can have been taken, piece by piece; [`Duration::MAX`] if never.
    #[must_use]
    pub fn time_to(&self, now: Time, n: u64) -> Duration {
        let parts = |tokens: u64| u128::from(tokens).saturating_mul(PARTS);
        let missing = self.missing(now).saturating_add(parts(n));
        let excess = missing.saturating_sub(parts(self.rate.burst));
        if excess == 0 {
            return Duration::ZERO;
        }
        if self.rate.per_second == 0 {
            return Duration::MAX;
        }
        let micros = excess.div_ceil(u128::from(self.rate.per_second));
        u64::try_from(micros).map_or(Duration::MAX, Duration::from_micros)
    }

    /// When `n` is there, if nothing is taken until then.
    #[must_use]
    pub fn ready_at(&self, n: u64) -> Time {
        self.at + self.wait(self.at, n)
    }

    /// Whether it is as good as new.
    #[must_use]
    pub fn is_full(&self, now: Time) -> bool {
        self.missing(now) == 0
    }

    fn missing(&self, now: Time) -> u128 {
        let micros = u128::from(now.as_micros().saturating_sub(self.at.as_micros()));
        let back = micros.saturating_mul(u128::from(self.rate.per_second));
        self.missing.saturating_sub(back)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn ms(millis: u64) -> Time {
        Time::from_micros(millis * 1_000)
    }

    const fn wait(millis: u64) -> Result<(), Duration> {
        Err(Duration::from_millis(millis))
    }

    #[test]
    fn the_burst_may_come_at_once_and_the_next_when_there_is_a_token_again() {
        let mut bucket = TokenBucket::new(Rate::new(10, 3));
        for _ in 0..3 {
            assert_eq!(bucket.try_take(ms(0), 1), Ok(()));
        }
        assert_eq!(bucket.try_take(ms(0), 1), wait(100));
        assert_eq!(bucket.try_take(ms(99), 1), wait(1));
        assert_eq!(bucket.ready_at(1), ms(100));
        assert_eq!(bucket.try_take(ms(100), 1), Ok(()));
        assert_eq!(bucket.try_take(ms(100), 1), wait(100));
    }

    #[test]
    fn a_pause_fills_it_and_no_more_than_that() {
        let mut bucket = TokenBucket::new(Rate::new(10, 3));
        bucket.take(ms(0), 3);
        assert!(!bucket.is_full(ms(299)));
        assert!(bucket.is_full(ms(300)));
        assert_eq!(bucket.try_take(ms(60_000), 3), Ok(()));
        assert_eq!(bucket.try_take(ms(60_000), 1), wait(100));
    }

    #[test]
    fn more_than_the_burst_comes_alone_and_is_paid_for_afterwards() {
        let mut bucket = TokenBucket::new(Rate::new(10, 3));
        bucket.take(ms(0), 1);
        assert_eq!(bucket.try_take(ms(0), 30), wait(100));
        assert_eq!(bucket.try_take(ms(100), 30), Ok(()));
        // 27 owed, and one more; or four, of which three fit.
        assert_eq!(bucket.time_to(ms(100), 4), Duration::from_millis(3_100));
        assert_eq!(bucket.try_take(ms(100), 1), wait(2_800));
        assert_eq!(bucket.try_take(ms(2_900), 1), Ok(()));
    }

    #[test]
    fn what_was_refused_was_not_taken() {
        let mut bucket = TokenBucket::new(Rate::new(10, 3));
        bucket.take(ms(0), 3);
        for _ in 0..100 {
            assert_eq!(bucket.try_take(ms(0), 1), wait(100));
        }
        assert_eq!(bucket.try_take(ms(100), 1), Ok(()));
    }

    #[test]
    fn less_than_a_token_each_microsecond_adds_up() {
        let mut bucket = TokenBucket::new(Rate::new(3, 1));
        bucket.take(ms(0), 1);
        // Asking often loses nothing to rounding.
        for micros in 0..333_334 {
            assert!(bucket.wait(Time::from_micros(micros), 1) > Duration::ZERO);
            bucket.take(Time::from_micros(micros), 0);
        }
        assert_eq!(bucket.try_take(Time::from_micros(333_334), 1), Ok(()));
    }

    #[test]
    fn time_that_runs_backwards_counts_as_no_time() {
        let mut bucket = TokenBucket::new(Rate::new(10, 1));
        bucket.take(ms(1_000), 1);
        bucket.take(ms(500), 0);
        assert_eq!(bucket.try_take(ms(1_099), 1), wait(1));
        assert_eq!(bucket.try_take(ms(1_100), 1), Ok(()));
    }

    #[test]
    fn with_nothing_coming_in_there_is_the_burst_and_then_nothing() {
        let mut bucket = TokenBucket::new(Rate::new(0, 2));
        assert_eq!(bucket.try_take(ms(0), 2), Ok(()));
        assert_eq!(bucket.try_take(ms(1_000_000), 1), Err(Duration::MAX));
    }

    #[test]
    fn without_limits_nothing_waits() {
        let mut bucket = TokenBucket::new(Rate::UNLIMITED);
        for _ in 0..3 {
            assert_eq!(bucket.try_take(ms(0), u64::MAX >> 2), Ok(()));
        }
        bucket.take(ms(0), u64::MAX);
        bucket.take(ms(0), u64::MAX);
        assert_eq!(bucket.try_take(ms(2_000), 1), Ok(()));
    }

    proptest! {
        #[test]
        fn in_no_stretch_of_time_does_more_come_than_the_rate_says(
            per_second in 1_u64..1_000,
            burst in 1_u64..100,
            steps in proptest::collection::vec((0_u64..50_000, 1_u64..20), 1..100),
        ) {
            let mut bucket = TokenBucket::new(Rate::new(per_second, burst));
            let (mut now, mut taken) = (0, Vec::new());
            for (later, n) in steps {
                now += later;
                let n = n.min(burst);
                match bucket.try_take(Time::from_micros(now), n) {
                    Ok(()) => taken.push((now, n)),
                    Err(wait) => {
                        // The wait is exact: then it works, and not before.
                        let at = Time::from_micros(now) + wait;
                        prop_assert_eq!(bucket.wait(at, n), Duration::ZERO);
                        let before = Time::from_micros(at.as_micros() - 1);
                        prop_assert!(bucket.wait(before, n) > Duration::ZERO);
                    }
                }
            }
            for (first, (start, _)) in taken.iter().enumerate() {
                let mut sum = 0;
                for (end, n) in taken.iter().skip(first) {
                    sum += n;
                    let may = burst * 1_000_000 + (end - start) * per_second;
                    prop_assert!(sum * 1_000_000 <= may);
                }
            }
        }
    }
}
