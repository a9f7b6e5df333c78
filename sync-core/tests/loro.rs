//! What is particular to loro: native handles, trimmed history, bytes that wait, movable lists and cursors.

#![cfg(feature = "loro")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test harness"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use sync_core::engine::loro::{Loro, LoroDocument};
use sync_core::engine::{
    Document, Edited, Engine, EngineError, Folder, NativeEngine, ReplicaSeed, Source,
    ValidateLimits, Version,
};
use sync_core::loro::cursor::{Cursor, Side};
use sync_core::loro::{
    ExpandType, ExportMode, LoroDoc, LoroList, LoroValue, StyleConfig, StyleConfigMap, TreeParentId,
};

const UNLIMITED: usize = usize::MAX;

fn replica(seed: u128) -> LoroDocument {
    Loro::new().create(ReplicaSeed(seed)).unwrap()
}

fn edit<R>(document: &mut LoroDocument, f: impl FnOnce(&mut LoroDoc) -> R) -> R {
    match Loro::new().edit(document, UNLIMITED, f).unwrap() {
        Edited::Done(result) => result,
        _ => panic!("taken back without a limit"),
    }
}

fn push(document: &mut LoroDocument, text: &str) {
    edit(document, |doc| doc.get_text("text").push_str(text)).unwrap();
}

fn text(document: &LoroDocument) -> String {
    Loro::new()
        .read(document, |doc| doc.get_text("text").to_string())
        .unwrap()
}

/// Gives each replica the others' changes, in another order each, one by one.
fn exchange(replicas: &mut [LoroDocument]) {
    let changes: Vec<Vec<Bytes>> = replicas
        .iter_mut()
        .map(|replica| replica.drain().local)
        .collect();
    let n = replicas.len();
    for (to, replica) in replicas.iter_mut().enumerate() {
        for turn in 1..n {
            for change in &changes[(to + turn) % n] {
                replica.import(std::slice::from_ref(change)).unwrap();
            }
        }
    }
    let (first, others) = replicas.split_first_mut().unwrap();
    for other in others {
        assert_eq!(first.version(), other.version());
    }
}

#[test]
fn events_name_the_touched_roots() {
    let (mut a, mut b) = (replica(1), replica(2));
    edit(&mut a, |doc| {
        doc.get_text("text").push_str("x").unwrap();
        let map = doc.get_map("map");
        let inner = map.insert_container("list", LoroList::new());
        inner.unwrap().push(1).unwrap();
    });
    let drained = a.drain();
    b.import(&drained.local).unwrap();
    for (events, source) in [
        (drained.events, Source::Local),
        (b.drain().events, Source::Remote),
    ] {
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].source, source);
        assert_eq!(events[0].roots, [Arc::from("map"), Arc::from("text")]);
    }
}

#[test]
fn commits_through_a_native_handle_are_drained_one_by_one_and_wake() {
    let (mut a, mut b) = (replica(1), replica(2));
    let wakes = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&wakes);
    a.set_wake(Arc::new(move || {
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    let native = Loro::new().native(&a);
    let kept = native.get_text("text");
    for word in ["one ", "two "] {
        kept.push_str(word).unwrap();
        native.commit();
    }
    assert_eq!(wakes.load(Ordering::SeqCst), 2);
    let mut changes = a.drain().local;
    assert_eq!(changes.len(), 2);
    // What is not committed goes with the next drain, as a change of its own.
    kept.push_str("three ").unwrap();
    push(&mut a, "four");
    let drained = a.drain().local;
    assert_eq!(drained.len(), 2);
    changes.extend(drained);
    for change in changes {
        b.import(&[change]).unwrap();
    }
    assert_eq!(text(&b), "one two three four");
}

#[test]
fn the_applications_own_subscribers_see_local_and_remote_changes() {
    let (mut a, mut b) = (replica(1), replica(2));
    let seen = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&seen);
    let _subscription = Loro::new().native(&a).subscribe_root(Arc::new(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
    }));
    push(&mut a, "1");
    push(&mut b, "2");
    a.import(&b.drain().local).unwrap();
    assert_eq!(seen.load(Ordering::SeqCst), 2);
}

#[test]
fn a_commit_inside_the_closure_still_makes_one_whole_change() {
    let (mut a, mut b) = (replica(1), replica(2));
    edit(&mut a, |doc| {
        doc.get_text("text").push_str("one ").unwrap();
        doc.commit();
        doc.get_text("text").push_str("two").unwrap();
    });
    let drained = a.drain();
    assert_eq!((drained.local.len(), drained.events.len()), (1, 1));
    b.import(&drained.local).unwrap();
    assert_eq!(text(&b), "one two");
}

#[test]
fn what_the_application_imports_itself_comes_out_as_one_change_with_what_builds_on_it() {
    let (mut a, mut b) = (replica(1), replica(2));
    push(&mut a, "here ");
    let mut changes = a.drain().local;
    let file = LoroDoc::new();
    file.get_text("text").push_str("from a file ").unwrap();
    let native = Loro::new().native(&a);
    native
        .import(&file.export(ExportMode::Snapshot).unwrap())
        .unwrap();
    native.get_text("text").push_str("and on").unwrap();
    native.commit();
    let drained = a.drain().local;
    assert_eq!(drained.len(), 1);
    changes.extend(drained);
    for change in changes {
        assert!(!b.import(&[change]).unwrap().pending);
    }
    assert_eq!(b.version(), a.version());
    assert_eq!(text(&b), text(&a));
    assert!(text(&b).contains("from a file"));
}

#[test]
fn a_peer_id_that_the_application_chose_is_replaced() {
    let mut replicas = [replica(1), replica(2)];
    for replica in &mut replicas {
        Loro::new().native(replica).set_peer_id(7).unwrap();
        push(replica, "x");
        push(replica, "y");
        assert_ne!(Loro::new().native(replica).peer_id(), 7);
    }
    exchange(&mut replicas);
    assert_eq!(text(&replicas[0]).len(), 4);
}

#[test]
fn imports_wait_in_the_history_while_the_application_looks_at_an_earlier_version() {
    let (mut a, mut b) = (replica(1), replica(2));
    push(&mut a, "one ");
    let native = Loro::new().native(&a);
    let then = native.oplog_frontiers();
    push(&mut a, "two ");
    b.import(&a.drain().local).unwrap();
    push(&mut b, "three");
    native.checkout(&then).unwrap();
    assert!(a.import(&b.drain().local).unwrap().changed);
    assert_eq!(text(&a), "one ");
    assert_eq!(a.version(), b.version());
    native.checkout_to_latest();
    assert_eq!(text(&a), "one two three");
    push(&mut a, "!");
    b.import(&a.drain().local).unwrap();
    assert_eq!(text(&b), "one two three!");
}

/// Scenario 89.
#[test]
fn edits_through_handles_of_a_replaced_document_come_out_as_stray() {
    let styles = || {
        let mut styles = StyleConfigMap::new();
        let expand = ExpandType::None;
        styles.insert("note".into(), StyleConfig { expand });
        styles
    };
    let engine = Loro::new().text_styles(styles());
    let mut a = engine.create(ReplicaSeed(1)).unwrap();
    let old = engine.native(&a);
    let kept = old.get_text("text");
    push(&mut a, "hello");
    let edited = engine.edit(&mut a, 200, |doc| {
        doc.get_text("text").push_str(&"x".repeat(300)).unwrap();
    });
    assert!(matches!(
        edited,
        Ok(Edited::TakenBack { replaced: true, .. })
    ));
    assert_eq!(a.drain().local.len(), 1);
    kept.push_str(" stray").unwrap();
    // Also through a kept container in the closure of an edit.
    edit(&mut a, |_| kept.push_str(" too").unwrap());
    old.commit();
    let drained = a.drain();
    assert_eq!(drained.local, Vec::<Bytes>::new());
    assert_eq!(drained.stray.len(), 1);
    assert_eq!(text(&a), "hello");
    let new = engine.native(&a);
    assert_ne!(new.peer_id(), old.peer_id());
    new.get_text("text").mark(0..5, "note", true).unwrap();
    new.commit();
    assert_eq!(a.drain().local.len(), 1);
}

#[test]
fn what_waits_for_a_missing_change_survives_a_taken_back_change() {
    let (mut a, mut b) = (replica(1), replica(2));
    push(&mut a, "one ");
    push(&mut a, "two");
    let changes = a.drain().local;
    assert!(b.import(&changes[1..]).unwrap().pending);
    let edited = Loro::new().edit(&mut b, 10, |doc| doc.get_text("text").push_str("large"));
    assert!(matches!(edited, Ok(Edited::TakenBack { .. })));
    assert!(!b.import(&changes[..1]).unwrap().pending);
    assert_eq!(text(&b), "one two");
}

#[test]
fn what_waits_is_bounded() {
    let (mut a, mut b) = (replica(1), replica(2));
    for word in ["a", "b", "c", "d"] {
        push(&mut a, &word.repeat(6_000_000));
    }
    let changes = a.drain().local;
    assert!(b.import(&changes[2..3]).unwrap().pending);
    // Once more is no more.
    assert!(b.import(&changes[2..3]).unwrap().pending);
    assert!(b.import(&changes[3..4]).unwrap().pending);
    assert!(b.import(&changes[2..4]).unwrap().pending);
    push(&mut a, &"e".repeat(6_000_000));
    assert!(matches!(
        b.import(&a.drain().local),
        Err(EngineError::LimitExceeded { .. })
    ));
    assert!(b.is_poisoned());
}

#[test]
fn a_change_is_an_update_and_nothing_else() {
    let mut a = replica(1);
    push(&mut a, "hello");
    let limits = ValidateLimits::default();
    let validate = |bytes: &[u8]| Loro::new().validate(bytes, &limits);
    let change = a.drain().local.remove(0);
    assert_eq!(validate(&change), Ok(()));
    let mut b = replica(2);
    let mut others = vec![a.snapshot().unwrap().to_vec(), Vec::new(), b"loro".to_vec()];
    // A byte more, in and after the last block, with the checksum of an attacker.
    for (cut, more) in [(0, vec![0]), (1, vec![]), (0, vec![2, 1])] {
        let mut forged = change.to_vec();
        forged.truncate(change.len() - cut);
        forged.extend(more);
        others.push(with_checksum(forged).to_vec());
    }
    for other in others {
        assert!(validate(&other).is_err(), "{other:?}");
        assert!(b.import(&[Bytes::from(other)]).is_err());
    }
    assert!(b.import(&[change]).unwrap().changed);
}

/// As an attacker would.
fn with_checksum(mut update: Vec<u8>) -> Bytes {
    let checksum = twox_hash::XxHash32::oneshot(u32::from_le_bytes(*b"LORO"), &update[20..]);
    update[16..20].copy_from_slice(&checksum.to_le_bytes());
    Bytes::from(update)
}

/// Loro alone reserves 34 GB, which ends the process.
#[test]
fn a_hundred_bytes_that_claim_four_billion_dependencies_are_refused() {
    // One peer; none on itself; a run of one change with 2^32 other dependencies.
    let mut changes = vec![1, 7, 0, 0, 0, 0, 0, 0, 0, 1];
    changes.extend([2, 0x80, 0x80, 0x80, 0x80, 0x10]);
    changes.extend([0; 60]);
    let mut block = vec![0, 1, 0, 1, 1, u8::try_from(changes.len()).unwrap()];
    block.extend(changes);
    block.extend([0; 7]);
    let mut update = [b"loro", &[0; 16][..], &[0, 4]].concat();
    update.push(u8::try_from(block.len()).unwrap());
    update.extend(block);
    let update = with_checksum(update);
    assert!(update.len() <= 120);
    let expected = Err(EngineError::Malformed {
        what: "number of dependencies",
        offset: 45,
    });
    assert_eq!(
        Loro::new().validate(&update, &ValidateLimits::default()),
        expected
    );
    assert_eq!(replica(1).import(&[update]).map(drop), expected);
}

#[test]
fn changes_that_depend_on_many_others_are_taken() {
    let mut replicas: Vec<LoroDocument> = (1..=40).map(replica).collect();
    for replica in &mut replicas {
        push(replica, "x");
    }
    exchange(&mut replicas);
    // Each of these depends on forty heads, or on one that does.
    for _ in 0..3 {
        for replica in &mut replicas {
            push(replica, "y");
        }
    }
    for replica in &mut replicas {
        for change in replica.drain().local {
            assert_eq!(
                Loro::new().validate(&change, &ValidateLimits::default()),
                Ok(())
            );
        }
    }
    let nothing = Version(Bytes::new());
    let all = replicas[0].since(&nothing).unwrap().unwrap();
    assert_eq!(
        Loro::new().validate(&all, &ValidateLimits::default()),
        Ok(())
    );
}

#[test]
fn a_forged_version_is_refused_or_answered() {
    let mut a = replica(1);
    push(&mut a, "hello");
    let peer = Loro::new().native(&a).peer_id();
    let version = |entries: &[(u64, i32)]| {
        let mut bytes = Vec::new();
        for (peer, counter) in entries {
            bytes.extend_from_slice(&peer.to_be_bytes());
            bytes.extend_from_slice(&counter.to_be_bytes());
        }
        Version(Bytes::from(bytes))
    };
    assert_eq!(a.version(), version(&[(peer, 5)]));
    assert_eq!(a.since(&version(&[(peer, i32::MAX)])), Ok(None));
    let rest = a.since(&version(&[(peer, 2), (u64::MAX, 9)])).unwrap();
    assert!(rest.is_some());
    for forged in [
        &[(1, 1), (1, 1)][..],
        &[(2, 1), (1, 1)],
        &[(1, 0)],
        &[(1, -1)],
    ] {
        assert!(matches!(
            a.since(&version(forged)),
            Err(EngineError::Malformed { .. })
        ));
    }
    assert!(a.since(&Version(Bytes::from_static(b"short"))).is_err());
    let at = |version: &Version, a: &mut _| {
        Loro::new().read_at(a, version, |doc| doc.get_text("text").to_string())
    };
    assert_eq!(at(&version(&[(peer, 2)]), &mut a), Ok("he".to_owned()));
    assert_eq!(
        at(&version(&[(peer, 6)]), &mut a),
        Err(EngineError::Incomplete)
    );
}

/// Left to itself, loro says `Ok` to both sides, and one of them waits for ever.
#[test]
fn what_a_trimmed_document_cannot_answer_is_an_error() {
    let (mut a, mut stale) = (replica(1), replica(2));
    push(&mut a, "one ");
    let first = a.drain().local;
    stale.import(&first).unwrap();
    push(&mut stale, "offline ");
    let offline = stale.drain().local;
    push(&mut a, "two ");
    let native = Loro::new().native(&a);
    let trimmed = native
        .export(ExportMode::shallow_snapshot(&native.oplog_frontiers()))
        .unwrap();
    let mut fresh = replica(3);
    assert!(fresh.import_snapshot(&trimmed).unwrap().changed);
    assert_eq!(text(&fresh), "one two ");
    assert_eq!(fresh.version(), a.version());
    let version = stale.version();
    assert_eq!(fresh.since(&version), Err(EngineError::Trimmed));
    assert_eq!(fresh.import(&offline), Err(EngineError::Trimmed));
    assert_eq!(stale.import_snapshot(&trimmed), Err(EngineError::Trimmed));
    assert_eq!(
        Loro::new().read_at(&mut fresh, &version, |_| ()),
        Err(EngineError::Incomplete)
    );
    assert!(!fresh.is_poisoned() && !stale.is_poisoned());
    // Whoever is past the trim is served.
    let version = a.version();
    push(&mut fresh, "three");
    let news = fresh.since(&version).unwrap().unwrap();
    a.import(&[news]).unwrap();
    assert_eq!(text(&a), "one two three");
}

/// A log in which three wrote without having seen each other's, in containers of every kind.
fn concurrent_log() -> Vec<Bytes> {
    let mut replicas: Vec<LoroDocument> = (1..=3).map(replica).collect();
    let mut log = Vec::new();
    for turn in 0..20 {
        for (index, replica) in replicas.iter_mut().enumerate() {
            edit(replica, |doc| {
                doc.get_text("text").insert(0, "word ").unwrap();
                let map = doc.get_map("map");
                (0..50).for_each(|n| map.insert("key", n * turn).unwrap());
                map.insert(&index.to_string(), turn).unwrap();
                doc.get_movable_list("list").insert(0, turn).unwrap();
                let tree = doc.get_tree("tree");
                tree.create(TreeParentId::Root).unwrap();
                doc.get_counter("counter").increment(1.0).unwrap();
            });
            log.extend(replica.drain().local);
        }
    }
    log
}

fn values(document: &LoroDocument) -> LoroValue {
    let read = LoroDoc::get_deep_value;
    Loro::new().read(document, read).unwrap()
}

#[test]
fn a_trim_forgets_all_history_and_no_content_also_where_several_wrote_at_once() {
    let engine = Loro::new();
    let log = concurrent_log();
    let trimmed = engine.trim(None, &log, 0).unwrap();
    let whole = engine.fold(None, &log).unwrap();
    assert!(
        trimmed.len() < whole.len() / 2,
        "{} of {}",
        trimmed.len(),
        whole.len()
    );
    // The same wherever it is made.
    assert_eq!(engine.trim(Some(&whole), &[], 0).unwrap(), trimmed);
    let (mut all, mut fresh) = (replica(8), replica(9));
    all.import(&log).unwrap();
    assert!(fresh.import_snapshot(&trimmed).unwrap().changed);
    assert_eq!(values(&all), values(&fresh));
    assert_eq!(
        fresh.since(&Version(Bytes::new())),
        Err(EngineError::Trimmed)
    );
    // Whoever is at the head takes it, and goes on with whoever began with it.
    assert!(all.import_snapshot(&trimmed).unwrap().changed);
    push(&mut all, "from the old ");
    push(&mut fresh, "from the new ");
    let mut replicas = [all, fresh];
    exchange(&mut replicas);
    assert_eq!(values(&replicas[0]), values(&replicas[1]));
    // It is folded, and trimmed, again.
    let more = replicas[0].since(&{
        let mut before = replica(10);
        before.import_snapshot(&trimmed).unwrap();
        before.version()
    });
    let more = [more.unwrap().unwrap()];
    for again in [
        engine.fold(Some(&trimmed), &more).unwrap(),
        engine.trim(Some(&trimmed), &more, 0).unwrap(),
    ] {
        let mut loaded = replica(11);
        loaded.import_snapshot(&again).unwrap();
        assert_eq!(values(&loaded), values(&replicas[0]));
    }
}

#[test]
fn a_trim_keeps_the_history_that_it_is_told_to_keep() {
    let engine = Loro::new();
    let (mut a, mut stale) = (replica(1), replica(2));
    for word in ["one ", "two "] {
        push(&mut a, word);
    }
    let mut log = a.drain().local;
    stale.import(&log).unwrap();
    push(&mut a, "three ");
    log.extend(a.drain().local);
    push(&mut stale, "offline ");
    let offline = stale.drain().local;
    for (keep, expected) in [(1, true), (0, false)] {
        let trimmed = engine.trim(None, &log, keep).unwrap();
        let mut fresh = replica(3);
        fresh.import_snapshot(&trimmed).unwrap();
        assert_eq!(text(&fresh), "one two three ");
        let imported = fresh.import(&offline);
        assert_eq!(imported.is_ok(), expected, "{imported:?}");
        assert!(expected || imported == Err(EngineError::Trimmed));
    }
}

/// A replica in the place of another, and the changes that the other made: the first of them is refused.
fn refused(f: impl FnOnce(&mut LoroDocument)) -> (LoroDocument, LoroDocument, Vec<Bytes>) {
    let (mut ours, mut theirs) = (replica(1), replica(2));
    edit(&mut theirs, |doc| {
        doc.get_text("text").push_str("hello world").unwrap();
        doc.get_map("map").insert("key", "old").unwrap();
    });
    ours.import(&theirs.drain().local).unwrap();
    f(&mut theirs);
    let mut behind = theirs.drain().local;
    behind.remove(0);
    // The server has something that the author has not seen.
    let mut somebody = replica(3);
    somebody.import_snapshot(&ours.snapshot().unwrap()).unwrap();
    edit(&mut somebody, |doc| doc.get_text("text").insert(0, "oh, ")).unwrap();
    ours.import(&somebody.drain().local).unwrap();
    (ours, theirs, behind)
}

/// Scenario 79.
#[test]
fn work_behind_a_refused_change_is_done_anew_without_it() {
    let (mut ours, mut theirs, behind) = refused(|theirs| {
        edit(theirs, |doc| {
            doc.get_text("text").insert(5, " refused").unwrap();
            doc.get_map("map").insert("key", "refused").unwrap();
            doc.get_map("other").insert("key", "refused").unwrap();
            doc.get_counter("counter").increment(5.0).unwrap();
        });
        edit(theirs, |doc| {
            let text = doc.get_text("text");
            text.push_str("!").unwrap();
            text.insert(13, ",").unwrap();
            doc.get_map("map").insert("key", "new").unwrap();
            doc.get_counter("counter").increment(2.0).unwrap();
        });
        edit(theirs, |doc| {
            let list = doc.get_map("map").insert_container("list", LoroList::new());
            list.unwrap().push(1).unwrap();
        });
    });
    let mut server = replica(4);
    server.import_snapshot(&ours.snapshot().unwrap()).unwrap();
    let anew = ours.rebase(&mut theirs, &behind).unwrap().unwrap();
    assert_eq!(
        Loro::new().validate(&anew, &ValidateLimits::default()),
        Ok(())
    );
    assert!(!server.import(&[anew]).unwrap().pending);
    for document in [&ours, &server] {
        assert_eq!(text(document), "oh, hello, world!");
        let read = |doc: &LoroDoc| {
            let map = doc.get_map("map").get_deep_value();
            (map, doc.get_counter("counter").get())
        };
        let (map, counter) = Loro::new().read(document, read).unwrap();
        assert_eq!(counter, 2.0);
        let map = map.into_map().unwrap();
        assert_eq!(map.get("key"), Some(&LoroValue::from("new")));
        assert_eq!(
            map.get("list"),
            Some(&LoroValue::from(vec![LoroValue::I64(1)]))
        );
    }
    assert_eq!(ours.version(), server.version());
    // And it goes on under an id of its own.
    push(&mut ours, "!");
    server.import(&ours.drain().local).unwrap();
    assert_eq!(text(&server), "oh, hello, world!!");
}

#[test]
fn work_that_depends_on_a_refused_change_is_not_done_anew() {
    let cases: [fn(&mut LoroDocument); 4] = [
        // In a container that it made.
        |theirs| {
            let list = edit(theirs, |doc| {
                doc.get_map("map").insert_container("list", LoroList::new())
            });
            edit(theirs, |_| list.unwrap().push(1)).unwrap();
        },
        // In a text from which it deleted.
        |theirs| {
            edit(theirs, |doc| doc.get_text("text").delete(0, 5)).unwrap();
            push(theirs, "!");
        },
        // In a list in which it moved.
        |theirs| {
            edit(theirs, |doc| doc.get_movable_list("moves").push(1)).unwrap();
            edit(theirs, |doc| doc.get_movable_list("moves").push(2)).unwrap();
        },
        // A container in the place of what it wrote.
        |theirs| {
            edit(theirs, |doc| doc.get_map("map").insert("key", 1)).unwrap();
            edit(theirs, |doc| {
                doc.get_map("map").insert_container("key", LoroList::new())
            })
            .unwrap();
        },
    ];
    for (index, case) in cases.into_iter().enumerate() {
        let (mut ours, mut theirs, behind) = refused(case);
        let version = ours.version();
        let anew = ours.rebase(&mut theirs, &behind);
        let unsupported = matches!(anew, Err(EngineError::Unsupported { .. }));
        assert!(unsupported, "case {index}: {anew:?}");
        assert_eq!(ours.version(), version, "case {index}");
    }
}

#[test]
fn pending_work_is_done_anew_on_a_trimmed_document_by_whoever_was_at_its_head() {
    let (mut at_head, mut behind) = (replica(1), replica(2));
    push(&mut at_head, "one ");
    let mut log = at_head.drain().local;
    behind.import(&log).unwrap();
    push(&mut at_head, "two ");
    log.extend(at_head.drain().local);
    let trimmed = Loro::new().trim(None, &log, 0).unwrap();
    for (mut author, expected) in [(at_head, Ok("one two three ")), (behind, Err(()))] {
        push(&mut author, "three ");
        let pending = author.drain().local;
        let mut fresh = replica(3);
        fresh.import_snapshot(&trimmed).unwrap();
        let anew = fresh.rebase(&mut author, &pending);
        match expected {
            Ok(expected) => {
                assert!(matches!(anew, Ok(Some(_))), "{anew:?}");
                assert_eq!(text(&fresh), expected);
            }
            Err(()) => assert_eq!(anew, Err(EngineError::Trimmed)),
        }
    }
}

#[test]
fn nothing_and_what_waits_are_not_trimmed() {
    let engine = Loro::new();
    assert_eq!(engine.trim(None, &[], 0), Err(EngineError::Unproven));
    let mut a = replica(1);
    push(&mut a, "one ");
    push(&mut a, "two ");
    let log = a.drain().local;
    assert_eq!(
        engine.trim(None, &log[1..], 0),
        Err(EngineError::Incomplete)
    );
    let version = a.version();
    assert_eq!(replica(2).trim(&version), Err(EngineError::Incomplete));
}

#[test]
fn a_replica_that_nobody_reads_makes_the_same_snapshots() {
    let (mut a, mut unread) = (replica(1), replica(2));
    unread.set_unread();
    push(&mut a, "one ");
    push(&mut a, "two");
    let changes = a.drain().local;
    unread.import(&changes).unwrap();
    assert_eq!(unread.version(), a.version());
    // Loro reads it without us.
    let doc = LoroDoc::new();
    doc.import(&unread.snapshot().unwrap()).unwrap();
    assert_eq!(doc.get_text("text").to_string(), "one two");
    assert_eq!(doc.len_changes(), 1);
    let version = replica(3).version();
    assert!(unread.since(&version).unwrap().is_some());
}

/// Scenario 12.
#[test]
fn concurrent_runs_typed_at_one_position_are_not_interleaved() {
    let runs = [
        "hello 😀👩‍👩‍👧 ",
        "e\u{301}\u{327}tude 한국 ",
        "\u{1F1E9}\u{1F1EA}\u{200D}!",
    ];
    let mut replicas: Vec<LoroDocument> = (1..=3).map(replica).collect();
    for (replica, run) in replicas.iter_mut().zip(runs) {
        for (index, c) in run.chars().enumerate() {
            edit(replica, |doc| {
                doc.get_text("text").insert(index, &c.to_string())
            })
            .unwrap();
        }
    }
    exchange(&mut replicas);
    let merged = text(&replicas[0]);
    assert_eq!(
        merged.len(),
        runs.iter().map(|run| run.len()).sum::<usize>()
    );
    for run in runs {
        assert!(merged.contains(run), "{run:?} in {merged:?}");
    }
    for replica in &replicas {
        assert_eq!(text(replica), merged);
    }
}

fn items(document: &LoroDocument) -> Vec<i64> {
    let read = |doc: &LoroDoc| doc.get_movable_list("list").to_vec();
    let items = Loro::new().read(document, read).unwrap();
    items
        .into_iter()
        .map(|item| match item {
            LoroValue::I64(item) => item,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Scenario 13.
#[test]
fn concurrent_moves_leave_one_copy_at_one_position() {
    let mut replicas: Vec<LoroDocument> = (1..=3).map(replica).collect();
    edit(&mut replicas[0], |doc| {
        let list = doc.get_movable_list("list");
        (0..5).for_each(|item| list.push(item).unwrap());
    });
    exchange(&mut replicas);
    for (replica, to) in replicas.iter_mut().zip([1, 3, 4]) {
        edit(replica, |doc| doc.get_movable_list("list").mov(0, to)).unwrap();
    }
    exchange(&mut replicas);
    let shown = items(&replicas[0]);
    let mut sorted = shown.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [0, 1, 2, 3, 4]);
    for replica in &replicas {
        assert_eq!(items(replica), shown);
    }
}

/// Scenario 14.
#[test]
fn inserts_at_one_index_keep_the_order_in_which_they_were_made() {
    let mut replicas: Vec<LoroDocument> = (1..=2).map(replica).collect();
    for (replica, first) in replicas.iter_mut().zip([0, 100]) {
        for item in 0..5 {
            let index = usize::try_from(item).unwrap();
            edit(replica, |doc| {
                doc.get_movable_list("list").insert(index, first + item)
            })
            .unwrap();
        }
    }
    exchange(&mut replicas);
    let shown = items(&replicas[0]);
    assert_eq!(items(&replicas[1]), shown);
    let runs: [&[i64]; 2] = [&[0, 1, 2, 3, 4], &[100, 101, 102, 103, 104]];
    assert!(
        shown == runs.concat() || shown == [runs[1], runs[0]].concat(),
        "{shown:?}"
    );
}

/// Scenario 15.
#[test]
fn a_cursor_survives_edits_before_it_and_the_deletion_of_its_anchor() {
    let mut replicas: Vec<LoroDocument> = (1..=2).map(replica).collect();
    push(&mut replicas[0], "hello world");
    exchange(&mut replicas);
    let read = |doc: &LoroDoc| doc.get_text("text").get_cursor(6, Side::Left).unwrap();
    let cursor: Cursor = Loro::new().read(&replicas[0], read).unwrap();
    let at = |replica: &LoroDocument| {
        let read = |doc: &LoroDoc| doc.get_cursor_pos(&cursor).unwrap().current.pos;
        Loro::new().read(replica, read).unwrap()
    };
    edit(&mut replicas[1], |doc| {
        doc.get_text("text").insert(0, "oh, ")
    })
    .unwrap();
    exchange(&mut replicas);
    assert_eq!([at(&replicas[0]), at(&replicas[1])], [10, 10]);
    edit(&mut replicas[1], |doc| doc.get_text("text").delete(0, 2)).unwrap();
    edit(&mut replicas[0], |doc| doc.get_text("text").delete(10, 1)).unwrap();
    exchange(&mut replicas);
    assert_eq!(text(&replicas[0]), ", hello orld");
    assert_eq!([at(&replicas[0]), at(&replicas[1])], [8, 8]);
}
