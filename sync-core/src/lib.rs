//! The protocol of a document sync system, without IO: wire format, state machines, and the seams to CRDT
//! engines and transports. Applications use `sync-client` and `sync-server`, which re-export what they need.

pub mod client;
pub mod engine;
pub mod error;
pub mod events;
pub mod history;
pub mod ids;
mod json;
pub mod limits;
mod maybe_send;
pub mod mergeable;
#[cfg(not(feature = "planted-bugs"))]
mod planted;
#[cfg(feature = "planted-bugs")]
#[doc(hidden)]
pub mod planted;
pub mod rate;
pub mod registry;
pub mod rng;
pub mod server;
pub mod time;
pub mod transport;
mod user;
pub mod watch;
pub mod wire;

/// The crate behind [`engine::automerge`], so that its users need no dependency of their own.
#[cfg(feature = "automerge")]
pub use ::automerge;
/// The crate behind [`engine::loro`], so that its users need no dependency of their own.
#[cfg(feature = "loro")]
pub use ::loro;
/// The crate behind [`engine::yrs`], so that its users need no dependency of their own.
#[cfg(feature = "yrs")]
pub use ::yrs;
pub use maybe_send::{BoxError, MaybeSend, MaybeSync};
