//! Counts what automerge's columns stand for, before automerge expands them.
//!
//! ```text
//! change   := n hash*n  actor  number number number  text  n actor*n  columns  data
//! document := n actor*n  n hash*n  columns-of-changes columns-of-operations  data-of-changes data-of-operations  ...
//! columns  := n (kind length)*n
//! data     := runs*n                                each of its length, deflated if its kind says so
//! runs     := (n cell | -n cell*n | 0 n)*           the last are n times nothing; of yes and no, only (n)*
//! ```
//!
//! After <https://automerge.org/automerge-binary-format-spec/>, and `ChangeGraphCols::load` of automerge 0.12, which reserves
//! memory for as many operations as changes claim. All numbers are LEB128.

use std::io::Read;

use flate2::bufread::DeflateDecoder;

use super::malformed;
use crate::engine::EngineError;

/// Rows that a change or a snapshot may have whatever its size. Chosen: who deletes a whole text writes a row for each
/// character, which take no bytes.
const ROWS_FREE: u64 = 1 << 20;

/// Bytes that a snapshot may inflate to whatever its size.
const INFLATED_FREE: u64 = 64 * 1024 * 1024;

/// How much larger than the bytes of a snapshot what is in it may be, beyond what is free.
const SNAPSHOT_RATIO: u64 = 64;

const HASH_BYTES: u64 = 32;

/// Numbers of the columns of changes, with their kinds.
const MAX_OP: u64 = 1 << 4 | DELTA;
const N_DEPENDENCIES: u64 = 4 << 4 | GROUP;
const DEPENDENCIES: u64 = 4 << 4 | DELTA;

const GROUP: u64 = 0;
const DELTA: u64 = 3;
const BOOLEAN: u64 = 4;
const STRING: u64 = 5;
const RAW: u64 = 7;
const KIND_BITS: u64 = 7;
const DEFLATED: u64 = 8;

/// Counts rows over all chunks of a change, or of a snapshot.
#[derive(Debug)]
pub(super) struct Budget {
    rows: u64,
    rows_max: u64,
    inflated_max: u64,
}

impl Budget {
    /// For a change of so many bytes: one row for each, beyond what is free.
    pub(super) fn of_change(bytes: usize) -> Self {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        Self {
            rows: 0,
            rows_max: ROWS_FREE.saturating_add(bytes),
            inflated_max: 0,
        }
    }

    /// For a snapshot of so many bytes.
    pub(super) fn of_snapshot(bytes: usize) -> Self {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let more = bytes.saturating_mul(SNAPSHOT_RATIO);
        Self {
            rows: 0,
            rows_max: ROWS_FREE.saturating_add(more),
            inflated_max: INFLATED_FREE.saturating_add(more),
        }
    }

    fn take(&mut self, rows: u64) -> Result<(), EngineError> {
        self.rows = self.rows.saturating_add(rows);
        if self.rows <= self.rows_max {
            return Ok(());
        }
        Err(EngineError::LimitExceeded {
            what: "number of rows",
            value: self.rows,
            max: self.rows_max,
        })
    }
}

/// Checks what is in a change chunk, behind its header.
pub(super) fn change(data: &[u8], budget: &mut Budget) -> Result<(), EngineError> {
    let mut input = Input(data);
    let n = input.number()?;
    input.skip(n.saturating_mul(HASH_BYTES))?;
    input.bytes()?;
    for _ in 0..3 {
        // Its number, its first operation, its time.
        input.pass_number()?;
    }
    input.bytes()?;
    let n = input.number()?;
    input.many_bytes(n)?;
    let columns = input.columns()?;
    let rows = rows_of(&mut input, &columns, budget)?;
    budget.take(rows)
}

/// Checks what is in a document chunk, behind its header.
pub(super) fn document(data: &[u8], budget: &mut Budget) -> Result<(), EngineError> {
    let mut input = Input(data);
    let n = input.number()?;
    input.many_bytes(n)?;
    let n = input.number()?;
    input.skip(n.saturating_mul(HASH_BYTES))?;
    let (of_changes, of_operations) = (input.columns()?, input.columns()?);
    let claimed = claimed(input.clone(), &of_changes, budget)?;
    let rows = rows_of(&mut input, &of_changes, budget)?;
    budget.take(rows)?;
    let rows = rows_of(&mut input, &of_operations, budget)?;
    budget.take(rows)?;
    // Each operation has a row, or is a deletion, which has one in the column of what deletes another.
    if claimed <= rows.saturating_mul(2) {
        Ok(())
    } else {
        Err(malformed("number of operations"))
    }
}

/// The most rows that one of the columns has.
fn rows_of(
    input: &mut Input<'_>,
    columns: &[(u64, u64)],
    budget: &mut Budget,
) -> Result<u64, EngineError> {
    let mut most = 0;
    for &(kind, length) in columns {
        let column = input.take(length)?;
        let rows_max = budget.rows_max;
        let rows = inflated(kind, column, budget, |kind, column| {
            rows(kind, column, rows_max)
        })?;
        most = rows.max(most);
    }
    Ok(most)
}

/// How many operations changes say that they have.
fn claimed(
    mut input: Input<'_>,
    columns: &[(u64, u64)],
    budget: &mut Budget,
) -> Result<u64, EngineError> {
    let (mut last, mut counts, mut dependencies) = (Vec::new(), Vec::new(), Vec::new());
    for &(kind, length) in columns {
        let column = input.take(length)?;
        let numbers = match kind & !DEFLATED {
            MAX_OP => &mut last,
            N_DEPENDENCIES => &mut counts,
            DEPENDENCIES => &mut dependencies,
            _ => continue,
        };
        let rows_max = budget.rows_max;
        inflated(kind, column, budget, |kind, column| {
            rows(kind, column.clone(), rows_max)?;
            numbers_of(kind, column, numbers)
        })?;
    }
    let mut dependencies = dependencies.into_iter();
    let mut claimed = 0_u64;
    for (index, &end) in last.iter().enumerate() {
        let n = counts.get(index).copied().unwrap_or_default();
        let mut start = 0;
        for _ in 0..n {
            let dependency = dependencies.next().and_then(|it| usize::try_from(it).ok());
            let before = dependency.and_then(|dependency| last.get(dependency));
            start = *before
                .ok_or(malformed("dependency of a change"))?
                .max(&start);
        }
        let operations = end.checked_sub(start);
        claimed = claimed.saturating_add(operations.ok_or(malformed("operations of a change"))?);
    }
    Ok(claimed)
}

/// Lends a column as it is once inflated.
fn inflated<R>(
    kind: u64,
    column: &[u8],
    budget: &mut Budget,
    f: impl FnOnce(u64, Input<'_>) -> Result<R, EngineError>,
) -> Result<R, EngineError> {
    if kind & DEFLATED == 0 {
        return f(kind & KIND_BITS, Input(column));
    }
    let mut bytes = Vec::new();
    let max = budget.inflated_max;
    DeflateDecoder::new(column)
        .take(max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|_| malformed("deflated column"))?;
    let n = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    budget.inflated_max = max.checked_sub(n).ok_or(EngineError::LimitExceeded {
        what: "size of inflated columns in bytes",
        value: n,
        max,
    })?;
    f(kind & KIND_BITS, Input(&bytes))
}

/// The rows of a column. Bytes of values have none of their own.
fn rows(kind: u64, mut column: Input<'_>, rows_max: u64) -> Result<u64, EngineError> {
    let mut rows = 0_u64;
    while kind != RAW && !column.is_empty() {
        let n = if kind == BOOLEAN {
            column.number()?
        } else {
            match column.signed()? {
                0 => column.number()?,
                n @ 1.. => {
                    column.cell(kind)?;
                    n.unsigned_abs()
                }
                n => {
                    // No longer than the bytes.
                    (0..n.unsigned_abs()).try_for_each(|_| column.cell(kind))?;
                    n.unsigned_abs()
                }
            }
        };
        rows = rows.saturating_add(n);
        if rows > rows_max {
            return Err(EngineError::LimitExceeded {
                what: "number of rows",
                value: rows,
                max: rows_max,
            });
        }
    }
    Ok(rows)
}

/// Writes out a column of numbers whose rows have been counted.
fn numbers_of(kind: u64, mut column: Input<'_>, numbers: &mut Vec<u64>) -> Result<(), EngineError> {
    let mut last = 0_i64;
    let mut push = |cell: i64, numbers: &mut Vec<u64>| {
        last = if kind == DELTA {
            last.saturating_add(cell)
        } else {
            cell
        };
        numbers.push(u64::try_from(last).map_err(|_| malformed("number of a column"))?);
        Ok(())
    };
    let cell = |column: &mut Input<'_>| match kind {
        DELTA => column.signed(),
        _ => i64::try_from(column.number()?).map_err(|_| malformed("number of a column")),
    };
    while !column.is_empty() {
        match column.signed()? {
            0 => {
                // Nothing, which a number must not be.
                return Err(malformed("number of a column"));
            }
            n @ 1.. => {
                let cell = cell(&mut column)?;
                (0..n).try_for_each(|_| push(cell, numbers))?;
            }
            n => {
                for _ in 0..n.unsigned_abs() {
                    push(cell(&mut column)?, numbers)?;
                }
            }
        }
    }
    Ok(())
}

/// Bytes that are read front to back.
#[derive(Debug, Clone)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The seven bits of each byte of a number, with the place of the first of them, and whether it is the last.
    fn septets(&mut self, mut f: impl FnMut(u64, u32, bool)) -> Result<(), EngineError> {
        for shift in (0..u64::BITS).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(malformed("number"))?;
            self.0 = rest;
            let is_last = byte & 0x80 == 0;
            f(u64::from(byte & 0x7f), shift, is_last);
            if is_last {
                return Ok(());
            }
        }
        Err(malformed("number"))
    }

    fn number(&mut self) -> Result<u64, EngineError> {
        let mut value = 0;
        self.septets(|bits, shift, _| value |= bits << shift)?;
        Ok(value)
    }

    fn signed(&mut self) -> Result<i64, EngineError> {
        let mut value = 0_u64;
        self.septets(|bits, shift, is_last| {
            value |= bits << shift;
            if is_last && bits & 0x40 != 0 && shift + 7 < u64::BITS {
                value |= u64::MAX << (shift + 7);
            }
        })?;
        Ok(i64::from_le_bytes(value.to_le_bytes()))
    }

    fn pass_number(&mut self) -> Result<(), EngineError> {
        self.septets(|_, _, _| ())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], EngineError> {
        let (taken, rest) = usize::try_from(length)
            .ok()
            .and_then(|length| self.0.split_at_checked(length))
            .ok_or(malformed("length"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn skip(&mut self, length: u64) -> Result<(), EngineError> {
        self.take(length).map(drop)
    }

    /// A length, and so many bytes.
    fn bytes(&mut self) -> Result<(), EngineError> {
        let length = self.number()?;
        self.skip(length)
    }

    fn many_bytes(&mut self, n: u64) -> Result<(), EngineError> {
        (0..n).try_for_each(|_| self.bytes())
    }

    fn cell(&mut self, kind: u64) -> Result<(), EngineError> {
        if kind == STRING {
            self.bytes()
        } else {
            self.pass_number()
        }
    }

    /// Kinds and lengths of columns.
    fn columns(&mut self) -> Result<Vec<(u64, u64)>, EngineError> {
        let n = self.number()?;
        (0..n)
            .map(|_| Ok((self.number()?, self.number()?)))
            .collect()
    }
}
