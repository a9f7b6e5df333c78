//! A server inside the program itself, for examples that can do without a second terminal.

use std::error::Error;

use sync_server::{Anonymous, Listener, MemoryRegistry};

/// A server on a free port of this machine. It stops listening when dropped.
#[derive(Debug)]
pub struct LocalServer {
    address: String,
    server: sync_server::Server,
    _listener: Listener,
}

impl LocalServer {
    /// Starts one that anybody on this machine may use, and that keeps documents in memory.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn start() -> Result<Self, Box<dyn Error + Send + Sync>> {
        let auth = Anonymous::read_write();
        let server = sync_server::Server::builder(MemoryRegistry::new(), auth).build()?;
        let listener = server.listen_websocket("127.0.0.1:0").await?;
        let address = listener.local_addr().ok_or("no address")?;
        Ok(Self {
            address: format!("ws://{address}"),
            server,
            _listener: listener,
        })
    }

    /// The address to connect to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The server itself.
    #[must_use]
    pub const fn server(&self) -> &sync_server::Server {
        &self.server
    }
}
