//! The opening of connections that are streams of bytes.

use sync_core::transport::stream::{PREFACE, PrefaceError, framed, read_preface};
use sync_core::transport::{DialError, Transport};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::connect::unreachable;

/// Finds out whether the other side speaks our protocol.
pub(super) async fn open<S>(mut stream: S) -> Result<Box<dyn Transport>, DialError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    stream.write_all(&PREFACE).await.map_err(unreachable)?;
    match read_preface(&mut stream).await {
        Ok(()) => Ok(Box::new(framed(stream))),
        // Also a proxy without its server, or a server that is just going.
        Err(error @ PrefaceError::Lost(_)) => Err(unreachable(error)),
        Err(error) => Err(DialError::Refused(error.to_string())),
    }
}
