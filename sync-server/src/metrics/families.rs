//! Metrics of each kind, written down.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use sync_core::server::Latencies;

/// Counts what has been. The name gets `_total`.
pub(super) fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    metric.encode_counter::<NoLabelSet, _, f64>(&value, None)
}

/// Counts what has been, by something.
pub(super) fn counters<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl IntoIterator<Item = (&'a str, u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (of, value) in values {
        let labels = [(label, of)];
        let mut metric = metric.encode_family(&labels)?;
        metric.encode_counter::<NoLabelSet, _, f64>(&value, None)?;
    }
    Ok(())
}

/// Says what is.
pub(super) fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    metric.encode_gauge(&whole(value))
}

/// Says what is, by something.
pub(super) fn gauges<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl IntoIterator<Item = (&'a str, u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (of, value) in values {
        let labels = [(label, of)];
        metric.encode_family(&labels)?.encode_gauge(&whole(value))?;
    }
    Ok(())
}

/// Counts how long something took. The name gets `_seconds`.
pub(super) fn histogram(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    latencies: &Latencies,
) -> fmt::Result {
    let unit = Unit::Seconds;
    let kind = MetricType::Histogram;
    let mut metric = encoder.encode_descriptor(name, help, Some(&unit), kind)?;
    buckets(&mut metric, latencies)
}

/// The same, by something.
pub(super) fn histograms<'a>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    label: &str,
    values: impl IntoIterator<Item = (&'a str, &'a Latencies)>,
) -> fmt::Result {
    let unit = Unit::Seconds;
    let kind = MetricType::Histogram;
    let mut metric = encoder.encode_descriptor(name, help, Some(&unit), kind)?;
    for (of, latencies) in values {
        let labels = [(label, of)];
        buckets(&mut metric.encode_family(&labels)?, latencies)?;
    }
    Ok(())
}

fn buckets(metric: &mut MetricEncoder<'_>, latencies: &Latencies) -> fmt::Result {
    let bound = |bucket| Latencies::upper_bound(bucket).map(|bound| bound.as_secs_f64());
    let counts = latencies.counts().iter().enumerate();
    // The last one is written as +Inf.
    let buckets: Vec<_> = counts
        .map(|(bucket, n)| (bound(bucket).unwrap_or(f64::MAX), *n))
        .collect();
    let sum = Duration::as_secs_f64(&latencies.sum());
    metric.encode_histogram::<NoLabelSet>(sum, latencies.count(), &buckets, None)
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
