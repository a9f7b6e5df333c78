//! What engines do with committed rows, beside the rooms: folding a log, reading a document.

use std::sync::Arc;

use sync_core::engine::EngineError;
use sync_core::history::Seq;
use sync_core::ids::DocumentId;
use sync_core::registry::{RegistryError, Snapshot};
use sync_core::server::{FoldError, FoldRequest, FoldedLog};

use super::committed::Wanted;
use super::rooms::caught;
use super::{Server, Shared};
use crate::engine_host::{Content, HostError, Meter};

/// Folds and reads that go on at once, on the whole server: each holds a document's log in memory, and a thread.
pub(super) const FOLDS_MAX: usize = 2;

/// Checks that load a document at once, likewise.
pub(super) const LOADS_MAX: usize = 4;

/// Why a document was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// There is no such document.
    #[error("there is no such document")]
    NotFound,
    /// The registry did not give what was needed.
    #[error("the registry failed")]
    Registry(#[source] RegistryError),
    /// The engine did not read the document. [`EngineError::Unsupported`]: it never does.
    #[error("the engine failed")]
    Engine(#[source] EngineError),
    /// No engine could be run on the document.
    #[error("{what}")]
    Host {
        /// Why not.
        what: String,
    },
}

impl From<FoldError> for ReadError {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Registry(RegistryError::NotFound | RegistryError::Deleted) => Self::NotFound,
            FoldError::Registry(error) => Self::Registry(error),
            FoldError::Engine(error) => Self::Engine(error),
            error => Self::Host {
                what: error.to_string(),
            },
        }
    }
}

impl From<HostError> for FoldError {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Engine(error) => Self::Engine(error),
            #[cfg(all(feature = "workers", unix))]
            HostError::Died(what) => Self::Host { what },
        }
    }
}

impl Server {
    /// A document's content as JSON, as it is committed; see [`Engine::to_json`](sync_core::engine::Engine::to_json) for what
    /// that leaves out. For tools and people: it takes as long as loading the document. Documents that are relayed, as those
    /// of `opaque`, cannot be read.
    ///
    /// # Errors
    /// [`ReadError`].
    ///
    /// # Cancellation
    /// Dropping the future lets go of the document when the engine is done with it.
    pub async fn read_json(&self, document: &DocumentId) -> Result<String, ReadError> {
        let shared = &self.shared;
        let _turn = shared.folds.acquire().await;
        let meta = shared
            .calls
            .meta
            .time(caught(shared.registry.meta(document)));
        let meta = meta.await.map_err(FoldError::Registry)?;
        let wanted = Wanted {
            epoch: meta.epoch,
            through: meta.head,
            snapshot_max: Seq(u64::MAX),
            weighs_all: false,
            keeps_rows: true,
        };
        let committed = shared.read_committed(document, wanted).await?;
        let content = committed.content(|_| None);
        let read = shared.host.read_json(&meta.engine, content).await;
        Ok(read.map_err(FoldError::from)?)
    }
}

impl Shared {
    /// Folds a log as a room wants it.
    ///
    /// # Cancellation
    /// Nothing has been written; the engine's thread ends when it is done.
    pub(super) async fn fold(
        &self,
        document: &DocumentId,
        request: FoldRequest,
        meter: &Meter,
    ) -> Result<FoldedLog, FoldError> {
        // Never closed; and should it be, nothing depends on it.
        let _turn = self.folds.acquire().await;
        let wanted = Wanted {
            epoch: request.epoch,
            through: request.through,
            snapshot_max: request.after,
            weighs_all: true,
            keeps_rows: request.offered.is_none(),
        };
        let mut committed = self.read_committed(document, wanted).await?;
        let ((seq, digest), row_bytes) = (committed.at, std::mem::take(&mut committed.row_bytes));
        let bytes = match request.offered {
            Some(bytes) => bytes,
            None => {
                let content = committed.content(|_| None);
                let folded = self.host.fold(&request.engine, content);
                meter.wait(folded).await?
            }
        };
        Ok(FoldedLog::new(Snapshot::new(seq, digest, bytes), row_bytes))
    }

    /// What a check begins with; `None`, after it has been reported, if that cannot be read.
    pub(super) async fn load(&self, document: &DocumentId, wanted: Wanted) -> Option<Arc<Content>> {
        let _turn = self.loads.acquire().await;
        let content = async {
            let committed = self.read_committed(document, wanted).await?;
            self.with_authors(document, committed).await
        };
        match content.await {
            Ok(content) => Some(Arc::new(content)),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(%document, %error, cause, "what changes are checked against was not read");
                None
            }
        }
    }
}
