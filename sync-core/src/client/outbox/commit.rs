//! What the server says of changes: committed, passed by the stream, refused.

use super::{Entry, Outbox};
use crate::ids::{ChangeId, OriginId};
use crate::limits::change_charge;

/// What [`Outbox::reconcile_with`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Known,
    /// The registry knows less than it once acknowledged: what is pending must be issued again.
    Forgotten,
}

impl Outbox {
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
    pub(super) const fn set_committed(&mut self, covered: usize) {
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
}
