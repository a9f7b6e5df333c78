//! Validators that cannot take the server down by panicking.

use std::panic::{AssertUnwindSafe, catch_unwind};

use sync_core::engine::{EngineError, Folder, ValidateLimits, Validator};
use sync_core::ids::EngineId;

pub(super) struct Guarded<V>(pub(super) V);

impl<V: Validator> Validator for Guarded<V> {
    fn engine(&self) -> EngineId {
        self.0.engine()
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        // A validator has no state that a panic could leave half-changed: it is only lent out.
        catch_unwind(AssertUnwindSafe(|| self.0.validate(change, limits)))
            .unwrap_or(Err(EngineError::Poisoned))
    }

    /// Not guarded here: folds run where a panic is caught anyway.
    fn folder(&self) -> Option<&dyn Folder> {
        self.0.folder()
    }
}

/// Checks changes and folds nothing: for engines that must not read what was only checked from the outside.
#[cfg(any(feature = "loro", feature = "automerge"))]
pub(super) struct Unfolded<V>(pub(super) V);

#[cfg(any(feature = "loro", feature = "automerge"))]
impl<V: Validator> Validator for Unfolded<V> {
    fn engine(&self) -> EngineId {
        self.0.engine()
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        self.0.validate(change, limits)
    }
}
