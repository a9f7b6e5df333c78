//! Settings.

use std::time::Duration;

/// Settings of a [`GroupCommit`](super::GroupCommit).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupCommitOptions {
    pub(super) interval_min: Duration,
    pub(super) interval_max: Duration,
    pub(super) calls_max: usize,
    pub(super) bytes_max: usize,
    pub(super) queue_bytes_max: usize,
    pub(super) readers: usize,
}

impl Default for GroupCommitOptions {
    fn default() -> Self {
        Self {
            interval_min: Duration::from_millis(1),
            interval_max: Duration::from_millis(5),
            calls_max: 1_000,
            bytes_max: 4 << 20,
            queue_bytes_max: 64 << 20,
            readers: 2,
        }
    }
}

impl GroupCommitOptions {
    /// How far apart commits begin while many call at once, in favour of larger ones. Default 1 ms to 5 ms: within these bounds it
    /// is twice what the last commit took. Nobody waits for it after a pause, alone, or with a good many others.
    #[must_use]
    pub const fn commit_interval(mut self, min: Duration, max: Duration) -> Self {
        self.interval_min = min;
        self.interval_max = max;
        self
    }

    /// Most calls in one commit. Default 1,000.
    #[must_use]
    pub const fn calls_max(mut self, calls: usize) -> Self {
        self.calls_max = calls;
        self
    }

    /// Bytes of changes after which a commit takes no more calls. Default 4 MiB.
    #[must_use]
    pub const fn bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// Bytes of changes that wait for their commit. Default 64 MiB; calls beyond wait in turn, before they are queued.
    #[must_use]
    pub const fn queue_bytes_max(mut self, bytes: usize) -> Self {
        self.queue_bytes_max = bytes;
        self
    }

    /// Threads that read, each with a [`BlockingReader`](super::BlockingReader) of its own. Default 2, at least 1.
    #[must_use]
    pub const fn readers(mut self, threads: usize) -> Self {
        self.readers = threads;
        self
    }
}
