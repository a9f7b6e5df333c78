//! What a server tells about itself when it is asked.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common;
mod registries;

use std::sync::Arc;
use std::time::Duration;

use common::*;
use registries::registry;
use sync_core::history::Seq;
use sync_core::ids::OriginId;
use sync_core::wire::{AccessLevel, Message};
use sync_server::registry::{FaultyRegistry, HoldPoint};
use sync_server::{DocumentPhase, DocumentStats, ErrorCode, Server, SessionState};

fn stats_of(server: &Server, name: &str) -> DocumentStats {
    server.inspect(&document(name)).unwrap().stats
}

/// Scenario 73: per document the sessions, changes and bytes; the totals are what documents and sessions add up to.
#[tokio::test(start_paused = true)]
async fn documents_sessions_changes_and_bytes_are_counted() {
    let (server, _) = server();
    let (mut ada, mut bob) = (
        Peer::welcomed(&server, 1).await,
        Peer::welcomed(&server, 2).await,
    );
    let notes = ada.open("notes").await;
    let mut his = bob.open("notes").await;
    let plan = bob.open("plan").await;
    ada.push(&notes, 1, &["hello", "world"]).await;
    assert_eq!(ada.ack().await.count, 2);
    bob.follow(&mut his, 2).await;
    bob.push_acked(&plan, 1, "x").await;

    let documents = server.documents();
    let names: Vec<_> = documents
        .iter()
        .map(|found| found.document.as_str())
        .collect();
    assert_eq!(names, ["notes", "plan"]);
    let found = &documents[0];
    assert_eq!(found.phase, DocumentPhase::Live);
    assert_eq!(found.engine.as_ref().unwrap().as_str(), "opaque");
    assert_eq!(found.epoch, Some(notes.opened.epoch));
    assert_eq!((found.head, found.snapshot_seq), (Seq(2), Seq::ZERO));
    assert_eq!((found.n_sessions, found.changes_total), (2, 2));
    assert_eq!((found.n_lagging, found.lag_max, found.n_waiting), (0, 0, 0));
    assert_eq!((found.bytes_in_total, found.log_bytes), (10, 10));
    assert!(found.bytes_out_total > 0 && found.ring_bytes > 10);
    assert!(found.changes_per_second > 0.0);

    let details = server.inspect(&document("notes")).unwrap();
    assert_eq!(&details.stats, found);
    let [first, second] = &details.sessions[..] else {
        panic!("{details:?}");
    };
    let hers = if first.identity.origin == OriginId(1) {
        first
    } else {
        second
    };
    assert_eq!((hers.sent, hers.lag, hers.is_lagging), (Seq(2), 0, false));
    assert_eq!((hers.bytes_in, hers.state), (10, SessionState::Streaming));
    assert_eq!(hers.access, AccessLevel::Write);
    let out = first.bytes_out + second.bytes_out;
    assert_eq!(out, found.bytes_out_total);

    let stats = server.stats();
    assert!(stats.is_serving);
    assert_eq!(
        (stats.n_connections, stats.n_sessions, stats.n_users),
        (2, 2, 1)
    );
    assert_eq!((stats.n_documents, stats.n_open), (2, 3));
    assert_eq!((stats.changes_total, stats.commits.count()), (3, 3));
    assert_eq!(stats.opens.count(), 3);
    assert_eq!(stats.events["committed"], 2);
    assert_eq!(stats.events["session_opened"], 2);
    assert!(stats.errors.is_empty());
    let appends = stats.registry.iter().find(|calls| calls.call == "append");
    assert_eq!(appends.unwrap().latencies.count(), 2);
    let sessions = server.sessions();
    assert_eq!(sessions.len(), 2);
    let bytes_in: u64 = sessions.iter().map(|session| session.bytes_in).sum();
    assert_eq!(bytes_in, stats.bytes_in_total);
}

#[tokio::test(start_paused = true)]
async fn totals_outlive_the_sessions_and_rooms_that_they_were_counted_in() {
    let (server, _) = server();
    let mut ada = Peer::welcomed(&server, 1).await;
    let notes = ada.open("notes").await;
    ada.push_acked(&notes, 1, "hello").await;
    let before = server.stats();
    drop(ada);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(stats_of(&server, "notes").phase, DocumentPhase::Draining);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let after = server.stats();
    assert_eq!(
        (after.n_connections, after.n_sessions, after.n_users),
        (0, 0, 0)
    );
    assert_eq!(
        (after.n_documents, after.n_open, after.ring_bytes),
        (0, 0, 0)
    );
    assert_eq!(server.inspect(&document("notes")), None);
    assert_eq!(server.documents(), []);
    assert_eq!(after.changes_total, 1);
    assert_eq!(after.commits, before.commits);
    assert_eq!(after.opens, before.opens);
    assert_eq!(after.bytes_in_total, before.bytes_in_total);
    assert!(after.bytes_out_total >= before.bytes_out_total && before.bytes_out_total > 0);
    assert_eq!(after.connections_total, 1);
    assert!(after.changes_per_second < 0.001);
    assert!(after.at_ms > before.at_ms && after.uptime_ms >= 65_000);
}

/// Scenario 73: who is served from the registry is told from who is just behind.
#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_read_lags_and_catches_up() {
    let registry = registry();
    let server = builder(registry).ring_bytes_max(1_000).build().unwrap();
    let mut ada = Peer::welcomed(&server, 1).await;
    let notes = ada.open("notes").await;
    let mut bob = Peer::connect_with(&server, 2, 512);
    bob.hello().await;
    let mut his = bob.open("notes").await;
    bob.link().stall(true);
    let text = "x".repeat(400);
    for number in 1..=20 {
        ada.push_acked(&notes, number, &text).await;
    }
    let behind = stats_of(&server, "notes");
    assert_eq!((behind.n_sessions, behind.n_lagging), (2, 1));
    assert!(behind.lag_max >= 15, "{behind:?}");
    assert_eq!(server.stats().n_lagging, 1);
    let details = server.inspect(&document("notes")).unwrap();
    let lagging: Vec<_> = details
        .sessions
        .iter()
        .filter(|session| session.is_lagging)
        .collect();
    let [lagging] = &lagging[..] else {
        panic!("{details:?}");
    };
    assert_eq!(
        (lagging.identity.origin, lagging.lag),
        (OriginId(2), behind.lag_max)
    );
    bob.link().stall(false);
    bob.follow(&mut his, 20).await;
    let caught_up = stats_of(&server, "notes");
    assert_eq!((caught_up.n_lagging, caught_up.lag_max), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn errors_are_counted_by_code_wherever_they_are_told() {
    let (server, _) = server();
    let mut ada = Peer::welcomed(&server, 1).await;
    // By the session.
    let mut open = ada.open_message("notes");
    open.create = false;
    ada.send(&Message::Open(open)).await;
    assert_eq!(ada.error().await.code, ErrorCode::NotFound);
    // By a room: a change that is refused, and an open.
    let notes = ada.open("notes").await;
    ada.push(&notes, 7, &["a"]).await;
    assert_eq!(ada.error().await.code, ErrorCode::Gap);
    assert_eq!(stats_of(&server, "notes").errors_total, 1);
    // By the end of a session.
    let mut newer = Peer::welcomed(&server, 1).await;
    ada.ended().await;
    newer.open("notes").await;
    let mut errors = server.stats().errors;
    assert_eq!(errors.remove(&ErrorCode::NotFound), Some(1));
    assert_eq!(errors.remove(&ErrorCode::Gap), Some(1));
    assert_eq!(errors.remove(&ErrorCode::Superseded), Some(1));
    assert!(errors.is_empty(), "{errors:?}");
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_registry_and_how_long_it_took_is_told() {
    let faulty = Arc::new(FaultyRegistry::new(registry()));
    let server = builder(Arc::clone(&faulty)).build().unwrap();
    let mut ada = Peer::welcomed(&server, 1).await;
    let notes = ada.open("notes").await;
    faulty.hold_appends(HoldPoint::BeforeCommit);
    ada.push(&notes, 1, &["a"]).await;
    faulty.held_appends(HoldPoint::BeforeCommit, 1).await;
    ada.push(&notes, 2, &["b", "c"]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(stats_of(&server, "notes").n_waiting, 2);
    assert_eq!(server.stats().n_waiting, 2);
    faulty.release_appends();
    assert_eq!(ada.ack().await.count, 1);
    assert_eq!(ada.ack().await.count, 2);
    let stats = server.stats();
    assert_eq!(stats.n_waiting, 0);
    assert!(stats.commits.quantile(0.1) >= Duration::from_millis(500));
    let appends = stats.registry.iter().find(|calls| calls.call == "append");
    assert!(appends.unwrap().latencies.sum() >= Duration::from_millis(500));
}
