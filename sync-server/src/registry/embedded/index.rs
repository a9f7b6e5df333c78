//! The documents that are kept in memory: those with rows in the journal, and others that were written to lately.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rusqlite::Connection;
use sync_core::history::{Digest, Seq};
use sync_core::ids::DocumentId;

use super::document::{Document, Known, RowRef, Standing};
use super::schema::{Directory, unsigned};
use super::standing::standing_of;

/// A document that is in here is as it says; one that is not has no rows in the journal and is as the database says.
#[derive(Debug, Default)]
pub(super) struct Index {
    documents: RwLock<HashMap<DocumentId, Arc<Mutex<Document>>>>,
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

impl Index {
    pub(super) fn get(&self, document: &DocumentId) -> Option<Arc<Mutex<Document>>> {
        self.documents
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(document)
            .cloned()
    }

    pub(super) fn insert(&self, id: DocumentId, document: Arc<Mutex<Document>>) {
        self.documents
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, document);
    }

    /// Forgets documents that are as the database says, if there are more than so many. The writer's to call.
    pub(super) fn forget_idle(&self, documents_max: usize) {
        let in_journal = self.journal().oldest.len();
        let mut documents = self
            .documents
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if documents.len() <= in_journal + documents_max {
            return;
        }
        documents.retain(|_, document| {
            let document = lock(document);
            document.staged.is_some() || !document.rows.is_empty() || document.damaged.is_some()
        });
    }

    pub(super) fn journal(&self) -> MutexGuard<'_, Journal> {
        lock(&self.journal)
    }

    /// Refuses a document from now on, unless it has been replaced.
    pub(super) fn refuse(&self, found: &Arc<Mutex<Document>>, what: String) {
        let id = lock(found).standing.meta.id.clone();
        // Nothing is replaced while this is locked.
        let mut journal = self.journal();
        let present = self.get(&id);
        if !present.is_some_and(|present| Arc::ptr_eq(&present, found)) {
            return;
        }
        let mut document = lock(found);
        tracing::error!(document = %id, %what, "a stored document is damaged");
        if document.damaged.replace(what).is_none() {
            journal.damaged.push(document.standing.doc);
            journal.bytes = journal.bytes.saturating_sub(document.bytes());
            if let Some(first) = document.rows.front() {
                journal.oldest.remove(&first.row);
            }
        }
    }

    /// Shows a document that is new, perhaps in the place of another one.
    pub(super) fn introduce(
        &self,
        id: DocumentId,
        document: Arc<Mutex<Document>>,
        journal: &mut Journal,
    ) {
        if let Some(replaced) = self.get(&id) {
            lock(&replaced).leave(journal);
        }
        self.insert(id, document);
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
fn with_rows(standing: Standing, read: Rows) -> Document {
    let mut document = Document::new(standing);
    if document.standing.is_deleted {
        return document;
    }
    document.rows = read.rows;
    document.drop_rows(document.standing.folded);
    let Some(last) = document.rows.back() else {
        return document;
    };
    document.standing.meta.head = last.last();
    document.standing.meta.digest = read.digest;
    document.known = Known::Nothing;
    let mut next = document.standing.folded.next();
    for row in &document.rows {
        // The first may have been folded, or dropped, in part.
        let follows = row.seq == next || (row.seq < next && next <= row.last());
        if !follows {
            document.damaged = Some(format!("changes are missing before sequence {}", row.seq));
            break;
        }
        next = row.last().next();
    }
    document
}

/// What the locks here guard is whole whenever they are let go: nothing that can fail comes between.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
