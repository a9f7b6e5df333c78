//! Structs as documents, and versions of an application that know different fields of them.
#![cfg(feature = "derive")]
#![allow(clippy::unwrap_used, reason = "test harness")]
#![allow(clippy::indexing_slicing, reason = "test harness")]

use std::fmt::Debug;

use bytes::Bytes;
use sync_core::engine::typed::{Typed, TypedDocument};
use sync_core::engine::{Document, Edited, Engine, EngineError, Folder, ReplicaSeed};
use sync_core::mergeable::{
    Counter, Dictionary, Mergeable, MergeableValidator, OrMap, OrSet, Register, Sequence,
};

/// What an application began with.
#[derive(Debug, Clone, Default, Mergeable)]
struct Old {
    title: Register<String>,
    owner: OldPerson,
    cards: Dictionary<u8, OldPerson>,
}

#[derive(Debug, Clone, Default, Mergeable)]
struct OldPerson {
    name: Register<String>,
}

/// Its next version: fields came, moved, and were renamed.
#[derive(Debug, Clone, Default, Mergeable)]
struct New {
    labels: OrSet<String>,
    lanes: OrMap<u8, Sequence<char>>,
    cards: Dictionary<u8, NewPerson>,
    owner: NewPerson,
    #[merge(tag = 0x9865_b509)]
    heading: Register<String>,
}

#[derive(Debug, Clone, Default, Mergeable)]
struct NewPerson {
    votes: Counter,
    name: Register<String>,
    address: Option<(Register<String>, Counter)>,
}

#[derive(Debug, Clone, Default, Mergeable)]
struct Pair<A, B>(A, Option<B>);

#[derive(Debug, Clone, Default, Mergeable)]
struct Nothing {}

fn replica<T: Mergeable>(seed: u128) -> TypedDocument<T> {
    Typed::new().create(ReplicaSeed(seed)).unwrap()
}

fn edit<T: Mergeable>(replica: &mut TypedDocument<T>, f: impl FnOnce(&mut T)) -> Bytes {
    let outcome = Typed::new().edit(replica, usize::MAX, f);
    assert!(matches!(outcome, Ok(Edited::Done(()))));
    replica.drain().local.pop().unwrap()
}

fn seen<T: Mergeable + Debug>(replica: &TypedDocument<T>) -> String {
    Typed::new()
        .read(replica, |value| format!("{value:?}"))
        .unwrap()
}

/// A replica's state as software without the type writes it, which numbers stamps in one order.
fn untyped<T: Mergeable>(replica: &mut TypedDocument<T>) -> Bytes {
    let state = replica.snapshot().unwrap();
    MergeableValidator::new().fold(None, &[state]).unwrap()
}

fn edits_of_new() -> (TypedDocument<New>, Vec<Bytes>) {
    let mut new = replica::<New>(2);
    let log = vec![
        edit(&mut new, |board| {
            board.heading.set("Plans".into()).unwrap();
            board.labels.insert("urgent".into()).unwrap();
            board.owner.votes.add(3);
            board.owner.name.set("Ada".into()).unwrap();
            let address = board.owner.address.get_or_insert_default();
            address.0.set("Rue 1".into()).unwrap();
        }),
        edit(&mut new, |board| {
            let card = board.cards.entry(1).unwrap();
            card.name.set("Ben".into()).unwrap();
            card.votes.add(1);
            board.lanes.entry(1).unwrap().insert_str(0, "todo").unwrap();
        }),
    ];
    (new, log)
}

/// Scenario 66, for structs: also nested ones, in fields and in maps.
#[test]
fn an_older_version_keeps_and_passes_on_fields_that_it_does_not_know() {
    let (mut new, mut log) = edits_of_new();
    let mut old = replica::<Old>(1);
    old.import(&log).unwrap();
    log.push(edit(&mut old, |board| {
        board.title.set("Better plans".into()).unwrap();
        board.owner.name.set("Eve".into()).unwrap();
        board
            .cards
            .entry(2)
            .unwrap()
            .name
            .set("Cleo".into())
            .unwrap();
    }));
    // Through a difference and through a snapshot.
    let difference = old.since(&new.version()).unwrap().unwrap();
    new.import(&[difference]).unwrap();
    let mut loaded = replica::<New>(3);
    loaded.import_snapshot(&old.snapshot().unwrap()).unwrap();
    assert_eq!(seen(&new), seen(&loaded));
    let board = seen(&new);
    for part in [
        "Better plans",
        "urgent",
        "Counter(3)",
        "Eve",
        "Rue 1",
        "Cleo",
        "Counter(1)",
    ] {
        assert!(board.contains(part), "no {part} in {board}");
    }

    // All hold the same, whether they know the fields or not.
    let folded = MergeableValidator::new().fold(None, &log).unwrap();
    assert_eq!(new.version(), old.version());
    assert_eq!(new.snapshot().unwrap(), folded);
    assert_eq!(untyped(&mut old), folded);
    assert_eq!(untyped(&mut loaded), folded);
    assert_eq!(old.since(&new.version()).unwrap(), None);
}

/// What an older version removes, it removes with what it does not know of it.
#[test]
fn an_older_version_removes_with_unknown_fields() {
    let (mut new, log) = edits_of_new();
    let mut old = replica::<Old>(1);
    old.import(&log).unwrap();
    let removal = edit(&mut old, |board| assert!(board.cards.remove(&1)));
    new.import(&[removal]).unwrap();
    edit(&mut new, |board| {
        board.cards.entry(1).unwrap();
    });
    let votes = Typed::new().read(&new, |board: &New| {
        board.cards.get(&1).unwrap().votes.value()
    });
    assert_eq!(votes, Ok(0));
}

#[test]
fn a_field_whose_kind_changed_keeps_both_contents() {
    #[derive(Debug, Clone, Default, Mergeable)]
    struct Counted {
        likes: Counter,
    }
    #[derive(Debug, Clone, Default, Mergeable)]
    struct Named {
        likes: OrSet<String>,
    }
    let (mut counted, mut named) = (replica::<Counted>(1), replica::<Named>(2));
    let first = edit(&mut counted, |post| post.likes.add(2));
    let second = edit(&mut named, |post| {
        assert!(post.likes.insert("Ada".into()).unwrap())
    });
    named.import(&[first]).unwrap();
    counted.import(&[second]).unwrap();
    assert_eq!(seen(&named), r#"Named { likes: {"Ada"} }"#);
    assert_eq!(seen(&counted), "Counted { likes: Counter(2) }");
    assert_eq!(named.version(), counted.version());
    assert_eq!(untyped(&mut named), untyped(&mut counted));
    let mut fresh = replica::<Counted>(3);
    fresh.import_snapshot(&named.snapshot().unwrap()).unwrap();
    assert_eq!(seen(&fresh), seen(&counted));
}

#[test]
fn a_document_of_another_type_is_kept_and_shows_nothing() {
    let (mut board, mut counter) = (replica::<Old>(1), replica::<Counter>(2));
    let change = edit(&mut board, |board| board.title.set("x".into()).unwrap());
    assert!(counter.import(&[change]).unwrap().changed);
    assert_eq!(seen(&counter), "Counter(0)");
    assert_eq!(counter.snapshot(), board.snapshot());
}

#[test]
fn generic_and_empty_structs_are_documents_too() {
    let mut pair = replica::<Pair<Counter, Register<u8>>>(1);
    edit(&mut pair, |pair| {
        pair.0.add(1);
        pair.1.get_or_insert_default().set(7).unwrap();
    });
    // By position, as a tuple.
    let mut tuple = replica::<(Counter, Register<u8>)>(2);
    tuple.import_snapshot(&pair.snapshot().unwrap()).unwrap();
    assert_eq!(seen(&tuple), "(Counter(1), Register(Some(7)))");

    let nothing = replica::<Nothing>(1);
    assert!(Typed::new().read(&nothing, Mergeable::is_empty).unwrap());
}

#[test]
fn a_field_that_is_replaced_instead_of_edited_is_noticed() {
    let mut board = replica::<Old>(1);
    edit(&mut board, |board| {
        board
            .cards
            .entry(1)
            .unwrap()
            .name
            .set("Ada".into())
            .unwrap();
    });
    let outcome = Typed::new().edit(&mut board, usize::MAX, |board: &mut Old| {
        *board.cards.get_mut(&1).unwrap() = OldPerson::default();
    });
    assert_eq!(outcome, Err(EngineError::Poisoned));
}
