//! Registries to run scenarios with: in memory, and on disk.
#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test binary uses its own part"
)]
#![allow(clippy::unwrap_used, reason = "test harness")]

#[allow(
    clippy::duplicate_mod,
    reason = "some test binaries use it by itself too"
)]
#[path = "../embedded/directory.rs"]
mod directory;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use directory::Directory;
use sync_server::registry::{
    Cursor, DocumentId, DocumentMeta, Durability, EmbeddedOptions, EmbeddedRegistry, Epoch,
    MemoryRegistry, NewChange, NewDocument, OriginEntry, OriginId, Outcome, RegistryError,
    RegistryEvent, Seq, ServerRegistry, Snapshot, Tail,
};
use sync_sim::world::{WorldRegistry, wait};

/// Runs a scenario with a registry in memory and with one on disk, with what [`registry`](registries::registry) gives it:
/// under virtual time, in a simulated world, or on several threads.
#[macro_export]
macro_rules! registries {
    ($(#[$doc:meta])* $name:ident => $scenario:ident) => {
        mod $name {
            $(#[$doc])*
            #[tokio::test(start_paused = true)]
            async fn in_memory() {
                super::$scenario().await;
            }

            $(#[$doc])*
            #[tokio::test(start_paused = true)]
            async fn on_disk() {
                $crate::registries::on_disk(super::$scenario()).await;
            }
        }
    };
    (in_a_world $(#[$doc:meta])* $name:ident => $scenario:ident) => {
        mod $name {
            $(#[$doc])*
            #[test]
            fn in_memory() {
                super::$scenario();
            }

            $(#[$doc])*
            #[test]
            fn on_disk() {
                $crate::registries::with_disk(super::$scenario);
            }
        }
    };
    (on_threads $(#[$doc:meta])* $name:ident => $scenario:ident) => {
        mod $name {
            $(#[$doc])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn in_memory() {
                super::$scenario().await;
            }

            $(#[$doc])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
            async fn on_disk() {
                $crate::registries::on_disk(super::$scenario()).await;
            }
        }
    };
}

/// Runs a test with seeds from 1 on: so many with a registry in memory, and so many with one on disk. `SYNC_SEEDS` and
/// `SYNC_DISK_SEEDS` say how many instead.
#[macro_export]
macro_rules! seeds {
    ($(#[$doc:meta])* $name:ident => $run:ident, $in_memory:literal, $on_disk:literal) => {
        mod $name {
            $(#[$doc])*
            #[test]
            fn in_memory() {
                sync_sim::world::run_seeds("SYNC_SEEDS", $in_memory, super::$run);
            }

            $(#[$doc])*
            #[test]
            fn on_disk() {
                $crate::registries::with_disk(|| {
                    sync_sim::world::run_seeds("SYNC_DISK_SEEDS", $on_disk, super::$run);
                });
            }
        }
    };
}

tokio::task_local! {
    static ON_DISK: bool;
}

/// Runs it with registries on disk.
pub async fn on_disk<T>(scenario: impl Future<Output = T>) -> T {
    ON_DISK.scope(true, scenario).await
}

/// The same for what is not async.
pub fn with_disk(scenario: impl FnOnce()) {
    ON_DISK.sync_scope(true, scenario);
}

/// An empty registry of the kind that the test is run with.
pub fn registry() -> Arc<Registry> {
    Arc::new(Registry::of_this_test())
}

/// The same for a simulated world.
pub fn simulated() -> Arc<dyn WorldRegistry> {
    registry()
}

/// A registry of either kind.
#[derive(Debug)]
pub enum Registry {
    Memory(MemoryRegistry),
    Disk(Disk),
}

impl Registry {
    /// An empty one of the kind that the test is run with.
    pub fn of_this_test() -> Self {
        if ON_DISK.try_with(|on_disk| *on_disk) == Ok(true) {
            Self::Disk(Disk {
                registry: Mutex::default(),
                directory: Directory::new(),
            })
        } else {
            Self::Memory(MemoryRegistry::new())
        }
    }

    /// A copy of what it holds. Nobody may be using it.
    pub async fn backup(&self) -> Self {
        match self {
            Self::Memory(registry) => Self::Memory(registry.backup()),
            Self::Disk(disk) => {
                disk.close().await.unwrap();
                Self::Disk(Disk {
                    directory: Directory::copy_of(disk.directory.path()),
                    registry: Mutex::default(),
                })
            }
        }
    }

    /// As the operator's method of both.
    pub async fn replace(
        &self,
        document: NewDocument,
        log: Vec<NewChange>,
    ) -> Result<DocumentMeta, RegistryError> {
        match self {
            Self::Memory(registry) => registry.replace(document, log),
            Self::Disk(disk) => held(disk.open().replace(document, log)).await,
        }
    }
}

impl WorldRegistry for Registry {
    fn empty(&self) -> Arc<dyn WorldRegistry> {
        simulated()
    }

    fn backup(&self) -> Arc<dyn WorldRegistry> {
        Arc::new(wait(Self::backup(self)))
    }

    fn replace(
        &self,
        document: NewDocument,
        log: Vec<NewChange>,
    ) -> Result<DocumentMeta, RegistryError> {
        wait(Self::replace(self, document, log))
    }
}

/// A directory, and the registry that has it open. One that was closed is opened again by the next call, as a process that
/// starts later would.
#[derive(Debug)]
pub struct Disk {
    // Dropped first.
    registry: Mutex<Option<Arc<EmbeddedRegistry>>>,
    directory: Directory,
}

impl Disk {
    fn open(&self) -> Arc<EmbeddedRegistry> {
        let mut registry = self.registry.lock().unwrap();
        let registry = registry.get_or_insert_with(|| {
            // Little of everything, so that even short scenarios meet folds and a log that begins again.
            let eager = EmbeddedOptions::default()
                .fold_bytes(2_000)
                .checkpoint_pages(20);
            Arc::new(EmbeddedRegistry::open_with(self.directory.path(), eager).unwrap())
        });
        Arc::clone(registry)
    }

    async fn close(&self) -> Result<(), RegistryError> {
        let registry = self.registry.lock().unwrap().take();
        match registry {
            Some(registry) => held(registry.close()).await,
            None => Ok(()),
        }
    }
}

/// Waits for the disk. Virtual time does, too: it does not run ahead while a blocking task is under way.
async fn held<T>(call: impl Future<Output = T>) -> T {
    let (under_way, over) = std::sync::mpsc::sync_channel::<()>(0);
    if tokio::runtime::Handle::try_current().is_ok() {
        drop(tokio::task::spawn_blocking(move || over.recv()));
    }
    let result = call.await;
    drop(under_way);
    result
}

macro_rules! either {
    ($self:ident, $registry:ident => $call:expr) => {
        match $self {
            Registry::Memory($registry) => $call.await,
            Registry::Disk(disk) => {
                let $registry = disk.open();
                held($call).await
            }
        }
    };
}

#[async_trait]
impl ServerRegistry for Registry {
    async fn create(&self, document: NewDocument) -> Result<DocumentMeta, RegistryError> {
        either!(self, registry => registry.create(document))
    }

    async fn meta(&self, document: &DocumentId) -> Result<DocumentMeta, RegistryError> {
        either!(self, registry => registry.meta(document))
    }

    async fn append(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        either!(self, registry => registry.append(document, epoch, expect, changes))
    }

    async fn tail(
        &self,
        document: &DocumentId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Tail, RegistryError> {
        either!(self, registry => registry.tail(document, after, max_bytes))
    }

    async fn snapshot(&self, document: &DocumentId) -> Result<Option<Snapshot>, RegistryError> {
        either!(self, registry => registry.snapshot(document))
    }

    async fn compact(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<(), RegistryError> {
        either!(self, registry => registry.compact(document, epoch, snapshot, keep_after))
    }

    async fn trim(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        next: Epoch,
    ) -> Result<(), RegistryError> {
        either!(self, registry => registry.trim(document, epoch, snapshot, next))
    }

    async fn delete(&self, document: &DocumentId) -> Result<(), RegistryError> {
        either!(self, registry => registry.delete(document))
    }

    async fn list(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentMeta>, RegistryError> {
        either!(self, registry => registry.list(after, limit))
    }

    async fn heads(&self, documents: &[DocumentId]) -> Result<Vec<Option<Cursor>>, RegistryError> {
        either!(self, registry => registry.heads(documents))
    }

    async fn origins(
        &self,
        document: &DocumentId,
        origins: &[OriginId],
    ) -> Result<Vec<Option<OriginEntry>>, RegistryError> {
        either!(self, registry => registry.origins(document, origins))
    }

    fn durability(&self) -> Durability {
        match self {
            Self::Memory(registry) => registry.durability(),
            Self::Disk(_) => Durability::Synced,
        }
    }

    fn is_shared(&self) -> bool {
        match self {
            Self::Memory(registry) => registry.is_shared(),
            Self::Disk(disk) => disk.open().is_shared(),
        }
    }

    fn watch(&self) -> Option<futures_util::stream::BoxStream<'static, RegistryEvent>> {
        match self {
            Self::Memory(registry) => registry.watch(),
            Self::Disk(disk) => disk.open().watch(),
        }
    }

    async fn maintain(&self, budget: Duration) -> Result<(), RegistryError> {
        either!(self, registry => registry.maintain(budget))
    }

    async fn close(&self) -> Result<(), RegistryError> {
        match self {
            Self::Memory(registry) => registry.close().await,
            Self::Disk(disk) => disk.close().await,
        }
    }
}
