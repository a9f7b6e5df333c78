//! Reading a document's committed rows, for engines.

use std::collections::BTreeMap;

use sync_core::history::{Digest, Epoch, Seq};
use sync_core::ids::{DocumentId, OriginId, User};
use sync_core::registry::{DocumentMeta, RegistryError, Snapshot, StoredChange, Tail};
use sync_core::server::FoldError;

use super::Shared;
use super::rooms::caught;
use crate::engine_host::Content;

/// Bytes of changes read at once.
const READ_BYTES: usize = 1024 * 1024;

/// Reads that are begun anew because somebody else compacted the log between two of them.
const READ_ATTEMPTS_MAX: u32 = 4;

/// Origins looked up at once.
const ORIGINS_MAX: usize = 1_000;

/// What is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    pub(super) epoch: Epoch,
    /// The last row.
    pub(super) through: Seq,
    /// The snapshot must not be newer.
    pub(super) snapshot_max: Seq,
    /// Whether to look at the rows before the snapshot too, for what they weigh.
    pub(super) weighs_all: bool,
    /// Whether anything is done with the rows but weighing them.
    pub(super) keeps_rows: bool,
}

/// Committed rows of a document.
pub(super) struct Committed {
    snapshot: Option<Snapshot>,
    /// Those after the snapshot.
    changes: Vec<StoredChange>,
    /// Of all that were read, oldest first.
    pub(super) row_bytes: Vec<usize>,
    /// Where the last row read stands, and the digest there.
    pub(super) at: (Seq, Digest),
}

impl Shared {
    /// Reads the snapshot and the log up to a sequence, and checks that they fit together.
    pub(super) async fn read_committed(
        &self,
        document: &DocumentId,
        wanted: Wanted,
    ) -> Result<Committed, FoldError> {
        for _ in 0..READ_ATTEMPTS_MAX {
            if let Some(committed) = self.try_read_committed(document, wanted).await? {
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
        wanted: Wanted,
    ) -> Result<Option<Committed>, FoldError> {
        let registry = &self.registry;
        let calls = &self.calls;
        let meta = calls
            .meta
            .time(caught(registry.meta(document)))
            .await
            .map_err(FoldError::Registry)?;
        if meta.epoch != wanted.epoch || meta.head < wanted.through {
            return Err(FoldError::HistoryReplaced);
        }
        if meta.snapshot_seq > wanted.snapshot_max {
            return Err(FoldError::Newer {
                seq: meta.snapshot_seq,
            });
        }
        let snapshot = caught(registry.snapshot(document));
        let snapshot = calls.snapshot.time(snapshot).await;
        let snapshot = snapshot.map_err(FoldError::Registry)?;
        let snapshot_seq = snapshot.as_ref().map_or(Seq::ZERO, |found| found.seq);
        if snapshot_seq != meta.snapshot_seq {
            return Ok(None);
        }
        let mut committed = Committed::new(&meta, snapshot, wanted.weighs_all);
        let mut is_first = true;
        while committed.at.0 < wanted.through || is_first {
            let tail = caught(registry.tail(document, committed.at.0, READ_BYTES));
            let tail = calls.tail.time(tail).await;
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
            if found != wanted.epoch {
                return Err(FoldError::HistoryReplaced);
            }
            if std::mem::take(&mut is_first) {
                committed.at.1 = digest;
                committed.compare_snapshot()?;
            } else if committed.at.1 != digest {
                return Err(damaged("the digest of a row is not that of the log"));
            }
            if changes.is_empty() && committed.at.0 < wanted.through {
                return Err(damaged("the log ends before its head"));
            }
            for row in changes {
                if committed.at.0 < wanted.through {
                    committed.take(row, wanted.keeps_rows)?;
                }
            }
        }
        Ok(Some(committed))
    }

    /// Committed rows with their authors.
    pub(super) async fn with_authors(
        &self,
        document: &DocumentId,
        committed: Committed,
    ) -> Result<Content, FoldError> {
        let origins = committed.changes.iter().map(|row| (row.id.origin, None));
        let mut authors: BTreeMap<OriginId, Option<User>> = origins.collect();
        let origins: Vec<_> = authors.keys().copied().collect();
        for origins in origins.chunks(ORIGINS_MAX) {
            let entries = caught(self.registry.origins(document, origins));
            let entries = self.calls.origins.time(entries).await;
            let entries = entries.map_err(FoldError::Registry)?;
            for entry in entries.into_iter().flatten() {
                authors.insert(entry.origin, Some(entry.user));
            }
        }
        let author = |origin| authors.get(&origin).cloned().flatten();
        Ok(committed.content(author))
    }
}

impl Committed {
    fn new(meta: &DocumentMeta, snapshot: Option<Snapshot>, weighs_all: bool) -> Self {
        let start = if weighs_all {
            meta.log_start
        } else {
            meta.snapshot_seq
        };
        Self {
            snapshot,
            changes: Vec::new(),
            row_bytes: Vec::new(),
            at: (start, Digest::EMPTY),
        }
    }

    fn take(&mut self, row: StoredChange, keeps: bool) -> Result<(), FoldError> {
        let digest = self.at.1.with(row.id.number, &row.bytes);
        if row.seq != self.at.0.next() || row.digest != digest {
            return Err(damaged("a row is not the one that was committed"));
        }
        self.at = (row.seq, digest);
        self.row_bytes.push(row.bytes.len());
        let snapshot_seq = self.snapshot.as_ref().map_or(Seq::ZERO, |found| found.seq);
        if keeps && row.seq > snapshot_seq {
            self.changes.push(row);
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

    /// What engines are given. What says what a server lacked is nobody's own.
    pub(super) fn content(self, author: impl Fn(OriginId) -> Option<User>) -> Content {
        let row = |row: StoredChange| {
            let is_own = !row.reconciling;
            let author = is_own.then(|| author(row.id.origin)).flatten();
            (author, row.bytes)
        };
        Content {
            snapshot: self.snapshot.map(|snapshot| snapshot.bytes),
            rows: self.changes.into_iter().map(row).collect(),
        }
    }
}

fn damaged(what: &str) -> FoldError {
    FoldError::Registry(RegistryError::Damaged { what: what.into() })
}
