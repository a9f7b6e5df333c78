//! Replicas of yrs that keep what was deleted, beside such as do not.

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
use sync_core::engine::{Document, Engine, EngineError, NativeEngine, ReplicaSeed, Version};
use sync_core::yrs::{GetString, Map, ReadTxn, Text, Transact, Transaction, WriteTxn};
use yrs_common::{UNLIMITED, any_op, config, content, edit, replica};

fn keeper(seed: u128) -> YrsDocument {
    let engine = Yrs::new().keep_history();
    engine.create(ReplicaSeed(seed)).unwrap()
}

fn push(document: &mut YrsDocument, text: &str) {
    Yrs::new()
        .edit(document, UNLIMITED, |txn| {
            txn.get_or_insert_text("text").push(txn, text)
        })
        .unwrap();
}

fn text(document: &YrsDocument) -> String {
    let read = |txn: &Transaction<'_>| txn.get_text("text").map(|text| text.get_string(txn));
    Yrs::new().read(document, read).unwrap().unwrap_or_default()
}

fn text_at(document: &mut YrsDocument, version: &Version) -> Result<String, EngineError> {
    let read = |txn: &Transaction<'_>| txn.get_text("text").map(|text| text.get_string(txn));
    let shown = Yrs::new().read_at(document, version, read)?;
    Ok(shown.unwrap_or_default())
}

#[test]
fn a_native_transaction_is_a_step() {
    let mut a = keeper(1);
    let native = Yrs::new().native(&a);
    let map = native.get_or_insert_map("map");
    for value in ["one", "two"] {
        map.insert(&mut native.transact_mut(), "key", value);
    }
    let shows = |a: &YrsDocument| {
        let read = |txn: &Transaction<'_>| map.get(txn, "key").map(|value| value.to_string(txn));
        Yrs::new().read(a, read).unwrap()
    };
    assert_eq!(a.undo(), Ok(true));
    assert_eq!(shows(&a).as_deref(), Some("one"));
    assert_eq!(a.undo(), Ok(true));
    assert_eq!(shows(&a), None);
    assert_eq!(
        (a.redo(), a.redo(), a.redo()),
        (Ok(true), Ok(true), Ok(false))
    );
    assert_eq!(shows(&a).as_deref(), Some("two"));
}

#[test]
fn the_last_hundred_steps_are_kept() {
    let mut a = keeper(1);
    for _ in 0..105 {
        push(&mut a, "x");
    }
    let undone = (0..200).take_while(|_| a.undo() == Ok(true)).count();
    assert_eq!(undone, 100);
    assert_eq!(text(&a), "xxxxx");
}

#[test]
fn an_undo_undoes_what_is_left_of_a_step_after_others_deleted_some_of_it() {
    let (mut a, mut b) = (keeper(1), replica(2));
    push(&mut a, "abc");
    b.import(&a.drain().local).unwrap();
    Yrs::new()
        .edit(&mut b, UNLIMITED, |txn| {
            let text = txn.get_or_insert_text("text");
            text.remove_range(txn, 1, 1);
            text.insert(txn, 1, "-");
        })
        .unwrap();
    a.import(&b.drain().local).unwrap();
    assert_eq!(a.undo(), Ok(true));
    assert_eq!(text(&a), "-");
    b.import(&a.drain().local).unwrap();
    assert_eq!(text(&b), "-");
    assert_eq!(a.version(), b.version());
}

#[test]
fn what_was_collected_elsewhere_cannot_be_seen_again() {
    let (mut a, mut b) = (keeper(1), replica(2));
    push(&mut a, "one");
    let then = a.readable_version().unwrap();
    let old = a.drain().local;
    Yrs::new()
        .edit(&mut a, UNLIMITED, |txn| {
            txn.get_or_insert_text("text").remove_range(txn, 0, 2)
        })
        .unwrap();
    b.import(&old).unwrap();
    b.import(&a.drain().local).unwrap();
    let mut late = keeper(3);
    late.import_snapshot(&b.snapshot().unwrap()).unwrap();
    assert_eq!(late.version(), a.version());
    assert_eq!(text_at(&mut a, &then), Ok("one".to_owned()));
    assert_eq!(text_at(&mut late, &then), Err(EngineError::Trimmed));
}

#[test]
fn a_forged_version_is_refused() {
    let mut a = keeper(1);
    push(&mut a, "one");
    let version = a.readable_version().unwrap();
    let forged = |bytes: &[u8]| Version(Bytes::copy_from_slice(bytes));
    for bytes in [
        &[][..],
        &[0xff, 0xff, 0xff, 0x7f],
        &[1, 5, 1],
        &[0, 5, 0, 1],
    ] {
        assert!(text_at(&mut a, &forged(bytes)).is_err(), "{bytes:?}");
    }
    assert_eq!(text_at(&mut a, &version), Ok("one".to_owned()));
    assert_eq!(text_at(&mut a, &forged(&[0])), Ok(String::new()));
    let unsupported = text_at(&mut replica(2), &version);
    assert!(matches!(unsupported, Err(EngineError::Unsupported { .. })));
}

proptest! {
    #![proptest_config(config(200))]

    /// Scenarios 76 and 77: with all that yrs has.
    #[test]
    fn keepers_and_others_stay_equal_and_see_what_was(
        history in proptest::collection::vec(
            (0..3_usize, proptest::collection::vec(any_op(), 1..5), 0..4_u8),
            0..16,
        ),
    ) {
        let mut replicas = [keeper(1), keeper(2), replica(3)];
        let mut views = Vec::new();
        for (author, ops, then) in &history {
            let a = &mut replicas[*author];
            edit(a, ops);
            if *author < 2 {
                match then {
                    0 => { a.undo().unwrap(); }
                    1 => { a.undo().unwrap(); a.redo().unwrap(); }
                    _ => {}
                }
            }
            let changes = a.drain().local;
            for (other, replica) in replicas.iter_mut().enumerate() {
                if other != *author {
                    replica.import(&changes).unwrap();
                }
            }
            views.push((replicas[0].readable_version().unwrap(), content(&replicas[0])));
        }
        let [a, b, c] = &mut replicas;
        for other in [b, c] {
            prop_assert_eq!(a.version(), other.version());
            prop_assert_eq!(content(a), content(other));
        }
        let mut joiner = replica(4);
        joiner.import_snapshot(&a.snapshot().unwrap()).unwrap();
        prop_assert_eq!(joiner.version(), a.version());
        prop_assert_eq!(content(&joiner), content(a));
        for (version, seen) in views {
            let shown = Yrs::new().read_at(a, &version, yrs_common::content_of).unwrap();
            prop_assert_eq!(shown, seen);
        }
    }
}
