//! What the owner of a typed document can rely on: one closure is one change, or none.

#![allow(clippy::unwrap_used, reason = "test harness")]
#![allow(clippy::indexing_slicing, reason = "test harness")]

mod mergeable_support;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use mergeable_support::{assert_converged, content, edit, get, insert, replica, sync, version};
use serde::ser::{Error as _, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};
use sync_core::engine::typed::{Typed, TypedDocument};
use sync_core::engine::{Document, Edited, Engine, EngineError, ReplicaSeed, Source};
use sync_core::mergeable::{LwwMap, ValueError};

const NOW: u64 = 1_800_000_000_000;

#[test]
fn one_closure_is_one_change_and_it_is_seen_whole() {
    let (mut a, mut b) = (replica::<String, u32>(1), replica::<String, u32>(2));
    let changes = edit(&mut a, NOW, |map| {
        map.insert("x".into(), 1).unwrap();
        map.insert("y".into(), 2).unwrap();
        assert_eq!(map.remove(&"x".into()), Ok(true));
        assert_eq!(map.remove(&"z".into()), Ok(false));
        map.insert("x".into(), 3).unwrap();
        assert_eq!(
            (map.get("x"), map.len(), map.contains("z")),
            (Some(&3), 2, false)
        );
    });
    assert_eq!(changes.len(), 1);
    b.import(&changes).unwrap();
    assert_eq!(content(&b), [("x".to_owned(), 3), ("y".to_owned(), 2)]);
    assert_converged(&mut a, &mut b);
}

#[test]
fn a_closure_that_changes_nothing_makes_no_change_and_no_event() {
    let mut a = replica::<u8, u8>(1);
    insert(&mut a, NOW, 1, 1);
    let before = a.version();
    assert!(edit(&mut a, NOW, |map| assert_eq!(map.len(), 1)).is_empty());
    assert_eq!(a.version(), before);
    assert_eq!(a.drain(), sync_core::engine::Drained::default());
}

#[test]
fn a_change_that_is_too_large_is_taken_back_without_a_trace() {
    let engine = Typed::<LwwMap<String, String>>::new();
    let mut document = engine.create(ReplicaSeed(1)).unwrap();
    engine
        .edit(&mut document, 1_000, |map| {
            map.insert("kept".into(), "old".into())
        })
        .unwrap();
    document.drain();
    let before = (document.version(), document.snapshot());

    let outcome = engine.edit(&mut document, 1_000, |map| {
        map.insert("kept".into(), "new".into()).unwrap();
        map.insert("large".into(), "x".repeat(1_000)).unwrap();
        map.remove(&"other".into()).unwrap();
    });
    let Ok(Edited::TakenBack {
        change,
        replaced: false,
    }) = outcome
    else {
        panic!("{outcome:?}")
    };
    assert!(change.len() > 1_000);
    assert_eq!((document.version(), document.snapshot()), before);
    assert_eq!(
        engine.read(&document, |map| (map.len(), map.get("kept").cloned())),
        Ok((1, Some("old".into())))
    );
    assert!(document.drain().local.is_empty());

    // The next change follows the last one that was made: no hole in the numbers.
    engine
        .edit(&mut document, 1_000, |map| {
            map.insert("next".into(), String::new())
        })
        .unwrap();
    let mut other = engine.create(ReplicaSeed(2)).unwrap();
    other.import(&document.drain().local).unwrap();
    other.import(&[change]).unwrap();
    assert_eq!(engine.read(&other, |map| map.len()), Ok(3));
}

/// Scenario 90, its last part.
#[test]
fn a_closure_that_panics_leaves_the_document_usable_and_unchanged() {
    let engine = Typed::<LwwMap<u8, u8>>::new();
    let mut document = replica::<u8, u8>(1);
    insert(&mut document, NOW, 1, 1);
    let before = version(&mut document);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        engine.edit(&mut document, usize::MAX, |map| {
            map.insert(1, 2).unwrap();
            map.insert(2, 2).unwrap();
            std::panic::resume_unwind(Box::new("user code"));
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(content(&document), [(1, 1)]);
    assert_eq!(document.version(), before);
    insert(&mut document, NOW, 1, 3);
    assert_eq!(content(&document), [(1, 3)]);
}

#[test]
fn a_closure_that_puts_another_value_in_place_is_noticed() {
    let engine = Typed::<LwwMap<u8, u8>>::new();
    let mut document = replica::<u8, u8>(1);
    insert(&mut document, NOW, 1, 1);
    let outcome = engine.edit(&mut document, usize::MAX, |map| *map = LwwMap::new());
    assert_eq!(outcome, Err(EngineError::Poisoned));
    assert_eq!(
        engine.read(&document, LwwMap::len),
        Err(EngineError::Poisoned)
    );
    assert_eq!(document.snapshot(), Err(EngineError::Poisoned));
    assert_eq!(
        document.import(&[]).map(|imported| imported.changed),
        Err(EngineError::Poisoned)
    );
}

#[test]
fn imports_are_events_but_never_local_changes() {
    let (mut a, mut b) = (replica::<u8, u8>(1), replica::<u8, u8>(2));
    let woken = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&woken);
    b.set_wake(Arc::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    let change = insert(&mut a, NOW, 1, 1);
    assert!(b.import(std::slice::from_ref(&change)).unwrap().changed);
    let drained = b.drain();
    assert!(drained.local.is_empty());
    assert_eq!(
        drained
            .events
            .iter()
            .map(|event| event.source)
            .collect::<Vec<_>>(),
        [Source::Remote]
    );

    // A repeat is no event.
    assert!(!b.import(&[change]).unwrap().changed);
    assert!(b.drain().events.is_empty());
    assert_eq!(woken.load(Ordering::Relaxed), 1);

    insert_undrained(&mut b);
    let drained = b.drain();
    assert_eq!(
        (drained.local.len(), drained.events[0].source),
        (1, Source::Local)
    );
    assert_eq!(woken.load(Ordering::Relaxed), 2);
}

fn insert_undrained(document: &mut TypedDocument<LwwMap<u8, u8>>) {
    let outcome = Typed::new().edit(document, usize::MAX, |map| map.insert(2, 2));
    assert_eq!(outcome, Ok(Edited::Done(Ok(()))));
}

/// What came before a refused change in a batch is there, and is an event.
#[test]
fn a_bad_change_is_refused_whole_and_what_came_before_it_stays() {
    let (mut a, mut b) = (replica::<u8, u8>(1), replica::<u8, u8>(2));
    let good = insert(&mut a, NOW, 1, 1);
    let later = insert(&mut a, NOW, 2, 2);
    let cut = later.slice(..later.len() - 1);
    assert!(matches!(
        b.import(&[good, cut, later]),
        Err(EngineError::Malformed { .. })
    ));
    assert_eq!(content(&b), [(1, 1)]);
    assert_eq!(b.drain().events.len(), 1);
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct TaskV1 {
    title: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct TaskV2 {
    title: String,
    #[serde(default)]
    done: bool,
}

#[test]
fn a_field_can_be_added_to_a_value_type_later() {
    let mut old = replica::<u8, TaskV1>(1);
    let mut new = replica::<u8, TaskV2>(2);
    let from_new = insert(
        &mut new,
        NOW,
        1,
        TaskV2 {
            title: "write".into(),
            done: true,
        },
    );
    let from_old = insert(
        &mut old,
        NOW,
        2,
        TaskV1 {
            title: "read".into(),
        },
    );
    old.import(&[from_new]).unwrap();
    new.import(&[from_old]).unwrap();
    assert_eq!(
        get(&old, &1),
        Some(TaskV1 {
            title: "write".into()
        })
    );
    assert_eq!(
        get(&new, &2),
        Some(TaskV2 {
            title: "read".into(),
            done: false
        })
    );

    // The old version passes on what it does not know.
    let mut newer = replica::<u8, TaskV2>(3);
    newer.import_snapshot(&old.snapshot().unwrap()).unwrap();
    assert_converged(&mut new, &mut newer);
}

#[test]
fn entries_that_cannot_be_read_are_kept_and_passed_on_but_not_shown() {
    let (mut texts, mut texts_too) = (replica::<u32, String>(1), replica::<u32, String>(2));
    let mut numbers = replica::<u8, u32>(3);
    insert(&mut texts, NOW, 1, "not a number".into());
    insert(&mut texts, NOW, 70_000, "neither a key".into());
    numbers.import_snapshot(&texts.snapshot().unwrap()).unwrap();
    assert!(content(&numbers).is_empty());
    insert(&mut numbers, NOW + 1, 2, 5);
    texts_too
        .import_snapshot(&numbers.snapshot().unwrap())
        .unwrap();
    assert_eq!(
        content(&texts_too),
        [(1, "not a number".into()), (70_000, "neither a key".into())]
    );

    // It is beaten like any other entry, and taking a change back does not lose it either.
    let engine = Typed::<LwwMap<u8, u32>>::new();
    assert!(matches!(
        engine.edit(&mut numbers, 1, |map| map.insert(1, 7)),
        Ok(Edited::TakenBack { .. })
    ));
    texts_too
        .import_snapshot(&numbers.snapshot().unwrap())
        .unwrap();
    assert_eq!(get(&texts_too, &1), Some("not a number".into()));
    insert(&mut numbers, NOW + 2, 1, 7);
    assert_eq!(content(&numbers), [(1, 7), (2, 5)]);
}

/// A value whose `Serialize` goes wrong in the way chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Odd {
    Fails,
    Lies,
    Unreadable,
}

impl Serialize for Odd {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fails => Err(S::Error::custom("it is Tuesday")),
            Self::Lies => serializer.serialize_seq(Some(2))?.end(),
            Self::Unreadable => serializer.serialize_bool(true),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Nested(Vec<Self>);

#[test]
fn what_cannot_be_stored_is_refused_at_once_and_changes_nothing() {
    let mut odd = replica::<u8, Odd>(1);
    let changes = edit(&mut odd, NOW, |map| {
        let failed = map.insert(1, Odd::Fails);
        assert!(
            matches!(&failed, Err(ValueError::NotSerializable { message }) if message.contains("Tuesday"))
        );
        assert_eq!(map.insert(1, Odd::Lies), Err(ValueError::NotReadable));
        assert_eq!(map.insert(1, Odd::Unreadable), Err(ValueError::NotReadable));
        assert!(map.is_empty());
    });
    assert!(changes.is_empty());

    let nest = |depth: usize| (1..depth).fold(Nested(Vec::new()), |inner, _| Nested(vec![inner]));
    let mut deep = replica::<u8, Nested>(1);
    edit(&mut deep, NOW, |map| {
        assert_eq!(map.insert(1, nest(64)), Ok(()));
        assert_eq!(
            map.insert(2, nest(65)),
            Err(ValueError::TooDeep { max: 64 })
        );
    });
    let mut reader = replica::<u8, Nested>(2);
    sync(&mut deep, &mut reader);
    assert_eq!(get(&reader, &1), Some(nest(64)));
}

/// Two processes with one seed (a restored backup, a forger): nobody uses a commit's name twice once it is seen.
#[test]
fn a_replica_id_used_elsewhere_is_given_up() {
    let (mut original, mut copy) = (replica::<u8, u8>(7), replica::<u8, u8>(7));
    insert(&mut original, NOW, 1, 1);
    sync(&mut original, &mut copy);
    insert(&mut copy, NOW + 1, 2, 2);
    insert(&mut original, NOW + 1, 3, 3);
    sync(&mut original, &mut copy);
    sync(&mut copy, &mut original);
    assert_converged(&mut original, &mut copy);
    assert_eq!(content(&copy), [(1, 1), (2, 2), (3, 3)]);
}

/// Two changes under one name, made before either was seen: the versions differ, and one exchange heals it.
#[test]
fn two_contents_under_one_name_have_different_versions_and_are_healed() {
    let (mut a, mut b) = (replica::<u8, u8>(7), replica::<u8, u8>(7));
    insert(&mut a, NOW, 1, 1);
    insert(&mut b, NOW, 2, 2);
    assert_ne!(a.version(), b.version());
    sync(&mut a, &mut b);
    sync(&mut b, &mut a);
    assert_converged(&mut a, &mut b);
    assert_eq!(content(&a), [(1, 1), (2, 2)]);
}

#[test]
fn a_version_of_another_engine_is_refused() {
    let mut document: TypedDocument<LwwMap<u8, u8>> = replica(1);
    for bytes in [&b""[..], b"\x01", b"not a version at all"] {
        let version = sync_core::engine::Version(Bytes::from_static(bytes));
        assert!(matches!(
            document.since(&version),
            Err(EngineError::Malformed { .. })
        ));
    }
}
