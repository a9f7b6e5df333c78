//! A process that appends as much as it can, and what it was told became of it.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test harness"
)]

use std::collections::HashMap;
use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::ChildStdout;
use std::sync::Arc;

use sync_core::history::Seq;
use sync_core::ids::{ChangeId, OriginId};
use sync_server::registry::{
    EmbeddedOptions, EmbeddedRegistry, Outcome, RegistryError, ServerRegistry, Snapshot, Tail,
};

use super::{EPOCH, change, id, log, new};

/// Names of environment variables: the directory that the process appends to, the first of its origins, and how many
/// calls each of its writers makes, if not as many as it can.
pub(crate) const DIRECTORY: &str = "SYNC_CRASH_DIRECTORY";
pub(crate) const FIRST_ORIGIN: &str = "SYNC_CRASH_FIRST_ORIGIN";
pub(crate) const CALLS: &str = "SYNC_CRASH_CALLS";
/// If set, the process reads instead: `shown DOCUMENT ORIGIN NUMBER SEQUENCE` for each row.
pub(crate) const SHOWS: &str = "SYNC_CRASH_SHOWS";

pub(crate) const DOCUMENTS: u128 = 6;
pub(crate) const WRITERS: u128 = 24;
/// How often a writer asks again after it was refused.
pub(crate) const REFUSALS: u128 = 3;

pub(crate) fn name(document: u128) -> String {
    format!("notes/{document}")
}

/// Tidies up all the time, so that a kill meets folds, trims, checkpoints and compactions.
pub(crate) fn eager() -> EmbeddedOptions {
    EmbeddedOptions::default()
        .fold_bytes(20_000)
        .checkpoint_pages(50)
}

/// What the process does, in a test that has nothing to do when it runs by itself. Says `ack DOCUMENT ORIGIN NUMBER
/// SEQUENCE` for each change that it was told is committed, and `refused KIND` or `cannot open` otherwise.
pub(crate) async fn run() {
    let Ok(directory) = env::var(DIRECTORY) else {
        return;
    };
    let first: u128 = env::var(FIRST_ORIGIN).unwrap().parse().unwrap();
    let calls = env::var(CALLS).map_or(u64::MAX, |calls| calls.parse().unwrap());
    let registry = match EmbeddedRegistry::open_with(directory, eager()) {
        Ok(registry) => Arc::new(registry),
        Err(error) => return println!("cannot open: {error}"),
    };
    if env::var_os(SHOWS).is_some() {
        show(&registry).await;
    }
    for document in 0..DOCUMENTS {
        if let Err(error) = registry.create(new(&name(document))).await {
            println!("refused {}", kind(&error));
        }
    }
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(registry.clone(), first + writer, calls)))
        .collect();
    let compactor = tokio::spawn(compact(registry.clone()));
    for writer in writers {
        writer.await.unwrap();
    }
    compactor.abort();
    let _ = compactor.await;
    println!("asking");
    let meta = registry.meta(&id(&name(0))).await.map(drop);
    let last = vec![change(first + WRITERS, 1)];
    let last = registry.append(&id(&name(0)), EPOCH, None, last).await;
    for asked in [meta, last.map(drop)] {
        println!(
            "asked {}",
            asked.map_or_else(|error| kind(&error), |()| "in order")
        );
    }
    let closed = registry.close().await;
    println!(
        "closed {}",
        closed.map_or_else(|error| kind(&error), |()| "in order")
    );
}

fn kind(error: &RegistryError) -> &'static str {
    match error {
        RegistryError::Unavailable { .. } => "unavailable",
        RegistryError::Unknown { .. } => "unknown",
        RegistryError::Damaged { .. } => "damaged",
        RegistryError::NotFound => "not found",
        other => panic!("{other:?}"),
    }
}

/// What a server that starts now tells its clients is committed. Ends before anything is closed.
async fn show(registry: &EmbeddedRegistry) {
    for meta in registry.list(None, 100).await.unwrap() {
        for row in log(registry, meta.id.as_str()).await {
            let ChangeId { origin, number } = row.id;
            println!("shown {} {} {number} {}", meta.id, origin.0, row.seq.0);
        }
    }
    println!("shown all");
    std::process::abort();
}

/// Appends, and repeats what was refused.
async fn write(registry: Arc<EmbeddedRegistry>, origin: u128, calls: u64) {
    let document = name(origin % DOCUMENTS);
    let (mut number, mut refusals) = (1, 0);
    for _ in 0..calls {
        let changes: Vec<_> = (0..1 + number % 3)
            .map(|n| change(origin, number + n))
            .collect();
        let outcomes = registry.append(&id(&document), EPOCH, None, changes).await;
        let outcomes = match outcomes {
            Ok(outcomes) => outcomes,
            // The one call whose error says nothing of the registry: it could not be created.
            Err(RegistryError::NotFound) => return println!("refused not found"),
            Err(error) => {
                println!("refused {}", kind(&error));
                refusals += 1;
                if refusals == REFUSALS {
                    return;
                }
                continue;
            }
        };
        for outcome in outcomes {
            let seq = match outcome {
                Outcome::At(seq) => seq,
                Outcome::Duplicate { seq: Some(seq), .. } if refusals > 0 => seq,
                other => panic!("{other:?}"),
            };
            println!("ack {document} {origin} {number} {}", seq.0);
            number += 1;
        }
    }
}

async fn compact(registry: Arc<EmbeddedRegistry>) -> Result<(), RegistryError> {
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

/// Everything that was said to be committed is in this directory, and it can be written to.
pub(crate) async fn holds(directory: &Path, acknowledged: &Acknowledged, what: &str) {
    let registry = match EmbeddedRegistry::open_with(directory, eager()) {
        Ok(registry) => registry,
        Err(error) => panic!("{what}: {error}"),
    };
    acknowledged.is_in(&registry).await;
    registry.create(new(&name(0))).await.unwrap();
    let next = vec![change(u128::MAX, 1)];
    let next = registry.append(&id(&name(0)), EPOCH, None, next).await;
    assert!(
        matches!(next.as_deref(), Ok([Outcome::At(_)])),
        "{what}: {next:?}"
    );
}

/// Changes that a process was told are committed, and where.
#[derive(Default)]
pub(crate) struct Acknowledged(pub(crate) HashMap<(String, ChangeId), Seq>);

impl Acknowledged {
    /// Takes one line; false if it is none of ours, or cut short.
    pub(crate) fn read(&mut self, line: &str) -> bool {
        let words: Vec<_> = line.trim_end_matches('\n').split(' ').collect();
        let [word @ ("ack" | "shown"), document, origin, number, seq] = words[..] else {
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
        if word == "ack" {
            assert_eq!(before, None, "acknowledged twice: {line}");
        } else {
            assert!(before.is_none_or(|before| before == seq), "{line}");
        }
        true
    }

    /// Takes all lines.
    pub(crate) fn read_all(&mut self, said: &str) {
        for line in said.split_inclusive('\n') {
            self.read(line);
        }
    }

    /// Reads until there are so many more, or to the end.
    pub(crate) fn read_some(&mut self, lines: &mut BufReader<ChildStdout>, count: u64) {
        let mut left = count;
        let mut line = String::new();
        while left > 0 && lines.read_line(&mut line).unwrap() > 0 {
            left -= u64::from(self.read(&line));
            line.clear();
        }
    }

    /// All of it is there, where it was said to be, once.
    pub(crate) async fn is_in(&self, registry: &EmbeddedRegistry) {
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
