//! One document as it will be after the next commit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rusqlite::Connection;
use sync_core::history::Seq;
use sync_core::ids::{ChangeId, OriginId};

use super::index::{Published, RowRef, Standing, lock};
use super::origins;
use super::rows::{log_row_before, read_journal};
use crate::registry::rules::Log;
use crate::registry::{DocumentMeta, NewChange, OriginEntry, RegistryError, StoredChange};

/// One document as it will be after the next commit.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) standing: Standing,
    pub(super) published: Option<Arc<Mutex<Published>>>,
    /// Entries of the table that decides duplicates: those that have been asked for, and those that changes have changed.
    pub(super) origins: HashMap<OriginId, OriginEntry>,
    /// What of the table `origins` has.
    known: Known,
    /// Changes after the last commit's head.
    pub(super) changes: Vec<NewChange>,
    pub(super) is_staged: bool,
    /// More has changed than there are `changes`.
    pub(super) is_changed: bool,
    repeats: Option<Box<Repeats>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    /// Everything: another origin is not in the table.
    All,
    /// It has not been looked at.
    Unread,
    /// Too much to keep all of it.
    Some,
}

/// Where changes stand, once somebody has repeated one.
#[derive(Debug)]
struct Repeats {
    stands: HashMap<ChangeId, Seq>,
    /// Everything from here on is in `stands`.
    from: Seq,
    /// The bytes that the present call is compared with.
    bytes: HashMap<ChangeId, Bytes>,
}

impl Document {
    /// A document that is not in the database yet.
    pub(super) fn new(standing: Standing) -> Self {
        Self {
            standing,
            published: None,
            origins: HashMap::new(),
            known: Known::All,
            changes: Vec::new(),
            is_staged: false,
            is_changed: false,
            repeats: None,
        }
    }

    /// A document that is in the database, with the entries that its rows in the journal have changed.
    pub(super) fn loaded(
        standing: Standing,
        published: Option<Arc<Mutex<Published>>>,
        origins: HashMap<OriginId, OriginEntry>,
    ) -> Self {
        // Entries are written when rows are folded, or dropped.
        let known = if standing.folded == Seq::ZERO {
            Known::All
        } else {
            Known::Unread
        };
        Self {
            published,
            origins,
            known,
            ..Self::new(standing)
        }
    }

    /// Forgets what deletion forgets.
    pub(super) fn clear(&mut self) {
        self.changes.clear();
        self.origins.clear();
        self.repeats = None;
    }

    /// What was staged is committed.
    pub(super) fn settle(&mut self) {
        self.changes.clear();
        self.is_staged = false;
        self.is_changed = false;
        if let Some(repeats) = &mut self.repeats {
            repeats.bytes.clear();
        }
    }

    /// The sequence of the first staged change.
    pub(super) fn first_staged(&self) -> Seq {
        let staged = u64::try_from(self.changes.len()).unwrap_or(u64::MAX);
        Seq(self.standing.meta.head.0.saturating_sub(staged)).next()
    }

    /// Reads whatever the rules will ask for, so that nothing fails half-way.
    pub(super) fn prepare(
        &mut self,
        connection: &Connection,
        changes: &[NewChange],
    ) -> Result<(), RegistryError> {
        if self.known != Known::All {
            self.read_origins(connection, changes)?;
        }
        let is_repeat = |change: &&NewChange| {
            let entry = self.origins.get(&change.id.origin);
            entry.is_some_and(|entry| change.id.number <= entry.last)
        };
        let repeated: Vec<_> = changes
            .iter()
            .filter(is_repeat)
            .map(|change| change.id)
            .collect();
        if repeated.is_empty() && !repeats_itself(changes) {
            return Ok(());
        }
        let first = self.first_staged();
        let repeats = self.repeats.get_or_insert_with(|| {
            let staged = self.changes.iter().zip(0..);
            Box::new(Repeats {
                stands: staged
                    .map(|(change, offset)| (change.id, first.plus(offset)))
                    .collect(),
                from: first,
                bytes: HashMap::new(),
            })
        });
        let rows = Rows {
            connection,
            standing: &self.standing,
            published: self.published.as_ref(),
        };
        repeats.look_up(&rows, &repeated, first)
    }

    fn read_origins(
        &mut self,
        connection: &Connection,
        changes: &[NewChange],
    ) -> Result<(), RegistryError> {
        /// Entries that are kept, if there are no more: a row each to read, once.
        const ORIGINS: usize = 1_000;
        let doc = self.standing.doc;
        for change in changes {
            let origin = change.id.origin;
            if self.origins.contains_key(&origin) {
                continue;
            }
            if self.known == Known::Unread {
                let read = origins::read_some(connection, doc, ORIGINS + 1)?;
                self.known = if read.len() <= ORIGINS {
                    Known::All
                } else {
                    Known::Some
                };
                for entry in read {
                    // What is here already is newer.
                    self.origins.entry(entry.origin).or_insert(entry);
                }
            }
            if self.known == Known::Some
                && !self.origins.contains_key(&origin)
                && let Some(entry) = origins::find(connection, doc, origin)?
            {
                self.origins.insert(origin, entry);
            }
        }
        Ok(())
    }
}

/// Whether changes of one call may repeat one of it.
fn repeats_itself(changes: &[NewChange]) -> bool {
    let mut seen = HashMap::new();
    changes.len() > 1
        && changes.iter().any(|change| {
            seen.insert(change.id.origin, change.id.number)
                .is_some_and(|before| before >= change.id.number)
        })
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
        let entry = self
            .origins
            .entry(origin)
            .or_insert_with(|| OriginEntry::new(origin, change.user.clone(), 0, seq));
        entry.last = change.id.number;
        entry.seq = seq;
        if let Some(repeats) = &mut self.repeats {
            repeats.stands.insert(change.id, seq);
        }
        self.changes.push(change);
        seq
    }
}

impl Repeats {
    /// Finds where changes stand, and their bytes: backwards from the end, for what is repeated is mostly recent. What
    /// was read on the way is remembered, so that nobody makes the writer read all of it again and again.
    fn look_up(
        &mut self,
        rows: &Rows<'_>,
        repeated: &[ChangeId],
        first_staged: Seq,
    ) -> Result<(), RegistryError> {
        let log_start = rows.standing.meta.log_start;
        let mut read: Vec<StoredChange> = Vec::new();
        for id in repeated {
            while !self.stands.contains_key(id) && self.from > log_start.next() {
                read = rows.before(self.from)?;
                let stands = read.iter().map(|change| (change.id, change.seq));
                self.stands.extend(stands);
                self.from = read.first().map_or(Seq::ZERO, |change| change.seq);
            }
            let Some(seq) = self.stands.get(id).copied() else {
                continue;
            };
            if seq >= first_staged || seq <= log_start {
                continue;
            }
            if !read.iter().any(|change| change.seq == seq) {
                read = rows.before(seq.next())?;
            }
            if let Some(change) = read.iter().find(|change| change.seq == seq) {
                self.bytes.insert(*id, change.bytes.clone());
            }
        }
        Ok(())
    }
}

/// The committed rows of a document, from the end.
struct Rows<'a> {
    connection: &'a Connection,
    standing: &'a Standing,
    published: Option<&'a Arc<Mutex<Published>>>,
}

impl Rows<'_> {
    /// The changes of the row that ends, or is cut, just before a sequence.
    fn before(&self, before: Seq) -> Result<Vec<StoredChange>, RegistryError> {
        let doc = self.standing.doc;
        let last = Seq(before.0.saturating_sub(1));
        let entries = match self.in_journal(last) {
            Some(row) => read_journal(self.connection, doc, row)?,
            None => log_row_before(self.connection, doc, before)?,
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

    fn in_journal(&self, seq: Seq) -> Option<RowRef> {
        let published = lock(self.published?);
        let at = published.rows.partition_point(|row| row.last() < seq);
        published.rows.get(at).copied().filter(|row| row.seq <= seq)
    }
}
