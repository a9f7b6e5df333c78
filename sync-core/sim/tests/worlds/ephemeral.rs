//! Presence, broadcasts and extension messages.

use std::time::Duration;

use bytes::Bytes;
use sync_core::client::Broadcast;
use sync_sim::world::maps::{DOC, Map, world};
use sync_sim::world::{CALM, World, in_memory};

fn say(world: &mut World<Map>, client: usize, what: &'static str) {
    let said = world.set_presence(client, DOC, Some(Bytes::from_static(what.as_bytes())));
    said.unwrap();
}

/// What a client sees others say.
fn others(world: &World<Map>, client: usize) -> Vec<Bytes> {
    let roster = world.roster(client, DOC).into_iter();
    let mut seen: Vec<Bytes> = roster.filter(|it| !it.is_me).map(|it| it.state).collect();
    seen.sort();
    seen
}

/// Scenario 69.
#[test]
fn others_see_what_somebody_says_until_they_unsay_it_or_leave() {
    let mut world = world(in_memory(), 1, 3, CALM);
    world.settle(DOC);
    say(&mut world, 0, "a");
    say(&mut world, 1, "b");
    world.run_for(Duration::from_secs(1));
    assert_eq!(others(&world, 2), ["a", "b"]);
    world.set_presence(0, DOC, None).unwrap();
    world.run_for(Duration::from_secs(1));
    assert_eq!(others(&world, 2), ["b"]);
    world.close(1, DOC);
    world.run_for(Duration::from_secs(1));
    assert_eq!(others(&world, 2).len(), 0);
}

/// Scenario 42.
#[test]
fn who_is_back_soon_is_seen_all_the_time_and_who_is_not_is_gone() {
    let mut world = world(in_memory(), 2, 2, CALM);
    world.settle(DOC);
    say(&mut world, 0, "a");
    world.run_for(Duration::from_secs(1));
    world.cut(0);
    for _ in 0..30 {
        world.run_for(Duration::from_millis(100));
        assert_eq!(others(&world, 1), ["a"]);
    }
    assert!(world.counts[&("room", "presence resumed")] > 0);
    world.set_online(0, false);
    world.run_for(Duration::from_secs(60));
    assert_eq!(others(&world, 1).len(), 0);
}

#[test]
fn who_moves_to_another_node_or_loses_its_node_is_not_seen_twice() {
    let mut world = world(in_memory(), 3, 0, CALM);
    world.add_node();
    for client in 0..3 {
        world.add_client();
        world.dial_node(client, Some(0));
        world.open(client, DOC);
    }
    world.settle(DOC);
    (0..3).for_each(|client| say(&mut world, client, "here"));
    world.run_for(Duration::from_secs(1));
    assert_eq!(others(&world, 2).len(), 2);
    world.dial_node(0, Some(1));
    world.cut(0);
    world.run_for(Duration::from_secs(60));
    assert_eq!(others(&world, 2).len(), 1, "presence is of a node");
    world.kill_node(0);
    (0..3).for_each(|client| world.dial_node(client, Some(1)));
    world.run_for(Duration::from_secs(60));
    for client in 0..3 {
        assert_eq!(others(&world, client).len(), 2);
    }
}

/// Scenario 70.
#[test]
fn broadcasts_reach_all_others_and_extension_messages_the_server() {
    let mut world = world(in_memory(), 4, 3, CALM);
    world.settle(DOC);
    world
        .broadcast(0, DOC, Bytes::from_static(b"hello"))
        .unwrap();
    world
        .extend(0, Some(DOC), Bytes::from_static(b"plugin"))
        .unwrap();
    world.run_for(Duration::from_secs(1));
    for (client, n) in [(0, 0), (1, 1), (2, 1)] {
        let heard = &world.clients[client].broadcasts;
        assert_eq!(heard.len(), n);
        assert!(heard.iter().all(|(_, heard)| {
            matches!(heard, Broadcast::Received { bytes, sender: Some(_), .. } if bytes == "hello")
        }));
    }
    assert_eq!(world.clients[0].extensions.len(), 1);
    world.set_online(0, false);
    assert!(world.broadcast(0, DOC, Bytes::new()).is_err());
}
