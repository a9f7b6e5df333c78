//! Walking MessagePack values, which are keys and values of mergeable types.

use super::DEPTH_MAX;
use crate::engine::EngineError;
use crate::mergeable::cursor::Cursor;

/// Checks that the next `length` bytes are one MessagePack value.
pub(in crate::mergeable) fn whole_value(
    mut cursor: Cursor<'_>,
    length: u64,
    depth_max: u32,
) -> Result<(), EngineError> {
    let mut part = cursor.part(length, "a MessagePack value")?;
    message_pack(&mut part, depth_max)?;
    if part.is_at_end() {
        Ok(())
    } else {
        Err(part.malformed("the end of a MessagePack value"))
    }
}

/// Whether `bytes` are one MessagePack value, nested at most [`DEPTH_MAX`] deep.
pub(in crate::mergeable) fn check_value(bytes: &[u8]) -> Result<(), EngineError> {
    whole_value(
        Cursor::new(bytes),
        u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        DEPTH_MAX,
    )
}

/// Skips one MessagePack value. A loop over a fixed stack, because recursion on input ends processes.
pub(in crate::mergeable) fn message_pack(
    cursor: &mut Cursor<'_>,
    depth_max: u32,
) -> Result<(), EngineError> {
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
