//! The client's store on disks that fail and lose power: what was saved is there, in order and once, and nothing is taken for
//! empty.
//!
//! `SYNC_DISK_IMAGES` sets how many disks are looked at, `SYNC_DISK_ROUNDS` how many faults are made.
#![cfg(all(feature = "embedded", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

mod disk;
mod embedded;

use std::collections::BTreeMap;
use std::env;
use std::path::Path;

use bytes::Bytes;
use disk::{Disk, EIO, ENOSPC, FOR_EVER, Fault, KILLED, Watched};
use embedded::{Directory, id, setting};
use sync_client::store::{ClientStore, EmbeddedStore, OutboxChange, StoreError, StoreWrite};
use sync_client::{ChangeId, EngineId, OriginId};

const DIRECTORY: &str = "SYNC_STORE_DIRECTORY";
/// If set, the process reads instead.
const SHOWS: &str = "SYNC_STORE_SHOWS";
const DOCUMENTS: u64 = 3;
const EDITS: u64 = 60;

fn name(document: u64) -> String {
    format!("notes/{document}")
}

/// Edit `number` of a document.
fn edit(number: u64) -> OutboxChange {
    let id = ChangeId {
        origin: OriginId(1),
        number,
    };
    let position = i64::try_from(number).unwrap();
    OutboxChange::new(id, position, bytes(number), false)
}

fn bytes(number: u64) -> Bytes {
    format!("{number} ").into()
}

/// A snapshot that holds the edits through this one, and is long enough for the store to have to tidy up.
fn snapshot(through: u64) -> Bytes {
    let mut bytes: String = (1..=through).map(|n| format!("{n} ")).collect();
    bytes += &" ".repeat(60_000);
    bytes.into()
}

/// The edits in bytes like these.
fn numbers(bytes: &Bytes) -> Vec<u64> {
    let words = std::str::from_utf8(bytes).unwrap().split_whitespace();
    words.map(|word| word.parse().unwrap()).collect()
}

/// The process; by itself it has nothing to do. Says `saved DOCUMENT NUMBER` of what is saved through that edit, `shown` of
/// what it finds, and `refused` otherwise.
#[tokio::test]
async fn child() {
    let Ok(directory) = env::var(DIRECTORY) else {
        return;
    };
    let store = match open(Path::new(&directory)) {
        Ok(store) => store,
        Err(error) => return println!("cannot open: {}", kind(&error)),
    };
    if env::var_os(SHOWS).is_some() {
        for document in 0..DOCUMENTS {
            let found = edits(&store, document).await.unwrap();
            println!("shown {document} {}", found.len());
        }
        println!("shown all");
        std::process::abort();
    }
    // What of each document is in the store, and what of that is in the replica.
    let mut written: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for number in 1..=EDITS {
        for document in 0..DOCUMENTS {
            let document_id = id(&name(document));
            let (stored, imported) = written.entry(document).or_default();
            let _ = store.stage(&document_id, &EngineId::YRS, &edit(number));
            let mut write = StoreWrite::new(EngineId::YRS);
            let acknowledges = number % 5 == 0;
            if acknowledges {
                write.outbox_remove = (*imported + 1..=number).map(|n| edit(n).id).collect();
            } else {
                write.outbox_add = (*stored + 1..=number).map(edit).collect();
            }
            if number % 15 == 0 {
                write.snapshot = Some(snapshot(number));
            } else if acknowledges {
                write.imported = (*imported + 1..=number).map(bytes).collect();
            }
            match store.commit(&document_id, &write).await {
                Ok(()) => {
                    *stored = number;
                    if acknowledges {
                        *imported = number;
                    }
                    println!("saved {document} {number}");
                }
                Err(error) => println!("refused {}", kind(&error)),
            }
        }
    }
    println!("asking");
    let last = store
        .commit(&id("last"), &StoreWrite::new(EngineId::YRS))
        .await;
    println!(
        "asked {}",
        last.map_or_else(|error| kind(&error), |()| "in order")
    );
    store.close().await;
}

fn open(directory: &Path) -> Result<EmbeddedStore, StoreError> {
    let store = EmbeddedStore::open(directory.join("app.db"))?;
    store.bind("ada")?;
    Ok(store)
}

fn kind(error: &StoreError) -> &'static str {
    match error {
        StoreError::Failed(_) => "failed",
        StoreError::Damaged(_) => "damaged",
        other => panic!("{other:?}"),
    }
}

/// The edits that a store has of a document, in order.
async fn edits(store: &EmbeddedStore, document: u64) -> Result<Vec<u64>, StoreError> {
    let Some(stored) = store.load(&id(&name(document))).await? else {
        return Ok(Vec::new());
    };
    let outbox = stored.outbox.iter().map(|change| &change.bytes);
    let parts = stored.snapshot.iter().chain(&stored.tail).chain(outbox);
    Ok(parts.flat_map(numbers).collect())
}

/// Through which edit each document was said to be saved.
#[derive(Default)]
struct Saved(BTreeMap<u64, u64>);

impl Saved {
    fn read(&mut self, said: &str) {
        for line in said.lines() {
            let words: Vec<_> = line.split(' ').collect();
            if let ["saved" | "shown", document, number] = words[..] {
                let number: u64 = number.parse().unwrap();
                let through = self.0.entry(document.parse().unwrap()).or_insert(0);
                *through = number.max(*through);
            }
        }
    }

    /// All of it is there, each edit once and none left out, and the store can be written to.
    async fn is_in(&self, directory: &Path, what: &str) {
        let store = open(directory).unwrap_or_else(|error| panic!("{what}: {error:?}"));
        for document in 0..DOCUMENTS {
            let found = edits(&store, document).await.unwrap();
            let through = u64::try_from(found.len()).unwrap();
            assert_eq!(found, (1..=through).collect::<Vec<_>>(), "{what}");
            let saved = self.0.get(&document).copied().unwrap_or(0);
            assert!(through >= saved, "{what}: {through} of {saved}");
        }
        let write = StoreWrite::new(EngineId::YRS);
        store.commit(&id("last"), &write).await.unwrap();
    }
}

fn run(watched: &Watched, fault: Option<Fault>, shows: bool) -> bool {
    let mut child = watched.child("child", fault);
    if shows {
        child.env(SHOWS, "1");
    }
    child
        .env(DIRECTORY, watched.data())
        .status()
        .unwrap()
        .success()
}

#[tokio::test]
async fn a_power_cut_at_any_moment_has_lost_nothing_that_was_saved() {
    let Some(watched) = Watched::new() else {
        return;
    };
    assert!(run(&watched, None, false), "{}", watched.said());
    let recording = watched.recording();
    let mut disk = Disk::new(&recording, 1);
    let mut saved = Saved::default();
    for moment in recording.moments(setting("SYNC_DISK_IMAGES", 150), 1) {
        saved.read(&disk.advance(moment));
        let image = Directory::new();
        let what = disk.image(image.path());
        let data = image.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        saved.is_in(&data, &what).await;
    }
    assert_eq!(saved.0.len(), 3);
}

#[tokio::test]
async fn what_is_found_after_a_kill_is_there_after_a_power_cut() {
    for kind in ["sync", "write"] {
        for round in 0..4 {
            let Some(watched) = Watched::new() else {
                return;
            };
            let killed = Fault {
                kind,
                first: 30 + 67 * round,
                count: 1,
                error: KILLED,
            };
            run(&watched, Some(killed), false);
            run(&watched, None, true);
            assert!(
                watched.said().ends_with("shown all\n"),
                "{}",
                watched.said()
            );
            let recording = watched.recording();
            let mut disk = Disk::new(&recording, round.into());
            let mut saved = Saved::default();
            saved.read(&disk.advance(recording.len()));
            for _ in 0..8 {
                let image = Directory::new();
                let what = disk.image(image.path());
                saved.is_in(&image.path().join("data"), &what).await;
            }
        }
    }
}

/// Runs on such a disk; what was saved is there if the power is cut. What was said.
async fn survives(fault: Fault) -> Option<(Watched, String)> {
    let watched = Watched::new()?;
    assert!(
        run(&watched, Some(fault), false),
        "{fault:?}\n{}",
        watched.said()
    );
    let said = watched.said();
    let mut saved = Saved::default();
    saved.read(&said);
    let recording = watched.recording();
    for seed in 0..6 {
        let mut disk = Disk::new(&recording, seed);
        disk.advance(recording.len());
        let image = Directory::new();
        let luck = disk.image(image.path());
        let data = image.path().join("data");
        std::fs::create_dir_all(&data).unwrap();
        saved.is_in(&data, &format!("{fault:?}, {luck}")).await;
    }
    Some((watched, said))
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_said_to_be_saved_until_the_store_is_opened_again() {
    let mut met = 0;
    for round in 0..2 * setting("SYNC_DISK_ROUNDS", 5) {
        let fault = Fault {
            kind: "sync",
            first: 1 + round + round * round / 2,
            count: 1,
            error: EIO,
        };
        let Some((watched, said)) = survives(fault).await else {
            return;
        };
        let recording = watched.recording();
        if let (Some(failed), Some(asking)) = (recording.failed_sync(), recording.word("asking"))
            && failed < asking
        {
            met += 1;
            assert!(said.contains("asked failed"), "{fault:?}\n{said}");
        }

        // Whoever opens it again goes on from there, and may lose power too.
        run(&watched, None, true);
        let recording = watched.recording();
        let mut disk = Disk::new(&recording, round.into());
        let mut saved = Saved::default();
        saved.read(&disk.advance(recording.len()));
        for _ in 0..4 {
            let image = Directory::new();
            let luck = disk.image(image.path());
            let data = image.path().join("data");
            std::fs::create_dir_all(&data).unwrap();
            saved.is_in(&data, &format!("{fault:?}, then {luck}")).await;
        }
        saved.is_in(&watched.data(), &format!("{fault:?}")).await;
    }
    assert!(met > 0);
}

#[tokio::test]
async fn writes_that_fail_are_errors_and_are_made_again_when_there_is_room() {
    let (mut refused, mut gone_on) = (0, 0);
    for round in 0..setting("SYNC_DISK_ROUNDS", 5) {
        for (error, count) in [(EIO, 1), (ENOSPC, 1), (ENOSPC, 30), (ENOSPC, FOR_EVER)] {
            let fault = Fault {
                kind: "write",
                first: 1 + round * 97 + round * round,
                count,
                error,
            };
            let Some((watched, said)) = survives(fault).await else {
                return;
            };
            let mut saved = Saved::default();
            saved.read(&said);
            saved.is_in(&watched.data(), &format!("{fault:?}")).await;
            refused += u64::from(said.contains("refused failed"));
            gone_on +=
                u64::from(said.contains("refused failed") && said.contains("asked in order"));
        }
    }
    assert!(refused > 0 && gone_on > 0, "{refused}, {gone_on}");
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_and_never_an_empty_document() {
    let Some(written) = Watched::new() else {
        return;
    };
    assert!(run(&written, None, false));
    let all = (0..DOCUMENTS).map(|document| format!("shown {document} {EDITS}"));
    let all: Vec<_> = all.collect();
    let mut first = 1;
    loop {
        let watched = Watched::new().unwrap();
        for file in written.data().read_dir().unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), watched.data().join(file.file_name())).unwrap();
        }
        let fault = Fault {
            kind: "read",
            first,
            count: 1 + first % 3,
            error: EIO,
        };
        run(&watched, Some(fault), true);
        let said = watched.said();
        let shown: Vec<_> = said
            .lines()
            .filter(|line| line.starts_with("shown "))
            .collect();
        for line in &shown {
            assert!(
                *line == "shown all" || all.iter().any(|all| all == line),
                "{fault:?}: {line}"
            );
        }
        if shown.len() == all.len() + 1 {
            break;
        }
        first += 1;
    }
    assert!(first > 5, "{first} reads failed");
}
