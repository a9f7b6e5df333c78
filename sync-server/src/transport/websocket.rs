//! Accepts WebSocket connections.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use async_trait::async_trait;
use sync_core::transport::websocket::{WebSocketTransport, config};
use sync_core::transport::{Acceptor, Transport, TransportError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, error::ProtocolError};

use super::incoming::{Accepted, Incoming, lost, tcp_listener};
use super::refuse::{TLS_HANDSHAKE, answer};

/// Accepts WebSocket connections on a TCP port, at any path. Runs on tokio.
///
/// Opening handshakes run beside each other, each for a bounded time and a bounded number of them at once, so
/// that a peer which says nothing keeps nobody waiting. Whoever speaks HTTP but asks for no WebSocket gets an
/// answer in plain text that says what this port is; whoever speaks anything else is cut off.
///
/// [`accept`](Acceptor::accept) reports connections that came to nothing as errors, and goes on after each.
/// It makes progress, with handshakes too, only while it is polled. Dropping the acceptor closes the port.
#[derive(Debug)]
pub struct WebSocketAcceptor {
    incoming: Incoming<TcpListener>,
    #[cfg(feature = "tls")]
    tls: Option<crate::tls::Tls>,
}

impl WebSocketAcceptor {
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
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    /// The address that it listens at, with the port that was taken.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.incoming.listener.local_addr()
    }

    /// Speaks TLS with whoever connects, for `wss://` addresses. Default not.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: crate::tls::Tls) -> Self {
        self.tls = Some(tls);
        self
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
impl Acceptor for WebSocketAcceptor {
    async fn accept(&mut self) -> Option<Accepted> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let tls = tls.clone();
            let accepted = self
                .incoming
                .accept(move |stream| secure(tls.clone(), stream));
            return Some(accepted.await);
        }
        Some(self.incoming.accept(plain).await)
    }
}

async fn plain(stream: TcpStream) -> Result<Box<dyn Transport>, TransportError> {
    // Our frames are written when they should leave.
    stream.set_nodelay(true).map_err(lost)?;
    handshake(stream).await
}

#[cfg(feature = "tls")]
async fn secure(
    tls: crate::tls::Tls,
    stream: TcpStream,
) -> Result<Box<dyn Transport>, TransportError> {
    stream.set_nodelay(true).map_err(lost)?;
    let stream = tls.accept(stream).await.map_err(|error| {
        match error
            .get_ref()
            .is_some_and(|inner| inner.is::<rustls::Error>())
        {
            true => TransportError::WrongProtocol(format!("no TLS that this port speaks: {error}")),
            false => lost(error),
        }
    })?;
    handshake(stream).await
}

/// Reads the request and answers it. Not the library's own, which answers nothing to who asks for no WebSocket.
async fn handshake<S>(mut stream: S) -> Result<Box<dyn Transport>, TransportError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut head = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await.map_err(lost)? == 0 {
            return Err(TransportError::Lost(None));
        }
        let (size, response) = match Request::try_parse(&head) {
            Ok(Some((size, request))) => (size, create_response(&request)),
            Ok(None) if head.len() < HEAD_BYTES_MAX => continue,
            Ok(None) => return Err(refuse(stream, "an endless HTTP request").await),
            Err(error) => (0, Err(error)),
        };
        return match response {
            Ok(response) => {
                let mut answer = Vec::new();
                write_response(&mut answer, &response)
                    .map_err(|error| lost(io::Error::other(error)))?;
                stream.write_all(&answer).await.map_err(lost)?;
                // What was sent behind the request belongs to the WebSocket.
                let rest = head.split_off(size);
                let socket = WebSocketStream::from_partially_read(
                    stream,
                    rest,
                    Role::Server,
                    Some(config()),
                );
                Ok(Box::new(WebSocketTransport::new(socket.await)))
            }
            Err(_) if head.first() == Some(&TLS_HANDSHAKE) => {
                Err(refuse(stream, "TLS, which this port does not speak").await)
            }
            // Told to, because it may be one of our own clients that has been given the wrong address.
            Err(_) if head.first() == Some(&OUR_PREFACE) => {
                Err(refuse(stream, "frames without a WebSocket").await)
            }
            Err(error @ Error::Protocol(ProtocolError::HttparseError(_))) => {
                Err(TransportError::WrongProtocol(format!("not HTTP: {error}")))
            }
            Err(error) => Err(refuse(stream, &error.to_string()).await),
        };
    }
}

/// Tells a peer what this port is, and returns the error to report.
async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: S, why: &str) -> TransportError {
    const STATUS: &str = "426 Upgrade Required\r\nConnection: close, upgrade\r\nUpgrade: websocket\r\n\
        Sec-WebSocket-Version: 13";
    const TEXT: &str = "This port speaks the sync protocol over WebSocket.\n";
    answer(stream, STATUS, TEXT).await;
    TransportError::WrongProtocol(format!("not a request for a WebSocket: {why}"))
}

/// Bytes of a request that is not complete after which it is refused; browsers and proxies send a few hundred.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// First byte of frames over a stream without WebSocket (`docs/protocol.md` section 1).
const OUR_PREFACE: u8 = 0x89;
