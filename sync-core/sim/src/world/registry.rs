//! What a world needs of a registry, besides what a server does.

use std::fmt;
use std::sync::Arc;

use sync_core::registry::{DocumentMeta, NewChange, NewDocument};
use sync_server::registry::{MemoryRegistry, RegistryError, ServerRegistry};

use super::RegistryBug;

/// A registry that a world can copy, empty and rewrite.
pub trait WorldRegistry: ServerRegistry + fmt::Debug {
    /// An empty one of the same kind.
    fn empty(&self) -> Arc<dyn WorldRegistry>;

    /// A copy of what it holds. Nobody may be using it.
    fn backup(&self) -> Arc<dyn WorldRegistry>;

    /// Gives a document another history, as an operator does.
    ///
    /// # Errors
    ///
    /// As [`MemoryRegistry::replace`].
    fn replace(
        &self,
        document: NewDocument,
        log: Vec<NewChange>,
    ) -> Result<DocumentMeta, RegistryError>;

    /// A node has started.
    fn restarted(&self) {}

    /// The promise that it breaks, if it is one that does.
    fn bug(&self) -> Option<RegistryBug> {
        None
    }
}

impl WorldRegistry for MemoryRegistry {
    fn empty(&self) -> Arc<dyn WorldRegistry> {
        Arc::new(Self::new())
    }

    fn backup(&self) -> Arc<dyn WorldRegistry> {
        Arc::new(Self::backup(self))
    }

    fn replace(
        &self,
        document: NewDocument,
        log: Vec<NewChange>,
    ) -> Result<DocumentMeta, RegistryError> {
        Self::replace(self, document, log)
    }
}

/// An empty registry in memory.
#[must_use]
pub fn in_memory() -> Arc<dyn WorldRegistry> {
    Arc::new(MemoryRegistry::new())
}
