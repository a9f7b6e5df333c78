//! Worlds of one map, for tests that need no particular type.

use std::collections::BTreeSet;

use bytes::Bytes;
use sync_core::engine::typed::Typed;
use sync_core::mergeable::LwwMap;

use super::{Weather, World};

pub type Map = Typed<LwwMap<u64, u64>>;

pub const DOC: &str = "doc";

/// Clients that have the document open.
pub fn world(seed: u64, clients: usize, weather: Weather) -> World<Map> {
    assemble(seed, clients, weather, false)
}

/// The same with stores.
pub fn world_with_stores(seed: u64, clients: usize, weather: Weather) -> World<Map> {
    assemble(seed, clients, weather, true)
}

fn assemble(seed: u64, clients: usize, weather: Weather, has_stores: bool) -> World<Map> {
    let mut world = World::new(seed, Map::new(), weather);
    for _ in 0..clients {
        let client = world.add_client();
        if has_stores {
            world.give_store(client);
        }
        world.open(client, DOC);
    }
    world
}

pub fn set(world: &mut World<Map>, client: usize, key: u64, value: u64) {
    assert!(world.edit(client, DOC, |map| map.insert(key, value).unwrap()));
}

pub fn keys(world: &World<Map>, client: usize) -> BTreeSet<u64> {
    world.read(client, DOC, |map| map.iter().map(|(key, _)| *key).collect())
}

pub fn bytes_in_log(world: &World<Map>) -> Vec<Bytes> {
    let log = world.log(DOC).into_iter();
    log.map(|change| change.bytes).collect()
}
