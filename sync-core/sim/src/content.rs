//! What the documents of a plan hold: marks, each left by one edit, so that everybody can see what became of it.

mod relayed;
mod texts;

use std::collections::BTreeSet;

use bytes::Bytes;
use sync_core::engine::opaque::{Opaque, OpaqueLog};
use sync_core::engine::typed::Typed;
use sync_core::engine::{Engine, EngineError, Folder, Ledger, ValidateLimits, Validator};
use sync_core::ids::EngineId;
use sync_core::mergeable::LwwMap;
use sync_core::rng::Rng;

pub use relayed::Relayed;

/// The name of one edit, in the whole run.
pub type Mark = u64;

/// An engine whose documents can hold marks. A mark is somewhere in the bytes of each change and each snapshot that
/// hold it, as [`marks_in`] finds it.
pub trait Content: Engine + Validator + Clone {
    /// Whether replicas of equal versions show the same, or the same in any order.
    const IS_EXACT: bool;

    /// The engine.
    fn engine() -> Self;

    /// Leaves a mark, and writes to one of the places that others write to, too.
    fn leave(edit: &mut Self::Edit<'_>, mark: Mark, place: u64);

    /// Leaves a mark in a change that is too large for one frame, also compressed.
    fn leave_largely(edit: &mut Self::Edit<'_>, mark: Mark);

    /// Everything, in a form that is the same for equal content.
    fn shown(read: &Self::Read<'_>) -> Vec<u8>;

    /// Leaves a mark in a way that no server takes.
    fn leave_badly(edit: &mut Self::Edit<'_>, mark: Mark);

    /// A change in the name of somebody else's replica, where the engine has such names: well formed, and not to be taken.
    fn forge(_theirs: &mut Self::Document, _mark: Mark) -> Option<Bytes> {
        None
    }
}

/// What no server takes in a change, by [`Picky`].
const UNWANTED: &str = "unwanted";

/// An engine's checks, and one more: some changes that the engine makes are not taken, as if the client's engine were a later
/// version with other rules.
#[derive(Debug, Clone)]
pub struct Picky<C>(pub C);

impl<C: Content> Validator for Picky<C> {
    fn engine(&self) -> EngineId {
        self.0.id()
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        if change
            .windows(UNWANTED.len())
            .any(|at| at == UNWANTED.as_bytes())
        {
            return Err(EngineError::Rejected {
                what: "it is not wanted",
            });
        }
        Engine::validate(&self.0, change, limits)
    }

    fn ledger(&self) -> Option<Box<dyn Ledger>> {
        Engine::ledger(&self.0)
    }

    fn folder(&self) -> Option<&dyn Folder> {
        Some(&self.0)
    }
}

/// Much that does not become small when it is compressed, and holds no mark.
fn much(mark: Mark) -> String {
    let mut rng = Rng::new(u128::from(mark));
    let letter = |n: u64| char::from(b'a' + u8::try_from(n % 26).unwrap());
    (0..130_000).map(|_| letter(rng.next_u64())).collect()
}

/// The bytes of a mark.
#[must_use]
pub fn text_of(mark: Mark) -> String {
    format!("<{mark}>")
}

/// The marks in some bytes.
#[must_use]
pub fn marks_in(bytes: &[u8]) -> BTreeSet<Mark> {
    let mut marks = BTreeSet::new();
    let mut number: Option<Mark> = None;
    for byte in bytes {
        number = match (byte, number) {
            (b'<', _) => Some(0),
            (b'0'..=b'9', Some(so_far)) => so_far
                .checked_mul(10)
                .and_then(|tens| tens.checked_add(Mark::from(byte - b'0'))),
            // Marks are numbered from 1.
            (b'>', Some(mark @ 1..)) => {
                marks.insert(mark);
                None
            }
            _ => None,
        };
    }
    marks
}

/// The documents of most plans.
pub type Map = Typed<LwwMap<String, u64>>;

impl Content for Map {
    const IS_EXACT: bool = true;

    fn engine() -> Self {
        Self::new()
    }

    fn leave(map: &mut Self::Edit<'_>, mark: Mark, place: u64) {
        map.insert(text_of(mark), mark).unwrap();
        let place = format!("place {place}");
        if mark.is_multiple_of(7) {
            map.remove(&place).unwrap();
        } else {
            map.insert(place, mark).unwrap();
        }
    }

    fn shown(map: &Self::Read<'_>) -> Vec<u8> {
        let entries = map.iter().map(|(key, value)| format!("{key}={value};"));
        entries.collect::<String>().into_bytes()
    }

    fn leave_largely(map: &mut Self::Edit<'_>, mark: Mark) {
        map.insert(text_of(mark), mark).unwrap();
        map.insert(much(mark), mark).unwrap();
    }

    fn leave_badly(map: &mut Self::Edit<'_>, mark: Mark) {
        map.insert(text_of(mark), mark).unwrap();
        map.insert(UNWANTED.to_owned(), mark).unwrap();
    }
}

impl Content for Opaque {
    // What is pending is shown last, and what a client has brought back to a server that lost it stays where it was.
    const IS_EXACT: bool = false;

    fn engine() -> Self {
        Self::new().fold(|snapshots, changes| {
            let all: Vec<&[u8]> = snapshots.iter().chain(changes).map(|it| &**it).collect();
            all.concat().into()
        })
    }

    fn leave(log: &mut Self::Edit<'_>, mark: Mark, _: u64) {
        log.push(text_of(mark));
    }

    fn shown(log: &OpaqueLog) -> Vec<u8> {
        let all = log.snapshots().chain(log.changes()).chain(log.pending());
        all.flat_map(|it| it.to_vec()).collect()
    }

    fn leave_largely(log: &mut Self::Edit<'_>, mark: Mark) {
        log.push(format!("{}{}", text_of(mark), much(mark)));
    }

    fn leave_badly(log: &mut Self::Edit<'_>, mark: Mark) {
        log.push(format!("{}{UNWANTED}", text_of(mark)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_found_between_any_other_bytes() {
        assert_eq!(marks_in(b"\x00<12>\xff<<3>x<4"), BTreeSet::from([12, 3]));
        assert_eq!(marks_in(b"<x7><>8>"), BTreeSet::new());
    }
}
