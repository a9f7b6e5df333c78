//! What is committed, as far as it is kept in memory: the documents with rows in the journal.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rusqlite::{Connection, OptionalExtension, Row, params};
use sync_core::history::{Digest, Seq};
use sync_core::ids::{DocumentId, OriginId};

use super::schema::{engine, epoch, failed, mode, unsigned};
use crate::registry::{DocumentMeta, OriginEntry, RegistryError};

/// What everybody but the writer sees. A document that is in here is as it says; one that is not has no rows in the
/// journal and is as the database says. The writer changes it only after a commit.
#[derive(Debug, Default)]
pub(super) struct Index {
    documents: RwLock<HashMap<DocumentId, Arc<Mutex<Published>>>>,
    pub(super) journal: Mutex<Journal>,
    /// Pages written since the last checkpoint began, about.
    pub(super) wal_pages: AtomicU64,
    pub(super) has_garbage: AtomicBool,
}

/// The journal as a whole.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// The oldest row of each document that has any.
    pub(super) oldest: BTreeMap<i64, DocumentId>,
    /// Bytes of all rows that are not folded.
    pub(super) bytes: u64,
    /// Rows before this one are trimmed.
    pub(super) first_row: i64,
    pub(super) last_row: i64,
}

impl Journal {
    /// The first row that is still needed.
    pub(super) fn needed(&self) -> i64 {
        self.oldest
            .first_key_value()
            .map_or(self.last_row + 1, |(row, _)| *row)
    }
}

/// Where a document stands, and its rows in the journal.
#[derive(Debug, Clone)]
pub(super) struct Published {
    pub(super) standing: Standing,
    /// Those after `standing.folded`, contiguous.
    pub(super) rows: VecDeque<RowRef>,
    /// Entries of the origin table that `rows` have changed; `None` if they have not been read yet.
    pub(super) origins: Option<HashMap<OriginId, OriginEntry>>,
    /// Why the document is refused, if it is.
    pub(super) damaged: Option<String>,
}

/// Where a document stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) doc: i64,
    pub(super) meta: DocumentMeta,
    /// Digest at `meta.log_start`.
    pub(super) start_digest: Digest,
    /// Everything through this sequence is in `log`, or before the log.
    pub(super) folded: Seq,
    pub(super) snapshot: Option<i64>,
    pub(super) is_deleted: bool,
}

/// One row of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RowRef {
    pub(super) row: i64,
    pub(super) seq: Seq,
    pub(super) n: u32,
    pub(super) bytes: u32,
}

impl RowRef {
    pub(super) fn last(self) -> Seq {
        // `n` is at least 1.
        self.seq.plus(u64::from(self.n.saturating_sub(1)))
    }
}

impl Published {
    /// As the database has it, without rows in the journal.
    pub(super) fn new(standing: Standing) -> Self {
        Self {
            standing,
            rows: VecDeque::new(),
            origins: Some(HashMap::new()),
            damaged: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), RegistryError> {
        match &self.damaged {
            None => Ok(()),
            Some(what) => Err(RegistryError::Damaged { what: what.clone() }),
        }
    }

    /// The rows that hold what comes after a sequence.
    pub(super) fn rows_after(&self, after: Seq) -> impl Iterator<Item = RowRef> + '_ {
        let skip = self.rows.partition_point(|row| row.last() <= after);
        self.rows.iter().skip(skip).copied()
    }

    /// Forgets the rows through a sequence. Returns their bytes.
    pub(super) fn drop_rows(&mut self, through: Seq) -> u64 {
        let mut bytes = 0;
        while let Some(row) = self.rows.front().filter(|row| row.last() <= through) {
            bytes += u64::from(row.bytes);
            self.rows.pop_front();
        }
        bytes
    }
}

impl Index {
    pub(super) fn get(&self, document: &DocumentId) -> Option<Arc<Mutex<Published>>> {
        self.documents
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(document)
            .cloned()
    }

    pub(super) fn insert(&self, document: DocumentId, published: Arc<Mutex<Published>>) {
        self.documents
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(document, published);
    }

    pub(super) fn remove(&self, document: &DocumentId) {
        self.documents
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(document);
    }

    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }

    /// Reads the journal, as it was left.
    pub(super) fn load(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let mut by_doc: HashMap<i64, Vec<(RowRef, Digest)>> = HashMap::new();
        let mut journal = Journal {
            first_row: i64::MAX,
            ..Journal::default()
        };
        let mut rows = connection.prepare(
            "SELECT row, doc, seq, n, digest, length(changes) FROM journal ORDER BY row",
        )?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let reference = RowRef {
                row: row.get(0)?,
                seq: Seq(unsigned(row.get(2)?)),
                n: row.get(3)?,
                bytes: row.get(5)?,
            };
            journal.first_row = journal.first_row.min(reference.row);
            journal.last_row = reference.row;
            let digest = Digest(unsigned(row.get(4)?));
            by_doc
                .entry(row.get(1)?)
                .or_default()
                .push((reference, digest));
        }
        journal.first_row = journal.first_row.min(journal.last_row + 1);
        let index = Self::default();
        for (doc, rows) in by_doc {
            // Rows without a document are not a document's: those of one that was replaced.
            let Some((id, standing)) = standing_of(connection, doc)? else {
                continue;
            };
            let published = with_rows(standing, &rows);
            if let Some(first) = published.rows.front() {
                journal.oldest.insert(first.row, id.clone());
                journal.bytes += published
                    .rows
                    .iter()
                    .map(|row| u64::from(row.bytes))
                    .sum::<u64>();
            }
            if !published.rows.is_empty() || published.damaged.is_some() {
                index.insert(id, Arc::new(Mutex::new(published)));
            }
        }
        *index.journal() = journal;
        Ok(index)
    }
}

/// A document with what the journal has of it.
fn with_rows(standing: Standing, rows: &[(RowRef, Digest)]) -> Published {
    let mut published = Published::new(standing);
    if published.standing.is_deleted {
        return published;
    }
    let folded = published.standing.folded;
    for (row, digest) in rows.iter().filter(|(row, _)| row.last() > folded) {
        let follows = published
            .rows
            .back()
            .map_or(row.seq <= folded.next(), |last| {
                row.seq == last.last().next()
            });
        if !follows {
            published.damaged = Some(format!("changes are missing before sequence {}", row.seq));
        }
        published.rows.push_back(*row);
        published.standing.meta.head = row.last();
        published.standing.meta.digest = *digest;
    }
    if !published.rows.is_empty() {
        published.origins = None;
    }
    published
}

const STANDING: &str = "SELECT doc, id, engine, epoch, mode, head, digest, log_start, start_digest, \
     snapshot, snapshot_seq, deleted FROM documents";

/// A document as the database has it.
pub(super) fn find(
    connection: &Connection,
    document: &DocumentId,
) -> Result<Option<Standing>, RegistryError> {
    connection
        .prepare_cached(&format!("{STANDING} WHERE id = ?1"))
        .and_then(|mut statement| {
            statement
                .query_row([document.as_str()], standing)
                .optional()
        })
        .map_err(failed)
        .map(|found| found.map(|(_, standing)| standing))
}

fn standing_of(
    connection: &Connection,
    doc: i64,
) -> Result<Option<(DocumentId, Standing)>, rusqlite::Error> {
    connection
        .prepare_cached(&format!("{STANDING} WHERE doc = ?1"))?
        .query_row([doc], standing)
        .optional()
}

/// Documents after an id, in the order of ids.
pub(super) fn list(
    connection: &Connection,
    after: Option<&DocumentId>,
    limit: usize,
) -> Result<Vec<(DocumentId, Standing)>, RegistryError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // No id is empty.
    let after = after.map_or("", DocumentId::as_str);
    connection
        .prepare_cached(&format!("{STANDING} WHERE id > ?1 ORDER BY id LIMIT ?2"))
        .and_then(|mut statement| {
            statement
                .query_map(params![after, limit], standing)?
                .collect()
        })
        .map_err(failed)
}

fn standing(row: &Row<'_>) -> Result<(DocumentId, Standing), rusqlite::Error> {
    let unreadable = |column| rusqlite::Error::IntegralValueOutOfRange(column, 0);
    let id = DocumentId::new(row.get::<_, String>(1)?).map_err(|_| unreadable(1))?;
    let mut meta = DocumentMeta::new(
        id.clone(),
        engine(row.get(2)?).ok_or_else(|| unreadable(2))?,
        epoch(row.get(3)?),
        mode(row.get(4)?).ok_or_else(|| unreadable(4))?,
    );
    let seq = |column| Ok::<_, rusqlite::Error>(Seq(unsigned(row.get(column)?)));
    let digest = |column| Ok::<_, rusqlite::Error>(Digest(unsigned(row.get(column)?)));
    meta.head = seq(5)?;
    meta.digest = digest(6)?;
    meta.log_start = seq(7)?;
    meta.snapshot_seq = seq(10)?;
    if meta.log_start > meta.head || meta.log_start > meta.snapshot_seq {
        return Err(unreadable(7));
    }
    let standing = Standing {
        doc: row.get(0)?,
        folded: meta.head,
        meta,
        start_digest: digest(8)?,
        snapshot: row.get(9)?,
        is_deleted: row.get(11)?,
    };
    Ok((id, standing))
}

/// What the locks here guard is whole whenever they are let go: nothing that can fail comes between.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
