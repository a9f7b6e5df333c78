//! Trimming: a document goes on without the history that nobody needs any more (design 2.3).

use std::sync::Arc;
use std::time::Duration;

use sync_core::engine::EngineError;
use sync_core::history::{Epoch, Seq};
use sync_core::ids::DocumentId;
use sync_core::registry::{RegistryError, Snapshot};
use sync_core::server::FoldError;

use super::committed::Wanted;
use super::rooms::{RoomHandle, caught};
use super::{Server, Shared, lock};

/// Trims that are begun anew because the log has moved on.
const ATTEMPTS_MAX: u32 = 4;

/// Time for which a document's changes wait for a trim, from the second attempt on.
const HOLD: Duration = Duration::from_secs(10);

/// How much of a document's history a trim forgets. Whoever holds all that was committed before the horizon can go on with
/// what it has not pushed yet; all others are handed that back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Horizon {
    /// What has been folded into the snapshot ([`fold_after`](crate::ServerBuilder::fold_after)).
    #[default]
    Snapshot,
    /// What was committed through this sequence, which the snapshot must not be beyond.
    Through(Seq),
    /// Everything.
    Head,
}

/// A document that has been trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trimmed {
    /// The new history.
    pub epoch: Epoch,
    /// Where it begins: the head of the old one.
    pub seq: Seq,
    /// Bytes of its snapshot.
    pub bytes: usize,
}

/// Why a document was not trimmed. It is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrimError {
    /// There is no such document.
    #[error("there is no such document")]
    NotFound,
    /// Nothing was committed before the horizon.
    #[error("there is nothing to forget yet")]
    Nothing,
    /// What there was at the horizon is not known any more, or not yet.
    #[error("{horizon} is not between the snapshot, at {snapshot_seq}, and the head")]
    HorizonUnknown {
        /// Sequence of the horizon.
        horizon: Seq,
        /// Sequence of the snapshot.
        snapshot_seq: Seq,
    },
    /// The document kept changing: try again when there is less going on.
    #[error("the document kept changing")]
    Busy,
    /// The registry did not give or take what was needed. After [`Unknown`](RegistryError::Unknown) it may be trimmed
    /// nevertheless.
    #[error("the registry failed")]
    Registry(#[source] RegistryError),
    /// The engine did not trim the document. [`EngineError::Unsupported`]: it never does.
    #[error("the engine failed")]
    Engine(#[source] EngineError),
    /// No engine could be run on the document.
    #[error("{what}")]
    Host {
        /// Why not.
        what: String,
    },
}

impl From<FoldError> for TrimError {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Registry(error) => error.into(),
            FoldError::Engine(error) => Self::Engine(error),
            FoldError::HistoryReplaced | FoldError::Newer { .. } => Self::Busy,
            error => Self::Host {
                what: error.to_string(),
            },
        }
    }
}

impl From<RegistryError> for TrimError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NotFound | RegistryError::Deleted => Self::NotFound,
            RegistryError::Conflict { .. } | RegistryError::Fenced { .. } => Self::Busy,
            error => Self::Registry(error),
        }
    }
}

impl Server {
    /// Forgets history of a document: its log, and in engines that can, what is kept of what was removed (`mergeable`), or
    /// written over (`loro`). What the document holds stays, and nothing that was removed comes back.
    ///
    /// It becomes a new history, of mode rebase. Clients that hold everything and have nothing pending adopt it; those with
    /// pending work do that again on top of it if they held all that was committed before the horizon, and the engine can
    /// (`mergeable`); to all others it is handed back as refused (`RefusedReason::HistoryReset`). They all
    /// open the document again, so this is for once in a while, not for each fold.
    ///
    /// It takes as long as loading the document some times. Only on one server at a time for one document.
    ///
    /// # Errors
    /// [`TrimError`]. The document is as it was.
    ///
    /// # Cancellation
    /// The document has been trimmed or not; its room may find out later.
    pub async fn trim(
        &self,
        document: &DocumentId,
        horizon: Horizon,
    ) -> Result<Trimmed, TrimError> {
        let shared = &self.shared;
        let _turn = shared.folds.acquire().await;
        let mut held = None;
        for _ in 0..ATTEMPTS_MAX {
            match shared.try_trim(document, horizon).await {
                Err(TrimError::Busy) => {
                    held = shared.rooms.live(document).map(Held::begin);
                }
                Ok(trimmed) => {
                    if let Some(room) = shared.rooms.live(document) {
                        room.trimmed(trimmed.epoch);
                    }
                    drop(held);
                    return Ok(trimmed);
                }
                Err(error) => return Err(error),
            }
        }
        Err(TrimError::Busy)
    }
}

/// A room that appends nothing until this is dropped, or for some time.
struct Held(Arc<RoomHandle>);

impl Held {
    fn begin(room: Arc<RoomHandle>) -> Self {
        room.hold_appends(HOLD);
        Self(room)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.release_appends();
    }
}

impl Shared {
    async fn try_trim(
        &self,
        document: &DocumentId,
        horizon: Horizon,
    ) -> Result<Trimmed, TrimError> {
        let meta = caught(self.registry.meta(document)).await?;
        let horizon = match horizon {
            Horizon::Snapshot => meta.snapshot_seq,
            Horizon::Through(seq) => seq,
            Horizon::Head => meta.head,
        };
        if horizon == Seq::ZERO {
            return Err(TrimError::Nothing);
        }
        let keep = meta.head.0.checked_sub(horizon.0);
        let keep = keep.and_then(|keep| usize::try_from(keep).ok());
        let Some(keep) = keep.filter(|_| horizon >= meta.snapshot_seq) else {
            let snapshot_seq = meta.snapshot_seq;
            return Err(TrimError::HorizonUnknown {
                horizon,
                snapshot_seq,
            });
        };
        let wanted = Wanted {
            epoch: meta.epoch,
            through: meta.head,
            snapshot_max: meta.head,
            weighs_all: false,
            keeps_rows: true,
        };
        let committed = self.read_committed(document, wanted).await?;
        let (seq, digest) = committed.at;
        let next = meta.epoch.next(lock(&self.rng).next_u64());
        let content = committed.content(|_| None);
        let trimmed = self.host.trim(&meta.engine, content, keep).await;
        let snapshot = Snapshot::new(seq, digest, trimmed.map_err(FoldError::from)?);
        let bytes = snapshot.bytes.len();
        let trim = || {
            let registry = &self.registry;
            caught(registry.trim(document, meta.epoch, snapshot.clone(), next))
        };
        match trim().await {
            // A repeat says whether it was carried out.
            Err(RegistryError::Unknown { .. }) => trim().await?,
            result => result?,
        }
        Ok(Trimmed {
            epoch: next,
            seq,
            bytes,
        })
    }
}
