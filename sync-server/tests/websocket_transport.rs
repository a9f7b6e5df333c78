//! The WebSocket transport, both sides of it, over real sockets.

#![allow(
    clippy::unwrap_used,
    reason = "a test says that it failed by panicking"
)]

use std::future::poll_fn;
use std::net::SocketAddr;
use std::time::Duration;

use sync_client::transport::{Dialer, WebSocketDialer};
use sync_core::transport::suite::Suite;
use sync_server::transport::{Acceptor, Transport, TransportError, WebSocketAcceptor};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

async fn acceptor() -> (WebSocketAcceptor, SocketAddr) {
    let acceptor = WebSocketAcceptor::bind("127.0.0.1:0").await.unwrap();
    let address = acceptor.local_addr().unwrap();
    (acceptor, address)
}

fn dialer(address: SocketAddr) -> WebSocketDialer {
    WebSocketDialer::new(&format!("ws://{address}/sync")).unwrap()
}

/// Accepts until a connection comes of it.
async fn accept(acceptor: &mut WebSocketAcceptor) -> Box<dyn Transport> {
    loop {
        if let Ok((transport, _)) = acceptor.accept().await.unwrap() {
            return transport;
        }
    }
}

async fn connect(
    acceptor: &mut WebSocketAcceptor,
    address: SocketAddr,
) -> (Box<dyn Transport>, Box<dyn Transport>) {
    let dialer = dialer(address);
    let (dialed, accepted) = tokio::join!(dialer.dial(), accept(acceptor));
    (dialed.unwrap(), accepted)
}

async fn receive(transport: &mut dyn Transport) -> Option<Result<bytes::Bytes, TransportError>> {
    poll_fn(|cx| transport.poll_receive(cx)).await
}

/// Sends these bytes to the port, and returns what comes back, and what the acceptor reports.
async fn answer_to(bytes: &[u8]) -> (String, TransportError) {
    let (mut acceptor, address) = acceptor().await;
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
    connect(&mut acceptor, address).await;
    (String::from_utf8(answer).unwrap(), error)
}

/// Scenario 75.
#[tokio::test]
async fn the_websocket_transport_passes_the_transport_suite() {
    let connect = || async {
        let (mut acceptor, address) = acceptor().await;
        connect(&mut acceptor, address).await
    };
    Suite::new(connect).run().await;
}

#[tokio::test]
async fn the_peer_is_known_by_its_address() {
    let (mut acceptor, address) = acceptor().await;
    let dialer = dialer(address);
    let (dialed, accepted) = tokio::join!(dialer.dial(), acceptor.accept());
    let (_, peer) = accepted.unwrap().unwrap();
    assert!(dialed.is_ok() && peer.address.unwrap().ip().is_loopback());
}

#[tokio::test]
async fn a_peer_that_says_nothing_keeps_nobody_waiting() {
    let (mut acceptor, address) = acceptor().await;
    let _silent = TcpStream::connect(address).await.unwrap();
    for _ in 0..3 {
        connect(&mut acceptor, address).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_cut_off_after_the_handshake_time() {
    let (acceptor, address) = acceptor().await;
    let mut acceptor = acceptor.handshake_timeout(Duration::from_secs(5));
    let mut silent = TcpStream::connect(address).await.unwrap();
    let started = tokio::time::Instant::now();
    let reported = acceptor.accept().await.unwrap().map(drop);
    assert!(
        matches!(reported, Err(TransportError::Lost(Some(_)))),
        "{reported:?}"
    );
    assert_eq!(started.elapsed().as_secs(), 5);
    assert_eq!(silent.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn with_all_handshakes_taken_who_comes_has_the_place_of_the_oldest() {
    let (acceptor, address) = acceptor().await;
    let mut acceptor = acceptor.handshakes_max(2);
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let started = tokio::time::Instant::now();
    let dialer = dialer(address);
    let dialing = tokio::spawn(async move { dialer.dial().await.map(drop) });
    let mut n_ended = 0;
    while acceptor.accept().await.unwrap().is_err() {
        n_ended += 1;
    }
    assert!(dialing.await.unwrap().is_ok());
    // Long before the time for handshakes is over.
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(n_ended >= 3, "{n_ended}");
    assert_eq!(silent[0].read(&mut [0; 8]).await.unwrap(), 0);
}

/// Scenario 27.
#[tokio::test]
async fn http_that_asks_for_no_websocket_is_told_what_this_port_is() {
    for request in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody",
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        &format!("GET / HTTP/1.1\r\nCookie: {}", "c".repeat(20_000)),
    ] {
        let (answer, error) = answer_to(request.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"),
            "{answer:?}"
        );
        assert!(
            answer.ends_with("\r\n\r\nThis port speaks the sync protocol over WebSocket.\n"),
            "{answer:?}"
        );
        assert!(
            matches!(error, TransportError::WrongProtocol(_)),
            "{error:?}"
        );
    }
}

/// Scenario 27.
#[tokio::test]
async fn a_peer_that_speaks_anything_else_is_cut_off_and_named() {
    for garbage in [b"\x00\x01\x02\x03".as_slice(), b"SSH-2.0-OpenSSH\r\n"] {
        let (answer, error) = answer_to(garbage).await;
        assert_eq!(answer, "");
        assert!(
            matches!(error, TransportError::WrongProtocol(_)),
            "{error:?}"
        );
    }
}

/// Scenario 27: who takes what is none of its own for final, and does not come again.
#[tokio::test]
async fn a_peer_that_speaks_tls_or_frames_without_websockets_is_told() {
    for opening in [b"\x16\x03\x01\x02\x00\x01".as_slice(), b"\x89sync\r\n\x1a"] {
        let (answer, error) = answer_to(opening).await;
        assert!(answer.starts_with("HTTP/1.1 426 "), "{answer:?}");
        assert!(
            matches!(error, TransportError::WrongProtocol(_)),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_frame_sent_together_with_the_request_is_not_lost() {
    let (mut acceptor, address) = acceptor().await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut bytes = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec();
    // A binary message of one byte, masked with zeros (RFC 6455 section 5.2).
    bytes.extend([0x82, 0x81, 0, 0, 0, 0, b'x']);
    stream.write_all(&bytes).await.unwrap();
    let mut transport = accept(&mut acceptor).await;
    assert_eq!(receive(&mut transport).await.unwrap().unwrap(), "x");
}

/// What an accepted connection makes of a message, and the close code that its sender gets.
async fn reaction_to(message: Message) -> (TransportError, u16) {
    let (mut acceptor, address) = acceptor().await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, mut transport) =
        tokio::join!(client_async("ws://a/", stream), accept(&mut acceptor));
    let (mut client, _) = client.unwrap();
    let (received, _) = tokio::join!(
        receive(&mut transport),
        futures_util::SinkExt::send(&mut client, message)
    );
    let error = received.unwrap().unwrap_err();
    loop {
        match futures_util::StreamExt::next(&mut client)
            .await
            .unwrap()
            .unwrap()
        {
            Message::Close(Some(frame)) => return (error, frame.code.into()),
            other => assert!(!other.is_binary(), "{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_text_message_is_a_protocol_error_and_its_sender_is_told() {
    let (error, code) = reaction_to(Message::text("hello")).await;
    assert!(
        matches!(error, TransportError::WrongProtocol(_)),
        "{error:?}"
    );
    assert_eq!(code, 1003);
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_by_its_header_and_its_sender_is_told() {
    let bytes = 128 * 1024 + 1;
    let (error, code) = reaction_to(Message::binary(vec![0; bytes])).await;
    assert!(
        matches!(error, TransportError::TooLarge { bytes: b, max } if b == bytes && max == bytes - 1),
        "{error:?}"
    );
    assert_eq!(code, 1009);
}

#[tokio::test]
async fn a_ping_of_the_websocket_is_answered_and_is_no_frame() {
    let (mut acceptor, address) = acceptor().await;
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, mut transport) =
        tokio::join!(client_async("ws://a/", stream), accept(&mut acceptor));
    let (mut client, _) = client.unwrap();
    for message in [
        Message::Ping("are you there".into()),
        Message::binary("frame"),
    ] {
        futures_util::SinkExt::send(&mut client, message)
            .await
            .unwrap();
    }
    assert_eq!(receive(&mut transport).await.unwrap().unwrap(), "frame");
    let (pong, _) = tokio::join!(futures_util::StreamExt::next(&mut client), async {
        poll_fn(|cx| transport.poll_flush(cx)).await
    });
    assert_eq!(
        pong.unwrap().unwrap(),
        Message::Pong("are you there".into())
    );
}

/// Out of file descriptors, the acceptor says so, tries again later instead of at once, and loses nobody.
#[cfg(unix)]
#[test]
fn running_out_of_file_descriptors_is_survived() {
    // In a process of its own, because the limit is the whole process's.
    let few = "ulimit -n 64 && exec \"$0\" --exact survives_without_file_descriptors";
    let test = std::env::current_exe().unwrap();
    let run = std::process::Command::new("sh")
        .arg("-c")
        .arg(few)
        .arg(test)
        .env(HAS_FEW, "yes")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}

/// Set for the process that may use up all its file descriptors.
#[cfg(unix)]
const HAS_FEW: &str = "WEBSOCKET_TRANSPORT_HAS_FEW_DESCRIPTORS";

/// What the test above starts as a process of its own; nothing when it is started with the others.
#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn survives_without_file_descriptors() {
    if std::env::var_os(HAS_FEW).is_none() {
        return;
    }
    let (mut acceptor, address) = acceptor().await;
    let open = || std::fs::File::open("/dev/null");
    let mut held: Vec<_> = std::iter::from_fn(|| open().ok()).collect();
    held.pop();
    let stream = TcpStream::connect(address).await.unwrap();
    assert!(open().is_err());
    let started = tokio::time::Instant::now();
    for _ in 0..3 {
        let reported = acceptor.accept().await.unwrap().map(drop);
        assert!(
            matches!(reported, Err(TransportError::Lost(Some(_)))),
            "{reported:?}"
        );
    }
    assert!(
        started.elapsed() >= Duration::from_millis(200),
        "it tried again at once"
    );
    drop(held);
    tokio::time::resume();
    let (client, _) = tokio::join!(client_async("ws://a/", stream), accept(&mut acceptor));
    assert!(client.is_ok());
}
