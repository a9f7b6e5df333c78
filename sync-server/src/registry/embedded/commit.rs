//! Commits: the batch goes to the journal, to the disk, and before everybody's eyes.

use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::Ordering;

use rusqlite::{CachedStatement, Connection, ErrorCode};

use super::document::RowRef;
use super::index::lock;
use super::schema::signed;
use super::writer::{Engine, PAGE};
use crate::registry::RegistryError;

/// What is kept to stage other documents in.
const SPARE_MAX: usize = 1_000;

/// Rows that one statement writes: SQLite then looks for the end of the journal once for all of them.
const ROWS_AT_ONCE: usize = 16;

static INSERT_ONE: LazyLock<String> = LazyLock::new(|| insert(1));
static INSERT_MANY: LazyLock<String> = LazyLock::new(|| insert(ROWS_AT_ONCE));

fn insert(rows: usize) -> String {
    let values = vec!["(?, ?, ?, ?, ?, ?)"; rows];
    format!("INSERT INTO journal VALUES {}", values.join(", "))
}

/// A row to be written.
struct NewRow {
    reference: RowRef,
    doc: i64,
    digest: i64,
    /// Where it is in the buffer.
    changes: Range<usize>,
}

impl Engine {
    /// As [`BlockingRegistry::commit`](crate::registry::group_commit::BlockingRegistry::commit).
    pub(super) fn commit_batch(&mut self) -> Result<(), RegistryError> {
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
                return Err(if self.is_usable {
                    RegistryError::unavailable(error)
                } else {
                    RegistryError::unknown(error)
                });
            }
            self.in_transaction = false;
        }
        self.publish(rows);
        Ok(())
    }

    /// Writes the staged changes of all documents to the journal: a row for each document that has any, in the order of
    /// the batch.
    fn write_journal(&mut self) -> Result<Vec<Option<RowRef>>, RegistryError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let mut next_row = self.next_row;
        let mut written = Vec::with_capacity(self.batch.len());
        let mut rows = Vec::with_capacity(self.batch.len());
        for document in &self.batch {
            let document = lock(document);
            let start = buffer.len();
            let staged = document.staged.as_ref();
            let row = staged.and_then(|staged| {
                let reference = staged.encode(next_row, &mut buffer)?;
                next_row += 1;
                rows.push(NewRow {
                    reference,
                    doc: document.standing.doc,
                    digest: signed(staged.digest.0),
                    changes: start..buffer.len(),
                });
                Some(reference)
            });
            written.push(row);
        }
        if !rows.is_empty() {
            let bytes = u64::try_from(buffer.len()).unwrap_or(u64::MAX);
            self.pages += bytes / PAGE + 2;
            self.write(|connection| insert_rows(connection, &rows, &buffer))?;
        }
        self.next_row = next_row;
        self.buffer = buffer;
        Ok(written)
    }

    /// Shows readers what has been committed.
    fn publish(&mut self, rows: Vec<Option<RowRef>>) {
        let index = &self.shared.index;
        let mut journal = index.journal();
        for (document, row) in self.batch.drain(..).zip(rows) {
            let staged = lock(&document).publish(row, &mut journal);
            if self.spare.len() < SPARE_MAX {
                self.spare.extend(staged.filter(|staged| staged.is_small()));
            }
        }
        for (id, created) in self.created.drain() {
            index.introduce(id, created, &mut journal);
        }
        drop(journal);
        index
            .wal_pages
            .fetch_add(std::mem::take(&mut self.pages), Ordering::Relaxed);
    }

    /// Takes everything back that is staged.
    fn roll_back(&mut self) {
        for document in self.batch.drain(..) {
            lock(&document).roll_back();
        }
        self.created.clear();
        self.pages = 0;
        if self.in_transaction && !self.connection.is_autocommit() {
            self.is_usable &= self.connection.execute_batch("ROLLBACK").is_ok();
        }
        self.in_transaction = false;
        self.next_row = self.shared.index.journal().last_row + 1;
    }
}

fn insert_rows(
    connection: &Connection,
    rows: &[NewRow],
    buffer: &[u8],
) -> Result<(), rusqlite::Error> {
    let mut chunks = rows.chunks_exact(ROWS_AT_ONCE);
    if rows.len() >= ROWS_AT_ONCE {
        let mut many = connection.prepare_cached(&INSERT_MANY)?;
        for chunk in &mut chunks {
            insert_chunk(&mut many, chunk, buffer)?;
        }
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let mut one = connection.prepare_cached(&INSERT_ONE)?;
        for row in rest.chunks(1) {
            insert_chunk(&mut one, row, buffer)?;
        }
    }
    Ok(())
}

fn insert_chunk(
    statement: &mut CachedStatement<'_>,
    rows: &[NewRow],
    buffer: &[u8],
) -> Result<(), rusqlite::Error> {
    for (row, first) in rows.iter().zip((1_usize..).step_by(6)) {
        let RowRef {
            row: number,
            seq,
            n,
            ..
        } = row.reference;
        let changes = buffer.get(row.changes.clone()).unwrap_or_default();
        statement.raw_bind_parameter(first, number)?;
        statement.raw_bind_parameter(first + 1, row.doc)?;
        statement.raw_bind_parameter(first + 2, signed(seq.0))?;
        statement.raw_bind_parameter(first + 3, n)?;
        statement.raw_bind_parameter(first + 4, row.digest)?;
        statement.raw_bind_parameter(first + 5, changes)?;
    }
    statement.raw_execute()?;
    Ok(())
}
