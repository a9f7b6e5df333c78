//! Serving, until a signal.

use std::io;
use std::time::Duration;

use sync_server::transport::tcp_listener;
use sync_server::{EmbeddedRegistry, Listener, Server};
#[cfg(unix)]
use sync_server::{Tls, transport::UnixAcceptor};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};

#[cfg(unix)]
use crate::certificates::Certificates;
use crate::config::Config;
use crate::output::{Failure, line};
use crate::{events, listen, logs};

/// Serves until SIGTERM or SIGINT, and then until all clients have left, or the time to drain is over.
pub(crate) fn run(config: &Config) -> Result<(), Failure> {
    logs::start(config);
    #[cfg(unix)]
    allow_many_connections();
    let runtime = Runtime::new().map_err(|error| Failure::Other(format!("no threads: {error}")))?;
    runtime.block_on(serve(config))
}

/// Takes as many file descriptors as the system lets this process have: the usual limit is for programs that wait for a few
/// of them with `select`, and every connection is one.
#[cfg(unix)]
fn allow_many_connections() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(file_descriptors = limit.maximum, "allowed"),
        Err(error) => {
            tracing::warn!(%error, file_descriptors = limit.current, "no more connections are allowed");
        }
    }
}

async fn serve(config: &Config) -> Result<(), Failure> {
    // From here on, so that none is missed.
    let mut signals =
        Signals::new().map_err(|error| Failure::Other(format!("no signals: {error}")))?;
    let auth = config.auth()?;
    let tls = config.tls()?;
    let registry = EmbeddedRegistry::open(&config.data)?;
    let server = Server::builder(registry, auth)
        .engines(config.engines()?)
        .limits(config.limits())
        .build()
        .map_err(|error| Failure::Other(Failure::text(&error)))?;
    let routes = config.routes(&server)?;
    tokio::spawn(events::log(server.events()));
    let listener = match tcp_listener(&config.listen).and_then(TcpListener::from_std) {
        Ok(listener) => listener,
        Err(error) => {
            server.shutdown(Duration::ZERO).await;
            return Err(Failure::Address(format!("{}: {error}", config.listen)));
        }
    };
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, data = %config.data.display(), "listening");
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        line(format!("listening on {scheme}://{address}"))?;
    }
    let others = match listen_elsewhere(config, &server).await {
        Ok(others) => others,
        Err(failure) => {
            server.shutdown(Duration::ZERO).await;
            return Err(failure);
        }
    };
    // Goes on while clients leave, to tell others that this server is not ready.
    let head_timeout = config.limits().handshake_timeout;
    #[cfg(unix)]
    if let (Some(certificates), Some(tls)) = (&config.certificates, &tls) {
        tokio::spawn(renew(certificates.clone(), tls.clone(), hangups()?));
    }
    tokio::spawn(listen::serve(listener, tls, routes, head_timeout));
    let signal = signals.next().await;
    tracing::info!(signal, drain = ?config.drain, "shutting down");
    tokio::select! {
        () = server.shutdown(config.drain) => {
            for listener in others {
                // Its socket is removed when it is at its end.
                let _ = listener.wait().await;
            }
            tracing::info!("shut down");
            Ok(())
        }
        signal = signals.next() => Err(Failure::Cut(format!("{signal} again: sessions were cut"))),
    }
}

/// SIGHUPs, from here on.
#[cfg(unix)]
fn hangups() -> Result<Signal, Failure> {
    signal(SignalKind::hangup()).map_err(|error| Failure::Other(format!("no signals: {error}")))
}

/// Reads the certificate again whenever it is told to.
#[cfg(unix)]
async fn renew(certificates: Certificates, tls: Tls, mut hangups: Signal) {
    while hangups.recv().await.is_some() {
        let (certificates, tls) = (certificates.clone(), tls.clone());
        let reading = tokio::task::spawn_blocking(move || certificates.read_again(&tls));
        match reading.await {
            Ok(Ok(())) => tracing::info!("the certificate was read again"),
            Ok(Err(error)) => tracing::error!(error, "the certificate stays as it was"),
            Err(error) => tracing::error!(%error, "the certificate stays as it was"),
        }
    }
}

/// Listens where there is no HTTP.
async fn listen_elsewhere(config: &Config, server: &Server) -> Result<Vec<Listener>, Failure> {
    let mut others = Vec::new();
    if let Some(address) = &config.listen_tcp {
        let listener = server.listen_tcp(address.as_str()).await;
        let listener = listener
            .map_err(|error| Failure::Address(format!("{address}: {}", Failure::text(&error))))?;
        if let Some(address) = listener.local_addr() {
            tracing::info!(%address, "listening without HTTP");
            line(format!("listening on tcp://{address}"))?;
        }
        others.push(listener);
    }
    #[cfg(unix)]
    if let Some(path) = &config.listen_unix {
        let acceptor = UnixAcceptor::bind_with_mode(path, config.unix_mode)
            .map_err(|error| Failure::Address(format!("{}: {error}", path.display())))?
            .handshake_timeout(config.limits().handshake_timeout);
        tracing::info!(path = %path.display(), "listening at a Unix socket");
        line(format!("listening on unix://{}", path.display()))?;
        others.push(server.listen(acceptor));
    }
    Ok(others)
}

/// The signals that ask a program to end.
struct Signals {
    #[cfg(unix)]
    terminate: Signal,
    #[cfg(unix)]
    interrupt: Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    #[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    async fn next(&mut self) -> &'static str {
        if tokio::signal::ctrl_c().await.is_err() {
            // The system tells of no signals: only killing ends it.
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}
