//! The writer: one transaction per commit.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, Statement, params};
use sync_core::BoxError;
use sync_core::history::{Epoch, Seq};
use sync_core::ids::DocumentId;

use super::EmbeddedOptions;
use super::document::Document;
use super::index::{Index, Journal, Published, RowRef, Standing, find, lock};
use super::origins::changed_by;
use super::plan::Plan;
use super::reader::Reader;
use super::row::{Part, encode};
use super::schema::{Directory, failed, seq_column, signed};
use crate::registry::group_commit::BlockingRegistry;
use crate::registry::rules;
use crate::registry::{DocumentMeta, Durability, NewChange, NewDocument, Outcome, RegistryError};

/// Documents that the writer remembers although nothing of them is in the journal.
const IDLE_DOCUMENTS_MAX: usize = 10_000;

/// Bytes of a page of the database.
pub(super) const PAGE: u64 = 4096;

/// What the writer and its readers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) index: Index,
    pub(super) options: EmbeddedOptions,
    /// A sync has failed: what is on the disk may be less than what is read. Nothing may be copied into the database any
    /// more, for the log has to be able to repair that.
    pub(super) is_broken: AtomicBool,
    /// After everything that has files open in it.
    pub(super) directory: Directory,
}

impl Shared {
    /// The error of copying the write-ahead log into the database, and of syncing either.
    pub(super) fn not_copied(&self, error: rusqlite::Error) -> RegistryError {
        if error.sqlite_error_code() == Some(ErrorCode::SystemIoFailure) {
            self.not_synced(Box::new(error))
        } else {
            failed(error)
        }
    }

    /// Nobody can tell what is on the disk: everything has to be refused.
    pub(super) fn not_synced(&self, error: BoxError) -> RegistryError {
        self.is_broken.store(true, Ordering::Relaxed);
        RegistryError::Unknown {
            source: Some(error),
        }
    }
}

/// SQLite, written by one thread.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) connection: Connection,
    pub(super) shared: Arc<Shared>,
    /// Documents as they will be after the next commit.
    documents: HashMap<DocumentId, Arc<Mutex<Document>>>,
    /// Those with something staged.
    staged: Vec<Arc<Mutex<Document>>>,
    pub(super) in_transaction: bool,
    /// What has failed in this transaction, so that it cannot be committed.
    broken: Option<rusqlite::Error>,
    is_usable: bool,
    next_row: i64,
    next_doc: i64,
    next_snapshot: i64,
    /// Pages that this transaction writes, about.
    pub(super) pages: u64,
    buffer: Vec<u8>,
}

impl Engine {
    pub(super) fn new(
        connection: Connection,
        shared: Arc<Shared>,
    ) -> Result<Self, rusqlite::Error> {
        let next = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        let next_doc = next("SELECT coalesce(max(doc), 0) + 1 FROM documents")?;
        let next_snapshot = next("SELECT coalesce(max(snapshot), 0) + 1 FROM parts")?.max(next(
            "SELECT coalesce(max(snapshot), 0) + 1 FROM snapshots",
        )?);
        // Parts that were written for a compaction that did not come to its end.
        connection.execute(
            "INSERT INTO garbage (snapshot) SELECT DISTINCT snapshot FROM parts
             WHERE snapshot NOT IN (SELECT snapshot FROM snapshots)
             AND snapshot NOT IN (SELECT snapshot FROM garbage WHERE snapshot IS NOT NULL)",
            [],
        )?;
        let garbage = next("SELECT count(*) FROM garbage")?;
        shared
            .index
            .has_garbage
            .store(garbage > 0, Ordering::Relaxed);
        let next_row = shared.index.journal().last_row + 1;
        Ok(Self {
            connection,
            shared,
            documents: HashMap::new(),
            staged: Vec::new(),
            in_transaction: false,
            broken: None,
            is_usable: true,
            next_row,
            next_doc,
            next_snapshot,
            pages: 0,
            buffer: Vec::new(),
        })
    }

    /// Writes within this commit's transaction. What fails here fails the commit.
    pub(super) fn write<T>(
        &mut self,
        f: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
    ) -> Result<T, RegistryError> {
        if self.broken.is_some() {
            return Err(broken());
        }
        let result = if self.in_transaction {
            f(&self.connection)
        } else {
            self.connection
                .prepare_cached("BEGIN IMMEDIATE")
                .and_then(|mut begin| begin.execute([]))
                .and_then(|_| {
                    self.in_transaction = true;
                    f(&self.connection)
                })
        };
        result.map_err(|error| {
            self.broken = Some(error);
            broken()
        })
    }

    /// After a read failed: SQLite may have ended the transaction.
    pub(super) fn read<T>(
        &mut self,
        f: impl FnOnce(&Connection) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let result = f(&self.connection);
        if result.is_err() && self.in_transaction && self.connection.is_autocommit() {
            self.broken.get_or_insert(rusqlite::Error::InvalidQuery);
        }
        result
    }

    /// Finds a document, in memory or in the database. Deleted ones too.
    pub(super) fn load(
        &mut self,
        document: &DocumentId,
    ) -> Result<Option<Arc<Mutex<Document>>>, RegistryError> {
        if let Some(found) = self.documents.get(document) {
            return Ok(Some(Arc::clone(found)));
        }
        let loaded = if let Some(published) = self.shared.index.get(document) {
            let (standing, unread) = {
                let published = lock(&published);
                published.check()?;
                let unread = published.origins.is_none();
                let rows = published.rows.iter().filter(|_| unread);
                (
                    published.standing.clone(),
                    rows.copied().collect::<Vec<_>>(),
                )
            };
            if !unread.is_empty() {
                let doc = standing.doc;
                let origins = self.read(|connection| changed_by(connection, doc, &unread))?;
                lock(&published).origins = Some(origins);
            }
            let origins = lock(&published).origins.clone().unwrap_or_default();
            Document::loaded(standing, Some(published), origins)
        } else {
            let Some(standing) = self.read(|connection| find(connection, document))? else {
                return Ok(None);
            };
            Document::loaded(standing, None, HashMap::new())
        };
        self.forget_some();
        let loaded = Arc::new(Mutex::new(loaded));
        self.documents.insert(document.clone(), Arc::clone(&loaded));
        Ok(Some(loaded))
    }

    /// The number of a new document. None is given twice, whatever fails.
    pub(super) const fn allot_doc(&mut self) -> i64 {
        let doc = self.next_doc;
        self.next_doc += 1;
        doc
    }

    /// The number of a new snapshot.
    pub(super) const fn allot_snapshot(&mut self) -> i64 {
        let number = self.next_snapshot;
        self.next_snapshot += 1;
        number
    }

    /// A document that is in memory, as it will be after the next commit.
    pub(super) fn in_memory(&self, document: &DocumentId) -> Option<Arc<Mutex<Document>>> {
        self.documents.get(document).cloned()
    }

    /// Puts a document in the place of what is known under its name, to be committed.
    pub(super) fn put(&mut self, id: DocumentId, mut document: Document) {
        document.is_changed = true;
        let slot = match self.documents.get(&id) {
            Some(slot) => {
                let mut old = lock(slot);
                document.is_staged = old.is_staged;
                *old = document;
                Arc::clone(slot)
            }
            None => {
                let slot = Arc::new(Mutex::new(document));
                self.documents.insert(id, Arc::clone(&slot));
                slot
            }
        };
        self.stage(&slot);
    }

    pub(super) fn load_live(
        &mut self,
        document: &DocumentId,
    ) -> Result<Arc<Mutex<Document>>, RegistryError> {
        let found = self.load(document)?.ok_or(RegistryError::NotFound)?;
        if lock(&found).standing.is_deleted {
            return Err(RegistryError::Deleted);
        }
        Ok(found)
    }

    /// Keeps the memory for documents that nobody writes to within bounds.
    fn forget_some(&mut self) {
        let in_journal = self.shared.index.journal().oldest.len();
        if self.documents.len() <= in_journal + IDLE_DOCUMENTS_MAX {
            return;
        }
        let index = &self.shared.index;
        self.documents.retain(|id, document| {
            let document = lock(document);
            let published = document.published.as_ref();
            let has_rows = published.is_some_and(|published| !lock(published).rows.is_empty());
            let is_kept = document.is_staged || has_rows;
            if !is_kept {
                index.remove(id);
            }
            is_kept
        });
    }

    /// Notes that a document has something to commit.
    pub(super) fn stage(&mut self, document: &Arc<Mutex<Document>>) {
        if !std::mem::replace(&mut lock(document).is_staged, true) {
            self.staged.push(Arc::clone(document));
        }
    }

    /// Writes the staged changes of all documents to the journal: a row for each document, in the order of `staged`.
    fn write_journal(&mut self) -> Result<Vec<Option<RowRef>>, RegistryError> {
        let staged = std::mem::take(&mut self.staged);
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut next_row = self.next_row;
        let mut rows = Vec::with_capacity(staged.len());
        let has_changes = staged
            .iter()
            .any(|document| !lock(document).changes.is_empty());
        let written = if has_changes {
            self.write(|connection| {
                let mut insert = connection
                    .prepare_cached("INSERT INTO journal VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
                for document in &staged {
                    rows.push(insert_row(
                        &mut insert,
                        &lock(document),
                        &mut next_row,
                        &mut buffer,
                    )?);
                }
                Ok(())
            })
        } else {
            rows.resize(staged.len(), None);
            Ok(())
        };
        self.staged = staged;
        self.buffer = buffer;
        self.next_row = next_row;
        let bytes: u64 = rows.iter().flatten().map(|row| u64::from(row.bytes)).sum();
        if has_changes {
            self.pages += bytes / PAGE + 2;
        }
        written.map(|()| rows)
    }

    /// Shows readers what has been committed.
    fn publish(&mut self, rows: Vec<Option<RowRef>>) {
        let index = &self.shared.index;
        let mut journal = index.journal();
        for (staged, row) in self.staged.drain(..).zip(rows) {
            let mut document = lock(&staged);
            let document = &mut *document;
            if let Some(published) = &document.published {
                publish(document, row, &mut lock(published), &mut journal);
            } else {
                let mut published = Published::new(document.standing.clone());
                publish(document, row, &mut published, &mut journal);
                let published = Arc::new(Mutex::new(published));
                index.insert(document.standing.meta.id.clone(), Arc::clone(&published));
                document.published = Some(published);
            }
            document.settle();
        }
        drop(journal);
        index
            .wal_pages
            .fetch_add(std::mem::take(&mut self.pages), Ordering::Relaxed);
    }

    /// Takes everything back that is staged.
    fn roll_back(&mut self) {
        for document in self.staged.drain(..) {
            // Read again from what is committed when it is needed.
            self.documents.remove(&lock(&document).standing.meta.id);
        }
        self.pages = 0;
        if self.in_transaction && !self.connection.is_autocommit() {
            self.is_usable &= self.connection.execute_batch("ROLLBACK").is_ok();
        }
        self.in_transaction = false;
        self.next_row = self.shared.index.journal().last_row + 1;
    }
}

impl Drop for Engine {
    /// The last connection copies the log into the database when it is closed, unless it is told not to.
    fn drop(&mut self) {
        if !self.is_usable || self.shared.is_broken.load(Ordering::Relaxed) {
            let told = self
                .connection
                .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
            if let Err(error) = told {
                tracing::error!(%error, "the log is copied after a failed sync");
            }
        }
    }
}

impl BlockingRegistry for Engine {
    type Reader = Reader;
    type Plan = Plan;

    fn reader(&self) -> Result<Reader, RegistryError> {
        Reader::new(Arc::clone(&self.shared)).map_err(failed)
    }

    fn create(&mut self, document: NewDocument) -> Result<DocumentMeta, RegistryError> {
        if let Some(found) = self.load(&document.id)? {
            let Standing {
                meta, is_deleted, ..
            } = &lock(&found).standing;
            return if *is_deleted {
                Err(RegistryError::Deleted)
            } else {
                Ok(meta.clone())
            };
        }
        let meta = rules::created(&document)?;
        let standing = Standing {
            doc: self.allot_doc(),
            start_digest: meta.digest,
            folded: meta.head,
            snapshot: document.snapshot.as_ref().map(|_| self.allot_snapshot()),
            is_deleted: false,
            meta: meta.clone(),
        };
        self.insert_document(&standing, document.snapshot.as_ref())?;
        let created = Arc::new(Mutex::new(Document::new(standing)));
        self.documents.insert(document.id, Arc::clone(&created));
        self.stage(&created);
        Ok(meta)
    }

    fn append(
        &mut self,
        document: &DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        if self.broken.is_some() {
            return Err(broken());
        }
        let found = self.load_live(document)?;
        let mut staged = lock(&found);
        let before = staged.standing.meta.head;
        seq_column(before.plus(u64::try_from(changes.len()).unwrap_or(u64::MAX)))?;
        self.read(|connection| staged.prepare(connection, &changes))?;
        let outcomes = rules::append(&mut *staged, epoch, expect, changes)?;
        let has_more = staged.standing.meta.head > before;
        drop(staged);
        if has_more {
            self.stage(&found);
        }
        Ok(outcomes)
    }

    fn delete(&mut self, document: &DocumentId) -> Result<(), RegistryError> {
        let found = self.load(document)?.ok_or(RegistryError::NotFound)?;
        let mut standing = lock(&found).standing.clone();
        if standing.is_deleted {
            return Ok(());
        }
        let snapshot = standing.snapshot.take();
        standing.is_deleted = true;
        self.write_standing(&standing)?;
        self.throw_away(Some(standing.doc), None, None)?;
        if snapshot.is_some() {
            self.throw_away(None, None, snapshot)?;
        }
        {
            let mut found = lock(&found);
            found.standing = standing;
            found.is_changed = true;
            found.clear();
        }
        self.stage(&found);
        Ok(())
    }

    fn apply(&mut self, plan: Plan) -> Result<Option<Plan>, RegistryError> {
        match plan {
            Plan::Compact(plan) => self.compact_step(plan),
            Plan::Evict {
                doc,
                origins,
                through,
            } => self.evict(doc, origins, through),
            Plan::Fold(folded) => self.fold(folded),
            Plan::Trim { from, through } => self.trim(from, through).map(|()| None),
            Plan::Purge => self.purge().map(|()| None),
            Plan::RestartLog => {
                // Most of it was done beside the writer. What is left must find nobody writing.
                if !self.in_transaction {
                    let shared = Arc::clone(&self.shared);
                    self.read(|connection| {
                        connection
                            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
                            .map_err(|error| shared.not_copied(error))
                    })?;
                }
                Ok(None)
            }
        }
    }

    fn commit(&mut self) -> Result<(), RegistryError> {
        let rows = match self.write_journal() {
            Ok(rows) if self.broken.is_none() => rows,
            Ok(_) | Err(_) => {
                // Nothing was synced, so that taking it back is enough where SQLite says that it can.
                let error = self.broken.take().unwrap_or(rusqlite::Error::InvalidQuery);
                self.is_usable = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
                self.roll_back();
                return Err(RegistryError::unavailable(error));
            }
        };
        if self.in_transaction {
            let committed = self
                .connection
                .prepare_cached("COMMIT")
                .and_then(|mut commit| commit.execute([]));
            if let Err(error) = committed {
                // A full disk has not taken the frame that ends the transaction, so that it never was one. With any other
                // error that frame may be in the log, and what is in the log may not be on the disk.
                self.is_usable = error.sqlite_error_code() == Some(ErrorCode::DiskFull);
                self.roll_back();
                let source = Some(Box::new(error).into());
                return Err(if self.is_usable {
                    RegistryError::Unavailable {
                        retry_after: None,
                        source,
                    }
                } else {
                    RegistryError::Unknown { source }
                });
            }
            self.in_transaction = false;
        }
        self.publish(rows);
        Ok(())
    }

    fn is_usable(&self) -> bool {
        self.is_usable
    }

    fn is_untidy(&self) -> bool {
        let Shared { index, options, .. } = &*self.shared;
        index.wal_pages.load(Ordering::Relaxed) >= options.pass_pages()
            || index.has_garbage.load(Ordering::Relaxed)
            || index.journal().bytes >= options.fold_bytes
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }
}

/// What an append is told in a transaction that cannot be committed any more.
fn broken() -> RegistryError {
    RegistryError::unavailable("a write before this one failed")
}

/// Writes a document's staged changes; nothing if there are none.
fn insert_row(
    insert: &mut Statement<'_>,
    document: &Document,
    next_row: &mut i64,
    buffer: &mut Vec<u8>,
) -> Result<Option<RowRef>, rusqlite::Error> {
    // A call has as many as its bytes allow; a commit is bounded in calls.
    let n = u32::try_from(document.changes.len()).unwrap_or(u32::MAX);
    if n == 0 {
        return Ok(None);
    }
    let seq = document.first_staged();
    let parts = document.changes.iter().map(|change| Part {
        id: change.id,
        user: &change.user,
        bytes: &change.bytes,
    });
    encode(buffer, seq, parts);
    let row = *next_row;
    insert.execute(params![
        row,
        document.standing.doc,
        signed(seq.0),
        n,
        signed(document.standing.meta.digest.0),
        &buffer[..]
    ])?;
    *next_row += 1;
    Ok(Some(RowRef {
        row,
        seq,
        n,
        bytes: u32::try_from(buffer.len()).unwrap_or(u32::MAX),
    }))
}

/// Shows readers what of a document has been committed.
fn publish(
    document: &Document,
    row: Option<RowRef>,
    published: &mut Published,
    journal: &mut Journal,
) {
    let before = published.rows.front().map(|row| row.row);
    if document.is_changed {
        let is_replaced = published.standing.doc != document.standing.doc;
        if is_replaced && published.damaged.take().is_some() {
            // Its rows were taken out of the account when that was noticed.
            let doc = published.standing.doc;
            journal.damaged.retain(|damaged| *damaged != doc);
            published.rows.clear();
        }
        published.standing = document.standing.clone();
        let through = if is_replaced || document.standing.is_deleted {
            Seq(u64::MAX)
        } else {
            document.standing.folded
        };
        let dropped = published.drop_rows(through);
        journal.bytes = journal.bytes.saturating_sub(dropped);
        if is_replaced {
            published.origins = Some(HashMap::new());
        } else if let Some(origins) = &mut published.origins {
            origins.retain(|_, entry| entry.seq > through);
        }
    }
    if let Some(row) = row {
        journal.bytes += u64::from(row.bytes);
        journal.last_row = row.row;
        published.rows.push_back(row);
        published.standing.meta.head = document.standing.meta.head;
        published.standing.meta.digest = document.standing.meta.digest;
        if let Some(origins) = &mut published.origins {
            for change in &document.changes {
                if let Some(entry) = document.origins.get(&change.id.origin) {
                    origins.insert(change.id.origin, entry.clone());
                }
            }
        }
    }
    let after = published.rows.front().map(|row| row.row);
    if before != after {
        if let Some(before) = before {
            journal.oldest.remove(&before);
        }
        if let Some(after) = after {
            let id = document.standing.meta.id.clone();
            journal.oldest.insert(after, id);
        }
    }
}
