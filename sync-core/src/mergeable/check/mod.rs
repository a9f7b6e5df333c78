//! Checks the bytes of a change without building anything: no allocation, time linear in their length, nesting
//! bounded. It needs no application type, so a server runs the same check as every client.

mod message_pack;
mod nodes;

pub(super) use message_pack::{check_value, message_pack, whole_value};

use super::clock::{ReplicaId, STAMP_TIME_MAX};
use super::cursor::Cursor;
use super::format::{FORM_COMMIT, FORM_COMMIT_REFS, FORM_STATE, FORM_STATE_REFS};
use crate::engine::{EngineError, Folder, ValidateLimits, Validator};
use crate::ids::EngineId;

/// Deepest nesting of MessagePack arrays and maps in a key or value; a protocol constant.
pub(crate) const DEPTH_MAX: u32 = 64;

/// Told what a change's head says, while it is checked.
pub(super) trait Visitor {
    fn replica(&mut self, _: ReplicaId) {}
    fn commit(&mut self, _: ReplicaId, _number: u64) {}
    fn base(&mut self, _replica: usize, _first: u64, _last: u64) {}
    fn claim(&mut self, _replica: usize, _first: u64, _last: u64) {}
    fn horizon(&mut self, _replica: usize, _first: u64, _last: u64) {}
    fn stamp(&mut self, _replica: usize, _number: u64, _time: u64, _counter: u32) {}
    fn foreign(&mut self, _: ReplicaId) {}
    fn reference(&mut self, _replica: usize) {}
}

impl Visitor for () {}

/// Checks changes of mergeable types, and folds them, without knowing the types: what a server needs of the engine.
///
/// Keys and values stay the bytes that they are, so that a fold has what no application of today can read.
///
/// It accepts exactly what [`Typed`](crate::engine::typed::Typed) accepts. Whether a change is of the same type as
/// the document is no matter of its bytes alone: that shows when it is imported.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct MergeableValidator;

impl MergeableValidator {
    /// The validator.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// The latest time of any stamp in a change, in milliseconds since the Unix epoch; `None` if it has none.
    ///
    /// For a server's hook that refuses changes of clocks far ahead of its own (decision 0003). Not a part of what
    /// is valid, which depends on nobody's clock: a change that has been logged is taken by everybody.
    ///
    /// # Errors
    /// As [`validate`](Validator::validate).
    pub fn latest_time(&self, change: &[u8]) -> Result<Option<u64>, EngineError> {
        struct Latest(Option<u64>);
        impl Visitor for Latest {
            fn stamp(&mut self, _: usize, _: u64, time: u64, _: u32) {
                self.0 = self.0.max(Some(time));
            }
        }
        let mut latest = Latest(None);
        self::change(change, DEPTH_MAX, &mut latest)?;
        Ok(latest.0)
    }
}

impl Validator for MergeableValidator {
    fn engine(&self) -> EngineId {
        EngineId::MERGEABLE
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        validate(change, limits)
    }

    fn folder(&self) -> Option<&dyn Folder> {
        Some(self)
    }
}

/// Checks a change within limits.
pub(crate) fn validate(bytes: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
    if bytes.len() > limits.bytes_max {
        let saturated = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        return Err(EngineError::LimitExceeded {
            what: "size of the change in bytes",
            value: saturated(bytes.len()),
            max: saturated(limits.bytes_max),
        });
    }
    change(bytes, limits.depth_max.min(DEPTH_MAX), &mut ()).map(|_| ())
}

/// Checks a whole change and tells `visitor` its head; returns where the content begins.
pub(super) fn change<'a>(
    bytes: &'a [u8],
    depth_max: u32,
    visitor: &mut impl Visitor,
) -> Result<Cursor<'a>, EngineError> {
    let (content, refers) = head(bytes, visitor)?;
    nodes::content(&mut content.clone(), refers, depth_max)?;
    Ok(content)
}

/// As [`change`], but the content is our own and of another shape.
pub(super) fn head<'a>(
    bytes: &'a [u8],
    visitor: &mut impl Visitor,
) -> Result<(Cursor<'a>, Refers), EngineError> {
    let mut cursor = Cursor::new(bytes);
    let start = cursor;
    let refers = match cursor.byte("a change")? {
        FORM_COMMIT => commit_head(&mut cursor, false, visitor)?,
        FORM_COMMIT_REFS => commit_head(&mut cursor, true, visitor)?,
        FORM_STATE => state_head(&mut cursor, false, visitor)?,
        FORM_STATE_REFS => state_head(&mut cursor, true, visitor)?,
        _ => return Err(start.malformed("a change's form")),
    };
    Ok((cursor, refers))
}

/// How many things the content may refer to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refers {
    n_stamps: u64,
    n_replicas: u64,
}

fn commit_head(
    cursor: &mut Cursor<'_>,
    has_refs: bool,
    visitor: &mut impl Visitor,
) -> Result<Refers, EngineError> {
    let replica = cursor.replica()?;
    let number = commit_number(cursor)?;
    visitor.commit(replica, number);
    let n_stamps = cursor.varint("the number of stamps")?;
    for _ in 0..n_stamps {
        let (time, counter) = stamp_time(cursor)?;
        visitor.stamp(0, number, time, counter);
    }
    let n_foreign = if has_refs {
        let start = *cursor;
        let n = cursor.varint("the number of replicas")?;
        if n == 0 {
            return Err(start.malformed("the number of replicas"));
        }
        for _ in 0..n {
            visitor.foreign(cursor.replica()?);
        }
        n
    } else {
        0
    };
    Ok(Refers {
        n_stamps,
        n_replicas: n_foreign.saturating_add(1),
    })
}

fn state_head(
    cursor: &mut Cursor<'_>,
    has_refs: bool,
    visitor: &mut impl Visitor,
) -> Result<Refers, EngineError> {
    let n_replicas = cursor.varint("the number of replicas")?;
    let mut before = None;
    for _ in 0..n_replicas {
        let start = *cursor;
        let replica = cursor.replica()?;
        if before
            .replace(replica)
            .is_some_and(|before| before >= replica)
        {
            return Err(start.malformed("replica ids in ascending order"));
        }
        visitor.replica(replica);
    }
    // Each of them took 8 bytes of the input, so the count fits.
    let n_replicas =
        usize::try_from(n_replicas).map_err(|_| cursor.malformed("the number of replicas"))?;
    for replica in 0..n_replicas {
        cursor.ranges(|first, last| visitor.base(replica, first, last))?;
        cursor.ranges(|first, last| visitor.claim(replica, first, last))?;
        if has_refs {
            cursor.ranges(|first, last| visitor.horizon(replica, first, last))?;
        }
    }
    let replica_index = |cursor: &mut Cursor<'_>| {
        let start = *cursor;
        let replica = usize::try_from(cursor.varint("a replica index")?)
            .ok()
            .filter(|index| *index < n_replicas);
        replica.ok_or_else(|| start.malformed("a replica index"))
    };
    let n_stamps = cursor.varint("the number of stamps")?;
    for _ in 0..n_stamps {
        let replica = replica_index(cursor)?;
        let number = commit_number(cursor)?;
        let (time, counter) = stamp_time(cursor)?;
        visitor.stamp(replica, number, time, counter);
    }
    let n_refs = if has_refs {
        let n = cursor.varint("the number of replicas")?;
        for _ in 0..n {
            visitor.reference(replica_index(cursor)?);
        }
        n
    } else {
        0
    };
    Ok(Refers {
        n_stamps,
        n_replicas: n_refs,
    })
}

fn commit_number(cursor: &mut Cursor<'_>) -> Result<u64, EngineError> {
    let start = *cursor;
    let number = cursor.varint("a commit number")?;
    if number == 0 {
        Err(start.malformed("a commit number"))
    } else {
        Ok(number)
    }
}

fn stamp_time(cursor: &mut Cursor<'_>) -> Result<(u64, u32), EngineError> {
    let start = *cursor;
    let time = cursor.varint("a stamp's time")?;
    if time > STAMP_TIME_MAX {
        return Err(start.malformed("a stamp's time"));
    }
    let counter = u32::try_from(cursor.varint("a stamp's counter")?);
    Ok((
        time,
        counter.map_err(|_| start.malformed("a stamp's counter"))?,
    ))
}
