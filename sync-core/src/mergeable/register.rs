//! One value, of which the last write wins.

use std::cmp::Ordering;
use std::fmt;

use super::entries::{Entry, Write};
use super::value::{decode, stored};
use super::{
    Clock, DeltaReader, DeltaWriter, Kind, Mergeable, Stamp, Value, ValueError, VersionVector,
    digest,
};
use crate::engine::EngineError;

/// The last write to a register, with its value encoded: the merge itself, without the application's type.
#[derive(Debug, Clone, Default)]
pub(super) struct Cell(Option<Entry>);

impl Cell {
    pub(super) fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        let mut node = delta.node(Kind::Register)?;
        let write = read(&mut node)?;
        let wins = !delta.is_settled(write.stamp.dot())
            && self
                .0
                .as_ref()
                .is_none_or(|held| write.order(&held.as_write()) == Ordering::Greater);
        if wins {
            self.0 = Some(Entry::new(&write));
        }
        Ok(wins)
    }

    pub(super) fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        if let Some(entry) = &self.0
            && !since.contains(entry.stamp.dot())
        {
            put(out, entry.stamp, entry.value.as_deref());
        }
    }

    /// Forgets that it was cleared in one of these commits.
    pub(super) fn compact(&mut self, horizon: &VersionVector) {
        self.0 = self
            .0
            .take()
            .filter(|entry| entry.value.is_some() || !horizon.contains(entry.stamp.dot()));
    }

    /// A cleared one counts nothing, so that it can be reclaimed.
    pub(super) fn digest(&self) -> u64 {
        self.0.as_ref().map_or(0, |entry| {
            entry
                .value
                .as_ref()
                .map_or(0, |value| digest::stamped(&entry.stamp, value))
        })
    }

    pub(super) fn value(&self) -> Option<&[u8]> {
        self.0.as_ref().and_then(|entry| entry.value.as_deref())
    }
}

fn put(out: &mut DeltaWriter, stamp: Stamp, value: Option<&[u8]>) {
    out.node(Kind::Register, |out| {
        out.stamp(stamp);
        out.optional_bytes(value);
    });
}

fn read<'a>(node: &mut DeltaReader<'a>) -> Result<Write<'a>, EngineError> {
    let stamp = node.stamp()?;
    let value = node.optional_bytes()?;
    Ok(Write { stamp, value })
}

/// One value, of which the last write wins: by causality, then by wall time, then by the writer's id, as for
/// [`LwwMap`](super::LwwMap).
///
/// The value is stored as MessagePack with named fields. One that this version of the application cannot read is
/// not shown, but kept and passed on.
///
/// # Examples
/// ```
/// use sync_core::engine::typed::Typed;
/// use sync_core::engine::{Document, Engine, ReplicaSeed};
/// use sync_core::mergeable::Register;
///
/// let engine = Typed::<Register<String>>::new();
/// let mut ours = engine.create(ReplicaSeed(1))?;
/// engine.edit(&mut ours, usize::MAX, |title| title.set("Plans".to_owned()))?;
///
/// let mut theirs = engine.create(ReplicaSeed(2))?;
/// theirs.import(&ours.drain().local)?;
/// assert_eq!(engine.read(&theirs, |title| title.get().cloned())?.as_deref(), Some("Plans"));
/// # Ok::<(), sync_core::engine::EngineError>(())
/// ```
#[derive(Clone)]
pub struct Register<T> {
    cell: Cell,
    /// What is shown, with the pending write done.
    shown: Option<T>,
    pending: Option<Option<Box<[u8]>>>,
}

impl<T> Register<T> {
    /// A register that nobody has written.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            cell: Cell(None),
            shown: None,
            pending: None,
        }
    }

    /// The value; `None` if nobody has written one that can be read.
    pub const fn get(&self) -> Option<&T> {
        self.shown.as_ref()
    }
}

impl<T: Value> Register<T> {
    /// Writes a value. Writing the value that is there is a write too.
    ///
    /// # Errors
    /// [`ValueError`] if the value cannot be stored.
    pub fn set(&mut self, value: T) -> Result<(), ValueError> {
        let (bytes, value) = stored(&value)?;
        self.shown = Some(value);
        self.pending = Some(Some(bytes));
        Ok(())
    }

    /// Takes the value away, which is a write too.
    pub fn clear(&mut self) {
        self.shown = None;
        self.pending = Some(None);
    }
}

impl<T: Value + Default> Register<T> {
    /// The value, or the type's default if there is none.
    pub fn get_or_default(&self) -> T {
        self.shown.clone().unwrap_or_default()
    }
}

impl<T: Value> Mergeable for Register<T> {
    const KIND: Kind = Kind::Register;

    fn commit(&self, clock: &Clock, out: &mut DeltaWriter) {
        if let Some(value) = &self.pending {
            let seen = self.cell.0.as_ref().map(|entry| &entry.stamp);
            put(out, clock.stamp_after(seen), value.as_deref());
        }
    }

    fn discard(&mut self) {
        if self.pending.take().is_some() {
            self.shown = self.cell.value().and_then(decode);
        }
    }

    fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        let changed = self.cell.apply(delta)?;
        if changed {
            self.shown = self.cell.value().and_then(decode);
        }
        Ok(changed)
    }

    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        self.cell.diff(since, out);
    }

    fn inverse(
        &self,
        change: &mut DeltaReader<'_>,
        out: &mut DeltaWriter,
    ) -> Result<(), EngineError> {
        let written = read(&mut change.node(Self::KIND)?)?;
        out.node(Self::KIND, |out| {
            out.stamp(written.stamp);
            out.optional_bytes(written.value);
            out.optional_bytes(self.cell.value());
        });
        Ok(())
    }

    fn revert(&mut self, inverse: &mut DeltaReader<'_>) -> Result<(), EngineError> {
        let mut node = inverse.node(Self::KIND)?;
        let written = read(&mut node)?;
        let before = node.optional_bytes()?;
        if written.is_still(self.cell.0.as_ref()) {
            self.shown = before.and_then(decode);
            self.pending = Some(before.map(Box::from));
        }
        Ok(())
    }

    fn copy_from(&mut self, other: &Self) {
        if let Some((bytes, value)) = other.shown.as_ref().and_then(|value| stored(value).ok()) {
            self.shown = Some(value);
            self.pending = Some(Some(bytes));
        }
    }

    fn compact(&mut self, horizon: &VersionVector) {
        self.cell.compact(horizon);
    }

    fn digest(&self) -> u64 {
        self.cell.digest()
    }

    fn is_empty(&self) -> bool {
        self.shown.is_none()
    }
}

impl<T> Default for Register<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for Register<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Register").field(&self.shown).finish()
    }
}
