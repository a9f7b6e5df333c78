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
