//! Real-time, offline-first document sync for back ends: the server.
//!
//! A [`Server`] keeps documents in a [`ServerRegistry`] and serves them to clients over any
//! [`Transport`](transport::Transport). It acknowledges a change, and shows it to others, only once the registry has
//! committed it.

mod auth;
#[cfg(feature = "client")]
mod client;
mod engine_host;
mod event;
pub mod hooks;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "http")]
mod metrics;
pub mod registry;
mod server;
mod stats;
#[cfg(feature = "tls")]
mod tls;
pub mod transport;

pub use auth::{
    Access, AccessLevel, Anonymous, Auth, AuthError, Authenticator, AuthorizeFn, Authorizer,
    ConnectRequest, CredentialsSource, Identity, authorize_fn,
};
#[cfg(feature = "jwt")]
pub use auth::{Jwt, JwtClaims, JwtError};
pub use engine_host::{EngineHost, InProcess};
#[cfg(all(feature = "workers", unix))]
pub use engine_host::{WorkerEngines, Workers, worker_main, worker_main_with};
pub use event::{CloseReason, ServerEvent, Severity};
pub use hooks::{ServerHooks, Verdict};
#[cfg(feature = "embedded")]
pub use registry::EmbeddedRegistry;
pub use registry::{MemoryRegistry, ServerRegistry};
pub use server::{
    BuildError, Horizon, ListenError, Listener, ReadError, SendError, Server, ServerBuilder,
    TrimError, Trimmed,
};
pub use stats::{
    CallStats, DocumentDetails, DocumentPhase, DocumentSession, DocumentStats, FoldStats,
    Latencies, ServerStats, SessionIdentity, SessionState, SessionStats,
};
#[cfg(feature = "yrs")]
pub use sync_core::engine::yrs::Yrs;
pub use sync_core::engine::{EngineError, Folder, Ledger, Taken, ValidateLimits, Validator};
pub use sync_core::error::{ErrorCode, PeerError};
pub use sync_core::events::Events;
pub use sync_core::history::{Epoch, Seq};
pub use sync_core::ids::{ChangeId, DocumentId, EngineId, OriginId, SessionId, User};
pub use sync_core::limits::Limits;
pub use sync_core::rate::Rate;
pub use sync_core::server::FoldError;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsError};
