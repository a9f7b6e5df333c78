//! Replicas with the same changes are equal.

use bytes::Bytes;

use super::world::World;
use super::{Probe, add, assert_equal, below, content, loaded, ok, replica};
use crate::engine::{Document, EngineError, Folder};

pub(super) fn replicas_converge_in_every_causal_order_with_repeats_and_snapshots<P: Probe>(
    seed: u64,
) {
    let mut world = World::<P>::new(seed);
    world.settle();
    let seeds = [world.seed(), world.seed()];
    let state = world.states().pop().unwrap_or_default();
    let mut joiner = loaded::<P>(seeds[0], &state);
    let mut replayed = replica::<P>(seeds[1]);
    ok(replayed.import(&world.bytes()));
    let mut replicas: Vec<_> = world.replicas.iter_mut().collect();
    replicas.extend([&mut joiner, &mut replayed]);
    assert_equal::<P>(&format!("seed {seed}"), &mut replicas);
}

pub(super) fn merging_states_is_commutative_associative_and_idempotent<P: Probe>(seed: u64) {
    let mut world = World::<P>::new(seed);
    let what = format!("seed {seed}");
    let states = world.states();
    let [a, b, c, ..] = states.as_slice() else {
        return;
    };
    let mut merged = |states: &[&Bytes]| {
        let mut merged = replica::<P>(world.seed());
        for state in states {
            ok(merged.import_snapshot(state));
        }
        merged
    };
    let (mut ab, mut ba) = (merged(&[a, b]), merged(&[b, a]));
    assert_equal::<P>(&what, &mut [&mut ab, &mut ba]);
    let (ab, bc) = (ok(ab.snapshot()), ok(merged(&[b, c]).snapshot()));
    let mut equal = [merged(&[&ab, c]), merged(&[a, &bc]), merged(&[c, &ab])];
    assert_equal::<P>(&what, &mut equal.iter_mut().collect::<Vec<_>>());
    let mut equal = [merged(&[a]), merged(&[a, a])];
    assert_equal::<P>(&what, &mut equal.iter_mut().collect::<Vec<_>>());
    let mut equal = [merged(&[&ab]), merged(&[&ab, a]), merged(&[b, &ab])];
    assert_equal::<P>(&what, &mut equal.iter_mut().collect::<Vec<_>>());
}

pub(super) fn importing_changes_in_a_batch_is_importing_them_singly<P: Probe>(seed: u64) {
    let mut world = World::<P>::new(seed);
    let (mut singly, mut batch) = (replica::<P>(world.seed()), replica::<P>(world.seed()));
    let changes = world.bytes();
    for change in &changes {
        ok(singly.import(std::slice::from_ref(change)));
    }
    ok(batch.import(&changes));
    assert_equal::<P>(&format!("seed {seed}"), &mut [&mut singly, &mut batch]);
}

pub(super) fn changes_in_any_order_leave_the_same_once_all_have_arrived<P: Probe>(seed: u64) {
    let mut world = World::<P>::new(seed);
    let (mut ordered, mut shuffled) = (replica::<P>(world.seed()), replica::<P>(world.seed()));
    let mut changes = world.bytes();
    ok(ordered.import(&changes));
    for last in (1..changes.len()).rev() {
        let other = below(&mut world.random, last + 1);
        changes.swap(last, other);
    }
    let mut is_waiting = false;
    for change in &changes {
        is_waiting = ok(shuffled.import(std::slice::from_ref(change))).pending;
    }
    assert!(!is_waiting, "a change waits for ever, seed {seed}");
    assert_equal::<P>(&format!("seed {seed}"), &mut [&mut ordered, &mut shuffled]);
}

pub(super) fn since_gives_exactly_what_another_replica_lacks<P: Probe>(seed: u64) {
    let mut world = World::<P>::new(seed);
    let [a, b, ..] = world.replicas.as_mut_slice() else {
        return;
    };
    let version = b.version();
    if let Some(lacking) = ok(a.since(&version)) {
        let imported = ok(b.import(&[lacking]));
        assert!(!imported.pending, "seed {seed}");
    }
    let version = a.version();
    if let Some(lacking) = ok(b.since(&version)) {
        ok(a.import(&[lacking]));
    }
    let version = b.version();
    assert_eq!(ok(a.since(&version)), None, "seed {seed}");
    assert_equal::<P>(&format!("seed {seed}"), &mut [a, b]);
}

pub(super) fn a_fold_is_what_importing_the_log_gives<P: Probe>(seed: u64) {
    let mut world = World::<P>::new(seed);
    let changes = world.bytes();
    if changes.is_empty() {
        return;
    }
    let mut imported = replica::<P>(world.seed());
    ok(imported.import(&changes));
    let cut = below(&mut world.random, changes.len());
    let (before, after) = changes.split_at(cut);
    let first = (cut > 0).then(|| ok(P::engine().fold(None, before)));
    let folded = ok(P::engine().fold(first.as_deref(), after));
    let mut folded = loaded::<P>(world.seed(), &folded);
    assert_equal::<P>(&format!("seed {seed}"), &mut [&mut imported, &mut folded]);
}

/// Engines that forget nothing say so.
pub(super) fn a_trim_changes_no_content_and_work_goes_on_from_it<P: Probe>(seed: u64) {
    let what = format!("seed {seed}");
    let mut world = World::<P>::new(seed);
    let changes = world.bytes();
    let keep = below(&mut world.random, changes.len() + 1);
    if changes.is_empty() {
        return;
    }
    let trimmed = match P::engine().trim(None, &changes, keep) {
        Err(EngineError::Unsupported { .. }) => return,
        trimmed => ok(trimmed),
    };
    let mut at_head = replica::<P>(world.seed());
    ok(at_head.import(&changes));
    let before = content::<P>(&at_head);
    ok(at_head.import_snapshot(&trimmed));
    assert_eq!(content::<P>(&at_head), before, "{what}");
    let mut fresh = loaded::<P>(world.seed(), &trimmed);
    assert_equal::<P>(&what, &mut [&mut at_head, &mut fresh]);

    let more = [add::<P>(&mut at_head, 1), add::<P>(&mut fresh, 2)];
    ok(at_head.import(&more));
    ok(fresh.import(&more));
    assert_equal::<P>(&what, &mut [&mut at_head, &mut fresh]);
    let folded = ok(P::engine().fold(Some(&trimmed), &more));
    let mut folded = loaded::<P>(world.seed(), &folded);
    assert_equal::<P>(&what, &mut [&mut at_head, &mut folded]);
}
