//! Times between a change's writing and its arrival.

use std::time::Duration;

use crate::report::Metric;

/// A sample of latencies, in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    micros: Vec<u32>,
}

impl Latencies {
    pub(crate) fn add(&mut self, latency: Duration) {
        self.micros
            .push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    /// What half of them, and 99 of 100, were at most.
    pub(crate) fn percentiles(&mut self) -> Vec<(Metric, f64)> {
        let p50 = self.per_mille(500).map(|ms| (Metric::P50Millis, ms));
        let p99 = self.per_mille(990).map(|ms| (Metric::P99Millis, ms));
        p50.into_iter().chain(p99).collect()
    }

    /// In milliseconds: of so many of a thousand the latency was at most this. `None` if nothing was measured.
    pub(crate) fn per_mille(&mut self, n: usize) -> Option<f64> {
        self.micros.sort_unstable();
        let last = self.micros.len().checked_sub(1)?;
        let micros = self.micros.get(last * n / 1_000)?;
        Some(f64::from(*micros) / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.per_mille(500), None);
        for ms in (1..=101).rev() {
            latencies.add(Duration::from_millis(ms));
        }
        assert_eq!(latencies.per_mille(0), Some(1.0));
        assert_eq!(latencies.per_mille(500), Some(51.0));
        assert_eq!(latencies.per_mille(990), Some(100.0));
        assert_eq!(latencies.per_mille(1_000), Some(101.0));
    }
}
