//! Serving, until a signal.

use std::io;
use std::time::Duration;

use sync_server::{EmbeddedRegistry, Server};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::config::Config;
use crate::output::{Failure, line};
use crate::{events, listen, logs};

/// Serves until SIGTERM or SIGINT, and then until all clients have left, or the time to drain is over.
pub(crate) fn run(config: &Config) -> Result<(), Failure> {
    logs::start(config);
    let runtime = Runtime::new().map_err(|error| Failure::Other(format!("no threads: {error}")))?;
    runtime.block_on(serve(config))
}

async fn serve(config: &Config) -> Result<(), Failure> {
    // From here on, so that none is missed.
    let mut signals =
        Signals::new().map_err(|error| Failure::Other(format!("no signals: {error}")))?;
    let auth = config.auth()?;
    let registry = EmbeddedRegistry::open(&config.data)?;
    let server = Server::builder(registry, auth)
        .engines(config.engines()?)
        .limits(config.limits())
        .build()
        .map_err(|error| Failure::Other(Failure::text(&error)))?;
    tokio::spawn(events::log(server.events()));
    let listener = match TcpListener::bind(&config.listen).await {
        Ok(listener) => listener,
        Err(error) => {
            server.shutdown(Duration::ZERO).await;
            return Err(Failure::Address(format!("{}: {error}", config.listen)));
        }
    };
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, data = %config.data.display(), "listening");
        line(format!("listening on ws://{address}"))?;
    }
    // Goes on while clients leave, to tell others that this server is not ready.
    let head_timeout = config.limits().handshake_timeout;
    tokio::spawn(listen::serve(
        listener,
        config.routes(&server),
        head_timeout,
    ));
    let signal = signals.next().await;
    tracing::info!(signal, drain = ?config.drain, "shutting down");
    tokio::select! {
        () = server.shutdown(config.drain) => {
            tracing::info!("shut down");
            Ok(())
        }
        signal = signals.next() => Err(Failure::Cut(format!("{signal} again: sessions were cut"))),
    }
}

/// The signals that ask a program to end.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
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
