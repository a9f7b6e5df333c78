//! Pushing, acknowledging, resuming, and slow readers, through raw frames.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
mod registries;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use registries::{Registry, registry};
use sync_core::error::ErrorCode;
use sync_core::history::{Cursor, Epoch, Seq};
use sync_core::ids::{EngineId, OriginId};
use sync_core::wire::*;
use sync_server::registry::{
    Call, FaultyRegistry, HoldPoint, MemoryRegistry, ServerRegistry, Snapshot, Tail,
};
use sync_server::{EngineError, InProcess, Server, ValidateLimits, Validator};

/// Scenario 30.
#[tokio::test(start_paused = true)]
async fn a_change_reaches_the_others_once_and_its_author_gets_an_ack() {
    let (server, _) = server();
    let (mut ada, mut bob) = (
        Peer::welcomed(&server, 1).await,
        Peer::welcomed(&server, 2).await,
    );
    let ours = ada.open("notes").await;
    let mut theirs = bob.open("notes").await;
    assert_eq!(ours.channel, theirs.channel);
    ada.push(&ours, 1, &["hello"]).await;
    let ack = Ack {
        channel: ours.channel,
        check: 1,
        number: 1,
        count: 1,
    };
    assert_eq!(ada.ack().await, ack);
    bob.follow(&mut theirs, 1).await;
    assert_eq!(theirs.content, ["hello"]);
    assert_eq!((ada.quiet().await, bob.quiet().await), (None, None));
}

fn faulty() -> (Server, Arc<FaultyRegistry<Arc<Registry>>>) {
    let registry = Arc::new(FaultyRegistry::new(registry()));
    (builder(Arc::clone(&registry)).build().unwrap(), registry)
}

/// Scenario 30: neither shown nor acknowledged before the commit.
#[tokio::test(start_paused = true)]
async fn nobody_sees_a_change_before_it_is_committed() {
    for point in [HoldPoint::BeforeCommit, HoldPoint::AfterCommit] {
        let (server, registry) = faulty();
        let (mut ada, mut bob) = (
            Peer::welcomed(&server, 1).await,
            Peer::welcomed(&server, 2).await,
        );
        let ours = ada.open("notes").await;
        let mut theirs = bob.open("notes").await;
        registry.hold_appends(point);
        ada.push(&ours, 1, &["hello"]).await;
        registry.held_appends(point, 1).await;
        assert_eq!((ada.quiet().await, bob.quiet().await), (None, None));
        registry.release_appends();
        assert_eq!(ada.ack().await.count, 1);
        bob.follow(&mut theirs, 1).await;
    }
}

/// Scenario 31: the connection is cut after the commit and before the ack.
#[tokio::test(start_paused = true)]
async fn a_change_whose_ack_was_lost_is_pushed_again_and_is_in_the_log_once() {
    let (server, registry) = faulty();
    let mut ada = Peer::welcomed(&server, 1).await;
    let doc = ada.open("notes").await;
    registry.hold_appends(HoldPoint::AfterCommit);
    ada.push(&doc, 1, &["once"]).await;
    registry.held_appends(HoldPoint::AfterCommit, 1).await;
    ada.link().cut();
    let mut ada = Peer::welcomed(&server, 1).await;
    let open = ada.open_message("notes");
    registry.release_appends();
    let mut doc = ada.open_with(open).await;
    assert_eq!(
        doc.opened.origins[0].1, 1,
        "the client is told that it is committed"
    );
    ada.push(&doc, 1, &["once"]).await;
    ada.push(&doc, 2, &["next"]).await;
    // The stream answers for the repeat: it shows the change.
    while doc.cursor.seq < Seq(1) {
        doc.take(ada.next().await);
    }
    assert_eq!(ada.ack().await.number, 2);
    let tail = registry.tail(&document("notes"), Seq(0), 1_000).await;
    assert!(matches!(tail, Ok(Tail::Changes { changes, .. }) if changes.len() == 2));
}

#[tokio::test(start_paused = true)]
async fn a_commit_of_unknown_outcome_is_settled_without_a_hole_or_a_repeat() {
    let (server, registry) = faulty();
    let (mut ada, mut bob) = (
        Peer::welcomed(&server, 1).await,
        Peer::welcomed(&server, 2).await,
    );
    let ours = ada.open("notes").await;
    let mut theirs = bob.open("notes").await;
    registry.lose_answers(2);
    ada.push(&ours, 1, &["a", "b"]).await;
    bob.follow(&mut theirs, 2).await;
    assert_eq!(theirs.content, ["a", "b"]);
    let mut doc = ours.clone();
    while doc.cursor.seq < Seq(2) {
        doc.take(ada.next().await);
    }
    assert_eq!(doc.content, ["a", "b"]);
    ada.push_acked(&doc, 3, "c").await;
}

registries! {
    /// Scenario 83, storage.
    storage_that_fails_is_a_retry_and_never_a_refusal => failing_storage
}

async fn failing_storage() {
    let (server, registry) = faulty();
    let ada = Peer::welcomed(&server, 1).await;
    fails_once(ada, &registry).await;
}

/// Scenario 83, storage: over real sockets.
#[tokio::test]
async fn storage_that_fails_over_a_websocket_is_a_retry_and_never_a_refusal() {
    let (server, registry) = faulty();
    let ada = Peer::over_websocket(&server, "ada", 1).await;
    fails_once(ada, &registry).await;
}

async fn fails_once(mut ada: Peer, registry: &FaultyRegistry<Arc<Registry>>) {
    let doc = ada.open("notes").await;
    registry.fail_appends(1);
    ada.push(&doc, 1, &["a"]).await;
    let error = ada.error().await;
    assert_eq!(
        (error.code, error.retryable),
        (ErrorCode::StorageUnavailable, true)
    );
    assert_eq!(error.reference, Reference::Channel(doc.channel));
    assert!(error.retry_after.is_some());
    ada.push(&doc, 2, &["ignored until the document is opened again"])
        .await;
    // Nothing else is said of it, now or later.
    ada.send(&Message::Ping(Ping { nonce: 1 })).await;
    assert!(matches!(ada.next().await, Message::Pong(_)));
    registry.fail_reads(1);
    let open = ada.open_message("notes");
    ada.send(&Message::Open(open)).await;
    let error = ada.error().await;
    assert_eq!(
        (error.code, error.retryable),
        (ErrorCode::StorageUnavailable, true)
    );
    let doc = ada.open("notes").await;
    ada.push_acked(&doc, 1, "a").await;
}

/// Refuses what starts with `!`, and panics at `?`.
struct NoBang;

impl Validator for NoBang {
    fn engine(&self) -> EngineId {
        EngineId::OPAQUE
    }

    fn validate(&self, change: &[u8], _: &ValidateLimits) -> Result<(), EngineError> {
        match change.first() {
            Some(b'!') => Err(EngineError::Malformed {
                what: "change",
                offset: 0,
            }),
            Some(b'?') => panic!("a bug in an engine"),
            _ => Ok(()),
        }
    }
}

/// Scenarios 34 and 46.
#[tokio::test(start_paused = true)]
async fn a_bad_change_is_refused_by_number_and_what_came_before_it_stays() {
    for (bad, reason) in [("!", "malformed"), ("?", "panicked")] {
        let registry = registry();
        let server = builder(Arc::clone(&registry))
            .engines(InProcess::default().engine(NoBang))
            .build()
            .unwrap();
        let (mut ada, mut bob) = (
            Peer::welcomed(&server, 1).await,
            Peer::welcomed(&server, 2).await,
        );
        let (ours, mut theirs) = (ada.open("notes").await, bob.open("notes").await);
        let other = ada.open("other").await;
        ada.push(&ours, 1, &["good", bad, "builds on it"]).await;
        ada.push(&ours, 4, &["so does this"]).await;
        assert_eq!((ada.ack().await.number, ours.channel), (1, theirs.channel));
        let Message::Refuse(refuse) = ada.next().await else {
            panic!("expected Refuse");
        };
        assert_eq!((refuse.number, refuse.code), (2, ErrorCode::InvalidChange));
        assert_eq!(refuse.origin, OriginId(1));
        assert!(refuse.message.contains(reason), "{}", refuse.message);
        // The session and its other documents stay, and the document takes changes once it is opened again.
        ada.push_acked(&other, 1, "unaffected").await;
        assert_eq!(ada.quiet().await, None);
        let ours = ada.open_at("notes", ours.cursor.with(1, b"good")).await;
        ada.push_acked(&ours, 2, "better").await;
        bob.follow(&mut theirs, 2).await;
        assert_eq!(theirs.content, ["good", "better"]);
    }
}

/// Scenario 34.
#[tokio::test(start_paused = true)]
async fn changes_of_one_push_arrive_in_order_each_whole() {
    let (server, _) = server();
    let (mut ada, mut bob) = (
        Peer::welcomed(&server, 1).await,
        Peer::welcomed(&server, 2).await,
    );
    let (ours, mut theirs) = (ada.open("notes").await, bob.open("notes").await);
    let five = ["one", "two", "three", "four", "five"];
    ada.push(&ours, 1, &five).await;
    let frame = bob.next().await;
    assert!(matches!(&frame, Message::Changes(changes) if changes.changes.len() == 5));
    theirs.take(frame);
    assert_eq!(theirs.content, five);
    assert_eq!(ada.ack().await.count, 5);
}

/// Scenario 33, the server's side.
#[tokio::test(start_paused = true)]
async fn a_thousand_changes_travel_as_few_frames() {
    let (server, _) = server();
    let (mut ada, mut bob) = (
        Peer::welcomed(&server, 1).await,
        Peer::welcomed(&server, 2).await,
    );
    let (ours, mut theirs) = (ada.open("notes").await, bob.open("notes").await);
    let changes: Vec<_> = (0..1_000)
        .map(|n| format!("change number {n:0>20}"))
        .collect();
    let changes: Vec<_> = changes.iter().map(String::as_str).collect();
    ada.push(&ours, 1, &changes).await;
    let mut frames = 0;
    while theirs.cursor.seq < Seq(1_000) {
        theirs.take(bob.next().await);
        frames += 1;
    }
    assert!(frames <= 20, "{frames} frames");
    let mut late = Peer::welcomed(&server, 3).await;
    let mut doc = late.open("notes").await;
    let mut frames = 0;
    while doc.cursor.seq < Seq(1_000) {
        doc.take(late.next().await);
        frames += 1;
    }
    assert!(frames <= 20, "{frames} frames");
    assert_eq!((doc.content, doc.cursor), (theirs.content, theirs.cursor));
}

/// Scenarios 19, 21 and 29.
#[tokio::test(start_paused = true)]
async fn resuming_costs_what_was_missed_and_a_snapshot_only_where_the_log_has_gone() {
    let (server, registry) = server();
    let mut ada = Peer::welcomed(&server, 1).await;
    let mut doc = ada.open("notes").await;
    let mut cursors = vec![doc.cursor];
    for number in 1..=10 {
        ada.push_acked(&doc, number, &format!("{number}")).await;
        doc.cursor = doc.cursor.with(number, number.to_string().as_bytes());
        cursors.push(doc.cursor);
    }
    let state = Bytes::from("s".repeat(300_000));
    let snapshot = Snapshot::new(Seq(6), cursors[6].digest, state.clone());
    let epoch = doc.opened.epoch;
    registry
        .compact(&document("notes"), epoch, snapshot, Seq(4))
        .await
        .unwrap();
    let mut bob = Peer::welcomed(&server, 2).await;
    for seq in 4..=10 {
        let mut doc = bob.open_at("notes", cursors[seq]).await;
        assert_eq!(doc.opened.next, Continuation::Resume);
        bob.follow(&mut doc, 10).await;
        let expected: Vec<_> = (seq + 1..=10).map(|n| n.to_string()).collect();
        assert_eq!(doc.content, expected);
        assert_eq!(doc.cursor, cursors[10]);
    }
    let total_bytes = 300_000;
    for cursor in [None, Some(cursors[3])] {
        let mut open = bob.open_message("notes");
        open.cursor = cursor;
        let mut doc = bob.open_with(open).await;
        assert_eq!(doc.opened.next, Continuation::Snapshot { total_bytes });
        bob.follow(&mut doc, 10).await;
        assert_eq!((doc.content.len(), doc.content[0].len()), (5, 300_000));
        assert_eq!(doc.cursor, cursors[10]);
    }
    // A false claim changes nothing for anybody.
    let doc = bob.open_at("notes", some_cursor(3)).await;
    let reset = Continuation::Reset {
        reset: Reset::Merge,
        total_bytes,
    };
    assert_eq!((doc.opened.next, doc.opened.epoch), (reset, epoch));
}

registries! {
    /// Scenario 48.
    a_reader_that_stops_reading_costs_nobody_anything_and_catches_up_when_it_reads_again => stopped_reader
}

async fn stopped_reader() {
    let registry = registry();
    let server = builder(Arc::clone(&registry))
        .ring_bytes_max(64 * 1024)
        .build()
        .unwrap();
    let mut slow = Peer::connect_with(&server, 9, 1024);
    slow.hello().await;
    let mut followed = slow.open("notes").await;
    let (mut ada, mut bob) = (
        Peer::welcomed(&server, 1).await,
        Peer::welcomed(&server, 2).await,
    );
    let (mut ours, mut theirs) = (ada.open("notes").await, bob.open("notes").await);
    let change = "x".repeat(1_000);
    for number in 1..=2_000 {
        ada.push_acked(&ours, number, &change).await;
        ours.cursor = ours.cursor.with(number, change.as_bytes());
        bob.follow(&mut theirs, number).await;
    }
    assert_eq!(theirs.cursor, ours.cursor);
    // Two megabytes behind, with a ring of 64 KiB: the rest is in the registry.
    slow.follow(&mut followed, 2_000).await;
    assert_eq!(followed.cursor, ours.cursor);
    ada.push_acked(&ours, 2_001, "live").await;
    slow.follow(&mut followed, 2_001).await;
    assert_eq!(followed.content.last().map(String::as_str), Some("live"));
}

/// Scenario 35, the server's side: a large document does not hold up pings or other documents.
#[tokio::test(start_paused = true)]
async fn pings_and_other_documents_are_served_between_the_pieces_of_a_large_one() {
    let (server, registry) = server();
    let mut ada = Peer::welcomed(&server, 1).await;
    let large = ada.open("large").await;
    ada.push_acked(&large, 1, "1").await;
    let cursor = large.cursor.with(1, b"1");
    let state = Bytes::from("s".repeat(5_000_000));
    let snapshot = Snapshot::new(Seq(1), cursor.digest, state);
    registry
        .compact(&document("large"), large.opened.epoch, snapshot, Seq(1))
        .await
        .unwrap();
    let mut bob = Peer::connect_with(&server, 2, 16 * 1024);
    bob.hello().await;
    let mut small = bob.open("small").await;
    let mut doc = bob.open("large").await;
    bob.send(&Message::Ping(Ping { nonce: 7 })).await;
    let ours = ada.open("small").await;
    ada.push(&ours, 1, &["meanwhile"]).await;
    let (mut before_pong, mut before_change) = (0, 0);
    let (mut pong, mut change) = (false, false);
    while doc.cursor.seq < Seq(1) {
        match bob.next().await {
            Message::Pong(_) => pong = true,
            Message::Snapshot(piece) => {
                before_pong += usize::from(!pong);
                before_change += usize::from(!change);
                doc.take(Message::Snapshot(piece));
            }
            message => {
                small.take(message);
                change = true;
            }
        }
    }
    assert!(pong && change);
    assert!(
        before_pong < 10 && before_change < 20,
        "{before_pong} {before_change} of 77 pieces"
    );
}

/// Scenarios 35 and 57: large changes of many documents, more than a client takes at once, and a small one between them.
#[tokio::test(start_paused = true)]
async fn large_changes_of_many_documents_come_one_after_the_other_and_small_ones_in_between() {
    const N_DOCUMENTS: usize = 12;
    let (server, _registry) = server();
    let mut ada = Peer::welcomed(&server, 1).await;
    let mut bob = Peer::connect_with(&server, 2, 16 * 1024);
    bob.hello().await;
    let mut documents = Vec::new();
    for n in 0..N_DOCUMENTS {
        let name = format!("notes/{n}");
        let ours = ada.open(&name).await;
        let theirs = bob.open(&name).await;
        documents.push((ours, theirs));
    }
    let large = "x".repeat(600_000);
    for (ours, _) in &documents[1..] {
        ada.push_acked(ours, 1, &large).await;
    }
    ada.push_acked(&documents[0].0, 1, "small").await;
    let mut order = Vec::new();
    while order.len() < N_DOCUMENTS {
        let message = bob.next().await;
        let Message::Changes(changes) = &message else {
            panic!("expected Changes, got {message:?}");
        };
        let channel = changes.channel;
        let at = documents
            .iter()
            .position(|(_, theirs)| theirs.channel == channel);
        documents[at.unwrap()].1.take(message);
        order.push(at.unwrap());
    }
    for (_, theirs) in &documents[1..] {
        assert!(theirs.content == [large.clone()]);
    }
    assert_eq!(documents[0].1.content, ["small"]);
    let small = order.iter().position(|at| *at == 0).unwrap();
    assert!(small <= 2, "{order:?}");
}

/// Scenarios 35 and 48: what is read ahead for a session has a bound, however many documents it is behind in.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_behind_in_many_documents_has_little_of_them_in_memory() {
    const N_DOCUMENTS: usize = 40;
    let registry = Arc::new(FaultyRegistry::new(MemoryRegistry::new()));
    let server = builder(Arc::clone(&registry))
        .ring_bytes_max(1)
        .build()
        .unwrap();
    let mut ada = Peer::welcomed(&server, 1).await;
    let change = "x".repeat(50_000);
    for n in 0..N_DOCUMENTS {
        let ours = ada.open(&format!("notes/{n}")).await;
        for number in 1..=12 {
            ada.push_acked(&ours, number, &change).await;
        }
    }
    let tails = || {
        let calls = registry.calls();
        let tails = calls
            .iter()
            .filter(|call| matches!(call, Call::Tail { .. }));
        tails.count()
    };
    let mut bob = Peer::connect_with(&server, 2, 16 * 1024);
    bob.hello().await;
    for n in 0..N_DOCUMENTS {
        let mut open = bob.open_message(&format!("notes/{n}"));
        open.cursor = Some(Cursor::start(epoch_of(&registry, n).await));
        bob.send(&Message::Open(open)).await;
    }
    let before = tails();
    // Everything is asked for, and nothing is read.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let opened = N_DOCUMENTS;
    let ahead = tails() - before;
    assert!(ahead <= opened + 4, "{ahead} reads");
    // Each gets all that it lacks in the end.
    let mut received = std::collections::BTreeMap::new();
    while received.values().sum::<usize>() < 12 * N_DOCUMENTS {
        if let Message::Changes(changes) = bob.next().await {
            *received.entry(changes.channel).or_insert(0) += changes.changes.len();
        }
    }
    assert!(received.values().all(|n| *n == 12), "{received:?}");
}

async fn epoch_of(registry: &FaultyRegistry<MemoryRegistry>, n: usize) -> Epoch {
    let meta = registry
        .inner()
        .meta(&document(&format!("notes/{n}")))
        .await;
    meta.unwrap().epoch
}

/// Scenario 84.
#[tokio::test(start_paused = true)]
async fn a_used_id_with_other_bytes_is_refused_and_another_users_origin_is_not_taken() {
    let (server, _) = server();
    let ada = Peer::welcomed(&server, 1).await;
    let (ours, theirs) = sync_core::transport::memory::pair(CAPACITY);
    let eve = sync_server::User::new("eve");
    tokio::spawn(server.serve_as(theirs, Default::default(), eve));
    let mut eve = Peer::over(ours, 1);
    eve.hello().await;
    used_ids(ada, eve).await;
}

/// Scenario 84: over real sockets.
#[tokio::test]
async fn a_used_id_and_another_users_origin_are_refused_over_websockets() {
    let (server, _) = server();
    let ada = Peer::over_websocket(&server, "ada", 1).await;
    let eve = Peer::over_websocket(&server, "eve", 1).await;
    used_ids(ada, eve).await;
}

/// Two users have the same origin.
async fn used_ids(mut ada: Peer, mut eve: Peer) {
    let doc = ada.open("notes").await;
    ada.push_acked(&doc, 1, "first").await;
    ada.push(&doc, 1, &["other bytes"]).await;
    assert!(
        matches!(ada.next().await, Message::Refuse(r) if r.code == ErrorCode::IdReused && r.number == 1)
    );
    let doc = eve.open("notes").await;
    assert_eq!(doc.opened.origins.first().unwrap().1, 0);
    eve.push(&doc, 2, &["in another's name"]).await;
    loop {
        if let Message::Error(error) = eve.next().await {
            break assert_eq!(error.code, ErrorCode::ForeignOrigin);
        }
    }
    // And the owner of the origin is not disturbed by it: another user, so no takeover either.
    let doc = ada.open("notes").await;
    ada.push(&doc, 2, &["second"]).await;
    loop {
        if let Message::Ack(ack) = ada.next().await {
            break assert_eq!(ack.number, 2);
        }
    }
}

/// Scenarios 57 and 58.
#[tokio::test(start_paused = true)]
async fn documents_on_one_connection_are_independent_and_leak_nothing() {
    let (server, _) = server();
    let (mut ada, mut bob) = (
        Peer::welcomed(&server, 1).await,
        Peer::welcomed(&server, 2).await,
    );
    let mut ours = Vec::new();
    for name in ["a", "b", "c"] {
        ours.push(ada.open(name).await);
    }
    let mut b = bob.open("b").await;
    for (index, doc) in ours.iter().enumerate() {
        ada.push_acked(doc, 1, &format!("of document {index}"))
            .await;
    }
    bob.follow(&mut b, 1).await;
    assert_eq!(b.content, ["of document 1"]);
    assert_eq!(bob.quiet().await, None);
    ada.send(&Message::Close(Close {
        channel: ours[1].channel,
    }))
    .await;
    assert!(matches!(ada.next().await, Message::Closed(_)));
    bob.push_acked(&b, 1, "after Ada left").await;
    assert_eq!(ada.quiet().await, None);
    ada.push_acked(&ours[2], 2, "still open").await;
    ada.send(&Message::Ping(Ping { nonce: 1 })).await;
    let heads = vec![(ours[0].channel, Seq(1)), (ours[2].channel, Seq(2))];
    assert_eq!(ada.next().await, Message::Pong(Pong { nonce: 1, heads }));
}

/// Scenario 74, mixed clients.
#[tokio::test(start_paused = true)]
async fn clients_with_and_without_compression_share_a_document() {
    let (server, _) = server();
    let mut plain = Peer::welcomed(&server, 1).await;
    let mut gzip = Peer::connect(&server, 2);
    gzip.compression = vec![Compression::Gzip];
    assert_eq!(gzip.hello().await.compression, Compression::Gzip);
    let mut ada = Peer::welcomed(&server, 3).await;
    let ours = ada.open("notes").await;
    let (mut a, mut b) = (plain.open("notes").await, gzip.open("notes").await);
    let text: Vec<_> = (0..100)
        .map(|n| format!("{{\"insert\": \"word {n}\", \"at\": {n}}}"))
        .collect();
    let text: Vec<_> = text.iter().map(String::as_str).collect();
    ada.push(&ours, 1, &text).await;
    let (of_plain, of_gzip) = (
        plain.next_frame().await.unwrap(),
        gzip.next_frame().await.unwrap(),
    );
    assert!(
        of_gzip.len() * 10 < of_plain.len() * 4,
        "{} of {}",
        of_gzip.len(),
        of_plain.len()
    );
    a.take(decode_frame(of_plain, 1 << 20).unwrap());
    b.take(decode_frame(of_gzip, 1 << 20).unwrap());
    assert_eq!(a.content, b.content);
    ada.push(&ours, 101, &["tiny"]).await;
    assert_eq!(plain.next_frame().await, gzip.next_frame().await);
}

/// Scenario 47, the push window.
#[tokio::test(start_paused = true)]
async fn far_more_unacknowledged_bytes_than_the_window_end_the_session() {
    let registry = Arc::new(FaultyRegistry::new(registry()));
    let mut limits = sync_server::Limits::default();
    limits.push_window_bytes = 10_000;
    limits.message_bytes_max = 100_000;
    let server = builder(Arc::clone(&registry))
        .limits(limits)
        .build()
        .unwrap();
    let mut ada = Peer::welcomed(&server, 1).await;
    let doc = ada.open("notes").await;
    registry.hold_appends(HoldPoint::BeforeCommit);
    for number in 1..=130 {
        let push = Message::Push(Push {
            channel: doc.channel,
            origin: ada.origin,
            first_number: number,
            changes: vec![vec![b'x'; 1_000].into()],
            reconciling: false,
        });
        let frame = encode_frame(&push, Compression::None);
        if ada.send_frame(frame).await.is_err() {
            break;
        }
    }
    assert_eq!(ada.ended().await.0.code, ErrorCode::WindowExceeded);
}
