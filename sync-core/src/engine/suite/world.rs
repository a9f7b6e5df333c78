//! Random histories of a few replicas.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{DocumentOf, Probe, below, edit, loaded, ok, replica};
use crate::engine::Document;
use crate::rng::Rng;

/// How many changes of each author are there: those of one author are there in order.
type Seen = BTreeMap<usize, usize>;

pub(super) struct Change {
    author: usize,
    /// How many changes the author had made before.
    number: usize,
    pub(super) bytes: Bytes,
    /// What the author had seen.
    seen: Seen,
}

pub(super) struct World<P: Probe> {
    pub(super) random: Rng,
    pub(super) replicas: Vec<DocumentOf<P>>,
    pub(super) changes: Vec<Change>,
    seen: Vec<Seen>,
    n_seeds: u128,
}

impl<P: Probe> World<P> {
    /// Three to five replicas that have edited, and given each other some of it.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Rng::new(u128::from(seed) << 64);
        let n = 3 + below(&mut random, 3);
        let mut world = Self {
            random,
            replicas: Vec::new(),
            changes: Vec::new(),
            seen: vec![Seen::new(); n],
            n_seeds: u128::from(seed) << 64,
        };
        for _ in 0..n {
            let seed = world.seed();
            world.replicas.push(replica::<P>(seed));
        }
        let n_steps = below(&mut world.random, 40);
        for _ in 0..n_steps {
            let at = below(&mut world.random, n);
            match below(&mut world.random, 8) {
                0..=2 => world.edit(at),
                3 => world.reload(at),
                4 => world.meet(at),
                _ => world.deliver_any(at),
            }
        }
        world
    }

    /// Never the same twice.
    pub(super) fn seed(&mut self) -> u128 {
        self.n_seeds += 1;
        self.n_seeds
    }

    pub(super) fn bytes(&self) -> Vec<Bytes> {
        self.changes
            .iter()
            .map(|change| change.bytes.clone())
            .collect()
    }

    fn edit(&mut self, author: usize) {
        let (Some(replica), Some(seen)) =
            (self.replicas.get_mut(author), self.seen.get_mut(author))
        else {
            return;
        };
        let random = &mut self.random;
        let made = edit::<P>(replica, |lent| {
            for _ in 0..=below(random, 4) {
                P::edit(lent, random);
            }
        });
        if let Some(bytes) = made {
            let number = seen.get(&author).copied().unwrap_or_default();
            self.changes.push(Change {
                author,
                number,
                bytes,
                seen: seen.clone(),
            });
            seen.insert(author, number + 1);
        }
    }

    /// The replica ends, and another goes on with its state.
    fn reload(&mut self, at: usize) {
        let seed = self.seed();
        if let Some(replica) = self.replicas.get_mut(at) {
            let snapshot = ok(replica.snapshot());
            *replica = loaded::<P>(seed, &snapshot);
        }
    }

    /// The replica gets another's state, as a whole.
    fn meet(&mut self, at: usize) {
        let other = below(&mut self.random, self.replicas.len());
        let Some(theirs) = self.replicas.get_mut(other) else {
            return;
        };
        let snapshot = ok(theirs.snapshot());
        let theirs = self.seen.get(other).cloned().unwrap_or_default();
        if let (Some(replica), Some(seen)) = (self.replicas.get_mut(at), self.seen.get_mut(at)) {
            ok(replica.import_snapshot(&snapshot));
            assert!(
                replica.drain().local.is_empty(),
                "an import came out as local"
            );
            for (author, n) in theirs {
                let seen = seen.entry(author).or_default();
                *seen = n.max(*seen);
            }
        }
    }

    fn deliver_any(&mut self, to: usize) {
        let found: Vec<usize> = (0..self.changes.len())
            .filter(|&index| self.is_deliverable(to, index))
            .collect();
        let pick = below(&mut self.random, found.len());
        if let Some(&index) = found.get(pick) {
            self.deliver(to, index);
        }
    }

    fn n_seen(&self, to: usize, author: usize) -> usize {
        self.seen
            .get(to)
            .and_then(|seen| seen.get(&author).copied())
            .unwrap_or_default()
    }

    /// Whether the replica has what the change's author had seen. It may have the change too.
    fn is_deliverable(&self, to: usize, index: usize) -> bool {
        self.changes.get(index).is_some_and(|change| {
            let mut causes = change.seen.iter();
            causes.all(|(&author, &n)| n <= self.n_seen(to, author))
        })
    }

    fn is_missing(&self, to: usize, index: usize) -> bool {
        self.changes
            .get(index)
            .is_some_and(|change| change.number >= self.n_seen(to, change.author))
    }

    fn deliver(&mut self, to: usize, index: usize) {
        let is_new = self.is_missing(to, index);
        let (Some(change), Some(replica)) = (self.changes.get(index), self.replicas.get_mut(to))
        else {
            return;
        };
        let imported = ok(replica.import(std::slice::from_ref(&change.bytes)));
        assert!(is_new || !imported.changed, "a repeat changed something");
        assert!(!imported.pending, "a change waits for what is there");
        assert!(
            replica.drain().local.is_empty(),
            "an import came out as local"
        );
        if let Some(seen) = self.seen.get_mut(to) {
            let seen = seen.entry(change.author).or_default();
            *seen = (change.number + 1).max(*seen);
        }
    }

    /// Delivers everything to everybody, each in an order of its own, with repeats.
    pub(super) fn settle(&mut self) {
        for to in 0..self.replicas.len() {
            loop {
                let missing: Vec<usize> = (0..self.changes.len())
                    .filter(|&index| self.is_missing(to, index))
                    .collect();
                let ready: Vec<usize> = (missing.iter().copied())
                    .filter(|&index| self.is_deliverable(to, index))
                    .collect();
                let pick = below(&mut self.random, ready.len());
                let Some(&next) = ready.get(pick) else {
                    assert!(missing.is_empty(), "a change waits for ever");
                    break;
                };
                self.deliver(to, next);
                if below(&mut self.random, 4) == 0 {
                    self.deliver_any(to);
                }
            }
        }
    }

    pub(super) fn states(&mut self) -> Vec<Bytes> {
        let states = self.replicas.iter_mut();
        states.map(|replica| ok(replica.snapshot())).collect()
    }
}
