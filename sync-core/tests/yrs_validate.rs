//! The validator lets pass all that yrs writes, and nothing that hurts yrs.

#![cfg(feature = "yrs")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test harness"
)]

mod yrs_common;

use bytes::Bytes;
use proptest::prelude::*;
use sync_core::engine::yrs::{Yrs, YrsDocument};
use sync_core::engine::{Document, Edited, Engine, EngineError, NativeEngine, ValidateLimits};
use sync_core::yrs::types::ToJson;
use sync_core::yrs::{Map, ReadTxn, Text, Transact, Transaction, UndoManager, WriteTxn};
use yrs_common::{KINDS, Op, any_op, config, content, edit, replica};

fn validate(bytes: &[u8]) -> Result<(), EngineError> {
    Yrs::new().validate(bytes, &ValidateLimits::default())
}

/// What the validator finds wrong.
fn fault(bytes: &[u8]) -> &'static str {
    match validate(bytes) {
        Err(EngineError::Malformed { what, offset }) => {
            assert!(
                offset <= bytes.len(),
                "{what} at {offset} of {}",
                bytes.len()
            );
            what
        }
        Err(EngineError::LimitExceeded { what, .. }) => what,
        other => panic!("{other:?} for {bytes:?}"),
    }
}

/// An update of one client's blocks, without deletions.
fn update(n_blocks: u8, blocks: &[u8]) -> Vec<u8> {
    [&[1, n_blocks, 7, 0], blocks, &[0]].concat()
}

/// A block in the root `r`, of some content.
fn block(content: u8, bytes: &[u8]) -> Vec<u8> {
    [&[content, 1, 1, b'r'], bytes].concat()
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn whatever_yrs_writes_passes(
        history in proptest::collection::vec((0..3_usize, proptest::collection::vec(any_op(), 1..6)), 1..25),
    ) {
        let mut replicas = [replica(1), replica(2), replica(3)];
        for (author, ops) in &history {
            edit(&mut replicas[*author], ops);
            let changes = replicas[*author].drain().local;
            for change in &changes {
                prop_assert_eq!(validate(change), Ok(()));
            }
            let other = &mut replicas[(*author + 1) % 3];
            // Out of order for some: pending changes are written too.
            other.import(&changes).unwrap();
            prop_assert_eq!(validate(&other.snapshot().unwrap()), Ok(()));
            let version = other.version();
            if let Some(since) = replicas[*author].since(&version).unwrap() {
                prop_assert_eq!(validate(&since), Ok(()));
            }
        }
    }

    #[test]
    fn undo_and_redo_pass_and_converge(ops in proptest::collection::vec(any_op(), 1..12)) {
        let (mut a, mut b) = (replica(1), replica(2));
        let native = Yrs::new().native(&a);
        let mut undo = UndoManager::new();
        let text = native.get_or_insert_text("text");
        undo.expand_scope(&native, &text);
        undo.expand_scope(&native, &native.get_or_insert_map("map"));
        undo.expand_scope(&native, &native.get_or_insert_array("array"));
        for op in &ops {
            op.apply(&mut native.transact_mut());
            undo.reset();
        }
        undo.undo_blocking();
        undo.undo_blocking();
        text.push(&mut native.transact_mut(), "!");
        undo.undo_blocking();
        undo.redo_blocking();
        let changes = a.drain().local;
        for change in &changes {
            prop_assert_eq!(validate(change), Ok(()));
        }
        b.import(&changes).unwrap();
        prop_assert_eq!(validate(&a.snapshot().unwrap()), Ok(()));
        prop_assert_eq!(a.version(), b.version());
    }
}

#[test]
fn wrong_bytes_are_named() {
    let cases: &[(&[u8], &str)] = &[
        (&[], "number of clients"),
        (&[0], "number of clients with deletions"),
        (&[0, 0, 0], "end of the update"),
        // Four bytes for which yrs reserves 5 GB.
        (&[0xff, 0xff, 0xff, 0x7f], "number of blocks"),
        (&[1, 0xff, 0xff, 0xff, 0x7f], "client"),
        (&[0x80, 0x80, 0x80, 0x80, 0x80, 0x01], "number of clients"),
        (
            &[
                0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
            ],
            "number of clients",
        ),
        (&[1, 0, 7, 0, 0], "number of blocks"),
        // A client of 54 bits.
        (
            &[
                1, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x1f, 0, 0, 1, 0,
            ],
            "client",
        ),
        // Sections of one client twice, and of clients in ascending order.
        (&[2, 1, 7, 0, 0, 1, 1, 7, 0, 0, 1, 0], "order of clients"),
        (&[2, 1, 7, 0, 0, 1, 1, 8, 0, 0, 1, 0], "order of clients"),
        // Clocks and lengths at which yrs would count over.
        (&[1, 1, 7, 0xff, 0xff, 0xff, 0xff, 0x07, 0, 1, 0], "clock"),
        (
            &[1, 1, 7, 1, 0, 0xff, 0xff, 0xff, 0xff, 0x07, 0],
            "length of a block",
        ),
        (
            &[1, 1, 7, 1, 10, 0xff, 0xff, 0xff, 0xff, 0x0f, 0],
            "length of a block",
        ),
        (&[1, 1, 7, 0, 0, 0, 0], "length of a block"),
        (&[1, 1, 7, 0, 10, 0, 0], "length of a block"),
        (&update(1, &block(1, &[0])), "number of deleted elements"),
        (&update(1, &block(11, &[])), "block content"),
        (&update(1, &block(2, &[0, 1, b'1'])), "block content"),
        (
            &update(1, &block(10 | 0x20, &[1, b'k', 1])),
            "block content",
        ),
        (&update(1, &block(0x14, &[1, b'x'])), "block info"),
        (&update(1, &[4, 2, 1, b'r', 1, b'x']), "kind of parent"),
        (&update(1, &block(4, &[1, 0xff])), "text"),
        (&update(1, &block(4, &[0])), "blocks without elements"),
        (
            &update(1, &block(3, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0])),
            "binary",
        ),
        (&update(1, &block(5, &[1, b'{'])), "JSON"),
        (&update(1, &block(7, &[5, 0])), "type of a container"),
        (&update(1, &block(7, &[7, 0, 1, 0])), "type of a container"),
        (&update(1, &block(7, &[15])), "type of a container"),
        (&update(1, &block(8, &[0])), "number of values"),
        (
            &update(1, &block(8, &[0xff, 0xff, 0xff, 0xff, 0x0f, 126])),
            "value",
        ),
        (
            &update(1, &block(8, &[1, 117, 0xff, 0xff, 0xff, 0xff, 0x0f, 126])),
            "value",
        ),
        (
            &update(1, &block(8, &[1, 118, 0xff, 0xff, 0xff, 0xff, 0x0f, 0])),
            "value",
        ),
        (&update(1, &block(8, &[1, 115])), "value"),
        (
            &update(
                1,
                &block(
                    8,
                    &[1, 125, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 0],
                ),
            ),
            "integer",
        ),
        // Deletions: empty, beyond the last clock, descending, overlapping, of one client twice, in no order.
        (&[0, 1, 7, 1, 0, 0], "length of a deletion"),
        (
            &[0, 1, 7, 1, 1, 0xff, 0xff, 0xff, 0xff, 0x07],
            "length of a deletion",
        ),
        (&[0, 1, 7, 2, 5, 1, 0, 1], "order of deletions"),
        (&[0, 1, 7, 2, 0, 5, 4, 1], "order of deletions"),
        (
            &[0, 2, 7, 1, 0, 1, 7, 1, 5, 1],
            "order of clients of deletions",
        ),
        (
            &[0, 3, 7, 1, 0, 1, 9, 1, 0, 1, 8, 1, 0, 1],
            "order of clients of deletions",
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(&fault(bytes), expected, "{bytes:?}");
        assert!(matches!(
            replica(1).import(&[Bytes::copy_from_slice(bytes)]),
            Err(EngineError::Malformed { .. })
        ));
    }
}

#[test]
fn every_prefix_of_a_change_is_refused() {
    let mut a = replica(1);
    let ops: Vec<Op> = (0..KINDS).map(|kind| Op { kind, at: 3, n: 5 }).collect();
    edit(&mut a, &ops);
    let change = a.drain().local.remove(0);
    for end in 0..change.len() {
        assert!(
            validate(&change[..end]).is_err(),
            "{end} of {}",
            change.len()
        );
    }
}

#[test]
fn deep_values_are_refused_before_they_overflow_a_stack() {
    let limited = "nesting of a value";
    let arrays = [117, 1].repeat(20_000);
    assert_eq!(
        fault(&update(
            1,
            &block(8, &[&[1], arrays.as_slice(), &[126]].concat())
        )),
        limited
    );
    let maps = [118, 1, 0].repeat(20_000);
    assert_eq!(
        fault(&update(
            1,
            &block(8, &[&[1], maps.as_slice(), &[126]].concat())
        )),
        limited
    );
    let json = "[".repeat(10_000);
    let embed = [&[0x90, 0x4e], json.as_bytes()].concat();
    assert_eq!(fault(&update(1, &block(5, &embed))), limited);
    assert_eq!(
        fault(&update(
            1,
            &block(9, &[&[0], arrays.as_slice(), &[126]].concat())
        )),
        limited
    );
    // At the limit, yrs reads it.
    let allowed = [&[1], [117, 1].repeat(64).as_slice(), &[126]].concat();
    let change = update(1, &block(8, &allowed));
    assert!(replica(1).import(&[Bytes::from(change)]).unwrap().changed);
}

/// `n` maps, each in the one before.
fn nested_maps(n: u16) -> Vec<u8> {
    let mut bytes = vec![1];
    var(&mut bytes, n);
    bytes.extend_from_slice(&[7, 0, 0x27, 1, 1, b'r', 1, b'k', 1]);
    for parent in 0..n - 1 {
        bytes.extend_from_slice(&[0x27, 0, 7]);
        var(&mut bytes, parent);
        bytes.extend_from_slice(&[1, b'k', 1]);
    }
    bytes.push(0);
    bytes
}

/// A number in lib0's variable length.
fn var(bytes: &mut Vec<u8>, n: u16) {
    let [low, high] = [n % 128, n / 128].map(|part| part.to_le_bytes());
    match high {
        [0, 0] => bytes.push(low[0]),
        [high, 0] if high < 128 => bytes.extend_from_slice(&[low[0] | 0x80, high]),
        _ => bytes.extend_from_slice(&[low[0] | 0x80, high[0] | 0x80, high[0] >> 7 | high[1] << 1]),
    }
}

#[test]
fn deep_containers_are_refused() {
    assert_eq!(validate(&nested_maps(65)), Ok(()));
    assert_eq!(fault(&nested_maps(66)), "nesting of containers");
    assert_eq!(fault(&nested_maps(30_000)), "nesting of containers");
    // Each an array with a number in it, and the next one beside the number.
    let mut bytes = vec![1, 140, 1, 7, 0, 7, 1, 1, b'r', 0];
    for parent in (0..138).step_by(2) {
        bytes.extend_from_slice(&[8, 0, 7]);
        var(&mut bytes, parent);
        bytes.extend_from_slice(&[1, 126, 0x87, 7]);
        var(&mut bytes, parent + 1);
        bytes.push(0);
    }
    bytes.extend_from_slice(&[0, 1, 0]);
    assert_eq!(fault(&bytes), "nesting of containers");
    // Side by side they may be as many as they like.
    let mut bytes = vec![1];
    var(&mut bytes, 1_000);
    bytes.extend_from_slice(&[7, 0, 7, 1, 1, b'r', 0]);
    for left in 0..999 {
        bytes.extend_from_slice(&[0x87, 7]);
        var(&mut bytes, left);
        bytes.push(0);
    }
    bytes.push(0);
    assert_eq!(validate(&bytes), Ok(()));
    assert!(replica(1).import(&[Bytes::from(bytes)]).unwrap().changed);
    // Two that contain each other are in no document.
    let circle = [1, 66, 7, 0, 7, 0, 7, 1, 0, 7, 0, 7, 0, 0];
    let others = [7, 1, 1, b'r', 0].repeat(64);
    let bytes = [circle.as_slice(), &others, &[0]].concat();
    assert_eq!(validate(&bytes), Ok(()));
    assert!(replica(1).import(&[Bytes::from(bytes)]).unwrap().pending);
}

#[test]
fn size_and_number_of_subdocuments_are_limited() {
    let change = update(1, &block(4, &[3, b'a', b'b', b'c']));
    let limits = |bytes_max| {
        let mut limits = ValidateLimits::default();
        limits.bytes_max = bytes_max;
        limits
    };
    assert_eq!(Yrs::new().validate(&change, &limits(change.len())), Ok(()));
    assert!(matches!(
        Yrs::new().validate(&change, &limits(change.len() - 1)),
        Err(EngineError::LimitExceeded { .. })
    ));
    let n_blocks = [0x81, 0x80, 0x04];
    let subdocuments = [0x89, 7, 0, 0, 126].repeat(65_537);
    let many = [
        &[1],
        n_blocks.as_slice(),
        &[7, 0],
        subdocuments.as_slice(),
        &[0],
    ]
    .concat();
    assert_eq!(fault(&many), "number of subdocuments");
}

/// Elements that are there may come again, in front of new ones of the same block. What the block says of where it is was
/// believed then, and what is there too: the list of one container went on in another, and yrs panicked when it was read.
#[test]
fn a_block_that_begins_with_known_elements_goes_on_where_they_are() {
    let numbers = [1, 1, 7, 0, 8, 1, 5, b'a', b'r', b'r', b'a', b'y', 3];
    let numbers = [&numbers[..], &[125, 1, 125, 2, 125, 3], &[0]].concat();
    // The same clocks, and four more, as text in another root, or in a container, or under a key.
    let root = [1, 1, 7, 0, 4, 1, 4, b't', b'e', b'x', b't', 7];
    let inner = [1, 1, 7, 0, 4, 0, 9, 0, 7];
    let key = [1, 1, 7, 0, 0x24, 1, 3, b'm', b'a', b'p', 1, b'k', 7];
    for head in [&root[..], &inner, &key] {
        let other = [head, b"letters", &[0]].concat();
        let (mut document, mut at_once) = (replica(1), replica(2));
        let container = Bytes::from_static(&[1, 1, 9, 0, 0x27, 1, 1, b'r', 1, b'k', 1, 0]);
        let changes = [container, numbers.clone().into(), other.into()];
        for change in &changes {
            document.import(std::slice::from_ref(change)).unwrap();
        }
        at_once.import(&changes).unwrap();
        let read = |document: &YrsDocument| {
            let read = |txn: &Transaction<'_>| txn.get_array("array").unwrap().to_json(txn);
            Yrs::new().read(document, read).unwrap().to_string()
        };
        let found = read(&document);
        assert!(found.starts_with("[1, 2, 3, "), "{found}");
        assert_eq!(read(&at_once), found);
        let mut loaded = replica(3);
        loaded
            .import_snapshot(&document.snapshot().unwrap())
            .unwrap();
        assert_eq!(loaded.version(), document.version());
        assert_eq!(read(&loaded), found);
    }
}

/// Five bytes of text, with a character of two UTF-16 units, among numbers: yrs reads that array for ever.
#[test]
fn an_array_that_somebody_wrote_text_into_is_read_as_json() {
    // An array under a key of a map, and in it a number and the text.
    let array = [1, 1, 7, 0, 0x27, 1, 1, b'm', 1, b'k', 0, 0];
    let number = [1, 1, 7, 1, 8, 0, 7, 0, 1, 125, 1, 0];
    let text = [1, 1, 8, 0, 4, 0, 7, 0, 4, 0xf0, 0x9f, 0x98, 0x80, 0];
    let mut document = replica(1);
    for change in [&array[..], &number] {
        document.import(&[Bytes::copy_from_slice(change)]).unwrap();
    }
    let json = |document: &YrsDocument| Yrs::new().to_json(document).unwrap();
    assert_eq!(json(&document), r#"{"m":{"k":[1]}}"#);
    document.import(&[Bytes::copy_from_slice(&text)]).unwrap();
    assert_eq!(json(&document), r#"{"m":{"k":"😀"}}"#);
}

/// What honest replicas send twice, cut where they like, says the same.
#[test]
fn a_state_that_comes_on_top_of_a_part_of_itself_is_the_state() {
    let mut random = Random(0xc07);
    for _ in 0..40 {
        let mut writer = replica(1);
        let mut parts = Vec::new();
        for _ in 0..12 {
            edit(&mut writer, &[random.op(), random.op()]);
            parts.extend(writer.drain().local);
        }
        let whole = writer.snapshot().unwrap();
        for n in 0..parts.len() {
            let mut reader = replica(2);
            reader.import(&parts[..n]).unwrap();
            reader.import_snapshot(&whole).unwrap();
            assert_eq!(reader.version(), writer.version());
            assert_eq!(content(&reader), content(&writer));
        }
    }
}

/// xorshift64: the same cases on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n.max(1)).unwrap()).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[3]
    }

    /// Bytes changed in up to three places.
    fn mutate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.below(3) {
            let at = self.below(bytes.len());
            match self.below(6) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.byte(),
                2 => bytes.insert(at, self.byte()),
                3 if bytes.len() > 1 => {
                    bytes.remove(at);
                }
                4 => {
                    let (from, n) = (self.below(bytes.len()), self.below(8));
                    let piece: Vec<u8> = bytes[from..].iter().copied().take(n).collect();
                    bytes.splice(at..at, piece);
                }
                _ => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, 10][self.below(6)],
            }
        }
        bytes
    }

    fn op(&mut self) -> Op {
        Op {
            kind: self.byte() % KINDS,
            at: u16::from(self.byte()),
            n: self.byte(),
        }
    }
}

/// Scenario 51, for this engine: what passes can be imported, edited, saved and loaded.
#[test]
fn mutated_updates_that_pass_harm_nothing() {
    let mut random = Random(0x5eed);
    let (mut n_passed, mut n_loaded) = (0, 0);
    for round in 0..60 {
        let (mut a, mut b) = (replica(1), replica(2));
        let mut updates = Vec::new();
        for _ in 0..4 {
            for document in [&mut a, &mut b] {
                edit(document, &[random.op(), random.op(), random.op()]);
                updates.extend(document.drain().local);
            }
        }
        let base = a.snapshot().unwrap();
        a.import(&updates).unwrap();
        updates.push(a.snapshot().unwrap());
        for _ in 0..150 {
            let pick = random.below(updates.len());
            let mutated = Bytes::from(random.mutate(&updates[pick]));
            if validate(&mutated).is_err() {
                continue;
            }
            n_passed += 1;
            let mut document = replica(3);
            document.import_snapshot(&base).unwrap();
            // A parent that is no container, or clocks that are taken, only the document can tell.
            let import =
                |document: &mut YrsDocument, changes: &[Bytes]| match document.import(changes) {
                    Ok(imported) => Some(imported),
                    Err(EngineError::Malformed {
                        what: "parent of a block" | "clocks of a block",
                        ..
                    }) => None,
                    Err(other) => panic!("{other:?} in round {round}: {mutated:?}"),
                };
            let Some(imported) = import(&mut document, std::slice::from_ref(&mutated)) else {
                continue;
            };
            let edited = Yrs::new().edit(&mut document, usize::MAX, |txn| {
                txn.get_or_insert_text("text").push(txn, "more");
                txn.get_or_insert_map("map").insert(txn, "k0", "more");
            });
            assert_eq!(edited, Ok(Edited::Done(())), "round {round}: {mutated:?}");
            let snapshot = document.snapshot().unwrap();
            assert_eq!(validate(&snapshot), Ok(()), "round {round}: {mutated:?}");
            if !imported.pending {
                let mut loaded = replica(4);
                loaded.import_snapshot(&snapshot).unwrap();
                assert_eq!(loaded.version(), document.version(), "{round} {mutated:?}");
                n_loaded += 1;
            }
            // A mutation that took honest ids may have made other things of them.
            import(&mut document, &updates);
        }
    }
    assert!(
        n_passed > 1_000 && n_loaded > 500,
        "{n_passed} mutations pass, {n_loaded} load again"
    );
}
