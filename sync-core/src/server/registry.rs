//! What a room asks of the registry, as plain values whose answers come back with the request's number.

use crate::history::{Epoch, Seq};
use crate::ids::OriginId;
use crate::registry::{
    DocumentMeta, DocumentSize, NewChange, NewDocument, OriginEntry, Outcome, RegistryError,
    Snapshot, Tail,
};

/// Ties a [`RegistryAnswer`] to its [`RegistryRequest`]; unique within a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestNumber(pub u64);

/// A call of the registry about the room's document. Calls may be carried out at the same time and answered in
/// any order; each must have been started after it was asked for, because its answer is taken for the state at
/// that moment or later.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistryRequest {
    /// Create the document, or say what exists.
    Create(NewDocument),
    /// What is known of it.
    Meta,
    /// How large it is.
    Size,
    /// Append changes, durably.
    Append {
        /// The history they are for.
        epoch: Epoch,
        /// The head that they were checked against, if they were: nothing is appended if it is another by now.
        expect: Option<Seq>,
        /// The changes, in order.
        changes: Vec<NewChange>,
    },
    /// The log after a sequence.
    Tail {
        /// The sequence.
        after: Seq,
        /// Bytes of changes to answer with at most, but at least one change.
        max_bytes: usize,
    },
    /// The snapshot.
    Snapshot,
    /// What is known of these origins.
    Origins(Vec<OriginId>),
    /// Put a snapshot in the place of the one there, and drop rows that it covers.
    Compact {
        /// The history.
        epoch: Epoch,
        /// The snapshot, which has been proven.
        snapshot: Snapshot,
        /// Rows through this one may go.
        keep_after: Seq,
    },
}

/// The registry's answer to the request of the same name.
#[derive(Debug)]
#[non_exhaustive]
pub enum RegistryAnswer {
    /// What exists now.
    Create(Result<DocumentMeta, RegistryError>),
    /// What is known.
    Meta(Result<DocumentMeta, RegistryError>),
    /// How large it is.
    Size(Result<DocumentSize, RegistryError>),
    /// What became of each change.
    Append(Result<Vec<Outcome>, RegistryError>),
    /// The log.
    Tail(Result<Tail, RegistryError>),
    /// The snapshot, if there is one.
    Snapshot(Result<Option<Snapshot>, RegistryError>),
    /// What is known, in the order asked.
    Origins(Result<Vec<Option<OriginEntry>>, RegistryError>),
    /// Whether it was done.
    Compact(Result<(), RegistryError>),
}
