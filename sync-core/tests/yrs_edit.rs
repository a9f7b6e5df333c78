//! Editing through `edit` and through native handles: what comes out, and what is taken back.

#![cfg(feature = "yrs")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test harness"
)]

mod yrs_common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use sync_core::engine::yrs::{Yrs, YrsDocument};
use sync_core::engine::{Document, Edited, Engine, EngineError, NativeEngine, ReplicaSeed, Source};
use sync_core::yrs::updates::decoder::Decode;
use sync_core::yrs::{
    ClientID, Doc, GetString, OffsetKind, Options, ReadTxn, Text, Transact, TransactionMut, Update,
    WriteTxn,
};
use yrs_common::{Op, UNLIMITED, any_op, config, content, edit, ops, replica};

type Cut = fn(&mut TransactionMut<'_>);

fn push(document: &mut YrsDocument, text: &str) -> Edited<()> {
    Yrs::new()
        .edit(document, UNLIMITED, |txn| {
            txn.get_or_insert_text("text").push(txn, text)
        })
        .unwrap()
}

fn text(document: &YrsDocument) -> String {
    Yrs::new()
        .read(document, |txn| {
            txn.get_text("text")
                .map(|text| text.get_string(txn))
                .unwrap_or_default()
        })
        .unwrap()
}

fn import_all(document: &mut YrsDocument, changes: &[Bytes]) {
    document.import(changes).unwrap();
}

#[test]
fn one_closure_is_one_change() {
    let (mut a, mut b) = (replica(1), replica(2));
    let edited = Yrs::new().edit(&mut a, UNLIMITED, |txn| {
        let text = txn.get_or_insert_text("text");
        text.push(txn, "hello");
        text.push(txn, " world");
        text.remove_range(txn, 0, 1);
        7
    });
    assert_eq!(edited, Ok(Edited::Done(7)));
    let drained = a.drain();
    assert_eq!(drained.local.len(), 1);
    assert_eq!(drained.events.len(), 1);
    assert_eq!(drained.events[0].source, Source::Local);
    assert_eq!(drained.events[0].roots, [Arc::from("text")]);
    import_all(&mut b, &drained.local);
    assert_eq!(text(&b), "ello world");
    assert_eq!(a.version(), b.version());
}

#[test]
fn a_closure_that_changes_nothing_makes_no_change() {
    let mut a = replica(1);
    let before = a.version();
    let edited = Yrs::new().edit(&mut a, UNLIMITED, |txn| {
        txn.get_or_insert_text("text");
    });
    assert_eq!(edited, Ok(Edited::Done(())));
    assert_eq!(a.drain(), Default::default());
    assert_eq!(a.version(), before);
}

#[test]
fn an_import_never_comes_out_as_local_and_says_which_roots_it_touched() {
    let (mut a, mut b) = (replica(1), replica(2));
    push(&mut a, "hello");
    let changes = a.drain().local;
    let imported = b.import(&changes).unwrap();
    assert!(imported.changed && !imported.pending);
    let drained = b.drain();
    assert_eq!(drained.local, Vec::<Bytes>::new());
    assert_eq!(drained.events.len(), 1);
    assert_eq!(drained.events[0].source, Source::Remote);
    assert_eq!(drained.events[0].roots, [Arc::from("text")]);
    let again = b.import(&changes).unwrap();
    assert!(!again.changed);
    assert_eq!(b.drain(), Default::default());
}

#[test]
fn deleting_alone_changes_the_version() {
    let (mut a, mut b) = (replica(1), replica(2));
    push(&mut a, "hello");
    import_all(&mut b, &a.drain().local);
    let before = b.version();
    Yrs::new()
        .edit(&mut a, UNLIMITED, |txn| {
            txn.get_or_insert_text("text").remove_range(txn, 1, 2)
        })
        .unwrap();
    let imported = b.import(&a.drain().local).unwrap();
    assert!(imported.changed);
    assert_ne!(b.version(), before);
    assert_eq!(b.version(), a.version());
}

#[test]
fn a_missing_predecessor_is_pending_until_it_arrives() {
    let (mut a, mut b) = (replica(1), replica(2));
    push(&mut a, "one ");
    push(&mut a, "two");
    let changes = a.drain().local;
    assert!(b.import(&changes[1..]).unwrap().pending);
    assert!(!b.import(&changes[..1]).unwrap().pending);
    assert_eq!(text(&b), "one two");
}

/// Left to itself, yrs applies an independent block over a hole and calls nothing pending.
#[test]
fn an_independent_change_over_a_hole_waits_until_it_is_filled() {
    use sync_core::yrs::Map;
    let (mut a, mut b) = (replica(1), replica(2));
    for key in ["x", "y", "z"] {
        Yrs::new()
            .edit(&mut a, UNLIMITED, |txn| {
                txn.get_or_insert_map("map").insert(txn, key, key)
            })
            .unwrap();
    }
    let changes = a.drain().local;
    let empty = b.version();
    let imported = b.import(&changes[2..]).unwrap();
    assert!(!imported.changed && imported.pending);
    assert_eq!(b.version(), empty);
    assert!(b.import(&changes[..1]).unwrap().pending);
    let snapshot = b.snapshot().unwrap();
    assert!(!b.import(&changes[1..2]).unwrap().pending);
    assert_eq!(b.version(), a.version());
    // Its snapshot from before gives the part without holes at once.
    let mut c = replica(3);
    let imported = c.import_snapshot(&snapshot).unwrap();
    assert!(imported.changed && imported.pending);
    assert!(!c.import(&changes[1..2]).unwrap().pending);
    assert_eq!(c.version(), a.version());
}

#[test]
fn what_waits_for_a_missing_change_survives_in_the_snapshot() {
    let (mut a, mut b, mut c) = (replica(1), replica(2), replica(3));
    push(&mut a, "one ");
    push(&mut a, "two");
    let changes = a.drain().local;
    b.import(&changes[1..]).unwrap();
    let imported = c.import_snapshot(&b.snapshot().unwrap()).unwrap();
    assert!(imported.pending);
    c.import(&changes[..1]).unwrap();
    assert_eq!(text(&c), "one two");
}

#[test]
fn since_gives_nothing_to_an_equal_replica_and_what_it_lacks_to_another() {
    let (mut a, mut b) = (replica(1), replica(2));
    push(&mut a, "one ");
    import_all(&mut b, &a.drain().local);
    let old = b.version();
    assert_eq!(a.since(&old), Ok(None));
    push(&mut a, "two");
    let missing = a.since(&old).unwrap().unwrap();
    b.import(&[missing]).unwrap();
    assert_eq!(b.version(), a.version());
    assert_eq!(text(&b), "one two");
}

#[test]
fn a_hostile_version_is_refused_or_answered_with_everything() {
    let mut a = replica(1);
    push(&mut a, "hello");
    let version = |bytes: &[u8]| sync_core::engine::Version(Bytes::copy_from_slice(bytes));
    assert!(matches!(
        a.since(&version(&[])),
        Err(EngineError::Malformed { .. })
    ));
    assert!(matches!(
        a.since(&version(&[0xff, 0xff, 0xff, 0x7f])),
        Err(EngineError::Malformed { .. })
    ));
    assert!(matches!(
        a.since(&version(&[0, 1, 2, 3])),
        Err(EngineError::Malformed { .. })
    ));
    let missing = a.since(&version(&[0; 9])).unwrap().unwrap();
    let mut b = replica(2);
    b.import(&[missing]).unwrap();
    assert_eq!(text(&b), "hello");
}

#[test]
fn changes_through_a_native_handle_are_drained_one_per_transaction_and_wake() {
    let (mut a, mut b) = (replica(1), replica(2));
    let wakes = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&wakes);
    a.set_wake(Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    let native = Yrs::new().native(&a);
    let root = native.get_or_insert_text("text");
    root.push(&mut native.transact_mut(), "one ");
    root.push(&mut native.transact_mut(), "two");
    assert_eq!(wakes.load(Ordering::SeqCst), 2);
    let drained = a.drain();
    assert_eq!(drained.local.len(), 2);
    import_all(&mut b, &drained.local);
    assert_eq!(text(&b), "one two");
    // Also after an import, during which nothing is observed.
    push(&mut b, "!");
    import_all(&mut a, &b.drain().local);
    root.push(&mut native.transact_mut(), "?");
    assert_eq!(a.drain().local.len(), 1);
    // And after the application destroyed the document, which takes all observers off.
    native.destroy(None);
    push(&mut a, "x");
    root.push(&mut native.transact_mut(), "y");
    assert_eq!(a.drain().local.len(), 2);
}

#[test]
fn the_applications_own_observers_see_local_and_remote_changes() {
    let (mut a, mut b) = (replica(1), replica(2));
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let native = Yrs::new().native(&a);
    native
        .observe_update_v1("mine", move |_, _| {
            counter.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
    push(&mut a, "1");
    push(&mut b, "2");
    import_all(&mut a, &b.drain().local);
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

/// Scenario 90.
#[test]
fn a_held_native_transaction_makes_everything_busy_and_nothing_deadlocks() {
    let (mut a, mut b) = (replica(1), replica(2));
    push(&mut b, "x");
    let changes = b.drain().local;
    let version = a.version();
    let native = Yrs::new().native(&a);
    let held = native.transact_mut();
    let mut ran = false;
    assert_eq!(
        Yrs::new().edit(&mut a, UNLIMITED, |_| ran = true),
        Err(EngineError::Busy)
    );
    assert!(!ran);
    assert_eq!(Yrs::new().read(&a, |_| ()), Err(EngineError::Busy));
    assert_eq!(a.import(&changes), Err(EngineError::Busy));
    assert_eq!(a.snapshot(), Err(EngineError::Busy));
    assert_eq!(a.since(&version), Err(EngineError::Busy));
    assert_eq!(a.version(), version);
    assert_eq!(a.drain(), Default::default());
    drop(held);
    import_all(&mut a, &changes);
    assert_eq!(text(&a), "x");
}

/// Scenario 90.
#[test]
fn a_panicking_closure_commits_its_half_and_leaves_the_document_usable() {
    let (mut a, mut b) = (replica(1), replica(2));
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let _ = Yrs::new().edit(&mut a, UNLIMITED, |txn| {
            txn.get_or_insert_text("text").push(txn, "half");
            panic!("by the application");
        });
    }));
    assert!(panicked.is_err());
    push(&mut a, " whole");
    let drained = a.drain();
    assert_eq!(drained.local.len(), 2);
    import_all(&mut b, &drained.local);
    assert_eq!(text(&b), "half whole");
}

#[test]
fn a_panicking_observer_of_the_application_loses_no_change() {
    let (mut a, mut b) = (replica(1), replica(2));
    let native = Yrs::new().native(&a);
    native
        .observe_transaction_cleanup("mine", |txn, _| {
            if !txn.insert_set().is_empty() {
                panic!("by the application");
            }
        })
        .unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| push(&mut a, "one ")));
    assert!(panicked.is_err());
    native
        .get_or_insert_text("text")
        .push(&mut native.transact_mut(), "two");
    let drained = a.drain();
    assert_eq!(drained.local.len(), 2);
    import_all(&mut b, &drained.local);
    assert_eq!(text(&b), "one two");
}

#[test]
fn a_commit_inside_the_closure_still_makes_one_whole_change() {
    let (mut a, mut b) = (replica(1), replica(2));
    for commit_first in [false, true] {
        Yrs::new()
            .edit(&mut a, UNLIMITED, |txn| {
                let text = txn.get_or_insert_text("text");
                if !commit_first {
                    text.push(txn, "one ");
                }
                txn.commit();
                text.push(txn, "two ");
            })
            .unwrap();
        let drained = a.drain();
        assert_eq!(drained.local.len(), 1);
        assert_eq!(drained.events.len(), 1);
        import_all(&mut b, &drained.local);
    }
    assert_eq!(text(&b), "one two two ");
}

#[test]
fn offsets_count_as_the_engine_value_says() {
    let insert = |engine: Yrs, offset: u32| {
        let mut document = engine.create(ReplicaSeed(1)).unwrap();
        let edit = |txn: &mut TransactionMut<'_>| {
            let text = txn.get_or_insert_text("text");
            text.push(txn, "é😀b");
            text.insert(txn, offset, "|");
            text.get_string(txn)
        };
        match engine.edit(&mut document, UNLIMITED, edit).unwrap() {
            Edited::Done(text) => text,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(insert(Yrs::new(), 3), "é😀|b");
    assert_eq!(
        insert(Yrs::new().offset_kind(OffsetKind::Bytes), 6),
        "é😀|b"
    );
}

#[test]
fn a_change_that_cuts_a_character_is_taken_back() {
    let mut a = replica(1);
    push(&mut a, "a😀b");
    a.drain();
    let version = a.version();
    let cuts: [Cut; 4] = [
        |txn| txn.get_or_insert_text("text").remove_range(txn, 0, 2),
        |txn| txn.get_or_insert_text("text").remove_range(txn, 1, 1),
        |txn| txn.get_or_insert_text("text").insert(txn, 2, "x"),
        |txn| {
            let text = txn.get_or_insert_text("text");
            text.push(txn, "😀");
            text.remove_range(txn, 4, 1);
        },
    ];
    for cut in cuts {
        let edited = Yrs::new().edit(&mut a, UNLIMITED, cut);
        assert!(matches!(edited, Ok(Edited::TakenBack { .. })), "{edited:?}");
        assert_eq!(a.version(), version);
        assert_eq!(text(&a), "a😀b");
        assert_eq!(a.drain(), Default::default());
    }
}

/// Left to itself, yrs keeps such a character whole, miscounts from there on, and writes snapshots that are off by one.
#[test]
fn changes_of_others_that_cut_a_character_are_mended_alike_everywhere() {
    let cuts: [(Cut, &str); 5] = [
        (
            |txn| txn.get_or_insert_text("text").remove_range(txn, 0, 2),
            "👩‍b",
        ),
        (
            |txn| txn.get_or_insert_text("text").remove_range(txn, 1, 1),
            "a👩‍b",
        ),
        (
            |txn| txn.get_or_insert_text("text").remove_range(txn, 1, 3),
            "a‍b",
        ),
        (
            |txn| txn.get_or_insert_text("text").insert(txn, 2, "x"),
            "a😀x👩‍b",
        ),
        (
            |txn| txn.get_or_insert_text("text").insert(txn, 4, "x"),
            "a😀👩x‍b",
        ),
    ];
    for (cut, expected) in cuts {
        let (mut a, mut b, mut c) = (replica(1), replica(2), replica(3));
        push(&mut a, "a😀👩‍b");
        let mut options = Options::with_client_id(ClientID::new(7));
        options.offset_kind = OffsetKind::Utf16;
        let other = Doc::with_options(options);
        let snapshot = Update::decode_v1(&a.snapshot().unwrap()).unwrap();
        other.transact_mut().apply_update(snapshot).unwrap();
        let mut other = other.transact_mut();
        cut(&mut other);
        let change = Bytes::from(other.encode_update_v1());
        // One replica has the text in one block, one in pieces, one gets all at once, one loads the result.
        import_all(&mut b, &a.drain().local);
        import_all(&mut a, std::slice::from_ref(&change));
        push(&mut b, "!");
        Yrs::new()
            .edit(&mut b, UNLIMITED, |txn| {
                txn.get_or_insert_text("text").insert(txn, 3, "|")
            })
            .unwrap();
        let changes = b.drain().local;
        import_all(&mut b, std::slice::from_ref(&change));
        import_all(&mut a, &changes);
        c.import_snapshot(&b.snapshot().unwrap()).unwrap();
        assert_eq!(text(&a).replace(['|', '!'], ""), expected);
        for other in [&mut b, &mut c] {
            assert_eq!(a.version(), other.version());
            assert_eq!(text(&a), text(other));
        }
        push(&mut c, "?");
        import_all(&mut a, &c.drain().local);
        assert_eq!(text(&a), text(&c));
    }
}

#[test]
fn a_native_transaction_that_cuts_a_character_leaves_a_mended_change_and_a_document_to_load_afresh()
{
    let (mut a, mut b) = (replica(1), replica(2));
    push(&mut a, "a😀b");
    let native = Yrs::new().native(&a);
    native
        .get_or_insert_text("text")
        .remove_range(&mut native.transact_mut(), 0, 2);
    let changes = a.drain().local;
    assert_eq!(a.snapshot(), Err(EngineError::Poisoned));
    assert_eq!(
        Yrs::new().edit(&mut a, UNLIMITED, |_| ()),
        Err(EngineError::Poisoned)
    );
    import_all(&mut b, &changes);
    assert_eq!(text(&b), "b");
}

#[test]
fn a_change_that_is_too_large_is_taken_back() {
    let (mut a, mut b) = (replica(1), replica(2));
    push(&mut a, "hello");
    import_all(&mut b, &a.drain().local);
    let version = a.version();
    let edited = Yrs::new().edit(&mut a, 100, |txn| {
        let text = txn.get_or_insert_text("text");
        text.remove_range(txn, 0, 3);
        text.push(txn, &"x".repeat(200));
    });
    let Ok(Edited::TakenBack {
        change,
        replaced: true,
    }) = edited
    else {
        panic!("{edited:?}")
    };
    assert!(change.len() > 200);
    assert_eq!(a.version(), version);
    assert_eq!(text(&a), "hello");
    assert_eq!(a.drain(), Default::default());
    push(&mut a, "!");
    import_all(&mut b, &a.drain().local);
    assert_eq!(text(&b), "hello!");
    assert_eq!(a.version(), b.version());
}

#[test]
fn the_limit_is_that_of_the_finished_change() {
    // Before the commit these are 100 blocks of 6 bytes and more; after it one of 100 characters.
    let mut a = replica(1);
    let edited = Yrs::new().edit(&mut a, 150, |txn| {
        let text = txn.get_or_insert_text("text");
        for _ in 0..100 {
            text.push(txn, "x");
        }
    });
    assert_eq!(edited, Ok(Edited::Done(())));
    assert_eq!(text(&a).len(), 100);
    assert!(a.drain().local[0].len() <= 150);
}

#[test]
fn the_only_change_of_a_document_can_be_taken_back() {
    let mut a = replica(1);
    let version = a.version();
    let edited = Yrs::new().edit(&mut a, 10, |txn| {
        txn.get_or_insert_text("text")
            .push(txn, "more than ten bytes")
    });
    assert!(matches!(edited, Ok(Edited::TakenBack { .. })));
    assert_eq!(text(&a), "");
    assert_eq!(a.version(), version);
}

#[test]
fn a_change_that_validation_refuses_is_taken_back() {
    use sync_core::yrs::{Any, Map};
    let mut a = replica(1);
    let nested = (0..65).fold(Any::Null, |inner, _| Any::from(vec![inner]));
    let edited = Yrs::new().edit(&mut a, UNLIMITED, |txn| {
        txn.get_or_insert_map("map").insert(txn, "deep", nested)
    });
    assert!(matches!(edited, Ok(Edited::TakenBack { .. })));
    assert_eq!(a.drain(), Default::default());
    let snapshot = a.snapshot().unwrap();
    assert!(!replica(2).import_snapshot(&snapshot).unwrap().changed);
}

#[test]
fn what_waits_for_a_missing_change_survives_a_taken_back_change() {
    let (mut a, mut b) = (replica(1), replica(2));
    push(&mut a, "one ");
    push(&mut a, "two");
    let changes = a.drain().local;
    b.import(&changes[1..]).unwrap();
    let edited = Yrs::new().edit(&mut b, 10, |txn| {
        txn.get_or_insert_text("text")
            .push(txn, "more than ten bytes")
    });
    assert!(matches!(edited, Ok(Edited::TakenBack { .. })));
    b.import(&changes[..1]).unwrap();
    assert_eq!(text(&b), "one two");
}

/// Scenario 89.
#[test]
fn edits_through_handles_of_a_replaced_document_come_out_as_stray() {
    let mut a = replica(1);
    let old = Yrs::new().native(&a);
    let kept = old.get_or_insert_text("text");
    push(&mut a, "hello");
    let id = old.client_id();
    Yrs::new()
        .edit(&mut a, 50, |txn| {
            txn.get_or_insert_text("text").push(txn, &"x".repeat(100))
        })
        .unwrap();
    a.drain();
    kept.push(&mut old.transact_mut(), " stray");
    let drained = a.drain();
    assert_eq!(drained.local, Vec::<Bytes>::new());
    assert_eq!(drained.stray.len(), 1);
    assert_eq!(text(&a), "hello");
    let new = Yrs::new().native(&a);
    assert_ne!(new.client_id(), id);
    new.get_or_insert_text("text")
        .push(&mut new.transact_mut(), "!");
    assert_eq!(a.drain().local.len(), 1);
    assert_eq!(text(&a), "hello!");
}

/// Scenario 89.
#[test]
fn a_handle_kept_from_a_replaced_document_loses_nothing_silently_in_the_new_one() {
    let mut a = replica(1);
    let kept = Yrs::new().native(&a).get_or_insert_text("text");
    push(&mut a, "hello");
    let too_large = |txn: &mut TransactionMut<'_>| kept.push(txn, "more than ten bytes");
    Yrs::new().edit(&mut a, 10, too_large).unwrap();
    a.drain();
    let edited = Yrs::new().edit(&mut a, UNLIMITED, |txn| kept.insert(txn, 2, "x"));
    assert_eq!(edited, Err(EngineError::Poisoned));
    let drained = a.drain();
    assert_eq!(drained.local, Vec::<Bytes>::new());
    assert_eq!(drained.stray.len(), 1);
    assert_eq!(a.snapshot(), Err(EngineError::Poisoned));
    assert_eq!(a.import(&[]), Err(EngineError::Poisoned));
}

#[test]
fn observers_do_not_keep_a_dropped_document_alive() {
    let a = replica(1);
    let native = Yrs::new().native(&a);
    let alive = Arc::new(());
    let witness = Arc::downgrade(&alive);
    native
        .observe_update_v1("mine", move |_, _| drop(Arc::clone(&alive)))
        .unwrap();
    drop(native);
    assert!(witness.upgrade().is_some());
    drop(a);
    assert!(witness.upgrade().is_none());
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn taking_back_leaves_content_and_version_as_they_were(
        history in proptest::collection::vec((0..3_usize, proptest::collection::vec(any_op(), 1..6)), 0..20),
        too_large in ops(1..12),
        after in ops(1..6),
    ) {
        let mut replicas = [replica(1), replica(2), replica(3)];
        for (author, ops) in &history {
            edit(&mut replicas[*author], ops);
            let changes = replicas[*author].drain().local;
            for (other, replica) in replicas.iter_mut().enumerate() {
                if other != *author {
                    replica.import(&changes).unwrap();
                    replica.drain();
                }
            }
        }
        let [a, b, _] = &mut replicas;
        let (version, before) = (a.version(), content(a));
        let edited = Yrs::new().edit(a, 0, |txn| too_large.iter().for_each(|op: &Op| op.apply(txn))).unwrap();
        prop_assert_eq!(a.version(), version);
        prop_assert_eq!(content(a), before);
        prop_assert_eq!(a.drain(), Default::default());
        // The change taken back is one that others could have imported.
        if let Edited::TakenBack { change, .. } = edited {
            replica(9).import_snapshot(&change).unwrap();
        }
        edit(a, &after);
        edit(b, &after);
        let (from_a, from_b) = (a.drain().local, b.drain().local);
        a.import(&from_b).unwrap();
        b.import(&from_a).unwrap();
        prop_assert_eq!(a.version(), b.version());
        prop_assert_eq!(content(a), content(b));
        let mut joiner = replica(4);
        joiner.import_snapshot(&a.snapshot().unwrap()).unwrap();
        prop_assert_eq!(joiner.version(), a.version());
        prop_assert_eq!(content(&joiner), content(a));
    }
}
