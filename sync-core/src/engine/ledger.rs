//! Checking changes against what a document holds, before they are logged (design 8, "Shape is not enough").

use std::fmt;

use bytes::Bytes;

use super::{Document, Engine, EngineError, ReplicaSeed};
use crate::ids::User;

/// What a document's log holds, as far as it takes to say whether another change may follow.
///
/// A ledger begins empty, is told the committed rows front to back ([`load`](Self::load) the snapshot if there is one, then
/// [`admit`](Self::admit) each row after it), and then asked about changes that are to follow, in order. What it accepts it
/// takes as if it were committed; whoever uses it drops it, and loads another, when an append fails. It never makes
/// snapshots and answers no reads.
///
/// Synchronous. Where it [scans](Self::scans), it is called in the server's own process and on an async worker, so each call
/// must be short, and bounded in time, memory and stack by the change's length whatever the bytes are. Where it does not, it
/// is called on a thread with a large stack that may block, or in a process of its own.
pub trait Ledger: Send + 'static {
    /// Whether this only reads bytes, and never runs an engine on them; see above.
    fn scans(&self) -> bool;

    /// Begins with a snapshot. Called first, if at all.
    ///
    /// # Errors
    /// [`EngineError`] if nothing can be checked on top of it.
    fn load(&mut self, snapshot: &[u8]) -> Result<(), EngineError>;

    /// Takes a change that is in the log, whatever it is. `author` made what is new in it; nobody is named if it said what a
    /// server lacked (a reconciling push), or if its author is not known any more.
    ///
    /// # Errors
    /// [`EngineError`] if nothing can be checked on top of it.
    fn admit(&mut self, change: &Bytes, author: Option<&User>) -> Result<(), EngineError>;

    /// Whether this change may follow; it has passed [`Validator::validate`](super::Validator::validate). If so, takes it.
    /// `reconciling`: it says what the server's state lacks, on behalf of anybody, so that it may hold work of others.
    ///
    /// # Errors
    /// [`EngineError::Incomplete`] if it refers to what is not there (the client is told
    /// [`MissingDependency`](crate::error::ErrorCode::MissingDependency)), another if it never may follow
    /// ([`InvalidChange`](crate::error::ErrorCode::InvalidChange)): the ledger is as before, or [spent](Self::is_spent).
    fn check(
        &mut self,
        change: &Bytes,
        author: &User,
        reconciling: bool,
    ) -> Result<Taken, EngineError>;

    /// Whether something that was refused has left traces, so that another ledger must be loaded.
    fn is_spent(&self) -> bool {
        false
    }

    /// About how much memory it takes, in bytes.
    fn bytes(&self) -> usize;
}

/// What a change was to a [`Ledger`] that took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Something that it did not have.
    New,
    /// Nothing that it did not have: taking it again changed nothing.
    Known,
}

/// Checks changes by importing them: for engines whose format cannot be scanned.
///
/// Runs the engine on bytes that nobody has looked into: not for a server's own process, unless its writers are trusted.
pub struct ImportLedger<D> {
    replica: D,
    bytes: usize,
    /// Something in the log waits for what is not there: whether more does now cannot be told.
    is_waiting: bool,
    is_spent: bool,
}

impl<D> fmt::Debug for ImportLedger<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportLedger")
            .field("bytes", &self.bytes)
            .field("is_spent", &self.is_spent)
            .finish_non_exhaustive()
    }
}

impl<D: Document> ImportLedger<D> {
    /// A ledger of an empty document.
    ///
    /// # Errors
    /// [`EngineError`] if the engine cannot make one.
    pub fn new<E: Engine<Document = D>>(engine: &E) -> Result<Self, EngineError> {
        // It never edits, so that nothing is ever written under its identity.
        let mut replica = engine.create(ReplicaSeed(0))?;
        replica.set_unread();
        Ok(Self {
            replica,
            bytes: 0,
            is_waiting: false,
            is_spent: false,
        })
    }

    fn import(&mut self, change: &Bytes) -> Result<super::Imported, EngineError> {
        self.bytes = self.bytes.saturating_add(change.len());
        let imported = self.replica.import(std::slice::from_ref(change));
        // Nobody looks at what changed, and nobody else lets go of it.
        self.replica.drain();
        imported
    }
}

impl<D: Document> Ledger for ImportLedger<D> {
    fn scans(&self) -> bool {
        false
    }

    fn load(&mut self, snapshot: &[u8]) -> Result<(), EngineError> {
        self.bytes = self.bytes.saturating_add(snapshot.len());
        self.is_waiting = self.replica.import_snapshot(snapshot)?.pending;
        self.replica.drain();
        Ok(())
    }

    fn admit(&mut self, change: &Bytes, _: Option<&User>) -> Result<(), EngineError> {
        self.is_waiting = self.import(change)?.pending;
        Ok(())
    }

    fn check(&mut self, change: &Bytes, _: &User, _: bool) -> Result<Taken, EngineError> {
        match self.import(change) {
            Ok(imported) if imported.pending && !self.is_waiting => {
                self.is_spent = true;
                Err(EngineError::Incomplete)
            }
            Ok(imported) => {
                self.is_waiting = imported.pending;
                Ok(if imported.changed {
                    Taken::New
                } else {
                    Taken::Known
                })
            }
            Err(error) => {
                self.is_spent |= self.replica.is_poisoned() || error == EngineError::Poisoned;
                Err(error)
            }
        }
    }

    fn is_spent(&self) -> bool {
        self.is_spent
    }

    fn bytes(&self) -> usize {
        // What documents take once loaded: three to ten times their changes (`docs/benchmarks.md`).
        self.bytes.saturating_mul(4)
    }
}
