//! Characters beyond the basic plane are two elements (UTF-16 code units), and a change may cut between them.
//!
//! yrs then keeps the whole character in the first half and numbers what follows one too low: replicas with the same
//! changes show different text, and whoever loads a saved state can never follow again. So nothing that cuts a
//! character reaches yrs: a cut change of somebody else is mended, by a rule that depends on nothing but the change
//! and the characters, hence alike on every replica. A half deleted character is deleted, and what is inserted between
//! its halves comes after it. (Yjs makes a replacement character of each half instead.)

use std::collections::BTreeMap;

use super::rewrite::{Kept, keep};
use super::validate::{Block, Id, Link, UNLIMITED, Visitor, scan};

/// Where the characters of two elements in a document start: four bytes for each.
#[derive(Debug, Default)]
pub(super) struct Pairs(BTreeMap<u64, Vec<u32>>);

/// Finds the characters of two elements in a text whose first element is `start`.
pub(super) fn find(start: Id, text: &str, mut found: impl FnMut(Id)) {
    let mut clock = start.clock;
    for c in text.chars() {
        if c.len_utf16() == 2 {
            found(Id {
                client: start.client,
                clock,
            });
            clock = clock.saturating_add(1);
        }
        clock = clock.saturating_add(1);
    }
}

/// Finds the characters of two elements in an update.
pub(super) fn in_update(update: &[u8]) -> Vec<Id> {
    struct Found(Vec<Id>);
    impl Visitor for Found {
        fn text(&mut self, start: Id, text: &str) {
            find(start, text, |id| self.0.push(id));
        }
    }
    let mut found = Found(Vec::new());
    let _ = scan(update, &UNLIMITED, &mut found);
    found.0
}

impl Pairs {
    /// Notes characters of a document.
    pub(super) fn note(&mut self, found: impl Iterator<Item = Id>) {
        for id in found {
            let clocks = self.0.entry(id.client).or_default();
            if clocks.last().is_none_or(|&last| last < id.clock) {
                clocks.push(id.clock);
            } else if let Err(at) = clocks.binary_search(&id.clock) {
                clocks.insert(at, id.clock);
            }
        }
    }

    /// Whether an element is the first of two.
    fn is_first(&self, id: Id) -> bool {
        self.0
            .get(&id.client)
            .is_some_and(|clocks| clocks.binary_search(&id.clock).is_ok())
    }

    fn is_second(&self, id: Id) -> bool {
        id.clock
            .checked_sub(1)
            .is_some_and(|clock| self.is_first(Id { clock, ..id }))
    }

    /// Mends an update that cuts characters noted here. `None` if it does not.
    pub(super) fn mend(&self, update: &[u8]) -> Option<Vec<u8>> {
        if self.0.is_empty() {
            return None;
        }
        let mut cut = Cut {
            pairs: self,
            is_found: false,
        };
        let _ = scan(update, &UNLIMITED, &mut cut);
        if !cut.is_found {
            return None;
        }
        let kept = keep(
            update,
            |block| self.mend_links(block),
            |id, len| self.mend_range(id, len),
        );
        kept.ok().map(Kept::encode)
    }

    /// Moves a block from between two halves to behind the second.
    fn mend_links(&self, block: &mut Block) -> bool {
        let is_between = block.left.is_some_and(|left| self.is_first(left.id));
        if let Some(left) = block.left.as_mut().filter(|_| is_between) {
            left.id.clock = left.id.clock.saturating_add(1);
        }
        if let Some(right) = block
            .right
            .as_mut()
            .filter(|right| self.is_second(right.id))
        {
            if is_between {
                // What comes after the character is not known; without a right neighbour the block follows its left.
                block.right = None;
            } else {
                right.id.clock = right.id.clock.saturating_sub(1);
            }
        }
        true
    }

    fn mend_range(&self, id: Id, len: u32) -> (Id, u32) {
        let end = Id {
            clock: id.clock.saturating_add(len),
            ..id
        };
        let before = u32::from(self.is_second(id));
        let after = u32::from(self.is_second(end));
        (
            Id {
                clock: id.clock.saturating_sub(before),
                ..id
            },
            len + before + after,
        )
    }
}

/// Looks for places where an update cuts a character.
struct Cut<'a> {
    pairs: &'a Pairs,
    is_found: bool,
}

impl Visitor for Cut<'_> {
    fn block(&mut self, block: Block) {
        let is_cut = |link: Option<Link>, is_half: fn(&Pairs, Id) -> bool| {
            link.is_some_and(|link| is_half(self.pairs, link.id))
        };
        self.is_found |=
            is_cut(block.left, Pairs::is_first) || is_cut(block.right, Pairs::is_second);
    }

    fn deleted(&mut self, id: Id, len: u32) {
        self.is_found |= self.pairs.mend_range(id, len) != (id, len);
    }
}
