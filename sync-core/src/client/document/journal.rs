//! What of a document has to be stored: gathered as it happens, taken after each turn (design 7).

use std::collections::VecDeque;

use bytes::Bytes;

use super::{DocumentState, Effect, Fresh, Turn};
use crate::client::event::RefusedChange;
use crate::client::outbox::Entry;
use crate::client::replica::Job;
use crate::client::store::{OutboxChange, StoreWrite, StoredDocument, StoredState};
use crate::ids::ChangeId;

/// Bytes of a stored tail below which it is not folded into a snapshot.
const TAIL_BYTES_MIN: usize = 256 * 1024;

/// Changes of what is stored since the last write.
#[derive(Debug, Clone, Default)]
pub(super) struct Journal {
    /// There is something to write.
    is_dirty: bool,
    snapshot: Option<Bytes>,
    imported: Vec<Bytes>,
    outbox_clear: Option<i64>,
    outbox_remove: Vec<ChangeId>,
    outbox_add: Vec<OutboxChange>,
    refused_add: Vec<RefusedChange>,
    refused_remove: Vec<ChangeId>,
    /// Bytes of the stored tail and of the stored snapshot.
    tail_bytes: usize,
    snapshot_bytes: usize,
    /// A snapshot that takes the tail's place is being made.
    is_folding: bool,
    /// Number of the last write taken, and of edits in it and before it that the store does not hold safely yet.
    written: u64,
    unstored: VecDeque<(u64, u64)>,
    /// Number of the last write that gives changes other ids.
    renamed_in: u64,
}

/// What a stretch of the log puts into the stored replica, once it is imported.
#[derive(Debug, Clone, Default)]
pub(super) struct Passed {
    /// The log's changes, own ones included.
    changes: Vec<Bytes>,
    /// Own changes that leave the outbox.
    own: Vec<ChangeId>,
    /// The server's snapshot, if it is that.
    snapshot: Option<Bytes>,
}

impl Passed {
    pub(super) fn change(&mut self, bytes: Bytes) {
        self.changes.push(bytes);
    }

    pub(super) fn own(&mut self, id: ChangeId) {
        self.own.push(id);
    }

    pub(super) const fn snapshot(bytes: Bytes) -> Self {
        Self {
            changes: Vec::new(),
            own: Vec::new(),
            snapshot: Some(bytes),
        }
    }

    pub(super) fn append(&mut self, mut later: Self) {
        self.changes.append(&mut later.changes);
        self.own.append(&mut later.own);
    }
}

impl DocumentState {
    pub(super) fn keep_edit(&mut self) {
        if self.keeps
            && let Some(entry) = self.outbox.last()
        {
            let change = entry.to_stored();
            self.journal.is_dirty = true;
            self.journal.outbox_add.push(change);
        }
    }

    /// The main replica has imported this, and the cursor has moved behind it.
    pub(super) fn keep_passed(&mut self, passed: Passed) {
        if !self.keeps {
            return;
        }
        if let Some(snapshot) = passed.snapshot {
            self.journal.set_snapshot(snapshot);
        }
        self.journal.is_dirty = true;
        self.journal.tail_bytes += passed.changes.iter().map(Bytes::len).sum::<usize>();
        self.journal.imported.extend(passed.changes);
        self.journal.outbox_remove.extend(passed.own);
    }

    /// The registry is known to hold more of the outbox.
    pub(super) const fn keep_acknowledged(&mut self) {
        if self.keeps {
            self.journal.is_dirty = true;
        }
    }

    /// The outbox has been rewritten: ids, order or content.
    pub(super) fn keep_outbox(&mut self) {
        if self.keeps {
            self.journal.is_dirty = true;
            self.journal.outbox_clear = Some(self.outbox.last_position());
            self.journal.outbox_remove.clear();
            let all = self.replaying.iter().chain(self.outbox.iter());
            self.journal.outbox_add = all.map(Entry::to_stored).collect();
        }
    }

    /// Changes of the outbox have other ids now. A process that starts from the old ones would push them a second time, so
    /// the new ones are not pushed before the store holds them.
    pub(super) fn keep_renamed(&mut self) {
        if self.keeps {
            self.keep_outbox();
            self.journal.renamed_in = self.journal.written + 1;
        }
    }

    /// Whether the store holds everything in the outbox under the ids that it has.
    pub(super) fn are_names_kept(&self) -> bool {
        self.journal.renamed_in <= self.writes().1
    }

    pub(super) fn keep_refused(&mut self, changes: &[RefusedChange]) {
        if self.keeps && !changes.is_empty() {
            self.journal.is_dirty = true;
            self.journal
                .outbox_remove
                .extend(changes.iter().map(|change| change.id));
            self.journal.refused_add.extend_from_slice(changes);
        }
    }

    pub(super) fn keep_unrefused(&mut self, id: ChangeId) {
        if self.keeps {
            self.journal.is_dirty = true;
            self.journal.refused_add.retain(|change| change.id != id);
            self.journal.refused_remove.push(id);
        }
    }

    /// The main replica is this now.
    pub(super) fn keep_snapshot(&mut self, snapshot: Option<Bytes>) {
        if let Some(snapshot) = snapshot.filter(|_| self.keeps) {
            self.journal.set_snapshot(snapshot);
        }
    }

    /// Asks for a snapshot in the place of a stored tail that has become longer than what it adds to.
    pub(super) fn fold_tail(&mut self, turn: &mut Turn) {
        let journal = &self.journal;
        let is_long = journal.tail_bytes > TAIL_BYTES_MIN.max(journal.snapshot_bytes);
        if self.keeps && is_long && !journal.is_folding {
            self.journal.is_folding = true;
            self.queue(Job::Snapshot, Effect::Snapshot, turn);
        }
    }

    pub(super) fn finish_fold(&mut self, snapshot: Option<Bytes>) {
        self.journal.is_folding = false;
        self.keep_snapshot(snapshot);
    }

    /// What is to be written, if anything, and the number of the write.
    pub(crate) fn take_write(&mut self) -> Option<(u64, StoreWrite)> {
        if !std::mem::take(&mut self.journal.is_dirty) {
            return None;
        }
        let state = StoredState {
            engine: self.engine.clone(),
            cursor: self.cursor,
            acknowledged: self.outbox.origins(),
            rebuild: self.fresh == Some(Fresh::Replace),
        };
        let journal = &mut self.journal;
        journal.written += 1;
        let edits = u64::try_from(journal.outbox_add.len()).unwrap_or(u64::MAX);
        journal.unstored.push_back((journal.written, edits));
        let write = StoreWrite {
            state,
            snapshot: journal.snapshot.take(),
            imported: std::mem::take(&mut journal.imported),
            outbox_clear: std::mem::take(&mut journal.outbox_clear),
            outbox_remove: std::mem::take(&mut journal.outbox_remove),
            outbox_add: std::mem::take(&mut journal.outbox_add),
            refused_add: std::mem::take(&mut journal.refused_add),
            refused_remove: std::mem::take(&mut journal.refused_remove),
        };
        Some((journal.written, write))
    }

    /// The store holds everything through this write.
    pub(crate) fn handle_stored(&mut self, number: u64) {
        self.journal.unstored.retain(|(write, _)| *write > number);
    }

    /// Edits that the store does not hold safely.
    pub(super) fn unsaved_locally(&self) -> u64 {
        if self.keeps {
            self.journal.unstored.iter().map(|(_, edits)| edits).sum()
        } else {
            self.unsaved()
        }
    }

    /// Number of the last write, and of the last one that the store holds safely, with everything before it.
    pub(crate) fn writes(&self) -> (u64, u64) {
        let last = self.journal.written;
        let safe = self
            .journal
            .unstored
            .front()
            .map_or(last, |(write, _)| write - 1);
        (last, safe)
    }

    /// Delivers the outbox without a replica, until the application opens the document.
    pub(crate) const fn set_headless(&mut self) {
        self.headless = true;
        self.closed = true;
    }

    /// Takes over what a store holds, before anything else has happened to the document.
    pub(crate) fn restore(&mut self, stored: StoredDocument) {
        self.journal.tail_bytes = stored.tail.iter().map(Bytes::len).sum();
        self.journal.snapshot_bytes = stored.snapshot.map_or(0, |snapshot| snapshot.len());
        let state = stored.state;
        self.cursor = state.cursor;
        self.refused = stored.refused;
        self.fresh = state.rebuild.then_some(Fresh::Replace);
        self.outbox.restore(stored.outbox, state.acknowledged);
    }
}

impl Journal {
    fn set_snapshot(&mut self, snapshot: Bytes) {
        self.is_dirty = true;
        self.snapshot_bytes = snapshot.len();
        self.tail_bytes = 0;
        self.snapshot = Some(snapshot);
        self.imported.clear();
    }
}
