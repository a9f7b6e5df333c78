//! Whole worlds: the simulator, with plans that a fuzzer writes.

use sync_sim::plan::Plan;
use sync_sim::run::run;

/// Any bytes as a plan: what must be so in every world is so in this one.
pub fn world(bytes: &[u8]) {
    let plan = Plan::written(bytes);
    if let Err(violation) = run(&plan) {
        panic!("{violation}\n{plan}");
    }
}
