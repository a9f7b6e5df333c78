//! Accepting connections.

use std::io;
use std::net::SocketAddr;

use sync_core::transport::Acceptor;
use tokio::task::JoinHandle;

use super::{Phase, Server};
use crate::event::{CloseReason, ServerEvent};

/// Accepts connections for a server, from when it was made until it is dropped.
///
/// Dropping it stops accepting and ends no session.
#[derive(Debug)]
#[must_use = "dropping a listener stops it"]
pub struct Listener {
    task: JoinHandle<()>,
    local_addr: Option<SocketAddr>,
}

/// Why nobody listens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The address could not be bound.
    #[error("cannot listen there")]
    Bind(#[source] io::Error),
    /// The acceptor panicked.
    #[error("the acceptor panicked")]
    Panicked,
}

impl Listener {
    /// The address that it listens at, with the port that was taken; `None` if its transport has none.
    #[must_use]
    pub const fn local_addr(&self) -> Option<SocketAddr> {
        self.local_addr
    }

    /// Waits until it accepts nothing more: the server shuts down, or the acceptor came to its end.
    ///
    /// # Errors
    /// [`ListenError::Panicked`].
    ///
    /// # Cancellation
    /// Dropping the future drops the listener.
    pub async fn wait(mut self) -> Result<(), ListenError> {
        match (&mut self.task).await {
            Ok(()) => Ok(()),
            Err(error) if error.is_panic() => Err(ListenError::Panicked),
            // The runtime ends.
            Err(_) => Ok(()),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Listens for WebSocket connections at an address, at any path; port 0 takes a free one. It is bound and
    /// accepting when this returns.
    ///
    /// # Errors
    /// [`ListenError::Bind`].
    ///
    /// # Cancellation
    /// Safe: nobody listens then.
    #[cfg(feature = "websocket")]
    pub async fn listen_websocket(
        &self,
        address: impl std::net::ToSocketAddrs,
    ) -> Result<Listener, ListenError> {
        let acceptor = crate::transport::WebSocketAcceptor::bind(address)
            .await
            .map_err(ListenError::Bind)?
            .handshake_timeout(self.shared.room_config.limits.handshake_timeout);
        let local_addr = acceptor.local_addr();
        self.listen_at(acceptor, local_addr)
    }

    /// Listens for TCP connections that carry frames with their lengths, without TLS or HTTP around them; port 0 takes a free
    /// one. It is bound and accepting when this returns.
    ///
    /// # Errors
    /// [`ListenError::Bind`].
    ///
    /// # Cancellation
    /// Safe: nobody listens then.
    #[cfg(feature = "tcp")]
    pub async fn listen_tcp(
        &self,
        address: impl std::net::ToSocketAddrs,
    ) -> Result<Listener, ListenError> {
        let acceptor = crate::transport::TcpAcceptor::bind(address)
            .await
            .map_err(ListenError::Bind)?
            .handshake_timeout(self.shared.room_config.limits.handshake_timeout);
        let local_addr = acceptor.local_addr();
        self.listen_at(acceptor, local_addr)
    }

    /// Listens at a Unix socket, for processes of this user; [`UnixAcceptor`](crate::transport::UnixAcceptor) lets others in
    /// too. To be called on a tokio runtime; it is bound and accepting when this returns.
    ///
    /// # Errors
    /// [`ListenError::Bind`].
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[cfg(all(feature = "unix", unix))]
    pub fn listen_unix(&self, path: impl AsRef<std::path::Path>) -> Result<Listener, ListenError> {
        let acceptor = crate::transport::UnixAcceptor::bind(path)
            .map_err(ListenError::Bind)?
            .handshake_timeout(self.shared.room_config.limits.handshake_timeout);
        Ok(self.listen(acceptor))
    }

    #[cfg(any(feature = "tcp", feature = "websocket"))]
    fn listen_at(
        &self,
        acceptor: impl Acceptor,
        local_addr: io::Result<SocketAddr>,
    ) -> Result<Listener, ListenError> {
        let local_addr = local_addr.map_err(ListenError::Bind)?;
        let mut listener = self.listen(acceptor);
        listener.local_addr = Some(local_addr);
        Ok(listener)
    }

    /// Serves the connections of an acceptor. To be called on a tokio runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn listen(&self, acceptor: impl Acceptor) -> Listener {
        Listener {
            task: tokio::spawn(accept(self.clone(), acceptor)),
            local_addr: None,
        }
    }
}

async fn accept(server: Server, mut acceptor: impl Acceptor) {
    let mut phase = server.shared.phase.subscribe();
    loop {
        let accepted = tokio::select! {
            accepted = acceptor.accept() => accepted,
            _ = phase.wait_for(|phase| *phase > Phase::Serving) => return,
        };
        match accepted {
            Some(Ok((transport, peer))) => {
                tokio::spawn(server.serve(transport, peer));
            }
            Some(Err(error)) => {
                let reason = CloseReason::Lost {
                    error: error.to_string(),
                };
                server.shared.events.send(ServerEvent::ConnectionFailed {
                    peer: Default::default(),
                    reason,
                });
            }
            None => return,
        }
    }
}
