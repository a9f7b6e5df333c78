//! Large documents and long backlogs, through the public API, with little room in each connection.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "scenarios are plain async functions"
)]

mod e2e;
mod registries;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::slow::Slow;
use e2e::tap::{Tap, Way};
use e2e::{Map, Over, World, get, map, set, until, within};
use sync_client::{Client, DocumentHandle, Subscription, SyncPhase};
use sync_core::wire::{Message, PartialSnapshot};
use sync_server::ServerEvent;
use sync_server::registry::{Call, DocumentId, Seq, ServerRegistry};

const LARGE: &str = "large";
const SMALL: &str = "small";
const VALUE_BYTES: usize = 1_000_000;

fn value(n: u64) -> String {
    format!("{n:04}").repeat(VALUE_BYTES / 4)
}

async fn fill(document: &DocumentHandle<Map>, keys: std::ops::Range<u64>) {
    for key in keys {
        set(document, &key.to_string(), &value(key));
        within("saved", document.saved()).await.unwrap();
    }
}

async fn is_folded(world: &World, changes: u64) {
    let large = DocumentId::new(LARGE).unwrap();
    while world.registry.meta(&large).await.unwrap().snapshot_seq < Seq(changes) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A world in which a document of so many megabytes has been folded into a snapshot.
async fn world(megabytes: u64) -> World {
    let world = World::with(Over::Memory, |builder| {
        builder
            .fold_after(megabytes, usize::MAX)
            .keep_log(0, Duration::ZERO)
            .gzip(false)
    })
    .await;
    let author = world.client();
    fill(&map(&author, LARGE).await, 0..megabytes).await;
    is_folded(&world, megabytes).await;
    within("shutdown", author.shutdown(Duration::from_secs(5))).await;
    world
}

/// Bytes received, and bytes in all.
type Seen = Arc<Mutex<Vec<(u64, u64)>>>;

/// How far it has come, each time that it says so.
fn watch(document: &DocumentHandle<Map>) -> (Subscription, Seen) {
    let seen = Seen::default();
    let (state, into) = (document.sync_state(), Arc::clone(&seen));
    let look = state.clone();
    let watching = state.notify(move || {
        if let SyncPhase::CatchingUp { received, total } = look.get().phase {
            into.lock().unwrap().push((received, total));
        }
    });
    (watching, seen)
}

async fn received(document: &DocumentHandle<Map>, bytes: u64) {
    until(document, "some of it", |_, state| {
        matches!(state.phase, SyncPhase::CatchingUp { received, .. } if received >= bytes)
    })
    .await;
}

/// Each `Open` of the large document: what the client said that it holds.
fn claims(tap: &Tap) -> Vec<Option<PartialSnapshot>> {
    tap.pick(Way::Up, |message| match message {
        Message::Open(open) if open.document.as_str() == LARGE => Some(open.partial),
        _ => None,
    })
}

fn snapshot_bytes(tap: &Tap) -> u64 {
    let pieces = tap.pick(Way::Down, |message| match message {
        Message::Snapshot(piece) => Some(piece.bytes.len().try_into().unwrap_or(0)),
        _ => None,
    });
    pieces.iter().sum::<u64>()
}

/// Scenario 35: 20 MB down and 5 MB up over connections that hold 256 KiB, with another document live meanwhile, cut twice
/// in the middle, and once more by a restart of the server.
#[tokio::test(start_paused = true)]
async fn a_large_document_and_a_long_backlog_go_on_where_each_cut_left_them() {
    let mut world = world(20).await;
    let other = world.client();
    let theirs = map(&other, SMALL).await;
    let tap = Tap::default();
    let slow = Slow {
        dialer: world.network.dialer(),
        pause: Duration::from_millis(50),
    };
    let late = Client::with_dialer(tap.on(slow)).start().unwrap();
    let small = map(&late, SMALL).await;
    within("caught up", small.caught_up()).await.unwrap();
    late.disconnect();
    let large = map(&late, LARGE).await;
    for key in 100..105 {
        set(&large, &key.to_string(), &value(key));
    }
    let (_watching, seen) = watch(&large);
    late.connect();
    for (n, megabytes) in [4, 9, 14].into_iter().enumerate() {
        received(&large, megabytes * 1_000_000).await;
        set(&theirs, "n", &n.to_string());
        let live = n.to_string();
        until(&small, "the other document is live", |small, _| {
            get(small, "n").as_ref() == Some(&live)
        })
        .await;
        assert!(!large.sync_state().get().is_caught_up());
        if n < 2 {
            world.network.cut();
        } else {
            world.restart().await;
        }
    }
    within("caught up", large.caught_up()).await.unwrap();
    within("saved", large.saved()).await.unwrap();
    for key in (0..20).chain(100..105) {
        assert!(get(&large, &key.to_string()) == Some(value(key)), "{key}");
    }
    let large = DocumentId::new(LARGE).unwrap();
    assert_eq!(world.registry.meta(&large).await.unwrap().head, Seq(25));

    let claims = claims(&tap);
    assert_eq!(claims[0], None);
    for (claim, megabytes) in claims[1..].iter().zip([4, 9, 14]) {
        assert!(claim.unwrap().offset >= megabytes * 1_000_000, "{claims:?}");
    }
    // What was on its way at each cut has come twice, and nothing else.
    let total = seen.lock().unwrap()[1].1;
    let sent = snapshot_bytes(&tap);
    assert!(sent < total + 3 * 1_000_000, "{sent} of {total}");
    // The bar never went back.
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|(received, all)| received <= all));
    let started = seen.iter().filter(|(received, _)| *received > 0);
    assert!(started.clone().is_sorted_by_key(|(received, _)| *received));
    assert!(started.is_sorted_by(|a, b| {
        u128::from(a.0) * u128::from(b.1) <= u128::from(b.0) * u128::from(a.1)
    }));
}

/// Scenario 82, in small: eight megabytes, folded again and again while a slow client is sent them.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_of_a_hot_document_arrives_with_one_snapshot_or_two() {
    let world = world(8).await;
    let tap = Tap::default();
    let slow = Slow {
        dialer: world.network.dialer(),
        pause: Duration::from_millis(50),
    };
    let slow = Client::with_dialer(tap.on(slow)).start().unwrap();
    let mut events = world.server.events();
    let author = world.client();
    let hot = map(&author, LARGE).await;
    within("caught up", hot.caught_up()).await.unwrap();
    let read = map(&slow, LARGE).await;
    let mut n_changes = 0;
    while !read.sync_state().get().is_caught_up() {
        set(&hot, &format!("hot {n_changes}"), &"hot ".repeat(10_000));
        n_changes += 1;
        assert!(n_changes < 1_000, "it does not arrive");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut n_folds = 0;
    while let Some(event) = events.try_next() {
        n_folds += usize::from(matches!(event, ServerEvent::Folded { .. }));
    }
    assert!(n_folds >= 4, "{n_folds} folds in {n_changes} changes");
    let begun = tap.pick(Way::Down, |message| match message {
        Message::Snapshot(piece) if piece.offset == 0 => Some(piece.seq),
        _ => None,
    });
    assert!((1..=2).contains(&begun.len()), "{begun:?}");
    assert_eq!(claims(&tap), [None], "never opened again");
}

/// Real clients, through everything: one read for all of them, and each has the document.
#[tokio::test(start_paused = true)]
async fn clients_that_join_at_once_share_one_read_of_the_snapshot() {
    let world = world(4).await;
    let mut events = world.server.events();
    let before = reads(&world);
    let clients: Vec<_> = (0..5).map(|_| world.client()).collect();
    let mut documents = Vec::new();
    for client in &clients {
        client.disconnect();
        documents.push(map(client, LARGE).await);
    }
    clients.iter().for_each(Client::connect);
    for document in &documents {
        within("caught up", document.caught_up()).await.unwrap();
        assert!(get(document, "3") == Some(value(3)));
    }
    assert_eq!(reads(&world) - before, 1);
    let mut told = 0;
    while let Some(event) = events.try_next() {
        told += usize::from(matches!(event, ServerEvent::SnapshotRead { .. }));
    }
    assert_eq!(told, 1);
}

fn reads(world: &World) -> usize {
    let calls = world.faults.calls();
    let reads = calls
        .iter()
        .filter(|call| matches!(call, Call::Snapshot(_)));
    reads.count()
}
