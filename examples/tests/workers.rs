//! Worker processes that die, in real time: nothing that a client sends takes more with it than one of them.
#![cfg(feature = "hostile")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "scenarios are plain async functions"
)]

#[path = "../../sync-server/tests/common/mod.rs"]
mod common;
#[path = "../../sync-server/tests/registries/mod.rs"]
mod registries;

use std::sync::Arc;
use std::time::Duration;

use common::{Doc, Peer, document};
use sync_core::wire::{Message, Refuse};
use sync_examples::hostile::{Brittle, engines};
use sync_server::registry::{
    ChangeId, Epoch, FaultyRegistry, MemoryRegistry, NewChange, NewDocument, OriginId, Seq,
    ServerRegistry, Tail,
};
use sync_server::{ErrorCode, Events, FoldError, Server, ServerEvent, User, Workers};

const MIB: u64 = 1024 * 1024;

type Registry = Arc<FaultyRegistry<Arc<MemoryRegistry>>>;

fn workers() -> Workers {
    Workers::program(env!("CARGO_BIN_EXE_hostile"))
        .engines(engines())
        .processes(1)
        .memory_max(256 * MIB)
        .cpu_max(Duration::from_secs(1))
}

fn server(workers: Workers) -> (Server, Registry) {
    let registry = Arc::new(FaultyRegistry::new(Arc::new(MemoryRegistry::new())));
    let server = common::builder(Arc::clone(&registry))
        .engines(workers)
        .fold_after(4, usize::MAX)
        .keep_log(0, Duration::ZERO)
        .build()
        .unwrap();
    (server, registry)
}

async fn open(peer: &mut Peer, name: &str) -> Doc {
    let mut open = peer.open_message(name);
    open.engine = Brittle::id();
    peer.open_with(open).await
}

async fn refusal(peer: &mut Peer) -> Refuse {
    loop {
        match peer.next().await {
            Message::Refuse(refuse) => return refuse,
            Message::Ack(_) | Message::Changes(_) | Message::Snapshot(_) => {}
            other => panic!("expected Refuse, got {other:?}"),
        }
    }
}

/// Follows a document in which the peer may have written itself.
async fn follow(peer: &mut Peer, doc: &mut Doc, seq: u64) {
    let mut seen = 0;
    while seen < seq {
        match peer.next().await {
            Message::Changes(changes) => {
                for change in changes.changes {
                    doc.content
                        .push(String::from_utf8(change.bytes.to_vec()).unwrap());
                    seen += 1;
                }
            }
            Message::Ack(ack) => seen += ack.count,
            other => panic!("{other:?}"),
        }
    }
    assert!(doc.content.iter().all(|word| word.len() <= 3));
}

async fn logged(registry: &Registry, name: &str) -> Vec<String> {
    let document = document(name);
    match registry.tail(&document, Seq(0), usize::MAX).await {
        Ok(Tail::Changes { changes, .. }) => changes
            .iter()
            .map(|row| String::from_utf8(row.bytes.to_vec()).unwrap())
            .collect(),
        other => panic!("{other:?}"),
    }
}

/// Writes rows that came in some other way.
async fn store(registry: &Registry, name: &str, rows: &[&'static str]) {
    let id = document(name);
    let new = NewDocument::new(id.clone(), Brittle::id(), Epoch(7));
    registry.create(new).await.unwrap();
    let changes = (1..).zip(rows).map(|(number, row)| {
        let id = ChangeId {
            origin: OriginId(99),
            number,
        };
        NewChange::new(id, User::new("eve"), (*row).into())
    });
    let appended = registry.append(&id, Epoch(7), None, changes.collect());
    appended.await.unwrap();
}

fn count(events: &mut Events<ServerEvent>, is: impl Fn(&ServerEvent) -> bool) -> usize {
    std::iter::from_fn(|| events.try_next()).filter(is).count()
}

fn is_death(event: &ServerEvent) -> bool {
    matches!(event, ServerEvent::WorkerDied { .. })
}

fn is_relay(event: &ServerEvent) -> bool {
    matches!(event, ServerEvent::DocumentRelayed { .. })
}

/// Scenario 51: whatever it does to the process that reads it, the change is refused by its id, alone, and reaches nobody.
#[tokio::test]
async fn a_change_that_kills_workers_is_refused_by_id_and_reaches_nobody() {
    let (server, registry) = server(workers());
    let mut events = server.events();
    for (origin, killer) in (1_u128..).zip(["abort", "panic", "overflow", "allocate", "spin"]) {
        let mut eve = Peer::welcomed(&server, 2 * origin).await;
        let mut bob = Peer::welcomed(&server, 2 * origin + 1).await;
        let hers = open(&mut eve, killer).await;
        let mut his = open(&mut bob, killer).await;
        eve.push(&hers, 1, &["a", "b<a", killer, "c"]).await;
        bob.push(&his, 1, &["d"]).await;
        let refuse = refusal(&mut eve).await;
        assert_eq!(
            (refuse.number, refuse.code),
            (3, ErrorCode::InvalidChange),
            "{killer}"
        );
        follow(&mut bob, &mut his, 3).await;
        let mut log = logged(&registry, killer).await;
        log.sort();
        assert_eq!(log, ["a", "b<a", "d"], "{killer}");
        // With the batch, after what came before it, and twice alone.
        assert_eq!(count(&mut events, is_death), 4, "{killer}");
    }
}

#[tokio::test]
async fn other_documents_of_the_same_worker_are_checked_all_the_same() {
    let (server, registry) = server(workers());
    let mut eve = Peer::welcomed(&server, 1).await;
    let mut ada = Peer::welcomed(&server, 2).await;
    let ours = open(&mut ada, "ours").await;
    ada.push_acked(&ours, 1, "a").await;
    for number in 2..=6 {
        let hers = open(&mut eve, "hers").await;
        eve.push(&hers, 1, &["abort"]).await;
        ada.push_acked(&ours, number, "b<a").await;
        assert_eq!(refusal(&mut eve).await.code, ErrorCode::InvalidChange);
    }
    ada.push(&ours, 7, &["c<nothing"]).await;
    assert_eq!(refusal(&mut ada).await.code, ErrorCode::MissingDependency);
    assert_eq!(logged(&registry, "hers").await, [""; 0]);
}

/// A document that has killed a worker does not share one for a while.
#[tokio::test]
async fn who_kills_again_kills_its_own_worker() {
    let (server, _) = server(workers());
    let mut eve = Peer::welcomed(&server, 1).await;
    let mut events = server.events();
    for round in 0..3 {
        let hers = open(&mut eve, "hers").await;
        eve.push(&hers, 1, &["abort"]).await;
        refusal(&mut eve).await;
        // The first time it is found in a worker that others share, and then searched for.
        let expected = if round == 0 { 3 } else { 2 };
        assert_eq!(count(&mut events, is_death), expected, "{round}");
    }
}

/// Scenario 83.
#[tokio::test]
async fn a_worker_that_hangs_or_cannot_be_started_refuses_nothing() {
    let slow = workers().deadline(Duration::from_millis(500));
    let missing = Workers::program("/nonexistent").engines(engines());
    for (workers, change) in [(slow, "sleep"), (missing, "a")] {
        let (server, registry) = server(workers);
        let mut ada = Peer::welcomed(&server, 1).await;
        for _ in 0..2 {
            let ours = open(&mut ada, "ours").await;
            ada.push(&ours, 1, &[change]).await;
            assert_eq!(ada.error().await.code, ErrorCode::CheckUnavailable);
        }
        assert_eq!(logged(&registry, "ours").await, [""; 0]);
    }
}

#[tokio::test]
async fn a_document_whose_stored_bytes_kill_workers_is_relayed_and_others_are_not() {
    let (server, registry) = server(workers());
    let mut events = server.events();
    store(&registry, "broken", &["a", "stored abort"]).await;
    let (mut ada, mut bob) = (
        Peer::welcomed(&server, 1).await,
        Peer::welcomed(&server, 2).await,
    );
    let mut ours = open(&mut ada, "broken").await;
    let mut theirs = open(&mut bob, "broken").await;
    ada.follow(&mut ours, 2).await;
    bob.follow(&mut theirs, 2).await;
    for number in 1..=4 {
        ada.push_acked(&ours, number, "b<nothing").await;
    }
    bob.follow(&mut theirs, 6).await;
    assert_eq!(count(&mut events, is_relay), 1);
    let sound = open(&mut ada, "sound").await;
    ada.push(&sound, 1, &["b<nothing"]).await;
    assert_eq!(refusal(&mut ada).await.code, ErrorCode::MissingDependency);
}

#[tokio::test]
async fn a_replica_is_loaded_from_the_snapshot_and_the_log_after_it() {
    let (server, registry) = server(workers().requests_max(1));
    let mut events = server.events();
    let mut ada = Peer::welcomed(&server, 1).await;
    let ours = open(&mut ada, "ours").await;
    for (number, word) in (1..).zip(["a", "b<a", "c<a", "d<b<a", "e<c<a", "f<d<b<a"]) {
        ada.push_acked(&ours, number, word).await;
    }
    let folded = async {
        loop {
            if let Some(ServerEvent::Folded { seq, .. }) = events.next().await {
                break seq;
            }
        }
    };
    assert!(folded.await >= Seq(4));
    let ours = open(&mut ada, "ours").await;
    ada.push(&ours, 7, &["g<a", "h<nothing"]).await;
    assert_eq!(refusal(&mut ada).await.number, 8);
    let json = server.read_json(&document("ours")).await.unwrap();
    let words: Vec<String> = serde_json::from_str(&json).unwrap();
    assert_eq!(words.len(), 7);
    let meta = registry.meta(&document("ours")).await.unwrap();
    assert_eq!(meta.head, Seq(7));
}

#[tokio::test]
async fn a_log_whose_fold_kills_workers_stays_and_is_served() {
    let (server, registry) = server(workers());
    let mut events = server.events();
    let mut ada = Peer::welcomed(&server, 1).await;
    let ours = open(&mut ada, "ours").await;
    for (number, word) in (1..).zip(["a", "folded abort", "c", "d"]) {
        ada.push_acked(&ours, number, word).await;
    }
    let failed = async {
        loop {
            if let Some(ServerEvent::FoldFailed { error, .. }) = events.next().await {
                break error;
            }
        }
    };
    assert!(matches!(&*failed.await, FoldError::Host { .. }));
    assert!(server.read_json(&document("ours")).await.is_err());
    ada.push_acked(&ours, 5, "e<a").await;
    assert_eq!(logged(&registry, "ours").await.len(), 5);
}
