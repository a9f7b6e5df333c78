//! Forgetting removed elements.

use std::collections::BTreeMap;

use super::super::super::VersionVector;
use super::super::super::clock::{Dot, ReplicaId};
use super::super::run::{Commits, Step};
use super::super::tree::{Handle, to_usize};
use super::{Block, Order, ROOT};

impl Order {
    /// Forgets removed elements that nothing hangs on, if they were inserted and removed in commits of `horizon`.
    pub(crate) fn compact(&mut self, horizon: &VersionVector) {
        self.split_at_horizon(horizon);
        let is_below = |commits: Commits, count| {
            let (first, last) = commits.bounds(count);
            horizon.contains_range(commits.first.replica, first, last)
        };
        // Parents before their children.
        let mut all = vec![ROOT];
        let mut at = 0;
        while let Some(handle) = all.get(at) {
            let Block { left, right, .. } = self.block(*handle);
            let children: Vec<Handle> = left.iter().chain(right).copied().collect();
            all.extend(children);
            at += 1;
        }
        // How many elements of each block stay.
        let mut kept: BTreeMap<Handle, u64> = BTreeMap::new();
        for handle in all.iter().rev() {
            let Block { run, left, right } = self.block(*handle);
            let is_reclaimable = run.removed.is_some_and(|removed| {
                is_below(removed, run.count) && is_below(run.inserted, run.count)
            });
            if !is_reclaimable || right.iter().any(|child| kept.contains_key(child)) {
                kept.insert(*handle, run.count);
            } else if left.iter().any(|child| kept.contains_key(child)) {
                kept.insert(*handle, 1);
            }
        }
        let mut compacted = Self {
            floors: std::mem::take(&mut self.floors),
            ..Self::default()
        };
        for handle in all.into_iter().skip(1) {
            let mut run = self.block(handle).run.clone();
            let n_kept = kept.get(&handle).copied().unwrap_or_default();
            if n_kept < run.count {
                let floor = compacted.floors.entry(run.first.replica).or_default();
                *floor = (*floor).max(run.last().counter);
            }
            if n_kept > 0 {
                if n_kept < run.count {
                    run.split_off(n_kept);
                }
                compacted.place(run);
            }
        }
        for run in self.orphans() {
            compacted.insert(run.clone());
        }
        for removal in self.early() {
            compacted.remove(*removal);
        }
        *self = compacted;
    }

    /// Splits the blocks of removed elements where that they are below the horizon changes.
    fn split_at_horizon(&mut self, horizon: &VersionVector) {
        let same = |commits: Commits| {
            let Dot { replica, number } = commits.first;
            match commits.step {
                Step::Same => u64::MAX,
                Step::Up => horizon
                    .same_through(replica, number)
                    .1
                    .saturating_sub(number),
                Step::Down => number - horizon.same_down_through(replica, number),
            }
        };
        let mut handle = ROOT + 1;
        while to_usize(handle) < self.blocks.len() {
            let run = &self.block(handle).run;
            if let Some(removed) = run.removed {
                let n = same(run.inserted).min(same(removed)).saturating_add(1);
                if n < run.count {
                    // The second half gets the last handle, and its turn.
                    self.split(handle, n);
                }
            }
            handle += 1;
        }
    }

    /// Takes over which elements have been reclaimed. What waits for one of these waits no longer.
    pub(in super::super) fn set_floors(&mut self, floors: Vec<(ReplicaId, u64)>) {
        self.floors.extend(floors);
        for run in std::mem::take(&mut self.orphans).into_values().flatten() {
            self.insert(run.1);
        }
        for removal in std::mem::take(&mut self.early).into_values() {
            self.remove(removal);
        }
    }
}
