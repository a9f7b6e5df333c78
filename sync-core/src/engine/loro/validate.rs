//! Checks the frame of an update in one pass that allocates nothing, without loro.
//!
//! ```text
//! update := "loro" zero*12 xxh32 mode (length block)*     xxh32 little endian, over what follows it; mode 2 bytes
//! block  := counter n lamport n n_changes part*8          all numbers LEB128; each part is a length and bytes
//! ```
//!
//! After `parse_header_and_body` (`src/encoding.rs`), `decode_updates` (`src/encoding/fast_snapshot.rs`) and `EncodedBlock`
//! (`src/oplog/change_store/block_encode.rs`) of loro-internal 1.17. What is inside the parts is columnar and run-length
//! encoded; loro expands it as it reads. `LoroDoc::decode_import_blob_meta` reads all of that as well, and aborts on the same
//! forged bytes as an import does, so it is no check.

use bytes::Bytes;
use twox_hash::XxHash32;

use crate::engine::{EngineError, ValidateLimits};

const MAGIC: &[u8] = b"loro";
const SEED: u32 = u32::from_le_bytes(*b"LORO");
const HEADER_BYTES: usize = 22;
const MODE_AT: usize = 20;
const MODE_UPDATES: u16 = 4;
const PARTS: usize = 8;

/// Checks an update. Snapshots are refused: they hold values besides the operations, and would be believed.
pub(super) fn update(bytes: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
    limits.check_len(bytes)?;
    if mode(bytes)? != MODE_UPDATES {
        return Err(malformed("kind of the bytes", MODE_AT));
    }
    let mut input = Input {
        bytes,
        at: HEADER_BYTES,
    };
    while input.at < bytes.len() {
        let length = input.number("length of a block")?;
        let start = input.at;
        input.skip("block", length)?;
        block(Input {
            bytes: bytes.get(..input.at).unwrap_or_default(),
            at: start,
        })?;
    }
    Ok(())
}

/// Several updates that have been checked, as one: blocks need no order.
pub(super) fn joined(updates: &[Bytes]) -> Vec<u8> {
    let bodies = updates
        .iter()
        .filter_map(|update| update.get(HEADER_BYTES..));
    let mut body = MODE_UPDATES.to_be_bytes().to_vec();
    bodies.for_each(|blocks| body.extend_from_slice(blocks));
    let checksum = XxHash32::oneshot(SEED, &body).to_le_bytes();
    [MAGIC, &[0; 12], &checksum, &body].concat()
}

/// Checks magic bytes and checksum of anything that loro encodes, and returns what kind it is.
fn mode(bytes: &[u8]) -> Result<u16, EngineError> {
    let (header, _) = bytes
        .split_at_checked(HEADER_BYTES)
        .ok_or(malformed("header", bytes.len()))?;
    if !header.starts_with(MAGIC) {
        return Err(malformed("magic bytes", 0));
    }
    let (_, rest) = bytes.split_at_checked(MODE_AT).unwrap_or_default();
    let checksum = header.get(MODE_AT - 4..MODE_AT).unwrap_or_default();
    if checksum != XxHash32::oneshot(SEED, rest).to_le_bytes() {
        return Err(malformed("checksum", MODE_AT - 4));
    }
    match rest {
        [high, low, ..] => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(malformed("header", MODE_AT)),
    }
}

fn block(mut input: Input<'_>) -> Result<(), EngineError> {
    let start = input.at;
    let counter = input.number("counter")?;
    let n_operations = input.number("number of operations")?;
    let lamport = input.number("lamport time")?;
    let n_lamports = input.number("number of lamport times")?;
    let n_changes = input.number("number of changes")?;
    let counter_max = u64::from(i32::MAX.unsigned_abs());
    let is_bounded = counter.saturating_add(n_operations) <= counter_max
        && lamport.saturating_add(n_lamports) <= u64::from(u32::MAX);
    if !is_bounded || n_changes == 0 || n_changes > n_operations {
        return Err(malformed("counts of a block", start));
    }
    for part in 0..PARTS {
        let length = input.number("length of a part")?;
        // The first part has a byte and more for each change but the last.
        if part == 0 && n_changes - 1 > length {
            return Err(malformed("number of changes", start));
        }
        input.skip("part of a block", length)?;
    }
    if input.at == input.bytes.len() {
        Ok(())
    } else {
        Err(malformed("end of a block", input.at))
    }
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    /// A number in LEB128, of at most 35 bits: none here is larger.
    fn number(&mut self, what: &'static str) -> Result<u64, EngineError> {
        let start = self.at;
        let mut value = 0;
        for shift in (0..35).step_by(7) {
            let byte = self.bytes.get(self.at).ok_or(malformed(what, self.at))?;
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(malformed(what, start))
    }

    fn skip(&mut self, what: &'static str, length: u64) -> Result<(), EngineError> {
        let end = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length))
            .filter(|&end| end <= self.bytes.len())
            .ok_or(malformed(what, self.at))?;
        self.at = end;
        Ok(())
    }
}

const fn malformed(what: &'static str, offset: usize) -> EngineError {
    EngineError::Malformed { what, offset }
}
