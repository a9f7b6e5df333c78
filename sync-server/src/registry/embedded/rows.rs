//! Reads rows of a document, from the log and from the journal.

use rusqlite::{Connection, OptionalExtension, params};
use sync_core::history::{Digest, Seq};

use super::document::{Document, RowRef, Standing};
use super::row::{Entry, Stored, decode};
use super::schema::{failed, seq_column, unsigned};
use crate::registry::{RegistryError, StoredChange};

/// Rows of the journal that are looked at in one go: a copy of them is made under the document's lock.
const VIEW_ROWS: usize = 1024;

/// A document's rows as they were at some moment.
#[derive(Debug)]
pub(super) struct View {
    pub(super) standing: Standing,
    rows: Vec<RowRef>,
    /// How far `rows` go.
    through: Seq,
}

impl View {
    /// The first of the rows after a sequence.
    pub(super) fn new(document: &Document, after: Seq) -> Result<Self, RegistryError> {
        document.check()?;
        let rows: Vec<_> = document.rows_after(after).take(VIEW_ROWS).collect();
        let standing = document.standing.clone();
        let through = rows.last().map_or(standing.folded, |row| row.last());
        Ok(Self {
            standing,
            rows,
            through,
        })
    }

    /// A document without rows in the journal.
    pub(super) const fn folded(standing: Standing) -> Self {
        Self {
            rows: Vec::new(),
            through: standing.folded,
            standing,
        }
    }
}

/// Changes that follow on each other.
#[derive(Debug)]
pub(super) struct Page {
    next: Seq,
    room: usize,
    pub(super) entries: Vec<Entry>,
    is_full: bool,
}

/// Whether rows were where a view says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// All of them.
    All,
    /// All, and there are more than the view shows.
    More,
    /// No: the view is out of date, or they are lost.
    Missing,
}

impl Page {
    /// An empty page, for as many changes after a sequence as have at most `max_bytes` bytes together, but at least one
    /// if there are any.
    pub(super) const fn new(after: Seq, max_bytes: usize) -> Self {
        Self {
            next: after.next(),
            room: max_bytes,
            entries: Vec::new(),
            is_full: false,
        }
    }

    /// Everything through this has been read.
    pub(super) const fn through(&self) -> Seq {
        Seq(self.next.0.saturating_sub(1))
    }

    /// Goes on reading.
    pub(super) fn read(
        &mut self,
        connection: &Connection,
        view: &View,
    ) -> Result<Found, RegistryError> {
        if self.next <= view.standing.folded {
            self.read_log(connection, view)?;
            if !self.is_full && self.next <= view.standing.folded {
                return Ok(Found::Missing);
            }
        }
        for row in &view.rows {
            if self.is_full {
                break;
            }
            if row.last() < self.next {
                continue;
            }
            let Some(entries) = read_journal(connection, view.standing.doc, *row)? else {
                return Ok(Found::Missing);
            };
            self.take(entries)?;
        }
        Ok(
            if self.is_full || self.through() == view.standing.meta.head {
                Found::All
            } else if self.through() == view.through {
                Found::More
            } else {
                Found::Missing
            },
        )
    }

    fn take(&mut self, entries: Vec<Entry>) -> Result<(), RegistryError> {
        for entry in entries {
            if entry.change.seq < self.next {
                continue;
            }
            if entry.change.seq > self.next {
                // Found out by the caller: the page does not reach as far as it should.
                return Ok(());
            }
            if let Some(last) = self.entries.last()
                && last.change.digest != digest_before(&entry.change)
            {
                return Err(RegistryError::Damaged {
                    what: format!("the digest at sequence {}", last.change.seq),
                });
            }
            match self.room.checked_sub(entry.change.bytes.len()) {
                Some(left) => self.room = left,
                None if self.entries.is_empty() => self.room = 0,
                None => {
                    self.is_full = true;
                    return Ok(());
                }
            }
            self.next = self.next.next();
            self.entries.push(entry);
        }
        Ok(())
    }

    fn read_log(&mut self, connection: &Connection, view: &View) -> Result<(), RegistryError> {
        let mut statement = connection
            .prepare_cached(
                "SELECT seq, n, digest, changes FROM log WHERE doc = ?1 AND seq >= coalesce(
                 (SELECT max(seq) FROM log WHERE doc = ?1 AND seq <= ?2), ?2) ORDER BY seq",
            )
            .map_err(failed)?;
        let from = seq_column(self.next)?;
        let mut rows = statement
            .query(params![view.standing.doc, from])
            .map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            let stored = || -> Result<_, rusqlite::Error> {
                Ok(Stored {
                    seq: Seq(unsigned(row.get(0)?)),
                    n: row.get(1)?,
                    digest: Digest(unsigned(row.get(2)?)),
                    changes: row.get_ref(3)?.as_blob()?,
                })
            };
            let stored = stored().map_err(failed)?;
            // What is folded after the view was taken stands in the journal, for the view.
            if stored.seq > view.standing.folded {
                return Ok(());
            }
            let next = self.next;
            self.take(decode(stored)?)?;
            if self.is_full || self.next == next {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// The digest just before a change.
pub(super) fn digest_before(change: &StoredChange) -> Digest {
    let own = Digest::EMPTY.with(change.id.number, &change.bytes);
    Digest(change.digest.0.wrapping_sub(own.0))
}

/// A row of the journal; `None` if it is not there any more.
pub(super) fn read_journal(
    connection: &Connection,
    doc: i64,
    reference: RowRef,
) -> Result<Option<Vec<Entry>>, RegistryError> {
    let mut statement = connection
        .prepare_cached("SELECT doc, seq, n, digest, changes FROM journal WHERE row = ?1")
        .map_err(failed)?;
    let read = statement
        .query_row([reference.row], |row| {
            let found: (i64, u64, u32) = (row.get(0)?, unsigned(row.get(1)?), row.get(2)?);
            if found != (doc, reference.seq.0, reference.n) {
                return Ok(Ok(None));
            }
            let stored = Stored {
                seq: reference.seq,
                n: reference.n,
                digest: Digest(unsigned(row.get(3)?)),
                changes: row.get_ref(4)?.as_blob()?,
            };
            Ok(decode(stored).map(Some))
        })
        .optional()
        .map_err(failed)?;
    read.unwrap_or(Ok(None))
}

/// The last row of the log that begins before a sequence, for a search from the end.
pub(super) fn log_row_before(
    connection: &Connection,
    doc: i64,
    before: Seq,
) -> Result<Option<Vec<Entry>>, RegistryError> {
    let mut statement = connection
        .prepare_cached(
            "SELECT seq, n, digest, changes FROM log WHERE doc = ?1 AND seq < ?2
             ORDER BY seq DESC LIMIT 1",
        )
        .map_err(failed)?;
    let read = statement
        .query_row(params![doc, seq_column(before)?], |row| {
            Ok(decode(Stored {
                seq: Seq(unsigned(row.get(0)?)),
                n: row.get(1)?,
                digest: Digest(unsigned(row.get(2)?)),
                changes: row.get_ref(3)?.as_blob()?,
            }))
        })
        .optional()
        .map_err(failed)?;
    read.transpose()
}
