//! Blocks in an order, found by the number of elements before them: a B+ tree with counts.
//!
//! Balanced whatever comes: the shape of the document, which others decide, must not make it slow.

/// Names a block; given out by whoever keeps them.
pub(super) type Handle = u32;

/// Items of a node. Chosen by measurement: fewer make the tree deeper, more make every step longer.
const WIDTH: usize = 32;

/// No node.
const NONE: u32 = u32::MAX;

#[derive(Debug, Clone, Default)]
struct Node {
    parent: u32,
    is_leaf: bool,
    /// Handles in a leaf, otherwise nodes.
    items: Vec<u32>,
    /// What each item counts.
    counts: Vec<u64>,
}

impl Node {
    fn slot(&self, item: u32) -> usize {
        self.items
            .iter()
            .position(|held| *held == item)
            .unwrap_or(0)
    }

    fn total(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The order of blocks.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    root: u32,
    /// The leaf of each handle.
    leaves: Vec<u32>,
    total: u64,
}

impl Tree {
    /// A tree with one block, handle 0, that counts nothing.
    pub(super) fn new() -> Self {
        let leaf = Node {
            parent: NONE,
            is_leaf: true,
            items: vec![0],
            counts: vec![0],
        };
        Self {
            nodes: vec![leaf],
            root: 0,
            leaves: vec![0],
            total: 0,
        }
    }

    /// What all blocks count.
    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    /// Puts the next handle right behind another.
    pub(super) fn insert_after(&mut self, beside: Handle, count: u64) -> Handle {
        self.insert(beside, 1, count)
    }

    /// Puts the next handle right before another.
    pub(super) fn insert_before(&mut self, beside: Handle, count: u64) -> Handle {
        self.insert(beside, 0, count)
    }

    /// Changes what a block counts.
    pub(super) fn set_count(&mut self, handle: Handle, count: u64) {
        let mut node = self.leaf(handle);
        let slot = self.node(node).slot(handle);
        let Some(held) = self.node_mut(node).counts.get_mut(slot) else {
            return;
        };
        let before = std::mem::replace(held, count);
        self.total = self.total.wrapping_sub(before).wrapping_add(count);
        let mut parent = self.node(node).parent;
        while parent != NONE {
            let slot = self.node(parent).slot(node);
            if let Some(held) = self.node_mut(parent).counts.get_mut(slot) {
                *held = held.wrapping_sub(before).wrapping_add(count);
            }
            (node, parent) = (parent, self.node(parent).parent);
        }
    }

    /// The block that has the counted element of this index, and how many of its own are before it.
    pub(super) fn find(&self, mut index: u64) -> Option<(Handle, u64)> {
        if index >= self.total {
            return None;
        }
        let mut node = self.node(self.root);
        loop {
            let mut found = None;
            for (item, count) in node.items.iter().zip(&node.counts) {
                if index < *count {
                    found = Some(*item);
                    break;
                }
                index -= count;
            }
            let item = found?;
            if node.is_leaf {
                return Some((item, index));
            }
            node = self.node(item);
        }
    }

    /// What all blocks before this one count.
    pub(super) fn rank(&self, handle: Handle) -> u64 {
        let (mut item, mut at) = (handle, self.leaf(handle));
        let mut before = 0;
        while at != NONE {
            let node = self.node(at);
            before += node.counts.iter().take(node.slot(item)).sum::<u64>();
            (item, at) = (at, node.parent);
        }
        before
    }

    /// The block behind this one.
    pub(super) fn next(&self, handle: Handle) -> Option<Handle> {
        let mut at = self.leaf(handle);
        let mut item = handle;
        loop {
            let node = self.node(at);
            if let Some(next) = node.items.get(node.slot(item) + 1) {
                let mut first = *next;
                if node.is_leaf {
                    return Some(first);
                }
                loop {
                    let below = self.node(first);
                    let leftmost = *below.items.first()?;
                    if below.is_leaf {
                        return Some(leftmost);
                    }
                    first = leftmost;
                }
            }
            if node.parent == NONE {
                return None;
            }
            (item, at) = (at, node.parent);
        }
    }

    fn insert(&mut self, beside: Handle, offset: usize, count: u64) -> Handle {
        let handle = index_u32(self.leaves.len());
        let leaf = self.leaf(beside);
        self.leaves.push(leaf);
        let node = self.node_mut(leaf);
        let slot = node.slot(beside) + offset;
        node.items.insert(slot, handle);
        // Counted below, with all nodes above.
        node.counts.insert(slot, 0);
        if node.items.len() > WIDTH {
            self.split(leaf);
        }
        if count > 0 {
            self.set_count(handle, count);
        }
        handle
    }

    /// Splits a node in two, and those above it as far as needed.
    fn split(&mut self, mut at: u32) {
        while self.node(at).items.len() > WIDTH {
            let new = index_u32(self.nodes.len());
            let node = self.node_mut(at);
            let half = node.items.len() / 2;
            let right = Node {
                parent: node.parent,
                is_leaf: node.is_leaf,
                items: node.items.split_off(half),
                counts: node.counts.split_off(half),
            };
            let (left_total, right_total) = (node.total(), right.total());
            for item in &right.items {
                if right.is_leaf {
                    if let Some(leaf) = self.leaves.get_mut(to_usize(*item)) {
                        *leaf = new;
                    }
                } else if let Some(below) = self.nodes.get_mut(to_usize(*item)) {
                    below.parent = new;
                }
            }
            let parent = right.parent;
            self.nodes.push(right);
            if parent == NONE {
                let root = index_u32(self.nodes.len());
                self.nodes.push(Node {
                    parent: NONE,
                    is_leaf: false,
                    items: vec![at, new],
                    counts: vec![left_total, right_total],
                });
                self.node_mut(at).parent = root;
                self.node_mut(new).parent = root;
                self.root = root;
                return;
            }
            let above = self.node_mut(parent);
            let slot = above.slot(at);
            if let Some(held) = above.counts.get_mut(slot) {
                *held = left_total;
            }
            above.items.insert(slot + 1, new);
            above.counts.insert(slot + 1, right_total);
            at = parent;
        }
    }

    fn leaf(&self, handle: Handle) -> u32 {
        self.leaves
            .get(to_usize(handle))
            .copied()
            .unwrap_or_default()
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "nodes are named by this tree alone, and never removed"
    )]
    fn node(&self, at: u32) -> &Node {
        &self.nodes[to_usize(at)]
    }

    #[expect(clippy::indexing_slicing, reason = "as for `node`")]
    fn node_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[to_usize(at)]
    }
}

/// More than this many blocks do not fit into memory: each came from 10 bytes, and takes 200.
fn index_u32(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(NONE - 1)
}

pub(super) fn to_usize(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list_with_counts() {
        let mut tree = Tree::new();
        let mut model: Vec<(Handle, u64)> = vec![(0, 0)];
        let mut seed = 7_u64;
        let mut random = |n: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap() % n
        };
        for round in 0..5_000 {
            let at = random(model.len());
            let count = u64::try_from(random(4)).unwrap();
            let beside = model[at].0;
            match random(3) {
                0 => model.insert(at + 1, (tree.insert_after(beside, count), count)),
                1 => model.insert(at, (tree.insert_before(beside, count), count)),
                _ => {
                    tree.set_count(beside, count);
                    model[at].1 = count;
                }
            }
            if round % 97 == 0 {
                let mut handle = Some(model[0].0);
                for (expected, _) in &model {
                    assert_eq!(handle, Some(*expected));
                    handle = handle.and_then(|handle| tree.next(handle));
                }
                assert_eq!(handle, None);
                let flat: Vec<(Handle, u64)> = model
                    .iter()
                    .flat_map(|(handle, count)| (0..*count).map(|offset| (*handle, offset)))
                    .collect();
                for (index, expected) in (0..).zip(&flat) {
                    assert_eq!(tree.find(index), Some(*expected));
                    assert_eq!(tree.rank(expected.0) + expected.1, index);
                }
                assert_eq!(tree.total(), u64::try_from(flat.len()).unwrap());
                assert_eq!(tree.find(tree.total()), None);
            }
        }
    }
}
