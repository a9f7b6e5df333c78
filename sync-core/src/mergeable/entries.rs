//! A last-writer-wins element dictionary over encoded keys and values: the merge itself, without the
//! application's types.
//!
//! The LWW-element-set of Shapiro, Preguiça, Baquero, Zawirski, "A comprehensive study of Convergent and
//! Commutative Replicated Data Types" (INRIA RR-7506, 2011), section 3.3.3, with one stamp per element for add and
//! remove together. Each entry is the maximum, in one total order, of all writes to its key; taking the maximum is
//! commutative, associative and idempotent, and so is taking it per key.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use twox_hash::XxHash3_64;

use super::clock::Stamp;
use super::{DeltaReader, DeltaWriter, VersionVector};
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
    fn order(&self, other: &Self) -> Ordering {
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

    /// Part of the digest: all that two replicas must agree on.
    fn hash(&self, key: &[u8]) -> u64 {
        let Stamp {
            time,
            counter,
            replica,
            number,
        } = self.stamp;
        let mut fixed = [0_u8; 29];
        let fields = time.to_be_bytes().into_iter().chain(counter.to_be_bytes());
        let fields = fields
            .chain(replica.0.to_be_bytes())
            .chain(number.to_be_bytes());
        for (slot, byte) in fixed
            .iter_mut()
            .zip(fields.chain([u8::from(self.value.is_some())]))
        {
            *slot = byte;
        }
        let hash = XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&fixed), key);
        self.value
            .as_ref()
            .map_or(hash, |value| XxHash3_64::oneshot_with_seed(hash, value))
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
