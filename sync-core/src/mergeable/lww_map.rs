//! The last-writer-wins map, with the application's keys and values.

use std::collections::BTreeMap;
use std::fmt;

use super::entries::{self, Entries};
use super::value::{decode, decode_key, encode_key, stored};
use super::{
    Clock, DeltaReader, DeltaWriter, Key, Kind, Mergeable, Value, ValueError, VersionVector,
};
use crate::engine::EngineError;

/// A map in which the last write to a key wins: add, update and remove, from any number of replicas.
///
/// # Which write wins
/// The one with the later stamp, by the hybrid logical clock ([`Stamp`](super::Stamp)): a write made after seeing
/// another always beats it, whatever the wall clocks say; of concurrent writes the later by wall time wins. Of
/// concurrent writes with **equal** times an add beats a remove, and of two adds or two removes the one of the
/// larger replica id wins. A removed key keeps a tombstone, also if it was never there, so that an earlier add
/// which arrives afterwards stays removed.
///
/// # Keys and values
/// They are stored as MessagePack with named fields, so that a field with `#[serde(default)]` can be added to a
/// value type later. Keys are told apart by these bytes: `K`'s order must tell apart what serialises differently.
/// An entry that this version of the application cannot read as `K` and `V` is not shown, but kept and passed on.
///
/// # Examples
/// ```
/// use bytes::Bytes;
/// use sync_core::engine::typed::Typed;
/// use sync_core::engine::{Document, Engine, ReplicaSeed};
/// use sync_core::mergeable::LwwMap;
///
/// let engine = Typed::<LwwMap<String, u32>>::new();
/// let mut ours = engine.create(ReplicaSeed(1))?;
/// let mut theirs = engine.create(ReplicaSeed(2))?;
///
/// engine.edit(&mut ours, usize::MAX, |map| map.insert("apples".into(), 3))?;
/// let changes: Vec<Bytes> = ours.drain().local;
/// theirs.import(&changes)?;
///
/// assert_eq!(engine.read(&theirs, |map| map.get("apples").copied())?, Some(3));
/// assert_eq!(ours.version(), theirs.version());
/// # Ok::<(), sync_core::engine::EngineError>(())
/// ```
#[derive(Clone)]
pub struct LwwMap<K, V> {
    /// What is merged: everything, also what cannot be read here.
    entries: Entries,
    /// What is shown: the values that can be read, with the pending writes done.
    shown: BTreeMap<K, V>,
    /// Written since the last commit, by encoded key.
    pending: BTreeMap<Box<[u8]>, Option<Box<[u8]>>>,
}

impl<K: Ord, V> LwwMap<K, V> {
    /// An empty map.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            entries: Entries::new(),
            shown: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }

    /// The value of a key.
    pub fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
    {
        self.shown.get(key)
    }

    /// Whether the key has a value.
    pub fn contains<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: std::borrow::Borrow<Q>,
    {
        self.shown.contains_key(key)
    }

    /// Number of keys with a value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shown.len()
    }

    /// Whether no key has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// Keys and values, in the order of the keys.
    pub fn iter(&self) -> std::collections::btree_map::Iter<'_, K, V> {
        self.shown.iter()
    }
}

impl<K: Key, V: Value> LwwMap<K, V> {
    /// Adds a key, or gives it another value. Writing the value that is there is a write too.
    ///
    /// What the map shows from now on is the value as it reads back, which is what everybody else will see.
    ///
    /// # Errors
    /// [`ValueError`] if key or value cannot be stored.
    pub fn insert(&mut self, key: K, value: V) -> Result<(), ValueError> {
        let key_bytes = encode_key(&key)?;
        let (value_bytes, value) = stored(&value)?;
        self.shown.insert(key, value);
        self.pending.insert(key_bytes, Some(value_bytes));
        Ok(())
    }

    /// Removes a key, which need not be there. Returns whether it was.
    ///
    /// # Errors
    /// [`ValueError`] if the key cannot be stored.
    pub fn remove(&mut self, key: &K) -> Result<bool, ValueError> {
        let key_bytes = encode_key(key)?;
        self.pending.insert(key_bytes, None);
        Ok(self.shown.remove(key).is_some())
    }

    /// Shows a value of a key, or that it has none.
    fn show(shown: &mut BTreeMap<K, V>, key: &[u8], value: Option<&[u8]>) {
        if let Some(key) = decode_key::<K>(key) {
            match value.and_then(decode) {
                Some(value) => drop(shown.insert(key, value)),
                None => drop(shown.remove(&key)),
            }
        }
    }
}

impl<K: Key, V: Value> Mergeable for LwwMap<K, V> {
    const KIND: Kind = Kind::LwwMap;

    fn commit(&self, clock: &Clock, out: &mut DeltaWriter) {
        out.node(Self::KIND, |out| {
            for (key, value) in &self.pending {
                let seen = self.entries.get(key).map(|entry| &entry.stamp);
                entries::put(out, key, clock.stamp_after(seen), value.as_deref());
            }
        });
    }

    fn discard(&mut self) {
        for key in std::mem::take(&mut self.pending).into_keys() {
            let held = self.entries.get(&key);
            let value = held.and_then(|held| held.value.as_deref());
            Self::show(&mut self.shown, &key, value);
        }
    }

    fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        let mut node = delta.node(Self::KIND)?;
        let mut changed = false;
        while !node.is_at_end() {
            let (key, write) = entries::read(&mut node)?;
            if !node.is_settled(write.stamp.dot()) && self.entries.apply(key, &write) {
                changed = true;
                Self::show(&mut self.shown, key, write.value);
            }
        }
        Ok(changed)
    }

    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        out.node(Self::KIND, |out| self.entries.diff(since, out));
    }

    fn inverse(
        &self,
        change: &mut DeltaReader<'_>,
        out: &mut DeltaWriter,
    ) -> Result<(), EngineError> {
        let mut node = change.node(Self::KIND)?;
        out.try_node(Self::KIND, |out| {
            while !node.is_at_end() {
                let (key, write) = entries::read(&mut node)?;
                entries::put(out, key, write.stamp, write.value);
                let before = self.entries.get(key);
                out.optional_bytes(before.and_then(|held| held.value.as_deref()));
            }
            Ok(())
        })
    }

    fn revert(&mut self, inverse: &mut DeltaReader<'_>) -> Result<(), EngineError> {
        let mut node = inverse.node(Self::KIND)?;
        while !node.is_at_end() {
            let (key, written) = entries::read(&mut node)?;
            let before = node.optional_bytes()?;
            if !written.is_still(self.entries.get(key)) {
                continue;
            }
            Self::show(&mut self.shown, key, before);
            self.pending.insert(key.into(), before.map(Box::from));
        }
        Ok(())
    }

    fn copy_from(&mut self, other: &Self) {
        for (key, value) in other {
            // What is shown has been encoded before.
            if let (Ok(key_bytes), Ok((value_bytes, value))) = (encode_key(key), stored(value)) {
                self.shown.insert(key.clone(), value);
                self.pending.insert(key_bytes, Some(value_bytes));
            }
        }
    }

    fn compact(&mut self, horizon: &VersionVector) {
        self.entries.compact(horizon);
    }

    fn digest(&self) -> u64 {
        self.entries.digest()
    }

    fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }
}

impl<K: Ord, V> Default for LwwMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for LwwMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.shown).finish()
    }
}

impl<'a, K, V> IntoIterator for &'a LwwMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::collections::btree_map::Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.shown.iter()
    }
}
