//! Trims, engine by engine: what is left of the history, and who may go on from that.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "test harness")]

use bytes::Bytes;
use sync_core::engine::typed::{Typed, TypedDocument};
use sync_core::engine::{Document, Edited, Engine, EngineError, Folder, ReplicaSeed};
use sync_core::mergeable::{Dictionary, MergeableValidator, Register};

type Map = Dictionary<u32, Register<String>>;

fn replica(seed: u128) -> TypedDocument<Map> {
    Typed::<Map>::new().create(ReplicaSeed(seed)).unwrap()
}

/// The change.
fn put(document: &mut TypedDocument<Map>, key: u32, value: &str) -> Bytes {
    let put = |map: &mut Map| map.entry(key)?.set(value.to_owned());
    let edited = Typed::<Map>::new().edit(document, usize::MAX, put);
    assert!(matches!(edited, Ok(Edited::Done(Ok(())))));
    document.drain().local.remove(0)
}

fn remove(document: &mut TypedDocument<Map>, key: u32) -> Bytes {
    let edited = Typed::<Map>::new().edit(document, usize::MAX, |map| map.remove(&key));
    edited.unwrap();
    document.drain().local.remove(0)
}

fn keys(document: &TypedDocument<Map>) -> Vec<u32> {
    let keys = |map: &Map| map.iter().map(|(key, _)| *key).collect();
    Typed::<Map>::new().read(document, keys).unwrap()
}

fn loaded(snapshot: &[u8]) -> TypedDocument<Map> {
    let mut document = replica(99);
    document.import_snapshot(snapshot).unwrap();
    document
}

#[test]
fn only_removals_before_the_recent_changes_are_forgotten() {
    let mut ours = replica(1);
    let mut log: Vec<_> = (0..100).map(|key| put(&mut ours, key, "value")).collect();
    log.extend((10..100).map(|key| remove(&mut ours, key)));
    let whole = MergeableValidator::new().fold(None, &log).unwrap();
    let mut before = usize::MAX;
    // 90 removals, 30 of them recent, and none.
    for (keep, forgotten) in [(90, 0), (30, 60), (0, 90)] {
        let trimmed = MergeableValidator::new().trim(None, &log, keep);
        let trimmed = trimmed.unwrap();
        assert_eq!(loaded(&trimmed).version(), ours.version());
        assert!(trimmed.len() < before);
        before = trimmed.len();
        // The same with the type, and after a snapshot.
        let typed = Typed::<Map>::new().trim(None, &log, keep);
        assert_eq!(typed.unwrap(), trimmed);
        let snapshot = MergeableValidator::new().fold(None, &log[..50]).unwrap();
        let again = MergeableValidator::new().trim(Some(&snapshot), &log[50..], keep);
        assert_eq!(again.unwrap(), trimmed);
        // The horizon itself takes some bytes, too.
        let most = whole.len() + 40 - 10 * forgotten;
        assert!(trimmed.len() < most, "{} bytes, {most}", trimmed.len());
        // What is older comes in vain, as what it is and as part of a whole state.
        let mut ours = loaded(&trimmed);
        ours.import(&log).unwrap();
        ours.import_snapshot(&whole).unwrap();
        let stale = MergeableValidator::new().fold(None, &log[..100]).unwrap();
        ours.import_snapshot(&stale).unwrap();
        assert_eq!(keys(&ours), (0..10).collect::<Vec<_>>());
    }
}

#[test]
fn work_is_replayed_by_those_who_have_seen_what_was_forgotten() {
    let mut ours = replica(1);
    let mut log: Vec<_> = (0..20).map(|key| put(&mut ours, key, "value")).collect();
    let mut behind = replica(2);
    behind.import(&log).unwrap();
    log.extend((10..15).map(|key| remove(&mut ours, key)));
    let mut past = replica(3);
    past.import(&log).unwrap();
    let n_old = log.len();
    log.extend((15..20).map(|key| remove(&mut ours, key)));
    let trimmed = MergeableValidator::new().trim(None, &log, log.len() - n_old);
    let trimmed = trimmed.unwrap();

    // Both edit what they do not know to be removed, and make something new.
    let from_behind = [put(&mut behind, 12, "edited"), put(&mut behind, 50, "new")];
    let from_past = [put(&mut past, 16, "edited"), put(&mut past, 60, "new")];
    let mut next = loaded(&trimmed);
    assert!(!next.can_replay(&behind.version(), &from_behind));
    assert!(next.can_replay(&past.version(), &from_past));
    next.import(&from_past).unwrap();
    let mut expected: Vec<_> = (0..10).collect();
    expected.push(60);
    assert_eq!(keys(&next), expected);
    // What would be taken for forgotten is handed back, too, and not lost.
    assert!(!next.can_replay(&past.version(), &log[..1]));
    assert!(next.can_replay(&past.version(), &[]));
    assert!(!next.can_replay(&replica(4).version(), &[]));
}

#[test]
fn what_waits_for_something_is_not_trimmed() {
    use sync_core::mergeable::Sequence;
    type Text = Typed<Sequence<char>>;
    let mut author = Text::new().create(ReplicaSeed(1)).unwrap();
    for at in 0..2 {
        let insert = |text: &mut Sequence<char>| text.insert_str(at, "x");
        Text::new().edit(&mut author, usize::MAX, insert).unwrap();
    }
    let log = author.drain().local;
    let trimmed = MergeableValidator::new().trim(None, &log[1..], 0);
    assert_eq!(trimmed, Err(EngineError::Incomplete));
}

/// Loro's start of a trimmed history is an operation, and whoever has all that was trimmed must have what is before it.
#[cfg(feature = "loro")]
#[test]
fn a_long_history_of_one_writer_that_ends_with_two_is_forgotten() {
    use sync_core::engine::loro::Loro;
    use sync_core::loro::LoroDoc;

    let engine = Loro::new();
    let [mut ours, mut theirs] = [1, 2].map(|seed| engine.create(ReplicaSeed(seed)).unwrap());
    let insert = |document: &mut _, what: &str| {
        let insert = |doc: &mut LoroDoc| doc.get_text("body").insert(0, what).unwrap();
        engine.edit(document, usize::MAX, insert).unwrap();
    };
    for n in 0..100 {
        insert(&mut ours, &format!("line {n}\n"));
        let cut = |doc: &mut LoroDoc| doc.get_text("body").delete(0, 5).unwrap();
        engine.edit(&mut ours, usize::MAX, cut).unwrap();
    }
    let mut log = ours.drain().local;
    theirs.import(&log).unwrap();
    insert(&mut ours, "<");
    insert(&mut theirs, ">");
    log.extend(ours.drain().local);
    log.extend(theirs.drain().local);
    ours.import(&log).unwrap();
    let trimmed = engine.trim(None, &log, 0).unwrap();
    let folded = engine.fold(None, &log[..150]).unwrap();
    let again = engine.trim(Some(&folded), &log[150..], 0).unwrap();
    let whole = engine.fold(None, &log).unwrap();
    for trimmed in [trimmed, again] {
        assert!(trimmed.len() * 4 < whole.len() * 3);
        let mut fresh = engine.create(ReplicaSeed(3)).unwrap();
        fresh.import_snapshot(&trimmed).unwrap();
        assert_eq!(engine.to_json(&fresh), engine.to_json(&ours));
        ours.import_snapshot(&trimmed).unwrap();
        assert_eq!(fresh.version(), ours.version());
    }
}
