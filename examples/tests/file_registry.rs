//! The registry of `custom_registry`: the conformance suite, and what a crash leaves behind.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sync_examples::file_registry::FileRegistry;
use sync_server::registry::*;

const EPOCH: Epoch = Epoch(7);

/// The path of a journal, which goes away with the test.
struct Journal(PathBuf);

impl Journal {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("sync-file-registry-{}-{n}", std::process::id())))
    }

    async fn open(&self) -> FileRegistry {
        FileRegistry::open(&self.0).await.unwrap()
    }

    fn write_at_the_end(&self, bytes: &[u8]) {
        OpenOptions::new()
            .append(true)
            .open(&self.0)
            .unwrap()
            .write_all(bytes)
            .unwrap();
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn id(name: &str) -> DocumentId {
    DocumentId::new(name).unwrap()
}

fn change(number: u64) -> NewChange {
    NewChange::new(
        ChangeId {
            origin: OriginId(1 << 100),
            number,
        },
        User::new("ada"),
        vec![0, 255, b'\n'].into(),
    )
}

async fn create(registry: &FileRegistry, name: &str) {
    let mut document = NewDocument::new(id(name), EngineId::YRS, EPOCH);
    document.mode = EpochMode::Discard;
    registry.create(document).await.unwrap();
}

async fn append(registry: &FileRegistry, numbers: std::ops::RangeInclusive<u64>) -> Vec<Outcome> {
    registry
        .append(&id("notes"), EPOCH, None, numbers.map(change).collect())
        .await
        .unwrap()
}

/// Scenario 62: a custom registry passes the conformance suite.
#[tokio::test]
async fn it_keeps_every_promise() {
    let journals = Mutex::new(Vec::new());
    let open = || async {
        let journal = Journal::new();
        let registry = journal.open().await;
        journals.lock().unwrap().push(journal);
        registry
    };
    conformance::run(open).await.unwrap();
}

#[tokio::test]
async fn everything_is_there_again_after_opening() {
    let journal = Journal::new();
    let registry = journal.open().await;
    create(&registry, "notes").await;
    create(&registry, "gone").await;
    append(&registry, 1..=5).await;
    registry.delete(&id("gone")).await.unwrap();
    let Tail::Changes { digest, .. } = registry.tail(&id("notes"), Seq(4), 0).await.unwrap() else {
        panic!()
    };
    let snapshot = Snapshot::new(Seq(4), digest, "four".into());
    registry
        .compact(&id("notes"), EPOCH, snapshot, Seq(3))
        .await
        .unwrap();
    let answers = async |registry: &FileRegistry| {
        let notes = id("notes");
        (
            registry.list(None, 10).await.unwrap(),
            registry.tail(&notes, Seq(3), usize::MAX).await.unwrap(),
            registry.snapshot(&notes).await.unwrap(),
            registry
                .origins(&notes, &[OriginId(1 << 100)])
                .await
                .unwrap(),
        )
    };
    let before = answers(&registry).await;
    drop(registry);

    let registry = journal.open().await;
    assert_eq!(answers(&registry).await, before);
    let gone = registry.meta(&id("gone")).await;
    assert!(matches!(gone, Err(RegistryError::Deleted)), "{gone:?}");
    assert_eq!(append(&registry, 6..=6).await, [Outcome::At(Seq(6))]);
}

#[tokio::test]
async fn a_document_that_started_with_a_snapshot_does_so_again() {
    let journal = Journal::new();
    let mut document = NewDocument::new(id("notes"), EngineId::YRS, EPOCH);
    document.snapshot = Some(Snapshot::new(Seq(9), Digest(u64::MAX), "restored".into()));
    let meta = journal.open().await.create(document.clone()).await.unwrap();
    let registry = journal.open().await;
    assert_eq!(registry.meta(&id("notes")).await.unwrap(), meta);
    assert_eq!(
        registry.snapshot(&id("notes")).await.unwrap(),
        document.snapshot
    );
}

#[tokio::test]
async fn a_line_cut_off_by_a_crash_was_never_answered_and_goes_away() {
    let journal = Journal::new();
    let registry = journal.open().await;
    create(&registry, "notes").await;
    append(&registry, 1..=2).await;
    drop(registry);
    journal.write_at_the_end(br#"{"Appended":{"document":"no"#);

    let registry = journal.open().await;
    assert_eq!(append(&registry, 3..=3).await, [Outcome::At(Seq(3))]);
    drop(registry);
    assert_eq!(
        journal.open().await.meta(&id("notes")).await.unwrap().head,
        Seq(3)
    );
}

#[tokio::test]
async fn a_damaged_journal_is_an_error_and_not_an_empty_registry() {
    for damage in ["not json", r#"{"Deleted":{"document":"missing"}}"#] {
        let journal = Journal::new();
        create(&journal.open().await, "notes").await;
        journal.write_at_the_end(damage.as_bytes());
        journal.write_at_the_end(b"\n");
        assert!(FileRegistry::open(&journal.0).await.is_err(), "{damage}");
    }
}
