//! Devices that lose their power, go back to older copies, and have clocks that are wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use sync_sim::world::maps::{DOC, bytes_in_log, keys, set, world_with_stores};
use sync_sim::world::{CALM, ROUGH, in_memory};

#[test]
fn a_device_that_loses_its_power_loses_at_most_the_last_edits_that_were_not_synced() {
    let mut n_lost = 0;
    for seed in 1..=100 {
        let mut world = world_with_stores(in_memory(), seed, 2, ROUGH);
        let (mut made, mut gone) = (0, 0);
        for _ in 0..30 {
            match world.below(10) {
                0 => {
                    let unsaved = world.sync_state(0, DOC).unsaved_locally;
                    let lost = world.lose_power(0);
                    assert!(u64::try_from(lost.len()).unwrap() <= unsaved, "seed {seed}");
                    gone += lost.len();
                    world.open(0, DOC);
                }
                1 => world.cut(0),
                2 => {
                    let is_online = world.below(2) == 0;
                    world.set_online(0, is_online);
                }
                _ => {
                    set(&mut world, 0, made, made);
                    made += 1;
                }
            }
            let pause = Duration::from_millis(world.below(60));
            world.run_for(pause);
        }
        world.set_online(0, true);
        world.settle(DOC);
        world.assert_converged(DOC);
        let there = keys(&world, 1);
        // What was lost may have reached the server before.
        let missing = usize::try_from(made).unwrap() - there.len();
        assert!(missing <= gone, "seed {seed}: {missing} of {gone}");
        let log = bytes_in_log(&world);
        assert_eq!(
            log.iter().collect::<BTreeSet<_>>().len(),
            log.len(),
            "seed {seed}"
        );
        n_lost += gone;
    }
    assert!(n_lost > 20, "{n_lost}");
}

#[test]
fn a_device_that_is_put_back_to_an_older_copy_takes_up_everything_since() {
    for seed in 1..=100 {
        let mut world = world_with_stores(in_memory(), seed, 2, ROUGH);
        if seed.is_multiple_of(2) {
            world.folding = Some((4, 60));
        }
        let mut backups = Vec::new();
        let mut made = 0;
        for _ in 0..40 {
            match world.below(12) {
                0 => backups.extend(world.backup_store(0)),
                1 if !backups.is_empty() => {
                    // Only what the server has, and what the copy has, is known to anybody.
                    world.settle(DOC);
                    let n = u64::try_from(backups.len()).unwrap();
                    let at = usize::try_from(world.below(n)).unwrap();
                    let backup = backups[at].clone();
                    world.restore_store(0, backup);
                    world.open(0, DOC);
                }
                _ => {
                    let client = usize::try_from(world.below(2)).unwrap();
                    set(&mut world, client, made, made);
                    made += 1;
                }
            }
            let pause = Duration::from_millis(world.below(400));
            world.run_for(pause);
        }
        world.settle(DOC);
        world.assert_converged(DOC);
        assert_eq!(keys(&world, 0), (0..made).collect(), "seed {seed}");
        assert_eq!(world.refused(0, DOC), [], "seed {seed}");
    }
}

#[test]
fn a_store_that_saves_the_cursor_before_the_document_lacks_what_it_says_it_has() {
    let is_found = (1..=60).any(|seed| {
        let mut world = world_with_stores(in_memory(), seed, 2, ROUGH);
        world.clients[0].store.as_mut().unwrap().saves_cursor_first = true;
        for n in 0..20 {
            set(&mut world, 1, n, n);
            let pause = Duration::from_millis(world.below(100));
            world.run_for(pause);
        }
        // The last change has arrived, and is on its way into the store.
        world.run_until(Duration::from_secs(30), "it has all", |world| {
            world
                .cursor(0, DOC)
                .is_some_and(|cursor| cursor.seq.0 == 20)
        });
        world.restart_client(0);
        world.open(0, DOC);
        world.settle(DOC);
        keys(&world, 0) != keys(&world, 1)
    });
    assert!(is_found);
}

#[test]
fn edits_are_stored_once_the_store_works_again() {
    let mut world = world_with_stores(in_memory(), 1, 1, CALM);
    world.settle(DOC);
    world.clients[0].store.as_mut().unwrap().fails = true;
    set(&mut world, 0, 0, 0);
    world.run_for(Duration::from_secs(10));
    assert!(world.counts[&("fault", "store failed")] > 5);
    assert_eq!(world.sync_state(0, DOC).unsaved_locally, 1);
    world.clients[0].store.as_mut().unwrap().fails = false;
    world.run_for(Duration::from_secs(2));
    assert_eq!(world.sync_state(0, DOC).unsaved_locally, 0);
}

/// Scenario 5.
#[test]
fn a_write_made_after_seeing_a_value_beats_it_whatever_the_clocks_say() {
    const HOUR: i64 = 3_600_000;
    for ahead in [-HOUR, HOUR, -24 * HOUR, 24 * HOUR] {
        let mut world = world_with_stores(in_memory(), 2, 2, CALM);
        world.settle(DOC);
        world.set_clock(0, ahead);
        world.set_clock(1, -ahead);
        for n in 0..6 {
            let client = usize::try_from(n % 2).unwrap();
            world.set_node_clock(0, ahead * i64::try_from(n % 3).unwrap() / 2);
            set(&mut world, client, 0, n);
            world.settle(DOC);
            for client in 0..2 {
                let value = world.read(client, DOC, |map| map.get(&0).copied());
                assert_eq!(value, Some(n), "{ahead}");
            }
            world.cut(client);
        }
    }
}

#[test]
fn a_document_that_is_closed_and_opened_again_is_what_it_was() {
    for seed in 1..=200 {
        let mut world = world_with_stores(in_memory(), seed, 2, ROUGH);
        let mut made = 0;
        for _ in 0..40 {
            let client = usize::try_from(world.below(2)).unwrap();
            match world.below(8) {
                0 => world.close(client, DOC),
                1 | 2 => world.open(client, DOC),
                3 => world.cut(client),
                4 if world.below(4) == 0 => {
                    world.restart_client(client);
                }
                _ => {
                    let is_made = world.edit(client, DOC, |map| map.insert(made, made).unwrap());
                    made += u64::from(is_made);
                }
            }
            let pause = Duration::from_millis(world.below(500));
            world.run_for(pause);
        }
        for client in 0..2 {
            world.open(client, DOC);
        }
        world.settle(DOC);
        world.assert_converged(DOC);
        assert_eq!(keys(&world, 0), (0..made).collect(), "seed {seed}");
        let log = bytes_in_log(&world);
        assert_eq!(u64::try_from(log.len()).unwrap(), made, "seed {seed}");
        for client in 0..2 {
            assert_eq!(world.refused(client, DOC), [], "seed {seed}");
        }
    }
}

/// What the older copy takes for pending had been committed, and is in the snapshot: the ack of the next edit, which has the same
/// number, is not its.
#[test]
fn a_snapshot_at_the_head_takes_what_it_covers_out_of_the_outbox_before_the_next_ack() {
    let mut world = world_with_stores(in_memory(), 1, 1, CALM);
    world.folding = Some((1, 0));
    world.set_online(0, false);
    set(&mut world, 0, 0, 0);
    world.run_for(Duration::from_secs(1));
    let backup = world.backup_store(0).unwrap();
    world.set_online(0, true);
    world.settle(DOC);
    world.run_until(Duration::from_secs(10), "it is folded", |world| {
        world.meta(DOC).snapshot_seq == world.meta(DOC).head
    });
    world.restore_store(0, backup);
    world.open(0, DOC);
    world.settle(DOC);
    set(&mut world, 0, 1, 1);
    world.settle(DOC);
    world.assert_converged(DOC);
    assert_eq!(keys(&world, 0), [0, 1].into());
}
