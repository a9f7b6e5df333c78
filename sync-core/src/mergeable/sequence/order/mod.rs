//! The merge of sequences, without the application's type: the tree of Fugue, kept as blocks in document order.
//!
//! Weidner and Kleppmann, "The Art of the Fugue: Minimizing Interleaving in Collaborative Text Editing" (2023): every
//! element is a left or right child of another, children of one side are in the order of their ids, and the document
//! is the in-order traversal. A new element becomes a right child of the one to its left if that has none, else a
//! left child of the next one, removed ones included. So what somebody writes in one go, forwards or backwards, stays
//! in one piece. The tree is not walked but for siblings: blocks stand in a B+ tree in traversal order.

mod compact;
mod place;

use std::collections::BTreeMap;

use super::super::clock::{Dot, ReplicaId};
use super::run::{Commits, Id, Parent, Run, skip};
use super::tree::{Handle, Tree, to_usize};

/// Most visible elements of a block: what is walked within one, to split it or to find a value.
const BLOCK_MAX: u64 = 128;

/// Handle of the root, a block of its own that holds no element.
const ROOT: Handle = 0;

/// A run that stands at its place. Its inner elements have no children but each other.
#[derive(Debug, Clone)]
struct Block {
    run: Run,
    /// Left children of the first element, in order.
    left: Vec<Handle>,
    /// Right children of the last element, in order.
    right: Vec<Handle>,
}

/// Elements of others that somebody removed: whose, and in which commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Removal {
    pub(super) first: Id,
    pub(super) count: u64,
    pub(super) by: Commits,
}

impl Removal {
    /// In an order, and told apart.
    const fn key(&self) -> (Id, u64, Dot) {
        (self.first, self.count, self.by.first)
    }
}

/// A sequence over encoded values.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    blocks: Vec<Block>,
    tree: Tree,
    /// Blocks by their first element.
    index: BTreeMap<Id, Handle>,
    digest: u64,
    /// Runs whose parent is not there, by it and their first element.
    orphans: BTreeMap<Id, BTreeMap<Id, Run>>,
    /// Removals of elements that are not there.
    early: BTreeMap<(Id, u64, Dot), Removal>,
    /// Of each replica's elements, the last that has been reclaimed.
    pub(super) floors: BTreeMap<ReplicaId, u64>,
}

impl Order {
    pub(super) const fn n_visible(&self) -> u64 {
        self.tree.total()
    }

    pub(crate) const fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) fn is_waiting(&self) -> bool {
        !self.orphans.is_empty() || !self.early.is_empty()
    }

    /// The run and offset of the visible element with this index.
    pub(super) fn find_visible(&self, index: u64) -> Option<(Handle, &Run, u64)> {
        let (handle, offset) = self.tree.find(index)?;
        Some((handle, &self.block(handle).run, offset))
    }

    /// The encoded values of all visible elements.
    pub(crate) fn values(&self) -> Vec<Vec<u8>> {
        let mut values = Vec::new();
        self.each_visible(0, self.n_visible(), |_, value| values.push(value.to_vec()));
        values
    }

    /// Calls `each` with the encoded values of visible elements.
    pub(super) fn each_visible(&self, from: u64, count: u64, mut each: impl FnMut(Id, &[u8])) {
        let Some((handle, _, mut offset)) = self.find_visible(from) else {
            return;
        };
        let mut left = count;
        for run in self.runs_from(handle) {
            let mut rest = run
                .values
                .get(skip(&run.values, offset)..)
                .unwrap_or_default();
            while offset < run.n_visible() && left > 0 {
                let (value, after) = rest.split_at(skip(rest, 1));
                each(run.first.plus(offset), value);
                rest = after;
                offset += 1;
                left -= 1;
            }
            offset = 0;
            if left == 0 {
                return;
            }
        }
    }

    /// The index of a visible element.
    pub(super) fn visible_index(&self, id: Id) -> Option<u64> {
        let (handle, offset) = self.known(id)?;
        let is_visible = self.block(handle).run.removed.is_none();
        is_visible.then(|| self.tree.rank(handle) + offset)
    }

    /// How many visible elements are before one that may be removed.
    pub(super) fn index_before(&self, id: Id) -> Option<u64> {
        let (handle, offset) = self.known(id)?;
        let is_visible = self.block(handle).run.removed.is_none();
        Some(self.tree.rank(handle) + if is_visible { offset } else { 0 })
    }

    /// The visible ones of these elements, in pieces with their values.
    pub(super) fn visible_parts(&self, first: Id, count: u64) -> Vec<(Id, Vec<u8>)> {
        let (mut at, end) = (first, first.plus(count));
        let mut parts = Vec::new();
        while at < end {
            let Some((handle, offset)) = self.known(at) else {
                break;
            };
            let mut part = self.block(handle).run.clone();
            if offset > 0 {
                part = part.split_off(offset);
            }
            if part.count > end.counter - at.counter {
                part.split_off(end.counter - at.counter);
            }
            at = at.plus(part.count);
            if part.removed.is_none() {
                parts.push((part.first, part.values));
            }
        }
        parts
    }

    /// All runs in document order, removed ones included.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs_from(ROOT).skip(1)
    }

    /// The runs from this block on.
    pub(super) fn runs_from(&self, handle: Handle) -> impl Iterator<Item = &Run> {
        let mut next = Some(handle);
        std::iter::from_fn(move || {
            let handle = next?;
            next = self.tree.next(handle);
            Some(&self.block(handle).run)
        })
    }

    /// Runs that wait for their parents.
    pub(super) fn orphans(&self) -> impl Iterator<Item = &Run> {
        self.orphans.values().flat_map(BTreeMap::values)
    }

    /// Removals that wait for their elements.
    pub(super) fn early(&self) -> impl Iterator<Item = &Removal> {
        self.early.values()
    }

    /// The last of a replica's elements that is known.
    pub(super) fn last_of(&self, replica: ReplicaId) -> u64 {
        let range = Id {
            replica,
            counter: 0,
        }..=Id {
            replica,
            counter: u64::MAX,
        };
        let held = self.index.range(range).next_back();
        let held = held.map_or(0, |(_, handle)| self.block(*handle).run.last().counter);
        held.max(self.floors.get(&replica).copied().unwrap_or_default())
    }

    /// Where an element hangs that is inserted behind this visible one, or at the front.
    pub(super) fn parent_behind(&self, index: Option<u64>) -> Parent {
        self.parent_at(index.and_then(|index| self.tree.find(index)))
    }

    /// Where an element hangs that is inserted behind this one, which may be removed; at the front, if it is unknown.
    pub(super) fn parent_behind_id(&self, id: Id) -> Parent {
        self.parent_at(self.known(id))
    }

    fn parent_at(&self, element: Option<(Handle, u64)>) -> Parent {
        let (handle, offset) = element.unwrap_or((ROOT, 0));
        let Block { run, right, .. } = self.block(handle);
        if offset + 1 < run.count {
            return Parent::Left(run.first.plus(offset + 1));
        }
        match self.tree.next(handle).filter(|_| !right.is_empty()) {
            Some(next) => Parent::Left(self.block(next).run.first),
            None if handle == ROOT => Parent::Root,
            None => Parent::Right(run.last()),
        }
    }

    /// Merges a run. What of it is known already stays as it is, but for its removal. Returns whether anything was new.
    pub(super) fn insert(&mut self, run: Run) -> bool {
        let mut changed = false;
        let mut waiting = vec![run];
        while let Some(run) = waiting.pop() {
            let (parts, removed) = self.unknown_parts(run);
            changed |= removed;
            for part in parts {
                let (first, last) = (part.first, part.last());
                if !self.place(part) {
                    continue;
                }
                changed = true;
                if !self.orphans.is_empty() {
                    let parents = self.orphans.range(first..=last).map(|(id, _)| *id);
                    for parent in parents.collect::<Vec<_>>() {
                        let runs = self.orphans.remove(&parent).unwrap_or_default();
                        waiting.extend(runs.into_values());
                    }
                }
                if !self.early.is_empty() {
                    self.remove_early(first.replica, last);
                }
            }
        }
        changed
    }

    /// The parts of a run that are not here; of the others, what it says of their removal is merged.
    fn unknown_parts(&mut self, run: Run) -> (Vec<Run>, bool) {
        let (mut parts, mut removed) = (Vec::new(), false);
        let mut rest = Some(run);
        while let Some(mut run) = rest.take() {
            if let Some((handle, offset)) = self.known(run.first) {
                let n = (self.block(handle).run.count - offset).min(run.count);
                if n < run.count {
                    rest = Some(run.split_off(n));
                }
                if let Some(by) = run.removed {
                    let (first, count) = (run.first, run.count);
                    removed |= self.remove(Removal { first, count, by });
                }
            } else {
                let next = self.index.range(run.first..).next();
                let n = next
                    .filter(|(id, _)| id.replica == run.first.replica)
                    .map(|(id, _)| id.counter - run.first.counter)
                    .filter(|n| *n < run.count);
                if let Some(n) = n {
                    rest = Some(run.split_off(n));
                }
                parts.push(run);
            }
        }
        (parts, removed)
    }

    /// Merges a removal. Returns whether it removed anything that was visible.
    pub(super) fn remove(&mut self, removal: Removal) -> bool {
        let mut changed = false;
        let Removal {
            mut first,
            mut count,
            mut by,
        } = removal;
        while count > 0 {
            let n = if let Some((handle, offset)) = self.known(first) {
                let n = (self.block(handle).run.count - offset).min(count);
                changed |= self.remove_known(handle, offset, n, by);
                n
            } else {
                let next = self.index.range(first..).next();
                let n = next
                    .filter(|(id, _)| id.replica == first.replica)
                    .map_or(count, |(id, _)| (id.counter - first.counter).min(count));
                if first.plus(n - 1).counter > self.floor(first.replica) {
                    let early = Removal {
                        first,
                        count: n,
                        by,
                    };
                    self.early.insert(early.key(), early);
                }
                n
            };
            (first, count, by) = (first.plus(n), count - n, by.from(n));
        }
        changed
    }

    /// Merges the removals that waited for elements through `last`.
    fn remove_early(&mut self, replica: ReplicaId, last: Id) {
        let from = (
            Id {
                replica,
                counter: 0,
            },
            0,
            Dot::new(ReplicaId(0), 0),
        );
        let keys = self.early.range(from..).map(|(key, _)| *key);
        let keys: Vec<_> = keys.take_while(|(first, _, _)| *first <= last).collect();
        for key in keys {
            if let Some(removal) = self.early.remove(&key) {
                self.remove(removal);
            }
        }
    }

    fn add(&mut self, handle: Handle, run: Run) {
        debug_assert_eq!(to_usize(handle), self.blocks.len());
        self.index.insert(run.first, handle);
        self.blocks.push(Block {
            run,
            left: Vec::new(),
            right: Vec::new(),
        });
    }

    /// Splits a block before this offset, which is inside, and returns the second half.
    fn split(&mut self, handle: Handle, offset: u64) -> Handle {
        let block = self.block_mut(handle);
        let rest = block.run.split_off(offset);
        let right = std::mem::take(&mut block.right);
        let n_visible = block.run.n_visible();
        self.tree.set_count(handle, n_visible);
        let second = self.tree.insert_after(handle, rest.n_visible());
        self.add(second, rest);
        self.block_mut(second).right = right;
        self.block_mut(handle).right.push(second);
        second
    }

    /// Removes elements of a block. Returns whether they were visible.
    fn remove_known(&mut self, handle: Handle, offset: u64, n: u64, by: Commits) -> bool {
        let (mut offset, mut n, mut by) = (offset, n, by);
        if let Some(held) = self.block(handle).run.removed {
            // Of two removals of an element the one of the larger commit stays, everywhere. Both grow by at most one
            // from element to element, so there is at most one place where another begins to be the larger.
            let wins = |at: u64| by.at(at) > held.at(offset + at);
            let (front, back) = (wins(0), wins(n - 1));
            if !front && !back {
                return false;
            }
            if front != back {
                let (mut low, mut high) = (0, n - 1);
                while low + 1 < high {
                    let middle = low + (high - low) / 2;
                    *(if wins(middle) == front {
                        &mut low
                    } else {
                        &mut high
                    }) = middle;
                }
                (offset, n, by) = if front {
                    (offset, high, by)
                } else {
                    (offset + high, n - high, by.from(high))
                };
            }
        }
        let handle = if offset > 0 {
            self.split(handle, offset)
        } else {
            handle
        };
        if n < self.block(handle).run.count {
            self.split(handle, n);
        }
        let run = &mut self.block_mut(handle).run;
        let (was_visible, digest) = (run.removed.is_none(), run.digest());
        run.removed = Some(by);
        run.values = Vec::new();
        if was_visible {
            self.digest = self.digest.wrapping_sub(digest);
            self.tree.set_count(handle, 0);
        }
        was_visible
    }

    /// The block and offset of an element.
    fn known(&self, id: Id) -> Option<(Handle, u64)> {
        let (first, handle) = self.index.range(..=id).next_back()?;
        let offset = id.counter.checked_sub(first.counter)?;
        let is_in = first.replica == id.replica && offset < self.block(*handle).run.count;
        is_in.then_some((*handle, offset))
    }

    fn floor(&self, replica: ReplicaId) -> u64 {
        self.floors.get(&replica).copied().unwrap_or_default()
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "the tree gives out a handle for each block, and none is removed"
    )]
    fn block(&self, handle: Handle) -> &Block {
        &self.blocks[to_usize(handle)]
    }

    #[expect(clippy::indexing_slicing, reason = "as for `block`")]
    fn block_mut(&mut self, handle: Handle) -> &mut Block {
        &mut self.blocks[to_usize(handle)]
    }
}

impl Default for Order {
    fn default() -> Self {
        let nobody = Id {
            replica: ReplicaId(0),
            counter: 0,
        };
        let root = Run {
            first: nobody,
            count: 1,
            parent: Parent::Root,
            inserted: Commits::one(Dot::new(ReplicaId(0), 0)),
            removed: Some(Commits::one(Dot::new(ReplicaId(0), 0))),
            values: Vec::new(),
        };
        Self {
            blocks: vec![Block {
                run: root,
                left: Vec::new(),
                right: Vec::new(),
            }],
            tree: Tree::new(),
            index: BTreeMap::new(),
            digest: 0,
            orphans: BTreeMap::new(),
            early: BTreeMap::new(),
            floors: BTreeMap::new(),
        }
    }
}
