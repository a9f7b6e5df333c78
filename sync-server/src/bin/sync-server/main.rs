//! The `sync-server` program. `docs/guide/operations.md` leads through serving, `docs/guide/storage.md` through `inspect`.

mod admin;
mod admins;
mod certificates;
mod config;
mod events;
mod inspect;
mod limits;
mod listen;
mod logs;
mod output;
mod rules;
mod serve;
mod settings;
mod tokens;
mod transfer;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use self::config::Config;
use self::output::Failure;
use self::settings::Settings;

#[derive(Debug, Parser)]
#[command(
    name = "sync-server",
    version,
    about = "Real-time, offline-first document sync: the server and its tools",
    long_about = "Real-time, offline-first document sync: the server and its tools.\n\n\
        Without a command it serves the documents of a directory. Each option can also be set in the environment \
        (SYNC_ and its name, as in SYNC_DRAIN_SECONDS) and in the file that --config names (drain-seconds = 30). \
        An option goes before the environment, and that before the file.",
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
    /// Check what serving would do with these options, environment and file, and print all of it
    CheckConfig,
    /// Administer a server that runs, over its admin API
    Admin(admin::Arguments),
    /// Look into the directory of a registry; take documents out of it, or put them in
    Inspect(inspect::Arguments),
}

fn main() -> ExitCode {
    // Does not return in a process that is a worker of a server.
    #[cfg(unix)]
    sync_server::worker_main();

    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run() -> Result<(), Failure> {
    let command = settings::with_options(Cli::command())
        .mut_subcommand("check-config", settings::with_options);
    let matches = command.get_matches();
    let cli = Cli::from_arg_matches(&matches).map_err(|error| Failure::Usage(error.to_string()))?;
    match cli.command {
        Some(Command::Admin(arguments)) => admin::run(&arguments),
        Some(Command::Inspect(arguments)) => inspect::run(&arguments),
        Some(Command::CheckConfig) => {
            let options = matches.subcommand_matches("check-config");
            let settings = Settings::read(options.unwrap_or(&matches))?;
            let config = Config::new(&settings)?;
            config.auth()?;
            config.admins()?;
            config.tls()?;
            output::line(settings.to_toml().trim_end())
        }
        None => serve::run(&Config::new(&Settings::read(&matches)?)?),
    }
}
