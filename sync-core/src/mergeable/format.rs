//! The byte layout of changes, snapshots and versions: the only place that knows it, with [`check`],
//! which walks it without building anything.
//!
//! A change and a snapshot have one format. Numbers are LEB128 varints (7 bits a byte, low bits first); replica ids
//! are 8 bytes, big-endian; keys and values are whole MessagePack values.
//!
//! ```text
//! change  = 1, replica id, number,                the commit: one dot, which the change brings
//!           n, n x (time, counter),               its stamps
//!           [node]                                nothing if the change has no content
//!         | 2, n, n x replica id,                 ascending
//!           n x (ranges, ranges),                 base: what a receiver must hold; claims: what it then holds too
//!           n, n x (replica index, number, time, counter),
//!           [node]
//! ranges  = n, n x (gap, length)                  ascending; gap from the end of the one before, at least 2 after
//!                                                 the first, which starts at 0; length at least 1
//! node    = kind, length, body of so many bytes
//! body    = entries until its end                 kind 1, last-writer-wins map
//! entry   = stamp index, length, key,             keys ascending by their bytes, each once
//!           0 | length + 1, value                 0: removed
//! version = n, n x (replica id, ranges), digest   8 bytes, big-endian
//! ```
//!
//! Every node says its kind and length, so that software which does not know the application's types can walk and
//! merge them. The encoding of equal content is equal, byte for byte: replicas and keys are sorted, stamps numbered
//! in the order in which the content uses them.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::clock::{Dot, ReplicaId, Stamp};
use super::vector::Ranges;
use super::{Kind, VersionVector, check};
use crate::engine::EngineError;

/// First byte of a change that is one commit.
pub(super) const FORM_COMMIT: u8 = 1;
/// First byte of a change that brings any number of commits: a difference, or a snapshot.
pub(super) const FORM_STATE: u8 = 2;

/// Reads bytes front to back; every failure names what was being read and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where this cursor must stop: the end of its node.
    end: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            end: bytes.len(),
        }
    }

    pub(super) const fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    pub(super) const fn malformed(&self, what: &'static str) -> EngineError {
        EngineError::Malformed {
            what,
            offset: self.at,
        }
    }

    pub(super) fn take(&mut self, n: u64, what: &'static str) -> Result<&'a [u8], EngineError> {
        let to = usize::try_from(n)
            .ok()
            .and_then(|n| self.at.checked_add(n))
            .filter(|to| *to <= self.end);
        let taken = to
            .and_then(|to| self.bytes.get(self.at..to))
            .ok_or_else(|| self.malformed(what))?;
        self.at += taken.len();
        Ok(taken)
    }

    pub(super) fn byte(&mut self, what: &'static str) -> Result<u8, EngineError> {
        self.take(1, what)?
            .first()
            .copied()
            .ok_or_else(|| self.malformed(what))
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], EngineError> {
        let taken = self.take(u64::try_from(N).unwrap_or(u64::MAX), what)?;
        taken.try_into().map_err(|_| self.malformed(what))
    }

    pub(super) fn varint(&mut self, what: &'static str) -> Result<u64, EngineError> {
        let start = *self;
        let mut value = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let byte = self.byte(what)?;
            let bits = u64::from(byte & 0x7f);
            if bits
                .checked_shl(shift)
                .is_none_or(|shifted| shifted >> shift != bits)
            {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(start.malformed(what))
    }

    pub(super) fn replica(&mut self) -> Result<ReplicaId, EngineError> {
        self.array("a replica id")
            .map(|bytes| ReplicaId(u64::from_be_bytes(bytes)))
    }

    /// Cuts off a part of `n` bytes, which gets a cursor of its own.
    pub(super) fn part(&mut self, n: u64, what: &'static str) -> Result<Self, EngineError> {
        let at = self.at;
        self.take(n, what)?;
        Ok(Self {
            bytes: self.bytes,
            at,
            end: self.at,
        })
    }

    /// Reads ranges, calling `each` with `(first, last)`.
    pub(super) fn ranges(&mut self, mut each: impl FnMut(u64, u64)) -> Result<(), EngineError> {
        const WHAT: &str = "ranges of commit numbers";
        let n = self.varint(WHAT)?;
        let mut end = 0_u64;
        for index in 0..n {
            let start = *self;
            let gap = self.varint(WHAT)?;
            let length = self.varint(WHAT)?;
            let first = end
                .checked_add(gap)
                .filter(|_| gap >= if index == 0 { 1 } else { 2 });
            let last = first.and_then(|first| {
                length
                    .checked_sub(1)
                    .and_then(|more| first.checked_add(more))
            });
            let (Some(first), Some(last)) = (first, last) else {
                return Err(start.malformed(WHAT));
            };
            each(first, last);
            end = last;
        }
        Ok(())
    }
}

/// Appends a varint.
fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_byte(value) | 0x80);
        value >>= 7;
    }
    out.push(low_byte(value));
}

/// The lowest 7 bits of `value`.
fn low_byte(value: u64) -> u8 {
    u8::try_from(value & 0x7f).unwrap_or_default()
}

fn put_len(out: &mut Vec<u8>, length: usize) {
    put_varint(out, u64::try_from(length).unwrap_or(u64::MAX));
}

fn put_ranges(out: &mut Vec<u8>, ranges: Option<&Ranges>) {
    put_len(out, ranges.map_or(0, Ranges::len));
    let mut end = 0;
    for (first, last) in ranges.into_iter().flat_map(Ranges::iter) {
        put_varint(out, first - end);
        put_varint(out, last - first + 1);
        end = last;
    }
}

/// Collects the content of a change: nodes, with the stamps that they refer to.
#[derive(Debug, Default)]
pub struct DeltaWriter {
    body: Vec<u8>,
    /// In the order of their first use.
    stamps: Vec<Stamp>,
    index: BTreeMap<Stamp, usize>,
}

impl DeltaWriter {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            body: Vec::new(),
            stamps: Vec::new(),
            index: BTreeMap::new(),
        }
    }

    /// Whether nothing has been written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Writes a node whose body is what `body` writes; nothing at all if it writes nothing.
    pub fn node(&mut self, kind: Kind, body: impl FnOnce(&mut Self)) {
        let start = self.body.len();
        body(self);
        let length = self.body.len() - start;
        if length > 0 {
            let mut head = vec![kind.number()];
            put_len(&mut head, length);
            self.body.splice(start..start, head);
        }
    }

    /// Writes a reference to a stamp.
    pub fn stamp(&mut self, stamp: Stamp) {
        // Most changes have one stamp: the last one used is looked at first.
        let index = match self.stamps.last() {
            Some(last) if *last == stamp => self.stamps.len() - 1,
            _ => *self.index.entry(stamp).or_insert_with(|| {
                self.stamps.push(stamp);
                self.stamps.len() - 1
            }),
        };
        put_len(&mut self.body, index);
    }

    /// Writes bytes with their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        put_len(&mut self.body, bytes.len());
        self.body.extend_from_slice(bytes);
    }

    /// Writes bytes with their length, or that there are none.
    pub fn optional_bytes(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.body.push(0),
            Some(bytes) => {
                put_len(&mut self.body, bytes.len().saturating_add(1));
                self.body.extend_from_slice(bytes);
            }
        }
    }

    /// What was written as the change of one commit, in which all stamps must be.
    pub(crate) fn into_commit(self, dot: Dot) -> Bytes {
        let mut out = vec![FORM_COMMIT];
        out.extend_from_slice(&dot.replica.0.to_be_bytes());
        put_varint(&mut out, dot.number);
        put_len(&mut out, self.stamps.len());
        for stamp in &self.stamps {
            debug_assert_eq!(stamp.dot(), dot, "a commit stamps what it writes itself");
            put_varint(&mut out, stamp.time);
            put_varint(&mut out, u64::from(stamp.counter));
        }
        out.extend_from_slice(&self.body);
        out.into()
    }

    /// What was written as a change that, for whoever holds `base`, brings all of `claims`.
    pub(crate) fn into_state(self, base: &VersionVector, claims: &VersionVector) -> Bytes {
        let mut index: BTreeMap<ReplicaId, usize> = BTreeMap::new();
        index.extend(base.iter().map(|(replica, _)| (replica, 0)));
        index.extend(claims.iter().map(|(replica, _)| (replica, 0)));
        index.extend(self.stamps.iter().map(|stamp| (stamp.replica, 0)));
        let mut out = vec![FORM_STATE];
        put_len(&mut out, index.len());
        for (position, (replica, slot)) in index.iter_mut().enumerate() {
            *slot = position;
            out.extend_from_slice(&replica.0.to_be_bytes());
        }
        for replica in index.keys() {
            put_ranges(&mut out, base.ranges(*replica));
            put_ranges(&mut out, claims.ranges(*replica));
        }
        put_len(&mut out, self.stamps.len());
        for stamp in &self.stamps {
            put_len(
                &mut out,
                index.get(&stamp.replica).copied().unwrap_or_default(),
            );
            put_varint(&mut out, stamp.number);
            put_varint(&mut out, stamp.time);
            put_varint(&mut out, u64::from(stamp.counter));
        }
        out.extend_from_slice(&self.body);
        out.into()
    }
}

/// A change's head, read after it has been checked.
#[derive(Debug, Default)]
pub(crate) struct Head {
    replicas: Vec<ReplicaId>,
    stamps: Vec<Stamp>,
    /// What a receiver must hold for the claims to be true.
    pub(crate) base: VersionVector,
    /// What a receiver then holds too.
    pub(crate) claims: VersionVector,
}

impl check::Visitor for Head {
    fn replica(&mut self, replica: ReplicaId) {
        self.replicas.push(replica);
    }

    fn base(&mut self, replica: usize, first: u64, last: u64) {
        if let Some(replica) = self.replicas.get(replica) {
            self.base.insert_range(*replica, first, last);
        }
    }

    fn claim(&mut self, replica: usize, first: u64, last: u64) {
        if let Some(replica) = self.replicas.get(replica) {
            self.claims.insert_range(*replica, first, last);
        }
    }

    fn stamp(&mut self, replica: usize, number: u64, time: u64, counter: u32) {
        if let Some(replica) = self.replicas.get(replica) {
            self.stamps
                .push(Stamp::new(time, counter, Dot::new(*replica, number)));
        }
    }
}

/// A change that has been checked, ready to be applied.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) head: Head,
    content: Cursor<'a>,
}

impl<'a> Change<'a> {
    /// Reads a change of any size: whoever takes changes from others bounds it first.
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, EngineError> {
        let mut head = Head::default();
        let content = check::change(bytes, check::DEPTH_MAX, &mut head)?;
        Ok(Self { head, content })
    }

    /// Adds to `version` the commits that a replica of it holds once it has merged the change; whether that added
    /// any.
    ///
    /// Writes count wherever they come from, but the claims leave out what is beaten by writes in the base: who lacks
    /// the base must not say that it has them.
    pub(crate) fn claim(&self, version: &mut VersionVector) -> bool {
        version.covers(&self.head.base) && version.union(&self.head.claims)
    }

    /// The stamps that the content refers to.
    pub(crate) fn stamps(&self) -> &[Stamp] {
        &self.head.stamps
    }

    /// The content, `None` if the change has none.
    pub(crate) fn content(&self) -> Option<DeltaReader<'_>> {
        (!self.content.is_at_end()).then_some(DeltaReader {
            cursor: self.content,
            stamps: &self.head.stamps,
        })
    }
}

/// Reads the content of a change that has been checked as a whole, so that its structure is sound: what can still
/// be wrong is that it is of another kind than the reader.
#[derive(Debug)]
pub struct DeltaReader<'a> {
    cursor: Cursor<'a>,
    stamps: &'a [Stamp],
}

impl<'a> DeltaReader<'a> {
    /// The kind of the next node, which is not read yet.
    pub(crate) fn kind(&self) -> Result<Kind, EngineError> {
        let mut ahead = self.cursor;
        Kind::from_number(ahead.byte("a node's kind")?)
            .ok_or_else(|| self.cursor.malformed("a node's kind"))
    }

    /// The next node's body, which must be of this kind.
    ///
    /// # Errors
    /// [`EngineError::Malformed`] if the node is of another kind: the change was made for another type.
    pub fn node(&mut self, kind: Kind) -> Result<Self, EngineError> {
        let start = self.cursor;
        if self.cursor.byte("a node's kind")? != kind.number() {
            return Err(start.malformed("a node of this document's kind"));
        }
        let length = self.cursor.varint("a node's length")?;
        Ok(Self {
            cursor: self.cursor.part(length, "a node")?,
            stamps: self.stamps,
        })
    }

    /// Whether everything has been read.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.cursor.is_at_end()
    }

    /// The stamp that is referred to next.
    ///
    /// # Errors
    /// [`EngineError::Malformed`] if the content has another shape than its kind says; never after a check.
    pub fn stamp(&mut self) -> Result<Stamp, EngineError> {
        let start = self.cursor;
        let index = self.cursor.varint("a stamp index")?;
        let stamp = usize::try_from(index)
            .ok()
            .and_then(|index| self.stamps.get(index));
        stamp
            .copied()
            .ok_or_else(|| start.malformed("a stamp index"))
    }

    /// Bytes with their length.
    ///
    /// # Errors
    /// As [`stamp`](Self::stamp).
    pub fn bytes(&mut self) -> Result<&'a [u8], EngineError> {
        let length = self.cursor.varint("a length")?;
        self.cursor.take(length, "bytes")
    }

    /// Bytes with their length, or that there are none.
    ///
    /// # Errors
    /// As [`stamp`](Self::stamp).
    pub fn optional_bytes(&mut self) -> Result<Option<&'a [u8]>, EngineError> {
        match self.cursor.varint("a length")?.checked_sub(1) {
            None => Ok(None),
            Some(length) => self.cursor.take(length, "bytes").map(Some),
        }
    }
}

/// A version: what a replica holds, and the digest of its content.
pub(crate) fn encode_version(vector: &VersionVector, digest: u64) -> Bytes {
    let mut out = Vec::new();
    put_len(&mut out, vector.iter().count());
    for (replica, ranges) in vector.iter() {
        out.extend_from_slice(&replica.0.to_be_bytes());
        put_ranges(&mut out, Some(ranges));
    }
    out.extend_from_slice(&digest.to_be_bytes());
    out.into()
}

/// Reads what [`encode_version`] wrote.
pub(crate) fn decode_version(bytes: &[u8]) -> Result<(VersionVector, u64), EngineError> {
    let mut cursor = Cursor::new(bytes);
    let mut vector = VersionVector::new();
    for _ in 0..cursor.varint("a version")? {
        let replica = cursor.replica()?;
        cursor.ranges(|first, last| vector.insert_range(replica, first, last))?;
    }
    let digest = cursor.array("a version's digest").map(u64::from_be_bytes)?;
    if !cursor.is_at_end() {
        return Err(cursor.malformed("the end of a version"));
    }
    Ok((vector, digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_round_trip_and_refuse_what_does_not_fit() {
        for value in [
            0,
            1,
            0x7f,
            0x80,
            0x3fff,
            0x4000,
            u64::from(u32::MAX),
            u64::MAX - 1,
            u64::MAX,
        ] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut cursor = Cursor::new(&bytes);
            assert_eq!(cursor.varint("it"), Ok(value));
            assert!(cursor.is_at_end());
        }
        let too_large = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02];
        let too_long = [0x80; 11];
        for bytes in [&too_large[..], &too_long[..], &[0x80][..], &[][..]] {
            assert!(Cursor::new(bytes).varint("it").is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_version_round_trips_and_its_truncations_are_refused() {
        let mut vector = VersionVector::new();
        for (replica, first, last) in [(7, 1, 3), (7, 5, 5), (9, 2, 400), (u64::MAX, 1, u64::MAX)] {
            vector.insert_range(ReplicaId(replica), first, last);
        }
        let bytes = encode_version(&vector, 0xabcd);
        assert_eq!(decode_version(&bytes), Ok((vector, 0xabcd)));
        for length in 0..bytes.len() {
            assert!(decode_version(&bytes[..length]).is_err());
        }
    }
}
