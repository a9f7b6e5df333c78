//! What is committed, as far as it is kept in memory: the documents with rows in the journal.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rusqlite::{Connection, OptionalExtension, Row, params};
use sync_core::history::{Digest, Seq};
use sync_core::ids::{DocumentId, OriginId};

use super::schema::{Directory, engine, epoch, failed, mode, unsigned};
use crate::registry::{DocumentMeta, OriginEntry, RegistryError};

/// What everybody but the writer sees. A document that is in here is as it says; one that is not has no rows in the
/// journal and is as the database says. The writer changes it only after a commit.
#[derive(Debug, Default)]
pub(super) struct Index {
    documents: RwLock<HashMap<DocumentId, Arc<Mutex<Published>>>>,
    pub(super) journal: Mutex<Journal>,
    /// Pages written since the last pass of a checkpoint began, about.
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
    /// Documents that are refused: their rows are left alone, for whoever repairs them.
    pub(super) damaged: Vec<i64>,
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

    /// Bytes of its rows.
    pub(super) fn bytes(&self) -> u64 {
        self.rows.iter().map(|row| u64::from(row.bytes)).sum()
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

    /// Refuses a document from now on.
    pub(super) fn refuse(&self, published: &Mutex<Published>, what: String) {
        let mut journal = self.journal();
        let mut published = lock(published);
        tracing::error!(document = %published.standing.meta.id, %what, "a stored document is damaged");
        if published.damaged.replace(what).is_none() {
            journal.damaged.push(published.standing.doc);
            journal.bytes = journal.bytes.saturating_sub(published.bytes());
            if let Some(first) = published.rows.front() {
                journal.oldest.remove(&first.row);
            }
        }
    }

    /// Reads the journal, as it was left: on several threads if it is long.
    pub(super) fn load(directory: &Directory) -> Result<Self, rusqlite::Error> {
        let connection = directory.reading()?;
        let Some((first, last)) = ends(&connection)? else {
            return Ok(Self::empty());
        };
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let threads = i64::try_from(threads).unwrap_or(1);
        let piece = ((last - first) / threads.clamp(1, 8) + 1).max(ROWS_PER_THREAD);
        let pieces: Vec<_> = std::thread::scope(|scope| {
            let mut running = Vec::new();
            let mut from = first;
            while from <= last {
                let through = last.min(from + piece - 1);
                running.push(scope.spawn(move || read_piece(&directory.reading()?, from, through)));
                from = through + 1;
            }
            let ended = running.into_iter().map(std::thread::ScopedJoinHandle::join);
            // A thread panics only where this one would.
            ended
                .map(|read| read.unwrap_or(Err(rusqlite::Error::InvalidQuery)))
                .collect()
        });
        let pieces = pieces.into_iter().collect::<Result<Vec<_>, _>>()?;
        Self::of(&connection, (first, last), pieces)
    }

    /// Reads the journal as one connection sees it.
    pub(super) fn read(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let Some((first, last)) = ends(connection)? else {
            return Ok(Self::empty());
        };
        let piece = read_piece(connection, first, last)?;
        Self::of(connection, (first, last), vec![piece])
    }

    fn empty() -> Self {
        let index = Self::default();
        index.journal().first_row = 1;
        index
    }

    fn of(
        connection: &Connection,
        (first, last): (i64, i64),
        pieces: Vec<HashMap<i64, Rows>>,
    ) -> Result<Self, rusqlite::Error> {
        let index = Self::default();
        let mut by_doc = HashMap::new();
        for piece in pieces {
            for (doc, rows) in piece {
                let all: &mut Rows = by_doc.entry(doc).or_default();
                all.rows.extend(rows.rows);
                all.digest = rows.digest;
            }
        }
        let mut journal = Journal {
            first_row: first,
            last_row: last,
            ..Journal::default()
        };
        for (doc, rows) in by_doc {
            // Rows without a document are nobody's.
            let Some((id, standing)) = standing_of(connection, doc)? else {
                continue;
            };
            let published = with_rows(standing, rows);
            if published.damaged.is_some() {
                journal.damaged.push(doc);
            } else if let Some(first) = published.rows.front() {
                journal.oldest.insert(first.row, id.clone());
                journal.bytes += published.bytes();
            }
            if !published.rows.is_empty() || published.damaged.is_some() {
                index.insert(id, Arc::new(Mutex::new(published)));
            }
        }
        *index.journal() = journal;
        Ok(index)
    }
}

/// Rows of the journal that are worth a thread.
const ROWS_PER_THREAD: i64 = 50_000;

/// A document's rows of the journal, and the digest after the last.
#[derive(Debug, Default)]
struct Rows {
    rows: VecDeque<RowRef>,
    digest: Digest,
}

/// The first and the last row of the journal.
fn ends(connection: &Connection) -> Result<Option<(i64, i64)>, rusqlite::Error> {
    connection.query_row("SELECT min(row), max(row) FROM journal", [], |row| {
        Ok(row.get::<_, Option<i64>>(0)?.zip(row.get(1)?))
    })
}

fn read_piece(
    connection: &Connection,
    from: i64,
    through: i64,
) -> Result<HashMap<i64, Rows>, rusqlite::Error> {
    let mut by_doc: HashMap<i64, Rows> = HashMap::new();
    let mut statement = connection.prepare(
        "SELECT row, doc, seq, n, digest, length(changes) FROM journal
         WHERE row BETWEEN ?1 AND ?2 ORDER BY row",
    )?;
    let mut rows = statement.query([from, through])?;
    while let Some(row) = rows.next()? {
        let rows = by_doc.entry(row.get(1)?).or_default();
        rows.digest = Digest(unsigned(row.get(4)?));
        rows.rows.push_back(RowRef {
            row: row.get(0)?,
            seq: Seq(unsigned(row.get(2)?)),
            n: row.get(3)?,
            bytes: row.get(5)?,
        });
    }
    Ok(by_doc)
}

/// A document with what the journal has of it.
fn with_rows(standing: Standing, read: Rows) -> Published {
    let mut published = Published::new(standing);
    if published.standing.is_deleted {
        return published;
    }
    published.rows = read.rows;
    published.drop_rows(published.standing.folded);
    let Some(last) = published.rows.back() else {
        return published;
    };
    published.standing.meta.head = last.last();
    published.standing.meta.digest = read.digest;
    published.origins = None;
    let mut next = published.standing.folded.next();
    for row in &published.rows {
        // The first may have been folded, or dropped, in part.
        let follows = row.seq == next || (row.seq < next && next <= row.last());
        if !follows {
            published.damaged = Some(format!("changes are missing before sequence {}", row.seq));
            break;
        }
        next = row.last().next();
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
