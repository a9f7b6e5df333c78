//! Scripted peers: what a test itself sends and reads on one end of a connection.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use sync_client::transport::Transport;
use sync_client::{OriginId, SessionId};
use sync_core::wire::{
    Compression, Hello, Message, PROTOCOL_VERSIONS, Welcome, WelcomeLimits, decode_frame,
    encode_frame,
};

use super::within;

pub type Peer = Box<dyn Transport>;

pub async fn send(peer: &mut Peer, frame: Bytes) {
    poll_fn(|cx| peer.poll_ready(cx)).await.unwrap();
    peer.start_send(frame).unwrap();
    poll_fn(|cx| peer.poll_flush(cx)).await.unwrap();
}

/// The next message; `None` if the other side has closed.
pub async fn receive(peer: &mut Peer) -> Option<Message> {
    let frame = within("a frame", poll_fn(|cx| peer.poll_receive(cx))).await;
    frame.map(|frame| decode_frame(frame.unwrap(), 1 << 20).unwrap())
}

/// Everything until the other side closes, and its code.
pub async fn rest(peer: &mut Peer) -> (Vec<Message>, Option<u16>) {
    let mut messages = Vec::new();
    while let Some(message) = receive(peer).await {
        messages.push(message);
    }
    (messages, peer.close_code())
}

pub fn frame(message: &Message) -> Bytes {
    encode_frame(message, Compression::None)
}

pub fn hello(origin: u128) -> Bytes {
    hello_as(origin, None)
}

pub fn hello_as(origin: u128, token: Option<&'static str>) -> Bytes {
    frame(&Message::Hello(Hello {
        versions: PROTOCOL_VERSIONS,
        software: "scripted".into(),
        origin: OriginId(origin),
        connection: 1,
        credentials: token.map(Into::into),
        compression: Vec::new(),
        resume: None,
    }))
}

pub fn welcome() -> Bytes {
    frame(&Message::Welcome(Welcome {
        version: PROTOCOL_VERSIONS.max,
        session: SessionId(1),
        user: "anonymous".into(),
        resume: None,
        compression: Compression::None,
        limits: WelcomeLimits {
            message_bytes_max: 1 << 20,
            change_bytes_max: 1 << 20,
            push_window_bytes: 1 << 20,
            documents_max: 10,
            broadcast_bytes_max: 1 << 10,
            broadcasts_per_second: 10,
            broadcasts_burst: 10,
            extension_bytes_max: 1 << 10,
            extensions_per_second: 10,
            extensions_burst: 10,
            presence_bytes_max: 100,
            presence_interval: Duration::from_millis(50),
            presences_per_second: 10,
            presences_burst: 20,
        },
        ping_interval: Duration::from_secs(15),
        server_time_ms: 0,
    }))
}
