//! Documents that are rewound, restored, trimmed and deleted while nodes serve them.

use std::time::Duration;

use sync_core::client::SyncPhase;
use sync_core::history::{EpochMode, Seq};
use sync_sim::world::maps::{DOC, Map, keys, set, world};
use sync_sim::world::{CALM, Hints, Restored, World, in_memory};

/// Two nodes, with a client each.
fn nodes(seed: u64) -> World<Map> {
    let mut world = world(in_memory(), seed, 0, CALM);
    world.add_node();
    for client in 0..2 {
        world.add_client();
        world.dial_node(client, Some(client));
        world.open(client, DOC);
    }
    world.settle(DOC);
    world
}

fn write(world: &mut World<Map>, edits: std::ops::Range<u64>) {
    for n in edits {
        set(world, usize::try_from(n % 2).unwrap(), n, n);
        world.settle(DOC);
    }
}

#[test]
fn what_was_removed_by_a_rewind_is_gone_everywhere() {
    let mut world = nodes(1);
    write(&mut world, 0..6);
    assert!(world.rewind(DOC, Seq(3)));
    assert_eq!(world.meta(DOC).mode, EpochMode::Discard);
    world.run_for(Duration::from_secs(10));
    world.settle(DOC);
    world.assert_converged(DOC);
    for client in 0..2 {
        assert_eq!(keys(&world, client), (0..3).collect());
    }
    assert!(!world.rewind(DOC, Seq(3)), "that is its head");
}

/// Scenario 78.
#[test]
fn what_a_restored_document_lacks_comes_back_from_its_clients() {
    for restored in [Restored::NewEpoch, Restored::SameEpoch] {
        let mut world = nodes(2);
        write(&mut world, 0..3);
        let backup = world.registry.backup();
        write(&mut world, 3..6);
        assert!(world.restore_document(DOC, &*backup, restored));
        // Somebody overtakes it before the others notice.
        let late = world.add_client();
        world.dial_node(late, Some(0));
        world.open(late, DOC);
        (10..14).for_each(|n| set(&mut world, late, n, n));
        (0..2).for_each(|client| world.cut(client));
        world.run_for(Duration::from_secs(90));
        world.settle(DOC);
        world.assert_converged(DOC);
        let all = (0..6).chain(10..14).collect();
        assert_eq!(keys(&world, 1), all, "{restored:?}");
    }
}

#[test]
fn a_trimmed_document_goes_on_where_it_was_on_every_node() {
    for hints in [Hints::PROMPT, Hints::NONE] {
        let mut world = nodes(3);
        world.weather.hints = hints;
        write(&mut world, 0..6);
        world.trim(0, DOC, 2).unwrap();
        assert_eq!(world.log(DOC).len(), 0);
        assert_eq!(world.meta(DOC).mode, EpochMode::Rebase);
        write(&mut world, 6..10);
        world.assert_converged(DOC);
        assert_eq!(keys(&world, 0), (0..10).collect());
    }
}

/// Scenario 63.
#[test]
fn a_deleted_document_is_deleted_for_everybody() {
    let mut world = nodes(4);
    write(&mut world, 0..3);
    assert!(world.delete(DOC));
    world.run_for(Duration::from_secs(5));
    for client in 0..2 {
        let phase = world.sync_state(client, DOC).phase;
        assert_eq!(phase, SyncPhase::Deleted, "client {client}");
    }
}

/// What the copy lacks had been acknowledged, and its own history began by a trim.
#[test]
fn a_copy_from_before_the_last_trim_that_is_put_back_takes_nothing_from_anybody() {
    let mut world = nodes(5);
    write(&mut world, 0..4);
    world.trim(0, DOC, 0).unwrap();
    write(&mut world, 4..6);
    let copy = world.registry.backup();
    world.trim(0, DOC, 0).unwrap();
    write(&mut world, 6..8);
    world.restore(copy);
    assert_eq!(world.meta(DOC).mode, EpochMode::Rebase);
    world.run_for(Duration::from_secs(60));
    world.settle(DOC);
    world.assert_converged(DOC);
    for client in 0..2 {
        assert_eq!(keys(&world, client), (0..8).collect());
        assert_eq!(world.refused(client, DOC), []);
    }
}
