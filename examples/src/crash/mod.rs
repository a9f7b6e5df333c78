//! Real processes that are killed: what `bin/crash.rs` and its test run.

mod processes;
mod roles;

use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use sync_server::registry::{EmbeddedRegistry, ServerRegistry, Tail};
use sync_server::{DocumentId, Seq};

use self::processes::{Fleet, N_CLIENTS};
pub use self::roles::{run_client, run_server};
use crate::random::SplitMix;

/// What the processes edit.
const DOCUMENT: &str = "crash";

/// How much to kill.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    rounds: u64,
    seed: u64,
}

impl Plan {
    /// So many rounds, with these choices.
    #[must_use]
    pub const fn new(rounds: u64, seed: u64) -> Self {
        Self { rounds, seed }
    }

    /// Reads `--rounds N` and `--seed N`.
    ///
    /// # Errors
    /// If there is anything else.
    pub fn parse(options: &[&str]) -> Result<Self, Box<dyn Error>> {
        let mut plan = Self::new(10, 1);
        for pair in options.chunks(2) {
            match pair {
                ["--rounds", n] => plan.rounds = n.parse()?,
                ["--seed", n] => plan.seed = n.parse()?,
                other => {
                    return Err(
                        format!("what is {other:?}? `crash [--rounds N] [--seed N]`").into(),
                    );
                }
            }
        }
        Ok(plan)
    }
}

/// What was found in the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    edits: usize,
    acknowledged: usize,
    kills: u64,
    restores: u64,
    missing: Vec<String>,
    /// Changes in the log more than once. After a restore the server is given whole states again, so then they do not count.
    doubled: usize,
    diverged: bool,
}

impl Report {
    /// Whether nothing was lost, and nothing doubled.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.missing.is_empty()
            && !self.diverged
            && (self.doubled == 0 || self.restores > 0)
            && self.acknowledged > 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "kills      {} and {} older copies put back",
            self.kills, self.restores
        )?;
        writeln!(
            f,
            "edits      {} returned, {} of them acknowledged before a kill",
            self.edits, self.acknowledged
        )?;
        writeln!(f, "missing    {} {:?}", self.missing.len(), self.missing)?;
        writeln!(f, "doubled    {}", self.doubled)?;
        write!(f, "converged  {}", if self.diverged { "no" } else { "yes" })
    }
}

/// Runs the plan with processes of the program that calls this.
///
/// # Errors
/// If a process could not be started, or one did not get done.
pub fn run(plan: &Plan) -> Result<Report, Box<dyn Error>> {
    let program = std::env::current_exe()?;
    run_with(&program, plan)
}

/// As [`run`], with processes of this program.
///
/// # Errors
/// As [`run`].
pub fn run_with(program: &Path, plan: &Plan) -> Result<Report, Box<dyn Error>> {
    let mut random = SplitMix(plan.seed);
    let mut fleet = Fleet::start(program)?;
    let (mut kills, mut restores) = (0, 0);
    for round in 0..plan.rounds {
        let pause = u64::try_from(50 + random.below(400))?;
        std::thread::sleep(Duration::from_millis(pause));
        match random.below(2 + N_CLIENTS).checked_sub(2) {
            // The server twice as often as each client.
            None => fleet.kill_server()?,
            Some(client) => fleet.kill_client(client)?,
        }
        kills += 1;
        if round % 10 == 4 {
            fleet.copy_directory()?;
        }
        if round % 10 == 9 {
            fleet.put_copy_back()?;
            restores += 1;
        }
    }
    let contents = fleet.finish()?;
    let (edits, acknowledged) = fleet.told();
    let doubled = doubled(&fleet.directory())?;
    let first = contents.first().cloned().unwrap_or_default();
    let report = Report {
        missing: edits
            .union(&acknowledged)
            .filter(|key| !first.contains(*key))
            .cloned()
            .collect(),
        edits: edits.len(),
        acknowledged: acknowledged.len(),
        kills,
        restores,
        doubled,
        diverged: contents.iter().any(|content| *content != first),
    };
    Ok(report)
}

/// How many changes stand in the log more than once.
fn doubled(directory: &Path) -> Result<usize, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let registry = EmbeddedRegistry::open(directory)?;
        let document = DocumentId::new(DOCUMENT)?;
        let mut after = registry.meta(&document).await?.log_start;
        let mut seen = BTreeSet::new();
        let mut doubled = 0;
        while let Tail::Changes { changes, .. } = registry.tail(&document, after, 1 << 20).await? {
            let Some(last) = changes.last() else { break };
            after = Seq(last.seq.0);
            doubled += changes
                .iter()
                .filter(|change| !seen.insert(change.bytes.clone()))
                .count();
        }
        registry.close().await?;
        Ok(doubled)
    })
}
