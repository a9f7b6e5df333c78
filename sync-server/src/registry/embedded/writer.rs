//! The writer: one transaction per commit.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use sync_core::history::{Digest, Epoch, Seq};
use sync_core::ids::{ChangeId, DocumentId, OriginId, User};

use super::EmbeddedOptions;
use super::index::{Index, Published, RowRef, Standing, find, lock};
use super::plan::{Compaction, FoldedDocument, Plan};
use super::reader::Reader;
use super::row::{Part, encode};
use super::rows::{log_row_before, read_journal};
use super::schema::{Directory, failed, mode_column, seq_column, signed, unsigned};
use crate::registry::group_commit::BlockingRegistry;
use crate::registry::rules::{self, Log};
use crate::registry::{
    DocumentMeta, Durability, NewChange, NewDocument, OriginEntry, Outcome, RegistryError,
    StoredChange,
};

/// Documents that the writer remembers although nothing of them is in the journal.
const IDLE_DOCUMENTS_MAX: usize = 10_000;

/// Bytes of a page of the database.
const PAGE: u64 = 4096;

/// What the writer and its readers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) index: Index,
    pub(super) options: EmbeddedOptions,
    /// After everything that has files open in it.
    pub(super) directory: Directory,
}

/// SQLite, written by one thread.
#[derive(Debug)]
pub(super) struct Engine {
    connection: Connection,
    shared: Arc<Shared>,
    /// Documents as they will be after the next commit.
    documents: HashMap<DocumentId, Document>,
    /// Those with something staged.
    staged: Vec<DocumentId>,
    in_transaction: bool,
    /// What has failed in this transaction, so that it cannot be committed.
    broken: Option<rusqlite::Error>,
    is_usable: bool,
    next_row: i64,
    next_doc: i64,
    next_snapshot: i64,
    /// Pages that this transaction writes, about.
    pages: u64,
    buffer: Vec<u8>,
}

/// A document as it will be after the next commit.
#[derive(Debug)]
struct Document {
    standing: Standing,
    published: Option<Arc<Mutex<Published>>>,
    /// The entries that have been asked for, and those that changes have changed.
    origins: HashMap<OriginId, OriginEntry>,
    /// Origins that the table is known not to have.
    unknown: HashSet<OriginId>,
    /// Changes after the last commit's head.
    changes: Vec<NewChange>,
    is_staged: bool,
    /// More has changed than there are `changes`.
    is_changed: bool,
    repeats: Option<Repeats>,
}

/// Where changes stand, once somebody has repeated one.
#[derive(Debug, Default)]
struct Repeats {
    stands: HashMap<ChangeId, Seq>,
    /// Everything from here on is in `stands`.
    from: Seq,
    /// The bytes that the present call is compared with.
    bytes: HashMap<ChangeId, Bytes>,
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
    fn write<T>(
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
    fn read<T>(
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
    fn load(&mut self, document: &DocumentId) -> Result<Option<&mut Document>, RegistryError> {
        if self.documents.contains_key(document) {
            return Ok(self.documents.get_mut(document));
        }
        let loaded = if let Some(published) = self.shared.index.get(document) {
            let (standing, rows) = {
                let published = lock(&published);
                published.check()?;
                let unread = published.origins.is_none();
                let rows: Vec<_> = published.rows.iter().copied().filter(|_| unread).collect();
                (published.standing.clone(), rows)
            };
            if !rows.is_empty() {
                let origins =
                    self.read(|connection| origins_of(connection, standing.doc, &rows))?;
                lock(&published).origins = Some(origins);
            }
            let origins = lock(&published).origins.clone().unwrap_or_default();
            Document {
                origins,
                published: Some(published),
                ..Document::new(standing)
            }
        } else {
            let Some(standing) = self.read(|connection| find(connection, document))? else {
                return Ok(None);
            };
            Document::new(standing)
        };
        self.forget_some();
        Ok(Some(
            self.documents.entry(document.clone()).or_insert(loaded),
        ))
    }

    fn load_live(&mut self, document: &DocumentId) -> Result<&mut Document, RegistryError> {
        match self.load(document)? {
            None => Err(RegistryError::NotFound),
            Some(document) if document.standing.is_deleted => Err(RegistryError::Deleted),
            Some(document) => Ok(document),
        }
    }

    /// Keeps the memory for documents that nobody writes to within bounds.
    fn forget_some(&mut self) {
        let in_journal = self.shared.index.journal().oldest.len();
        if self.documents.len() <= in_journal + IDLE_DOCUMENTS_MAX {
            return;
        }
        let index = &self.shared.index;
        self.documents.retain(|id, document| {
            let is_idle = !document.is_staged
                && document
                    .published
                    .as_ref()
                    .is_none_or(|published| lock(published).rows.is_empty());
            if is_idle {
                index.remove(id);
            }
            !is_idle
        });
    }

    fn stage(&mut self, document: &DocumentId) {
        if let Some(found) = self.documents.get_mut(document)
            && !found.is_staged
        {
            found.is_staged = true;
            self.staged.push(document.clone());
        }
    }

    /// Writes the staged changes of all documents to the journal.
    fn write_journal(&mut self) -> Result<Vec<(DocumentId, RowRef)>, RegistryError> {
        let mut rows = Vec::with_capacity(self.staged.len());
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut bytes = 0;
        for id in self.staged.clone() {
            let Some(document) = self.documents.get(&id) else {
                continue;
            };
            let n = document.changes.len();
            if n == 0 {
                continue;
            }
            let standing = &document.standing;
            let n = u32::try_from(n).map_err(|_| RegistryError::Refused {
                what: "too many changes in one commit",
            })?;
            let seq = Seq(standing
                .meta
                .head
                .0
                .saturating_sub(u64::from(n))
                .saturating_add(1));
            let parts = document.changes.iter().map(|change| Part {
                id: change.id,
                user: &change.user,
                bytes: &change.bytes,
            });
            encode(&mut buffer, seq, parts);
            let (doc, digest) = (standing.doc, signed(standing.meta.digest.0));
            let first = seq_column(seq)?;
            let row = self.next_row;
            self.write(|connection| {
                connection
                    .prepare_cached("INSERT INTO journal VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                    .execute(params![row, doc, first, n, digest, buffer])
            })?;
            self.next_row += 1;
            let len = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            bytes += u64::from(len);
            rows.push((
                id,
                RowRef {
                    row,
                    seq,
                    n,
                    bytes: len,
                },
            ));
        }
        self.buffer = buffer;
        if !rows.is_empty() {
            self.pages += bytes / PAGE + 2;
        }
        Ok(rows)
    }

    /// Shows readers what has been committed.
    fn publish(&mut self, rows: Vec<(DocumentId, RowRef)>) {
        let index = &self.shared.index;
        let mut journal = index.journal();
        let mut rows = rows.into_iter().peekable();
        for id in self.staged.drain(..) {
            let Some(document) = self.documents.get_mut(&id) else {
                continue;
            };
            let row = rows.next_if(|(of, _)| *of == id).map(|(_, row)| row);
            let is_new = document.published.is_none();
            let published = document.published.get_or_insert_with(|| {
                Arc::new(Mutex::new(Published::new(document.standing.clone())))
            });
            {
                let mut published = lock(published);
                let before = published.rows.front().map(|row| row.row);
                if document.is_changed {
                    published.standing = document.standing.clone();
                    let through = document.standing.folded;
                    let dropped = if document.standing.is_deleted {
                        published.drop_rows(Seq(u64::MAX))
                    } else {
                        published.drop_rows(through)
                    };
                    journal.bytes = journal.bytes.saturating_sub(dropped);
                    if let Some(origins) = &mut published.origins {
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
                        journal.oldest.insert(after, id.clone());
                    }
                }
            }
            if is_new {
                index.insert(id, Arc::clone(published));
            }
            document.changes.clear();
            document.is_staged = false;
            document.is_changed = false;
            if let Some(repeats) = &mut document.repeats {
                repeats.bytes.clear();
            }
        }
        drop(journal);
        index
            .wal_pages
            .fetch_add(std::mem::take(&mut self.pages), Ordering::Relaxed);
    }

    /// Takes everything back that is staged.
    fn roll_back(&mut self) {
        for id in self.staged.drain(..) {
            // Read again from what is committed when it is needed.
            self.documents.remove(&id);
        }
        self.pages = 0;
        if self.in_transaction && !self.connection.is_autocommit() {
            self.is_usable &= self.connection.execute_batch("ROLLBACK").is_ok();
        }
        self.in_transaction = false;
        self.next_row = self.shared.index.journal().last_row + 1;
    }

    fn compact_step(&mut self, mut plan: Compaction) -> Result<Option<Plan>, RegistryError> {
        let standing = &self.load_live(&plan.document)?.standing;
        let stands = (plan.snapshot.seq, plan.snapshot.digest);
        if standing.doc != plan.doc {
            return Err(RegistryError::Fenced {
                current: standing.meta.epoch,
            });
        }
        // Asked again with each step; the log's digest there does not change.
        let goes_on = rules::compacts(
            &standing.meta.clone(),
            plan.epoch,
            stands,
            plan.keep_after,
            |_| Ok(Some(stands.1)),
        )?;
        if !plan.is_begun() {
            plan.begin(self.next_snapshot);
            self.next_snapshot += 1;
        }
        if !goes_on {
            // Another one was quicker.
            self.throw_away(None, None, Some(plan.number()))?;
            return Ok(None);
        }
        let parts = plan.next_parts();
        if !parts.is_empty() {
            let number = plan.number();
            for (part, bytes) in parts {
                self.pages += u64::try_from(bytes.len()).unwrap_or(0) / PAGE + 2;
                self.write(|connection| {
                    connection
                        .prepare_cached("INSERT INTO parts VALUES (?1, ?2, ?3)")?
                        .execute(params![number, part, &bytes[..]])
                })?;
            }
            return Ok(Some(Plan::Compact(plan)));
        }
        self.finish_compaction(plan).map(Some)
    }

    /// The step that counts: the snapshot and the log's start change together.
    fn finish_compaction(&mut self, plan: Compaction) -> Result<Plan, RegistryError> {
        let id = plan.document.clone();
        let document = self.load_live(&id)?;
        let mut standing = document.standing.clone();
        let published = document.published.clone();
        let replaced = standing.snapshot.replace(plan.number());
        standing.meta.snapshot_seq = plan.snapshot.seq;
        let mut evicted = Vec::new();
        let mut unfolded = Vec::new();
        let drops = plan.keep_after > standing.meta.log_start;
        if drops {
            standing.meta.log_start = plan.keep_after;
            standing.start_digest = plan.start_digest;
            evicted.clone_from(&plan.evicted);
            if plan.keep_after > standing.folded {
                // These rows are dropped before they were folded; what they did to origins stays.
                standing.folded = plan.keep_after;
                let origins = published.and_then(|published| lock(&published).origins.clone());
                let dropped = |entry: &OriginEntry| entry.seq <= plan.keep_after;
                unfolded.extend(
                    origins
                        .into_iter()
                        .flat_map(HashMap::into_values)
                        .filter(dropped),
                );
            }
        }
        let snapshot = &plan.snapshot;
        let (number, doc) = (plan.number(), plan.doc);
        let seq = seq_column(snapshot.seq)?;
        let length = i64::try_from(snapshot.bytes.len()).unwrap_or(i64::MAX);
        let hash = i64::from_le_bytes(super::row::check(snapshot.seq, &snapshot.bytes));
        self.write(|connection| {
            connection
                .prepare_cached("INSERT INTO snapshots VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![
                    number,
                    doc,
                    seq,
                    signed(snapshot.digest.0),
                    length,
                    hash
                ])
        })?;
        self.write_origins(doc, &unfolded)?;
        self.write_standing(&standing)?;
        if drops {
            self.throw_away(Some(doc), Some(plan.keep_after), None)?;
        }
        if replaced.is_some() {
            self.throw_away(None, None, replaced)?;
        }
        let document = self.load_live(&id)?;
        document.standing = standing;
        document.is_changed = true;
        let keep_after = plan.keep_after;
        for origin in &evicted {
            // Unless it has written since.
            if document
                .origins
                .get(origin)
                .is_some_and(|entry| entry.seq <= keep_after)
            {
                document.origins.remove(origin);
            }
        }
        self.stage(&id);
        Ok(Plan::Evict {
            document: id,
            doc,
            origins: evicted,
            through: plan.keep_after,
        })
    }

    fn fold(&mut self, folded: Vec<FoldedDocument>) -> Result<(), RegistryError> {
        for fold in folded {
            let Some(document) = self.load(&fold.document)? else {
                continue;
            };
            let mut standing = document.standing.clone();
            if standing.doc != fold.doc || standing.is_deleted || standing.folded != fold.after {
                // Compacted, replaced or deleted in between.
                continue;
            }
            standing.folded = fold.through;
            let doc = fold.doc;
            for segment in &fold.segments {
                let seq = seq_column(segment.seq)?;
                self.pages += u64::try_from(segment.changes.len()).unwrap_or(0) / PAGE + 2;
                self.write(|connection| {
                    connection
                        .prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5)")?
                        .execute(params![
                            doc,
                            seq,
                            segment.n,
                            signed(segment.digest.0),
                            segment.changes
                        ])
                })?;
            }
            self.write_origins(doc, &fold.origins)?;
            self.write_head(doc, fold.through, fold.digest)?;
            let document = self.load_live(&fold.document)?;
            document.standing = standing;
            document.is_changed = true;
            self.stage(&fold.document);
        }
        Ok(())
    }

    fn write_head(&mut self, doc: i64, head: Seq, digest: Digest) -> Result<(), RegistryError> {
        let head = seq_column(head)?;
        self.pages += 1;
        self.write(|connection| {
            connection
                .prepare_cached("UPDATE documents SET head = ?2, digest = ?3 WHERE doc = ?1")?
                .execute(params![doc, head, signed(digest.0)])
        })?;
        Ok(())
    }

    /// Writes everything but what only folding changes, unless the log now starts later.
    fn write_standing(&mut self, standing: &Standing) -> Result<(), RegistryError> {
        let Standing {
            doc,
            meta,
            start_digest,
            snapshot,
            is_deleted,
            ..
        } = standing;
        let log_start = seq_column(meta.log_start)?;
        let snapshot_seq = seq_column(meta.snapshot_seq)?;
        self.pages += 2;
        self.write(|connection| {
            connection
                .prepare_cached(
                    "UPDATE documents SET log_start = ?2, start_digest = ?3, snapshot = ?4,
                         snapshot_seq = ?5, deleted = ?6,
                         digest = iif(head < ?2, ?3, digest), head = max(head, ?2)
                     WHERE doc = ?1",
                )?
                .execute(params![
                    doc,
                    log_start,
                    signed(start_digest.0),
                    snapshot,
                    snapshot_seq,
                    is_deleted
                ])
        })?;
        Ok(())
    }

    fn write_origins(&mut self, doc: i64, entries: &[OriginEntry]) -> Result<(), RegistryError> {
        for entry in entries {
            let seq = seq_column(entry.seq)?;
            self.pages += 1;
            self.write(|connection| {
                connection
                    .prepare_cached(
                        "INSERT INTO origins VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE
                         SET last = excluded.last, seq = excluded.seq WHERE excluded.seq > seq",
                    )?
                    .execute(params![
                        doc,
                        entry.origin.0.to_be_bytes(),
                        &*entry.user.id,
                        signed(entry.last),
                        seq
                    ])
            })?;
        }
        Ok(())
    }

    /// Notes what is not needed any more, to be deleted piece by piece.
    fn throw_away(
        &mut self,
        doc: Option<i64>,
        through: Option<Seq>,
        snapshot: Option<i64>,
    ) -> Result<(), RegistryError> {
        let through = through.map(seq_column).transpose()?;
        self.write(|connection| {
            connection
                .prepare_cached("INSERT INTO garbage (doc, through, snapshot) VALUES (?1, ?2, ?3)")?
                .execute(params![doc, through, snapshot])
        })?;
        self.shared.index.has_garbage.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Deletes a piece of what is not needed any more.
    fn purge(&mut self) -> Result<(), RegistryError> {
        // A row may have many pages.
        const ROWS: i64 = 32;
        type Garbage = (i64, Option<i64>, Option<i64>, Option<i64>);
        let next: Option<Garbage> = self.read(|connection| {
            connection
                .prepare_cached("SELECT garbage, doc, through, snapshot FROM garbage LIMIT 1")
                .and_then(|mut statement| {
                    statement
                        .query_row([], |row| {
                            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                        })
                        .optional()
                })
                .map_err(failed)
        })?;
        let Some((garbage, doc, through, snapshot)) = next else {
            self.shared
                .index
                .has_garbage
                .store(false, Ordering::Relaxed);
            return Ok(());
        };
        self.pages += 64;
        self.write(|connection| {
            let delete =
                |sql: &str, key: i64| connection.prepare_cached(sql)?.execute(params![key, ROWS]);
            let mut rows = 0;
            if let Some(snapshot) = snapshot {
                rows = delete(
                    "DELETE FROM parts WHERE snapshot = ?1 AND part IN
                         (SELECT part FROM parts WHERE snapshot = ?1 LIMIT ?2)",
                    snapshot,
                )?;
                connection.execute("DELETE FROM snapshots WHERE snapshot = ?1", [snapshot])?;
            } else if let (Some(doc), Some(through)) = (doc, through) {
                rows = connection
                    .prepare_cached(
                        "DELETE FROM log WHERE doc = ?1 AND seq IN (SELECT seq FROM log
                             WHERE doc = ?1 AND seq + n - 1 <= ?3 ORDER BY seq LIMIT ?2)",
                    )?
                    .execute(params![doc, ROWS, through])?;
            } else if let Some(doc) = doc {
                rows = delete(
                    "DELETE FROM log WHERE doc = ?1 AND seq IN
                         (SELECT seq FROM log WHERE doc = ?1 LIMIT ?2)",
                    doc,
                )?;
                rows += delete(
                    "DELETE FROM origins WHERE doc = ?1 AND origin IN
                         (SELECT origin FROM origins WHERE doc = ?1 LIMIT ?2)",
                    doc,
                )?;
            }
            if rows == 0 {
                connection.execute("DELETE FROM garbage WHERE garbage = ?1", [garbage])?;
            }
            Ok(())
        })
    }

    fn trim(&mut self, from: i64, through: i64) -> Result<(), RegistryError> {
        self.write(|connection| {
            connection
                .prepare_cached("DELETE FROM journal WHERE row BETWEEN ?1 AND ?2")?
                .execute(params![from, through])
        })?;
        self.pages += 64;
        let mut journal = self.shared.index.journal();
        journal.first_row = journal.first_row.max(through + 1);
        Ok(())
    }

    fn evict(
        &mut self,
        document: DocumentId,
        doc: i64,
        mut origins: Vec<OriginId>,
        through: Seq,
    ) -> Result<Option<Plan>, RegistryError> {
        const ORIGINS: usize = 200;
        let rest = origins.split_off(origins.len().min(ORIGINS));
        let through_column = seq_column(through)?;
        for origin in origins {
            self.pages += 1;
            self.write(|connection| {
                connection
                    .prepare_cached(
                        "DELETE FROM origins WHERE doc = ?1 AND origin = ?2 AND seq <= ?3",
                    )?
                    .execute(params![doc, origin.0.to_be_bytes(), through_column])
            })?;
        }
        Ok((!rest.is_empty()).then_some(Plan::Evict {
            document,
            doc,
            origins: rest,
            through,
        }))
    }
}

impl Document {
    fn new(standing: Standing) -> Self {
        Self {
            standing,
            published: None,
            origins: HashMap::new(),
            unknown: HashSet::new(),
            changes: Vec::new(),
            is_staged: false,
            is_changed: false,
            repeats: None,
        }
    }

    /// The sequence of the first staged change.
    fn first_staged(&self) -> Seq {
        let staged = u64::try_from(self.changes.len()).unwrap_or(u64::MAX);
        Seq(self.standing.meta.head.0.saturating_sub(staged)).next()
    }

    fn prepare(
        &mut self,
        connection: &Connection,
        changes: &[NewChange],
    ) -> Result<(), RegistryError> {
        for change in changes {
            let origin = change.id.origin;
            if !self.origins.contains_key(&origin) && !self.unknown.contains(&origin) {
                match find_origin(connection, self.standing.doc, origin)? {
                    Some(entry) => drop(self.origins.insert(origin, entry)),
                    None => drop(self.unknown.insert(origin)),
                }
            }
        }
        let last = |origin| self.origins.get(&origin).map_or(0, |entry| entry.last);
        let is_repeat = |change: &&NewChange| change.id.number <= last(change.id.origin);
        let repeated: Vec<_> = changes
            .iter()
            .filter(is_repeat)
            .map(|change| change.id)
            .collect();
        let repeats_itself = changes.len() > 1 && {
            let mut seen = HashMap::new();
            changes.iter().any(|change| {
                let number = change.id.number;
                seen.insert(change.id.origin, number)
                    .is_some_and(|before| before >= number)
            })
        };
        if repeated.is_empty() && !repeats_itself {
            return Ok(());
        }
        let first = self.first_staged();
        let repeats = self.repeats.get_or_insert_with(|| {
            let staged = self.changes.iter().zip(0..);
            Repeats {
                stands: staged
                    .map(|(change, offset)| (change.id, first.plus(offset)))
                    .collect(),
                from: first,
                bytes: HashMap::new(),
            }
        });
        let rows = Rows {
            connection,
            standing: &self.standing,
            rows: self.published.as_ref(),
        };
        let mut read: Vec<StoredChange> = Vec::new();
        for id in repeated {
            while !repeats.stands.contains_key(&id)
                && repeats.from > self.standing.meta.log_start.next()
            {
                read = rows.before(repeats.from)?;
                repeats
                    .stands
                    .extend(read.iter().map(|change| (change.id, change.seq)));
                repeats.from = read.first().map_or(Seq::ZERO, |change| change.seq);
            }
            let Some(seq) = repeats.stands.get(&id).copied() else {
                continue;
            };
            if seq >= first || seq <= self.standing.meta.log_start {
                continue;
            }
            if !read.iter().any(|change| change.seq == seq) {
                read = rows.before(seq.next())?;
            }
            let bytes = read.iter().find(|change| change.seq == seq);
            if let Some(change) = bytes {
                repeats.bytes.insert(id, change.bytes.clone());
            }
        }
        Ok(())
    }
}

impl Log for Document {
    fn meta(&self) -> &DocumentMeta {
        &self.standing.meta
    }

    fn entry(&self, origin: OriginId) -> Option<&OriginEntry> {
        self.origins.get(&origin)
    }

    fn find(&self, id: ChangeId) -> Option<(Seq, &Bytes)> {
        let repeats = self.repeats.as_ref()?;
        let seq = *repeats.stands.get(&id)?;
        if let Some(offset) = seq.0.checked_sub(self.first_staged().0) {
            let change = self.changes.get(usize::try_from(offset).ok()?)?;
            return Some((seq, &change.bytes));
        }
        if seq <= self.standing.meta.log_start {
            return None;
        }
        Some((seq, repeats.bytes.get(&id)?))
    }

    fn commit(&mut self, change: NewChange) -> Seq {
        let meta = &mut self.standing.meta;
        meta.head = meta.head.next();
        meta.digest = meta.digest.with(change.id.number, &change.bytes);
        let seq = meta.head;
        let origin = change.id.origin;
        let entry = self.origins.entry(origin).or_insert_with(|| {
            self.unknown.remove(&origin);
            OriginEntry::new(origin, change.user.clone(), 0, seq)
        });
        entry.last = change.id.number;
        entry.seq = seq;
        if let Some(repeats) = &mut self.repeats {
            repeats.stands.insert(change.id, seq);
        }
        self.changes.push(change);
        seq
    }
}

/// The committed rows of a document, from the end.
struct Rows<'a> {
    connection: &'a Connection,
    standing: &'a Standing,
    rows: Option<&'a Arc<Mutex<Published>>>,
}

impl Rows<'_> {
    /// The changes of the row that ends, or is cut, just before a sequence.
    fn before(&self, before: Seq) -> Result<Vec<StoredChange>, RegistryError> {
        let doc = self.standing.doc;
        let last = Seq(before.0.saturating_sub(1));
        let in_journal = self.rows.and_then(|published| {
            let published = lock(published);
            let at = published.rows.partition_point(|row| row.last() < last);
            published.rows.get(at).copied()
        });
        let entries = match in_journal {
            Some(row) if row.seq <= last => read_journal(self.connection, doc, row)?,
            _ => log_row_before(self.connection, doc, before)?,
        };
        let changes: Vec<_> = entries
            .into_iter()
            .flatten()
            .map(|entry| entry.change)
            .filter(|change| change.seq < before)
            .collect();
        if changes.last().is_some_and(|change| change.seq == last) {
            Ok(changes)
        } else {
            Err(RegistryError::Damaged {
                what: format!("the change at sequence {last} is missing"),
            })
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
            return if found.standing.is_deleted {
                Err(RegistryError::Deleted)
            } else {
                Ok(found.standing.meta.clone())
            };
        }
        let meta = rules::created(&document)?;
        let head = seq_column(meta.head)?;
        let doc = self.next_doc;
        let snapshot = document
            .snapshot
            .map(|snapshot| (self.next_snapshot, snapshot));
        let digest = signed(meta.digest.0);
        self.write(|connection| {
            connection
                .prepare_cached(
                    "INSERT INTO documents (doc, id, engine, epoch, mode, head, digest, log_start,
                         start_digest, snapshot, snapshot_seq)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?6, ?7, ?8, ?6)",
                )?
                .execute(params![
                    doc,
                    meta.id.as_str(),
                    meta.engine.as_str(),
                    signed(meta.epoch.0),
                    mode_column(meta.mode),
                    head,
                    digest,
                    snapshot.as_ref().map(|(number, _)| *number),
                ])?;
            let Some((number, snapshot)) = &snapshot else {
                return Ok(());
            };
            for (part, bytes) in (0_i64..).zip(snapshot.bytes.chunks(Compaction::PART)) {
                connection
                    .prepare_cached("INSERT INTO parts VALUES (?1, ?2, ?3)")?
                    .execute(params![number, part, bytes])?;
            }
            let length = i64::try_from(snapshot.bytes.len()).unwrap_or(i64::MAX);
            let hash = i64::from_le_bytes(super::row::check(snapshot.seq, &snapshot.bytes));
            connection
                .prepare_cached("INSERT INTO snapshots VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![number, doc, head, digest, length, hash])?;
            Ok(())
        })?;
        self.next_doc += 1;
        self.pages += 3;
        let number = snapshot.map(|(number, _)| number);
        self.next_snapshot += i64::from(number.is_some());
        let standing = Standing {
            doc,
            start_digest: meta.digest,
            folded: meta.head,
            snapshot: number,
            is_deleted: false,
            meta: meta.clone(),
        };
        let id = document.id;
        self.documents.insert(id.clone(), Document::new(standing));
        self.stage(&id);
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
        self.load_live(document)?;
        let Some(found) = self.documents.get_mut(document) else {
            return Err(RegistryError::NotFound);
        };
        let before = found.standing.meta.head;
        seq_column(before.plus(u64::try_from(changes.len()).unwrap_or(u64::MAX)))?;
        // Whatever the rules will ask for is read first, so that nothing fails half-way.
        if let Err(error) = found.prepare(&self.connection, &changes) {
            return self.read(|_| Err(error));
        }
        let outcomes = rules::append(found, epoch, expect, changes)?;
        if found.standing.meta.head > before && !found.is_staged {
            found.is_staged = true;
            self.staged.push(document.clone());
        }
        Ok(outcomes)
    }

    fn delete(&mut self, document: &DocumentId) -> Result<(), RegistryError> {
        let found = self.load(document)?.ok_or(RegistryError::NotFound)?;
        if found.standing.is_deleted {
            return Ok(());
        }
        let mut standing = found.standing.clone();
        let snapshot = standing.snapshot.take();
        standing.is_deleted = true;
        self.write_standing(&standing)?;
        self.throw_away(Some(standing.doc), None, None)?;
        if snapshot.is_some() {
            self.throw_away(None, None, snapshot)?;
        }
        if let Some(found) = self.documents.get_mut(document) {
            found.standing = standing;
            found.is_changed = true;
            found.changes.clear();
            found.origins.clear();
            found.repeats = None;
        }
        self.stage(document);
        Ok(())
    }

    fn apply(&mut self, plan: Plan) -> Result<Option<Plan>, RegistryError> {
        match plan {
            Plan::Compact(plan) => self.compact_step(plan),
            Plan::Evict {
                document,
                doc,
                origins,
                through,
            } => self.evict(document, doc, origins, through),
            Plan::Fold(folded) => self.fold(folded).map(|()| None),
            Plan::Trim { from, through } => self.trim(from, through).map(|()| None),
            Plan::Purge => self.purge().map(|()| None),
            Plan::RestartLog => {
                // Most of it was done beside the writer. What is left must find nobody writing.
                if !self.in_transaction {
                    self.read(|connection| {
                        connection
                            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
                            .map_err(failed)
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
                return Err(RegistryError::Unavailable {
                    retry_after: None,
                    source: Some(Box::new(error)),
                });
            }
        };
        if self.in_transaction {
            let committed = self
                .connection
                .prepare_cached("COMMIT")
                .and_then(|mut commit| commit.execute([]));
            if let Err(error) = committed {
                self.is_usable = false;
                self.roll_back();
                return Err(RegistryError::Unknown {
                    source: Some(Box::new(error)),
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
        index.wal_pages.load(Ordering::Relaxed) >= options.checkpoint_pages
            || index.has_garbage.load(Ordering::Relaxed)
            || index.journal().bytes >= options.fold_bytes
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }
}

/// What an append is told in a transaction that cannot be committed any more.
fn broken() -> RegistryError {
    RegistryError::Unavailable {
        retry_after: None,
        source: Some("a write before this one failed".into()),
    }
}

/// The entries that rows of the journal have changed.
pub(super) fn origins_of(
    connection: &Connection,
    doc: i64,
    rows: &[RowRef],
) -> Result<HashMap<OriginId, OriginEntry>, RegistryError> {
    let mut origins = HashMap::new();
    for row in rows {
        let entries =
            read_journal(connection, doc, *row)?.ok_or_else(|| RegistryError::Damaged {
                what: format!("the changes at sequence {} are missing", row.seq),
            })?;
        for entry in entries {
            let change = entry.change;
            origins.insert(
                change.id.origin,
                OriginEntry::new(change.id.origin, entry.user, change.id.number, change.seq),
            );
        }
    }
    Ok(origins)
}

/// An entry of the table on disk.
pub(super) fn find_origin(
    connection: &Connection,
    doc: i64,
    origin: OriginId,
) -> Result<Option<OriginEntry>, RegistryError> {
    connection
        .prepare_cached("SELECT user, last, seq FROM origins WHERE doc = ?1 AND origin = ?2")
        .and_then(|mut statement| {
            statement
                .query_row(params![doc, origin.0.to_be_bytes()], |row| {
                    let user: String = row.get(0)?;
                    let (last, seq) = (unsigned(row.get(1)?), Seq(unsigned(row.get(2)?)));
                    Ok(OriginEntry::new(origin, User::new(user), last, seq))
                })
                .optional()
        })
        .map_err(failed)
}
