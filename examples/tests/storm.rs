//! The short form of `storm`.
#![cfg(unix)]

use std::path::PathBuf;

use sync_examples::storm::{Plan, run};

/// Scenarios 37 to 39: everybody is cut at once, and then drained while editing.
#[test]
fn clients_cut_at_once_and_drained_come_back_with_every_change() {
    let own = PathBuf::from(env!("CARGO_BIN_EXE_storm"));
    let mut plan = Plan::new(own, 300);
    plan.drain = std::time::Duration::from_secs(2);
    let report = run(&plan).unwrap();
    report
        .check()
        .unwrap_or_else(|wrong| panic!("{wrong}\n{report}"));
}
