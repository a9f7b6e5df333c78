//! Documents in a directory, with SQLite.

mod commit;
mod disk;
mod document;
mod entries;
mod export;
mod export_file;
mod index;
mod insert;
mod inspect;
mod origins;
mod plan;
mod planning;
mod reader;
mod repeats;
mod replace;
mod row;
mod rows;
mod schema;
mod staged;
mod standing;
mod steps;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use sync_core::history::{Cursor, Epoch, EpochMode, Seq};
use sync_core::ids::{DocumentId, OriginId};

pub use self::export::{Export, ExportError};
use self::index::Index;
pub use self::inspect::{DocumentInfo, Inspector};
pub use self::replace::Existing;
pub use self::schema::OpenError;
use self::schema::{Directory, opening};
use self::writer::{Engine, Shared};
use super::group_commit::{GroupCommit, GroupCommitOptions};
use super::{
    DocumentMeta, DocumentSize, Durability, NewChange, NewDocument, OriginEntry, Outcome,
    RegistryError, RegistryEvent, ServerRegistry, Snapshot, Tail,
};

/// Keeps documents in a directory of this machine, for one server at a time.
///
/// What [`append`](ServerRegistry::append) has answered is on the disk: killing the process loses nothing, nor does a
/// power cut on a disk that keeps its promises. The directory holds an SQLite database (`sync.db`, with `sync.db-wal`
/// and `sync.db-shm` beside it while it is open) and a file `lock`. `docs/guide/storage.md` says how it is laid out, backed
/// up and looked into.
///
/// One thread writes for all documents, with one commit for everybody who waits ([`GroupCommit`]); reads have threads of
/// their own. Changes go to a journal, in the order of commits, and are moved to their documents' places later, in
/// small steps between commits.
///
/// Dropping it, like [`close`](ServerRegistry::close), finishes what is queued and lets go of the directory; `close`
/// does not block the caller's thread meanwhile.
///
/// # Examples
///
/// ```
/// use sync_server::{Anonymous, EmbeddedRegistry, Server};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = std::env::temp_dir().join(format!("sync-doc-{}", std::process::id()));
/// let registry = EmbeddedRegistry::open(&directory)?;
/// let server = Server::builder(registry, Anonymous::read_write()).build()?;
/// # drop(server);
/// # std::fs::remove_dir_all(directory)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct EmbeddedRegistry {
    registry: GroupCommit<Engine>,
}

/// Settings of an [`EmbeddedRegistry`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EmbeddedOptions {
    group: GroupCommitOptions,
    checkpoint_pages: u64,
    fold_bytes: u64,
    file_bytes_max: Option<u64>,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            group: GroupCommitOptions::default(),
            checkpoint_pages: 10_000,
            fold_bytes: 32 << 20,
            file_bytes_max: None,
        }
    }
}

impl EmbeddedOptions {
    /// How far apart commits begin under load, as [`GroupCommitOptions::commit_interval`]. Default 1 ms to 5 ms.
    #[must_use]
    pub fn commit_interval(mut self, min: Duration, max: Duration) -> Self {
        self.group = self.group.commit_interval(min, max);
        self
    }

    /// How calls are queued and committed.
    #[must_use]
    pub const fn group_commit(mut self, options: GroupCommitOptions) -> Self {
        self.group = options;
        self
    }

    /// Pages of 4 KiB after which the write-ahead log begins again at its start. Default 10,000, 40 MB. It is copied into
    /// the database in smaller pieces meanwhile.
    #[must_use]
    pub const fn checkpoint_pages(mut self, pages: u64) -> Self {
        self.checkpoint_pages = pages;
        self
    }

    /// Bytes of the journal after which its rows are moved to their documents' places while there is time, and after
    /// 32 times as many in any case. Default 32 MiB. More makes fewer and larger rows, and takes longer to open:
    /// about a second per gigabyte.
    #[must_use]
    pub const fn fold_bytes(mut self, bytes: u64) -> Self {
        self.fold_bytes = bytes;
        self
    }

    /// Size that the database file must not exceed; the write-ahead log comes on top. What does not fit is refused with
    /// [`RegistryError::Unavailable`], as on a full disk. Default none.
    #[must_use]
    pub const fn file_bytes_max(mut self, bytes: u64) -> Self {
        self.file_bytes_max = Some(bytes);
        self
    }
}

impl EmbeddedOptions {
    /// Pages after which the log is copied once more: so few that a commit beside it hardly waits for the disk.
    fn pass_pages(&self) -> u64 {
        self.checkpoint_pages.min(250)
    }
}

impl EmbeddedRegistry {
    /// Opens a directory, or makes it.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::open_with(directory, EmbeddedOptions::default())
    }

    /// Opens a directory with other settings.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open_with(
        directory: impl AsRef<Path>,
        options: EmbeddedOptions,
    ) -> Result<Self, OpenError> {
        let directory = Directory::take(directory.as_ref())?;
        let path = directory.database();
        let connection = directory.open(&options)?;
        let index = Index::load(&directory).map_err(|error| opening(&path, error))?;
        let group = options.group.clone();
        let shared = Arc::new(Shared {
            index,
            options,
            is_broken: AtomicBool::new(false),
            directory,
        });
        let engine = Engine::new(connection, shared).map_err(|error| opening(&path, error))?;
        let registry = GroupCommit::start(engine, &group).map_err(|error| OpenError::Io {
            path,
            source: Box::new(error),
        })?;
        Ok(Self { registry })
    }

    /// Operator: everything that is kept of a document, as it is now.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Deleted`], and those of every method.
    pub async fn export(&self, document: &DocumentId) -> Result<Export, RegistryError> {
        let document = document.clone();
        self.registry
            .with_reader(move |reader| reader.export(&document))
            .await
    }

    /// Operator: takes an exported document, as a new history: with a fresh epoch, which came about as `mode` says, so that
    /// no client takes up where it was in another one (design 2.3). With [`EpochMode::Merge`] clients bring back what it
    /// lacks, with [`EpochMode::Discard`] they drop it.
    ///
    /// It is one transaction: whatever happens, there is the old history or the new one. Others wait for it, some seconds
    /// per gigabyte. From then on everything that was meant for the old history is [`Fenced`](RegistryError::Fenced).
    ///
    /// # Errors
    /// [`RegistryError::Damaged`] if the export contradicts itself. With [`Existing::Keep`],
    /// [`RegistryError::Refused`] if there is a document of that name, and [`RegistryError::Deleted`] if there was.
    /// Those of every method.
    ///
    /// # Cancellation
    /// What is dropped is carried out or not, but never half.
    pub async fn import(
        &self,
        export: Export,
        mode: EpochMode,
        existing: Existing,
    ) -> Result<DocumentMeta, RegistryError> {
        let mut random = [0; 8];
        getrandom::fill(&mut random)
            .map_err(|error| RegistryError::unavailable(error.to_string()))?;
        let there = self.meta(&export.meta.id).await.ok();
        let there = there.map(|meta| meta.epoch);
        let epoch = export.epoch_after(there, u64::from_le_bytes(random));
        let export = export.under(epoch, mode);
        self.put(export, existing).await
    }

    /// Operator: gives a document a new history, in place of the one it has, of its tombstone, or of nothing, as
    /// [`MemoryRegistry::replace`](super::MemoryRegistry::replace) does.
    ///
    /// The history starts with the snapshot, if any, and goes on with `log`, taken as it is; origins are known by what is
    /// in it. `document.mode` tells clients of the older epoch what to do. One transaction, as in [`import`](Self::import).
    ///
    /// # Errors
    /// [`RegistryError::Refused`] if the document has this very epoch already, and as [`Export::new`]. Those of every
    /// method.
    ///
    /// # Cancellation
    /// What is dropped is carried out or not, but never half.
    pub async fn replace(
        &self,
        document: NewDocument,
        log: Vec<NewChange>,
    ) -> Result<DocumentMeta, RegistryError> {
        let export = Export::new(document, log)?;
        self.put(export, Existing::Replace).await
    }

    async fn put(&self, export: Export, existing: Existing) -> Result<DocumentMeta, RegistryError> {
        export.verify()?;
        self.registry
            .with_writer(move |engine| engine.replace(&export, existing))
            .await
    }
}

#[async_trait]
impl ServerRegistry for EmbeddedRegistry {
    async fn create(&self, document: NewDocument) -> Result<DocumentMeta, RegistryError> {
        self.registry.create(document).await
    }

    async fn meta(&self, document: &DocumentId) -> Result<DocumentMeta, RegistryError> {
        self.registry.meta(document).await
    }

    async fn append(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        self.registry.append(document, epoch, expect, changes).await
    }

    async fn tail(
        &self,
        document: &DocumentId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Tail, RegistryError> {
        self.registry.tail(document, after, max_bytes).await
    }

    async fn snapshot(&self, document: &DocumentId) -> Result<Option<Snapshot>, RegistryError> {
        self.registry.snapshot(document).await
    }

    async fn compact(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<(), RegistryError> {
        self.registry
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
        self.registry.trim(document, epoch, snapshot, next).await
    }

    async fn delete(&self, document: &DocumentId) -> Result<(), RegistryError> {
        self.registry.delete(document).await
    }

    async fn list(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentMeta>, RegistryError> {
        self.registry.list(after, limit).await
    }

    async fn size(&self, document: &DocumentId) -> Result<DocumentSize, RegistryError> {
        self.registry.size(document).await
    }

    async fn heads(&self, documents: &[DocumentId]) -> Result<Vec<Option<Cursor>>, RegistryError> {
        self.registry.heads(documents).await
    }

    async fn origins(
        &self,
        document: &DocumentId,
        origins: &[OriginId],
    ) -> Result<Vec<Option<OriginEntry>>, RegistryError> {
        self.registry.origins(document, origins).await
    }

    fn durability(&self) -> Durability {
        self.registry.durability()
    }

    fn is_shared(&self) -> bool {
        self.registry.is_shared()
    }

    fn watch(&self) -> Option<BoxStream<'static, RegistryEvent>> {
        self.registry.watch()
    }

    async fn export(&self, document: &DocumentId) -> Result<Export, RegistryError> {
        Self::export(self, document).await
    }

    async fn restore(
        &self,
        export: Export,
        existing: Existing,
    ) -> Result<DocumentMeta, RegistryError> {
        self.put(export, existing).await
    }

    /// Moves the journal's rows to their documents' places and copies the write-ahead log into the database, as far as
    /// the budget goes. Both happen without being asked once they are due.
    async fn maintain(&self, budget: Duration) -> Result<(), RegistryError> {
        self.registry.maintain(budget).await
    }

    async fn close(&self) -> Result<(), RegistryError> {
        self.registry.close().await
    }
}
