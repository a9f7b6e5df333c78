//! HTTP, byte for byte.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test binary uses its own part"
)]

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::e2e::within;

/// Sends a request with these lines behind the first one, and returns the answer.
pub async fn ask(address: SocketAddr, first: &str, lines: &[&str]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut request = format!("{first} HTTP/1.1\r\nHost: {address}\r\n");
    for line in lines {
        request += &format!("{line}\r\n");
    }
    request += "\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = BufReader::new(stream);
    let (mut head, mut bytes) = (String::new(), 0);
    while !head.ends_with("\r\n\r\n") {
        let line = head.len();
        let n = within("an answer", answer.read_line(&mut head))
            .await
            .unwrap();
        assert!(n > 0, "{head}");
        if let Some(length) = head.split_at(line).1.strip_prefix("content-length: ") {
            bytes = length.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; bytes];
    within("the body", answer.read_exact(&mut body))
        .await
        .unwrap();
    head + &String::from_utf8(body).unwrap()
}

/// Asks for a WebSocket.
pub async fn ask_upgrade(address: SocketAddr, path: &str, more: &[&str]) -> String {
    let mut lines = vec![
        "Connection: upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    lines.extend(more);
    ask(address, &format!("GET {path}"), &lines).await
}
