//! Frames: a flag byte and a message, compressed where that pays (`docs/protocol.md` section 2).
//!
//! | offset | bytes | what |
//! | --- | --- | --- |
//! | 0 | 1 | flags: bit 0 says that the rest is gzip; the others are 0 |
//! | 1 | rest | the payload, a MessagePack array `[type, fields...]`, or one gzip stream of it |

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;

use super::codec::{
    self, Writer, array_len, bin_len, kind, uint_len, write_changes, write_message,
};
use super::error::DecodeError;
use super::message::{Compression, Message, WireNumber, check_of};
use crate::history::Seq;
use crate::ids::{Author, Channel};
use crate::limits::COMPRESS_BYTES_MIN;

/// Flag bit 0: the payload is gzip.
const FLAG_GZIP: u8 = 1;

/// Most bytes of a `Changes` frame beside its changes: flags, array, type, channel and check.
pub const CHANGES_OVERHEAD_BYTES_MAX: usize = 1 + 5 + 1 + 5 + 1;

/// gzip level. Above it the cost doubles for a few percent (measured on editing traces).
const GZIP_LEVEL: u32 = 2;

/// Bytes made room for at first when inflating.
const INFLATE_BYTES_FIRST: usize = 4 * 1024;

/// Encodes a message as one frame, compressed if that was agreed and pays: see [`compress_frame`].
///
/// The frame may be over [`crate::limits::FRAGMENT_BYTES`]; [`super::split`] then cuts it.
#[must_use]
pub fn encode_frame(message: &Message, compression: Compression) -> Bytes {
    let mut out = Writer::with_capacity(1 + codec::size_hint(message));
    out.raw(0);
    write_message(&mut out, message);
    let frame = Bytes::from(out.into_vec());
    match compression {
        Compression::None => frame,
        Compression::Gzip => compress_frame(&frame).unwrap_or(frame),
    }
}

/// Encodes a plain frame of consecutive changes straight from their parts: `(author, number, bytes)`, the first at
/// sequence `first`. It allocates once, exactly as much as the frame takes.
#[must_use]
pub fn changes_frame<'a>(
    channel: Channel,
    first: Seq,
    changes: impl IntoIterator<Item = (Author, u64, &'a [u8]), IntoIter: ExactSizeIterator + Clone>,
) -> Bytes {
    let changes = changes.into_iter();
    let mut size = 1 + array_len(3 + 3 * changes.len()) + 1 + uint_len(channel.0.into()) + 1;
    let mut seq = first;
    for (author, number, bytes) in changes.clone() {
        size += change_bytes(author, number, seq, bytes.len());
        seq = seq.next();
    }
    let mut out = Writer::with_capacity(size);
    out.raw(0);
    let mut seq = first;
    let numbered = changes.map(|(author, number, bytes)| {
        let number = WireNumber::new(number, seq);
        seq = seq.next();
        (author, number, bytes)
    });
    write_changes(&mut out, channel, check_of(first), numbered);
    let frame = out.into_vec();
    debug_assert_eq!(
        frame.len(),
        size,
        "the size of a Changes frame was miscounted"
    );
    frame.into()
}

/// Bytes that one change adds to a `Changes` frame, so that a room can fill frames up to the limit.
#[must_use]
pub const fn change_bytes(author: Author, number: u64, seq: Seq, length: usize) -> usize {
    #[expect(clippy::as_conversions, reason = "u32 to u64, in a const fn")]
    let author = uint_len(author.0 as u64);
    author + WireNumber::new(number, seq).encoded_len() + bin_len(length)
}

/// The compressed form of a plain frame, or `None` where it travels plain: below [`COMPRESS_BYTES_MIN`], if it
/// does not shrink, and for `Hello`, `Welcome`, `Auth` (secrets beside text that an attacker may choose) and
/// `Fragment` (cut from a frame that has been compressed already).
#[must_use]
pub fn compress_frame(frame: &Bytes) -> Option<Bytes> {
    let (&flags, payload) = frame.split_first()?;
    if flags != 0
        || frame.len() < COMPRESS_BYTES_MIN
        || codec::kind_of(&frame.slice(1..)).is_none_or(is_plain)
    {
        return None;
    }
    let mut out = Vec::with_capacity(frame.len() / 2);
    out.push(FLAG_GZIP);
    let mut gzip = GzEncoder::new(out, flate2::Compression::new(GZIP_LEVEL));
    // Writing to a vector cannot fail; were it to, the plain frame is as good.
    gzip.write_all(payload).ok()?;
    let mut out = gzip.finish().ok()?;
    out.shrink_to_fit();
    (out.len() < frame.len()).then(|| out.into())
}

/// Decodes one frame whose message has at most `bytes_max` bytes, inflated.
///
/// Payloads in the message are slices of `frame`, or of the one buffer that it was inflated into, and keep all
/// of that alive. A [`Message::Fragment`] goes to [`super::Reassembler`], whose frames come back here.
///
/// # Errors
/// [`DecodeError`] if the bytes are not one frame of this protocol. A session that meets
/// [`DecodeError::UnknownFlags`] in the very first frame talks to another protocol.
pub fn decode_frame(mut frame: Bytes, bytes_max: usize) -> Result<Message, DecodeError> {
    let Some(&flags) = frame.first() else {
        return Err(DecodeError::Empty);
    };
    if flags & !FLAG_GZIP != 0 {
        return Err(DecodeError::UnknownFlags { flags });
    }
    let payload = frame.split_off(1);
    if payload.len() > bytes_max {
        return Err(DecodeError::FrameTooLarge {
            bytes: payload.len(),
            limit: bytes_max,
        });
    }
    if flags & FLAG_GZIP == 0 {
        return codec::decode(payload);
    }
    let payload = Bytes::from(inflate(&payload, bytes_max)?);
    match codec::kind_of(&payload) {
        Some(kind) if is_plain(kind) => Err(DecodeError::MustBePlain { kind }),
        _ => codec::decode(payload),
    }
}

const fn is_plain(kind: u8) -> bool {
    matches!(
        kind,
        kind::HELLO | kind::WELCOME | kind::AUTH | kind::FRAGMENT
    )
}

/// Inflates one gzip stream that is all of `bytes`. A gzip stream ends with its size (RFC 1952 section 2.3.1), so
/// an honest one over the limit is refused unread, and a dishonest one is inflated no further than it claimed.
fn inflate(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, DecodeError> {
    let (_, &size) = bytes
        .split_last_chunk::<4>()
        .ok_or(DecodeError::InvalidGzip)?;
    let size = usize::try_from(u32::from_le_bytes(size)).unwrap_or(usize::MAX);
    if size > bytes_max {
        return Err(DecodeError::InflatesTooLarge {
            bytes: size,
            limit: bytes_max,
        });
    }
    // One byte more than there may be, to notice when there is more.
    let room_max = size.saturating_add(1);
    let mut gzip = GzDecoder::new(bytes);
    let mut out = Vec::new();
    let mut filled = 0;
    loop {
        if filled == out.len() {
            let room = out
                .len()
                .saturating_mul(2)
                .max(INFLATE_BYTES_FIRST)
                .min(room_max);
            out.reserve_exact(room.saturating_sub(filled));
            out.resize(room, 0);
        }
        match out.get_mut(filled..).map(|room| gzip.read(room)) {
            Some(Ok(0)) => break,
            Some(Ok(read)) => filled += read,
            Some(Err(_)) | None => return Err(DecodeError::InvalidGzip),
        }
        if filled > bytes_max {
            return Err(DecodeError::InflatesTooLarge {
                bytes: filled,
                limit: bytes_max,
            });
        }
        if filled > size {
            return Err(DecodeError::InvalidGzip);
        }
    }
    if !gzip.into_inner().is_empty() {
        return Err(DecodeError::InvalidGzip);
    }
    out.truncate(filled);
    Ok(out)
}
