//! Checks an update in one pass that allocates nothing, without loro: its frame, and whatever loro reserves memory for, or
//! recurses over, as it reads.
//!
//! ```text
//! update := "loro" zero*12 xxh32 mode (length block)*     xxh32 little endian, over what follows it; mode 2 bytes
//! block  := counter n lamport n n_changes part*8          all numbers LEB128; each part is a length and bytes
//! ```
//!
//! After `parse_header_and_body` (`src/encoding.rs`), `decode_updates` (`src/encoding/fast_snapshot.rs`) and `EncodedBlock`
//! (`src/oplog/change_store/block_encode.rs`) of loro-internal 1.17. The parts are: changes, times and messages, containers,
//! keys, positions of trees, operations, starts of deletions, values. `LoroDoc::decode_import_blob_meta` reads all of
//! that as well, and aborts on the same forged bytes as an import does, so it is no check.

use bytes::Bytes;
use twox_hash::XxHash32;

use super::input::{Input, malformed};
use super::operations::{Budget, operations, positions, rows_of_columns};
use crate::engine::{EngineError, ValidateLimits};

const MAGIC: &[u8] = b"loro";
const SEED: u32 = u32::from_le_bytes(*b"LORO");
const HEADER_BYTES: usize = 22;
const MODE_AT: usize = 20;
const MODE_UPDATES: u16 = 4;

/// Checks an update. Snapshots are refused: they hold values besides the operations, and would be believed.
pub(super) fn update(bytes: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
    limits.check_len(bytes)?;
    if mode(bytes)? != MODE_UPDATES {
        return Err(malformed("kind of the bytes", MODE_AT));
    }
    let mut input = Input::new(bytes, HEADER_BYTES);
    let mut budget = Budget::new(bytes.len());
    while !input.is_empty() {
        block(input.part("block")?, limits, &mut budget)?;
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

fn block(
    mut input: Input<'_>,
    limits: &ValidateLimits,
    budget: &mut Budget,
) -> Result<(), EngineError> {
    let start = input.at();
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
    changes(input.part("changes of a block")?, n_changes)?;
    // Loro reads these three row by row, each from bytes of its own.
    for what in [
        "times of a block",
        "containers of a block",
        "keys of a block",
    ] {
        input.part(what)?;
    }
    positions(input.part("positions of a block")?)?;
    let columns = input.part("operations of a block")?;
    rows_of_columns(input.part("deletions of a block")?, budget)?;
    operations(columns, input.part("values of a block")?, limits, budget)?;
    if input.is_empty() {
        Ok(())
    } else {
        Err(malformed("end of a block", input.at()))
    }
}

/// Checks the first part, from which loro reserves memory for as many dependencies as it claims: 104 bytes take 34 GB.
///
/// ```text
/// part := n_peers peer*n_peers length*(n_changes - 1) own others dependencies
/// own := count*                   runs of no and yes, for n_changes in all
/// others := (n number | -n number*n)*       how many other dependencies each change has; n zigzag encoded
/// ```
fn changes(mut input: Input<'_>, n_changes: u64) -> Result<(), EngineError> {
    let n_peers = input.number("number of peers")?;
    input.skip("peers", n_peers.saturating_mul(8))?;
    for _ in 1..n_changes {
        input.number("length of a change")?;
    }
    let mut left = n_changes;
    while left > 0 {
        left = left.saturating_sub(input.number("run of dependencies")?);
    }
    let (mut left, mut n_dependencies) = (n_changes, 0_u64);
    while left > 0 {
        let start = input.at();
        let run = input.number("run of dependencies")?;
        // Zigzag: odd numbers are negative.
        let n = (run >> 1).saturating_add(run & 1).min(left);
        if n == 0 {
            return Err(malformed("run of dependencies", start));
        }
        if run & 1 == 0 {
            let each = input.number("number of dependencies")?;
            n_dependencies = n_dependencies.saturating_add(each.saturating_mul(n));
        } else {
            for _ in 0..n {
                let each = input.number("number of dependencies")?;
                n_dependencies = n_dependencies.saturating_add(each);
            }
        }
        left -= n;
    }
    // The first one has bytes of its own, every other one a bit at least.
    if n_dependencies <= input.left().saturating_mul(8) {
        Ok(())
    } else {
        Err(malformed("number of dependencies", input.at()))
    }
}
