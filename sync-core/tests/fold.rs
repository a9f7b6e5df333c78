//! Folding a log gives what importing it gives.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod mergeable_support;

use bytes::Bytes;
use mergeable_support::{
    Map, Random, assert_converged, content, edit, insert, remove, replica, sync,
};
use proptest::prelude::*;
use sync_core::engine::typed::Typed;
use sync_core::engine::{Document, Engine, EngineError, Folder, ReplicaSeed, Validator};
use sync_core::mergeable::{
    Counter, Dictionary, LwwMap, MergeableValidator, OrMap, OrSet, Register, Sequence,
};

/// What three replicas write that edit, sync now and then, and hand over differences: a log as servers have them.
fn script(seed: u64, steps: usize) -> Vec<Bytes> {
    let mut random = Random(seed);
    let mut replicas: Vec<Map<u8, String>> = (1..=3).map(replica).collect();
    let mut log = Vec::new();
    for step in 0..steps {
        let (at, key) = (random.below(3), u8::try_from(random.below(6)).unwrap());
        let wall = 1_000 + u64::try_from(random.below(5)).unwrap();
        match random.below(6) {
            0 => log.push(remove(&mut replicas[at], wall, &key)),
            1 => {
                let [a, b] = replicas.get_disjoint_mut([at, (at + 1) % 3]).unwrap();
                sync(a, b);
            }
            2 => {
                let theirs = replicas[(at + 1) % 3].version();
                log.extend(replicas[at].since(&theirs).unwrap());
            }
            3 => log.extend(edit(&mut replicas[at], wall, |map| {
                map.insert(key, format!("{step} once")).unwrap();
                map.insert(key.wrapping_add(1), String::new()).unwrap();
            })),
            _ => log.push(insert(&mut replicas[at], wall, key, step.to_string())),
        }
    }
    log
}

proptest! {
    #[test]
    fn a_fold_without_the_type_is_what_the_type_makes_of_the_log(
        seed: u64,
        steps in 1..40_usize,
        cut in 0..40_usize,
    ) {
        let log = script(seed, steps);
        prop_assume!(!log.is_empty());
        let mut imported: Map<u8, String> = replica(7);
        imported.import(&log).unwrap();

        let cut = cut.min(log.len() - 1);
        let server = MergeableValidator::new();
        let first = (cut > 0).then(|| server.fold(None, &log[..cut]).unwrap());
        let folded = server.fold(first.as_deref(), &log[cut..]).unwrap();
        let mut loaded: Map<u8, String> = replica(8);
        loaded.import_snapshot(&folded).unwrap();
        assert_converged(&mut imported, &mut loaded);
        prop_assert_eq!(&folded, &imported.snapshot().unwrap());
        // With the type it is the same.
        let typed = Typed::<LwwMap<u8, String>>::new();
        prop_assert_eq!(typed.fold(None, &log).unwrap(), folded);
        let keep = log.len() - cut;
        prop_assert_eq!(
            typed.trim(None, &log, keep).unwrap(),
            server.trim(first.as_deref(), &log[cut..], keep).unwrap()
        );
    }
}

/// Scenario 66.
#[test]
fn documents_are_read_as_json_without_their_types() {
    type Board = (
        Register<Option<(u8, String)>>,
        Counter,
        OrSet<u8>,
        Dictionary<String, Sequence<char>>,
        OrMap<(u8, bool), LwwMap<u8, f64>>,
        Sequence<Vec<u64>>,
    );
    let engine = Typed::<Board>::new();
    let mut board = engine.create(ReplicaSeed(1)).unwrap();
    let edited = engine.edit(&mut board, usize::MAX, |board| {
        board.0.set(Some((7, "a \"b\"".to_owned()))).unwrap();
        board.1.add(-3);
        board.2.insert(2).unwrap();
        board.2.insert(1).unwrap();
        let title = board.3.entry("title".to_owned()).unwrap();
        title.insert_str(0, "hé\n").unwrap();
        let cells = board.4.entry((1, true)).unwrap();
        cells.insert(9, 0.5).unwrap();
        board.5.push(vec![1, 2]).unwrap();
        board.5.push(vec![]).unwrap();
    });
    edited.unwrap();
    let expected = r#"{"0":[7,"a \"b\""],"1":-3,"2":[1,2],"3":{"title":"hé\n"},"4":{"[1,true]":{"9":0.5}},"5":[[1,2],[]]}"#;
    let log = board.drain().local;
    let server = MergeableValidator::new();
    assert_eq!(server.read_json(None, &log).unwrap(), expected);
    assert_eq!(engine.to_json(&board).unwrap(), expected);
    let state = board.snapshot().unwrap();
    assert_eq!(server.read_json(Some(&state), &[]).unwrap(), expected);
    assert_eq!(server.read_json(None, &[]).unwrap(), "null");
    // Two versions of an application that disagree about what the document is.
    let other = Typed::<Counter>::new();
    let mut counter = other.create(ReplicaSeed(2)).unwrap();
    other
        .edit(&mut counter, usize::MAX, |counter| counter.add(1))
        .unwrap();
    let both = [log, counter.drain().local].concat();
    assert_eq!(
        server.read_json(None, &both).unwrap(),
        format!(r#"{{"Counter":1,"Struct":{expected}}}"#)
    );
}

/// Scenario 66.
#[test]
fn what_a_type_cannot_read_is_in_the_fold() {
    let (mut words, mut numbers): (Map<String, String>, Map<u64, bool>) = (replica(1), replica(2));
    let log = [
        insert(&mut words, 1, "word".to_owned(), "is here".to_owned()),
        insert(&mut numbers, 2, 7, true),
    ];
    let folded = MergeableValidator::new().fold(None, &log).unwrap();
    let (mut words, mut numbers): (Map<String, String>, Map<u64, bool>) = (replica(3), replica(4));
    words.import_snapshot(&folded).unwrap();
    numbers.import_snapshot(&folded).unwrap();
    assert_eq!(content(&words), [("word".to_owned(), "is here".to_owned())]);
    assert_eq!(content(&numbers), [(7, true)]);
}

#[test]
fn nothing_folds_to_no_snapshot() {
    let server = MergeableValidator::new();
    assert_eq!(server.fold(None, &[]), Err(EngineError::Unproven));
    assert!(matches!(
        server.fold(None, &[Bytes::from_static(b"not a change")]),
        Err(EngineError::Malformed { .. })
    ));
    assert!(server.folder().is_some());
}

#[cfg(feature = "yrs")]
mod yrs {
    use ::yrs::updates::decoder::Decode;
    use ::yrs::{GetString, ReadTxn, Text, Transact, WriteTxn};
    use sync_core::engine::yrs::{Yrs, YrsDocument};
    use sync_core::engine::{Engine, ReplicaSeed};

    use super::*;

    fn typed(document: &mut YrsDocument, f: impl FnOnce(&mut ::yrs::TransactionMut<'_>)) -> Bytes {
        Yrs::new().edit(document, usize::MAX, f).unwrap();
        document.drain().local.remove(0)
    }

    fn log() -> Vec<Bytes> {
        let mut ada = Yrs::new().create(ReplicaSeed(1)).unwrap();
        let mut bob = Yrs::new().create(ReplicaSeed(2)).unwrap();
        let mut log = vec![typed(&mut ada, |txn| {
            txn.get_or_insert_text("body").push(txn, "hello")
        })];
        bob.import(&log).unwrap();
        log.push(typed(&mut bob, |txn| {
            txn.get_or_insert_text("body").remove_range(txn, 1, 2);
        }));
        log.push(typed(&mut ada, |txn| {
            txn.get_or_insert_text("body").insert(txn, 2, "--");
        }));
        log
    }

    #[test]
    fn a_fold_of_texts_is_what_importing_the_log_gives() {
        let log = log();
        let mut imported = Yrs::new().create(ReplicaSeed(3)).unwrap();
        imported.import(&log).unwrap();
        for cut in 0..log.len() {
            let first = (cut > 0).then(|| Yrs::new().fold(None, &log[..cut]).unwrap());
            let folded = Yrs::new().fold(first.as_deref(), &log[cut..]).unwrap();
            let mut loaded = Yrs::new().create(ReplicaSeed(4)).unwrap();
            loaded.import_snapshot(&folded).unwrap();
            assert_eq!(loaded.version(), imported.version());
            // Yjs reads it without us.
            let doc = ::yrs::Doc::new();
            let mut txn = doc.transact_mut();
            txn.apply_update(::yrs::Update::decode_v1(&folded).unwrap())
                .unwrap();
            assert_eq!(txn.get_text("body").unwrap().get_string(&txn), "h--lo");
        }
    }

    #[test]
    fn a_log_with_something_missing_is_not_folded() {
        let log = log();
        assert_eq!(
            Yrs::new().fold(None, &log[1..]),
            Err(EngineError::Incomplete)
        );
        assert!(Yrs::new().fold(None, &log).is_ok());
    }

    #[test]
    fn changes_that_say_nothing_fold_to_no_snapshot() {
        let nothing = Bytes::from_static(&[0, 0]);
        assert_eq!(
            Yrs::new().fold(None, &[nothing]),
            Err(EngineError::Unproven)
        );
    }
}
