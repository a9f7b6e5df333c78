//! What somebody sees who edits mergeable documents with others.

#![allow(clippy::unwrap_used, reason = "test harness")]

use bytes::Bytes;
use sync_core::engine::typed::{Typed, TypedDocument};
use sync_core::engine::{Document, Engine, Folder, ReplicaSeed};
use sync_core::mergeable::{Counter, Dictionary, Mergeable, MergeableValidator, OrMap, OrSet};

type Replica<T> = TypedDocument<T>;

fn replica<T: Mergeable>(seed: u128) -> Replica<T> {
    let mut replica = Typed::new().create(ReplicaSeed(seed)).unwrap();
    replica.set_wall_time(1_800_000_000_000);
    replica.set_undo_max(10);
    replica
}

/// Makes one change.
fn edit<T: Mergeable>(replica: &mut Replica<T>, f: impl FnOnce(&mut T)) -> Bytes {
    Typed::new().edit(replica, usize::MAX, f).unwrap();
    drained(replica)
}

fn drained<T: Mergeable>(replica: &mut Replica<T>) -> Bytes {
    replica.drain().local.pop().unwrap()
}

fn read<T: Mergeable, R>(replica: &Replica<T>, f: impl FnOnce(&T) -> R) -> R {
    Typed::new().read(replica, f).unwrap()
}

/// Somebody who comes later and has it from a snapshot that a server folded of this log.
fn from_fold<T: Mergeable>(log: &[Bytes]) -> Replica<T> {
    let validator = MergeableValidator::new();
    let folded = validator.fold(None, log).unwrap();
    let mut late = replica(99);
    late.import_snapshot(&folded).unwrap();
    late
}

/// Scenario 7.
#[test]
fn an_element_added_beside_its_removal_stays_and_one_removed_by_who_saw_it_is_gone() {
    let (mut a, mut b) = (replica::<OrSet<String>>(1), replica::<OrSet<String>>(2));
    let first = edit(&mut a, |set| assert!(set.insert("x".into()).unwrap()));
    b.import(std::slice::from_ref(&first)).unwrap();
    let again = edit(&mut a, |set| {
        set.remove("x");
        set.insert("x".into()).unwrap();
    });
    let removed = edit(&mut b, |set| assert!(set.remove("x")));
    a.import(std::slice::from_ref(&removed)).unwrap();
    b.import(std::slice::from_ref(&again)).unwrap();
    let mut log = vec![first, again, removed];
    let late = from_fold::<OrSet<String>>(&log);
    for set in [&a, &b, &late] {
        assert!(read(set, |set| set.contains("x")));
    }
    // By somebody who joined from the snapshot: it is gone everywhere, for those who join later too.
    let mut late = late;
    let gone = edit(&mut late, |set| assert!(set.remove("x")));
    log.push(gone.clone());
    for set in [&mut a, &mut b] {
        set.import(std::slice::from_ref(&gone)).unwrap();
        assert!(read(set, OrSet::is_empty));
    }
    assert!(read(&from_fold::<OrSet<String>>(&log), OrSet::is_empty));
}

/// Scenario 8.
#[test]
fn a_key_edited_beside_its_removal_stays_and_one_removed_by_who_saw_it_is_gone() {
    type Map = OrMap<String, Counter>;
    let (mut a, mut b) = (replica::<Map>(1), replica::<Map>(2));
    let first = edit(&mut a, |map| map.entry("x".into()).unwrap().add(1));
    b.import(std::slice::from_ref(&first)).unwrap();
    let edited = edit(&mut a, |map| map.entry("x".into()).unwrap().add(2));
    let removed = edit(&mut b, |map| assert!(map.remove("x")));
    a.import(std::slice::from_ref(&removed)).unwrap();
    b.import(std::slice::from_ref(&edited)).unwrap();
    let mut log = vec![first, edited, removed];
    let mut late = from_fold::<Map>(&log);
    for map in [&a, &b, &late] {
        assert_eq!(read(map, |map| map.get("x").map(Counter::value)), Some(3));
    }
    let gone = edit(&mut late, |map| assert!(map.remove("x")));
    log.push(gone.clone());
    for map in [&mut a, &mut b] {
        map.import(std::slice::from_ref(&gone)).unwrap();
        assert!(read(map, Map::is_empty));
    }
    assert!(read(&from_fold::<Map>(&log), Map::is_empty));
}

/// Scenario 9.
#[test]
fn increments_of_five_replicas_sum_and_one_that_is_undone_takes_back_itself() {
    let mut all: Vec<Replica<Counter>> = (1..=5).map(replica).collect();
    let log: Vec<Bytes> = (1..)
        .zip(&mut all)
        .map(|(by, counter)| edit(counter, |counter| counter.add(by)))
        .collect();
    for counter in &mut all {
        counter.import(&log).unwrap();
        counter.import(&log).unwrap();
        assert_eq!(read(counter, Counter::value), 15);
    }
    let (mut a, mut b) = (replica::<Counter>(1), replica::<Counter>(2));
    let three = edit(&mut a, |counter| counter.add(3));
    let five = edit(&mut b, |counter| counter.add(5));
    a.import(&[five]).unwrap();
    b.import(&[three]).unwrap();
    assert!(Document::undo(&mut a).unwrap());
    let undone = drained(&mut a);
    b.import(&[undone]).unwrap();
    for counter in [&a, &b] {
        assert_eq!(read(counter, Counter::value), 5);
    }
}

/// Scenario 10.
#[test]
fn a_key_made_by_two_and_deleted_by_one_is_deleted_for_both() {
    type Map = Dictionary<String, Counter>;
    let (mut a, mut b) = (replica::<Map>(1), replica::<Map>(2));
    let by_a = edit(&mut a, |map| map.entry("x".into()).unwrap().add(1));
    let by_b = edit(&mut b, |map| map.entry("x".into()).unwrap().add(2));
    a.import(&[by_b]).unwrap();
    b.import(&[by_a]).unwrap();
    assert_eq!(read(&a, |map| map.get("x").map(Counter::value)), Some(3));
    let deleted = edit(&mut a, |map| assert!(map.remove("x")));
    b.import(&[deleted]).unwrap();
    let mut merged = replica::<Map>(3);
    merged.import_snapshot(&b.snapshot().unwrap()).unwrap();
    merged.import_snapshot(&a.snapshot().unwrap()).unwrap();
    for map in [&a, &b, &merged] {
        assert!(!read(map, |map| map.contains("x")));
    }
    assert_eq!(a.version(), merged.version());
}

/// Scenario 11.
#[test]
fn edits_at_different_depths_survive_and_a_parent_deleted_beside_an_edit_ends_alike_everywhere() {
    type Board = OrMap<String, Dictionary<String, Counter>>;
    let add = |replica: &mut Replica<Board>, key: &str, amount| {
        edit(replica, |board| {
            let parent = board.entry("p".into()).unwrap();
            parent.entry(key.into()).unwrap().add(amount);
        })
    };
    let (mut a, mut b) = (replica::<Board>(1), replica::<Board>(2));
    let made = add(&mut a, "c", 1);
    b.import(std::slice::from_ref(&made)).unwrap();
    let deep = add(&mut a, "c", 1);
    let beside = add(&mut b, "d", 7);
    a.import(std::slice::from_ref(&beside)).unwrap();
    b.import(std::slice::from_ref(&deep)).unwrap();
    let value = |replica: &Replica<Board>, key: &str| {
        read(replica, |board| {
            board
                .get("p")
                .and_then(|inner| inner.get(key))
                .map(Counter::value)
        })
    };
    for board in [&a, &b] {
        assert_eq!((value(board, "c"), value(board, "d")), (Some(2), Some(7)));
    }
    let deleted = edit(&mut a, |board| assert!(board.remove("p")));
    let edited = add(&mut b, "d", 1);
    let log = [made, deep, beside, deleted.clone(), edited.clone()];
    a.import(&[edited]).unwrap();
    b.import(&[deleted]).unwrap();
    // An edit wins over a removal in an `OrMap`, and the content stays whole.
    for board in [&a, &b, &from_fold(&log)] {
        assert_eq!((value(board, "c"), value(board, "d")), (Some(2), Some(8)));
    }
    assert_eq!(a.version(), b.version());
}
