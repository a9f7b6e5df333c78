//! What a server tells about itself.

mod text;

use std::sync::Arc;
use std::time::Duration;

use sync_core::error::{ErrorCode, PeerError};
use sync_core::events::Event;
use sync_core::history::{Epoch, Seq};
use sync_core::ids::{ChangeId, DocumentId, OriginId, SessionId, User};
use sync_core::registry::RegistryError;
use sync_core::server::FoldError;
use sync_core::transport::PeerInfo;
use sync_core::wire::AccessLevel;

pub use self::text::Severity;

use crate::hooks::HookFailure;

/// Something that happened on a server; each is told once, in order for each session and each document.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ServerEvent {
    /// A client has been welcomed.
    SessionOpened {
        /// Its session.
        session: SessionId,
        /// Who it is.
        user: User,
        /// Where it connects from.
        peer: PeerInfo,
    },
    /// A session that was opened has ended, and has left all its documents.
    SessionClosed {
        /// The session.
        session: SessionId,
        /// Why.
        reason: CloseReason,
    },
    /// A connection ended before its client was welcomed.
    ConnectionFailed {
        /// Where it came from.
        peer: PeerInfo,
        /// Why.
        reason: CloseReason,
    },
    /// A client broke the protocol; its session ends.
    ProtocolError {
        /// The session.
        session: SessionId,
        /// What was wrong, as the client is told.
        error: PeerError,
    },
    /// A message that this server does not take was ignored or refused; the session goes on.
    MessageIgnored {
        /// The session.
        session: SessionId,
        /// Name of the message.
        message: &'static str,
    },
    /// A session has opened a document; told once until it closes it.
    DocumentOpened {
        /// The session.
        session: SessionId,
        /// The document.
        document: DocumentId,
        /// What it may do.
        access: AccessLevel,
    },
    /// What a session may do with a document that it has open has changed.
    AccessChanged {
        /// The session.
        session: SessionId,
        /// The document.
        document: DocumentId,
        /// What it may do now. `None`: it is taken out.
        access: AccessLevel,
    },
    /// A session that had opened a document has closed it, or ended.
    DocumentClosed {
        /// The session.
        session: SessionId,
        /// The document.
        document: DocumentId,
    },
    /// A session has begun to say something of itself in a document.
    PresenceJoined {
        /// The document.
        document: DocumentId,
        /// The session.
        session: SessionId,
        /// Whose it is.
        user: User,
        /// The session in whose place it is: the same client, before it was cut off. [`PresenceLeft`](Self::PresenceLeft)
        /// is not told of that one.
        instead_of: Option<SessionId>,
    },
    /// A session that said something of itself in a document does not any more: it has taken it back, has left, or has not
    /// come back in time.
    PresenceLeft {
        /// The document.
        document: DocumentId,
        /// The session.
        session: SessionId,
    },
    /// A document is live from now on.
    RoomLoaded {
        /// The document.
        document: DocumentId,
        /// Its last sequence.
        head: Seq,
    },
    /// A document that was live is not any more: nobody had it open for a while.
    RoomUnloaded {
        /// The document.
        document: DocumentId,
    },
    /// Changes of one origin have been committed by this server.
    Committed {
        /// The document.
        document: DocumentId,
        /// Sequence of the first.
        first: Seq,
        /// Sequence of the last.
        last: Seq,
        /// The process start that made them.
        origin: OriginId,
        /// Whose they are.
        user: User,
    },
    /// A change has been refused for good.
    Refused {
        /// The document.
        document: DocumentId,
        /// The change.
        change: ChangeId,
        /// Whose it is.
        user: User,
        /// Why.
        code: ErrorCode,
    },
    /// A broadcast has been handed to the sessions that have the document open. What it says is told nowhere.
    Broadcast {
        /// The document.
        document: DocumentId,
        /// The session that sent it; `None` for the server itself.
        sender: Option<SessionId>,
        /// Bytes of its frame, before compression.
        bytes: usize,
        /// How many sessions.
        n_recipients: usize,
    },
    /// Broadcasts were dropped because a session did not read them fast enough, and it has been told so.
    BroadcastsMissed {
        /// The document.
        document: DocumentId,
        /// The session.
        session: SessionId,
        /// How many.
        missed: u64,
    },
    /// A hook panicked, or took longer than it may. Whatever it was asked about is tried again by its client.
    HookFailed {
        /// The method.
        call: &'static str,
        /// How.
        failure: HookFailure,
    },
    /// An engine panicked when it checked a change, which has been refused.
    ValidatorPanicked {
        /// The document.
        document: DocumentId,
        /// The change.
        change: ChangeId,
    },
    /// A worker process ended while it checked changes of a document, which are checked again, one by one.
    WorkerDied {
        /// The document.
        document: DocumentId,
        /// How it ended.
        what: String,
    },
    /// What is stored of a document cannot be given to its engine: until it is unloaded, or rewound by an admin, it is relayed.
    /// Changes are logged and sent on as they come, after no more than the engine's validator; they are neither checked
    /// against the document nor folded.
    DocumentRelayed {
        /// The document.
        document: DocumentId,
        /// What happened.
        what: String,
    },
    /// A live document got another history; its sessions open it again.
    HistoryReplaced {
        /// The document.
        document: DocumentId,
        /// The history that is no more.
        epoch: Epoch,
    },
    /// A document's snapshot has been read, for clients that need it: once for all of them while any is being sent it.
    SnapshotRead {
        /// The document.
        document: DocumentId,
        /// Sequence of the snapshot.
        seq: Seq,
        /// Bytes of the snapshot.
        bytes: usize,
    },
    /// A document has four fifths of the bytes that it may have
    /// ([`document_bytes_max`](crate::Limits::document_bytes_max)), or more: when there are none left, nobody's change is
    /// taken. Said once for as long as the document is live and does not have less again.
    DocumentNearLimit {
        /// The document.
        document: DocumentId,
        /// Bytes of its snapshot and of the changes after it.
        bytes: usize,
        /// What they may be.
        max: usize,
    },
    /// A document's log has been folded into a new snapshot.
    Folded {
        /// The document.
        document: DocumentId,
        /// Sequence of the snapshot.
        seq: Seq,
        /// Bytes of the snapshot.
        bytes: usize,
        /// The log starts after this sequence now, if it did not start later before.
        keep_after: Seq,
        /// How long it took, waiting for other folds included.
        took: Duration,
    },
    /// A document's log could not be folded. Nothing is lost, the document is served from the log that it has, and
    /// folding is tried again when the log is twice as long.
    FoldFailed {
        /// The document.
        document: DocumentId,
        /// Sequence that the snapshot would have had.
        through: Seq,
        /// Why.
        error: Arc<FoldError>,
    },
    /// The registry did not do what was asked. Clients try again.
    RegistryFailed {
        /// The document.
        document: DocumentId,
        /// What was asked.
        call: &'static str,
        /// What it said.
        error: Arc<RegistryError>,
    },
    /// This subscriber fell behind, and so many events are lost to it.
    Lagged {
        /// How many.
        missed: u64,
    },
}

impl Event for ServerEvent {
    fn lagged(missed: u64) -> Self {
        Self::Lagged { missed }
    }
}

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The server ended it, and told the client this.
    Ended(PeerError),
    /// The client closed the connection.
    ByClient {
        /// With this close code, if the transport has one.
        code: Option<u16>,
    },
    /// The connection broke.
    Lost {
        /// How.
        error: String,
    },
    /// The future that served it was dropped.
    Dropped,
}
