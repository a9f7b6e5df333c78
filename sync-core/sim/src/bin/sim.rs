//! `just sim SEEDS [FIRST]`: runs the plans of so many seeds until one fails, and says what they did. With a third argument it
//! goes on after failures.

#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "a tool"
)]

use std::process::ExitCode;

use sync_sim::campaign::{Options, run_seeds};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |usual: u64| arguments.next().map_or(usual, |it| it.parse().unwrap());
    let (seeds, first) = (number(2_000), number(1));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let began = std::time::Instant::now();
    let options = Options {
        first,
        seeds,
        threads,
        says_progress: true,
        goes_on: arguments.next().is_some(),
    };
    let report = run_seeds(&options, sync_sim::run::run);
    println!("{}", report.coverage);
    println!(
        "seeds {first} to {}: {} runs in {:.1} s, {} threads",
        first + seeds - 1,
        report.runs,
        began.elapsed().as_secs_f64(),
        threads
    );
    let missing = report.coverage.missing();
    let mut is_good = true;
    if let Some(failure) = report.failure {
        println!("{failure}");
        is_good = false;
    } else if !missing.is_empty() {
        println!("never exercised: {missing:#?}");
        is_good = seeds < 10_000;
    }
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
