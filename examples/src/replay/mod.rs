//! Replays a real editing history over real connections: the library behind the `replay` program.

mod paced;
mod trace;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use sync_client::transport::WebSocketDialer;
use sync_client::yrs::{GetString, ReadTxn, Text, Transaction, TransactionMut, WriteTxn};
use sync_client::{Client, DocumentHandle, Engine, Yrs};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

pub use self::paced::{Marks, Paced, PacedDocument};
pub use self::trace::{Patch, Step, Trace};
use crate::link::{Links, Traffic};
use crate::progress;
use crate::random::SplitMix;

/// The document that everybody types into.
pub const DOCUMENT: &str = "replay";
const TEXT: &str = "text";

type Error = Box<dyn std::error::Error + Send + Sync>;

/// How a trace is replayed.
#[derive(Debug, Clone)]
pub struct Options {
    /// Readers that join at random moments while the authors type. One more joins when everything is typed.
    pub joiners: usize,
    /// A random connection is broken after so many changes, again and again; never if `None`.
    pub cut_every: Option<usize>,
    /// Decides when readers join and which connections break.
    pub seed: u64,
    /// How long the authors may take, and then how long everybody else.
    pub patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            joiners: 0,
            cut_every: None,
            seed: 1,
            patience: Duration::from_secs(300),
        }
    }
}

/// What came out.
#[derive(Debug, Clone)]
pub struct Report {
    /// Who has the trace's text in the end: every author, every reader.
    pub replicas: Vec<(String, bool)>,
    /// Changes made.
    pub n_changes: usize,
    /// Authors.
    pub n_authors: usize,
    /// Connections broken.
    pub n_cuts: usize,
    /// What went over the authors' connections.
    pub authors: Traffic,
    /// What went over the readers' connections.
    pub readers: Traffic,
    /// From the first connection until every author and every reader who joined meanwhile had everything.
    pub wall: Duration,
    /// What the last reader, who joined when everything was typed, took.
    pub late: Duration,
}

impl Report {
    /// Whether everybody has the trace's text.
    #[must_use]
    pub fn converged(&self) -> bool {
        self.replicas.iter().all(|(_, has_it)| *has_it)
    }
}

impl fmt::Display for Report {
    #[expect(
        clippy::as_conversions,
        clippy::cast_precision_loss,
        reason = "numbers for people to read"
    )]
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let per_change = |bytes: u64| bytes as f64 / self.n_changes.max(1) as f64;
        let mut names = Vec::new();
        for (name, has_it) in &self.replicas {
            names.push(format!("{name} {}", if *has_it { "yes" } else { "NO" }));
        }
        let converged = if self.converged() { "yes" } else { "NO" };
        writeln!(f, "converged  {converged} ({})", names.join(", "))?;
        writeln!(
            f,
            "changes    {} by {} clients, {} connections cut",
            self.n_changes, self.n_authors, self.n_cuts
        )?;
        let Traffic {
            connections,
            frames_up,
            bytes_up,
            frames_down,
            bytes_down,
        } = self.authors;
        writeln!(
            f,
            "wire up    {:.1} bytes per change (WebSocket headers included; {bytes_up} bytes in {frames_up} frames on {connections} connections)",
            per_change(bytes_up),
        )?;
        writeln!(
            f,
            "wire down  {:.1} bytes per change and client, acks included ({bytes_down} bytes in {frames_down} frames)",
            per_change(bytes_down) / self.n_authors.max(1) as f64,
        )?;
        writeln!(
            f,
            "readers    {} bytes down on {} connections",
            self.readers.bytes_down, self.readers.connections
        )?;
        writeln!(
            f,
            "late       {:.2} s to join in the end",
            self.late.as_secs_f64()
        )?;
        write!(f, "wall       {:.2} s", self.wall.as_secs_f64())
    }
}

/// Replays a trace on the server at this address, which must not have the document yet.
///
/// # Errors
/// If a client cannot do what it is asked, or the authors lose patience.
pub async fn run(address: &str, trace: Trace, options: Options) -> Result<Report, Error> {
    let (n_changes, n_authors) = (trace.n_changes(), trace.authors.len());
    let started = Instant::now();
    let mut random = SplitMix(options.seed);
    let authors_links = Links::new();
    let readers_links = authors_links.counted_apart();
    // Who types waits until a reader has joined.
    let (joining, mut joins) = mpsc::channel(1);
    let moments = (0..options.joiners).map(|_| 1 + random.below(n_changes.max(1)));
    let stage = Arc::new(Stage {
        n_typed: AtomicUsize::new(0),
        moments: moments.collect(),
        joining,
        cut_every: options.cut_every,
        links: authors_links.clone(),
        seed: random.draw(),
    });

    // Everybody is there before the first change.
    let marks = Marks::default();
    let mut authors = Vec::new();
    let mut writing = JoinSet::new();
    for (author, steps) in trace.authors.into_iter().enumerate() {
        let knows = steps.iter().map(|step| step.knows.clone()).collect();
        let engine = Paced::new(&marks, author, n_authors, knows);
        let notes = open(address, &authors_links, engine.clone()).await?;
        notes.caught_up().await?;
        writing.spawn(write(notes.clone(), engine, steps, stage.clone()));
        authors.push(notes);
    }
    drop(stage);

    let mut readers = Vec::new();
    let typing = async {
        let written = async {
            while let Some(written) = writing.join_next().await {
                written??;
            }
            Ok::<_, Error>(())
        };
        let joined = async {
            while let Some(moment) = joins.recv().await {
                readers.push((moment, open(address, &readers_links, Yrs::new()).await?));
            }
            Ok::<_, Error>(())
        };
        tokio::try_join!(written, joined)
    };
    match timeout(options.patience, typing).await {
        Ok(done) => done.map(drop)?,
        Err(_) => return Err(stuck(&authors).into()),
    }

    let mut replicas = Vec::new();
    for (author, notes) in authors.iter().enumerate() {
        let has_it = comes_to(notes, &trace.end, options.patience).await;
        replicas.push((format!("author {author}"), has_it));
    }
    for (moment, notes) in &readers {
        let has_it = comes_to(notes, &trace.end, options.patience).await;
        replicas.push((format!("joined at {moment}"), has_it));
    }
    let wall = started.elapsed();

    let started = Instant::now();
    let late = open(address, &readers_links, Yrs::new()).await?;
    tokio::spawn(progress::show(late.sync_state()));
    let has_it = comes_to(&late, &trace.end, options.patience).await;
    replicas.push(("late joiner".to_owned(), has_it));
    Ok(Report {
        replicas,
        n_changes,
        n_authors,
        n_cuts: options.cut_every.map_or(0, |n| n_changes / n.max(1)),
        authors: authors_links.traffic(),
        readers: readers_links.traffic(),
        wall,
        late: started.elapsed(),
    })
}

/// What the authors have in common.
struct Stage {
    n_typed: AtomicUsize,
    /// Readers join after so many changes.
    moments: BTreeSet<usize>,
    joining: mpsc::Sender<usize>,
    cut_every: Option<usize>,
    links: Links,
    seed: u64,
}

impl Stage {
    /// One more change is typed.
    async fn typed(&self) {
        let n_typed = self.n_typed.fetch_add(1, Ordering::Relaxed) + 1;
        if self.moments.contains(&n_typed) {
            // Nobody listens after an error, which is reported as such.
            let _ = self.joining.send(n_typed).await;
        }
        if self.cut_every.is_some_and(|n| n_typed.is_multiple_of(n)) {
            let seed = self.seed.wrapping_add(u64::try_from(n_typed).unwrap_or(0));
            self.links.cut_one(|n| SplitMix(seed).below(n)).await;
        }
        // Typing needs no waiting: the connections, on the same threads, get their turn here.
        tokio::task::yield_now().await;
    }
}

/// Does what one author did, each step as soon as its replica holds what the author had on the screen.
async fn write(
    notes: DocumentHandle<Paced>,
    engine: Paced,
    steps: Vec<Step>,
    stage: Arc<Stage>,
) -> Result<(), Error> {
    for step in &steps {
        engine.ready().await;
        notes.edit(|txn| type_step(txn, step))?;
        stage.typed().await;
    }
    // Acknowledgements are waited for here, and not after each change.
    notes.saved().await?;
    Ok(())
}

fn type_step(txn: &mut TransactionMut<'_>, step: &Step) {
    let text = txn.get_or_insert_text(TEXT);
    for patch in &step.patches {
        let (at, deleted) = if step.is_utf16 {
            (patch.at, patch.deleted)
        } else {
            // yrs counts in UTF-16. To count is slow in a long text, and most traces do without.
            let content = text.get_string(txn);
            let mut chars = content.chars();
            let at = utf16_len(chars.by_ref().take(index(patch.at)));
            (at, utf16_len(chars.take(index(patch.deleted))))
        };
        if deleted > 0 {
            text.remove_range(txn, at, deleted);
        }
        if !patch.inserted.is_empty() {
            text.insert(txn, at, &patch.inserted);
        }
    }
}

fn index(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn utf16_len(chars: impl Iterator<Item = char>) -> u32 {
    u32::try_from(chars.map(char::len_utf16).sum::<usize>()).unwrap_or(u32::MAX)
}

async fn open<E: Engine>(
    address: &str,
    links: &Links,
    engine: E,
) -> Result<DocumentHandle<E>, Error> {
    let client = Client::with_dialer(links.dialer(WebSocketDialer::new(address)?))
        // Who is cut off should be back within milliseconds: the trace has no pauses.
        .reconnect_max(Duration::from_millis(20))
        .start()?;
    Ok(client.open(DOCUMENT, engine).await?)
}

/// Whether the replica comes to hold this text, and the server all that the replica holds.
async fn comes_to<E>(notes: &DocumentHandle<E>, text: &str, patience: Duration) -> bool
where
    E: for<'a> Engine<Read<'a> = Transaction<'a>>,
{
    let utf16_len = utf16_len(text.chars());
    let has_it = |txn: &Transaction<'_>| {
        let found = txn.get_text(TEXT);
        // The length is at hand, the text must be put together.
        found.is_some_and(|found| found.len(txn) == utf16_len && found.get_string(txn) == text)
    };
    let mut revision = notes.revision();
    let coming = async {
        // The current revision comes first, then each later one.
        while revision.changed().await.is_ok() {
            if notes.read(has_it) {
                break;
            }
        }
    };
    timeout(patience, coming).await.is_ok()
        && notes.sync_state().get().is_saved()
        && notes.refused().is_empty()
}

/// Why nothing goes on.
fn stuck<E: Engine>(authors: &[DocumentHandle<E>]) -> String {
    let states = authors.iter().map(|notes| notes.sync_state().get());
    format!("the authors are stuck: {:?}", states.collect::<Vec<_>>())
}
