//! `Version`: how far each peer's operations are there.
//!
//! ```text
//! version := (peer counter)*n      8 and 4 bytes, big endian; peers ascending, counters not zero
//! ```
//!
//! Loro's own encoding of a version vector follows the order of a hash map, so that equal vectors need not be equal bytes.

use ::loro::VersionVector;
use bytes::Bytes;

use crate::engine::{EngineError, Version};

const ENTRY_BYTES: usize = 12;

/// Writes a version vector.
pub(super) fn encode(vector: &VersionVector) -> Version {
    let mut entries: Vec<(u64, i32)> = vector
        .iter()
        .map(|(&peer, &counter)| (peer, counter))
        .filter(|&(_, counter)| counter > 0)
        .collect();
    entries.sort_unstable();
    let mut out = Vec::with_capacity(entries.len() * ENTRY_BYTES);
    for (peer, counter) in entries {
        out.extend_from_slice(&peer.to_be_bytes());
        out.extend_from_slice(&counter.to_be_bytes());
    }
    Version(Bytes::from(out))
}

/// Reads a version. It may say anything: it has to be compared with what is here before loro gets it.
pub(super) fn decode(version: &Version) -> Result<VersionVector, EngineError> {
    let malformed = |offset| EngineError::Malformed {
        what: "version",
        offset,
    };
    let mut vector = VersionVector::new();
    let mut last = None;
    for (index, entry) in version.0.chunks(ENTRY_BYTES).enumerate() {
        let offset = index * ENTRY_BYTES;
        let (peer, counter) = entry
            .split_first_chunk()
            .and_then(|(peer, counter)| Some((peer, counter.try_into().ok()?)))
            .ok_or_else(|| malformed(offset))?;
        let (peer, counter) = (u64::from_be_bytes(*peer), i32::from_be_bytes(counter));
        if counter <= 0 || last.is_some_and(|last| last >= peer) {
            return Err(malformed(offset));
        }
        last = Some(peer);
        vector.insert(peer, counter);
    }
    Ok(vector)
}

/// What is in both. Loro panics on a vector that claims more than there is.
pub(super) fn clamp(vector: &VersionVector, ours: &VersionVector) -> VersionVector {
    ours.iter()
        .filter_map(|(&peer, &ours)| {
            let theirs = vector.get(&peer).copied().unwrap_or_default();
            let both = theirs.min(ours);
            (both > 0).then_some((peer, both))
        })
        .collect()
}

/// Whether `vector` has all of `other`.
pub(super) fn includes(
    vector: &VersionVector,
    other: impl IntoIterator<Item = (u64, i32)>,
) -> bool {
    other
        .into_iter()
        .all(|(peer, counter)| vector.get(&peer).copied().unwrap_or_default() >= counter)
}
