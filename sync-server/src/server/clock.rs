//! The one place that reads clocks.

use std::time::{Duration, SystemTime};

use sync_core::time::Time;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    start_wall_ms: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        let since_1970 = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        Self {
            start: Instant::now(),
            start_wall_ms: u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(super) fn now(&self) -> Time {
        Time::ZERO + self.start.elapsed()
    }

    pub(super) fn instant(&self, time: Time) -> Instant {
        self.start + time.since(Time::ZERO)
    }

    /// The wall clock's milliseconds since 1970 at a time of ours.
    pub(super) fn wall_ms(&self, time: Time) -> u64 {
        let passed = u64::try_from(time.since(Time::ZERO).as_millis());
        self.start_wall_ms
            .saturating_add(passed.unwrap_or(u64::MAX))
    }

    pub(super) const fn start_wall_ms(&self) -> u64 {
        self.start_wall_ms
    }
}
