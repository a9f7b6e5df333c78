//! The thread that tidies up: it plans beside the writer, and hands it small steps.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{BlockingReader, BlockingRegistry, Shared, Work, lock, stopped};
use crate::registry::RegistryError;

/// How long to wait after a failure.
const REST: Duration = Duration::from_secs(1);

pub(super) struct Upkeep {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    is_untidy: bool,
    /// Those who asked for thoroughness, and until when.
    asked: Vec<(Instant, oneshot::Sender<()>)>,
    is_stopped: bool,
}

impl Upkeep {
    pub(super) const fn new() -> Self {
        Self {
            state: Mutex::new(State {
                is_untidy: false,
                asked: Vec::new(),
                is_stopped: false,
            }),
            changed: Condvar::new(),
        }
    }

    /// Told by the writer after each commit.
    pub(super) fn note(&self, is_untidy: bool) {
        let mut state = lock(&self.state);
        if state.is_untidy != is_untidy {
            state.is_untidy = is_untidy;
            drop(state);
            self.changed.notify_one();
        }
    }

    pub(super) fn ask(
        &self,
        budget: Duration,
        done: oneshot::Sender<()>,
    ) -> Result<(), RegistryError> {
        let mut state = lock(&self.state);
        if state.is_stopped {
            return Err(stopped());
        }
        state.asked.push((Instant::now() + budget, done));
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    pub(super) fn stop(&self) {
        let mut state = lock(&self.state);
        state.is_stopped = true;
        state.asked.clear();
        drop(state);
        self.changed.notify_one();
    }

    fn is_stopped(&self) -> bool {
        lock(&self.state).is_stopped
    }

    /// Those who asked for thoroughness, if anybody did; `None`: stopped. Unless asked, not before `rested`.
    fn next(&self, rested: Instant) -> Option<Vec<(Instant, oneshot::Sender<()>)>> {
        let mut state = lock(&self.state);
        loop {
            if state.is_stopped {
                return None;
            }
            let rest = rested.saturating_duration_since(Instant::now());
            if !rest.is_zero() && state.asked.is_empty() {
                state = self
                    .changed
                    .wait_timeout(state, rest)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
                continue;
            }
            if std::mem::take(&mut state.is_untidy) || !state.asked.is_empty() {
                return Some(std::mem::take(&mut state.asked));
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The thread's life.
pub(super) fn run<B: BlockingRegistry>(shared: &Shared<B>, mut reader: B::Reader) {
    let mut rested = Instant::now();
    while let Some(asked) = shared.upkeep.next(rested) {
        let until = asked.iter().map(|(until, _)| *until).max();
        if let Err(error) = tidy(shared, &mut reader, until) {
            if let RegistryError::Unknown { source } = &error {
                let why = source.as_ref().map_or(String::new(), |why| why.to_string());
                shared.fail(format!("a sync failed: {why}"));
            }
            // Nothing is lost: it is tried again.
            tracing::warn!(%error, "tidying up the registry failed");
            rested = Instant::now() + REST;
            shared.upkeep.note(true);
        }
        for (_, done) in asked {
            // Nobody waits any more: no harm done.
            let _ = done.send(());
        }
    }
}

fn tidy<B: BlockingRegistry>(
    shared: &Shared<B>,
    reader: &mut B::Reader,
    until: Option<Instant>,
) -> Result<(), RegistryError> {
    loop {
        if shared.upkeep.is_stopped() || until.is_some_and(|until| Instant::now() >= until) {
            return Ok(());
        }
        shared.check()?;
        let Some((mut plan, mut patience)) = reader.plan_upkeep(until.is_some())? else {
            return Ok(());
        };
        if until.is_some() {
            patience = Duration::ZERO;
        }
        loop {
            let (answer, answered) = oneshot::channel();
            let step = Work::call(move |engine: &mut B| engine.apply(plan), answer);
            shared.queue.push_chore(step, patience)?;
            match answered.blocking_recv().map_err(|_| stopped())?? {
                Some(rest) => plan = rest,
                None => break,
            }
        }
    }
}
