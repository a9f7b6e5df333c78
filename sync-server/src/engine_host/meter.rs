//! How long engines take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long this takes.
pub(crate) fn timed<T>(f: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = f();
    (result, start.elapsed())
}

/// Adds up time that was spent. By the real clock, whatever the server's is: engines know no other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter(Arc<AtomicU64>);

impl Meter {
    /// Counts what this takes, on a thread that does nothing else.
    pub(crate) fn count<T>(&self, f: impl FnOnce() -> T) -> T {
        let (result, took) = timed(f);
        self.add(took);
        result
    }

    /// Counts what this takes, waiting included.
    pub(crate) async fn wait<T>(&self, f: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let result = f.await;
        self.add(start.elapsed());
        result
    }

    pub(crate) fn spent(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_add(micros, Ordering::Relaxed);
    }
}
