//! The life of sessions and rooms: takeover, unloading, broken recipients, shutdown, events.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod common;
mod registries;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use registries::registry;
use sync_core::error::ErrorCode;
use sync_core::history::Seq;
use sync_core::ids::EngineId;
use sync_core::transport::memory::{MemoryNetwork, MemoryTransport, pair};
use sync_core::transport::{Dialer, PeerInfo, Transport, TransportError};
use sync_core::wire::*;
use sync_server::registry::{FaultyRegistry, HoldPoint, ServerRegistry, Tail};
use sync_server::{CloseReason, InProcess, Server, ServerEvent};

/// Scenario 31.
#[tokio::test(start_paused = true)]
async fn a_newer_connection_of_the_same_client_ends_the_older_one() {
    let (server, _) = server();
    let mut older = Peer::welcomed(&server, 1).await;
    let doc = older.open("notes").await;
    older.push_acked(&doc, 1, "a").await;
    let mut other = Peer::welcomed(&server, 2).await;
    let mut newer = Peer::welcomed(&server, 1).await;
    let (error, close_code) = older.ended().await;
    assert_eq!((error.code, close_code), (ErrorCode::Superseded, 4411));
    let doc = newer.open("notes").await;
    assert_eq!(doc.opened.origins[0].1, 1);
    newer.push(&doc, 2, &["b"]).await;
    loop {
        if let Message::Ack(ack) = newer.next().await {
            break assert_eq!((ack.number, ack.count), (2, 1));
        }
    }
    assert_eq!(other.quiet().await, None, "nobody else notices");
}

/// Scenario 31: what the older connection had not been read of is discarded.
#[tokio::test(start_paused = true)]
async fn a_connection_that_hangs_is_replaced_and_what_it_still_sends_is_not_taken() {
    let (server, registry) = server();
    let mut older = Peer::welcomed(&server, 1).await;
    let doc = older.open("notes").await;
    older.link().stall(true);
    older
        .push(&doc, 1, &["in flight when the network went away"])
        .await;
    let mut newer = Peer::welcomed(&server, 1).await;
    let doc = newer.open("notes").await;
    older.link().stall(false);
    newer
        .push_acked(&doc, 1, "in flight when the network went away")
        .await;
    assert_eq!(newer.quiet().await, None);
    let tail = registry.tail(&document("notes"), Seq(0), 1_000).await;
    assert!(matches!(tail, Ok(Tail::Changes { changes, .. }) if changes.len() == 1));
}

/// A transport that breaks when it is to send.
struct Broken(MemoryTransport, bool);

impl Transport for Broken {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, TransportError>>> {
        self.0.poll_receive(cx)
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.0.poll_ready(cx)
    }
    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        // What it is sent in answer still arrives; what is fanned out does not.
        if self.1 && frame.get(2) == Some(&6) {
            return Err(TransportError::Lost(None));
        }
        self.0.start_send(frame)
    }
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.0.poll_flush(cx)
    }
    fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        self.0.poll_close(cx, code)
    }
}

/// Scenario 49.
#[tokio::test(start_paused = true)]
async fn a_recipient_that_fails_keeps_nothing_from_the_others() {
    let (server, _) = server();
    let mut events = server.events();
    let mut ada = Peer::welcomed(&server, 1).await;
    let ours = ada.open("notes").await;
    let mut others = Vec::new();
    for origin in 2..12 {
        let (mine, theirs) = pair(CAPACITY);
        tokio::spawn(server.serve(Broken(theirs, origin % 3 == 0), PeerInfo::default()));
        let mut peer = Peer::over(mine, origin);
        peer.hello().await;
        let doc = peer.open("notes").await;
        others.push((origin, peer, doc));
    }
    ada.push_acked(&ours, 1, "to all").await;
    let mut n_broken = 0;
    for (origin, peer, doc) in &mut others {
        if *origin % 3 == 0 {
            n_broken += 1;
        } else {
            peer.follow(doc, 1).await;
        }
    }
    for _ in 0..n_broken {
        event(&mut events, |event| match event {
            ServerEvent::SessionClosed {
                reason: CloseReason::Lost { .. },
                ..
            } => Some(()),
            _ => None,
        })
        .await;
    }
    assert_eq!(n_broken, 3);
    ada.push_acked(&ours, 2, "again").await;
    assert_eq!(ada.quiet().await, None);
}

registries! {
    /// Scenario 59.
    an_idle_room_unloads_and_comes_back_as_it_was_and_a_busy_one_stays => idle_and_busy
}

async fn idle_and_busy() {
    let registry = Arc::new(FaultyRegistry::new(registry()));
    let server = builder(Arc::clone(&registry)).build().unwrap();
    let mut events = server.events();
    let mut ada = Peer::welcomed(&server, 1).await;
    let doc = ada.open("notes").await;
    ada.push_acked(&doc, 1, "kept").await;
    registry.hold_appends(HoldPoint::BeforeCommit);
    ada.push(&doc, 2, &["under way"]).await;
    registry.held_appends(HoldPoint::BeforeCommit, 1).await;
    drop(ada);
    tokio::time::sleep(Duration::from_secs(120)).await;
    while let Some(event) = events.try_next() {
        assert!(
            !matches!(event, ServerEvent::RoomUnloaded { .. }),
            "an append is under way"
        );
    }
    registry.release_appends();
    event(&mut events, |event| {
        matches!(event, ServerEvent::RoomUnloaded { .. }).then_some(())
    })
    .await;
    let mut bob = Peer::welcomed(&server, 2).await;
    let mut again = bob.open("notes").await;
    assert_ne!(
        again.channel, doc.channel,
        "the number of a room that is no more names no other"
    );
    bob.follow(&mut again, 2).await;
    assert_eq!(again.content, ["kept", "under way"]);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        bob.send(&Message::Ping(Ping { nonce: 1 })).await;
        bob.next().await;
    }
    while let Some(event) = events.try_next() {
        assert!(
            !matches!(event, ServerEvent::RoomUnloaded { .. }),
            "somebody is there"
        );
    }
}

registries! {
    on_threads
    /// Scenario 59: never two live rooms of one document.
    a_thousand_joins_racing_unloads_meet_in_one_room_at_a_time => thousand_joins
}

async fn thousand_joins() {
    let registry = registry();
    let server = builder(Arc::clone(&registry))
        .unload_after(Duration::ZERO)
        .build()
        .unwrap();
    let mut events = server.events();
    let watcher = tokio::spawn(async move {
        // Not known after events have been lost.
        let (mut live, mut loads) = (Some(false), 0);
        while let Some(event) = events.next().await {
            match event {
                ServerEvent::RoomLoaded { .. } => {
                    assert_ne!(live, Some(true), "two rooms at once");
                    live = Some(true);
                    loads += 1;
                }
                ServerEvent::RoomUnloaded { .. } => {
                    assert_ne!(live, Some(false), "unloaded twice");
                    live = Some(false);
                }
                ServerEvent::Lagged { .. } => live = None,
                _ => {}
            }
        }
        (live, loads)
    });
    // Many at a time, and then few, so that the room is often empty.
    let mut unloads = server.events();
    for (round, workers) in [(0, 10_u128), (1, 2)] {
        let each = 500 / workers;
        let joins: Vec<_> = (0..workers)
            .map(|worker| {
                let first = round * 500 + worker * each + 1;
                tokio::spawn(join_and_leave(server.clone(), first..first + each))
            })
            .collect();
        for join in joins {
            join.await.unwrap();
        }
        event(&mut unloads, |event| {
            matches!(event, ServerEvent::RoomUnloaded { .. }).then_some(())
        })
        .await;
    }
    server.shutdown(Duration::ZERO).await;
    drop(server);
    let Ok(Tail::Changes { changes, .. }) =
        registry.tail(&document("notes"), Seq(0), 1 << 20).await
    else {
        panic!("the log starts at 1");
    };
    let origins: BTreeSet<_> = changes.iter().map(|change| change.id.origin).collect();
    assert_eq!((changes.len(), origins.len()), (1_000, 1_000));
    let (live, loads) = watcher.await.unwrap();
    assert!(live != Some(true) && loads > 1, "{loads} loads");
}

/// One after the other connects, makes a change, and leaves without waiting for anything.
async fn join_and_leave(server: Server, origins: Range<u128>) {
    for origin in origins {
        let mut peer = Peer::welcomed(&server, origin).await;
        let doc = peer.open("notes").await;
        peer.push(&doc, 1, &["x"]).await;
        let channel = doc.channel;
        peer.send(&Message::Close(Close { channel })).await;
        while !matches!(peer.next().await, Message::Closed(_)) {}
    }
}

registries! {
    /// Scenario 44.
    shutdown_drains_closes_every_session_with_a_code_and_loses_nothing => shutdown
}

async fn shutdown() {
    let registry = registry();
    let server = builder(Arc::clone(&registry)).build().unwrap();
    let network = MemoryNetwork::new();
    let listener = server.listen(network.acceptor());
    let mut peers = Vec::new();
    for origin in 1..=5 {
        let mut peer = Peer::welcomed(&server, origin).await;
        let doc = peer.open("notes").await;
        peers.push((peer, doc));
    }
    let (ada, doc) = &mut peers[0];
    ada.push_acked(doc, 1, "before").await;
    let drain = Duration::from_secs(30);
    let shutdown = tokio::spawn({
        let server = server.clone();
        async move { server.shutdown(drain).await }
    });
    for (index, (peer, doc)) in peers.iter_mut().enumerate() {
        if index > 0 {
            peer.follow(doc, 1).await;
        }
        let Message::GoAway(go_away) = peer.next().await else {
            panic!("expected GoAway");
        };
        assert_eq!(go_away.reconnect_within, drain);
    }
    // Until the time is over everything works as before, but nobody new is let in.
    let (ada, doc) = &mut peers[0];
    ada.push_acked(doc, 2, "while draining").await;
    let (error, close_code) = Peer::connect(&server, 9).ended().await;
    assert_eq!((error.code, close_code), (ErrorCode::ShuttingDown, 1012));
    listener.wait().await.unwrap();
    for (peer, _) in &mut peers {
        let (error, close_code) = peer.ended().await;
        assert_eq!((error.code, close_code), (ErrorCode::ShuttingDown, 1012));
    }
    shutdown.await.unwrap();

    let server = builder(registry).build().unwrap();
    let mut peer = Peer::welcomed(&server, 1).await;
    let mut doc = peer.open("notes").await;
    peer.follow(&mut doc, 2).await;
    assert_eq!(doc.content, ["before", "while draining"]);
    assert_eq!(doc.opened.epoch, peers[0].1.opened.epoch);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_take_the_goodbye_does_not_hold_up_the_shutdown() {
    let (server, _) = server();
    let mut peer = Peer::connect_with(&server, 1, 64);
    peer.hello().await;
    let begun = tokio::time::Instant::now();
    server.shutdown(Duration::ZERO).await;
    assert!(begun.elapsed() < Duration::from_secs(20));
    drop(peer);
}

/// Dropping what serves a connection is as good as a broken one.
#[tokio::test(start_paused = true)]
async fn a_dropped_connection_leaves_its_documents() {
    let (server, _) = server();
    let mut events = server.events();
    let (ours, theirs) = pair(CAPACITY);
    let task = tokio::spawn(server.serve(theirs, PeerInfo::default()));
    let mut peer = Peer::over(ours, 1);
    peer.hello().await;
    peer.open("notes").await;
    task.abort();
    event(&mut events, |event| {
        matches!(event, ServerEvent::DocumentClosed { .. }).then_some(())
    })
    .await;
    let reason = event(&mut events, |event| match event {
        ServerEvent::SessionClosed { reason, .. } => Some(reason),
        _ => None,
    })
    .await;
    assert_eq!(reason, CloseReason::Dropped);
}

/// Scenario 72, the server's part.
#[tokio::test(start_paused = true)]
async fn every_event_is_told_once_with_its_data() {
    let registry = Arc::new(FaultyRegistry::new(registry()));
    let server = builder(Arc::clone(&registry))
        .engines(InProcess::default().relay(EngineId::new("paper").unwrap()))
        .build()
        .unwrap();
    let mut events = server.events();
    let mut ada = Peer::welcomed(&server, 1).await;
    let doc = ada.open("notes").await;
    let doc = ada.open_at("notes", doc.cursor).await;
    ada.push_acked(&doc, 1, "a").await;
    ada.push(&doc, 1, &["other bytes"]).await;
    assert!(matches!(ada.next().await, Message::Refuse(_)));
    registry.fail_reads(1);
    let open = ada.open_message("notes");
    ada.send(&Message::Open(open)).await;
    assert_eq!(ada.error().await.code, ErrorCode::StorageUnavailable);
    ada.send(&Message::Extension(Extension {
        kind: 200,
        channel: None,
        bytes: Bytes::new(),
    }))
    .await;
    ada.send_frame(Bytes::new()).await.unwrap();
    ada.ended().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    Peer::connect(&server, 2);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut told = Vec::new();
    while let Some(event) = events.try_next() {
        let event = format!("{event:?}");
        let name = event.split([' ', '{']).next().unwrap_or_default();
        told.push(name.to_owned());
    }
    let expected = [
        "SessionOpened",
        "RoomLoaded",
        "DocumentOpened",
        "Committed",
        "Refused",
        "RegistryFailed",
        "DocumentClosed",
        "MessageIgnored",
        "ProtocolError",
        "SessionClosed",
        "RoomUnloaded",
        "ConnectionFailed",
    ];
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_is_dropped_takes_no_more_connections_and_ends_none() {
    let (server, _) = server();
    let network = MemoryNetwork::new();
    let listener = server.listen(network.acceptor());
    let mut peer = Peer::over_any(network.dialer().dial().await.unwrap(), 1);
    peer.hello().await;
    drop(listener);
    let doc = peer.open("notes").await;
    peer.push_acked(&doc, 1, "still served").await;
    assert!(network.dialer().dial().await.is_err());
}
