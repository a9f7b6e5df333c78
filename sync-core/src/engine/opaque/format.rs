//! How changes and states of opaque documents are written.
//!
//! | kind | what follows the kind byte |
//! | --- | --- |
//! | 1, one change | replica (8 bytes, big endian), number, the application's bytes |
//! | 2, a state | number of snapshots, each: what it covers, its bytes; number of changes, each: replica, number, bytes; the
//! same for pending ones |
//!
//! Numbers are MessagePack integers in their shortest form, bytes inside a state are MessagePack `bin`; what a snapshot
//! covers is a version of mergeable documents (without digest). The name of a change, which is random and counts up, keeps
//! it from being taken twice.

use bytes::Bytes;

use crate::engine::EngineError;
use crate::mergeable::{Dot, ReplicaId, VersionVector, decode_version, encode_version};

const CHANGE: u8 = 1;
const STATE: u8 = 2;

/// A change of the application's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) dot: Dot,
    pub(super) bytes: Bytes,
}

/// What the application has made of some changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Base {
    pub(super) covers: VersionVector,
    pub(super) bytes: Bytes,
}

/// Snapshots, changes in order, and pending ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) bases: Vec<Base>,
    pub(super) changes: Vec<Entry>,
    pub(super) pending: Vec<Entry>,
}

/// Changes that were made together.
pub(super) fn write_changes(changes: &[Entry]) -> Bytes {
    if let [entry] = changes {
        let mut out = vec![CHANGE];
        out.extend_from_slice(&entry.dot.replica.0.to_be_bytes());
        put_number(&mut out, entry.dot.number);
        out.extend_from_slice(&entry.bytes);
        return out.into();
    }
    write_state(&[], changes, &[])
}

pub(super) fn write_state<'a>(
    bases: &[Base],
    changes: &[Entry],
    pending: impl IntoIterator<Item = &'a Entry, IntoIter: ExactSizeIterator>,
) -> Bytes {
    let mut out = vec![STATE];
    put_len(&mut out, bases.len());
    for base in bases {
        put_bytes(&mut out, &encode_version(&base.covers, 0));
        put_bytes(&mut out, &base.bytes);
    }
    put_entries(&mut out, changes.iter());
    put_entries(&mut out, pending.into_iter());
    out.into()
}

/// Reads a change or a state.
pub(super) fn read(bytes: &Bytes) -> Result<State, EngineError> {
    let mut reader = Reader { bytes, at: 1 };
    match bytes.first() {
        Some(&CHANGE) => {
            let replica = reader.take(8)?.try_into().map_err(|_| reader.malformed())?;
            let dot = Dot::new(ReplicaId(u64::from_be_bytes(replica)), reader.number()?);
            let bytes = bytes.slice(reader.at..);
            Ok(State {
                changes: vec![Entry { dot, bytes }],
                ..State::default()
            })
        }
        Some(&STATE) => {
            let mut state = State::default();
            for _ in 0..reader.number()? {
                let (covers, _) = decode_version(&reader.bytes()?)?;
                let bytes = reader.bytes()?;
                state.bases.push(Base { covers, bytes });
            }
            state.changes = reader.entries()?;
            state.pending = reader.entries()?;
            if reader.at < bytes.len() {
                return Err(reader.malformed());
            }
            Ok(state)
        }
        _ => Err(Reader { bytes, at: 0 }.malformed()),
    }
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    // Writing to memory does not fail.
    let _ = rmp::encode::write_uint(out, number);
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    put_number(out, u64::try_from(len).unwrap_or(u64::MAX));
}

fn put_entries<'a>(out: &mut Vec<u8>, entries: impl ExactSizeIterator<Item = &'a Entry>) {
    put_len(out, entries.len());
    for entry in entries {
        put_number(out, entry.dot.replica.0);
        put_number(out, entry.dot.number);
        put_bytes(out, &entry.bytes);
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    const fn malformed(&self) -> EngineError {
        EngineError::Malformed {
            what: "a change of an opaque document",
            offset: self.at,
        }
    }

    fn take(&mut self, n: usize) -> Result<&[u8], EngineError> {
        let end = self.at.checked_add(n);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| self.malformed())?;
        self.at += n;
        Ok(taken)
    }

    fn number(&mut self) -> Result<u64, EngineError> {
        let mut rest = self.bytes.get(self.at..).unwrap_or_default();
        let number = rmp::decode::read_int(&mut rest).map_err(|_| self.malformed())?;
        self.at = self.bytes.len() - rest.len();
        Ok(number)
    }

    fn entries(&mut self) -> Result<Vec<Entry>, EngineError> {
        let mut entries = Vec::new();
        for _ in 0..self.number()? {
            let dot = Dot::new(ReplicaId(self.number()?), self.number()?);
            let bytes = self.bytes()?;
            entries.push(Entry { dot, bytes });
        }
        Ok(entries)
    }

    fn bytes(&mut self) -> Result<Bytes, EngineError> {
        let len = self.number()?;
        let len = usize::try_from(len).map_err(|_| self.malformed())?;
        let start = self.at;
        self.take(len)?;
        Ok(self.bytes.slice(start..self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(replica: u64, number: u64, bytes: &'static str) -> Entry {
        Entry {
            dot: Dot::new(ReplicaId(replica), number),
            bytes: Bytes::from_static(bytes.as_bytes()),
        }
    }

    #[test]
    fn what_is_written_reads_back_and_its_truncations_do_not_panic() {
        let mut covers = VersionVector::new();
        covers.insert(Dot::new(ReplicaId(u64::MAX), 1));
        covers.insert(Dot::new(ReplicaId(3), 70_000));
        let bases = [Base {
            covers,
            bytes: Bytes::from_static(b"base"),
        }];
        let one = [entry(u64::MAX, u64::MAX, "one")];
        let two = [entry(1, 2, ""), entry(3, 300, "two")];
        for (bases, changes) in [
            (&bases[..], &two[..]),
            (&[], &one),
            (&bases, &[]),
            (&[], &[]),
        ] {
            let written = write_state(bases, changes, &one);
            let read_back = read(&written).unwrap();
            let expected = State {
                bases: bases.to_vec(),
                changes: changes.to_vec(),
                pending: one.to_vec(),
            };
            assert_eq!(read_back, expected);
            for length in 0..written.len() {
                assert!(read(&written.slice(..length)).is_err());
            }
            let mut longer = written.to_vec();
            longer.push(0);
            assert!(read(&longer.into()).is_err());
        }
        let written = write_changes(&one);
        assert_eq!(written.len(), 1 + 8 + 9 + 3);
        assert_eq!(read(&written).unwrap().changes, one);
    }

    #[test]
    fn nothing_is_reserved_for_counts_that_are_not_there() {
        let mut bytes = vec![STATE];
        put_number(&mut bytes, u64::MAX);
        assert!(read(&bytes.into()).is_err());
    }
}
