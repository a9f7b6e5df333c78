//! Sends mutated changes and snapshots of every engine to a server with worker processes, and looks for anything that they
//! take with them.
//!
//! `hostile [CASES [SEED [ENGINE]]]`. The workers are this program itself. Says what came of it, and fails if a refused change reached
//! somebody, a change was refused by another's id, or other documents became more than twice as slow.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program that talks to its user"
)]

use std::error::Error;
use std::process::ExitCode;

use sync_examples::hostile::{Plan, engines, run};
use sync_server::{EngineId, Workers, worker_main_with};

fn main() -> ExitCode {
    worker_main_with(engines);
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match hostile(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("hostile: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn hostile(arguments: &[String]) -> Result<bool, Box<dyn Error + Send + Sync>> {
    let number = |at: usize, default: u64| match arguments.get(at) {
        Some(text) => text.parse(),
        None => Ok(default),
    };
    let plan = Plan {
        cases: number(0, 5_000)?,
        seed: number(1, 1)?,
        only: arguments.get(2).cloned().and_then(EngineId::new),
    };
    let workers = Workers::current_exe()?.memory_max(256 * 1024 * 1024);
    let report = run(plan, workers).await?;
    println!("{report}");
    Ok(report.is_clean())
}
