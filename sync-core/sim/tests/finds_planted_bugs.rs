//! Each bug of a list, planted alone, is found by the simulator, in plans that find nothing without it.

#![allow(clippy::print_stdout, reason = "the table of what it took")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use sync_sim::planted::{PLANTED, Planted};
use sync_sim::run::{run, run_with};

/// Seeds for each bug, at most.
const SEEDS_MAX: u64 = 2_000;
/// Not found: the model lets what was rewound come back.
const OPEN: &str = "epoch not changed after a rewind";
/// Seeds of each kind of plan that are run without a bug.
const SOUND_SEEDS: u64 = 30;

/// Runs it on each, on as many threads as there are processors.
fn on_each<T: Sync>(all: &[T], run: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    run(one);
                }
            });
        }
    });
}

/// The first seed that shows it, and how.
fn find(planted: &Planted) -> Option<(u64, &'static str)> {
    (1..=SEEDS_MAX).find_map(|seed| {
        let plan = planted.plan(seed);
        let violation = run_with(&plan, planted.bugs).err()?;
        // What goes wrong without the bug is another one.
        run(&plan).is_ok().then_some((seed, violation.kind))
    })
}

#[test]
fn finds_planted_bugs() {
    let found = Mutex::new(Vec::new());
    let looked_for: Vec<Planted> = PLANTED.into_iter().filter(|it| it.name != OPEN).collect();
    on_each(&looked_for, |planted| {
        let shown = find(planted);
        let at = PLANTED.iter().position(|it| it.name == planted.name);
        found.lock().unwrap().push((at, planted.name, shown));
    });
    let mut found = found.into_inner().unwrap();
    found.sort_unstable_by_key(|(at, ..)| *at);
    println!("| bug | seeds | what showed it |");
    println!("| --- | --- | --- |");
    for (_, name, shown) in &found {
        match shown {
            Some((seeds, kind)) => println!("| {name} | {seeds} | {kind} |"),
            None => println!("| {name} | none of {SEEDS_MAX} | |"),
        }
    }
    let missed: Vec<_> = found
        .iter()
        .filter(|(_, _, shown)| shown.is_none())
        .map(|(_, name, ..)| name)
        .collect();
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn finds_nothing_in_the_same_plans_without_a_bug() {
    let found = Mutex::new(Vec::new());
    let aimed: Vec<_> = PLANTED.iter().filter(|it| it.aim.is_some()).collect();
    on_each(&aimed, |planted| {
        for seed in 1..=SOUND_SEEDS {
            if let Err(violation) = run(&planted.plan(seed)) {
                let name = planted.name;
                let failed = format!("plans for {name}, seed {seed}: {violation}");
                found.lock().unwrap().push(failed);
                return;
            }
        }
    });
    let found = found.into_inner().unwrap();
    assert!(found.is_empty(), "{found:#?}");
}
