//! The server as a whole, and its sessions.

use std::collections::BTreeMap;

use sync_core::error::ErrorCode;
use sync_core::ids::{OriginId, SessionId, User};
use sync_core::server::Latencies;
use sync_core::transport::PeerInfo;

#[cfg(feature = "http")]
use super::json;

/// How a server stands: [`Server::stats`](crate::Server::stats). Totals count from when the server was made.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "http", derive(serde::Serialize, utoipa::ToSchema))]
pub struct ServerStats {
    /// When this was, in milliseconds since 1970.
    pub at_ms: u64,
    /// Milliseconds since the server was made.
    pub uptime_ms: u64,
    /// Whether new connections are served.
    pub is_serving: bool,
    /// Connections open, those that have not been welcomed yet among them.
    pub n_connections: u64,
    /// Connections so far, those turned away among them.
    pub connections_total: u64,
    /// Sessions: connections that have been welcomed.
    pub n_sessions: u64,
    /// Users that have a session.
    pub n_users: u64,
    /// Live documents.
    pub n_documents: u64,
    /// Documents open on sessions, each counted once for every session.
    pub n_open: u64,
    /// Sessions that say something of themselves in a document, each counted once for every document.
    pub n_present: u64,
    /// Documents open on sessions that are served from the registry, or by a snapshot, because their position is too far behind.
    pub n_lagging: u64,
    /// Live documents whose log is being folded.
    pub n_folding: u64,
    /// Live documents that fell back to relay: what is stored of them cannot be given to their engine.
    pub n_relayed: u64,
    /// Changes that wait to be checked or appended.
    pub n_waiting: u64,
    /// Bytes of recent frames kept by live documents.
    pub ring_bytes: u64,
    /// Changes committed.
    pub changes_total: u64,
    /// Changes committed in a second, lately.
    pub changes_per_second: f64,
    /// Bytes of frames received.
    pub bytes_in_total: u64,
    /// Bytes of frames sent.
    pub bytes_out_total: u64,
    /// Errors that clients were told, by code; only those that there were.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::errors"),
        schema(value_type = BTreeMap<String, u64>)
    )]
    pub errors: BTreeMap<ErrorCode, u64>,
    /// Events, by [name](crate::ServerEvent::name).
    #[cfg_attr(feature = "http", schema(value_type = BTreeMap<String, u64>))]
    pub events: BTreeMap<&'static str, u64>,
    /// From a push's arrival in its document's room until its change was committed, for each change.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::latencies"),
        schema(value_type = json::LatencySummary)
    )]
    pub commits: Latencies,
    /// From an open's arrival in its document's room until it was answered.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::latencies"),
        schema(value_type = json::LatencySummary)
    )]
    pub opens: Latencies,
    /// Calls of the registry, by method.
    pub registry: Vec<CallStats>,
}

/// Calls of one method of the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "http", derive(serde::Serialize, utoipa::ToSchema))]
pub struct CallStats {
    /// The method.
    #[cfg_attr(feature = "http", schema(value_type = String))]
    pub call: &'static str,
    /// How long the calls took that are over.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::latencies"),
        schema(value_type = json::LatencySummary)
    )]
    pub latencies: Latencies,
    /// How many of them failed. That there is no such document, for example, is no failure.
    pub failures: u64,
}

/// Which session, whose, and from where.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "http", derive(serde::Serialize, utoipa::ToSchema))]
pub struct SessionIdentity {
    /// The session.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::text"),
        schema(value_type = String)
    )]
    pub session: SessionId,
    /// Whose it is.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::user"),
        schema(value_type = String)
    )]
    pub user: User,
    /// The process start of its client.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::text"),
        schema(value_type = String)
    )]
    pub origin: OriginId,
    /// Where it connects from.
    #[cfg_attr(
        feature = "http",
        serde(serialize_with = "json::text"),
        schema(value_type = String)
    )]
    pub peer: PeerInfo,
}

/// A session: [`Server::sessions`](crate::Server::sessions).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "http", derive(serde::Serialize, utoipa::ToSchema))]
pub struct SessionStats {
    /// Which one, and whose.
    #[cfg_attr(feature = "http", serde(flatten))]
    pub identity: SessionIdentity,
    /// When it was welcomed, in milliseconds since 1970.
    pub since_ms: u64,
    /// Bytes of frames received.
    pub bytes_in: u64,
    /// Bytes of frames sent.
    pub bytes_out: u64,
}
