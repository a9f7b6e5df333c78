//! What a replica can take back: inverses of its own changes, in memory.

use std::collections::VecDeque;

use bytes::Bytes;

/// Which way to go in one's own changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Takes back a change.
    Undo,
    /// Takes back an undo.
    Redo,
}

/// Inverses of the last changes made here, and of the last undos.
#[derive(Debug, Default)]
pub(crate) struct UndoStack {
    n_max: usize,
    done: VecDeque<Bytes>,
    undone: VecDeque<Bytes>,
    /// Of the change that is being made; `None`: a new one.
    direction: Option<Direction>,
}

impl UndoStack {
    pub(crate) fn set_max(&mut self, n: usize) {
        self.n_max = n;
        for stack in [&mut self.done, &mut self.undone] {
            let excess = stack.len().saturating_sub(n);
            stack.drain(..excess);
        }
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.n_max > 0
    }

    /// Whether there is anything to take back in this direction.
    pub(crate) fn can(&self, direction: Direction) -> bool {
        !match direction {
            Direction::Undo => &self.done,
            Direction::Redo => &self.undone,
        }
        .is_empty()
    }

    /// A new change begins: what was undone before it cannot be redone.
    pub(crate) fn begin(&mut self) {
        self.direction = None;
    }

    /// Takes the inverse of the last change in this direction. The next one pushed is of the change that it makes.
    pub(crate) fn pop(&mut self, direction: Direction) -> Option<Bytes> {
        self.direction = Some(direction);
        match direction {
            Direction::Undo => self.done.pop_back(),
            Direction::Redo => self.undone.pop_back(),
        }
    }

    /// Keeps the inverse of a change that is made now.
    pub(crate) fn push(&mut self, inverse: Bytes) {
        let stack = match self.direction.take() {
            Some(Direction::Undo) => &mut self.undone,
            Some(Direction::Redo) => &mut self.done,
            None => {
                self.undone.clear();
                &mut self.done
            }
        };
        stack.push_back(inverse);
        if stack.len() > self.n_max {
            stack.pop_front();
        }
    }
}
