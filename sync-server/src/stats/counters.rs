//! Counters that several threads write, or read while another one writes.

use std::array;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sync_core::registry::RegistryError;
use sync_core::server::Latencies;
use tokio::time::Instant;

use super::CallStats;

/// Bytes of the frames of one connection. Only its task writes.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl Traffic {
    pub(crate) fn received(&self, bytes: usize) {
        add_alone(&self.bytes_in, bytes);
    }

    pub(crate) fn sent(&self, bytes: usize) {
        add_alone(&self.bytes_out, bytes);
    }

    /// Received and sent.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (read(&self.bytes_in), read(&self.bytes_out))
    }
}

/// With one writer this needs no locked instruction.
fn add_alone(counter: &AtomicU64, bytes: usize) {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    let before = counter.load(Ordering::Relaxed);
    counter.store(before.saturating_add(bytes), Ordering::Relaxed);
}

/// [`Latencies`] that many tasks count in.
#[derive(Debug)]
struct SharedLatencies {
    counts: [AtomicU64; Latencies::BUCKETS],
    sum_micros: AtomicU64,
}

impl SharedLatencies {
    fn new() -> Self {
        Self {
            counts: array::from_fn(|_| AtomicU64::new(0)),
            sum_micros: AtomicU64::new(0),
        }
    }

    fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some(count) = self.counts.get(Latencies::bucket(micros)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn read(&self) -> Latencies {
        let mut counts = [0; Latencies::BUCKETS];
        for (read, count) in counts.iter_mut().zip(&self.counts) {
            *read = count.load(Ordering::Relaxed);
        }
        Latencies::from_counts(counts, self.sum_micros.load(Ordering::Relaxed))
    }
}

/// Calls of one method of the registry.
#[derive(Debug)]
pub(crate) struct CallCounter {
    latencies: SharedLatencies,
    failures: AtomicU64,
}

impl CallCounter {
    fn new() -> Self {
        Self {
            latencies: SharedLatencies::new(),
            failures: AtomicU64::new(0),
        }
    }

    /// Makes a call, and counts it if it comes to its end.
    pub(crate) async fn time<T>(
        &self,
        call: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let began = Instant::now();
        let result = call.await;
        self.latencies.record(began.elapsed());
        if let Err(error) = &result
            && is_failure(error)
        {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    fn read(&self, call: &'static str) -> CallStats {
        CallStats {
            call,
            latencies: self.latencies.read(),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }
}

/// Others are facts about the document.
const fn is_failure(error: &RegistryError) -> bool {
    !matches!(
        error,
        RegistryError::NotFound
            | RegistryError::Deleted
            | RegistryError::Fenced { .. }
            | RegistryError::Conflict { .. }
    )
}

macro_rules! registry_calls {
    ($($call:ident),+) => {
        /// Calls of a registry, by method.
        #[derive(Debug)]
        pub(crate) struct RegistryCalls {
            $(pub(crate) $call: CallCounter,)+
        }

        impl RegistryCalls {
            pub(crate) fn new() -> Self {
                Self { $($call: CallCounter::new(),)+ }
            }

            pub(crate) fn read(&self) -> Vec<CallStats> {
                vec![$(self.$call.read(stringify!($call)),)+]
            }
        }
    };
}

registry_calls!(
    create, meta, append, tail, snapshot, origins, compact, heads
);
