//! A registry that breaks one of its promises.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use sync_core::history::{Cursor, Epoch, Seq};
use sync_core::ids::{ChangeId, DocumentId, OriginId};
use sync_core::registry::{
    DocumentMeta, DocumentSize, Durability, NewChange, NewDocument, OriginEntry, Outcome,
    RegistryError, RegistryEvent, Snapshot, Tail,
};
use sync_server::registry::ServerRegistry;

use super::super::{WorldRegistry, wait};

/// A promise that a registry breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistryBug {
    /// A compaction drops the whole log, also what was appended since it was read for the snapshot.
    TailDropped,
    /// What decides duplicates is forgotten when the server starts again.
    OriginsLost,
    /// A document that is rewound keeps its epoch.
    EpochKept,
    /// An append that timed out, and was carried out, is said to have done nothing.
    LateAppendFailed,
}

/// A registry that keeps all promises but one.
#[derive(Debug)]
pub struct BuggyRegistry {
    inner: Arc<dyn WorldRegistry>,
    bug: RegistryBug,
    /// Of each document, what stands inside for an origin that has been forgotten, and for which.
    aliases: Mutex<BTreeMap<DocumentId, Aliases>>,
}

/// An origin whose entry is forgotten goes by another name inside from then on.
#[derive(Debug, Clone, Default)]
struct Aliases {
    generation: u128,
    inside: BTreeMap<OriginId, OriginId>,
    outside: BTreeMap<OriginId, OriginId>,
}

impl Aliases {
    /// The name inside, given if there is none.
    fn enter(&mut self, origin: OriginId) -> OriginId {
        if self.generation == 0 {
            return origin;
        }
        if let Some(alias) = self.inside.get(&origin) {
            return *alias;
        }
        let alias = OriginId(origin.0 ^ (self.generation << 64));
        self.inside.insert(origin, alias);
        self.outside.insert(alias, origin);
        alias
    }

    fn leave(&self, origin: OriginId) -> OriginId {
        self.outside.get(&origin).copied().unwrap_or(origin)
    }
}

impl BuggyRegistry {
    /// An empty one in memory.
    #[must_use]
    pub fn new(bug: RegistryBug) -> Self {
        Self::on(Arc::new(sync_server::registry::MemoryRegistry::new()), bug)
    }

    /// This one, with a bug.
    #[must_use]
    pub fn on(inner: Arc<dyn WorldRegistry>, bug: RegistryBug) -> Self {
        Self {
            inner,
            bug,
            aliases: Mutex::default(),
        }
    }

    fn with_aliases<T>(&self, document: &DocumentId, f: impl FnOnce(&mut Aliases) -> T) -> T {
        f(self
            .aliases
            .lock()
            .unwrap()
            .entry(document.clone())
            .or_default())
    }
}

impl WorldRegistry for BuggyRegistry {
    fn empty(&self) -> Arc<dyn WorldRegistry> {
        Arc::new(Self::on(self.inner.empty(), self.bug))
    }

    fn backup(&self) -> Arc<dyn WorldRegistry> {
        Arc::new(Self {
            inner: self.inner.backup(),
            bug: self.bug,
            aliases: Mutex::new(self.aliases.lock().unwrap().clone()),
        })
    }

    fn replace(
        &self,
        mut document: NewDocument,
        log: Vec<NewChange>,
    ) -> Result<DocumentMeta, RegistryError> {
        if self.bug == RegistryBug::EpochKept
            && let Ok(meta) = wait(self.inner.meta(&document.id))
        {
            (document.epoch, document.mode) = (meta.epoch, meta.mode);
            wait(self.inner.delete(&document.id))?;
        }
        self.inner.replace(document, log)
    }

    fn restarted(&self) {
        if self.bug == RegistryBug::OriginsLost {
            for aliases in self.aliases.lock().unwrap().values_mut() {
                aliases.generation += 1;
                aliases.inside.clear();
            }
        }
    }

    fn bug(&self) -> Option<RegistryBug> {
        Some(self.bug)
    }
}

#[async_trait]
impl ServerRegistry for BuggyRegistry {
    async fn create(&self, document: NewDocument) -> Result<DocumentMeta, RegistryError> {
        self.inner.create(document).await
    }

    async fn meta(&self, document: &DocumentId) -> Result<DocumentMeta, RegistryError> {
        self.inner.meta(document).await
    }

    async fn append(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        mut changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        self.with_aliases(document, |aliases| {
            for change in &mut changes {
                change.id.origin = aliases.enter(change.id.origin);
            }
        });
        self.inner.append(document, epoch, expect, changes).await
    }

    async fn tail(
        &self,
        document: &DocumentId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Tail, RegistryError> {
        let mut tail = self.inner.tail(document, after, max_bytes).await?;
        if let Tail::Changes { changes, .. } = &mut tail {
            self.with_aliases(document, |aliases| {
                for row in changes {
                    row.id = ChangeId {
                        origin: aliases.leave(row.id.origin),
                        ..row.id
                    };
                }
            });
        }
        Ok(tail)
    }

    async fn snapshot(&self, document: &DocumentId) -> Result<Option<Snapshot>, RegistryError> {
        self.inner.snapshot(document).await
    }

    async fn size(&self, document: &DocumentId) -> Result<DocumentSize, RegistryError> {
        self.inner.size(document).await
    }

    async fn compact(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<(), RegistryError> {
        if self.bug == RegistryBug::TailDropped {
            let meta = self.inner.meta(document).await?;
            // What it says of itself is right; what it holds is what there was when it was made.
            let all = Snapshot::new(meta.head, meta.digest, snapshot.bytes);
            return self.inner.compact(document, epoch, all, meta.head).await;
        }
        self.inner
            .compact(document, epoch, snapshot, keep_after)
            .await
    }

    async fn trim(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        next: Epoch,
    ) -> Result<(), RegistryError> {
        self.inner.trim(document, epoch, snapshot, next).await
    }

    async fn delete(&self, document: &DocumentId) -> Result<(), RegistryError> {
        self.inner.delete(document).await
    }

    async fn list(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentMeta>, RegistryError> {
        self.inner.list(after, limit).await
    }

    async fn heads(&self, documents: &[DocumentId]) -> Result<Vec<Option<Cursor>>, RegistryError> {
        self.inner.heads(documents).await
    }

    async fn origins(
        &self,
        document: &DocumentId,
        origins: &[OriginId],
    ) -> Result<Vec<Option<OriginEntry>>, RegistryError> {
        let inside: Vec<_> = self.with_aliases(document, |aliases| {
            origins
                .iter()
                .map(|origin| aliases.enter(*origin))
                .collect()
        });
        let mut entries = self.inner.origins(document, &inside).await?;
        for (entry, origin) in entries.iter_mut().zip(origins) {
            if let Some(entry) = entry {
                entry.origin = *origin;
            }
        }
        Ok(entries)
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    fn watch(&self) -> Option<BoxStream<'static, RegistryEvent>> {
        self.inner.watch()
    }

    async fn maintain(&self, budget: Duration) -> Result<(), RegistryError> {
        self.inner.maintain(budget).await
    }
}
