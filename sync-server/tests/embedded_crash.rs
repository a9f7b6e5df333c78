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

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use sync_core::history::Seq;
use sync_core::ids::{ChangeId, OriginId};
use sync_core::rng::Rng;
use sync_server::registry::{
    EmbeddedOptions, EmbeddedRegistry, Outcome, RegistryError, ServerRegistry, Snapshot, Tail,
};

use embedded::{Directory, EPOCH, change, id, log, new};

const DIRECTORY: &str = "SYNC_CRASH_DIRECTORY";
const FIRST_ORIGIN: &str = "SYNC_CRASH_FIRST_ORIGIN";
const DOCUMENTS: u128 = 6;
const WRITERS: u128 = 24;

fn name(document: u128) -> String {
    format!("notes/{document}")
}

/// Tidies up all the time, so that a kill meets folds, trims, checkpoints and compactions.
fn eager() -> EmbeddedOptions {
    EmbeddedOptions::default()
        .fold_bytes(20_000)
        .checkpoint_pages(50)
}

/// The process that is killed. Says `ack DOCUMENT ORIGIN NUMBER SEQUENCE` for each change that it was told is committed.
/// Run by the tests below; by itself it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(directory) = env::var(DIRECTORY) else {
        return;
    };
    let first: u128 = env::var(FIRST_ORIGIN).unwrap().parse().unwrap();
    let registry = EmbeddedRegistry::open_with(directory, eager()).unwrap();
    let registry = std::sync::Arc::new(registry);
    for document in 0..DOCUMENTS {
        registry.create(new(&name(document))).await.unwrap();
    }
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(registry.clone(), first + writer)))
        .collect();
    let compactor = tokio::spawn(compact(registry.clone()));
    for writer in writers {
        let error = writer.await.unwrap();
        println!("refused {error}");
    }
    compactor.abort();
}

/// Appends until it is refused.
async fn write(registry: std::sync::Arc<EmbeddedRegistry>, origin: u128) -> RegistryError {
    let document = name(origin % DOCUMENTS);
    let mut number = 1;
    loop {
        let changes: Vec<_> = (0..1 + number % 3)
            .map(|n| change(origin, number + n))
            .collect();
        let outcomes = registry.append(&id(&document), EPOCH, None, changes).await;
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes,
            Err(error) => return error,
        };
        for outcome in outcomes {
            let Outcome::At(Seq(seq)) = outcome else {
                panic!("{outcome:?}")
            };
            println!("ack {document} {origin} {number} {seq}");
            number += 1;
        }
    }
}

async fn compact(registry: std::sync::Arc<EmbeddedRegistry>) -> Result<(), RegistryError> {
    loop {
        for document in 0..DOCUMENTS {
            let document = id(&name(document));
            let meta = registry.meta(&document).await?;
            if meta.head.0 < meta.snapshot_seq.0 + 50 {
                tokio::task::yield_now().await;
                continue;
            }
            let seq = Seq(meta.head.0 - 10);
            let Tail::Changes { digest, .. } = registry.tail(&document, seq, 0).await? else {
                continue;
            };
            let state = format!("everything through {seq} ").repeat(4_000);
            let snapshot = Snapshot::new(seq, digest, state.into());
            registry
                .compact(&document, EPOCH, snapshot, Seq(seq.0 - 20))
                .await?;
        }
    }
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

/// Changes that a process was told are committed, and where.
#[derive(Default)]
struct Acknowledged(HashMap<(String, ChangeId), Seq>);

impl Acknowledged {
    /// Takes one line; false if it is none of ours, or cut short.
    fn read(&mut self, line: &str) -> bool {
        let words: Vec<_> = line.trim_end_matches('\n').split(' ').collect();
        let ["ack", document, origin, number, seq] = words[..] else {
            return false;
        };
        if !line.ends_with('\n') {
            return false;
        }
        let id = ChangeId {
            origin: OriginId(origin.parse().unwrap()),
            number: number.parse().unwrap(),
        };
        let seq = Seq(seq.parse().unwrap());
        let before = self.0.insert((document.to_owned(), id), seq);
        assert_eq!(before, None, "acknowledged twice: {line}");
        true
    }

    /// Reads until there are so many more, or to the end.
    fn read_some(&mut self, lines: &mut BufReader<ChildStdout>, count: u64) {
        let mut left = count;
        let mut line = String::new();
        while left > 0 && lines.read_line(&mut line).unwrap() > 0 {
            left -= u64::from(self.read(&line));
            line.clear();
        }
    }

    /// All of it is there, where it was said to be, once.
    async fn is_in(&self, registry: &EmbeddedRegistry) {
        for document in 0..DOCUMENTS {
            let document = name(document);
            let Ok(meta) = registry.meta(&id(&document)).await else {
                assert!(!self.0.keys().any(|(of, _)| *of == document));
                continue;
            };
            let rows = log(registry, &document).await;
            let stands: HashMap<_, _> = rows.iter().map(|row| (row.id, row.seq)).collect();
            assert_eq!(stands.len(), rows.len(), "a change stands twice");
            for row in &rows {
                let made = change(row.id.origin.0, row.id.number);
                assert_eq!(row.bytes, made.bytes);
            }
            for ((of, id), seq) in &self.0 {
                if *of == document && *seq > meta.log_start {
                    assert_eq!(stands.get(id), Some(seq), "{id} in {document}");
                }
            }
            let snapshot = registry.snapshot(&id(&document)).await.unwrap();
            assert_eq!(
                snapshot.as_ref().map_or(Seq::ZERO, |snapshot| snapshot.seq),
                meta.snapshot_seq
            );
            // What was dropped is covered, and its origins are still known.
            assert!(meta.log_start <= meta.snapshot_seq);
            let mut last = HashMap::new();
            for (of, id) in self.0.keys() {
                if *of == document {
                    let last = last.entry(id.origin).or_insert(0);
                    *last = id.number.max(*last);
                }
            }
            let origins: Vec<_> = last.keys().copied().collect();
            let entries = registry.origins(&id(&document), &origins).await.unwrap();
            for (origin, entry) in origins.iter().zip(entries) {
                // Beyond so many of one user, those whose changes were dropped may be forgotten.
                if let Some(entry) = entry {
                    assert!(entry.last >= last[origin], "{entry:?}");
                } else {
                    let newest = self
                        .0
                        .iter()
                        .filter(|((of, id), _)| *of == document && id.origin == *origin);
                    let newest = newest.map(|(_, seq)| *seq).max();
                    assert!(newest <= Some(meta.log_start), "{origin} is forgotten");
                }
            }
        }
    }
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
        assert_eq!(refusals, WRITERS, "every writer is told");
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
