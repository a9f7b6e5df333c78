//! What is particular to automerge: chunks, actors, and documents that are lent as a whole.

#![cfg(feature = "automerge")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test harness"
)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use sync_core::automerge::transaction::Transactable;
use sync_core::automerge::{ActorId, AutoCommit, ObjId, ObjType, ROOT, ReadDoc, ScalarValue};
use sync_core::engine::automerge::{Automerge, AutomergeDocument};
use sync_core::engine::{
    Document, Edited, Engine, EngineError, Folder, ReplicaSeed, Source, ValidateLimits, Version,
};

fn replica(seed: u128) -> AutomergeDocument {
    Automerge::new().create(ReplicaSeed(seed)).unwrap()
}

fn edit<R>(document: &mut AutomergeDocument, f: impl FnOnce(&mut AutoCommit) -> R) -> R {
    match Automerge::new().edit(document, usize::MAX, f).unwrap() {
        Edited::Done(result) => result,
        _ => panic!("taken back without a limit"),
    }
}

fn text_of(doc: &AutoCommit) -> ObjId {
    doc.get(ROOT, "text").unwrap().unwrap().1
}

fn insert(document: &mut AutomergeDocument, at: usize, text: &str) {
    edit(document, |doc| doc.splice_text(text_of(doc), at, 0, text)).unwrap();
}

fn text(document: &AutomergeDocument) -> String {
    Automerge::new()
        .read(document, |doc| doc.text(text_of(doc)).unwrap())
        .unwrap()
}

/// Replicas that have one text.
fn replicas(n: u128) -> Vec<AutomergeDocument> {
    let mut replicas: Vec<AutomergeDocument> = (1..=n).map(replica).collect();
    edit(&mut replicas[0], |doc| {
        doc.put_object(ROOT, "text", ObjType::Text)
    })
    .unwrap();
    exchange(&mut replicas);
    replicas
}

/// Gives each replica the others' changes, in another order each.
fn exchange(replicas: &mut [AutomergeDocument]) {
    let changes: Vec<Vec<Bytes>> = replicas
        .iter_mut()
        .map(|replica| replica.drain().local)
        .collect();
    let n = replicas.len();
    for (to, replica) in replicas.iter_mut().enumerate() {
        for turn in 1..n {
            replica.import(&changes[(to + turn) % n]).unwrap();
        }
    }
    let (first, others) = replicas.split_first_mut().unwrap();
    for other in others {
        assert_eq!(first.version(), other.version());
    }
}

#[test]
fn events_name_the_touched_entries_of_the_root() {
    let (mut a, mut b) = (replica(1), replica(2));
    let mut touch = |f: &dyn Fn(&mut AutoCommit)| {
        edit(&mut a, f);
        let drained = a.drain();
        b.import(&drained.local).unwrap();
        let mut roots = Vec::new();
        for (events, source) in [
            (drained.events, Source::Local),
            (b.drain().events, Source::Remote),
        ] {
            assert_eq!(events.len(), 1);
            assert_eq!(events[0].source, source);
            roots.push(events[0].roots.clone());
        }
        assert_eq!(roots[0], roots[1]);
        roots.remove(0)
    };
    let roots = touch(&|doc| {
        let list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
        let inner = doc.insert_object(list, 0, ObjType::Map).unwrap();
        doc.put(inner, "deep", 1).unwrap();
        doc.put(ROOT, "title", "x").unwrap();
    });
    assert_eq!(roots, [Arc::from("list"), Arc::from("title")]);
    let roots = touch(&|doc| {
        let list = doc.get(ROOT, "list").unwrap().unwrap().1;
        let inner = doc.get(list, 0).unwrap().unwrap().1;
        doc.put(inner, "deep", 2).unwrap();
    });
    assert_eq!(roots, [Arc::from("list")]);
    assert_eq!(
        touch(&|doc| doc.delete(ROOT, "title").unwrap()),
        [Arc::from("title")]
    );
}

#[test]
fn what_a_closure_commits_itself_is_one_change_with_the_rest() {
    let (mut a, mut b) = (replica(1), replica(2));
    edit(&mut a, |doc| {
        doc.put(ROOT, "one", 1).unwrap();
        doc.commit();
        let mut other = AutoCommit::new();
        other.put(ROOT, "from elsewhere", 1).unwrap();
        doc.merge(&mut other).unwrap();
        doc.put(ROOT, "two", 2).unwrap();
    });
    let drained = a.drain();
    assert_eq!((drained.local.len(), drained.events.len()), (1, 1));
    let limits = ValidateLimits::default();
    assert_eq!(
        Automerge::new().validate(&drained.local[0], &limits),
        Ok(())
    );
    assert!(!b.import(&drained.local).unwrap().pending);
    assert_eq!(a.version(), b.version());
    let keys = |doc: &AutoCommit| doc.keys(ROOT).collect::<Vec<_>>();
    let keys = Automerge::new().read(&b, keys).unwrap();
    assert_eq!(keys, ["from elsewhere", "one", "two"]);
}

#[test]
fn an_actor_that_a_closure_chose_is_replaced() {
    let mut replicas = [replica(1), replica(2)];
    for replica in &mut replicas {
        edit(replica, |doc| {
            doc.set_actor(ActorId::from(&b"mine"[..]));
        });
        let actor = edit(replica, |doc| {
            doc.put(ROOT, "a", 1).unwrap();
            doc.get_actor().clone()
        });
        assert_ne!(actor, ActorId::from(&b"mine"[..]));
    }
    exchange(&mut replicas);
}

#[test]
fn a_closure_that_puts_another_document_in_the_place_of_the_one_lent_is_noticed() {
    let mut a = replica(1);
    edit(&mut a, |doc| doc.put(ROOT, "a", 1)).unwrap();
    a.drain();
    let edited = Automerge::new().edit(&mut a, usize::MAX, |doc| *doc = AutoCommit::new());
    assert_eq!(edited, Err(EngineError::Poisoned));
    assert!(a.is_poisoned());
    assert_eq!(a.snapshot(), Err(EngineError::Poisoned));
}

#[test]
fn a_panicking_closure_is_rolled_back() {
    let mut a = replica(1);
    let version = a.version();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        edit(&mut a, |doc| {
            doc.put(ROOT, "half", 1).unwrap();
            panic!("by the application");
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(a.version(), version);
    assert_eq!(a.drain().local, Vec::<Bytes>::new());
}

#[test]
fn a_change_is_change_chunks_and_nothing_else() {
    let mut a = replica(1);
    edit(&mut a, |doc| doc.put(ROOT, "a", "x".repeat(2_000))).unwrap();
    let change = a.drain().local.remove(0);
    let compressed = edit(&mut a, |doc| {
        doc.get_last_local_change().unwrap().bytes().into_owned()
    });
    assert!(compressed.len() < change.len());
    let mut longer = change.to_vec();
    longer.push(0);
    let others = [
        Bytes::new(),
        Bytes::from(compressed),
        Bytes::from(longer),
        a.snapshot().unwrap(),
    ];
    let mut b = replica(2);
    for other in others {
        let validated = Automerge::new().validate(&other, &ValidateLimits::default());
        assert!(matches!(validated, Err(EngineError::Malformed { .. })));
        assert!(b.import(&[other]).is_err());
    }
    let twice = Bytes::from([&change[..], &change[..]].concat());
    assert!(b.import(&[twice]).unwrap().changed);
    assert_eq!(a.version(), b.version());
}

#[test]
fn what_waits_is_bounded() {
    let (mut a, mut b) = (replica(1), replica(2));
    for key in ["a", "b", "c", "d"] {
        edit(&mut a, |doc| doc.put(ROOT, key, key.repeat(6_000_000))).unwrap();
    }
    let changes = a.drain().local;
    for _ in 0..2 {
        assert!(b.import(&changes[2..]).unwrap().pending);
    }
    // What waits is there again after a change was taken back.
    let edited = Automerge::new().edit(&mut b, 10, |doc| doc.put(ROOT, "x", 1));
    assert!(matches!(edited, Ok(Edited::TakenBack { .. })));
    edit(&mut a, |doc| doc.put(ROOT, "e", "e".repeat(6_000_000))).unwrap();
    assert!(matches!(
        b.import(&a.drain().local),
        Err(EngineError::LimitExceeded { .. })
    ));
    assert!(b.is_poisoned());
}

#[test]
fn a_forged_version_is_refused_or_answered() {
    let mut a = replica(1);
    edit(&mut a, |doc| doc.put(ROOT, "a", 1)).unwrap();
    let everything = a.since(&Version(Bytes::new())).unwrap().unwrap();
    let unknown = Version(Bytes::from_static(&[7; 32]));
    assert_eq!(a.since(&unknown), Ok(Some(everything)));
    for forged in [&[7; 31][..], &[7; 64]] {
        let forged = Version(Bytes::copy_from_slice(forged));
        assert!(matches!(
            a.since(&forged),
            Err(EngineError::Malformed { .. })
        ));
    }
}

#[test]
fn a_document_is_read_as_json() {
    let mut a = replica(1);
    edit(&mut a, |doc| {
        let text = doc.put_object(ROOT, "text", ObjType::Text).unwrap();
        doc.splice_text(text, 0, 0, "he said \"hello\"\n").unwrap();
        let list = doc.put_object(ROOT, "list", ObjType::List).unwrap();
        doc.insert(&list, 0, ScalarValue::counter(2)).unwrap();
        doc.increment(&list, 0, 3).unwrap();
        doc.insert(&list, 1, ScalarValue::Timestamp(1_767_225_600_000))
            .unwrap();
        doc.insert(&list, 2, ScalarValue::Bytes(vec![0, 0xff]))
            .unwrap();
        let map = doc.insert_object(&list, 3, ObjType::Map).unwrap();
        doc.put(map, "yes", true).unwrap();
        doc.put(ROOT, "number", -1.5).unwrap();
        doc.put(ROOT, "nothing", ()).unwrap();
    });
    let expected = r#"{"list":[5,1767225600000,"00ff",{"yes":true}],"nothing":null,"number":-1.5,"text":"he said \"hello\"\n"}"#;
    assert_eq!(Automerge::new().to_json(&a).unwrap(), expected);
    let log = a.drain().local;
    assert_eq!(Automerge::new().read_json(None, &log).unwrap(), expected);
    // Nobody's stack ends by it.
    edit(&mut a, |doc| {
        let mut parent = ROOT;
        for _ in 0..200 {
            parent = doc.put_object(&parent, "k", ObjType::Map).unwrap();
        }
    });
    assert!(matches!(
        Automerge::new().to_json(&a),
        Err(EngineError::LimitExceeded { .. })
    ));
}

/// Scenario 12.
#[test]
fn concurrent_runs_typed_at_one_position_are_not_interleaved() {
    let runs = [
        "hello 😀👩‍👩‍👧 ",
        "e\u{301}\u{327}tude 한국 ",
        "\u{1F1E9}\u{1F1EA}\u{200D}!",
    ];
    let mut replicas = replicas(3);
    for (replica, run) in replicas.iter_mut().zip(runs) {
        for (index, c) in run.chars().enumerate() {
            insert(replica, index, &c.to_string());
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

/// Scenario 14.
#[test]
fn inserts_at_one_index_keep_the_order_in_which_they_were_made() {
    let mut replicas = replicas(2);
    for (replica, run) in replicas.iter_mut().zip(["01234", "abcde"]) {
        for (index, c) in run.chars().enumerate() {
            insert(replica, index, &c.to_string());
        }
    }
    exchange(&mut replicas);
    assert!(matches!(
        text(&replicas[0]).as_str(),
        "01234abcde" | "abcde01234"
    ));
    assert_eq!(text(&replicas[0]), text(&replicas[1]));
}

/// Scenario 15.
#[test]
fn a_cursor_survives_edits_before_it_and_the_deletion_of_its_anchor() {
    let mut replicas = replicas(2);
    insert(&mut replicas[0], 0, "hello world");
    exchange(&mut replicas);
    let read = |doc: &AutoCommit| doc.get_cursor(text_of(doc), 6, None).unwrap();
    let cursor = Automerge::new().read(&replicas[0], read).unwrap();
    let at = |replica: &AutomergeDocument| {
        let read = |doc: &AutoCommit| {
            doc.get_cursor_position(text_of(doc), &cursor, None)
                .unwrap()
        };
        Automerge::new().read(replica, read).unwrap()
    };
    insert(&mut replicas[1], 0, "oh, ");
    exchange(&mut replicas);
    assert_eq!([at(&replicas[0]), at(&replicas[1])], [10, 10]);
    edit(&mut replicas[1], |doc| {
        doc.splice_text(text_of(doc), 0, 2, "")
    })
    .unwrap();
    edit(&mut replicas[0], |doc| {
        doc.splice_text(text_of(doc), 10, 1, "")
    })
    .unwrap();
    exchange(&mut replicas);
    assert_eq!(text(&replicas[0]), ", hello orld");
    assert_eq!([at(&replicas[0]), at(&replicas[1])], [8, 8]);
}
