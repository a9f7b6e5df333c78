//! What goes wrong below the rooms: calls of the registry that fail, are late or never answered, and registries that break
//! their promises, so that a test can show that this is noticed.

use std::time::Duration;

use sync_core::engine::{Engine, Validator};
use sync_core::registry::RegistryError;
use sync_core::server::{FoldError, FoldRequest, FoldedLog, RegistryRequest};

use super::World;
use super::calls::Caller;

mod buggy;

pub use buggy::{BuggyRegistry, RegistryBug};

/// How calls of the registry fail. A registry may do all of this; none of it may lose anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct RegistryFaults {
    /// Of a thousand calls, so many do nothing, and say so.
    pub unavailable: u64,
    /// Of a thousand calls that write, so many are carried out, and nobody can tell.
    pub unknown: u64,
    /// Of a thousand calls that write, so many are not carried out, and nobody can tell.
    pub lost: u64,
    /// Of a thousand calls, so many take up to [`slow_max`](Self::slow_max), before they are carried out or after.
    pub slow: u64,
    /// How long slow calls take at most.
    pub slow_max: Duration,
    /// The disk, or the quota, is full: nothing can be written.
    pub is_full: bool,
    /// Where a node dies, if it does.
    pub crash: Option<CrashPoint>,
}

/// A bug in what drives the server's machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriverBug {
    /// Folds are made in the replica that changes are checked with, which also has what was never committed.
    FoldsUncommitted,
    /// Nobody looks at the heads of documents: who misses a hint misses what it was about.
    NeverPolls,
}

/// A call at which the node that makes it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrashPoint {
    /// Calls of any kind that are carried out before.
    pub after_calls: u64,
    /// Whether that call is carried out.
    pub is_carried_out: bool,
}

/// What becomes of one call.
#[derive(Debug)]
pub(super) enum Fate {
    Answered,
    /// Carried out; but this is the answer.
    Reported(RegistryError),
    /// Not carried out.
    Failed(RegistryError),
    /// The node dies, after it was carried out or before.
    Crash {
        is_carried_out: bool,
    },
}

impl Fate {
    pub(super) const fn is_carried_out(&self) -> bool {
        match self {
            Self::Answered | Self::Reported(_) => true,
            Self::Failed(_) => false,
            Self::Crash { is_carried_out } => *is_carried_out,
        }
    }
}

impl<E: Engine + Validator> World<E> {
    pub(super) fn registry_delay_max(&mut self, _: &RegistryRequest) -> Duration {
        if self.happens(self.faults.slow) {
            self.count("fault", "slow call");
            self.faults.slow_max
        } else {
            self.weather.registry_delay_max
        }
    }

    pub(super) fn fate_of(&mut self, caller: &Caller, request: &RegistryRequest) -> Fate {
        if let Some(crash) = &mut self.faults.crash {
            if crash.after_calls == 0 {
                let is_carried_out = crash.is_carried_out;
                self.faults.crash = None;
                self.count("fault", "crash at a call");
                return Fate::Crash { is_carried_out };
            }
            crash.after_calls -= 1;
        }
        if let (Some(DriverBug::FoldsUncommitted), RegistryRequest::Append { changes, .. }) =
            (self.driver_bug, request)
            && let Some(document) = &caller.document
        {
            let taken = &mut self.nodes[caller.node].uncommitted;
            let taken = taken.entry(document.clone()).or_default();
            taken.extend(changes.iter().map(|change| change.bytes.clone()));
        }
        let writes = matches!(
            request,
            RegistryRequest::Create(_)
                | RegistryRequest::Append { .. }
                | RegistryRequest::Compact { .. }
        );
        if writes && self.faults.is_full {
            self.count("fault", "full");
            return Fate::Failed(RegistryError::unavailable("the disk is full"));
        }
        if self.happens(self.faults.unavailable) {
            self.count("fault", "unavailable");
            return Fate::Failed(RegistryError::unavailable("a fault"));
        }
        if writes && self.happens(self.faults.lost) {
            self.count("fault", "unknown, not done");
            return Fate::Failed(RegistryError::unknown("a fault"));
        }
        if writes && self.happens(self.faults.unknown) {
            self.count("fault", "unknown, done");
            let is_append = matches!(request, RegistryRequest::Append { .. });
            let error = if is_append && self.registry.bug() == Some(RegistryBug::LateAppendFailed) {
                RegistryError::unavailable("a fault")
            } else {
                RegistryError::unknown("a fault")
            };
            return Fate::Reported(error);
        }
        Fate::Answered
    }

    pub(super) fn fold_or_fail(
        &mut self,
        caller: &Caller,
        request: &FoldRequest,
    ) -> Result<FoldedLog, FoldError> {
        if self.happens(self.faults.unavailable) {
            let error = RegistryError::unavailable("a fault");
            return Err(FoldError::Registry(error));
        }
        let document = caller.document.clone();
        let document = document.ok_or(FoldError::HistoryReplaced)?;
        let uncommitted = self.nodes[caller.node].uncommitted.get(&document);
        let uncommitted = uncommitted.cloned().unwrap_or_default();
        self.fold(&document, request, &uncommitted)
    }
}
