//! What is measured. Each scenario is run as often as asked, every time with the relay and the servers in turn, so that
//! whatever else the machine does meanwhile happens to all of them.

mod fan_out;
mod history;
mod idle;
mod join;
mod kills;
mod lab;
mod load;
mod metronome;
mod pairs;
mod presence;
mod resume;
mod slow_reader;

use std::path::PathBuf;
use std::time::Duration;

use crate::Failure;
use crate::cli::{RunOptions, Scenario};
use crate::report::{self, Results};
use crate::serve::open_many_files;

pub(crate) use self::lab::Lab;

impl Scenario {
    const ALL: [Self; 8] = [
        Self::FanOut,
        Self::Pairs,
        Self::Idle,
        Self::Join,
        Self::Resume,
        Self::SlowReader,
        Self::Kills,
        Self::Presence,
    ];

    /// What it is called in tables.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::FanOut => "S1: one document",
            Self::Pairs => "S2: documents of two clients",
            Self::Idle => "S3: idle connections",
            Self::Join => "S4: joining a long document",
            Self::Resume => "S5: coming back",
            Self::SlowReader => "S6: a reader that stops",
            Self::Kills => "S7: kills",
            Self::Presence => "S8: presence",
        }
    }

    /// Measures each case once with each server.
    fn measure(self, lab: &Lab, results: &mut Results) -> Result<(), Failure> {
        match self {
            Self::FanOut => fan_out::measure(lab, results),
            Self::Pairs => pairs::measure(lab, results),
            Self::Idle => idle::measure(lab, results),
            Self::Join => join::measure(lab, results),
            Self::Resume => resume::measure(lab, results),
            Self::SlowReader => slow_reader::measure(lab, results),
            Self::Kills => kills::measure(lab, results),
            Self::Presence => presence::measure(lab, results),
        }
    }
}

/// Measures, prints a table for each scenario, and writes the files that were asked for.
pub(crate) fn run(options: &RunOptions) -> Result<(), Failure> {
    open_many_files()?;
    let lab = Lab::new(options)?;
    end_after(Duration::from_secs(options.limit), lab.folder().to_owned());
    let scenarios = match options.scenarios.as_slice() {
        [] => &Scenario::ALL[..],
        some => some,
    };
    let mut results = Results::default();
    for scenario in scenarios {
        for run in 1..=options.runs.max(1) {
            eprintln!("{}, run {run} of {}", scenario.title(), options.runs.max(1));
            scenario.measure(&lab, &mut results)?;
        }
        report::print_table(&results, &lab.setting, *scenario)?;
    }
    if let Some(file) = &options.json {
        report::write_json(&results, &lab.setting, file)?;
    }
    if let Some(folder) = &options.svg {
        report::write_charts(&results, folder)?;
    }
    Ok(())
}

/// Ends this process after so long, whatever it is waiting for. Its servers end with it.
fn end_after(limit: Duration, folder: PathBuf) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        eprintln!("bench: given up after {} s", limit.as_secs());
        // What servers are still writing stays in a folder for temporary files.
        let _ = std::fs::remove_dir_all(folder);
        std::process::exit(2);
    });
}
