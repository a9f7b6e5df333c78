//! Permissions that come and go at random, against edits, cuts and questions that nobody answers.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod registries;

use std::collections::BTreeSet;
use std::time::Duration;

use sync_client::{LwwMap, Typed};
use sync_core::client::SyncPhase;
use sync_core::wire::AccessLevel;
use sync_sim::world::{CALM, ROUGH, World};

type Map = Typed<LwwMap<String, u8>>;

const DOC: &str = "doc";
const CLIENTS: usize = 3;
const LEVELS: [AccessLevel; 3] = [AccessLevel::None, AccessLevel::Read, AccessLevel::Write];

seeds! {
    /// Scenarios 56 and 87: what is appended and what is sent is looked at while it happens; in the end every edit is either
    /// in the document or handed back.
    permissions_come_and_go => come_and_go, 300, 20
}

fn come_and_go(seed: u64) {
    let weather = if seed.is_multiple_of(2) { CALM } else { ROUGH };
    let mut world = World::on(registries::simulated(), seed, Map::new(), weather);
    world.permits.valid_for = (!seed.is_multiple_of(3)).then_some(Duration::from_secs(8));
    if seed.is_multiple_of(5) {
        world.folding = Some((8, 0));
    }
    for client in 0..CLIENTS {
        world.add_client();
        world.open(client, DOC);
    }
    let mut made = BTreeSet::new();
    for step in 0..60 {
        let client = usize::try_from(world.below(3)).unwrap();
        match world.below(12) {
            0..=5 => {
                if world.edit(client, DOC, |map| map.insert(word(step), 0).unwrap()) {
                    made.insert(word(step));
                }
            }
            6..=8 => {
                let level = LEVELS[usize::try_from(world.below(3)).unwrap()];
                let is_told = world.permits.valid_for.is_none() || world.below(3) > 0;
                world.permit(client, level, is_told);
            }
            9 => world.permits.is_away = world.below(2) == 0,
            10 => world.cut(client),
            _ => allow_again(&mut world, client),
        }
        let pause = Duration::from_millis(world.below(600));
        world.run_for(pause);
    }
    world.permits.is_away = false;
    for client in 0..CLIENTS {
        allow_again(&mut world, client);
    }
    world.settle(DOC);
    world.assert_converged(DOC);
    let kept: BTreeSet<String> = world.read(0, DOC, |map| {
        map.iter().map(|(key, _)| key.clone()).collect()
    });
    for word in made {
        let is_refused = (0..CLIENTS).any(|client| {
            let refused = world.refused(client, DOC);
            refused.iter().any(|change| holds(&change.bytes, &word))
        });
        assert_ne!(
            kept.contains(&word),
            is_refused,
            "seed {seed}: what became of edit {word}? handed back: {is_refused}"
        );
    }
}

/// Lets a client write again, and opens the document where it was told that it may not.
fn allow_again(world: &mut World<Map>, client: usize) {
    world.permit(client, AccessLevel::Write, true);
    // It may be on its way.
    world.run_for(Duration::from_secs(1));
    // Whatever it was told, also that there was no document and that it might not make one.
    if matches!(world.sync_state(client, DOC).phase, SyncPhase::Refused(_)) {
        world.open(client, DOC);
    }
}

/// What an edit writes, as nothing else does.
fn word(step: u64) -> String {
    format!("<{step}>")
}

fn holds(change: &[u8], word: &str) -> bool {
    change.windows(word.len()).any(|at| at == word.as_bytes())
}
