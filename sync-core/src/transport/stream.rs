//! Frames over a stream of bytes, such as a TCP or Unix socket, that somebody else connects and drives (`docs/protocol.md`
//! section 1): a preface each way, then every frame with its length before it.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::{FramedTransport, MESSAGE_BYTES_MAX};
use crate::maybe_send::MaybeSend;

/// What either side sends first, and expects first: the client before the server.
///
/// The first byte is none of any text protocol's, nor of TLS, and the line end is damaged by whatever rewrites line ends; as
/// in PNG (RFC 2083 section 3.1).
pub const PREFACE: [u8; 8] = *b"\x89sync\r\n\x1a";

/// Reads the other side's preface, and nothing behind it.
///
/// # Errors
/// [`PrefaceError`], at the first byte that differs.
///
/// # Cancellation
/// What was read of it is lost.
pub async fn read_preface<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(), PrefaceError> {
    let mut bytes = [0; PREFACE.len()];
    let mut read = ReadBuf::new(&mut bytes);
    while read.remaining() > 0 {
        let before = read.filled().len();
        poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut read))
            .await
            .map_err(PrefaceError::Lost)?;
        if read.filled().len() == before {
            return Err(PrefaceError::Lost(io::ErrorKind::UnexpectedEof.into()));
        }
        if !PREFACE.starts_with(read.filled()) {
            return Err(PrefaceError::Different(read.filled().to_vec()));
        }
    }
    Ok(())
}

/// Why there is no preface.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrefaceError {
    /// The connection broke before it was complete.
    #[error("the connection was lost before the other side said what it speaks")]
    Lost(#[source] io::Error),
    /// Other bytes arrived, at most as many as it has: the other side speaks something else.
    #[error("the other side speaks something else: {:?}", String::from_utf8_lossy(.0))]
    Different(Vec<u8>),
}

/// A [`Transport`](super::Transport) over a stream, after the prefaces.
///
/// A length over [`MESSAGE_BYTES_MAX`] ends it with [`WrongProtocol`](super::TransportError::WrongProtocol).
pub fn framed<S>(stream: S) -> FramedTransport<Framed<S, LengthDelimitedCodec>, BytesMut>
where
    S: AsyncRead + AsyncWrite + Unpin + MaybeSend + 'static,
{
    let codec = LengthDelimitedCodec::builder()
        .length_field_type::<u32>()
        .max_frame_length(MESSAGE_BYTES_MAX)
        .new_codec();
    let mut framed = Framed::with_capacity(stream, codec, READ_BYTES);
    framed.set_backpressure_boundary(WRITE_BYTES);
    FramedTransport::new(framed)
}

/// Kept by every connection for as long as it lives.
const READ_BYTES: usize = 1024;
/// What is written at once, if there is that much.
const WRITE_BYTES: usize = 16 * 1024;
