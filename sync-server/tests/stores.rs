//! Clients that are killed and start again on what their stores hold.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod registries;

use std::time::Duration;

use bytes::Bytes;
use sync_sim::world::maps::{DOC, keys, set, world_with_stores};
use sync_sim::world::{CALM, ROUGH, id};

seeds! {
    /// Scenario 32.
    offline_edits_survive_a_restart_and_are_delivered => offline_edits, 1, 1
}

fn offline_edits(seed: u64) {
    let mut world = world_with_stores(registries::simulated(), seed, 2, CALM);
    set(&mut world, 0, 0, 0);
    world.settle(DOC);
    // Until the store knows that, too.
    world.run_for(Duration::from_secs(1));
    world.set_online(0, false);
    for n in 1..=50 {
        set(&mut world, 0, n, n);
    }
    world.restart_client(0);
    world.open(0, DOC);
    assert_eq!(
        keys(&world, 0).len(),
        51,
        "what the device has is there without a network"
    );
    assert_eq!(world.sync_state(0, DOC).unsaved, 50);
    world.set_online(0, true);
    world.settle(DOC);
    world.assert_converged(DOC);
    assert_eq!(world.log(DOC).len(), 51);
}

seeds! {
    /// Scenario 93.
    outboxes_of_documents_that_are_not_open_are_delivered => unopened_outboxes, 1, 1
}

fn unopened_outboxes(seed: u64) {
    let mut world = world_with_stores(registries::simulated(), seed, 2, CALM);
    set(&mut world, 1, 99, 0);
    world.settle(DOC);
    // Until the store knows that, too.
    world.run_for(Duration::from_secs(1));
    world.set_online(0, false);
    for n in 0..10 {
        set(&mut world, 0, n, n);
    }
    world.restart_client(0);
    world.set_online(0, true);
    world.run_until(Duration::from_secs(60), "delivered", |world| {
        world.log(DOC).len() == 11
    });
    world.run_for(Duration::from_secs(5));
    let stored = &world.clients[0].store.as_ref().unwrap().documents[&id(DOC)];
    // They stay in the store, as something that the server has, until a replica takes them over.
    assert_eq!(stored.outbox.len(), 10);
    assert_eq!(
        stored
            .state
            .acknowledged
            .iter()
            .map(|(_, last)| *last)
            .sum::<u64>(),
        10
    );
    // What it had is there when it is opened without a network.
    world.set_online(0, false);
    world.open(0, DOC);
    assert_eq!(keys(&world, 0).len(), 11);
    assert_eq!(world.sync_state(0, DOC).unsaved, 0);
    world.set_online(0, true);
    world.settle(DOC);
    world.assert_converged(DOC);
    assert_eq!(world.log(DOC).len(), 11);
}

seeds! {
    /// Design 7: an edit that has returned is in the store, whatever else was on its way there.
    killed_clients_lose_no_edit_and_deliver_each_once => killed_clients, 500, 6
}

fn killed_clients(seed: u64) {
    let mut world = world_with_stores(registries::simulated(), seed, 3, ROUGH);
    let mut made = 0;
    for _ in 0..30 {
        let client = usize::try_from(world.below(3)).unwrap();
        match world.below(8) {
            0 => {
                world.restart_client(client);
                if world.below(3) > 0 {
                    let pause = Duration::from_millis(world.below(1_500));
                    world.run_for(pause);
                }
                world.open(client, DOC);
            }
            1 => world.cut(client),
            2 => world.run_for(Duration::from_secs(2)),
            _ => {
                set(&mut world, client, made, made);
                made += 1;
                let pause = Duration::from_millis(world.below(300));
                world.run_for(pause);
            }
        }
    }
    world.settle(DOC);
    world.assert_converged(DOC);
    assert_eq!(keys(&world, 0), (0..made).collect(), "seed {seed}");
    let log: Vec<Bytes> = world
        .log(DOC)
        .into_iter()
        .map(|change| change.bytes)
        .collect();
    assert_eq!(
        u64::try_from(log.len()).unwrap(),
        made,
        "seed {seed}: each once"
    );
    // And the stores say the same as the replicas.
    world.run_for(Duration::from_secs(5));
    for client in 0..3 {
        let version = world.version(client, DOC);
        world.restart_client(client);
        world.set_online(client, false);
        world.open(client, DOC);
        assert_eq!(world.version(client, DOC), version, "seed {seed}");
    }
}

seeds! {
    /// Scenarios 61 and 32 together: servers lose everything, clients are killed, and nothing is lost.
    a_lost_server_and_killed_clients_lose_nothing_together => lost_server, 100, 6
}

fn lost_server(seed: u64) {
    let mut world = world_with_stores(registries::simulated(), seed, 3, ROUGH);
    for n in 0..12 {
        set(&mut world, usize::try_from(n % 3).unwrap(), n, n);
        let pause = Duration::from_millis(world.below(300));
        world.run_for(pause);
    }
    world.lose_everything();
    let pause = Duration::from_millis(world.below(5_000));
    world.run_for(pause);
    let client = usize::try_from(world.below(3)).unwrap();
    world.restart_client(client);
    world.open(client, DOC);
    world.run_for(Duration::from_secs(120));
    world.settle(DOC);
    world.assert_converged(DOC);
    assert_eq!(keys(&world, 0), (0..12).collect(), "seed {seed}");
}

seeds! {
    /// All of it together: folded logs, clients that are killed, a server whose registry is put back to an older copy.
    killed_clients_and_restored_servers_lose_no_edit => restored_server, 200, 8
}

fn restored_server(seed: u64) {
    let mut world = world_with_stores(registries::simulated(), seed, 3, ROUGH);
    world.folding = Some((4, 100));
    let (mut made, mut backup) = (0, None);
    for step in 0..60 {
        let client = usize::try_from(world.below(3)).unwrap();
        match world.below(10) {
            0 => {
                world.restart_client(client);
                // Some start with what is in the store before the document is opened.
                let pause = Duration::from_millis(world.below(2) * world.below(3_000));
                world.run_for(pause);
                world.open(client, DOC);
            }
            1 => world.cut(client),
            2 if step > 20 && backup.is_none() => backup = Some(world.registry.backup()),
            3 if step > 40 => {
                if let Some(backup) = &backup {
                    world.restore(backup.backup());
                }
            }
            _ => {
                set(&mut world, client, made, made);
                made += 1;
                let pause = Duration::from_millis(world.below(500));
                world.run_for(pause);
            }
        }
    }
    world.run_for(Duration::from_secs(120));
    world.settle(DOC);
    world.assert_converged(DOC);
    assert_eq!(keys(&world, 0), (0..made).collect(), "seed {seed}");
}
