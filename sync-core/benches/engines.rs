//! What engines cost: checking a keystroke of yrs; a write, an import, a keystroke in a long text, and what a peer lacks, of
//! mergeable types.
//!
//! ```text
//! cargo bench -p sync-core --features yrs --bench engines
//! ```
//!
//! Every figure is of batches of 1,000 operations: the fastest batch, which is what the code costs, and the median one,
//! which is what a busy machine makes of it.

#![allow(missing_docs, reason = "a measurement")]
#![allow(
    clippy::unwrap_used,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a measurement"
)]

use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use sync_core::engine::typed::{Typed, TypedDocument};
use sync_core::engine::yrs::Yrs;
use sync_core::engine::{Document, Engine, ReplicaSeed, ValidateLimits, Validator};
use sync_core::ids::User;
use sync_core::mergeable::{
    Counter, Dictionary, LwwMap, Mergeable, MergeableValidator, OrSet, Sequence,
};
use sync_core::rng::Rng;
use sync_core::yrs::{Text as _, WriteTxn};

const BATCH: usize = 1_000;
const NOW: u64 = 1_800_000_000_000;

fn main() {
    yrs();
    lww_map();
    others();
    text();
}

/// Keystrokes of one author at the end of a text and in its middle, as a server sees them.
fn yrs() {
    let engine = Yrs::new();
    let mut writer = engine.create(ReplicaSeed(1 << 20)).unwrap();
    let mut random = Rng::new(1);
    let log: Vec<Bytes> = (0..20_000)
        .map(|n| {
            let edited = engine.edit(&mut writer, usize::MAX, |txn| {
                let text = txn.get_or_insert_text("text");
                let at = match n % 2 {
                    0 => text.len(txn),
                    _ => below(&mut random, n as usize) as u32,
                };
                text.insert(txn, at, "x");
            });
            edited.unwrap();
            writer.drain().local.pop().unwrap()
        })
        .collect();
    let limits = ValidateLimits::default();
    measure(
        "yrs: checking the bytes of a keystroke",
        log.clone(),
        |change| {
            Engine::validate(&engine, &change, &limits).unwrap();
        },
    );
    let (mut ledger, author) = (Engine::ledger(&engine).unwrap(), User::new("ada"));
    measure("yrs: checking that it may follow the log", log, |change| {
        ledger.check(&change, &author, false).unwrap();
    });
}

fn replica<T: Mergeable>(seed: u128) -> TypedDocument<T> {
    let mut replica = Typed::new().create(ReplicaSeed(seed << 20)).unwrap();
    replica.set_wall_time(NOW);
    replica
}

fn edit<T: Mergeable>(replica: &mut TypedDocument<T>, f: impl FnOnce(&mut T)) -> Bytes {
    Typed::new().edit(replica, usize::MAX, f).unwrap();
    replica.drain().local.pop().unwrap()
}

/// Does something to each item, and says what one cost, in nanoseconds.
fn measure<I>(what: &str, items: Vec<I>, mut each: impl FnMut(I)) {
    let mut batches = Vec::new();
    let mut items = items.into_iter();
    let n_batches = items.len() / BATCH;
    for _ in 0..n_batches {
        let batch: Vec<I> = items.by_ref().take(BATCH).collect();
        let start = Instant::now();
        batch.into_iter().for_each(&mut each);
        batches.push(start.elapsed().as_nanos() as f64 / BATCH as f64 / 1_000.0);
    }
    batches.sort_by(f64::total_cmp);
    println!(
        "{what:<62} {:>8.3} us {:>8.3} us",
        batches[0],
        batches[batches.len() / 2]
    );
}

fn once<R>(what: &str, mut f: impl FnMut() -> R) -> R {
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            let start = Instant::now();
            black_box(f());
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{what:<62} {:>8.1} us {:>8.1} us", times[0], times[4]);
    f()
}

fn below(random: &mut Rng, n: usize) -> usize {
    (random.next_u64() % n as u64) as usize
}

/// As in the comparison of engines: 10,000 keys, then 100,000 overwrites by 4 replicas, values of 16 bytes.
fn lww_map() {
    let mut random = Rng::new(1);
    let mut writers: Vec<TypedDocument<LwwMap<u32, String>>> = (1..=4).map(replica).collect();
    let mut log: Vec<Bytes> = (0..10_000)
        .map(|key| {
            edit(&mut writers[0], |map| {
                map.insert(key, "sixteen bytes ..".into()).unwrap();
            })
        })
        .collect();
    for writer in &mut writers[1..] {
        writer.import(&log).unwrap();
    }
    let writes = (0..100_000).map(|_| (below(&mut random, 4), below(&mut random, 10_000) as u32));
    measure(
        "LwwMap: a write, made into a change",
        writes.collect(),
        |(who, key)| {
            log.push(edit(&mut writers[who], |map| {
                map.insert(key, "other sixteen ..".into()).unwrap();
            }));
        },
    );
    let size = log.iter().map(Bytes::len).sum::<usize>() / log.len();
    println!("{:<62} {size:>8} bytes", "LwwMap: a change");
    let validator = MergeableValidator::new();
    let limits = ValidateLimits::default();
    measure("LwwMap: checking a change", log.clone(), |change| {
        validator.validate(&change, &limits).unwrap();
    });
    let mut reader = replica::<LwwMap<u32, String>>(9);
    measure("LwwMap: importing a change", log.clone(), |change| {
        reader.import(&[change]).unwrap();
    });
    println!(
        "{:<62} {:>8} bytes",
        "LwwMap: snapshot of 10,000 keys",
        reader.snapshot().unwrap().len()
    );
    caught_up("LwwMap, 110,000 changes", &mut reader);
    let mut small = replica::<LwwMap<u32, String>>(8);
    small.import(&log[..10]).unwrap();
    caught_up("LwwMap, 10 changes", &mut small);
}

/// What a peer that has everything lacks.
fn caught_up<T: Mergeable>(what: &str, replica: &mut TypedDocument<T>) {
    let version = replica.version();
    let what = format!("what a caught-up peer lacks: {what}");
    measure(&what, vec![(); 20 * BATCH], |()| {
        assert_eq!(replica.since(&version), Ok(None));
    });
}

/// One write of each small type, and its import.
fn others() {
    fn one<T: Mergeable>(what: &str, f: impl Fn(&mut T, u32)) {
        let (mut writer, mut reader) = (replica::<T>(1), replica::<T>(2));
        let mut log = Vec::new();
        measure(
            &format!("{what}: a write, made into a change"),
            (0..20_000).collect(),
            |n| log.push(edit(&mut writer, |value| f(value, n))),
        );
        measure(&format!("{what}: importing a change"), log, |change| {
            reader.import(&[change]).unwrap();
        });
    }
    one("LwwMap of 100", |map: &mut LwwMap<u32, String>, n| {
        map.insert(n % 100, "sixteen bytes ..".into()).unwrap();
    });
    one("LwwMap of 1,000", |map: &mut LwwMap<u32, String>, n| {
        map.insert(n * 7919 % 1_000, "sixteen bytes ..".into())
            .unwrap();
    });
    one("LwwMap of 10,000", |map: &mut LwwMap<u32, String>, n| {
        map.insert(n * 7919 % 10_000, "sixteen bytes ..".into())
            .unwrap();
    });
    one("Counter", |counter: &mut Counter, n| {
        counter.add(1 + i64::from(n))
    });
    one("OrSet of 1,000", |set: &mut OrSet<u32>, n| {
        set.insert(n % 1_000).unwrap();
    });
    one(
        "Dictionary of 1,000 counters",
        |dictionary: &mut Dictionary<u32, Counter>, n| dictionary.entry(n % 1_000).unwrap().add(1),
    );
}

type Text = Sequence<char>;

/// A text of 100,000 characters that three people have written all over the place, a fifth of it removed again.
fn text() {
    let mut random = Rng::new(3);
    let mut writers: Vec<TypedDocument<Text>> = (1..=3).map(replica).collect();
    let mut log: Vec<Bytes> = Vec::new();
    let mut seen = [0; 3];
    while Typed::new().read(&writers[0], Text::len).unwrap() < 100_000 {
        let who = below(&mut random, 3);
        writers[who].import(&log[seen[who]..]).unwrap();
        let length = Typed::new().read(&writers[who], Text::len).unwrap();
        let at = below(&mut random, length + 1);
        for step in 0..5 + below(&mut random, 30) {
            log.push(edit(&mut writers[who], |text| {
                text.insert(at + step, 'a').unwrap();
            }));
        }
        if length > 0 && below(&mut random, 2) == 0 {
            let at = below(&mut random, length);
            log.push(edit(&mut writers[who], |text| {
                text.remove_range(at..at + 10);
            }));
        }
        seen[who] = log.len();
        if who != 0 {
            writers[0].import(&log[seen[0]..]).unwrap();
            seen[0] = log.len();
        }
    }
    let writer = &mut writers[0];
    let mut reader = replica::<Text>(9);
    measure(
        "Sequence: importing all changes of 100,000 characters",
        log.clone(),
        |change| {
            reader.import(&[change]).unwrap();
        },
    );

    let mut changes = Vec::new();
    let mut at = 0;
    let typed = (0..20_000).map(|n| (n % 20 == 0, below(&mut random, 100_000)));
    measure(
        "Sequence of 100,000: a keystroke, 20 in one place",
        typed.collect(),
        |(jumps, to)| {
            at = if jumps { to } else { at + 1 };
            changes.push(edit(writer, |text| text.insert(at, 'b').unwrap()));
        },
    );
    let bytes = changes.iter().map(Bytes::len).sum::<usize>() / changes.len();
    measure(
        "Sequence of 100,000: importing such a keystroke",
        changes,
        |change| {
            reader.import(&[change]).unwrap();
        },
    );
    println!(
        "{:<62} {bytes:>8} bytes",
        "Sequence of 100,000: the change of a keystroke"
    );

    let mut changes = Vec::new();
    let anywhere = (0..20_000).map(|_| (below(&mut random, 2), below(&mut random, 100_000)));
    measure(
        "Sequence of 100,000: a keystroke or deletion anywhere",
        anywhere.collect(),
        |(removes, at)| {
            changes.push(edit(writer, |text| {
                if removes == 1 {
                    text.remove(at);
                } else {
                    text.insert(at, 'c').unwrap();
                }
            }));
        },
    );
    measure(
        "Sequence of 100,000: importing one of these",
        changes.clone(),
        |change| {
            reader.import(&[change]).unwrap();
        },
    );

    caught_up("text, 140,000 changes", writer);
    let mut small = replica::<Text>(8);
    small.import(&log[..10]).unwrap();
    caught_up("text, 10 changes", &mut small);

    let state = once("Sequence of 100,000: writing a snapshot", || {
        writer.snapshot().unwrap()
    });
    println!(
        "{:<62} {:>8} bytes",
        "Sequence of 100,000: the snapshot",
        state.len()
    );
    once("Sequence of 100,000: loading it", || {
        let mut loaded = replica::<Text>(10);
        loaded.import_snapshot(&state).unwrap();
        loaded
    });
    once("Sequence of 100,000: reading it all", || {
        Typed::new()
            .read(&reader, |text: &Text| text.to_string())
            .unwrap()
    });
    let horizon = writer.version();
    let compacted = once("Sequence of 100,000: reclaiming what was removed", || {
        MergeableValidator::new().compact(&state, &horizon).unwrap()
    });
    println!(
        "{:<62} {:>8} bytes",
        "Sequence of 100,000: the snapshot after that",
        compacted.len()
    );
}
