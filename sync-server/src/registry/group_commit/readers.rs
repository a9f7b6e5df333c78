//! The threads that read.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use super::{lock, stopped};
use crate::registry::RegistryError;

type Read<R> = Box<dyn FnOnce(&mut R) + Send>;

pub(super) struct Readers<R> {
    state: Mutex<State<R>>,
    filled: Condvar,
}

struct State<R> {
    reads: VecDeque<Read<R>>,
    is_stopped: bool,
}

impl<R> Readers<R> {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                reads: VecDeque::new(),
                is_stopped: false,
            }),
            filled: Condvar::new(),
        }
    }

    pub(super) fn push(&self, read: Read<R>) -> Result<(), RegistryError> {
        let mut state = lock(&self.state);
        if state.is_stopped {
            return Err(stopped());
        }
        state.reads.push_back(read);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    pub(super) fn stop(&self) {
        lock(&self.state).is_stopped = true;
        self.filled.notify_all();
    }

    /// One thread's life.
    pub(super) fn run(&self, mut reader: R) {
        while let Some(read) = self.next() {
            read(&mut reader);
        }
    }

    fn next(&self) -> Option<Read<R>> {
        let mut state = lock(&self.state);
        loop {
            if let Some(read) = state.reads.pop_front() {
                return Some(read);
            }
            if state.is_stopped {
                return None;
            }
            state = self
                .filled
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
