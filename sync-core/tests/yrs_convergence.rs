//! Replicas that hold the same changes are equal, in whatever causal order they got them.

#![cfg(feature = "yrs")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test harness"
)]

mod yrs_common;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use sync_core::engine::yrs::{Yrs, YrsDocument};
use sync_core::engine::{Document, Engine};
use sync_core::yrs::{GetString, ReadTxn, Text, WriteTxn};
use yrs_common::{Op, UNLIMITED, any_op, config, content, edit, replica};

/// A change and how many changes of each author its author had seen.
#[derive(Debug, Clone)]
struct Change {
    author: usize,
    bytes: Bytes,
    seen: BTreeMap<usize, usize>,
}

/// One step of a random history.
#[derive(Debug, Clone)]
enum Step {
    Edit {
        author: usize,
        ops: Vec<Op>,
    },
    /// Gives a replica some change that it may have, maybe again.
    Deliver {
        to: usize,
        pick: usize,
    },
}

fn step(replicas: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..replicas, proptest::collection::vec(any_op(), 1..5))
            .prop_map(|(author, ops)| Step::Edit { author, ops }),
        (0..replicas, any::<usize>()).prop_map(|(to, pick)| Step::Deliver { to, pick }),
        (0..replicas, any::<usize>()).prop_map(|(to, pick)| Step::Deliver { to, pick }),
    ]
}

struct World {
    replicas: Vec<YrsDocument>,
    seen: Vec<BTreeMap<usize, usize>>,
    changes: Vec<Change>,
}

impl World {
    fn new(n: usize) -> Self {
        let replicas = (0..n)
            .map(|i| replica(u128::try_from(i).unwrap() + 1))
            .collect();
        Self {
            replicas,
            seen: vec![BTreeMap::new(); n],
            changes: Vec::new(),
        }
    }

    fn edit(&mut self, author: usize, ops: &[Op]) {
        let seen = self.seen[author].clone();
        edit(&mut self.replicas[author], ops);
        for bytes in self.replicas[author].drain().local {
            self.changes.push(Change {
                author,
                bytes,
                seen: seen.clone(),
            });
            *self.seen[author].entry(author).or_default() += 1;
        }
    }

    /// Changes whose causes a replica has: those it has already among them.
    fn deliverable(&self, to: usize) -> Vec<usize> {
        let has = |author: &usize| self.seen[to].get(author).copied().unwrap_or_default();
        let mut numbers: BTreeMap<usize, usize> = BTreeMap::new();
        let mut found = Vec::new();
        for (index, change) in self.changes.iter().enumerate() {
            let number = numbers.entry(change.author).or_default();
            if *number <= has(&change.author)
                && change.seen.iter().all(|(author, &n)| n <= has(author))
            {
                found.push(index);
            }
            *number += 1;
        }
        found
    }

    fn deliver(&mut self, to: usize, index: usize) {
        let change = self.changes[index].clone();
        let number = self.changes[..index]
            .iter()
            .filter(|other| other.author == change.author)
            .count();
        let has = self.seen[to].entry(change.author).or_default();
        let is_new = number == *has;
        *has = (number + 1).max(*has);
        let imported = self.replicas[to].import(&[change.bytes]).unwrap();
        assert!(is_new || !imported.changed, "a repeat changed something");
        assert!(!imported.pending);
        assert_eq!(self.replicas[to].drain().local, Vec::<Bytes>::new());
    }

    fn run(&mut self, steps: &[Step]) {
        for step in steps {
            match step {
                Step::Edit { author, ops } => self.edit(*author, ops),
                Step::Deliver { to, pick } => {
                    let found = self.deliverable(*to);
                    if !found.is_empty() {
                        self.deliver(*to, found[pick % found.len()]);
                    }
                }
            }
        }
    }

    /// Delivers everything to everybody, each in an order of its own.
    fn settle(&mut self, orders: &[usize]) {
        for to in 0..self.replicas.len() {
            for turn in 0.. {
                let seen = self.seen[to].clone();
                let has = |author: &usize| seen.get(author).copied().unwrap_or_default();
                let mut numbers: BTreeMap<usize, usize> = BTreeMap::new();
                let missing: Vec<usize> = (0..self.changes.len())
                    .filter(|&index| {
                        let number = numbers.entry(self.changes[index].author).or_default();
                        *number += 1;
                        *number > has(&self.changes[index].author)
                    })
                    .collect();
                let ready: Vec<usize> = self
                    .deliverable(to)
                    .into_iter()
                    .filter(|index| missing.contains(index))
                    .collect();
                if ready.is_empty() {
                    assert_eq!(missing, Vec::<usize>::new(), "a change waits for ever");
                    break;
                }
                let order = orders[(to + turn) % orders.len()];
                self.deliver(to, ready[order % ready.len()]);
            }
        }
    }
}

fn assert_equal(replicas: &mut [YrsDocument]) {
    let (first, others) = replicas.split_first_mut().unwrap();
    for other in others {
        assert_eq!(first.version(), other.version());
        assert_eq!(content(first), content(other));
    }
}

proptest! {
    #![proptest_config(config(300))]

    /// Scenario 1.
    #[test]
    fn replicas_converge_in_every_causal_order_with_repeats(
        steps in (3..6_usize).prop_flat_map(|n| (Just(n), proptest::collection::vec(step(n), 0..40))),
        orders in proptest::collection::vec(any::<usize>(), 1..20),
    ) {
        let (n, steps) = steps;
        let mut world = World::new(n);
        world.run(&steps);
        world.settle(&orders);
        assert_equal(&mut world.replicas);
    }

    /// Scenario 1.
    #[test]
    fn merging_states_is_commutative_associative_and_idempotent(
        steps in proptest::collection::vec(step(3), 0..30),
    ) {
        let mut world = World::new(3);
        world.run(&steps);
        let states: Vec<Bytes> = world.replicas.iter_mut().map(|replica| replica.snapshot().unwrap()).collect();
        let merged = |first: &[u8], second: &[u8]| {
            let mut merged = replica(9);
            merged.import_snapshot(first).unwrap();
            merged.import_snapshot(second).unwrap();
            merged
        };
        let [a, b, c] = states.as_slice() else { unreachable!() };
        let ab = merged(a, b).snapshot().unwrap();
        let bc = merged(b, c).snapshot().unwrap();
        let mut equal = [merged(a, b), merged(b, a), merged(&ab, a), merged(&ab, &ab)];
        assert_equal(&mut equal);
        let mut equal = [merged(&ab, c), merged(a, &bc), merged(c, &ab)];
        assert_equal(&mut equal);
        let mut equal = [merged(a, a), merged(&[0, 0], a), replica(8)];
        equal[2].import_snapshot(a).unwrap();
        assert_equal(&mut equal);
    }

    /// Scenario 1.
    #[test]
    fn importing_changes_in_a_batch_is_importing_them_singly(steps in proptest::collection::vec(step(3), 0..30)) {
        let mut world = World::new(3);
        world.run(&steps);
        let changes: Vec<Bytes> = world.changes.iter().map(|change| change.bytes.clone()).collect();
        let (mut singly, mut batch) = (replica(8), replica(9));
        for change in &changes {
            singly.import(std::slice::from_ref(change)).unwrap();
        }
        batch.import(&changes).unwrap();
        assert_equal(&mut [singly, batch]);
    }

    #[test]
    fn since_gives_exactly_what_another_replica_lacks(steps in proptest::collection::vec(step(3), 0..30)) {
        let mut world = World::new(3);
        world.run(&steps);
        let [a, b, _] = world.replicas.as_mut_slice() else { unreachable!() };
        let version = b.version();
        if let Some(missing) = a.since(&version).unwrap() {
            b.import(&[missing]).unwrap();
        }
        let version = a.version();
        if let Some(missing) = b.since(&version).unwrap() {
            a.import(&[missing]).unwrap();
        }
        prop_assert_eq!(a.version(), b.version());
        prop_assert_eq!(content(a), content(b));
        let version = b.version();
        prop_assert_eq!(a.since(&version), Ok(None));
    }

    #[test]
    fn orphans_in_any_order_leave_the_same_once_all_have_arrived(
        steps in proptest::collection::vec(step(3), 0..30),
        seed in any::<u64>(),
    ) {
        let mut world = World::new(3);
        world.run(&steps);
        let mut changes: Vec<Bytes> = world.changes.iter().map(|change| change.bytes.clone()).collect();
        let mut ordered = replica(8);
        ordered.import(&changes).unwrap();
        let mut state = seed | 1;
        for i in (1..changes.len()).rev() {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            changes.swap(i, usize::try_from(state % (u64::try_from(i).unwrap() + 1)).unwrap());
        }
        let mut shuffled = replica(9);
        for change in &changes {
            shuffled.import(std::slice::from_ref(change)).unwrap();
        }
        assert_equal(&mut [ordered, shuffled]);
    }
}

fn typed(document: &mut YrsDocument, run: &str) {
    for (index, c) in run.chars().enumerate() {
        let offset = run.chars().take(index).map(char::len_utf16).sum::<usize>();
        let offset = u32::try_from(offset).unwrap();
        Yrs::new()
            .edit(document, UNLIMITED, |txn| {
                txn.get_or_insert_text("text")
                    .insert(txn, offset, &c.to_string())
            })
            .unwrap();
    }
}

fn text(document: &YrsDocument) -> String {
    Yrs::new()
        .read(document, |txn| {
            txn.get_text("text").unwrap().get_string(txn)
        })
        .unwrap()
}

/// Scenario 12.
#[test]
fn concurrent_runs_typed_at_one_position_are_not_interleaved() {
    let runs = [
        "hello 😀👩‍👩‍👧 ",
        "e\u{301}\u{327}tude 한국 ",
        "\u{1F1E9}\u{1F1EA}\u{200D}!",
    ];
    let mut replicas: Vec<YrsDocument> = (1..=3).map(replica).collect();
    let mut changes = Vec::new();
    for (replica, run) in replicas.iter_mut().zip(runs) {
        typed(replica, run);
        changes.push(replica.drain().local);
    }
    // Each replica gets the others' runs in another order, character by character.
    for (to, replica) in replicas.iter_mut().enumerate() {
        for turn in 1..3 {
            for change in &changes[(to + turn) % 3] {
                replica.import(std::slice::from_ref(change)).unwrap();
            }
        }
    }
    let merged = text(&replicas[0]);
    assert_eq!(
        merged.len(),
        runs.iter().map(|run| run.len()).sum::<usize>()
    );
    for run in runs {
        assert!(merged.contains(run), "{run:?} in {merged:?}");
    }
    assert_equal(&mut replicas);
    let mut joiner = replica(4);
    joiner
        .import_snapshot(&replicas[0].snapshot().unwrap())
        .unwrap();
    assert_eq!(text(&joiner), merged);
}

/// yrs recurses once for each client; tests run on small stacks.
#[test]
fn a_document_of_very_many_short_sessions_loads_in_whatever_order_they_wrote() {
    let n: u32 = 20_000;
    // Each session typed one character behind that of the session `next` names, the first one in the root.
    let state = |next: fn(u32, u32) -> Option<u32>| {
        let mut bytes = Vec::new();
        var(&mut bytes, n);
        for client in (0..n).rev() {
            bytes.push(1);
            var(&mut bytes, client);
            bytes.push(0);
            match next(client, n) {
                Some(left) => {
                    bytes.push(0x84);
                    var(&mut bytes, left);
                    bytes.push(0);
                }
                None => bytes.extend_from_slice(&[4, 1, 4, b't', b'e', b'x', b't']),
            }
            bytes.extend_from_slice(&[1, b'x']);
        }
        bytes.push(0);
        bytes
    };
    let orders: [fn(u32, u32) -> Option<u32>; 3] = [
        |client, _| client.checked_sub(1),
        |client, n| (client + 1 < n).then_some(client + 1),
        |client, _| {
            client
                .checked_sub(client.min(if client.is_multiple_of(3) { 5 } else { 1 }))
                .filter(|_| client > 0)
        },
    ];
    for order in orders {
        let state = state(order);
        let mut document = replica(1);
        let imported = document.import_snapshot(&state).unwrap();
        assert!(imported.changed && !imported.pending);
        assert_eq!(text(&document).len(), usize::try_from(n).unwrap());
        let mut loaded = replica(2);
        loaded
            .import_snapshot(&document.snapshot().unwrap())
            .unwrap();
        assert_eq!(loaded.version(), document.version());
    }
    // Without the first one, all wait; with it, none does.
    let without_first = |client: u32, _| Some(client.checked_sub(1).unwrap_or(1 << 20));
    let mut document = replica(1);
    let imported = document.import_snapshot(&state(without_first)).unwrap();
    assert!(!imported.changed && imported.pending);
    let mut first = vec![1, 1];
    var(&mut first, 1 << 20);
    first.extend_from_slice(&[0, 4, 1, 4, b't', b'e', b'x', b't', 1, b'y', 0]);
    let imported = document.import(&[Bytes::from(first)]).unwrap();
    assert!(imported.changed && !imported.pending);
    assert_eq!(text(&document).len(), usize::try_from(n).unwrap() + 1);
}

/// A number in lib0's variable length.
fn var(bytes: &mut Vec<u8>, mut n: u32) {
    while n >= 0x80 {
        bytes.push(n.to_le_bytes()[0] | 0x80);
        n >>= 7;
    }
    bytes.push(n.to_le_bytes()[0]);
}
