//! A registry in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, stream};
use sync_core::history::{Cursor, Epoch, Seq};
use sync_core::ids::{DocumentId, OriginId};
use tokio::sync::broadcast;

use super::state::DocumentState;
use super::{
    DocumentMeta, DocumentSize, Durability, NewChange, NewDocument, OriginEntry, Outcome,
    RegistryError, RegistryEvent, ServerRegistry, Snapshot, Tail,
};
#[cfg(feature = "embedded")]
use super::{Existing, Export};

/// Hints that a watcher may lag behind before it misses some.
const EVENTS_MAX: usize = 1024;

/// Keeps documents in the memory of this process: for tests, demonstrations, and relays whose clients hold the data.
///
/// It keeps every promise of [`ServerRegistry`] except surviving the process, and says so:
/// [`Durability::Memory`]. Keep it in an `Arc` to use the operator's methods below while a server runs, or to
/// [share](Self::shared) it between servers. Every call is short and under one lock.
#[derive(Debug)]
pub struct MemoryRegistry {
    documents: Mutex<BTreeMap<DocumentId, Slot>>,
    events: broadcast::Sender<RegistryEvent>,
    is_shared: bool,
}

#[derive(Debug, Clone)]
enum Slot {
    Live(Box<DocumentState>),
    Deleted,
}

impl MemoryRegistry {
    /// An empty registry, for one server.
    #[must_use]
    pub fn new() -> Self {
        Self {
            documents: Mutex::default(),
            events: broadcast::Sender::new(EVENTS_MAX),
            is_shared: false,
        }
    }

    /// An empty registry, for several servers: give each of them a clone of its `Arc`. It says so to them
    /// ([`is_shared`](ServerRegistry::is_shared)).
    #[must_use]
    pub fn shared() -> Self {
        Self {
            is_shared: true,
            ..Self::new()
        }
    }

    /// A copy of what it holds, which does not change with it. Served in its place, it is what a restored backup is: clients
    /// of what came after notice, and bring that back (design 2.3).
    #[must_use]
    pub fn backup(&self) -> Self {
        let documents = self
            .documents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Self {
            documents: Mutex::new(documents),
            is_shared: self.is_shared,
            ..Self::new()
        }
    }

    /// Operator: gives a document a new history, in place of the one it has, of its tombstone, or of nothing.
    ///
    /// `document.mode` tells clients of the older epoch what to do (design 2.3): `Merge` after data was lost or
    /// restored, `Rebase` after trimming, `Discard` to remove something. The history starts with the snapshot, if
    /// any, and goes on with `log`, taken as it is; origins are known by what is in it. Appends of the older epoch
    /// are `Fenced` from now on.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] if the document has this very epoch already, if the snapshot stands at sequence 0,
    /// or if an id occurs twice in the log.
    pub fn replace(
        &self,
        document: NewDocument,
        log: Vec<NewChange>,
    ) -> Result<DocumentMeta, RegistryError> {
        let id = document.id.clone();
        let mut documents = self.lock()?;
        if let Some(Slot::Live(state)) = documents.get(&id) {
            state.refuse_epoch(document.epoch)?;
        }
        let state = DocumentState::with_log(document, log)?;
        let meta = state.meta().clone();
        documents.insert(id.clone(), Slot::Live(Box::new(state)));
        self.tell(RegistryEvent::Replaced {
            document: id,
            epoch: meta.epoch,
        });
        Ok(meta)
    }

    fn lock(&self) -> Result<MutexGuard<'_, BTreeMap<DocumentId, Slot>>, RegistryError> {
        self.documents.lock().map_err(|_| RegistryError::Damaged {
            what: "a call panicked half-way".into(),
        })
    }

    fn with<T>(
        &self,
        document: &DocumentId,
        f: impl FnOnce(&mut DocumentState) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        match self.lock()?.get_mut(document) {
            Some(Slot::Live(state)) => f(state),
            Some(Slot::Deleted) => Err(RegistryError::Deleted),
            None => Err(RegistryError::NotFound),
        }
    }

    /// Told under the lock, so that hints come in the order of what they hint at. Nobody listening is no error.
    fn tell(&self, event: RegistryEvent) {
        let _ = self.events.send(event);
    }
}

impl Default for MemoryRegistry {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl ServerRegistry for MemoryRegistry {
    async fn create(&self, document: NewDocument) -> Result<DocumentMeta, RegistryError> {
        let mut documents = self.lock()?;
        match documents.get(&document.id) {
            Some(Slot::Live(state)) => Ok(state.meta().clone()),
            Some(Slot::Deleted) => Err(RegistryError::Deleted),
            None => {
                let id = document.id.clone();
                let state = DocumentState::new(document)?;
                let meta = state.meta().clone();
                documents.insert(id, Slot::Live(Box::new(state)));
                Ok(meta)
            }
        }
    }

    async fn meta(&self, document: &DocumentId) -> Result<DocumentMeta, RegistryError> {
        self.with(document, |state| Ok(state.meta().clone()))
    }

    async fn append(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        self.with(document, |state| {
            let before = state.meta().head;
            let outcomes = state.append(epoch, expect, changes)?;
            let head = state.meta().head;
            if head > before {
                self.tell(RegistryEvent::Appended {
                    document: document.clone(),
                    head,
                });
            }
            Ok(outcomes)
        })
    }

    async fn tail(
        &self,
        document: &DocumentId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Tail, RegistryError> {
        self.with(document, |state| Ok(state.tail(after, max_bytes)))
    }

    async fn snapshot(&self, document: &DocumentId) -> Result<Option<Snapshot>, RegistryError> {
        self.with(document, |state| Ok(state.snapshot().cloned()))
    }

    async fn size(&self, document: &DocumentId) -> Result<DocumentSize, RegistryError> {
        self.with(document, |state| Ok(state.size()))
    }

    async fn compact(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<(), RegistryError> {
        self.with(document, |state| state.compact(epoch, snapshot, keep_after))
    }

    async fn trim(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        next: Epoch,
    ) -> Result<(), RegistryError> {
        self.with(document, |state| {
            if state.trim(epoch, snapshot, next)? {
                self.tell(RegistryEvent::Replaced {
                    document: document.clone(),
                    epoch: next,
                });
            }
            Ok(())
        })
    }

    async fn delete(&self, document: &DocumentId) -> Result<(), RegistryError> {
        let mut documents = self.lock()?;
        let slot = documents.get_mut(document).ok_or(RegistryError::NotFound)?;
        if matches!(slot, Slot::Live(_)) {
            *slot = Slot::Deleted;
            self.tell(RegistryEvent::Deleted {
                document: document.clone(),
            });
        }
        Ok(())
    }

    async fn list(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentMeta>, RegistryError> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let documents = self.lock()?;
        let live = documents
            .range::<DocumentId, _>((start, Bound::Unbounded))
            .filter_map(|(_, slot)| match slot {
                Slot::Live(state) => Some(state.meta().clone()),
                Slot::Deleted => None,
            });
        Ok(live.take(limit).collect())
    }

    async fn heads(&self, documents: &[DocumentId]) -> Result<Vec<Option<Cursor>>, RegistryError> {
        let stored = self.lock()?;
        let head = |document| match stored.get(document) {
            Some(Slot::Live(state)) => Some(state.meta().cursor()),
            Some(Slot::Deleted) | None => None,
        };
        Ok(documents.iter().map(head).collect())
    }

    async fn origins(
        &self,
        document: &DocumentId,
        origins: &[OriginId],
    ) -> Result<Vec<Option<OriginEntry>>, RegistryError> {
        self.with(document, |state| Ok(state.origins(origins)))
    }

    #[cfg(feature = "embedded")]
    async fn export(&self, document: &DocumentId) -> Result<Export, RegistryError> {
        self.with(document, |state| state.export())
    }

    #[cfg(feature = "embedded")]
    async fn restore(
        &self,
        export: Export,
        existing: Existing,
    ) -> Result<DocumentMeta, RegistryError> {
        export.verify()?;
        let (id, epoch) = (export.meta.id.clone(), export.meta.epoch);
        let mut documents = self.lock()?;
        match (documents.get(&id), existing) {
            (Some(Slot::Deleted), Existing::Keep) => return Err(RegistryError::Deleted),
            (Some(Slot::Live(_)), Existing::Keep) => {
                return Err(RegistryError::Refused {
                    what: "the document exists",
                });
            }
            (Some(Slot::Live(state)), Existing::Replace) => state.refuse_epoch(epoch)?,
            (Some(Slot::Deleted) | None, _) => {}
        }
        let state = DocumentState::of_export(export);
        let meta = state.meta().clone();
        documents.insert(id.clone(), Slot::Live(Box::new(state)));
        self.tell(RegistryEvent::Replaced {
            document: id,
            epoch,
        });
        Ok(meta)
    }

    fn durability(&self) -> Durability {
        Durability::Memory
    }

    fn is_shared(&self) -> bool {
        self.is_shared
    }

    fn watch(&self) -> Option<BoxStream<'static, RegistryEvent>> {
        let events = stream::unfold(self.events.subscribe(), |mut events| async move {
            match events.recv().await {
                Ok(event) => Some((event, events)),
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    Some((RegistryEvent::Lagged, events))
                }
                Err(broadcast::error::RecvError::Closed) => None,
            }
        });
        Some(events.boxed())
    }
}
