//! A client that speaks the protocol and sends whatever it is told to.

use std::fmt;
use std::future::poll_fn;

use bytes::Bytes;
use sync_core::error::ErrorCode;
use sync_core::history::Seq;
use sync_core::ids::{Channel, DocumentId, OriginId, RequestId};
use sync_core::limits::Limits;
use sync_core::transport::memory::{MemoryTransport, pair};
use sync_core::transport::{PeerInfo, Transport};
use sync_core::wire::{
    AccessLevel, Compression, Hello, Message, Open, PROTOCOL_VERSIONS, Push, Reassembler,
    decode_frame, encode_frame, split,
};
use sync_server::{EngineId, Server};

/// What goes wrong with a connection, which should not.
pub type Broken = Box<dyn std::error::Error + Send + Sync>;

const CAPACITY: usize = 1024 * 1024;

/// What a server said of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// It is in the log.
    Committed,
    /// By its id.
    Refused {
        /// Because worker processes died of it.
        killed: bool,
    },
    /// Not now.
    Later,
}

/// A client that sends what it is told to, and nothing by itself.
pub struct HostilePeer {
    transport: MemoryTransport,
    reassembler: Reassembler,
    origin: OriginId,
    requests: u32,
}

impl fmt::Debug for HostilePeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostilePeer")
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

impl HostilePeer {
    /// Connects to a server in this process, as this origin.
    ///
    /// # Errors
    /// The server does not welcome it.
    pub async fn connect(server: &Server, origin: u128) -> Result<Self, Broken> {
        let (transport, other) = pair(CAPACITY);
        tokio::spawn(server.serve(other, PeerInfo::default()));
        let mut peer = Self {
            transport,
            reassembler: Reassembler::new(&Limits::default()),
            origin: OriginId(origin),
            requests: 0,
        };
        let hello = Message::Hello(Hello {
            versions: PROTOCOL_VERSIONS,
            software: "hostile".into(),
            origin: peer.origin,
            connection: 0,
            credentials: None,
            compression: Vec::new(),
            resume: None,
        });
        peer.send(&hello).await?;
        match peer.next().await? {
            Message::Welcome(_) => Ok(peer),
            other => Err(format!("not welcome: {other:?}").into()),
        }
    }

    async fn send(&mut self, message: &Message) -> Result<(), Broken> {
        let frame = encode_frame(message, Compression::None);
        for frame in split(frame, Channel(0), 1) {
            poll_fn(|cx| self.transport.poll_ready(cx)).await?;
            self.transport.start_send(frame)?;
            poll_fn(|cx| self.transport.poll_flush(cx)).await?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<Message, Broken> {
        let bytes_max = Limits::default().message_bytes_max;
        loop {
            let frame = poll_fn(|cx| self.transport.poll_receive(cx)).await;
            let frame = frame.ok_or("the server has closed the connection")??;
            match decode_frame(frame, bytes_max)? {
                Message::Fragment(fragment) => {
                    if let Some(frame) = self.reassembler.handle(fragment)? {
                        return Ok(decode_frame(frame, bytes_max)?);
                    }
                }
                Message::Ping(ping) => self.send(&Message::Pong(pong(&ping))).await?,
                message => return Ok(message),
            }
        }
    }

    /// Opens a document for writing; says where its head is.
    ///
    /// # Errors
    /// The server does not open it.
    pub async fn open(
        &mut self,
        document: &DocumentId,
        engine: &EngineId,
    ) -> Result<(Channel, Seq), Broken> {
        self.requests += 1;
        let open = Message::Open(Open {
            request: RequestId(self.requests),
            document: document.clone(),
            engine: engine.clone(),
            cursor: None,
            origins: Vec::new(),
            access: AccessLevel::Write,
            create: true,
            partial: None,
        });
        self.send(&open).await?;
        loop {
            match self.next().await? {
                Message::Opened(opened) if opened.request.0 == self.requests => {
                    return Ok((opened.channel, opened.head));
                }
                Message::Error(error) if error.code == ErrorCode::Fenced => {}
                Message::Error(error) => return Err(format!("not opened: {error:?}").into()),
                _ => {}
            }
        }
    }

    /// Pushes a change and waits for what becomes of it. Unless it is committed, the document has to be opened again.
    ///
    /// # Errors
    /// The server answers something else.
    pub async fn push(
        &mut self,
        channel: Channel,
        number: u64,
        change: &Bytes,
        reconciling: bool,
    ) -> Result<Said, Broken> {
        let push = Message::Push(Push {
            channel,
            origin: self.origin,
            first_number: number,
            changes: vec![change.clone()],
            reconciling,
        });
        self.send(&push).await?;
        loop {
            match self.next().await? {
                Message::Ack(ack) if ack.count > 0 && ack.number + ack.count > number => {
                    return Ok(Said::Committed);
                }
                Message::Changes(changes)
                    if changes.changes.iter().any(|found| found.bytes == *change) =>
                {
                    return Ok(Said::Committed);
                }
                Message::Refuse(refuse) => {
                    if (refuse.origin, refuse.number) == (self.origin, number) {
                        let killed = refuse.message.contains("died");
                        return Ok(Said::Refused { killed });
                    }
                    return Err(format!("{number} was pushed, refused was {refuse:?}").into());
                }
                Message::Error(error) if error.code.is_retryable() => return Ok(Said::Later),
                Message::Error(error) => return Err(format!("{error:?}").into()),
                _ => {}
            }
        }
    }

    /// The changes that a newcomer is sent of a document; what is folded is not among them.
    ///
    /// # Errors
    /// The server does not open it, or ends the connection.
    pub async fn content(
        &mut self,
        document: &DocumentId,
        engine: &EngineId,
    ) -> Result<Vec<Bytes>, Broken> {
        let (channel, head) = self.open(document, engine).await?;
        let mut at = Seq::ZERO;
        let mut received = Vec::new();
        while at < head {
            match self.next().await? {
                Message::Changes(changes) if changes.channel == channel => {
                    for change in changes.changes {
                        at = at.next();
                        received.push(change.bytes);
                    }
                }
                Message::Snapshot(snapshot) => at = snapshot.seq,
                _ => {}
            }
        }
        Ok(received)
    }
}

fn pong(ping: &sync_core::wire::Ping) -> sync_core::wire::Pong {
    sync_core::wire::Pong {
        nonce: ping.nonce,
        heads: Vec::new(),
    }
}
