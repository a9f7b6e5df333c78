//! Dials `unix://` addresses.

use std::path::PathBuf;

use async_trait::async_trait;
use sync_core::transport::{DialError, Dialer, Transport};
use tokio::net::UnixStream;

use super::AddressError;
use super::connect::unreachable;
use super::stream;

/// Dials a server at a Unix socket. Runs on tokio.
#[derive(Debug, Clone)]
pub struct UnixDialer {
    path: PathBuf,
}

impl UnixDialer {
    /// A dialer for an address such as `unix:///run/sync.sock`: whatever follows `unix://` is the path, as it is.
    ///
    /// # Errors
    /// [`AddressError`] if it is not a `unix://` address with an absolute path.
    pub fn new(address: &str) -> Result<Self, AddressError> {
        let path = address
            .strip_prefix("unix://")
            .ok_or_else(|| AddressError::other_scheme(address, "unix"))?;
        if !path.starts_with('/') || path.contains('\0') {
            return Err(AddressError::invalid(address, "its path is not absolute"));
        }
        Ok(Self::at(path))
    }

    /// A dialer for the socket at this path.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

#[async_trait]
impl Dialer for UnixDialer {
    async fn dial(&self) -> Result<Box<dyn Transport>, DialError> {
        // Not there, or not for us: both may change, when the server starts.
        let stream = UnixStream::connect(&self.path).await.map_err(unreachable)?;
        stream::open(stream).await
    }
}
