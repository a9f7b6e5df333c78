//! Checks the bytes of a change without building anything: no allocation, time linear in their length, nesting
//! bounded. It needs no application type, so a server runs the same check as every client.

use super::Kind;
use super::clock::{ReplicaId, STAMP_TIME_MAX};
use super::format::{Cursor, FORM_COMMIT, FORM_STATE};
use crate::engine::{EngineError, Folder, ValidateLimits, Validator};
use crate::ids::EngineId;

/// Deepest nesting of MessagePack arrays and maps in a key or value; a protocol constant.
pub(crate) const DEPTH_MAX: u32 = 64;

/// Told what a change's head says, while it is checked.
pub(super) trait Visitor {
    fn replica(&mut self, _: ReplicaId) {}
    fn base(&mut self, _replica: usize, _first: u64, _last: u64) {}
    fn claim(&mut self, _replica: usize, _first: u64, _last: u64) {}
    fn stamp(&mut self, _replica: usize, _number: u64, _time: u64, _counter: u32) {}
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
    let mut cursor = Cursor::new(bytes);
    let start = cursor;
    let n_stamps = match cursor.byte("a change")? {
        FORM_COMMIT => commit_head(&mut cursor, visitor)?,
        FORM_STATE => state_head(&mut cursor, visitor)?,
        _ => return Err(start.malformed("a change's form")),
    };
    let content = cursor;
    if !cursor.is_at_end() {
        node(&mut cursor, n_stamps, depth_max)?;
        if !cursor.is_at_end() {
            return Err(cursor.malformed("the end of the change"));
        }
    }
    Ok(content)
}

fn commit_head(cursor: &mut Cursor<'_>, visitor: &mut impl Visitor) -> Result<u64, EngineError> {
    visitor.replica(cursor.replica()?);
    let number = commit_number(cursor)?;
    visitor.claim(0, number, number);
    let n_stamps = cursor.varint("the number of stamps")?;
    for _ in 0..n_stamps {
        let (time, counter) = stamp_time(cursor)?;
        visitor.stamp(0, number, time, counter);
    }
    Ok(n_stamps)
}

fn state_head(cursor: &mut Cursor<'_>, visitor: &mut impl Visitor) -> Result<u64, EngineError> {
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
    }
    let n_stamps = cursor.varint("the number of stamps")?;
    for _ in 0..n_stamps {
        let start = *cursor;
        let replica = usize::try_from(cursor.varint("a replica index")?)
            .ok()
            .filter(|index| *index < n_replicas);
        let replica = replica.ok_or_else(|| start.malformed("a replica index"))?;
        let number = commit_number(cursor)?;
        let (time, counter) = stamp_time(cursor)?;
        visitor.stamp(replica, number, time, counter);
    }
    Ok(n_stamps)
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

fn node(cursor: &mut Cursor<'_>, n_stamps: u64, depth_max: u32) -> Result<(), EngineError> {
    let start = *cursor;
    let kind = Kind::from_number(cursor.byte("a node's kind")?)
        .ok_or_else(|| start.malformed("a node's kind"))?;
    let length = cursor.varint("a node's length")?;
    let mut body = cursor.part(length, "a node")?;
    match kind {
        Kind::LwwMap => lww_entries(&mut body, n_stamps, depth_max),
    }
}

fn lww_entries(body: &mut Cursor<'_>, n_stamps: u64, depth_max: u32) -> Result<(), EngineError> {
    let mut before: Option<&[u8]> = None;
    while !body.is_at_end() {
        let start = *body;
        if body.varint("a stamp index")? >= n_stamps {
            return Err(start.malformed("a stamp index"));
        }
        let length = body.varint("a key's length")?;
        let start = *body;
        let key = body.take(length, "a key")?;
        whole_value(start, length, depth_max)?;
        if before.replace(key).is_some_and(|before| before >= key) {
            return Err(start.malformed("keys in ascending order"));
        }
        if let Some(length) = body.varint("a value's length")?.checked_sub(1) {
            whole_value(*body, length, depth_max)?;
            body.take(length, "a value")?;
        }
    }
    Ok(())
}

/// Checks that the next `length` bytes are one MessagePack value.
fn whole_value(mut cursor: Cursor<'_>, length: u64, depth_max: u32) -> Result<(), EngineError> {
    let mut part = cursor.part(length, "a MessagePack value")?;
    message_pack(&mut part, depth_max)?;
    if part.is_at_end() {
        Ok(())
    } else {
        Err(part.malformed("the end of a MessagePack value"))
    }
}

/// Whether `bytes` are one MessagePack value, nested at most [`DEPTH_MAX`] deep.
pub(super) fn check_value(bytes: &[u8]) -> Result<(), EngineError> {
    whole_value(
        Cursor::new(bytes),
        u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        DEPTH_MAX,
    )
}

/// Skips one MessagePack value. A loop over a fixed stack, because recursion on input ends processes.
fn message_pack(cursor: &mut Cursor<'_>, depth_max: u32) -> Result<(), EngineError> {
    const WHAT: &str = "a MessagePack value";
    // Items that each open array or map still has to come.
    let mut open = [0_u64; 64];
    let mut depth = 0_usize;
    loop {
        let start = *cursor;
        let marker = cursor.byte(WHAT)?;
        let items = match marker {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => None,
            0x80..=0x8f => Some(u64::from(marker & 0x0f) * 2),
            0x90..=0x9f => Some(u64::from(marker & 0x0f)),
            0xdc => Some(big_endian(cursor, 2)?),
            0xdd => Some(big_endian(cursor, 4)?),
            0xde => Some(big_endian(cursor, 2)? * 2),
            0xdf => Some(big_endian(cursor, 4)? * 2),
            0xc1 => return Err(start.malformed(WHAT)),
            _ => {
                let bytes = match marker {
                    0xa0..=0xbf => u64::from(marker & 0x1f),
                    0xc4 | 0xd9 => big_endian(cursor, 1)?,
                    0xc5 | 0xda => big_endian(cursor, 2)?,
                    0xc6 | 0xdb => big_endian(cursor, 4)?,
                    // Extensions carry a type byte before their data.
                    0xc7 => big_endian(cursor, 1)? + 1,
                    0xc8 => big_endian(cursor, 2)? + 1,
                    0xc9 => big_endian(cursor, 4)? + 1,
                    0xcc | 0xd0 => 1,
                    0xcd | 0xd1 | 0xd4 => 2,
                    0xd5 => 3,
                    0xca | 0xce | 0xd2 => 4,
                    0xd6 => 5,
                    0xcb | 0xcf | 0xd3 => 8,
                    0xd7 => 9,
                    _ => 17,
                };
                cursor.take(bytes, WHAT)?;
                None
            }
        };
        if let Some(items) = items {
            let level = u32::try_from(depth).unwrap_or(u32::MAX);
            match open.get_mut(depth) {
                Some(slot) if level < depth_max => *slot = items,
                _ => {
                    return Err(EngineError::LimitExceeded {
                        what: "nesting of a value",
                        value: u64::from(level) + 1,
                        max: u64::from(depth_max),
                    });
                }
            }
            depth += 1;
        }
        // A value is complete, or an array or map has just begun: close what has nothing to come.
        let mut completed = items.is_none();
        loop {
            let Some(left) = depth.checked_sub(1).and_then(|top| open.get_mut(top)) else {
                return Ok(());
            };
            if completed {
                *left = left.saturating_sub(1);
            }
            if *left > 0 {
                break;
            }
            depth -= 1;
            completed = true;
        }
    }
}

fn big_endian(cursor: &mut Cursor<'_>, n: u64) -> Result<u64, EngineError> {
    let bytes = cursor.take(n, "a MessagePack length")?;
    Ok(bytes
        .iter()
        .fold(0, |value, byte| (value << 8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Serialize;

    use super::*;

    #[test]
    fn nesting_is_accepted_up_to_the_limit_and_not_beyond() {
        let nested = |depth: usize| [vec![0x91; depth], vec![0xc0]].concat();
        assert_eq!(check_value(&nested(64)), Ok(()));
        assert!(matches!(
            check_value(&nested(65)),
            Err(EngineError::LimitExceeded {
                value: 65,
                max: 64,
                ..
            })
        ));
        assert!(matches!(
            check_value(&nested(1_000_000)),
            Err(EngineError::LimitExceeded { .. })
        ));
        let empty_innermost = [vec![0x91; 64], vec![0x90]].concat();
        assert!(check_value(&empty_innermost).is_err());
    }

    #[test]
    fn every_marker_needs_exactly_its_bytes() {
        for marker in 0..=255_u8 {
            // An array with enough behind it: some length is the right one, for all but the reserved marker.
            let bytes = [vec![marker], vec![0; 40]].concat();
            let right = (1..=bytes.len())
                .filter(|length| check_value(&bytes[..*length]).is_ok())
                .count();
            assert_eq!(right, usize::from(marker != 0xc1), "{marker:#x}");
        }
    }

    #[test]
    fn counts_that_the_input_cannot_hold_are_refused() {
        for bytes in [
            &[0xdd, 0xff, 0xff, 0xff, 0xff][..],
            &[0xdf, 0xff, 0xff, 0xff, 0xff, 0],
            &[0xc6, 0xff, 0, 0, 0],
        ] {
            assert!(check_value(bytes).is_err());
        }
    }

    #[derive(Debug, Clone, Serialize)]
    enum Tree {
        Leaf(Option<i64>, String, f64, Vec<u8>),
        Branch(BTreeMap<String, Self>),
        List(Vec<Self>),
    }

    fn tree() -> impl Strategy<Value = Tree> {
        let leaf = (
            any::<Option<i64>>(),
            ".{0,40}",
            any::<f64>(),
            any::<Vec<u8>>(),
        )
            .prop_map(|(a, b, c, d)| Tree::Leaf(a, b, c, d));
        leaf.prop_recursive(4, 24, 6, |inner| {
            prop_oneof![
                prop::collection::btree_map(".{0,5}", inner.clone(), 0..6).prop_map(Tree::Branch),
                prop::collection::vec(inner, 0..6).prop_map(Tree::List),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_serde_writes_is_accepted_and_its_truncations_are_not(tree in tree()) {
            let bytes = rmp_serde::to_vec_named(&tree).unwrap();
            prop_assert_eq!(check_value(&bytes), Ok(()));
            for length in 0..bytes.len() {
                prop_assert!(check_value(&bytes[..length]).is_err());
            }
            prop_assert!(check_value(&[bytes, vec![0]].concat()).is_err());
        }
    }
}
