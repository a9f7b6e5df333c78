//! Many plans, on several threads, until one fails.

use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::coverage::Coverage;
use crate::model::Violation;
use crate::plan::Plan;
use crate::shrink::shrink;

/// How often a plan that failed is run to make it small.
const SHRINK_RUNS_MAX: usize = 600;

/// Which plans.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The first seed.
    pub first: u64,
    /// How many.
    pub seeds: u64,
    /// On how many threads.
    pub threads: usize,
    /// Whether it says how far it is.
    pub says_progress: bool,
    /// Whether it goes on after a failure, to see how many there are.
    pub goes_on: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// What was exercised.
    pub coverage: Coverage,
    /// Plans that were run.
    pub runs: u64,
    /// The first plan that failed.
    pub failure: Option<Failure>,
}

/// A plan that failed.
#[derive(Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// The rule that it broke.
    pub violation: Violation,
    /// The smallest one that was found to break the same rule.
    pub smallest: Plan,
    /// How that one did.
    pub smallest_violation: Violation,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {}", self.seed, self.violation)?;
        writeln!(
            f,
            "smallest plan that does the same: {}",
            self.smallest_violation
        )?;
        write!(f, "{}", self.smallest)
    }
}

/// Runs the plans of seeds, until one fails; that one is made small.
pub fn run_seeds(
    options: &Options,
    run: impl Fn(&Plan) -> Result<Coverage, Violation> + Sync,
) -> Report {
    let next = AtomicU64::new(0);
    let runs = AtomicU64::new(0);
    let is_over = AtomicBool::new(false);
    let coverage = Mutex::new(Coverage::default());
    let failed: Mutex<Option<(u64, Violation)>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..options.threads.max(1) {
            scope.spawn(|| {
                let mut ours = Coverage::default();
                while !is_over.load(Ordering::Relaxed) {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= options.seeds {
                        break;
                    }
                    if options.says_progress && n > 0 && n.is_multiple_of(2_000) {
                        println!("{n} of {}", options.seeds);
                    }
                    let seed = options.first + n;
                    match run(&Plan::draw(seed)) {
                        Ok(coverage) => ours.merge(coverage),
                        Err(violation) => {
                            if options.says_progress {
                                println!("seed {seed}: {violation}");
                            }
                            is_over.store(!options.goes_on, Ordering::Relaxed);
                            let mut failed = failed.lock().unwrap();
                            if failed.as_ref().is_none_or(|(other, _)| seed < *other) {
                                *failed = Some((seed, violation));
                            }
                        }
                    }
                    runs.fetch_add(1, Ordering::Relaxed);
                }
                coverage.lock().unwrap().merge(ours);
            });
        }
    });
    let failure = failed.into_inner().unwrap().map(|(seed, violation)| {
        let plan = Plan::draw(seed);
        let (smallest, smallest_violation) =
            shrink(plan, violation.clone(), SHRINK_RUNS_MAX, |plan| {
                run(plan).map(drop)
            });
        Failure {
            seed,
            violation,
            smallest,
            smallest_violation,
        }
    });
    Report {
        coverage: coverage.into_inner().unwrap(),
        runs: runs.into_inner(),
        failure,
    }
}
