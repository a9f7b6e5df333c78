//! One document of the client, without its engine's type, and the lock around its replica.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use sync_core::client::{
    DocumentEvent, Job, JobOutcome, RefusedReason, Replica, StoredDocument, SyncState,
};
use sync_core::engine::{Engine, EngineError, EngineEvent, Sealer, Unreadable};
use sync_core::events::EventSender;
use sync_core::ids::DocumentId;
use sync_core::watch::{WatchSender, watch};

use crate::broadcasts::Broadcasts;
use crate::client::Keeper;
use crate::presence::Rosters;
use crate::shared::Shared;

/// Stack of whatever runs engine code on bytes of others. Engines recurse into nested values; address space is all that this
/// costs until they do.
pub(crate) const ENGINE_STACK_BYTES: usize = 256 * 1024 * 1024;

/// How long a thread waits for more to do for a document.
const LINGER: Duration = Duration::from_millis(1);

/// Jobs that one document runs before it lets go of its lock.
const JOBS_PER_TURN: usize = 64;

/// One document, as the driver sees it.
pub(crate) struct Entry {
    pub(crate) id: DocumentId,
    pub(crate) sync_state: WatchSender<SyncState>,
    pub(crate) revision: WatchSender<u64>,
    /// Counts turns of the document's machine, for whoever waits for something to become true.
    pub(crate) turns: WatchSender<u64>,
    pub(crate) events: EventSender<DocumentEvent>,
    pub(crate) broadcasts: Broadcasts,
    pub(crate) rosters: Rosters,
    work: Mutex<Work>,
    /// Something was added to `work`.
    more: Condvar,
    /// The replica has something to drain.
    dirty: AtomicBool,
    /// An [`Arc<Cell<E>>`].
    pub(crate) any: Box<dyn Any + Send + Sync>,
    runner: Box<dyn Runner>,
    /// Lives as long as the application holds a handle.
    keeper: Mutex<Weak<Keeper>>,
}

/// What waits for the replica. One thread at a time works it off, in order.
#[derive(Debug, Default)]
struct Work {
    jobs: VecDeque<(u64, Job)>,
    running: bool,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Entry {
    pub(crate) fn new<E: Engine>(id: DocumentId, cell: Arc<Cell<E>>) -> Self {
        Self {
            id,
            sync_state: watch(SyncState::NEW).0,
            revision: watch(0).0,
            turns: watch(0).0,
            events: EventSender::new(EVENTS_MAX),
            broadcasts: Broadcasts::default(),
            rosters: Rosters::default(),
            work: Mutex::default(),
            more: Condvar::new(),
            dirty: AtomicBool::new(false),
            any: Box::new(cell.clone()),
            runner: Box::new(cell),
            keeper: Mutex::default(),
        }
    }

    /// What the handles share, made anew if there is none.
    pub(crate) fn keeper(&self, make: impl FnOnce() -> Keeper) -> Arc<Keeper> {
        let mut keeper = lock(&self.keeper);
        keeper.upgrade().unwrap_or_else(|| {
            let made = Arc::new(make());
            *keeper = Arc::downgrade(&made);
            made
        })
    }

    /// Whether a handle is there.
    pub(crate) fn is_kept(&self) -> bool {
        lock(&self.keeper).strong_count() > 0
    }

    /// Adds a job. Whether the caller must see to it that [`run`](Self::run) is called.
    pub(crate) fn queue(&self, number: u64, job: Job) -> bool {
        let mut work = lock(&self.work);
        work.jobs.push_back((number, job));
        self.more.notify_one();
        !std::mem::replace(&mut work.running, true)
    }

    /// Whether the replica has something to drain and the caller must see to it that [`run`](Self::run) is called.
    pub(crate) fn claim_dirty(&self) -> bool {
        if !self.dirty.load(Ordering::Acquire) {
            return false;
        }
        let mut work = lock(&self.work);
        self.more.notify_one();
        !std::mem::replace(&mut work.running, true)
    }

    /// Works off what is queued, and drains the replica, on a stack that suits engines. Blocks; not for an async worker.
    /// Whether everything is done: otherwise a transaction of the application holds the document, and the caller must
    /// call again in a while.
    pub(crate) fn run(&self, shared: &Shared) -> bool {
        stacker::grow(ENGINE_STACK_BYTES, || {
            while self.run_some(shared) {
                if !self.linger() {
                    return true;
                }
            }
            false
        })
    }

    /// Whether the document could be locked, so that jobs could be run.
    fn run_some(&self, shared: &Shared) -> bool {
        let jobs: Vec<(u64, Job)> = {
            let mut work = lock(&self.work);
            let count = work.jobs.len().min(JOBS_PER_TURN);
            work.jobs.drain(..count).collect()
        };
        let done = self.runner.run(self, shared, &jobs);
        let is_busy = done < jobs.len();
        let mut work = lock(&self.work);
        for job in jobs.into_iter().skip(done).rev() {
            work.jobs.push_front(job);
        }
        !is_busy
    }

    /// Waits a moment for more to do: a thread and a stack cost more than most batches. Whether there is more; if not,
    /// whoever brings some must see to it that it is run.
    fn linger(&self) -> bool {
        let has_more = |work: &Work| !work.jobs.is_empty() || self.dirty.load(Ordering::Acquire);
        let work = lock(&self.work);
        let waited = self
            .more
            .wait_timeout_while(work, LINGER, |work| !has_more(work));
        let (mut work, _) = waited.unwrap_or_else(PoisonError::into_inner);
        work.running = has_more(&work);
        work.running
    }

    /// Drains the replica into the machine. Under the replica's lock, so that what comes out is in the order in which it
    /// was made.
    pub(crate) fn drain<E: Engine>(
        &self,
        shared: &Shared,
        replica: &mut Replica<E>,
    ) -> Vec<EngineEvent> {
        self.dirty.store(false, Ordering::Release);
        let drained = replica.drain();
        let mut failed = None;
        if !drained.main.local.is_empty() || !drained.stray.is_empty() {
            shared.command(|state, now| {
                for bytes in drained.main.local {
                    let staged = state.handle_edit(now, &self.id, bytes);
                    if let (Some(store), Some(change)) = (&shared.store, staged) {
                        // Within the machine's lock: the driver must not have committed and removed it before.
                        let result = store.stage(&self.id, &replica.engine_id(), &change);
                        failed = failed.take().or(result.err());
                    }
                }
                for bytes in drained.stray {
                    state.handle_taken_back(now, &self.id, bytes, RefusedReason::Replaced);
                }
            });
        }
        if replica.is_poisoned() {
            shared.command(|state, now| state.handle_poisoned(now, &self.id));
        }
        if let Some(error) = failed {
            // The edit has happened; it is committed like any other change.
            shared.store_failed(&error);
        }
        drained.main.events
    }

    /// Tells the application what the machine says.
    pub(crate) fn happened(&self, event: DocumentEvent) {
        if event == DocumentEvent::Replaced {
            self.bump_revision();
        }
        self.events.send(event);
    }

    fn bump_revision(&self) {
        self.revision.send_if_changed(|revision| {
            *revision += 1;
            true
        });
    }

    /// Tells the application what has changed. Not under the replica's lock: whoever listens may read.
    pub(crate) fn publish(&self, events: Vec<EngineEvent>) {
        if events.is_empty() {
            return;
        }
        self.bump_revision();
        for event in events {
            self.events.send(DocumentEvent::Changed {
                source: event.source,
                roots: event.roots,
            });
        }
    }
}

/// Events that a slow reader may be behind before it loses the oldest.
pub(crate) const EVENTS_MAX: usize = 1024;

/// Runs jobs on a replica of any engine.
trait Runner: Send + Sync {
    /// How many were done. The others find the document held by a transaction of the application.
    fn run(&self, entry: &Entry, shared: &Shared, jobs: &[(u64, Job)]) -> usize;
}

impl<E: Engine> Runner for Arc<Cell<E>> {
    fn run(&self, entry: &Entry, shared: &Shared, jobs: &[(u64, Job)]) -> usize {
        let Ok(mut guard) = self.lock() else { return 0 };
        let run = |replica: &mut Replica<E>, job: &Job| {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                replica.run(
                    job,
                    || shared.core().state.outbox_bytes(&entry.id),
                    || shared.core().state.take_for_replacement(&entry.id),
                )
            }));
            // An engine that panics on what is in the log cannot go on from there.
            outcome.unwrap_or(Some(JobOutcome::Invalid { index: 0 }))
        };
        let mut rest = jobs;
        while let [(number, job), ..] = rest {
            // Engines import many changes at once for less; if one of them is bad, each job has to tell for itself.
            let together = merge_imports(rest)
                .and_then(|(merged, n)| match run(&mut guard.replica, &merged) {
                    Some(outcome @ JobOutcome::Done { .. }) => Some((outcome, n)),
                    _ => None,
                })
                .or_else(|| run(&mut guard.replica, job).map(|outcome| (outcome, 1)));
            let Some((outcome, n)) = together else { break };
            let unreadable = guard.replica.unreadable();
            let mut core = shared.core();
            let now = core.now();
            core.state.handle_unreadable(now, &entry.id, unreadable);
            for number in (*number..).take(n) {
                core.state
                    .handle_job(now, &entry.id, number, outcome.clone());
            }
            drop(core);
            rest = rest.get(n..).unwrap_or_default();
        }
        let done = jobs.len() - rest.len();
        let events = entry.drain(shared, &mut guard.replica);
        drop(guard);
        entry.publish(events);
        shared.wake.notify_one();
        done
    }
}

/// The imports into one replica that stand at the front, as one, and how many they are; `None` if it is but one.
fn merge_imports(jobs: &[(u64, Job)]) -> Option<(Job, usize)> {
    let [
        (
            _,
            Job::Import {
                target,
                changes,
                first,
            },
        ),
        ..,
    ] = jobs
    else {
        return None;
    };
    let mut together = changes.clone();
    let mut n = 1;
    for (_, job) in jobs.iter().skip(1) {
        match job {
            Job::Import {
                target: next,
                changes,
                ..
            } if next == target => {
                together.extend_from_slice(changes);
                n += 1;
            }
            _ => break,
        }
    }
    let job = Job::Import {
        target: *target,
        changes: together,
        first: *first,
    };
    (n > 1).then_some((job, n))
}

/// A replica behind a lock that knows which thread holds it, so that a call from within is an error and not a deadlock.
pub(crate) struct Cell<E: Engine> {
    replica: Mutex<Replica<E>>,
    /// [`thread_number`] of the holder; 0 if nobody holds it.
    holder: AtomicU64,
    /// Seals the document's changes for their ids, if it is that kind of document.
    pub(crate) sealer: Option<Arc<dyn Sealer>>,
}

impl<E: Engine> fmt::Debug for Cell<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cell").finish_non_exhaustive()
    }
}

/// The lock is held by this very thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reentrant;

/// The replica, locked.
pub(crate) struct Guard<'a, E: Engine> {
    pub(crate) replica: MutexGuard<'a, Replica<E>>,
    holder: &'a AtomicU64,
}

impl<E: Engine> Drop for Guard<'_, E> {
    fn drop(&mut self) {
        self.holder.store(0, Ordering::Relaxed);
    }
}

impl<E: Engine> Cell<E> {
    /// A replica of what a store holds, or an empty one. Blocks while what is stored is read.
    pub(crate) fn load(
        engine: E,
        seed: u128,
        stored: Option<&StoredDocument>,
    ) -> Result<Self, EngineError> {
        let sealer = engine.sealer();
        let replica = stacker::grow(ENGINE_STACK_BYTES, || match stored {
            Some(stored) => Replica::load(engine, seed, stored),
            None => Replica::new(engine, seed),
        })?;
        if replica.unreadable().wrong_key {
            return Err(EngineError::WrongKey);
        }
        Ok(Self {
            replica: Mutex::new(replica),
            holder: AtomicU64::new(0),
            sealer,
        })
    }

    /// What of the log the replica cannot read.
    pub(crate) fn unreadable(&self) -> Unreadable {
        self.lock()
            .map(|guard| guard.replica.unreadable())
            .unwrap_or_default()
    }

    /// Has the replica wake the driver when there is something to drain.
    pub(crate) fn attach(self: &Arc<Self>, entry: &Arc<Entry>, shared: &Arc<Shared>) {
        let (cell, entry, shared) = (
            Arc::downgrade(self),
            Arc::downgrade(entry),
            Arc::downgrade(shared),
        );
        let wake = Arc::new(move || {
            let (Some(cell), Some(entry), Some(shared)) =
                (cell.upgrade(), entry.upgrade(), shared.upgrade())
            else {
                return;
            };
            entry.dirty.store(true, Ordering::Release);
            // Whoever holds the lock drains before letting go.
            if !cell.is_held_here() {
                shared.woken(&entry.id);
            }
        });
        if let Ok(mut guard) = self.lock() {
            guard.replica.set_wake(wake);
        }
    }

    fn is_held_here(&self) -> bool {
        // Only this thread can have stored its own number, so no ordering is needed.
        self.holder.load(Ordering::Relaxed) == thread_number()
    }

    /// Waits at most for an import in progress.
    pub(crate) fn lock(&self) -> Result<Guard<'_, E>, Reentrant> {
        if self.is_held_here() {
            return Err(Reentrant);
        }
        // A panic in a closure of the application leaves the replica usable.
        let replica = self.replica.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(self.guard(replica))
    }

    /// As [`lock`](Self::lock), or `None` if somebody else holds it.
    pub(crate) fn try_lock(&self) -> Result<Option<Guard<'_, E>>, Reentrant> {
        if self.is_held_here() {
            return Err(Reentrant);
        }
        match self.replica.try_lock() {
            Ok(replica) => Ok(Some(self.guard(replica))),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => {
                Ok(Some(self.guard(poisoned.into_inner())))
            }
            Err(std::sync::TryLockError::WouldBlock) => Ok(None),
        }
    }

    fn guard<'a>(&'a self, replica: MutexGuard<'a, Replica<E>>) -> Guard<'a, E> {
        self.holder.store(thread_number(), Ordering::Relaxed);
        Guard {
            replica,
            holder: &self.holder,
        }
    }
}

/// A number for this thread that no other has. Not 0.
fn thread_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    thread_local!(static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed));
    NUMBER.with(|number| *number)
}

/// Locks, whatever happened to others who held the lock: what it guards is kept whole at every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
