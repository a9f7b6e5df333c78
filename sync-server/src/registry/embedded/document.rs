//! One document: what is committed, for everybody, and what is staged, for the writer.

use std::collections::VecDeque;

use sync_core::history::{Digest, Seq};

use super::entries::Entries;
use super::index::Journal;
use super::repeats::Repeats;
use super::staged::Staged;
use crate::registry::{DocumentMeta, RegistryError};

/// A document as far as it is kept in memory.
///
/// The writer stages under the same lock under which others read, but touches nothing that they read before the commit.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) standing: Standing,
    /// Its rows in the journal, those after `standing.folded`, contiguous.
    pub(super) rows: VecDeque<RowRef>,
    /// Entries of the origin table as of the last commit; `known` says which.
    pub(super) origins: Entries,
    pub(super) known: Known,
    /// Why the document is refused, if it is.
    pub(super) damaged: Option<String>,
    /// What the next commit adds: the writer's alone.
    pub(super) staged: Option<Box<Staged>>,
    /// Where changes stand, once somebody has repeated one: the writer's alone.
    pub(super) repeats: Option<Box<Repeats>>,
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

/// Which entries of the origin table are in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// None yet, although rows in the journal have changed some.
    Nothing,
    /// Those at least that rows in the journal have changed.
    Journal,
    /// These, and what has been asked for: there are too many to keep them all.
    Some,
    /// Everything: another origin is not in the table.
    All,
}

impl Known {
    /// What is known of a document once the entries are that its rows in the journal have changed.
    fn of_journal(standing: &Standing) -> Self {
        // Entries are written when rows are folded, or dropped.
        if standing.folded == Seq::ZERO {
            Self::All
        } else {
            Self::Journal
        }
    }
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

    /// What it takes to store its changes after a sequence, if all of them take the same.
    pub(super) fn bytes_after(self, after: Seq) -> u64 {
        let n = u64::from(self.n.max(1));
        let newer = self.last().0.saturating_sub(after.0).min(n);
        u64::from(self.bytes) * newer / n
    }
}

impl Document {
    /// A document without rows in the journal.
    pub(super) fn new(standing: Standing) -> Self {
        Self {
            known: Known::of_journal(&standing),
            standing,
            rows: VecDeque::new(),
            origins: Entries::default(),
            damaged: None,
            staged: None,
            repeats: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), RegistryError> {
        match &self.damaged {
            None => Ok(()),
            Some(what) => Err(RegistryError::Damaged { what: what.clone() }),
        }
    }

    /// As it will stand after the next commit, but for the head and its digest.
    pub(super) fn next(&self) -> &Standing {
        let staged = self.staged.as_ref();
        staged
            .and_then(|staged| staged.changed.as_ref())
            .unwrap_or(&self.standing)
    }

    /// As it will stand after the next commit.
    pub(super) fn upcoming(&self) -> Standing {
        let mut standing = self.next().clone();
        if let Some(staged) = &self.staged {
            standing.meta.head = staged.head;
            standing.meta.digest = staged.digest;
        }
        standing
    }

    /// Takes the entries that its rows in the journal have changed.
    pub(super) fn learn(&mut self, origins: Entries) {
        self.origins = origins;
        self.known = Known::of_journal(&self.standing);
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

    /// Shows everybody what was staged, and has been committed with this row. Returns what it was staged in, for another.
    pub(super) fn publish(
        &mut self,
        row: Option<RowRef>,
        journal: &mut Journal,
    ) -> Option<Box<Staged>> {
        let mut staged = self.staged.take()?;
        let before = self.rows.front().map(|row| row.row);
        if let Some(standing) = staged.changed.take() {
            self.standing = standing;
            let through = if self.standing.is_deleted {
                self.origins = Entries::default();
                self.repeats = None;
                Seq(u64::MAX)
            } else {
                self.standing.folded
            };
            journal.bytes = journal.bytes.saturating_sub(self.drop_rows(through));
            for origin in staged.evicted.drain(..) {
                self.origins.forget(origin, self.standing.meta.log_start);
            }
        }
        self.standing.meta.head = staged.head;
        self.standing.meta.digest = staged.digest;
        for entry in staged.origins.iter() {
            self.origins
                .advance(entry.origin, &entry.user, entry.last, entry.seq);
        }
        if let Some(row) = row {
            journal.bytes += u64::from(row.bytes);
            journal.last_row = row.row;
            self.rows.push_back(row);
        }
        let after = self.rows.front().map(|row| row.row);
        if before != after {
            if let Some(before) = before {
                journal.oldest.remove(&before);
            }
            if let Some(after) = after {
                let id = self.standing.meta.id.clone();
                journal.oldest.insert(after, id);
            }
        }
        if let Some(repeats) = &mut self.repeats {
            repeats.settle();
        }
        staged.clear();
        Some(staged)
    }

    /// Takes its rows out of the account: a new history has its place.
    pub(super) fn leave(&self, journal: &mut Journal) {
        if self.damaged.is_some() {
            // Its rows were taken out when that was noticed.
            let doc = self.standing.doc;
            journal.damaged.retain(|damaged| *damaged != doc);
            return;
        }
        journal.bytes = journal.bytes.saturating_sub(self.bytes());
        if let Some(first) = self.rows.front() {
            journal.oldest.remove(&first.row);
        }
    }

    /// Takes back what is staged.
    pub(super) fn roll_back(&mut self) {
        self.staged = None;
        // It may have what was staged.
        self.repeats = None;
    }
}
