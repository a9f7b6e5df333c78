//! What an edit, a commit and a start cost with the embedded store, beside a plain synced append on the same disk.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a measurement"
)]

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_executor::block_on;
use sync_client::store::{OutboxChange, StoreWrite};
use sync_client::{ChangeId, ClientStore, DocumentId, EmbeddedStore, EngineId, OriginId};

const ROUNDS: u64 = 5_000;

fn main() {
    let directory = std::env::args()
        .nth(1)
        .filter(|argument| !argument.starts_with('-'))
        .map_or_else(std::env::temp_dir, PathBuf::from)
        .join(format!("embedded-store-bench-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let store = EmbeddedStore::open(directory.join("app.db")).unwrap();
    let notes = DocumentId::new("notes").unwrap();
    let other = DocumentId::new("other").unwrap();
    let mut next = 0;

    let mut plain = File::create(directory.join("plain")).unwrap();
    report("append of 4 KiB and sync_data", ROUNDS / 5, |_| {
        plain.write_all(&[7; 4_096]).unwrap();
        plain.sync_data().unwrap();
    });
    let mut staged = Vec::new();
    report("stage", ROUNDS, |_| {
        let change = change(&mut next);
        store.stage(&notes, &EngineId::YRS, &change).unwrap();
        staged.push(change);
    });
    let mut staged = staged.into_iter();
    report("commit of one staged change", ROUNDS / 5, |_| {
        let mut write = StoreWrite::new(EngineId::YRS);
        write.outbox_add.extend(staged.next());
        block_on(store.commit(&notes, &write)).unwrap();
    });
    report("commit of an acknowledged change", ROUNDS / 5, |round| {
        let mut write = StoreWrite::new(EngineId::YRS);
        write.imported.push(Bytes::from_static(&[7; 100]));
        write.outbox_remove.push(id(round + 1));
        block_on(store.commit(&notes, &write)).unwrap();
    });

    // Commits of 1 to 16 KiB, one after the other, on a thread of their own.
    let is_over = Arc::new(AtomicBool::new(false));
    let committing = std::thread::spawn({
        let (store, is_over) = (store.clone(), is_over.clone());
        move || {
            let mut commits = 0;
            while !is_over.load(Ordering::Relaxed) {
                let mut write = StoreWrite::new(EngineId::YRS);
                let bytes = Bytes::from(vec![7; 1_024 << (commits % 5)]);
                if commits % 100 == 0 {
                    write.snapshot = Some(bytes);
                } else {
                    write.imported.push(bytes);
                }
                block_on(store.commit(&other, &write)).unwrap();
                commits += 1;
            }
            commits
        }
    });
    let begun = Instant::now();
    report("stage, during commits of 1 to 16 KiB", ROUNDS * 2, |_| {
        let change = change(&mut next);
        store.stage(&notes, &EngineId::YRS, &change).unwrap();
    });
    let took = begun.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let commits = committing.join().unwrap();
    println!("  {commits} commits meanwhile, in {} ms", took.as_millis());

    drop(store);
    report("open", 20, |_| {
        drop(EmbeddedStore::open(directory.join("app.db")).unwrap());
    });
    let store = EmbeddedStore::open(directory.join("app.db")).unwrap();
    let outbox = block_on(store.list()).unwrap()[0].1;
    report(&format!("load with an outbox of {outbox}"), 20, |_| {
        block_on(store.load(&notes)).unwrap().unwrap();
    });
    drop(store);
    std::fs::remove_dir_all(&directory).unwrap();
}

/// As large as a typed word.
fn change(next: &mut u64) -> OutboxChange {
    *next += 1;
    let position = i64::try_from(*next).unwrap();
    OutboxChange::new(id(*next), position, Bytes::from_static(&[7; 40]), false)
}

const fn id(number: u64) -> ChangeId {
    ChangeId {
        origin: OriginId(7),
        number,
    }
}

fn report(what: &str, rounds: u64, mut once: impl FnMut(u64)) {
    let mut took: Vec<Duration> = (0..rounds)
        .map(|round| {
            let begun = Instant::now();
            once(round);
            begun.elapsed()
        })
        .collect();
    took.sort();
    let at = |part: usize| took[(took.len() - 1) * part / 1_000].as_secs_f64() * 1e6;
    println!(
        "{what:<40} p50 {:>8.1} us   p99 {:>8.1} us   max {:>8.1} us",
        at(500),
        at(990),
        at(1_000)
    );
}
