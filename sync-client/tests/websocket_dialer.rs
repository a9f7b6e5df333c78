//! What a dialer makes of the answers that it may get.

#![allow(
    clippy::unwrap_used,
    reason = "a test says that it failed by panicking"
)]

use sync_client::transport::{AddressError, DialError, Dialer, WebSocketDialer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Dials a server that reads the request, answers this, and closes. Returns the request and what came of it.
async fn dial_one_that_answers(answer: &str, path: &str) -> (String, Result<(), DialError>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialer =
        WebSocketDialer::new(&format!("ws://{}{path}", listener.local_addr().unwrap())).unwrap();
    let dialer = dialer
        .header("X-Api-Key", "first")
        .unwrap()
        .header("x-api-key", "second")
        .unwrap();
    let serve = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(request).unwrap()
    };
    let (request, dialed) = tokio::join!(serve, dialer.dial());
    (request, dialed.map(drop))
}

/// Scenario 27.
#[tokio::test]
async fn an_answer_that_will_not_change_is_refused_for_good() {
    for answer in [
        "HTTP/1.1 400 Bad Request\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 426 Upgrade Required\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: upgrade\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "220 mail ESMTP\r\n",
    ] {
        let (_, dialed) = dial_one_that_answers(answer, "/").await;
        assert!(
            matches!(dialed, Err(DialError::Refused(_))),
            "{answer:?} gave {dialed:?}"
        );
    }
}

#[tokio::test]
async fn an_answer_that_asks_for_other_credentials_says_so() {
    let answer = "HTTP/1.1 401 Unauthorized\r\n\r\n";
    let (_, dialed) = dial_one_that_answers(answer, "/").await;
    assert!(
        matches!(dialed, Err(DialError::Unauthenticated(_))),
        "{dialed:?}"
    );
}

#[test]
fn what_may_be_secret_is_not_printed() {
    let dialer = WebSocketDialer::new("ws://example.com/sync?token=secret-1").unwrap();
    let dialer = dialer.header("Authorization", "Bearer secret-2").unwrap();
    let printed = format!("{dialer:?}");
    assert!(!printed.contains("secret"), "{printed}");
}

#[tokio::test]
async fn an_answer_that_may_change_is_unreachable() {
    for answer in [
        "",
        "HTTP/1.1 101 Switch",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 302 Found\r\nLocation: http://login.example\r\n\r\n",
        "HTTP/1.1 408 Request Timeout\r\n\r\n",
        "HTTP/1.1 429 Too Many Requests\r\n\r\n",
        "HTTP/1.1 502 Bad Gateway\r\n\r\n",
        "HTTP/1.1 503 Service Unavailable\r\n\r\n",
    ] {
        let (_, dialed) = dial_one_that_answers(answer, "/").await;
        assert!(
            matches!(dialed, Err(DialError::Unreachable(_))),
            "{answer:?} gave {dialed:?}"
        );
    }
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialer = WebSocketDialer::new(&format!("ws://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    assert!(matches!(
        dialer.dial().await.map(drop),
        Err(DialError::Unreachable(_))
    ));
}

#[tokio::test]
async fn path_query_and_headers_are_sent() {
    let (request, _) = dial_one_that_answers("", "/sync?room=1").await;
    assert!(
        request.starts_with("GET /sync?room=1 HTTP/1.1\r\n"),
        "{request}"
    );
    assert!(
        request.contains("x-api-key: first\r\n") && request.contains("x-api-key: second\r\n"),
        "{request}"
    );
}

#[test]
fn addresses_that_cannot_be_dialed_are_told_apart() {
    for address in [
        "",
        "localhost:8080",
        "/path",
        "ws://",
        "ws:///path",
        "ws://[::1",
        "ws://host:port/",
        "ws://host:65536",
        "ws://user:secret@host",
    ] {
        let dialer = WebSocketDialer::new(address);
        assert!(
            matches!(dialer, Err(AddressError::Invalid { .. })),
            "{address:?} gave {dialer:?}"
        );
    }
    for scheme in ["http", "tcp"] {
        let dialer = WebSocketDialer::new(&format!("{scheme}://host/"));
        assert_eq!(
            dialer.unwrap_err(),
            AddressError::Unsupported {
                scheme: scheme.into()
            }
        );
    }
    for address in [
        "ws://host",
        "ws://host:8080/sync?a=b",
        "ws://[::1]:8080",
        "ws://127.0.0.1/",
    ] {
        assert!(WebSocketDialer::new(address).is_ok(), "{address}");
    }
}

#[test]
fn headers_that_http_or_websocket_forbid_are_refused() {
    let dialer = WebSocketDialer::new("ws://host").unwrap();
    for (name, value) in [
        ("a b", "c"),
        ("", "c"),
        ("a", "c\r\nd: e"),
        ("Upgrade", "c"),
        ("Sec-WebSocket-Key", "c"),
    ] {
        let refused = dialer.clone().header(name, value);
        assert_eq!(
            refused.unwrap_err(),
            AddressError::InvalidHeader { name: name.into() }
        );
    }
}
