//! Folding a document's log, beside its room: reads what is committed, and runs the engine on it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use sync_core::engine::{EngineError, Validator};
use sync_core::history::{Digest, Seq};
use sync_core::ids::DocumentId;
use sync_core::registry::{RegistryError, Snapshot, StoredChange, Tail};
use sync_core::server::{FoldError, FoldRequest, FoldedLog};

use super::Shared;
use super::rooms::caught;

/// Folds that go on at once, on the whole server: each holds a document's log in memory, and a thread.
pub(super) const FOLDS_MAX: usize = 2;

/// Bytes of changes read at once.
const READ_BYTES: usize = 1024 * 1024;

/// Reads that are begun anew because somebody else compacted the log between two of them.
const READ_ATTEMPTS_MAX: u32 = 4;

/// Stack of whatever runs engine code on bytes of others, as in the client (decision 0004).
const ENGINE_STACK_BYTES: usize = 256 * 1024 * 1024;

/// Committed rows of a document, from the start of its log.
struct Committed {
    snapshot: Option<Snapshot>,
    /// Those after the snapshot, if they are to be folded here.
    changes: Vec<Bytes>,
    row_bytes: Vec<usize>,
    /// Where the last row read stands, and the digest there.
    at: (Seq, Digest),
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
    ) -> Result<FoldedLog, FoldError> {
        // Never closed; and should it be, nothing depends on it.
        let _turn = self.folds.acquire().await;
        let committed = self.read_committed(document, &request).await?;
        if let Some(bytes) = request.offered {
            let (seq, digest) = committed.at;
            let snapshot = Snapshot::new(seq, digest, bytes);
            return Ok(FoldedLog::new(snapshot, committed.row_bytes));
        }
        let validator = self
            .room_config
            .engines
            .validator(&request.engine)
            .flatten()
            .cloned()
            .ok_or(FoldError::Engine(EngineError::Unsupported {
                what: "folding",
            }))?;
        let Committed {
            snapshot,
            changes,
            row_bytes,
            at: (seq, digest),
        } = committed;
        let folded = tokio::task::spawn_blocking(move || {
            let snapshot = snapshot.as_ref().map(|snapshot| snapshot.bytes.as_ref());
            fold(&validator, snapshot, &changes)
        });
        let bytes = folded
            .await
            .unwrap_or(Err(EngineError::Poisoned))
            .map_err(FoldError::Engine)?;
        Ok(FoldedLog::new(Snapshot::new(seq, digest, bytes), row_bytes))
    }

    /// Reads the snapshot and the log up to where the new snapshot is to stand, and checks that they fit together.
    async fn read_committed(
        &self,
        document: &DocumentId,
        request: &FoldRequest,
    ) -> Result<Committed, FoldError> {
        for _ in 0..READ_ATTEMPTS_MAX {
            if let Some(committed) = self.try_read_committed(document, request).await? {
                return Ok(committed);
            }
        }
        Err(FoldError::Registry(RegistryError::unavailable(
            "the log keeps being compacted",
        )))
    }

    /// `None` if somebody else compacted the log meanwhile.
    async fn try_read_committed(
        &self,
        document: &DocumentId,
        request: &FoldRequest,
    ) -> Result<Option<Committed>, FoldError> {
        let registry = &self.registry;
        let meta = caught(registry.meta(document))
            .await
            .map_err(FoldError::Registry)?;
        if meta.epoch != request.epoch || meta.head < request.through {
            return Err(FoldError::HistoryReplaced);
        }
        if meta.snapshot_seq > request.after {
            return Err(FoldError::Newer {
                seq: meta.snapshot_seq,
            });
        }
        let snapshot = match caught(registry.snapshot(document)).await {
            Ok(snapshot) => snapshot,
            Err(error) => return Err(FoldError::Registry(error)),
        };
        let snapshot_seq = snapshot.as_ref().map_or(Seq::ZERO, |found| found.seq);
        if snapshot_seq != meta.snapshot_seq {
            return Ok(None);
        }
        let mut committed = Committed {
            snapshot,
            changes: Vec::new(),
            row_bytes: Vec::new(),
            at: (meta.log_start, Digest::EMPTY),
        };
        let mut is_first = true;
        // From the start of the log and not from the snapshot, to know what all the rows that may stay are worth.
        while committed.at.0 < request.through || is_first {
            let tail = caught(registry.tail(document, committed.at.0, READ_BYTES)).await;
            let (found, digest, changes) = match tail.map_err(FoldError::Registry)? {
                Tail::Changes {
                    epoch,
                    digest,
                    changes,
                    ..
                } => (epoch, digest, changes),
                Tail::Compacted { .. } => return Ok(None),
                Tail::BeyondHead { .. } => return Err(FoldError::HistoryReplaced),
            };
            if found != request.epoch {
                return Err(FoldError::HistoryReplaced);
            }
            if std::mem::take(&mut is_first) {
                committed.at.1 = digest;
                committed.compare_snapshot()?;
            } else if committed.at.1 != digest {
                return Err(damaged("the digest of a row is not that of the log"));
            }
            if changes.is_empty() && committed.at.0 < request.through {
                return Err(damaged("the log ends before its head"));
            }
            for row in changes {
                if committed.at.0 < request.through {
                    committed.take(row, request.offered.is_none())?;
                }
            }
        }
        Ok(Some(committed))
    }
}

impl Committed {
    fn take(&mut self, row: StoredChange, keep: bool) -> Result<(), FoldError> {
        let digest = self.at.1.with(row.id.number, &row.bytes);
        if row.seq != self.at.0.next() || row.digest != digest {
            return Err(damaged("a row is not the one that was committed"));
        }
        self.at = (row.seq, digest);
        self.row_bytes.push(row.bytes.len());
        let snapshot_seq = self.snapshot.as_ref().map_or(Seq::ZERO, |found| found.seq);
        if keep && row.seq > snapshot_seq {
            self.changes.push(row.bytes);
        }
        self.compare_snapshot()
    }

    /// Whether the snapshot is of this log, where it stands.
    fn compare_snapshot(&self) -> Result<(), FoldError> {
        match &self.snapshot {
            Some(snapshot) if snapshot.seq == self.at.0 && snapshot.digest != self.at.1 => {
                Err(damaged("the snapshot is not of this log"))
            }
            _ => Ok(()),
        }
    }
}

fn damaged(what: &str) -> FoldError {
    FoldError::Registry(RegistryError::Damaged { what: what.into() })
}

/// Runs the engine. Blocks.
fn fold(
    validator: &Arc<dyn Validator>,
    snapshot: Option<&[u8]>,
    changes: &[Bytes],
) -> Result<Bytes, EngineError> {
    let folder = validator
        .folder()
        .ok_or(EngineError::Unsupported { what: "folding" })?;
    // Whatever a panic leaves half-changed is dropped with it.
    catch_unwind(AssertUnwindSafe(|| {
        stacker::grow(ENGINE_STACK_BYTES, || folder.fold(snapshot, changes))
    }))
    .unwrap_or(Err(EngineError::Poisoned))
}
