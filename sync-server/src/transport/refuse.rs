//! What those are told who speak something else.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Sends an answer in HTTP that will not change, and closes.
pub(super) async fn answer<S>(mut stream: S, status: &str, text: &str)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    );
    if stream.write_all(answer.as_bytes()).await.is_ok() && stream.shutdown().await.is_ok() {
        // A socket dropped with unread bytes is reset, and the reset can overtake the answer.
        let mut rest = stream.take(REST_BYTES_MAX);
        let mut sink = tokio::io::sink();
        let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut sink)).await;
    }
}

/// Bytes of a refused request that are still read.
const REST_BYTES_MAX: u64 = 64 * 1024;
/// How long a refused peer may take to read the answer and close.
const LINGER: Duration = Duration::from_secs(1);
/// First byte of a TLS connection (RFC 8446 section 5.1).
pub(super) const TLS_HANDSHAKE: u8 = 22;
