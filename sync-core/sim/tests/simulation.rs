//! Plans drawn from seeds, run in simulated worlds.

#![allow(clippy::panic, reason = "helpers of tests")]

use sync_core::planted::Bug;
use sync_sim::campaign::{Options, run_seeds};
use sync_sim::plan::Plan;
use sync_sim::run::{Bugs, run, run_with};

#[test]
fn a_plan_does_the_same_each_time() {
    for seed in 1..=20 {
        let plan = Plan::draw(seed);
        assert_eq!(plan, Plan::draw(seed));
        assert_eq!(run(&plan), run(&plan), "seed {seed}");
    }
}

#[test]
fn what_breaks_a_rule_is_found_and_cut_down_to_what_it_takes() {
    let options = Options {
        first: 1,
        seeds: 200,
        threads: 1,
        says_progress: false,
        goes_on: false,
    };
    let bugs = Bugs {
        machine: Some(Bug::AckBeforeCommit),
        ..Bugs::default()
    };
    let report = run_seeds(&options, |plan| run_with(plan, bugs));
    let Some(failure) = report.failure else {
        panic!("not found in {} runs", report.runs);
    };
    assert!(failure.smallest.ops.len() < 8, "{failure}");
    assert!(run(&failure.smallest).is_ok(), "{failure}");
}
