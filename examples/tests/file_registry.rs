//! The registry of `custom_registry`: the conformance suite, and what a crash leaves behind.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use sync_examples::file_registry::FileRegistry;
use sync_server::registry::*;

const EPOCH: Epoch = Epoch(7);

/// A directory, which goes away with the test.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("sync-file-registry-{}-{n}", std::process::id())))
    }

    async fn open(&self) -> FileRegistry {
        FileRegistry::open(&self.0).await.unwrap()
    }

    /// The file of the `n`th document, from 1.
    fn file(&self, n: usize) -> PathBuf {
        self.0.join(n.to_string())
    }

    fn write_at_the_end(&self, bytes: &[u8]) {
        OpenOptions::new()
            .append(true)
            .open(self.file(1))
            .unwrap()
            .write_all(bytes)
            .unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
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

/// Scenario 62: a custom registry passes the conformance suite, opened again and again, and cut short wherever it waits.
#[tokio::test]
async fn it_keeps_every_promise() {
    let open = async |directory: &Directory| directory.open().await;
    conformance::run_with_crashes(async || Directory::new(), open)
        .await
        .unwrap();
}

#[tokio::test]
async fn everything_is_there_again_after_opening() {
    let directory = Directory::new();
    let registry = directory.open().await;
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

    let registry = directory.open().await;
    assert_eq!(answers(&registry).await, before);
    let gone = registry.meta(&id("gone")).await;
    assert!(matches!(gone, Err(RegistryError::Deleted)), "{gone:?}");
    assert_eq!(append(&registry, 6..=6).await, [Outcome::At(Seq(6))]);
}

#[tokio::test]
async fn a_document_that_started_with_a_snapshot_does_so_again() {
    let directory = Directory::new();
    let mut document = NewDocument::new(id("notes"), EngineId::YRS, EPOCH);
    document.snapshot = Some(Snapshot::new(Seq(9), Digest(u64::MAX), "restored".into()));
    let meta = directory
        .open()
        .await
        .create(document.clone())
        .await
        .unwrap();
    let registry = directory.open().await;
    assert_eq!(registry.meta(&id("notes")).await.unwrap(), meta);
    assert_eq!(
        registry.snapshot(&id("notes")).await.unwrap(),
        document.snapshot
    );
}

#[tokio::test]
async fn a_line_cut_off_by_a_crash_was_never_answered_and_goes_away() {
    let directory = Directory::new();
    let registry = directory.open().await;
    create(&registry, "notes").await;
    append(&registry, 1..=2).await;
    drop(registry);
    directory.write_at_the_end(br#"{"Append":[7,[[1"#);

    let registry = directory.open().await;
    assert_eq!(append(&registry, 3..=3).await, [Outcome::At(Seq(3))]);
    drop(registry);
    let registry = directory.open().await;
    assert_eq!(registry.meta(&id("notes")).await.unwrap().head, Seq(3));
}

#[tokio::test]
async fn a_document_whose_first_line_was_cut_off_was_never_created() {
    let directory = Directory::new();
    create(&directory.open().await, "notes").await;
    fs::write(directory.file(1), br#"{"Create":["no"#).unwrap();
    let registry = directory.open().await;
    let missing = registry.meta(&id("notes")).await;
    assert!(
        matches!(missing, Err(RegistryError::NotFound)),
        "{missing:?}"
    );
    create(&registry, "notes").await;
    append(&registry, 1..=2).await;
    drop(registry);
    let registry = directory.open().await;
    assert_eq!(registry.meta(&id("notes")).await.unwrap().head, Seq(2));
}

#[tokio::test]
async fn a_damaged_file_is_an_error_and_not_a_document_that_lacks_something() {
    let create_again = r#"{"Create":["notes","yrs",7,0,null]}"#;
    let skipped = r#"{"Append":[7,[[1,9,"ada",[]]]]}"#;
    let stale = r#"{"Append":[8,[[1,1,"ada",[]]]]}"#;
    for damage in ["not json", create_again, skipped, stale] {
        let directory = Directory::new();
        create(&directory.open().await, "notes").await;
        directory.write_at_the_end(damage.as_bytes());
        directory.write_at_the_end(b"\n");
        assert!(FileRegistry::open(&directory.0).await.is_err(), "{damage}");
    }
}

#[tokio::test]
async fn after_a_failed_write_it_answers_nothing_until_opened_again() {
    let directory = Directory::new();
    let registry = directory.open().await;
    create(&registry, "notes").await;
    // No file can be written there.
    fs::rename(directory.file(1), directory.0.join("moved")).unwrap();
    fs::create_dir(directory.file(1)).unwrap();
    let document = id("notes");
    let append = || registry.append(&document, EPOCH, None, vec![change(1)]);
    let failed = append().await;
    assert!(
        matches!(failed, Err(RegistryError::Unknown { .. })),
        "{failed:?}"
    );
    let (refused, read) = (append().await, registry.meta(&document).await);
    for refused in [refused.map(drop), read.map(drop)] {
        assert!(
            matches!(refused, Err(RegistryError::Unavailable { .. })),
            "{refused:?}"
        );
    }
}
