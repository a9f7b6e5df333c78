//! Requests to an admin API, byte for byte.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test binary uses its own part"
)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test harness")]

use std::net::SocketAddr;

use axum::Router;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::e2e::within;

pub const TOKEN: &str = "a token of an admin";

/// Serves the application at a free port.
pub async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    /// The code of an answer that is an error.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap().to_owned()
    }
}

/// Sends a request with these lines behind the first one.
pub async fn send(address: SocketAddr, first: &str, lines: &[&str], body: &[u8]) -> Answer {
    let mut stream = request(address, first, lines, body).await;
    let mut answer = Vec::new();
    within("an answer", stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let end = answer.windows(4).position(|at| at == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head,
        body: answer[end + 4..].to_vec(),
    }
}

async fn request(address: SocketAddr, first: &str, lines: &[&str], body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let mut request = format!(
        "{first} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n"
    );
    for line in lines {
        request += &format!("{line}\r\n");
    }
    request += "\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream
}

/// An admin of the API at this address.
#[derive(Debug, Clone, Copy)]
pub struct Caller(pub SocketAddr);

impl Caller {
    /// Such as `GET /stats`.
    pub async fn call(self, what: &str) -> Answer {
        self.call_with(what, &[]).await
    }

    pub async fn call_with(self, what: &str, body: &[u8]) -> Answer {
        let (method, path) = what.split_once(' ').unwrap();
        let first = format!("{method} /admin/api/v1{path}");
        let credentials = format!("Authorization: Bearer {TOKEN}");
        send(self.0, &first, &[&credentials], body).await
    }

    /// What a call answers that is carried out.
    pub async fn json(self, what: &str) -> Value {
        let answer = self.call(what).await;
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        answer.json()
    }

    /// The status and code of a call that is not.
    pub async fn refused(self, what: &str) -> (u16, String) {
        let answer = self.call(what).await;
        (answer.status, answer.code())
    }

    /// Server-sent events from now on.
    pub async fn events(self) -> SentEvents {
        self.try_events().await.unwrap()
    }

    /// The same, unless that is refused.
    pub async fn try_events(self) -> Option<SentEvents> {
        let credentials = format!("Authorization: Bearer {TOKEN}");
        let first = "GET /admin/api/v1/events";
        let mut lines = BufReader::new(request(self.0, first, &[&credentials], &[]).await);
        // It has begun when the comment is there.
        let mut head = String::new();
        while !head.ends_with(": from now on\n") {
            let n = within("the stream", lines.read_line(&mut head)).await;
            if n.unwrap() == 0 {
                return None;
            }
        }
        assert!(head.contains("content-type: text/event-stream"), "{head}");
        Some(SentEvents(lines))
    }
}

pub struct SentEvents(BufReader<TcpStream>);

impl SentEvents {
    /// The data of the next event; `None` at the end.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            if within("an event", self.0.read_line(&mut line))
                .await
                .unwrap()
                == 0
            {
                return None;
            }
            if let Some(data) = line.strip_prefix("data: ") {
                return Some(serde_json::from_str(data).unwrap());
            }
        }
    }

    /// The next event of this kind.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        loop {
            let event = self.next().await.unwrap();
            if event["event"] == kind {
                return event;
            }
        }
    }
}
