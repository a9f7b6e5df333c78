//! Messages beside documents: broadcasts and extension messages, as an application sees them.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::events::Event;
use crate::ids::{DocumentId, SessionId};

/// A message to whoever has the document open just now. Lost by whoever is offline, or does not read fast enough: what must
/// stay is a document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Broadcast {
    /// A message arrived.
    Received {
        /// Who sent it, as the server says; `None` for the server itself.
        sender: Option<Sender>,
        /// What it is about.
        topic: Arc<str>,
        /// The payload.
        bytes: Bytes,
    },
    /// This reader, or the connection, fell behind, and messages were dropped.
    Lagged {
        /// How many; where the connection fell behind, of all topics of the document together.
        missed: u64,
    },
}

impl Event for Broadcast {
    fn lagged(missed: u64) -> Self {
        Self::Lagged { missed }
    }
}

/// Who sent a broadcast. Filled in by the server: a client cannot pretend to be another.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sender {
    /// The session: of two clients of one user each has its own.
    pub session: SessionId,
    /// The authenticated user.
    pub user: Arc<str>,
}

impl Sender {
    /// This session of this user.
    #[must_use]
    pub fn new(session: SessionId, user: impl Into<Arc<str>>) -> Self {
        Self {
            session,
            user: user.into(),
        }
    }
}

/// Why a broadcast was not sent. Nothing is queued: whoever wants it sent calls again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BroadcastError {
    /// The document is not open on a connection at the moment.
    #[error("the document is offline")]
    Offline,
    /// The payload is over the server's limit.
    #[error("the broadcast has {bytes} bytes, the limit is {max}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The topic is too long.
    #[error("the topic has {bytes} bytes, the limit is {max}")]
    TopicTooLong {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// More than the server's rate, or than the connection takes.
    #[error("too many broadcasts, try again in {retry_in:?}")]
    TooFast {
        /// When the next one may be sent.
        retry_in: Duration,
    },
    /// Broadcasts are for those who may write.
    #[error("broadcasts are for those who may write")]
    Denied,
}

/// A message of a plugin of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Extension {
    /// A message arrived.
    Received {
        /// 128 to 255; what it means is between the plugins.
        kind: u8,
        /// The document, if it is about one.
        document: Option<DocumentId>,
        /// The payload.
        bytes: Bytes,
    },
    /// This reader fell behind, and messages were dropped.
    Lagged {
        /// How many.
        missed: u64,
    },
}

impl Event for Extension {
    fn lagged(missed: u64) -> Self {
        Self::Lagged { missed }
    }
}

/// Why an extension message was not sent. Nothing is queued: whoever wants it sent calls again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExtensionError {
    /// Types below 128 are the protocol's own.
    #[error("{kind} is not a type of extensions, which are 128 to 255")]
    WrongKind {
        /// The type asked for.
        kind: u8,
    },
    /// There is no connection at the moment, or the document is not open on it.
    #[error("offline")]
    Offline,
    /// The payload is over the server's limit.
    #[error("the extension message has {bytes} bytes, the limit is {max}")]
    TooLarge {
        /// Its bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// More than the server's rate, or than the connection takes.
    #[error("too many extension messages, try again in {retry_in:?}")]
    TooFast {
        /// When the next one may be sent.
        retry_in: Duration,
    },
}
