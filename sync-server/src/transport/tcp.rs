//! Accepts TCP connections that carry frames.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use async_trait::async_trait;
use sync_core::transport::{Acceptor, PeerInfo, Transport, TransportError};
use tokio::net::{TcpListener, TcpStream};

use super::incoming::{Accepted, Incoming, lost, tcp_listener};
use super::stream;

/// Accepts TCP connections that carry frames with their lengths, without TLS or HTTP around them. Runs on tokio.
///
/// Handshakes run beside each other, as those of a WebSocket acceptor do. Who speaks HTTP or TLS is told that this port does
/// not; whoever speaks anything else is cut off.
#[derive(Debug)]
pub struct TcpAcceptor {
    incoming: Incoming<TcpListener>,
}

impl TcpAcceptor {
    /// Listens at this address; port 0 takes a free one. A host name is looked up on the calling thread.
    ///
    /// # Errors
    /// If the address cannot be found or bound.
    #[expect(
        clippy::unused_async,
        reason = "names may come to be looked up without blocking"
    )]
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        Ok(Self {
            incoming: Incoming::new(TcpListener::from_std(tcp_listener(address)?)?),
        })
    }

    /// The address that it listens at, with the port that was taken.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.incoming.listener.local_addr()
    }

    /// Time from the connection to the end of its opening handshake. Default 10 s.
    #[must_use]
    pub const fn handshake_timeout(mut self, value: Duration) -> Self {
        self.incoming.handshake_timeout = value;
        self
    }

    /// Opening handshakes at once, at least one. Default 1,024; more let more silent peers hold a socket. Who comes then has the
    /// place of the oldest.
    #[must_use]
    pub fn handshakes_max(mut self, value: usize) -> Self {
        self.incoming.handshakes_max = value.max(1);
        self
    }
}

#[async_trait]
impl Acceptor for TcpAcceptor {
    async fn accept(&mut self) -> Option<Result<(Box<dyn Transport>, PeerInfo), TransportError>> {
        let accepted: Accepted = self.incoming.accept(handshake).await;
        Some(accepted)
    }
}

async fn handshake(stream: TcpStream) -> Result<Box<dyn Transport>, TransportError> {
    // Our frames are written when they should leave.
    stream.set_nodelay(true).map_err(lost)?;
    stream::handshake(stream).await
}
