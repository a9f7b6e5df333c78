//! The `sync-server` program. `docs/guide/storage.md` leads through it.

mod inspect;
mod output;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use self::output::Failure;

#[derive(Debug, Parser)]
#[command(
    name = "sync-server",
    version,
    about = "Real-time, offline-first document sync: the server and its tools",
    after_help = output::EXIT_CODES,
    // Serving has options and no command.
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look into the directory of a registry; take documents out of it, or put them in
    Inspect(inspect::Arguments),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Some(Command::Inspect(arguments)) => inspect::run(&arguments),
        None => Err(Failure::Usage(Cli::command().render_help().to_string())),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
