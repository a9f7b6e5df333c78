//! Every scenario runs, small and short, against the relay and the server, and finds that everything has arrived. Times are
//! not looked at.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test says that it failed by panicking"
)]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs the program, and returns the cells of its JSON file.
fn run(name: &str, args: &[&str]) -> Vec<Value> {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("smoke-{name}.json"));
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(["run", name, "--limit", "120"])
        .args(args)
        .arg("--json")
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{name} {args:?}: {output:?}");
    let text = std::fs::read_to_string(file).unwrap();
    let mut content: Value = serde_json::from_str(&text).unwrap();
    let Value::Array(cells) = content["cells"].take() else {
        return Vec::new();
    };
    cells
}

/// Each cell is of a case that everybody took part in, and everything arrived in it, once.
fn assert_complete(cells: &[Value], n: usize) {
    assert_eq!(cells.len(), n);
    for cell in cells {
        let complete = &cell["metrics"]["complete_percent"]["median"];
        assert_eq!(complete, 100.0, "{cell}");
    }
}

#[test]
fn one_document_reaches_all_its_readers() {
    let cells = run("fan-out", &["--readers", "5", "--seconds", "0.2"]);
    // Two paces, three relays and two registries.
    assert_complete(&cells, 10);
}

#[test]
fn documents_of_two_reach_both() {
    let cells = run("pairs", &["--rooms", "10", "--seconds", "0.2"]);
    assert_complete(&cells, 10);
}
