//! Engine code of others, called so that it can neither unwind into the server nor overflow its stack.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sync_core::engine::{EngineError, Folder, Ledger, ValidateLimits, Validator};
use sync_core::ids::EngineId;

/// Stack of whatever runs engine code on bytes of others, as in the client (decision 0004).
pub(crate) const ENGINE_STACK_BYTES: usize = 256 * 1024 * 1024;

/// Runs engine code that may recurse, on a stack of its own. Blocks. What the code was lent must be dropped after a panic.
pub(crate) fn on_large_stack<T>(
    code: impl FnOnce() -> Result<T, EngineError>,
) -> Result<T, EngineError> {
    caught(|| stacker::grow(ENGINE_STACK_BYTES, code))
}

/// Runs engine code that does not recurse. What the code was lent must be dropped after a panic.
pub(crate) fn caught<T>(code: impl FnOnce() -> Result<T, EngineError>) -> Result<T, EngineError> {
    catch_unwind(AssertUnwindSafe(code)).unwrap_or(Err(EngineError::Poisoned))
}

/// A validator that cannot take the server down by panicking.
pub(crate) struct Guarded<V>(pub(crate) V);

impl<V: Validator> Validator for Guarded<V> {
    fn engine(&self) -> EngineId {
        self.0.engine()
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        // A validator has no state that a panic could leave half-changed: it is only lent out.
        caught(|| self.0.validate(change, limits))
    }

    /// Not guarded here, nor are folds: they run where a panic is caught anyway.
    fn ledger(&self) -> Option<Box<dyn Ledger>> {
        self.0.ledger()
    }

    fn folder(&self) -> Option<&dyn Folder> {
        self.0.folder()
    }
}

/// Checks changes from the outside and does nothing else: for engines that must not read, in the server's own process, what
/// was not looked into.
#[cfg(any(feature = "loro", feature = "automerge"))]
pub(crate) struct Outside<V>(pub(crate) V);

#[cfg(any(feature = "loro", feature = "automerge"))]
impl<V: Validator> Validator for Outside<V> {
    fn engine(&self) -> EngineId {
        self.0.engine()
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        self.0.validate(change, limits)
    }
}
