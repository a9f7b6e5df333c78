//! S6: one of three clients stops reading, while a lot is written; then it reads on.

use std::time::Duration;

use super::Lab;
use super::load::{Load, Pace};
use crate::Failure;
use crate::cli::{RelayMode, Scenario};
use crate::report::{Metric, Results, Row, number};
use crate::subject::Subject;

const DOCUMENT: &str = "document";
/// Changes in a second, and characters of each: 20 MB/s.
const PACE: u32 = 2_000;
const CHARACTERS: usize = 10_000;

pub(super) fn measure(lab: &Lab, results: &mut Results) -> Result<(), Failure> {
    let megabytes = lab.options.megabytes;
    let relay = Subject::relay(RelayMode::Coalescing, true);
    for subject in [relay].into_iter().chain(lab.servers()) {
        let control = write(lab, subject, false)?;
        let mut stopped = write(lab, subject, true)?;
        let growth = number(stopped.peak) - number(control.peak);
        stopped
            .metrics
            .push((Metric::GrowthMegabytes, growth / 1e6));
        if let (Some(p99), Some(usual)) = (stopped.p99(), control.p99()) {
            stopped.metrics.push((Metric::P99OfControl, p99 / usual));
        }
        results.add(Row {
            scenario: Scenario::SlowReader,
            case: format!("{megabytes} MB while one of two readers has stopped"),
            subject: subject.name(),
            // Growth without bound is nothing to be compared to.
            is_baseline: false,
            metrics: stopped.metrics,
        });
    }
    Ok(())
}

/// What writing led to.
struct Written {
    /// The most memory that the server had in excess of what it began with.
    peak: u64,
    metrics: Vec<(Metric, f64)>,
}

impl Written {
    fn p99(&self) -> Option<f64> {
        let found = self
            .metrics
            .iter()
            .find(|(metric, _)| *metric == Metric::P99Millis);
        found.map(|(_, p99)| *p99)
    }
}

fn write(lab: &Lab, subject: Subject, has_stopped: bool) -> Result<Written, Failure> {
    let server = lab.start(subject)?;
    // To be counted on is only the one who reads.
    let mut load = Load::new(subject.format(), 1, CHARACTERS)?;
    load.add_writer(server.client(0, DOCUMENT)?, false)?;
    load.add_reader(server.client(1, DOCUMENT)?, true)?;
    if has_stopped {
        load.add_stopped(server.client(2, DOCUMENT)?)?;
    }
    let before = server.process.usage()?;
    let bytes = f64::from(lab.options.megabytes) * 1e6;
    // A fifth of it warms up.
    let seconds = bytes / 1.2 / f64::from(PACE) / number(u64::try_from(CHARACTERS)?);
    let time = Duration::try_from_secs_f64(seconds)?;
    let mut metrics = load.measure(&server.process, Pace::PerSecond(PACE), time)?;
    let peak = server.process.usage()?.rss_peak.saturating_sub(before.rss);
    if has_stopped {
        let caught_up = load.catch_up()?;
        metrics.extend(caught_up.map(|time| (Metric::CatchUpSeconds, time.as_secs_f64())));
        metrics.push((Metric::LateCompletePercent, load.late_percent()));
    }
    Ok(Written { peak, metrics })
}
