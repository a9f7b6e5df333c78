//! The client's half, without IO: [`ClientState`] drives documents and their connection, and a [`Replica`] does the work that
//! it asks for.

mod backoff;
mod broadcast;
mod config;
mod document;
mod event;
mod outbox;
mod replica;
mod session;
mod state;
mod store;

pub use backoff::BackoffConfig;
pub use broadcast::{Broadcast, BroadcastError, Extension, ExtensionError, Sender};
pub use config::ClientConfig;
pub use document::{EditRefusal, OpenOptions, PeerState};
pub use event::{
    ClientEvent, DocumentEvent, EndReason, FailedReason, RefusedChange, RefusedReason, Status,
    SyncPhase, SyncState,
};
pub use replica::{Job, JobOutcome, PendingWork, Replayed, Replica, ReplicaDrained, Target};
pub use state::{AttemptId, ClientState, Output, PresenceRefusal};
pub use store::{OutboxChange, StoreWrite, StoredDocument, StoredState};
