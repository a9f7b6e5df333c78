//! What a room is asked and what it answers: opens, things to be done, what happened.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::ask::AskRequest;
use super::check::CheckRequest;
use super::fold::{FoldError, FoldRequest};
use crate::error::ErrorCode;
use crate::history::{Cursor, Epoch, Seq};
use crate::ids::{ChangeId, EngineId, OriginId, RequestId, ResumeToken, SessionId, User};
use crate::registry::RegistryError;
use crate::server::registry::{RegistryRequest, RequestNumber};
use crate::time::Time;
use crate::wire::{AccessLevel, Compression, PartialSnapshot};

/// The room is no more: make another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the room is unloaded")]
pub struct RoomUnloaded;

/// An open of the room's document, by a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenRequest {
    /// Repeated by the answer.
    pub request: RequestId,
    /// The engine that the client reads it with.
    pub engine: EngineId,
    /// Where the client stands.
    pub cursor: Option<Cursor>,
    /// Origins in its outbox, with the numbers through which it knows them acknowledged.
    pub origins: Vec<(OriginId, u64)>,
    /// What the client may do, and wants to.
    pub access: AccessLevel,
    /// As much as it wants to, if it may.
    pub access_max: AccessLevel,
    /// Until when that is to be believed; if that is over, it is asked at once. `None`: as long as it has the document open.
    pub valid_until: Option<Time>,
    /// Whether to create the document if there is none and the access is for writing.
    pub create: bool,
    /// Who the client is.
    pub user: User,
    /// The client's process start.
    pub origin: OriginId,
    /// The part of a snapshot that it holds already.
    pub partial: Option<PartialSnapshot>,
    /// Which of the origin's connections this is: of two sessions, the one with the higher number stays.
    pub connection: u64,
    /// How its frames may be compressed.
    pub compression: Compression,
    /// By which the client can say that it is the same when it has been cut off.
    pub token: Option<ResumeToken>,
    /// Whether it has said so: then it may still show what it was told of the others before.
    pub is_resumed: bool,
}

/// What a room wants done.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RoomOutput {
    /// Ask the registry, and hand the answer to [`handle_registry`](super::Room::handle_registry).
    Registry(RequestNumber, RegistryRequest),
    /// There is something for this session in [`poll_member`](super::Room::poll_member), and there was nothing before.
    Wake(SessionId),
    /// Changes of this charge have been answered, of a session that is not in the room any more.
    Settled(SessionId, usize),
    /// A newer session of the same client has this one's place.
    Superseded(SessionId),
    /// Fold the log, and hand the outcome to [`handle_folded`](super::Room::handle_folded): at most one at a time. Not on the thread that
    /// drives the room; only from rows that the registry gives, and never instead of an error.
    Fold(FoldRequest),
    /// Check changes against what the document holds, and hand the verdicts to
    /// [`handle_checked`](super::Room::handle_checked): one request at a time, unless the document got another history
    /// meanwhile. Only for engines that [`Engines::check`](crate::server::Engines::check) names. Nothing of the room waits
    /// for the answer but the changes themselves, and those that come after them.
    Check(RequestNumber, CheckRequest),
    /// Ask about changes of one session, and hand the answer to [`handle_asked`](super::Room::handle_asked): one request at a time for each
    /// session. Only with [`RoomConfig::asks`](crate::server::RoomConfig::asks). Nothing waits for the answer but the changes
    /// themselves, and what the session sends behind them.
    Ask(RequestNumber, AskRequest),
    /// Ask what this user may do with the document, and hand the answer to
    /// [`handle_authorized`](super::Room::handle_authorized). Not on the thread that drives the room.
    Authorize(RequestNumber, User),
    /// Something happened.
    Event(RoomEvent),
    /// The room is no more.
    Unloaded,
}

/// What a room has for one session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberOutput {
    /// Send this frame.
    Frame(Bytes),
    /// Changes of this charge have been answered, by frames before this.
    Settled(usize),
    /// The session is not in the room any more. The last output.
    Left,
}

/// Something that happened in a room.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RoomEvent {
    /// The registry has been read for the first time.
    Loaded {
        /// Last sequence.
        head: Seq,
    },
    /// A session has opened the document; said once until it leaves.
    Opened {
        /// The session.
        session: SessionId,
        /// What it may do.
        access: AccessLevel,
    },
    /// What a session may do has changed. `None`: it leaves.
    AccessChanged {
        /// The session.
        session: SessionId,
        /// What it may do now.
        access: AccessLevel,
    },
    /// A session that had opened the document has left.
    Left {
        /// The session.
        session: SessionId,
    },
    /// A session has begun to say something of itself.
    PresenceJoined {
        /// The session.
        session: SessionId,
        /// Whose it is.
        user: User,
        /// The session in whose place it is: the same client, before it was cut off. That one does not leave.
        instead_of: Option<SessionId>,
    },
    /// A session that said something of itself does not any more, or has left, or has not come back in time.
    PresenceLeft {
        /// The session.
        session: SessionId,
    },
    /// Changes of one origin have been committed.
    Committed {
        /// Sequence of the first.
        first: Seq,
        /// Sequence of the last.
        last: Seq,
        /// Who made them.
        origin: OriginId,
        /// For whom.
        user: User,
    },
    /// A change has been refused for good.
    Refused {
        /// The change.
        change: ChangeId,
        /// Whose.
        user: User,
        /// Why.
        code: ErrorCode,
    },
    /// A broadcast has been handed to sessions.
    Broadcast {
        /// Who sent it; `None` for the server itself.
        sender: Option<SessionId>,
        /// Bytes of its frame, before compression.
        bytes: usize,
        /// How many sessions.
        n_recipients: usize,
    },
    /// Broadcasts were dropped because a session did not read them fast enough, and it has been told so.
    BroadcastsMissed {
        /// The session.
        session: SessionId,
        /// How many.
        missed: u64,
    },
    /// A validator panicked; the change has been refused.
    ValidatorPanicked {
        /// The change.
        change: ChangeId,
    },
    /// The history that members were sent is not the document's any more; they open it again.
    HistoryReplaced {
        /// The one that is no more.
        epoch: Epoch,
    },
    /// The snapshot has been read, to be sent to whoever needs it; it is cut and compressed once for all of them.
    SnapshotRead {
        /// Sequence of the snapshot.
        seq: Seq,
        /// Its bytes.
        bytes: usize,
    },
    /// The document has four fifths of the bytes that it may have, or more. Told once until it has less again.
    NearLimit {
        /// Its snapshot and the changes after it.
        bytes: usize,
        /// What they may be.
        max: usize,
    },
    /// The log has been folded into a new snapshot.
    Folded {
        /// Sequence of the snapshot.
        seq: Seq,
        /// Its bytes.
        bytes: usize,
        /// Rows through this one have been dropped.
        keep_after: Seq,
        /// Time from the decision to the commit.
        took: Duration,
    },
    /// The log could not be folded: it stays as it is, and so does the snapshot. Tried again when it is twice as long.
    FoldFailed {
        /// Sequence that the snapshot would have had.
        through: Seq,
        /// Why.
        error: Arc<FoldError>,
    },
    /// The registry did not do what was asked.
    RegistryFailed {
        /// What was asked.
        call: &'static str,
        /// What it said.
        error: Arc<RegistryError>,
    },
}
