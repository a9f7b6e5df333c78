//! One error for each operation.

use sync_core::engine::EngineError;
use sync_core::error::ErrorCode;
use sync_core::history::Seq;
use sync_core::ids::{ChangeId, DocumentIdError, EngineId};

use crate::store::StoreError;

/// Why a client did not start. Nothing is left behind.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The address is not one that this build can dial.
    #[error("cannot dial {address:?}: {reason}")]
    Address {
        /// The address given, without user, password and query.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This build cannot dial such an address.
    #[error("{address:?} needs the feature `{feature}` of sync-client")]
    FeatureOff {
        /// The address given, without user, password and query.
        address: String,
        /// The feature that it needs.
        feature: &'static str,
    },
    /// HTTP does not allow this header, or WebSocket needs it for itself.
    #[error("the header {name:?} cannot be set")]
    Header {
        /// Its name.
        name: String,
    },
    /// What was given as root certificates cannot be used.
    #[error("cannot use the root certificate: {reason}")]
    RootCertificate {
        /// What is wrong with it.
        reason: String,
    },
    /// The store is another account's, or cannot be used.
    #[error("the store cannot be used")]
    Store(#[from] StoreError),
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Random,
    /// There is no tokio runtime, and none could be started.
    #[error("could not start a thread for the client")]
    Thread(#[source] std::io::Error),
}

/// Why a document was not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The string does not name a document.
    #[error(transparent)]
    Id(#[from] DocumentIdError),
    /// The document is open with another engine.
    #[error("the document is open with engine {open}")]
    EngineMismatch {
        /// The engine that it is open with.
        open: EngineId,
    },
    /// What the store holds was sealed with a key that has not been given.
    #[error("the document was sealed with a key that has not been given")]
    WrongKey,
    /// The engine could not make a replica, or refuses what the store holds.
    #[error("the engine could not make a replica")]
    Engine(#[source] EngineError),
    /// The store could not be read.
    #[error("the store could not be read")]
    Store(#[from] StoreError),
    /// The operating system gave no randomness.
    #[error("the operating system gave no randomness")]
    Random,
    /// The client has been shut down.
    #[error("the client has been shut down")]
    Closed,
}

impl From<EngineError> for OpenError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::WrongKey => Self::WrongKey,
            error => Self::Engine(error),
        }
    }
}

impl From<std::convert::Infallible> for OpenError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// Why an edit was not made. The closure did not run, except for [`TooLarge`](Self::TooLarge), [`Invalid`](Self::Invalid)
/// and, once, [`Reloading`](Self::Reloading).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// The document may only be read.
    #[error("the document may only be read")]
    ReadOnly,
    /// The document was deleted on the server.
    #[error("the document was deleted")]
    Deleted,
    /// The document was sealed with a key that has not been given.
    #[error("the document was sealed with a key that has not been given")]
    WrongKey,
    /// The client has been shut down.
    #[error("the client has been shut down")]
    Closed,
    /// Too many changes wait for the server.
    #[error("{max} changes wait for the server already")]
    OutboxFull {
        /// How many may wait.
        max: usize,
    },
    /// Called from within `read` or `edit` of the same document, or from one of its observers.
    #[error("the document is being read or edited by this very thread")]
    Reentrant,
    /// A transaction on the engine's own handle holds the document.
    #[error("a transaction of the application holds the document")]
    Busy,
    /// The change is over the server's limit. It has been taken back, and waits in `refused()`.
    #[error("the change has {bytes} bytes, the limit is {max}")]
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The change is one that nobody takes, such as values nested too deeply or half a character. It has been taken back,
    /// and waits in `refused()`.
    #[error("the change breaks the engine's rules for changes")]
    Invalid,
    /// The document is being loaded afresh from the server, after something was done to it that the engine cannot take back:
    /// above all, a handle into it from before it was replaced was used in it. If that was this edit, what it did is in no
    /// replica, and waits in `refused()`.
    #[error("the document is being loaded afresh")]
    Reloading,
    /// The engine failed.
    #[error("the engine failed")]
    Engine(#[source] EngineError),
}

/// Why nothing was undone, or made again. The document is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UndoError {
    /// The engine has no undo, or the engine value does not ask for it.
    #[error("{what} is not supported by this engine value")]
    Unsupported {
        /// What was asked.
        what: &'static str,
    },
    /// No edit could be made.
    #[error(transparent)]
    Edit(#[from] EditError),
}

impl From<EngineError> for UndoError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Unsupported { what } => Self::Unsupported { what },
            EngineError::Busy => Self::Edit(EditError::Busy),
            EngineError::Poisoned => Self::Edit(EditError::Reloading),
            error => Self::Edit(EditError::Engine(error)),
        }
    }
}

/// Why an earlier version cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// The engine keeps no history, or the engine value does not ask for it.
    #[error("{what} is not supported by this engine value")]
    Unsupported {
        /// What was asked.
        what: &'static str,
    },
    /// The version holds changes that are not here, perhaps not yet.
    #[error("the version holds changes that are not here")]
    Missing,
    /// The history has been trimmed since.
    #[error("the history since that version has been trimmed")]
    Trimmed,
    /// Called from within `read` or `edit` of the same document, or from one of its observers.
    #[error("the document is being read or edited by this very thread")]
    Reentrant,
    /// A transaction on the engine's own handle holds the document.
    #[error("a transaction of the application holds the document")]
    Busy,
    /// The document is being loaded afresh from the server.
    #[error("the document is being loaded afresh")]
    Reloading,
    /// The engine failed; the version may be another engine's.
    #[error("the engine failed")]
    Engine(#[source] EngineError),
}

impl From<EngineError> for HistoryError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Unsupported { what } => Self::Unsupported { what },
            EngineError::Incomplete => Self::Missing,
            EngineError::Trimmed => Self::Trimmed,
            EngineError::Busy => Self::Busy,
            EngineError::Poisoned => Self::Reloading,
            error => Self::Engine(error),
        }
    }
}

/// Why something was not said of this client. What was said before stays.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PresenceError {
    /// The document, or the client, was closed.
    #[error("the document is closed")]
    Closed,
    /// It is over the limit.
    #[error("the presence has {bytes} bytes, the limit is {max}")]
    TooLarge {
        /// Bytes of it.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The value cannot be written.
    #[error("the value cannot be written")]
    Encode(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why what was waited for will not come.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The server refused these changes for good; they wait in `refused()`.
    #[error("{} changes were refused", .0.len())]
    Refused(Vec<ChangeId>),
    /// The document was deleted on the server.
    #[error("the document was deleted")]
    Deleted,
    /// The server refuses to open the document. What is pending stays in the outbox.
    #[error("the server refuses to open the document: {0}")]
    Denied(ErrorCode),
    /// The document was sealed with a key that has not been given. What is pending stays in the outbox.
    #[error("the document was sealed with a key that has not been given")]
    WrongKey,
    /// A change in the server's log breaks the engine's rules.
    #[error("the change at sequence {sequence} of the server's log is damaged")]
    Damaged {
        /// Where it stands.
        sequence: Seq,
    },
    /// There is no store.
    #[error("the client has no store")]
    NoStore,
    /// The client has been shut down. What is pending stays in the store, if there is one.
    #[error("the client has been shut down")]
    Closed,
}
