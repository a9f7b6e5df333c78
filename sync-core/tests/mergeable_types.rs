//! The laws, for every type and nested ones: whatever is edited, in whatever order and way it is merged, everybody
//! ends with the same.
//!
//! `LAWS_CASES` says how many cases; `just laws` runs 100,000.

#![allow(clippy::unwrap_used, reason = "test harness")]
#![allow(clippy::indexing_slicing, reason = "test harness")]

mod mergeable_cases;
mod mergeable_support;

use bytes::Bytes;
use mergeable_cases::{Case, for_case};
use mergeable_support::Random;
use sync_core::engine::typed::{Typed, TypedDocument};
use sync_core::engine::{Document, Edited, Engine, Folder, ReplicaSeed, ValidateLimits, Validator};
use sync_core::mergeable::MergeableValidator;

type Replica<T> = TypedDocument<T>;

fn replica<T: Case>(seed: u128) -> Replica<T> {
    Typed::new().create(ReplicaSeed(seed)).unwrap()
}

fn seen<T: Case>(replica: &Replica<T>) -> String {
    Typed::new().read(replica, show::<T>).unwrap()
}

/// What a reader sees. Whether something empty has been made is no matter of content.
fn show<T: Case>(value: &T) -> String {
    ["Some({})", "Some(Register(None))", "Some(Counter(0))"]
        .iter()
        .fold(format!("{value:?}"), |shown, empty| {
            shown.replace(empty, "None")
        })
}

fn edit<T: Case>(replica: &mut Replica<T>, random: &mut Random) -> Option<Bytes> {
    replica.set_wall_time(1_000 + u64::try_from(random.below(4)).unwrap());
    let bytes_max = if random.below(10) == 0 { 1 } else { usize::MAX };
    let before = (replica.version(), seen(replica), replica.snapshot());
    let outcome = Typed::new().edit(replica, bytes_max, |value: &mut T| {
        for _ in 0..=random.below(3) {
            value.mutate(random);
        }
        show(value)
    });
    match outcome.unwrap() {
        // What the closure saw at its end is what is there afterwards.
        Edited::Done(at_the_end) => assert_eq!(at_the_end, seen(replica)),
        _ => assert_eq!(
            before,
            (replica.version(), seen(replica), replica.snapshot())
        ),
    }
    let change = replica.drain().local.pop();
    if let Some(change) = &change {
        let limits = ValidateLimits::default();
        assert_eq!(MergeableValidator::new().validate(change, &limits), Ok(()));
    }
    change
}

fn sync<T: Case>(all: &mut [Replica<T>], from: usize, to: usize) {
    if from != to {
        let version = all[to].version();
        let difference = all[from].since(&version).unwrap();
        all[to].import(difference.as_slice()).unwrap();
    }
}

fn sync_all<T: Case>(all: &mut [Replica<T>]) {
    for _ in 0..2 {
        for at in 0..all.len() {
            sync(all, at, (at + 1) % all.len());
        }
    }
}

#[track_caller]
fn assert_same<T: Case>(a: &mut Replica<T>, b: &mut Replica<T>) {
    assert_eq!(seen(a), seen(b));
    assert_eq!(a.version(), b.version());
    assert_eq!(a.snapshot(), b.snapshot());
}

/// Edits, and syncs in every way; the changes in the order in which they were made.
fn play<T: Case>(all: &mut [Replica<T>], random: &mut Random, log: &mut Vec<Bytes>) {
    for _ in 0..4 + random.below(24) {
        let (who, other) = (random.below(all.len()), random.below(all.len()));
        match random.below(10) {
            0 | 1 => sync(all, who, other),
            2 => {
                let state = all[who].snapshot().unwrap();
                all[other].import_snapshot(&state).unwrap();
            }
            3 if !log.is_empty() => {
                // Causal: everything through some change, again or for the first time.
                let through = random.below(log.len());
                all[who].import(&log[..=through]).unwrap();
            }
            4 => {
                // One that may come before what it builds on.
                let some = random.below(log.len().max(1));
                all[who]
                    .import(log.get(some..=some).unwrap_or_default())
                    .unwrap();
            }
            _ => log.extend(edit(&mut all[who], random)),
        }
    }
}

/// All ways of getting everything end in the same.
fn check_merges<T: Case>(all: &mut [Replica<T>], log: &[Bytes], random: &mut Random) -> Replica<T> {
    let mut replayed = replica::<T>(100);
    replayed.import(log).unwrap();

    let mut shuffled: Vec<Bytes> = log.iter().chain(&log[..log.len() / 2]).cloned().collect();
    random.shuffle(&mut shuffled);
    let mut any_order = replica::<T>(101);
    let mut rest = shuffled.as_slice();
    while !rest.is_empty() {
        let (batch, after) = rest.split_at(1 + random.below(rest.len()));
        any_order.import(batch).unwrap();
        rest = after;
    }
    assert!(!any_order.import(&[]).unwrap().pending);
    assert_same(&mut replayed, &mut any_order);

    let mut states: Vec<Bytes> = all.iter_mut().map(|one| one.snapshot().unwrap()).collect();
    states.push(states[0].clone());
    random.shuffle(&mut states);
    let mut merged = replica::<T>(102);
    for state in &states {
        merged.import_snapshot(state).unwrap();
    }
    assert_same(&mut replayed, &mut merged);

    sync_all(all);
    for one in all {
        assert_same(&mut replayed, one);
    }

    // Importing what is known changes nothing, and there is nothing to send.
    let before = replayed.snapshot().unwrap();
    assert!(!replayed.import(&shuffled).unwrap().changed);
    assert_eq!(replayed.snapshot().unwrap(), before);
    assert_eq!(replayed.since(&merged.version()).unwrap(), None);

    // Without the type.
    if !log.is_empty() {
        let server = MergeableValidator::new();
        let cut = random.below(log.len());
        let first = (cut > 0).then(|| server.fold(None, &log[..cut]).unwrap());
        let folded = server.fold(first.as_deref(), &log[cut..]).unwrap();
        assert_eq!(folded, before);
    }
    replayed
}

fn case<T: Case>(seed: u64) {
    let mut random = Random(seed);
    let n_replicas = 3 + random.below(3);
    let mut all: Vec<Replica<T>> = (1..).take(n_replicas).map(replica).collect();
    let mut log = Vec::new();
    play(&mut all, &mut random, &mut log);
    let old_state = all[0].snapshot().unwrap();
    let mut stale = replica::<T>(50);
    stale.import(&log[..log.len() / 2]).unwrap();
    let mut replayed = check_merges(&mut all, &log, &mut random);
    if log.is_empty() {
        return;
    }

    // Everybody holds everything and goes on from the compacted state.
    let (horizon, before) = (replayed.version(), seen(&replayed));
    let snapshot = replayed.snapshot().unwrap();
    for one in all.iter_mut().chain([&mut replayed]) {
        one.compact(&horizon).unwrap();
        assert_eq!(
            (one.version(), seen(one)),
            (horizon.clone(), before.clone())
        );
    }
    let compacted = replayed.snapshot().unwrap();
    let by_server = MergeableValidator::new()
        .compact(&snapshot, &horizon)
        .unwrap();
    assert_eq!(by_server, compacted);

    // Nothing from before comes back.
    for one in &mut all {
        one.import(&log).unwrap();
        one.import_snapshot(&old_state).unwrap();
        one.import_snapshot(&snapshot).unwrap();
        assert_same(&mut replayed, one);
    }
    // Who has less than the horizon takes over what has been compacted.
    stale.import_snapshot(&compacted).unwrap();
    assert_same(&mut replayed, &mut stale);
    all.push(stale);

    let mut later = Vec::new();
    let random = &mut random;
    play(&mut all, random, &mut later);
    sync_all(&mut all);
    replayed.import(&later).unwrap();
    let mut joined = replica::<T>(103);
    joined.import_snapshot(&compacted).unwrap();
    random.shuffle(&mut later);
    joined.import(&later).unwrap();
    assert_same(&mut replayed, &mut joined);
    for one in &mut all {
        assert_same(&mut replayed, one);
    }
    let folded = MergeableValidator::new()
        .fold(Some(&compacted), &later)
        .unwrap();
    assert_eq!(folded, replayed.snapshot().unwrap());
}

fn cases(default: u64) -> u64 {
    std::env::var("LAWS_CASES").map_or(default, |n| n.parse().unwrap())
}

/// Scenarios 1, 64 to 66, and 68, for every type.
#[test]
fn every_way_of_merging_every_type_ends_in_the_same() {
    let only = std::env::var("LAWS_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    for seed in only.map_or(0..cases(2_800), |seed: u64| seed..seed + 1) {
        let outcome = std::panic::catch_unwind(|| for_case!(seed, case(seed)));
        assert!(outcome.is_ok(), "LAWS_SEED={seed}");
    }
}

/// A replica that takes back what it did itself, in any order with what others do.
fn undo_case<T: Case>(seed: u64) {
    let mut random = Random(seed);
    let mut alone = replica::<T>(1);
    alone.set_undo_max(100);
    let mut states = vec![seen(&alone)];
    for _ in 0..1 + random.below(8) {
        if edit(&mut alone, &mut random).is_some() {
            states.push(seen(&alone));
        }
    }
    states.dedup();
    // Back to the beginning and forth to the end, twice.
    for _ in 0..2 {
        for expected in states.iter().rev().skip(1) {
            step(&mut alone, expected, |one| one.undo(usize::MAX));
        }
        for expected in states.iter().skip(1) {
            step(&mut alone, expected, |one| one.redo(usize::MAX));
        }
    }
}

/// Goes one step that can be seen: what changed nothing visible is undone too.
fn step<T: Case>(
    replica: &mut Replica<T>,
    expected: &str,
    go: impl Fn(&mut Replica<T>) -> Result<Edited<bool>, sync_core::engine::EngineError>,
) {
    let before = seen(replica);
    while seen(replica) == before {
        assert_eq!(
            go(replica),
            Ok(Edited::Done(true)),
            "{before} -> {expected}"
        );
    }
    assert_eq!(seen(replica), expected);
    replica.drain();
}

/// Scenario 76, of one's own edits.
#[test]
fn what_one_did_is_undone_and_redone_step_by_step() {
    // The last one found that a removed value's copy was taken for the value.
    for seed in (0..cases(2_800)).chain([8_283]) {
        // A sequence in a map that was replaced and brought back is a copy: older changes of it are not taken back.
        if matches!(seed % 14, 10 | 12) {
            continue;
        }
        let outcome = std::panic::catch_unwind(|| for_case!(seed, undo_case(seed)));
        assert!(outcome.is_ok(), "seed {seed}");
    }
}
