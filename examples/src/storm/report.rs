//! What was found.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::board::Phase;

/// Times after which clients came back, and what they were told meanwhile.
#[derive(Debug, Clone)]
pub struct Round {
    /// From the moment that everybody was cut, or the server told to leave; in order.
    pub since_began: Vec<Duration>,
    /// From the dial that succeeded until the document was open; in order.
    pub since_dialed: Vec<Duration>,
    /// Why sessions and attempts ended, and how often.
    pub ended: BTreeMap<String, usize>,
    /// What nobody should have been told, and how often.
    pub surprises: BTreeMap<String, usize>,
    /// Connections that the system dropped because the server did not accept them; `None` where it does not say.
    pub accept_failures: u64,
}

impl Round {
    pub(super) fn new(phase: &Phase, accept_failures: u64) -> Self {
        Self {
            since_began: phase.since_began(),
            since_dialed: phase.since_dialed(),
            ended: phase.ended.clone(),
            surprises: phase.surprises.clone(),
            accept_failures,
        }
    }
}

/// What happened to the clients, and to their changes.
#[derive(Debug, Clone)]
pub struct Report {
    /// Clients.
    pub clients: usize,
    /// Connections that were cut.
    pub n_cut: usize,
    /// Times from the first dials until documents were open.
    pub came: Vec<Duration>,
    /// After the cut.
    pub cut: Round,
    /// From the signal until everybody was served by the next server.
    pub drain: Round,
    /// How long the server took to end.
    pub drained_in: Duration,
    /// Resident memory of the server with all clients connected.
    pub server_bytes: u64,
    /// The same of the process of the clients.
    pub load_bytes: u64,
    /// Changes made from before the drain to after it.
    pub n_changes: usize,
    /// Those that are not in the server's log.
    pub missing: usize,
    /// Those that stand in it more than once.
    pub doubled: usize,
}

impl Report {
    /// Whether everybody came back without a surprise, and nothing was lost or doubled.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        for (what, round) in [("cut", &self.cut), ("drain", &self.drain)] {
            if !round.surprises.is_empty() {
                return Err(format!("after the {what}: {:?}", round.surprises));
            }
            if round.accept_failures > 0 {
                let n = round.accept_failures;
                return Err(format!(
                    "after the {what}: {n} connections were not accepted"
                ));
            }
        }
        if self.n_cut != self.clients {
            return Err(format!("{} connections were cut", self.n_cut));
        }
        if self.missing > 0 || self.doubled > 0 || self.n_changes == 0 {
            return Err(format!(
                "{} changes: {} missing, {} doubled",
                self.n_changes, self.missing, self.doubled
            ));
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "clients  {}; server {} MB, clients {} MB",
            self.clients,
            self.server_bytes / 1_000_000,
            self.load_bytes / 1_000_000
        )?;
        writeln!(f, "came     dial to open {}", times(&self.came))?;
        for (name, round) in [("cut", &self.cut), ("drain", &self.drain)] {
            writeln!(f, "{name:<8} back {}", times(&round.since_began))?;
            writeln!(f, "         dial to open {}", times(&round.since_dialed))?;
            writeln!(f, "         not accepted {}", round.accept_failures)?;
            for (reason, n) in round.ended.iter().chain(&round.surprises) {
                writeln!(f, "         {n} x {reason}")?;
            }
        }
        writeln!(f, "         the server ended in {:.1?}", self.drained_in)?;
        write!(
            f,
            "changes  {}, {} missing, {} doubled",
            self.n_changes, self.missing, self.doubled
        )
    }
}

fn times(sorted: &[Duration]) -> String {
    let at = |per_mille: usize| {
        let last = sorted.len().saturating_sub(1);
        sorted
            .get(last * per_mille / 1000)
            .copied()
            .unwrap_or_default()
    };
    format!(
        "p50 {:.0?}, p99 {:.0?}, last {:.0?}",
        at(500),
        at(990),
        at(1000)
    )
}
