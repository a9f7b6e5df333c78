//! The writer: what it has open, and its transaction.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode};
use sync_core::BoxError;
use sync_core::history::{Epoch, Seq};
use sync_core::ids::DocumentId;

use super::EmbeddedOptions;
use super::document::{Document, Known, Standing};
use super::index::{Index, lock};
use super::origins::changed_by;
use super::plan::Plan;
use super::reader::Reader;
use super::schema::{Directory, failed, seq_column};
use super::staged::{Draft, Staged};
use super::standing::find;
use crate::registry::group_commit::BlockingRegistry;
use crate::registry::rules;
use crate::registry::{DocumentMeta, Durability, NewChange, NewDocument, Outcome, RegistryError};

/// Documents that are remembered although nothing of them is in the journal.
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
    /// Documents with something staged.
    pub(super) batch: Vec<Arc<Mutex<Document>>>,
    /// Those of them that nobody else knows yet, by name: the index may have what they replace.
    pub(super) created: HashMap<DocumentId, Arc<Mutex<Document>>>,
    /// To be used again, for a commit has many.
    #[expect(clippy::vec_box, reason = "documents hold boxes")]
    pub(super) spare: Vec<Box<Staged>>,
    pub(super) in_transaction: bool,
    /// What has failed in this transaction, so that it cannot be committed.
    pub(super) broken: Option<rusqlite::Error>,
    pub(super) is_usable: bool,
    pub(super) next_row: i64,
    next_doc: i64,
    next_snapshot: i64,
    /// Pages that this transaction writes, about.
    pub(super) pages: u64,
    pub(super) buffer: Vec<u8>,
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
            batch: Vec::new(),
            created: HashMap::new(),
            spare: Vec::new(),
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

    /// Reads what is committed, and what this transaction has written.
    pub(super) fn read<T>(
        &mut self,
        f: impl FnOnce(&Connection) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        let result = f(&self.connection);
        self.after_read(result)
    }

    /// After a read failed: SQLite may have ended the transaction.
    fn after_read<T>(&mut self, result: Result<T, RegistryError>) -> Result<T, RegistryError> {
        if result.is_err() && self.in_transaction && self.connection.is_autocommit() {
            self.broken.get_or_insert(rusqlite::Error::InvalidQuery);
        }
        result
    }

    /// Finds a document, in memory or in the database. Deleted ones too.
    pub(super) fn load(
        &mut self,
        id: &DocumentId,
    ) -> Result<Option<Arc<Mutex<Document>>>, RegistryError> {
        if let Some(created) = self.created.get(id) {
            return Ok(Some(Arc::clone(created)));
        }
        let Some(found) = self.shared.index.get(id) else {
            let Some(standing) = self.read(|connection| find(connection, id))? else {
                return Ok(None);
            };
            self.shared.index.forget_idle(IDLE_DOCUMENTS_MAX);
            // What this transaction has changed of a document is staged too, and then the index has it.
            let found = Arc::new(Mutex::new(Document::new(standing)));
            self.shared.index.insert(id.clone(), Arc::clone(&found));
            return Ok(Some(found));
        };
        let unread = {
            let document = lock(&found);
            document.check()?;
            let is_unread = document.known == Known::Nothing;
            is_unread.then(|| {
                let rows: Vec<_> = document.rows.iter().copied().collect();
                (document.standing.doc, rows)
            })
        };
        if let Some((doc, rows)) = unread {
            let origins = self.read(|connection| changed_by(connection, doc, &rows))?;
            lock(&found).learn(origins);
        }
        Ok(Some(found))
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

    /// Stages a document that is new, perhaps in the place of another one.
    pub(super) fn introduce(&mut self, standing: Standing) {
        let id = standing.meta.id.clone();
        let document = Arc::new(Mutex::new(Document::new(standing)));
        self.stage(&document, |_| ());
        self.created.insert(id, document);
    }

    pub(super) fn load_live(
        &mut self,
        id: &DocumentId,
    ) -> Result<Arc<Mutex<Document>>, RegistryError> {
        let found = self.load(id)?.ok_or(RegistryError::NotFound)?;
        if lock(&found).next().is_deleted {
            return Err(RegistryError::Deleted);
        }
        Ok(found)
    }

    /// Takes what is staged of a document out of it, to be put back by the caller.
    fn take_staged(
        &mut self,
        found: &Arc<Mutex<Document>>,
        document: &mut Document,
    ) -> Box<Staged> {
        document.staged.take().unwrap_or_else(|| {
            self.batch.push(Arc::clone(found));
            let mut staged = self.spare.pop().unwrap_or_default();
            staged.begin(&document.standing);
            staged
        })
    }

    /// Changes what is staged of a document.
    pub(super) fn stage<T>(
        &mut self,
        found: &Arc<Mutex<Document>>,
        f: impl FnOnce(&mut Staged) -> T,
    ) -> T {
        let mut document = lock(found);
        let mut staged = self.take_staged(found, &mut document);
        let result = f(&mut staged);
        document.staged = Some(staged);
        result
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
            } = lock(&found).upcoming();
            return if is_deleted {
                Err(RegistryError::Deleted)
            } else {
                Ok(meta)
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
        self.introduce(standing);
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
        let mut document = lock(&found);
        let mut staged = self.take_staged(&found, &mut document);
        let n = u64::try_from(changes.len()).unwrap_or(u64::MAX);
        let result = seq_column(staged.head.plus(n)).and_then(|_| {
            let mut draft = Draft {
                document: &mut document,
                staged: &mut staged,
            };
            draft.append(&self.connection, epoch, expect, changes)
        });
        document.staged = Some(staged);
        self.after_read(result)
    }

    fn delete(&mut self, document: &DocumentId) -> Result<(), RegistryError> {
        let found = self.load(document)?.ok_or(RegistryError::NotFound)?;
        let mut standing = lock(&found).upcoming();
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
        self.stage(&found, |staged| {
            staged.changed = Some(standing);
            staged.clear();
        });
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
            Plan::RestartLog => self.restart_log().map(|()| None),
        }
    }

    fn commit(&mut self) -> Result<(), RegistryError> {
        self.commit_batch()
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
