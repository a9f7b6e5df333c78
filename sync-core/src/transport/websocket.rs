//! Frames over a WebSocket that somebody else connects and drives, one per binary message.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use futures_util::Sink;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Error, Message, Utf8Bytes};

use super::{Transport, TransportError, owned};
use crate::limits::FRAGMENT_BYTES;
use crate::maybe_send::MaybeSend;

pub use super::MESSAGE_BYTES_MAX;

/// How our WebSockets buffer: little while idle, several frames per write, and never without bound.
#[must_use]
pub fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        // Kept by every connection for as long as it lives. Measured: 1 KiB costs no time, 0 costs 10 %.
        .read_buffer_size(1024)
        .write_buffer_size(16 * 1024)
        // Never reached by who keeps to the contract of `Transport`: what is allowed unflushed, and one flush.
        .max_write_buffer_size(UNFLUSHED_BYTES_MAX + 1024 * 1024)
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX))
}

/// A [`Transport`] over a WebSocket, such as tokio-tungstenite's `WebSocketStream` with our [`config`].
///
/// Binary messages are frames; a text message is a protocol error. Pings and pongs of the WebSocket are left
/// to the library.
#[derive(Debug)]
pub struct WebSocketTransport<S> {
    socket: S,
    /// Bytes handed over since everything was flushed last.
    unflushed: usize,
    /// Our close message was handed over.
    closing: bool,
    close_code: Option<u16>,
}

impl<S> WebSocketTransport<S>
where
    S: Stream<Item = Result<Message, Error>>
        + Sink<Message, Error = Error>
        + Unpin
        + MaybeSend
        + 'static,
{
    /// Wraps a WebSocket whose opening handshake is done.
    #[must_use]
    pub const fn new(socket: S) -> Self {
        Self {
            socket,
            unflushed: 0,
            closing: false,
            close_code: None,
        }
    }

    /// Sends a close message and tries to get it out, without waiting.
    fn say_close(&mut self, cx: &mut Context<'_>, code: u16, reason: &'static str) {
        let frame = CloseFrame {
            code: CloseCode::from(code),
            reason: Utf8Bytes::from_static(reason),
        };
        self.closing = true;
        // If it cannot be sent, the connection is as closed as can be.
        if Pin::new(&mut self.socket)
            .start_send(Message::Close(Some(frame)))
            .is_ok()
        {
            let _ = Pin::new(&mut self.socket).poll_flush(cx);
        }
    }

    fn was_closed(&mut self, frame: Option<&CloseFrame>) {
        self.close_code = Some(frame.map_or(NO_CODE, |frame| frame.code.into()));
    }
}

impl<S> Transport for WebSocketTransport<S>
where
    S: Stream<Item = Result<Message, Error>>
        + Sink<Message, Error = Error>
        + Unpin
        + MaybeSend
        + 'static,
{
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, TransportError>>> {
        loop {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(frame))) => return Poll::Ready(Some(Ok(owned(frame)))),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Text(_))) => {
                    self.say_close(cx, CLOSE_UNSUPPORTED, "frames are binary messages");
                    let error =
                        TransportError::WrongProtocol("a text message, frames are binary".into());
                    return Poll::Ready(Some(Err(error)));
                }
                Some(Ok(Message::Close(frame))) => {
                    self.was_closed(frame.as_ref());
                    // The library has queued the answer; the client side would otherwise wait for the end of
                    // the socket, which the other side may keep open.
                    let _ = Pin::new(&mut self.socket).poll_flush(cx);
                    return Poll::Ready(None);
                }
                Some(Err(error)) => {
                    let error = transport_error(error);
                    match &error {
                        TransportError::WrongProtocol(_) => {
                            self.say_close(cx, CLOSE_PROTOCOL, "not the WebSocket protocol");
                        }
                        TransportError::TooLarge { .. } => {
                            self.say_close(cx, CLOSE_TOO_LARGE, "message too large")
                        }
                        TransportError::Lost(_) => {}
                    }
                    return Poll::Ready(Some(Err(error)));
                }
                None => return Poll::Ready(None),
            }
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if self.unflushed >= UNFLUSHED_BYTES_MAX {
            ready!(self.poll_flush(cx))?;
        }
        Pin::new(&mut self.socket)
            .poll_ready(cx)
            .map_err(transport_error)
    }

    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        self.unflushed = self
            .unflushed
            .saturating_add(frame.len())
            .saturating_add(HEADER_BYTES_MAX);
        Pin::new(&mut self.socket)
            .start_send(Message::Binary(frame))
            .map_err(transport_error)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        ready!(Pin::new(&mut self.socket).poll_flush(cx)).map_err(transport_error)?;
        self.unflushed = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        if self.close_code.is_some() {
            return Poll::Ready(());
        }
        if !self.closing {
            self.say_close(cx, code, "");
        }
        if ready!(Pin::new(&mut self.socket).poll_flush(cx)).is_err() {
            return Poll::Ready(());
        }
        // A socket dropped with unread bytes is reset, and the reset can overtake our close message: so read
        // until the other side has answered it.
        loop {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Close(frame))) => {
                    self.was_closed(frame.as_ref());
                    return Poll::Ready(());
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(()),
            }
        }
    }

    fn close_code(&self) -> Option<u16> {
        self.close_code
    }
}

fn transport_error(error: Error) -> TransportError {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => TransportError::Lost(None),
        Error::Protocol(
            ProtocolError::ResetWithoutClosingHandshake | ProtocolError::SendAfterClosing,
        )
        | Error::Io(_) => TransportError::Lost(Some(error.into())),
        Error::Capacity(tungstenite::error::CapacityError::MessageTooLong { size, max_size }) => {
            TransportError::TooLarge {
                bytes: size,
                max: max_size,
            }
        }
        Error::Protocol(_) | Error::Utf8(_) | Error::AttackAttempt => {
            TransportError::WrongProtocol(error.to_string())
        }
        _ => TransportError::Lost(Some(error.into())),
    }
}

/// Unflushed bytes above which no more are taken before a flush; the largest frame fits.
const UNFLUSHED_BYTES_MAX: usize = FRAGMENT_BYTES;
/// RFC 6455 section 5.2: flags, length and mask of a message.
const HEADER_BYTES_MAX: usize = 14;
/// RFC 6455 section 7.4.1.
const CLOSE_PROTOCOL: u16 = 1002;
const CLOSE_UNSUPPORTED: u16 = 1003;
/// A close message without a code; this is never sent.
const NO_CODE: u16 = 1005;
const CLOSE_TOO_LARGE: u16 = 1009;
