//! Replicas of a map, driven through the engine seam.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "test harness")]
#![allow(clippy::indexing_slicing, reason = "test harness")]

use std::fmt::Debug;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sync_core::engine::typed::{Typed, TypedDocument};
use sync_core::engine::{Document, Edited, Engine, ReplicaSeed, Version};
use sync_core::mergeable::LwwMap;

pub(crate) trait Item:
    Serialize + DeserializeOwned + Ord + Clone + Debug + Send + 'static
{
}
impl<T: Serialize + DeserializeOwned + Ord + Clone + Debug + Send + 'static> Item for T {}

pub(crate) type Map<K, V> = TypedDocument<LwwMap<K, V>>;

pub(crate) fn replica<K: Item, V: Item>(seed: u128) -> Map<K, V> {
    Typed::new().create(ReplicaSeed(seed)).unwrap()
}

/// Makes one change and returns its bytes; empty if the closure changed nothing.
pub(crate) fn edit<K: Item, V: Item>(
    document: &mut Map<K, V>,
    wall: u64,
    f: impl FnOnce(&mut LwwMap<K, V>),
) -> Vec<Bytes> {
    document.set_wall_time(wall);
    assert!(matches!(
        Typed::new().edit(document, usize::MAX, f),
        Ok(Edited::Done(()))
    ));
    document.drain().local
}

pub(crate) fn insert<K: Item, V: Item>(
    document: &mut Map<K, V>,
    wall: u64,
    key: K,
    value: V,
) -> Bytes {
    edit(document, wall, |map| map.insert(key, value).unwrap()).remove(0)
}

pub(crate) fn remove<K: Item, V: Item>(document: &mut Map<K, V>, wall: u64, key: &K) -> Bytes {
    edit(document, wall, |map| {
        map.remove(key).unwrap();
    })
    .remove(0)
}

pub(crate) fn content<K: Item, V: Item>(document: &Map<K, V>) -> Vec<(K, V)> {
    let read = |map: &LwwMap<K, V>| map.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    Typed::new().read(document, read).unwrap()
}

pub(crate) fn get<K: Item, V: Item>(document: &Map<K, V>, key: &K) -> Option<V> {
    Typed::new()
        .read(document, |map: &LwwMap<K, V>| map.get(key).cloned())
        .unwrap()
}

/// One-to-one sync by differences: `to` gets what it lacks.
pub(crate) fn sync<K: Item, V: Item>(from: &mut Map<K, V>, to: &mut Map<K, V>) {
    if let Some(change) = from.since(&to.version()).unwrap() {
        to.import(&[change]).unwrap();
    }
}

/// Value, version and bytes are the same.
pub(crate) fn assert_converged<K: Item, V: Item>(a: &mut Map<K, V>, b: &mut Map<K, V>) {
    assert_eq!(content(a), content(b));
    assert_eq!(a.version(), b.version());
    assert_eq!(a.snapshot(), b.snapshot());
}

pub(crate) fn version<K: Item, V: Item>(document: &mut Map<K, V>) -> Version {
    document.version()
}

/// Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014): one seed, one run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n).unwrap()).unwrap()
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last + 1);
            items.swap(last, other);
        }
    }
}
