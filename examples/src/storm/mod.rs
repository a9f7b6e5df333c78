//! Thousands of clients, cut at once and drained: what `bin/storm.rs` and its test run.

mod board;
mod load;
mod report;
mod server;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

pub use self::report::Report;
pub use self::server::serve;

/// Clients of one document.
const CLIENTS_PER_DOCUMENT: usize = 10;

/// How long a phase may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Clients, each with a connection.
    pub clients: usize,
    /// Changes per second, of all clients together, while the server drains.
    pub edits: usize,
    /// Time over which clients leave when the server drains.
    pub drain: Duration,
    /// The `sync-server` program. None: a server made of the library, in a process of the program at `own`.
    pub program: Option<PathBuf>,
    /// The `storm` program.
    pub own: PathBuf,
}

impl Plan {
    /// A plan of so many clients, with this program as their server's.
    #[must_use]
    pub const fn new(own: PathBuf, clients: usize) -> Self {
        Self {
            clients,
            edits: 100,
            drain: Duration::from_secs(5),
            program: None,
            own,
        }
    }

    /// Reads the options of the program.
    ///
    /// # Errors
    /// If there is anything else.
    pub fn parse(options: &[&str]) -> Result<Self, Box<dyn Error>> {
        let mut plan = Self::new(std::env::current_exe()?, 300);
        for pair in options.chunks(2) {
            match pair {
                ["--clients", n] => plan.clients = n.parse()?,
                ["--edits", n] => plan.edits = n.parse()?,
                ["--drain", n] => plan.drain = Duration::from_secs(n.parse()?),
                ["--program", path] => plan.program = Some(PathBuf::from(path)),
                other => {
                    return Err(format!(
                        "what is {other:?}? `storm [--clients N] [--edits N] [--drain SECONDS] [--program PATH]`"
                    )
                    .into());
                }
            }
        }
        Ok(plan)
    }
}

/// Carries out the plan.
///
/// # Errors
/// If a process could not be started, or somebody did not get done.
pub fn run(plan: &Plan) -> Result<Report, Box<dyn Error>> {
    server::allow_many_connections()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(load::run(plan));
    // Clients that are left would be waited for.
    runtime.shutdown_background();
    report
}
