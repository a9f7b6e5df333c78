//! Where engines run on the server: to check changes, to fold logs, to read documents (design 8).

mod check;
mod guard;
mod host;
mod local;
mod meter;
#[cfg(all(feature = "workers", unix))]
mod workers;

use std::fmt;
use std::sync::Arc;

use sync_core::engine::Validator;
#[cfg(feature = "automerge")]
use sync_core::engine::automerge::Automerge;
#[cfg(feature = "loro")]
use sync_core::engine::loro::Loro;
#[cfg(feature = "yrs")]
use sync_core::engine::yrs::Yrs;
use sync_core::ids::EngineId;
use sync_core::mergeable::MergeableValidator;
use sync_core::server::Engines;

use self::guard::Guarded;
#[cfg(any(feature = "loro", feature = "automerge"))]
use self::guard::Outside;
pub(crate) use self::host::{CheckJob, Checks, Content, Host, HostError, Hot};
pub(crate) use self::meter::{Meter, timed};

#[cfg(all(feature = "workers", unix))]
pub use self::workers::{WorkerEngines, Workers, worker_main, worker_main_with};

/// Which engines a server knows, and where it runs them. Whatever the choice, changes travel and are stored as the bytes that
/// they are; engines only check them before they are logged, fold logs, and answer reads.
#[derive(Debug)]
#[non_exhaustive]
pub enum EngineHost {
    /// Nowhere. Documents of the engines that this library has are relayed: nothing is checked, folded or read, and clients
    /// have to protect themselves from each other.
    None,
    /// In the server's own process: for writers that are trusted not to forge bytes. Validators and panics are guarded
    /// against, but not bytes on which an engine aborts, or eats all memory (`loro` and `automerge` do on some).
    InProcess(InProcess),
    /// In processes of their own, which may die of what they are given.
    #[cfg(all(feature = "workers", unix))]
    Workers(Workers),
}

impl EngineHost {
    pub(crate) fn build(self) -> Host {
        match self {
            Self::None => Host::in_process(relays()),
            Self::InProcess(InProcess { engines }) => Host::in_process(engines),
            #[cfg(all(feature = "workers", unix))]
            Self::Workers(workers) => {
                let (engines, pool) = workers.build();
                Host::with_workers(engines, pool)
            }
        }
    }
}

impl Default for EngineHost {
    fn default() -> Self {
        InProcess::default().into()
    }
}

impl From<InProcess> for EngineHost {
    fn from(value: InProcess) -> Self {
        Self::InProcess(value)
    }
}

#[cfg(all(feature = "workers", unix))]
impl From<Workers> for EngineHost {
    fn from(value: Workers) -> Self {
        Self::Workers(value)
    }
}

fn relays() -> Engines {
    let mut engines = Engines::new();
    for engine in [
        EngineId::YRS,
        EngineId::LORO,
        EngineId::AUTOMERGE,
        EngineId::MERGEABLE,
        EngineId::OPAQUE,
    ] {
        engines.insert_relay(engine);
    }
    engines
}

/// Engines that run in the server's own process: [`EngineHost::InProcess`].
///
/// ```
/// # #[cfg(feature = "yrs")] {
/// use sync_server::{EngineId, InProcess, Yrs};
///
/// let engines = InProcess::new()
///     .engine(Yrs::new())
///     .relay(EngineId::new("paper").unwrap());
/// # let _ = engines; }
/// ```
#[must_use]
pub struct InProcess {
    engines: Engines,
}

impl fmt::Debug for InProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InProcess").field(&self.engines).finish()
    }
}

impl InProcess {
    /// `mergeable`, and `opaque`, whose bytes nobody looks at.
    pub fn new() -> Self {
        let mut engines = Engines::new();
        engines.insert_relay(EngineId::OPAQUE);
        Self { engines }.engine(MergeableValidator::new())
    }

    /// Adds an engine, or replaces the one of its name: every [`Engine`](sync_core::engine::Engine) value is a [`Validator`].
    ///
    /// Its changes are checked by [`Validator::validate`], then by its [`ledger`](Validator::ledger) if it has one. The logs of
    /// its documents are folded into snapshots if it has a [`folder`](Validator::folder).
    pub fn engine(mut self, validator: impl Validator) -> Self {
        self.engines.insert(Arc::new(Guarded(validator)));
        self
    }

    /// Adds an engine whose changes are relayed without a look at them, in the place of the one of its name.
    ///
    /// Clients then have to protect themselves from each other. The server cannot fold the logs: when one has become long,
    /// it asks a client that may [maintain](crate::Access::maintain) the document for a snapshot. What has been folded by a
    /// client stays in the log for 30 days, within the bounds that [`keep_log`](crate::ServerBuilder::keep_log) names.
    pub fn relay(mut self, engine: EngineId) -> Self {
        self.engines.insert_relay(engine);
        self
    }
}

/// The engines that this library has, of those whose features are on: `yrs`, `loro`, `automerge` and `mergeable`; `opaque` is
/// relayed. Of `loro` and `automerge` only the frames of changes are checked, and their logs are never folded, because forged
/// changes can end a process that reads them: where all writers are trusted, add them with [`engine`](Self::engine).
impl Default for InProcess {
    fn default() -> Self {
        let engines = Self::new();
        #[cfg(feature = "yrs")]
        let engines = engines.engine(Yrs::new());
        #[cfg(feature = "loro")]
        let engines = engines.engine(Outside(Loro::new()));
        #[cfg(feature = "automerge")]
        let engines = engines.engine(Outside(Automerge::new()));
        engines
    }
}
