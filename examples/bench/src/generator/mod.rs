//! What loads a server: many WebSocket connections on one thread, cheap enough not to be the bottleneck.
//!
//! One loop waits for all sockets at once. They are read into one large buffer, frames are handed out as slices of it, and
//! nothing is decoded that is not asked for.

mod format;
mod framing;

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

pub(crate) use self::format::{Format, Frame, RELAY_ACK};
pub(crate) use self::framing::{BINARY, header_bytes, next_frame, put_frame};
use self::framing::{CLOSE, PING, PONG};
use crate::Failure;

/// Read at once from one socket.
const READ_BYTES: usize = 256 * 1024;
/// Sockets that are served in one turn; what has been received is then looked at.
const EVENTS_MAX: usize = 256;
/// A connection that has sent nothing for so long says that it lives; servers give up those that say nothing for 35 s.
const SILENCE_MAX: Duration = Duration::from_secs(10);

const INTEREST: Interest = Interest::READABLE.add(Interest::WRITABLE);

/// The connections. They are named by their numbers, from 0, in the order in which they were added.
pub(crate) struct Generator {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    connections: Vec<Connection>,
    /// Those that have something to be written.
    unwritten: Vec<usize>,
    /// What is sent to say that a connection lives.
    sign_of_life: Option<Vec<u8>>,
    looked_for_silence: Instant,
    bytes_received: u64,
}

struct Connection {
    /// `None` once it was dropped.
    stream: Option<TcpStream>,
    /// The beginning of a frame whose end is still to come.
    received: Vec<u8>,
    /// What is still to be written.
    sending: Vec<u8>,
    /// Whether it is among those that have something to be written.
    is_unwritten: bool,
    last_sent: Instant,
}

impl Generator {
    /// No connections. The sign of life is a message; there is none for servers that need none.
    pub(crate) fn new(sign_of_life: Option<&[u8]>) -> Result<Self, Failure> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS_MAX),
            buffer: vec![0; READ_BYTES],
            connections: Vec::new(),
            unwritten: Vec::new(),
            sign_of_life: sign_of_life.map(<[u8]>::to_vec),
            looked_for_silence: Instant::now(),
            bytes_received: 0,
        })
    }

    /// Takes over a connection whose WebSocket is open, all of whose bytes so far have been read.
    pub(crate) fn add(&mut self, stream: std::net::TcpStream) -> Result<usize, Failure> {
        stream.set_nonblocking(true)?;
        let id = self.connections.len();
        let mut stream = TcpStream::from_std(stream);
        self.poll
            .registry()
            .register(&mut stream, Token(id), INTEREST)?;
        self.connections.push(Connection {
            stream: Some(stream),
            received: Vec::new(),
            sending: Vec::new(),
            is_unwritten: false,
            last_sent: Instant::now(),
        });
        Ok(id)
    }

    /// Bytes received over all connections, with the headers of WebSocket frames.
    pub(crate) const fn bytes_received(&self) -> u64 {
        self.bytes_received
    }

    /// Sends a message with the next turn, in one write with others of the same connection.
    pub(crate) fn send(&mut self, id: usize, message: &[u8]) {
        self.put(id, BINARY, message);
    }

    /// Stops reading a connection, so that its server cannot write either before long.
    pub(crate) fn stop(&mut self, id: usize) -> Result<(), Failure> {
        let stream = self.connections.get_mut(id).and_then(|c| c.stream.as_mut());
        let stream = stream.ok_or("no such connection")?;
        Ok(self.poll.registry().deregister(stream)?)
    }

    /// Reads a connection again that was stopped.
    pub(crate) fn go_on(&mut self, id: usize) -> Result<(), Failure> {
        let stream = self.connections.get_mut(id).and_then(|c| c.stream.as_mut());
        let stream = stream.ok_or("no such connection")?;
        Ok(self.poll.registry().register(stream, Token(id), INTEREST)?)
    }

    /// Drops a connection, without a word.
    pub(crate) fn drop_connection(&mut self, id: usize) -> Result<(), Failure> {
        self.stop(id)?;
        if let Some(connection) = self.connections.get_mut(id) {
            connection.stream = None;
            connection.sending = Vec::new();
            connection.received = Vec::new();
        }
        Ok(())
    }

    /// Writes what is to be written, waits for at most so long until something has been received, and hands out each
    /// message with the number of its connection.
    ///
    /// Waiting is exact to a millisecond, upwards; without any, it takes what is there.
    pub(crate) fn turn(
        &mut self,
        wait: Duration,
        mut sink: impl FnMut(usize, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.keep_alive();
        self.write_all()?;
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        match self.poll.poll(&mut events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            let Token(id) = event.token();
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.receive(id, &mut sink)?;
            }
            if event.is_writable() {
                self.write(id)?;
            }
        }
        self.events = events;
        // Pongs.
        self.write_all()
    }

    fn put(&mut self, id: usize, opcode: u8, message: &[u8]) {
        if let Some(connection) = self.connections.get_mut(id) {
            put_frame(&mut connection.sending, opcode, message);
            if !std::mem::replace(&mut connection.is_unwritten, true) {
                self.unwritten.push(id);
            }
        }
    }

    fn write_all(&mut self) -> Result<(), Failure> {
        let mut unwritten = std::mem::take(&mut self.unwritten);
        for id in unwritten.drain(..) {
            self.write(id)?;
        }
        self.unwritten = unwritten;
        Ok(())
    }

    /// What the socket does not take waits until it is writable again.
    fn write(&mut self, id: usize) -> Result<(), Failure> {
        let Some(connection) = self.connections.get_mut(id) else {
            return Ok(());
        };
        connection.is_unwritten = false;
        let Some(stream) = &mut connection.stream else {
            return Ok(());
        };
        let mut written = 0;
        while let Some(rest) = connection.sending.get(written..)
            && !rest.is_empty()
        {
            match stream.write(rest) {
                Ok(n) => written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        if written > 0 {
            connection.last_sent = Instant::now();
            connection.sending.drain(..written);
        }
        Ok(())
    }

    fn receive(
        &mut self,
        id: usize,
        sink: &mut impl FnMut(usize, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        loop {
            let Some(connection) = self.connections.get_mut(id) else {
                return Ok(());
            };
            let Some(stream) = &mut connection.stream else {
                return Ok(());
            };
            let held = connection.received.len();
            if self.buffer.len() < held + READ_BYTES {
                self.buffer.resize(held + READ_BYTES, 0);
            }
            let (start, room) = self.buffer.split_at_mut(held);
            let n = match stream.read(room) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let is_all = n < room.len();
            start.copy_from_slice(&connection.received);
            connection.received.clear();
            self.bytes_received += u64::try_from(n)?;
            let mut pong = None;
            let mut rest = self.buffer.get(..held + n).unwrap_or_default();
            while let Some((frame, after)) = next_frame(rest)? {
                rest = after;
                match frame.opcode {
                    BINARY => sink(id, frame.payload)?,
                    PING => pong = Some(frame.payload.to_vec()),
                    CLOSE => return Err(frame.close_reason().into()),
                    _ => {}
                }
            }
            connection.received.extend(rest);
            if let Some(payload) = pong {
                self.put(id, PONG, &payload);
            }
            // As epoll(7) has it: less than was asked for means that there is no more, and what comes later is told again.
            if is_all {
                return Ok(());
            }
        }
    }

    fn keep_alive(&mut self) {
        let now = Instant::now();
        if now - self.looked_for_silence < SILENCE_MAX / 10 {
            return;
        }
        self.looked_for_silence = now;
        let Some(sign_of_life) = self.sign_of_life.take() else {
            return;
        };
        for id in 0..self.connections.len() {
            let last = self
                .connections
                .get(id)
                .map(|connection| connection.last_sent);
            if last.is_some_and(|last| now - last > SILENCE_MAX) {
                self.send(id, &sign_of_life);
            }
        }
        self.sign_of_life = Some(sign_of_life);
    }
}
