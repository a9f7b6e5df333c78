//! What goes over a client's connections, message by message.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use sync_client::transport::{DialError, Dialer, Transport, TransportError};
use sync_core::limits::Limits;
use sync_core::wire::{Message, Reassembler, decode_frame};

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// To the server.
    Up,
    Down,
}

/// One message on one of the client's connections.
#[derive(Debug, Clone)]
pub struct Seen {
    pub way: Way,
    pub message: Message,
    /// Of its frames together.
    pub bytes: usize,
    pub compressed: bool,
}

/// Everything that went over a client's connections so far.
#[derive(Debug, Clone, Default)]
pub struct Tap(Arc<Mutex<Vec<Seen>>>);

impl Tap {
    /// Passes on what `dialer` makes.
    pub fn on(&self, dialer: impl Dialer) -> impl Dialer {
        TappedDialer {
            dialer: Box::new(dialer),
            tap: self.clone(),
        }
    }

    pub fn all(&self) -> Vec<Seen> {
        self.0.lock().unwrap().clone()
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    /// The messages of one way for which `pick` has something.
    pub fn pick<T>(&self, way: Way, pick: impl Fn(Message) -> Option<T>) -> Vec<T> {
        let seen = self.all().into_iter().filter(|seen| seen.way == way);
        seen.filter_map(|seen| pick(seen.message)).collect()
    }

    /// Names of the messages of one way, pings and pongs left out.
    pub fn names(&self, way: Way) -> Vec<&'static str> {
        self.pick(way, |message| match message {
            Message::Ping(_) | Message::Pong(_) => None,
            message => Some(message.name()),
        })
    }
}

struct TappedDialer {
    dialer: Box<dyn Dialer>,
    tap: Tap,
}

#[async_trait]
impl Dialer for TappedDialer {
    async fn dial(&self) -> Result<Box<dyn Transport>, DialError> {
        let transport = self.dialer.dial().await?;
        Ok(Box::new(Tapped {
            transport,
            tap: self.tap.clone(),
            up: Direction::new(),
            down: Direction::new(),
        }))
    }
}

struct Tapped {
    transport: Box<dyn Transport>,
    tap: Tap,
    up: Direction,
    down: Direction,
}

struct Direction {
    reassembler: Reassembler,
    bytes: usize,
}

impl Direction {
    fn new() -> Self {
        Self {
            reassembler: Reassembler::new(&Limits::default()),
            bytes: 0,
        }
    }

    fn note(&mut self, tap: &Tap, way: Way, frame: &Bytes) {
        self.bytes += frame.len();
        let frame = match decode_frame(frame.clone(), usize::MAX - 1) {
            Ok(Message::Fragment(fragment)) => match self.reassembler.handle(fragment) {
                Ok(Some(whole)) => whole,
                _ => return,
            },
            _ => frame.clone(),
        };
        let bytes = std::mem::take(&mut self.bytes);
        let compressed = frame.first() == Some(&1);
        if let Ok(message) = decode_frame(frame, usize::MAX - 1) {
            tap.0.lock().unwrap().push(Seen {
                way,
                message,
                bytes,
                compressed,
            });
        }
    }
}

impl Transport for Tapped {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, TransportError>>> {
        let received = self.transport.poll_receive(cx);
        if let Poll::Ready(Some(Ok(frame))) = &received {
            self.down.note(&self.tap, Way::Down, frame);
        }
        received
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.transport.poll_ready(cx)
    }

    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        self.up.note(&self.tap, Way::Up, &frame);
        self.transport.start_send(frame)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.transport.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        self.transport.poll_close(cx, code)
    }

    fn close_code(&self) -> Option<u16> {
        self.transport.close_code()
    }
}
