//! Merging is commutative, associative and idempotent, and every way of syncing leads to the same place.

#![allow(clippy::unwrap_used, reason = "test harness")]
#![allow(clippy::indexing_slicing, reason = "test harness")]

mod mergeable_support;

use bytes::Bytes;
use mergeable_support::{
    Map, Random, assert_converged, content, edit, get, insert, remove, replica, sync,
};
use proptest::prelude::*;
use sync_core::engine::Document;

/// What a run does, on replicas by index.
#[derive(Debug, Clone)]
enum Step {
    /// One change: keys with their new value, or `None` to remove.
    Edit {
        who: usize,
        wall: u64,
        writes: Vec<(u8, Option<u16>)>,
    },
    /// One gets a difference from another.
    Sync { from: usize, to: usize },
}

fn steps(replicas: usize) -> impl Strategy<Value = Vec<Step>> {
    let write = (0..6_u8, prop::option::weighted(0.7, 0..1000_u16));
    let edit = (0..replicas, 0..4_u64, prop::collection::vec(write, 1..4)).prop_map(
        |(who, wall, writes)| Step::Edit {
            who,
            wall: 1_000 + wall,
            writes,
        },
    );
    let sync = (0..replicas, 0..replicas).prop_map(|(from, to)| Step::Sync { from, to });
    prop::collection::vec(prop_oneof![3 => edit, 2 => sync], 1..40)
}

/// Runs the steps; returns the replicas and every change in the order in which it was made.
fn run(replicas: usize, steps: &[Step]) -> (Vec<Map<u8, u16>>, Vec<Bytes>) {
    let mut all: Vec<Map<u8, u16>> = (1..).take(replicas).map(replica).collect();
    let mut changes = Vec::new();
    for step in steps {
        match step {
            Step::Edit { who, wall, writes } => {
                changes.extend(edit(&mut all[*who], *wall, |map| {
                    for (key, value) in writes {
                        match value {
                            Some(value) => map.insert(*key, *value).unwrap(),
                            None => drop(map.remove(key).unwrap()),
                        }
                    }
                }));
            }
            Step::Sync { from, to } if from != to => {
                let difference = {
                    let version = all[*to].version();
                    all[*from].since(&version).unwrap()
                };
                all[*to].import(difference.as_slice()).unwrap();
            }
            Step::Sync { .. } => {}
        }
    }
    (all, changes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Scenario 1.
    #[test]
    fn any_order_any_repeats_and_any_way_of_syncing_agree(
        (n_replicas, steps) in (3..6_usize).prop_flat_map(|n| (Just(n), steps(n))),
        seed in any::<u64>(),
    ) {
        let (mut all, changes) = run(n_replicas, &steps);
        let mut random = Random(seed);

        // Replay of the log.
        let mut log = replica(100);
        log.import(&changes).unwrap();

        // Every change in any order, some of them again, in batches of any size.
        let mut shuffled: Vec<Bytes> = changes.iter().chain(&changes[..changes.len() / 2]).cloned().collect();
        random.shuffle(&mut shuffled);
        let mut other = replica(101);
        let mut rest = shuffled.as_slice();
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(1 + random.below(rest.len()));
            other.import(batch).unwrap();
            rest = after;
        }
        assert_converged(&mut log, &mut other);

        // Whole states, merged in any order, some of them again.
        let mut states: Vec<Bytes> = all.iter_mut().map(|replica| replica.snapshot().unwrap()).collect();
        states.push(states[0].clone());
        random.shuffle(&mut states);
        let mut merged = replica(102);
        for state in &states {
            merged.import_snapshot(state).unwrap();
        }
        assert_converged(&mut log, &mut merged);

        // Differences between neighbours, until everybody has everything.
        for _ in 0..2 {
            for at in 0..n_replicas {
                let (left, right) = all.split_at_mut(at);
                if let (Some(from), Some(to)) = (left.last_mut(), right.first_mut()) {
                    sync(from, to);
                }
            }
            let (first, rest) = all.split_at_mut(1);
            sync(rest.last_mut().unwrap(), &mut first[0]);
        }
        for replica in &mut all {
            assert_converged(&mut log, replica);
        }

        // A state that is loaded is the state that was saved, and importing what is known changes nothing.
        let mut loaded = replica(103);
        loaded.import_snapshot(&log.snapshot().unwrap()).unwrap();
        assert_converged(&mut log, &mut loaded);
        prop_assert!(!loaded.import(&changes).unwrap().changed);
        prop_assert_eq!(loaded.since(&log.version()).unwrap(), None);
    }

    /// Scenario 1, for two states: merge(a, b) = merge(b, a).
    #[test]
    fn merging_two_states_is_symmetric(steps in steps(2)) {
        let (mut both, _) = run(2, &steps);
        let states: Vec<Bytes> = both.iter_mut().map(|replica| replica.snapshot().unwrap()).collect();
        both[0].import_snapshot(&states[1]).unwrap();
        both[1].import_snapshot(&states[0]).unwrap();
        let (a, b) = both.split_at_mut(1);
        assert_converged(&mut a[0], &mut b[0]);
    }

    /// Versions are equal exactly if the whole states are.
    #[test]
    fn versions_are_equal_if_and_only_if_states_are(steps in steps(3)) {
        let (mut all, _) = run(3, &steps);
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let equal_versions = all[a].version() == all[b].version();
            let equal_states = all[a].snapshot().unwrap() == all[b].snapshot().unwrap();
            prop_assert_eq!(equal_versions, equal_states);
        }
    }

    /// A change that never arrives (refused, design 2.2) leaves a hole, not a standstill.
    #[test]
    fn a_change_that_is_lost_for_ever_hides_no_other(steps in steps(3), lost in any::<prop::sample::Index>()) {
        let (_, mut changes) = run(3, &steps);
        prop_assume!(!changes.is_empty());
        changes.remove(lost.index(changes.len()));
        let mut a = replica(100);
        a.import(&changes).unwrap();
        changes.reverse();
        let mut b: Map<u8, u16> = replica(101);
        b.import(&changes[..changes.len() / 2]).unwrap();
        sync(&mut a, &mut b);
        assert_converged(&mut a, &mut b);
    }
}

/// Scenario 4: add, update, remove, lookup, merge.
#[test]
fn a_dictionary_adds_updates_removes_and_looks_up() {
    let mut ours = replica::<String, i32>(1);
    insert(&mut ours, 10, "a".into(), 1);
    insert(&mut ours, 11, "b".into(), 2);
    insert(&mut ours, 12, "a".into(), 3);
    remove(&mut ours, 13, &"b".into());
    assert_eq!(content(&ours), [("a".to_owned(), 3)]);

    let mut theirs = replica::<String, i32>(2);
    insert(&mut theirs, 12, "c".into(), 4);
    sync(&mut ours, &mut theirs);
    sync(&mut theirs, &mut ours);
    assert_converged(&mut ours, &mut theirs);
    assert_eq!(content(&ours), [("a".to_owned(), 3), ("c".to_owned(), 4)]);
}

/// Scenario 4: the documented rule, an add beats a remove of an equal time, whoever made which.
#[test]
fn an_add_beats_a_concurrent_remove_of_the_same_time() {
    for (adds, removes) in [(1, 2), (2, 1)] {
        let (mut adder, mut remover) = (replica::<u8, u8>(adds), replica::<u8, u8>(removes));
        insert(&mut adder, 50, 1, 7);
        remove(&mut remover, 50, &1);
        sync(&mut adder, &mut remover);
        sync(&mut remover, &mut adder);
        assert_converged(&mut adder, &mut remover);
        assert_eq!(get(&adder, &1), Some(7));
    }
}

/// Scenario 4: a remove of a key that was never added is kept, and beats an earlier add that arrives later.
#[test]
fn a_remove_of_a_key_never_added_is_kept() {
    let (mut adder, mut remover) = (replica::<u8, u8>(1), replica::<u8, u8>(2));
    let add = insert(&mut adder, 49, 1, 7);
    let removal = remove(&mut remover, 50, &1);
    remover.import(&[add]).unwrap();
    assert_eq!(get(&remover, &1), None);
    adder.import(&[removal]).unwrap();
    assert_converged(&mut adder, &mut remover);

    // Also through a snapshot, and a later add brings the key back.
    let mut joiner = replica::<u8, u8>(3);
    joiner
        .import_snapshot(&remover.snapshot().unwrap())
        .unwrap();
    insert(&mut joiner, 51, 1, 8);
    sync(&mut joiner, &mut adder);
    assert_eq!(get(&adder, &1), Some(8));
}

/// Concurrent changes of the same time to several keys: one of them wins on all keys, not each on some.
#[test]
fn one_of_two_concurrent_changes_wins_whole() {
    let (mut a, mut b) = (replica::<u8, u8>(1), replica::<u8, u8>(2));
    let write = |value| {
        move |map: &mut sync_core::mergeable::LwwMap<u8, u8>| {
            for key in 0..10 {
                map.insert(key, value).unwrap();
            }
        }
    };
    edit(&mut a, 50, write(1));
    edit(&mut b, 50, write(2));
    sync(&mut a, &mut b);
    sync(&mut b, &mut a);
    assert_converged(&mut a, &mut b);
    assert!(content(&a).windows(2).all(|pair| pair[0].1 == pair[1].1));
}

/// A difference brings what is lacking and no more.
#[test]
fn a_difference_is_as_large_as_what_is_lacking() {
    let mut full = replica::<u32, u32>(1);
    let mut other = replica::<u32, u32>(2);
    edit(&mut full, 50, |map| {
        (0..10_000).for_each(|key| map.insert(key, key).unwrap())
    });
    sync(&mut full, &mut other);
    insert(&mut full, 51, 5, 0);
    let difference = full.since(&other.version()).unwrap().unwrap();
    assert!(difference.len() < 60, "{} bytes", difference.len());
    other.import(&[difference]).unwrap();
    assert_eq!(full.since(&other.version()).unwrap(), None);
    assert_converged(&mut full, &mut other);
}

/// A difference leaves out writes that are beaten by what its receiver has. Who lacks that must not claim the
/// beaten writes.
#[test]
fn a_difference_for_another_receiver_claims_nothing() {
    let (mut a, mut b) = (replica::<u8, u8>(1), replica::<u8, u8>(2));
    insert(&mut a, 10, 1, 1);
    let newer = insert(&mut b, 20, 1, 2);
    a.import(&[newer]).unwrap();
    // For b, which has the newer write, the difference is only the claim.
    let for_b = a.since(&b.version()).unwrap().unwrap();

    let mut stranger = replica::<u8, u8>(3);
    assert!(
        !stranger
            .import(std::slice::from_ref(&for_b))
            .unwrap()
            .changed
    );
    sync(&mut a, &mut stranger);
    assert_converged(&mut a, &mut stranger);
    b.import(&[for_b]).unwrap();
    assert_converged(&mut a, &mut b);
}
