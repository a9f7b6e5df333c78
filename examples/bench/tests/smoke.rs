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

#[test]
fn idle_connections_receive_a_large_message() {
    let cells = run("idle", &["--idle", "5", "--seconds", "0.2"]);
    assert_complete(&cells, 3);
}

#[test]
fn everybody_who_joins_has_the_whole_document() {
    let cells = run("join", &["--joiners", "3", "--changes", "400"]);
    // The first one, the next one, and three at once.
    assert_complete(&cells, 9);
}

#[test]
fn who_comes_back_gets_what_was_missed() {
    let cells = run("resume", &["--changes", "2000"]);
    // After all of the changes and after a tenth of them.
    assert_complete(&cells, 4);
}

#[test]
fn who_stopped_reading_gets_everything_in_the_end() {
    let cells = run("slow-reader", &["--megabytes", "6"]);
    assert_complete(&cells, 3);
    for cell in cells {
        let complete = &cell["metrics"]["late_complete_percent"]["median"];
        assert_eq!(complete, 100.0, "{cell}");
    }
}

#[test]
fn what_was_shown_survives_a_kill() {
    let cells = run("kills", &["--kills", "3"]);
    assert_eq!(cells.len(), 1);
    let metrics = &cells[0]["metrics"];
    assert_eq!(metrics["kills"]["median"], 3.0);
    assert_eq!(metrics["lost"]["median"], 0.0);
}

#[test]
fn everybody_is_seen_where_they_were_last() {
    let cells = run("presence", &["--sessions", "10", "--seconds", "0.5"]);
    assert_complete(&cells, 1);
}
