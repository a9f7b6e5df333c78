//! What a client tells its application: states that are true now, and things that happened.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::engine::Source;
use crate::error::{ErrorCode, PeerError};
use crate::events::Event;
use crate::history::Seq;
use crate::ids::{ChangeId, DocumentId, SessionId};
use crate::transport::CertificateProblem;
use crate::wire::AccessLevel;

/// Where the connection stands.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// The first attempt since `start` or `connect` is under way.
    Connecting,
    /// The server has welcomed us.
    Connected,
    /// The connection was lost, or an attempt failed; it is tried again without end.
    Reconnecting {
        /// Attempts since the last healthy session.
        attempt: u32,
        /// Delay before the next one, as drawn.
        next_in: Duration,
    },
    /// Disconnected on request.
    Offline,
    /// Trying again makes no sense; `connect()` tries all the same.
    Failed(FailedReason),
}

impl Status {
    /// Whether the server has welcomed us.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        matches!(self, Self::Connected)
    }
}

/// Why a client does not try again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailedReason {
    /// The server said so.
    Server(PeerError),
    /// Whoever answers at the address does not speak this protocol, or refused the connection for good.
    Refused(Arc<str>),
    /// Something else of the same kind took the session over: another client with this origin.
    Superseded,
}

impl fmt::Display for FailedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(error) => error.fmt(f),
            Self::Refused(why) => f.write_str(why),
            Self::Superseded => f.write_str("another connection took over"),
        }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// The transport closed or broke.
    Lost {
        /// The close code that the server gave, if any.
        close_code: Option<u16>,
    },
    /// The server could not show that it is the one at the address, and was told nothing.
    Untrusted(CertificateProblem),
    /// Nothing was heard within the ping timeout.
    Silence,
    /// No `Welcome` within the handshake time.
    HandshakeTimeout,
    /// The server ended it with an error.
    Server(PeerError),
    /// The server broke the protocol.
    Protocol(PeerError),
    /// `disconnect()`, shutdown, or a move to another server after `GoAway`.
    Local,
}

/// Something that happened to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClientEvent {
    /// The status changed.
    StatusChanged(Status),
    /// The server welcomed us.
    SessionStarted {
        /// Name of the session.
        session: SessionId,
    },
    /// A session, or an attempt at one, ended.
    SessionEnded(EndReason),
    /// The server is draining; the client connects again after the delay drawn.
    GoingAway {
        /// The delay.
        reconnect_in: Duration,
    },
    /// The server opened a document.
    DocumentOpened {
        /// Which.
        document: DocumentId,
        /// What may be done with it.
        access: AccessLevel,
    },
    /// Changes were refused for good; they wait in the document's `refused()`.
    Refused {
        /// The document.
        document: DocumentId,
        /// How many.
        count: usize,
    },
    /// The server said something about a document that is not final; it is tried again.
    DocumentError {
        /// The document.
        document: DocumentId,
        /// What it said.
        error: PeerError,
    },
    /// The server said something about what was sent outside of documents, an extension message above all. The session goes on.
    SessionError {
        /// What it said.
        error: PeerError,
    },
    /// The store could not be read or written. What was to be written is kept and tried again.
    StoreFailed {
        /// What it said.
        message: Arc<str>,
    },
    /// A message of a newer version was ignored, or one of a plugin that nobody here listens to.
    Ignored {
        /// Its type.
        kind: u8,
    },
    /// The reader fell behind.
    Lagged {
        /// Events lost.
        missed: u64,
    },
}

impl Event for ClientEvent {
    fn lagged(missed: u64) -> Self {
        Self::Lagged { missed }
    }
}

/// Something that happened to a document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum DocumentEvent {
    /// The content changed.
    Changed {
        /// By whom.
        source: Source,
        /// Names of the touched roots, where the engine has names.
        roots: Vec<Arc<str>>,
    },
    /// Changes were refused for good; they wait in `refused()`.
    Refused {
        /// How many.
        count: usize,
    },
    /// The replica was replaced: handles from `native()` must be fetched again.
    Replaced,
    /// What may be done changed.
    AccessChanged(AccessLevel),
    /// The document was deleted on the server.
    Deleted,
    /// The reader fell behind.
    Lagged {
        /// Events lost.
        missed: u64,
    },
}

impl Event for DocumentEvent {
    fn lagged(missed: u64) -> Self {
        Self::Lagged { missed }
    }
}

/// Where a document stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncState {
    /// Changes that this device's store does not hold safely yet; without a store, as `unsaved`.
    pub unsaved_locally: u64,
    /// Changes that the server's registry is not known to hold.
    pub unsaved: u64,
    /// Changes refused for good and not dropped by the application.
    pub refused: u64,
    /// What the document is doing.
    pub phase: SyncPhase,
    /// What may be done with it; what was asked for until the server has answered once.
    pub access: AccessLevel,
    /// Changes of the log that nobody can read with the keys given here: they are passed over, and the server keeps them.
    pub unreadable: u64,
    /// Changes that have not come although later ones of the same client have. Known only where changes are sealed, and
    /// not 0 only if the server withholds some or has put them into another order.
    pub missing: u64,
}

impl SyncState {
    /// A document that has just been opened.
    pub const NEW: Self = Self {
        unsaved_locally: 0,
        unsaved: 0,
        refused: 0,
        phase: SyncPhase::Offline,
        access: AccessLevel::Write,
        unreadable: 0,
        missing: 0,
    };

    /// Whether the server's registry holds every change made here.
    #[must_use]
    pub const fn is_saved(&self) -> bool {
        self.unsaved == 0
    }

    /// Whether everything that the server has is here: connected, heard from within the ping timeout, at or past the last
    /// head told, with an engine that waits for nothing and no reset in progress.
    #[must_use]
    pub const fn is_caught_up(&self) -> bool {
        matches!(self.phase, SyncPhase::Live)
    }
}

/// What a document is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPhase {
    /// Not open on any connection.
    Offline,
    /// Receiving what was missed, in bytes of snapshots and changes, before compression.
    ///
    /// The count goes on over cuts of the connection, until the document is [`Live`](Self::Live). Neither `received`
    /// nor its share of the `total` goes back, but where a cut snapshot has become another one meanwhile and begins
    /// anew. Once everything has arrived, it is still to be imported.
    CatchingUp {
        /// Bytes received.
        received: u64,
        /// Bytes of everything that was missed; 0 while that is not known. Those of a snapshot are exact; those of
        /// changes that have yet to come are reckoned from the ones that have.
        total: u64,
    },
    /// Caught up.
    Live,
    /// The server refuses to open it; what is pending stays in the outbox.
    Refused(ErrorCode),
    /// Deleted on the server.
    Deleted,
    /// A change in the server's log breaks the engine's rules. Nothing after it is imported.
    Damaged {
        /// Where it stands.
        sequence: Seq,
    },
    /// There is content, and it was sealed with a key that has not been given. Nothing is shown and nothing is sent: close the
    /// document, and open it with the right key.
    WrongKey,
    /// Closed by the application.
    Closed,
}

/// A change that the server will never take, kept until the application drops it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefusedChange {
    /// Its identity. Number 0 if it never had one.
    pub id: ChangeId,
    /// Its bytes, in the engine's encoding.
    pub bytes: Bytes,
    /// Why.
    pub reason: RefusedReason,
    /// The same for a person.
    pub message: Arc<str>,
}

impl RefusedChange {
    /// A refused change: for stores, which read them back.
    #[must_use]
    pub const fn new(id: ChangeId, bytes: Bytes, reason: RefusedReason, message: Arc<str>) -> Self {
        Self {
            id,
            bytes,
            reason,
            message,
        }
    }
}

/// Why a change was taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusedReason {
    /// The server, or this client on its behalf, refused it.
    Code(ErrorCode),
    /// It was made after a refused change, and may build on it.
    Behind,
    /// The server's history was rewritten and the change could not be replayed on it.
    HistoryReset,
    /// It was made through an engine handle of a document that had been replaced.
    Replaced,
}
