//! Disks that fail below the registry: what was acknowledged is there, what failed is an error, and nothing is taken for empty.
//!
//! `SYNC_DISK_ROUNDS` sets how many faults of each kind are made.
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

use disk::{Disk, EIO, ENOSPC, FOR_EVER, Fault, Recording, Watched};
use embedded::load::{
    self, Acknowledged, CALLS, DIRECTORY, FIRST_ORIGIN, WRITERS, eager, holds, name,
};
use embedded::{Directory, id, setting};
use sync_core::history::Seq;
use sync_core::ids::OriginId;
use sync_server::registry::{EmbeddedRegistry, RegistryError, ServerRegistry};

/// The process that writes; by itself it has nothing to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    load::run().await;
}

fn rounds() -> u64 {
    setting("SYNC_DISK_ROUNDS", 4)
}

/// What a process did that wrote to such a disk.
struct Written {
    watched: Watched,
    said: String,
    recording: Recording,
    acknowledged: Acknowledged,
}

fn write(fault: Fault) -> Option<Written> {
    let watched = Watched::new()?;
    let mut child = watched.child("child", Some(fault));
    child.env(DIRECTORY, watched.data()).env(CALLS, "40");
    let status = child.env(FIRST_ORIGIN, "1").status().unwrap();
    let said = watched.said();
    assert!(status.success(), "{fault:?}\n{said}");
    let mut acknowledged = Acknowledged::default();
    acknowledged.read_all(&said);
    Some(Written {
        recording: watched.recording(),
        watched,
        said,
        acknowledged,
    })
}

impl Written {
    /// What the process was answered when it asked for the last time.
    fn asked(&self) -> Vec<&str> {
        let lines = self.said.lines();
        lines
            .filter_map(|line| line.strip_prefix("asked "))
            .collect()
    }

    /// All that was acknowledged is there if the power is cut, and when the directory is opened again.
    async fn is_whole(&self, what: &str) {
        self.is_whole_on_disk(what).await;
        holds(&self.watched.data(), &self.acknowledged, what).await;
    }

    async fn is_whole_on_disk(&self, what: &str) {
        for seed in 0..6 {
            let mut disk = Disk::new(&self.recording, seed);
            disk.advance(self.recording.len());
            let image = Directory::new();
            let luck = disk.image(image.path());
            holds(
                &image.path().join("data"),
                &self.acknowledged,
                &format!("{what}, {luck}"),
            )
            .await;
        }
    }
}

/// Whose files may have no names after a power cut has nothing that anybody should be told.
#[tokio::test]
async fn a_directory_that_cannot_be_synced_is_not_opened() {
    let fault = Fault {
        kind: "sync-directory",
        first: 1,
        count: FOR_EVER,
        error: EIO,
    };
    let Some(written) = write(fault) else {
        return;
    };
    assert!(written.said.contains("cannot open"), "{}", written.said);
    written.is_whole("opened later").await;
}

/// The system forgets what it could not write, and says so once: no later sync is worth anything.
#[tokio::test]
async fn after_a_failed_sync_everything_is_refused_until_the_directory_is_opened_again() {
    let mut met = 0;
    for round in 0..3 * rounds() {
        let fault = Fault {
            kind: "sync",
            first: 1 + round * 15 / rounds(),
            count: 1,
            error: EIO,
        };
        let Some(written) = write(fault) else {
            return;
        };
        let what = format!("{fault:?}");
        let asking = written.recording.word("asking");
        if let (Some(failed), Some(asking)) = (written.recording.failed_sync(), asking)
            && failed < asking
        {
            met += 1;
            assert_eq!(
                written.asked(),
                ["unavailable"; 2],
                "{what}\n{}",
                written.said
            );
        }
        written.is_whole_on_disk(&what).await;

        // Whoever opens it again goes on from there, and may lose power too.
        let watched = &written.watched;
        let mut next = watched.child("child", None);
        next.env(DIRECTORY, watched.data()).env(CALLS, "5");
        assert!(next.env(FIRST_ORIGIN, "1001").status().unwrap().success());
        let recording = watched.recording();
        let mut disk = Disk::new(&recording, round.into());
        let mut acknowledged = Acknowledged::default();
        for moment in recording.moments(8, round) {
            acknowledged.read_all(&disk.advance(moment));
            let image = Directory::new();
            let luck = disk.image(image.path());
            let data = image.path().join("data");
            holds(&data, &acknowledged, &format!("{what}, then {luck}")).await;
        }
        acknowledged.read_all(&disk.advance(recording.len()));
        holds(&watched.data(), &acknowledged, &what).await;
    }
    assert!(met >= rounds(), "{met} syncs failed in time");
}

#[tokio::test]
async fn writes_that_fail_are_refused_and_lose_nothing_that_was_acknowledged() {
    let mut refused = 0;
    for round in 0..rounds() {
        for (kind, error, count) in [
            ("write", EIO, 1),
            ("write", ENOSPC, 1),
            ("write", ENOSPC, 40),
            ("write", ENOSPC, FOR_EVER),
            ("truncate", EIO, 1),
        ] {
            let first = match kind {
                "write" => 1 + round * 37 + round * round,
                _ => 1 + round,
            };
            let fault = Fault {
                kind,
                first,
                count,
                error,
            };
            let Some(written) = write(fault) else {
                return;
            };
            refused += u64::from(written.said.contains("refused"));
            written.is_whole(&format!("{fault:?}")).await;
        }
    }
    assert!(refused >= 2 * rounds(), "{refused} were refused");
}

/// A disk that is full for a while is nothing to open anything again for.
#[tokio::test]
async fn a_registry_whose_disk_was_full_goes_on_when_there_is_room_again() {
    let mut gone_on = 0;
    for round in 0..rounds() {
        let fault = Fault {
            kind: "write",
            first: 100 + round * 61,
            count: 1,
            error: ENOSPC,
        };
        let Some(written) = write(fault) else {
            return;
        };
        let refused = written.said.contains("refused unavailable");
        gone_on += u64::from(refused && written.asked() == ["in order"; 2]);
    }
    assert!(gone_on > 0);
}

const READS: &str = "SYNC_READS_DIRECTORY";

/// The process that reads; by itself it has nothing to do. Says `QUESTION = ANSWER`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_child() {
    let Ok(directory) = env::var(READS) else {
        return;
    };
    let registry = match EmbeddedRegistry::open(directory) {
        Ok(registry) => registry,
        Err(error) => return println!("cannot open: {error}"),
    };
    let say = |question: String, answer: Result<String, RegistryError>| match answer {
        Ok(answer) => println!("{question} = {answer}"),
        Err(error @ (RegistryError::Unavailable { .. } | RegistryError::Damaged { .. })) => {
            println!("{question}: {error}");
        }
        Err(error) => println!("{question} = {error:?}"),
    };
    let origins: Vec<_> = (1..=WRITERS).map(OriginId).collect();
    for document in 0..2 {
        let name = name(document);
        let document = id(&name);
        let meta = registry.meta(&document).await;
        let start = meta.as_ref().map_or(Seq::ZERO, |meta| meta.log_start);
        say(format!("meta {name}"), meta.map(|meta| format!("{meta:?}")));
        let tail = registry.tail(&document, start, usize::MAX).await;
        // Whose start is not known is not asked right.
        if start > Seq::ZERO {
            say(format!("tail {name}"), tail.map(|tail| format!("{tail:?}")));
        }
        let snapshot = registry.snapshot(&document).await;
        say(
            format!("snapshot {name}"),
            snapshot.map(|found| format!("{found:?}")),
        );
        let entries = registry.origins(&document, &origins).await;
        say(
            format!("origins {name}"),
            entries.map(|entries| format!("{entries:?}")),
        );
        let heads = registry.heads(&[document]).await;
        say(
            format!("heads {name}"),
            heads.map(|heads| format!("{heads:?}")),
        );
    }
    let list = registry.list(None, 100).await;
    say("list".to_owned(), list.map(|list| format!("{list:?}")));
}

/// What a process reads on such a disk.
fn read(directory: &Path, fault: Option<Fault>) -> Option<BTreeMap<String, String>> {
    let watched = Watched::new()?;
    for file in directory.read_dir().unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), watched.data().join(file.file_name())).unwrap();
    }
    let mut child = watched.child("reading_child", fault);
    let status = child.env(READS, watched.data()).status().unwrap();
    let said = watched.said();
    assert!(status.success(), "{fault:?}\n{said}");
    let answers = said.lines().filter_map(|line| line.split_once(" = "));
    Some(
        answers
            .map(|(question, answer)| (question.to_owned(), answer.to_owned()))
            .collect(),
    )
}

#[tokio::test]
async fn what_cannot_be_read_is_an_error_and_never_an_empty_document() {
    let Some(written) = Watched::new() else {
        return;
    };
    let mut child = written.child("child", None);
    child.env(DIRECTORY, written.data()).env(CALLS, "60");
    assert!(child.env(FIRST_ORIGIN, "1").status().unwrap().success());
    let truth = read(&written.data(), None).unwrap();
    assert_eq!(truth.len(), 11, "{truth:?}");
    let (mut missing, mut first) = (0, 1);
    loop {
        let fault = Fault {
            kind: "read",
            first,
            count: 1 + first % 3,
            error: EIO,
        };
        let answers = read(&written.data(), Some(fault)).unwrap();
        for (question, answer) in &answers {
            assert_eq!(answer, &truth[question], "{fault:?}: {question}");
        }
        if answers.len() == truth.len() {
            break;
        }
        missing += 1;
        first += 1;
    }
    assert!(missing > 10, "{missing} faults met a read");
    let registry = EmbeddedRegistry::open_with(written.data(), eager()).unwrap();
    registry.close().await.unwrap();
}
