//! Values in an order: lists and text.

mod order;
mod pieces;
mod run;
mod tree;
mod undo;
mod wire;

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, RangeBounds};

pub(crate) use order::Order;
pub(crate) use run::RUN_MAX;

use self::order::Removal;
use self::pieces::{Found, Piece, Pieces};
use self::run::{Commits, Id, Run, skip};
use self::undo::Restored;
use super::value::{decode, encode};
use super::{Clock, DeltaReader, DeltaWriter, Kind, Mergeable, Value, ValueError, VersionVector};
use crate::engine::EngineError;

/// Values in an order, for lists of any type and, as `Sequence<char>`, for text.
///
/// What somebody inserts in one go, forwards or backwards, stays in one piece, whatever others insert at the same place
/// at the same time (Fugue: Weidner and Kleppmann, "The Art of the Fugue", 2023). All replicas have the same order.
/// A removed element stays removed; what others inserted next to it stays.
///
/// Elements are stored as MessagePack. One that this version of the application cannot read keeps its index and is passed
/// on: [`get`](Self::get) finds nothing there, and [`iter`](Self::iter) leaves it out.
///
/// Inserting or removing takes time in the logarithm of the length, reading all of it linear time; each element is
/// decoded when it is read. A removed element leaves some bytes behind, one after the other removed in one go together,
/// until they are reclaimed.
///
/// # Examples
/// ```
/// use sync_core::engine::typed::Typed;
/// use sync_core::engine::{Document, Engine, ReplicaSeed};
/// use sync_core::mergeable::Sequence;
///
/// let engine = Typed::<Sequence<char>>::new();
/// let (mut ours, mut theirs) = (engine.create(ReplicaSeed(1))?, engine.create(ReplicaSeed(2))?);
/// engine.edit(&mut ours, usize::MAX, |text| text.insert_str(0, "milk"))?;
/// theirs.import(&ours.drain().local)?;
///
/// engine.edit(&mut ours, usize::MAX, |text| text.insert_str(4, ", eggs"))?;
/// engine.edit(&mut theirs, usize::MAX, |text| text.insert_str(4, ", rice"))?;
/// theirs.import(&ours.drain().local)?;
/// let text = engine.read(&theirs, |text| text.to_string())?;
/// assert_eq!(text, "milk, eggs, rice");
/// # Ok::<(), sync_core::engine::EngineError>(())
/// ```
#[derive(Clone)]
pub struct Sequence<T> {
    order: Order,
    pieces: Pieces,
    restored: Restored,
    values: PhantomData<fn() -> T>,
}

impl<T> Sequence<T> {
    /// An empty sequence.
    #[must_use]
    pub fn new() -> Self {
        Self {
            order: Order::default(),
            pieces: Pieces::default(),
            restored: Restored::default(),
            values: PhantomData,
        }
    }

    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.count()).unwrap_or(usize::MAX)
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count() == 0
    }

    const fn count(&self) -> u64 {
        self.pieces.count(self.order.n_visible())
    }

    /// Removes these elements, as far as they are there. Returns how many that were.
    pub fn remove_range(&mut self, range: impl RangeBounds<usize>) -> usize {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => usize::MAX,
        };
        let count = end.min(self.len()).saturating_sub(start);
        self.restored.forget_now();
        self.pieces
            .remove(to_u64(start), to_u64(count), self.order.n_visible());
        count
    }

    /// Removes an element. Returns whether it was there.
    pub fn remove(&mut self, index: usize) -> bool {
        self.remove_range(index..=index) == 1
    }

    /// The encoded value of a merged element.
    fn merged(&self, index: u64) -> Option<&[u8]> {
        let (_, run, offset) = self.order.find_visible(index)?;
        let rest = run.values.get(skip(&run.values, offset)..)?;
        rest.get(..skip(rest, 1))
    }
}

impl<T: Value> Sequence<T> {
    /// The element at an index.
    pub fn get(&self, index: usize) -> Option<T> {
        match self.pieces.get(to_u64(index)) {
            Found::Merged(index) => self.merged(index).and_then(decode),
            Found::New(value) => decode(value),
            Found::Nothing => None,
        }
    }

    /// The elements in their order.
    pub fn iter(&self) -> std::vec::IntoIter<T> {
        let mut all = Vec::with_capacity(self.len());
        for piece in self.pieces.iter(self.order.n_visible()) {
            match piece {
                Piece::Merged { from, count } => {
                    self.order
                        .each_visible(from, count, |_, value| all.extend(decode::<T>(value)));
                }
                Piece::New(values, _) => {
                    all.extend(values.iter().filter_map(|value| decode::<T>(value)));
                }
            }
        }
        all.into_iter()
    }

    /// Inserts an element before the one at `index`, or at the end.
    ///
    /// # Errors
    /// [`ValueError`] if it cannot be stored, or `index` is behind the end.
    pub fn insert(&mut self, index: usize, value: T) -> Result<(), ValueError> {
        self.insert_all(index, [value])
    }

    /// Adds an element at the end.
    ///
    /// # Errors
    /// [`ValueError`] if it cannot be stored.
    pub fn push(&mut self, value: T) -> Result<(), ValueError> {
        self.insert(self.len(), value)
    }

    /// Inserts elements, in their order, before the one at `index`, or at the end: all or none.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    pub fn insert_all(
        &mut self,
        index: usize,
        values: impl IntoIterator<Item = T>,
    ) -> Result<(), ValueError> {
        if index > self.len() {
            return Err(ValueError::OutOfRange {
                index,
                length: self.len(),
            });
        }
        let mut encoded = Vec::new();
        for value in values {
            let bytes = encode(&value)?;
            if decode::<T>(&bytes).is_none() {
                return Err(ValueError::NotReadable);
            }
            encoded.push(bytes);
        }
        self.restored.forget_now();
        self.pieces
            .insert(to_u64(index), encoded, None, self.order.n_visible());
        Ok(())
    }
}

impl Sequence<char> {
    /// Inserts text before the character at `index`, or at the end. Indices count characters (Unicode scalar values).
    ///
    /// # Errors
    /// [`ValueError::OutOfRange`] if `index` is behind the end.
    pub fn insert_str(&mut self, index: usize, text: &str) -> Result<(), ValueError> {
        self.insert_all(index, text.chars())
    }
}

impl<T: Value> Mergeable for Sequence<T> {
    const KIND: Kind = Kind::Sequence;

    fn commit(&self, clock: &Clock, out: &mut DeltaWriter) {
        let by = Commits::one(clock.dot());
        let mut next = Id {
            replica: by.first.replica,
            counter: self.order.last_of(by.first.replica).saturating_add(1),
        };
        let (mut runs, mut removals) = (Vec::new(), Vec::new());
        // Visible elements before this one are dealt with.
        let mut at = 0;
        for piece in self.pieces.pending() {
            match piece {
                Piece::Merged { from, count } => {
                    self.put_removals(at, *from, by, &mut removals);
                    at = from + count;
                }
                Piece::New(values, behind) => {
                    let count = to_u64(values.len());
                    let parent = match behind {
                        Some(id) => self.order.parent_behind_id(*id),
                        None => self.order.parent_behind(at.checked_sub(1)),
                    };
                    runs.push(Run {
                        first: next,
                        count,
                        parent,
                        inserted: by,
                        removed: None,
                        values: values.concat(),
                    });
                    next = next.plus(count);
                }
            }
        }
        if self.pieces.is_pending() {
            self.put_removals(at, self.order.n_visible(), by, &mut removals);
        }
        if runs.is_empty() && removals.is_empty() {
            return;
        }
        out.node(Self::KIND, |out| {
            wire::put_head(runs.len(), false, out);
            runs.iter().for_each(|run| wire::put_run(run, out));
            removals
                .iter()
                .for_each(|removal| wire::put_removal(removal, out));
        });
    }

    fn discard(&mut self) {
        self.pieces.clear();
    }

    fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        let mut node = delta.node(Self::KIND)?;
        let news = wire::read(&mut node)?;
        self.restored.become_runs(news.runs.iter());
        Ok(self.order.merge(news, &node))
    }

    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        self.order.diff(since, out);
    }

    fn inverse(
        &self,
        change: &mut DeltaReader<'_>,
        out: &mut DeltaWriter,
    ) -> Result<(), EngineError> {
        undo::inverse(&self.order, change, out)
    }

    fn revert(&mut self, inverse: &mut DeltaReader<'_>) -> Result<(), EngineError> {
        undo::revert(&self.order, &mut self.pieces, &mut self.restored, inverse)
    }

    fn copy_from(&mut self, other: &Self) {
        let mut values: pieces::Values = Vec::new();
        for piece in other.pieces.iter(other.order.n_visible()) {
            match piece {
                Piece::Merged { from, count } => {
                    other
                        .order
                        .each_visible(from, count, |_, value| values.push(value.into()));
                }
                Piece::New(new, _) => values.extend(new),
            }
        }
        self.pieces
            .insert(self.count(), values, None, self.order.n_visible());
    }

    fn compact(&mut self, horizon: &VersionVector) {
        self.order.compact(horizon);
    }

    fn digest(&self) -> u64 {
        self.order.digest()
    }

    fn is_empty(&self) -> bool {
        self.count() == 0
    }

    fn is_waiting(&self) -> bool {
        self.order.is_waiting()
    }
}

impl<T> Sequence<T> {
    /// Collects the visible elements from one index to another as removals, as few as can be.
    fn put_removals(&self, from: u64, to: u64, by: Commits, out: &mut Vec<Removal>) {
        if from >= to {
            return;
        }
        let Some((handle, _, mut offset)) = self.order.find_visible(from) else {
            return;
        };
        let mut left = to - from;
        for run in self.order.runs_from(handle) {
            if left == 0 {
                return;
            }
            let count = run.n_visible().saturating_sub(offset).min(left);
            if count > 0 {
                let first = run.first.plus(offset);
                match out.last_mut() {
                    Some(last) if last.first.plus(last.count) == first => last.count += count,
                    _ => out.push(Removal { first, count, by }),
                }
                left -= count;
            }
            offset = 0;
        }
    }
}

impl<T> Default for Sequence<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Value + fmt::Debug> fmt::Debug for Sequence<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The text.
impl fmt::Display for Sequence<char> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|c| fmt::Write::write_char(f, c))
    }
}

impl<T: Value> IntoIterator for &Sequence<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
