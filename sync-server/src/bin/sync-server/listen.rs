//! HTTP on a port. Not axum's own accept loop, which lets a peer take its time to say what it wants.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{BoxError, Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use sync_server::Tls;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Connections that are HTTP yet, and no WebSockets; who comes then waits in the backlog of the port.
const HTTP_MAX: usize = 1024;
/// Bytes of a request's head; browsers and proxies send a few hundred, tokens may be some thousand.
const HEAD_BYTES_MAX: usize = 32 * 1024;
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
    // It is never closed.
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        match listener.accept().await {
            Ok((stream, address)) => {
                let router = router.clone();
                let tls = tls.clone();
                tokio::spawn(async move {
                    let served = serve_one(stream, address, tls, router, head_timeout).await;
                    if let Err(error) = served {
                        tracing::debug!(%address, %error, "a connection came to nothing");
                    }
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
