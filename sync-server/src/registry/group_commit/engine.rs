//! What an engine does, and its readers.

use std::time::Duration;

use sync_core::history::{Cursor, Epoch, Seq};
use sync_core::ids::{DocumentId, OriginId};

use crate::registry::{
    DocumentMeta, DocumentSize, Durability, NewChange, NewDocument, OriginEntry, Outcome,
    RegistryError, Snapshot, Tail,
};

/// A registry engine that blocks, has a single writer, and makes what was written durable in commits.
///
/// Wrap it in [`GroupCommit`](super::GroupCommit), which calls it from a thread of its own. Calls *stage*: nothing of what they did may be
/// seen by a [`reader`](Self::reader) before [`commit`](Self::commit) has returned `Ok`, and everything must be seen
/// after. The outcomes, errors and rules of each call are those of [`ServerRegistry`](crate::registry::ServerRegistry).
///
/// A call that fails stages nothing. An engine that cannot keep that, as after a failed write, fails the next commit.
pub trait BlockingRegistry: Send + 'static {
    /// Reads what is committed, beside the writer.
    type Reader: BlockingReader<Plan = Self::Plan>;
    /// A long change of what is stored, prepared by a reader and carried out in steps.
    type Plan: Send + 'static;

    /// A new reader.
    ///
    /// # Errors
    /// Those of every method.
    fn reader(&self) -> Result<Self::Reader, RegistryError>;

    /// As [`ServerRegistry::create`](crate::registry::ServerRegistry::create).
    ///
    /// # Errors
    /// As there.
    fn create(&mut self, document: NewDocument) -> Result<DocumentMeta, RegistryError>;

    /// As [`ServerRegistry::append`](crate::registry::ServerRegistry::append).
    ///
    /// # Errors
    /// As there.
    fn append(
        &mut self,
        document: &DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError>;

    /// As [`ServerRegistry::delete`](crate::registry::ServerRegistry::delete).
    ///
    /// # Errors
    /// As there.
    fn delete(&mut self, document: &DocumentId) -> Result<(), RegistryError>;

    /// Carries out one step of a plan, of some milliseconds at most, and returns what is left of it. Other calls come
    /// between the steps: a plan that they have overtaken is dropped or refused here.
    ///
    /// # Errors
    /// Those of [`ServerRegistry::compact`](crate::registry::ServerRegistry::compact) and
    /// [`trim`](crate::registry::ServerRegistry::trim), for their plans.
    fn apply(&mut self, plan: Self::Plan) -> Result<Option<Self::Plan>, RegistryError>;

    /// Makes what is staged durable, then visible to readers.
    ///
    /// # Errors
    /// [`RegistryError::Unavailable`] if certainly nothing of it is or becomes durable, any other if that is not known.
    /// What is staged is gone. Unless [`is_usable`](Self::is_usable) says otherwise, no other call follows.
    fn commit(&mut self) -> Result<(), RegistryError>;

    /// Whether the engine can go on after a failed commit: only if what it holds in memory is what is stored, and no
    /// sync has failed.
    fn is_usable(&self) -> bool {
        false
    }

    /// Whether there is something to tidy up. Asked after every commit.
    fn is_untidy(&self) -> bool {
        false
    }

    /// As [`ServerRegistry::durability`](crate::registry::ServerRegistry::durability).
    fn durability(&self) -> Durability;
}

/// Reads what a [`BlockingRegistry`] has committed. The methods are those of
/// [`ServerRegistry`](crate::registry::ServerRegistry), strongly consistent: they see every commit that returned before the
/// call.
pub trait BlockingReader: Send + 'static {
    /// As [`BlockingRegistry::Plan`].
    type Plan;

    /// As [`ServerRegistry::meta`](crate::registry::ServerRegistry::meta).
    ///
    /// # Errors
    /// As there.
    fn meta(&mut self, document: &DocumentId) -> Result<DocumentMeta, RegistryError>;

    /// As [`ServerRegistry::tail`](crate::registry::ServerRegistry::tail).
    ///
    /// # Errors
    /// As there.
    fn tail(
        &mut self,
        document: &DocumentId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Tail, RegistryError>;

    /// As [`ServerRegistry::snapshot`](crate::registry::ServerRegistry::snapshot).
    ///
    /// # Errors
    /// As there.
    fn snapshot(&mut self, document: &DocumentId) -> Result<Option<Snapshot>, RegistryError>;

    /// As [`ServerRegistry::size`](crate::registry::ServerRegistry::size).
    ///
    /// # Errors
    /// As there.
    fn size(&mut self, document: &DocumentId) -> Result<DocumentSize, RegistryError>;

    /// As [`ServerRegistry::list`](crate::registry::ServerRegistry::list).
    ///
    /// # Errors
    /// As there.
    fn list(
        &mut self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentMeta>, RegistryError>;

    /// As [`ServerRegistry::heads`](crate::registry::ServerRegistry::heads).
    ///
    /// # Errors
    /// As there.
    fn heads(&mut self, documents: &[DocumentId]) -> Result<Vec<Option<Cursor>>, RegistryError>;

    /// As [`ServerRegistry::origins`](crate::registry::ServerRegistry::origins).
    ///
    /// # Errors
    /// As there.
    fn origins(
        &mut self,
        document: &DocumentId,
        origins: &[OriginId],
    ) -> Result<Vec<Option<OriginEntry>>, RegistryError>;

    /// Prepares a compaction; `None` if there is nothing to do, as for a snapshot older than the present one.
    ///
    /// # Errors
    /// As [`ServerRegistry::compact`](crate::registry::ServerRegistry::compact).
    fn plan_compaction(
        &mut self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<Option<Self::Plan>, RegistryError>;

    /// Prepares a trim; `None` if it has been carried out.
    ///
    /// # Errors
    /// As [`ServerRegistry::trim`](crate::registry::ServerRegistry::trim).
    fn plan_trim(
        &mut self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        next: Epoch,
    ) -> Result<Option<Self::Plan>, RegistryError>;

    /// The next piece of tidying up; what needs no writer is done on the spot. `thorough`: also what can wait.
    ///
    /// # Errors
    /// Those of every method. [`Unknown`](RegistryError::Unknown), here and of the steps, after a sync failed: everything is
    /// refused from then on, as after a failed commit.
    fn plan_upkeep(
        &mut self,
        thorough: bool,
    ) -> Result<Option<(Self::Plan, Patience)>, RegistryError> {
        let _ = thorough;
        Ok(None)
    }
}

/// How long a step of tidying up waits for a moment without appends before it goes in between.
pub type Patience = Duration;
