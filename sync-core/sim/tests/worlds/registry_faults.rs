//! Registries that fail, and registries that break their promises.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sync_sim::world::maps::{DOC, Map, bytes_in_log, keys, set, world};
use sync_sim::world::{
    BuggyRegistry, CALM, CrashPoint, DriverBug, ROUGH, RegistryBug, RegistryFaults, Weather, World,
    in_memory,
};

fn buggy(bug: RegistryBug, seed: u64, clients: usize, weather: Weather) -> World<Map> {
    world(Arc::new(BuggyRegistry::new(bug)), seed, clients, weather)
}

#[track_caller]
fn assert_each_once(world: &mut World<Map>, made: u64, what: &str) {
    world.settle(DOC);
    world.assert_converged(DOC);
    assert_eq!(keys(world, 0), (0..made).collect(), "{what}");
    let log = bytes_in_log(world);
    assert_eq!(log.iter().collect::<BTreeSet<_>>().len(), log.len());
    assert_eq!(u64::try_from(log.len()).unwrap(), made, "{what}");
}

#[test]
fn calls_that_fail_or_that_nobody_can_tell_of_lose_and_double_nothing() {
    for seed in 1..=150 {
        let mut world = world(in_memory(), seed, 3, ROUGH);
        world.faults = RegistryFaults {
            unavailable: 100,
            unknown: 100,
            lost: 100,
            slow: 50,
            slow_max: Duration::from_secs(4),
            ..RegistryFaults::default()
        };
        for n in 0..25 {
            let client = usize::try_from(world.below(3)).unwrap();
            set(&mut world, client, n, n);
            if world.below(12) == 0 {
                world.cut(client);
            }
            let pause = Duration::from_millis(world.below(400));
            world.run_for(pause);
        }
        world.faults = RegistryFaults::default();
        assert_each_once(&mut world, 25, &format!("seed {seed}"));
    }
}

#[test]
fn edits_wait_while_the_disk_is_full() {
    let mut world = world(in_memory(), 1, 2, CALM);
    world.settle(DOC);
    world.faults.is_full = true;
    for n in 0..5 {
        set(&mut world, 0, n, n);
    }
    world.run_for(Duration::from_secs(60));
    assert_eq!(world.sync_state(0, DOC).unsaved, 5);
    assert_eq!(world.refused(0, DOC), []);
    world.faults.is_full = false;
    assert_each_once(&mut world, 5, "once there is room");
}

#[test]
fn a_crash_at_any_call_loses_and_doubles_nothing() {
    for after_calls in 0..40 {
        for is_carried_out in [false, true] {
            let mut world = world(in_memory(), 7 + after_calls, 2, CALM);
            world.faults.crash = Some(CrashPoint {
                after_calls,
                is_carried_out,
            });
            for n in 0..10 {
                set(&mut world, usize::try_from(n % 2).unwrap(), n, n);
                world.run_for(Duration::from_millis(30));
            }
            world.run_for(Duration::from_secs(1));
            world.start_server();
            let what = format!("call {after_calls}, carried out: {is_carried_out}");
            assert_each_once(&mut world, 10, &what);
        }
    }
}

#[test]
fn a_registry_that_drops_the_tail_takes_content_from_newcomers() {
    let is_found = (1..=20).any(|seed| {
        let mut world = buggy(RegistryBug::TailDropped, seed, 2, ROUGH);
        world.folding = Some((5, 0));
        for n in 0..40 {
            set(&mut world, usize::try_from(n % 2).unwrap(), n, n);
            let pause = Duration::from_millis(world.below(100));
            world.run_for(pause);
        }
        world.settle(DOC);
        let late = world.add_client();
        world.open(late, DOC);
        world.settle(DOC);
        keys(&world, late).len() < 40
    });
    assert!(is_found);
}

#[test]
fn a_registry_that_forgets_origins_doubles_changes() {
    let mut world = buggy(RegistryBug::OriginsLost, 1, 1, CALM);
    world.settle(DOC);
    world.faults.unknown = 1_000;
    set(&mut world, 0, 0, 0);
    world.run_until(Duration::from_secs(5), "it is committed", |world| {
        bytes_in_log(world).len() == 1
    });
    world.faults.unknown = 0;
    world.kill_server();
    world.start_server();
    world.run_for(Duration::from_secs(60));
    assert_eq!(bytes_in_log(&world).len(), 2);
}

#[test]
fn a_registry_that_keeps_the_epoch_when_a_document_is_rewound_says_so() {
    for bug in [false, true] {
        let mut world = match bug {
            true => buggy(RegistryBug::EpochKept, 1, 1, CALM),
            false => world(in_memory(), 1, 1, CALM),
        };
        (0..4).for_each(|n| set(&mut world, 0, n, n));
        world.settle(DOC);
        let before = world.meta(DOC);
        assert!(world.rewind(DOC, sync_core::history::Seq(2)));
        let after = world.meta(DOC);
        assert_eq!((before.head.0, after.head.0), (4, 2));
        assert_eq!(before.epoch == after.epoch, bug);
    }
}

#[test]
fn a_late_append_that_is_said_to_have_failed_was_committed() {
    let mut world = buggy(RegistryBug::LateAppendFailed, 1, 1, CALM);
    world.settle(DOC);
    world.faults.unknown = 1_000;
    set(&mut world, 0, 0, 0);
    world.run_for(Duration::from_secs(1));
    assert_eq!(bytes_in_log(&world).len(), 1);
    assert!(world.counts[&("document error", "StorageUnavailable")] > 0);
}

/// The append fails, and the only one who has the change is gone.
fn fold_after_a_failed_append(bug: Option<DriverBug>) {
    let mut world = world(in_memory(), 1, 2, CALM);
    world.driver_bug = bug;
    world.folding = Some((3, 0));
    (1..3).for_each(|n| set(&mut world, 1, n, n));
    world.settle(DOC);
    world.faults.unavailable = 1_000;
    set(&mut world, 0, 0, 0);
    world.run_for(Duration::from_secs(1));
    world.kill_client(0);
    world.faults.unavailable = 0;
    (3..9).for_each(|n| set(&mut world, 1, n, n));
    world.run_for(Duration::from_secs(30));
    let late = world.add_client();
    world.open(late, DOC);
    world.settle(DOC);
    assert!(world.counts[&("room", "folded")] > 0);
    assert_eq!(keys(&world, 1), (1..9).collect());
    assert_eq!(keys(&world, late), (1..9).collect());
}

#[test]
fn what_was_never_committed_is_not_folded() {
    fold_after_a_failed_append(None);
}

#[test]
#[should_panic(expected = "is not what was committed")]
fn a_fold_of_what_was_never_committed_is_noticed() {
    fold_after_a_failed_append(Some(DriverBug::FoldsUncommitted));
}
