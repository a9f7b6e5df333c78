//! Finding the place of a run among blocks.

use super::super::run::{Parent, Run};
use super::super::tree::{Handle, to_usize};
use super::{BLOCK_MAX, Order, ROOT};

impl Order {
    /// Puts a run, none of whose elements is known, at its place; `false` if that waits for its parent.
    pub(super) fn place(&mut self, mut run: Run) -> bool {
        let mut beside = match (self.parent_of(&run), run.parent) {
            (Some(beside), _) => beside,
            (None, Parent::Right(parent) | Parent::Left(parent)) => {
                self.orphans
                    .entry(parent)
                    .or_default()
                    .insert(run.first, run);
                return false;
            }
            (None, Parent::Root) => return false,
        };
        self.digest = self.digest.wrapping_add(run.digest());
        while run.removed.is_none() && run.count > BLOCK_MAX {
            let rest = run.split_off(BLOCK_MAX);
            let handle = self.place_block(run, beside);
            beside = Beside::Right(handle, self.block(handle).run.count - 1);
            run = rest;
        }
        self.place_block(run, beside);
        true
    }

    /// Where a run goes; `None` if its parent is not there.
    fn parent_of(&self, run: &Run) -> Option<Beside> {
        let (Parent::Right(id) | Parent::Left(id)) = run.parent else {
            return Some(Beside::Right(ROOT, 0));
        };
        match (self.known(id), run.parent) {
            (Some((handle, offset)), Parent::Left(_)) => Some(Beside::Left(handle, offset)),
            (Some((handle, offset)), _) => Some(Beside::Right(handle, offset)),
            // Written on a state from before its parent was reclaimed: better elsewhere than nowhere.
            (None, _) if id.counter <= self.floor(id.replica) => Some(Beside::Right(ROOT, 0)),
            (None, _) => None,
        }
    }

    fn place_block(&mut self, run: Run, beside: Beside) -> Handle {
        match beside {
            Beside::Right(parent, offset) => {
                if offset + 1 < self.block(parent).run.count {
                    self.split(parent, offset + 1);
                } else if self.extend(parent, &run) {
                    return parent;
                }
                let siblings = &self.block(parent).right;
                let at =
                    siblings.partition_point(|sibling| self.block(*sibling).run.first < run.first);
                let handle = match at.checked_sub(1).and_then(|before| siblings.get(before)) {
                    Some(before) => {
                        let last = self.last_in(*before);
                        self.tree.insert_after(last, run.n_visible())
                    }
                    None => self.tree.insert_after(parent, run.n_visible()),
                };
                self.add(handle, run);
                self.block_mut(parent).right.insert(at, handle);
                handle
            }
            Beside::Left(parent, offset) => {
                let parent = if offset > 0 {
                    self.split(parent, offset)
                } else {
                    parent
                };
                let siblings = &self.block(parent).left;
                let at =
                    siblings.partition_point(|sibling| self.block(*sibling).run.first < run.first);
                let before = siblings
                    .get(at)
                    .map_or(parent, |sibling| self.first_in(*sibling));
                let handle = self.tree.insert_before(before, run.n_visible());
                self.add(handle, run);
                self.block_mut(parent).left.insert(at, handle);
                handle
            }
        }
    }

    /// Adds a run to the end of the block that it goes on from, if it can be: the usual keystroke.
    fn extend(&mut self, handle: Handle, run: &Run) -> bool {
        let Some(block) = self.blocks.get_mut(to_usize(handle)) else {
            return false;
        };
        let is_short = block.run.removed.is_some() || block.run.count + run.count <= BLOCK_MAX;
        if handle == ROOT || !block.right.is_empty() || !is_short {
            return false;
        }
        let n = block.run.absorb(run);
        if n == run.count {
            let n_visible = block.run.n_visible();
            self.tree.set_count(handle, n_visible);
            return true;
        }
        if n > 0 {
            // Only a part went on with the same pattern: blocks need not be as long as can be.
            block.run.split_off(block.run.count - n);
        }
        false
    }

    /// The last block of the subtree at this one.
    fn last_in(&self, mut handle: Handle) -> Handle {
        while let Some(last) = self.block(handle).right.last() {
            handle = *last;
        }
        handle
    }

    /// The first block of the subtree at this one.
    fn first_in(&self, mut handle: Handle) -> Handle {
        while let Some(first) = self.block(handle).left.first() {
            handle = *first;
        }
        handle
    }
}

/// The place of a new child: side, block and offset of its parent.
#[derive(Debug, Clone, Copy)]
enum Beside {
    Left(Handle, u64),
    Right(Handle, u64),
}
