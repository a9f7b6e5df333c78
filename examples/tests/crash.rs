//! The short form of `crash`: real processes, killed.

use std::path::Path;

use sync_examples::crash::{Plan, run_with};

/// Scenarios 44 and 62, and design 2: kill -9 of a server and of clients, and an older copy of the server's directory put back.
#[test]
fn killed_processes_lose_and_double_nothing() {
    let program = Path::new(env!("CARGO_BIN_EXE_crash"));
    let report = run_with(program, &Plan::new(10, 1)).unwrap();
    assert!(report.is_clean(), "{report}");
}
