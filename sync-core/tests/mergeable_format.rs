//! The bytes, pinned, and what happens to bytes that are not.

#![allow(clippy::unwrap_used, reason = "test harness")]
#![allow(clippy::indexing_slicing, reason = "test harness")]

mod mergeable_support;

use bytes::Bytes;
use mergeable_support::{
    Map, Random, assert_converged, content, edit, insert, remove, replica, sync,
};
use proptest::prelude::*;
use sync_core::engine::typed::Typed;
use sync_core::engine::{Document, Engine, EngineError, ValidateLimits, Validator, Version};
use sync_core::mergeable::{LwwMap, MergeableValidator};

const NOW: u64 = 1_800_000_000_000;

/// The layout at the top of `mergeable/format.rs`, byte for byte.
#[test]
fn a_change_a_snapshot_and_a_version_have_these_bytes() {
    let mut a = replica::<u8, String>(0x0102_0304_0506_0708);
    insert(&mut a, 300, 5, "old".into());
    let change = edit(&mut a, 301, |map| {
        map.insert(5, "hi".into()).unwrap();
        map.remove(&200).unwrap();
    });
    let time = [0xad, 0x02];
    let replica_id = [1, 2, 3, 4, 5, 6, 7, 8];
    let entries = [&[0, 1, 5, 4, 0xa2, b'h', b'i'][..], &[0, 2, 0xcc, 200, 0]].concat();
    let node = [&[1, 12][..], &entries].concat();
    assert_eq!(
        change[0],
        [&[1][..], &replica_id, &[2, 1], &time, &[0], &node].concat()
    );

    let claims = [0, 1, 1, 2];
    let snapshot = [
        &[2, 1][..],
        &replica_id,
        &claims,
        &[1, 0, 2],
        &time,
        &[0],
        &node,
    ]
    .concat();
    assert_eq!(a.snapshot().unwrap(), snapshot);

    let version = a.version().0;
    assert_eq!(version[..12], [&[1][..], &replica_id, &[1, 1, 2]].concat());
    assert_eq!(version.len(), 12 + 8);
}

/// Size of the usual change: a cell of a grid.
#[test]
fn a_cell_of_a_grid_costs_28_bytes() {
    let mut grid = replica::<(u8, u8), char>(u128::from(u64::MAX));
    assert_eq!(insert(&mut grid, NOW, (1, 1), 'X').len(), 28);
}

fn check(change: &[u8]) -> Result<(), EngineError> {
    let limits = ValidateLimits::default();
    let typed = Engine::validate(&Typed::<LwwMap<u8, String>>::new(), change, &limits);
    assert_eq!(
        MergeableValidator::new().validate(change, &limits),
        typed,
        "both sides check alike"
    );
    typed
}

#[test]
fn limits_are_checked() {
    let mut a = replica::<u8, Vec<Vec<u8>>>(1);
    let change = insert(&mut a, NOW, 1, vec![vec![1]]);
    let mut limits = ValidateLimits::default();
    limits.bytes_max = change.len();
    limits.depth_max = 2;
    let validator = MergeableValidator::new();
    assert_eq!(validator.validate(&change, &limits), Ok(()));
    limits.depth_max = 1;
    assert!(matches!(
        validator.validate(&change, &limits),
        Err(EngineError::LimitExceeded { max: 1, .. })
    ));
    limits.depth_max = 64;
    limits.bytes_max -= 1;
    assert!(matches!(
        validator.validate(&change, &limits),
        Err(EngineError::LimitExceeded { .. })
    ));
}

#[test]
fn broken_rules_are_refused_by_name() {
    let commit = |number: &[u8], stamps: &[u8], node: &[u8]| {
        [&[1, 0, 0, 0, 0, 0, 0, 0, 9][..], number, stamps, node].concat()
    };
    let stamp = [1, 5, 0];
    assert_eq!(check(&commit(&[1], &stamp, &[])), Ok(()));
    assert_eq!(check(&commit(&[1], &stamp, &[1, 4, 0, 1, 7, 0])), Ok(()));
    let late = [1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0];
    let keys_down = [1, 8, 0, 1, 7, 0, 0, 1, 6, 0];
    let keys_twice = [1, 8, 0, 1, 7, 0, 0, 1, 7, 0];
    for (what, bytes) in [
        ("a change", vec![]),
        ("a change's form", vec![5]),
        ("a commit number", commit(&[0], &stamp, &[])),
        ("a stamp's time", commit(&[1], &late, &[])),
        (
            "a stamp's counter",
            commit(&[1], &[1, 5, 0xff, 0xff, 0xff, 0xff, 0x7f], &[]),
        ),
        ("a node's kind", commit(&[1], &stamp, &[0, 0])),
        ("a node's kind", commit(&[1], &stamp, &[9, 0])),
        ("a node", commit(&[1], &stamp, &[1, 9, 0])),
        ("a stamp index", commit(&[1], &stamp, &[1, 4, 1, 1, 7, 0])),
        ("keys in ascending order", commit(&[1], &stamp, &keys_down)),
        ("keys in ascending order", commit(&[1], &stamp, &keys_twice)),
        (
            "a MessagePack value",
            commit(&[1], &stamp, &[1, 3, 0, 0, 0]),
        ),
        (
            "the end of a MessagePack value",
            commit(&[1], &stamp, &[1, 5, 0, 2, 7, 7, 0]),
        ),
        (
            "nodes in ascending order",
            commit(&[1], &stamp, &[1, 4, 0, 1, 7, 0, 1, 0]),
        ),
        (
            "replica ids in ascending order",
            [vec![2, 2], vec![0; 16]].concat(),
        ),
        (
            "ranges of commit numbers",
            [vec![2, 1], vec![0; 8], vec![1, 0, 1]].concat(),
        ),
        (
            "ranges of commit numbers",
            [vec![2, 1], vec![0; 8], vec![2, 1, 1, 1, 1]].concat(),
        ),
        ("a replica index", vec![2, 0, 1, 0, 1, 1, 0]),
    ] {
        match check(&bytes) {
            Err(EngineError::Malformed { what: found, .. }) => assert_eq!(found, what, "{bytes:?}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// A key that this application would write differently is another entry, as for everybody who merges without types:
/// it is passed on, and what is shown does not depend on which arrived last.
#[test]
fn a_key_in_other_bytes_is_kept_but_not_shown() {
    let change = |number: u8, key: &[u8], value: u8| {
        let size = u8::try_from(key.len()).unwrap();
        let entry = [&[0, size][..], key, &[2, value]].concat();
        let node = [&[1, size + 4][..], &entry].concat();
        Bytes::from(
            [
                &[1, 0, 0, 0, 0, 0, 0, 0, 9, number, 1, number, 0][..],
                &node,
            ]
            .concat(),
        )
    };
    let (usual, other) = (change(1, &[5], 1), change(2, &[0xcc, 5], 2));
    let mut ends = Vec::new();
    for order in [[&usual, &other], [&other, &usual]] {
        let mut document = replica::<u8, u8>(1);
        document.import(&order.map(Clone::clone)).unwrap();
        assert_eq!(content(&document), [(5, 1)]);
        ends.push(document.snapshot().unwrap());
    }
    assert_eq!(ends[0], ends[1]);
    assert!(ends[0].windows(3).any(|bytes| bytes == [0xcc, 5, 2]));
}

/// A few bytes that announce much cost nothing.
#[test]
fn counts_beyond_the_input_are_refused_before_anything_is_made_for_them() {
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let heads: [&[u8]; 5] = [
        &[1, 0, 0, 0, 0, 0, 0, 0, 9, 1],
        &[2],
        &[2, 1, 0, 0, 0, 0, 0, 0, 0, 9],
        &[2, 0],
        &[1, 0, 0, 0, 0, 0, 0, 0, 9, 1, 0, 1],
    ];
    for head in heads {
        let bytes = Bytes::from([head, &huge].concat());
        assert!(matches!(check(&bytes), Err(EngineError::Malformed { .. })));
        assert!(replica::<u8, String>(1).import(&[bytes]).is_err());
    }
    let version = Version(Bytes::copy_from_slice(&huge));
    assert!(replica::<u8, String>(1).since(&version).is_err());
}

/// Many ranges that all have to be merged with each other: linear, where one by one takes minutes.
#[test]
fn hundreds_of_thousands_of_forged_ranges_are_merged_in_no_time() {
    let forged = |first: u8| {
        let n = 250_000_u32;
        let count = [0x90, 0xa1, 0x0f];
        let ranges: Vec<u8> = (0..n)
            .flat_map(|index| [if index == 0 { first } else { 3 }, 1])
            .collect();
        Bytes::from(
            [
                &[2, 1, 0, 0, 0, 0, 0, 0, 0, 9, 0][..],
                &count,
                &ranges,
                &[0],
            ]
            .concat(),
        )
    };
    let mut document = replica::<u8, String>(1);
    for first in [1, 3, 1] {
        document.import(&[forged(first)]).unwrap();
    }
    assert!(content(&document).is_empty());
    let mut other = replica::<u8, String>(2);
    sync(&mut document, &mut other);
    assert_converged(&mut document, &mut other);
}

/// Changes and snapshots of a small history, to be broken.
fn corpus() -> Vec<Bytes> {
    let mut a = replica::<u8, String>(0x00ff_0000_1234);
    let mut b = replica::<u8, String>(0x0001_0000_4321);
    let mut corpus = Vec::new();
    for round in 0..6 {
        corpus.push(insert(
            &mut a,
            NOW + u64::from(round),
            round,
            "x".repeat(round.into()),
        ));
        corpus.push(insert(&mut b, NOW, 3, format!("b{round}")));
        corpus.push(remove(&mut b, NOW, &(round / 2)));
        corpus.extend(a.since(&b.version()).unwrap());
        sync(&mut b, &mut a);
    }
    corpus.push(a.snapshot().unwrap());
    corpus.push(b.snapshot().unwrap());
    corpus
}

fn mutate(random: &mut Random, bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().max(1));
        let byte = u8::try_from(random.below(256)).unwrap();
        match random.below(5) {
            _ if bytes.is_empty() => bytes.push(byte),
            0 => bytes[at] ^= 1 << (byte % 8),
            1 => bytes[at] = byte,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, byte),
            _ => drop(bytes.drain(at..(at + usize::from(byte) % 9).min(bytes.len()))),
        }
    }
    bytes.into()
}

/// Scenario 51, for this engine: what is accepted merges like any change, what is refused leaves no trace.
#[test]
fn broken_bytes_are_refused_or_merge_but_never_panic_and_never_diverge() {
    let corpus = corpus();
    let mut random = Random(51);
    let mut n_accepted = 0;
    for round in 0..2_000 {
        let mut document: Map<u8, String> = replica(1);
        document.import(&corpus).unwrap();
        let mut accepted = Vec::new();
        for _ in 0..10 {
            let whole = &corpus[random.below(corpus.len())];
            let broken = mutate(&mut random, whole);
            let before = document.version();
            let imported = document.import(std::slice::from_ref(&broken));
            assert_eq!(
                imported.clone().map(|_| ()),
                check(&broken),
                "round {round}: {broken:?}"
            );
            match imported {
                Ok(_) => accepted.push(broken),
                Err(_) => assert_eq!(document.version(), before),
            }
        }
        n_accepted += accepted.len();

        // Still usable, and everybody who gets the same bytes, in another order too, has the same.
        insert(&mut document, NOW, 9, "after".into());
        let mut loaded: Map<u8, String> = replica(2);
        loaded
            .import_snapshot(&document.snapshot().unwrap())
            .unwrap();
        assert_converged(&mut document, &mut loaded);
        let (mut left, mut right): (Map<u8, String>, Map<u8, String>) = (replica(3), replica(4));
        left.import(&corpus).unwrap();
        right.import(&corpus).unwrap();
        left.import(&accepted).unwrap();
        accepted.reverse();
        right.import(&accepted).unwrap();
        assert_eq!(content(&left), content(&right), "round {round}");
        left.since(&right.version()).unwrap();
    }
    // Otherwise the second half of the test tests nothing.
    assert!(n_accepted > 1_000, "{n_accepted}");
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), form in 0..4_u8) {
        for bytes in [bytes.clone(), [vec![form], bytes].concat()] {
            let bytes = Bytes::from(bytes);
            let mut document: Map<u8, String> = replica(1);
            let imported = document.import(std::slice::from_ref(&bytes)).map(|_| ());
            prop_assert_eq!(imported, check(&bytes));
            let _ = document.since(&Version(bytes));
        }
    }
}
