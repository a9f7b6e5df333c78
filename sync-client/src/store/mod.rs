//! What a client keeps on its device, so that it works offline and loses nothing when its process ends.

#[cfg(feature = "embedded")]
mod embedded;
mod memory;

use async_trait::async_trait;
use sync_core::ids::DocumentId;
use sync_core::{BoxError, MaybeSend, MaybeSync};

#[cfg(feature = "embedded")]
pub use embedded::EmbeddedStore;
pub use memory::MemoryStore;
pub use sync_core::client::{OutboxChange, StoreWrite, StoredDocument, StoredState};

/// Keeps replicas, cursors, outboxes and refused changes of one account's documents.
///
/// Calls about one document are made one at a time, except that [`stage`](Self::stage) may come at any time.
#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
pub trait ClientStore: MaybeSend + MaybeSync + 'static {
    /// Binds the store to an account, or checks that it is bound to this one. Called once, before anything else.
    ///
    /// # Errors
    /// [`StoreError::WrongAccount`] if it holds another account's documents.
    fn bind(&self, account: &str) -> Result<(), StoreError>;

    /// What is stored of a document; `None` if nothing.
    ///
    /// # Errors
    /// [`StoreError`] if that cannot be told: never taken for "nothing".
    async fn load(&self, document: &DocumentId) -> Result<Option<StoredDocument>, StoreError>;

    /// Carries out a write, all of it or nothing. What it returned `Ok` for survives a loss of power.
    ///
    /// # Errors
    /// [`StoreError`]; the same write is then made again later.
    async fn commit(&self, document: &DocumentId, write: &StoreWrite) -> Result<(), StoreError>;

    /// Forgets a document.
    ///
    /// # Errors
    /// [`StoreError`]; the document is as it was.
    async fn remove(&self, document: &DocumentId) -> Result<(), StoreError>;

    /// Every stored document, with the length of its outbox.
    ///
    /// # Errors
    /// [`StoreError`] if that cannot be told.
    async fn list(&self) -> Result<Vec<(DocumentId, usize)>, StoreError>;

    /// Puts a change into a stored outbox with one write that is not synced: quick enough to be made within an edit, and
    /// it survives the end of the process, though perhaps not a loss of power. A [`commit`](Self::commit) with the same
    /// change follows. `false` if the store has no such write.
    ///
    /// # Errors
    /// [`StoreError`]; the edit has happened all the same, and is committed later.
    fn stage(
        &self,
        document: &DocumentId,
        engine: &sync_core::ids::EngineId,
        change: &OutboxChange,
    ) -> Result<bool, StoreError> {
        let _ = (document, engine, change);
        Ok(false)
    }
}

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The store holds another account's documents.
    #[error("the store belongs to account {bound:?}, not {asked:?}")]
    WrongAccount {
        /// The account that it is bound to.
        bound: String,
        /// The account that asked for it.
        asked: String,
    },
    /// Another process has the store open, or this one has it open already.
    #[error("the store is open already, perhaps in another process")]
    InUse,
    /// The store was written by a newer version.
    #[error("the store has format {found}, this version reads up to {supported}")]
    NewerFormat {
        /// Its format.
        found: u32,
        /// The newest format known.
        supported: u32,
    },
    /// What is there is damaged, or is no store. It is left as it is; a backup, or another path, helps.
    #[error("the store is damaged, or is no store")]
    Damaged(#[source] BoxError),
    /// The store could not be read or written. It may work later.
    #[error("the store failed")]
    Failed(#[source] BoxError),
}
