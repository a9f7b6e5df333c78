//! S2: many documents of two clients each, both of whom write: nothing can be shared between readers.

use super::Lab;
use super::load::{CHARACTERS, Load, Pace};
use crate::Failure;
use crate::cli::Scenario;
use crate::report::{Results, Row};

/// Changes in a second, in all documents together.
const PACE: u32 = 2_000;
/// As fast as it goes: so many that have not arrived yet, in all documents together.
const IN_FLIGHT: u64 = 256;
/// One document in so many is looked at for latencies.
const PROBE_EVERY: usize = 8;

pub(super) fn measure(lab: &Lab, results: &mut Results) -> Result<(), Failure> {
    let n = lab.options.rooms;
    for pace in [Pace::PerSecond(PACE), Pace::InFlight(IN_FLIGHT)] {
        let case = match pace {
            Pace::PerSecond(rate) => format!("{n} documents, {rate} changes/s"),
            Pace::InFlight(_) => format!("{n} documents, saturated"),
        };
        for (place, subject) in lab.subjects().into_iter().enumerate() {
            let server = lab.start(subject)?;
            let mut load = Load::new(subject.format(), 1, CHARACTERS)?;
            // The first clients of all documents, then the second ones: writers take turns in this order.
            for number in 0..2 * n {
                let room = number % n;
                let client = server.client(number, &format!("document-{room}"))?;
                load.add_writer(client, room.is_multiple_of(PROBE_EVERY))?;
            }
            results.add(Row {
                scenario: Scenario::Pairs,
                case: case.clone(),
                subject: subject.name(),
                is_baseline: place == 0,
                metrics: load.measure(&server.process, pace, lab.time())?,
            });
        }
    }
    Ok(())
}
