//! An open document, as the application sees it.

mod broadcast;
mod history;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sync_core::client::{
    DocumentEvent, EditRefusal, RefusedChange, RefusedReason, SyncPhase, SyncState,
};
use sync_core::engine::{Document, Edited, Engine, EngineError, EngineEvent, NativeEngine};
use sync_core::error::ErrorCode;
use sync_core::events::Events;
use sync_core::ids::{ChangeId, DocumentId};
use sync_core::watch::Watch;

use crate::cell::{Cell, Entry, Guard};
use crate::client::Keeper;
use crate::error::{EditError, SaveError};
use crate::shared::Shared;

/// An open document. Cheap to clone; the document closes with its last handle, its outbox does not.
pub struct DocumentHandle<E: Engine> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) entry: Arc<Entry>,
    cell: Arc<Cell<E>>,
    pub(crate) keeper: Arc<Keeper>,
}

impl<E: Engine> Clone for DocumentHandle<E> {
    fn clone(&self) -> Self {
        Self {
            shared: self.shared.clone(),
            entry: self.entry.clone(),
            cell: self.cell.clone(),
            keeper: self.keeper.clone(),
        }
    }
}

impl<E: Engine> fmt::Debug for DocumentHandle<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DocumentHandle")
            .field("id", &self.entry.id)
            .finish_non_exhaustive()
    }
}

impl<E: Engine> DocumentHandle<E> {
    pub(crate) const fn new(
        shared: Arc<Shared>,
        entry: Arc<Entry>,
        cell: Arc<Cell<E>>,
        keeper: Arc<Keeper>,
    ) -> Self {
        Self {
            shared,
            entry,
            cell,
            keeper,
        }
    }

    /// Name of the document.
    #[must_use]
    pub fn id(&self) -> &DocumentId {
        &self.entry.id
    }

    /// Lends the content. Waits at most for an import in progress; a user interface uses [`try_read`](Self::try_read).
    ///
    /// # Panics
    /// If called from within `read` or `edit` of the same document, from one of its observers, or while the same thread
    /// holds a writing transaction on the engine's own handle, or another thread does for longer than a second: it could
    /// only deadlock. With a mergeable type also after a
    /// closure put another value in the place of the one lent, until the document is loaded afresh.
    #[expect(
        clippy::panic,
        reason = "a documented rule for callers, whose breach would be a deadlock otherwise"
    )]
    pub fn read<R>(&self, f: impl FnOnce(&E::Read<'_>) -> R) -> R {
        let mut f = Some(f);
        let mut waits_left = BUSY_WAITS;
        loop {
            let Ok(guard) = self.cell.lock() else {
                panic!(
                    "`read` of document {:?} from within `read`, `edit` or an observer of it",
                    self.entry.id
                );
            };
            match guard.replica.read(|lent| f.take().map(|f| f(lent))) {
                Ok(Some(result)) => return result,
                // Perhaps another thread's, which may need the lock to get on.
                Err(EngineError::Busy) if waits_left > 0 => waits_left -= 1,
                Ok(None) | Err(EngineError::Busy) => panic!(
                    "`read` of document {:?} while a transaction of the application holds it",
                    self.entry.id
                ),
                Err(error) => panic!("`read` of document {:?}: {error}", self.entry.id),
            }
            drop(guard);
            std::thread::sleep(BUSY_WAIT);
        }
    }

    /// Lends the content, if that is possible at once: `None` while something is being imported, and where
    /// [`read`](Self::read) would panic.
    pub fn try_read<R>(&self, f: impl FnOnce(&E::Read<'_>) -> R) -> Option<R> {
        let guard = self.cell.try_lock().ok().flatten()?;
        guard.replica.read(f).ok()
    }

    /// Makes one change: everything that the closure does is seen whole or not at all by everyone. It is sent in the
    /// background; offline, it waits.
    ///
    /// If the closure panics, what it had done up to there may stay (with yrs it does), as a change like any other.
    ///
    /// # Errors
    /// [`EditError`]: the closure did not run, except for [`EditError::TooLarge`] and [`EditError::Invalid`], where the
    /// change has been taken back.
    pub fn edit<R>(&self, f: impl FnOnce(&mut E::Edit<'_>) -> R) -> Result<R, EditError> {
        // Before the guard, so that it is dropped after it.
        let _undrained = Undrained(self);
        let Ok(mut guard) = self.cell.lock() else {
            return Err(EditError::Reentrant);
        };
        let max = self.edit_bytes_max()?;
        guard.replica.document().set_wall_time(self.wall_time());
        let edited = guard.replica.edit(max, f);
        // Under the lock: changes enter the outbox in the order in which they were made.
        let events = self.entry.drain(&self.shared, &mut guard.replica);
        let result = match edited {
            Ok(Edited::Done(result)) => Ok(result),
            Ok(Edited::TakenBack { change, replaced }) => {
                let bytes = change.len();
                let (code, error) = if bytes > max {
                    (ErrorCode::TooLarge, EditError::TooLarge { bytes, max })
                } else {
                    (ErrorCode::InvalidChange, EditError::Invalid)
                };
                self.shared.command(|state, now| {
                    let reason = RefusedReason::Code(code);
                    state.handle_taken_back(now, &self.entry.id, change, reason);
                });
                if replaced {
                    self.entry.happened(DocumentEvent::Replaced);
                }
                Err(error)
            }
            Ok(_) => Err(EditError::Engine(EngineError::Unsupported {
                what: "the outcome of the edit",
            })),
            Err(EngineError::Busy) => Err(EditError::Busy),
            Err(EngineError::Poisoned) => Err(EditError::Reloading),
            Err(error) => Err(EditError::Engine(error)),
        };
        drop(guard);
        self.publish(events);
        result
    }

    /// Tells what a local change did. Not under the replica's lock.
    fn publish(&self, events: Vec<EngineEvent>) {
        // Here and not in the background, so that right after an edit nothing says that everything is saved.
        let was_saved = self.entry.sync_state.get().is_saved();
        self.shared.update(&self.entry);
        if was_saved {
            self.shared.update_unsaved();
        }
        self.entry.publish(events);
    }

    /// The server's clock as far as it is known, else this device's.
    fn wall_time(&self) -> u64 {
        let core = self.shared.core();
        core.state.wall_time(core.now()).unwrap_or_else(unix_ms)
    }

    /// Whether an edit can be made, and how large it may be.
    fn edit_bytes_max(&self) -> Result<usize, EditError> {
        if self.shared.is_stopped() {
            return Err(EditError::Closed);
        }
        let core = self.shared.core();
        match core.state.edit_refusal(&self.entry.id) {
            None => Ok(core.state.change_bytes_max()),
            Some(EditRefusal::ReadOnly) => Err(EditError::ReadOnly),
            Some(EditRefusal::Deleted) => Err(EditError::Deleted),
            Some(EditRefusal::WrongKey) => Err(EditError::WrongKey),
            Some(EditRefusal::OutboxFull { max }) => Err(EditError::OutboxFull { max }),
            Some(_) => Err(EditError::Closed),
        }
    }

    /// The engine's own handle, for editor bindings. Changes made through it are picked up, but cannot be refused
    /// beforehand. After [`DocumentEvent::Replaced`] it must be fetched again: what is done through the old one is in no
    /// replica, and ends up in [`refused`](Self::refused).
    ///
    /// # Panics
    /// As [`read`](Self::read).
    #[expect(
        clippy::panic,
        reason = "a documented rule for callers, whose breach would be a deadlock otherwise"
    )]
    pub fn native(&self) -> E::Native
    where
        E: NativeEngine,
    {
        let Ok(guard) = self.cell.lock() else {
            panic!(
                "`native` of document {:?} from within `read`, `edit` or an observer of it",
                self.entry.id
            );
        };
        guard.replica.native()
    }

    /// Counts changes of the content, local and remote: for a user interface that redraws when something has changed.
    #[must_use]
    pub fn revision(&self) -> Watch<u64> {
        self.entry.revision.watch()
    }

    /// Where the document stands.
    #[must_use]
    pub fn sync_state(&self) -> Watch<SyncState> {
        self.entry.sync_state.watch()
    }

    /// What happens to the document from here on.
    #[must_use]
    pub fn events(&self) -> Events<DocumentEvent> {
        self.entry.events.subscribe()
    }

    /// Resolves when the server's registry holds every change made up to this call.
    ///
    /// # Errors
    /// [`SaveError`]: it will not come to that. In particular [`SaveError::Refused`] as long as there are
    /// [`refused`](Self::refused) changes from before the call that have not been dropped.
    ///
    /// # Cancellation
    /// Safe. The changes are sent all the same.
    pub fn saved(&self) -> impl Future<Output = Result<(), SaveError>> + Send + 'static + use<E> {
        self.entry.flush(&self.shared, &self.cell);
        let (pending, refused) = {
            let core = self.shared.core();
            let refused: Vec<ChangeId> = core
                .state
                .refused(&self.entry.id)
                .iter()
                .map(|change| change.id)
                .collect();
            (core.state.pending_ordinals(&self.entry.id), refused)
        };
        let this = self.waiter();
        async move {
            let result = match pending {
                None => Ok(()),
                Some((first, last)) => {
                    this.wait(move |shared, id| {
                        let settled = shared.core().state.settled(id, first, last)?;
                        Some(settled.map_err(SaveError::Refused))
                    })
                    .await
                }
            };
            match result {
                Ok(()) if !refused.is_empty() => Err(SaveError::Refused(refused)),
                Err(SaveError::Refused(mut lost)) => {
                    lost.extend(refused);
                    lost.sort_unstable();
                    lost.dedup();
                    Err(SaveError::Refused(lost))
                }
                result => result,
            }
        }
    }

    /// Resolves when this device's store holds every change made up to this call, safe from a loss of power.
    ///
    /// # Errors
    /// [`SaveError::NoStore`] if the client has none; [`SaveError::Closed`] if it was shut down before.
    ///
    /// # Cancellation
    /// Safe. The changes are written all the same.
    pub fn saved_locally(
        &self,
    ) -> impl Future<Output = Result<(), SaveError>> + Send + 'static + use<E> {
        self.entry.flush(&self.shared, &self.cell);
        let last = self
            .shared
            .core()
            .state
            .writes(&self.entry.id)
            .map(|(last, _)| last);
        let this = self.waiter();
        async move {
            if this.shared.store.is_none() {
                return Err(SaveError::NoStore);
            }
            this.wait(move |shared, id| {
                let (_, safe) = shared.core().state.writes(id)?;
                (Some(safe) >= last).then_some(Ok(()))
            })
            .await
        }
    }

    /// Resolves when everything that the server had been heard to have is here: see [`SyncState::is_caught_up`].
    ///
    /// # Errors
    /// [`SaveError`]: it will not come to that.
    ///
    /// # Cancellation
    /// Safe.
    pub fn caught_up(
        &self,
    ) -> impl Future<Output = Result<(), SaveError>> + Send + 'static + use<E> {
        let this = self.waiter();
        async move {
            this.wait(|shared, id| {
                let state = shared.core().state.sync_state(id)?;
                state.is_caught_up().then_some(Ok(()))
            })
            .await
        }
    }

    fn waiter(&self) -> Waiter {
        Waiter {
            shared: self.shared.clone(),
            entry: self.entry.clone(),
            _keeper: self.keeper.clone(),
        }
    }

    /// Changes that the server will never take, oldest first, until they are dropped with
    /// [`drop_refused`](Self::drop_refused).
    #[must_use]
    pub fn refused(&self) -> Vec<RefusedChange> {
        self.shared.core().state.refused(&self.entry.id)
    }

    /// Drops refused changes of this id. Whether there were any.
    pub fn drop_refused(&self, change: ChangeId) -> bool {
        let dropped = self
            .shared
            .command(|state, _| state.drop_refused(&self.entry.id, change));
        self.shared.update(&self.entry);
        dropped
    }

    /// Closes this handle; the document closes with its last one.
    pub fn close(self) {}
}

/// How often, and how long each time, `read` waits for a transaction of the application: a second. There are no threads on
/// wasm, where nobody could end it meanwhile.
const BUSY_WAITS: u32 = if cfg!(target_family = "wasm") {
    0
} else {
    1_000
};
const BUSY_WAIT: Duration = Duration::from_millis(1);

/// After a panic in the closure of an edit, has the driver pick up what the closure had done.
struct Undrained<'a, E: Engine>(&'a DocumentHandle<E>);

impl<E: Engine> Drop for Undrained<'_, E> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.shared.woken(&self.0.entry.id);
        }
    }
}

/// Waits for something to become true of a document. Keeps the document open meanwhile.
struct Waiter {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    _keeper: Arc<Keeper>,
}

impl Waiter {
    async fn wait(
        self,
        check: impl Fn(&Shared, &DocumentId) -> Option<Result<(), SaveError>> + Send,
    ) -> Result<(), SaveError> {
        let mut turns = self.entry.turns.watch();
        loop {
            // Seen before the check, so that a turn after it is not missed.
            let _ = turns.take_changed();
            if let Some(result) = check(&self.shared, &self.entry.id) {
                // Whoever is told so finds it in `sync_state` as well.
                self.shared.show(&self.entry);
                return result;
            }
            if let Some(error) = self.hopeless() {
                return Err(error);
            }
            if turns.changed().await.is_err() {
                return Err(SaveError::Closed);
            }
        }
    }

    fn hopeless(&self) -> Option<SaveError> {
        let state = self.shared.core().state.sync_state(&self.entry.id);
        match state.map(|state| state.phase) {
            _ if self.shared.is_stopped() => Some(SaveError::Closed),
            None => Some(SaveError::Closed),
            Some(SyncPhase::Deleted) => Some(SaveError::Deleted),
            Some(SyncPhase::WrongKey) => Some(SaveError::WrongKey),
            Some(SyncPhase::Refused(code)) => Some(SaveError::Denied(code)),
            Some(SyncPhase::Damaged { sequence }) => Some(SaveError::Damaged { sequence }),
            Some(_) => None,
        }
    }
}

/// This device's wall clock, in milliseconds since 1970.
fn unix_ms() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

impl Entry {
    /// Picks up what was done through the engine's own handles, if the replica is free: `saved()` right after such a
    /// change waits for it.
    fn flush<E: Engine>(&self, shared: &Shared, cell: &Cell<E>) {
        let Ok(mut guard): Result<Guard<'_, E>, _> = cell.lock() else {
            return;
        };
        let events = self.drain(shared, &mut guard.replica);
        drop(guard);
        shared.update(self);
        self.publish(events);
    }
}
