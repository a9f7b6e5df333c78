//! Frames over TCP and over Unix sockets, both sides, over real sockets.
#![cfg(all(feature = "tcp", feature = "unix", unix))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says that it failed by panicking"
)]

mod e2e;
mod embedded;
mod registries;

use std::fs;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{content, push, text, until, within};
use embedded::Directory;
use sync_client::Client;
use sync_client::transport::{AddressError, DialError, Dialer, TcpDialer, UnixDialer};
use sync_core::transport::suite::Suite;
use sync_server::transport::{
    Acceptor, TcpAcceptor, Transport, TransportError, UnixAcceptor, WebSocketAcceptor,
};
use sync_server::{Anonymous, MemoryRegistry, Server};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const PREFACE: &[u8] = b"\x89sync\r\n\x1a";

async fn tcp() -> (TcpAcceptor, SocketAddr) {
    let acceptor = TcpAcceptor::bind("127.0.0.1:0").await.unwrap();
    let address = acceptor.local_addr().unwrap();
    (acceptor, address)
}

fn dialer(address: SocketAddr) -> TcpDialer {
    TcpDialer::new(&format!("tcp://{address}")).unwrap()
}

fn socket_in(directory: &Directory) -> PathBuf {
    directory.path().join("sync.sock")
}

async fn connect(
    acceptor: &mut impl Acceptor,
    dialer: &impl Dialer,
) -> (Box<dyn Transport>, Box<dyn Transport>) {
    let (dialed, accepted) = tokio::join!(dialer.dial(), acceptor.accept());
    (dialed.unwrap(), accepted.unwrap().unwrap().0)
}

/// Scenario 75.
#[tokio::test]
async fn tcp_passes_the_transport_suite() {
    let connect = || async {
        let (mut acceptor, address) = tcp().await;
        connect(&mut acceptor, &dialer(address)).await
    };
    Suite::new(connect).without_close_codes().run().await;
}

/// Scenario 75.
#[tokio::test]
async fn unix_sockets_pass_the_transport_suite() {
    let directory = Directory::new();
    let path = socket_in(&directory);
    let connect = || async {
        let mut acceptor = UnixAcceptor::bind(&path).unwrap();
        connect(&mut acceptor, &UnixDialer::at(&path)).await
    };
    Suite::new(connect).without_close_codes().run().await;
}

fn server() -> Server {
    Server::builder(MemoryRegistry::new(), Anonymous::read_write())
        .build()
        .unwrap()
}

/// Has a change go from one client to another.
async fn two_clients_sync(address: &str) {
    let [ada, bob] = [(); 2].map(|()| Client::builder(address).start().unwrap());
    let (hers, his) = (text(&ada, "notes").await, text(&bob, "notes").await);
    push(&hers, "hello");
    within("saved", hers.saved()).await.unwrap();
    until(&his, "the text arrives", |his, _| content(his) == "hello").await;
}

#[tokio::test]
async fn clients_sync_over_tcp_addresses() {
    let server = server();
    let listener = server.listen_tcp("127.0.0.1:0").await.unwrap();
    two_clients_sync(&format!("tcp://{}", listener.local_addr().unwrap())).await;
}

#[tokio::test]
async fn clients_sync_over_unix_addresses() {
    let directory = Directory::new();
    let path = socket_in(&directory);
    let server = server();
    let listener = server.listen_unix(&path).unwrap();
    two_clients_sync(&format!("unix://{}", path.display())).await;
    server.shutdown(Duration::ZERO).await;
    within("the listener ends", listener.wait()).await.unwrap();
    assert!(!path.exists(), "the socket is left behind");
}

/// What a TCP acceptor answers to these bytes, and what it reports.
async fn answer_to(bytes: &[u8]) -> (Vec<u8>, TransportError) {
    let (mut acceptor, address) = tcp().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let read_and_close = async {
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        drop(stream);
        answer
    };
    let (reported, answer) = tokio::join!(acceptor.accept(), read_and_close);
    let error = reported.unwrap().map(drop).unwrap_err();
    // Nothing of it stops the acceptor.
    connect(&mut acceptor, &dialer(address)).await;
    (answer, error)
}

/// Scenario 27.
#[tokio::test]
async fn a_peer_that_speaks_something_else_is_told_so_if_it_would_understand() {
    for (bytes, is_told) in [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice(), true),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", true),
        (b"\x00\x00\x00\x01a", false),
        (b"\x89PNG\r\n\x1a\n", false),
        (b"\x89sync\n\x1a\0", false),
    ] {
        let (answer, error) = answer_to(bytes).await;
        assert_eq!(answer.starts_with(b"HTTP/1.1 400 "), is_told, "{answer:?}");
        assert!(is_told || answer.is_empty(), "{answer:?}");
        assert!(
            matches!(error, TransportError::WrongProtocol(_)),
            "{error:?}"
        );
    }
}

/// Scenario 27.
#[tokio::test]
async fn a_server_that_speaks_something_else_is_refused_for_good() {
    for answer in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(),
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"220 mail",
        b"\x15\x03\x01\0\x02\x02\x46",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialer = dialer(listener.local_addr().unwrap());
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(answer).await.unwrap();
            stream
        };
        let (_stream, dialed) = tokio::join!(serve, dialer.dial());
        let dialed = dialed.map(drop);
        assert!(
            matches!(dialed, Err(DialError::Refused(_))),
            "{answer:?} gave {dialed:?}"
        );
    }
}

/// Scenario 27: our own dialer at our own port of another kind.
#[tokio::test]
async fn frames_without_websockets_are_refused_by_a_port_for_websockets() {
    let mut acceptor = WebSocketAcceptor::bind("127.0.0.1:0").await.unwrap();
    let dialer = dialer(acceptor.local_addr().unwrap());
    let (dialed, reported) = tokio::join!(dialer.dial(), acceptor.accept());
    assert!(matches!(dialed.map(drop), Err(DialError::Refused(_))));
    let reported = reported.unwrap().map(drop);
    assert!(matches!(reported, Err(TransportError::WrongProtocol(_))));
}

#[tokio::test]
async fn nobody_there_or_gone_at_once_may_be_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialer = dialer(listener.local_addr().unwrap());
    let (_, dialed) = tokio::join!(
        async { drop(listener.accept().await.unwrap()) },
        dialer.dial()
    );
    assert!(matches!(dialed.map(drop), Err(DialError::Unreachable(_))));
    drop(listener);
    let dialed = dialer.dial().await.map(drop);
    assert!(matches!(dialed, Err(DialError::Unreachable(_))));
    let nowhere = UnixDialer::at("/nowhere/sync.sock").dial().await.map(drop);
    assert!(matches!(nowhere, Err(DialError::Unreachable(_))));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_too_little_is_cut_off_after_the_handshake_time() {
    let (acceptor, address) = tcp().await;
    let mut acceptor = acceptor.handshake_timeout(Duration::from_secs(5));
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(&PREFACE[..7]).await.unwrap();
    let started = tokio::time::Instant::now();
    let reported = acceptor.accept().await.unwrap().map(drop);
    assert!(
        matches!(reported, Err(TransportError::Lost(Some(_)))),
        "{reported:?}"
    );
    assert_eq!(started.elapsed().as_secs(), 5);
}

#[tokio::test]
async fn a_length_over_the_limit_is_a_wrong_protocol_and_not_waited_for() {
    let (mut acceptor, address) = tcp().await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut stream, accepted) = tokio::join!(
        async {
            let mut stream = stream;
            stream.write_all(PREFACE).await.unwrap();
            stream.read_exact(&mut [0; PREFACE.len()]).await.unwrap();
            stream
        },
        acceptor.accept()
    );
    let (mut transport, _) = accepted.unwrap().unwrap();
    stream.write_all(&[0, 2, 0, 1]).await.unwrap();
    let received = poll_fn(|cx| transport.poll_receive(cx)).await;
    assert!(
        matches!(received, Some(Err(TransportError::WrongProtocol(_)))),
        "{received:?}"
    );
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn a_unix_socket_is_its_users_unless_others_are_let_in() {
    let directory = Directory::new();
    let path = socket_in(&directory);
    let acceptor = UnixAcceptor::bind(&path).unwrap();
    assert_eq!((mode(&path), acceptor.path()), (0o600, path.as_path()));
    drop(acceptor);
    let _acceptor = UnixAcceptor::bind_with_mode(&path, 0o660).unwrap();
    assert_eq!(mode(&path), 0o660);
}

#[tokio::test]
async fn a_socket_left_behind_is_replaced_and_nothing_else() {
    let directory = Directory::new();
    let path = socket_in(&directory);
    // As a server that was killed leaves it.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let mut first = UnixAcceptor::bind(&path).unwrap();
    connect(&mut first, &UnixDialer::at(&path)).await;

    let in_use = |bound: io::Result<UnixAcceptor>| bound.unwrap_err().kind();
    assert_eq!(in_use(UnixAcceptor::bind(&path)), io::ErrorKind::AddrInUse);
    let file = directory.path().join("file");
    fs::write(&file, "kept").unwrap();
    assert_eq!(in_use(UnixAcceptor::bind(&file)), io::ErrorKind::AddrInUse);
    assert_eq!(fs::read_to_string(&file).unwrap(), "kept");

    // A socket that took its place is not the first one's to remove.
    fs::remove_file(&path).unwrap();
    let mut second = UnixAcceptor::bind(&path).unwrap();
    drop(first);
    connect(&mut second, &UnixDialer::at(&path)).await;
}

#[test]
fn addresses_that_cannot_be_dialed_are_told_apart() {
    for address in [
        "",
        "localhost:1",
        "tcp://",
        "tcp://host",
        "tcp://:1",
        "tcp://host:port",
        "tcp://host:65536",
        "tcp://[::1",
        "tcp://[::1]1",
        "tcp://host:1/path",
        "tcp://user@host:1",
    ] {
        let dialer = TcpDialer::new(address);
        assert!(
            matches!(dialer, Err(AddressError::Invalid { .. })),
            "{address:?} gave {dialer:?}"
        );
    }
    for address in ["tcp://host:1", "tcp://[::1]:1/", "tcp://127.0.0.1:1"] {
        assert!(TcpDialer::new(address).is_ok(), "{address}");
    }
    for address in ["", "/run/sync.sock", "unix://", "unix://run/sync.sock"] {
        let dialer = UnixDialer::new(address);
        assert!(
            matches!(dialer, Err(AddressError::Invalid { .. })),
            "{address:?} gave {dialer:?}"
        );
    }
    for other in ["http://host:1", "ws://host:1"] {
        let scheme = other.split_once(':').unwrap().0.to_owned();
        let unsupported = AddressError::Unsupported { scheme };
        assert_eq!(TcpDialer::new(other).unwrap_err(), unsupported);
        assert_eq!(UnixDialer::new(other).unwrap_err(), unsupported);
    }
}
