//! Real processes that append, killed at any moment: what they were told is committed is there, once.
//!
//! `SYNC_CRASH_ROUNDS` sets how many times; 10 by default.
#![cfg(all(feature = "embedded", unix))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod embedded;

use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sync_core::rng::Rng;
use sync_server::registry::{EmbeddedRegistry, Outcome, ServerRegistry};

use embedded::load::{self, Acknowledged, DIRECTORY, FIRST_ORIGIN, REFUSALS, WRITERS, eager, name};
use embedded::{Directory, EPOCH, change, id};

/// The process that is killed; by itself it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    load::run().await;
}

fn spawn(directory: &Path, first_origin: u128, limit: Option<u32>) -> Child {
    let this = env::current_exe().unwrap();
    let mut command = match limit {
        None => Command::new(this),
        Some(blocks) => {
            // Writing beyond the limit is then an error, and not a signal.
            let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(script).arg(this);
            shell
        }
    };
    command
        .args(["--exact", "child", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(FIRST_ORIGIN, first_origin.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn rounds() -> u64 {
    env::var("SYNC_CRASH_ROUNDS").map_or(10, |rounds| rounds.parse().unwrap())
}

/// Scenario 62, below the server.
#[tokio::test]
async fn a_process_killed_at_any_moment_has_lost_nothing_that_was_acknowledged() {
    let directory = Directory::new();
    let mut acknowledged = Acknowledged::default();
    let mut rng = Rng::new(u128::from(std::process::id()));
    println!("seed {}", std::process::id());
    for round in 0..rounds() {
        let first = u128::from(round) * 1_000 + 1;
        let mut child = spawn(directory.path(), first, None);
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        // The last of these acks is far from the last that the process has got, and commits go on meanwhile.
        acknowledged.read_some(&mut lines, 1 + rng.next_u64() % 3_000);
        child.kill().unwrap();
        acknowledged.read_some(&mut lines, u64::MAX);
        child.wait().unwrap();

        // Both what is left, and what an operator copied from there, are whole.
        let copy = Directory::copy_of(directory.path());
        for path in [copy.path(), directory.path()] {
            let registry = EmbeddedRegistry::open_with(path, eager()).unwrap();
            acknowledged.is_in(&registry).await;
            if round % 3 == 2 {
                registry.maintain(Duration::from_secs(60)).await.unwrap();
                acknowledged.is_in(&registry).await;
            }
        }
    }
    assert!(acknowledged.0.len() > 10);
}

/// The system refuses to write on, in the middle of whatever is being written.
#[tokio::test]
async fn a_process_that_cannot_write_on_says_so_and_has_lost_nothing_that_was_acknowledged() {
    // Blocks of 512 or 1024 bytes, as the shell has it: the log, or the database, ends within the first of its writes,
    // or after some.
    for blocks in [700, 1_500, 3_001] {
        let directory = Directory::new();
        let mut acknowledged = Acknowledged::default();
        let mut child = spawn(directory.path(), 1, Some(blocks));
        let mut refusals = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap() + "\n";
            if line.starts_with("refused") {
                refusals += 1;
            } else {
                acknowledged.read(&line);
            }
        }
        child.wait().unwrap();
        assert_eq!(
            refusals,
            WRITERS * REFUSALS,
            "every writer is told, as often as it asks"
        );
        let registry = EmbeddedRegistry::open(directory.path()).unwrap();
        acknowledged.is_in(&registry).await;
        assert!(!acknowledged.0.is_empty());
        // It goes on where it stopped.
        let next = registry
            .append(&id(&name(0)), EPOCH, None, vec![change(9_999, 1)])
            .await
            .unwrap();
        assert!(matches!(next[..], [Outcome::At(_)]), "{next:?}");
    }
}
