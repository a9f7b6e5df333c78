//! Which edits a client takes, what it hands back, and what becomes of a document that the server says no to. A
//! scripted server answers.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod client_harness;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client_harness::{CHANNEL, EPOCH, Harness, foreign_changes, id};
use sync_core::client::{
    ClientEvent, DocumentEvent, EditRefusal, Job, JobOutcome, OpenOptions, RefusedReason,
    SyncPhase, SyncState,
};
use sync_core::engine::{Sealer, Unreadable};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::{Epoch, Seq};
use sync_core::ids::{Author, ChangeId, EngineId, OriginId};
use sync_core::limits::Limits;
use sync_core::wire::{
    Access, AccessLevel, Ack, AuthoredChange, Changes, Closed, Continuation, ErrorMessage, Message,
    Reference, Refuse, Reset, WireNumber, check_of,
};

const DOC: &str = "doc";

fn state(client: &Harness) -> SyncState {
    client.state.sync_state(&id(DOC)).unwrap()
}

fn refusal(client: &Harness) -> Option<EditRefusal> {
    client.state.edit_refusal(&id(DOC))
}

fn unreadable(client: &mut Harness, changes: u64, missing: u64, wrong_key: bool) {
    let mut unreadable = Unreadable::default();
    (unreadable.changes, unreadable.missing) = (changes, missing);
    unreadable.wrong_key = wrong_key;
    client
        .state
        .handle_unreadable(client.now, &id(DOC), unreadable);
    client.settle();
}

fn access(client: &mut Harness, access: AccessLevel) {
    client.receive(&Message::Access(Access {
        channel: CHANNEL,
        access,
        from: Seq(1),
    }));
}

fn closed(client: &mut Harness, reason: Option<ErrorCode>) {
    client.receive(&Message::Closed(Closed {
        channel: CHANNEL,
        reason,
        message: String::new(),
    }));
}

fn request_error(client: &mut Harness, code: ErrorCode) {
    let request = client.last_open().request;
    client.receive(&Message::Error(ErrorMessage::new(
        PeerError::new(code, ""),
        Reference::Request(request),
    )));
}

/// Scenario 71 and its kind: an edit that cannot be kept is refused before it is made, and says why.
#[test]
fn an_edit_is_refused_beforehand_with_the_reason() {
    let mut client = Harness::with(|config| config.outbox_max = 2);
    assert_eq!(refusal(&client), Some(EditRefusal::Closed), "never opened");
    client.open(DOC);
    assert_eq!(refusal(&client), None, "offline");
    client.dialed();
    client.welcome();
    client.opened(DOC);
    access(&mut client, AccessLevel::Read);
    assert_eq!(refusal(&client), Some(EditRefusal::ReadOnly));
    access(&mut client, AccessLevel::Maintain);
    assert_eq!(refusal(&client), None);
    unreadable(&mut client, 1, 0, true);
    assert_eq!(refusal(&client), Some(EditRefusal::WrongKey));
    unreadable(&mut client, 1, 0, false);
    client.edit(DOC, "a", "1");
    assert_eq!(refusal(&client), None);
    client.edit(DOC, "b", "1");
    assert_eq!(refusal(&client), Some(EditRefusal::OutboxFull { max: 2 }));
    client.receive(&Message::Ack(Ack {
        channel: CHANNEL,
        check: check_of(Seq(1)),
        number: 1,
        count: 1,
    }));
    assert_eq!(refusal(&client), None);
    client.state.close(client.now, &id(DOC));
    assert_eq!(refusal(&client), Some(EditRefusal::Closed));
    let mut client = Harness::live(DOC);
    closed(&mut client, Some(ErrorCode::Deleted));
    assert_eq!(refusal(&client), Some(EditRefusal::Deleted));
    assert_eq!(state(&client).phase, SyncPhase::Deleted);
    assert!(client.document_events.contains(&DocumentEvent::Deleted));
}

/// Of documents that are encrypted.
#[test]
fn what_of_the_log_cannot_be_read_is_told() {
    let mut client = Harness::live(DOC);
    unreadable(&mut client, 2, 3, false);
    assert_eq!((state(&client).unreadable, state(&client).missing), (2, 3));
    assert_eq!(state(&client).phase, SyncPhase::Live);
    let touched = client.touched;
    unreadable(&mut client, 2, 3, false);
    assert_eq!(client.touched, touched, "nothing new");
    unreadable(&mut client, 2, 3, true);
    assert!(client.touched > touched);
    assert_eq!(state(&client).phase, SyncPhase::WrongKey);
}

/// The server of these tests takes changes of 1,000 bytes.
#[test]
fn a_change_that_turns_out_too_large_is_handed_back_and_leaves_the_replica() {
    for (bytes, is_refused) in [(1_000, false), (1_001, true)] {
        let mut client = Harness::live(DOC);
        let change = vec![0; bytes].into();
        client.state.handle_edit(client.now, &id(DOC), change);
        client.settle();
        let refused = client.state.refused(&id(DOC));
        assert_eq!(refused.len(), usize::from(is_refused), "{bytes}");
    }
    let mut client = Harness::live(DOC);
    assert_eq!(client.state.change_bytes_max(), 1_000);
    client.edit(DOC, "a", "small");
    client.edit(DOC, "b", &"x".repeat(1_001));
    let refused = client.state.refused(&id(DOC));
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].reason, RefusedReason::Code(ErrorCode::TooLarge));
    assert_eq!(client.last_open().cursor, None);
    client.opened(DOC);
    assert_eq!(client.get(DOC, "b"), None);
    assert_eq!(client.get(DOC, "a").as_deref(), Some("small"));
    client.lost();
    let configured = Limits::default().change_bytes_max;
    assert_eq!(client.state.change_bytes_max(), configured);
}

#[test]
fn what_was_taken_back_is_handed_back_once_and_dropped_by_its_id() {
    let mut client = Harness::live(DOC);
    for (n, reason) in [
        (1_usize, RefusedReason::Code(ErrorCode::TooLarge)),
        (2, RefusedReason::HistoryReset),
    ] {
        let bytes = Bytes::from_static(b"stray");
        client
            .state
            .handle_taken_back(client.now, &id(DOC), bytes, reason);
        client.settle();
        let refused = client.state.refused(&id(DOC));
        assert_eq!(refused.len(), n);
        assert_eq!(
            (refused[n - 1].reason, refused[n - 1].id.number),
            (reason, 0)
        );
        assert_eq!(state(&client).refused, u64::try_from(n).unwrap());
    }
    let refused = client.state.refused(&id(DOC));
    assert_ne!(refused[0].id, refused[1].id);
    assert_eq!(
        &*refused[0].message,
        format!("{}: the change has 5 bytes", ErrorCode::TooLarge)
    );
    let told = DocumentEvent::Refused { count: 1 };
    let events = client.document_events.iter();
    assert_eq!(events.filter(|event| **event == told).count(), 2);
    let of_client = |event: &&ClientEvent| matches!(event, ClientEvent::Refused { count: 1, .. });
    assert_eq!(client.events.iter().filter(of_client).count(), 2);
    let unknown = ChangeId {
        origin: OriginId(1),
        number: 1,
    };
    assert!(!client.state.drop_refused(&id(DOC), unknown));
    assert!(!client.state.drop_refused(&id("other"), refused[0].id));
    assert!(client.state.drop_refused(&id(DOC), refused[0].id));
    let left = client.state.refused(&id(DOC));
    assert_eq!((left.len(), left[0].id), (1, refused[1].id));
}

#[test]
fn nothing_is_said_of_refusals_when_a_replacement_hands_nothing_back() {
    let mut client = Harness::live(DOC);
    let reset = Continuation::Reset {
        reset: Reset::Discard,
        total_bytes: 0,
    };
    client.reconnect();
    client.opened_with(Seq(0), reset, &[]);
    assert!(client.document_events.contains(&DocumentEvent::Replaced));
    let refused = |event: &DocumentEvent| matches!(event, DocumentEvent::Refused { .. });
    assert!(!client.document_events.iter().any(refused));
}

/// What a second refusal takes with it is said to be behind a refused change, and what a reset takes, not.
#[test]
fn a_replica_that_must_be_loaded_afresh_is_rebuilt_from_the_servers_state_and_the_outbox() {
    let mut client = Harness::live(DOC);
    client.changes(1, &foreign_changes(&["x"]));
    client.edit(DOC, "a", "1");
    client.sent();
    let opens = client.n_opens();
    client.state.handle_poisoned(client.now, &id(DOC));
    client.settle();
    assert_eq!(client.n_opens(), opens + 1);
    assert_eq!(client.last_open().cursor, None);
    client.opened_with(Seq(1), Continuation::Resume, &[0]);
    client.changes(1, &foreign_changes(&["x"]));
    assert_eq!(client.get(DOC, "x").as_deref(), Some("theirs"));
    assert_eq!(client.get(DOC, "a").as_deref(), Some("1"));
    assert_eq!(state(&client).unsaved, 1);
    assert!(client.state.refused(&id(DOC)).is_empty());
}

/// What the server says no to on one connection.
#[test]
fn a_final_no_holds_over_connections_unless_it_may_be_one_of_the_credentials() {
    for (code, tries_again) in [
        (ErrorCode::NotFound, false),
        (ErrorCode::AccessDenied, true),
    ] {
        let mut client = Harness::connected();
        client.open(DOC);
        request_error(&mut client, code);
        assert_eq!(state(&client).phase, SyncPhase::Refused(code));
        let denied = code == ErrorCode::AccessDenied;
        assert_eq!(state(&client).access == AccessLevel::None, denied);
        let opens = client.n_opens();
        client.reconnect();
        assert_eq!(client.n_opens(), opens + usize::from(tries_again), "{code}");
        // Until the application asks for another try of everything.
        if !tries_again {
            client.state.disconnect();
            client.state.connect(client.now);
            client.settle();
            client.dialed();
            client.welcome();
            assert_eq!(client.n_opens(), opens + 1);
        }
    }
}

#[test]
fn a_damaged_document_stays_so_over_connections() {
    let mut client = Harness::live(DOC);
    client.changes(1, &[Bytes::from_static(b"nonsense")]);
    let damaged = SyncPhase::Damaged { sequence: Seq(1) };
    assert_eq!(state(&client).phase, damaged);
    assert!(client.sent().iter().any(|m| matches!(m, Message::Close(_))));
    let opens = client.n_opens();
    client.reconnect();
    assert_eq!((client.n_opens(), state(&client).phase), (opens, damaged));
}

#[test]
fn a_channel_that_the_server_closes_is_opened_again_or_not_as_its_reason_says() {
    for (reason, opens_again) in [
        (Some(ErrorCode::StorageUnavailable), true),
        (Some(ErrorCode::AccessDenied), false),
        (None, false),
    ] {
        let mut client = Harness::live(DOC);
        let opens = client.n_opens();
        closed(&mut client, reason);
        client.advance(Duration::from_secs(5));
        assert_eq!(client.n_opens() > opens, opens_again, "{reason:?}");
    }
}

/// The wider of the wishes counts.
#[test]
fn a_document_opened_again_is_asked_for_with_more_and_never_with_less() {
    let read = {
        let mut options = OpenOptions::default();
        (options.access, options.create) = (AccessLevel::Read, false);
        options
    };
    let mut client = Harness::connected();
    client.open_with(DOC, read);
    let open = client.last_open();
    assert_eq!((open.access, open.create), (AccessLevel::Read, false));
    request_error(&mut client, ErrorCode::NotFound);
    client.open_with(DOC, OpenOptions::default());
    let open = client.last_open();
    assert_eq!((open.access, open.create), (AccessLevel::Write, true));
    request_error(&mut client, ErrorCode::AccessDenied);
    assert_eq!(state(&client).access, AccessLevel::None);
    client.open_with(DOC, read);
    let open = client.last_open();
    assert_eq!((open.access, open.create), (AccessLevel::Write, true));
    assert_eq!(state(&client).access, AccessLevel::Write);
}

/// Scenario 24: a reader has nothing to say, and holds up nobody.
#[test]
fn who_may_only_read_merges_and_pushes_nothing_back() {
    let mut client = Harness::live(DOC);
    client.changes(1, &foreign_changes(&["x"]));
    access(&mut client, AccessLevel::Read);
    client.reconnect();
    let reset = Continuation::Reset {
        reset: Reset::Merge,
        total_bytes: 0,
    };
    client.sent();
    client.opened_as(AccessLevel::Read, Seq(1), reset);
    client.changes(1, &foreign_changes(&["y"]));
    assert_eq!(client.get(DOC, "x").as_deref(), Some("theirs"));
    assert_eq!(client.get(DOC, "y").as_deref(), Some("theirs"));
    assert!(!client.sent().iter().any(|m| matches!(m, Message::Push(_))));
    assert_eq!(state(&client).unsaved, 0);
}

/// Numbers are never given twice.
#[test]
fn a_document_opened_again_after_it_was_forgotten_goes_on_under_a_fresh_origin() {
    for edits in [true, false] {
        let mut client = Harness::live(DOC);
        if edits {
            client.edit(DOC, "a", "1");
            client.receive(&Message::Ack(Ack {
                channel: CHANNEL,
                check: check_of(Seq(1)),
                number: 1,
                count: 1,
            }));
        }
        client.state.close(client.now, &id(DOC));
        client.settle();
        assert!(client.state.sync_state(&id(DOC)).is_none());
        client.sent();
        client.open(DOC);
        client.opened(DOC);
        client.edit(DOC, "b", "1");
        let sent = client.sent();
        let origin = sent.iter().find_map(|message| match message {
            Message::Push(push) => Some(push.origin),
            _ => None,
        });
        assert_eq!(origin == Some(OriginId(1)), !edits);
    }
}

#[test]
fn documents_with_unsaved_changes_are_listed() {
    let mut client = Harness::live(DOC);
    assert_eq!(client.state.unsaved().count(), 0);
    client.edit(DOC, "a", "1");
    assert_eq!(client.state.unsaved().collect::<Vec<_>>(), [&id(DOC)]);
    client.receive(&Message::Ack(Ack {
        channel: CHANNEL,
        check: check_of(Seq(1)),
        number: 1,
        count: 1,
    }));
    assert_eq!(client.state.unsaved().count(), 0);
}

/// Nothing of a document that is closed while a job runs is lost, and nothing stays.
#[test]
fn a_refused_change_keeps_a_closed_document_until_it_is_dropped() {
    let mut client = Harness::live(DOC);
    client.hold_jobs = true;
    client.changes(1, &foreign_changes(&["x"]));
    let bytes = Bytes::from_static(b"stray");
    let reason = RefusedReason::Code(ErrorCode::TooLarge);
    client
        .state
        .handle_taken_back(client.now, &id(DOC), bytes, reason);
    client.state.close(client.now, &id(DOC));
    client.settle();
    client.finish_job(JobOutcome::Done { pending: false });
    let refused = client.state.refused(&id(DOC));
    assert_eq!(refused.len(), 1, "known only here");
    assert!(client.state.drop_refused(&id(DOC), refused[0].id));
    client.advance(Duration::from_secs(1));
    client.state.handle_timeout(client.now);
    assert!(client.state.sync_state(&id(DOC)).is_none());
}

/// The stream that follows a merge is of the document that came of it.
#[test]
fn what_follows_a_reset_in_the_stream_is_imported_after_it() {
    let mut client = Harness::live(DOC);
    client.changes(1, &foreign_changes(&["x"]));
    client.reconnect();
    client.hold_jobs = true;
    let reset = Continuation::Reset {
        reset: Reset::Merge,
        total_bytes: 0,
    };
    client.opened_with(Seq(1), reset, &[]);
    client.changes(1, &foreign_changes(&["x"]));
    client.changes(2, &foreign_changes(&["y"]));
    let jobs: Vec<_> = client.held_jobs.iter().map(|(_, _, job)| job).collect();
    assert!(
        matches!(
            jobs[..],
            [
                Job::StartShadow,
                Job::Import { .. },
                Job::Merge { .. },
                Job::Import { .. }
            ]
        ),
        "{jobs:?}"
    );
    let numbers: Vec<u64> = client.held_jobs.iter().map(|(_, n, _)| *n).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b));
    assert_eq!(client.state.cursor(&id(DOC)).unwrap().epoch, EPOCH);
}

/// Scenario 79: neither saved nor refused until the replica has been rebuilt.
#[test]
fn what_was_behind_a_refused_change_counts_as_unsaved_until_it_has_been_sent_again() {
    let mut client = Harness::live(DOC);
    for key in ["a", "b", "c"] {
        client.edit(DOC, key, "1");
    }
    client.receive(&Message::Refuse(Refuse {
        channel: CHANNEL,
        origin: OriginId(1),
        number: 1,
        code: ErrorCode::InvalidChange,
        message: String::new(),
    }));
    assert_eq!(state(&client).unsaved, 2);
    client.edit(DOC, "d", "1");
    assert_eq!(state(&client).unsaved, 3);
    client.opened(DOC);
    assert_eq!(state(&client).unsaved, 3);
    assert_eq!(client.get(DOC, "d").as_deref(), Some("1"));
}

/// Writes the id in front.
#[derive(Debug)]
struct Labels;

impl Sealer for Labels {
    fn seal(&self, id: ChangeId, _: &Bytes) -> Bytes {
        Bytes::from(format!("{}:{}", id.origin.0, id.number))
    }

    fn is_current(&self, change: &Bytes) -> bool {
        change.contains(&b':')
    }
}

fn seal(client: &mut Harness) {
    let options = OpenOptions::default();
    let stored = client.stored.get(&id(DOC)).cloned();
    client
        .state
        .open_sealed(
            client.now,
            &id(DOC),
            &EngineId::MERGEABLE,
            options,
            stored,
            Some(Arc::new(Labels)),
        )
        .unwrap();
    client.settle();
}

fn pushed(client: &mut Harness) -> Vec<(OriginId, Vec<Bytes>)> {
    let push = |message| match message {
        Message::Push(push) => Some((push.origin, push.changes)),
        _ => None,
    };
    client.sent().into_iter().filter_map(push).collect()
}

/// Of documents that are encrypted: what waits was sealed with another key, or not at all.
#[test]
fn what_waits_under_another_seal_is_sealed_anew_under_a_fresh_origin_before_it_is_sent() {
    let mut client = Harness::with_store(1, std::collections::BTreeMap::new());
    client.open(DOC);
    client.edit(DOC, "a", "1");
    seal(&mut client);
    let first = client.state.outbox_bytes(&id(DOC));
    assert!(Labels.is_current(&first[0]));
    assert_eq!(client.stored[&id(DOC)].outbox[0].bytes, first[0]);
    // Sealed as they should be, changes stay as they are.
    seal(&mut client);
    assert_eq!(client.state.outbox_bytes(&id(DOC)), first);
    client.dialed();
    client.welcome();
    client.opened(DOC);
    let sent = pushed(&mut client);
    assert_eq!(sent.len(), 1);
    assert_ne!(sent[0].0, OriginId(1));
    assert_eq!(sent[0].1, first);
}

/// It may be on its way as it is.
#[test]
fn what_is_being_sent_is_not_sealed_anew() {
    let mut client = Harness::live(DOC);
    client.edit(DOC, "a", "1");
    let before = client.state.outbox_bytes(&id(DOC));
    seal(&mut client);
    assert_eq!(client.state.outbox_bytes(&id(DOC)), before);
}

/// What was made on it may not be there any more.
#[test]
fn what_was_made_before_a_refused_change_stays_as_it_is_unless_the_history_is_another() {
    for is_another in [false, true] {
        let mut client = Harness::live(DOC);
        client.edit(DOC, "a", "1");
        client.edit(DOC, "b", &"x".repeat(1_001));
        if is_another {
            client.epoch = Epoch(78);
        }
        client.sent();
        client.opened(DOC);
        assert_eq!(client.get(DOC, "a").as_deref(), Some("1"));
        let pushed = pushed(&mut client);
        assert_eq!(pushed.len(), 1);
        assert_eq!(pushed[0].0 == OriginId(1), !is_another);
    }
}

/// Design 2.2.
#[test]
fn a_second_refusal_hands_back_everything_that_had_been_replayed() {
    let mut client = Harness::live(DOC);
    for key in ["a", "b", "c"] {
        client.edit(DOC, key, "1");
    }
    client.sent();
    let refuse = |client: &mut Harness, origin| {
        client.receive(&Message::Refuse(Refuse {
            channel: CHANNEL,
            origin,
            number: 1,
            code: ErrorCode::InvalidChange,
            message: String::new(),
        }));
    };
    refuse(&mut client, OriginId(1));
    client.opened(DOC);
    let again = pushed(&mut client);
    assert_eq!(again[0].1.len(), 2);
    refuse(&mut client, again[0].0);
    client.opened(DOC);
    assert!(pushed(&mut client).is_empty());
    let reasons: Vec<_> = client
        .state
        .refused(&id(DOC))
        .iter()
        .map(|change| change.reason)
        .collect();
    let refused = RefusedReason::Code(ErrorCode::InvalidChange);
    assert_eq!(reasons, [refused, refused, RefusedReason::Behind]);
    assert_eq!(state(&client).unsaved, 0);
    assert!(client.stored.is_empty(), "there is no store");
}

#[test]
fn a_resumed_document_stands_where_it_stood() {
    let mut client = Harness::live(DOC);
    client.changes(1, &foreign_changes(&["x"]));
    let cursor = client.state.cursor(&id(DOC));
    client.reconnect();
    client.opened(DOC);
    assert_eq!(client.state.cursor(&id(DOC)), cursor);
    // And one that has not got a snapshot stands nowhere.
    let mut client = Harness::connected();
    client.open(DOC);
    client.opened_with(Seq(5), Continuation::Snapshot { total_bytes: 9 }, &[]);
    client.reconnect();
    assert_eq!(client.last_open().cursor, None);
}

/// Scenario 23: what was missing has come with the whole state.
#[test]
fn missing_dependencies_that_a_resync_has_brought_are_forgotten_and_others_lead_to_another_one() {
    let mut client = Harness::live(DOC);
    client.hold_jobs = true;
    for round in 1..=2 {
        let opens = client.n_opens();
        let next = client.state.cursor(&id(DOC)).unwrap().seq.0 + 1;
        client.changes(next, &foreign_changes(&["x"]));
        client.finish_job(JobOutcome::Done { pending: true });
        assert_eq!(client.n_opens(), opens + 1, "{round}");
        client.opened_with(Seq(next), Continuation::Resume, &[]);
        let all: Vec<Bytes> = (0..next)
            .map(|_| foreign_changes(&["x"]).remove(0))
            .collect();
        client.changes(1, &all);
        for _ in 0..2 {
            client.finish_job(JobOutcome::Done { pending: false });
        }
        client.finish_job(JobOutcome::Merged {
            lacking: None,
            pending: false,
            snapshot: None,
        });
        assert_eq!(state(&client).phase, SyncPhase::Live, "{round}");
    }
}

/// What was trimmed away, or removed on purpose, must not be merged back.
#[test]
fn a_client_that_misses_something_does_not_merge_with_a_history_that_was_rewritten() {
    for (reset, merges) in [
        (Reset::Merge, true),
        (Reset::Rebase, false),
        (Reset::Discard, false),
    ] {
        let mut client = Harness::live(DOC);
        client.hold_jobs = true;
        client.changes(1, &foreign_changes(&["x"]));
        client.finish_job(JobOutcome::Done { pending: true });
        let next = Continuation::Reset {
            reset,
            total_bytes: 0,
        };
        client.opened_with(Seq(0), next, &[]);
        let last = client.held_jobs.last().map(|(_, _, job)| job);
        assert_eq!(matches!(last, Some(Job::Merge { .. })), merges, "{reset:?}");
        assert_eq!(matches!(last, Some(Job::Replace { .. })), !merges);
    }
}

/// Not so in a shadow: it begins empty.
#[test]
fn own_changes_are_imported_into_what_a_reset_collects() {
    let mut client = Harness::live(DOC);
    client.edit(DOC, "mine", "1");
    let own = client.state.outbox_bytes(&id(DOC));
    client.reconnect();
    client.hold_jobs = true;
    let reset = Continuation::Reset {
        reset: Reset::Merge,
        total_bytes: 0,
    };
    client.opened_with(Seq(1), reset, &[1]);
    client.receive(&Message::Changes(Changes {
        channel: CHANNEL,
        check: check_of(Seq(1)),
        changes: vec![AuthoredChange {
            author: Author(0),
            number: WireNumber::Number(1),
            bytes: own[0].clone(),
        }],
    }));
    let imported = client
        .held_jobs
        .iter()
        .any(|(_, _, job)| matches!(job, Job::Import { changes, .. } if *changes == own));
    assert!(imported, "{:?}", client.held_jobs);
}

/// Before it is known what is lacking nothing is pushed: that goes first.
#[test]
fn nothing_is_pushed_while_a_snapshot_or_a_reset_is_on_its_way() {
    for next in [
        Continuation::Snapshot { total_bytes: 9 },
        Continuation::Reset {
            reset: Reset::Merge,
            total_bytes: 9,
        },
        Continuation::Reset {
            reset: Reset::Merge,
            total_bytes: 0,
        },
    ] {
        let mut client = Harness::connected();
        client.open(DOC);
        client.edit(DOC, "a", "1");
        client.hold_jobs = true;
        client.opened_with(Seq(0), next, &[]);
        assert!(pushed(&mut client).is_empty(), "{next:?}");
    }
    let mut client = Harness::connected();
    client.open(DOC);
    client.edit(DOC, "a", "1");
    client.opened(DOC);
    assert_eq!(pushed(&mut client).len(), 1);
}

/// Of documents that are encrypted: with a wrong key nothing may be added to what is there.
#[test]
fn in_a_document_that_takes_keys_nothing_is_pushed_before_what_is_there_has_been_read() {
    for wrong_key in [false, true] {
        let mut client = Harness::connected();
        client
            .state
            .open(
                client.now,
                &id(DOC),
                &EngineId::OPAQUE,
                OpenOptions::default(),
                None,
            )
            .unwrap();
        client.settle();
        client.hold_jobs = true;
        let change = Bytes::from_static(b"sealed");
        client.state.handle_edit(client.now, &id(DOC), change);
        client.opened_with(Seq(1), Continuation::Resume, &[0]);
        assert!(pushed(&mut client).is_empty());
        client.changes(1, &[Bytes::from_static(b"theirs")]);
        if wrong_key {
            unreadable(&mut client, 1, 0, true);
        }
        client.finish_job(JobOutcome::Done { pending: false });
        assert_eq!(pushed(&mut client).is_empty(), wrong_key);
    }
}

/// The application of an opaque document reads changes in their order, its own among them.
#[test]
fn own_changes_of_an_opaque_document_are_imported_where_the_log_has_them() {
    let mut client = Harness::connected();
    client
        .state
        .open(
            client.now,
            &id(DOC),
            &EngineId::OPAQUE,
            OpenOptions::default(),
            None,
        )
        .unwrap();
    client.settle();
    client.hold_jobs = true;
    client.opened(DOC);
    let change = Bytes::from_static(b"mine");
    client
        .state
        .handle_edit(client.now, &id(DOC), change.clone());
    client.receive(&Message::Ack(Ack {
        channel: CHANNEL,
        check: check_of(Seq(1)),
        number: 1,
        count: 1,
    }));
    let [(_, _, Job::Import { changes, .. })] = &client.held_jobs[..] else {
        unreachable!("one import: {:?}", client.held_jobs);
    };
    assert_eq!(changes, &[change]);
}

#[test]
fn an_ack_that_does_not_start_at_the_cursor_makes_the_client_open_again() {
    let mut client = Harness::live(DOC);
    client.edit(DOC, "a", "1");
    let opens = client.n_opens();
    client.receive(&Message::Ack(Ack {
        channel: CHANNEL,
        check: check_of(Seq(2)),
        number: 1,
        count: 1,
    }));
    assert_eq!(client.n_opens(), opens + 1);
    assert_eq!(state(&client).unsaved, 1);
    // Nor one that comes before a snapshot.
    let mut client = Harness::connected();
    client.open(DOC);
    client.edit(DOC, "a", "1");
    client.opened_with(Seq(0), Continuation::Snapshot { total_bytes: 9 }, &[]);
    let opens = client.n_opens();
    client.receive(&Message::Ack(Ack {
        channel: CHANNEL,
        check: check_of(Seq(1)),
        number: 1,
        count: 1,
    }));
    assert_eq!(client.n_opens(), opens + 1);
    assert_eq!(state(&client).unsaved, 1);
}

/// The server of these tests takes 2,000 bytes that it has not acknowledged.
#[test]
fn what_is_on_its_way_fills_the_push_window_and_never_more() {
    let mut client = Harness::live(DOC);
    for _ in 0..3 {
        let change = vec![0; 1_000].into();
        client.state.handle_edit(client.now, &id(DOC), change);
    }
    let n = |client: &mut Harness| -> usize {
        pushed(client)
            .iter()
            .map(|(_, changes)| changes.len())
            .sum()
    };
    assert_eq!(n(&mut client), 2);
    client.receive(&Message::Ack(Ack {
        channel: CHANNEL,
        check: 0,
        number: 1,
        count: 0,
    }));
    assert_eq!(n(&mut client), 1);
}

/// Nothing else would ever make room for it.
#[test]
fn one_change_larger_than_the_push_window_is_sent_alone() {
    let mut client = Harness::live(DOC);
    for (n, key) in (1..).zip(["a", "b", "c"]) {
        client.edit(DOC, key, &"x".repeat(900));
        client.receive(&Message::Ack(Ack {
            channel: CHANNEL,
            check: check_of(Seq(n)),
            number: n,
            count: 1,
        }));
    }
    client.sent();
    client.reconnect();
    client.edit(DOC, "d", "later");
    client.sent();
    let reset = Continuation::Reset {
        reset: Reset::Merge,
        total_bytes: 0,
    };
    client.opened_with(Seq(0), reset, &[0]);
    let sent = pushed(&mut client);
    assert_eq!(
        sent.len(),
        1,
        "what the server lacks, and the rest when it is acknowledged"
    );
    assert!(sent[0].1[0].len() > 2_000);
}

#[test]
fn that_a_document_has_been_opened_is_told_each_time() {
    let mut client = Harness::live(DOC);
    client.reconnect();
    client.opened_as(AccessLevel::Read, Seq(0), Continuation::Resume);
    let told: Vec<_> = client
        .events
        .iter()
        .filter_map(|event| match event {
            ClientEvent::DocumentOpened { access, .. } => Some(*access),
            _ => None,
        })
        .collect();
    assert_eq!(told, [AccessLevel::Write, AccessLevel::Read]);
}

#[test]
fn changes_that_are_pushed_together_fit_into_one_frame() {
    let mut client = Harness::new();
    client.push_window = 1 << 20;
    client.open(DOC);
    for _ in 0..150 {
        let change = vec![7; 1_000].into();
        client.state.handle_edit(client.now, &id(DOC), change);
    }
    client.dialed();
    client.welcome();
    client.sent();
    client.opened(DOC);
    let sent = client.sent();
    assert!(!sent.iter().any(|m| matches!(m, Message::Fragment(_))));
    let pushes = sent
        .iter()
        .filter(|m| matches!(m, Message::Push(_)))
        .count();
    assert_eq!(pushes, 3);
}
