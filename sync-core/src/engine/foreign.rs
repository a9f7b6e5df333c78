//! What the adapters of other people's engines share.

#[cfg(any(feature = "loro", feature = "automerge"))]
use std::panic::{AssertUnwindSafe, catch_unwind};
#[cfg(any(feature = "yrs", feature = "loro"))]
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{EngineError, ReplicaSeed};

/// Changes that wait take at most this many bytes. Honest changes do not wait: the log is causally closed.
const WAITING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Whether so many bytes are too many to wait.
pub(super) const fn waits_too_much(bytes: usize) -> bool {
    bytes > WAITING_BYTES_MAX
}

/// Checks how many bytes wait.
pub(super) fn check_waiting(bytes: usize) -> Result<(), EngineError> {
    if !waits_too_much(bytes) {
        return Ok(());
    }
    Err(EngineError::LimitExceeded {
        what: "size of changes that wait for others",
        value: u64::try_from(bytes).unwrap_or(u64::MAX),
        max: u64::try_from(WAITING_BYTES_MAX).unwrap_or(u64::MAX),
    })
}

/// What the `n`th id of a replica in its engine is a hash of: two that go on from one state must not share one.
pub(super) fn identity(seed: ReplicaSeed, n: u64) -> [u8; 24] {
    let mut identity = [0; 24];
    let (first, second) = identity.split_at_mut(16);
    first.copy_from_slice(&seed.0.to_be_bytes());
    second.copy_from_slice(&n.to_be_bytes());
    identity
}

/// What an engine's observers share with the document. Cloning shares it.
#[cfg(any(feature = "yrs", feature = "loro"))]
#[derive(Default)]
pub(super) struct Shared<T>(Arc<Mutex<T>>);

#[cfg(any(feature = "yrs", feature = "loro"))]
impl<T> Shared<T> {
    /// Never held while an engine or a wake runs.
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(any(feature = "yrs", feature = "loro"))]
impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// A document around an engine that may panic, and is not to be run again once it has.
#[cfg(any(feature = "loro", feature = "automerge"))]
pub(super) trait Guarded: Sized {
    /// Whether it has.
    fn has_panicked(&self) -> bool;

    fn note_panic(&mut self);

    fn usable(&self) -> Result<(), EngineError> {
        if self.has_panicked() {
            Err(EngineError::Poisoned)
        } else {
            Ok(())
        }
    }

    /// Runs engine code. After a panic of the engine nothing else is run.
    fn guarded<R>(
        &mut self,
        f: impl FnOnce(&mut Self) -> Result<R, EngineError>,
    ) -> Result<R, EngineError> {
        self.usable()?;
        catch_unwind(AssertUnwindSafe(|| f(self))).unwrap_or_else(|_| {
            self.note_panic();
            Err(EngineError::Poisoned)
        })
    }
}
