//! What a store promises, and what the embedded one promises besides.

#![cfg(feature = "embedded")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures_executor::block_on;
use sync_client::store::{OutboxChange, StoreWrite, StoredDocument};
use sync_client::{
    ChangeId, ClientStore, DocumentId, EmbeddedStore, EngineId, ErrorCode, MemoryStore, OriginId,
    RefusedChange, RefusedReason, StoreError,
};
use sync_core::history::{Cursor, Digest, Epoch, Seq};

// ---- what every store promises

/// Random writes, stagings and reopenings, and after each the store holds what [`StoredDocument::apply`] says.
fn conforms<S: ClientStore>(seed: u64, open: impl Fn() -> S) {
    let mut random = Random(seed);
    let names = ["notes", "notes/42", "ü"].map(|name| DocumentId::new(name).unwrap());
    let mut models: [Option<StoredDocument>; 3] = [None, None, None];
    let mut made = 0;
    let mut store = open();
    store.bind("ada").unwrap();
    for step in 0..300 {
        let which = random.below(3);
        let (name, model) = (&names[which], &mut models[which]);
        match random.below(8) {
            0 | 1 => {
                let again = model.as_ref().and_then(|model| random.pick(&model.outbox));
                let change = match again {
                    Some(there) if random.chance(3) => {
                        OutboxChange::new(there.id, there.position + 1, "other".into(), false)
                    }
                    _ => change(&mut random, &mut made),
                };
                store.stage(name, &EngineId::YRS, &change).unwrap();
                let model = model.get_or_insert_with(|| StoredDocument::new(EngineId::YRS));
                model.stage(change);
            }
            2..=4 => {
                let write = write(&mut random, model.as_ref(), &mut made);
                block_on(store.commit(name, &write)).unwrap();
                apply(model, write);
            }
            5 => {
                let mut first = write(&mut random, model.as_ref(), &mut made);
                apply(model, first.clone());
                let second = write(&mut random, model.as_ref(), &mut made);
                apply(model, second.clone());
                first.merge(second);
                block_on(store.commit(name, &first)).unwrap();
            }
            6 if random.chance(4) => {
                block_on(store.remove(name)).unwrap();
                *model = None;
            }
            _ => {
                drop(store);
                store = open();
                store.bind("ada").unwrap();
            }
        }
        let mut listed = Vec::new();
        for (name, model) in names.iter().zip(&models) {
            assert_eq!(
                block_on(store.load(name)).unwrap(),
                *model,
                "seed {seed}, step {step}, {name}"
            );
            listed.extend(
                model
                    .as_ref()
                    .map(|model| (name.clone(), model.outbox.len())),
            );
        }
        let mut list = block_on(store.list()).unwrap();
        list.sort();
        assert_eq!(list, listed, "seed {seed}, step {step}");
    }
}

fn apply(model: &mut Option<StoredDocument>, write: StoreWrite) {
    model
        .get_or_insert_with(|| StoredDocument::new(write.state.engine.clone()))
        .apply(write);
}

/// A new change, behind all others.
fn change(random: &mut Random, made: &mut u64) -> OutboxChange {
    *made += 1;
    let id = ChangeId {
        origin: OriginId(u128::MAX - u128::from(*made % 3)),
        number: u64::MAX - *made,
    };
    let position = i64::try_from(*made).unwrap() * 16;
    OutboxChange::new(id, position, random.bytes(), random.chance(2))
}

fn write(random: &mut Random, model: Option<&StoredDocument>, made: &mut u64) -> StoreWrite {
    let outbox = model.map_or(&[][..], |model| &model.outbox);
    let refused = model.map_or(&[][..], |model| &model.refused);
    let mut write = StoreWrite::new(EngineId::MERGEABLE);
    if random.chance(2) {
        write.state.engine = EngineId::YRS;
        write.state.cursor = Some(Cursor {
            epoch: Epoch(u64::MAX - random.next()),
            seq: Seq(random.next()),
            digest: Digest(u64::MAX),
        });
    }
    write.snapshot = random.chance(4).then(|| random.bytes());
    write.imported = (0..random.below(3)).map(|_| random.bytes()).collect();
    if random.chance(4) {
        // Rewritten: the same changes under other ids, or gone.
        write.outbox_clear = Some(i64::try_from(*made).unwrap() * 16);
        for there in outbox {
            let mut again = there.clone();
            again.id.origin = OriginId(again.id.origin.0 / 2);
            if random.chance(2) {
                write.outbox_add.push(again);
            }
        }
    } else {
        let gone = outbox.iter().filter(|_| random.chance(3));
        write.outbox_remove = gone.map(|change| change.id).collect();
        let nobody = OriginId(0);
        write.outbox_remove.push(ChangeId {
            origin: nobody,
            number: 1,
        });
    }
    for _ in 0..random.below(3) {
        let change = change(random, made);
        write.outbox_add.push(change);
    }
    let dropped = refused.iter().filter(|_| random.chance(3));
    write.refused_remove = dropped.map(|refused| refused.id).collect();
    for _ in 0..random.below(2) {
        let reasons = [
            RefusedReason::Code(ErrorCode::TooLarge),
            RefusedReason::Code(ErrorCode::from_number(u16::MAX)),
            RefusedReason::Behind,
            RefusedReason::HistoryReset,
            RefusedReason::Replaced,
        ];
        let id = change(random, made).id;
        let reason = *random.pick(&reasons).unwrap();
        let refused = RefusedChange::new(id, random.bytes(), reason, Arc::from("no: ü"));
        write.refused_add.push(refused);
    }
    write.state.acknowledged = (0..random.below(3))
        .map(|_| (OriginId(u128::from(random.next()) << 64), random.next()))
        .collect();
    write.state.rebuild = random.chance(2);
    write
}

/// SplitMix64 (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    fn chance(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        (!from.is_empty()).then(|| &from[self.below(from.len())])
    }

    /// Sometimes more than a page.
    fn bytes(&mut self) -> Bytes {
        let len = if self.chance(10) { 9_000 } else { 20 };
        let len = self.below(len);
        (0..len).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

#[test]
fn the_memory_store_holds_what_was_written() {
    for seed in 0..20 {
        let store = MemoryStore::new();
        conforms(seed, || store.clone());
    }
}

#[test]
fn the_embedded_store_holds_what_was_written() {
    for seed in 0..4 {
        let directory = Directory::new();
        conforms(seed, || EmbeddedStore::open(directory.store()).unwrap());
    }
}

fn belongs_to_one_account<S: ClientStore>(open: impl Fn() -> S) {
    let store = open();
    store.bind("ada").unwrap();
    store.bind("ada").unwrap();
    drop(store);
    let store = open();
    match store.bind("grace") {
        Err(StoreError::WrongAccount { bound, asked }) => {
            assert_eq!((bound.as_str(), asked.as_str()), ("ada", "grace"));
        }
        other => panic!("{other:?}"),
    }
    store.bind("ada").unwrap();
}

/// Scenario 92.
#[test]
fn a_store_belongs_to_one_account() {
    let memory = MemoryStore::new();
    belongs_to_one_account(|| memory.clone());
    let directory = Directory::new();
    belongs_to_one_account(|| EmbeddedStore::open(directory.store()).unwrap());
}

// ---- the file

/// Scenario 92.
#[test]
fn a_file_is_open_once_in_one_process() {
    let directory = Directory::new();
    let store = EmbeddedStore::open(directory.store()).unwrap();
    let second = EmbeddedStore::open(directory.store());
    assert!(matches!(second, Err(StoreError::InUse)), "{second:?}");
    assert!(child("open", directory.path()).contains("in use"));
    // Whoever failed to open it has harmed nothing.
    block_on(store.commit(&notes(), &StoreWrite::new(EngineId::YRS))).unwrap();
    drop(store);
    assert!(child("open", directory.path()).contains("opened"));
    EmbeddedStore::open(directory.store()).unwrap();
}

#[test]
fn a_closed_store_refuses_and_can_be_opened_again() {
    let directory = Directory::new();
    let store = EmbeddedStore::open(directory.store()).unwrap();
    let clone = store.clone();
    block_on(async {
        store.stage(&notes(), &EngineId::YRS, &numbered(1)).unwrap();
        clone.close().await;
        let again = EmbeddedStore::open(directory.store()).unwrap();
        store.close().await;
        assert!(matches!(store.list().await, Err(StoreError::Failed(_))));
        let staged = store.stage(&notes(), &EngineId::YRS, &numbered(2));
        assert!(matches!(staged, Err(StoreError::Failed(_))));
        assert_eq!(again.list().await.unwrap(), [(notes(), 1)]);
    });
}

#[test]
fn a_newer_format_is_left_alone() {
    let directory = Directory::new();
    drop(EmbeddedStore::open(directory.store()).unwrap());
    let connection = rusqlite::Connection::open(directory.store()).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    connection.close().unwrap();
    let before = std::fs::read(directory.store()).unwrap();
    match EmbeddedStore::open(directory.store()) {
        Err(StoreError::NewerFormat { found, supported }) => {
            assert_eq!((found, supported), (99, 1));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read(directory.store()).unwrap(), before);
}

#[test]
fn what_is_no_store_is_damaged_and_left_alone() {
    let garbage = vec![7; 10_000];
    let text = b"Dear diary".to_vec();
    for bytes in [garbage, text] {
        let directory = Directory::new();
        std::fs::write(directory.store(), &bytes).unwrap();
        let opened = EmbeddedStore::open(directory.store());
        assert!(matches!(opened, Err(StoreError::Damaged(_))), "{opened:?}");
        assert_eq!(std::fs::read(directory.store()).unwrap(), bytes);
    }
    let directory = Directory::new();
    let other = rusqlite::Connection::open(directory.store()).unwrap();
    other.execute_batch("CREATE TABLE songs (name)").unwrap();
    other.close().unwrap();
    let before = std::fs::read(directory.store()).unwrap();
    let opened = EmbeddedStore::open(directory.store());
    assert!(matches!(opened, Err(StoreError::Damaged(_))), "{opened:?}");
    assert_eq!(std::fs::read(directory.store()).unwrap(), before);
}

/// Wherever a page is overwritten, what was there is read whole or an error says so: never less than was stored.
#[test]
fn damage_within_the_file_is_an_error_and_never_an_empty_document() {
    let directory = Directory::new();
    let store = EmbeddedStore::open(directory.store()).unwrap();
    let mut write = StoreWrite::new(EngineId::YRS);
    write.snapshot = Some(vec![1; 20_000].into());
    write.imported = vec![vec![2; 5_000].into(); 10];
    write.outbox_add = (1..100).map(numbered).collect();
    block_on(store.commit(&notes(), &write)).unwrap();
    let whole = block_on(store.load(&notes())).unwrap();
    drop(store);
    let bytes = std::fs::read(directory.store()).unwrap();
    let mut noticed = 0;
    for page in bytes.chunks(4_096).enumerate().map(|(page, _)| page) {
        let mut damaged = bytes.clone();
        damaged[page * 4_096..][..16].fill(0xff);
        std::fs::write(directory.store(), &damaged).unwrap();
        let loaded =
            EmbeddedStore::open(directory.store()).and_then(|store| block_on(store.load(&notes())));
        match loaded {
            Err(StoreError::Damaged(_)) => noticed += 1,
            Ok(Some(loaded)) => {
                // The inside of a change has no checks of its own: engines look at what they load.
                let stored = whole.as_ref().unwrap();
                assert_eq!(loaded.tail.len(), stored.tail.len(), "page {page}");
                assert_eq!(loaded.outbox.len(), stored.outbox.len(), "page {page}");
            }
            other => panic!("page {page}: {other:?}"),
        }
    }
    assert!(noticed >= 5, "{noticed}");
}

// ---- the end of the process

/// What `stage` or `commit` returned from is there after a kill, and no write by halves.
#[test]
fn a_killed_process_loses_nothing_that_was_staged_or_committed() {
    let directory = Directory::new();
    let mut told = 0;
    for round in 0..8 {
        let mut child = spawn("write", directory.path());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed somewhere behind this line: it goes on writing meanwhile.
        let until = Random(round).below(400);
        let mut last = told;
        let mut read = |line: std::io::Result<String>| {
            let number = line.unwrap();
            if let Some(number) = number.strip_prefix("has ") {
                last = number.parse().unwrap();
            }
        };
        lines.by_ref().take(until + 10).for_each(&mut read);
        child.kill().unwrap();
        lines.for_each(&mut read);
        child.wait().unwrap();
        assert!(last > told, "round {round}");
        told = last;

        let store = EmbeddedStore::open(directory.store()).unwrap();
        let stored = block_on(store.load(&notes())).unwrap().unwrap();
        let there = u64::try_from(stored.outbox.len()).unwrap();
        assert!(there >= told, "round {round}: {there} of {told}");
        let expected: Vec<OutboxChange> = (1..=there).map(numbered).collect();
        assert_eq!(stored.outbox, expected, "round {round}");
        let committed = stored.state.cursor.map_or(0, |cursor| cursor.seq.0);
        let tail = u64::try_from(stored.tail.len()).unwrap();
        assert_eq!(tail, committed, "round {round}");
        assert_eq!(committed, there / 5, "round {round}");
        told = there;
    }
}

/// Change `number` of the test above, with its place.
fn numbered(number: u64) -> OutboxChange {
    let id = ChangeId {
        origin: OriginId(7),
        number,
    };
    let bytes = number
        .to_string()
        .repeat(1 + usize::try_from(number % 50).unwrap());
    OutboxChange::new(id, i64::try_from(number).unwrap(), bytes.into(), false)
}

/// Goes on where the one before was killed: stages every change, commits every fifth with a change of the tail, and says so.
fn write_until_killed(path: &Path) {
    let store = EmbeddedStore::open(path).unwrap();
    let stored = block_on(store.load(&notes())).unwrap();
    let (outbox, tail) = stored.map_or((0, 0), |stored| (stored.outbox.len(), stored.tail.len()));
    let mut committed = u64::try_from(tail).unwrap();
    for number in u64::try_from(outbox).unwrap() + 1.. {
        if number % 5 != 0 {
            store
                .stage(&notes(), &EngineId::YRS, &numbered(number))
                .unwrap();
        } else {
            committed += 1;
            let mut write = StoreWrite::new(EngineId::YRS);
            write.outbox_add.push(numbered(number));
            write.imported.push("imported".into());
            write.state.cursor = Some(Cursor {
                seq: Seq(committed),
                ..Cursor::start(Epoch(1))
            });
            block_on(store.commit(&notes(), &write)).unwrap();
        }
        println!("has {number}");
    }
}

// ---- helpers

fn notes() -> DocumentId {
    DocumentId::new("notes").unwrap()
}

/// A directory of its own, gone at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("embedded-store-{}-{made}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Of a test that was killed, and whose process had the same number.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn store(&self) -> PathBuf {
        self.0.join("app.db")
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a process of this test says that does one thing to the store in this directory.
fn child(what: &str, directory: &Path) -> String {
    let output = spawn(what, directory).wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn spawn(what: &str, directory: &Path) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", "in_a_process_of_its_own"])
        .env("EMBEDDED_STORE_DO", what)
        .env("EMBEDDED_STORE_IN", directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What other tests start as a process of its own; nothing when it is started with them.
#[test]
fn in_a_process_of_its_own() {
    let Ok(what) = std::env::var("EMBEDDED_STORE_DO") else {
        return;
    };
    let path = PathBuf::from(std::env::var_os("EMBEDDED_STORE_IN").unwrap()).join("app.db");
    match what.as_str() {
        "write" => write_until_killed(&path),
        "open" => {
            let said = match EmbeddedStore::open(path) {
                Ok(_) => "opened".to_owned(),
                Err(StoreError::InUse) => "in use".to_owned(),
                Err(error) => error.to_string(),
            };
            println!("{said}");
        }
        other => panic!("{other}"),
    }
}
