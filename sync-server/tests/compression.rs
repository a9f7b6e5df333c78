//! What compression saves, and that clients with and without it get along.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "scenarios are plain async functions"
)]

mod e2e;
mod registries;

use e2e::tap::{Seen, Tap, Way};
use e2e::{Over, World, content, push, text, until, within};
use sync_client::transport::memory::Traffic;
use sync_client::{Client, DocumentHandle, Yrs};
use sync_core::limits::COMPRESS_BYTES_MIN;

/// Some English.
const TEXT: &str = include_str!("../../docs/protocol.md");

/// Scenario 74: a backlog typed offline word by word, and one paste, to the server and on to another client.
#[tokio::test(start_paused = true)]
async fn batches_of_text_travel_in_at_most_two_fifths_of_the_bytes() {
    type Typing = fn(&DocumentHandle<Yrs>);
    let word_by_word: Typing = |document| {
        for word in TEXT.split_inclusive(' ').take(1_000) {
            push(document, word);
        }
    };
    let one_paste: Typing = |document| push(document, TEXT);
    for (what, typing) in [("word by word", word_by_word), ("one paste", one_paste)] {
        let plain = traffic_of(typing, false).await;
        let gzip = traffic_of(typing, true).await;
        for (plain, gzip) in [
            (plain.up.bytes, gzip.up.bytes),
            (plain.down.bytes, gzip.down.bytes),
        ] {
            assert!(plain > 20_000, "{what}: {plain}");
            assert!(gzip * 5 <= plain * 2, "{what}: {gzip} of {plain}");
        }
    }
}

/// Scenario 74.
#[tokio::test(start_paused = true)]
async fn tiny_frames_travel_plain_and_large_ones_do_not() {
    let world = World::memory().await;
    let ((ann, at_ann), (bob, at_bob)) = (world.tapped(), world.tapped());
    let (ann, bob) = (ann.start().unwrap(), bob.start().unwrap());
    let (a, b) = (text(&ann, "notes").await, text(&bob, "notes").await);
    within("bob is there", b.caught_up()).await.unwrap();
    for _ in 0..10 {
        push(&a, "x");
        within("saved", a.saved()).await.unwrap();
    }
    push(&a, TEXT);
    within("saved", a.saved()).await.unwrap();
    until(&b, "bob has it", |b, _| content(b) == content(&a)).await;

    for (tap, way, large) in [(&at_ann, Way::Up, "Push"), (&at_bob, Way::Down, "Changes")] {
        let (compressed, plain): (Vec<Seen>, Vec<Seen>) = tap
            .all()
            .into_iter()
            .filter(|seen| seen.way == way)
            .partition(|seen| seen.compressed);
        let names: Vec<&str> = compressed.iter().map(|seen| seen.message.name()).collect();
        assert_eq!(names, [large]);
        assert!(plain.len() > 10);
        assert!(plain.iter().all(|seen| seen.bytes < COMPRESS_BYTES_MIN));
    }
}

/// Scenario 74.
#[tokio::test(start_paused = true)]
async fn clients_with_and_without_compression_share_a_document() {
    let world = World::memory().await;
    let (gzip, at_gzip) = client(&world, true);
    let (plain, at_plain) = client(&world, false);
    assert_share(&gzip, &plain).await;
    assert!(is_compressed(&at_gzip, Way::Up) && is_compressed(&at_gzip, Way::Down));
    assert!(!is_compressed(&at_plain, Way::Up) && !is_compressed(&at_plain, Way::Down));
}

/// Scenario 74.
#[tokio::test(start_paused = true)]
async fn a_server_may_do_without_compression() {
    let world = World::with(Over::Memory, |server| server.gzip(false)).await;
    let (ann, at_ann) = client(&world, true);
    let (bob, at_bob) = client(&world, false);
    assert_share(&ann, &bob).await;
    for tap in [at_ann, at_bob] {
        assert!(!is_compressed(&tap, Way::Up) && !is_compressed(&tap, Way::Down));
    }
}

/// What goes over the network when somebody comes online with a backlog, and somebody else reads it.
async fn traffic_of(typing: fn(&DocumentHandle<Yrs>), compression: bool) -> Traffic {
    let world = World::memory().await;
    let client = || world.builder().compression(compression).start().unwrap();
    let (ann, bob) = (client(), client());
    let (a, b) = (text(&ann, "notes").await, text(&bob, "notes").await);
    within("ann is there", a.caught_up()).await.unwrap();
    within("bob is there", b.caught_up()).await.unwrap();
    ann.disconnect();
    typing(&a);
    ann.connect();
    within("saved", a.saved()).await.unwrap();
    until(&b, "bob has it", |b, _| content(b) == content(&a)).await;
    world.network.traffic()
}

fn client(world: &World, compression: bool) -> (Client, Tap) {
    let (builder, tap) = world.tapped();
    (builder.compression(compression).start().unwrap(), tap)
}

async fn assert_share(ann: &Client, bob: &Client) {
    let (a, b) = (text(ann, "notes").await, text(bob, "notes").await);
    within("ann is there", a.caught_up()).await.unwrap();
    within("bob is there", b.caught_up()).await.unwrap();
    let len = 2 * TEXT.len();
    for document in [&a, &b] {
        push(document, TEXT);
    }
    for document in [&a, &b] {
        until(document, "it has all", |document, state| {
            content(document).len() == len && state.is_saved()
        })
        .await;
    }
    assert_eq!(content(&a), content(&b));
}

fn is_compressed(tap: &Tap, way: Way) -> bool {
    tap.all()
        .iter()
        .any(|seen| seen.way == way && seen.compressed)
}
