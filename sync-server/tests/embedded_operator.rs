//! What an operator does to the registry on disk: exports, imports, new histories; and what clients make of it.
#![cfg(feature = "embedded")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod e2e;
mod embedded;
mod registries;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sync_client::transport::memory::MemoryNetwork;
use sync_client::{Client, RefusedReason};
use sync_server::registry::{
    EmbeddedOptions, EmbeddedRegistry, EpochMode, Existing, Export, ExportError, Inspector,
    NewDocument, Outcome, RegistryError, Seq, ServerRegistry, Snapshot, Tail,
};
use sync_server::{Anonymous, Epoch, Server};

use e2e::{content, push, text, until, within};
use embedded::{Directory, EPOCH, change, id, new};

const LONG: Duration = Duration::from_secs(60);

/// Several pages, and so few that replacing one does not let the registry copy its write-ahead log into the database.
const SNAPSHOT_BYTES: usize = 40_000;

async fn append(registry: &EmbeddedRegistry, name: &str, origin: u128, number: u64) {
    let epoch = registry.meta(&id(name)).await.unwrap().epoch;
    let outcomes = registry
        .append(&id(name), epoch, None, vec![change(origin, number)])
        .await
        .unwrap();
    assert!(matches!(outcomes[..], [Outcome::At(_)]), "{outcomes:?}");
}

async fn compact(registry: &EmbeddedRegistry, name: &str, seq: u64, keep_after: u64) {
    let meta = registry.meta(&id(name)).await.unwrap();
    let tail = registry.tail(&id(name), Seq(seq), 0).await.unwrap();
    let Tail::Changes { digest, .. } = tail else {
        panic!("{tail:?}")
    };
    let snapshot = Snapshot::new(Seq(seq), digest, vec![7; SNAPSHOT_BYTES].into());
    registry
        .compact(&id(name), meta.epoch, snapshot, Seq(keep_after))
        .await
        .unwrap();
}

/// Document `a`, with a snapshot, and rows in log and journal; origin 3 is known by the table alone.
async fn filled(directory: &Path, options: EmbeddedOptions) -> EmbeddedRegistry {
    let registry = EmbeddedRegistry::open_with(directory, options).unwrap();
    registry.create(new("a")).await.unwrap();
    append(&registry, "a", 3, 1).await;
    for number in 1..=5 {
        append(&registry, "a", 1, number).await;
        append(&registry, "a", 2, number).await;
    }
    compact(&registry, "a", 6, 4).await;
    registry.maintain(LONG).await.unwrap();
    append(&registry, "a", 1, 6).await;
    append(&registry, "a", 1, 7).await;
    registry
}

#[tokio::test]
async fn a_document_comes_back_from_its_file_as_it_was_but_for_its_epoch() {
    let directory = Directory::new();
    let registry = filled(directory.path(), EmbeddedOptions::default()).await;
    let exported = registry.export(&id("a")).await.unwrap();
    exported.verify().unwrap();
    assert_eq!(exported.log.len(), 9);
    assert_eq!(exported.origins.len(), 3);
    let mut file = Vec::new();
    exported.write_to(&mut file).unwrap();
    let read = Export::read_from(&file[..]).unwrap();
    assert_eq!(read, exported);

    let imported = registry
        .import(read.clone(), EpochMode::Rebase, Existing::Replace)
        .await
        .unwrap();
    assert_ne!(imported.epoch, EPOCH);
    let expected = exported.under(imported.epoch, EpochMode::Rebase);
    for reopens in [false, true] {
        if reopens {
            registry.close().await.unwrap();
            let registry = EmbeddedRegistry::open(directory.path()).unwrap();
            registry.maintain(LONG).await.unwrap();
            assert_eq!(registry.export(&id("a")).await.unwrap(), expected);
            append(&registry, "a", 3, 2).await;
            continue;
        }
        assert_eq!(registry.export(&id("a")).await.unwrap(), expected);
        let inspector = Inspector::open(directory.path()).unwrap();
        assert_eq!(inspector.export(&id("a")).unwrap(), expected);
        registry.maintain(LONG).await.unwrap();
        assert_eq!(registry.export(&id("a")).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn every_flipped_byte_and_every_cut_of_a_file_is_noticed() {
    let directory = Directory::new();
    let registry = filled(directory.path(), EmbeddedOptions::default()).await;
    let mut export = registry.export(&id("a")).await.unwrap();
    if let Some(snapshot) = &mut export.snapshot {
        snapshot.bytes = snapshot.bytes.slice(..100);
    }
    let mut file = Vec::new();
    export.write_to(&mut file).unwrap();
    for at in 0..file.len() {
        let mut damaged = file.clone();
        damaged[at] ^= 0x10;
        Export::read_from(&damaged[..]).unwrap_err();
        let cut = Export::read_from(&file[..at]).unwrap_err();
        let expected = matches!(cut, ExportError::Damaged { .. } | ExportError::Foreign);
        assert!(expected, "{cut}");
    }
    let longer = [&file[..], b"x"].concat();
    Export::read_from(&longer[..]).unwrap_err();
    // A length that no memory holds is no reason to ask for it.
    let mut long = file.clone();
    long[13..21].copy_from_slice(&(1_u64 << 31).to_le_bytes());
    Export::read_from(&long[..]).unwrap_err();
}

/// Its sums are right: somebody wrote it so.
#[tokio::test]
async fn a_file_that_begins_after_the_last_sequence_there_is_does_not_count_over() {
    let directory = Directory::new();
    let registry = filled(directory.path(), EmbeddedOptions::default()).await;
    let mut export = registry.export(&id("a")).await.unwrap();
    export.meta.log_start = Seq(u64::MAX);
    let mut file = Vec::new();
    export.write_to(&mut file).unwrap();
    let refused = Export::read_from(&file[..]).unwrap_err();
    assert!(matches!(refused, ExportError::Damaged { .. }), "{refused}");
}

#[tokio::test]
async fn an_export_that_contradicts_itself_is_refused() {
    let directory = Directory::new();
    let registry = filled(directory.path(), EmbeddedOptions::default()).await;
    let good = registry.export(&id("a")).await.unwrap();
    let contradictions: [fn(&mut Export); 8] = [
        |export| export.meta.head = export.meta.head.next(),
        |export| export.meta.digest.0 += 1,
        |export| export.start_digest.0 += 1,
        |export| export.snapshot = None,
        |export| export.log.swap(0, 2),
        |export| drop(export.log.pop()),
        |export| drop(export.origins.remove(0)),
        |export| export.origins[1].last += 1,
    ];
    for contradict in contradictions {
        let mut bad = good.clone();
        contradict(&mut bad);
        let refused = registry.import(bad, EpochMode::Merge, Existing::Replace);
        let refused = refused.await;
        assert!(
            matches!(refused, Err(RegistryError::Damaged { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(registry.export(&id("a")).await.unwrap(), good);
}

/// As with the registry in memory.
#[tokio::test]
async fn a_new_history_fences_the_old_one_and_what_is_left_of_that_is_deleted() {
    let eager = EmbeddedOptions::default().fold_bytes(1);
    for options in [EmbeddedOptions::default(), eager] {
        let directory = Directory::new();
        let registry = filled(directory.path(), options.clone()).await;
        let again = registry.replace(new("a"), Vec::new()).await;
        assert!(
            matches!(again, Err(RegistryError::Refused { .. })),
            "{again:?}"
        );
        let next = |epoch| NewDocument::new(id("a"), sync_server::EngineId::OPAQUE, Epoch(epoch));
        // Calls for the old one, before, at the same time and after.
        let document = id("a");
        let old =
            (8..30).map(|number| registry.append(&document, EPOCH, None, vec![change(1, number)]));
        let rows = vec![change(8, 1), change(8, 3)];
        let (replaced, old) = tokio::join!(
            registry.replace(next(8), rows.clone()),
            futures_util::future::join_all(old)
        );
        assert_eq!(replaced.unwrap().head, Seq(2));
        for outcome in old {
            let expected = matches!(outcome, Err(RegistryError::Fenced { current: Epoch(8) }))
                || matches!(
                    outcome.as_deref(),
                    Ok([Outcome::At(_) | Outcome::Gap { .. }])
                );
            assert!(expected, "{outcome:?}");
        }
        let mut expected = Export::new(next(8), rows).unwrap();
        assert_eq!(registry.export(&document).await.unwrap(), expected);
        assert_eq!(registry.snapshot(&document).await.unwrap(), None);
        append(&registry, "a", 8, 4).await;
        expected.log.push(change(8, 4));
        registry.maintain(LONG).await.unwrap();
        registry.close().await.unwrap();
        let database = rusqlite::Connection::open(directory.path().join("sync.db")).unwrap();
        let count = |table: &str| -> i64 {
            let sql = format!("SELECT count(*) FROM {table}");
            database.query_row(&sql, [], |row| row.get(0)).unwrap()
        };
        let left = ["documents", "parts", "snapshots", "garbage", "journal"].map(count);
        assert_eq!(left, [1, 0, 0, 0, 0]);
        assert_eq!(count("origins"), 1);
        drop(database);
        let registry = EmbeddedRegistry::open_with(directory.path(), options).unwrap();
        assert_eq!(registry.export(&document).await.unwrap().log, expected.log);
        registry.export(&document).await.unwrap().verify().unwrap();
    }
}

/// Scenario 62: the old state or the new one, wherever the power goes away. The write-ahead log is cut after every frame.
#[tokio::test]
async fn a_compaction_an_import_and_a_deletion_are_done_or_not_wherever_they_are_cut() {
    for operation in ["compact", "import", "delete"] {
        let directory = Directory::new();
        let registry = filled(directory.path(), EmbeddedOptions::default()).await;
        registry.maintain(LONG).await.unwrap();
        append(&registry, "a", 1, 8).await;
        let before = registry.export(&id("a")).await.unwrap();
        let wal = directory.path().join("sync.db-wal");
        let start = fs::read(&wal).unwrap();
        let database = fs::read(directory.path().join("sync.db")).unwrap();
        match operation {
            "compact" => compact(&registry, "a", 13, 13).await,
            "import" => {
                let imported = before.clone();
                let imported = registry.import(imported, EpochMode::Merge, Existing::Replace);
                imported.await.map(drop).unwrap();
            }
            _ => registry.delete(&id("a")).await.unwrap(),
        }
        let after = registry.export(&id("a")).await.ok();
        assert_ne!(after.as_ref(), Some(&before));
        let bytes = fs::read(&wal).unwrap();
        drop(registry);
        assert_eq!(start[..32], bytes[..32], "the log has begun again");
        let (start, end) = (frames(&start), frames(&bytes));
        assert!(end > start);
        let mut is_done = false;
        for cut in start..=end {
            let copy = Directory::new();
            fs::write(copy.path().join("sync.db"), &database).unwrap();
            let cut_bytes = &bytes[..32 + cut * (24 + 4096)];
            fs::write(copy.path().join("sync.db-wal"), cut_bytes).unwrap();
            let registry = EmbeddedRegistry::open(copy.path()).unwrap();
            let found = registry.export(&id("a")).await.ok();
            if is_done || found.as_ref() != Some(&before) {
                assert_eq!(found, after, "{operation}, cut after frame {cut}");
                is_done = true;
            }
            // And goes on.
            registry.maintain(LONG).await.unwrap();
            assert_eq!(registry.export(&id("a")).await.ok(), found, "{operation}");
            if found.is_some() {
                append(&registry, "a", 1, 9).await;
            }
        }
        assert!(is_done, "{operation}");
    }
}

/// Frames of a write-ahead log; what is left behind them is of an earlier one.
fn frames(wal: &[u8]) -> usize {
    let salts = &wal[16..24];
    let frames = wal[32..].chunks_exact(24 + 4096);
    frames.take_while(|frame| &frame[8..16] == salts).count()
}

#[tokio::test]
async fn an_inspector_sees_one_moment_whatever_the_server_does_meanwhile() {
    let directory = Directory::new();
    let eager = EmbeddedOptions::default().fold_bytes(1).checkpoint_pages(1);
    let registry = filled(directory.path(), eager).await;
    let before = registry.export(&id("a")).await.unwrap();
    let inspector = Inspector::open(directory.path()).unwrap();
    for number in 8..40 {
        append(&registry, "a", 1, number).await;
    }
    compact(&registry, "a", 40, 30).await;
    registry.maintain(LONG).await.unwrap();
    assert_eq!(inspector.export(&id("a")).unwrap(), before);
    assert_eq!(inspector.document(&id("a")).unwrap().meta, before.meta);
    let now = Inspector::open(directory.path()).unwrap();
    assert_eq!(
        now.export(&id("a")).unwrap(),
        registry.export(&id("a")).await.unwrap()
    );
}

struct Live {
    _directory: Directory,
    registry: Arc<EmbeddedRegistry>,
    server: Server,
    network: MemoryNetwork,
}

impl Live {
    fn new() -> Self {
        let directory = Directory::new();
        let registry = Arc::new(EmbeddedRegistry::open(directory.path()).unwrap());
        let server = Server::builder(registry.clone(), Anonymous::read_write())
            .build()
            .unwrap();
        Self {
            _directory: directory,
            registry,
            server,
            network: MemoryNetwork::new(),
        }
    }

    fn client(&self) -> Client {
        Client::with_dialer(self.network.dialer()).start().unwrap()
    }
}

/// Scenario 24, with a registry on disk, live clients, and one that was away with an edit of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_history_that_is_replaced_merge_or_drop_what_they_have_as_its_mode_says() {
    for mode in [EpochMode::Merge, EpochMode::Discard] {
        let live = Live::new();
        let _listener = live.server.listen(live.network.acceptor());
        let (ada, bob, cyd) = (live.client(), live.client(), live.client());
        let notes = text(&ada, "notes").await;
        push(&notes, "[one]");
        within("saved", notes.saved()).await.unwrap();
        let backup = live.registry.export(&id("notes")).await.unwrap();
        push(&notes, "[two]");
        within("saved", notes.saved()).await.unwrap();
        let (his, hers) = (text(&bob, "notes").await, text(&cyd, "notes").await);
        for document in [&his, &hers] {
            until(document, "both words arrive", |document, _| {
                content(document) == "[one][two]"
            })
            .await;
        }
        cyd.disconnect();
        push(&hers, "[away]");

        live.registry
            .import(backup, mode, Existing::Replace)
            .await
            .unwrap();
        // Whoever appends finds out; the other one that is there at its next open.
        push(&notes, "[fenced]");
        let words: &[&str] = match mode {
            EpochMode::Merge => &["[one]", "[two]", "[away]", "[fenced]"],
            _ => &["[one]"],
        };
        let has_them = |text: &str| {
            words.iter().all(|word| text.matches(word).count() == 1)
                && text.len() == words.concat().len()
        };
        if mode == EpochMode::Discard {
            until(&notes, "what was removed is gone", |notes, _| {
                content(notes) == "[one]"
            })
            .await;
        }
        cyd.connect();
        bob.on_network_change();
        for document in [&notes, &his, &hers] {
            until(document, "all have the new history", |document, state| {
                has_them(&content(document)) && state.is_saved()
            })
            .await;
        }
        let refused = [&notes, &his, &hers].map(|document| document.refused());
        let reasons: Vec<_> = refused
            .iter()
            .map(|refused| {
                refused
                    .iter()
                    .map(|change| change.reason)
                    .collect::<Vec<_>>()
            })
            .collect();
        if mode == EpochMode::Discard {
            let back = vec![RefusedReason::HistoryReset];
            assert_eq!(reasons, [back.clone(), vec![], back]);
        } else {
            assert_eq!(reasons, [vec![], vec![], vec![]]);
        }
        let stored = live.registry.meta(&id("notes")).await.unwrap();
        assert_eq!(stored.mode, mode);
        push(&his, "[after]");
        until(&notes, "life goes on", |notes, _| {
            content(notes).contains("[after]")
        })
        .await;
        live.server.shutdown(Duration::ZERO).await;
    }
}
