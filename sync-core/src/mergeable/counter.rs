//! A sum that everybody adds to.
//!
//! The PN-counter of Shapiro, Preguiça, Baquero, Zawirski (INRIA RR-7506, 2011), section 3.1.3: per replica what it
//! added and what it took away. There a replica sends its whole sums. Here a commit sends its own part, because a
//! commit may be refused for ever (design 2.2), and the sums of the next one would bring it back. Parts name the
//! replica's part before them, and are added up where that is there; those behind a hole are kept apart.

use std::collections::BTreeMap;
use std::fmt;

use super::clock::{Dot, ReplicaId};
use super::{Clock, DeltaReader, DeltaWriter, Kind, Mergeable, VersionVector, digest};
use crate::engine::EngineError;

/// What was added, and what was taken away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Sums {
    plus: u64,
    minus: u64,
}

impl Sums {
    /// Saturating: sums this large are forged.
    const fn add(&mut self, other: Self) {
        self.plus = self.plus.saturating_add(other.plus);
        self.minus = self.minus.saturating_add(other.minus);
    }

    fn put(self, out: &mut DeltaWriter) {
        out.number(self.plus);
        out.number(self.minus);
    }

    fn read(node: &mut DeltaReader<'_>) -> Result<Self, EngineError> {
        let plus = node.number()?;
        let minus = node.number()?;
        Ok(Self { plus, minus })
    }
}

/// What one replica contributed.
#[derive(Debug, Clone, Default)]
struct Cell {
    /// Its commits to this counter through this number are in `sums`.
    through: u64,
    sums: Sums,
    /// Later commits by number, each with the one before it, as long as that is not in `sums`.
    apart: BTreeMap<u64, (u64, Sums)>,
}

impl Cell {
    fn is_known(&self, number: u64) -> bool {
        number <= self.through
    }

    /// Adds up what follows without a hole.
    fn settle(&mut self) {
        self.apart = self.apart.split_off(&self.through.saturating_add(1));
        while let Some((number, (_, sums))) = self
            .apart
            .first_key_value()
            .filter(|(_, (before, _))| *before == self.through)
            .map(|(number, part)| (*number, *part))
        {
            self.through = number;
            self.sums.add(sums);
            self.apart.remove(&number);
        }
    }

    fn last(&self) -> u64 {
        self.apart
            .last_key_value()
            .map_or(self.through, |(number, _)| *number)
    }
}

/// The contributions of all replicas: the merge itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Cells {
    cells: BTreeMap<ReplicaId, Cell>,
    /// Of replicas whose cells have been reclaimed.
    reclaimed: Sums,
    total: Sums,
}

/// Cell forms: one commit, and all commits through one.
const ONE: u64 = 1;
const THROUGH: u64 = 2;

impl Cells {
    /// Exact unless somebody forged sums, and then within bounds.
    pub(super) fn value(&self) -> i64 {
        let value = i128::from(self.total.plus) - i128::from(self.total.minus);
        i64::try_from(value).unwrap_or(if value > 0 { i64::MAX } else { i64::MIN })
    }

    pub(super) fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        let mut node = delta.node(Kind::Counter)?;
        let before = self.total;
        if node.number()? == 1 {
            let reclaimed = Sums::read(&mut node)?;
            if node.adopts() {
                self.reclaimed = reclaimed;
            }
        }
        while !node.is_at_end() {
            let form = node.number()?;
            let Dot { replica, number } = node.dot()?;
            let part_before = (form == ONE).then(|| node.number()).transpose()?;
            let sums = Sums::read(&mut node)?;
            if node.is_settled(Dot::new(replica, number)) {
                continue;
            }
            let cell = self.cells.entry(replica).or_default();
            match part_before {
                Some(_) if cell.is_known(number) => {}
                Some(before) => {
                    let part = cell.apart.entry(number).or_default();
                    *part = (*part).max((before, sums));
                }
                None => {
                    (cell.through, cell.sums) = (cell.through, cell.sums).max((number, sums));
                }
            }
            cell.settle();
        }
        self.add_up();
        Ok(self.total != before)
    }

    pub(super) fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        // A holder of a later part may lack an earlier one, which only the whole sums bring.
        let unseen_sums = |replica: ReplicaId, cell: &Cell| {
            cell.through > 0 && !since.contains_range(replica, 1, cell.through)
        };
        let unseen = |replica, number| !since.contains(Dot::new(replica, number));
        let has_news = |(replica, cell): (&ReplicaId, &Cell)| {
            unseen_sums(*replica, cell) || cell.apart.keys().any(|number| unseen(*replica, *number))
        };
        // What is reclaimed is for those who take over the whole.
        let whole = since.is_empty() && self.reclaimed != Sums::default();
        if !whole && !self.cells.iter().any(has_news) {
            return;
        }
        out.node(Kind::Counter, |out| {
            out.number(u64::from(whole));
            if whole {
                self.reclaimed.put(out);
            }
            for (replica, cell) in &self.cells {
                if unseen_sums(*replica, cell) {
                    out.number(THROUGH);
                    out.dot(Dot::new(*replica, cell.through));
                    cell.sums.put(out);
                }
                for (number, (before, sums)) in &cell.apart {
                    if unseen(*replica, *number) {
                        out.number(ONE);
                        out.dot(Dot::new(*replica, *number));
                        out.number(*before);
                        sums.put(out);
                    }
                }
            }
        });
    }

    /// Adds up the cells of replicas that have not written since.
    pub(super) fn compact(&mut self, horizon: &VersionVector) {
        let reclaimed = &mut self.reclaimed;
        self.cells.retain(|replica, cell| {
            let numbers = cell.apart.keys().copied();
            let is_below = numbers
                .chain((cell.through > 0).then_some(cell.through))
                .all(|number| horizon.contains(Dot::new(*replica, number)));
            if is_below {
                reclaimed.add(cell.sums);
                cell.apart
                    .values()
                    .for_each(|(_, sums)| reclaimed.add(*sums));
            }
            !is_below
        });
    }

    pub(super) fn digest(&self) -> u64 {
        if self.total == Sums::default() {
            0
        } else {
            digest::hash(&[self.total.plus, self.total.minus], &[])
        }
    }

    fn add_up(&mut self) {
        self.total = self.reclaimed;
        for cell in self.cells.values() {
            self.total.add(cell.sums);
            cell.apart
                .values()
                .for_each(|(_, sums)| self.total.add(*sums));
        }
    }
}

/// A sum that every replica adds to and takes from: concurrent additions all count.
///
/// Its value is exact between `i64::MIN` and `i64::MAX`, and stops there.
///
/// # Examples
/// ```
/// use sync_core::engine::typed::Typed;
/// use sync_core::engine::{Document, Engine, ReplicaSeed};
/// use sync_core::mergeable::Counter;
///
/// let engine = Typed::<Counter>::new();
/// let (mut ours, mut theirs) = (engine.create(ReplicaSeed(1))?, engine.create(ReplicaSeed(2))?);
/// engine.edit(&mut ours, usize::MAX, |votes| votes.add(2))?;
/// engine.edit(&mut theirs, usize::MAX, |votes| votes.add(-1))?;
/// theirs.import(&ours.drain().local)?;
/// assert_eq!(engine.read(&theirs, |votes| votes.value())?, 1);
/// # Ok::<(), sync_core::engine::EngineError>(())
/// ```
#[derive(Clone, Default)]
pub struct Counter {
    cells: Cells,
    pending: Sums,
}

impl Counter {
    /// Zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The sum.
    #[must_use]
    pub fn value(&self) -> i64 {
        let pending = i128::from(self.pending.plus) - i128::from(self.pending.minus);
        let value = i128::from(self.cells.value()) + pending;
        i64::try_from(value).unwrap_or(if value > 0 { i64::MAX } else { i64::MIN })
    }

    /// Adds to the sum, or takes from it.
    pub const fn add(&mut self, amount: i64) {
        let size = amount.unsigned_abs();
        let sums = if amount < 0 {
            Sums {
                plus: 0,
                minus: size,
            }
        } else {
            Sums {
                plus: size,
                minus: 0,
            }
        };
        self.pending.add(sums);
    }
}

impl Mergeable for Counter {
    const KIND: Kind = Kind::Counter;

    fn commit(&self, clock: &Clock, out: &mut DeltaWriter) {
        if self.pending != Sums::default() {
            let dot = clock.dot();
            let before = self.cells.cells.get(&dot.replica).map_or(0, Cell::last);
            out.node(Self::KIND, |out| {
                out.number(0);
                out.number(ONE);
                out.dot(dot);
                out.number(before);
                self.pending.put(out);
            });
        }
    }

    fn discard(&mut self) {
        self.pending = Sums::default();
    }

    fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        self.cells.apply(delta)
    }

    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        self.cells.diff(since, out);
    }

    fn inverse(
        &self,
        change: &mut DeltaReader<'_>,
        out: &mut DeltaWriter,
    ) -> Result<(), EngineError> {
        let mut after = self.cells.clone();
        after.apply(change)?;
        let added = |after: u64, before: u64| after.saturating_sub(before);
        out.node(Self::KIND, |out| {
            out.number(added(after.total.minus, self.cells.total.minus));
            out.number(added(after.total.plus, self.cells.total.plus));
        });
        Ok(())
    }

    fn revert(&mut self, inverse: &mut DeltaReader<'_>) -> Result<(), EngineError> {
        let sums = Sums::read(&mut inverse.node(Self::KIND)?)?;
        self.pending.add(sums);
        Ok(())
    }

    fn copy_from(&mut self, other: &Self) {
        self.add(other.value());
    }

    fn compact(&mut self, horizon: &VersionVector) {
        self.cells.compact(horizon);
    }

    fn digest(&self) -> u64 {
        self.cells.digest()
    }

    fn is_empty(&self) -> bool {
        self.value() == 0
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Counter").field(&self.value()).finish()
    }
}
