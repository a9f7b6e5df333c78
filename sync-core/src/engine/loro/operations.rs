//! Checks the columns and the values of a block: what loro expands as it reads.
//!
//! ```text
//! columns := 1 n (length cell-runs)*n                    of operations: container, property, kind of value, length
//! runs    := (n cell | -n cell*n)*                       n zigzag encoded; loro takes a run of a billion from five bytes
//! value   := null, yes, no | number | 8 bytes | length bytes | n value*n | n (key value)*n | kind of container
//! ```
//!
//! After `EncodedOps` and `PositionArena` (`src/encoding/arena.rs`), `Value::decode` and `ValueReader` (`src/encoding/value.rs`) of
//! loro-internal 1.17, and `AnyRleDecoder` of serde_columnar 0.3.

use super::input::{Input, malformed};
use crate::engine::{EngineError, ValidateLimits};

/// Rows that a change may have whatever its size. Chosen: far more than a block of loro's (4 KiB) has.
const ROWS_FREE: u64 = 1 << 16;

/// What fractional indexes may take once written out, beyond 64 times what they take in a block.
const POSITION_BYTES_FREE: u64 = 1 << 20;

/// Counts what runs stand for, over all blocks of a change: beyond [`ROWS_FREE`], no more than the change has bytes.
///
/// Honest rows have nearly all a value or a position of their own: only writes that say the same again and again have none,
/// and loro makes one operation of those that follow each other.
#[derive(Debug)]
pub(super) struct Budget {
    rows: u64,
    rows_max: u64,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        Self {
            rows: 0,
            rows_max: ROWS_FREE.saturating_add(bytes),
        }
    }

    /// How many rows are left.
    const fn left(&self) -> u64 {
        self.rows_max.saturating_sub(self.rows)
    }
}

#[derive(Debug, Clone, Copy)]
enum Cell {
    Byte,
    Number,
    /// Of up to 128 bits, and never looked at.
    Difference,
}

impl Cell {
    fn read(self, input: &mut Input<'_>) -> Result<u64, EngineError> {
        match self {
            Self::Byte => input.byte("cell of a column").map(u64::from),
            Self::Number => input.number("cell of a column"),
            Self::Difference => input.pass_number("cell of a column").map(|()| 0),
        }
    }
}

/// Tells `each` run of a column: how many rows, and what is in them. The number of rows.
fn runs(
    mut column: Input<'_>,
    cell: Cell,
    rows_max: u64,
    mut each: impl FnMut(u64, u64) -> Result<(), EngineError>,
) -> Result<u64, EngineError> {
    let mut rows = 0_u64;
    while !column.is_empty() {
        let start = column.at();
        let run = column.number("run of a column")?;
        // Zigzag: odd numbers are negative.
        let n = (run >> 1).saturating_add(run & 1);
        if n == 0 {
            return Err(malformed("run of a column", start));
        }
        rows = rows.saturating_add(n);
        if rows > rows_max {
            return Err(EngineError::LimitExceeded {
                what: "number of rows in a change",
                value: rows,
                max: rows_max,
            });
        }
        if run & 1 == 0 {
            each(n, cell.read(&mut column)?)?;
        } else {
            for _ in 0..n {
                each(1, cell.read(&mut column)?)?;
            }
        }
    }
    Ok(rows)
}

/// Begins to read columns.
fn columns(part: &mut Input<'_>, n: u64) -> Result<(), EngineError> {
    let start = part.at();
    if part.number("columns")? == 1 && part.number("columns")? == n {
        Ok(())
    } else {
        Err(malformed("columns", start))
    }
}

/// Checks the columns of where deletions start.
pub(super) fn rows_of_columns(mut part: Input<'_>, budget: &mut Budget) -> Result<(), EngineError> {
    if part.is_empty() {
        return Ok(());
    }
    columns(&mut part, 3)?;
    let mut most = 0;
    for _ in 0..3 {
        let column = part.part("column")?;
        most = runs(column, Cell::Difference, budget.left(), |_, _| Ok(()))?.max(most);
    }
    budget.rows = budget.rows.saturating_add(most);
    Ok(())
}

/// Checks the columns of operations, and the values that they name.
pub(super) fn operations(
    mut part: Input<'_>,
    mut values: Input<'_>,
    limits: &ValidateLimits,
    budget: &mut Budget,
) -> Result<(), EngineError> {
    let start = part.at();
    columns(&mut part, 4)?;
    let rows_max = budget.left();
    let [containers, properties, kinds, lengths] = [
        part.part("column")?,
        part.part("column")?,
        part.part("column")?,
        part.part("column")?,
    ];
    let rows = runs(kinds, Cell::Byte, rows_max, |n, kind| {
        many(&mut values, n, kind, limits.depth_max)
    })?;
    for (column, cell) in [
        (containers, Cell::Difference),
        (properties, Cell::Difference),
        (lengths, Cell::Number),
    ] {
        if runs(column, cell, rows_max, |_, _| Ok(()))? != rows {
            return Err(malformed("length of a column", start));
        }
    }
    budget.rows = budget.rows.saturating_add(rows);
    Ok(())
}

/// Checks `n` values of one kind.
fn many(values: &mut Input<'_>, n: u64, kind: u64, depth_max: u32) -> Result<(), EngineError> {
    // Nothing, yes, no, and deletions: without bytes.
    let kind = kind & 0x7f;
    if matches!(kind, 0..=2 | 8 | 9) {
        return Ok(());
    }
    for _ in 0..n {
        operand(values, kind, depth_max)?;
    }
    Ok(())
}

/// Checks the value of an operation.
fn operand(values: &mut Input<'_>, kind: u64, depth_max: u32) -> Result<(), EngineError> {
    let mut numbers = |n: u32| (0..n).try_for_each(|_| values.pass_number("value"));
    match kind {
        // A number, signed or not, or a container.
        3 | 7 | 10 => numbers(1),
        4 => values.skip("value", 8),
        // What is inserted into a list is a list already.
        11 => value(values, 0, depth_max.saturating_add(1)),
        // The start of a mark.
        12 => {
            values.byte("value")?;
            values.pass_number("value")?;
            values.pass_number("value")?;
            value(values, 0, depth_max)
        }
        // A move in a tree, in one encoding and the other.
        13 => {
            numbers(1)?;
            let is_root = values.byte("value")? != 0;
            (0..if is_root { 1 } else { 2 }).try_for_each(|_| values.pass_number("value"))
        }
        14 => numbers(3),
        15 => {
            numbers(2)?;
            value(values, 0, depth_max)
        }
        16 => {
            numbers(3)?;
            let is_root = values.byte("value")? != 0;
            (0..if is_root { 0 } else { 2 }).try_for_each(|_| values.pass_number("value"))
        }
        // Text, bytes, and what a later loro may write.
        _ => values.part("value").map(drop),
    }
}

/// Checks a value, nested or not. Recursion is bounded by `depth_max`.
fn value(values: &mut Input<'_>, depth: u32, depth_max: u32) -> Result<(), EngineError> {
    let start = values.at();
    match values.byte("value")? {
        0..=2 => Ok(()),
        3 => values.pass_number("value"),
        4 => values.skip("value", 8),
        5 | 6 => values.part("value").map(drop),
        kind @ (7 | 8) => {
            if depth >= depth_max {
                return Err(EngineError::LimitExceeded {
                    what: "nesting of a value",
                    value: u64::from(depth) + 1,
                    max: u64::from(depth_max),
                });
            }
            let n = values.number("length of a value")?;
            // Loro reserves memory for so many, each of which has a byte at least.
            if n > values.left() {
                return Err(malformed("length of a value", start));
            }
            for _ in 0..n {
                if kind == 8 {
                    values.pass_number("key of a value")?;
                }
                value(values, depth + 1, depth_max)?;
            }
            Ok(())
        }
        9 => values.byte("value").map(drop),
        _ => Err(malformed("kind of a value", start)),
    }
}

/// Checks fractional indexes, each of which says how much of the one before it begins with.
pub(super) fn positions(mut part: Input<'_>) -> Result<(), EngineError> {
    if part.is_empty() {
        return Ok(());
    }
    let start = part.at();
    let bytes_max = part
        .left()
        .saturating_mul(64)
        .saturating_add(POSITION_BYTES_FREE);
    columns(&mut part, 2)?;
    let prefixes = part.part("column")?;
    let mut rests = part.part("column")?;
    let n = rests.number("number of positions")?;
    let (mut last, mut bytes) = (0, 0_u64);
    let rows = runs(prefixes, Cell::Number, n, |n, prefix| {
        for _ in 0..n {
            if prefix > last {
                return Err(malformed("position", start));
            }
            last = rests.part("position")?.left().saturating_add(prefix);
            bytes = bytes.saturating_add(last);
            if bytes > bytes_max {
                return Err(EngineError::LimitExceeded {
                    what: "size of positions in bytes",
                    value: bytes,
                    max: bytes_max,
                });
            }
        }
        Ok(())
    })?;
    if rows == n && rests.is_empty() {
        Ok(())
    } else {
        Err(malformed("number of positions", start))
    }
}
