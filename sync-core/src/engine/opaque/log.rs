//! The list that an opaque document is, as the application sees it.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::format::{Base, Entry, State};
use crate::mergeable::{Dot, VersionVector};

/// What a list did with something, from the least to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Taken {
    /// It was there.
    Nothing,
    /// It was pending, and has its place now.
    Moved,
    New,
}

impl Taken {
    pub(super) const fn new_if(is_new: bool) -> Self {
        if is_new { Self::New } else { Self::Nothing }
    }
}

/// The content of an opaque document: read it front to back, snapshots, changes, pending ones.
#[derive(Debug, Clone, Default)]
pub struct OpaqueLog {
    pub(super) bases: Vec<Base>,
    pub(super) changes: Vec<Entry>,
    pub(super) pending: VecDeque<Entry>,
    /// Those of `pending`.
    pending_dots: BTreeSet<Dot>,
    /// Every change that is in `bases` or `changes`.
    pub(super) seen: VersionVector,
}

impl OpaqueLog {
    /// What stands for the changes before the first of [`changes`](Self::changes): usually one snapshot, or none
    /// ([`Opaque::fold`](super::Opaque::fold) says when there are more).
    pub fn snapshots(&self) -> impl Iterator<Item = &Bytes> {
        self.bases.iter().map(|base| &base.bytes)
    }

    /// The changes after the snapshots, in the order of the server's log.
    pub fn changes(&self) -> impl Iterator<Item = &Bytes> {
        self.changes.iter().map(|entry| &entry.bytes)
    }

    /// Changes made here that are not in the server's log yet, oldest first. Others may come in before them.
    pub fn pending(&self) -> impl Iterator<Item = &Bytes> {
        self.pending.iter().map(|entry| &entry.bytes)
    }

    /// Appends a change of the log, unless it is there.
    pub(super) fn append(&mut self, entry: Entry) -> Taken {
        if self.seen.contains(entry.dot) {
            return Taken::Nothing;
        }
        self.seen.insert(entry.dot);
        let was_pending = self.forget_pending(entry.dot);
        self.changes.push(entry);
        if was_pending {
            Taken::Moved
        } else {
            Taken::New
        }
    }

    /// Puts back what waits in the outbox. Whether it was not there.
    pub(super) fn append_pending(&mut self, entry: Entry) -> bool {
        if self.seen.contains(entry.dot) || !self.pending_dots.insert(entry.dot) {
            return false;
        }
        self.pending.push_back(entry);
        true
    }

    /// Takes a snapshot that stands for changes of which some are not here. Whether it did.
    pub(super) fn take_base(&mut self, base: Base) -> bool {
        if self.seen.covers(&base.covers) {
            return false;
        }
        self.bases.retain(|ours| !base.covers.covers(&ours.covers));
        self.changes
            .retain(|entry| !base.covers.contains(entry.dot));
        self.pending
            .retain(|entry| !base.covers.contains(entry.dot));
        self.pending_dots.retain(|dot| !base.covers.contains(*dot));
        self.seen.union(&base.covers);
        self.bases.push(base);
        true
    }

    /// Puts the changes of a log into its order; those that are not in it follow. Whether that changed anything.
    pub(super) fn take_order(&mut self, log: State) -> bool {
        let mut is_changed = false;
        for base in log.bases {
            is_changed |= self.take_base(base);
        }
        let mut listed = VersionVector::new();
        let ours = std::mem::take(&mut self.changes);
        let before: Vec<Dot> = ours.iter().map(|entry| entry.dot).collect();
        for entry in log.changes {
            let is_covered = self
                .bases
                .iter()
                .any(|base| base.covers.contains(entry.dot));
            if !is_covered && !listed.contains(entry.dot) {
                listed.insert(entry.dot);
                self.seen.insert(entry.dot);
                self.forget_pending(entry.dot);
                self.changes.push(entry);
            }
        }
        let rest = ours.into_iter().filter(|entry| !listed.contains(entry.dot));
        self.changes.extend(rest);
        for entry in log.pending {
            is_changed |= self.append_pending(entry);
        }
        let after = self.changes.iter().map(|entry| entry.dot);
        is_changed || !after.eq(before)
    }

    /// The log has it. It brings pending changes back from the front on.
    fn forget_pending(&mut self, dot: Dot) -> bool {
        let was_pending = self.pending_dots.remove(&dot);
        if was_pending && let Some(at) = self.pending.iter().position(|entry| entry.dot == dot) {
            self.pending.remove(at);
        }
        was_pending
    }
}

/// What an edit of an opaque document is lent.
#[derive(Debug)]
pub struct OpaqueEdit<'a> {
    log: &'a OpaqueLog,
    pushed: Vec<Bytes>,
}

impl<'a> OpaqueEdit<'a> {
    pub(super) const fn new(log: &'a OpaqueLog) -> Self {
        Self {
            log,
            pushed: Vec::new(),
        }
    }

    /// Appends bytes to the log.
    pub fn push(&mut self, bytes: impl Into<Bytes>) {
        self.pushed.push(bytes.into());
    }

    /// The content, without what has been pushed in this edit.
    #[must_use]
    pub const fn log(&self) -> &OpaqueLog {
        self.log
    }

    pub(super) fn into_pushed(self) -> Vec<Bytes> {
        self.pushed
    }
}
