//! What a registry takes and answers. The trait itself is `sync_server::ServerRegistry`.

use std::time::Duration;

use bytes::Bytes;

use crate::history::{Cursor, Digest, Epoch, EpochMode, Seq};
use crate::ids::{ChangeId, DocumentId, EngineId, OriginId, User};
use crate::maybe_send::BoxError;

/// A document to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewDocument {
    /// Its name.
    pub id: DocumentId,
    /// Its engine.
    pub engine: EngineId,
    /// Name of its first history.
    pub epoch: Epoch,
    /// How that history came about. [`EpochMode::New`] unless a document is being restored.
    pub mode: EpochMode,
    /// What it starts with, if not empty.
    pub snapshot: Option<Snapshot>,
}

impl NewDocument {
    /// An empty document.
    #[must_use]
    pub const fn new(id: DocumentId, engine: EngineId, epoch: Epoch) -> Self {
        Self {
            id,
            engine,
            epoch,
            mode: EpochMode::New,
            snapshot: None,
        }
    }
}

/// What a registry knows of a document without reading its content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DocumentMeta {
    /// Its name.
    pub id: DocumentId,
    /// Its engine.
    pub engine: EngineId,
    /// Its current history.
    pub epoch: Epoch,
    /// How that history came about.
    pub mode: EpochMode,
    /// Last sequence.
    pub head: Seq,
    /// Digest over everything through `head`.
    pub digest: Digest,
    /// Sequence of the snapshot; 0 if there is none, so no snapshot stands at 0.
    pub snapshot_seq: Seq,
    /// The log holds every change after this sequence; at most `snapshot_seq` if there is a snapshot.
    pub log_start: Seq,
}

impl DocumentMeta {
    /// What a registry knows of a document that was just created empty.
    #[must_use]
    pub const fn new(id: DocumentId, engine: EngineId, epoch: Epoch, mode: EpochMode) -> Self {
        Self {
            id,
            engine,
            epoch,
            mode,
            head: Seq::ZERO,
            digest: Digest::EMPTY,
            snapshot_seq: Seq::ZERO,
            log_start: Seq::ZERO,
        }
    }

    /// Where somebody stands who has all of it.
    #[must_use]
    pub const fn cursor(&self) -> Cursor {
        Cursor {
            epoch: self.epoch,
            seq: self.head,
            digest: self.digest,
        }
    }
}

/// How much a registry keeps of a document that clients need: the snapshot, and the changes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DocumentSize {
    /// Last sequence that is counted.
    pub head: Seq,
    /// Sequence of the snapshot; 0 if there is none.
    pub snapshot_seq: Seq,
    /// Its bytes.
    pub snapshot_bytes: u64,
    /// Bytes of the changes after it, or what storing them takes.
    pub log_bytes: u64,
}

impl DocumentSize {
    /// A size.
    #[must_use]
    pub const fn new(head: Seq, snapshot_seq: Seq, snapshot_bytes: u64, log_bytes: u64) -> Self {
        Self {
            head,
            snapshot_seq,
            snapshot_bytes,
            log_bytes,
        }
    }
}

/// A change to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NewChange {
    /// Its identity.
    pub id: ChangeId,
    /// Who made it.
    pub user: User,
    /// Its bytes.
    pub bytes: Bytes,
    /// It says what a server lacked (design 2.3): its content may be anybody's work.
    pub reconciling: bool,
}

impl NewChange {
    /// A change, of its user's own work.
    #[must_use]
    pub const fn new(id: ChangeId, user: User, bytes: Bytes) -> Self {
        Self {
            id,
            user,
            bytes,
            reconciling: false,
        }
    }

    /// The same change, which [says what a server lacked](Self::reconciling) or does not.
    #[must_use]
    pub const fn with_reconciling(mut self, value: bool) -> Self {
        self.reconciling = value;
        self
    }
}

/// What became of one change of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Committed, here. The sequences of one append's commits follow on each other.
    At(Seq),
    /// Committed before, with the same bytes (or too long ago to compare them).
    Duplicate {
        /// The origin's last committed number.
        last: u64,
        /// Where this change stands, if the row is still known.
        seq: Option<Seq>,
    },
    /// Numbers were skipped, or an earlier change of this origin in the same append was refused.
    Gap {
        /// The number that follows the origin's last committed one.
        expected: u64,
    },
    /// The origin belongs to another user.
    ForeignOrigin,
    /// The id was used for other bytes.
    IdReused,
}

/// One committed row.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredChange {
    /// Its position.
    pub seq: Seq,
    /// Its identity.
    pub id: ChangeId,
    /// Its bytes.
    pub bytes: Bytes,
    /// Digest over everything through `seq`.
    pub digest: Digest,
    /// As [`NewChange::reconciling`].
    pub reconciling: bool,
}

impl StoredChange {
    /// A row of its user's own work.
    #[must_use]
    pub const fn new(seq: Seq, id: ChangeId, bytes: Bytes, digest: Digest) -> Self {
        Self {
            seq,
            id,
            bytes,
            digest,
            reconciling: false,
        }
    }

    /// The same row, of a change that [says what a server lacked](NewChange::reconciling) or does not.
    #[must_use]
    pub const fn with_reconciling(mut self, value: bool) -> Self {
        self.reconciling = value;
        self
    }
}

/// The log after some sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tail {
    /// The rows that follow, contiguous; empty exactly if there are none yet.
    Changes {
        /// The history they belong to.
        epoch: Epoch,
        /// Digest at the sequence asked for, so that a cursor can be compared.
        digest: Digest,
        /// The rows.
        changes: Vec<StoredChange>,
        /// Last sequence of the document.
        head: Seq,
    },
    /// The log no longer holds the row after that sequence, or its digest there: start from the snapshot.
    Compacted {
        /// The history.
        epoch: Epoch,
        /// The log holds every change after this sequence.
        log_start: Seq,
    },
    /// The sequence is beyond the last one.
    BeyondHead {
        /// The history.
        epoch: Epoch,
        /// Last sequence.
        head: Seq,
    },
}

/// Full mergeable engine state covering every change through `seq`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// What it covers.
    pub seq: Seq,
    /// Digest over what it covers.
    pub digest: Digest,
    /// The state, in the engine's encoding.
    pub bytes: Bytes,
}

impl Snapshot {
    /// A snapshot.
    #[must_use]
    pub const fn new(seq: Seq, digest: Digest, bytes: Bytes) -> Self {
        Self { seq, digest, bytes }
    }
}

/// An origin's entry in the table that decides duplicates (design 2.1).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OriginEntry {
    /// The origin.
    pub origin: OriginId,
    /// The only user it is good for.
    pub user: User,
    /// Its last committed number.
    pub last: u64,
    /// Where that change stands.
    pub seq: Seq,
}

impl OriginEntry {
    /// An entry.
    #[must_use]
    pub const fn new(origin: OriginId, user: User, last: u64, seq: Seq) -> Self {
        Self {
            origin,
            user,
            last,
            seq,
        }
    }
}

/// A hint that something happened in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryEvent {
    /// Changes were appended.
    Appended {
        /// To this document.
        document: DocumentId,
        /// Its head afterwards.
        head: Seq,
    },
    /// A new history replaced the old one.
    Replaced {
        /// Of this document.
        document: DocumentId,
        /// Its name.
        epoch: Epoch,
    },
    /// A document was deleted.
    Deleted {
        /// This one.
        document: DocumentId,
    },
    /// Hints have been lost here.
    Lagged,
}

/// What an `Ok` of a registry's `append` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Durability {
    /// In the memory of this process: gone with it.
    Memory,
    /// Written, and synced to the device.
    Synced,
}

/// Why a registry did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// There is no such document. Only after a strongly consistent read.
    #[error("no such document")]
    NotFound,
    /// The document has been deleted. Only after a strongly consistent read.
    #[error("the document has been deleted")]
    Deleted,
    /// The epoch named is not the document's any more.
    #[error("the document's epoch is {current}")]
    Fenced {
        /// Its epoch now.
        current: Epoch,
    },
    /// The expected head was not the head.
    #[error("the document's head is {head}")]
    Conflict {
        /// Its head now.
        head: Seq,
    },
    /// Nothing was done; the same call may succeed later.
    #[error("storage is unavailable")]
    Unavailable {
        /// When to try again, if known.
        retry_after: Option<Duration>,
        /// What happened.
        #[source]
        source: Option<BoxError>,
    },
    /// The call may or may not have been carried out: ask again, idempotence settles it.
    #[error("the outcome is unknown")]
    Unknown {
        /// What happened.
        #[source]
        source: Option<BoxError>,
    },
    /// What was handed in contradicts what is stored. Nothing was done, and the same call never succeeds.
    #[error("refused: {what}")]
    Refused {
        /// What contradicts it.
        what: &'static str,
    },
    /// What is stored is damaged.
    #[error("stored data is damaged: {what}")]
    Damaged {
        /// What is damaged.
        what: String,
    },
}

impl RegistryError {
    /// Nothing was done, for this reason; the same call may succeed later.
    #[must_use]
    pub fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable {
            retry_after: None,
            source: Some(source.into()),
        }
    }

    /// The call may have been carried out, or not, for this reason.
    #[must_use]
    pub fn unknown(source: impl Into<BoxError>) -> Self {
        Self::Unknown {
            source: Some(source.into()),
        }
    }
}
