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
use super::encoded::Encoded;
use super::{DeltaReader, DeltaWriter, VersionVector, digest};
use crate::engine::EngineError;

/// A write to a key: a value, or its removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Write<'a> {
    pub(super) stamp: Stamp,
    pub(super) value: Option<&'a [u8]>,
}

impl Write<'_> {
    /// The total order of writes: time, counter; at equal times an add beats a remove; then the replica. The rest
    /// only differs if somebody forged a stamp, and keeps even that the same everywhere.
    pub(super) fn order(&self, other: &Write<'_>) -> Ordering {
        let key = |write: &Write<'_>| {
            let Stamp {
                time,
                counter,
                replica,
                number,
            } = write.stamp;
            (time, counter, write.value.is_some(), replica, number)
        };
        key(self)
            .cmp(&key(other))
            .then_with(|| self.value.cmp(&other.value))
    }

    /// Whether what its replica wrote here still stands, or stands again, because that replica took back a later write
    /// of its own. Then what was there before may take its place; a write by anybody else stays.
    pub(super) fn is_still(&self, held: Option<&Entry>) -> bool {
        match held {
            Some(held) => {
                self.stamp.replica == held.stamp.replica && self.value == held.value.as_deref()
            }
            // A copy begins without removals.
            None => self.value.is_none(),
        }
    }

    /// Part of the digest: all that two replicas must agree on. A removal counts nothing, so that it can be
    /// reclaimed.
    fn hash(&self, key: &[u8]) -> u64 {
        self.value.map_or(0, |value| {
            digest::key_factor(key).wrapping_mul(digest::stamped(&self.stamp, value))
        })
    }
}

/// The last write to a key. A removal is kept so that older writes stay beaten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) stamp: Stamp,
    pub(super) value: Option<Encoded>,
    /// What it counts in the digest; 0 where nobody asks.
    hash: u64,
}

impl Entry {
    pub(super) fn new(write: &Write<'_>) -> Self {
        Self {
            stamp: write.stamp,
            value: write.value.map(Encoded::from),
            hash: 0,
        }
    }

    pub(super) fn as_write(&self) -> Write<'_> {
        Write {
            stamp: self.stamp,
            value: self.value.as_deref(),
        }
    }
}

/// Entries by encoded key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entries {
    entries: BTreeMap<Encoded, Entry>,
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

    /// Keys and values, where there is one.
    pub(super) fn values(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let entries = self.entries.iter();
        entries.filter_map(|(key, entry)| Some((&**key, entry.value.as_deref()?)))
    }

    /// Wrapping sum over all entries, so that it follows a change in constant time.
    pub(super) const fn digest(&self) -> u64 {
        self.digest
    }

    /// Takes a write, if it is later than what is there; whether it was.
    pub(super) fn apply(&mut self, key: &[u8], write: &Write<'_>) -> bool {
        // Not `entry`, which needs an owned key even where there is one.
        let held = self.entries.get_mut(key);
        if let Some(held) = &held
            && write.order(&held.as_write()) != Ordering::Greater
        {
            return false;
        }
        let new = Entry {
            hash: write.hash(key),
            ..Entry::new(write)
        };
        let old = held.as_ref().map_or(0, |held| held.hash);
        self.digest = self.digest.wrapping_sub(old).wrapping_add(new.hash);
        match held {
            Some(held) => *held = new,
            None => drop(self.entries.insert(key.into(), new)),
        }
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

/// Reads one entry, which stays where it is.
pub(super) fn read<'a>(node: &mut DeltaReader<'a>) -> Result<(&'a [u8], Write<'a>), EngineError> {
    let stamp = node.stamp()?;
    let key = node.bytes()?;
    let value = node.optional_bytes()?;
    Ok((key, Write { stamp, value }))
}
