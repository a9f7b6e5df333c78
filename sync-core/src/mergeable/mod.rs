//! Types that merge: an application's own state as a document, without a CRDT library.
//!
//! A [`Mergeable`] value records what a closure does to it, and hands that over as one change when the closure is
//! done; [`Typed`](crate::engine::typed::Typed) makes a document of it. Merging is commutative, associative and
//! idempotent, and state merge, differences and replay of all changes lead to the same content and version.
//!
//! What travels and is stored describes itself (kind and length per node), so a server merges
//! documents whose types it has never seen: [`MergeableValidator`] checks and folds them.

mod check;
mod clock;
mod entries;
mod fold;
mod format;
mod lww_map;
mod vector;

pub use check::MergeableValidator;
pub use clock::{CLOCK_AHEAD_MAX_MS, Clock, Dot, ReplicaId, STAMP_TIME_MAX, Stamp};
pub use format::{DeltaReader, DeltaWriter};
pub use lww_map::{LwwMap, ValueError};
pub use vector::VersionVector;

pub(crate) use check::validate;
pub(crate) use format::{Change, decode_version, encode_version};

use crate::engine::EngineError;

/// What a node of a change is. The number travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Last-writer-wins entries by key: [`LwwMap`].
    LwwMap,
}

impl Kind {
    /// The number that travels.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::LwwMap => 1,
        }
    }

    /// The kind of this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::LwwMap),
            _ => None,
        }
    }
}

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
pub trait Mergeable: Default + Clone + Send + 'static {
    /// What it is on the wire. A node of another kind is an error, never merged.
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
    /// [`EngineError::Malformed`] if the node is of another kind. The value is unchanged.
    fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<bool, EngineError>;

    /// Writes all that a holder of `since` lacks as one node; writes nothing if that is nothing. Pending mutations
    /// are left out.
    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter);

    /// Digest of the content, pending mutations left out: equal contents have equal digests, whatever order they
    /// were merged in. Constant time, so parts keep a sum. Not against forgers: it notices accidents.
    fn digest(&self) -> u64;

    /// Whether a reader sees nothing in it.
    fn is_empty(&self) -> bool;

    /// Merges the whole state of another replica. Returns whether that changed anything.
    ///
    /// # Errors
    /// [`EngineError`] if `other` writes what `apply` does not read, which no type here does.
    fn merge(&mut self, other: &Self) -> Result<bool, EngineError> {
        let mut out = DeltaWriter::new();
        other.diff(&VersionVector::new(), &mut out);
        let bytes = out.into_state(&VersionVector::new(), &VersionVector::new());
        match Change::read(&bytes)?.content() {
            Some(mut content) => self.apply(&mut content),
            None => Ok(false),
        }
    }
}
