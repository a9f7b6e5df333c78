//! The opening of connections that are streams of bytes.

use sync_core::transport::stream::{PREFACE, PrefaceError, framed, read_preface};
use sync_core::transport::{Transport, TransportError};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::incoming::lost;
use super::refuse::{TLS_HANDSHAKE, answer};

/// Finds out whether a peer speaks our protocol, and tells it that we do.
pub(super) async fn handshake<S>(mut stream: S) -> Result<Box<dyn Transport>, TransportError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    match read_preface(&mut stream).await {
        Ok(()) => {
            stream.write_all(&PREFACE).await.map_err(lost)?;
            Ok(Box::new(framed(stream)))
        }
        Err(PrefaceError::Lost(error)) => Err(lost(error)),
        Err(error) => {
            if let PrefaceError::Different(first) = &error
                && takes_an_answer(first)
            {
                answer(stream, "400 Bad Request\r\nConnection: close", TEXT).await;
            }
            Err(TransportError::WrongProtocol(error.to_string()))
        }
    }
}

/// Whether who sent these bytes first can be told something: HTTP begins with a method, and TLS takes an answer that is none
/// for final.
fn takes_an_answer(first: &[u8]) -> bool {
    first
        .first()
        .is_some_and(|first| first.is_ascii_uppercase() || *first == TLS_HANDSHAKE)
}

const TEXT: &str = "This port speaks the sync protocol, and not HTTP.\n";
