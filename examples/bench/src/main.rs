//! `bench run`, `bench serve`: see the library.

use std::process::ExitCode;

use clap::Parser;
use sync_bench::{Cli, run};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("bench: {failure}");
            ExitCode::FAILURE
        }
    }
}
