//! Bytes that nobody honest wrote, for every type.

#![allow(clippy::unwrap_used, reason = "test harness")]
#![allow(clippy::indexing_slicing, reason = "test harness")]

mod mergeable_cases;
mod mergeable_support;

use bytes::Bytes;
use mergeable_cases::{Case, for_case};
use mergeable_support::Random;
use sync_core::engine::typed::{Typed, TypedDocument};
use sync_core::engine::{
    Document, Engine, EngineError, Folder, ReplicaSeed, ValidateLimits, Validator,
};
use sync_core::mergeable::{MergeableValidator, Sequence};

fn replica<T: Case>(seed: u128) -> TypedDocument<T> {
    Typed::new().create(ReplicaSeed(seed)).unwrap()
}

fn corpus<T: Case>(random: &mut Random) -> Vec<Bytes> {
    let (mut a, mut b) = (replica::<T>(0x1234), replica::<T>(0x4321));
    let mut corpus = Vec::new();
    for _ in 0..6 {
        for one in [&mut a, &mut b] {
            Typed::new()
                .edit(one, usize::MAX, |value: &mut T| value.mutate(random))
                .unwrap();
            corpus.extend(one.drain().local);
        }
        let difference = a.since(&b.version()).unwrap();
        b.import(difference.as_slice()).unwrap();
        corpus.extend(difference);
        let difference = b.since(&a.version()).unwrap();
        a.import(difference.as_slice()).unwrap();
    }
    corpus.push(a.snapshot().unwrap());
    let horizon = a.version();
    a.compact(&horizon).unwrap();
    corpus.push(a.snapshot().unwrap());
    corpus
}

fn mutate(random: &mut Random, bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len().max(1));
        let byte = u8::try_from(random.below(256)).unwrap();
        match random.below(6) {
            _ if bytes.is_empty() => bytes.push(byte),
            0 => bytes[at] ^= 1 << (byte % 8),
            1 => bytes[at] = byte,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, byte),
            4 => bytes[at] = bytes[at].wrapping_add(1),
            _ => drop(bytes.drain(at..(at + usize::from(byte) % 9).min(bytes.len()))),
        }
    }
    bytes.into()
}

/// What is accepted merges, what is refused leaves no trace; server and client judge alike; everybody goes on.
fn case<T: Case>(seed: u64) -> usize {
    let mut random = Random(seed);
    let corpus = corpus::<T>(&mut random);
    let server = MergeableValidator::new();
    let limits = ValidateLimits::default();
    let mut document = replica::<T>(1);
    let mut log: Vec<Bytes> = corpus.clone();
    let mut n_accepted = 0;
    // What only whole states do, adopting a horizon that nobody has, is left to the first half.
    document.import(&corpus).unwrap();
    for _ in 0..30 {
        let whole = &corpus[random.below(corpus.len())];
        let broken = mutate(&mut random, whole);
        let verdict = server.validate(&broken, &limits);
        assert_eq!(
            Engine::validate(&Typed::<T>::new(), &broken, &limits),
            verdict
        );
        let before = (document.version(), document.snapshot());
        match document.import(std::slice::from_ref(&broken)) {
            Ok(_) => {
                assert_eq!(verdict, Ok(()));
                n_accepted += 1;
                log.push(broken);
            }
            // A horizon beside ours cannot be seen in the bytes alone.
            Err(EngineError::Incomplete) => assert_eq!(verdict, Ok(())),
            Err(error) => {
                assert_eq!(verdict, Err(error), "{broken:?}");
                assert_eq!((document.version(), document.snapshot()), before);
            }
        }
    }
    // Usable, and what it writes is what a server can read and others load.
    for _ in 0..3 {
        Typed::new()
            .edit(&mut document, usize::MAX, |value: &mut T| {
                value.mutate(&mut random)
            })
            .unwrap();
    }
    let state = document.snapshot().unwrap();
    assert_eq!(server.validate(&state, &limits), Ok(()));
    let mut loaded = replica::<T>(2);
    loaded.import_snapshot(&state).unwrap();
    assert_eq!(loaded.version(), document.version());
    let _ = server.fold(None, &log);
    let _ = document.compact(&loaded.version());
    n_accepted
}

/// Scenario 51, for this engine.
#[test]
fn broken_bytes_of_every_type_are_refused_or_merge() {
    let n = std::env::var("LAWS_CASES").map_or(1_400, |n| n.parse().unwrap());
    let mut n_accepted = 0;
    for seed in 0..n {
        let outcome = std::panic::catch_unwind(|| for_case!(seed, case(seed)));
        assert!(outcome.is_ok(), "seed {seed}");
        n_accepted += outcome.unwrap();
    }
    // Otherwise the second half of the test tests nothing.
    assert!(n_accepted > 1_000, "{n_accepted}");
}

fn commit(content: &[u8]) -> Bytes {
    // Replica 9, commit 1, one stamp of time 0.
    Bytes::from([&[1, 0, 0, 0, 0, 0, 0, 0, 9, 1, 1, 0, 0][..], content].concat())
}

fn node(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut length = Vec::new();
    let mut left = body.len();
    while left >= 0x80 {
        length.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
        left >>= 7;
    }
    length.push(u8::try_from(left).unwrap());
    [&[kind][..], &length, body].concat()
}

/// A few bytes that announce billions of elements cost what a few bytes cost.
#[test]
fn runs_of_billions_of_removed_elements_cost_nothing() {
    let mut text = replica::<Sequence<char>>(1);
    let billions = [0x80, 0x80, 0x80, 0x80, 0x08];
    // Elements 1 and on, removed; then they are removed again by others, from both ends.
    let run = [&[2, 0x10, 0, 1][..], &billions, &[0]].concat();
    let first = commit(&node(7, &run));
    assert!(!text.import(std::slice::from_ref(&first)).unwrap().pending);
    for (number, step) in [(2, 0), (3, 1), (4, 2), (200, 2)] {
        let removal = [&[0, 0, 1][..], &billions, &[0, step]].concat();
        let mut bytes = commit(&node(7, &removal)).to_vec();
        bytes[9] = number;
        if number == 200 {
            bytes.insert(10, 1);
        }
        text.import(&[bytes.into()]).unwrap();
    }
    let horizon = text.version();
    text.compact(&horizon).unwrap();
    let mut loaded = replica::<Sequence<char>>(2);
    loaded.import_snapshot(&text.snapshot().unwrap()).unwrap();
    assert_eq!(loaded.version(), horizon);
    // One more than a run may have.
    let run = [&[2, 0x10, 0, 1, 0x81, 0x80, 0x80, 0x80, 0x10][..], &[0]].concat();
    assert!(matches!(
        text.import(&[commit(&node(7, &run))]),
        Err(EngineError::Malformed {
            what: "elements' numbers",
            ..
        })
    ));
}

/// Nodes in nodes, deeper than anybody nests types, are refused before a stack is too small for them.
#[test]
fn nodes_nested_too_deep_are_refused() {
    let nested = |kind: u8, depth: usize| {
        let mut content = Vec::new();
        for _ in 0..depth {
            let field = node(0, &content);
            let length_and_content = &field[1..];
            let body = match kind {
                8 => field.clone(),
                5 => [&[1, 7, 1, 1, 0, 0][..], length_and_content].concat(),
                _ => [&[1, 7, 1, 0][..], length_and_content].concat(),
            };
            content = node(kind, &body);
        }
        commit(&content)
    };
    let server = MergeableValidator::new();
    let limits = ValidateLimits::default();
    for kind in [5, 6, 8] {
        assert_eq!(server.validate(&nested(kind, 32), &limits), Ok(()));
        assert!(server.fold(None, &[nested(kind, 32)]).is_ok() || kind == 8);
        for depth in [33, 1_000, 10_000] {
            assert!(matches!(
                server.validate(&nested(kind, depth), &limits),
                Err(EngineError::LimitExceeded {
                    what: "nesting of nodes",
                    ..
                })
            ));
        }
    }
}
