//! Several nodes over one registry.

use std::collections::BTreeSet;
use std::time::Duration;

use sync_sim::world::maps::{DOC, Map, bytes_in_log, keys, set, world};
use sync_sim::world::{CALM, DriverBug, Hints, ROUGH, Weather, World, in_memory};

/// Nodes, and clients of which each connects to one of them only.
fn nodes(seed: u64, n_nodes: usize, n_clients: usize, weather: Weather) -> World<Map> {
    let mut world = world(in_memory(), seed, 0, weather);
    for _ in 1..n_nodes {
        world.add_node();
    }
    for client in 0..n_clients {
        world.add_client();
        world.dial_node(client, Some(client % n_nodes));
        world.open(client, DOC);
    }
    world
}

#[track_caller]
fn assert_each_once(world: &mut World<Map>, made: u64, seed: u64) {
    world.settle(DOC);
    world.assert_converged(DOC);
    assert_eq!(keys(world, 0), (0..made).collect(), "seed {seed}");
    let log = bytes_in_log(world);
    assert_eq!(log.iter().collect::<BTreeSet<_>>().len(), log.len());
    assert_eq!(u64::try_from(log.len()).unwrap(), made, "seed {seed}");
}

#[test]
fn clients_of_different_nodes_see_what_the_others_do() {
    let mut world = nodes(1, 2, 2, CALM);
    world.settle(DOC);
    assert_ne!(world.node_of(0), world.node_of(1));
    set(&mut world, 0, 0, 0);
    set(&mut world, 1, 1, 1);
    assert_each_once(&mut world, 2, 1);
}

/// Scenario 85.
#[test]
fn without_any_hint_the_other_node_has_a_change_within_about_a_second() {
    let mut world = nodes(2, 2, 2, CALM);
    world.weather.hints = Hints::NONE;
    world.settle(DOC);
    for n in 0..20 {
        set(&mut world, 0, n, n);
        let pause = Duration::from_millis(world.below(2_000));
        world.run_for(pause);
    }
    set(&mut world, 0, 20, 20);
    world.run_for(Duration::from_millis(1_100));
    assert!(keys(&world, 1).contains(&20));
    assert!(world.counts[&("fault", "hint lost")] >= 20);
}

#[test]
fn clients_of_a_node_that_is_killed_go_to_another() {
    let mut world = nodes(3, 2, 2, CALM);
    (0..2).for_each(|client| world.dial_node(client, None));
    world.settle(DOC);
    let node = world.node_of(0).unwrap();
    set(&mut world, 0, 0, 0);
    world.kill_node(node);
    world.settle(DOC);
    assert_ne!(world.node_of(0), Some(node));
    world.start_node(node);
    assert!(world.is_serving(node));
    assert_each_once(&mut world, 1, 3);
}

#[test]
fn clients_of_a_node_that_is_lost_find_out_by_its_silence() {
    let mut world = nodes(4, 2, 2, CALM);
    (0..2).for_each(|client| world.dial_node(client, None));
    world.settle(DOC);
    let node = world.node_of(0).unwrap();
    world.lose_node(node);
    assert_eq!(world.node_of(0), Some(node), "nobody has told it");
    set(&mut world, 0, 0, 0);
    world.run_for(Duration::from_secs(60));
    assert!(world.counts[&("ended", "silence")] > 0);
    assert_each_once(&mut world, 1, 4);
}

#[test]
fn a_node_that_drains_sends_its_clients_elsewhere_and_ends() {
    let mut world = nodes(5, 2, 4, CALM);
    (0..4).for_each(|client| world.dial_node(client, None));
    world.settle(DOC);
    for n in 0..10 {
        set(&mut world, usize::try_from(n % 4).unwrap(), n, n);
    }
    let node = world.node_of(0).unwrap();
    world.drain_node(node, Duration::from_secs(3));
    world.run_for(Duration::from_secs(12));
    assert!(!world.is_serving(node));
    assert!((0..4).all(|client| world.node_of(client) == Some(1 - node)));
    world.start_node(node);
    assert!(world.is_serving(node));
    assert_each_once(&mut world, 10, 5);
}

#[test]
fn nodes_killed_lost_and_drained_at_random_lose_nothing_and_double_nothing() {
    for seed in 1..=150 {
        let mut world = nodes(seed, 3, 3, ROUGH);
        if seed.is_multiple_of(2) {
            (0..3).for_each(|client| world.dial_node(client, None));
        }
        if seed.is_multiple_of(3) {
            world.folding = Some((4, 60));
        }
        let mut made = 0;
        for _ in 0..50 {
            let node = usize::try_from(world.below(3)).unwrap();
            match world.below(16) {
                0 => world.kill_node(node),
                1 => world.lose_node(node),
                2 => world.drain_node(node, Duration::from_secs(2)),
                3..=5 => world.start_node(node),
                6 => world.cut(node),
                _ => {
                    set(&mut world, node, made, made);
                    made += 1;
                }
            }
            let pause = Duration::from_millis(world.below(700));
            world.run_for(pause);
        }
        world.run_for(Duration::from_secs(20));
        world.start_server();
        world.run_for(Duration::from_secs(20));
        world.settle(DOC);
        world.assert_converged(DOC);
        assert_eq!(keys(&world, 0), (0..made).collect(), "seed {seed}");
        if world.folding.is_none() {
            assert_each_once(&mut world, made, seed);
        }
    }
}

#[test]
fn a_node_that_hears_no_hint_and_never_looks_misses_what_others_do() {
    let mut world = nodes(6, 2, 2, CALM);
    world.weather.hints = Hints::NONE;
    world.driver_bug = Some(DriverBug::NeverPolls);
    world.settle(DOC);
    set(&mut world, 0, 0, 0);
    world.run_for(Duration::from_secs(60));
    assert!(!keys(&world, 1).contains(&0));
    // Unless somebody there opens the document.
    world.cut(1);
    world.settle(DOC);
    world.assert_converged(DOC);
}
