//! Mutations, and the checksums that formats have put right again.

use std::hash::Hasher;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use sync_server::EngineId;
use twox_hash::XxHash32;

use super::Brittle;
use crate::random::SplitMix;

/// Mutates bytes of an engine, one to three times.
#[must_use]
pub fn mutate(engine: &EngineId, bytes: &[u8], random: &mut SplitMix) -> Bytes {
    // What it dies of are words: there is no format to break.
    if *engine == Brittle::id() {
        return Bytes::copy_from_slice(bytes);
    }
    let mut mutated = bytes.to_vec();
    for _ in 0..=random.below(3) {
        once(&mut mutated, random);
    }
    // Accidents are found by checksums, attackers are not.
    if random.below(8) > 0 {
        if *engine == EngineId::LORO {
            loro(&mut mutated);
        } else if *engine == EngineId::AUTOMERGE {
            automerge(&mut mutated);
        }
    }
    mutated.into()
}

fn byte(random: &mut SplitMix) -> u8 {
    // The numbers at which lengths and counts turn over come more often than others.
    const EDGES: [u8; 6] = [0, 1, 0x7f, 0x80, 0xfe, 0xff];
    match EDGES.get(random.below(12)) {
        Some(edge) => *edge,
        None => random.draw().to_le_bytes()[0],
    }
}

fn once(bytes: &mut Vec<u8>, random: &mut SplitMix) {
    let (from, length) = (random.below(bytes.len()), 1 + random.below(8));
    let to = (from + length).min(bytes.len());
    match random.below(7) {
        0 => {
            if let Some(one) = bytes.get_mut(from) {
                *one ^= 1 << random.below(8);
            }
        }
        1 => bytes.truncate(from),
        2 => {
            for one in bytes.get_mut(from..to).unwrap_or_default() {
                *one = byte(random);
            }
        }
        3 => {
            let more: Vec<u8> = (0..length).map(|_| byte(random)).collect();
            bytes.splice(from..from, more);
        }
        4 => {
            bytes.drain(from..to);
        }
        5 => {
            // A number as large as the format has.
            let large = [0xff, 0xff, 0xff, 0xff, 0x0f];
            let length = 1 + random.below(large.len());
            bytes.splice(from..to, large.iter().rev().take(length).rev().copied());
        }
        _ => {
            let more = bytes.get(from..to).unwrap_or_default().to_vec();
            for _ in 0..=random.below(40) {
                bytes.splice(from..from, more.iter().copied());
            }
        }
    }
}

/// `xxh32` over what follows the checksum, at byte 16.
fn loro(bytes: &mut [u8]) {
    let mut hasher = XxHash32::with_seed(u32::from_le_bytes(*b"LORO"));
    hasher.write(bytes.get(20..).unwrap_or_default());
    if let Some(checksum) = bytes.get_mut(16..20) {
        checksum.copy_from_slice(&hasher.finish_32().to_le_bytes());
    }
    if let Some(magic) = bytes.get_mut(..4) {
        magic.copy_from_slice(b"loro");
    }
}

/// The first four bytes of SHA-256 over what follows the checksum, at byte 4.
fn automerge(bytes: &mut [u8]) {
    let hash = Sha256::digest(bytes.get(8..).unwrap_or_default());
    if let (Some(checksum), Some(hash)) = (bytes.get_mut(4..8), hash.get(..4)) {
        checksum.copy_from_slice(hash);
    }
    if let Some(magic) = bytes.get_mut(..4) {
        magic.copy_from_slice(&[0x85, 0x6f, 0x4a, 0x83]);
    }
}
