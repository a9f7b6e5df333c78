//! What a user may cost: over it the user waits, and nobody else. Through raw frames.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
mod registries;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use common::*;
use registries::registry;
use sync_core::error::{Action, ErrorCode};
use sync_core::transport::PeerInfo;
use sync_core::transport::memory::pair;
use sync_core::wire::*;
use sync_server::{
    EngineError, EngineId, InProcess, Ledger, Limits, Rate, Server, Taken, User, ValidateLimits,
    Validator,
};
use tokio::time::Instant;

const MIB: u64 = 1024 * 1024;

fn limits(set: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    set(&mut limits);
    limits
}

/// Two seconds' worth at once, and a MiB each second.
fn server_of_a_mib_each_second() -> Server {
    let limits = limits(|limits| limits.user_bytes = Rate::new(MIB, 2 * MIB));
    builder(registry()).limits(limits).build().unwrap()
}

async fn connect(server: &Server, user: &str, origin: u128) -> Peer {
    let (transport, other) = pair(CAPACITY);
    tokio::spawn(server.serve_as(other, PeerInfo::default(), User::new(user)));
    let mut peer = Peer::over(transport, origin);
    peer.hello().await;
    peer
}

/// A document of a MiB, in 16 changes.
async fn write_a_mib(server: &Server) {
    let mut ann = connect(server, "ann", 1_000).await;
    let doc = ann.open("big").await;
    let change = "x".repeat(64 * 1024);
    for number in 1..=16 {
        ann.push_acked(&doc, number, &change).await;
    }
}

async fn join_and_read(peer: &mut Peer) {
    let mut doc = peer.open("big").await;
    peer.follow(&mut doc, 16).await;
}

/// Scenario 47.
#[tokio::test(start_paused = true)]
async fn whoever_reads_a_large_document_again_and_again_waits_and_nobody_else_does() {
    let server = server_of_a_mib_each_second();
    write_a_mib(&server).await;
    let start = Instant::now();
    let greedy = (0..6).map(|origin| {
        let server = server.clone();
        // From as many connections as it likes.
        tokio::spawn(async move {
            let mut eve = connect(&server, "eve", origin).await;
            join_and_read(&mut eve).await;
            eve.send(&Message::Ping(Ping { nonce: 1 })).await;
            assert!(matches!(eve.next().await, Message::Pong(_)));
        })
    });
    let greedy: Vec<_> = greedy.collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(greedy.iter().any(|reader| !reader.is_finished()));

    // Somebody else is served at once meanwhile.
    let before = Instant::now();
    let mut bob = connect(&server, "bob", 100).await;
    join_and_read(&mut bob).await;
    assert!(before.elapsed() < Duration::from_millis(10));
    // And so is what is not in the budget of whoever waits.
    let mut eve = connect(&server, "eve", 101).await;
    eve.send(&Message::Ping(Ping { nonce: 7 })).await;
    assert!(matches!(eve.next().await, Message::Pong(pong) if pong.nonce == 7));
    assert!(before.elapsed() < Duration::from_millis(10));

    for reader in greedy {
        reader.await.unwrap();
    }
    let took = start.elapsed();
    // Six MiB, of which two at once; a little more for what is around the changes.
    assert!(
        (Duration::from_secs(4)..Duration::from_millis(4_200)).contains(&took),
        "{took:?}"
    );
}

/// Scenario 47: the budget is the user's on this server, and comes back with time.
#[tokio::test(start_paused = true)]
async fn a_budget_is_not_new_with_a_new_connection_and_is_with_time() {
    let server = server_of_a_mib_each_second();
    write_a_mib(&server).await;
    for origin in 0..2 {
        join_and_read(&mut connect(&server, "eve", origin).await).await;
    }
    let start = Instant::now();
    join_and_read(&mut connect(&server, "eve", 2).await).await;
    assert!(start.elapsed() > Duration::from_millis(900));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let start = Instant::now();
    join_and_read(&mut connect(&server, "eve", 3).await).await;
    assert!(start.elapsed() < Duration::from_millis(10));
}

/// Scenario 47: everybody has the same name here.
#[tokio::test(start_paused = true)]
async fn users_without_a_name_have_a_budget_for_each_address() {
    let server = server_of_a_mib_each_second();
    write_a_mib(&server).await;
    let from = |address: &str, origin| {
        let (transport, other) = pair(CAPACITY);
        let address: SocketAddr = address.parse().unwrap();
        tokio::spawn(server.serve(other, PeerInfo::at(address)));
        Peer::over(transport, origin)
    };
    let start = Instant::now();
    for (origin, address) in [(1, "192.0.2.1:1"), (2, "192.0.2.1:2"), (3, "192.0.2.2:1")] {
        let mut peer = from(address, origin);
        peer.hello().await;
        join_and_read(&mut peer).await;
    }
    assert!(start.elapsed() < Duration::from_millis(10));
    let mut peer = from("192.0.2.1:3", 4);
    peer.hello().await;
    join_and_read(&mut peer).await;
    assert!(start.elapsed() > Duration::from_millis(900));
}

/// Checks take the time that the change says, in milliseconds.
#[derive(Debug)]
struct Slow;

struct SlowLedger;

impl Validator for Slow {
    fn engine(&self) -> EngineId {
        EngineId::OPAQUE
    }

    fn validate(&self, _: &[u8], _: &ValidateLimits) -> Result<(), EngineError> {
        Ok(())
    }

    fn ledger(&self) -> Option<Box<dyn Ledger>> {
        Some(Box::new(SlowLedger))
    }
}

impl Ledger for SlowLedger {
    fn scans(&self) -> bool {
        false
    }

    fn load(&mut self, _: &[u8]) -> Result<(), EngineError> {
        Ok(())
    }

    fn admit(&mut self, _: &Bytes, _: Option<&User>) -> Result<(), EngineError> {
        Ok(())
    }

    fn check(&mut self, change: &Bytes, _: &User, _: bool) -> Result<Taken, EngineError> {
        let millis = std::str::from_utf8(change).unwrap().parse().unwrap();
        let start = std::time::Instant::now();
        while start.elapsed() < Duration::from_millis(millis) {
            std::hint::spin_loop();
        }
        Ok(Taken::New)
    }

    fn is_spent(&self) -> bool {
        false
    }

    fn bytes(&self) -> usize {
        0
    }
}

/// An engine may take so many microseconds for a user each second, and in all at first.
fn server_of_engine_time(micros: u64) -> Server {
    let limits = limits(|limits| {
        limits.user_engine_micros = Rate::new(micros, micros);
        limits.idle_timeout = Duration::from_secs(3_600);
    });
    builder(registry())
        .limits(limits)
        .engines(InProcess::default().engine(Slow))
        .build()
        .unwrap()
}

async fn acked(peer: &mut Peer, number: u64) {
    loop {
        match peer.next().await {
            Message::Ack(ack) => return assert_eq!(ack.number, number),
            Message::Author(_) | Message::Changes(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Scenario 47.
#[tokio::test(start_paused = true)]
async fn changes_of_a_user_whose_checks_take_long_wait_and_nobody_elses() {
    let server = server_of_engine_time(100_000);
    let mut eve = connect(&server, "eve", 1).await;
    let mut bob = connect(&server, "bob", 2).await;
    let (doc, his) = (eve.open("notes").await, bob.open("notes").await);
    eve.push_acked(&doc, 1, "250").await;
    let start = Instant::now();
    eve.push(&doc, 2, &["0"]).await;
    bob.push(&his, 1, &["0"]).await;
    acked(&mut bob, 1).await;
    assert!(start.elapsed() < Duration::from_secs(1));
    acked(&mut eve, 2).await;
    assert!(start.elapsed() > Duration::from_secs(1));
}

/// Scenarios 47 and 83.
#[tokio::test(start_paused = true)]
async fn a_user_far_over_budget_is_told_when_to_come_again_and_loses_nothing() {
    let server = server_of_engine_time(1_000);
    let mut eve = connect(&server, "eve", 1).await;
    let doc = eve.open("notes").await;
    eve.push_acked(&doc, 1, "30").await;
    eve.push(&doc, 2, &["0"]).await;
    let error = eve.error().await;
    let about = Reference::Channel(doc.channel);
    assert_eq!(
        (error.code, error.action, error.reference),
        (ErrorCode::QuotaExceeded, Action::Retry, about)
    );
    let wait = error.retry_after.unwrap();
    assert!(wait > Duration::from_secs(25), "{wait:?}");
    tokio::time::sleep(wait).await;
    let mut again = eve.open_message("notes");
    again.cursor = Some(doc.cursor);
    let doc = eve.open_with(again).await;
    eve.push(&doc, 2, &["0"]).await;
    acked(&mut eve, 2).await;
}
