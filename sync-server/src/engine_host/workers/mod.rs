//! Engines in processes of their own, which may die of what they are given.

mod batch;
mod child;
mod job;
mod limits;
mod pool;
mod process;
mod protocol;
mod search;
mod slot;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sync_core::engine::{Engine, Folder, ImportLedger, Ledger, ValidateLimits, Validator};
use sync_core::ids::EngineId;
use sync_core::mergeable::MergeableValidator;
use sync_core::server::Engines;

use self::limits::{VARIABLE, WorkerLimits};
pub(crate) use self::pool::{Pool, Reading};
use self::process::Settings;
pub(crate) use self::search::Isolated;
use super::guard::Guarded;

/// Worker processes in which engines run: [`EngineHost::Workers`](super::EngineHost::Workers).
///
/// A worker is this same program, started again; so `main` has to begin with [`worker_main`]. It may use so much memory, and so
/// much processor time for each request, and dies of whatever is more, or of anything else that an engine does to it. A change that
/// kills a worker is searched for, one by one: the one that kills a fresh worker twice, alone, where the document without it
/// does not, is refused. Everything else that goes wrong with workers is a reason to try again.
///
/// ```no_run
/// use sync_server::{Anonymous, MemoryRegistry, Server, Workers, worker_main};
///
/// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
/// worker_main(); // First in `main`: does not return in a worker.
/// let server = Server::builder(MemoryRegistry::new(), Anonymous::read_write())
///     .engines(Workers::current_exe()?)
///     .build()?;
/// # let _ = server; Ok(()) }
/// ```
#[must_use]
pub struct Workers {
    engines: WorkerEngines,
    settings: Settings,
    processes: usize,
    patience: Duration,
    requests_max: u64,
}

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers")
            .field("engines", &self.engines)
            .field("settings", &self.settings)
            .field("processes", &self.processes)
            .finish_non_exhaustive()
    }
}

impl Workers {
    /// Workers that are this program, with [the engines of this library](WorkerEngines::default).
    ///
    /// # Errors
    /// The system cannot tell what this program is; or it is a worker, whose `main` does not begin with [`worker_main`].
    pub fn current_exe() -> io::Result<Self> {
        if std::env::var_os(VARIABLE).is_some() {
            let what = "`worker_main` has to come first in `main`";
            return Err(io::Error::other(what));
        }
        Ok(Self::program(std::env::current_exe()?))
    }

    /// Workers that are another program, whose `main` begins with [`worker_main`].
    pub fn program(path: impl Into<PathBuf>) -> Self {
        let processes = std::thread::available_parallelism().map_or(2, Into::into);
        Self {
            engines: WorkerEngines::default(),
            settings: Settings {
                program: path.into(),
                limits: WorkerLimits {
                    memory_bytes: 1024 * 1024 * 1024,
                    cpu: Duration::from_secs(3),
                },
                deadline: Duration::from_secs(20),
            },
            processes,
            patience: Duration::from_secs(10),
            requests_max: 100_000,
        }
    }

    /// The engines. The program's [`worker_main_with`] needs the same.
    pub fn engines(mut self, value: WorkerEngines) -> Self {
        self.engines = value;
        self
    }

    /// How many processes documents share. Twice as many again are there at most for documents that have killed one, and two
    /// for folding and reading. Default: as many as there are processors.
    pub const fn processes(mut self, value: usize) -> Self {
        self.processes = value;
        self
    }

    /// Memory that one process may use, in bytes of address space; half of it is for replicas that are kept. Default 1 GiB.
    /// Not every system holds processes to it (Linux does).
    pub const fn memory_max(mut self, bytes: u64) -> Self {
        self.settings.limits.memory_bytes = bytes;
        self
    }

    /// Processor time that one request may take, in whole seconds, and up to one more. A change that takes longer is taken to
    /// kill. Default 3 s.
    pub const fn cpu_max(mut self, time: Duration) -> Self {
        self.settings.limits.cpu = time;
        self
    }

    /// Time that one request may take before the process is given up, however busy the machine is: never a reason to refuse
    /// anything. Default 20 s.
    pub const fn deadline(mut self, time: Duration) -> Self {
        self.settings.deadline = time;
        self
    }

    /// Requests after which a process is replaced by a fresh one. Default 100,000.
    pub const fn requests_max(mut self, value: u64) -> Self {
        self.requests_max = value;
        self
    }

    pub(super) fn build(self) -> (Engines, Pool) {
        let pool = Pool::new(
            self.settings,
            self.processes,
            self.patience,
            self.requests_max,
        );
        (self.engines.engines, pool)
    }
}

/// The engines that workers run.
#[derive(Debug)]
#[must_use]
pub struct WorkerEngines {
    engines: Engines,
}

impl WorkerEngines {
    /// `mergeable`, and `opaque`, whose bytes nobody looks at.
    pub fn new() -> Self {
        let mut engines = Engines::new();
        engines.insert_relay(EngineId::OPAQUE);
        Self { engines }.validator(MergeableValidator::new())
    }

    /// Adds an engine, or replaces the one of its name. One without a [`ledger`](Engine::ledger) has its changes checked by
    /// importing them.
    pub fn engine<E: Engine>(self, engine: E) -> Self {
        self.validator(Imported(engine))
    }

    /// Adds an engine of which there is no more than a validator, or replaces the one of its name.
    ///
    /// [`Validator::validate`] runs in the server's own process; what its [`ledger`](Validator::ledger) does, unless that
    /// [scans](Ledger::scans), and its [`folder`](Validator::folder), in workers.
    pub fn validator(mut self, validator: impl Validator) -> Self {
        self.engines.insert(Arc::new(Guarded(validator)));
        self
    }

    /// Adds an engine whose changes are relayed without a look at them, in the place of the one of its name.
    pub fn relay(mut self, engine: EngineId) -> Self {
        self.engines.insert_relay(engine);
        self
    }
}

/// The engines that this library has, of those whose features are on: `yrs`, `loro`, `automerge` and `mergeable`; `opaque` is
/// relayed.
impl Default for WorkerEngines {
    fn default() -> Self {
        let engines = Self::new();
        #[cfg(feature = "yrs")]
        let engines = engines.engine(sync_core::engine::yrs::Yrs::new());
        #[cfg(feature = "loro")]
        let engines = engines.engine(sync_core::engine::loro::Loro::new());
        #[cfg(feature = "automerge")]
        let engines = engines.engine(sync_core::engine::automerge::Automerge::new());
        engines
    }
}

/// An engine whose changes are checked by importing them, if it has no ledger of its own.
struct Imported<E>(E);

impl<E: Engine> Validator for Imported<E> {
    fn engine(&self) -> EngineId {
        self.0.id()
    }

    fn validate(
        &self,
        change: &[u8],
        limits: &ValidateLimits,
    ) -> Result<(), sync_core::engine::EngineError> {
        Engine::validate(&self.0, change, limits)
    }

    fn ledger(&self) -> Option<Box<dyn Ledger>> {
        Engine::ledger(&self.0).or_else(|| {
            let ledger = ImportLedger::new(&self.0).ok()?;
            Some(Box::new(ledger))
        })
    }

    fn folder(&self) -> Option<&dyn Folder> {
        Some(&self.0)
    }
}

/// To be called first in the `main` of a program that is its server's own workers: returns at once in the server, and never in
/// a worker, which it is.
pub fn worker_main() {
    worker_main_with(WorkerEngines::default);
}

/// [`worker_main`] with other engines: those that [`Workers::engines`] was given.
pub fn worker_main_with(engines: impl FnOnce() -> WorkerEngines) {
    let Some(value) = std::env::var_os(VARIABLE) else {
        return;
    };
    let limits = value.to_str().and_then(WorkerLimits::from_variable);
    let served = limits.is_some_and(|limits| child::run(engines().engines, limits).is_ok());
    std::process::exit(i32::from(!served));
}
