//! Local changes that the server has not acknowledged, or that the stream has not passed: one sequence over all
//! origins, always sent from its front (design 2.2).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::store::OutboxChange;
use crate::engine::Sealer;
use crate::ids::{ChangeId, OriginId};
use crate::limits::change_charge;

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

/// What [`Outbox::reconcile_with`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Known,
    /// The registry knows less than it once acknowledged: what is pending must be issued again.
    Forgotten,
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

    /// Compares with the registry's last numbers at an open: drops nothing yet, marks what is covered, and queues the rest
    /// for sending.
    pub(crate) fn reconcile_with(&mut self, last: &[(OriginId, u64)]) -> Standing {
        let known = self.origins();
        let forgot = |(origin, number): &(OriginId, u64)| {
            let known = known.iter().find(|(there, _)| there == origin);
            known.is_some_and(|(_, known)| number < known)
        };
        if last.iter().any(forgot) {
            return Standing::Forgotten;
        }
        self.acknowledged.extend(last.iter().copied());
        let covers = |entry: &&Entry| {
            last.iter()
                .any(|(origin, number)| *origin == entry.id.origin && entry.id.number <= *number)
        };
        let covered = self.entries.iter().take_while(covers).count();
        self.set_committed(covered);
        Standing::Known
    }

    /// This many are covered, and nothing is in flight.
    const fn set_committed(&mut self, covered: usize) {
        self.covered = covered;
        self.committed = covered;
        self.sent = covered;
        self.in_flight_charge = 0;
    }

    /// The stream passed this change of ours. Whether it was here.
    pub(crate) fn pass(&mut self, id: ChangeId) -> bool {
        let Some(index) = self.entries.iter().position(|entry| entry.id == id) else {
            return false;
        };
        self.note_committed(id);
        self.take(index, index + 1);
        true
    }

    fn note_committed(&mut self, id: ChangeId) {
        let last = self.acknowledged.entry(id.origin).or_insert(0);
        *last = (*last).max(id.number);
    }

    /// The registry has this change of ours, and everything before it.
    pub(crate) fn commit_own(&mut self, id: ChangeId) {
        if let Some(index) = self.entries.iter().position(|entry| entry.id == id) {
            self.commit(index + 1);
        }
    }

    /// As [`pass_front`](Self::pass_front), of what is not known committed; the changes stay, as committed ones.
    pub(crate) fn commit_front(&mut self, number: u64, count: u64) -> Option<Vec<Entry>> {
        let count = usize::try_from(count).ok()?;
        let is_first = |entry: &Entry| entry.id.number == number;
        let start = match self.entries.get(self.committed) {
            Some(entry) if is_first(entry) => self.committed,
            // Told to be a repeat before.
            _ => self.entries.iter().position(is_first)?,
        };
        let run: Vec<Entry> = self.entries.range(start..).take(count).cloned().collect();
        let origin = run.first()?.id.origin;
        let is_run = run.len() == count
            && run
                .iter()
                .zip(number..)
                .all(|(entry, number)| entry.id == ChangeId { origin, number });
        if !is_run {
            return None;
        }
        self.commit(start + count);
        Some(run)
    }

    /// Takes `count` changes of one origin from the front, if they are there and start with `number`.
    pub(crate) fn pass_front(&mut self, number: u64, count: u64) -> Option<Vec<Entry>> {
        let count = usize::try_from(count).ok()?;
        let origin = self.entries.front()?.id.origin;
        if self.entries.len() < count {
            return None;
        }
        let is_run = self
            .entries
            .iter()
            .take(count)
            .zip(number..)
            .all(|(entry, number)| entry.id == ChangeId { origin, number });
        if !is_run {
            return None;
        }
        let passed = self.take(0, count);
        if let Some(last) = passed.last() {
            self.note_committed(last.id);
        }
        Some(passed)
    }

    /// Takes out the changes from `start` to before `end`.
    fn take(&mut self, start: usize, end: usize) -> Vec<Entry> {
        let in_flight =
            self.committed.max(start)..self.sent.min(end).max(self.committed.max(start));
        let charge: usize = self
            .entries
            .range(in_flight)
            .map(|entry| change_charge(&entry.bytes))
            .sum();
        self.in_flight_charge = self.in_flight_charge.saturating_sub(charge);
        for boundary in [&mut self.covered, &mut self.committed, &mut self.sent] {
            *boundary -= (*boundary).min(end).saturating_sub(start);
        }
        self.entries.drain(start..end).collect()
    }

    /// Everything of the front's origin through `number` is committed.
    pub(crate) fn commit_front_through(&mut self, number: u64) {
        if let Some(origin) = self
            .entries
            .get(self.committed)
            .map(|entry| entry.id.origin)
        {
            let is_covered =
                |entry: &&Entry| entry.id.origin == origin && entry.id.number <= number;
            let count = self.pending().take_while(is_covered).count();
            self.commit(self.committed + count);
        }
    }

    /// Everything before this change is committed.
    pub(crate) fn commit_before(&mut self, id: ChangeId) {
        if let Some(index) = self.entries.iter().position(|entry| entry.id == id) {
            self.commit(index);
        }
    }

    /// Everything before this index is committed.
    fn commit(&mut self, end: usize) {
        while self.committed < end {
            let Some(entry) = self.entries.get(self.committed) else {
                return;
            };
            let (id, charge) = (entry.id, change_charge(&entry.bytes));
            if self.committed < self.sent {
                self.in_flight_charge = self.in_flight_charge.saturating_sub(charge);
            }
            self.committed += 1;
            self.sent = self.sent.max(self.committed);
            self.note_committed(id);
        }
    }

    /// Takes out the changes that were committed before the last open: the stream has reached the head told there.
    pub(crate) fn take_covered(&mut self) -> Vec<Entry> {
        self.take(0, self.covered)
    }

    /// Takes out this change and everything behind it.
    pub(crate) fn take_from(&mut self, id: ChangeId) -> Vec<Entry> {
        match self.entries.iter().position(|entry| entry.id == id) {
            Some(index) => self.take(index, self.entries.len()),
            None => Vec::new(),
        }
    }

    /// Takes out everything that is not known committed and stands behind the edit of this ordinal, or all of it if that
    /// edit is not pending.
    pub(crate) fn take_pending_behind(&mut self, ordinal: Option<u64>) -> Vec<Entry> {
        let last_kept = self
            .pending()
            .position(|entry| Some(entry.ordinal) == ordinal);
        let n_kept = last_kept.map_or(0, |index| index + 1);
        self.take(self.committed + n_kept, self.entries.len())
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

    /// The next changes to send: one origin, numbers without holes, within both bounds or one alone. They are
    /// then in flight.
    pub(crate) fn take_push(&mut self, bytes_max: usize, charge_max: usize) -> Option<PushBatch> {
        let first = self.entries.get(self.sent)?;
        let mut batch = PushBatch {
            first: first.id,
            reconciling: first.reconciling,
            changes: Vec::new(),
            charge: 0,
        };
        let mut bytes = 0;
        for (entry, number) in self.entries.range(self.sent..).zip(batch.first.number..) {
            let charge = change_charge(&entry.bytes);
            let fits = batch.changes.is_empty()
                || (bytes + entry.bytes.len() <= bytes_max && batch.charge + charge <= charge_max);
            let follows = entry.id
                == ChangeId {
                    origin: batch.first.origin,
                    number,
                };
            if !fits || !follows || entry.reconciling != batch.reconciling {
                break;
            }
            bytes += entry.bytes.len();
            batch.charge += charge;
            batch.changes.push(entry.bytes.clone());
        }
        self.sent += batch.changes.len();
        self.in_flight_charge += batch.charge;
        Some(batch)
    }

    /// What the next change to send counts for in the push window.
    pub(crate) fn next_charge(&self) -> Option<usize> {
        self.entries
            .get(self.sent)
            .map(|entry| change_charge(&entry.bytes))
    }

    /// The connection is gone: what was in flight may or may not have arrived.
    pub(crate) const fn requeue(&mut self) {
        self.sent = self.committed;
        self.in_flight_charge = 0;
    }

    pub(crate) const fn in_flight_charge(&self) -> usize {
        self.in_flight_charge
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

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PushBatch {
    pub(crate) first: ChangeId,
    pub(crate) reconciling: bool,
    pub(crate) changes: Vec<Bytes>,
    pub(crate) charge: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: OriginId = OriginId(1);
    const B: OriginId = OriginId(2);

    fn outbox(n: usize) -> Outbox {
        let mut outbox = Outbox::new(A);
        for i in 0..n {
            outbox.push(Bytes::from(vec![0; i + 1]));
        }
        outbox
    }

    fn numbers(outbox: &Outbox) -> Vec<u64> {
        outbox.pending().map(|entry| entry.id.number).collect()
    }

    #[test]
    fn pushes_are_runs_of_one_origin_and_bounded() {
        let mut outbox = outbox(4);
        outbox.restart(B);
        outbox.push(Bytes::from_static(b"b"));
        let batch = outbox.take_push(6, usize::MAX).unwrap();
        assert_eq!(
            (batch.first.number, batch.changes.len(), batch.charge),
            (1, 3, 96)
        );
        let batch = outbox.take_push(6, usize::MAX).unwrap();
        assert_eq!(
            (batch.first, batch.changes.len()),
            (
                ChangeId {
                    origin: A,
                    number: 4
                },
                1
            )
        );
        assert_eq!(
            outbox.take_push(6, usize::MAX).unwrap().first,
            ChangeId {
                origin: B,
                number: 1
            }
        );
        assert_eq!(outbox.take_push(6, usize::MAX), None);
    }

    #[test]
    fn one_change_over_the_bound_travels_alone() {
        let mut outbox = outbox(4);
        assert_eq!(outbox.take_push(0, usize::MAX).unwrap().changes.len(), 1);
    }

    #[test]
    fn what_the_registry_has_is_not_sent_again() {
        let mut outbox = outbox(4);
        outbox.take_push(100, usize::MAX);
        assert_eq!(outbox.reconcile_with(&[(A, 2)]), Standing::Known);
        assert_eq!(numbers(&outbox), [3, 4]);
        assert_eq!(outbox.take_push(100, usize::MAX).unwrap().first.number, 3);
    }

    /// Scenario 80 (the client's half).
    #[test]
    fn a_registry_that_forgot_makes_everything_pending_be_issued_again_with_the_same_bytes() {
        let mut outbox = outbox(4);
        assert!(outbox.pass_front(1, 2).is_some());
        let before = outbox.bytes();
        assert_eq!(outbox.reconcile_with(&[(A, 1)]), Standing::Forgotten);
        outbox.reissue(B);
        assert_eq!(outbox.bytes(), before);
        assert_eq!(outbox.origins(), [(B, 0)]);
        assert_eq!(numbers(&outbox), [1, 2]);
        assert_eq!(
            outbox.push(Bytes::new()),
            ChangeId {
                origin: B,
                number: 3
            }
        );
    }

    /// Scenario 80: a store may know the change and not what was acknowledged before it.
    #[test]
    fn what_comes_before_the_first_change_of_an_origin_was_acknowledged() {
        let mut outbox = Outbox::new(B);
        let id = ChangeId {
            origin: A,
            number: 6,
        };
        outbox.restore([OutboxChange::new(id, 0, Bytes::new(), false)], []);
        assert_eq!(outbox.origins(), [(A, 5)]);
        assert_eq!(outbox.reconcile_with(&[(A, 0)]), Standing::Forgotten);
        assert_eq!(outbox.reconcile_with(&[(A, 5)]), Standing::Known);
    }

    /// Writes the id in front.
    #[derive(Debug)]
    struct Labels;

    impl Sealer for Labels {
        fn seal(&self, id: ChangeId, _: &Bytes) -> Bytes {
            Bytes::from(format!("{}:{}", id.origin.0, id.number))
        }

        fn is_current(&self, change: &Bytes) -> bool {
            change.contains(&b':')
        }
    }

    #[test]
    fn changes_are_sealed_for_the_ids_that_they_have_and_again_for_others() {
        let mut outbox = outbox(3);
        outbox.take_push(100, usize::MAX);
        outbox.commit_front_through(1);
        assert!(outbox.is_sealed());
        outbox.set_sealer(Arc::new(Labels));
        assert!(!outbox.is_sealed());
        outbox.reseal(B);
        assert!(outbox.is_sealed());
        outbox.push(Bytes::from_static(b"new"));
        outbox.push_front_reconciling(Bytes::from_static(b"lacking"), OriginId(3));
        let expected = ["\0", "3:1", "2:1", "2:2", "2:3"];
        assert_eq!(outbox.bytes(), expected, "what is committed stays");
        assert_eq!(outbox.take_push(100, usize::MAX).unwrap().changes, ["3:1"]);
        outbox.reissue(OriginId(4));
        assert_eq!(outbox.bytes(), ["4:1", "4:2", "4:3", "4:4", "4:5"]);
    }

    #[test]
    fn an_ack_must_name_the_front() {
        let mut outbox = outbox(4);
        assert_eq!(outbox.pass_front(2, 1), None);
        assert_eq!(outbox.pass_front(1, 5), None);
        assert_eq!(outbox.pass_front(1, 2).unwrap().len(), 2);
        assert_eq!(numbers(&outbox), [3, 4]);
    }

    #[test]
    fn a_repeat_is_kept_until_the_stream_passes_it() {
        let mut outbox = outbox(3);
        outbox.commit_front_through(2);
        assert_eq!(numbers(&outbox), [3]);
        assert_eq!(outbox.pass_front(1, 2).unwrap().len(), 2);
        assert_eq!(outbox.bytes().len(), 1);
    }

    #[test]
    fn a_refusal_takes_everything_behind_over_all_origins() {
        let mut outbox = outbox(3);
        outbox.restart(B);
        outbox.push(Bytes::from_static(b"b"));
        outbox.commit_before(ChangeId {
            origin: A,
            number: 2,
        });
        let taken = outbox.take_from(ChangeId {
            origin: A,
            number: 2,
        });
        assert_eq!(
            taken.iter().map(|e| e.id.number).collect::<Vec<_>>(),
            [2, 3, 1]
        );
        assert_eq!(numbers(&outbox), [0_u64; 0]);
    }
}
