//! What carries frames: the traits that a new kind of connection implements.

mod framed;
pub mod memory;
#[cfg(feature = "stream")]
pub mod stream;
#[cfg(any(test, feature = "test-suite"))]
pub mod suite;
#[cfg(feature = "websocket")]
pub mod websocket;

use std::fmt;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;

pub use self::framed::FramedTransport;
use crate::limits::FRAGMENT_BYTES;
use crate::maybe_send::{BoxError, MaybeSend, MaybeSync};

/// Bytes of the largest message that a transport takes. Ours are [`FRAGMENT_BYTES`] and a header; twice that leaves room.
pub const MESSAGE_BYTES_MAX: usize = 2 * FRAGMENT_BYTES;

/// Carries whole frames both ways, in order, and nothing more.
///
/// Polled, so that one task can read and write without a slow write stopping the reading. After an error or
/// the end of `poll_receive`, nothing else is called but drop. Dropping ends the connection without ceremony.
pub trait Transport: MaybeSend + Unpin + 'static {
    /// The next frame; `None` after the other side closed in order.
    fn poll_receive(&mut self, cx: &mut Context<'_>)
    -> Poll<Option<Result<Bytes, TransportError>>>;

    /// Ready when a frame may be handed over: what was handed over before is within the transport's buffer.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>>;

    /// Hands over one frame. Several may follow one `poll_ready` up to a few tens of KiB; they leave together
    /// with the next `poll_flush`.
    ///
    /// # Errors
    /// [`TransportError`] if the connection is broken.
    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError>;

    /// Ready when everything handed over has been written.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>>;

    /// Says goodbye with a close code (`docs/protocol.md` section 9) where the transport has one, after everything
    /// handed over. Ready when the other side can be taken to have got it, which takes for ever if that side is
    /// gone without a word: bound the wait. What arrives meanwhile is lost; then drop the transport.
    fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()>;

    /// The close code that the other side sent, once `poll_receive` has ended.
    fn close_code(&self) -> Option<u16> {
        None
    }
}

impl<T: Transport + ?Sized> Transport for Box<T> {
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, TransportError>>> {
        (**self).poll_receive(cx)
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        (**self).poll_ready(cx)
    }
    fn start_send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        (**self).start_send(frame)
    }
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        (**self).poll_flush(cx)
    }
    fn poll_close(&mut self, cx: &mut Context<'_>, code: u16) -> Poll<()> {
        (**self).poll_close(cx, code)
    }
    fn close_code(&self) -> Option<u16> {
        (**self).close_code()
    }
}

/// A connection that broke.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The other side is gone without having closed.
    #[error("the connection was lost")]
    Lost(#[source] Option<BoxError>),
    /// What arrived is not a frame of this transport, such as a text message on a WebSocket.
    #[error("the peer does not speak this transport: {0}")]
    WrongProtocol(String),
    /// A frame larger than the transport takes.
    #[error("a frame of {bytes} bytes arrived, the limit is {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

/// Makes connections.
#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
pub trait Dialer: MaybeSend + MaybeSync + 'static {
    /// Makes one connection.
    ///
    /// # Errors
    /// [`DialError`], which says whether trying again makes sense.
    ///
    /// # Cancellation
    /// Dropping the future gives the attempt up.
    async fn dial(&self) -> Result<Box<dyn Transport>, DialError>;
}

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nobody answered, or not now: try again.
    #[error("could not connect")]
    Unreachable(#[source] BoxError),
    /// The server could not show that it is the one at the address. Nothing has been sent to it. Try again: a network with
    /// a login page answers for others, certificates are renewed, and clocks are set.
    #[error("the server is not trusted: {0}")]
    Untrusted(CertificateProblem),
    /// Whoever answered wants other credentials: try again with fresh ones, if there are any.
    #[error("not authenticated: {0}")]
    Unauthenticated(String),
    /// Whoever answered does not speak this protocol, or refuses for good: do not try again.
    #[error("refused: {0}")]
    Refused(String),
}

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateProblem {
    /// It has expired, by the clock of this device.
    #[error("its certificate has expired")]
    Expired,
    /// It is not valid yet, by the clock of this device.
    #[error("its certificate is not valid yet")]
    NotYetValid,
    /// It is another host's.
    #[error("its certificate is another host's")]
    WrongName,
    /// Nobody who is trusted here has signed it.
    #[error("its certificate is signed by nobody who is trusted here")]
    UnknownIssuer,
    /// It is damaged, or not one for servers.
    #[error("its certificate is invalid")]
    Invalid,
}

/// Takes connections.
#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
pub trait Acceptor: MaybeSend + 'static {
    /// The next connection; `None` when there will be no more. An error concerns one connection only.
    ///
    /// # Cancellation
    /// Safe: no connection is lost.
    async fn accept(&mut self) -> Option<Result<(Box<dyn Transport>, PeerInfo), TransportError>>;
}

/// Where a connection comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Address of the peer, if the transport has addresses.
    pub address: Option<std::net::SocketAddr>,
}

impl PeerInfo {
    /// A peer at this address.
    #[must_use]
    pub const fn at(address: std::net::SocketAddr) -> Self {
        Self {
            address: Some(address),
        }
    }
}

impl fmt::Display for PeerInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("unknown address"),
        }
    }
}

/// Small frames get bytes of their own: a slice of the read buffer would pin the whole of it.
fn owned(frame: Bytes) -> Bytes {
    const COPIED_BYTES_MAX: usize = 512;
    if frame.len() <= COPIED_BYTES_MAX {
        Bytes::copy_from_slice(&frame)
    } else {
        frame
    }
}
