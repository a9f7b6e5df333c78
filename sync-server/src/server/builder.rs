//! Settings of a server.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sync_core::engine::Validator;
#[cfg(feature = "automerge")]
use sync_core::engine::automerge::Automerge;
#[cfg(feature = "loro")]
use sync_core::engine::loro::Loro;
#[cfg(feature = "yrs")]
use sync_core::engine::yrs::Yrs;
use sync_core::ids::EngineId;
use sync_core::limits::Limits;
use sync_core::mergeable::MergeableValidator;
use sync_core::registry::Durability;
use sync_core::rng::Rng;
use sync_core::server::{Engines, RoomConfig};

use super::guard::Guarded;
#[cfg(any(feature = "loro", feature = "automerge"))]
use super::guard::Unfolded;
use super::{Server, Shared};
use crate::auth::Auth;
use crate::registry::ServerRegistry;

/// Settings of a [`Server`], made by [`Server::builder`].
#[must_use]
pub struct ServerBuilder {
    registry: Arc<dyn ServerRegistry>,
    auth: Auth,
    rooms: RoomConfig,
    gzip: bool,
    durability_min: Durability,
    seed: Option<u128>,
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder")
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
        let mut engines = Engines::new();
        #[cfg(feature = "yrs")]
        engines.insert(Arc::new(Guarded(Yrs::new())));
        #[cfg(feature = "loro")]
        engines.insert(Arc::new(Unfolded(Guarded(Loro::new()))));
        #[cfg(feature = "automerge")]
        engines.insert(Arc::new(Unfolded(Guarded(Automerge::new()))));
        engines.insert(Arc::new(Guarded(MergeableValidator::new())));
        engines.insert_relay(EngineId::OPAQUE);
        Self {
            registry: Arc::new(registry),
            auth,
            rooms: RoomConfig::new(Limits::default(), engines, 0),
            gzip: true,
            durability_min: Durability::Memory,
            seed: None,
        }
    }

    /// What clients may take and send. Default: [`Limits::default`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.rooms.limits = limits;
        self
    }

    /// Adds an engine, or replaces the one of its name. The defaults are `yrs`, `loro` and `automerge` (each with its
    /// feature), `mergeable`, and `opaque`, whose bytes nobody looks at.
    ///
    /// By default only the frames of `loro` and `automerge` changes are checked, and their logs are never folded: forged
    /// changes can end a process that reads them. Where all writers are trusted, `engine(Loro::new())` has their logs
    /// folded like those of the others.
    ///
    /// The logs of its documents are folded into snapshots if the validator has a [`folder`](Validator::folder), as
    /// every [`Engine`](sync_core::engine::Engine) and [`MergeableValidator`] have.
    pub fn engine(mut self, validator: impl Validator) -> Self {
        self.rooms.engines.insert(Arc::new(Guarded(validator)));
        self
    }

    /// Adds an engine whose changes are relayed without a look at them, in the place of the one of its name.
    ///
    /// Clients then have to protect themselves from each other. The server cannot fold the logs: when one has become long,
    /// it asks a client that may [maintain](crate::Access::maintain) the document for a snapshot. What has been folded by a
    /// client stays in the log for 30 days, within the bounds that [`keep_log`](Self::keep_log) names.
    pub fn relay(mut self, engine: EngineId) -> Self {
        self.rooms.engines.insert_relay(engine);
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
    /// The changes are counted whenever they came, the bytes since the document was last loaded. Folding goes on beside
    /// the document, which is served meanwhile, and takes about three times the memory of the document while it lasts.
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
            self.rooms,
            self.gzip,
            Rng::new(seed),
        )))
    }
}

fn random_seed() -> Result<u128, getrandom::Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)?;
    Ok(u128::from_le_bytes(bytes))
}
