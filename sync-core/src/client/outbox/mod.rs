//! Local changes that the server has not acknowledged, or that the stream has not passed: one sequence over all
//! origins, always sent from its front (design 2.2).

mod commit;
mod send;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

pub(crate) use self::commit::Standing;
use super::store::OutboxChange;
use crate::engine::Sealer;
use crate::ids::{ChangeId, OriginId};

/// One change of the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: ChangeId,
    pub(crate) bytes: Bytes,
    /// Counts this document's edits on this device; stays when the change is issued again under another id.
    pub(crate) ordinal: u64,
    /// Place in a store; ascending.
    pub(crate) position: i64,
    /// Whether the change ends a reconciliation.
    pub(crate) reconciling: bool,
}

/// ```text
///  entries: │ covered │ committed │ in flight │ queued │
///           0         covered     committed   sent     len
/// ```
///
/// Changes are sent and committed in order, so each state is a stretch of the sequence.
#[derive(Debug, Clone)]
pub(crate) struct Outbox {
    entries: VecDeque<Entry>,
    /// Committed before the last open: the stream passes them before it reaches the head told there.
    covered: usize,
    /// The registry has them; the stream has not passed them, so an `Ack` may still need their bytes.
    committed: usize,
    /// Sent on this connection, or committed.
    sent: usize,
    /// What is between `committed` and `sent` counts for in the push window.
    in_flight_charge: usize,
    /// Per origin, the number through which it is known committed.
    acknowledged: BTreeMap<OriginId, u64>,
    /// Seals each change for its id. Without one, changes stay as they come.
    sealer: Option<Arc<dyn Sealer>>,
    origin: OriginId,
    next_number: u64,
    next_ordinal: u64,
    next_position: i64,
}

/// Distance between places in a store, so that something can be put in between.
const POSITION_STEP: i64 = 1 << 16;

impl Entry {
    pub(crate) fn to_stored(&self) -> OutboxChange {
        OutboxChange::new(self.id, self.position, self.bytes.clone(), self.reconciling)
    }
}

impl Outbox {
    pub(crate) const fn new(origin: OriginId) -> Self {
        Self {
            entries: VecDeque::new(),
            covered: 0,
            committed: 0,
            sent: 0,
            in_flight_charge: 0,
            acknowledged: BTreeMap::new(),
            sealer: None,
            origin,
            next_number: 1,
            next_ordinal: 1,
            next_position: POSITION_STEP,
        }
    }

    /// Appends a local change under the current origin.
    pub(crate) fn push(&mut self, bytes: Bytes) -> ChangeId {
        let ordinal = self.take_ordinal();
        self.push_with(bytes, ordinal)
    }

    fn push_with(&mut self, bytes: Bytes, ordinal: u64) -> ChangeId {
        let id = self.take_id();
        let bytes = self.sealed(id, bytes);
        let position = self.next_position;
        self.next_position = position.saturating_add(POSITION_STEP);
        self.entries.push_back(Entry {
            id,
            bytes,
            ordinal,
            position,
            reconciling: false,
        });
        id
    }

    /// Seals changes from here on.
    pub(crate) fn set_sealer(&mut self, sealer: Arc<dyn Sealer>) {
        self.sealer = Some(sealer);
    }

    /// Whether everything pending is sealed as the sealer would seal it now.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealer
            .as_ref()
            .is_none_or(|sealer| self.pending().all(|entry| sealer.is_current(&entry.bytes)))
    }

    /// Seals everything pending anew, under `origin`, which new changes then use too. What had arrived unnoticed arrives
    /// twice, which is harmless.
    pub(crate) fn reseal(&mut self, origin: OriginId) {
        self.requeue();
        self.restart(origin);
        let pending = self.entries.split_off(self.committed);
        for mut entry in pending {
            entry.id = self.take_id();
            entry.bytes = self.sealed(entry.id, entry.bytes);
            self.entries.push_back(entry);
        }
    }

    fn sealed(&self, id: ChangeId, bytes: Bytes) -> Bytes {
        match &self.sealer {
            Some(sealer) => sealer.seal(id, &bytes),
            None => bytes,
        }
    }

    /// The newest change.
    pub(crate) fn last(&self) -> Option<&Entry> {
        self.entries.back()
    }

    /// All changes, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Puts stored changes into an empty outbox. They keep their ids; new ones are of this process's origin.
    pub(crate) fn restore(
        &mut self,
        changes: impl IntoIterator<Item = OutboxChange>,
        acknowledged: impl IntoIterator<Item = (OriginId, u64)>,
    ) {
        for change in changes {
            let ordinal = self.take_ordinal();
            let above = change.position.saturating_add(POSITION_STEP);
            self.next_position = self.next_position.max(above);
            self.entries.push_back(Entry {
                id: change.id,
                bytes: change.bytes,
                ordinal,
                position: change.position,
                reconciling: change.reconciling,
            });
        }
        self.acknowledged.extend(acknowledged);
        let is_known = |entry: &&Entry| entry.id.number <= self.acknowledged_of(entry.id.origin);
        self.committed = self.entries.iter().take_while(is_known).count();
        self.sent = self.committed;
    }

    const fn take_ordinal(&mut self) -> u64 {
        let ordinal = self.next_ordinal;
        self.next_ordinal += 1;
        ordinal
    }

    const fn take_id(&mut self) -> ChangeId {
        let number = self.next_number;
        self.next_number += 1;
        ChangeId {
            origin: self.origin,
            number,
        }
    }

    /// Puts what reconciliation found lacking in front of everything pending, under an origin of its own.
    pub(crate) fn push_front_reconciling(&mut self, bytes: Bytes, origin: OriginId) {
        self.requeue();
        let ordinal = self.take_ordinal();
        let behind = self.entries.get(self.committed).map(|entry| entry.position);
        let id = ChangeId { origin, number: 1 };
        let bytes = self.sealed(id, bytes);
        let entry = Entry {
            id,
            bytes,
            ordinal,
            position: behind.unwrap_or(self.next_position).saturating_sub(1),
            reconciling: true,
        };
        self.entries.insert(self.committed, entry);
    }

    /// Issues everything pending again, in order, same bytes (unless they are sealed for their ids), under `origin`, which
    /// new changes then use too (design 2.1).
    pub(crate) fn reissue(&mut self, origin: OriginId) {
        self.restart(origin);
        let mut entries = std::mem::take(&mut self.entries);
        for entry in &mut entries {
            entry.id = self.take_id();
            entry.bytes = self.sealed(entry.id, std::mem::take(&mut entry.bytes));
        }
        self.entries = entries;
        self.set_committed(0);
    }

    /// New changes use `origin` from here on.
    pub(crate) const fn restart(&mut self, origin: OriginId) {
        self.origin = origin;
        self.next_number = 1;
    }

    /// Puts changes that were taken out back, under the current origin.
    pub(crate) fn replay(&mut self, entries: impl IntoIterator<Item = Entry>) {
        for entry in entries {
            self.push_with(entry.bytes, entry.ordinal);
        }
    }

    /// Every origin in the outbox, and the current one if it has been used, with the number through which each is known
    /// committed.
    pub(crate) fn origins(&self) -> Vec<(OriginId, u64)> {
        let mut origins: Vec<(OriginId, u64)> = Vec::new();
        for entry in &self.entries {
            // An origin's changes are one run, but for what was put in front of others.
            if origins
                .last()
                .is_none_or(|(last, _)| *last != entry.id.origin)
                && !origins.iter().any(|(origin, _)| *origin == entry.id.origin)
            {
                // What comes before an origin's first change here has left because it was committed, whether or not a
                // store still knows: numbers have no holes.
                let passed = entry.id.number.saturating_sub(1);
                let known = self.acknowledged_of(entry.id.origin).max(passed);
                origins.push((entry.id.origin, known));
            }
        }
        // New changes go on with this one: a registry that has forgotten it must say so before they are pushed.
        let used = self.next_number - 1;
        if used > 0 && !origins.iter().any(|(origin, _)| *origin == self.origin) {
            origins.push((self.origin, used));
        }
        origins
    }

    fn acknowledged_of(&self, origin: OriginId) -> u64 {
        self.acknowledged.get(&origin).copied().unwrap_or(0)
    }

    /// Ordinal of the newest edit that is pending.
    pub(crate) fn last_pending(&self) -> Option<u64> {
        self.pending().last().map(|entry| entry.ordinal)
    }

    /// Bytes of everything that is pending, oldest first.
    pub(crate) fn pending_bytes(&self) -> Vec<Bytes> {
        self.pending().map(|entry| entry.bytes.clone()).collect()
    }

    /// Bytes of everything in the outbox, oldest first.
    pub(crate) fn bytes(&self) -> Vec<Bytes> {
        self.entries
            .iter()
            .map(|entry| entry.bytes.clone())
            .collect()
    }

    /// Changes that the registry is not known to have.
    pub(crate) fn pending(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().skip(self.committed)
    }

    pub(crate) fn pending_count(&self) -> usize {
        self.entries.len() - self.committed
    }

    /// No change has had a place in a store behind this one so far; every new edit gets one.
    pub(crate) const fn last_position(&self) -> i64 {
        self.next_position - 1
    }

    /// Ordinal of the newest edit, pending or not; 0 before the first.
    pub(crate) const fn last_ordinal(&self) -> u64 {
        self.next_ordinal - 1
    }
}
