//! What goes through the pipes between the server and a worker: frames of a length (4 bytes, little endian) and MessagePack.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sync_core::engine::EngineError;
use sync_core::error::{ErrorCode, PeerError};
use sync_core::server::Verdict;

/// Bytes of a frame at most: those of the largest document that a worker can be given.
pub(super) const FRAME_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// What a worker says first.
pub(super) const HELLO: &str = "sync-server worker 2";

/// Answered one by one, in order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// The snapshot of the document that [`Load`](Self::Load), [`Fold`](Self::Fold), [`Json`](Self::Json) or
    /// [`Trim`](Self::Trim) will be about.
    Snapshot(Bytes),
    /// Rows after it, likewise.
    Rows(Vec<Row>),
    /// Keeps a replica of the document under a number.
    Load {
        engine: String,
        replica: u32,
    },
    /// Checks changes with it; nothing that follows a refused one of the same writer.
    Check {
        replica: u32,
        changes: Vec<Change>,
    },
    /// Lets go of it.
    Forget {
        replica: u32,
    },
    Fold {
        engine: String,
    },
    Json {
        engine: String,
    },
    Trim {
        engine: String,
        keep: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Hello(String),
    Done,
    Checked {
        /// Fewer than were asked about if the replica is spent, and gone.
        findings: Vec<Finding>,
        is_spent: bool,
        /// About what the replica takes.
        bytes: u64,
    },
    Bytes(Bytes),
    Failed(Failure),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) author: Option<String>,
    pub(super) bytes: Bytes,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Change {
    pub(super) writer: u32,
    pub(super) user: String,
    pub(super) bytes: Bytes,
    pub(super) reconciling: bool,
}

/// What came out of checking a change.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Finding {
    New,
    Known,
    Missing(String),
    Invalid(String),
    Skipped,
}

impl From<Verdict> for Finding {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Accepted { is_new: true } => Self::New,
            Verdict::Accepted { is_new: false } => Self::Known,
            Verdict::Refused(error) if error.code == ErrorCode::MissingDependency => {
                Self::Missing(error.message)
            }
            Verdict::Refused(error) | Verdict::Unknown(error) => Self::Invalid(error.message),
            _ => Self::Skipped,
        }
    }
}

impl From<Finding> for Verdict {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::New => Self::Accepted { is_new: true },
            Finding::Known => Self::Accepted { is_new: false },
            Finding::Missing(message) => {
                Self::Refused(PeerError::new(ErrorCode::MissingDependency, message))
            }
            Finding::Invalid(message) => {
                Self::Refused(PeerError::new(ErrorCode::InvalidChange, message))
            }
            Finding::Skipped => Self::Skipped,
        }
    }
}

/// Why an engine did not do what was asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    Incomplete,
    Unproven,
    Unsupported,
    Other(String),
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Incomplete => Self::Incomplete,
            EngineError::Unproven => Self::Unproven,
            EngineError::Unsupported { .. } => Self::Unsupported,
            error => Self::Other(error.to_string()),
        }
    }
}
