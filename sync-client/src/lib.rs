//! Real-time, offline-first, conflict-free document sync: the client, to be embedded in an application.
//!
//! A [`Client`] holds one connection and any number of documents. A [`DocumentHandle`] lends the content for reading and
//! editing at any time, connected or not; everything else happens in the background.
//!
//! Three kinds of outcome have three shapes: what was asked for is a future ([`saved`](DocumentHandle::saved),
//! [`caught_up`](DocumentHandle::caught_up)), what is true now is a [`Watch`] ([`Client::status`],
//! [`DocumentHandle::sync_state`]), and what happens is a bounded stream of [`Events`].

mod broadcasts;
mod builder;
mod cell;
mod client;
mod credentials;
mod dialing;
mod driver;
#[cfg(feature = "encrypted")]
mod encrypted;
mod error;
mod handle;
mod presence;
mod shared;
pub mod store;
pub mod transport;

pub use builder::ClientBuilder;
pub use client::{Client, Open};
#[cfg(feature = "encrypted")]
pub use encrypted::{Encrypted, EncryptedDocument, Key};
pub use error::{
    EditError, HistoryError, OpenError, PresenceError, SaveError, StartError, UndoError,
};
pub use handle::DocumentHandle;
pub use presence::{Peer, Presence};
#[cfg(feature = "embedded")]
pub use store::EmbeddedStore;
pub use store::{ClientStore, MemoryStore, StoreError};

#[cfg(feature = "automerge")]
pub use sync_core::automerge;
pub use sync_core::client::{
    Broadcast, BroadcastError, ClientEvent, DocumentEvent, EndReason, Extension, ExtensionError,
    FailedReason, RefusedChange, RefusedReason, Sender, Status, SyncPhase, SyncState,
};
#[cfg(feature = "automerge")]
pub use sync_core::engine::automerge::Automerge;
#[cfg(feature = "loro")]
pub use sync_core::engine::loro::Loro;
pub use sync_core::engine::opaque::{Opaque, OpaqueEdit, OpaqueLog};
pub use sync_core::engine::typed::Typed;
#[cfg(feature = "yrs")]
pub use sync_core::engine::yrs::Yrs;
pub use sync_core::engine::{self, Engine, NativeEngine, Source};
pub use sync_core::error::{Action, ErrorCode, PeerError};
pub use sync_core::events::Events;
pub use sync_core::ids::{
    ChangeId, DocumentId, DocumentIdError, EngineId, OriginId, SessionId, User,
};
#[cfg(feature = "loro")]
pub use sync_core::loro;
pub use sync_core::mergeable::traits::Mergeable;
pub use sync_core::mergeable::{
    self, Counter, Dictionary, LwwMap, OrMap, OrSet, Register, Sequence, ValueError,
};
pub use sync_core::transport::CertificateProblem;
pub use sync_core::watch::{Closed, Subscription, Watch};
pub use sync_core::wire::AccessLevel;
#[cfg(feature = "yrs")]
pub use sync_core::yrs;
/// `#[derive(Mergeable)]`, with paths through this crate. See [`mergeable`].
#[cfg(feature = "derive")]
pub use sync_core_derive::ClientMergeable as Mergeable;
