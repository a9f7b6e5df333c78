//! Settings of a server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sync_core::limits::Limits;
use sync_core::registry::Durability;
use sync_core::rng::Rng;
use sync_core::server::{Engines, RoomConfig};

use super::hooks::{HOOK_TIMEOUT, Hooks};
use super::{Server, Shared};
use crate::auth::Auth;
use crate::engine_host::EngineHost;
use crate::hooks::ServerHooks;
use crate::registry::ServerRegistry;

/// As in [`sync_core::server::HeadsConfig`].
const HEADS_POLL: Duration = Duration::from_secs(1);

const HEADS_POLL_MIN: Duration = Duration::from_millis(10);

/// Settings of a [`Server`], made by [`Server::builder`].
#[must_use]
pub struct ServerBuilder {
    registry: Arc<dyn ServerRegistry>,
    auth: Auth,
    engines: EngineHost,
    hooks: Vec<Arc<dyn ServerHooks>>,
    hook_timeout: Duration,
    rooms: RoomConfig,
    gzip: bool,
    heads_poll: Duration,
    durability_min: Durability,
    seed: Option<u128>,
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
            .field("engines", &self.engines)
            .field("rooms", &self.rooms)
            .finish_non_exhaustive()
    }
}

/// Why no server was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The registry promises less than was asked for.
    #[error("the registry's durability is {offered:?}, at least {needed:?} is asked for")]
    Durability {
        /// What was asked for.
        needed: Durability,
        /// What the registry promises.
        offered: Durability,
    },
    /// The system has no randomness to give.
    #[error("no randomness: {0}")]
    Randomness(getrandom::Error),
}

impl ServerBuilder {
    pub(super) fn new(registry: impl ServerRegistry, auth: Auth) -> Self {
        Self {
            registry: Arc::new(registry),
            auth,
            engines: EngineHost::default(),
            hooks: Vec::new(),
            hook_timeout: HOOK_TIMEOUT,
            rooms: RoomConfig::new(Limits::default(), Engines::new(), 0),
            gzip: true,
            heads_poll: HEADS_POLL,
            durability_min: Durability::Memory,
            seed: None,
        }
    }

    /// What clients may take and send. Default: [`Limits::default`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.rooms.limits = limits;
        self
    }

    /// Which engines the server knows, and where it runs them. Default: [`InProcess::default`](crate::InProcess::default),
    /// the engines that this library has, in the server's own process.
    pub fn engines(mut self, host: impl Into<EngineHost>) -> Self {
        self.engines = host.into();
        self
    }

    /// Adds code that has a say in what clients do, behind what was added before. Default none, and then nothing is asked at all.
    pub fn hooks(mut self, hooks: impl ServerHooks) -> Self {
        self.hooks.push(Arc::new(hooks));
        self
    }

    /// How long one call of one hook may take. Default 5 s.
    ///
    /// Those of `connect` and `open` also end with the handshake time of the limits, or with the client's patience.
    pub const fn hook_timeout(mut self, timeout: Duration) -> Self {
        self.hook_timeout = timeout;
        self
    }

    /// What an acknowledgement must mean at least. Default [`Durability::Memory`]: anything.
    pub const fn durability_min(mut self, floor: Durability) -> Self {
        self.durability_min = floor;
        self
    }

    /// Whether frames may be gzip for clients that take it. Default true.
    pub const fn gzip(mut self, gzip: bool) -> Self {
        self.gzip = gzip;
        self
    }

    /// How often the registry is asked, with one call for all documents that are open, what other servers did to them. Default
    /// 1 s; at least 10 ms. Only of a registry that [is shared](ServerRegistry::is_shared).
    ///
    /// What the registry [hints at](ServerRegistry::watch) comes sooner. This is the time within which everything else is
    /// noticed: lost hints, another history, that a document was deleted.
    pub fn heads_poll(mut self, interval: Duration) -> Self {
        self.heads_poll = interval.max(HEADS_POLL_MIN);
        self
    }

    /// How long a document that nobody has open stays live. Default 30 s.
    pub const fn unload_after(mut self, time: Duration) -> Self {
        self.rooms.unload_after = time;
        self
    }

    /// Bytes of recent frames that each live document keeps for its readers, however many. Default 1 MiB.
    pub const fn ring_bytes_max(mut self, bytes: usize) -> Self {
        self.rooms.ring_bytes_max = bytes;
        self
    }

    /// When a document's log is folded into a new snapshot: with so many changes since the last one, or so many bytes of
    /// them, the snapshot's own size at least. Default 10,000 changes and 4 MiB.
    ///
    /// A document that is [nearly too large](Limits::document_bytes_max) is folded sooner. Folding goes on beside the document, which is served meanwhile, and takes about three times the memory of the document while it lasts.
    /// `u64::MAX` and `usize::MAX`: never.
    pub const fn fold_after(mut self, changes: u64, bytes: usize) -> Self {
        self.rooms.fold_changes = changes;
        self.rooms.fold_bytes = bytes;
        self
    }

    /// What stays in a log that has been folded, for clients that come back: they are sent what they missed, not the whole
    /// document. The newest changes, so many bytes of them, and those younger than `age`. Default 4 MiB and 1 hour; 0 and
    /// [`Duration::ZERO`]: none.
    ///
    /// The age counts from when this server has seen the change committed, or has loaded the document. What is kept for its
    /// age, or because somebody who has the document open has yet to be sent it, is at most 64 MiB, or twice the snapshot if
    /// that is more.
    pub const fn keep_log(mut self, bytes: usize, age: Duration) -> Self {
        self.rooms.keep_bytes = bytes;
        self.rooms.keep_age = age;
        self
    }

    /// Randomness to begin with, for tests that are to run the same twice. Default: the system's.
    pub const fn seed(mut self, seed: u128) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Makes the server. It does nothing until it listens or serves.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn build(self) -> Result<Server, BuildError> {
        let offered = self.registry.durability();
        if offered < self.durability_min {
            return Err(BuildError::Durability {
                needed: self.durability_min,
                offered,
            });
        }
        let seed = match self.seed {
            Some(seed) => seed,
            None => random_seed().map_err(BuildError::Randomness)?,
        };
        Ok(Server::new(Shared::new(
            self.registry,
            self.auth,
            self.engines.build(),
            Hooks::new(self.hooks, self.hook_timeout),
            self.rooms,
            self.gzip,
            self.heads_poll,
            Rng::new(seed),
        )))
    }
}

fn random_seed() -> Result<u128, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}
