//! A WebSocket of axum as the WebSocket that the core's transport drives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::ws;
use futures_core::Stream;
use futures_util::Sink;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

/// axum wraps the messages and errors of the library below; this unwraps them.
#[derive(Debug)]
pub(super) struct Socket(pub(super) ws::WebSocket);

impl Stream for Socket {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = ready!(Pin::new(&mut self.0).poll_next(cx));
        Poll::Ready(next.map(|received| received.map(from_axum).map_err(error_from_axum)))
    }
}

impl Sink<Message> for Socket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.0)
            .poll_ready(cx)
            .map_err(error_from_axum)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), Error> {
        // Raw frames are not made by anybody here.
        let Some(message) = to_axum(message) else {
            return Ok(());
        };
        Pin::new(&mut self.0)
            .start_send(message)
            .map_err(error_from_axum)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.0)
            .poll_flush(cx)
            .map_err(error_from_axum)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.0)
            .poll_close(cx)
            .map_err(error_from_axum)
    }
}

fn from_axum(message: ws::Message) -> Message {
    match message {
        ws::Message::Binary(bytes) => Message::Binary(bytes),
        ws::Message::Text(text) => Message::text(text.as_str()),
        ws::Message::Ping(bytes) => Message::Ping(bytes),
        ws::Message::Pong(bytes) => Message::Pong(bytes),
        ws::Message::Close(frame) => Message::Close(frame.map(|frame| CloseFrame {
            code: frame.code.into(),
            reason: Utf8Bytes::from(frame.reason.as_str()),
        })),
    }
}

fn to_axum(message: Message) -> Option<ws::Message> {
    Some(match message {
        Message::Binary(bytes) => ws::Message::Binary(bytes),
        Message::Text(text) => ws::Message::text(text.as_str()),
        Message::Ping(bytes) => ws::Message::Ping(bytes),
        Message::Pong(bytes) => ws::Message::Pong(bytes),
        Message::Close(frame) => ws::Message::Close(frame.map(|frame| ws::CloseFrame {
            code: frame.code.into(),
            reason: frame.reason.as_str().into(),
        })),
        Message::Frame(_) => return None,
    })
}

fn error_from_axum(error: axum::Error) -> Error {
    match error.into_inner().downcast::<Error>() {
        Ok(error) => *error,
        Err(other) => Error::Io(io::Error::other(other)),
    }
}
