//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Measures the sync server next to a bare relay.
#[derive(Debug, Parser)]
#[command(name = "bench", version)]
pub struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Measure scenarios, print tables, and write what was measured into files.
    Run(RunOptions),
    /// Serve until nobody holds the standard input any more. What `run` starts.
    #[command(subcommand)]
    Serve(Serve),
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Scenario {
    /// S1: one document, many readers.
    #[value(name = "fan-out", alias = "s1", alias = "S1")]
    FanOut,
    /// S2: many documents of two clients.
    #[value(name = "pairs", alias = "s2", alias = "S2")]
    Pairs,
    /// S3: connections that do nothing.
    #[value(name = "idle", alias = "s3", alias = "S3")]
    Idle,
    /// S4: many who open a long document at once.
    #[value(name = "join", alias = "s4", alias = "S4")]
    Join,
    /// S5: somebody who comes back having missed a little.
    #[value(name = "resume", alias = "s5", alias = "S5")]
    Resume,
    /// S6: a reader who stops reading while others write.
    #[value(name = "slow-reader", alias = "s6", alias = "S6")]
    SlowReader,
    /// S7: a server killed right after it has shown a change.
    #[value(name = "kills", alias = "s7", alias = "S7")]
    Kills,
    /// S8: many sessions in one document that say something of themselves.
    #[value(name = "presence", alias = "s8", alias = "S8")]
    Presence,
}

/// How `run` measures.
#[derive(Debug, Clone, Args)]
pub(crate) struct RunOptions {
    /// What to measure; all of it by default.
    #[arg(value_enum)]
    pub(crate) scenarios: Vec<Scenario>,
    /// How often, each time with every server in turn.
    #[arg(long, default_value_t = 1)]
    pub(crate) runs: u32,
    /// How long one measurement of a load takes, in seconds.
    #[arg(long, default_value_t = 5.0)]
    pub(crate) seconds: f64,
    /// S1: clients of the document, all of which read it.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 500, 1_000])]
    pub(crate) readers: Vec<usize>,
    /// S2: documents.
    #[arg(long, default_value_t = 1_000)]
    pub(crate) rooms: usize,
    /// S3: connections, each with a document of its own.
    #[arg(long, value_delimiter = ',', default_values_t = [5_000, 10_000])]
    pub(crate) idle: Vec<usize>,
    /// S4 and S5: changes of one character in the document.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) changes: usize,
    /// S4: clients who join at once.
    #[arg(long, default_value_t = 200)]
    pub(crate) joiners: usize,
    /// S6: what is written while a reader has stopped.
    #[arg(long, default_value_t = 100)]
    pub(crate) megabytes: u32,
    /// S7: how often the server is killed.
    #[arg(long, default_value_t = 100)]
    pub(crate) kills: u16,
    /// S8: sessions in the document.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 300, 1_000])]
    pub(crate) sessions: Vec<usize>,
    /// S8: how often each says something, in a second.
    #[arg(long, default_value_t = 10)]
    pub(crate) updates: u32,
    /// Registries of the server that is measured.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Registry::Memory, Registry::Embedded])]
    pub(crate) registries: Vec<Registry>,
    /// Runtime of the servers.
    #[arg(long, value_enum, default_value_t = Runtime::Current)]
    pub(crate) runtime: Runtime,
    /// Where registries on disk are put; a temporary folder by default, which may not be on a disk.
    #[arg(long)]
    pub(crate) directory: Option<PathBuf>,
    /// File for what was measured, as JSON.
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Folder for charts, as SVG.
    #[arg(long)]
    pub(crate) svg: Option<PathBuf>,
    /// Seconds after which everything is given up.
    #[arg(long, default_value_t = 14_400)]
    pub(crate) limit: u64,
}

/// A server.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Serve {
    /// The server of this project, which lets in anybody, without limits of rate.
    Sync {
        /// Where documents live.
        #[arg(long, value_enum, default_value_t = Registry::Memory)]
        registry: Registry,
        /// Folder of a registry on disk.
        #[arg(long)]
        directory: Option<PathBuf>,
        #[command(flatten)]
        process: ProcessOptions,
    },
    /// The bare relay.
    Relay {
        /// How a connection's queue is written.
        #[arg(long, value_enum, default_value_t = RelayMode::Coalescing)]
        mode: RelayMode,
        /// Whether authors are told that their messages have been passed on.
        #[arg(long, value_enum, default_value_t = Switch::Off)]
        acks: Switch,
        /// Answer each message with so many bytes, instead of passing it on.
        #[arg(long, default_value_t = 0)]
        blob: usize,
        #[command(flatten)]
        process: ProcessOptions,
    },
}

/// What any server's process is told.
#[derive(Debug, Clone, Args)]
pub(crate) struct ProcessOptions {
    /// The runtime.
    #[arg(long, value_enum, default_value_t = Runtime::Current)]
    pub(crate) runtime: Runtime,
    /// The only core that it runs on.
    #[arg(long)]
    pub(crate) core: Option<usize>,
}

/// Where documents live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Registry {
    /// In memory.
    Memory,
    /// In a directory, with SQLite.
    Embedded,
}

/// A tokio runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Runtime {
    /// Everything on one thread.
    Current,
    /// Worker threads, as many as there are cores for the process.
    Multi,
}

/// How the relay writes what waits for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RelayMode {
    /// Each message by itself.
    Plain,
    /// All of it at once.
    Coalescing,
}

/// Yes or no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

/// The name of a value on the command line.
pub(crate) fn name_of(value: impl ValueEnum) -> String {
    let name = value.to_possible_value();
    name.map_or_else(String::new, |name| name.get_name().to_owned())
}
