//! Entries of the origin table, in memory.

use std::collections::HashMap;

use sync_core::history::Seq;
use sync_core::ids::{OriginId, User};

use crate::registry::OriginEntry;

/// Entries that are kept in a sorted list: most documents have few authors, and a list is a third of a map in size, which
/// is what the writer's processor waits for.
const FEW: usize = 32;

/// Entries by their origin.
#[derive(Debug)]
pub(super) enum Entries {
    Few(Vec<OriginEntry>),
    Many(HashMap<OriginId, OriginEntry>),
}

impl Default for Entries {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

impl Entries {
    pub(super) fn get(&self, origin: OriginId) -> Option<&OriginEntry> {
        match self {
            Self::Few(list) => list.get(place(list, origin).ok()?),
            Self::Many(map) => map.get(&origin),
        }
    }

    /// Notes an origin's last change.
    pub(super) fn advance(&mut self, origin: OriginId, user: &User, last: u64, seq: Seq) {
        match self.get_mut(origin) {
            Some(entry) => {
                entry.last = last;
                entry.seq = seq;
            }
            None => self.insert(OriginEntry::new(origin, user.clone(), last, seq)),
        }
    }

    /// Takes an entry, unless there is one, which is newer.
    pub(super) fn fill_in(&mut self, entry: OriginEntry) {
        if self.get(entry.origin).is_none() {
            self.insert(entry);
        }
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::Few(list) => list.clear(),
            Self::Many(_) => *self = Self::default(),
        }
    }

    /// Forgets an origin, unless it has written after a sequence.
    pub(super) fn forget(&mut self, origin: OriginId, through: Seq) {
        if self.get(origin).is_none_or(|entry| entry.seq > through) {
            return;
        }
        match self {
            Self::Few(list) => list.retain(|entry| entry.origin != origin),
            Self::Many(map) => drop(map.remove(&origin)),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &OriginEntry> {
        let (few, many) = match self {
            Self::Few(list) => (Some(list.iter()), None),
            Self::Many(map) => (None, Some(map.values())),
        };
        let few = few.into_iter().flatten();
        few.chain(many.into_iter().flatten())
    }

    fn get_mut(&mut self, origin: OriginId) -> Option<&mut OriginEntry> {
        match self {
            Self::Few(list) => {
                let place = place(list, origin).ok()?;
                list.get_mut(place)
            }
            Self::Many(map) => map.get_mut(&origin),
        }
    }

    /// Takes an entry of which it has none.
    fn insert(&mut self, entry: OriginEntry) {
        if let Self::Few(list) = self
            && list.len() >= FEW
        {
            let map = list.drain(..).map(|entry| (entry.origin, entry));
            *self = Self::Many(map.collect());
        }
        match self {
            Self::Few(list) => {
                let (Ok(place) | Err(place)) = place(list, entry.origin);
                list.insert(place, entry);
            }
            Self::Many(map) => drop(map.insert(entry.origin, entry)),
        }
    }
}

fn place(list: &[OriginEntry], origin: OriginId) -> Result<usize, usize> {
    list.binary_search_by_key(&origin, |entry| entry.origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_updated_and_forgotten_however_many_there_are() {
        let user = User::new("ada");
        let mut entries = Entries::default();
        // In no order, to well beyond what a list holds.
        let origins: Vec<_> = (0..200_u128).map(|n| OriginId(n * 77 % 200)).collect();
        for (origin, seq) in origins.iter().zip(1..) {
            assert_eq!(entries.get(*origin), None);
            entries.advance(*origin, &user, 1, Seq(seq));
            entries.advance(*origin, &user, 2, Seq(seq));
            entries.fill_in(OriginEntry::new(*origin, user.clone(), 9, Seq(9)));
            for (origin, seq) in origins.iter().zip(1..=seq) {
                let found = entries.get(*origin).unwrap();
                assert_eq!((found.last, found.seq), (2, Seq(seq)));
            }
        }
        assert_eq!(entries.iter().count(), origins.len());
        for (origin, seq) in origins.iter().zip(1..) {
            entries.forget(*origin, Seq(seq - 1));
            assert!(entries.get(*origin).is_some(), "it has written since");
            entries.forget(*origin, Seq(seq));
            assert_eq!(entries.get(*origin), None);
        }
    }
}
