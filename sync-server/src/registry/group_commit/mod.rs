//! A [`ServerRegistry`] made of a blocking engine with a single writer: one commit for everybody who waits.

mod answers;
mod queue;
mod readers;
mod upkeep;
mod writer;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use sync_core::history::{Epoch, Seq};
use sync_core::ids::{DocumentId, OriginId};
use tokio::sync::{Semaphore, oneshot};

use self::answers::{Answer, Answers};
use self::queue::{Queue, Work};
use self::readers::Readers;
use self::upkeep::Upkeep;
use super::{
    DocumentMeta, Durability, NewChange, NewDocument, OriginEntry, Outcome, RegistryError,
    ServerRegistry, Snapshot, Tail,
};

/// A registry engine that blocks, has a single writer, and makes what was written durable in commits.
///
/// Wrap it in [`GroupCommit`], which calls it from a thread of its own. Calls *stage*: nothing of what they did may be
/// seen by a [`reader`](Self::reader) before [`commit`](Self::commit) has returned `Ok`, and everything must be seen
/// after. The outcomes, errors and rules of each call are those of [`ServerRegistry`].
///
/// A call that fails stages nothing. An engine that cannot keep that, as after a failed write, fails the next commit.
pub trait BlockingRegistry: Send + 'static {
    /// Reads what is committed, beside the writer.
    type Reader: BlockingReader<Plan = Self::Plan>;
    /// A long change of what is stored, prepared by a reader and carried out in steps.
    type Plan: Send + 'static;

    /// A new reader.
    ///
    /// # Errors
    /// Those of every method.
    fn reader(&self) -> Result<Self::Reader, RegistryError>;

    /// As [`ServerRegistry::create`].
    ///
    /// # Errors
    /// As there.
    fn create(&mut self, document: NewDocument) -> Result<DocumentMeta, RegistryError>;

    /// As [`ServerRegistry::append`].
    ///
    /// # Errors
    /// As there.
    fn append(
        &mut self,
        document: &DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError>;

    /// As [`ServerRegistry::delete`].
    ///
    /// # Errors
    /// As there.
    fn delete(&mut self, document: &DocumentId) -> Result<(), RegistryError>;

    /// Carries out one step of a plan, of some milliseconds at most, and returns what is left of it. Other calls come
    /// between the steps: a plan that they have overtaken is dropped or refused here.
    ///
    /// # Errors
    /// Those of [`ServerRegistry::compact`], for its plans.
    fn apply(&mut self, plan: Self::Plan) -> Result<Option<Self::Plan>, RegistryError>;

    /// Makes what is staged durable, then visible to readers.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] if certainly nothing of it is or becomes durable, any other if that is not known.
    /// What is staged is gone. Unless [`is_usable`](Self::is_usable) says otherwise, no other call follows.
    fn commit(&mut self) -> Result<(), RegistryError>;

    /// Whether the engine can go on after a failed commit: only if what it holds in memory is what is stored, and no
    /// sync has failed.
    fn is_usable(&self) -> bool {
        false
    }

    /// Whether there is something to tidy up. Asked after every commit.
    fn is_untidy(&self) -> bool {
        false
    }

    /// As [`ServerRegistry::durability`].
    fn durability(&self) -> Durability;
}

/// Reads what a [`BlockingRegistry`] has committed. The methods are those of [`ServerRegistry`], strongly consistent:
/// they see every commit that returned before the call.
pub trait BlockingReader: Send + 'static {
    /// As [`BlockingRegistry::Plan`].
    type Plan;

    /// As [`ServerRegistry::meta`].
    ///
    /// # Errors
    /// As there.
    fn meta(&mut self, document: &DocumentId) -> Result<DocumentMeta, RegistryError>;

    /// As [`ServerRegistry::tail`].
    ///
    /// # Errors
    /// As there.
    fn tail(
        &mut self,
        document: &DocumentId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Tail, RegistryError>;

    /// As [`ServerRegistry::snapshot`].
    ///
    /// # Errors
    /// As there.
    fn snapshot(&mut self, document: &DocumentId) -> Result<Option<Snapshot>, RegistryError>;

    /// As [`ServerRegistry::list`].
    ///
    /// # Errors
    /// As there.
    fn list(
        &mut self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentMeta>, RegistryError>;

    /// As [`ServerRegistry::heads`].
    ///
    /// # Errors
    /// As there.
    fn heads(&mut self, documents: &[DocumentId]) -> Result<Vec<Option<Seq>>, RegistryError>;

    /// As [`ServerRegistry::origins`].
    ///
    /// # Errors
    /// As there.
    fn origins(
        &mut self,
        document: &DocumentId,
        origins: &[OriginId],
    ) -> Result<Vec<Option<OriginEntry>>, RegistryError>;

    /// Prepares a compaction; `None` if there is nothing to do, as for a snapshot older than the present one.
    ///
    /// # Errors
    /// As [`ServerRegistry::compact`].
    fn plan_compaction(
        &mut self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<Option<Self::Plan>, RegistryError>;

    /// The next piece of tidying up; what needs no writer is done on the spot. `thorough`: also what can wait.
    ///
    /// # Errors
    /// Those of every method. [`Unknown`](RegistryError::Unknown), here and of the steps, after a sync failed: everything is
    /// refused from then on, as after a failed commit.
    fn plan_upkeep(
        &mut self,
        thorough: bool,
    ) -> Result<Option<(Self::Plan, Patience)>, RegistryError> {
        let _ = thorough;
        Ok(None)
    }
}

/// How long a step of tidying up waits for a moment without appends before it goes in between.
pub type Patience = Duration;

/// Settings of a [`GroupCommit`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GroupCommitOptions {
    pub(super) interval_min: Duration,
    pub(super) interval_max: Duration,
    pub(super) calls_max: usize,
    pub(super) bytes_max: usize,
    pub(super) queue_bytes_max: usize,
    pub(super) readers: usize,
}

impl Default for GroupCommitOptions {
    fn default() -> Self {
        Self {
            interval_min: Duration::from_millis(1),
            interval_max: Duration::from_millis(5),
            calls_max: 1_000,
            bytes_max: 4 << 20,
            queue_bytes_max: 64 << 20,
            readers: 2,
        }
    }
}

impl GroupCommitOptions {
    /// How far apart commits begin while many call at once, in favour of larger ones. Default 1 ms to 5 ms: within these bounds it
    /// is twice what the last commit took. Nobody waits for it after a pause, alone, or with a good many others.
    #[must_use]
    pub const fn commit_interval(mut self, min: Duration, max: Duration) -> Self {
        self.interval_min = min;
        self.interval_max = max;
        self
    }

    /// Most calls in one commit. Default 1,000.
    #[must_use]
    pub const fn calls_max(mut self, calls: usize) -> Self {
        self.calls_max = calls;
        self
    }

    /// Bytes of changes after which a commit takes no more calls. Default 4 MiB.
    #[must_use]
    pub const fn bytes_max(mut self, bytes: usize) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// Bytes of changes that wait for their commit. Default 64 MiB; calls beyond wait in turn, before they are queued.
    #[must_use]
    pub const fn queue_bytes_max(mut self, bytes: usize) -> Self {
        self.queue_bytes_max = bytes;
        self
    }

    /// Threads that read, each with a [`BlockingReader`] of its own. Default 2, at least 1.
    #[must_use]
    pub const fn readers(mut self, threads: usize) -> Self {
        self.readers = threads;
        self
    }
}

/// Gives a [`BlockingRegistry`] to async callers.
///
/// One thread writes, for all documents: it takes whatever is queued, stages it, and commits once. After a pause it
/// commits at once; under load the batch clocks itself, and commits too small to be worth their sync are spaced out
/// ([`GroupCommitOptions::commit_interval`]). Answers leave in one list per commit; on a tokio runtime with several
/// threads a task of that runtime hands them out, so that the writer wakes one thread and not hundreds. Reads have
/// threads of their own and never wait for a commit.
///
/// After a commit failed, everything is refused with [`RegistryError::Unavailable`] until the engine is opened again,
/// unless [`BlockingRegistry::is_usable`].
///
/// Dropping it waits for what is queued, and for its threads; [`close`](ServerRegistry::close) does so without
/// blocking.
pub struct GroupCommit<B: BlockingRegistry> {
    shared: Arc<Shared<B>>,
    /// Budget of the queue, in units of [`UNIT`].
    room: Arc<Semaphore>,
    room_max: u32,
    durability: Durability,
    /// The writer's is the last.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// Bytes that one permit of the queue's budget stands for.
const UNIT: usize = 1024;

struct Shared<B: BlockingRegistry> {
    queue: Queue<B>,
    readers: Readers<B::Reader>,
    upkeep: Upkeep,
    answers: Arc<Answers>,
    /// Why everything is refused, if it is.
    failed: OnceLock<String>,
}

impl<B: BlockingRegistry> fmt::Debug for GroupCommit<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupCommit")
            .field("failed", &self.shared.failed.get())
            .finish_non_exhaustive()
    }
}

impl<B: BlockingRegistry> GroupCommit<B> {
    /// Starts the threads.
    ///
    /// # Errors
    /// Those of [`BlockingRegistry::reader`]; [`RegistryError::Unavailable`] if there are no threads to be had.
    pub fn start(engine: B, options: &GroupCommitOptions) -> Result<Self, RegistryError> {
        let units = options.queue_bytes_max.div_ceil(UNIT);
        let room_max = u32::try_from(units).unwrap_or(u32::MAX).max(1);
        let room = usize::try_from(room_max)
            .unwrap_or(Semaphore::MAX_PERMITS)
            .min(Semaphore::MAX_PERMITS);
        let shared = Arc::new(Shared {
            queue: Queue::new(options),
            readers: Readers::new(),
            upkeep: Upkeep::new(),
            answers: Arc::default(),
            failed: OnceLock::new(),
        });
        let registry = Self {
            room: Arc::new(Semaphore::new(room)),
            room_max,
            durability: engine.durability(),
            threads: Mutex::default(),
            shared,
        };
        // From here on a failure drops `registry`, which stops what was started.
        for _ in 0..options.readers.max(1) {
            let reader = engine.reader()?;
            registry.spawn("registry-read", move |shared| shared.readers.run(reader))?;
        }
        let reader = engine.reader()?;
        registry.spawn("registry-tidy", move |shared| {
            upkeep::run(shared, reader);
        })?;
        registry.spawn("registry-write", move |shared| writer::run(shared, engine))?;
        Ok(registry)
    }

    /// Runs `f` on the writer's thread, alone in a commit, and answers once that commit is done: for an engine's own
    /// operations.
    ///
    /// # Errors
    /// Those of `f`, and those of every method.
    ///
    /// # Cancellation
    /// What is dropped is carried out or not, but never half.
    pub async fn with_writer<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut B) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        self.shared.check()?;
        let (answer, answered) = oneshot::channel();
        self.shared.queue.push(Work::call(f, answer))?;
        received(answered.await)
    }

    /// Runs `f` on a reading thread.
    ///
    /// # Errors
    /// Those of `f`, and those of every method.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn with_reader<T: Send + 'static>(
        &self,
        f: impl FnOnce(&mut B::Reader) -> Result<T, RegistryError> + Send + 'static,
    ) -> Result<T, RegistryError> {
        self.shared.check()?;
        let (answer, answered) = oneshot::channel();
        self.shared.readers.push(Box::new(move |reader| {
            if !answer.is_closed() {
                // Nobody waits any more: no harm done.
                let _ = answer.send(f(reader));
            }
        }))?;
        let read = answered.await.map_err(|_| stopped())?;
        // What was read while a commit failed may be more than is stored.
        self.shared.check()?;
        read
    }

    fn spawn(
        &self,
        name: &str,
        run: impl FnOnce(&Shared<B>) + Send + 'static,
    ) -> Result<(), RegistryError> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&shared))
            .map_err(RegistryError::unavailable)?;
        lock(&self.threads).push(thread);
        Ok(())
    }

    /// The threads, for [`end`], unless somebody has taken them.
    fn take_threads(&self) -> Vec<JoinHandle<()>> {
        std::mem::take(&mut *lock(&self.threads))
    }
}

/// Waits until the threads have finished what is queued: the writer last, for an engine may do more when nobody else has
/// it open any more.
fn end<B: BlockingRegistry>(shared: &Shared<B>, mut threads: Vec<JoinHandle<()>>) {
    shared.upkeep.stop();
    shared.readers.stop();
    let writer = threads.pop();
    // One that panicked has failed the registry.
    threads.into_iter().for_each(|thread| drop(thread.join()));
    shared.queue.stop();
    drop(writer.map(JoinHandle::join));
}

impl<B: BlockingRegistry> Drop for GroupCommit<B> {
    fn drop(&mut self) {
        end(&self.shared, self.take_threads());
    }
}

impl<B: BlockingRegistry> Shared<B> {
    /// Refuses everything after a failed commit.
    fn check(&self) -> Result<(), RegistryError> {
        match self.failed.get() {
            None => Ok(()),
            Some(why) => Err(refused(why)),
        }
    }

    fn fail(&self, why: String) {
        tracing::error!(%why, "the registry refuses everything until it is opened again");
        // A first reason stays.
        let _ = self.failed.set(why);
    }
}

#[async_trait]
impl<B: BlockingRegistry> ServerRegistry for GroupCommit<B> {
    async fn create(&self, document: NewDocument) -> Result<DocumentMeta, RegistryError> {
        self.with_writer(|engine| engine.create(document)).await
    }

    async fn meta(&self, document: &DocumentId) -> Result<DocumentMeta, RegistryError> {
        let document = document.clone();
        self.with_reader(move |reader| reader.meta(&document)).await
    }

    async fn append(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        self.shared.check()?;
        let bytes: usize = changes.iter().map(|change| change.bytes.len()).sum();
        let units = u32::try_from(bytes.div_ceil(UNIT))
            .unwrap_or(u32::MAX)
            .clamp(1, self.room_max);
        let room = Arc::clone(&self.room)
            .acquire_many_owned(units)
            .await
            .map_err(|_| stopped())?;
        self.shared.answers.use_runtime();
        let (answer, answered) = oneshot::channel();
        self.shared.queue.push(Work::Append {
            document: document.clone(),
            epoch,
            expect,
            changes,
            bytes,
            answer,
            _room: room,
        })?;
        received(answered.await)
    }

    async fn tail(
        &self,
        document: &DocumentId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Tail, RegistryError> {
        let document = document.clone();
        self.with_reader(move |reader| reader.tail(&document, after, max_bytes))
            .await
    }

    async fn snapshot(&self, document: &DocumentId) -> Result<Option<Snapshot>, RegistryError> {
        let document = document.clone();
        self.with_reader(move |reader| reader.snapshot(&document))
            .await
    }

    async fn compact(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<(), RegistryError> {
        let document = document.clone();
        let mut plan = self
            .with_reader(move |reader| {
                reader.plan_compaction(&document, epoch, snapshot, keep_after)
            })
            .await?;
        while let Some(step) = plan {
            plan = self.with_writer(|engine| engine.apply(step)).await?;
        }
        Ok(())
    }

    async fn delete(&self, document: &DocumentId) -> Result<(), RegistryError> {
        let document = document.clone();
        self.with_writer(move |engine| engine.delete(&document))
            .await
    }

    async fn list(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentMeta>, RegistryError> {
        let after = after.cloned();
        self.with_reader(move |reader| reader.list(after.as_ref(), limit))
            .await
    }

    async fn heads(&self, documents: &[DocumentId]) -> Result<Vec<Option<Seq>>, RegistryError> {
        let documents = documents.to_vec();
        self.with_reader(move |reader| reader.heads(&documents))
            .await
    }

    async fn origins(
        &self,
        document: &DocumentId,
        origins: &[OriginId],
    ) -> Result<Vec<Option<OriginEntry>>, RegistryError> {
        let (document, origins) = (document.clone(), origins.to_vec());
        self.with_reader(move |reader| reader.origins(&document, &origins))
            .await
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    /// Tidies up thoroughly. What is due is tidied up without being asked.
    async fn maintain(&self, budget: Duration) -> Result<(), RegistryError> {
        self.shared.check()?;
        let (done, finished) = oneshot::channel();
        self.shared.upkeep.ask(budget, done)?;
        finished.await.map_err(|_| stopped())?;
        self.shared.check()
    }

    async fn close(&self) -> Result<(), RegistryError> {
        let threads = self.take_threads();
        if !threads.is_empty() {
            let shared = Arc::clone(&self.shared);
            let (done, ended) = oneshot::channel();
            let waiting = std::thread::Builder::new()
                .name("registry-close".to_owned())
                .spawn(move || {
                    end(&shared, threads);
                    let _ = done.send(());
                });
            waiting.map_err(RegistryError::unavailable)?;
            // Dropped without an answer only if the thread panicked, and nothing is open then either.
            let _ = ended.await;
        }
        self.shared.check()
    }
}

/// The answer of a thread. One that ended without an answer may have done what it was asked.
fn received<T>(
    answer: Result<Result<T, RegistryError>, oneshot::error::RecvError>,
) -> Result<T, RegistryError> {
    answer.unwrap_or_else(|_| {
        Err(RegistryError::unknown(
            "the registry stopped before it answered",
        ))
    })
}

fn refused(why: &str) -> RegistryError {
    RegistryError::unavailable(format!("the registry has to be opened again: {why}"))
}

fn stopped() -> RegistryError {
    RegistryError::unavailable("the registry has been closed")
}

/// What the locks here guard is whole after every statement, whoever panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
