//! What a type has to do to be a document, or a part of one.

use super::content::Slot;
use super::format::Change;
use super::replica::Replica;
use super::{Clock, DeltaReader, DeltaWriter, Kind, VersionVector};
use crate::engine::EngineError;

/// A value whose replicas merge without conflicts.
///
/// Its mutating methods need no clock and no replica id: they show their effect at once and record it as *pending*.
/// What follows is the document's business, in this order: [`commit`](Self::commit) writes the pending mutations as
/// a stamped delta, [`discard`](Self::discard) takes them back, and [`apply`](Self::apply) merges the delta, as it
/// does on every other replica. So what is local cannot differ from what is remote, and a change that turns
/// out too large is taken back by leaving out the last step. An application's closure calls none of these.
///
/// Laws, for what is not pending: `apply` takes the least upper bound of two states in a partial order, so it is
/// commutative, associative and idempotent (a delta-state CRDT: Almeida, Shoker, Baquero, "Delta State Replicated
/// Data Types", 2018).
///
/// `#[derive(Mergeable)]` (feature `derive`) implements it for structs; write it by hand only for something new.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not merge",
    note = "plain values go into a `Register` (the last write wins), sums into a `Counter`, lists and text into a `Sequence`"
)]
pub trait Mergeable: Default + Clone + Send + 'static {
    /// What it is on the wire. A node of another kind is never merged: it is kept aside and passed on.
    const KIND: Kind;

    /// Writes the pending mutations as one node, stamped by `clock`; writes nothing if there are none. Changes
    /// nothing here.
    fn commit(&self, clock: &Clock, out: &mut DeltaWriter);

    /// Forgets the pending mutations.
    fn discard(&mut self);

    /// Merges a node written by [`commit`](Self::commit) or [`diff`](Self::diff), with nothing pending. Returns
    /// whether that changed anything.
    ///
    /// # Errors
    /// [`EngineError::Malformed`] if the node is of another kind; never for a node of this kind in a change that has
    /// been validated.
    fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<bool, EngineError>;

    /// Writes all that a holder of `since` lacks as one node; writes nothing if that is nothing. Pending mutations
    /// are left out.
    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter);

    /// Writes what [`revert`](Self::revert) needs to take back `change`, a node that [`commit`](Self::commit) wrote
    /// and that has not been applied yet. What it writes stays on this replica and is of no fixed format.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    fn inverse(
        &self,
        change: &mut DeltaReader<'_>,
        out: &mut DeltaWriter,
    ) -> Result<(), EngineError>;

    /// Makes the mutations that take back a change, as pending ones, from its `inverse`. What others have
    /// written over since stays as they wrote it.
    ///
    /// # Errors
    /// [`EngineError::Malformed`] if the inverse is of another type.
    fn revert(&mut self, inverse: &mut DeltaReader<'_>) -> Result<(), EngineError>;

    /// Writes into this value what `other` shows, as pending mutations: a copy, with a history of its own.
    fn copy_from(&mut self, other: &Self);

    /// Forgets what only a replica that lacks some commits of `horizon` would need: removals, and what they took away.
    /// Nothing that a reader sees changes.
    ///
    /// # When that may be done
    /// When every replica that may still write holds all commits of `horizon`, and this one holds all that they wrote
    /// before they did (they are *causally stable*: Baquero, Almeida, Shoker, "Pure Operation-Based Replicated
    /// Data Types", 2017), and all of them go on from states with this horizon: a new epoch, in the design's words. What
    /// is older and comes all the same (a repeated change, an old snapshot) is recognised by its commits and does no
    /// harm. Work that was made on an older state and is replayed later merges, but a key that was removed can come
    /// back by it, and elements of a sequence may end up elsewhere.
    fn compact(&mut self, horizon: &VersionVector);

    /// Digest of the content, pending mutations and what [`compact`](Self::compact) forgets left out: equal contents
    /// have equal digests, whatever order they were merged in. Constant time, so parts keep a sum. Not against forgers:
    /// it notices accidents.
    fn digest(&self) -> u64;

    /// Whether a reader sees nothing in it.
    fn is_empty(&self) -> bool;

    /// Whether it has received something that it cannot show, because a change which that builds on is missing.
    fn is_waiting(&self) -> bool {
        false
    }

    /// Merges the whole state of another replica. Returns whether that changed anything.
    ///
    /// # Errors
    /// [`EngineError`] if `other` writes what `apply` does not read, which no type here does.
    fn merge(&mut self, other: &Self) -> Result<bool, EngineError> {
        let mut theirs = Replica::<Slot<Self>>::default();
        theirs.content.value = other.clone();
        let state = theirs.state();
        let change = Change::read(&state)?;
        let none = VersionVector::new();
        let context = change.context(&none, false);
        match change.content(&context) {
            Some(mut content) => self.apply(&mut content),
            None => Ok(false),
        }
    }
}
