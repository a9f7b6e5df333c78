//! A client that is sent snapshots in pieces: cuts in between, resets, progress. A scripted server answers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "helpers of tests"
)]

mod client_harness;

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use client_harness::{CHANNEL, EPOCH, Harness, foreign_changes, id, replica};
use sync_core::client::SyncPhase;
use sync_core::engine::Document;
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::{Cursor, Digest, Epoch, Seq};
use sync_core::wire::{
    Continuation, ErrorMessage, Message, PartialSnapshot, Reference, Reset, SnapshotMessage,
};

const DOC: &str = "doc";

/// A document of these keys, as a snapshot at sequence 10.
fn state(keys: &[&str]) -> Bytes {
    let mut server = replica();
    server.document().import(&foreign_changes(keys)).unwrap();
    server.document().snapshot().unwrap()
}

fn piece(state: &Bytes, range: Range<usize>) -> SnapshotMessage {
    SnapshotMessage {
        channel: CHANNEL,
        epoch: EPOCH,
        seq: Seq(10),
        digest: Digest(4),
        codec: 0,
        offset: range.start as u64,
        total_bytes: state.len() as u64,
        bytes: state.slice(range),
    }
}

fn opened(client: &mut Harness, state: &Bytes) {
    let total_bytes = state.len() as u64;
    client.opened_with(Seq(10), Continuation::Snapshot { total_bytes }, &[]);
}

fn receive(client: &mut Harness, state: &Bytes, range: Range<usize>) {
    client.receive(&Message::Snapshot(piece(state, range)));
}

fn cut(client: &mut Harness) {
    let dials = client.dials;
    client.lost();
    while client.dials == dials {
        client.advance(Duration::from_millis(100));
    }
    client.dialed();
    client.welcome();
}

fn progress(client: &Harness) -> (u64, u64) {
    match client.state.sync_state(&id(DOC)).unwrap().phase {
        SyncPhase::CatchingUp { received, total } => (received, total),
        other => panic!("expected CatchingUp, got {other:?}"),
    }
}

fn is_caught_up(client: &Harness) -> bool {
    client.state.sync_state(&id(DOC)).unwrap().is_caught_up()
}

/// Scenario 35, the client's side: several cuts in one snapshot, none of which costs what had arrived.
#[test]
fn a_snapshot_goes_on_after_each_cut_and_so_does_its_progress() {
    let state = state(&["x", "y", "z"]);
    let total = state.len() as u64;
    let mut client = Harness::connected();
    client.open(DOC);
    assert_eq!(client.last_open().partial, None);
    opened(&mut client, &state);
    assert_eq!(progress(&client), (0, total));
    receive(&mut client, &state, 0..10);
    receive(&mut client, &state, 10..20);
    assert_eq!(progress(&client), (20, total));
    cut(&mut client);
    let held = PartialSnapshot::of(Seq(10), &state[..20]);
    assert_eq!(client.last_open().partial, Some(held));
    assert_eq!(progress(&client), (20, total), "before it is answered");
    opened(&mut client, &state);
    assert_eq!(progress(&client), (20, total));
    receive(&mut client, &state, 20..30);
    cut(&mut client);
    let held = PartialSnapshot::of(Seq(10), &state[..30]);
    assert_eq!(client.last_open().partial, Some(held));
    opened(&mut client, &state);
    receive(&mut client, &state, 30..state.len());
    assert!(is_caught_up(&client));
    assert_eq!(client.get(DOC, "z").as_deref(), Some("theirs"));
    let cursor = Cursor {
        epoch: EPOCH,
        seq: Seq(10),
        digest: Digest(4),
    };
    assert_eq!(client.state.cursor(&id(DOC)), Some(cursor));
    cut(&mut client);
    assert_eq!(client.last_open().partial, None, "nothing is held any more");
    assert_eq!(client.last_open().cursor, Some(cursor));
}

#[test]
fn a_snapshot_that_begins_anew_after_a_cut_takes_the_place_of_the_part() {
    let older = state(&["x", "y"]);
    let newer = state(&["x", "y", "z"]);
    let mut client = Harness::connected();
    client.open(DOC);
    opened(&mut client, &older);
    receive(&mut client, &older, 0..20);
    cut(&mut client);
    opened(&mut client, &newer);
    assert_eq!(progress(&client), (0, newer.len() as u64));
    receive(&mut client, &newer, 0..5);
    receive(&mut client, &newer, 5..newer.len());
    assert!(is_caught_up(&client));
    assert_eq!(client.get(DOC, "z").as_deref(), Some("theirs"));
}

#[test]
fn a_part_is_forgotten_when_no_snapshot_follows_or_the_open_is_refused() {
    let state = state(&["x", "y"]);
    let held = |client: &mut Harness| {
        client.open(DOC);
        opened(client, &state);
        receive(client, &state, 0..20);
        cut(client);
        assert!(client.last_open().partial.is_some());
    };
    let mut client = Harness::connected();
    held(&mut client);
    client.opened_with(Seq(2), Continuation::Resume, &[]);
    client.changes(1, &foreign_changes(&["x", "y"]));
    assert!(is_caught_up(&client));
    cut(&mut client);
    assert_eq!(client.last_open().partial, None);

    let mut client = Harness::connected();
    held(&mut client);
    client.receive(&Message::Error(ErrorMessage::new(
        PeerError::new(ErrorCode::NotFound, ""),
        Reference::Request(client.last_open().request),
    )));
    let opens = client.n_opens();
    client.open(DOC);
    assert_eq!(client.n_opens(), opens + 1, "asked again");
    assert_eq!(client.last_open().partial, None);
}

#[test]
fn pieces_that_do_not_fit_open_the_document_again_from_nothing() {
    let state = state(&["x", "y"]);
    let right = piece(&state, 20..30);
    let lie = |change: fn(&mut SnapshotMessage)| {
        let mut piece = right.clone();
        change(&mut piece);
        piece
    };
    for (wrong, keeps) in [
        (lie(|piece| piece.offset += 1), false),
        (lie(|piece| piece.offset -= 1), false),
        (lie(|piece| piece.seq = Seq(11)), false),
        (lie(|piece| piece.total_bytes += 1), false),
        (lie(|piece| piece.bytes = Bytes::new()), false),
        (lie(|piece| piece.bytes = vec![0; 10_000].into()), false),
        // Of another history or encoding: no piece of this snapshot at all.
        (lie(|piece| piece.epoch = Epoch(1)), true),
        (lie(|piece| piece.codec = 9), true),
    ] {
        let mut client = Harness::connected();
        client.open(DOC);
        opened(&mut client, &state);
        receive(&mut client, &state, 0..20);
        client.receive(&Message::Snapshot(wrong.clone()));
        client.advance(Duration::from_secs(1));
        assert_eq!(client.n_opens(), 2, "{wrong:?}");
        let held = keeps.then(|| PartialSnapshot::of(Seq(10), &state[..20]));
        assert_eq!(client.last_open().partial, held, "{wrong:?}");
        opened(&mut client, &state);
        receive(&mut client, &state, 0..state.len());
        assert!(is_caught_up(&client), "{wrong:?}");
    }
}

/// A reset waits for its turn, is cut while it is sent the state, waits again, and goes on where it was.
#[test]
fn a_reset_goes_on_after_a_cut_too() {
    let state = state(&["x", "y"]);
    let total_bytes = state.len() as u64;
    let next = Continuation::Reset {
        reset: Reset::Merge,
        total_bytes,
    };
    let mut client = Harness::live(DOC);
    client.changes(1, &foreign_changes(&["x"]));
    cut(&mut client);
    client.opened_with(Seq(10), next, &[]);
    receive(&mut client, &state, 0..20);
    cut(&mut client);
    assert!(client.last_open().partial.is_some());
    assert!(client.last_open().cursor.is_some());
    client.opened_with(Seq(10), Continuation::Wait, &[]);
    assert_eq!(progress(&client), (20, total_bytes));
    client.opened_with(Seq(10), next, &[]);
    receive(&mut client, &state, 20..state.len());
    assert!(is_caught_up(&client));
    assert_eq!(client.get(DOC, "y").as_deref(), Some("theirs"));
}

#[test]
fn progress_counts_the_changes_after_a_snapshot_and_goes_on_over_a_cut_among_them() {
    let keys: Vec<String> = (0..40).map(|n| format!("key {n:02}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let all = foreign_changes(&keys);
    let mut server = replica();
    server.document().import(&all[..10]).unwrap();
    let state = server.document().snapshot().unwrap();
    let total_bytes = state.len() as u64;
    let change = all[20].len() as u64;
    let mut client = Harness::connected();
    client.open(DOC);
    client.opened_with(Seq(40), Continuation::Snapshot { total_bytes }, &[]);
    let mut shown = 0.0;
    let mut look = |client: &Harness| {
        let (received, total) = progress(client);
        assert!(received <= total, "{received} of {total}");
        let share = received as f64 / total as f64;
        assert!(share >= shown, "{share} after {shown}");
        shown = share;
        received
    };
    receive(&mut client, &state, 0..50);
    assert_eq!(look(&client), 50);
    receive(&mut client, &state, 50..state.len());
    look(&client);
    client.changes(11, &all[10..20]);
    let before = look(&client);
    assert_eq!(before, total_bytes + 10 * change);
    cut(&mut client);
    assert_eq!(look(&client), before);
    client.opened_with(Seq(40), Continuation::Resume, &[]);
    assert_eq!(look(&client), before);
    client.changes(21, &all[20..30]);
    assert_eq!(look(&client), total_bytes + 20 * change);
    client.changes(31, &all[30..40]);
    assert!(is_caught_up(&client));
    // What is missed later is counted from nothing.
    client.hold_jobs = true;
    client.changes(41, &foreign_changes(&["late"]));
    assert!(progress(&client).0 < 100);
}
