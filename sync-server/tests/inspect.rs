//! `sync-server inspect`, as an operator runs it: the real program, its output and its exit codes.
#![cfg(feature = "bin")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod embedded;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rusqlite::Connection;
use serde_json::Value;
use sync_server::registry::{
    Digest, EmbeddedRegistry, EpochMode, Outcome, RegistryError, Seq, ServerRegistry, Snapshot,
    StoredChange, Tail,
};

use embedded::{Directory, EPOCH, change, id, log, new};

/// Runs `sync-server inspect DIRECTORY ARGUMENTS`.
fn inspect(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sync-server"))
        .arg("inspect")
        .arg(directory)
        .args(arguments)
        .output()
        .unwrap()
}

/// What it printed, once it has ended well.
fn printed(directory: &Path, arguments: &[&str]) -> String {
    let output = inspect(directory, arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(directory: &Path, arguments: &[&str]) -> Vec<Value> {
    printed(directory, arguments)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The error, and the exit code that goes with it.
fn fails(directory: &Path, arguments: &[&str], code: i32) -> String {
    let output = inspect(directory, arguments);
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(!error.is_empty());
    error
}

async fn append(registry: &EmbeddedRegistry, name: &str, numbers: std::ops::RangeInclusive<u64>) {
    let changes: Vec<_> = numbers.map(|number| change(1, number)).collect();
    let n = changes.len();
    let epoch = registry.meta(&id(name)).await.unwrap().epoch;
    let outcomes = registry.append(&id(name), epoch, None, changes).await;
    assert_eq!(outcomes.unwrap().len(), n);
}

/// `a/1` with a snapshot at 4 and the rows 3 to 7; `b` with three rows, and `gone`, a tombstone.
async fn filled(directory: &Path) -> EmbeddedRegistry {
    let registry = EmbeddedRegistry::open(directory).unwrap();
    for name in ["a/1", "b", "gone"] {
        registry.create(new(name)).await.unwrap();
        append(&registry, name, 1..=2).await;
        append(&registry, name, 3..=3).await;
    }
    append(&registry, "a/1", 4..=7).await;
    registry.delete(&id("gone")).await.unwrap();
    let Tail::Changes { digest, .. } = registry.tail(&id("a/1"), Seq(4), 0).await.unwrap() else {
        panic!("no tail")
    };
    let snapshot = Snapshot::new(Seq(4), digest, vec![7; 200_000].into());
    registry
        .compact(&id("a/1"), EPOCH, snapshot, Seq(2))
        .await
        .unwrap();
    registry
}

#[tokio::test]
async fn it_lists_and_shows_documents_also_while_a_server_has_the_directory_open() {
    let directory = Directory::new();
    let registry = filled(directory.path()).await;
    let table = printed(directory.path(), &[]);
    assert_eq!(table.lines().count(), 4, "{table}");
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(lines[1][..4], ["opaque", "0000000000000007", "7", "5"]);
    assert_eq!(lines[1][6..], ["4", "195.3", "KiB", "\"a/1\""]);
    assert_eq!(lines[2][2..4], ["3", "3"]);
    assert_eq!(lines[3][8..], ["B", "\"gone\"", "(deleted)"]);
    // What was appended a moment ago is there.
    append(&registry, "b", 4..=9).await;
    let listed = json(directory.path(), &["--json"]);
    assert_eq!(listed.len(), 3);
    let of = |name: &str, key: &str| {
        let found = listed.iter().find(|object| object["id"] == name);
        found.unwrap()[key].clone()
    };
    assert_eq!(of("a/1", "head"), 7);
    assert_eq!(of("a/1", "log_changes"), 5);
    assert_eq!(of("a/1", "snapshot_seq"), 4);
    assert_eq!(of("a/1", "snapshot_bytes"), 200_000);
    assert_eq!(of("a/1", "epoch"), "0000000000000007");
    assert_eq!(of("b", "head"), 9);
    assert!(of("b", "log_bytes").as_u64().unwrap() > 0);
    assert_eq!(of("gone", "deleted"), true);

    let shown = json(directory.path(), &["show", "a/1", "--json"]);
    let meta = registry.meta(&id("a/1")).await.unwrap();
    assert_eq!(shown[0]["digest"], format!("{:016x}", meta.digest.0));
    assert_eq!(shown[0]["origins"][0]["last"], 7);
    assert_eq!(shown[0]["origins"][0]["user"], "ada");
    assert_eq!(shown[0]["wrong"], Value::Null);
    let text = printed(directory.path(), &["show", "a/1"]);
    assert!(text.contains("verified  sequences"), "{text}");
    let text = printed(directory.path(), &["show", "gone"]);
    assert!(text.contains("it has been deleted"), "{text}");
    let text = printed(directory.path(), &["check"]);
    assert_eq!(text, "3 documents, all whole\n");
    // Nothing of this was in the server's way.
    append(&registry, "b", 10..=10).await;
    registry.close().await.unwrap();
    assert_eq!(json(directory.path(), &["--json"]), {
        let mut later = listed.clone();
        later[1] = json(directory.path(), &["show", "b", "--json"])[0].clone();
        let object = later[1].as_object_mut().unwrap();
        for key in ["origins", "wrong", "log_start_digest"] {
            object.remove(key);
        }
        later
    });
}

#[tokio::test]
async fn an_exported_document_is_imported_under_a_new_epoch() {
    let directory = Directory::new();
    let registry = filled(directory.path()).await;
    let file = directory.path().join("a.syncdoc");
    let file = file.to_str().unwrap();
    let (before, rows) = (
        registry.meta(&id("a/1")).await.unwrap(),
        log(&registry, "a/1").await,
    );
    // Beside the server.
    printed(directory.path(), &["export", "a/1", file]);
    let error = fails(directory.path(), &["export", "a/1", file], 4);
    assert!(error.contains("--replace"), "{error}");
    printed(directory.path(), &["export", "a/1", file, "--replace"]);

    let other = Directory::new();
    printed(other.path(), &["import", "a/1", file]);
    printed(other.path(), &["import", "copy", file]);
    let copy = EmbeddedRegistry::open(other.path()).unwrap();
    let meta = copy.meta(&id("a/1")).await.unwrap();
    assert_ne!(meta.epoch, EPOCH);
    assert_eq!(meta.mode, EpochMode::Merge);
    assert_eq!(
        (meta.head, meta.digest, meta.log_start, meta.snapshot_seq),
        (before.head, before.digest, Seq(2), Seq(4))
    );
    assert_eq!(log(&copy, "a/1").await, rows);
    let snapshot = copy.snapshot(&id("a/1")).await.unwrap().unwrap();
    assert_eq!(snapshot.bytes.len(), 200_000);
    // The table of origins came with it.
    let repeat = copy
        .append(&meta.id, meta.epoch, None, vec![change(1, 1)])
        .await;
    let duplicate = Outcome::Duplicate { last: 7, seq: None };
    assert_eq!(repeat.unwrap(), [duplicate]);
    // Under another name it is another document, in which whoever made these changes begins at 1 again.
    let meta = copy.meta(&id("copy")).await.unwrap();
    assert_eq!((meta.head, meta.digest), (before.head, before.digest));
    let first = copy.append(&meta.id, meta.epoch, None, vec![change(1, 1)]);
    assert_eq!(first.await.unwrap(), [Outcome::At(before.head.next())]);
    copy.close().await.unwrap();

    // Over what is there only when asked, and never while a server has it.
    let error = fails(directory.path(), &["import", "b", file, "--replace"], 5);
    assert!(error.contains("in use"), "{error}");
    registry.close().await.unwrap();
    drop(registry);
    for name in ["b", "gone"] {
        let error = fails(directory.path(), &["import", name, file], 4);
        assert!(error.contains("--replace"), "{error}");
        let arguments = ["import", name, file, "--replace", "--mode", "discard"];
        printed(directory.path(), &arguments);
        let registry = EmbeddedRegistry::open(directory.path()).unwrap();
        let meta = registry.meta(&id(name)).await.unwrap();
        assert_eq!((meta.head, meta.mode), (Seq(7), EpochMode::Discard));
        let found = log(&registry, name).await;
        let content = |rows: &[StoredChange]| -> Vec<_> {
            rows.iter().map(|row| (row.seq, row.digest)).collect()
        };
        assert_eq!(content(&found), content(&rows));
        let fenced = registry
            .append(&meta.id, EPOCH, None, vec![change(1, 8)])
            .await;
        assert!(
            matches!(fenced, Err(RegistryError::Fenced { .. })),
            "{fenced:?}"
        );
    }
    printed(directory.path(), &["check"]);
}

#[tokio::test]
async fn what_is_not_there_and_what_is_used_wrongly_has_its_exit_code() {
    let directory = Directory::new();
    filled(directory.path()).await.close().await.unwrap();
    let missing = fails(directory.path(), &["show", "missing"], 3);
    assert!(missing.contains("no such document"), "{missing}");
    fails(directory.path(), &["export", "missing", "/dev/null"], 3);
    let deleted = fails(directory.path(), &["export", "gone", "/nowhere"], 3);
    assert!(deleted.contains("deleted"), "{deleted}");
    fails(directory.path(), &["show", ""], 2);
    fails(directory.path(), &["frobnicate"], 2);
    fails(
        directory.path(),
        &["export", "a/1", "/no/such/folder/file"],
        1,
    );
    fails(directory.path(), &["import", "c", "/no/such/file"], 1);
    let nothing = Directory::new();
    let error = fails(nothing.path(), &[], 1);
    assert!(error.contains("sync.db"), "{error}");
    assert_eq!(fs::read_dir(nothing.path()).unwrap().count(), 0);
    let help = Command::new(env!("CARGO_BIN_EXE_sync-server"))
        .arg("--help")
        .output()
        .unwrap();
    assert_eq!(help.status.code(), Some(0));
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("Exit codes") && help.contains("inspect"));
}

#[tokio::test]
async fn newer_formats_and_garbage_are_told_apart() {
    let directory = Directory::new();
    filled(directory.path()).await.close().await.unwrap();
    let file = directory.path().join("a.syncdoc");
    let name = file.to_str().unwrap();
    printed(directory.path(), &["export", "a/1", name]);
    let good = fs::read(&file).unwrap();
    let import = |bytes: &[u8], code| {
        fs::write(&file, bytes).unwrap();
        fails(directory.path(), &["import", "c", name], code)
    };
    import(b"garbage", 7);
    import(b"", 7);
    import(&good[..good.len() - 1], 7);
    let mut changed = good.clone();
    changed[good.len() / 2] ^= 1;
    assert!(import(&changed, 7).contains("section"));
    let mut newer = good.clone();
    newer[8] = 9;
    assert!(import(&newer, 6).contains("format 9"));
    fails(directory.path(), &["show", "c"], 3);

    let database = directory.path().join("sync.db");
    let sql = |sql: &str| Connection::open(&database).unwrap().execute_batch(sql);
    sql("PRAGMA user_version = 99").unwrap();
    for arguments in [&[][..], &["check"], &["import", "c", name]] {
        let error = fails(directory.path(), arguments, 6);
        assert!(
            error.contains("99") || error.contains("format 9"),
            "{error}"
        );
    }
    fs::write(
        &database,
        "not a database, but a file that is long enough for a header",
    )
    .unwrap();
    let _ = fs::remove_file(directory.path().join("sync.db-wal"));
    fails(directory.path(), &[], 7);
}

#[tokio::test]
async fn damage_is_found_and_named_and_an_import_mends_it() {
    let directory = Directory::new();
    let registry = filled(directory.path()).await;
    registry.close().await.unwrap();
    let file = directory.path().join("b.syncdoc");
    let name = file.to_str().unwrap();
    printed(directory.path(), &["export", "b", name]);
    for damage in [
        "UPDATE journal SET changes = zeroblob(length(changes)) WHERE doc = 2",
        "DELETE FROM journal WHERE doc = 2 AND seq = 1",
        "UPDATE documents SET start_digest = 5 WHERE id = 'b'",
    ] {
        let copy = Directory::copy_of(directory.path());
        let database = Connection::open(copy.path().join("sync.db")).unwrap();
        let touched = database.execute(damage, []).unwrap();
        drop(database);
        assert!(touched > 0, "{damage}");
        let output = inspect(copy.path(), &["check"]);
        assert_eq!(output.status.code(), Some(7), "{damage}: {output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.starts_with("b: "), "{damage}: {said}");
        assert_eq!(said.lines().count(), 1, "{damage}: {said}");
        fails(copy.path(), &["show", "b"], 7);
        fails(copy.path(), &["export", "b", "/nowhere"], 7);
        printed(copy.path(), &["show", "a/1"]);
        printed(copy.path(), &["import", "b", name, "--replace"]);
        printed(copy.path(), &["check"]);
        let registry = EmbeddedRegistry::open(copy.path()).unwrap();
        assert_eq!(log(&registry, "b").await.len(), 3, "{damage}");
        append(&registry, "b", 4..=4).await;
        let digest = registry.meta(&id("b")).await.unwrap().digest;
        assert_ne!(digest, Digest::EMPTY);
    }
}
