//! S1: one document that many read, at the speed of people and as fast as the server goes.

use super::Lab;
use super::load::{CHARACTERS, Load, Pace};
use crate::Failure;
use crate::cli::Scenario;
use crate::report::{Results, Row};

const DOCUMENT: &str = "document";
/// As if ten people typed: changes in a second, of all writers together.
const PACE: u32 = 50;
const WRITERS: usize = 10;
/// As fast as it goes: few writers, who wait until everybody has what they wrote.
const SATURATING_WRITERS: usize = 4;
const IN_FLIGHT: u64 = 16;
/// Clients where latencies are measured.
const PROBES: usize = 10;

pub(super) fn measure(lab: &Lab, results: &mut Results) -> Result<(), Failure> {
    let paces = [
        (Pace::PerSecond(PACE), WRITERS),
        (Pace::InFlight(IN_FLIGHT), SATURATING_WRITERS),
    ];
    for n in &lab.options.readers {
        for (pace, n_writers) in paces {
            let case = match pace {
                Pace::PerSecond(rate) => format!("{n} clients, {rate} changes/s"),
                Pace::InFlight(_) => format!("{n} clients, saturated"),
            };
            for (place, subject) in lab.subjects().into_iter().enumerate() {
                let server = lab.start(subject)?;
                let others = u64::try_from(n.saturating_sub(1))?;
                let mut load = Load::new(subject.format(), others, CHARACTERS)?;
                for number in 0..*n {
                    let client = server.client(number, DOCUMENT)?;
                    let is_probe = number.is_multiple_of((n / PROBES).max(1));
                    if number < n_writers.min(*n) {
                        load.add_writer(client, is_probe)?;
                    } else {
                        load.add_reader(client, is_probe)?;
                    }
                }
                results.add(Row {
                    scenario: Scenario::FanOut,
                    case: case.clone(),
                    subject: subject.name(),
                    is_baseline: place == 0,
                    metrics: load.measure(&server.process, pace, lab.time())?,
                });
            }
        }
    }
    Ok(())
}
