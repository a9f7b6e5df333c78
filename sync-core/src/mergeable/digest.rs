//! Digests of contents: wrapping sums, so that they follow a change in constant time, in which every part counts by
//! the odd factors of the place where it stands. So what a type knows of a place and what it does not add up to what
//! software without the type has, and equal contents in other places differ.

use twox_hash::XxHash3_64;

use super::clock::{Dot, Stamp};

/// An odd factor that looks random: the finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
pub(super) const fn factor(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) | 1
}

/// The factor of a key.
pub(super) fn key_factor(key: &[u8]) -> u64 {
    XxHash3_64::oneshot(key) | 1
}

/// Hash of bytes that some numbers belong to.
pub(super) fn hash(numbers: &[u64], bytes: &[u8]) -> u64 {
    let seed = numbers.iter().fold(0_u64, |seed, number| {
        // As FNV-1a, by words; what follows mixes.
        (seed ^ number)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(29)
    });
    XxHash3_64::oneshot_with_seed(factor(seed), bytes)
}

/// Hash of a value and the write that it came with.
pub(super) fn stamped(stamp: &Stamp, bytes: &[u8]) -> u64 {
    let Dot { replica, number } = stamp.dot();
    hash(
        &[stamp.time, u64::from(stamp.counter), replica.0, number],
        bytes,
    )
}

/// What a field counts in its struct.
pub(super) const fn field(tag: u32, content: u64) -> u64 {
    let [a, b, c, d] = tag.to_be_bytes();
    let seed = u64::from_be_bytes([1, 0, 0, 0, a, b, c, d]);
    factor(seed).wrapping_mul(content)
}
