//! HTTP on a port. Not axum's own accept loop, which lets a peer take its time to say what it wants.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use axum::extract::{ConnectInfo, Request};
use axum::middleware::map_request;
use axum::{BoxError, Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sync_server::Tls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout};

/// Connections that are HTTP yet, and no WebSockets; who comes then has the place of the oldest that has not asked for
/// anything, and has had time to.
const HTTP_MAX: usize = 1024;
/// Bytes of a request's head; browsers and proxies send a few hundred, tokens may be some thousand.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Time that a silent peer has at least, when others want its place, and one that has begun to speak.
const SILENCE: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(1);
/// Time after a failure to accept that is not about the peer, such as too few file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves whoever connects, until it is dropped; connections are not.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<Tls>,
    router: Router,
    head_timeout: Duration,
) {
    let places = Arc::new(Semaphore::new(HTTP_MAX));
    let mut guests = Guests::default();
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let place = loop {
                    if places.available_permits() == 0 {
                        guests.end_oldest();
                    }
                    let free = timeout(PAUSE, Arc::clone(&places).acquire_owned()).await;
                    match free {
                        Ok(Ok(place)) => break place,
                        // It is never closed.
                        Ok(Err(_)) => return,
                        Err(_) => {}
                    }
                };
                let (router, tls) = (router.clone(), tls.clone());
                let guest = guests.arrive();
                tokio::spawn(async move {
                    let router = router.layer(map_request(guest.watch()));
                    let served = tokio::select! {
                        served = async {
                            timeout(head_timeout, guest.speaks(&stream)).await??;
                            serve_one(stream, address, tls, router, head_timeout).await
                        } => served,
                        () = guest.end.notified() => Err("others have its place".into()),
                    };
                    if let Err(error) = served {
                        tracing::debug!(%address, %error, "a connection came to nothing");
                    }
                    guest.set(Stage::Busy);
                    drop(place);
                });
            }
            Err(error) if is_about_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for the moment");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Who is here, oldest first.
#[derive(Debug, Default)]
struct Guests {
    arrived: VecDeque<Arc<Guest>>,
}

/// A connection that may have to make room.
#[derive(Debug)]
struct Guest {
    stage: AtomicU8,
    since: Instant,
    end: Notify,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Silent,
    Speaking,
    /// It has asked for something, or has left.
    Busy,
}

impl Guests {
    fn arrive(&mut self) -> Arc<Guest> {
        if self.arrived.len() >= 2 * HTTP_MAX {
            self.arrived.retain(|guest| !guest.is(Stage::Busy));
        }
        let guest = Arc::new(Guest {
            stage: AtomicU8::new(number(Stage::Speaking)),
            since: Instant::now(),
            end: Notify::new(),
        });
        self.arrived.push_back(Arc::clone(&guest));
        guest
    }

    /// Makes room, if somebody has had time enough.
    fn end_oldest(&mut self) {
        self.arrived.retain(|guest| !guest.is(Stage::Busy));
        let oldest = self.arrived.iter().position(|guest| guest.may_end());
        if let Some(oldest) = oldest.and_then(|at| self.arrived.remove(at)) {
            oldest.end.notify_one();
        }
    }
}

impl Guest {
    fn set(&self, stage: Stage) {
        self.stage.store(number(stage), Ordering::Relaxed);
    }

    fn is(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::Relaxed) == number(stage)
    }

    /// Whether it may end for others. Whoever wants something sends the first bytes with what makes the connection; but this
    /// server may be slow.
    fn may_end(&self) -> bool {
        let time = if self.is(Stage::Silent) {
            SILENCE
        } else {
            PATIENCE
        };
        self.since.elapsed() >= time
    }

    /// Waits for the first bytes.
    async fn speaks(&self, stream: &TcpStream) -> io::Result<()> {
        self.set(Stage::Silent);
        stream.readable().await?;
        self.set(Stage::Speaking);
        Ok(())
    }

    /// Notes the first request.
    fn watch(
        self: &Arc<Self>,
    ) -> impl Fn(Request) -> std::future::Ready<Request> + Clone + Send + Sync + 'static {
        let guest = Arc::clone(self);
        move |request| {
            guest.set(Stage::Busy);
            std::future::ready(request)
        }
    }
}

const fn number(stage: Stage) -> u8 {
    match stage {
        Stage::Silent => 0,
        Stage::Speaking => 1,
        Stage::Busy => 2,
    }
}

async fn serve_one(
    stream: TcpStream,
    address: SocketAddr,
    tls: Option<Tls>,
    router: Router,
    head_timeout: Duration,
) -> Result<(), BoxError> {
    let router = router.layer(Extension(ConnectInfo(address)));
    // Our frames are written when they should leave.
    stream.set_nodelay(true)?;
    match tls {
        Some(tls) => {
            let stream = timeout(head_timeout, tls.accept(stream)).await??;
            serve_http(stream, router, head_timeout).await
        }
        None => serve_http(stream, router, head_timeout).await,
    }
}

async fn serve_http(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    router: Router,
    head_timeout: Duration,
) -> Result<(), BoxError> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades()
        .await?;
    Ok(())
}

/// Whether the connection failed before it was accepted, and the next one is as good as any.
fn is_about_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}
