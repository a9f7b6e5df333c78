//! A registry that notes what is committed to it, for the model to compare with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::stream::BoxStream;
use sync_core::history::{Cursor, Epoch, Seq};
use sync_core::ids::{DocumentId, OriginId};
use sync_core::registry::{
    DocumentMeta, DocumentSize, Durability, NewChange, NewDocument, OriginEntry, Outcome,
    RegistryError, Snapshot, Tail,
};
use sync_server::registry::{RegistryEvent, ServerRegistry};

use crate::content::{Mark, marks_in};
use crate::world::{RegistryBug, WorldRegistry};

/// What was committed to a document, in the history that it has.
#[derive(Debug, Clone, Default)]
pub struct Committed {
    /// Every mark in it.
    pub marks: BTreeSet<Mark>,
    /// Every change, and how often it is in the log.
    pub changes: BTreeMap<Bytes, u64>,
    /// The last sequence.
    pub head: u64,
    /// Whether it was put back to what it was before, or begun anew with what it held: clients may say again what they have
    /// said.
    pub is_restored: bool,
}

impl Committed {
    fn append(&mut self, bytes: &Bytes) {
        self.marks.extend(marks_in(bytes));
        *self.changes.entry(bytes.clone()).or_default() += 1;
        self.head += 1;
    }
}

/// See the module.
#[derive(Debug)]
pub struct Recorded {
    inner: Arc<dyn WorldRegistry>,
    record: Mutex<BTreeMap<DocumentId, Committed>>,
    /// Whether there was another one before, of which clients know.
    is_anew: bool,
}

impl Recorded {
    /// What is committed to this registry, which is empty.
    #[must_use]
    pub fn new(inner: Arc<dyn WorldRegistry>) -> Self {
        Self {
            inner,
            record: Mutex::default(),
            is_anew: false,
        }
    }

    /// An empty registry of the same kind.
    #[must_use]
    pub fn begin_anew(&self) -> Self {
        Self {
            is_anew: true,
            ..Self::new(self.inner.empty())
        }
    }

    /// A copy of it all. Whoever knows of what is not in it will say so.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut record = self.record.lock().unwrap().clone();
        for committed in record.values_mut() {
            committed.is_restored = true;
        }
        Self {
            inner: self.inner.backup(),
            record: Mutex::new(record),
            is_anew: true,
        }
    }

    /// Looks at what was committed to a document.
    pub fn with<T>(&self, document: &DocumentId, f: impl FnOnce(&Committed) -> T) -> T {
        self.change(document, |committed| f(committed))
    }

    fn change<T>(&self, document: &DocumentId, f: impl FnOnce(&mut Committed) -> T) -> T {
        let mut record = self.record.lock().unwrap();
        f(record.entry(document.clone()).or_insert_with(|| Committed {
            is_restored: self.is_anew,
            ..Committed::default()
        }))
    }
}

impl WorldRegistry for Recorded {
    fn empty(&self) -> Arc<dyn WorldRegistry> {
        Arc::new(self.begin_anew())
    }

    fn backup(&self) -> Arc<dyn WorldRegistry> {
        Arc::new(self.copy())
    }

    fn replace(
        &self,
        document: NewDocument,
        log: Vec<NewChange>,
    ) -> Result<DocumentMeta, RegistryError> {
        let id = document.id.clone();
        let snapshot = document.snapshot.clone();
        let changes: Vec<Bytes> = log.iter().map(|change| change.bytes.clone()).collect();
        let meta = self.inner.replace(document, log)?;
        self.change(&id, |committed| {
            *committed = Committed {
                is_restored: true,
                ..Committed::default()
            };
            if let Some(snapshot) = snapshot {
                committed.marks = marks_in(&snapshot.bytes);
                committed.head = snapshot.seq.0;
            }
            changes.iter().for_each(|bytes| committed.append(bytes));
        });
        Ok(meta)
    }

    fn restarted(&self) {
        self.inner.restarted();
    }

    fn bug(&self) -> Option<RegistryBug> {
        self.inner.bug()
    }
}

#[async_trait]
impl ServerRegistry for Recorded {
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
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        let bytes: Vec<Bytes> = changes.iter().map(|change| change.bytes.clone()).collect();
        let outcomes = self.inner.append(document, epoch, expect, changes).await?;
        self.change(document, |committed| {
            for (bytes, outcome) in bytes.iter().zip(&outcomes) {
                if matches!(outcome, Outcome::At(_)) {
                    committed.append(bytes);
                }
            }
        });
        Ok(outcomes)
    }

    async fn tail(
        &self,
        document: &DocumentId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Tail, RegistryError> {
        self.inner.tail(document, after, max_bytes).await
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
        self.inner.delete(document).await?;
        self.change(document, |committed| *committed = Committed::default());
        Ok(())
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
        self.inner.origins(document, origins).await
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
