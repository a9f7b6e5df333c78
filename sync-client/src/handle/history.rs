//! Undo, redo, and views of earlier versions.

use sync_core::engine::{Document, Engine, EngineError, Version};

use super::{DocumentHandle, Undrained};
use crate::cell::ENGINE_STACK_BYTES;
use crate::error::{EditError, HistoryError, UndoError};

impl<E: Engine> DocumentHandle<E> {
    /// Takes back the last edit that this handle's document, in this process, has not taken back yet, whatever others did
    /// since. Whether there was one.
    ///
    /// Each `edit` closure is a step, and so is each transaction or commit through the [native](Self::native) handle; the
    /// engines remember the last hundred. What is undone is a change like any other: it can be redone, it is sent, and
    /// others' replicas do not tell it apart. If it has more bytes than the server's limit, the server refuses it.
    ///
    /// Edits from before the document was opened, by this device or another, are not undone. A
    /// [replaced](sync_core::client::DocumentEvent::Replaced) document has nothing to undo or redo.
    ///
    /// # Errors
    /// [`UndoError`]: nothing was undone. [`UndoError::Unsupported`] where the engine cannot, or the engine value does not
    /// ask for it: see the engines.
    pub fn undo(&self) -> Result<bool, UndoError> {
        self.step(E::Document::undo)
    }

    /// Makes again what the last [`undo`](Self::undo) took back, unless something was edited since. Whether there was
    /// anything.
    ///
    /// # Errors
    /// As [`undo`](Self::undo).
    pub fn redo(&self) -> Result<bool, UndoError> {
        self.step(E::Document::redo)
    }

    /// Whether [`undo`](Self::undo) has something to take back. False where it would be refused for being called from within
    /// `read` or `edit`.
    #[must_use]
    pub fn can_undo(&self) -> bool {
        let guard = self.cell.lock();
        guard.is_ok_and(|mut guard| guard.replica.document().can_undo())
    }

    /// Whether [`redo`](Self::redo) has something to make again. False where it would be refused for being called from within
    /// `read` or `edit`.
    #[must_use]
    pub fn can_redo(&self) -> bool {
        let guard = self.cell.lock();
        guard.is_ok_and(|mut guard| guard.replica.document().can_redo())
    }

    /// The present version of the content, for [`read_at`](Self::read_at). It can be stored, and read by any replica that has
    /// all of its changes.
    ///
    /// # Errors
    /// [`HistoryError`]: above all [`HistoryError::Unsupported`].
    pub fn version(&self) -> Result<Version, HistoryError> {
        let mut guard = self.cell.lock().map_err(|_| HistoryError::Reentrant)?;
        Ok(guard.replica.document().readable_version()?)
    }

    /// Lends the content as it was at a [version](Self::version). What the closure does to what it is lent changes nothing.
    ///
    /// Takes time and memory in proportion to the document: the engine makes a copy of it as it was.
    ///
    /// # Errors
    /// [`HistoryError`]: the closure did not run.
    pub fn read_at<R>(
        &self,
        version: &Version,
        f: impl FnOnce(&E::Read<'_>) -> R,
    ) -> Result<R, HistoryError> {
        let mut guard = self.cell.lock().map_err(|_| HistoryError::Reentrant)?;
        let read = || guard.replica.read_at(version, f);
        Ok(stacker::grow(ENGINE_STACK_BYTES, read)?)
    }

    fn step(
        &self,
        f: impl FnOnce(&mut E::Document) -> Result<bool, EngineError>,
    ) -> Result<bool, UndoError> {
        // Before the guard, so that it is dropped after it.
        let _undrained = Undrained(self);
        let Ok(mut guard) = self.cell.lock() else {
            return Err(UndoError::Edit(EditError::Reentrant));
        };
        self.edit_bytes_max()?;
        let wall_time = self.wall_time();
        let document = guard.replica.document();
        document.set_wall_time(wall_time);
        let done = stacker::grow(ENGINE_STACK_BYTES, || f(document));
        // Under the lock: changes enter the outbox in the order in which they were made.
        let events = self.entry.drain(&self.shared, &mut guard.replica);
        drop(guard);
        self.publish(events);
        Ok(done?)
    }
}
