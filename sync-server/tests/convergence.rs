//! Whatever the network does, and whatever the server loses, everybody ends up with everything.

#![allow(
    clippy::unwrap_used,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod registries;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use sync_core::wire::Message;
use sync_sim::world::maps::{DOC, Map, bytes_in_log, set, world};
use sync_sim::world::{CALM, ROUGH, World};

seeds! {
    /// Scenario 36.
    connections_cut_delayed_and_doubled_at_random_converge_after_healing => cut_delayed_doubled, 1000, 6
}

fn cut_delayed_doubled(seed: u64) {
    let mut world = world(registries::simulated(), seed, 3, ROUGH);
    for n in 0..30 {
        let client = usize::try_from(world.below(3)).unwrap();
        let key = world.below(5);
        set(&mut world, client, key, n);
        // Each for one in ten: a cut that the server notices late, so that the next connection doubles it; an
        // outage; a pause.
        match world.below(10) {
            0 => world.cut(client),
            1 => {
                world.set_online(client, false);
                world.run_for(Duration::from_millis(700));
                world.set_online(client, true);
            }
            2 => world.run_for(Duration::from_secs(2)),
            _ => {
                let pause = Duration::from_millis(world.below(200));
                world.run_for(pause);
            }
        }
    }
    world.settle(DOC);
    world.assert_converged(DOC);
    let log = bytes_in_log(&world);
    assert_eq!(log.len(), 30, "seed {seed}: each change is in the log once");
    assert_eq!(log.iter().collect::<BTreeSet<_>>().len(), 30, "seed {seed}");
}

seeds! {
    /// Scenarios 21, 64 and 65, at random: the log is folded every few changes, and little of it is kept.
    folding_the_log_at_any_moment_takes_nothing_from_anybody => folding, 300, 6
}

fn folding(seed: u64) {
    let mut world = world(registries::simulated(), seed, 3, ROUGH);
    world.folding = Some((3, usize::try_from(seed % 3 * 60).unwrap()));
    let mut written = BTreeSet::new();
    for n in 0..30 {
        let client = usize::try_from(world.below(3)).unwrap();
        set(&mut world, client, n, n);
        written.insert(n);
        match world.below(10) {
            0 => world.cut(client),
            1 => world.set_online(client, false),
            2 => {
                world.kill_server();
                world.start_server();
            }
            3 => (0..3).for_each(|client| world.set_online(client, true)),
            4 => {
                // Gone unless it was acknowledged, so it says nothing that is missed.
                let key = world.below(n + 1);
                assert!(world.edit(client, DOC, |map| {
                    map.remove(&key).unwrap();
                }));
            }
            _ => {
                let pause = Duration::from_millis(world.below(400));
                world.run_for(pause);
            }
        }
    }
    (0..3).for_each(|client| world.set_online(client, true));
    let late = world.add_client();
    world.open(late, DOC);
    world.settle(DOC);
    world.assert_converged(DOC);
    let meta = world.meta(DOC);
    assert!(
        meta.snapshot_seq > sync_core::history::Seq(0),
        "seed {seed}"
    );
    let shown: BTreeSet<u64> =
        world.read(late, DOC, |map| map.iter().map(|(key, _)| *key).collect());
    assert!(shown.is_subset(&written), "seed {seed}");
    for client in 0..3 {
        assert_eq!(world.refused(client, DOC), [], "seed {seed}");
    }
}

seeds! {
    /// Scenarios 18, 19 and 20: who lacks what decides what travels, and it travels once.
    a_returning_client_and_the_server_exchange_exactly_what_they_lack => exchange, 1, 1
}

fn exchange(seed: u64) {
    for (offline_edits, online_edits) in [(3, 0), (0, 4), (3, 4)] {
        let mut world = world(registries::simulated(), seed, 2, CALM);
        set(&mut world, 0, 0, 0);
        world.settle(DOC);
        world.set_online(0, false);
        for n in 0..offline_edits {
            set(&mut world, 0, 100 + n, n);
        }
        for n in 0..online_edits {
            set(&mut world, 1, 200 + n, n);
        }
        world.run_for(Duration::from_secs(3));
        for traffic in &mut world.traffic {
            traffic.up.clear();
            traffic.down.clear();
        }
        world.set_online(0, true);
        world.settle(DOC);
        world.assert_converged(DOC);

        let pushed: usize = changes_up(&world, 0);
        assert_eq!(
            pushed as u64, offline_edits,
            "sends exactly what the server lacks"
        );
        assert_eq!(
            changes_down(&world, 0) as u64,
            online_edits,
            "receives exactly what it missed"
        );
        assert_eq!(
            changes_down(&world, 1) as u64,
            offline_edits,
            "which is broadcast once"
        );
        let opens = world.traffic[0]
            .up
            .iter()
            .filter(|m| matches!(m, Message::Open(_)))
            .count();
        assert_eq!(opens, 1, "one round trip");
    }
}

fn changes_up(world: &World<Map>, client: usize) -> usize {
    world.traffic[client]
        .up
        .iter()
        .map(|m| {
            if let Message::Push(push) = m {
                push.changes.len()
            } else {
                0
            }
        })
        .sum()
}

fn changes_down(world: &World<Map>, client: usize) -> usize {
    world.traffic[client]
        .down
        .iter()
        .map(|m| {
            if let Message::Changes(c) = m {
                c.changes.len()
            } else {
                0
            }
        })
        .sum()
}

seeds! {
    /// Scenario 31, and takeover: the old connection's frames still arrive while the new one is there.
    a_connection_cut_between_send_and_ack_delivers_again_and_once => cut_before_ack, 300, 6
}

fn cut_before_ack(seed: u64) {
    let mut world = world(registries::simulated(), seed, 2, ROUGH);
    for n in 0..5 {
        set(&mut world, 0, n, n);
    }
    let pause = Duration::from_millis(world.below(900));
    world.run_for(pause);
    world.cut(0);
    for n in 5..8 {
        set(&mut world, 0, n, n);
    }
    world.settle(DOC);
    world.assert_converged(DOC);
    assert_eq!(bytes_in_log(&world).len(), 8, "seed {seed}");
}

seeds! {
    /// Scenario 33.
    a_thousand_offline_edits_travel_as_few_frames => few_frames, 1, 1
}

fn few_frames(seed: u64) {
    let mut world = world(registries::simulated(), seed, 2, CALM);
    set(&mut world, 1, 5_000, 0);
    world.settle(DOC);
    world.set_online(0, false);
    for n in 0..1_000 {
        set(&mut world, 0, n, n);
    }
    world.traffic[1].down.clear();
    world.set_online(0, true);
    world.settle(DOC);
    world.assert_converged(DOC);
    let frames = world.traffic[1]
        .down
        .iter()
        .filter(|m| matches!(m, Message::Changes(_)))
        .count();
    assert_eq!(changes_down(&world, 1), 1_000);
    assert!(frames <= 20, "{frames} frames");
}

seeds! {
    /// Scenario 61.
    a_server_that_lost_everything_is_repopulated_once_by_its_clients => repopulated, 1, 1
}

fn repopulated(seed: u64) {
    let mut world = world(registries::simulated(), seed, 3, CALM);
    for n in 0..20 {
        set(&mut world, usize::try_from(n % 3).unwrap(), n, n);
    }
    world.settle(DOC);
    let before = world.version(0, DOC);
    world.lose_everything();
    world.run_for(Duration::from_secs(60));
    world.settle(DOC);
    world.assert_converged(DOC);
    assert_eq!(world.version(0, DOC), before);
    let log = bytes_in_log(&world);
    assert_eq!(
        log.len(),
        1,
        "one client pushes what is lacking, the others nothing"
    );
}

seeds! {
    /// Scenario 61: with work pending on every client.
    what_is_pending_when_the_server_loses_everything_arrives_too => pending_at_loss, 200, 6
}

fn pending_at_loss(seed: u64) {
    let mut world = world(registries::simulated(), seed, 3, ROUGH);
    for n in 0..10 {
        set(&mut world, usize::try_from(n % 3).unwrap(), n, n);
        let pause = Duration::from_millis(world.below(400));
        world.run_for(pause);
    }
    world.lose_everything();
    for n in 10..16 {
        set(&mut world, usize::try_from(n % 3).unwrap(), n, n);
        let pause = Duration::from_millis(world.below(400));
        world.run_for(pause);
    }
    world.run_for(Duration::from_secs(90));
    world.settle(DOC);
    world.assert_converged(DOC);
    let keys = world.read(0, DOC, |map| map.len());
    assert_eq!(keys, 16, "seed {seed}");
}

seeds! {
    /// Scenario 81.
    a_thousand_clients_that_meet_a_server_that_lost_everything_grow_the_log_by_at_most_twice_the_document => thousand_clients, 1, 1
}

fn thousand_clients(seed: u64) {
    let mut world = world(registries::simulated(), seed, 1, CALM);
    for n in 0..50 {
        set(&mut world, 0, n, n);
    }
    world.settle(DOC);
    for _ in 1..1_000 {
        let client = world.add_client();
        world.open(client, DOC);
    }
    world.settle(DOC);
    let document: usize = bytes_in_log(&world).iter().map(Bytes::len).sum();
    world.lose_everything();
    world.run_for(Duration::from_secs(120));
    world.settle(DOC);
    world.assert_converged(DOC);
    let after: usize = bytes_in_log(&world).iter().map(Bytes::len).sum();
    assert!(
        after <= 2 * document,
        "{after} bytes of log for {document} bytes of document"
    );
}
