//! A [`ServerRegistry`](super::ServerRegistry) made of a blocking engine with a single writer: one commit for everybody who waits.

mod answers;
mod engine;
mod options;
mod queue;
mod readers;
mod registry;
mod upkeep;
mod writer;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, oneshot};

use self::answers::{Answer, Answers};
pub use self::engine::{BlockingReader, BlockingRegistry, Patience};
pub use self::options::GroupCommitOptions;
use self::queue::{Queue, Work};
use self::readers::Readers;
use self::upkeep::Upkeep;
use super::{Durability, RegistryError};

/// Gives a [`BlockingRegistry`] to async callers.
///
/// One thread writes, for all documents: it takes whatever is queued, stages it, with what is
/// queued meanwhile, and commits once. After a pause it
/// commits at once; under load the batch clocks itself, and commits too small to be worth their sync are spaced out
/// ([`GroupCommitOptions::commit_interval`]). Answers leave in one list per commit; on a tokio runtime with several
/// threads a task of that runtime hands them out, so that the writer wakes one thread and not hundreds. Reads have
/// threads of their own and never wait for a commit.
///
/// After a commit failed, everything is refused with [`RegistryError::Unavailable`] until the engine is opened again,
/// unless [`BlockingRegistry::is_usable`].
///
/// Dropping it waits for what is queued, and for its threads; [`close`](super::ServerRegistry::close) does so without
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
