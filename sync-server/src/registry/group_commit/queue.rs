//! What waits for the writer.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sync_core::history::{Epoch, Seq};
use sync_core::ids::DocumentId;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{Answer, BlockingRegistry, GroupCommitOptions, lock, stopped};
use crate::registry::{NewChange, Outcome, RegistryError};

/// Answers an operation, given how its commit went.
pub(super) type Reply = Box<dyn FnOnce(Result<(), RegistryError>) -> Answer + Send>;
type Operation<B> = Box<dyn FnOnce(Result<&mut B, RegistryError>) -> Reply + Send>;

/// Something for the writer.
pub(super) enum Work<B> {
    Append {
        document: DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
        bytes: usize,
        answer: oneshot::Sender<Result<Vec<Outcome>, RegistryError>>,
        /// Its share of the queue's budget, held until it is answered.
        _room: OwnedSemaphorePermit,
    },
    Call(Operation<B>),
}

impl<B: BlockingRegistry> Work<B> {
    /// An operation whose result is answered after the commit.
    pub(super) fn call<T: Send + 'static>(
        f: impl FnOnce(&mut B) -> Result<T, RegistryError> + Send + 'static,
        answer: oneshot::Sender<Result<T, RegistryError>>,
    ) -> Self {
        Self::Call(Box::new(move |engine| {
            let result = engine.and_then(f);
            Box::new(move |committed: Result<(), RegistryError>| {
                // Nobody waits any more: no harm done.
                let give = move || drop(answer.send(committed.and(result)));
                Answer::Other(Box::new(give))
            })
        }))
    }
}

pub(super) struct Queue<B> {
    state: Mutex<State<B>>,
    filled: Condvar,
    options: GroupCommitOptions,
}

struct State<B> {
    works: VecDeque<Work<B>>,
    /// Steps of tidying up: taken when there is nothing else, or in turn with the rest once they are due.
    chores: VecDeque<(Instant, Work<B>)>,
    /// The writer sleeps until so many works are there; 0 while it is awake.
    wake_at: usize,
    is_stopped: bool,
}

/// How the last commit for callers went, which decides whether the next one waits for company, and tidying up for quiet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) began: Instant,
    pub(super) took: Duration,
    pub(super) ended: Instant,
    pub(super) calls: usize,
    /// Whether a step of tidying up has followed it.
    pub(super) was_chore: bool,
}

impl Pace {
    /// How long it is until nobody seems to be calling.
    fn until_quiet(self) -> Duration {
        if self.calls < BUSY {
            return Duration::ZERO;
        }
        QUIET.saturating_sub(self.ended.elapsed())
    }
}

/// Time without a call after which there is no load any more.
const QUIET: Duration = Duration::from_millis(2);

/// Calls in one commit from which on there is load.
const BUSY: usize = 8;
/// Calls for which a sync is well spent: with so many nobody waits any longer.
const ENOUGH: usize = 64;

impl<B> Queue<B> {
    pub(super) fn new(options: &GroupCommitOptions) -> Self {
        Self {
            state: Mutex::new(State {
                works: VecDeque::new(),
                chores: VecDeque::new(),
                wake_at: 0,
                is_stopped: false,
            }),
            filled: Condvar::new(),
            options: options.clone(),
        }
    }

    pub(super) fn push(&self, work: Work<B>) -> Result<(), RegistryError> {
        let mut state = lock(&self.state);
        if state.is_stopped {
            return Err(stopped());
        }
        state.works.push_back(work);
        let wakes = state.wake_at != 0 && state.works.len() >= state.wake_at;
        if wakes {
            state.wake_at = 0;
        }
        drop(state);
        if wakes {
            self.filled.notify_one();
        }
        Ok(())
    }

    pub(super) fn push_chore(
        &self,
        chore: Work<B>,
        patience: Duration,
    ) -> Result<(), RegistryError> {
        let mut state = lock(&self.state);
        if state.is_stopped {
            return Err(stopped());
        }
        state.chores.push_back((Instant::now() + patience, chore));
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Nothing more comes in; what is there is still taken.
    pub(super) fn stop(&self) {
        lock(&self.state).is_stopped = true;
        self.filled.notify_one();
    }

    /// Drops what is queued, so that those who wait learn that nobody will do it.
    pub(super) fn clear(&self) {
        let mut state = lock(&self.state);
        state.is_stopped = true;
        let dropped = (
            std::mem::take(&mut state.works),
            std::mem::take(&mut state.chores),
        );
        drop(state);
        drop(dropped);
    }

    /// The next batch, once there is one and it is time for it, and what may join it: nothing joins a step of tidying up.
    /// `None`: stopped.
    pub(super) fn take(&self, pace: Option<Pace>) -> Option<(VecDeque<Work<B>>, Option<Room>)> {
        let mut state = lock(&self.state);
        loop {
            state.wake_at = 0;
            let due = |(due, _): &(Instant, _)| *due <= Instant::now();
            let yields =
                !pace.is_some_and(|pace| pace.was_chore) && state.chores.front().is_some_and(due);
            let quiet = pace.map_or(Duration::ZERO, Pace::until_quiet);
            let is_idle = state.works.is_empty() && (quiet.is_zero() || state.is_stopped);
            if (is_idle || yields)
                && let Some((_, chore)) = state.chores.pop_front()
            {
                return Some((VecDeque::from([chore]), None));
            }
            if state.works.is_empty() && !state.chores.is_empty() {
                // Those who were answered just now may call again.
                state.wake_at = 1;
                state = self
                    .filled
                    .wait_timeout(state, quiet)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                continue;
            }
            if state.works.is_empty() {
                if state.is_stopped {
                    return None;
                }
                state.wake_at = 1;
                state = self
                    .filled
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let wait = self.wait_for_company(pace, state.works.len());
            if wait.is_zero() || state.is_stopped {
                let mut room = self.room();
                return Some((room.take(&mut state.works), Some(room)));
            }
            state.wake_at = ENOUGH;
            state = self
                .filled
                .wait_timeout(state, wait)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn wait_for_company(&self, pace: Option<Pace>, calls: usize) -> Duration {
        let Some(pace) = pace.filter(|pace| pace.calls >= BUSY && calls < ENOUGH) else {
            return Duration::ZERO;
        };
        let interval = (pace.took * 2)
            .min(self.options.interval_max)
            .max(self.options.interval_min);
        interval.saturating_sub(pace.began.elapsed())
    }

    /// What has been queued since the batch was taken, as far as there is room: those who were answered last call again
    /// while others are staged, and one sync does for all.
    pub(super) fn take_more(&self, room: &mut Room) -> VecDeque<Work<B>> {
        if room.calls == 0 || room.bytes == 0 {
            return VecDeque::new();
        }
        room.take(&mut lock(&self.state).works)
    }

    fn room(&self) -> Room {
        Room {
            calls: self.options.calls_max.max(1),
            bytes: self.options.bytes_max.max(1),
        }
    }
}

/// What a commit may take yet.
#[derive(Debug)]
pub(super) struct Room {
    calls: usize,
    bytes: usize,
}

impl Room {
    fn take<B>(&mut self, works: &mut VecDeque<Work<B>>) -> VecDeque<Work<B>> {
        let mut calls = 0;
        for work in works.iter().take(self.calls) {
            calls += 1;
            if let Work::Append { bytes, .. } = work {
                self.bytes = self.bytes.saturating_sub(*bytes);
            }
            if self.bytes == 0 {
                break;
            }
        }
        self.calls -= calls;
        let rest = works.split_off(calls);
        std::mem::replace(works, rest)
    }
}
