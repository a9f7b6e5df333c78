//! How a server stands: what [`Server::stats`](crate::Server::stats) and its neighbours answer.
//!
//! Rooms and connections add to plain counters of their own as they go; whoever asks adds them up.

mod counters;
mod document;
mod events;
#[cfg(feature = "http")]
pub(crate) mod json;
mod server;

pub(crate) use self::counters::{RegistryCalls, Traffic};
pub use self::document::{
    DocumentDetails, DocumentPhase, DocumentSession, DocumentStats, FoldStats, SessionState,
};
pub(crate) use self::events::CountedEvents;
pub use self::server::{CallStats, ServerStats, SessionIdentity, SessionStats};
pub use sync_core::server::Latencies;
