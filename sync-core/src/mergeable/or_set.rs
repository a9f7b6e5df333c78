//! The observed-remove set.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::encoded::Encoded;
use super::tags::{self, Tags};
use super::value::{decode_key, encode_key};
use super::{
    Clock, DeltaReader, DeltaWriter, Key, Kind, Mergeable, ValueError, VersionVector, digest,
};
use crate::engine::EngineError;

/// Elements by their bytes: the merge itself, without the application's type.
#[derive(Debug, Clone, Default)]
pub(super) struct Elements {
    tags: BTreeMap<Encoded, Tags>,
    digest: u64,
}

impl Elements {
    const fn new() -> Self {
        Self {
            tags: BTreeMap::new(),
            digest: 0,
        }
    }

    /// Merges a node, telling `came` which elements came, and `went` which went. Returns whether anything changed.
    pub(super) fn apply(
        &mut self,
        delta: &mut DeltaReader<'_>,
        mut moved: impl FnMut(&[u8], bool),
    ) -> Result<bool, EngineError> {
        let mut node = delta.node(Kind::OrSet)?;
        let mut changed = false;
        while !node.is_at_end() {
            let key = node.bytes()?;
            if !self.tags.contains_key(key) {
                self.tags.insert(key.into(), Tags::default());
            }
            let Some(tags) = self.tags.get_mut(key) else {
                continue;
            };
            let was_live = tags.is_live();
            changed |= tags.apply(&mut node)?;
            let (is_live, is_nothing) = (tags.is_live(), *tags == Tags::default());
            if is_live != was_live {
                let counts = digest::key_factor(key);
                self.digest = if is_live {
                    self.digest.wrapping_add(counts)
                } else {
                    self.digest.wrapping_sub(counts)
                };
                moved(key, is_live);
            }
            if is_nothing {
                self.tags.remove(key);
            }
        }
        Ok(changed)
    }

    pub(super) fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        out.node(Kind::OrSet, |out| {
            for (key, tags) in &self.tags {
                if tags.has_news(since) {
                    out.bytes(key);
                    tags.diff(since, out);
                }
            }
        });
    }

    pub(super) fn compact(&mut self, horizon: &VersionVector) {
        self.tags.retain(|_, tags| !tags.compact(horizon));
    }

    pub(super) const fn digest(&self) -> u64 {
        self.digest
    }

    /// The elements that are there.
    pub(super) fn live(&self) -> impl Iterator<Item = &[u8]> {
        let tags = self.tags.iter().filter(|(_, tags)| tags.is_live());
        tags.map(|(key, _)| &**key)
    }

    fn is_live(&self, key: &[u8]) -> bool {
        self.tags.get(key).is_some_and(Tags::is_live)
    }
}

/// A set in which adding an element wins over a concurrent removal of it.
///
/// A removal takes away the additions that its replica has seen, and no others: who adds at the same time, or adds
/// again, keeps the element, whatever the clocks say. Adding an element that is there is a write: it keeps the element
/// against concurrent removals.
///
/// Elements are stored as MessagePack, and told apart by these bytes. One that this version of the application cannot
/// read is not shown, but kept and passed on.
///
/// # Examples
/// ```
/// use sync_core::engine::typed::Typed;
/// use sync_core::engine::{Document, Engine, ReplicaSeed};
/// use sync_core::mergeable::OrSet;
///
/// let engine = Typed::<OrSet<String>>::new();
/// let (mut ours, mut theirs) = (engine.create(ReplicaSeed(1))?, engine.create(ReplicaSeed(2))?);
/// engine.edit(&mut ours, usize::MAX, |tags| tags.insert("urgent".to_owned()))?;
/// theirs.import(&ours.drain().local)?;
///
/// engine.edit(&mut theirs, usize::MAX, |tags| tags.remove("urgent"))?;
/// engine.edit(&mut ours, usize::MAX, |tags| tags.insert("urgent".to_owned()))?;
/// theirs.import(&ours.drain().local)?;
/// assert!(engine.read(&theirs, |tags| tags.contains("urgent"))?);
/// # Ok::<(), sync_core::engine::EngineError>(())
/// ```
#[derive(Clone)]
pub struct OrSet<T> {
    elements: Elements,
    /// What is shown, with the pending writes done.
    shown: BTreeSet<T>,
    /// Added (`true`) or removed since the last commit, by encoded element.
    pending: BTreeMap<Box<[u8]>, bool>,
}

impl<T: Ord> OrSet<T> {
    /// An empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            elements: Elements::new(),
            shown: BTreeSet::new(),
            pending: BTreeMap::new(),
        }
    }

    /// Whether the element is in the set.
    pub fn contains<Q: Ord + ?Sized>(&self, element: &Q) -> bool
    where
        T: std::borrow::Borrow<Q>,
    {
        self.shown.contains(element)
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shown.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// The elements, in their order.
    pub fn iter(&self) -> std::collections::btree_set::Iter<'_, T> {
        self.shown.iter()
    }
}

impl<T: Key> OrSet<T> {
    /// Adds an element. Returns whether it was not there.
    ///
    /// # Errors
    /// [`ValueError`] if it cannot be stored.
    pub fn insert(&mut self, element: T) -> Result<bool, ValueError> {
        self.pending.insert(encode_key(&element)?, true);
        Ok(self.shown.insert(element))
    }

    /// Removes an element. Returns whether it was there.
    pub fn remove<Q: Ord + ?Sized>(&mut self, element: &Q) -> bool
    where
        T: std::borrow::Borrow<Q>,
    {
        let taken = self.shown.take(element);
        // What is shown has been encoded before.
        if let Some(key) = taken.as_ref().and_then(|element| encode_key(element).ok()) {
            self.pending.insert(key, false);
        }
        taken.is_some()
    }

    fn show(shown: &mut BTreeSet<T>, key: &[u8], is_live: bool) {
        if let Some(element) = decode_key::<T>(key) {
            if is_live {
                shown.insert(element);
            } else {
                shown.remove(&element);
            }
        }
    }
}

impl<T: Key> Mergeable for OrSet<T> {
    const KIND: Kind = Kind::OrSet;

    fn commit(&self, clock: &Clock, out: &mut DeltaWriter) {
        let by = clock.dot();
        out.node(Self::KIND, |out| {
            for (key, is_added) in &self.pending {
                if *is_added {
                    out.bytes(key);
                    tags::put_addition(by, out);
                } else if let Some(tags) =
                    self.elements.tags.get(&**key).filter(|tags| tags.is_live())
                {
                    out.bytes(key);
                    tags.put_removal(by, out);
                }
            }
        });
    }

    fn discard(&mut self) {
        for key in std::mem::take(&mut self.pending).into_keys() {
            Self::show(&mut self.shown, &key, self.elements.is_live(&key));
        }
    }

    fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        let shown = &mut self.shown;
        self.elements
            .apply(delta, |key, is_live| Self::show(shown, key, is_live))
    }

    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        self.elements.diff(since, out);
    }

    fn inverse(
        &self,
        change: &mut DeltaReader<'_>,
        out: &mut DeltaWriter,
    ) -> Result<(), EngineError> {
        let mut node = change.node(Self::KIND)?;
        let mut moved = Vec::new();
        while !node.is_at_end() {
            let key = node.bytes()?;
            let mut tags = self.elements.tags.get(key).cloned().unwrap_or_default();
            let was_live = tags.is_live();
            tags.apply(&mut node)?;
            if tags.is_live() != was_live {
                moved.push((key, was_live));
            }
        }
        out.node(Self::KIND, |out| {
            for (key, was_live) in moved {
                out.bytes(key);
                out.number(u64::from(was_live));
            }
        });
        Ok(())
    }

    fn revert(&mut self, inverse: &mut DeltaReader<'_>) -> Result<(), EngineError> {
        let mut node = inverse.node(Self::KIND)?;
        while !node.is_at_end() {
            let key = node.bytes()?;
            let was_live = node.number()? == 1;
            // Somebody else may have added it too: that stays.
            let n_live = self.elements.tags.get(key).map_or(0, Tags::n_live);
            if n_live == usize::from(!was_live) {
                Self::show(&mut self.shown, key, was_live);
                self.pending.insert(key.into(), was_live);
            }
        }
        Ok(())
    }

    fn copy_from(&mut self, other: &Self) {
        for element in other {
            // It has been encoded before.
            if let Ok(key) = encode_key(element) {
                self.shown.insert(element.clone());
                self.pending.insert(key, true);
            }
        }
    }

    fn compact(&mut self, horizon: &VersionVector) {
        self.elements.compact(horizon);
    }

    fn digest(&self) -> u64 {
        self.elements.digest()
    }

    fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }
}

impl<T: Ord> Default for OrSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for OrSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&self.shown).finish()
    }
}

impl<'a, T> IntoIterator for &'a OrSet<T> {
    type Item = &'a T;
    type IntoIter = std::collections::btree_set::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.shown.iter()
    }
}
