//! Dials `tcp://` addresses.

use async_trait::async_trait;
use sync_core::transport::{DialError, Dialer, Transport};

use super::AddressError;
use super::address::host_and_port;
use super::connect::connect;
use super::stream;

/// Dials a server at a `tcp://host:port` address: frames with their lengths, and nothing secret about them. Runs on tokio.
///
/// How long a dial takes is up to the network: bound it.
#[derive(Debug, Clone)]
pub struct TcpDialer {
    host: String,
    port: u16,
}

impl TcpDialer {
    /// A dialer for this address.
    ///
    /// # Errors
    /// [`AddressError`] if it is not a `tcp://` address with a host and a port.
    pub fn new(address: &str) -> Result<Self, AddressError> {
        let authority = address
            .strip_prefix("tcp://")
            .ok_or_else(|| AddressError::other_scheme(address, "tcp"))?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains(['/', '?', '#']) {
            return Err(AddressError::invalid(address, "it has a path"));
        }
        let (host, port) = host_and_port(authority, None)
            .map_err(|reason| AddressError::invalid(address, reason))?;
        Ok(Self { host, port })
    }
}

#[async_trait]
impl Dialer for TcpDialer {
    async fn dial(&self) -> Result<Box<dyn Transport>, DialError> {
        stream::open(connect(&self.host, self.port).await?).await
    }
}
