//! How many may come, and how fast: what is beyond it waits, or is told when to come again. Through raw frames.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
mod registries;

use std::net::SocketAddr;
use std::time::Duration;

use common::*;
use registries::registry;
use sync_core::error::{Action, ErrorCode};
use sync_core::history::Cursor;
use sync_core::rate::Rate;
use sync_core::transport::PeerInfo;
use sync_core::transport::memory::pair;
use sync_core::wire::*;
use sync_server::{Limits, Server};
use tokio::time::Instant;

fn server_with(set: impl FnOnce(&mut Limits)) -> Server {
    let mut limits = Limits::default();
    set(&mut limits);
    builder(registry()).limits(limits).build().unwrap()
}

fn connect_from(server: &Server, address: &str, origin: u128) -> Peer {
    let address: SocketAddr = address.parse().unwrap();
    let (transport, other) = pair(CAPACITY);
    tokio::spawn(server.serve(other, PeerInfo::at(address)));
    Peer::over(transport, origin)
}

/// Scenario 47.
#[tokio::test(start_paused = true)]
async fn connections_from_one_address_are_counted_and_the_next_is_let_in_when_one_ends() {
    let server = server_with(|limits| limits.connections_per_address_max = 2);
    let mut ada = connect_from(&server, "192.0.2.1:1000", 1);
    ada.hello().await;
    let mut bob = connect_from(&server, "192.0.2.1:1001", 2);
    bob.hello().await;
    let (error, close_code) = connect_from(&server, "192.0.2.1:1002", 3).ended().await;
    assert_eq!(
        (error.code, error.code.action(), close_code),
        (ErrorCode::TooManyFromAddress, Action::Retry, 1013)
    );
    // Others are not concerned.
    connect_from(&server, "192.0.2.2:1000", 4).hello().await;
    drop(bob);
    tokio::time::sleep(Duration::from_secs(1)).await;
    connect_from(&server, "192.0.2.1:1003", 5).hello().await;
}

/// Scenario 47: whoever has one address of an IPv6 network has all of them.
#[tokio::test(start_paused = true)]
async fn addresses_of_one_network_of_ipv6_count_as_one() {
    let server = server_with(|limits| limits.connections_per_address_max = 1);
    let mut ada = connect_from(&server, "[2001:db8::1]:1", 1);
    ada.hello().await;
    let mut near = connect_from(&server, "[2001:db8::ffff:1]:1", 2);
    assert_eq!(near.ended().await.0.code, ErrorCode::TooManyFromAddress);
    connect_from(&server, "[2001:db8:0:1::1]:1", 3)
        .hello()
        .await;
    // The same address in both notations.
    let mut bob = connect_from(&server, "192.0.2.1:1", 4);
    bob.hello().await;
    let mut mapped = connect_from(&server, "[::ffff:192.0.2.1]:1", 5);
    assert_eq!(mapped.ended().await.0.code, ErrorCode::TooManyFromAddress);
}

/// Scenario 47: where a proxy may be.
#[tokio::test(start_paused = true)]
async fn connections_from_this_machine_and_without_an_address_are_not_counted() {
    let server = server_with(|limits| limits.connections_per_address_max = 1);
    let mut peers = Vec::new();
    for (origin, address) in (1..).zip(["127.0.0.1:1", "127.0.0.1:2", "[::1]:1", "[::1]:2"]) {
        let mut peer = connect_from(&server, address, origin);
        peer.hello().await;
        peers.push(peer);
    }
    for origin in 5..7 {
        peers.push(Peer::welcomed(&server, origin).await);
    }
}

/// Pushes of one change each, without waiting for anything.
async fn push_each(peer: &mut Peer, doc: &Doc, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        peer.push(doc, number, &["x"]).await;
    }
}

/// Scenario 47: the rate of pushes.
#[tokio::test(start_paused = true)]
async fn changes_that_come_too_fast_are_acknowledged_later_and_everything_else_at_once() {
    let server = server_with(|limits| limits.push_changes = Rate::new(10, 5));
    let mut ada = Peer::welcomed(&server, 1).await;
    let doc = ada.open("notes").await;
    let start = Instant::now();
    push_each(&mut ada, &doc, 1..=25).await;
    ada.send(&Message::Ping(Ping { nonce: 7 })).await;
    let mut acked = 0;
    let mut ponged = None;
    while acked < 25 {
        match ada.next().await {
            Message::Ack(ack) => acked += ack.count,
            Message::Pong(pong) => ponged = Some((pong.nonce, acked)),
            other => panic!("{other:?}"),
        }
    }
    // The burst at once, the others one each 100 ms, and the ping not behind them.
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(2_000)..Duration::from_millis(2_100)).contains(&took),
        "{took:?}"
    );
    assert!(ponged.is_some_and(|(nonce, acked)| nonce == 7 && acked <= 5));
}

/// Scenario 47: another session is not kept waiting.
#[tokio::test(start_paused = true)]
async fn whoever_pushes_too_fast_delays_nobody_else() {
    let server = server_with(|limits| limits.push_changes = Rate::new(1, 5));
    let mut ada = Peer::welcomed(&server, 1).await;
    let doc = ada.open("notes").await;
    push_each(&mut ada, &doc, 1..=100).await;
    let mut bob = Peer::welcomed(&server, 2).await;
    let theirs = bob.open("other").await;
    let start = Instant::now();
    bob.push_acked(&theirs, 1, "hello").await;
    assert!(start.elapsed() < Duration::from_millis(100));
}

/// Scenarios 47 and 83.
#[tokio::test(start_paused = true)]
async fn more_than_the_window_in_waiting_is_told_when_to_come_again_and_nothing_is_lost() {
    let server = server_with(|limits| {
        limits.push_changes = Rate::new(10, 1);
        limits.push_window_bytes = 320;
    });
    let mut ada = Peer::welcomed(&server, 1).await;
    let doc = ada.open("notes").await;
    // One goes on, ten wait; the eleventh is too much.
    push_each(&mut ada, &doc, 1..=11).await;
    assert_eq!(ada.ack().await.number, 1);
    push_each(&mut ada, &doc, 12..=12).await;
    let error = ada.error().await;
    let about = Reference::Channel(doc.channel);
    assert_eq!(
        (error.code, error.action, error.reference),
        (ErrorCode::RateLimited, Action::Retry, about)
    );
    let wait = error.retry_after.unwrap();
    assert!(wait > Duration::from_secs(1) && wait <= Duration::from_millis(1_100));
    // Nothing more is looked at until the document is opened again.
    push_each(&mut ada, &doc, 2..=4).await;
    tokio::time::sleep(wait).await;
    assert_eq!(ada.quiet().await, None);
    let mut again = ada.open_message("notes");
    again.cursor = Some(Cursor::start(doc.opened.epoch));
    again.origins = vec![(ada.origin, 1)];
    let doc = ada.open_with(again).await;
    assert_eq!(doc.opened.origins[0].1, 1);
    push_each(&mut ada, &doc, 2..=11).await;
    let mut acked = 1;
    while acked < 11 {
        match ada.next().await {
            Message::Ack(ack) => acked = ack.number + ack.count - 1,
            Message::Author(_) | Message::Changes(_) => {}
            other => panic!("{other:?}"),
        }
    }
}
