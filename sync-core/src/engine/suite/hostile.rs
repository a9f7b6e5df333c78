//! Bytes that are known to ruin the engines of this crate where they are not checked beforehand: `engines.md`, section 5, and
//! what was found since. As an attacker would send them, with checksums that are right.

use bytes::Bytes;

/// Forged bytes, and what they would do to the engine on its own.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Hostile {
    /// What is wrong with them.
    pub what: &'static str,
    /// The bytes.
    pub bytes: Bytes,
}

impl Hostile {
    /// Forged bytes.
    #[must_use]
    pub fn new(what: &'static str, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { what, bytes }
    }
}

/// A number in LEB128.
fn number(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let [byte, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(byte & 0x7f);
            return out;
        }
        out.push(byte | 0x80);
    }
}

/// Bytes behind their length.
fn part(bytes: &[u8]) -> Vec<u8> {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    [&number(length), bytes].concat()
}

pub(super) mod typed {
    use super::{Hostile, number, part};

    pub(in super::super) fn changes() -> Vec<Hostile> {
        let nested = [[0x91].repeat(20_000), vec![0xc0]].concat();
        vec![
            Hostile::new(
                "a commit of 2^60 stamps",
                [&[1, 0, 0, 0, 0, 0, 0, 0, 7, 1][..], &number(1 << 60)].concat(),
            ),
            Hostile::new("nesting that overflows a stack", entry(&nested)),
        ]
    }

    /// A commit that writes a value, in MessagePack, to the entry 1 of a map.
    fn entry(value: &[u8]) -> Vec<u8> {
        let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
        let body = [&[0, 1, 1][..], &number(length + 1), value].concat();
        let head = [1, 0, 0, 0, 0, 0, 0, 0, 7, 1, 1, 1, 0];
        [&head[..], &[1], &part(&body)].concat()
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::engine::typed::Typed;
        use crate::engine::{Document, Engine, ReplicaSeed};
        use crate::mergeable::LwwMap;

        /// Otherwise what is forged would be refused for another reason.
        #[test]
        fn what_is_forged_is_a_change_but_for_what_is_wrong_with_it() {
            let engine = Typed::<LwwMap<u64, u64>>::new();
            let mut replica = engine.create(ReplicaSeed(1)).unwrap();
            assert!(replica.import(&[entry(&[5]).into()]).unwrap().changed);
            assert_eq!(
                engine.read(&replica, |map| map.get(&1).copied()),
                Ok(Some(5))
            );
        }
    }
}

#[cfg(feature = "yrs")]
pub(super) mod yrs {
    use super::Hostile;

    pub(in super::super) fn changes() -> Vec<Hostile> {
        // An entry of a map whose value is arrays in arrays.
        let mut nested = vec![1, 1, 1, 0, 0x28, 1, 1, b'm', 1, b'k', 1];
        nested.extend([117, 1].repeat(20_000));
        nested.extend([126, 0]);
        vec![
            Hostile::new("four bytes that reserve 5 GB", claims_much()),
            Hostile::new("nesting that overflows a stack", nested),
        ]
    }

    pub(in super::super) fn snapshots() -> Vec<Hostile> {
        vec![Hostile::new("four bytes that reserve 5 GB", claims_much())]
    }

    /// 268 million blocks.
    const fn claims_much() -> &'static [u8] {
        &[0xff, 0xff, 0xff, 0x7f]
    }
}

#[cfg(feature = "loro")]
pub(super) mod loro {
    use twox_hash::XxHash32;

    use super::{Hostile, number, part};

    /// One change of one peer without dependencies.
    const CHANGES: &[u8] = &[1, 7, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0];
    /// A value as it stands in the log, and one of nothing.
    const LORO_VALUE: u64 = 11;
    const DELETION: u64 = 8;
    const NOTHING: &[u8] = &[0];

    pub(in super::super) fn changes() -> Vec<Hostile> {
        // None on itself; a run of one change with 2^32 other dependencies.
        let mut dependencies = vec![1, 7, 0, 0, 0, 0, 0, 0, 0, 1];
        dependencies.extend([2, 0x80, 0x80, 0x80, 0x80, 0x10]);
        dependencies.extend([0; 60]);
        // A list of 2^28 values, which are not there.
        let long = [&[7][..], &number(1 << 28)].concat();
        let nested = [[7, 1].repeat(20_000), NOTHING.to_vec()].concat();
        vec![
            Hostile::new(
                "a hundred bytes that reserve 34 GB",
                update(&dependencies, 1, LORO_VALUE, NOTHING),
            ),
            Hostile::new(
                "a run of a billion operations",
                update(CHANGES, 1_000_000_000, DELETION, &[]),
            ),
            Hostile::new(
                "a list that reserves 4 GB",
                update(CHANGES, 1, LORO_VALUE, &long),
            ),
            Hostile::new(
                "nesting that overflows a stack",
                update(CHANGES, 1, LORO_VALUE, &nested),
            ),
        ]
    }

    /// An update of `n` operations, all alike, on the entry `map` of the map `map`.
    pub(in super::super) fn update(changes: &[u8], n: u64, kind: u64, values: &[u8]) -> Vec<u8> {
        let run = |value: u64| part(&[number(n << 1), number(value)].concat());
        let operations = [vec![1, 4], run(0), run(0), run(kind), run(1)].concat();
        let block = [
            // Counter, operations, lamport times, changes.
            [vec![0], number(n), vec![0], number(n), vec![1]].concat(),
            part(changes),
            part(&[1, 0, 0, 1, 0]),
            part(&[1, 4, 1, 0, 0, 0]),
            part(&part(b"map")),
            part(&[]),
            part(&operations),
            part(&[]),
            part(values),
        ];
        let body = [&[0, 4][..], &part(&block.concat())].concat();
        let checksum = XxHash32::oneshot(u32::from_le_bytes(*b"LORO"), &body);
        [b"loro", &[0; 12][..], &checksum.to_le_bytes(), &body].concat()
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::engine::loro::Loro;
        use crate::engine::{Document, Engine, ReplicaSeed};

        /// Otherwise what is forged would be refused for another reason.
        #[test]
        fn what_is_forged_is_loro_but_for_what_is_wrong_with_it() {
            let honest = update(CHANGES, 1, LORO_VALUE, NOTHING);
            let mut replica = Loro::new().create(ReplicaSeed(1)).unwrap();
            assert!(replica.import(&[honest.into()]).unwrap().changed);
            let json = Loro::new().to_json(&replica).unwrap();
            assert_eq!(json, r#"{"map":{"map":null}}"#);
        }
    }
}

#[cfg(feature = "automerge")]
pub(super) mod automerge {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;
    use sha2::{Digest, Sha256};

    use super::{Hostile, number, part};

    const ACTOR: &[u8] = b"somebody";

    pub(in super::super) fn changes() -> Vec<Hostile> {
        vec![Hostile::new("a run of 2^40 operations", change(1 << 40))]
    }

    pub(in super::super) fn snapshots() -> Vec<Hostile> {
        let zeros = vec![0; 100 * 1024 * 1024];
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        let deflated = encoder.write_all(&zeros).and_then(|()| encoder.finish());
        vec![
            Hostile::new(
                "a change that claims 2^31 operations",
                document(&[(19, run(&signed(1 << 31)))]),
            ),
            // Of bytes of values.
            Hostile::new(
                "a column that inflates to 100 MB",
                document(&[(87 | 8, deflated.unwrap_or_default())]),
            ),
        ]
    }

    /// A number of at least zero, as signed ones are written: the last byte has a bit for the sign.
    fn signed(value: u64) -> Vec<u8> {
        let mut out = number(value);
        if let Some(last) = out.last_mut()
            && *last & 0x40 != 0
        {
            *last |= 0x80;
            out.push(0);
        }
        out
    }

    /// One cell, once.
    fn run(cell: &[u8]) -> Vec<u8> {
        [&[1], cell].concat()
    }

    /// A change that writes nothing to the entry `k` of the root, `n` times.
    pub(in super::super) fn change(n: u64) -> Vec<u8> {
        let run = |cell: &[u8]| [&signed(n), cell].concat();
        let columns = [
            (21, run(&part(b"k"))),
            (52, number(n)),
            (66, run(&[1])),
            (86, run(&[0])),
            (112, run(&[0])),
        ];
        let head = [
            vec![0],
            part(ACTOR),
            // Its number, its first operation, its time, no message, nobody else.
            vec![1, 1, 0, 0, 0],
        ];
        chunk(
            1,
            &[head.concat(), heads(&columns), data(&columns)].concat(),
        )
    }

    /// A document of one change that says what these columns say.
    fn document(columns: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let mut all = vec![
            (1, run(&[0])),
            (3, run(&[1])),
            (19, run(&[1])),
            (35, run(&[0])),
            (64, run(&[0])),
            (86, run(&[7])),
        ];
        all.retain(|(kind, _)| columns.iter().all(|(other, _)| other != kind));
        all.extend_from_slice(columns);
        all.sort_by_key(|(kind, _)| *kind & !8);
        let head = [vec![1], part(ACTOR), vec![1], vec![0; 32]];
        chunk(
            0,
            &[head.concat(), heads(&all), vec![0], data(&all)].concat(),
        )
    }

    fn heads(columns: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let n = u64::try_from(columns.len()).unwrap_or(u64::MAX);
        let mut out = number(n);
        for (kind, column) in columns {
            out.extend(number(*kind));
            out.extend(number(u64::try_from(column.len()).unwrap_or(u64::MAX)));
        }
        out
    }

    fn data(columns: &[(u64, Vec<u8>)]) -> Vec<u8> {
        let columns = columns.iter().map(|(_, column)| column.as_slice());
        columns.collect::<Vec<_>>().concat()
    }

    fn chunk(kind: u8, data: &[u8]) -> Vec<u8> {
        let rest = [&[kind][..], &part(data)].concat();
        let hash = Sha256::digest(&rest);
        let checksum = hash.first_chunk::<4>().copied().unwrap_or_default();
        [&[0x85, 0x6f, 0x4a, 0x83][..], &checksum, &rest].concat()
    }

    #[cfg(test)]
    mod tests {
        use super::*;
        use crate::engine::automerge::Automerge;
        use crate::engine::{Document, Engine, ReplicaSeed};

        /// Otherwise what is forged would be refused for another reason.
        #[test]
        fn what_is_forged_is_automerge_but_for_what_is_wrong_with_it() {
            let mut replica = Automerge::new().create(ReplicaSeed(1)).unwrap();
            assert!(replica.import(&[change(1).into()]).unwrap().changed);
        }
    }
}
