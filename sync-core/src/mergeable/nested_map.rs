//! Maps whose values are mergeable themselves.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;

use super::content::{Content, Slot};
use super::keyed::Keyed;
use super::presence::{AddWins, Generation, Presence, RemoveWins, Rule};
use super::value::{decode_key, encode_key};
use super::{Clock, DeltaReader, DeltaWriter, Key, Kind, Mergeable, ValueError, VersionVector};
use crate::engine::EngineError;

/// A map of mergeable values in which **an edit wins over a concurrent removal**: what somebody works on does not
/// disappear under their hands.
///
/// A removal takes away what its replica has seen. If somebody else edited the value at the same time, or added the key
/// again, the key stays, with all of its content. Adding a key that was removed begins with a new value; edits of the
/// old one that arrive later are lost with it. The content of a removed key stays in memory and in snapshots, for those
/// who may have edited it, until it is reclaimed.
///
/// Two replicas that add the same key at the same time add to one value: both their writes are in it.
///
/// # Examples
/// ```
/// use sync_core::engine::typed::Typed;
/// use sync_core::engine::{Document, Engine, ReplicaSeed};
/// use sync_core::mergeable::{OrMap, Register};
///
/// let engine = Typed::<OrMap<u32, Register<String>>>::new();
/// let (mut ours, mut theirs) = (engine.create(ReplicaSeed(1))?, engine.create(ReplicaSeed(2))?);
/// engine.edit(&mut ours, usize::MAX, |cards| cards.entry(1)?.set("draft".to_owned()))?;
/// theirs.import(&ours.drain().local)?;
///
/// engine.edit(&mut theirs, usize::MAX, |cards| cards.remove(&1))?;
/// engine.edit(&mut ours, usize::MAX, |cards| cards.entry(1)?.set("final".to_owned()))?;
/// theirs.import(&ours.drain().local)?;
/// let card = engine.read(&theirs, |cards| cards.get(&1).and_then(|card| card.get().cloned()))?;
/// assert_eq!(card.as_deref(), Some("final"));
/// # Ok::<(), sync_core::engine::EngineError>(())
/// ```
pub type OrMap<K, V> = NestedMap<K, V, AddWins>;

/// A map of mergeable values in which **a removal wins over concurrent edits**: what was deleted stays deleted, until
/// somebody who has seen that adds it again.
///
/// Two replicas that add the same key at the same time add to one value: both their writes are in it, and one removal
/// that has seen either takes it away on both. Adding a removed key begins with a new value.
/// A removed key costs its bytes and a number, until it is reclaimed.
///
/// # Examples
/// ```
/// use sync_core::engine::typed::Typed;
/// use sync_core::engine::{Document, Engine, ReplicaSeed};
/// use sync_core::mergeable::{Counter, Dictionary};
///
/// let engine = Typed::<Dictionary<String, Counter>>::new();
/// let (mut ours, mut theirs) = (engine.create(ReplicaSeed(1))?, engine.create(ReplicaSeed(2))?);
/// engine.edit(&mut ours, usize::MAX, |stock| stock.entry("apples".to_owned()).map(|n| n.add(3)))?;
/// theirs.import(&ours.drain().local)?;
///
/// engine.edit(&mut theirs, usize::MAX, |stock| stock.remove("apples"))?;
/// engine.edit(&mut ours, usize::MAX, |stock| stock.entry("apples".to_owned()).map(|n| n.add(1)))?;
/// theirs.import(&ours.drain().local)?;
/// assert!(!engine.read(&theirs, |stock| stock.contains("apples"))?);
/// # Ok::<(), sync_core::engine::EngineError>(())
/// ```
pub type Dictionary<K, V> = NestedMap<K, V, RemoveWins>;

/// A map of mergeable values: an [`OrMap`] or a [`Dictionary`], which differ in what a removal means for those who
/// edit at the same time.
///
/// Keys are stored as MessagePack, and told apart by these bytes. A key that this version of the application cannot
/// read is not shown, but kept and passed on, with its content.
#[derive(Clone)]
pub struct NestedMap<K, V, P> {
    keyed: Keyed<P, Slot<V>>,
    /// The keys that are shown, with the pending writes done, and how they are encoded.
    shown: BTreeMap<K, Box<[u8]>>,
    pending: BTreeMap<Box<[u8]>, Pending<V>>,
}

/// What was done to a key since the last commit.
#[derive(Debug, Clone)]
enum Pending<V> {
    /// Its value has been lent, with this digest. It records itself what is pending in it.
    Lent(u64),
    /// It is back, with the content that it had.
    Restored,
    Removed,
    /// It begins with this.
    Fresh(V),
}

impl<K: Ord, V: Mergeable, P: Presence> NestedMap<K, V, P> {
    /// An empty map.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            keyed: Keyed::new(),
            shown: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.value(self.shown.get(key)?)
    }

    /// Whether the key is in the map.
    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.shown.contains_key(key)
    }

    /// The value of a key, for editing. Lending it is no edit, as long as nothing is written.
    pub fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let bytes = self.shown.get(key)?;
        lend(&mut self.keyed, &mut self.pending, bytes)
    }

    /// Removes a key. Returns whether it was there.
    pub fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        let Some(bytes) = self.shown.remove(key) else {
            return false;
        };
        if let Some(entry) = self.keyed.get_mut(&bytes) {
            entry.content.value.discard();
        }
        self.pending.insert(bytes, Pending::Removed);
        true
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shown.len()
    }

    /// Whether there is no key.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// The keys, in their order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.shown.keys()
    }

    /// Keys and values, in the order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shown
            .iter()
            .filter_map(|(key, bytes)| Some((key, self.value(bytes)?)))
    }

    fn value(&self, bytes: &[u8]) -> Option<&V> {
        match self.pending.get(bytes) {
            Some(Pending::Fresh(value)) => Some(value),
            _ => self.keyed.get(bytes).map(|entry| &entry.content.value),
        }
    }
}

impl<K: Key, V: Mergeable, P: Presence> NestedMap<K, V, P> {
    /// The value of a key, for editing: a new one, if the key is not in the map.
    ///
    /// # Errors
    /// [`ValueError`] if the key cannot be stored.
    pub fn entry(&mut self, key: K) -> Result<&mut V, ValueError> {
        let bytes = encode_key(&key)?;
        let is_new = !self.shown.contains_key(&key);
        if is_new {
            self.shown.insert(key, bytes.clone());
            self.pending
                .insert(bytes.clone(), Pending::Fresh(V::default()));
        }
        lend(&mut self.keyed, &mut self.pending, &bytes).ok_or(ValueError::NotReadable)
    }

    /// Adds a key with a new value, in the place of what it may have. Returns that value.
    ///
    /// # Errors
    /// [`ValueError`] if the key cannot be stored.
    pub fn insert(&mut self, key: K) -> Result<&mut V, ValueError> {
        self.remove(&key);
        self.entry(key)
    }

    fn show(shown: &mut BTreeMap<K, Box<[u8]>>, bytes: &[u8], is_live: bool) {
        if let Some(key) = decode_key::<K>(bytes) {
            if is_live {
                shown.insert(key, bytes.into());
            } else {
                shown.remove(&key);
            }
        }
    }
}

/// The value of a key that is shown.
fn lend<'a, V: Mergeable, P: Presence>(
    keyed: &'a mut Keyed<P, Slot<V>>,
    pending: &'a mut BTreeMap<Box<[u8]>, Pending<V>>,
    bytes: &[u8],
) -> Option<&'a mut V> {
    let held = keyed.get_mut(bytes).map(|entry| &mut entry.content.value);
    if !pending.contains_key(bytes) {
        let digest = held.as_ref().map_or(0, |value| value.digest());
        pending.insert(bytes.into(), Pending::Lent(digest));
    }
    match pending.get_mut(bytes) {
        Some(Pending::Fresh(value)) => Some(value),
        _ => held,
    }
}

impl<K: Key, V: Mergeable, P: Presence> Mergeable for NestedMap<K, V, P> {
    const KIND: Kind = P::KIND;

    fn commit(&self, clock: &Clock, out: &mut DeltaWriter) {
        let by = clock.dot();
        out.node(Self::KIND, |out| {
            for (bytes, pending) in &self.pending {
                let entry = self.keyed.get(bytes);
                let start = out.len();
                out.bytes(bytes);
                let presence = entry
                    .map(|entry| entry.presence.clone())
                    .unwrap_or_default();
                match pending {
                    Pending::Fresh(value) => {
                        presence.put_fresh(by, out);
                        out.sized(|out| value.commit(clock, out));
                    }
                    Pending::Removed if presence.is_live() => {
                        presence.put_removal(by, out);
                        out.sized(|_| {});
                    }
                    Pending::Restored => {
                        presence.put_touch(by, out);
                        out.sized(|_| {});
                    }
                    Pending::Lent(_) | Pending::Removed => {
                        presence.put_touch(by, out);
                        let content = out.len();
                        if let (Pending::Lent(_), Some(entry)) = (pending, entry) {
                            out.sized(|out| entry.content.value.commit(clock, out));
                        }
                        // Nothing was written, or the key came and went.
                        if out.len() <= content + 1 {
                            out.truncate(start);
                        }
                    }
                }
            }
        });
    }

    fn discard(&mut self) {
        for bytes in std::mem::take(&mut self.pending).into_keys() {
            if let Some(entry) = self.keyed.get_mut(&bytes) {
                entry.content.value.discard();
            }
            Self::show(&mut self.shown, &bytes, self.keyed.is_live(&bytes));
        }
    }

    fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        let shown = &mut self.shown;
        self.keyed
            .apply(delta, |bytes, is_live| Self::show(shown, bytes, is_live))
    }

    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        self.keyed.diff(since, out);
    }

    fn inverse(
        &self,
        change: &mut DeltaReader<'_>,
        out: &mut DeltaWriter,
    ) -> Result<(), EngineError> {
        let mut node = change.node(Self::KIND)?;
        out.try_node(Self::KIND, |out| self.put_inverses(&mut node, out))
    }

    fn revert(&mut self, inverse: &mut DeltaReader<'_>) -> Result<(), EngineError> {
        let mut node = inverse.node(Self::KIND)?;
        while !node.is_at_end() {
            let bytes = node.bytes()?;
            let was = node.number()?;
            let mut content = node.content()?;
            let is_live = self.keyed.is_live(bytes);
            // Somebody else may have added or edited it too: that stays.
            let presence = self.keyed.get(bytes).map(|entry| &entry.presence);
            let is_by_one = presence.is_some_and(Rule::is_by_one);
            match was {
                EDITED if is_live => {
                    let value = lend(&mut self.keyed, &mut self.pending, bytes);
                    if let Some(value) = value.filter(|_| !content.is_at_end()) {
                        value.revert(&mut content)?;
                    }
                }
                ABSENT if is_live && is_by_one => {
                    self.pending.insert(bytes.into(), Pending::Removed);
                    Self::show(&mut self.shown, bytes, false);
                }
                REMOVED | REPLACED if !is_live || is_by_one => {
                    let mut old = Slot::<V>::default();
                    old.apply(&mut content)?;
                    let held = self.keyed.get(bytes).map(|entry| entry.content.digest());
                    let restored = if P::KEEPS && !is_live && held == Some(old.digest()) {
                        Pending::Restored
                    } else {
                        let mut value = V::default();
                        value.copy_from(&old.value);
                        Pending::Fresh(value)
                    };
                    self.pending.insert(bytes.into(), restored);
                    Self::show(&mut self.shown, bytes, true);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn copy_from(&mut self, other: &Self) {
        for (key, value) in other.iter() {
            if let Ok(copy) = self.entry(key.clone()) {
                copy.copy_from(value);
            }
        }
    }

    fn compact(&mut self, horizon: &VersionVector) {
        self.keyed.compact(horizon);
    }

    fn digest(&self) -> u64 {
        // What has been lent must still be what it was.
        let lent = self
            .pending
            .iter()
            .filter_map(|(bytes, pending)| match pending {
                Pending::Lent(before) => {
                    let value = &self.keyed.get(bytes)?.content.value;
                    Some(value.digest().wrapping_sub(*before))
                }
                Pending::Restored | Pending::Removed | Pending::Fresh(_) => None,
            });
        lent.fold(self.keyed.digest(), u64::wrapping_add)
    }

    fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    fn is_waiting(&self) -> bool {
        self.keyed.is_waiting()
    }
}

/// What a key was before a change, in an inverse.
const ABSENT: u64 = 0;
/// It was there before and after; what follows takes back its edits.
const EDITED: u64 = 1;
/// It was removed; what follows is what it had.
const REMOVED: u64 = 2;
/// It got another value; what follows is what it had.
const REPLACED: u64 = 3;

impl<K: Key, V: Mergeable, P: Presence> NestedMap<K, V, P> {
    fn put_inverses(
        &self,
        node: &mut DeltaReader<'_>,
        out: &mut DeltaWriter,
    ) -> Result<(), EngineError> {
        let mut failed = Ok(());
        while !node.is_at_end() {
            let bytes = node.bytes()?;
            let entry = self.keyed.get(bytes);
            let mut after = entry
                .map(|entry| entry.presence.clone())
                .unwrap_or_default();
            let was_live = after.is_live();
            let (_, generation) = after.merge(node)?;
            let mut content = node.content()?;
            out.bytes(bytes);
            let was = match (was_live, after.is_live()) {
                (true, true) if generation == Generation::Newer => REPLACED,
                (true, true) => EDITED,
                (true, false) => REMOVED,
                (false, _) => ABSENT,
            };
            out.number(was);
            out.sized(|out| match (was, entry) {
                (EDITED, Some(entry)) if !content.is_at_end() => {
                    failed = entry.content.value.inverse(&mut content, out);
                }
                (REMOVED | REPLACED, Some(entry)) => {
                    entry.content.value.diff(&VersionVector::new(), out);
                }
                _ => {}
            });
        }
        failed
    }
}

impl<K: Ord, V: Mergeable, P: Presence> Default for NestedMap<K, V, P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + fmt::Debug, V: Mergeable + fmt::Debug, P: Presence> fmt::Debug
    for NestedMap<K, V, P>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
