//! Answers on their way from the writer to those who wait.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Notify, oneshot};

use super::lock;
use crate::registry::{Outcome, RegistryError};

/// An answer that may leave.
pub(super) enum Answer {
    Append(
        oneshot::Sender<Result<Vec<Outcome>, RegistryError>>,
        Result<Vec<Outcome>, RegistryError>,
    ),
    Other(Box<dyn FnOnce() + Send>),
}

impl Answer {
    fn give(self) {
        match self {
            // Nobody waits any more: no harm done.
            Self::Append(to, answer) => drop(to.send(answer)),
            Self::Other(give) => give(),
        }
    }
}

/// The list of answers. While a runtime's task hands them out, the writer wakes only that.
#[derive(Default)]
pub(super) struct Answers {
    list: Mutex<List>,
    /// As in `list`, to be asked without its lock.
    has_task: AtomicBool,
    ready: Notify,
}

#[derive(Default)]
struct List {
    waiting: Vec<Answer>,
    has_task: bool,
}

impl Answers {
    /// Starts the task that hands answers out, if the caller runs on a runtime that keeps tasks going while its
    /// callers are elsewhere. One with a single thread need not; there the writer wakes everybody itself.
    pub(super) fn use_runtime(self: &Arc<Self>) {
        if self.has_task.load(Ordering::Relaxed) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        if runtime.runtime_flavor() != RuntimeFlavor::MultiThread {
            return;
        }
        let mut list = lock(&self.list);
        if !list.has_task {
            list.has_task = true;
            self.has_task.store(true, Ordering::Relaxed);
            drop(list);
            runtime.spawn(hand_out(Task(Arc::clone(self))));
        }
    }

    /// Sends a commit's answers on their way.
    pub(super) fn post(&self, mut batch: Vec<Answer>) {
        let mut list = lock(&self.list);
        if list.has_task {
            list.waiting.append(&mut batch);
            drop(list);
            self.ready.notify_one();
        } else {
            drop(list);
            batch.into_iter().for_each(Answer::give);
        }
    }

    /// Ends the task.
    pub(super) fn stop(&self) {
        let left = {
            let mut list = lock(&self.list);
            list.has_task = false;
            std::mem::take(&mut list.waiting)
        };
        self.ready.notify_one();
        left.into_iter().for_each(Answer::give);
    }
}

/// The task, also when its runtime drops it.
struct Task(Arc<Answers>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.has_task.store(false, Ordering::Relaxed);
        self.0.stop();
    }
}

async fn hand_out(task: Task) {
    let answers = &task.0;
    loop {
        answers.ready.notified().await;
        let (batch, goes_on) = {
            let mut list = lock(&answers.list);
            (std::mem::take(&mut list.waiting), list.has_task)
        };
        batch.into_iter().for_each(Answer::give);
        if !goes_on {
            return;
        }
    }
}
