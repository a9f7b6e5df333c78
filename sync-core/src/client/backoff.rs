//! Delays between attempts: exponential with full jitter (Brooker, "Exponential Backoff And Jitter", AWS, 2015).

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};

use crate::rng::Rng;

/// How attempts are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackoffConfig {
    /// Upper end of the first delay. Default 500 ms.
    pub min: Duration,
    /// Upper end of every later delay. Default 30 s.
    pub max: Duration,
}

impl Default for BackoffConfig {
    fn default() -> Self {
        Self {
            min: Duration::from_millis(500),
            max: Duration::from_secs(30),
        }
    }
}

/// The n-th delay is drawn evenly from zero to `min * 2^(n-1)`, at most `max`. It never ends.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    config: BackoffConfig,
    attempts: u32,
}

impl Backoff {
    pub(crate) const fn new(config: BackoffConfig) -> Self {
        Self {
            config,
            attempts: 0,
        }
    }

    /// The next delay.
    pub(crate) fn next(&mut self, rng: &mut Rng) -> Duration {
        // Made anew each time: the iterator has a generator of its own, seeded from outside, and would not be copied.
        let mut delays = ExponentialBuilder::default()
            .with_min_delay(self.config.min)
            .with_max_delay(self.config.max)
            .with_factor(2.0)
            .without_max_times()
            .build();
        let doublings = self.attempts.min(DOUBLINGS_MAX);
        self.attempts = self.attempts.saturating_add(1);
        let cap = usize::try_from(doublings)
            .ok()
            .and_then(|doublings| delays.nth(doublings));
        rng.up_to(cap.unwrap_or(self.config.max).min(self.config.max))
    }

    /// Delays given since the last reset.
    pub(crate) const fn attempts(&self) -> u32 {
        self.attempts
    }

    pub(crate) fn reset(&mut self) {
        if self.attempts > 0 {
            *self = Self::new(self.config);
        }
    }
}

/// Doublings after which a nanosecond is longer than any delay.
const DOUBLINGS_MAX: u32 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario 39 (the bounds).
    #[test]
    fn delays_are_drawn_from_a_window_that_doubles_up_to_the_maximum_and_never_end() {
        let config = BackoffConfig::default();
        let mut rng = Rng::new(7);
        let mut largest = vec![Duration::ZERO; 40];
        for _ in 0..400 {
            let mut backoff = Backoff::new(config);
            for (n, largest) in largest.iter_mut().enumerate() {
                let window = config.min.saturating_mul(1 << n.min(20)).min(config.max);
                let delay = backoff.next(&mut rng);
                assert!(
                    delay <= window,
                    "delay {n} is {delay:?}, the window {window:?}"
                );
                *largest = (*largest).max(delay);
            }
        }
        // Full jitter uses the window's whole width.
        assert!(largest[0] > Duration::from_millis(450));
        assert!(largest[39] > Duration::from_secs(27));
    }

    #[test]
    fn a_reset_starts_over() {
        let mut rng = Rng::new(1);
        let mut backoff = Backoff::new(BackoffConfig::default());
        for _ in 0..20 {
            backoff.next(&mut rng);
        }
        backoff.reset();
        assert_eq!(backoff.attempts(), 0);
        assert!(backoff.next(&mut rng) <= Duration::from_millis(500));
    }
}
