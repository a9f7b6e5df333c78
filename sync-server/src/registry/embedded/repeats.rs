//! Where changes stand that somebody repeats.

use std::collections::HashMap;

use bytes::Bytes;
use rusqlite::Connection;
use sync_core::history::Seq;
use sync_core::ids::ChangeId;

use super::document::{Document, RowRef};
use super::rows::{log_row_before, read_journal};
use super::staged::Staged;
use crate::registry::{RegistryError, StoredChange};

/// Where changes of a document stand, once somebody has repeated one.
#[derive(Debug)]
pub(super) struct Repeats {
    stands: HashMap<ChangeId, Seq>,
    /// Everything from here on is in `stands`.
    from: Seq,
    /// The bytes that the present call is compared with.
    bytes: HashMap<ChangeId, Bytes>,
}

impl Repeats {
    /// Knows what is staged, and nothing else yet.
    pub(super) fn after(staged: &Staged) -> Self {
        let from = staged.first();
        let changes = staged.changes.iter().zip(0..);
        Self {
            stands: changes
                .map(|(change, offset)| (change.id, from.plus(offset)))
                .collect(),
            from,
            bytes: HashMap::new(),
        }
    }

    /// Where a change stands, if that has been looked up.
    pub(super) fn stands(&self, id: ChangeId) -> Option<Seq> {
        self.stands.get(&id).copied()
    }

    /// A committed change's bytes, if they have been looked up.
    pub(super) fn bytes(&self, id: ChangeId) -> Option<&Bytes> {
        self.bytes.get(&id)
    }

    /// Notes a change that has been staged.
    pub(super) fn note(&mut self, id: ChangeId, seq: Seq) {
        self.stands.insert(id, seq);
    }

    /// What was staged is committed.
    pub(super) fn settle(&mut self) {
        self.bytes.clear();
    }

    /// Finds where changes stand, and their bytes: backwards from the end, for what is repeated is mostly recent. What
    /// was read on the way is remembered, so that nobody makes the writer read all of it again and again.
    pub(super) fn look_up(
        &mut self,
        rows: &Rows<'_>,
        repeated: &[ChangeId],
        first_staged: Seq,
    ) -> Result<(), RegistryError> {
        let log_start = rows.log_start;
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
pub(super) struct Rows<'a> {
    pub(super) connection: &'a Connection,
    pub(super) document: &'a Document,
    pub(super) log_start: Seq,
}

impl Rows<'_> {
    /// The changes of the row that ends, or is cut, just before a sequence.
    fn before(&self, before: Seq) -> Result<Vec<StoredChange>, RegistryError> {
        let doc = self.document.standing.doc;
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
        let rows = &self.document.rows;
        let at = rows.partition_point(|row| row.last() < seq);
        rows.get(at).copied().filter(|row| row.seq <= seq)
    }
}
