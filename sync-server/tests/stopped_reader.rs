//! A reader that stops reading, over real sockets with their own buffers: what it costs, and that nobody else notices.
#![cfg(feature = "websocket")]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
mod registries;

use common::*;
use peak_alloc::PeakAlloc;
use registries::registry;
use sync_client::transport::{Dialer, WebSocketDialer};

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

const CHANGES: u64 = 600;
/// Few enough that what is kept of a change does not keep the frame that it came in.
const CHANGE_BYTES: usize = 60_000;
/// Memory beyond what is logged: the ring, what is read for the reader, buffers of all that are connected.
const EXTRA_BYTES: usize = 12 * 1024 * 1024;

/// Scenario 48.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_is_not_read_costs_a_bounded_amount_and_its_reader_catches_up() {
    let server = builder(registry()).build().unwrap();
    let listener = server.listen_websocket("127.0.0.1:0").await.unwrap();
    let address = format!("ws://{}", listener.local_addr().unwrap());
    let connect = async |origin| {
        let transport = WebSocketDialer::new(&address)
            .unwrap()
            .dial()
            .await
            .unwrap();
        let mut peer = Peer::over_any(transport, origin);
        peer.hello().await;
        peer
    };
    let (mut slow, mut ada, mut bob) = (connect(1).await, connect(2).await, connect(3).await);
    let (mut followed, ours, mut theirs) = (
        slow.open("notes").await,
        ada.open("notes").await,
        bob.open("notes").await,
    );
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let change = "x".repeat(CHANGE_BYTES);
    for number in 1..=CHANGES {
        ada.push_acked(&ours, number, &change).await;
        bob.follow(&mut theirs, number).await;
        theirs.content.clear();
    }
    let logged = usize::try_from(CHANGES).unwrap() * CHANGE_BYTES;
    let peak = ALLOCATED.peak_usage().saturating_sub(before);
    let extra = peak.saturating_sub(logged);
    println!("{logged} bytes logged, {extra} bytes of memory beyond them");
    assert!(
        extra < EXTRA_BYTES,
        "{extra} bytes beyond the {logged} logged"
    );

    for number in 1..=CHANGES {
        slow.follow(&mut followed, number).await;
        followed.content.clear();
    }
    assert_eq!(followed.cursor, theirs.cursor);
}
