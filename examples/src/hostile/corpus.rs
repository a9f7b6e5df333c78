//! Honest documents of every engine, whose bytes are then mutated.

use bytes::Bytes;
use sync_core::engine::suite::{AutomergeProbe, LoroProbe, Probe, TypedProbe, YrsProbe};
use sync_core::engine::{Document, Engine, EngineError, ReplicaSeed};
use sync_core::rng::Rng;
use sync_server::EngineId;

use super::Brittle;

/// What one replica did to one document.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The document's engine.
    pub engine: EngineId,
    /// Its first changes.
    pub base: Vec<Bytes>,
    /// Changes that may follow, one after the other.
    pub next: Vec<Bytes>,
    /// The state after all of them.
    pub snapshot: Bytes,
}

/// Edits of a sample.
const EDITS: usize = 16;

/// A sample of an engine: of the one with this number, counted round.
///
/// # Errors
/// The engine's.
pub fn sample(number: usize, seed: u64) -> Result<Sample, EngineError> {
    let mut random = Rng::new(seed.into());
    match number % KINDS {
        0 => of::<YrsProbe>(&mut random),
        1 => of::<LoroProbe>(&mut random),
        2 => of::<AutomergeProbe>(&mut random),
        3 => of::<TypedProbe>(&mut random),
        _ => Ok(brittle(&mut random)),
    }
}

/// How many engines there are samples of.
pub const KINDS: usize = 5;

fn of<P: Probe>(random: &mut Rng) -> Result<Sample, EngineError> {
    let engine = P::engine();
    let mut replica = engine.create(ReplicaSeed(random.next_u128()))?;
    let mut changes = Vec::new();
    let mut number = 0;
    while changes.len() < EDITS {
        engine.edit(&mut replica, usize::MAX, |edit| P::edit(edit, random))?;
        engine.edit(&mut replica, usize::MAX, |edit| P::add(edit, number))?;
        number += 1;
        changes.append(&mut replica.drain().local);
    }
    let next = changes.split_off(EDITS / 2);
    Ok(Sample {
        engine: engine.id(),
        base: changes,
        next,
        snapshot: replica.snapshot()?,
    })
}

fn brittle(random: &mut Rng) -> Sample {
    const DEATHS: [&str; 6] = [
        "abort",
        "panic",
        "overflow",
        "allocate",
        "word",
        "b<nothing",
    ];
    let words = (0..EDITS / 2).map(|_| {
        // What takes long is in the tests: here it would only be waited for.
        let at = usize::try_from(random.next_u64() % 6).unwrap_or_default();
        Bytes::from_static(DEATHS.get(at).copied().unwrap_or_default().as_bytes())
    });
    Sample {
        engine: Brittle::id(),
        base: vec![Bytes::from_static(b"a"), Bytes::from_static(b"b<a")],
        next: words.collect(),
        snapshot: Bytes::from_static(b"a\nb<a\n"),
    }
}
