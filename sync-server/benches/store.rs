//! Durable appends: `EmbeddedRegistry` next to a plain file with one `fdatasync` for everybody who waits.
//!
//! ```text
//! cargo bench -p sync-server --bench store -- [SECONDS] [ROUNDS] [DIRECTORY]
//! ```
//!
//! 256 tasks append one random change of 200 bytes each to a random document and wait for the answer before the next.
//! Of 10,000 documents each has 8 of the tasks as its authors, of 100 all.
//! Both stores are measured for SECONDS in turn, ROUNDS times, so that a machine with other things to do disturbs both;
//! medians of the rounds' ratios say how they compare. `CPU` is that of the whole process, tasks included, for each
//! append. Then a journal of 1 GB is opened, ROUNDS times. DIRECTORY should be on the disk in question; what is in it goes.

#![allow(
    clippy::unwrap_used,
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a measurement"
)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use sync_core::rng::Rng;
use sync_server::registry::{
    ChangeId, DocumentId, EmbeddedOptions, EmbeddedRegistry, EngineId, Epoch, NewChange,
    NewDocument, OriginId, ServerRegistry, User,
};
use tokio::sync::{mpsc, oneshot};

const WRITERS: u128 = 256;
const PAYLOAD: usize = 200;
/// Tasks that write to the same document, if there are many documents.
const AUTHORS: usize = 8;
const EPOCH: Epoch = Epoch(1);

#[async_trait]
trait Store: Send + Sync + 'static {
    async fn append(&self, document: usize, change: NewChange);
}

/// One file, one write and one sync for all that is queued.
struct PlainFile {
    queue: Arc<(Mutex<Queue>, Condvar)>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<(Vec<u8>, oneshot::Sender<()>)>,
    is_closed: bool,
}

impl PlainFile {
    fn create(path: &Path) -> Self {
        let mut file = File::create(path).unwrap();
        let queue = Arc::new((Mutex::new(Queue::default()), Condvar::new()));
        let (answers, mut answered) = mpsc::unbounded_channel::<Vec<oneshot::Sender<()>>>();
        tokio::spawn(async move {
            while let Some(list) = answered.recv().await {
                for answer in list {
                    let _ = answer.send(());
                }
            }
        });
        let shared = Arc::clone(&queue);
        std::thread::spawn(move || {
            let (queue, filled) = &*shared;
            loop {
                let batch = {
                    let mut queue = queue.lock().unwrap();
                    while queue.waiting.is_empty() {
                        if queue.is_closed {
                            return;
                        }
                        queue = filled.wait(queue).unwrap();
                    }
                    std::mem::take(&mut queue.waiting)
                };
                let mut bytes = Vec::new();
                let mut list = Vec::with_capacity(batch.len());
                for (frame, answer) in batch {
                    bytes.extend_from_slice(&frame);
                    list.push(answer);
                }
                file.write_all(&bytes).unwrap();
                file.sync_data().unwrap();
                answers.send(list).unwrap();
            }
        });
        Self { queue }
    }
}

impl Drop for PlainFile {
    fn drop(&mut self) {
        self.queue.0.lock().unwrap().is_closed = true;
        self.queue.1.notify_one();
    }
}

#[async_trait]
impl Store for PlainFile {
    async fn append(&self, document: usize, change: NewChange) {
        let check = twox_hash::XxHash3_64::oneshot(&change.bytes);
        let mut frame = Vec::with_capacity(PAYLOAD + 48);
        frame.extend_from_slice(&(change.bytes.len() as u32).to_le_bytes());
        frame.extend_from_slice(&check.to_le_bytes());
        frame.extend_from_slice(&(document as u64).to_le_bytes());
        frame.extend_from_slice(&change.id.origin.0.to_le_bytes());
        frame.extend_from_slice(&change.id.number.to_le_bytes());
        frame.extend_from_slice(&change.bytes);
        let (answer, answered) = oneshot::channel();
        let is_first = {
            let mut queue = self.queue.0.lock().unwrap();
            queue.waiting.push((frame, answer));
            queue.waiting.len() == 1
        };
        if is_first {
            self.queue.1.notify_one();
        }
        answered.await.unwrap();
    }
}

struct Embedded {
    registry: EmbeddedRegistry,
    documents: Vec<DocumentId>,
}

impl Embedded {
    async fn create(path: &Path, documents: usize, options: EmbeddedOptions) -> Self {
        let registry = EmbeddedRegistry::open_with(path, options).unwrap();
        let documents: Vec<_> = (0..documents)
            .map(|n| DocumentId::new(format!("documents/{n}")).unwrap())
            .collect();
        let all = documents
            .iter()
            .map(|id| registry.create(NewDocument::new(id.clone(), EngineId::OPAQUE, EPOCH)));
        futures_util::future::try_join_all(all).await.unwrap();
        Self {
            registry,
            documents,
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn append(&self, document: usize, change: NewChange) {
        let id = &self.documents[document];
        self.registry
            .append(id, EPOCH, None, vec![change])
            .await
            .unwrap();
    }
}

#[derive(Clone)]
struct Figures {
    per_second: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    worst: f64,
    /// Microseconds of all threads for each append; 0 where the system does not say.
    processor: f64,
}

/// So many runs before this one: each has origins of its own, so that nothing is a repeat.
static RUNS: AtomicU64 = AtomicU64::new(1);

/// Processor time of this process so far.
fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name, which may hold anything: user and system time, in hundredths of a second.
    let after = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after.split_whitespace().skip(11).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}

async fn measure(store: Arc<dyn Store>, documents: usize, time: Duration) -> Figures {
    let begin = Instant::now() + time / 5;
    let end = begin + time;
    let processor = processor_time();
    let first = u128::from(RUNS.fetch_add(1, Ordering::Relaxed)) << 64;
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut rng = Rng::new(writer + 1);
                let mut numbers = vec![0_u64; documents];
                let mut took = Vec::with_capacity(1 << 16);
                let mut appends = 0_u64;
                let bytes: Vec<u8> = (0..PAYLOAD + 1_000)
                    .map(|_| rng.next_u64().to_le_bytes()[0])
                    .collect();
                let bytes = Bytes::from(bytes);
                // As a session has it.
                let user = User::new(format!("user-{writer}-of-this-server"));
                loop {
                    // Which of those that it writes to.
                    let (own, document) = if documents < WRITERS as usize {
                        let document = (rng.next_u64() % documents as u64) as usize;
                        (document, document)
                    } else {
                        let group = writer as usize / AUTHORS;
                        let groups = WRITERS as usize / AUTHORS;
                        let of_group = (documents - group).div_ceil(groups) as u64;
                        let own = (rng.next_u64() % of_group) as usize;
                        (own, group + own * groups)
                    };
                    numbers[own] += 1;
                    let id = ChangeId {
                        origin: OriginId(first | writer),
                        number: numbers[own],
                    };
                    let at = (rng.next_u64() % 1_000) as usize;
                    let change = NewChange::new(id, user.clone(), bytes.slice(at..at + PAYLOAD));
                    let asked = Instant::now();
                    if asked >= end {
                        return (took, appends);
                    }
                    store.append(document, change).await;
                    appends += 1;
                    if asked >= begin {
                        took.push(asked.elapsed().as_micros() as u32);
                    }
                }
            })
        })
        .collect();
    let mut took = Vec::new();
    let mut appends = 0;
    for task in tasks {
        let (of_task, n) = task.await.unwrap();
        took.extend(of_task);
        appends += n;
    }
    let processor = processor_time().saturating_sub(processor);
    took.sort_unstable();
    let at = |part: f64| f64::from(took[((took.len() - 1) as f64 * part) as usize]) / 1_000.0;
    Figures {
        per_second: took.len() as f64 / time.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        worst: at(1.0),
        processor: processor.as_secs_f64() * 1e6 / appends as f64,
    }
}

fn show(what: &str, figures: &Figures) {
    println!(
        "{what:<26} {:>8.0}/s  p50 {:>5.2}  p99 {:>5.2}  p99.9 {:>6.2}  worst {:>5.1} ms  CPU {:>4.2} us",
        figures.per_second,
        figures.p50,
        figures.p99,
        figures.p999,
        figures.worst,
        figures.processor
    );
}

fn median(rounds: &[(Figures, Figures)], of: impl Fn(&(Figures, Figures)) -> f64) -> f64 {
    let mut all: Vec<_> = rounds.iter().map(of).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// The median round, figure by figure; of the stalls the worst.
fn medians(
    rounds: &[(Figures, Figures)],
    which: impl Fn(&(Figures, Figures)) -> &Figures,
) -> Figures {
    let of = |figure: fn(&Figures) -> f64| median(rounds, |round| figure(which(round)));
    Figures {
        per_second: of(|figures| figures.per_second),
        p50: of(|figures| figures.p50),
        p99: of(|figures| figures.p99),
        p999: of(|figures| figures.p999),
        worst: rounds
            .iter()
            .map(|round| which(round).worst)
            .fold(0.0, f64::max),
        processor: of(|figures| figures.processor),
    }
}

async fn compare(directory: &Path, documents: usize, time: Duration, rounds: usize) {
    let fresh = |name: &str| {
        let path = directory.join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let mut measured = Vec::new();
    for _ in 0..rounds {
        let path = fresh("plain").join("log");
        let plain = measure(Arc::new(PlainFile::create(&path)), documents, time).await;
        fresh("plain");
        show(&format!("plain file, {documents} docs"), &plain);
        let path = fresh("embedded");
        let store = Arc::new(Embedded::create(&path, documents, EmbeddedOptions::default()).await);
        let embedded = measure(store.clone(), documents, time).await;
        store.registry.close().await.unwrap();
        fresh("embedded");
        show(&format!("embedded, {documents} docs"), &embedded);
        measured.push((plain, embedded));
    }
    println!("medians of {rounds} rounds:");
    show("  plain file", &medians(&measured, |round| &round.0));
    show("  embedded", &medians(&measured, |round| &round.1));
    println!(
        "  embedded has {:.2} of the plain file's appends, {:.1} times its p99\n",
        median(&measured, |(plain, ours)| ours.per_second
            / plain.per_second),
        median(&measured, |(plain, ours)| ours.p99 / plain.p99)
    );
}

async fn reopen(directory: &Path, rounds: usize) {
    let path = directory.join("reopen");
    let _ = fs::remove_dir_all(&path);
    let options = EmbeddedOptions::default().fold_bytes(u64::MAX);
    let store = Arc::new(Embedded::create(&path, 1_000, options.clone()).await);
    let length = || fs::metadata(path.join("sync.db")).unwrap().len();
    while length() < 1 << 30 {
        measure(store.clone(), 1_000, Duration::from_millis(250)).await;
    }
    store.registry.close().await.unwrap();
    drop(store);
    let mut took: Vec<_> = (0..rounds)
        .map(|_| {
            let opening = Instant::now();
            let registry = EmbeddedRegistry::open_with(&path, options.clone()).unwrap();
            let took = opening.elapsed().as_millis();
            drop(registry);
            took
        })
        .collect();
    took.sort_unstable();
    println!(
        "opening a journal of {} MB: {} ms, median of {rounds} between {} and {}",
        length() >> 20,
        took[rounds / 2],
        took[0],
        took[rounds - 1]
    );
    fs::remove_dir_all(path).unwrap();
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    // `cargo bench` adds an argument of its own, and `cargo test` runs this without: then there is nothing to measure.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        return;
    }
    let mut given = arguments
        .iter()
        .filter(|argument| !argument.starts_with("--"));
    let seconds: f64 = given.next().map_or(2.0, |seconds| seconds.parse().unwrap());
    let rounds: usize = given.next().map_or(5, |rounds| rounds.parse().unwrap());
    let rounds = rounds.max(1);
    let directory = given.next().map_or_else(
        || std::env::temp_dir().join(format!("sync-store-bench-{}", std::process::id())),
        PathBuf::from,
    );
    fs::create_dir_all(&directory).unwrap();
    for documents in [100, 10_000] {
        compare(
            &directory,
            documents,
            Duration::from_secs_f64(seconds),
            rounds,
        )
        .await;
    }
    reopen(&directory, rounds).await;
    let _ = fs::remove_dir(&directory);
}
