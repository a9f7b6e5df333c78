//! What the registry on disk keeps, and refuses, from one opening to the next.
#![cfg(feature = "embedded")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod embedded;

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use sync_core::history::{Digest, Seq};
use sync_core::ids::OriginId;
use sync_core::rng::Rng;
use sync_server::registry::{
    EmbeddedOptions, EmbeddedRegistry, NewChange, OpenError, Outcome, RegistryError,
    ServerRegistry, Snapshot, Tail,
};

use embedded::{Directory, EPOCH, change, id, log, new};

const LONG: Duration = Duration::from_secs(60);

async fn append(registry: &EmbeddedRegistry, name: &str, changes: &[NewChange]) -> Vec<Outcome> {
    registry
        .append(&id(name), EPOCH, None, changes.to_vec())
        .await
        .unwrap()
}

/// Two documents: `a` with a snapshot and the rows 3 to 7, in journal and log, and `b` with three rows; and one that was
/// deleted.
async fn filled(directory: &Path) -> EmbeddedRegistry {
    let registry = EmbeddedRegistry::open(directory).unwrap();
    for name in ["a", "b", "gone"] {
        registry.create(new(name)).await.unwrap();
    }
    append(&registry, "a", &[change(1, 1), change(1, 2), change(2, 1)]).await;
    append(&registry, "gone", &[change(1, 1)]).await;
    registry.maintain(LONG).await.unwrap();
    append(&registry, "a", &[change(1, 3), change(1, 4)]).await;
    append(&registry, "b", &[change(1, 1), change(1, 2), change(3, 1)]).await;
    append(&registry, "a", &[change(2, 2), change(3, 1)]).await;
    registry.delete(&id("gone")).await.unwrap();
    let Tail::Changes { digest, .. } = registry.tail(&id("a"), Seq(4), 0).await.unwrap() else {
        panic!("no tail")
    };
    let snapshot = Snapshot::new(Seq(4), digest, vec![7; 200_000].into());
    registry
        .compact(&id("a"), EPOCH, snapshot, Seq(2))
        .await
        .unwrap();
    registry
}

/// All that a registry says of the documents of `filled`.
async fn everything(registry: &EmbeddedRegistry) -> String {
    let mut all = String::new();
    for meta in registry.list(None, 100).await.unwrap() {
        let rows = log(registry, meta.id.as_str()).await;
        let snapshot = registry.snapshot(&meta.id).await.unwrap();
        let origins = [1, 2, 3, 4].map(OriginId);
        let origins = registry.origins(&meta.id, &origins).await.unwrap();
        all += &format!("{meta:?} {rows:?} {snapshot:?} {origins:?}\n");
    }
    all
}

#[tokio::test]
async fn everything_is_there_after_it_was_closed_or_dropped_and_opened_again() {
    for closes in [true, false] {
        for tidies in [true, false] {
            let directory = Directory::new();
            let registry = filled(directory.path()).await;
            if tidies {
                registry.maintain(LONG).await.unwrap();
            }
            let before = everything(&registry).await;
            if closes {
                registry.close().await.unwrap();
            }
            drop(registry);
            let registry = EmbeddedRegistry::open(directory.path()).unwrap();
            assert_eq!(everything(&registry).await, before);
            let deleted = registry.create(new("gone")).await;
            assert!(
                matches!(deleted, Err(RegistryError::Deleted)),
                "{deleted:?}"
            );
            assert_eq!(
                append(&registry, "a", &[change(1, 5)]).await,
                [Outcome::At(Seq(8))]
            );
        }
    }
}

#[tokio::test]
async fn repeats_are_recognised_wherever_the_first_ones_are_kept() {
    let directory = Directory::new();
    drop(filled(directory.path()).await);
    let registry = EmbeddedRegistry::open(directory.path()).unwrap();
    for tidies in [false, true] {
        if tidies {
            registry.maintain(LONG).await.unwrap();
        }
        let mut forged = change(1, 3);
        forged.bytes = "other".into();
        let repeats = [change(1, 1), change(1, 3), forged, change(2, 2)];
        let at = |last, seq: u64| Outcome::Duplicate {
            last,
            seq: Some(Seq(seq)),
        };
        let outcomes = append(&registry, "a", &repeats).await;
        let dropped = Outcome::Duplicate { last: 4, seq: None };
        assert_eq!(outcomes, [dropped, at(4, 4), Outcome::IdReused, at(2, 6)]);
    }
}

#[tokio::test]
async fn tidying_up_moves_all_rows_and_leaves_nothing_behind() {
    let directory = Directory::new();
    let registry = filled(directory.path()).await;
    let count = |table: &str| -> i64 {
        let database = Connection::open(directory.path().join("sync.db")).unwrap();
        let count = format!("SELECT count(*) FROM {table}");
        database.query_row(&count, [], |row| row.get(0)).unwrap()
    };
    assert_ne!(count("journal"), 0);
    let before = everything(&registry).await;
    registry.maintain(LONG).await.unwrap();
    assert_eq!(everything(&registry).await, before);
    assert_eq!((count("journal"), count("garbage")), (0, 0));
    assert_eq!(count("snapshots"), 1);
    let of_deleted = "log JOIN documents USING (doc) WHERE deleted";
    assert_eq!(count(of_deleted), 0);
}

#[tokio::test]
async fn a_directory_belongs_to_one_registry_at_a_time() {
    let directory = Directory::new();
    let registry = EmbeddedRegistry::open(directory.path()).unwrap();
    let second = EmbeddedRegistry::open(directory.path()).unwrap_err();
    assert!(
        matches!(&second, OpenError::InUse { path } if path == directory.path()),
        "{second}"
    );
    registry.close().await.unwrap();
    EmbeddedRegistry::open(directory.path()).unwrap();
}

#[tokio::test]
async fn a_closed_registry_refuses_everything() {
    let directory = Directory::new();
    let registry = filled(directory.path()).await;
    registry.close().await.unwrap();
    let unavailable = |result: Result<(), RegistryError>| {
        assert!(
            matches!(result, Err(RegistryError::Unavailable { .. })),
            "{result:?}"
        );
    };
    unavailable(registry.meta(&id("a")).await.map(drop));
    let changes = vec![change(1, 5)];
    unavailable(
        registry
            .append(&id("a"), EPOCH, None, changes)
            .await
            .map(drop),
    );
    unavailable(registry.maintain(LONG).await);
}

#[tokio::test]
async fn another_format_and_another_programs_database_are_refused_and_kept() {
    let directory = Directory::new();
    drop(filled(directory.path()).await);
    let database = || Connection::open(directory.path().join("sync.db")).unwrap();
    for (format, what) in [(3, "reads up to 2"), (1, "reads 2")] {
        database()
            .pragma_update(None, "user_version", format)
            .unwrap();
        let other = EmbeddedRegistry::open(directory.path()).unwrap_err();
        assert_eq!(
            other.to_string(),
            format!("the data has format {format}, this program {what}")
        );
    }
    database().pragma_update(None, "user_version", 2).unwrap();
    database().pragma_update(None, "application_id", 1).unwrap();
    let foreign = EmbeddedRegistry::open(directory.path()).unwrap_err();
    assert!(matches!(foreign, OpenError::Foreign { .. }), "{foreign}");
}

#[tokio::test]
async fn a_database_that_is_gone_or_not_one_is_not_taken_for_an_empty_one() {
    let directory = Directory::new();
    filled(directory.path()).await.close().await.unwrap();
    let path = directory.path().join("sync.db");
    // Two connections that close at once may each leave the write-ahead log to the other, and with it alone the database
    // can be put together again: which would be right, and is not what this is about.
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "wal_checkpoint", "TRUNCATE")
        .unwrap();
    let damaged = |what: &str| {
        let error = EmbeddedRegistry::open(directory.path()).unwrap_err();
        assert!(
            matches!(error, OpenError::Damaged { .. }),
            "{what}: {error}"
        );
    };
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..1000]).unwrap();
    damaged("cut");
    fs::write(&path, vec![0xa5; 50_000]).unwrap();
    damaged("overwritten");
    fs::write(&path, "").unwrap();
    damaged("empty");
    fs::remove_file(&path).unwrap();
    damaged("removed");
    fs::write(&path, &bytes).unwrap();
    let registry = EmbeddedRegistry::open(directory.path()).unwrap();
    assert_eq!(log(&registry, "a").await.len(), 5);
}

/// Does something to the database of `filled`, and opens it again.
async fn damaged_by(sql: &str, tidies: bool) -> (Directory, EmbeddedRegistry) {
    let directory = Directory::new();
    let registry = filled(directory.path()).await;
    if tidies {
        registry.maintain(LONG).await.unwrap();
    }
    registry.close().await.unwrap();
    let database = Connection::open(directory.path().join("sync.db")).unwrap();
    assert_ne!(database.execute(sql, []).unwrap(), 0, "{sql}");
    drop(database);
    let registry = EmbeddedRegistry::open(directory.path()).unwrap();
    (directory, registry)
}

#[tokio::test]
async fn a_document_with_damaged_rows_is_refused_and_the_others_are_served() {
    let of_a = "doc = (SELECT doc FROM documents WHERE id = 'a')";
    for (table, tidies) in [("journal", false), ("log", true)] {
        for damage in [
            format!(
                "UPDATE {table} SET changes = zeroblob(length(changes)) WHERE {of_a} AND seq = 4"
            ),
            format!("UPDATE {table} SET changes = substr(changes, 1, 20) WHERE {of_a} AND seq = 4"),
            format!("UPDATE {table} SET n = n + 1 WHERE {of_a} AND seq = 4"),
            format!("UPDATE {table} SET digest = digest + 1 WHERE {of_a} AND seq = 4"),
            format!("DELETE FROM {table} WHERE {of_a} AND seq = 4"),
        ] {
            let (_directory, registry) = damaged_by(&damage, tidies).await;
            let tail = registry.tail(&id("a"), Seq(2), 100_000).await;
            assert!(
                matches!(tail, Err(RegistryError::Damaged { .. })),
                "{damage}: {tail:?}"
            );
            assert_eq!(log(&registry, "b").await.len(), 3, "{damage}");
            assert_eq!(
                append(&registry, "b", &[change(1, 3)]).await,
                [Outcome::At(Seq(4))]
            );
            let heads = registry.heads(&[id("a"), id("b")]).await.unwrap();
            assert_eq!(heads[1].unwrap().seq, Seq(4));
        }
    }
}

/// For whoever repairs them; and they do not keep others' rows from being moved.
#[tokio::test]
async fn rows_of_a_damaged_document_are_left_where_they_are() {
    let of_a = "doc = (SELECT doc FROM documents WHERE id = 'a')";
    for damage in [
        format!("UPDATE journal SET changes = zeroblob(100) WHERE {of_a} AND seq = 4"),
        format!("DELETE FROM journal WHERE {of_a} AND seq = 4"),
    ] {
        let (directory, registry) = damaged_by(&damage, false).await;
        let count = |of: &str| -> i64 {
            let database = Connection::open(directory.path().join("sync.db")).unwrap();
            let count = format!("SELECT count(*) FROM journal WHERE {of}");
            database.query_row(&count, [], |row| row.get(0)).unwrap()
        };
        let before = count(of_a);
        assert_ne!(before, 0);
        registry.maintain(LONG).await.unwrap();
        assert_eq!((count(of_a), count("true")), (before, before), "{damage}");
        assert_eq!(log(&registry, "b").await.len(), 3);
        let append = registry
            .append(&id("a"), EPOCH, None, vec![change(9, 1)])
            .await;
        assert!(
            matches!(append, Err(RegistryError::Damaged { .. })),
            "{append:?}"
        );
    }
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused() {
    for damage in [
        "UPDATE parts SET bytes = zeroblob(length(bytes)) WHERE part = 1",
        "DELETE FROM parts WHERE part = 3",
        "DELETE FROM snapshots",
    ] {
        let (_directory, registry) = damaged_by(damage, true).await;
        let snapshot = registry.snapshot(&id("a")).await;
        assert!(
            matches!(snapshot, Err(RegistryError::Damaged { .. })),
            "{damage}: {snapshot:?}"
        );
    }
}

/// The server then has fewer changes than its clients, who find that out.
#[tokio::test]
async fn a_directory_restored_from_a_copy_is_an_older_state_of_the_same_history() {
    let directory = Directory::new();
    let registry = EmbeddedRegistry::open(directory.path()).unwrap();
    registry.create(new("a")).await.unwrap();
    append(&registry, "a", &[change(1, 1), change(1, 2)]).await;
    let old = Directory::copy_of(directory.path());
    append(&registry, "a", &[change(1, 3)]).await;
    drop(registry);
    let restored = EmbeddedRegistry::open(old.path()).unwrap();
    let meta = restored.meta(&id("a")).await.unwrap();
    assert_eq!((meta.epoch, meta.head), (EPOCH, Seq(2)));
    assert_eq!(log(&restored, "a").await.len(), 2);
    let outcome = append(&restored, "a", &[change(2, 1), change(1, 3)]).await;
    assert_eq!(outcome, [Outcome::At(Seq(3)), Outcome::At(Seq(4))]);
}

/// What a power cut leaves: the write-ahead log cut anywhere, and rubbish after it. What was synced by then is there.
#[tokio::test]
async fn a_torn_write_ahead_log_leaves_all_that_was_written_before_the_tear() {
    let directory = Directory::new();
    let registry = EmbeddedRegistry::open(directory.path()).unwrap();
    registry.create(new("a")).await.unwrap();
    registry.maintain(LONG).await.unwrap();
    let wal = directory.path().join("sync.db-wal");
    // Length of the log once so many changes were acknowledged.
    let mut acknowledged = vec![(0, 0)];
    for number in 1..=30 {
        append(&registry, "a", &[change(1, number)]).await;
        acknowledged.push((number, written(&wal)));
    }
    let copy = Directory::copy_of(directory.path());
    drop(registry);
    let whole = fs::read(copy.path().join("sync.db-wal")).unwrap();
    let database = fs::read(copy.path().join("sync.db")).unwrap();
    let end = acknowledged.last().unwrap().1;
    let mut rng = Rng::new(3);
    for round in 0..40 {
        let cut = usize::try_from(rng.next_u64() % (u64::try_from(end).unwrap() + 1)).unwrap();
        let mut torn = whole[..cut].to_vec();
        if round % 2 == 0 {
            torn.extend((0..5_000).map(|_| rng.next_u64().to_le_bytes()[0]));
        }
        let copy = Directory::new();
        fs::write(copy.path().join("sync.db"), &database).unwrap();
        fs::write(copy.path().join("sync.db-wal"), &torn).unwrap();
        let registry = EmbeddedRegistry::open(copy.path()).unwrap();
        let rows = log(&registry, "a").await.len();
        let promised = acknowledged.iter().rfind(|(_, length)| *length <= cut);
        assert!(
            u64::try_from(rows).unwrap() >= promised.unwrap().0,
            "{rows} rows, {promised:?}, cut at {cut}"
        );
        let next = u64::try_from(rows).unwrap() + 1;
        let outcome = append(&registry, "a", &[change(1, next)]).await;
        assert_eq!(outcome, [Outcome::At(Seq(next))]);
    }
}

/// How far the frames of a log go that has not begun again since it was made or emptied.
fn written(wal: &Path) -> usize {
    let bytes = fs::read(wal).unwrap();
    let salts = &bytes[16..24];
    let frames = bytes[32..].chunks_exact(24 + 4096);
    32 + frames.take_while(|frame| &frame[8..16] == salts).count() * (24 + 4096)
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_loses_none() {
    let directory = Directory::new();
    let small = EmbeddedOptions::default().file_bytes_max(400_000);
    let registry = EmbeddedRegistry::open_with(directory.path(), small.clone()).unwrap();
    registry.create(new("a")).await.unwrap();
    let large = |number| {
        let mut change = change(1, number);
        change.bytes = vec![1; 50_000].into();
        vec![change]
    };
    let mut acknowledged = 0;
    let refused = loop {
        let next = large(acknowledged + 1);
        match registry.append(&id("a"), EPOCH, None, next).await {
            Ok(outcomes) => assert_eq!(outcomes, [Outcome::At(Seq(acknowledged + 1))]),
            Err(error) => break error,
        }
        acknowledged += 1;
    };
    assert!(
        matches!(refused, RegistryError::Unavailable { .. }),
        "{refused}"
    );
    assert!(acknowledged > 2);
    let count = |rows: usize| u64::try_from(rows).unwrap();
    // Nothing of the refused one is seen; what is smaller fits, and reads go on.
    assert_eq!(count(log(&registry, "a").await.len()), acknowledged);
    let outcome = append(&registry, "a", &[change(1, acknowledged + 1)]).await;
    assert_eq!(outcome, [Outcome::At(Seq(acknowledged + 1))]);
    drop(registry);
    let registry = EmbeddedRegistry::open(directory.path()).unwrap();
    assert_eq!(count(log(&registry, "a").await.len()), acknowledged + 1);
    let outcome = registry
        .append(&id("a"), EPOCH, None, large(acknowledged + 2))
        .await
        .unwrap();
    assert_eq!(outcome, [Outcome::At(Seq(acknowledged + 2))]);
}

#[tokio::test]
async fn a_compaction_that_was_cut_short_leaves_the_old_snapshot_and_its_parts_are_thrown_away() {
    let directory = Directory::new();
    filled(directory.path()).await.close().await.unwrap();
    let path = directory.path().join("sync.db");
    let parts = |database: &Connection| -> i64 {
        database
            .query_row("SELECT count(*) FROM parts", [], |row| row.get(0))
            .unwrap()
    };
    let database = Connection::open(&path).unwrap();
    let before = parts(&database);
    database
        .execute("INSERT INTO parts VALUES (99, 0, zeroblob(60000))", [])
        .unwrap();
    drop(database);
    let registry = EmbeddedRegistry::open(directory.path()).unwrap();
    let snapshot = registry.snapshot(&id("a")).await.unwrap().unwrap();
    assert_eq!((snapshot.seq, snapshot.bytes.len()), (Seq(4), 200_000));
    registry.maintain(LONG).await.unwrap();
    registry.close().await.unwrap();
    assert_eq!(parts(&Connection::open(&path).unwrap()), before);
}

#[tokio::test]
async fn a_snapshot_of_many_parts_is_replaced_while_it_is_read() {
    let directory = Directory::new();
    let registry = EmbeddedRegistry::open(directory.path()).unwrap();
    registry.create(new("a")).await.unwrap();
    append(&registry, "a", &[change(1, 1), change(1, 2)]).await;
    let Tail::Changes { changes, .. } = registry.tail(&id("a"), Seq(0), 1_000).await.unwrap()
    else {
        panic!("no tail")
    };
    let digest = |seq: usize| changes.get(seq - 1).map_or(Digest::EMPTY, |row| row.digest);
    let snapshot = |fill: u8| Snapshot::new(Seq(2), digest(2), vec![fill; 3_000_000].into());
    registry
        .compact(&id("a"), EPOCH, snapshot(0), Seq(0))
        .await
        .unwrap();
    let document = id("a");
    let replace = async {
        for fill in 1..=10 {
            registry
                .compact(&document, EPOCH, snapshot(fill), Seq(2))
                .await
                .unwrap();
            registry.maintain(LONG).await.unwrap();
        }
    };
    let read = async {
        let mut seen = 0;
        while seen < 10 {
            let read = registry.snapshot(&document).await.unwrap().unwrap();
            let fill = read.bytes[0];
            assert_eq!(read, snapshot(fill));
            assert!(fill >= seen, "{fill} after {seen}");
            seen = fill;
        }
    };
    tokio::join!(replace, read);
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_an_error_that_names_it() {
    let directory = Directory::new();
    let file = directory.path().join("file");
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&file)
        .unwrap();
    let error = EmbeddedRegistry::open(file.join("data")).unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}
