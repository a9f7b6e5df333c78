//! Worlds of one map, for tests that need no particular type.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use sync_core::engine::typed::Typed;
use sync_core::mergeable::LwwMap;

use super::{Weather, World, WorldRegistry};

/// The documents of these worlds.
pub type Map = Typed<LwwMap<u64, u64>>;

/// Their only document.
pub const DOC: &str = "doc";

/// Clients that have the document open.
pub fn world(
    registry: Arc<dyn WorldRegistry>,
    seed: u64,
    clients: usize,
    weather: Weather,
) -> World<Map> {
    assemble(
        World::on(registry, seed, Map::new(), weather),
        clients,
        false,
    )
}

/// The same with stores.
pub fn world_with_stores(
    registry: Arc<dyn WorldRegistry>,
    seed: u64,
    clients: usize,
    weather: Weather,
) -> World<Map> {
    assemble(
        World::on(registry, seed, Map::new(), weather),
        clients,
        true,
    )
}

fn assemble(mut world: World<Map>, clients: usize, has_stores: bool) -> World<Map> {
    for _ in 0..clients {
        let client = world.add_client();
        if has_stores {
            world.give_store(client);
        }
        world.open(client, DOC);
    }
    world
}

/// One edit.
pub fn set(world: &mut World<Map>, client: usize, key: u64, value: u64) {
    assert!(world.edit(client, DOC, |map| map.insert(key, value).unwrap()));
}

/// What a client reads.
pub fn keys(world: &World<Map>, client: usize) -> BTreeSet<u64> {
    world.read(client, DOC, |map| map.iter().map(|(key, _)| *key).collect())
}

/// Of the whole kept log.
pub fn bytes_in_log(world: &World<Map>) -> Vec<Bytes> {
    let log = world.log(DOC).into_iter();
    log.map(|change| change.bytes).collect()
}
