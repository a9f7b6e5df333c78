//! What a client with a store puts into it, and takes out of it in the next process. A scripted server answers.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod client_harness;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use client_harness::{CHANNEL, EPOCH, Harness, foreign_changes, id, replica};
use sync_core::client::{
    JobOutcome, Output, RefusedReason, Replica, StoredDocument, SyncPhase, SyncState,
};
use sync_core::engine::typed::Typed;
use sync_core::engine::{Document, EngineError};
use sync_core::error::ErrorCode;
use sync_core::history::{Cursor, Digest, Seq};
use sync_core::ids::{Author, ChangeId, EngineId, OriginId};
use sync_core::mergeable::LwwMap;
use sync_core::wire::{
    Ack, AuthoredChange, Changes, Continuation, Message, Push, Refuse, Reset, SnapshotMessage,
    WireNumber, check_of,
};

const DOC: &str = "doc";

fn change_id(origin: u128, number: u64) -> ChangeId {
    ChangeId {
        origin: OriginId(origin),
        number,
    }
}

/// A client with an empty store, connected, with the document open and caught up.
fn live() -> Harness {
    let mut client = Harness::with_store(1, BTreeMap::new());
    client.dialed();
    client.welcome();
    client.open(DOC);
    client.opened(DOC);
    client.sent();
    client
}

fn stored(client: &Harness) -> &StoredDocument {
    &client.stored[&id(DOC)]
}

fn outbox(client: &Harness) -> Vec<ChangeId> {
    stored(client)
        .outbox
        .iter()
        .map(|change| change.id)
        .collect()
}

fn state(client: &Harness) -> SyncState {
    client.state.sync_state(&id(DOC)).unwrap()
}

fn content(replica: &Replica<Typed<LwwMap<String, String>>>) -> Result<Vec<String>, EngineError> {
    replica.read(|map| {
        map.iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect()
    })
}

/// A cursor at the start of a history says no more than none.
fn moved(cursor: &Cursor) -> bool {
    cursor.seq > Seq::ZERO
}

/// What the store holds is what is here: the next process goes on where this one stands.
fn check(client: &Harness) {
    let stored = stored(client);
    let loaded = Replica::load(Typed::<LwwMap<String, String>>::new(), 7, stored).unwrap();
    assert_eq!(
        content(&loaded).unwrap(),
        content(&client.replicas[&id(DOC)]).unwrap()
    );
    let bytes: Vec<Bytes> = stored.outbox.iter().map(|c| c.bytes.clone()).collect();
    assert_eq!(bytes, client.state.outbox_bytes(&id(DOC)));
    assert_eq!(
        stored.state.cursor.filter(moved),
        client.state.cursor(&id(DOC)).filter(moved)
    );
    let refused: Vec<ChangeId> = stored.refused.iter().map(|change| change.id).collect();
    let here = client.state.refused(&id(DOC));
    assert_eq!(refused, here.iter().map(|c| c.id).collect::<Vec<_>>());
}

/// The same store in the n-th process, connected.
fn restarted(client: &Harness, n: u128) -> Harness {
    let mut next = Harness::with_store(n, client.stored.clone());
    next.dialed();
    next.welcome();
    next
}

fn pushes(client: &mut Harness) -> Vec<Push> {
    let push = |message| match message {
        Message::Push(push) => Some(push),
        _ => None,
    };
    client.sent().into_iter().filter_map(push).collect()
}

fn ack(client: &mut Harness, first: u64, number: u64, count: u64) {
    client.receive(&Message::Ack(Ack {
        channel: CHANNEL,
        check: check_of(Seq(first)),
        number,
        count,
    }));
}

/// Changes of the origin that was named first in the last `Open`, in the stream.
fn own_in_stream(client: &mut Harness, first: u64, changes: &[Bytes]) {
    let change = |(number, bytes): (u64, &Bytes)| AuthoredChange {
        author: Author(0),
        number: WireNumber::Number(number),
        bytes: bytes.clone(),
    };
    client.receive(&Message::Changes(Changes {
        channel: CHANNEL,
        check: check_of(Seq(first)),
        changes: (1..).zip(changes).map(change).collect(),
    }));
}

/// Scenario 29: the machine's half.
#[test]
fn what_is_edited_offline_is_sent_by_the_next_process_under_the_ids_that_it_has() {
    let mut client = Harness::with_store(1, BTreeMap::new());
    client.open(DOC);
    client.edit(DOC, "a", "1");
    client.edit(DOC, "b", "2");
    assert_eq!(outbox(&client), [change_id(1, 1), change_id(1, 2)]);
    check(&client);
    let mut next = restarted(&client, 2);
    next.open(DOC);
    assert_eq!(next.get(DOC, "b").as_deref(), Some("2"));
    assert_eq!(next.last_open().origins, [(OriginId(1), 0)]);
    next.edit(DOC, "c", "3");
    next.opened(DOC);
    let pushed = pushes(&mut next);
    let runs = pushed
        .iter()
        .map(|push| (push.origin, push.first_number, push.changes.len()));
    assert_eq!(
        runs.collect::<Vec<_>>(),
        [(OriginId(1), 1, 2), (OriginId(2), 1, 1)]
    );
    check(&next);
}

#[test]
fn what_the_stream_passes_leaves_the_stored_outbox_and_is_in_the_stored_replica() {
    let mut client = live();
    client.edit(DOC, "a", "1");
    client.edit(DOC, "b", "2");
    ack(&mut client, 1, 1, 1);
    assert_eq!(outbox(&client), [change_id(1, 2)]);
    check(&client);
    let theirs = foreign_changes(&["x"]);
    client.changes(2, &theirs);
    check(&client);
    ack(&mut client, 3, 2, 1);
    assert_eq!(outbox(&client), []);
    assert_eq!(stored(&client).tail.len(), 3);
    check(&client);
    let mut next = restarted(&client, 2);
    next.open(DOC);
    assert_eq!(next.last_open().cursor, client.state.cursor(&id(DOC)));
    assert_eq!(next.last_open().origins, []);
}

/// What had arrived unnoticed before the process ended, told in each way that there is.
#[test]
fn what_was_committed_before_the_open_leaves_the_store_when_it_has_been_passed() {
    let mut client = Harness::with_store(1, BTreeMap::new());
    client.open(DOC);
    client.edit(DOC, "a", "1");
    client.edit(DOC, "b", "2");
    let own = client.state.outbox_bytes(&id(DOC));

    let mut next = restarted(&client, 2);
    next.open(DOC);
    next.opened_with(Seq(2), Continuation::Resume, &[2]);
    assert_eq!(state(&next).unsaved, 0);
    assert_eq!(outbox(&next).len(), 2, "nothing else there holds them");
    own_in_stream(&mut next, 1, &own);
    assert_eq!(outbox(&next), []);
    check(&next);

    let mut server = replica();
    server.document().import(&own).unwrap();
    let bytes = server.document().snapshot().unwrap();
    let total_bytes = u64::try_from(bytes.len()).unwrap();
    let mut next = restarted(&client, 2);
    next.open(DOC);
    next.opened_with(Seq(2), Continuation::Snapshot { total_bytes }, &[2]);
    next.receive(&Message::Snapshot(SnapshotMessage {
        channel: CHANNEL,
        epoch: EPOCH,
        seq: Seq(2),
        digest: Digest(4),
        codec: 0,
        offset: 0,
        total_bytes,
        bytes,
    }));
    assert_eq!(outbox(&next), []);
    check(&next);
    next.changes(3, &foreign_changes(&["x"]));
    check(&next);
    assert_eq!(next.get(DOC, "a").as_deref(), Some("1"));
}

/// An own change acknowledged while others' changes are still being imported.
#[test]
fn what_passes_while_an_import_is_under_way_is_stored_with_it() {
    let mut client = live();
    client.edit(DOC, "a", "1");
    client.hold_jobs = true;
    let theirs = foreign_changes(&["x"]);
    client.changes(1, &theirs);
    ack(&mut client, 2, 1, 1);
    assert!(stored(&client).tail.is_empty());
    assert_eq!(outbox(&client), [change_id(1, 1)]);
    client.finish_job(JobOutcome::Done { pending: false });
    assert_eq!(stored(&client).tail.len(), 2);
    assert_eq!(outbox(&client), []);
    assert_eq!(stored(&client).state.cursor.map(|c| c.seq), Some(Seq(2)));
}

#[test]
fn what_was_committed_before_the_open_stays_until_the_stream_has_got_there() {
    let mut client = Harness::with_store(1, BTreeMap::new());
    client.open(DOC);
    client.edit(DOC, "a", "1");
    client.edit(DOC, "b", "2");
    let own = client.state.outbox_bytes(&id(DOC));
    client.dialed();
    client.welcome();
    client.opened_with(Seq(3), Continuation::Resume, &[2]);
    client.changes(1, &foreign_changes(&["x"]));
    assert_eq!(outbox(&client).len(), 2);
    assert_eq!(stored(&client).tail.len(), 1);
    own_in_stream(&mut client, 2, &own);
    assert_eq!(outbox(&client), []);
    assert_eq!(stored(&client).tail[1..], own);
    check(&client);
}

/// Whether the snapshot has them is not known before the stream has reached the head.
#[test]
fn what_was_committed_before_the_open_outlasts_a_snapshot_of_less_than_there_was() {
    for in_snapshot in [false, true] {
        let mut client = Harness::with_store(1, BTreeMap::new());
        client.open(DOC);
        client.edit(DOC, "a", "1");
        let own = client.state.outbox_bytes(&id(DOC));
        let theirs = foreign_changes(&["x"]);
        let (first, second) = if in_snapshot {
            (&own, &theirs)
        } else {
            (&theirs, &own)
        };
        let mut server = replica();
        server.document().import(first).unwrap();
        let bytes = server.document().snapshot().unwrap();
        let total_bytes = u64::try_from(bytes.len()).unwrap();
        client.dialed();
        client.welcome();
        client.opened_with(Seq(2), Continuation::Snapshot { total_bytes }, &[1]);
        client.receive(&Message::Snapshot(SnapshotMessage {
            channel: CHANNEL,
            epoch: EPOCH,
            seq: Seq(1),
            digest: Digest(4),
            codec: 0,
            offset: 0,
            total_bytes,
            bytes,
        }));
        assert_eq!(outbox(&client).len(), 1);
        if in_snapshot {
            client.changes(2, second);
        } else {
            own_in_stream(&mut client, 2, second);
        }
        assert_eq!(outbox(&client), []);
        check(&client);
    }
}

/// Scenario 32: an edit is safe on the device when the store says so.
#[test]
fn edits_count_as_not_kept_until_the_store_confirms_the_write_that_holds_them() {
    let mut client = live();
    client.hold_writes = true;
    let before = client.state.writes(&id(DOC)).unwrap();
    assert_eq!(before.0, before.1);
    for (n, key) in (1..).zip(["a", "b", "c"]) {
        client.edit(DOC, key, "1");
        assert_eq!(state(&client).unsaved_locally, n);
    }
    let (last, safe) = client.state.writes(&id(DOC)).unwrap();
    assert_eq!((last, safe), (before.0 + 3, before.1));
    let numbers: Vec<u64> = client.held_writes.iter().map(|(_, n)| *n).collect();
    assert_eq!(numbers, [last - 2, last - 1, last]);
    client.state.handle_stored(client.now, &id(DOC), numbers[1]);
    assert_eq!(state(&client).unsaved_locally, 1);
    assert_eq!(client.state.writes(&id(DOC)), Some((last, last - 1)));
    client.state.handle_stored(client.now, &id(DOC), numbers[2]);
    assert_eq!(state(&client).unsaved_locally, 0);
    assert_eq!(client.state.writes(&id(DOC)), Some((last, last)));
    // Without a store, what the server has not got is kept nowhere.
    let mut client = Harness::live(DOC);
    client.edit(DOC, "a", "1");
    assert_eq!(state(&client).unsaved_locally, 1);
}

/// Scenarios 46 and 79: the store's half.
#[test]
fn a_refused_change_waits_in_the_store_until_it_is_dropped_and_what_was_behind_it_is_stored_anew() {
    let mut client = live();
    for key in ["a", "b", "c"] {
        client.edit(DOC, key, "mine");
    }
    let own = client.state.outbox_bytes(&id(DOC));
    ack(&mut client, 1, 1, 1);
    client.receive(&Message::Refuse(Refuse {
        channel: CHANNEL,
        origin: OriginId(1),
        number: 2,
        code: ErrorCode::InvalidChange,
        message: "bad".to_owned(),
    }));
    let refused = &stored(&client).refused;
    assert_eq!(refused.len(), 1);
    assert_eq!(
        (refused[0].id, refused[0].reason, &refused[0].bytes),
        (
            change_id(1, 2),
            RefusedReason::Code(ErrorCode::InvalidChange),
            &own[1]
        )
    );
    assert!(stored(&client).state.rebuild);
    assert_eq!(outbox(&client), [change_id(1, 3)]);

    // Whether or not the process ends here.
    let mut next = restarted(&client, 2);
    next.open(DOC);
    for client in [&mut client, &mut next] {
        assert_eq!(client.last_open().cursor, None);
        assert_eq!(client.state.refused(&id(DOC)).len(), 1);
        client.opened_with(Seq(1), Continuation::Resume, &[1]);
        client.changes(1, &own[..1]);
        assert!(!stored(client).state.rebuild);
        assert_eq!(client.get(DOC, "b"), None);
        assert_eq!(client.get(DOC, "c").as_deref(), Some("mine"));
        check(client);
        assert!(!client.state.drop_refused(&id(DOC), change_id(1, 3)));
        assert_eq!(client.state.refused(&id(DOC)).len(), 1);
        assert!(client.state.drop_refused(&id(DOC), change_id(1, 2)));
        client.settle();
        assert!(stored(client).refused.is_empty());
        check(client);
    }
}

/// Scenarios 46 and 79: a process that ends before the store has the new ids goes on with the old ones.
#[test]
fn what_was_behind_a_refused_change_is_not_pushed_anew_before_the_store_holds_its_new_id() {
    let mut client = live();
    for key in ["a", "b", "c"] {
        client.edit(DOC, key, "mine");
    }
    let own = client.state.outbox_bytes(&id(DOC));
    ack(&mut client, 1, 1, 1);
    client.receive(&Message::Refuse(Refuse {
        channel: CHANNEL,
        origin: OriginId(1),
        number: 2,
        code: ErrorCode::InvalidChange,
        message: "bad".to_owned(),
    }));
    client.hold_writes = true;
    client.opened_with(Seq(1), Continuation::Resume, &[1]);
    client.sent();
    client.changes(1, &own[..1]);
    // What is edited meanwhile stays behind it.
    client.edit(DOC, "d", "mine");
    assert_eq!(pushes(&mut client), []);
    let numbers: Vec<u64> = client.held_writes.iter().map(|(_, n)| *n).collect();
    for number in numbers {
        client.state.handle_stored(client.now, &id(DOC), number);
    }
    let pushed = pushes(&mut client);
    let n_changes: usize = pushed.iter().map(|push| push.changes.len()).sum();
    assert_eq!(n_changes, 2);
    assert!(pushed.iter().all(|push| push.origin != OriginId(1)));
    assert_eq!(pushed[0].changes[0], own[2]);
}

/// What the registry has forgotten is numbered anew, and that is stored before it is pushed.
#[test]
fn what_is_issued_again_is_not_pushed_before_the_store_holds_its_new_id() {
    let mut client = live();
    client.edit(DOC, "a", "1");
    client.sent();
    ack(&mut client, 1, 1, 1);
    client.edit(DOC, "b", "1");
    let mut next = restarted(&client, 2);
    next.open(DOC);
    next.hold_writes = true;
    next.opened_with(Seq::ZERO, Continuation::Resume, &[0]);
    assert_eq!(pushes(&mut next), []);
    let numbers: Vec<u64> = next.held_writes.iter().map(|(_, n)| *n).collect();
    for number in numbers {
        next.state.handle_stored(next.now, &id(DOC), number);
    }
    let pushed = pushes(&mut next);
    assert_eq!(pushed.len(), 1);
    assert_ne!(pushed[0].origin, OriginId(1));
    assert_eq!(pushed[0].changes, next.state.outbox_bytes(&id(DOC)));
}

/// Scenarios 24 and 61: the store's half.
#[test]
fn after_a_merge_the_store_holds_what_came_of_it_and_what_is_pushed_back_comes_first() {
    let mut client = live();
    client.changes(1, &foreign_changes(&["x"]));
    client.edit(DOC, "mine", "1");
    client.sent();
    ack(&mut client, 2, 1, 1);
    client.edit(DOC, "pending", "2");
    let mut next = restarted(&client, 2);
    next.open(DOC);
    let reset = Continuation::Reset {
        reset: Reset::Merge,
        total_bytes: 0,
    };
    next.opened_with(Seq(2), reset, &[0]);
    next.changes(1, &foreign_changes(&["x", "y"]));
    let pushed = pushes(&mut next);
    assert!(pushed[0].reconciling && !pushed[1].reconciling);
    let first = &stored(&next).outbox[0];
    assert!(first.reconciling);
    assert_eq!(first.id.origin, pushed[0].origin);
    assert!(stored(&next).snapshot.is_some());
    check(&next);
    // Its place is in front in the next process too.
    let mut third = restarted(&next, 3);
    third.open(DOC);
    third.opened_with(Seq(2), Continuation::Resume, &[0, 0]);
    let again = pushes(&mut third);
    assert_eq!(again[0].changes, pushed[0].changes);
    assert!(again[0].reconciling);
}

/// Protocol 8.3: the store's half.
#[test]
fn after_a_discard_the_store_holds_the_servers_state_and_what_was_handed_back() {
    let mut client = live();
    client.changes(1, &foreign_changes(&["x"]));
    client.edit(DOC, "pending", "2");
    let mut next = restarted(&client, 2);
    next.open(DOC);
    let reset = Continuation::Reset {
        reset: Reset::Discard,
        total_bytes: 0,
    };
    next.opened_with(Seq(1), reset, &[0]);
    next.changes(1, &foreign_changes(&["y"]));
    assert_eq!((next.get(DOC, "x"), next.get(DOC, "pending")), (None, None));
    assert_eq!(stored(&next).refused[0].reason, RefusedReason::HistoryReset);
    assert_eq!(outbox(&next), []);
    check(&next);
}

/// A change that sets one key, of exactly so many bytes.
fn change_of(len: usize) -> Bytes {
    let bytes = |n: usize| {
        let mut replica = replica();
        replica
            .edit(usize::MAX, |map| {
                map.insert("large".to_owned(), "x".repeat(n)).unwrap()
            })
            .unwrap();
        replica.drain().main.local.remove(0)
    };
    let overhead = bytes(len).len() - len;
    let change = bytes(len - overhead);
    assert_eq!(change.len(), len);
    change
}

#[test]
fn a_stored_tail_that_is_longer_than_what_it_adds_to_becomes_a_snapshot() {
    const MIN: usize = 256 * 1024;
    let mut client = live();
    client.changes(1, &[change_of(MIN)]);
    assert_eq!(stored(&client).snapshot, None);
    check(&client);
    client.changes(2, &foreign_changes(&["x"]));
    assert!(stored(&client).snapshot.is_some());
    assert!(stored(&client).tail.is_empty());
    check(&client);
    let large = stored(&client).snapshot.as_ref().unwrap().len();
    assert!(large > MIN);
    // From now on as much as that.
    client.changes(3, &[change_of(large - 1_000)]);
    assert_eq!(stored(&client).tail.len(), 1);
    client.changes(4, &[change_of(1_000)]);
    assert_eq!(stored(&client).tail.len(), 2);
    let mut next = restarted(&client, 2);
    next.open(DOC);
    next.opened_with(Seq(5), Continuation::Resume, &[]);
    next.changes(5, &foreign_changes(&["y"]));
    assert!(stored(&next).tail.is_empty());
    check(&next);
}

#[test]
fn one_snapshot_of_a_long_tail_is_made_at_a_time_and_another_one_if_it_failed() {
    let mut client = live();
    client.hold_jobs = true;
    let large = change_of(300 * 1024);
    client.changes(1, std::slice::from_ref(&large));
    client.changes(2, &[large]);
    client.finish_job(JobOutcome::Done { pending: false });
    assert_eq!(client.held_jobs.len(), 2);
    client.finish_job(JobOutcome::Done { pending: false });
    assert_eq!(client.held_jobs.len(), 1, "it is being made");
    client.finish_job(JobOutcome::Snapshot(None));
    client.changes(3, &foreign_changes(&["x"]));
    client.finish_job(JobOutcome::Done { pending: false });
    assert_eq!(client.held_jobs.len(), 1);
    let bytes = Bytes::from_static(b"a state");
    client.finish_job(JobOutcome::Snapshot(Some(bytes.clone())));
    assert_eq!(stored(&client).snapshot, Some(bytes));
}

// ---- outboxes of documents that are not open

/// A stored outbox of two edits.
fn left_behind() -> Harness {
    let mut client = Harness::with_store(1, BTreeMap::new());
    client.open(DOC);
    client.edit(DOC, "a", "1");
    client.edit(DOC, "b", "2");
    client
}

/// The next process, which delivers them without opening the document.
fn delivering(client: &Harness) -> Harness {
    let mut next = restarted(client, 2);
    let stored = client.stored[&id(DOC)].clone();
    next.state.deliver(next.now, &id(DOC), stored);
    next.settle();
    next
}

fn is_forgotten(client: &Harness) -> bool {
    client.state.sync_state(&id(DOC)).is_none()
}

/// Design 7: outboxes of documents that are not open are pushed too.
#[test]
fn an_outbox_is_delivered_without_its_document_and_stays_in_the_store_as_committed() {
    let client = left_behind();
    let own = client.state.outbox_bytes(&id(DOC));
    let theirs = foreign_changes(&["x"]);
    // Acknowledged; seen in the stream; had before.
    for way in 0..3 {
        let mut next = delivering(&client);
        let last = if way == 2 { 2 } else { 0 };
        next.opened_with(Seq(last), Continuation::Resume, &[last]);
        if way < 2 {
            let pushed = pushes(&mut next);
            assert_eq!(pushed[0].changes, own);
            next.changes(1, &theirs);
            assert!(!is_forgotten(&next));
        }
        match way {
            0 => ack(&mut next, 2, 1, 2),
            1 => own_in_stream(&mut next, 2, &own),
            _ => {}
        }
        assert!(is_forgotten(&next), "{way}");
        let closes = |message: &Message| matches!(message, Message::Close(_));
        assert!(next.sent().iter().any(closes), "{way}");
        let forgotten = |output: &Output| matches!(output, Output::Forgotten(_));
        assert!(next.handed.iter().any(forgotten));
        // The replica has not seen the log, so the changes are still part of it; but they are not sent again.
        assert_eq!(outbox(&next), outbox(&client));
        assert_eq!(stored(&next).state.cursor.filter(moved), None);
        let mut third = restarted(&next, 3);
        third.open(DOC);
        let known = if way == 2 { 0 } else { 2 };
        assert_eq!(third.last_open().origins, [(OriginId(1), known)], "{way}");
        third.opened_with(Seq(0), Continuation::Resume, &[2]);
        assert!(pushes(&mut third).is_empty());
    }
}

/// Only the end of it counts.
#[test]
fn an_outbox_is_delivered_behind_a_snapshot_that_nobody_takes() {
    let client = left_behind();
    let mut next = delivering(&client);
    let total_bytes = 9;
    next.opened_with(Seq(5), Continuation::Snapshot { total_bytes }, &[0]);
    for (offset, bytes, n_pushed) in [(0, "the ", 0), (4, "state", 1)] {
        assert!(pushes(&mut next).is_empty());
        next.receive(&Message::Snapshot(SnapshotMessage {
            channel: CHANNEL,
            epoch: EPOCH,
            seq: Seq(5),
            digest: Digest(4),
            codec: 0,
            offset,
            total_bytes,
            bytes: bytes.into(),
        }));
        assert_eq!(pushes(&mut next).len(), n_pushed, "{offset}");
    }
}

#[test]
fn an_outbox_that_the_registry_has_forgotten_is_delivered_under_a_fresh_origin() {
    let mut client = left_behind();
    client.dialed();
    client.welcome();
    client.opened(DOC);
    ack(&mut client, 1, 1, 1);
    let mut next = delivering(&client);
    assert_eq!(next.last_open().origins, [(OriginId(1), 1)]);
    next.opened_with(Seq(0), Continuation::Resume, &[0]);
    let pushed = pushes(&mut next);
    assert_eq!((pushed[0].first_number, pushed[0].changes.len()), (1, 1));
    assert_ne!(pushed[0].origin, OriginId(1));
    assert_eq!(outbox(&next)[0].origin, pushed[0].origin);
}

/// A reset takes a replica.
#[test]
fn an_outbox_whose_document_has_another_history_waits_until_it_is_opened() {
    let client = left_behind();
    let reset = Continuation::Reset {
        reset: Reset::Merge,
        total_bytes: 0,
    };
    for next_continuation in [reset, Continuation::Wait] {
        let mut next = delivering(&client);
        next.opened_with(Seq(1), next_continuation, &[0]);
        let sent = next.sent();
        assert!(sent.iter().any(|m| matches!(m, Message::Close(_))));
        assert!(!sent.iter().any(|m| matches!(m, Message::Push(_))));
        let opens = next.n_opens();
        next.advance(Duration::from_secs(10));
        assert_eq!(next.n_opens(), opens);
        assert!(!is_forgotten(&next));
        next.open(DOC);
        assert_eq!(next.n_opens(), opens + 1);
        next.opened_with(Seq(1), reset, &[0]);
        next.changes(1, &foreign_changes(&["x"]));
        assert_eq!(next.get(DOC, "x").as_deref(), Some("theirs"));
        assert_eq!(state(&next).phase, SyncPhase::Live);
        check(&next);
    }
}

#[test]
fn a_document_that_is_opened_while_its_outbox_is_delivered_is_opened_anew_with_its_replica() {
    let client = left_behind();
    let mut next = delivering(&client);
    next.opened_with(Seq(0), Continuation::Resume, &[0]);
    next.changes(1, &foreign_changes(&["x"]));
    let opens = next.n_opens();
    next.open(DOC);
    assert_eq!(next.n_opens(), opens + 1);
    assert_eq!(next.last_open().cursor.filter(moved), None);
    next.opened_with(Seq(1), Continuation::Resume, &[0]);
    next.changes(1, &foreign_changes(&["x"]));
    assert_eq!(next.get(DOC, "x").as_deref(), Some("theirs"));
    assert_eq!(next.get(DOC, "a").as_deref(), Some("1"));
    check(&next);
}

#[test]
fn a_document_that_is_open_is_not_delivered_a_second_time() {
    let client = left_behind();
    let mut next = restarted(&client, 2);
    next.open(DOC);
    next.opened(DOC);
    let stored = client.stored[&id(DOC)].clone();
    next.state.deliver(next.now, &id(DOC), stored);
    next.settle();
    assert_eq!(state(&next).unsaved, 2);
    assert_eq!(state(&next).phase, SyncPhase::Live);
    assert_eq!(next.state.unsaved().count(), 1);
}

#[test]
fn another_engine_than_the_stored_one_is_refused() {
    let client = left_behind();
    let mut next = restarted(&client, 2);
    let stored = client.stored[&id(DOC)].clone();
    let opened = next.state.open(
        next.now,
        &id(DOC),
        &EngineId::YRS,
        sync_core::client::OpenOptions::default(),
        Some(stored),
    );
    assert_eq!(opened, Err(EngineId::MERGEABLE));
}
