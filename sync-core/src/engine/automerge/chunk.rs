//! Takes bytes apart into Automerge's chunks, without automerge and without allocating.
//!
//! ```text
//! chunk := 85 6f 4a 83 checksum kind length data     checksum: 4 bytes of the SHA-256 of what follows it
//! ```
//!
//! After <https://automerge.org/automerge-binary-format-spec/#_chunks>.

use sha2::{Digest, Sha256};

use crate::engine::{EngineError, ValidateLimits};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;

/// A snapshot, taken apart.
pub(super) struct Snapshot<'a> {
    pub(super) document: Option<&'a [u8]>,
    pub(super) changes: &'a [u8],
}

/// Checks that bytes are change chunks, of which at least one.
pub(super) fn check_change(bytes: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
    limits.check_len(bytes)?;
    let mut chunks = changes(bytes);
    chunks.next().ok_or(malformed("chunk", 0))??;
    chunks.try_for_each(|chunk| chunk.map(drop))
}

/// The change chunks in bytes that have nothing else. After an error comes nothing more.
pub(super) fn changes(bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], EngineError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let offset = bytes.len() - rest.len();
        let next = split_first(rest, offset).and_then(|(kind, chunk, after)| {
            if kind == CHANGE {
                rest = after;
                Ok(chunk)
            } else {
                Err(malformed("kind of a chunk", offset))
            }
        });
        if next.is_err() {
            rest = &[];
        }
        Some(next)
    })
}

/// Takes a snapshot apart. What else is in the change chunks is not looked at.
pub(super) fn snapshot(bytes: &[u8]) -> Result<Snapshot<'_>, EngineError> {
    let (kind, chunk, rest) = split_first(bytes, 0)?;
    Ok(if kind == DOCUMENT {
        Snapshot {
            document: Some(chunk),
            changes: rest,
        }
    } else {
        Snapshot {
            document: None,
            changes: bytes,
        }
    })
}

/// The kind of the first chunk, the chunk, and what comes after it.
fn split_first(bytes: &[u8], offset: usize) -> Result<(u8, &[u8], &[u8]), EngineError> {
    let header = |what| malformed(what, offset);
    let (magic, rest) = bytes.split_first_chunk().ok_or(header("chunk header"))?;
    if *magic != MAGIC {
        return Err(header("magic bytes"));
    }
    let (checksum, rest) = rest
        .split_first_chunk::<4>()
        .ok_or(header("chunk header"))?;
    let (&kind, mut data) = rest.split_first().ok_or(header("chunk header"))?;
    let mut length = 0_u64;
    for shift in (0..=28).step_by(7) {
        let (&byte, after) = data.split_first().ok_or(header("chunk header"))?;
        data = after;
        length |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
        if shift == 28 {
            return Err(header("length of a chunk"));
        }
    }
    let (_, after) = usize::try_from(length)
        .ok()
        .and_then(|length| data.split_at_checked(length))
        .ok_or(header("length of a chunk"))?;
    let (summed, _) = rest.split_at(rest.len() - after.len());
    if !Sha256::digest(summed).starts_with(checksum) {
        return Err(header("checksum"));
    }
    let (chunk, _) = bytes.split_at(bytes.len() - after.len());
    Ok((kind, chunk, after))
}

const fn malformed(what: &'static str, offset: usize) -> EngineError {
    EngineError::Malformed { what, offset }
}
