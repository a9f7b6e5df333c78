//! Accepts WebSocket connections.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use async_trait::async_trait;
use sync_core::transport::websocket::{WebSocketTransport, config};
use sync_core::transport::{Acceptor, PeerInfo, Transport, TransportError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::handshake::server::{Request, create_response, write_response};
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, error::ProtocolError};

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
    listener: TcpListener,
    handshakes: JoinSet<Accepted>,
    /// At most so many at once; who comes then waits in the backlog of the port.
    handshakes_max: usize,
    handshake_timeout: Duration,
    /// Set after the system could not accept.
    paused_until: Option<Instant>,
}

impl WebSocketAcceptor {
    /// Listens at this address; port 0 takes a free one. A host name is looked up on the calling thread.
    ///
    /// # Errors
    /// If the address cannot be found or bound.
    pub async fn bind(address: impl ToSocketAddrs) -> io::Result<Self> {
        let addresses: Vec<SocketAddr> = address.to_socket_addrs()?.collect();
        Ok(Self {
            listener: TcpListener::bind(&addresses[..]).await?,
            handshakes: JoinSet::new(),
            handshakes_max: 1024,
            handshake_timeout: Duration::from_secs(10),
            paused_until: None,
        })
    }

    /// The address that it listens at, with the port that was taken.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Time from the connection to the end of its opening handshake. Default 10 s.
    #[must_use]
    pub const fn handshake_timeout(mut self, value: Duration) -> Self {
        self.handshake_timeout = value;
        self
    }

    /// Opening handshakes at once, at least one. Default 1,024; more let more silent peers hold a socket.
    #[must_use]
    pub fn handshakes_max(mut self, value: usize) -> Self {
        self.handshakes_max = value.max(1);
        self
    }

    fn start_handshake(&mut self, stream: TcpStream, address: SocketAddr) {
        let limit = self.handshake_timeout;
        self.handshakes.spawn(async move {
            let done = match timeout(limit, handshake(stream)).await {
                Ok(done) => done,
                Err(elapsed) => Err(lost(io::Error::new(io::ErrorKind::TimedOut, elapsed))),
            };
            match done {
                Ok(socket) => {
                    let transport: Box<dyn Transport> = Box::new(WebSocketTransport::new(socket));
                    Ok((transport, PeerInfo::at(address)))
                }
                Err(error) => {
                    tracing::debug!(%address, %error, "a connection came to nothing");
                    Err(error)
                }
            }
        });
    }
}

#[async_trait]
impl Acceptor for WebSocketAcceptor {
    async fn accept(&mut self) -> Option<Accepted> {
        loop {
            let has_room = self.handshakes.len() < self.handshakes_max;
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    return Some(done.unwrap_or_else(|error| Err(lost(io::Error::other(error)))));
                }
                () = wait_until(self.paused_until), if self.paused_until.is_some() => self.paused_until = None,
                accepted = self.listener.accept(), if has_room && self.paused_until.is_none() => match accepted {
                    Ok((stream, address)) => self.start_handshake(stream, address),
                    Err(error) => {
                        if !is_about_the_peer(&error) {
                            // Out of file descriptors or memory. The connection stays in the backlog, so that
                            // trying again at once would fail again at once.
                            tracing::warn!(%error, "cannot accept connections for the moment");
                            self.paused_until = Some(Instant::now() + PAUSE);
                        }
                        return Some(Err(lost(error)));
                    }
                },
            }
        }
    }
}

type Accepted = Result<(Box<dyn Transport>, PeerInfo), TransportError>;

async fn wait_until(time: Option<Instant>) {
    if let Some(time) = time {
        sleep_until(time).await;
    }
}

/// Reads the request and answers it. Not the library's own, which answers nothing to who asks for no WebSocket.
async fn handshake(mut stream: TcpStream) -> Result<WebSocketStream<TcpStream>, TransportError> {
    // Our frames are written when they should leave.
    stream.set_nodelay(true).map_err(lost)?;
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
                Ok(
                    WebSocketStream::from_partially_read(
                        stream,
                        rest,
                        Role::Server,
                        Some(config()),
                    )
                    .await,
                )
            }
            Err(_) if head.first() == Some(&TLS_HANDSHAKE) => Err(TransportError::WrongProtocol(
                "TLS, this port speaks it not".into(),
            )),
            Err(error @ Error::Protocol(ProtocolError::HttparseError(_))) => {
                Err(TransportError::WrongProtocol(format!("not HTTP: {error}")))
            }
            Err(error) => Err(refuse(stream, &error.to_string()).await),
        };
    }
}

/// Tells somebody who speaks HTTP what this port is, and returns the error to report.
async fn refuse(mut stream: TcpStream, why: &str) -> TransportError {
    const TEXT: &str = "This port speaks the sync protocol over WebSocket.\n";
    let answer = format!(
        "HTTP/1.1 426 Upgrade Required\r\nConnection: close, upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{TEXT}",
        TEXT.len()
    );
    if stream.write_all(answer.as_bytes()).await.is_ok() && stream.shutdown().await.is_ok() {
        // A socket dropped with unread bytes is reset, and the reset can overtake the answer.
        let mut rest = stream.take(REST_BYTES_MAX);
        let mut sink = tokio::io::sink();
        let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut sink)).await;
    }
    TransportError::WrongProtocol(format!("not a request for a WebSocket: {why}"))
}

/// Whether the connection failed before it was accepted, and the next one is as good as any.
fn is_about_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

fn lost(error: io::Error) -> TransportError {
    TransportError::Lost(Some(error.into()))
}

/// Long enough not to spin, short enough that nobody in the backlog gives up.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes of a request that is not complete after which it is refused; browsers and proxies send a few hundred.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a refused request that are still read.
const REST_BYTES_MAX: u64 = 64 * 1024;
/// How long a refused peer may take to read the answer and close.
const LINGER: Duration = Duration::from_secs(1);
/// First byte of a TLS connection (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;
