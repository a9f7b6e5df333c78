//! One document of a client: outbox, stream, refusals, resets. A scripted server answers.

#![allow(
    clippy::unwrap_used,
    clippy::as_conversions,
    reason = "helpers of tests"
)]

mod client_harness;

use std::time::Duration;

use bytes::Bytes;
use client_harness::{CHANNEL, EPOCH, Harness, foreign_changes, id, replica};
use sync_core::client::{DocumentEvent, JobOutcome, RefusedReason, SyncPhase};
use sync_core::engine::Document;
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::{Cursor, Digest, Seq};
use sync_core::ids::{Author, ChangeId, OriginId};
use sync_core::wire::{
    Ack, AuthorMessage, AuthoredChange, Changes, Continuation, ErrorMessage, Message, Pong, Push,
    Reference, Refuse, Reset, SnapshotMessage, WireNumber, check_of,
};

const DOC: &str = "doc";

fn pushes(client: &mut Harness) -> Vec<Push> {
    let sent = client.sent();
    sent.into_iter()
        .filter_map(|m| {
            if let Message::Push(push) = m {
                Some(push)
            } else {
                None
            }
        })
        .collect()
}

fn phase(client: &Harness) -> SyncPhase {
    client.state.sync_state(&id(DOC)).unwrap().phase
}

fn unsaved(client: &Harness) -> u64 {
    client.state.sync_state(&id(DOC)).unwrap().unsaved
}

fn ack(client: &mut Harness, first: u64, number: u64, count: u64) {
    client.receive(&Message::Ack(Ack {
        channel: CHANNEL,
        check: check_of(Seq(first)),
        number,
        count,
    }));
}

/// Scenario 28.
#[test]
fn an_edit_made_while_the_handshake_is_in_flight_is_neither_lost_nor_doubled() {
    let mut client = Harness::new();
    client.open(DOC);
    client.edit(DOC, "a", "before the connection");
    client.dialed();
    client.edit(DOC, "b", "before the welcome");
    client.welcome();
    client.edit(DOC, "c", "before opened");
    assert!(pushes(&mut client).is_empty());
    client.opened(DOC);
    let pushed = pushes(&mut client);
    assert_eq!(
        pushed.iter().map(|push| push.changes.len()).sum::<usize>(),
        3
    );
    assert_eq!(pushed[0].first_number, 1);
}

/// Scenario 19.
#[test]
fn a_client_behind_receives_what_it_missed_and_sends_nothing() {
    let mut client = Harness::connected();
    client.open(DOC);
    client.opened_with(Seq(3), Continuation::Resume, &[]);
    assert_eq!(
        phase(&client),
        SyncPhase::CatchingUp {
            received: 0,
            total: 0
        }
    );
    let two = foreign_changes(&["x", "y"]);
    let received = (two[0].len() + two[1].len()) as u64;
    client.changes(1, &two);
    assert_eq!(
        phase(&client),
        SyncPhase::CatchingUp {
            received,
            total: received / 2 * 3
        }
    );
    client.changes(3, &foreign_changes(&["z"]));
    assert_eq!(phase(&client), SyncPhase::Live);
    assert_eq!(client.get(DOC, "z").as_deref(), Some("theirs"));
    assert!(pushes(&mut client).is_empty());
}

/// Scenario 17: imported, not merely received.
#[test]
fn a_document_is_not_caught_up_before_everything_is_imported() {
    let mut client = Harness::connected();
    client.open(DOC);
    client.hold_jobs = true;
    client.opened_with(Seq(1), Continuation::Resume, &[]);
    client.changes(1, &foreign_changes(&["x"]));
    assert!(!client.state.sync_state(&id(DOC)).unwrap().is_caught_up());
    client.finish_job(JobOutcome::Done { pending: false });
    assert!(client.state.sync_state(&id(DOC)).unwrap().is_caught_up());
}

#[test]
fn a_head_told_by_a_pong_is_waited_for() {
    let mut client = Harness::live(DOC);
    client.receive(&Message::Pong(Pong {
        nonce: 1,
        heads: vec![(CHANNEL, Seq(1))],
    }));
    assert_eq!(
        phase(&client),
        SyncPhase::CatchingUp {
            received: 0,
            total: 0
        }
    );
    client.changes(1, &foreign_changes(&["x"]));
    assert_eq!(phase(&client), SyncPhase::Live);
}

/// Scenario 30: the author's side.
#[test]
fn an_ack_moves_the_cursor_by_the_clients_own_bytes_without_importing_them() {
    let mut client = Harness::live(DOC);
    client.edit(DOC, "a", "1");
    client.edit(DOC, "b", "2");
    let bytes: Vec<Bytes> = pushes(&mut client)
        .into_iter()
        .flat_map(|push| push.changes)
        .collect();
    client.hold_jobs = true;
    ack(&mut client, 1, 1, 2);
    assert!(client.held_jobs.is_empty(), "nothing is imported");
    assert_eq!((unsaved(&client), phase(&client)), (0, SyncPhase::Live));
    let expected = Cursor::start(EPOCH).with(1, &bytes[0]).with(2, &bytes[1]);
    assert_eq!(client.state.cursor(&id(DOC)), Some(expected));
}

/// Scenario 30: own changes in a shared frame.
#[test]
fn own_changes_among_others_are_recognised_by_author_and_number() {
    let mut client = Harness::live(DOC);
    client.edit(DOC, "a", "mine");
    let own = pushes(&mut client).remove(0);
    client.receive(&Message::Author(AuthorMessage {
        channel: CHANNEL,
        origin: own.origin,
        author: Author(3),
    }));
    client.hold_jobs = true;
    let theirs = foreign_changes(&["x"]).remove(0);
    let change = |author, number, bytes: &Bytes| AuthoredChange {
        author: Author(author),
        number: WireNumber::Number(number),
        bytes: bytes.clone(),
    };
    client.receive(&Message::Changes(Changes {
        channel: CHANNEL,
        check: check_of(Seq(1)),
        changes: vec![change(9, 1, &theirs), change(3, 1, &own.changes[0])],
    }));
    let [(_, _, sync_core::client::Job::Import { changes, .. })] = client.held_jobs.as_slice()
    else {
        panic!()
    };
    assert_eq!(changes, &[theirs]);
    assert_eq!(unsaved(&client), 0);
}

/// Scenario 31.
#[test]
fn what_was_sent_and_not_acknowledged_is_sent_again_after_a_cut_and_not_if_it_had_arrived() {
    let mut client = Harness::live(DOC);
    client.edit(DOC, "a", "1");
    client.edit(DOC, "b", "2");
    let first = pushes(&mut client);
    client.lost();
    client.advance(Duration::from_secs(1));
    client.dialed();
    client.welcome();
    assert_eq!(client.last_open().origins, [(OriginId(1), 0)]);
    // The registry has the first one.
    client.opened_with(Seq(1), Continuation::Resume, &[1]);
    assert_eq!(unsaved(&client), 1);
    let again = pushes(&mut client);
    assert_eq!(
        (again.len(), again[0].first_number, again[0].changes.len()),
        (1, 2, 1)
    );
    assert_eq!(
        again[0].changes[0],
        first.last().unwrap().changes[first.last().unwrap().changes.len() - 1]
    );
    ack(&mut client, 1, 1, 1);
    ack(&mut client, 2, 2, 1);
    assert_eq!((unsaved(&client), phase(&client)), (0, SyncPhase::Live));
}

/// Scenario 80: the client's half.
#[test]
fn a_registry_that_knows_less_than_it_acknowledged_gets_everything_pending_under_a_fresh_origin() {
    let mut client = Harness::live(DOC);
    client.edit(DOC, "a", "1");
    client.sent();
    ack(&mut client, 1, 1, 1);
    client.edit(DOC, "b", "2");
    let before = pushes(&mut client);
    client.lost();
    client.advance(Duration::from_secs(1));
    client.dialed();
    client.welcome();
    assert_eq!(client.last_open().origins, [(OriginId(1), 1)]);
    client.opened_with(Seq(1), Continuation::Resume, &[0]);
    let after = pushes(&mut client);
    assert_eq!(
        (after[0].first_number, &after[0].changes),
        (1, &before[0].changes)
    );
    assert_ne!(after[0].origin, before[0].origin);
}

/// Scenario 33: the client's half.
#[test]
fn a_thousand_offline_edits_travel_as_few_frames_within_the_window() {
    let mut client = Harness::new();
    client.open(DOC);
    for n in 0..1_000 {
        client.edit(DOC, "k", &n.to_string());
    }
    assert_eq!(unsaved(&client), 1_000);
    client.dialed();
    client.welcome();
    client.opened(DOC);
    let mut frames = 0;
    let mut acked = 0;
    while acked < 1_000 {
        for push in pushes(&mut client) {
            frames += 1;
            let count = push.changes.len() as u64;
            let bytes: usize = push.changes.iter().map(Bytes::len).sum();
            assert!(bytes <= 2_000, "the window is 2,000 bytes");
            assert_eq!(push.first_number, acked + 1);
            ack(&mut client, acked + 1, acked + 1, count);
            acked += count;
        }
    }
    assert!(frames < 60, "{frames} frames");
    assert_eq!(unsaved(&client), 0);
}

#[test]
fn a_frame_that_does_not_start_at_the_cursor_makes_the_client_open_again_where_it_stands() {
    let mut client = Harness::live(DOC);
    client.changes(1, &foreign_changes(&["x"]));
    let opens = client.n_opens();
    client.changes(5, &foreign_changes(&["y"]));
    assert_eq!(client.n_opens(), opens + 1);
    assert_eq!(client.last_open().cursor.unwrap().seq, Seq(1));
    // What the server had sent before it knew is ignored.
    client.changes(6, &foreign_changes(&["z"]));
    assert_eq!(client.n_opens(), opens + 1);
    assert_eq!(client.get(DOC, "y"), None);
}

/// Scenario 23.
#[test]
fn missing_dependencies_lead_to_one_resync_and_no_loop() {
    let mut client = Harness::live(DOC);
    client.hold_jobs = true;
    let opens = client.n_opens();
    for seq in 1..=3 {
        client.changes(seq, &foreign_changes(&["x"]));
    }
    for _ in 0..3 {
        client.finish_job(JobOutcome::Done { pending: true });
    }
    assert_eq!(client.n_opens(), opens + 1);
    assert_eq!(client.last_open().cursor, None);
    // The whole state does not help either.
    client.opened_with(Seq(3), Continuation::Resume, &[]);
    client.changes(1, &foreign_changes(&["x", "x", "x"]));
    for _ in 0..2 {
        client.finish_job(JobOutcome::Done { pending: true });
    }
    client.finish_job(JobOutcome::Merged {
        lacking: None,
        pending: true,
        snapshot: None,
    });
    assert!(matches!(phase(&client), SyncPhase::CatchingUp { .. }));
    client.changes(4, &foreign_changes(&["x"]));
    client.finish_job(JobOutcome::Done { pending: true });
    client.advance(Duration::from_secs(20));
    assert_eq!(client.n_opens(), opens + 1);
    assert!(!client.state.sync_state(&id(DOC)).unwrap().is_caught_up());
}

fn refuse(client: &mut Harness, number: u64) {
    client.receive(&Message::Refuse(Refuse {
        channel: CHANNEL,
        origin: OriginId(1),
        number,
        code: ErrorCode::InvalidChange,
        message: "bad".to_owned(),
    }));
}

/// Scenarios 46 and 79: the client's half. A mergeable document can replay what was behind.
#[test]
fn a_refused_change_is_handed_back_and_what_was_behind_it_is_replayed() {
    let mut client = Harness::live(DOC);
    for key in ["a", "b", "c"] {
        client.edit(DOC, key, "mine");
    }
    let changes: Vec<Bytes> = pushes(&mut client)
        .into_iter()
        .flat_map(|push| push.changes)
        .collect();
    let first_ordinals = client.state.pending_ordinals(&id(DOC)).unwrap();
    ack(&mut client, 1, 1, 1);
    refuse(&mut client, 2);

    let refused = client.state.refused(&id(DOC));
    assert_eq!(refused.len(), 1);
    assert_eq!(
        (refused[0].id, refused[0].reason),
        (
            ChangeId {
                origin: OriginId(1),
                number: 2
            },
            RefusedReason::Code(ErrorCode::InvalidChange)
        )
    );
    assert_eq!(refused[0].bytes, changes[1]);
    assert_eq!(
        client.last_open().cursor,
        None,
        "the replica is rebuilt from the server's state"
    );

    client.opened_with(Seq(1), Continuation::Resume, &[]);
    client.changes(1, &changes[..1]);
    assert_eq!(client.get(DOC, "a").as_deref(), Some("mine"));
    assert_eq!(client.get(DOC, "b"), None);
    assert_eq!(client.get(DOC, "c").as_deref(), Some("mine"));
    assert!(client.document_events.contains(&DocumentEvent::Replaced));
    let again = pushes(&mut client);
    assert_eq!((again.len(), &again[0].changes[0]), (1, &changes[2]));
    assert_ne!(again[0].origin, OriginId(1));
    assert_eq!(
        client
            .state
            .settled(&id(DOC), first_ordinals.0, first_ordinals.1),
        None
    );

    // A second refusal hands everything back.
    client.receive(&Message::Refuse(Refuse {
        channel: CHANNEL,
        origin: again[0].origin,
        number: 1,
        code: ErrorCode::Vetoed,
        message: String::new(),
    }));
    assert_eq!(client.state.refused(&id(DOC)).len(), 2);
    let settled = client
        .state
        .settled(&id(DOC), first_ordinals.0, first_ordinals.1)
        .unwrap();
    assert_eq!(settled.unwrap_err().len(), 2);
}

/// Scenario 79: edits made after the refusal and before the replacement build on what was refused.
#[test]
fn an_edit_made_before_the_replica_is_rebuilt_is_not_lost() {
    let mut client = Harness::live(DOC);
    client.edit(DOC, "a", "bad");
    client.sent();
    refuse(&mut client, 1);
    client.edit(DOC, "b", "good");
    assert!(pushes(&mut client).is_empty(), "nothing may overtake");
    client.opened_with(Seq(0), Continuation::Resume, &[]);
    assert_eq!(client.get(DOC, "a"), None);
    assert_eq!(client.get(DOC, "b").as_deref(), Some("good"));
    assert_eq!(pushes(&mut client).len(), 1);
}

/// Scenario 83: what the server cannot do now is not an answer.
#[test]
fn an_error_that_is_not_final_leaves_the_outbox_alone_and_is_tried_again() {
    for code in [
        ErrorCode::StorageUnavailable,
        ErrorCode::RateLimited,
        ErrorCode::QuotaExceeded,
        ErrorCode::AuthorizationUnavailable,
        ErrorCode::Gap,
        ErrorCode::Fenced,
    ] {
        let mut client = Harness::live(DOC);
        client.edit(DOC, "a", "1");
        let before = pushes(&mut client);
        let opens = client.n_opens();
        client.receive(&Message::Error(ErrorMessage::new(
            PeerError::new(code, "later"),
            Reference::Channel(CHANNEL),
        )));
        assert_eq!(unsaved(&client), 1, "{code}");
        client.advance(Duration::from_secs(2));
        assert_eq!(client.n_opens(), opens + 1, "{code}");
        client.opened(DOC);
        assert_eq!(pushes(&mut client), before, "{code}");
        assert!(client.state.refused(&id(DOC)).is_empty());
    }
}

#[test]
fn a_document_that_keeps_failing_is_tried_with_growing_delays() {
    let mut client = Harness::live(DOC);
    let opens = client.n_opens();
    let error = ErrorMessage::new(
        PeerError::new(ErrorCode::OutOfStep, ""),
        Reference::Channel(CHANNEL),
    );
    for _ in 0..600 {
        client.receive(&Message::Error(error.clone()));
        client.advance(Duration::from_secs(1));
        if matches!(phase(&client), SyncPhase::CatchingUp { .. }) {
            client.opened(DOC);
        }
        client.receive_if_up(&Message::Pong(Pong {
            nonce: 0,
            heads: Vec::new(),
        }));
    }
    assert!(
        client.n_opens() - opens < 80,
        "{} opens in ten minutes",
        client.n_opens() - opens
    );
}

/// Scenario 25.
#[test]
fn a_document_that_is_not_there_is_a_typed_state_and_no_loop() {
    let mut client = Harness::connected();
    client.open(DOC);
    let request = client.last_open().request;
    client.receive(&Message::Error(ErrorMessage::new(
        PeerError::new(ErrorCode::NotFound, ""),
        Reference::Request(request),
    )));
    assert_eq!(phase(&client), SyncPhase::Refused(ErrorCode::NotFound));
    let opens = client.n_opens();
    client.advance(Duration::from_secs(20));
    assert_eq!(client.n_opens(), opens);
}

fn reset(total_bytes: u64) -> Continuation {
    Continuation::Reset {
        reset: Reset::Merge,
        total_bytes,
    }
}

/// A client that has imported `x` and had `mine` acknowledged, then lost its connection.
fn with_history() -> Harness {
    let mut client = Harness::live(DOC);
    client.changes(1, &foreign_changes(&["x"]));
    client.edit(DOC, "mine", "1");
    client.sent();
    ack(&mut client, 2, 1, 1);
    client.lost();
    client.advance(Duration::from_secs(1));
    client.dialed();
    client.welcome();
    client.sent();
    client
}

/// Scenarios 24 and 61: the client's half.
#[test]
fn a_merge_reset_pushes_exactly_what_the_server_lacks_in_front_of_the_outbox() {
    let mut client = with_history();
    client.edit(DOC, "pending", "2");
    // The server has lost `mine`, and has `y`, which is new.
    client.opened_with(Seq(2), reset(0), &[0]);
    assert!(
        pushes(&mut client).is_empty(),
        "nothing is pushed before it is known what is lacking"
    );
    client.changes(1, &foreign_changes(&["x", "y"]));
    let pushed = pushes(&mut client);
    assert!(pushed[0].reconciling && !pushed[1].reconciling);
    assert_ne!(pushed[0].origin, pushed[1].origin);
    assert_eq!(client.get(DOC, "y").as_deref(), Some("theirs"));

    // What was pushed makes sense right after the server's state (decision 0006).
    let mut server = replica();
    server
        .document()
        .import(&foreign_changes(&["x", "y"]))
        .unwrap();
    server.document().import(&pushed[0].changes).unwrap();
    let keys = server
        .read(|map| map.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>())
        .unwrap();
    assert_eq!(keys, ["mine", "pending", "x", "y"]);
}

/// Scenarios 24 and 81: the client's half.
#[test]
fn a_merge_reset_that_finds_nothing_lacking_says_so_and_pushes_nothing() {
    let mut client = with_history();
    let state = client.replicas.get_mut(&id(DOC)).unwrap();
    let everything = state
        .document()
        .since(&replica().document().version())
        .unwrap()
        .unwrap();
    let log = [foreign_changes(&["x"]).remove(0), everything];
    client.opened_with(Seq(2), reset(0), &[]);
    client.changes(1, &log);
    let pushed = pushes(&mut client);
    assert_eq!(pushed.len(), 1);
    assert!(pushed[0].reconciling && pushed[0].changes.is_empty());
    assert_eq!(phase(&client), SyncPhase::Live);
}

/// Protocol 8.2.
#[test]
fn a_client_told_to_wait_reconciles_when_its_turn_comes() {
    let mut client = with_history();
    let request = client.last_open().request;
    client.opened_with(Seq(1), Continuation::Wait, &[]);
    assert!(matches!(phase(&client), SyncPhase::CatchingUp { .. }));
    assert!(pushes(&mut client).is_empty());
    client.answer(request, Seq(1), reset(0), &[]);
    client.changes(1, &foreign_changes(&["x"]));
    assert!(pushes(&mut client)[0].reconciling);
}

#[test]
fn a_reset_that_is_cut_starts_over() {
    let mut client = with_history();
    client.opened_with(Seq(2), reset(0), &[]);
    client.changes(1, &foreign_changes(&["x"]));
    client.lost();
    client.advance(Duration::from_secs(2));
    client.dialed();
    client.welcome();
    assert_eq!(
        client.last_open().cursor.unwrap().seq,
        Seq(2),
        "the old history is still what is held"
    );
    client.sent();
    client.opened_with(Seq(2), reset(0), &[]);
    client.changes(1, &foreign_changes(&["x", "y"]));
    let pushed = pushes(&mut client);
    assert!(pushed[0].reconciling);
    assert_eq!(client.get(DOC, "y").as_deref(), Some("theirs"));
}

/// Protocol 8.3.
#[test]
fn a_discard_drops_what_is_not_in_the_log_and_hands_pending_work_back() {
    let mut client = with_history();
    client.edit(DOC, "pending", "2");
    client.opened_with(
        Seq(1),
        Continuation::Reset {
            reset: Reset::Discard,
            total_bytes: 0,
        },
        &[],
    );
    client.changes(1, &foreign_changes(&["x"]));
    assert_eq!(
        (client.get(DOC, "mine"), client.get(DOC, "pending")),
        (None, None)
    );
    let refused = client.state.refused(&id(DOC));
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].reason, RefusedReason::HistoryReset);
    assert!(pushes(&mut client).is_empty());
}

/// Protocol 8.3.
#[test]
fn a_rebase_replays_pending_work_on_the_new_history() {
    let mut client = with_history();
    client.edit(DOC, "pending", "2");
    client.opened_with(
        Seq(1),
        Continuation::Reset {
            reset: Reset::Rebase,
            total_bytes: 0,
        },
        &[],
    );
    client.changes(1, &foreign_changes(&["x"]));
    assert_eq!(client.get(DOC, "mine"), None);
    assert_eq!(client.get(DOC, "pending").as_deref(), Some("2"));
    let pushed = pushes(&mut client);
    assert_eq!(
        (pushed.len(), pushed[0].changes.len(), pushed[0].reconciling),
        (1, 1, false)
    );
    assert!(client.state.refused(&id(DOC)).is_empty());
}

/// Scenario 21: the client's half, and design 2.3: a snapshot that lacks something is repaired.
#[test]
fn a_snapshot_moves_the_cursor_and_what_it_lacks_is_pushed_back() {
    let mut client = with_history();
    let mut server = replica();
    server
        .document()
        .import(&foreign_changes(&["x", "y"]))
        .unwrap();
    let bytes = server.document().snapshot().unwrap();
    let total_bytes = bytes.len() as u64;
    client.opened_with(Seq(10), Continuation::Snapshot { total_bytes }, &[]);
    client.receive(&Message::Snapshot(SnapshotMessage {
        channel: CHANNEL,
        epoch: EPOCH,
        seq: Seq(10),
        digest: Digest(4),
        codec: 0,
        offset: 0,
        total_bytes,
        bytes,
    }));
    assert_eq!(
        client.state.cursor(&id(DOC)),
        Some(Cursor {
            epoch: EPOCH,
            seq: Seq(10),
            digest: Digest(4)
        })
    );
    assert_eq!(client.get(DOC, "y").as_deref(), Some("theirs"));
    assert!(
        pushes(&mut client)[0].reconciling,
        "`mine` is not in the snapshot"
    );
}

/// Design 7: an invalid logged change stops the client there.
#[test]
fn an_invalid_change_in_the_log_is_never_skipped() {
    let mut client = Harness::live(DOC);
    let mut changes = foreign_changes(&["x", "y"]);
    changes.insert(1, Bytes::from_static(b"nonsense"));
    client.changes(1, &changes);
    assert_eq!(phase(&client), SyncPhase::Damaged { sequence: Seq(2) });
    assert_eq!(client.get(DOC, "x").as_deref(), Some("theirs"));
    assert_eq!(client.get(DOC, "y"), None);
}

/// Design 7: outboxes of closed documents are delivered.
#[test]
fn a_closed_document_delivers_its_outbox_and_is_then_forgotten() {
    let mut client = Harness::live(DOC);
    client.edit(DOC, "a", "1");
    client.state.close(client.now, &id(DOC));
    assert_eq!(pushes(&mut client).len(), 1);
    assert!(client.state.sync_state(&id(DOC)).is_some());
    ack(&mut client, 1, 1, 1);
    assert!(client.sent().iter().any(|m| matches!(m, Message::Close(_))));
    assert_eq!(client.state.sync_state(&id(DOC)), None);
}

fn closes(client: &mut Harness) -> usize {
    let sent = client.sent();
    let is_close = |m: &&Message| matches!(m, Message::Close(close) if close.channel == CHANNEL);
    sent.iter().filter(is_close).count()
}

/// However the last of it is found to be committed, the server is told that the channel is left.
#[test]
fn a_closed_document_leaves_its_channel_when_its_outbox_has_passed_in_the_stream() {
    let mut client = Harness::live(DOC);
    client.edit(DOC, "a", "1");
    let own = pushes(&mut client).remove(0);
    client.state.close(client.now, &id(DOC));
    client.receive(&Message::Author(AuthorMessage {
        channel: CHANNEL,
        origin: own.origin,
        author: Author(3),
    }));
    client.receive(&Message::Changes(Changes {
        channel: CHANNEL,
        check: check_of(Seq(1)),
        changes: vec![AuthoredChange {
            author: Author(3),
            number: WireNumber::Number(1),
            bytes: own.changes[0].clone(),
        }],
    }));
    assert_eq!(closes(&mut client), 1);
    assert_eq!(client.state.sync_state(&id(DOC)), None);

    // Or by the next open.
    let mut client = Harness::live(DOC);
    client.edit(DOC, "a", "1");
    client.state.close(client.now, &id(DOC));
    client.lost();
    client.advance(Duration::from_secs(1));
    client.dialed();
    client.welcome();
    client.opened_with(Seq(1), Continuation::Resume, &[1]);
    assert_eq!(closes(&mut client), 1);
    assert_eq!(client.state.sync_state(&id(DOC)), None);
}

#[test]
fn a_document_that_is_closed_while_its_open_is_under_way_leaves_the_channel() {
    for next in [Continuation::Resume, Continuation::Wait] {
        let mut client = Harness::connected();
        client.open(DOC);
        client.state.close(client.now, &id(DOC));
        client.settle();
        assert_eq!(client.state.sync_state(&id(DOC)), None);
        client.opened_with(Seq(0), next, &[]);
        assert_eq!(closes(&mut client), 1);
        // Not one that has been opened again meanwhile.
        client.open(DOC);
        let first = client.last_open().request;
        client.state.close(client.now, &id(DOC));
        client.open(DOC);
        client.answer(first, Seq(0), Continuation::Resume, &[]);
        client.opened(DOC);
        assert_eq!(closes(&mut client), 0);
        assert_eq!(phase(&client), SyncPhase::Live);
    }
}
