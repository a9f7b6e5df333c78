//! Which commits a replica holds: a version vector with exceptions.
//!
//! Numbers of one replica may have holes that are never filled (a refused change, design 2.2) or are filled late,
//! so each replica has ranges, not one number ("Concise Version Vectors in WinFS", Malkhi and Terry, 2005).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::clock::{Dot, ReplicaId};
use super::format::{decode_version, encode_version};
use crate::engine::EngineError;

/// The commits that a replica holds, or that a change brings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionVector {
    /// No replica has empty ranges, so that equal sets are equal values.
    replicas: BTreeMap<ReplicaId, Ranges>,
}

impl VersionVector {
    /// No commits.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            replicas: BTreeMap::new(),
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.replicas.is_empty()
    }

    /// Whether this commit is among them.
    #[must_use]
    pub fn contains(&self, dot: Dot) -> bool {
        self.replicas
            .get(&dot.replica)
            .is_some_and(|ranges| ranges.contains(dot.number))
    }

    /// Whether all of `other` are among them.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.replicas.iter().all(|(replica, theirs)| {
            self.replicas
                .get(replica)
                .is_some_and(|ours| theirs.minus(ours).is_empty())
        })
    }

    /// Whether this commit is among them, and through which number of its replica that is the same.
    pub(crate) fn same_through(&self, replica: ReplicaId, number: u64) -> (bool, u64) {
        self.replicas
            .get(&replica)
            .map_or((false, u64::MAX), |ranges| ranges.same_through(number))
    }

    /// Down to which number of its replica it is the same as for this commit whether it is among them.
    pub(crate) fn same_down_through(&self, replica: ReplicaId, number: u64) -> u64 {
        self.replicas
            .get(&replica)
            .map_or(0, |ranges| ranges.same_down_through(number))
    }

    /// The largest number of this replica; 0 if there is none.
    pub(crate) fn last(&self, replica: ReplicaId) -> u64 {
        self.replicas.get(&replica).map_or(0, Ranges::last)
    }

    /// Adds one commit; whether it was not among them.
    pub fn insert(&mut self, dot: Dot) -> bool {
        self.replicas
            .entry(dot.replica)
            .or_default()
            .insert_one(dot.number)
    }

    /// Whether the commits `first..=last` of this replica are all among them.
    pub(crate) fn contains_range(&self, replica: ReplicaId, first: u64, last: u64) -> bool {
        self.replicas
            .get(&replica)
            .is_some_and(|ranges| ranges.contains_range(first, last))
    }

    /// Adds the commits `first..=last` of a replica.
    pub(crate) fn insert_range(&mut self, replica: ReplicaId, first: u64, last: u64) {
        self.replicas
            .entry(replica)
            .or_default()
            .insert(first, last);
    }

    /// Adds all of `other`; whether that added any.
    pub fn union(&mut self, other: &Self) -> bool {
        let mut grew = false;
        for (replica, theirs) in &other.replicas {
            let ours = self.replicas.entry(*replica).or_default();
            if !theirs.minus(ours).is_empty() {
                grew = true;
                ours.union(theirs);
            }
        }
        grew
    }

    /// How many numbers are missing below the largest of each replica.
    #[must_use]
    pub fn holes(&self) -> u64 {
        let of = |ranges: &Ranges| {
            let there: u64 = ranges.iter().map(|(first, last)| last - first + 1).sum();
            ranges.last().saturating_sub(there)
        };
        self.replicas.values().map(of).fold(0, u64::saturating_add)
    }

    /// The vector as bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encode_version(self, 0)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`EngineError::Malformed`] if the bytes are something else.
    pub fn decode(bytes: &[u8]) -> Result<Self, EngineError> {
        decode_version(bytes).map(|(vector, _)| vector)
    }

    /// Those that are not in `other`.
    pub(crate) fn minus(&self, other: &Self) -> Self {
        let mut rest = Self::new();
        for (replica, ours) in &self.replicas {
            let left = match other.replicas.get(replica) {
                Some(theirs) => ours.minus(theirs),
                None => ours.clone(),
            };
            if !left.is_empty() {
                rest.replicas.insert(*replica, left);
            }
        }
        rest
    }

    /// Replicas with their ranges, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ReplicaId, &Ranges)> {
        self.replicas
            .iter()
            .map(|(replica, ranges)| (*replica, ranges))
    }

    /// The ranges of one replica.
    pub(crate) fn ranges(&self, replica: ReplicaId) -> Option<&Ranges> {
        self.replicas.get(&replica)
    }
}

/// A set of numbers from 1, as ascending ranges `(first, last)` that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }

    fn last(&self) -> u64 {
        self.0.last().map_or(0, |(_, last)| *last)
    }

    fn contains(&self, number: u64) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < number);
        self.0.get(at).is_some_and(|(first, _)| *first <= number)
    }

    fn contains_range(&self, first: u64, last: u64) -> bool {
        let at = self.0.partition_point(|(_, end)| *end < first);
        self.0
            .get(at)
            .is_some_and(|(start, end)| *start <= first && last <= *end)
    }

    fn same_through(&self, number: u64) -> (bool, u64) {
        let at = self.0.partition_point(|(_, end)| *end < number);
        match self.0.get(at) {
            Some((first, last)) if *first <= number => (true, *last),
            Some((first, _)) => (false, first - 1),
            None => (false, u64::MAX),
        }
    }

    fn same_down_through(&self, number: u64) -> u64 {
        let at = self.0.partition_point(|(first, _)| *first <= number);
        match at.checked_sub(1).and_then(|at| self.0.get(at)) {
            Some((first, last)) if number <= *last => *first,
            Some((_, last)) => *last + 1,
            None => 0,
        }
    }

    /// The usual case is the next number.
    fn insert_one(&mut self, number: u64) -> bool {
        if let Some((_, last)) = self.0.last_mut()
            && last.checked_add(1) == Some(number)
        {
            *last = number;
            return true;
        }
        let is_new = !self.contains(number);
        if is_new {
            self.insert(number, number);
        }
        is_new
    }

    fn insert(&mut self, first: u64, last: u64) {
        // The ranges that overlap or touch the new one are contiguous: it swallows them.
        let from = self
            .0
            .partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = from.max(
            self.0
                .partition_point(|(start, _)| *start <= last.saturating_add(1)),
        );
        let mut merged = (first, last);
        for (start, end) in self.0.drain(from..to) {
            merged = (merged.0.min(start), merged.1.max(end));
        }
        self.0.insert(from, merged);
    }

    /// Linear, because a forged change may bring hundreds of thousands of ranges.
    fn union(&mut self, other: &Self) {
        if let [(first, last)] = *other.0 {
            return self.insert(first, last);
        }
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(self.0.len() + other.0.len());
        let (mut ours, mut theirs) = (
            self.0.iter().copied().peekable(),
            other.0.iter().copied().peekable(),
        );
        while let Some((first, last)) = match (ours.peek(), theirs.peek()) {
            (Some(our), Some(their)) if their < our => theirs.next(),
            (Some(_), _) => ours.next(),
            (None, _) => theirs.next(),
        } {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        self.0 = merged;
    }

    fn minus(&self, other: &Self) -> Self {
        let mut rest = Vec::new();
        for &(first, last) in &self.0 {
            let mut next = Some(first);
            let from = other.0.partition_point(|(_, end)| *end < first);
            for &(start, end) in other
                .0
                .iter()
                .skip(from)
                .take_while(|(start, _)| *start <= last)
            {
                if let Some(next) = next.filter(|next| *next < start) {
                    rest.push((next, start - 1));
                }
                next = end.checked_add(1).filter(|next| *next <= last);
            }
            if let Some(next) = next {
                rest.push((next, last));
            }
        }
        Self(rest)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn vector(dots: &BTreeSet<(u64, u64)>) -> VersionVector {
        let mut vector = VersionVector::new();
        for (replica, number) in dots {
            vector.insert(Dot::new(ReplicaId(*replica), *number));
        }
        vector
    }

    fn dots() -> impl Strategy<Value = BTreeSet<(u64, u64)>> {
        prop::collection::btree_set((0..3u64, 1..20u64), 0..30)
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_of_dots(a in dots(), b in dots()) {
            let (va, vb) = (vector(&a), vector(&b));
            prop_assert_eq!(va.minus(&vb), vector(&a.difference(&b).copied().collect()));
            prop_assert_eq!(va.covers(&vb), a.is_superset(&b));
            prop_assert_eq!(va.is_empty(), a.is_empty());
            let mut both = va.clone();
            prop_assert_eq!(both.union(&vb), !a.is_superset(&b));
            prop_assert_eq!(&both, &vector(&a.union(&b).copied().collect()));
            for replica in 0..3 {
                for number in 1..20 {
                    prop_assert_eq!(va.contains(Dot::new(ReplicaId(replica), number)), a.contains(&(replica, number)));
                }
            }
        }
    }

    #[test]
    fn the_largest_numbers_do_not_overflow() {
        let mut vector = VersionVector::new();
        vector.insert_range(ReplicaId(1), 1, u64::MAX);
        vector.insert_range(ReplicaId(1), 5, u64::MAX);
        vector.insert(Dot::new(ReplicaId(1), u64::MAX));
        assert!(vector.contains(Dot::new(ReplicaId(1), u64::MAX)));
        assert!(vector.minus(&vector.clone()).is_empty());
    }
}
