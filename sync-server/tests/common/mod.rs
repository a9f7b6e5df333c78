//! A scripted client: sends what the test says, checks nothing by itself, and reads frames one by one.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test harness"
)]

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sync_client::transport::WebSocketDialer;
use sync_core::error::{ErrorCode, PeerError};
use sync_core::events::Events;
use sync_core::history::{Cursor, Digest, Epoch, Seq};
use sync_core::ids::{Channel, DocumentId, EngineId, OriginId, RequestId};
use sync_core::limits::Limits;
use sync_core::transport::memory::{MemoryLink, MemoryTransport, pair};
use sync_core::transport::{Acceptor, Dialer, PeerInfo, Transport, TransportError};
use sync_core::wire::*;
use sync_server::registry::ServerRegistry;
use sync_server::transport::WebSocketAcceptor;
use sync_server::{Anonymous, Server, ServerBuilder, ServerEvent, User};

use crate::registries::{Registry, registry};

pub(crate) const CAPACITY: usize = 64 * 1024;

pub(crate) fn builder(registry: impl ServerRegistry) -> ServerBuilder {
    Server::builder(registry, Anonymous::read_write()).seed(1)
}

pub(crate) fn server() -> (Server, Arc<Registry>) {
    let registry = registry();
    (builder(Arc::clone(&registry)).build().unwrap(), registry)
}

pub(crate) fn document(name: &str) -> DocumentId {
    name.try_into().unwrap()
}

pub(crate) struct Peer {
    pub(crate) transport: Box<dyn Transport>,
    link: Option<MemoryLink>,
    pub(crate) origin: OriginId,
    pub(crate) compression: Vec<Compression>,
    reassembler: Reassembler,
    next_request: u32,
}

/// A document that a peer has open, as far as it has followed it.
#[derive(Debug, Clone)]
pub(crate) struct Doc {
    pub(crate) channel: Channel,
    pub(crate) cursor: Cursor,
    pub(crate) opened: Opened,
    pub(crate) content: Vec<String>,
    /// The part of a snapshot that has arrived.
    pub(crate) state: Vec<u8>,
}

impl Peer {
    /// Connects; says nothing yet.
    pub(crate) fn connect(server: &Server, origin: u128) -> Self {
        Self::connect_with(server, origin, CAPACITY)
    }

    pub(crate) fn connect_with(server: &Server, origin: u128, capacity: usize) -> Self {
        let (transport, other) = pair(capacity);
        tokio::spawn(server.serve(other, PeerInfo::default()));
        Self::over(transport, origin)
    }

    pub(crate) fn over(transport: MemoryTransport, origin: u128) -> Self {
        let link = transport.link();
        Self {
            link: Some(link),
            ..Self::over_any(Box::new(transport), origin)
        }
    }

    pub(crate) fn over_any(transport: Box<dyn Transport>, origin: u128) -> Self {
        Self {
            transport,
            link: None,
            origin: OriginId(origin),
            compression: Vec::new(),
            reassembler: Reassembler::new(&Limits::default()),
            next_request: 0,
        }
    }

    /// Connects and is welcomed.
    pub(crate) async fn welcomed(server: &Server, origin: u128) -> Self {
        let mut peer = Self::connect(server, origin);
        peer.hello().await;
        peer
    }

    /// Connects as this user over a real WebSocket, and is welcomed.
    pub(crate) async fn over_websocket(server: &Server, user: &str, origin: u128) -> Self {
        let mut acceptor = WebSocketAcceptor::bind("127.0.0.1:0").await.unwrap();
        let address = acceptor.local_addr().unwrap();
        let dialer = WebSocketDialer::new(&format!("ws://{address}")).unwrap();
        let (dialed, accepted) = tokio::join!(dialer.dial(), acceptor.accept());
        let (accepted, info) = accepted.unwrap().unwrap();
        tokio::spawn(server.serve_as(accepted, info, User::new(user)));
        let mut peer = Self::over_any(dialed.unwrap(), origin);
        peer.hello().await;
        peer
    }

    pub(crate) fn link(&self) -> MemoryLink {
        self.link.clone().expect("a connection in memory")
    }

    pub(crate) async fn hello(&mut self) -> Welcome {
        self.send(&self.hello_message()).await;
        match self.next().await {
            Message::Welcome(welcome) => welcome,
            other => panic!("expected Welcome, got {other:?}"),
        }
    }

    pub(crate) fn hello_message(&self) -> Message {
        Message::Hello(Hello {
            versions: PROTOCOL_VERSIONS,
            software: "scripted".into(),
            origin: self.origin,
            connection: 0,
            credentials: None,
            compression: self.compression.clone(),
            resume: None,
        })
    }

    pub(crate) async fn send(&mut self, message: &Message) {
        let frame = encode_frame(message, Compression::None);
        for frame in split(frame, Channel(0), 1) {
            self.send_frame(frame).await.expect("connected");
        }
    }

    pub(crate) async fn send_frame(&mut self, frame: Bytes) -> Result<(), TransportError> {
        poll_fn(|cx| self.transport.poll_ready(cx)).await?;
        self.transport.start_send(frame)?;
        poll_fn(|cx| self.transport.poll_flush(cx)).await
    }

    pub(crate) async fn next_frame(&mut self) -> Option<Bytes> {
        poll_fn(|cx| self.transport.poll_receive(cx))
            .await
            .map(|frame| frame.expect("connected"))
    }

    pub(crate) async fn try_next(&mut self) -> Option<Message> {
        loop {
            match decode_frame(self.next_frame().await?, 1 << 26).unwrap() {
                Message::Fragment(fragment) => {
                    if let Some(frame) = self.reassembler.handle(fragment).unwrap() {
                        return Some(decode_frame(frame, 1 << 26).unwrap());
                    }
                }
                message => return Some(message),
            }
        }
    }

    pub(crate) async fn next(&mut self) -> Message {
        self.try_next().await.expect("connected")
    }

    /// The next message, or `None` if nothing comes while time passes.
    pub(crate) async fn quiet(&mut self) -> Option<Message> {
        tokio::time::timeout(Duration::from_millis(200), self.next())
            .await
            .ok()
    }

    /// The error that ends the session, and the close code.
    pub(crate) async fn ended(&mut self) -> (PeerError, u16) {
        loop {
            if let Message::Error(error) = self.next().await
                && error.reference == Reference::Session
            {
                let mut told = PeerError::new(error.code, error.message);
                told.retry_after = error.retry_after;
                assert!(self.try_next().await.is_none(), "nothing follows the error");
                return (told, self.transport.close_code().expect("closed in order"));
            }
        }
    }

    pub(crate) async fn error(&mut self) -> ErrorMessage {
        match self.next().await {
            Message::Error(error) => error,
            other => panic!("expected Error, got {other:?}"),
        }
    }

    pub(crate) fn open_message(&mut self, name: &str) -> Open {
        self.next_request += 1;
        Open {
            request: RequestId(self.next_request),
            document: document(name),
            engine: EngineId::OPAQUE,
            cursor: None,
            origins: Vec::new(),
            access: AccessLevel::Write,
            create: true,
            partial: None,
        }
    }

    pub(crate) async fn open(&mut self, name: &str) -> Doc {
        let open = self.open_message(name);
        self.open_with(open).await
    }

    pub(crate) async fn open_at(&mut self, name: &str, cursor: Cursor) -> Doc {
        let mut open = self.open_message(name);
        open.cursor = Some(cursor);
        self.open_with(open).await
    }

    pub(crate) async fn open_with(&mut self, open: Open) -> Doc {
        let cursor = open.cursor;
        self.send(&Message::Open(open)).await;
        match self.next().await {
            Message::Opened(opened) => Doc {
                channel: opened.channel,
                cursor: match opened.next {
                    Continuation::Resume => cursor.unwrap_or_else(|| Cursor::start(opened.epoch)),
                    _ => Cursor::start(opened.epoch),
                },
                opened,
                content: Vec::new(),
                state: Vec::new(),
            },
            other => panic!("expected Opened, got {other:?}"),
        }
    }

    pub(crate) async fn push(&mut self, doc: &Doc, first_number: u64, changes: &[&str]) {
        let push = Push {
            channel: doc.channel,
            origin: self.origin,
            first_number,
            changes: changes
                .iter()
                .map(|change| Bytes::from((*change).to_owned()))
                .collect(),
            reconciling: false,
        };
        self.send(&Message::Push(push)).await;
    }

    pub(crate) async fn ack(&mut self) -> Ack {
        match self.next().await {
            Message::Ack(ack) => ack,
            other => panic!("expected Ack, got {other:?}"),
        }
    }

    /// Pushes one change and waits until it is acknowledged.
    pub(crate) async fn push_acked(&mut self, doc: &Doc, number: u64, change: &str) {
        self.push(doc, number, &[change]).await;
        let ack = self.ack().await;
        assert_eq!(
            (ack.channel, ack.number, ack.count),
            (doc.channel, number, 1)
        );
    }

    /// Follows a document to a sequence; every frame has to start right after the cursor.
    pub(crate) async fn follow(&mut self, doc: &mut Doc, seq: u64) {
        while doc.cursor.seq < Seq(seq) {
            let message = self.next().await;
            doc.take(message);
        }
    }
}

impl Doc {
    pub(crate) fn take(&mut self, message: Message) {
        match message {
            Message::Changes(changes) => {
                assert_eq!(changes.channel, self.channel);
                assert_eq!(
                    changes.check,
                    check_of(self.cursor.seq.next()),
                    "out of step"
                );
                for change in changes.changes {
                    let number = change.number.resolve(self.cursor.seq.next()).unwrap();
                    self.cursor = self.cursor.with(number, &change.bytes);
                    self.content
                        .push(String::from_utf8(change.bytes.to_vec()).unwrap());
                }
            }
            Message::Snapshot(snapshot) => {
                assert_eq!(snapshot.channel, self.channel);
                if snapshot.offset == 0 {
                    self.state.clear();
                }
                let bytes = |state: &[u8]| u64::try_from(state.len()).unwrap();
                assert_eq!(snapshot.offset, bytes(&self.state), "out of step");
                self.state.extend_from_slice(&snapshot.bytes);
                if bytes(&self.state) == snapshot.total_bytes {
                    self.cursor.seq = snapshot.seq;
                    self.cursor.digest = snapshot.digest;
                    let state = std::mem::take(&mut self.state);
                    self.content = vec![String::from_utf8(state).unwrap()];
                }
            }
            other => panic!("expected Changes or Snapshot, got {other:?}"),
        }
    }
}

pub(crate) fn some_cursor(seq: u64) -> Cursor {
    Cursor {
        epoch: Epoch(1),
        seq: Seq(seq),
        digest: Digest(1),
    }
}

/// The next event that the filter takes.
pub(crate) async fn event<R>(
    events: &mut Events<ServerEvent>,
    mut filter: impl FnMut(ServerEvent) -> Option<R>,
) -> R {
    loop {
        let event = events.next().await.expect("the server lives");
        if let Some(found) = filter(event) {
            return found;
        }
    }
}

pub(crate) fn code(error: &ErrorMessage) -> ErrorCode {
    error.code
}
