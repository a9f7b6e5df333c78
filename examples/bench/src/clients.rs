//! Clients of a server, from the dial until their document is open: one step after the other on a blocking socket, which the
//! generator then takes over.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use sync_core::history::Cursor;
use sync_core::ids::{Channel, DocumentId, EngineId, OriginId, RequestId, SessionId};
use sync_core::wire::{
    AccessLevel, Broadcast, Compression, Hello, Message, Open, Opened, PROTOCOL_VERSIONS, Ping,
    Presence, PresenceDelta, Push, SnapshotMessage, decode_frame, encode_frame, split,
};

use crate::Failure;
use crate::generator::{BINARY, Format, Generator, next_frame, put_frame};

/// How long a server may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a message while a document is opened, inflated, at most.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// As RFC 6455 section 1.3 has it. What the server makes of it is not looked at: nobody is fooled here.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// Who a client is, and what it takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who {
    /// Differs between clients.
    pub(crate) number: usize,
    /// Whether frames may be compressed; then changes are not counted.
    pub(crate) gzip: bool,
}

/// A client on a blocking socket.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    format: Format,
    origin: OriginId,
    session: SessionId,
    channel: Channel,
    next_number: u64,
    /// With the headers of WebSocket frames; without what came before the WebSocket was open.
    bytes_received: u64,
}

impl Client {
    /// Dials, and introduces itself. A relay is told the document's name by the request.
    pub(crate) fn dial(
        server: SocketAddr,
        format: Format,
        document: &str,
        who: Who,
    ) -> Result<Self, Failure> {
        let mut stream = TcpStream::connect(server)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let path = match format {
            Format::Relay => document,
            Format::Sync => "",
        };
        write!(
            stream,
            "GET /{path} HTTP/1.1\r\nHost: {server}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        )?;
        read_upgrade(&mut stream)?;
        let mut client = Self {
            stream,
            format,
            origin: OriginId(u128::try_from(who.number)? + 1),
            session: SessionId(0),
            channel: Channel(0),
            next_number: 1,
            bytes_received: 0,
        };
        if format == Format::Sync {
            client.send(&Message::Hello(Hello {
                versions: PROTOCOL_VERSIONS,
                software: "bench".to_owned(),
                origin: client.origin,
                connection: 1,
                credentials: None,
                compression: if who.gzip {
                    vec![Compression::Gzip]
                } else {
                    Vec::new()
                },
                resume: None,
            }))?;
            let Message::Welcome(welcome) = client.receive()? else {
                return Err("not welcome".into());
            };
            client.session = welcome.session;
        }
        Ok(client)
    }

    /// Opens a document at a sync server, and waits until it is open. What it holds follows.
    pub(crate) fn open(
        &mut self,
        document: &str,
        cursor: Option<Cursor>,
    ) -> Result<Opened, Failure> {
        self.send(&open_message(document, cursor)?)?;
        loop {
            match self.receive()? {
                Message::Opened(opened) => {
                    self.channel = opened.channel;
                    return Ok(opened);
                }
                Message::Presence(_) => {}
                message => return Err(format!("not opened: {message:?}").into()),
            }
        }
    }

    /// Sends changes to a sync server.
    pub(crate) fn push(&mut self, changes: Vec<Bytes>) -> Result<(), Failure> {
        let n = u64::try_from(changes.len())?;
        self.send(&Message::Push(Push {
            channel: self.channel,
            origin: self.origin,
            first_number: self.next_number,
            changes,
            reconciling: false,
        }))?;
        self.next_number += n;
        Ok(())
    }

    /// Waits until the server has acknowledged all that was pushed.
    pub(crate) fn saved(&mut self) -> Result<(), Failure> {
        loop {
            match self.receive()? {
                Message::Ack(ack) if ack.number + ack.count >= self.next_number => return Ok(()),
                Message::Ack(_) | Message::Author(_) | Message::Presence(_) => {}
                message => return Err(format!("not saved: {message:?}").into()),
            }
        }
    }

    /// The next message. Not one byte more is read than it has.
    pub(crate) fn receive(&mut self) -> Result<Message, Failure> {
        let mut bytes = vec![0; 2];
        self.stream.read_exact(&mut bytes)?;
        loop {
            let missing = match next_frame(&bytes)? {
                Some((frame, _)) if frame.opcode == BINARY => {
                    self.bytes_received += u64::try_from(bytes.len())?;
                    let payload = Bytes::copy_from_slice(frame.payload);
                    return Ok(decode_frame(payload, MESSAGE_BYTES_MAX)?);
                }
                Some((frame, _)) => return Err(frame.close_reason().into()),
                None => missing_bytes(&bytes),
            };
            let held = bytes.len();
            bytes.resize(held + missing, 0);
            let room = bytes.get_mut(held..).unwrap_or_default();
            self.stream.read_exact(room)?;
        }
    }

    /// Bytes received so far.
    pub(crate) const fn bytes_received(&self) -> u64 {
        self.bytes_received
    }

    /// Hands the connection to the generator.
    pub(crate) fn join(self, generator: &mut Generator) -> Result<Member, Failure> {
        Ok(Member {
            connection: generator.add(self.stream)?,
            session: self.session,
            format: self.format,
            channel: self.channel,
            origin: self.origin,
            next_number: self.next_number,
        })
    }

    fn send(&mut self, message: &Message) -> Result<(), Failure> {
        let frame = encode_frame(message, Compression::None);
        let mut bytes = Vec::new();
        put_frame(&mut bytes, BINARY, &frame);
        Ok(self.stream.write_all(&bytes)?)
    }
}

/// A client whose connection the generator has.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) connection: usize,
    pub(crate) session: SessionId,
    format: Format,
    channel: Channel,
    origin: OriginId,
    next_number: u64,
}

impl Member {
    /// Sends a change with the generator's next turn.
    pub(crate) fn push(&mut self, generator: &mut Generator, change: &[u8]) {
        match self.format {
            Format::Relay => generator.send(self.connection, change),
            Format::Sync => {
                let push = Message::Push(Push {
                    channel: self.channel,
                    origin: self.origin,
                    first_number: self.next_number,
                    changes: vec![Bytes::copy_from_slice(change)],
                    reconciling: false,
                });
                generator.send(self.connection, &encode_frame(&push, Compression::None));
            }
        }
        self.next_number += 1;
    }
}

impl Member {
    /// Says something of itself, to a sync server, with the generator's next turn.
    pub(crate) fn say(&self, generator: &mut Generator, state: Bytes) {
        let presence = Message::Presence(Presence {
            channel: self.channel,
            deltas: vec![PresenceDelta {
                session: self.session,
                user: String::new(),
                state: Some(state),
            }],
            table_version: 0,
        });
        let frame = encode_frame(&presence, Compression::None);
        generator.send(self.connection, &frame);
    }

    /// Sends bytes that are kept nowhere to everybody else, with the generator's next turn.
    pub(crate) fn broadcast(&self, generator: &mut Generator, bytes: Bytes) {
        match self.format {
            Format::Relay => generator.send(self.connection, &bytes),
            Format::Sync => {
                let broadcast = Message::Broadcast(Broadcast {
                    channel: self.channel,
                    topic: "bench".to_owned(),
                    bytes,
                    sender: None,
                    missed: 0,
                });
                let frame = encode_frame(&broadcast, Compression::None);
                for fragment in split(frame, self.channel, 1) {
                    generator.send(self.connection, &fragment);
                }
            }
        }
    }
}

/// What a silent client says from time to time.
pub(crate) fn sign_of_life(format: Format) -> Option<Bytes> {
    let ping = Message::Ping(Ping { nonce: 0 });
    (format == Format::Sync).then(|| encode_frame(&ping, Compression::None))
}

/// Opens a yrs document, which is created if there is none.
pub(crate) fn open_message(document: &str, cursor: Option<Cursor>) -> Result<Message, Failure> {
    Ok(Message::Open(Open {
        request: RequestId(1),
        document: DocumentId::new(document)?,
        engine: EngineId::YRS,
        cursor,
        origins: Vec::new(),
        access: AccessLevel::Write,
        create: true,
        partial: None,
    }))
}

/// Whether a state is whole with this piece, if those before it are there.
pub(crate) fn is_last(piece: &SnapshotMessage) -> bool {
    let end = u64::try_from(piece.bytes.len()).map(|length| piece.offset.saturating_add(length));
    end == Ok(piece.total_bytes)
}

/// How much more is to be read, at least, to have a whole frame: first the rest of the header, then the payload.
fn missing_bytes(bytes: &[u8]) -> usize {
    let (header, length) = match bytes {
        [_, 126, high, low, ..] => (4, usize::from(u16::from_be_bytes([*high, *low]))),
        [_, 127, rest @ ..] => match rest.first_chunk() {
            Some(length) => (
                10,
                usize::try_from(u64::from_be_bytes(*length)).unwrap_or(0),
            ),
            None => (10, 0),
        },
        [_, 126, ..] => (4, 0),
        [_, length, ..] => (2, usize::from(*length)),
        _ => (2, 0),
    };
    (header + length).saturating_sub(bytes.len())
}

/// Reads the answer to the request for a WebSocket, and not a byte more.
fn read_upgrade(stream: &mut TcpStream) -> Result<(), Failure> {
    const END: &[u8] = b"\r\n\r\n";
    let mut seen = [0; 1024];
    loop {
        let n = stream.peek(&mut seen)?;
        let seen = seen.get(..n).unwrap_or_default();
        if n == 0 {
            return Err("the server closed a connection at once".into());
        }
        if let Some(end) = seen.windows(END.len()).position(|window| window == END) {
            if !seen.starts_with(b"HTTP/1.1 101") {
                return Err(String::from_utf8_lossy(seen).into());
            }
            let mut answer = vec![0; end + END.len()];
            return Ok(stream.read_exact(&mut answer)?);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_in_two_steps_and_not_beyond_its_end() {
        for (bytes, missing) in [
            (vec![0x82, 0], 0),
            (vec![0x82, 5], 5),
            (vec![0x82, 5, 1, 2], 3),
            (vec![0x82, 126], 2),
            (vec![0x82, 126, 1, 0], 256),
            (vec![0x82, 127], 8),
            (vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0], 65_536),
        ] {
            assert_eq!(missing_bytes(&bytes), missing, "{bytes:?}");
        }
    }
}
