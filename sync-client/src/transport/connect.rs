//! Connecting sockets.

use sync_core::BoxError;
use sync_core::transport::DialError;
use tokio::net::TcpStream;

/// A TCP connection to this host.
pub(super) async fn connect(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let stream = TcpStream::connect((host, port))
        .await
        .map_err(unreachable)?;
    // Our frames are written when they should leave.
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(stream)
}

pub(super) fn unreachable(error: impl Into<BoxError>) -> DialError {
    DialError::Unreachable(error.into())
}
