//! The seam to a CRDT engine: how a document's bytes are read, edited, imported and exported.
//!
//! Engines are called synchronously, never from an async worker, and never call back: an engine's observer
//! only signals its [`Wake`], and the owner then drains. Bytes are opaque everywhere else.

#[cfg(feature = "automerge")]
pub mod automerge;
pub(crate) mod fold;
#[cfg(any(feature = "yrs", feature = "loro", feature = "automerge"))]
mod foreign;
mod ledger;
#[cfg(feature = "loro")]
pub mod loro;
pub mod opaque;
mod sealer;
#[cfg(any(test, feature = "test-suite"))]
pub mod suite;
pub mod typed;
mod undo;
#[cfg(feature = "yrs")]
pub mod yrs;

use std::sync::Arc;

use bytes::Bytes;

pub use self::fold::Folder;
pub use self::ledger::{ImportLedger, Ledger, Taken};
pub use self::sealer::{Sealer, Unreadable};
use crate::ids::{DocumentId, EngineId};

/// What a replica holds, in the engine's own encoding. Equal versions mean equal content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(pub Bytes);

/// Called when a document has something to drain. It must only signal.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Randomness for a replica's own identity in its engine: fresh for each process start and document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaSeed(pub u128);

/// Where a change to a document came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// Made on this replica.
    Local,
    /// Imported.
    Remote,
}

/// One observed change of a document's content.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EngineEvent {
    /// Where it came from.
    pub source: Source,
    /// Names of the touched roots, where the engine has names.
    pub roots: Vec<Arc<str>>,
}

impl EngineEvent {
    /// An event.
    #[must_use]
    pub const fn new(source: Source, roots: Vec<Arc<str>>) -> Self {
        Self { source, roots }
    }
}

/// What a document had to hand over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Bytes of the local changes since the last drain, oldest first: one per committed local transaction.
    pub local: Vec<Bytes>,
    /// What happened since the last drain, oldest first.
    pub events: Vec<EngineEvent>,
    /// Changes made through handles of a document that has been retired: they are in no replica.
    pub stray: Vec<Bytes>,
}

/// What an import did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Imported {
    /// Whether the document's version changed.
    pub changed: bool,
    /// Whether the engine now holds changes that wait for others.
    pub pending: bool,
}

impl Imported {
    /// The outcome of an import.
    #[must_use]
    pub const fn new(changed: bool, pending: bool) -> Self {
        Self { changed, pending }
    }
}

/// Why an engine did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// The bytes are not of this engine, or break its rules. The document is unchanged.
    #[error("malformed {what} at byte {offset}")]
    Malformed {
        /// What was being read.
        what: &'static str,
        /// Offset of the fault in the input.
        offset: usize,
    },
    /// A count, size or depth in the bytes is over its limit. The document is unchanged.
    #[error("{what} is {value}, the limit is {max}")]
    LimitExceeded {
        /// What was counted.
        what: &'static str,
        /// The value found.
        value: u64,
        /// The limit.
        max: u64,
    },
    /// The engine cannot do this.
    #[error("{what} is not supported by this engine")]
    Unsupported {
        /// What was asked.
        what: &'static str,
    },
    /// The engine panicked: the document must be loaded afresh.
    #[error("the engine panicked; the document must be loaded afresh")]
    Poisoned,
    /// The document's own lock is held by a transaction of the application.
    #[error("a transaction of the application holds the document")]
    Busy,
    /// Changes wait for others that are not there.
    #[error("changes wait for others that are missing")]
    Incomplete,
    /// It takes history that this replica, or that of the asker, no longer has. The document is unchanged.
    #[error("the history that it takes has been trimmed")]
    Trimmed,
    /// The change is well-formed, and nothing that may follow what is there.
    #[error("{what}")]
    Rejected {
        /// What speaks against it.
        what: &'static str,
    },
    /// What is here was sealed with a key that has not been given.
    #[error("sealed with a key that has not been given")]
    WrongKey,
    /// A fold does not read back as what it was made of.
    #[error("the folded snapshot does not read back as what was folded")]
    Unproven,
}

/// Bounds on what a change's bytes may contain, the same on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ValidateLimits {
    /// Bytes of the change.
    pub bytes_max: usize,
    /// Nesting of values inside the change.
    pub depth_max: u32,
}

impl ValidateLimits {
    /// Checks the size of a change alone.
    ///
    /// # Errors
    /// [`EngineError::LimitExceeded`].
    pub fn check_len(&self, change: &[u8]) -> Result<(), EngineError> {
        if change.len() <= self.bytes_max {
            return Ok(());
        }
        Err(EngineError::LimitExceeded {
            what: "size of a change in bytes",
            value: u64::try_from(change.len()).unwrap_or(u64::MAX),
            max: u64::try_from(self.bytes_max).unwrap_or(u64::MAX),
        })
    }
}

impl Default for ValidateLimits {
    fn default() -> Self {
        Self {
            bytes_max: 64 * 1024 * 1024,
            depth_max: 64,
        }
    }
}

/// One replica of one document, without its type: all that the runtime needs.
///
/// Synchronous and `Send`, not `Sync`: its owner calls it under a lock, on a thread with a large stack.
/// Imports never come out of [`drain`](Self::drain) as local work.
pub trait Document: Send + 'static {
    /// What the replica holds.
    fn version(&mut self) -> Version;

    /// Sets what is called when there is something to drain. The last one set is called.
    fn set_wake(&mut self, wake: Wake);

    /// Tells the wall clock, in milliseconds since the Unix epoch. The owner calls it before each edit: the core
    /// reads no clock, and some engines order concurrent writes by wall time. The others ignore it.
    fn set_wall_time(&mut self, unix_ms: u64) {
        let _ = unix_ms;
    }

    /// Takes the local changes and events since the last call.
    fn drain(&mut self) -> Drained;

    /// Imports changes, front to back. Idempotent.
    ///
    /// # Errors
    /// [`EngineError`] if one is refused; those before it may have been imported.
    fn import(&mut self, changes: &[Bytes]) -> Result<Imported, EngineError>;

    /// Imports changes that wait in the outbox: the log will bring them again. The same as [`import`](Self::import), but
    /// for documents that [follow the log](Self::follows_the_log).
    ///
    /// # Errors
    /// As [`import`](Self::import).
    fn import_pending(&mut self, changes: &[Bytes]) -> Result<Imported, EngineError> {
        self.import(changes)
    }

    /// Imports a whole state made by [`snapshot`](Self::snapshot), merging it with what is here.
    ///
    /// # Errors
    /// [`EngineError`] if the bytes are refused; the document is unchanged.
    fn import_snapshot(&mut self, snapshot: &[u8]) -> Result<Imported, EngineError>;

    /// What a replica of `version` lacks, as one change; `None` if nothing.
    ///
    /// # Errors
    /// [`EngineError::Malformed`] if the version is not of this engine, [`EngineError::Trimmed`] if it is older than the
    /// history that is here.
    fn since(&mut self, version: &Version) -> Result<Option<Bytes>, EngineError>;

    /// Full mergeable state.
    ///
    /// # Errors
    /// [`EngineError`] if the engine cannot encode it.
    fn snapshot(&mut self) -> Result<Bytes, EngineError>;

    /// As [`snapshot`](Self::snapshot), in as few bytes as the application can make it, for a log that is to become short.
    /// What is pending may be left out.
    ///
    /// # Errors
    /// [`EngineError`] if the engine cannot encode it.
    fn fold(&mut self) -> Result<Bytes, EngineError> {
        self.snapshot()
    }

    /// As [`snapshot`](Self::snapshot), without the history that only a replica which lacks some of `horizon` would need:
    /// design 2.3, *rebase*. `horizon` is a [version](Self::version) that this replica had. An engine may have to keep more,
    /// and to add an operation of its own that changes no content. This replica may have forgotten the same afterwards.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] if the engine forgets nothing, [`EngineError::Malformed`] if the version is not of this
    /// engine, [`EngineError::Trimmed`] if it is older than the history that is here, [`EngineError::Incomplete`] if this
    /// replica lacks some of it, or waits for something, [`EngineError::Unproven`] if what comes out has another content.
    fn trim(&mut self, horizon: &Version) -> Result<Bytes, EngineError> {
        let _ = horizon;
        Err(EngineError::Unsupported {
            what: "forgetting history",
        })
    }

    /// Whether changes that are not in this replica, made on one of version `made_on`, mean here what they meant there: that
    /// nothing has been [trimmed](Self::trim) away here which that one had not seen, because a change may be about just that.
    /// Asked only if [`can_rebase`](Self::can_rebase). Default: yes, of engines that forget nothing.
    fn can_replay(&mut self, made_on: &Version, changes: &[Bytes]) -> bool {
        let _ = (made_on, changes);
        true
    }

    /// Whether it matters to the document where the log has its changes, so that a merge must import the whole state that
    /// the server has, and not just what is lacking.
    fn follows_the_log(&self) -> bool {
        false
    }

    /// What of the log the document cannot read.
    fn unreadable(&self) -> Unreadable {
        Unreadable::default()
    }

    /// Nobody will read or edit this replica: it only imports, and tells versions, differences and snapshots. Engines that
    /// can do that for less do so from here on. Called on a replica that is still empty, if at all.
    fn set_unread(&mut self) {}

    /// What the replica holds, so that it can be [read](Engine::read_at) later. Longer than [`version`](Self::version) in some
    /// engines, and not to be compared.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] if the engine, or the engine value, keeps no history.
    fn readable_version(&mut self) -> Result<Version, EngineError> {
        Err(EngineError::Unsupported {
            what: "reading earlier versions",
        })
    }

    /// Takes back the last local change that is not taken back yet, as a local change of its own, which the next drain hands
    /// over. Only what this replica did is taken back, whatever others did since. Whether there was anything to do.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] if the engine cannot, or the engine value does not ask for it;
    /// [`EngineError::Busy`] if a transaction of the application holds the document.
    fn undo(&mut self) -> Result<bool, EngineError> {
        Err(EngineError::Unsupported { what: "undo" })
    }

    /// Makes again what the last [`undo`](Self::undo) took back, unless something was edited since. Whether there was
    /// anything to do.
    ///
    /// # Errors
    /// As [`undo`](Self::undo).
    fn redo(&mut self) -> Result<bool, EngineError> {
        Err(EngineError::Unsupported { what: "redo" })
    }

    /// Whether [`undo`](Self::undo) has something to take back.
    fn can_undo(&self) -> bool {
        false
    }

    /// Whether [`redo`](Self::redo) has something to make again.
    fn can_redo(&self) -> bool {
        false
    }

    /// Whether handles of the application may point into the document, so that it must live on, and be drained, after it
    /// has been replaced.
    fn outlives_replacement(&self) -> bool {
        false
    }

    /// This replica takes the place of another, into which handles of the application may point: that one of them is used
    /// here must be noticed, as far as the engine can.
    fn succeed_another(&mut self) {}

    /// Whether the document must be loaded afresh: it is not what its changes say, and takes no more of them.
    fn is_poisoned(&self) -> bool {
        false
    }

    /// Whether changes stay meaningful on a state that lacks an earlier change of the same author, so that work
    /// behind a refused change can be replayed (design 2.2).
    fn can_rebase(&self) -> bool;

    /// Where they do not: does here what `changes` did in `other`, as one new change, which takes their place. They are the
    /// last of everything in `other`; what is lacking here besides them, if anything, is a refused change right before them.
    /// `None` if there is nothing left to do.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`], which is the default, if the engine cannot, or not with these changes, and whatever the
    /// engine fails with. Nothing has changed here.
    fn rebase(&mut self, other: &mut Self, changes: &[Bytes]) -> Result<Option<Bytes>, EngineError>
    where
        Self: Sized,
    {
        let _ = (other, changes);
        Err(EngineError::Unsupported {
            what: "writing changes anew",
        })
    }
}

/// How to read a document's bytes. A value: it carries options, never content.
pub trait Engine: Clone + Send + Sync + 'static {
    /// The adapter around the engine's own document.
    type Document: Document;
    /// What [`read`](Self::read) lends.
    type Read<'a>: ?Sized;
    /// What [`edit`](Self::edit) lends: whatever is atomic in the engine.
    type Edit<'a>: ?Sized;

    /// Name of the engine, the same on every peer.
    fn id(&self) -> EngineId;

    /// The value for one document. The same, unless something depends on which document it is.
    #[must_use]
    fn bind(self, document: &DocumentId) -> Self {
        let _ = document;
        self
    }

    /// What seals the document's changes when they are given their ids. None, if changes stay as the document hands them
    /// over.
    fn sealer(&self) -> Option<Arc<dyn Sealer>> {
        None
    }

    /// An empty replica.
    ///
    /// # Errors
    /// [`EngineError`] if the engine cannot make one.
    fn create(&self, seed: ReplicaSeed) -> Result<Self::Document, EngineError>;

    /// Checks a change's bytes without a document, in time and memory bounded by their length. A function of the
    /// bytes and of protocol constants only, and the same code on both sides.
    ///
    /// # Errors
    /// [`EngineError::Malformed`] or [`EngineError::LimitExceeded`], naming what was wrong.
    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError>;

    /// Lends the content.
    ///
    /// # Errors
    /// [`EngineError::Busy`] if a transaction of the application holds the document.
    fn read<R>(
        &self,
        document: &Self::Document,
        f: impl FnOnce(&Self::Read<'_>) -> R,
    ) -> Result<R, EngineError>;

    /// Lends the content for one atomic change, which the next drain hands over. If the change has more than
    /// `bytes_max` bytes, or no peer would take it, it is taken back and its bytes are returned.
    ///
    /// # Errors
    /// [`EngineError::Busy`] if a transaction of the application holds the document; the closure did not run.
    /// [`EngineError::Poisoned`] if the document must be loaded afresh; what the closure did, if it ran, is stray.
    fn edit<R>(
        &self,
        document: &mut Self::Document,
        bytes_max: usize,
        f: impl FnOnce(&mut Self::Edit<'_>) -> R,
    ) -> Result<Edited<R>, EngineError>;

    /// Lends the content as it was at `version`, a [readable one](Document::readable_version) of this replica, or of another
    /// all of whose changes are here. What is done to what is
    /// lent changes nothing.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] if the engine, or this value, keeps no history; [`EngineError::Malformed`] if the version
    /// is not of this engine, [`EngineError::Incomplete`] if this replica lacks some of it, [`EngineError::Trimmed`] if it is
    /// older than the history that is here.
    fn read_at<R>(
        &self,
        document: &mut Self::Document,
        version: &Version,
        f: impl FnOnce(&Self::Read<'_>) -> R,
    ) -> Result<R, EngineError> {
        let _ = (document, version, f);
        Err(EngineError::Unsupported {
            what: "reading earlier versions",
        })
    }

    /// What checks changes against what a document holds, where that takes more than [`validate`](Self::validate): an empty
    /// ledger. `None`, which is the default: nothing does.
    fn ledger(&self) -> Option<Box<dyn Ledger>> {
        None
    }

    /// The content as JSON, for tools and people: not everything that the engine holds has a place in it.
    ///
    /// # Errors
    /// [`EngineError::Unsupported`] if the engine has no such form; [`EngineError::Busy`] as for [`read`](Self::read).
    fn to_json(&self, document: &Self::Document) -> Result<String, EngineError> {
        let _ = document;
        Err(EngineError::Unsupported {
            what: "reading as JSON",
        })
    }
}

/// What [`Engine::edit`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Edited<R> {
    /// The change was made (or the closure changed nothing).
    Done(R),
    /// The change was too large, or one that the engine's validation refuses, and has been taken back: the document is
    /// as it was. `replaced` says whether the engine's own handles now point to a retired document and must be fetched
    /// again.
    TakenBack {
        /// The change that was taken back.
        change: Bytes,
        /// Whether native handles must be fetched again.
        replaced: bool,
    },
}

/// An engine whose own handle can be given to the application, for editor bindings.
pub trait NativeEngine: Engine {
    /// The engine's own handle.
    type Native: Clone + Send + 'static;

    /// The handle. Changes made through it are picked up.
    fn native(&self, document: &Self::Document) -> Self::Native;
}

/// Checks changes of one engine before they are logged. Every [`Engine`] is one; a server needs no more of it.
pub trait Validator: Send + Sync + 'static {
    /// Name of the engine.
    fn engine(&self) -> EngineId;

    /// As [`Engine::validate`].
    ///
    /// # Errors
    /// As [`Engine::validate`].
    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError>;

    /// As [`Engine::ledger`].
    fn ledger(&self) -> Option<Box<dyn Ledger>> {
        None
    }

    /// What makes snapshots of the engine's documents. `None`, which is the default: their logs are never folded.
    fn folder(&self) -> Option<&dyn Folder> {
        None
    }
}

impl<E: Engine> Validator for E {
    fn engine(&self) -> EngineId {
        self.id()
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        Engine::validate(self, change, limits)
    }

    fn ledger(&self) -> Option<Box<dyn Ledger>> {
        Engine::ledger(self)
    }

    fn folder(&self) -> Option<&dyn Folder> {
        Some(self)
    }
}
