//! The byte layout of changes, snapshots and versions: the only place that knows it, with the writer, the reader, and
//! [`check`], which walks it without building anything.
//!
//! A change and a snapshot have one format. Numbers are LEB128 varints (7 bits a byte, low bits first); replica ids
//! are 8 bytes, big-endian; keys and values are whole MessagePack values.
//!
//! ```text
//! change   = 1, replica id, number,               the commit: one dot, which the change brings
//!            n, n x (time, counter),              its stamps
//!            content                              nothing if the change has no content
//!          | 3, as 1, but before the content
//!            n, n x replica id                    others that the content refers to, from 1; 0 is the author
//!          | 2, n, n x replica id,                ascending
//!            n x (ranges, ranges),                base: what a receiver must hold; claims: what it then holds too
//!            n, n x (replica index, number, time, counter),
//!            content
//!          | 4, as 2, but with a third of the ranges: horizon, below which things have been reclaimed;
//!            and before the content
//!            n, n x replica index                 the replicas that the content refers to, from 0
//! ranges   = n, n x (gap, length)                 ascending; gap from the end of the one before, at least 2 after
//!                                                 the first, which starts at 0; length at least 1
//! content  = node*                                kinds ascending, each once
//! node     = kind, length, body of so many bytes
//! body     = entries until its end                kind 1, last-writer-wins map
//!          | stamp, 0 | length + 1, value          kind 2, register; 0: cleared
//!          | [0, plus, minus], cell*              kind 3, counter: first what is reclaimed
//!          | key, tags                            kind 4, observed-remove set: these until its end
//!          | key, generation, tags, length, content            kind 5, observed-remove map: these until its end
//!          | key, causal length, stamp, length, content        kind 6, dictionary: these until its end
//!          | floors, runs, removals               kind 7, sequence (`sequence/wire.rs`)
//!          | (tag, length, content)*              kind 8, struct: tags ascending, each once
//! entry    = stamp, key, 0 | length + 1, value    0: removed
//! key      = length, MessagePack value            keys ascending by their bytes, each once
//! cell     = 1, stamp, number, plus, minus        one commit, and the author's commit to this counter before it
//!          | 2, stamp, plus, minus                all of an author's commits through this one
//! tags     = n, n x stamp,                        the commits that added
//!            n, n x (replica, number, stamp)      through which of whose commits somebody took away, and in which one
//! stamp    = index of a stamp                     (of the commit that wrote, where its time says nothing)
//! replica  = index of a replica
//! version  = n, n x (replica id, ranges), digest  8 bytes, big-endian
//! ```
//!
//! Every node says its kind and length, so that software which does not know the application's types can walk and
//! merge them. The encoding of equal content is equal, byte for byte: replicas and keys are sorted, stamps numbered
//! in the order in which the content uses them. (An application that keeps parts which its types do not know numbers
//! the stamps of those last.)

use bytes::Bytes;

use super::clock::{Dot, ReplicaId, Stamp};
use super::cursor::{Cursor, put_len, put_ranges};
use super::reader::{Context, DeltaReader};
use super::{VersionVector, check};
use crate::engine::EngineError;

/// First byte of a change that is one commit.
pub(super) const FORM_COMMIT: u8 = 1;
/// First byte of a change that brings any number of commits: a difference, or a snapshot.
pub(super) const FORM_STATE: u8 = 2;
/// As [`FORM_COMMIT`], with other replicas that the content refers to.
pub(super) const FORM_COMMIT_REFS: u8 = 3;
/// As [`FORM_STATE`], with a horizon, and replicas that the content refers to.
pub(super) const FORM_STATE_REFS: u8 = 4;

/// A change's head, read after it has been checked.
#[derive(Debug, Default)]
pub(crate) struct Head {
    replicas: Vec<ReplicaId>,
    stamps: Vec<Stamp>,
    /// The replicas that the content refers to.
    refs: Vec<ReplicaId>,
    /// The one commit that it brings, if it is of one.
    commit: Option<Dot>,
    /// What a receiver must hold for the claims to be true.
    pub(crate) base: VersionVector,
    /// What a receiver then holds too; empty for one commit.
    pub(crate) claims: VersionVector,
    /// Below it, things have been reclaimed.
    pub(crate) horizon: VersionVector,
}

impl check::Visitor for Head {
    fn replica(&mut self, replica: ReplicaId) {
        self.replicas.push(replica);
    }

    fn commit(&mut self, replica: ReplicaId, number: u64) {
        // Not among `replicas`: most changes are commits, and most of what they cost is what they allocate.
        self.refs.push(replica);
        self.commit = Some(Dot::new(replica, number));
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

    fn horizon(&mut self, replica: usize, first: u64, last: u64) {
        if let Some(replica) = self.replicas.get(replica) {
            self.horizon.insert_range(*replica, first, last);
        }
    }

    fn stamp(&mut self, replica: usize, number: u64, time: u64, counter: u32) {
        let author = self.commit.map(|dot| dot.replica);
        if let Some(replica) = author.or_else(|| self.replicas.get(replica).copied()) {
            self.stamps
                .push(Stamp::new(time, counter, Dot::new(replica, number)));
        }
    }

    fn foreign(&mut self, replica: ReplicaId) {
        self.refs.push(replica);
    }

    fn reference(&mut self, replica: usize) {
        self.refs.extend(self.replicas.get(replica));
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

    /// Reads what [`Mergeable::inverse`](super::Mergeable::inverse) wrote here.
    pub(crate) fn read_inverse(bytes: &'a [u8]) -> Result<Self, EngineError> {
        let mut head = Head::default();
        let (content, _) = check::head(bytes, &mut head)?;
        Ok(Self { head, content })
    }

    /// Adds to `version` the commits that a replica of it holds once it has merged the change; whether that added
    /// any.
    ///
    /// Writes count wherever they come from, but the claims leave out what is beaten by writes in the base: who lacks
    /// the base must not say that it has them.
    pub(crate) fn claim(&self, version: &mut VersionVector) -> bool {
        match self.head.commit {
            Some(dot) => version.insert(dot),
            None => version.covers(&self.head.base) && version.union(&self.head.claims),
        }
    }

    /// The commits that it brings.
    pub(crate) fn brings(&self) -> VersionVector {
        let mut brought = self.head.claims.clone();
        if let Some(dot) = self.head.commit {
            brought.insert(dot);
        }
        brought
    }

    /// Whether it is a whole state: whoever has nothing yet then has all that its writer had.
    pub(crate) fn is_whole(&self) -> bool {
        self.head.commit.is_none() && self.head.base.is_empty()
    }

    /// The stamps that the content refers to.
    pub(crate) fn stamps(&self) -> &[Stamp] {
        &self.head.stamps
    }

    /// What the content refers to, for a reader that has reclaimed what is below `horizon`.
    pub(crate) fn context<'b>(&'b self, horizon: &'b VersionVector, adopts: bool) -> Context<'b> {
        Context {
            stamps: &self.head.stamps,
            replicas: &self.head.refs,
            horizon,
            adopts,
            kept: Default::default(),
        }
    }

    /// The content, `None` if the change has none.
    pub(crate) fn content<'b>(&self, context: &'b Context<'b>) -> Option<DeltaReader<'b>>
    where
        'a: 'b,
    {
        (!self.content.is_at_end()).then(|| DeltaReader::new(self.content, context))
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
