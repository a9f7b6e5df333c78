//! Accepting sockets: opening handshakes run beside each other, each for a bounded time.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sync_core::transport::{PeerInfo, Transport, TransportError};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

pub(super) type Accepted = Result<(Box<dyn Transport>, PeerInfo), TransportError>;

/// Where sockets come from.
pub(super) trait Listen: Send + Sync {
    type Stream: Send + 'static;

    /// The next connection. Safe to cancel.
    fn next(&self) -> impl Future<Output = io::Result<(Self::Stream, PeerInfo)>> + Send;

    /// Waits until there is something to read.
    fn readable(stream: &Self::Stream) -> impl Future<Output = io::Result<()>> + Send;
}

impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<(TcpStream, PeerInfo)> {
        let (stream, address) = self.accept().await?;
        Ok((stream, PeerInfo::at(address)))
    }

    async fn readable(stream: &TcpStream) -> io::Result<()> {
        stream.readable().await
    }
}

#[cfg(all(feature = "unix", unix))]
impl Listen for tokio::net::UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn next(&self) -> io::Result<(Self::Stream, PeerInfo)> {
        let (stream, _) = self.accept().await?;
        Ok((stream, PeerInfo::default()))
    }

    async fn readable(stream: &Self::Stream) -> io::Result<()> {
        stream.readable().await
    }
}

/// A listener and the handshakes of those who came to it.
#[derive(Debug)]
pub(super) struct Incoming<L> {
    pub(super) listener: L,
    handshakes: JoinSet<Accepted>,
    /// Those of them that are not known to be over, oldest first.
    ages: VecDeque<Handshake>,
    /// At most so many at once; who comes then has the place of the oldest that has said nothing, or takes long.
    pub(super) handshakes_max: usize,
    pub(super) handshake_timeout: Duration,
    /// Set after the system could not accept.
    paused_until: Option<Instant>,
}

/// A handshake that may have to make room.
#[derive(Debug)]
struct Handshake {
    task: AbortHandle,
    since: Instant,
    /// Nothing has come yet. Whoever means to connect sends the first bytes with what makes the connection.
    is_silent: Arc<AtomicBool>,
}

impl Handshake {
    /// When it may end for others. Not at once: this server may be slow, and would never get to the end of any.
    fn may_end_at(&self) -> Instant {
        let is_silent = self.is_silent.load(Ordering::Relaxed);
        self.since + if is_silent { SILENCE } else { PATIENCE }
    }

    fn may_end(&self) -> bool {
        self.may_end_at() <= Instant::now()
    }
}

impl<L: Listen> Incoming<L> {
    pub(super) fn new(listener: L) -> Self {
        Self {
            listener,
            handshakes: JoinSet::new(),
            ages: VecDeque::new(),
            handshakes_max: 1024,
            handshake_timeout: Duration::from_secs(10),
            paused_until: None,
        }
    }

    /// The next connection whose handshake is done, or has failed. Safe to cancel.
    pub(super) async fn accept<H, F>(&mut self, handshake: H) -> Accepted
    where
        H: FnOnce(L::Stream) -> F + Clone + Send + 'static,
        F: Future<Output = Result<Box<dyn Transport>, TransportError>> + Send + 'static,
    {
        loop {
            // One more has been told to end.
            let has_room = self.handshakes.len() <= self.handshakes_max;
            let patience = self.ages.front().map(Handshake::may_end_at);
            tokio::select! {
                Some(done) = self.handshakes.join_next() => {
                    return done.unwrap_or_else(|error| Err(lost(io::Error::other(error))));
                }
                () = wait_until(self.paused_until), if self.paused_until.is_some() => self.paused_until = None,
                () = wait_until(patience), if !has_room && patience.is_some() => self.end_oldest(),
                accepted = self.listener.next(), if has_room && self.paused_until.is_none() => match accepted {
                    Ok((stream, peer)) => {
                        if self.handshakes.len() >= self.handshakes_max {
                            self.end_oldest();
                        }
                        self.start(stream, handshake.clone(), peer);
                    }
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

    fn start<H, F>(&mut self, stream: L::Stream, handshake: H, peer: PeerInfo)
    where
        H: FnOnce(L::Stream) -> F + Send + 'static,
        F: Future<Output = Result<Box<dyn Transport>, TransportError>> + Send + 'static,
    {
        if self.ages.len() > 2 * self.handshakes_max {
            self.ages.retain(|handshake| !handshake.task.is_finished());
        }
        let limit = self.handshake_timeout;
        let is_silent = Arc::new(AtomicBool::new(false));
        let silence = Arc::clone(&is_silent);
        let task = self.handshakes.spawn(async move {
            let handshake = async {
                spoken(L::readable(&stream), &silence).await.map_err(lost)?;
                handshake(stream).await
            };
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
        self.ages.push_back(Handshake {
            task,
            since: Instant::now(),
            is_silent,
        });
    }

    /// Makes room, if somebody has had time enough.
    fn end_oldest(&mut self) {
        self.ages.retain(|handshake| !handshake.task.is_finished());
        let oldest = self.ages.iter().position(Handshake::may_end);
        if let Some(oldest) = oldest.and_then(|at| self.ages.remove(at)) {
            tracing::debug!("a connection was given up, for others to have its place");
            oldest.task.abort();
        }
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

/// Waits for the first bytes, and notes whether there are any.
async fn spoken(
    readable: impl Future<Output = io::Result<()>>,
    is_silent: &AtomicBool,
) -> io::Result<()> {
    let mut readable = pin!(readable);
    poll_fn(|cx| {
        let polled = readable.as_mut().poll(cx);
        is_silent.store(polled.is_pending(), Ordering::Relaxed);
        polled
    })
    .await
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
/// Time that a silent peer has at least, when others want its place, and one that has begun to speak.
const SILENCE: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(1);
/// Long enough not to spin, short enough that nobody in the backlog gives up.
const PAUSE: Duration = Duration::from_millis(100);
