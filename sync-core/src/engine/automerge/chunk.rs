//! Takes bytes apart into Automerge's chunks, without automerge, and checks what automerge would expand.
//!
//! ```text
//! chunk := 85 6f 4a 83 checksum kind length data     checksum: 4 bytes of the SHA-256 of what follows it
//! ```
//!
//! After <https://automerge.org/automerge-binary-format-spec/#_chunks>.

use sha2::{Digest, Sha256};

use super::columns::{self, Budget};
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
    if bytes.is_empty() {
        return Err(malformed("chunk", 0));
    }
    let mut budget = Budget::of_change(bytes.len());
    split(bytes).try_for_each(|chunk| columns::change(chunk?.data, &mut budget))
}

/// The change chunks in bytes that have nothing else. After an error comes nothing more.
pub(super) fn changes(bytes: &[u8]) -> impl Iterator<Item = Result<&[u8], EngineError>> {
    split(bytes).map(|chunk| Ok(chunk?.whole))
}

fn split(bytes: &[u8]) -> impl Iterator<Item = Result<Chunk<'_>, EngineError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let offset = bytes.len() - rest.len();
        let next = split_first(rest, offset).and_then(|(chunk, after)| {
            if chunk.kind == CHANGE {
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

/// Takes a snapshot apart.
pub(super) fn snapshot(bytes: &[u8]) -> Result<Snapshot<'_>, EngineError> {
    let mut budget = Budget::of_snapshot(bytes.len());
    let (chunk, rest) = split_first(bytes, 0)?;
    let (document, changes) = if chunk.kind == DOCUMENT {
        columns::document(chunk.data, &mut budget)?;
        (Some(chunk.whole), rest)
    } else {
        (None, bytes)
    };
    split(changes).try_for_each(|chunk| columns::change(chunk?.data, &mut budget))?;
    Ok(Snapshot { document, changes })
}

/// A chunk, and what is behind its header.
struct Chunk<'a> {
    kind: u8,
    whole: &'a [u8],
    data: &'a [u8],
}

/// The first chunk, and what comes after it.
fn split_first(bytes: &[u8], offset: usize) -> Result<(Chunk<'_>, &[u8]), EngineError> {
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
    let (data, after) = usize::try_from(length)
        .ok()
        .and_then(|length| data.split_at_checked(length))
        .ok_or(header("length of a chunk"))?;
    let (summed, _) = rest.split_at(rest.len() - after.len());
    if !Sha256::digest(summed).starts_with(checksum) {
        return Err(header("checksum"));
    }
    let (whole, _) = bytes.split_at(bytes.len() - after.len());
    Ok((Chunk { kind, whole, data }, after))
}

const fn malformed(what: &'static str, offset: usize) -> EngineError {
    EngineError::Malformed { what, offset }
}
