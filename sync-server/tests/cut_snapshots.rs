//! Connections and servers that end in the middle of snapshots, again and again.

#![allow(
    clippy::unwrap_used,
    clippy::as_conversions,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod registries;

use std::time::Duration;

use sync_client::SyncPhase;
use sync_core::engine::typed::Typed;
use sync_core::history::Seq;
use sync_core::mergeable::LwwMap;
use sync_core::wire::Message;
use sync_sim::world::{ROUGH, World};

type Map = Typed<LwwMap<u64, u64>>;

const DOC: &str = "doc";

/// Scenarios 35 and 36: snapshots of dozens of pieces, which trickle in while connections are cut, servers killed and
/// the log folded.
#[test]
fn snapshots_cut_at_any_piece_go_on_and_everybody_converges() {
    let (mut claimed, mut resumed, mut begun_anew) = (0, 0, 0);
    for seed in 0..150 {
        let mut world = World::on(registries::simulated(), seed, Map::new(), ROUGH);
        world.folding = Some((8, usize::try_from(seed % 3 * 60).unwrap()));
        world.piece_bytes = usize::try_from(8 + seed % 5 * 16).unwrap();
        world.trickle = Duration::from_millis(40);
        for _ in 0..2 {
            let client = world.add_client();
            world.open(client, DOC);
        }
        for n in 0..40 {
            let client = usize::try_from(world.below(2)).unwrap();
            edit(&mut world, client, n);
            let pause = Duration::from_millis(world.below(100));
            world.run_for(pause);
        }
        world.settle(DOC);
        // Newcomers with nothing, and one that was there and is reset.
        let late = [add(&mut world), add(&mut world)];
        world.set_online(1, false);
        for n in 40..70 {
            // Few, so that a snapshot may well be the same after a cut.
            if world.below(8) == 0 {
                edit(&mut world, 0, n);
            }
            match world.below(12) {
                0..8 => {
                    let one = usize::try_from(world.below(2)).unwrap();
                    world.cut(late[one]);
                }
                8 => {
                    world.kill_server();
                    world.start_server();
                }
                9 => world.set_online(1, n % 2 == 0),
                _ => {}
            }
            let pause = Duration::from_millis(world.below(900));
            world.run_for(pause);
            for client in late {
                if let SyncPhase::CatchingUp { received, total } =
                    world.sync_state(client, DOC).phase
                {
                    assert!(received <= total, "seed {seed}: {received} of {total}");
                }
            }
        }
        world.set_online(1, true);
        world.settle(DOC);
        world.assert_converged(DOC);
        assert!(world.meta(DOC).snapshot_seq > Seq(0), "seed {seed}");
        for client in 0..4 {
            assert_eq!(world.refused(client, DOC), [], "seed {seed}");
            let (claims, goes_on) = counts(&world, client);
            claimed += claims;
            resumed += goes_on.iter().filter(|goes_on| **goes_on).count();
            begun_anew += goes_on.iter().filter(|goes_on| !**goes_on).count();
        }
    }
    assert!(
        claimed > 200 && resumed > 150 && begun_anew > 150,
        "{claimed} claimed, {resumed} went on, {begun_anew} began anew"
    );
}

fn edit(world: &mut World<Map>, client: usize, n: u64) {
    assert!(world.edit(client, DOC, |map| {
        map.insert(n % 25, n).unwrap();
    }));
}

fn add(world: &mut World<Map>) -> usize {
    let client = world.add_client();
    world.open(client, DOC);
    client
}

/// How often the client said that it holds a part, and whether each snapshot that it was sent went on from one.
fn counts(world: &World<Map>, client: usize) -> (usize, Vec<bool>) {
    let claims = world.traffic[client]
        .up
        .iter()
        .filter(|message| matches!(message, Message::Open(open) if open.partial.is_some()))
        .count();
    let mut snapshots = Vec::new();
    let mut is_first = true;
    for message in &world.traffic[client].down {
        match message {
            Message::Opened(_) => is_first = true,
            Message::Snapshot(piece) if is_first => {
                is_first = false;
                snapshots.push(piece.offset > 0);
            }
            _ => {}
        }
    }
    (claims, snapshots)
}
