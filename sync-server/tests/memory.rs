//! What a large document costs a server in memory while many are sent it. A binary of its own: everything that its
//! process allocates is counted.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "scenarios are plain async functions"
)]

mod common;
#[path = "embedded/directory.rs"]
mod directory;
mod registries;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Peer, document};
use directory::Directory;
use futures_util::future::join_all;
use peak_alloc::PeakAlloc;
use sync_core::ids::EngineId;
use sync_core::limits::SNAPSHOT_PIECE_BYTES;
use sync_core::wire::{Compression, Continuation, Message, decode_frame};
use sync_server::registry::{
    Call, ChangeId, EmbeddedRegistry, Epoch, FaultyRegistry, NewChange, NewDocument, OriginId, Seq,
    ServerRegistry, Snapshot, User,
};
use sync_server::{Anonymous, Server, ServerEvent};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const STATE_BYTES: usize = 20_000_000;
const N_JOINERS: usize = 50;
/// What may be on its way to one of them: in its connection, and in the frame that comes next.
const SESSION_BYTES: usize = 256 * 1024;

/// The last "must show" of durability: one read and one encoding for all, and at most twice the snapshot.
#[tokio::test]
async fn fifty_joiners_of_a_large_document_cost_one_read_one_encoding_and_twice_its_size() {
    let directory = Directory::new();
    let state = text(STATE_BYTES);
    let registry = EmbeddedRegistry::open(directory.path()).unwrap();
    fill(&registry, state.clone()).await;
    registry.close().await.unwrap();
    let registry = EmbeddedRegistry::open(directory.path()).unwrap();
    let registry = Arc::new(FaultyRegistry::new(registry));
    let server = Server::builder(Arc::clone(&registry), Anonymous::read_write())
        .build()
        .unwrap();
    let mut events = server.events();
    let mut joiners = Vec::new();
    for n in 0..N_JOINERS {
        let mut peer = Peer::connect_with(&server, n.try_into().unwrap(), 64 * 1024);
        if n % 2 == 1 {
            peer.compression = vec![Compression::Gzip];
        }
        peer.hello().await;
        joiners.push(peer);
    }
    let baseline = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    // Nobody is done before everybody is there.
    join_all(joiners.iter_mut().map(|peer| open(peer, &state))).await;
    let reading = joiners.iter_mut().zip(0..);
    join_all(reading.map(|(peer, n)| read(peer, n, &state))).await;
    let growth = MEMORY.peak_usage() - baseline;
    assert!(
        growth <= 2 * STATE_BYTES + N_JOINERS * SESSION_BYTES,
        "{growth} bytes"
    );
    let left = MEMORY.current_usage().saturating_sub(baseline);
    assert!(left < 1_000_000, "{left} bytes are kept");
    let calls = registry.calls();
    let reads = calls
        .iter()
        .filter(|call| matches!(call, Call::Snapshot(_)));
    assert_eq!(reads.count(), 1);
    let mut encoded = 0;
    while let Some(event) = events.try_next() {
        encoded += usize::from(matches!(event, ServerEvent::SnapshotRead { .. }));
    }
    assert_eq!(encoded, 1);
    server.shutdown(Duration::ZERO).await;
}

async fn open(peer: &mut Peer, state: &Bytes) {
    let open = peer.open_message("large");
    peer.send(&Message::Open(open)).await;
    let answer = peer.next().await;
    let Message::Opened(opened) = answer else {
        panic!("expected Opened, got {answer:?}");
    };
    let total_bytes = state.len().try_into().unwrap();
    assert_eq!(opened.next, Continuation::Snapshot { total_bytes });
}

/// Reads the document to its end, piece by piece. One of each kind looks at what it reads.
async fn read(peer: &mut Peer, n: usize, state: &Bytes) {
    let mut read = 0;
    for _ in 0..state.len().div_ceil(SNAPSHOT_PIECE_BYTES) {
        let frame = peer.next_frame().await.unwrap();
        if n >= 2 {
            continue;
        }
        let Message::Snapshot(piece) = decode_frame(frame, 1 << 20).unwrap() else {
            panic!("expected Snapshot");
        };
        assert_eq!(piece.bytes, state[read..read + piece.bytes.len()]);
        read += piece.bytes.len();
    }
    assert!(n >= 2 || read == state.len());
}

async fn fill(registry: &EmbeddedRegistry, state: Bytes) {
    let (large, epoch) = (document("large"), Epoch(7));
    let new = NewDocument::new(large.clone(), EngineId::OPAQUE, epoch);
    registry.create(new).await.unwrap();
    let id = ChangeId {
        origin: OriginId(99),
        number: 1,
    };
    let change = NewChange::new(id, User::new("ada"), "change".into());
    let appended = registry.append(&large, epoch, None, vec![change]).await;
    appended.unwrap();
    let digest = registry.meta(&large).await.unwrap().digest;
    let snapshot = Snapshot::new(Seq(1), digest, state);
    let compacted = registry.compact(&large, epoch, snapshot, Seq(1)).await;
    compacted.unwrap();
}

/// Numbers in words of a few letters: shrinks to about half.
fn text(bytes: usize) -> Bytes {
    let mut state = 1_u64;
    let mut text = Vec::with_capacity(bytes + 20);
    while text.len() < bytes {
        // Knuth, "The Art of Computer Programming", volume 2, section 3.3.4: the generator MMIX.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.extend_from_slice(format!("{} ", state >> 40).as_bytes());
    }
    text.truncate(bytes);
    text.into()
}
