//! Where documents live: the [`ServerRegistry`] trait, [`MemoryRegistry`], and `EmbeddedRegistry` (feature `embedded`).
//!
//! To write a registry, read the trait's promises, look at `examples/src/file_registry.rs`, and run the
//! `conformance` suite (feature `conformance`) against it. `docs/guide/custom-registry.md` leads through it.

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "embedded")]
mod embedded;
#[cfg(feature = "conformance")]
mod faulty;
pub mod group_commit;
mod memory;
mod origins;
mod rules;
mod state;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
pub use sync_core::history::{Cursor, Digest, Epoch, EpochMode, Seq};
pub use sync_core::ids::{ChangeId, DocumentId, EngineId, OriginId, User};
pub use sync_core::registry::{
    DocumentMeta, DocumentSize, Durability, NewChange, NewDocument, OriginEntry, Outcome,
    RegistryError, RegistryEvent, Snapshot, StoredChange, Tail,
};

#[cfg(feature = "embedded")]
pub use embedded::{
    DocumentInfo, EmbeddedOptions, EmbeddedRegistry, Existing, Export, ExportError, Inspector,
    OpenError,
};
#[cfg(feature = "conformance")]
pub use faulty::{Call, FaultyRegistry, HoldPoint};
pub use memory::MemoryRegistry;
pub use origins::{ORIGINS_PER_DOCUMENT_MAX, ORIGINS_PER_USER_MAX};

/// Where documents live: per document a durable, ordered log of opaque changes, plus a snapshot (design 2).
///
/// A registry is the truth. The server acknowledges a change, and shows it to others, only after `append` said
/// [`Outcome::At`]; whatever a registry answers is believed. Several servers may use one registry at once if it
/// serialises their calls per document.
///
/// # Errors, for every method
///
/// - [`NotFound`](RegistryError::NotFound) and [`Deleted`](RegistryError::Deleted) only after a strongly
///   consistent read that showed just that. They make clients recreate or drop documents, so a failed read is
///   `Unavailable` and never one of them: an error can never be mistaken for an empty document.
/// - [`Unavailable`](RegistryError::Unavailable): nothing was done.
/// - [`Unknown`](RegistryError::Unknown): it may have been done. Callers ask again; all methods are idempotent.
/// - [`Damaged`](RegistryError::Damaged): what is stored cannot be read. The server stops serving the document.
///
/// After a failed sync to the device a registry refuses everything until it is opened again: what the operating
/// system then holds in its caches is not what is on the disk.
///
/// # Cancellation
///
/// A future that is dropped leaves its call carried out or not, as after `Unknown`, but never half.
///
/// # Examples
///
/// ```
/// # use sync_server::registry::{ChangeId, DocumentId, EngineId, Epoch, MemoryRegistry, NewChange};
/// # use sync_server::registry::{NewDocument, OriginId, Outcome, Seq, ServerRegistry, User};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = MemoryRegistry::new();
/// let notes = DocumentId::new("notes/42")?;
/// let meta = registry.create(NewDocument::new(notes.clone(), EngineId::YRS, Epoch(7))).await?;
/// let id = ChangeId { origin: OriginId(1), number: 1 };
/// let change = NewChange::new(id, User::new("ada"), "hello".into());
/// assert_eq!(registry.append(&notes, meta.epoch, None, vec![change.clone()]).await?, [Outcome::At(Seq(1))]);
/// let again = registry.append(&notes, meta.epoch, None, vec![change]).await?;
/// assert_eq!(again, [Outcome::Duplicate { last: 1, seq: Some(Seq(1)) }]);
/// # Ok(()) }
/// ```
#[async_trait]
pub trait ServerRegistry: Send + Sync + 'static {
    /// Creates a document and returns what is known of it; of one that exists already, returns what exists and
    /// changes nothing, whatever its engine and epoch: the caller compares.
    ///
    /// A document that starts with a snapshot has its head, and the start of its log, at the snapshot's sequence.
    ///
    /// # Errors
    /// [`Deleted`](RegistryError::Deleted) if there is a tombstone: only an operator's tools bring a deleted
    /// document back. [`Refused`](RegistryError::Refused) if the snapshot stands at sequence 0, where no client
    /// would ask for it.
    async fn create(&self, document: NewDocument) -> Result<DocumentMeta, RegistryError>;

    /// What is known of a document. Strongly consistent: it shows every append answered before the call.
    ///
    /// # Errors
    /// [`NotFound`](RegistryError::NotFound), [`Deleted`](RegistryError::Deleted): facts, never guessed from
    /// another error (design 2.3).
    async fn meta(&self, document: &DocumentId) -> Result<DocumentMeta, RegistryError>;

    /// Appends changes to the log, durably (see [`durability`](Self::durability)) when it returns, and says of each,
    /// in their order, what became of it (design 2.1):
    ///
    /// - [`At`](Outcome::At): committed. All that are `At` in one call commit together or not at all, and stand next
    ///   to each other. Sequences of a document are contiguous from 1, whoever appends.
    /// - [`Duplicate`](Outcome::Duplicate): the origin has already committed this number. A repeat of the same call
    ///   changes nothing, which is what settles `Unknown`.
    /// - [`IdReused`](Outcome::IdReused): it has, with other bytes; required while the row is in the kept log.
    /// - [`Gap`](Outcome::Gap): the number is not the origin's next, which is 1 for an origin that is not known.
    ///   Number 0 is always a gap.
    /// - [`ForeignOrigin`](Outcome::ForeignOrigin): the origin committed its first change for another user.
    ///
    /// Changes see the ones before them in the same call. After one that was neither `At` nor `Duplicate`, the same
    /// call's later changes of this origin and user are `Gap`: nothing that may build on a refused change overtakes it.
    ///
    /// A row says whether its change is [reconciling](NewChange::reconciling), which is no part of its identity.
    ///
    /// Origins whose last change is in the kept log are never forgotten. Of the older ones, at least the newest
    /// [`ORIGINS_PER_USER_MAX`] of each user are remembered, up to [`ORIGINS_PER_DOCUMENT_MAX`] together.
    ///
    /// `expect`: commit only if this is the head, for callers that checked the changes against the log up to there.
    ///
    /// # Errors
    /// [`Fenced`](RegistryError::Fenced) if `epoch` is not the document's, checked before
    /// [`Conflict`](RegistryError::Conflict) if `expect` is not its head; both for the whole call.
    /// [`NotFound`](RegistryError::NotFound), [`Deleted`](RegistryError::Deleted).
    async fn append(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError>;

    /// The log after a sequence: as many rows as have at most `max_bytes` of change bytes together, but at least
    /// one if there are any, and the digest at `after` to compare a cursor with. Strongly consistent.
    ///
    /// # Errors
    /// [`NotFound`](RegistryError::NotFound), [`Deleted`](RegistryError::Deleted).
    async fn tail(
        &self,
        document: &DocumentId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Tail, RegistryError>;

    /// The snapshot, if there is one. The log continues it: `tail` after its sequence is never
    /// [`Compacted`](Tail::Compacted), unless a newer snapshot has come in between.
    ///
    /// # Errors
    /// [`NotFound`](RegistryError::NotFound), [`Deleted`](RegistryError::Deleted).
    async fn snapshot(&self, document: &DocumentId) -> Result<Option<Snapshot>, RegistryError>;

    /// How large the document is, for the limit on that; asked when the document is loaded. What it says of the log may be
    /// the bytes of the changes after the snapshot, or what storing them takes.
    ///
    /// Default: reads all of it. Registries that can tell without do so.
    ///
    /// # Errors
    /// [`NotFound`](RegistryError::NotFound), [`Deleted`](RegistryError::Deleted).
    async fn size(&self, document: &DocumentId) -> Result<DocumentSize, RegistryError> {
        for _ in 0..SIZE_ATTEMPTS_MAX {
            let snapshot = self.snapshot(document).await?;
            let mut size = DocumentSize::default();
            if let Some(snapshot) = snapshot {
                size.snapshot_seq = snapshot.seq;
                size.snapshot_bytes = wide(snapshot.bytes.len());
            }
            size.head = size.snapshot_seq;
            // Anything but rows: the document was compacted or replaced in between.
            while let Tail::Changes { changes, head, .. } =
                self.tail(document, size.head, SIZE_READ_BYTES).await?
            {
                for change in &changes {
                    size.head = change.seq;
                    size.log_bytes += wide(change.bytes.len());
                }
                if changes.is_empty() || size.head >= head {
                    return Ok(size);
                }
            }
        }
        Err(RegistryError::unavailable("the document keeps changing"))
    }

    /// Replaces the snapshot and drops the rows through `keep_after`, in one transaction (design 2.4).
    ///
    /// The caller has proven the snapshot's bytes; the registry holds the caller to the log: no change is dropped
    /// that the snapshot does not cover. The digest at `keep_after` stays known, so that a cursor there compares.
    /// A snapshot older than the present one changes nothing and is `Ok`: another fold was quicker. One at the same
    /// sequence replaces it, which is how rows kept for a while are dropped later. A `keep_after` before the start
    /// of the log drops nothing.
    ///
    /// # Errors
    /// [`Fenced`](RegistryError::Fenced); [`Refused`](RegistryError::Refused) if the snapshot stands at 0 or beyond
    /// the head, if its digest is not the log's at its sequence, or if `keep_after` is beyond it.
    /// [`NotFound`](RegistryError::NotFound), [`Deleted`](RegistryError::Deleted).
    async fn compact(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<(), RegistryError>;

    /// Begins a new history, whose name is `next` and whose mode is [`Rebase`](EpochMode::Rebase), in the place of `epoch`, in one
    /// transaction (design 2.3). It has all that the old one had, and less of how that came about: it starts with `snapshot`,
    /// which stands at the head, has no rows before that, and goes on with its sequences, its digest and the table of origins.
    ///
    /// The caller has proven the snapshot's bytes. A repeat of the same call changes nothing.
    ///
    /// # Errors
    /// [`Fenced`](RegistryError::Fenced) if `epoch` is not the document's, checked before
    /// [`Conflict`](RegistryError::Conflict) if the snapshot does not stand at its head.
    /// [`Refused`](RegistryError::Refused) if the snapshot stands at 0, if its digest is not the head's, or if both epochs are
    /// one. [`NotFound`](RegistryError::NotFound), [`Deleted`](RegistryError::Deleted).
    async fn trim(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        next: Epoch,
    ) -> Result<(), RegistryError>;

    /// Deletes a document's content and leaves a tombstone, for good: clients that come back are told `Deleted`
    /// instead of recreating it. Deleting a deleted document is `Ok`.
    ///
    /// # Errors
    /// [`NotFound`](RegistryError::NotFound).
    async fn delete(&self, document: &DocumentId) -> Result<(), RegistryError>;

    /// The documents whose ids come after `after`, in byte order of their ids, at most `limit`; deleted ones left out.
    ///
    /// # Errors
    /// Those of every method.
    async fn list(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentMeta>, RegistryError>;

    /// The heads of many documents at once, in the order asked: epoch, last sequence, and the digest there, as in
    /// [`meta`](Self::meta). `None`: there is none, or a tombstone; `meta` says which. Cheap and strongly consistent: it
    /// repairs what dropped hints missed.
    ///
    /// # Errors
    /// Those of every method.
    async fn heads(&self, documents: &[DocumentId]) -> Result<Vec<Option<Cursor>>, RegistryError>;

    /// What the table that decides duplicates knows of these origins, in the order asked. Strongly consistent:
    /// `Opened` tells clients from it which changes of their outboxes are committed (design 2.1).
    ///
    /// # Errors
    /// [`NotFound`](RegistryError::NotFound), [`Deleted`](RegistryError::Deleted).
    async fn origins(
        &self,
        document: &DocumentId,
        origins: &[OriginId],
    ) -> Result<Vec<Option<OriginEntry>>, RegistryError>;

    /// Operator: everything that is kept of a document, as it is at one moment. By default refused.
    ///
    /// # Errors
    /// [`Refused`](RegistryError::Refused) if this registry does not do that. [`NotFound`](RegistryError::NotFound),
    /// [`Deleted`](RegistryError::Deleted).
    #[cfg(feature = "embedded")]
    async fn export(&self, document: &DocumentId) -> Result<Export, RegistryError> {
        let _ = document;
        Err(RegistryError::Refused {
            what: "this registry does not export documents",
        })
    }

    /// Operator: puts an exported document in the place of the one of its name, of its tombstone, or of nothing, in one
    /// transaction, under the epoch and mode that it has (see [`Export::under`]). By default refused.
    ///
    /// # Errors
    /// [`Refused`](RegistryError::Refused) if this registry does not do that, or if the document has this very epoch already.
    /// With [`Existing::Keep`] also if there is a document of that name, and [`Deleted`](RegistryError::Deleted) if there
    /// was. [`Damaged`](RegistryError::Damaged) if the export contradicts itself.
    #[cfg(feature = "embedded")]
    async fn restore(
        &self,
        export: Export,
        existing: Existing,
    ) -> Result<DocumentMeta, RegistryError> {
        let _ = (export, existing);
        Err(RegistryError::Refused {
            what: "this registry does not import documents",
        })
    }

    /// What an `Ok` of [`append`](Self::append) means. The server refuses to start with less than its floor.
    fn durability(&self) -> Durability;

    /// Whether anybody but this server may write to what this registry keeps: another server, here or elsewhere, or a tool.
    /// The server then asks for the [`heads`](Self::heads) of the documents that are open, about once a second, and
    /// [watches](Self::watch).
    ///
    /// Default: yes, which is never wrong. A registry that nobody else can write to, as with a file that it locks, says no and
    /// is spared that.
    fn is_shared(&self) -> bool {
        true
    }

    /// Hints of what anybody, this server included, did to the registry; `None` if it gives none.
    ///
    /// Hints may be lost, late or repeated: they shorten what `tail` and `heads` repair, and nothing depends on them.
    /// [`Lagged`](RegistryEvent::Lagged) says that some were lost. A stream that ends is asked for again.
    fn watch(&self) -> Option<BoxStream<'static, RegistryEvent>> {
        None
    }

    /// Called when there is time to tidy up, for about as long as `budget`.
    ///
    /// # Errors
    /// Those of every method.
    async fn maintain(&self, budget: Duration) -> Result<(), RegistryError> {
        let _ = budget;
        Ok(())
    }

    /// Finishes what was begun and lets go of files and connections. The last call.
    ///
    /// # Errors
    /// Those of every method. Acknowledged changes are durable either way.
    async fn close(&self) -> Result<(), RegistryError> {
        Ok(())
    }
}

/// Bytes of changes read at once, where reading all of them is the only way to tell how many there are.
const SIZE_READ_BYTES: usize = 1024 * 1024;

/// How often that is begun anew.
const SIZE_ATTEMPTS_MAX: u32 = 4;

pub(crate) fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[async_trait]
impl<R: ServerRegistry + ?Sized> ServerRegistry for Arc<R> {
    async fn create(&self, document: NewDocument) -> Result<DocumentMeta, RegistryError> {
        (**self).create(document).await
    }

    async fn meta(&self, document: &DocumentId) -> Result<DocumentMeta, RegistryError> {
        (**self).meta(document).await
    }

    async fn append(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        (**self).append(document, epoch, expect, changes).await
    }

    async fn tail(
        &self,
        document: &DocumentId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Tail, RegistryError> {
        (**self).tail(document, after, max_bytes).await
    }

    async fn snapshot(&self, document: &DocumentId) -> Result<Option<Snapshot>, RegistryError> {
        (**self).snapshot(document).await
    }

    async fn size(&self, document: &DocumentId) -> Result<DocumentSize, RegistryError> {
        (**self).size(document).await
    }

    async fn compact(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<(), RegistryError> {
        (**self)
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
        (**self).trim(document, epoch, snapshot, next).await
    }

    async fn delete(&self, document: &DocumentId) -> Result<(), RegistryError> {
        (**self).delete(document).await
    }

    async fn list(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentMeta>, RegistryError> {
        (**self).list(after, limit).await
    }

    async fn heads(&self, documents: &[DocumentId]) -> Result<Vec<Option<Cursor>>, RegistryError> {
        (**self).heads(documents).await
    }

    async fn origins(
        &self,
        document: &DocumentId,
        origins: &[OriginId],
    ) -> Result<Vec<Option<OriginEntry>>, RegistryError> {
        (**self).origins(document, origins).await
    }

    #[cfg(feature = "embedded")]
    async fn export(&self, document: &DocumentId) -> Result<Export, RegistryError> {
        (**self).export(document).await
    }

    #[cfg(feature = "embedded")]
    async fn restore(
        &self,
        export: Export,
        existing: Existing,
    ) -> Result<DocumentMeta, RegistryError> {
        (**self).restore(export, existing).await
    }

    fn durability(&self) -> Durability {
        (**self).durability()
    }

    fn is_shared(&self) -> bool {
        (**self).is_shared()
    }

    fn watch(&self) -> Option<BoxStream<'static, RegistryEvent>> {
        (**self).watch()
    }

    async fn maintain(&self, budget: Duration) -> Result<(), RegistryError> {
        (**self).maintain(budget).await
    }

    async fn close(&self) -> Result<(), RegistryError> {
        (**self).close().await
    }
}
