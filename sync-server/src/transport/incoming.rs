//! Accepting sockets: opening handshakes run beside each other, each for a bounded time.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use sync_core::transport::{PeerInfo, Transport, TransportError};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

pub(super) type Accepted = Result<(Box<dyn Transport>, PeerInfo), TransportError>;

/// Where sockets come from.
pub(super) trait Listen: Send + Sync {
    type Stream: Send + 'static;

    /// The next connection. Safe to cancel.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, PeerInfo)>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, PeerInfo)> {
        let (stream, address) = self.accept().await?;
        Ok((stream, PeerInfo::at(address)))
    }
}

#[cfg(all(feature = "unix", unix))]
impl Listen for tokio::net::UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&self) -> io::Result<(Self::Stream, PeerInfo)> {
        let (stream, _) = self.accept().await?;
        Ok((stream, PeerInfo::default()))
    }
}

/// A listener and the handshakes of those who came to it.
#[derive(Debug)]
pub(super) struct Incoming<L> {
    pub(super) listener: L,
    handshakes: JoinSet<Accepted>,
    /// At most so many at once; who comes then waits in the backlog of the listener.
    pub(super) handshakes_max: usize,
    pub(super) handshake_timeout: Duration,
    /// Set after the system could not accept.
    paused_until: Option<Instant>,
}

impl<L: Listen> Incoming<L> {
    pub(super) fn new(listener: L) -> Self {
        Self {
            listener,
            handshakes: JoinSet::new(),
            handshakes_max: 1024,
            handshake_timeout: Duration::from_secs(10),
            paused_until: None,
        }
    }

    /// The next connection whose handshake is done, or has failed. Safe to cancel.
    pub(super) async fn accept<F>(&mut self, handshake: impl Fn(L::Stream) -> F) -> Accepted
    where
        F: Future<Output = Result<Box<dyn Transport>, TransportError>> + Send + 'static,
    {
        loop {
            let has_room = self.handshakes.len() < self.handshakes_max;
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    return done.unwrap_or_else(|error| Err(lost(io::Error::other(error))));
                }
                () = wait_until(self.paused_until), if self.paused_until.is_some() => self.paused_until = None,
                accepted = self.listener.next(), if has_room && self.paused_until.is_none() => match accepted {
                    Ok((stream, peer)) => self.start(handshake(stream), peer),
                    Err(error) => {
                        if !is_about_the_peer(&error) {
                            // Out of file descriptors or memory. The connection stays in the backlog, so that
                            // trying again at once would fail again at once.
                            tracing::warn!(%error, "cannot accept connections for the moment");
                            self.paused_until = Some(Instant::now() + PAUSE);
                        }
                        return Err(lost(error));
                    }
                },
            }
        }
    }

    fn start<F>(&mut self, handshake: F, peer: PeerInfo)
    where
        F: Future<Output = Result<Box<dyn Transport>, TransportError>> + Send + 'static,
    {
        let limit = self.handshake_timeout;
        self.handshakes.spawn(async move {
            let done = match timeout(limit, handshake).await {
                Ok(done) => done,
                Err(elapsed) => Err(lost(io::Error::new(io::ErrorKind::TimedOut, elapsed))),
            };
            match done {
                Ok(transport) => Ok((transport, peer)),
                Err(error) => {
                    tracing::debug!(%peer, %error, "a connection came to nothing");
                    Err(error)
                }
            }
        });
    }
}

/// A listener at a TCP address, for servers whose clients may all come back at once: as many of them as the system allows
/// wait to be accepted. Port 0 takes a free port; a host name is looked up on the calling thread.
///
/// For acceptors of yours, and axum: `tokio::net::TcpListener::from_std` takes it. Ours do the same.
///
/// # Errors
/// If the address cannot be found or bound.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn tcp_listener(address: impl ToSocketAddrs) -> io::Result<std::net::TcpListener> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in address.to_socket_addrs()? {
        match bind(address) {
            Ok(listener) => return listener.into_std(),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // On Unix, connections of an earlier process are no reason to fail. On Windows this would take the port from others.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

async fn wait_until(time: Option<Instant>) {
    if let Some(time) = time {
        sleep_until(time).await;
    }
}

/// Whether the connection failed before it was accepted, and the next one is as good as any.
fn is_about_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

pub(super) fn lost(error: io::Error) -> TransportError {
    TransportError::Lost(Some(error.into()))
}

/// Connections that the system keeps until they are accepted; it may take less. Who does not find a place when many come back at
/// once tries again only after a second.
pub(super) const BACKLOG: u32 = 65_535;
/// Long enough not to spin, short enough that nobody in the backlog gives up.
const PAUSE: Duration = Duration::from_millis(100);
