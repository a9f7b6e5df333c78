//! A last-writer-wins element dictionary over encoded keys and values: the merge itself, without the
//! application's types.
//!
//! The LWW-element-set of Shapiro, Preguiça, Baquero, Zawirski, "A comprehensive study of Convergent and
//! Commutative Replicated Data Types" (INRIA RR-7506, 2011), section 3.3.3, with one stamp per element for add and
//! remove together. Each entry is the maximum, in one total order, of all writes to its key; taking the maximum is
//! commutative, associative and idempotent, and so is taking it per key.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::clock::Stamp;
use super::{DeltaReader, DeltaWriter, VersionVector, digest};
use crate::engine::EngineError;

/// The last write to a key: a value, or its removal, which is kept so that older writes stay beaten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) stamp: Stamp,
    pub(super) value: Option<Box<[u8]>>,
}

impl Entry {
    /// The total order of writes: time, counter; at equal times an add beats a remove; then the replica. The rest
    /// only differs if somebody forged a stamp, and keeps even that the same everywhere.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        let key = |entry: &Self| {
            let Stamp {
                time,
                counter,
                replica,
                number,
            } = entry.stamp;
            (time, counter, entry.value.is_some(), replica, number)
        };
        key(self)
            .cmp(&key(other))
            .then_with(|| self.value.cmp(&other.value))
    }

    /// Whether what its replica wrote here still stands, or stands again, because that replica took back a later write
    /// of its own. Then what was there before may take its place; a write by anybody else stays.
    pub(super) fn is_still(&self, held: Option<&Self>) -> bool {
        match held {
            Some(held) => self.stamp.replica == held.stamp.replica && self.value == held.value,
            // A copy begins without removals.
            None => self.value.is_none(),
        }
    }

    /// Part of the digest: all that two replicas must agree on. A removal counts nothing, so that it can be
    /// reclaimed.
    fn hash(&self, key: &[u8]) -> u64 {
        self.value.as_ref().map_or(0, |value| {
            digest::key_factor(key).wrapping_mul(digest::stamped(&self.stamp, value))
        })
    }
}

/// Entries by encoded key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entries {
    entries: BTreeMap<Box<[u8]>, Entry>,
    digest: u64,
}

impl Entries {
    pub(super) const fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            digest: 0,
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Wrapping sum over all entries, so that it follows a change in constant time.
    pub(super) const fn digest(&self) -> u64 {
        self.digest
    }

    /// Takes a write, if it is later than what is there; whether it was.
    pub(super) fn apply(&mut self, key: &[u8], write: Entry) -> bool {
        let new = write.hash(key);
        // Not `entry`, which needs an owned key even where there is one.
        let old = match self.entries.get_mut(key) {
            Some(held) if write.order(held) != Ordering::Greater => return false,
            Some(held) => {
                let old = held.hash(key);
                *held = write;
                old
            }
            None => {
                self.entries.insert(key.into(), write);
                0
            }
        };
        self.digest = self.digest.wrapping_sub(old).wrapping_add(new);
        true
    }

    /// Forgets the removals of these commits.
    pub(super) fn compact(&mut self, horizon: &VersionVector) {
        self.entries
            .retain(|_, entry| entry.value.is_some() || !horizon.contains(entry.stamp.dot()));
    }

    /// Writes the entries that a holder of `since` lacks.
    pub(super) fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        for (key, entry) in &self.entries {
            if !since.contains(entry.stamp.dot()) {
                put(out, key, entry.stamp, entry.value.as_deref());
            }
        }
    }
}

/// Writes one entry.
pub(super) fn put(out: &mut DeltaWriter, key: &[u8], stamp: Stamp, value: Option<&[u8]>) {
    out.stamp(stamp);
    out.bytes(key);
    out.optional_bytes(value);
}

/// Reads one entry, of which the key stays where it is.
pub(super) fn read<'a>(node: &mut DeltaReader<'a>) -> Result<(&'a [u8], Entry), EngineError> {
    let stamp = node.stamp()?;
    let key = node.bytes()?;
    let value = node.optional_bytes()?.map(Box::from);
    Ok((key, Entry { stamp, value }))
}
