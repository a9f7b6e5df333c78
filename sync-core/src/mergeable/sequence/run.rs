//! Runs of elements: as they travel, and as blocks are made of them.

use super::super::clock::{Dot, ReplicaId};
use super::super::cursor::Cursor;
use super::super::{check, digest};

/// Most elements of one run; a protocol constant, so that sums of them do not overflow.
pub(crate) const RUN_MAX: u64 = 1 << 32;

/// Names an element: who inserted it, and the how manieth of theirs it is, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub(super) replica: ReplicaId,
    pub(super) counter: u64,
}

impl Id {
    pub(super) const fn plus(self, n: u64) -> Self {
        Self {
            replica: self.replica,
            counter: self.counter.saturating_add(n),
        }
    }
}

/// Where a run's first element hangs in the tree of Fugue. Every other is a right child of the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parent {
    /// The root, which is before all elements.
    Root,
    /// Behind this element.
    Right(Id),
    /// Before this element.
    Left(Id),
}

/// How commit numbers go from one element to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// One commit wrote them all.
    Same,
    /// Each is of the commit after: typing.
    Up,
    /// Each is of the commit before: deleting backwards.
    Down,
}

/// The commits that wrote a run of things, one by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Commits {
    /// Of the first.
    pub(super) first: Dot,
    pub(super) step: Step,
}

impl Commits {
    pub(super) const fn one(first: Dot) -> Self {
        Self {
            first,
            step: Step::Same,
        }
    }

    pub(super) fn at(self, offset: u64) -> Dot {
        let number = self.first.number;
        let number = match self.step {
            Step::Same => number,
            Step::Up => number.saturating_add(offset),
            Step::Down => number.saturating_sub(offset),
        };
        Dot::new(self.first.replica, number)
    }

    pub(super) fn from(self, offset: u64) -> Self {
        Self {
            first: self.at(offset),
            step: self.step,
        }
    }

    /// Smallest and largest number of the first `count`.
    pub(super) fn bounds(self, count: u64) -> (u64, u64) {
        let (a, b) = (self.first.number, self.at(count.saturating_sub(1)).number);
        (a.min(b), a.max(b))
    }

    /// The step with which `next` goes on behind `count` of these, if it does. A single one has any step.
    fn step_to(self, count: u64, next: Dot) -> Option<Step> {
        let steps = [Step::Same, Step::Up, Step::Down];
        let mut possible = steps
            .into_iter()
            .filter(|step| count == 1 || *step == self.step);
        possible.find(|step| {
            let going = Self {
                first: self.first,
                step: *step,
            };
            next.number > 0 && going.at(count) == next
        })
    }
}

/// Elements with consecutive ids, of which each but the first is a right child of the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: Id,
    pub(super) count: u64,
    pub(super) parent: Parent,
    /// The commits that inserted them; their replica is the ids'.
    pub(super) inserted: Commits,
    /// The commits that removed them, if they are removed, all of them.
    pub(super) removed: Option<Commits>,
    /// The values one behind the other; none, if removed.
    pub(super) values: Vec<u8>,
}

impl Run {
    pub(super) const fn last(&self) -> Id {
        self.first.plus(self.count.saturating_sub(1))
    }

    pub(super) const fn n_visible(&self) -> u64 {
        if self.removed.is_some() {
            0
        } else {
            self.count
        }
    }

    /// Cuts off everything from this offset, which is inside.
    pub(super) fn split_off(&mut self, offset: u64) -> Self {
        let parent = Parent::Right(self.first.plus(offset.saturating_sub(1)));
        let values = if self.removed.is_none() {
            let at = skip(&self.values, offset);
            self.values.split_off(at)
        } else {
            Vec::new()
        };
        let rest = Self {
            first: self.first.plus(offset),
            count: self.count.saturating_sub(offset),
            parent,
            inserted: self.inserted.from(offset),
            removed: self.removed.map(|removed| removed.from(offset)),
            values,
        };
        self.count = offset;
        rest
    }

    /// Takes over elements from the beginning of `next`, as many as go on with the same pattern, and returns how
    /// many: none, the first one, or all.
    pub(super) fn absorb(&mut self, next: &Self) -> u64 {
        let goes_on = next.first == self.first.plus(self.count)
            && next.parent == Parent::Right(self.last())
            && next.removed.is_some() == self.removed.is_some()
            && self.count.saturating_add(next.count) <= RUN_MAX;
        let steps = || {
            let inserted = self.inserted.step_to(self.count, next.inserted.first)?;
            if inserted == Step::Down {
                return None;
            }
            let removed = match (self.removed, next.removed) {
                (Some(ours), Some(theirs)) => Some(ours.step_to(self.count, theirs.first)?),
                _ => None,
            };
            Some((inserted, removed))
        };
        let Some((inserted, removed)) = goes_on.then(steps).flatten() else {
            return 0;
        };
        let all = next.count == 1
            || (next.inserted.step == inserted && next.removed.map(|by| by.step) == removed);
        let n = if all { next.count } else { 1 };
        self.inserted.step = inserted;
        if let (Some(ours), Some(step)) = (&mut self.removed, removed) {
            ours.step = step;
        }
        self.count = self.count.saturating_add(n);
        let end = if all {
            next.values.len()
        } else {
            skip(&next.values, n)
        };
        self.values.extend(next.values.iter().take(end));
        n
    }

    /// What visible elements count in the digest.
    pub(super) fn digest(&self) -> u64 {
        let mut sum = 0_u64;
        let mut rest = self.values.as_slice();
        for offset in 0..self.n_visible() {
            let (value, after) = rest.split_at(skip(rest, 1));
            let Id { replica, counter } = self.first.plus(offset);
            sum = sum.wrapping_add(digest::hash(&[replica.0, counter], value));
            rest = after;
        }
        sum
    }
}

/// Length of the first `n` values.
pub(super) fn skip(values: &[u8], n: u64) -> usize {
    let mut at = 0;
    for _ in 0..n {
        let rest = values.get(at..).unwrap_or_default();
        at += match rest.first() {
            // The usual elements, characters and small numbers, without the full walk.
            Some(0x00..=0x7f | 0xe0..=0xff) => 1,
            Some(marker @ 0xa0..=0xbf) => 1 + usize::from(marker & 0x1f),
            Some(_) => {
                let mut cursor = Cursor::new(rest);
                match check::message_pack(&mut cursor, check::DEPTH_MAX) {
                    Ok(()) => cursor.span().0,
                    Err(_) => rest.len(),
                }
            }
            None => 0,
        };
    }
    at.min(values.len())
}
