//! Durable appends: `EmbeddedRegistry` next to a plain file with one `fdatasync` for everybody who waits.
//!
//! ```text
//! cargo bench -p sync-server --bench store -- [SECONDS] [DIRECTORY]
//! ```
//!
//! 256 tasks append one random change of 200 bytes each to a random document and wait for the answer before the next.
//! Of 10,000 documents each has 8 of the tasks as its authors, of 100 all.
//! Both stores are measured in the same run, in turn. Then a journal of 1 GB is opened. DIRECTORY should be on the disk
//! in question; it is emptied.

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

struct Figures {
    per_second: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    worst: f64,
}

/// So many runs before this one: each has origins of its own, so that nothing is a repeat.
static RUNS: AtomicU64 = AtomicU64::new(1);

async fn measure(store: Arc<dyn Store>, documents: usize, time: Duration) -> Figures {
    let begin = Instant::now() + time / 5;
    let end = begin + time;
    let first = u128::from(RUNS.fetch_add(1, Ordering::Relaxed)) << 64;
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut rng = Rng::new(writer + 1);
                let mut numbers = vec![0_u64; documents];
                let mut took = Vec::with_capacity(1 << 16);
                let bytes: Vec<u8> = (0..PAYLOAD + 1_000)
                    .map(|_| rng.next_u64().to_le_bytes()[0])
                    .collect();
                let bytes = Bytes::from(bytes);
                loop {
                    let document = if documents < WRITERS as usize {
                        (rng.next_u64() % documents as u64) as usize
                    } else {
                        let group = writer as usize / AUTHORS;
                        let groups = WRITERS as usize / AUTHORS;
                        let of_group = (documents - group).div_ceil(groups) as u64;
                        group + (rng.next_u64() % of_group) as usize * groups
                    };
                    numbers[document] += 1;
                    let id = ChangeId {
                        origin: OriginId(first | writer),
                        number: numbers[document],
                    };
                    let at = (rng.next_u64() % 1_000) as usize;
                    let user = User::new("a-user-of-this-server");
                    let change = NewChange::new(id, user, bytes.slice(at..at + PAYLOAD));
                    let asked = Instant::now();
                    if asked >= end {
                        return took;
                    }
                    store.append(document, change).await;
                    if asked >= begin {
                        took.push(asked.elapsed().as_micros() as u32);
                    }
                }
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.unwrap());
    }
    took.sort_unstable();
    let at = |part: f64| f64::from(took[((took.len() - 1) as f64 * part) as usize]) / 1_000.0;
    Figures {
        per_second: took.len() as f64 / time.as_secs_f64(),
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        worst: at(1.0),
    }
}

fn show(what: &str, figures: &Figures, plain: Option<&Figures>) {
    let ratio = plain.map_or(String::new(), |plain| {
        format!(
            "   {:.2} of the plain file, p99 {:.1} times its",
            figures.per_second / plain.per_second,
            figures.p99 / plain.p99
        )
    });
    println!(
        "{what:<28} {:>9.0}/s  p50 {:>6.2}  p99 {:>6.2}  p99.9 {:>6.2}  worst {:>6.1} ms{ratio}",
        figures.per_second, figures.p50, figures.p99, figures.p999, figures.worst
    );
}

async fn compare(directory: &Path, documents: usize, time: Duration) {
    let fresh = |name: &str| {
        let path = directory.join(name);
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    };
    let path = fresh("plain").join("log");
    let plain = measure(Arc::new(PlainFile::create(&path)), documents, time).await;
    show(&format!("plain file, {documents} docs"), &plain, None);
    fresh("plain");
    let path = fresh("embedded");
    let store = Arc::new(Embedded::create(&path, documents, EmbeddedOptions::default()).await);
    let embedded = measure(store.clone(), documents, time).await;
    show(
        &format!("embedded, {documents} docs"),
        &embedded,
        Some(&plain),
    );
    store.registry.close().await.unwrap();
    fresh("embedded");
}

async fn reopen(directory: &Path) {
    let path = directory.join("reopen");
    let _ = fs::remove_dir_all(&path);
    let options = EmbeddedOptions::default().fold_bytes(u64::MAX);
    let store = Arc::new(Embedded::create(&path, 1_000, options.clone()).await);
    let database = path.join("sync.db");
    let mut length = 0;
    while length < 1 << 30 {
        measure(store.clone(), 1_000, Duration::from_secs(2)).await;
        length = fs::metadata(&database).unwrap().len();
    }
    store.registry.close().await.unwrap();
    drop(store);
    let opening = Instant::now();
    let registry = EmbeddedRegistry::open_with(&path, options).unwrap();
    println!(
        "opening a journal of {} MB: {} ms",
        length >> 20,
        opening.elapsed().as_millis()
    );
    drop(registry);
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
    let seconds: f64 = given.next().map_or(5.0, |seconds| seconds.parse().unwrap());
    let directory = given.next().map_or_else(
        || std::env::temp_dir().join(format!("sync-store-bench-{}", std::process::id())),
        PathBuf::from,
    );
    fs::create_dir_all(&directory).unwrap();
    for documents in [100, 10_000] {
        compare(&directory, documents, Duration::from_secs_f64(seconds)).await;
    }
    reopen(&directory).await;
    let _ = fs::remove_dir(&directory);
}
