//! Live documents, and the sessions that have them open.

use sync_core::history::{Epoch, Seq};
use sync_core::ids::{DocumentId, EngineId};
use sync_core::wire::AccessLevel;

#[cfg(feature = "http")]
use super::json;
use super::server::SessionIdentity;

/// A live document: [`Server::documents`](crate::Server::documents). Counts begin anew when it is loaded.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "http", derive(serde::Serialize, utoipa::ToSchema))]
pub struct DocumentStats {
    /// Its name.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::text"),
        schema(value_type = String)
    )]
    pub document: DocumentId,
    /// Where it is in its life on this server.
    pub phase: DocumentPhase,
    /// Its engine, once it has been read.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::maybe_text"),
        schema(value_type = Option<String>)
    )]
    pub engine: Option<EngineId>,
    /// Its history, once it has been read.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::maybe_text"),
        schema(value_type = Option<String>)
    )]
    pub epoch: Option<Epoch>,
    /// Its last sequence.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::seq"),
        schema(value_type = u64)
    )]
    pub head: Seq,
    /// Sequence of its snapshot; 0 if it has none.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::seq"),
        schema(value_type = u64)
    )]
    pub snapshot_seq: Seq,
    /// Bytes of its snapshot, if it was made since the document was loaded.
    pub snapshot_bytes: Option<u64>,
    /// Bytes of changes logged since the snapshot, or since the document was loaded.
    pub log_bytes: u64,
    /// Bytes of recent frames kept for its sessions.
    pub ring_bytes: u64,
    /// Sessions that have it open, or are opening it.
    pub n_sessions: u64,
    /// Sessions that say something of themselves in it, those included that were cut off and may come back.
    pub n_present: u64,
    /// Those of all sessions that are served from the registry, or by a snapshot, because their position is too far behind.
    pub n_lagging: u64,
    /// Changes that the session has yet to be sent that is furthest behind.
    pub lag_max: u64,
    /// Changes that wait to be checked or appended.
    pub n_waiting: u64,
    /// Changes committed.
    pub changes_total: u64,
    /// Changes committed in a second, lately.
    pub changes_per_second: f64,
    /// Bytes of changes that sessions pushed.
    pub bytes_in_total: u64,
    /// Bytes of frames that sessions were handed.
    pub bytes_out_total: u64,
    /// Errors that sessions were told about it.
    pub errors_total: u64,
    /// Whether its log is being folded.
    pub is_folding: bool,
    /// The last fold of its log.
    pub last_fold: Option<FoldStats>,
    /// Why the last fold failed, if it did.
    pub fold_failure: Option<String>,
    /// Why it fell back to relay, if it did: what is stored of it cannot be given to its engine.
    pub relayed: Option<String>,
}

/// Where a live document is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "http",
    derive(serde::Serialize, utoipa::ToSchema),
    serde(rename_all = "snake_case")
)]
pub enum DocumentPhase {
    /// The registry is being read.
    Loading,
    /// Somebody has it open, or something is under way.
    Live,
    /// Nobody has it open; it unloads soon.
    Draining,
}

/// A fold of a document's log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "http", derive(serde::Serialize, utoipa::ToSchema))]
pub struct FoldStats {
    /// When it was committed, in milliseconds since 1970.
    pub at_ms: u64,
    /// Sequence of the snapshot.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::seq"),
        schema(value_type = u64)
    )]
    pub seq: Seq,
    /// Bytes of the snapshot.
    pub bytes: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// A live document and its sessions: [`Server::inspect`](crate::Server::inspect).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "http", derive(serde::Serialize, utoipa::ToSchema))]
pub struct DocumentDetails {
    /// The document.
    pub stats: DocumentStats,
    /// Sessions that have it open, or are opening it, by their ids.
    pub sessions: Vec<DocumentSession>,
}

/// How a session stands in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "http", derive(serde::Serialize, utoipa::ToSchema))]
pub struct DocumentSession {
    /// Which one, and whose.
    #[cfg_attr(feature = "http", serde(flatten))]
    pub identity: SessionIdentity,
    /// What it may do.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::access"),
        schema(value_type = String)
    )]
    pub access: AccessLevel,
    /// What it is doing.
    pub state: SessionState,
    /// Sequence that it had when it opened the document; 0 if it had nothing.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::seq"),
        schema(value_type = u64)
    )]
    pub opened_at: Seq,
    /// Sequence through which it has been sent the history: its cursor, but for what is on its way. 0 while it is being
    /// sent a snapshot.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::seq"),
        schema(value_type = u64)
    )]
    pub sent: Seq,
    /// Changes that it has yet to be sent.
    pub lag: u64,
    /// Whether it is served from the registry, or by a snapshot, because its position is too far behind.
    pub is_lagging: bool,
    /// Bytes of changes that it has pushed.
    pub bytes_in: u64,
    /// Bytes of frames that it was handed.
    pub bytes_out: u64,
}

/// What a session does in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(
    feature = "http",
    derive(serde::Serialize, utoipa::ToSchema),
    serde(rename_all = "snake_case")
)]
pub enum SessionState {
    /// The registry is being read for the answer to its open.
    Opening,
    /// Another client reconciles, and it waits.
    Waiting,
    /// It is sent the history.
    Streaming,
    /// It has been told to open again.
    Stopped,
}
