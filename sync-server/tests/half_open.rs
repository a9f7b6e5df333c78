//! Peers that connect and do not go on: they cost little, keep nobody out, and are gone when their time is over. Over real
//! sockets.
#![cfg(all(feature = "websocket", feature = "workers", unix))]
#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::net::SocketAddr;
use std::time::Duration;

use peak_alloc::PeakAlloc;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sync_client::{Client, LwwMap, Typed};
use sync_server::{Anonymous, Limits, MemoryRegistry, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Bytes of memory that one of them may take, on both of its ends.
const BYTES_MAX: usize = 8 * 1024;

/// How many there are, unless `HALF_OPEN` says otherwise.
const N: usize = 2_000;

/// As many files as the system lets this process have, and sockets that fit into that.
fn n_sockets() -> usize {
    let wanted = std::env::var("HALF_OPEN").map_or(N, |n| n.parse().unwrap());
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    let files = limit.maximum.unwrap_or(u64::MAX) / 2 - 200;
    wanted.min(usize::try_from(files).unwrap_or(usize::MAX))
}

async fn server(handshake: Duration) -> (Server, SocketAddr, sync_server::Listener) {
    let mut limits = Limits::default();
    limits.handshake_timeout = handshake;
    let server = Server::builder(MemoryRegistry::new(), Anonymous::read_write())
        .limits(limits)
        .build()
        .unwrap();
    let listener = server.listen_websocket("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (server, address, listener)
}

async fn is_served(address: SocketAddr) {
    let client = Client::builder(format!("ws://{address}")).start().unwrap();
    let grid = client
        .open("grid", Typed::<LwwMap<String, u32>>::new())
        .await
        .unwrap();
    grid.edit(|map| map.insert("a".to_owned(), 1))
        .unwrap()
        .unwrap();
    grid.saved().await.unwrap();
}

/// Reads until the other side has closed.
async fn closed(mut socket: TcpStream) {
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest).await;
}

/// Scenario 47.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_silent_sockets_cost_little_keep_nobody_out_and_are_ended() {
    let n = n_sockets();
    let (_server, address, _listener) = server(Duration::from_secs(3)).await;
    is_served(address).await;
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let mut silent = Vec::with_capacity(n);
    for _ in 0..n {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    is_served(address).await;
    let peak = ALLOCATED.peak_usage().saturating_sub(before);
    println!("{n} silent sockets: {} bytes each", peak / n);
    assert!(peak / n < BYTES_MAX, "{peak} bytes for {n} sockets");
    for socket in silent {
        closed(socket).await;
    }
    is_served(address).await;
}

/// Slow loris: a request that comes byte by byte, and then a hello that never comes.
#[tokio::test(start_paused = true)]
async fn a_handshake_that_trickles_is_ended_when_its_time_is_over() {
    let (_server, address, _listener) = server(Duration::from_secs(5)).await;
    let mut slow = TcpStream::connect(address).await.unwrap();
    let start = Instant::now();
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nCookie: ".iter();
    for byte in head.chain(std::iter::repeat(&b'c')) {
        if slow.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(start.elapsed().as_secs(), 5);

    let mut silent = TcpStream::connect(address).await.unwrap();
    let start = Instant::now();
    let request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    silent.write_all(request.as_bytes()).await.unwrap();
    closed(silent).await;
    // Its own end of the WebSocket is given some time to close.
    assert!((5..=10).contains(&start.elapsed().as_secs()));
}
