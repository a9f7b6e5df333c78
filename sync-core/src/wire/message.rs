//! Every message of the protocol, decoded. One struct for each, fields in wire order.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use twox_hash::XxHash3_64;

use crate::error::{Action, ErrorCode};
use crate::history::{Cursor, Digest, Epoch, EpochMode, Seq};
use crate::ids::{Author, Channel, DocumentId, EngineId, Hidden, OriginId, RequestId, SessionId};
use crate::wire::codec::{negative_len, uint_len};

/// First and last protocol version that this crate speaks.
pub const PROTOCOL_VERSIONS: VersionRange = VersionRange { min: 1, max: 1 };

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// Type 1.
    Hello(Hello),
    /// Type 2.
    Welcome(Welcome),
    /// Type 3.
    Open(Open),
    /// Type 4.
    Opened(Opened),
    /// Type 5.
    Push(Push),
    /// Type 6.
    Changes(Changes),
    /// Type 7.
    Ack(Ack),
    /// Type 8.
    Refuse(Refuse),
    /// Type 9.
    Snapshot(SnapshotMessage),
    /// Type 10.
    FoldRequest(FoldRequest),
    /// Type 11.
    FoldOffer(FoldOffer),
    /// Type 12.
    Presence(Presence),
    /// Type 13.
    Broadcast(Broadcast),
    /// Type 14.
    Auth(Auth),
    /// Type 15.
    Access(Access),
    /// Type 16.
    Close(Close),
    /// Type 17.
    Closed(Closed),
    /// Type 18.
    Ping(Ping),
    /// Type 19.
    Pong(Pong),
    /// Type 20.
    GoAway(GoAway),
    /// Type 21.
    Error(ErrorMessage),
    /// Type 22.
    Fragment(Fragment),
    /// Type 23.
    Author(AuthorMessage),
    /// Types 128 to 255.
    Extension(Extension),
    /// Types 64 to 127, which this version does not know and ignores.
    Ignored {
        /// The type.
        kind: u8,
    },
}

impl Message {
    /// Name of the message in `docs/protocol.md` section 4.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "Hello",
            Self::Welcome(_) => "Welcome",
            Self::Open(_) => "Open",
            Self::Opened(_) => "Opened",
            Self::Push(_) => "Push",
            Self::Changes(_) => "Changes",
            Self::Ack(_) => "Ack",
            Self::Refuse(_) => "Refuse",
            Self::Snapshot(_) => "Snapshot",
            Self::FoldRequest(_) => "FoldRequest",
            Self::FoldOffer(_) => "FoldOffer",
            Self::Presence(_) => "Presence",
            Self::Broadcast(_) => "Broadcast",
            Self::Auth(_) => "Auth",
            Self::Access(_) => "Access",
            Self::Close(_) => "Close",
            Self::Closed(_) => "Closed",
            Self::Ping(_) => "Ping",
            Self::Pong(_) => "Pong",
            Self::GoAway(_) => "GoAway",
            Self::Error(_) => "Error",
            Self::Fragment(_) => "Fragment",
            Self::Author(_) => "Author",
            Self::Extension(_) => "Extension",
            Self::Ignored { .. } => "Ignored",
        }
    }
}

/// A range of protocol versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    /// First.
    pub min: u16,
    /// Last.
    pub max: u16,
}

impl VersionRange {
    /// The highest version that both ranges hold.
    #[must_use]
    pub fn negotiate(self, other: Self) -> Option<u16> {
        let version = self.max.min(other.max);
        (version >= self.min && version >= other.min).then_some(version)
    }
}

/// A way to compress frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Compression {
    /// Frames travel as they are.
    None = 0,
    /// Frames of 512 bytes and more may be gzip.
    Gzip = 1,
}

/// What a client may do with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum AccessLevel {
    /// Nothing.
    None = 0,
    /// Receive.
    Read = 1,
    /// Receive and push.
    Write = 2,
    /// Push, and offer folds of opaque documents.
    Maintain = 3,
}

/// The client's first message.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    /// Versions that the client speaks.
    pub versions: VersionRange,
    /// Name and version of the software, for logs.
    pub software: String,
    /// The client's process start.
    pub origin: OriginId,
    /// Counts the origin's connections: of two sessions of an origin the one with the higher number is the newer.
    pub connection: u64,
    /// Credentials for the authenticator, if not given with the connection.
    pub credentials: Option<Bytes>,
    /// Ways to compress that the client takes; unknown ones are ignored.
    pub compression: Vec<Compression>,
    /// The token of an earlier `Welcome`.
    pub resume: Option<Bytes>,
}

/// Without what is secret.
impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            versions,
            software,
            origin,
            connection,
            credentials,
            compression,
            resume,
        } = self;
        f.debug_struct("Hello")
            .field("versions", versions)
            .field("software", software)
            .field("origin", origin)
            .field("connection", connection)
            .field("credentials", &credentials.as_ref().map(|_| Hidden))
            .field("compression", compression)
            .field("resume", &resume.as_ref().map(|_| Hidden))
            .finish()
    }
}

/// The server's answer to [`Hello`].
#[derive(Clone, PartialEq, Eq)]
pub struct Welcome {
    /// The version chosen.
    pub version: u16,
    /// Name of the session.
    pub session: SessionId,
    /// Who the server takes the client for.
    pub user: String,
    /// Says to a later `Hello` that it is the same client; none if that is of no use.
    pub resume: Option<Bytes>,
    /// How either side may compress.
    pub compression: Compression,
    /// Limits that the client must keep.
    pub limits: WelcomeLimits,
    /// How often the client is to ping.
    pub ping_interval: Duration,
    /// The server's wall clock, in milliseconds since 1970.
    pub server_time_ms: u64,
}

/// Without what is secret.
impl fmt::Debug for Welcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version,
            session,
            user,
            resume,
            compression,
            limits,
            ping_interval,
            server_time_ms,
        } = self;
        f.debug_struct("Welcome")
            .field("version", version)
            .field("session", session)
            .field("user", user)
            .field("resume", &resume.as_ref().map(|_| Hidden))
            .field("compression", compression)
            .field("limits", limits)
            .field("ping_interval", ping_interval)
            .field("server_time_ms", server_time_ms)
            .finish()
    }
}

/// Limits that the client must keep; an array of its own in [`Welcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WelcomeLimits {
    /// Bytes of one message, put together and inflated.
    pub message_bytes_max: u64,
    /// Bytes of one change that is not reconciling.
    pub change_bytes_max: u64,
    /// Unacknowledged bytes of changes.
    pub push_window_bytes: u64,
    /// Open documents.
    pub documents_max: u64,
    /// Bytes of one broadcast, without its topic.
    pub broadcast_bytes_max: u64,
    /// Broadcasts in a second.
    pub broadcasts_per_second: u64,
    /// Broadcasts at once after a pause.
    pub broadcasts_burst: u64,
    /// Bytes of one extension message.
    pub extension_bytes_max: u64,
    /// Extension messages in a second.
    pub extensions_per_second: u64,
    /// Extension messages at once after a pause.
    pub extensions_burst: u64,
    /// Bytes of what a session says of itself in a document.
    pub presence_bytes_max: u64,
    /// Time between two presence messages about one document, at least.
    pub presence_interval: Duration,
    /// Presence messages in a second.
    pub presences_per_second: u64,
    /// Presence messages at once after a pause.
    pub presences_burst: u64,
}

/// Opens a document on this session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open {
    /// Repeated by the answer.
    pub request: RequestId,
    /// The document.
    pub document: DocumentId,
    /// The engine that the client reads it with.
    pub engine: EngineId,
    /// Where the client stands; `None` if it has nothing from a server.
    pub cursor: Option<Cursor>,
    /// Every origin in the outbox, with the number through which the client knows it acknowledged.
    pub origins: Vec<(OriginId, u64)>,
    /// Wanted access: [`AccessLevel::Read`] or [`AccessLevel::Write`].
    pub access: AccessLevel,
    /// Whether to create the document if there is none.
    pub create: bool,
    /// The part of a snapshot received before the connection was cut.
    pub partial: Option<PartialSnapshot>,
}

/// The part of a snapshot that a client already holds; an array of its own in [`Open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartialSnapshot {
    /// What the snapshot covers.
    pub seq: Seq,
    /// Bytes held, from the first on.
    pub offset: u64,
    /// Of the bytes held, so that what continues them can only be the very same snapshot.
    pub digest: Digest,
}

impl PartialSnapshot {
    /// What a client says of the bytes that it holds.
    #[must_use]
    pub fn of(seq: Seq, held: &[u8]) -> Self {
        Self {
            seq,
            offset: u64::try_from(held.len()).unwrap_or(u64::MAX),
            digest: Digest(XxHash3_64::oneshot_with_seed(seq.0, held)),
        }
    }
}

/// The server's answer to [`Open`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The request answered.
    pub request: RequestId,
    /// Number of the document on this session.
    pub channel: Channel,
    /// Its history.
    pub epoch: Epoch,
    /// How that history came about.
    pub mode: EpochMode,
    /// Last sequence.
    pub head: Seq,
    /// What the client may do.
    pub access: AccessLevel,
    /// What follows.
    pub next: Continuation,
    /// For every origin named in `Open`, and the session's own: last number committed (0: none known), and the
    /// number that names it in frames.
    pub origins: Vec<(OriginId, u64, Author)>,
}

/// How a document continues after [`Opened`]; an array `[kind, fields...]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Continuation {
    /// Kind 0: the changes after the client's cursor.
    Resume,
    /// Kind 1: a snapshot, then the changes after it. The client's own state stays valid.
    Snapshot {
        /// Bytes of the snapshot.
        total_bytes: u64,
    },
    /// Kind 2: the client's cursor is not of this history. The whole state follows: a snapshot if there is one
    /// (`total_bytes` above 0), then the changes after it.
    Reset {
        /// What the client does with what it holds.
        reset: Reset,
        /// Bytes of the snapshot; 0 if there is none and changes follow from sequence 1.
        total_bytes: u64,
    },
    /// Kind 3: as a merge reset, but another client is reconciling. Nothing follows until another `Opened` with
    /// the same request.
    Wait,
}

/// What a client does with what it holds when its history is not the server's (design 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reset {
    /// Keep everything, and push what the server lacks.
    Merge = 0,
    /// Replay pending work on the new history where the engine can, else hand it back.
    Rebase = 1,
    /// Drop what is not in the log; pending work is handed back.
    Discard = 2,
}

/// Changes of one origin, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// The document.
    pub channel: Channel,
    /// Who made them.
    pub origin: OriginId,
    /// Number of the first; the others follow without holes.
    pub first_number: u64,
    /// Their bytes.
    pub changes: Vec<Bytes>,
    /// Whether this ends a reconciliation; then `changes` may be empty.
    pub reconciling: bool,
}

/// Committed changes, the same bytes for every recipient. They start right after the recipient's cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The document.
    pub channel: Channel,
    /// Low 7 bits of the first sequence.
    pub check: u8,
    /// The changes, in log order.
    pub changes: Vec<AuthoredChange>,
}

/// One change in [`Changes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthoredChange {
    /// Who made it.
    pub author: Author,
    /// Its number.
    pub number: WireNumber,
    /// Its bytes.
    pub bytes: Bytes,
}

/// A change's number as it travels in [`Changes`]: itself, or its distance from the change's sequence, whichever
/// is shorter. A document with one author then needs one byte, whatever its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireNumber {
    /// The number itself; a non-negative integer on the wire.
    Number(u64),
    /// `sequence - number`; the negative integer `-1 - distance` on the wire.
    BelowSeq(u64),
}

impl WireNumber {
    /// The form of `number` at `seq` that takes fewer bytes; itself if both take as many.
    #[must_use]
    pub const fn new(number: u64, seq: Seq) -> Self {
        let itself = Self::Number(number);
        match seq.0.checked_sub(number) {
            Some(distance) if Self::BelowSeq(distance).encoded_len() < itself.encoded_len() => {
                Self::BelowSeq(distance)
            }
            _ => itself,
        }
    }

    /// Bytes that it takes on the wire, 1 to 9.
    #[must_use]
    pub const fn encoded_len(self) -> usize {
        match self {
            Self::Number(number) => uint_len(number),
            Self::BelowSeq(distance) => negative_len(distance),
        }
    }

    /// The number of the change at `seq`; `None` if the distance is larger than the sequence.
    #[must_use]
    pub const fn resolve(self, seq: Seq) -> Option<u64> {
        match self {
            Self::Number(number) => Some(number),
            Self::BelowSeq(distance) => seq.0.checked_sub(distance),
        }
    }
}

/// Low 7 bits of a sequence, as they travel in [`Changes`] and [`Ack`].
#[must_use]
pub fn check_of(seq: Seq) -> u8 {
    u8::try_from(seq.0 & 0x7f).unwrap_or(0)
}

/// The receiver's own next changes have been committed, right after its cursor; or they had been before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The document.
    pub channel: Channel,
    /// Low 7 bits of the first sequence; 0 if `count` is 0.
    pub check: u8,
    /// Number of the first change. If `count` is 0: everything through this number had been committed before.
    pub number: u64,
    /// How many, or 0.
    pub count: u64,
}

/// A change will never be taken. Everything before it is committed; the channel is closed for writing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refuse {
    /// The document.
    pub channel: Channel,
    /// Who made it.
    pub origin: OriginId,
    /// Its number.
    pub number: u64,
    /// Why.
    pub code: ErrorCode,
    /// The same for a person.
    pub message: String,
}

/// A piece of full engine state; a snapshot travels as several of these, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotMessage {
    /// The document.
    pub channel: Channel,
    /// Its history.
    pub epoch: Epoch,
    /// What the state covers.
    pub seq: Seq,
    /// Digest over it.
    pub digest: Digest,
    /// Encoding of the bytes within the engine; 0 is the engine's own.
    pub codec: u8,
    /// Bytes of the state before this piece.
    pub offset: u64,
    /// Bytes of the whole state.
    pub total_bytes: u64,
    /// The piece.
    pub bytes: Bytes,
}

/// Asks one client to fold an opaque document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldRequest {
    /// The document.
    pub channel: Channel,
    /// Fold everything through this sequence.
    pub seq: Seq,
}

/// A folded opaque document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoldOffer {
    /// The document.
    pub channel: Channel,
    /// Its history.
    pub epoch: Epoch,
    /// What is folded.
    pub seq: Seq,
    /// Digest over it.
    pub digest: Digest,
    /// The state.
    pub bytes: Bytes,
}

/// Who is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The document.
    pub channel: Channel,
    /// What changed.
    pub deltas: Vec<PresenceDelta>,
    /// Version of the table after these deltas; 0 from a client.
    pub table_version: u64,
}

/// One change of the presence table; an array of its own in [`Presence`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceDelta {
    /// Whose; the sender's own from a client.
    pub session: SessionId,
    /// Their user; empty from a client.
    pub user: String,
    /// The state; `None` when gone.
    pub state: Option<Bytes>,
}

/// An ephemeral message to a document's sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broadcast {
    /// The document.
    pub channel: Channel,
    /// What it is about.
    pub topic: String,
    /// The payload.
    pub bytes: Bytes,
    /// Who sent it, filled in by the server; `None` from a client, and from the server itself.
    pub sender: Option<(SessionId, String)>,
    /// How many came before this one and were dropped, because the receiver did not read them fast enough. A message that
    /// says so says nothing else.
    pub missed: u64,
}

/// Fresh credentials in band.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    /// The credentials.
    pub credentials: Bytes,
}

/// Without what is secret.
impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { credentials: _ } = self;
        f.debug_struct("Auth")
            .field("credentials", &Hidden)
            .finish()
    }
}

/// What the client may do has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The document.
    pub channel: Channel,
    /// What it may do now.
    pub access: AccessLevel,
    /// From which sequence on.
    pub from: Seq,
}

/// Closes a document on this session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close {
    /// The document.
    pub channel: Channel,
}

/// The document is closed on this session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The document.
    pub channel: Channel,
    /// Why; `None` as the answer to [`Close`].
    pub reason: Option<ErrorCode>,
    /// The same for a person.
    pub message: String,
}

/// Asks for a sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ping {
    /// Repeated by the answer.
    pub nonce: u64,
}

/// A sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pong {
    /// The nonce answered.
    pub nonce: u64,
    /// From a server: the last sequence of every document open on the session.
    pub heads: Vec<(Channel, Seq)>,
}

/// The server is draining: connect again somewhere within the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoAway {
    /// The window from which the client draws its delay.
    pub reconnect_within: Duration,
}

/// Something was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorMessage {
    /// What.
    pub code: ErrorCode,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// What the receiver should do.
    pub action: Action,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The same for a person.
    pub message: String,
    /// What it is about.
    pub reference: Reference,
}

impl ErrorMessage {
    /// The error of this code, with the table's action.
    #[must_use]
    pub fn new(error: crate::error::PeerError, reference: Reference) -> Self {
        Self {
            code: error.code,
            retryable: error.code.is_retryable(),
            action: error.code.action(),
            retry_after: error.retry_after,
            message: error.message,
            reference,
        }
    }
}

/// What an error is about; an array `[kind, value]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reference {
    /// Kind 0: the session, which is then closed.
    Session,
    /// Kind 1: a request.
    Request(RequestId),
    /// Kind 2: an open document.
    Channel(Channel),
    /// Kind 3: a change of the receiver on an open document: channel and number.
    Change(Channel, u64),
}

/// A piece of a message that is over 64 KiB.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// The document; 0 for the session.
    pub channel: Channel,
    /// Which message, counted by the room or the session.
    pub id: u32,
    /// Which piece, from 0.
    pub index: u32,
    /// How many pieces; 0 gives the message up.
    pub total: u32,
    /// The piece: a slice of the whole frame, flag byte included.
    pub bytes: Bytes,
}

/// The number that names an origin in a document's frames, for an origin that `Open` did not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthorMessage {
    /// The document.
    pub channel: Channel,
    /// The origin; one of the receiver's.
    pub origin: OriginId,
    /// Its number.
    pub author: Author,
}

/// The first type of messages that belongs to plugins; the last is 255.
pub const FIRST_EXTENSION: u8 = 128;

/// A message of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// 128 to 255.
    pub kind: u8,
    /// The document, if it is about one.
    pub channel: Option<Channel>,
    /// The payload.
    pub bytes: Bytes,
}
