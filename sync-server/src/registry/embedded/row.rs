//! Consecutive changes of one document as one value: a row of the journal or of the log.
//!
//! ```text
//! authors          varint count, then for each: origin (16 bytes), varint length and bytes of the user's id
//! changes          for each (the row's `n` says how many): varint author * 2 + 1 if reconciling, varint number, varint length
//! bytes            those of all changes, one after the other
//! check            XXH3-64 of all that, seeded with the row's first sequence, little endian
//! ```
//!
//! Varints are LEB128. The row's `digest` is that after its last change; those before it follow by subtraction.

use bytes::Bytes;
use sync_core::history::{Digest, Seq};
use sync_core::ids::{ChangeId, OriginId, User};
use twox_hash::XxHash3_64;

use crate::registry::{NewChange, RegistryError, StoredChange};

const CHECK: usize = 8;

/// One change to be written.
pub(super) struct Part<'a> {
    pub(super) id: ChangeId,
    pub(super) user: &'a User,
    pub(super) bytes: &'a [u8],
    pub(super) reconciling: bool,
}

/// A change read from a row, and who made it.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) change: StoredChange,
    pub(super) user: User,
}

impl Entry {
    /// As it is to be written again.
    pub(super) fn part(&self) -> Part<'_> {
        Part {
            id: self.change.id,
            user: &self.user,
            bytes: &self.change.bytes,
            reconciling: self.change.reconciling,
        }
    }

    /// As it was handed in.
    pub(super) fn into_change(self) -> NewChange {
        let Self { change, user } = self;
        NewChange::new(change.id, user, change.bytes).with_reconciling(change.reconciling)
    }
}

/// Writes a row's value behind what is in `out`. Returns how many bytes it has.
pub(super) fn encode<'a>(
    out: &mut Vec<u8>,
    first: Seq,
    parts: impl Iterator<Item = Part<'a>> + Clone,
) -> usize {
    let start = out.len();
    // Few origins write between two commits: a search of a short list costs less than a map.
    let mut authors: Vec<(OriginId, &User)> = Vec::new();
    let author = |authors: &[(OriginId, &User)], id: ChangeId| {
        authors.iter().rposition(|(origin, _)| *origin == id.origin)
    };
    for part in parts.clone() {
        if author(&authors, part.id).is_none() {
            authors.push((part.id.origin, part.user));
        }
    }
    put_len(out, authors.len());
    for (origin, user) in &authors {
        out.extend_from_slice(&origin.0.to_le_bytes());
        put_len(out, user.id.len());
        out.extend_from_slice(user.id.as_bytes());
    }
    for part in parts.clone() {
        let author = author(&authors, part.id).unwrap_or_default();
        put_len(out, author * 2 + usize::from(part.reconciling));
        put(out, part.id.number);
        put_len(out, part.bytes.len());
    }
    for part in parts {
        out.extend_from_slice(part.bytes);
    }
    let check = check(first, out.get(start..).unwrap_or_default());
    out.extend_from_slice(&check);
    out.len().saturating_sub(start)
}

/// A row as it is stored.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) seq: Seq,
    pub(super) n: u32,
    pub(super) digest: Digest,
    pub(super) changes: &'a [u8],
}

/// Reads a row.
///
/// # Errors
/// [`RegistryError::Damaged`].
pub(super) fn decode(row: Stored<'_>) -> Result<Vec<Entry>, RegistryError> {
    try_decode(row).ok_or_else(|| RegistryError::Damaged {
        what: format!("the row of {} changes at sequence {}", row.n, row.seq),
    })
}

fn try_decode(row: Stored<'_>) -> Option<Vec<Entry>> {
    let (mut rest, stored) = row
        .changes
        .split_at_checked(row.changes.len().checked_sub(CHECK)?)?;
    if stored != check(row.seq, rest) {
        return None;
    }
    let n_authors = take_len(&mut rest)?;
    let mut authors = Vec::new();
    for _ in 0..n_authors {
        let (origin, after) = rest.split_first_chunk::<16>()?;
        rest = after;
        let len = take_len(&mut rest)?;
        let (user, after) = rest.split_at_checked(len)?;
        rest = after;
        authors.push((
            OriginId(u128::from_le_bytes(*origin)),
            User::new(std::str::from_utf8(user).ok()?),
        ));
    }
    let mut heads = Vec::new();
    for _ in 0..row.n {
        let author = take_len(&mut rest)?;
        let (origin, user) = authors.get(author / 2)?;
        let number = take(&mut rest)?;
        let id = ChangeId {
            origin: *origin,
            number,
        };
        heads.push((id, user, author % 2 == 1, take_len(&mut rest)?));
    }
    let mut digest = Digest::EMPTY;
    let mut entries = Vec::with_capacity(heads.len());
    for ((id, user, reconciling, len), offset) in heads.into_iter().zip(0..) {
        let (bytes, after) = rest.split_at_checked(len)?;
        rest = after;
        digest = digest.with(id.number, bytes);
        // Copied one by one: whoever keeps a change keeps no other.
        let bytes = Bytes::copy_from_slice(bytes);
        entries.push(Entry {
            change: StoredChange::new(row.seq.plus(offset), id, bytes, digest)
                .with_reconciling(reconciling),
            user: user.clone(),
        });
    }
    // From sums over the row to sums over the history.
    let before = row.digest.0.wrapping_sub(digest.0);
    for entry in &mut entries {
        entry.change.digest = Digest(entry.change.digest.0.wrapping_add(before));
    }
    rest.is_empty().then_some(entries)
}

/// The check of some bytes that belong to a sequence.
pub(super) fn check(seq: Seq, bytes: &[u8]) -> [u8; CHECK] {
    XxHash3_64::oneshot_with_seed(seq.0, bytes).to_le_bytes()
}

pub(super) fn put_len(out: &mut Vec<u8>, len: usize) {
    // A `usize` of today's platforms fits.
    put(out, u64::try_from(len).unwrap_or(u64::MAX));
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(low & 0x7f);
            return;
        }
        out.push(low | 0x80);
    }
}

fn take(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

pub(super) fn take_len(rest: &mut &[u8]) -> Option<usize> {
    usize::try_from(take(rest)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> (Vec<u8>, Digest) {
        let user = User::new("ada");
        let mut out = Vec::new();
        let parts = [(1, 7, &b"seven"[..]), (2, u64::MAX, b""), (1, 8, b"eight")];
        let parts = parts.map(|(origin, number, bytes)| Part {
            id: ChangeId {
                origin: OriginId(origin),
                number,
            },
            user: &user,
            bytes,
            reconciling: number == 8,
        });
        let digest = parts.iter().fold(Digest(99), |digest, part| {
            digest.with(part.id.number, part.bytes)
        });
        encode(&mut out, Seq(5), parts.iter().map(|part| Part { ..*part }));
        (out, digest)
    }

    fn stored(changes: &[u8], digest: Digest) -> Stored<'_> {
        Stored {
            seq: Seq(5),
            n: 3,
            digest,
            changes,
        }
    }

    #[test]
    fn a_row_is_read_as_it_was_written_with_the_digest_at_every_change() {
        let (bytes, digest) = row();
        let entries = decode(stored(&bytes, digest)).unwrap();
        let seven = Digest(99).with(7, b"seven");
        assert_eq!(entries[0].change.digest, seven);
        assert_eq!(entries[1].change.digest, seven.with(u64::MAX, b""));
        assert_eq!(entries[2].change.digest, digest);
        assert_eq!(entries[2].change.seq, Seq(7));
        assert_eq!(entries[2].change.bytes, "eight");
        let marks: Vec<_> = entries.iter().map(|row| row.change.reconciling).collect();
        assert_eq!(marks, [false, false, true]);
        assert_eq!(entries[1].change.id.origin, OriginId(2));
        assert_eq!(&*entries[1].user.id, "ada");
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (bytes, digest) = row();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1 << bit;
                decode(stored(&damaged, digest)).unwrap_err();
            }
            decode(stored(&bytes[..at], digest)).unwrap_err();
        }
    }

    #[test]
    fn a_row_in_another_place_is_noticed() {
        let (bytes, digest) = row();
        let moved = Stored {
            seq: Seq(6),
            ..stored(&bytes, digest)
        };
        decode(moved).unwrap_err();
        let longer = Stored {
            n: 4,
            ..stored(&bytes, digest)
        };
        decode(longer).unwrap_err();
    }
}
