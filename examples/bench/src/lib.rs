//! Measures the server next to a bare relay: the same WebSocket library, rooms, shared bytes, and no protocol.
//!
//! ```text
//! bench run ── starts ──▶ bench serve relay | bench serve sync     pinned to one core, a fresh process for each measurement
//!     │                        ▲ WebSockets over loopback
//!     └─ generator ────────────┘                                   pinned to another core, one thread
//! ```
//!
//! Costs are counted on the server's own process, per delivered change, and told as ratios to the relay of the same run.
//! `docs/benchmarks.md` says how to run it.

mod changes;
mod cli;
mod clients;
mod cores;
mod generator;
mod latency;
mod process;
mod report;
mod scenarios;
mod serve;
mod subject;

use std::error::Error;

pub use self::cli::Cli;

/// Anything that ends a measurement.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Does what the command line says.
///
/// # Errors
/// Whatever kept it from being done.
pub fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        cli::Command::Serve(what) => serve::run(&what),
        cli::Command::Run(options) => scenarios::run(&options),
    }
}
