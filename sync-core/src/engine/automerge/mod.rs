//! The automerge engine: documents of [Automerge](https://automerge.org). Experimental: for data that is in this format
//! already.
//!
//! Reasons to choose another engine for something new, measured with automerge 0.12: every import costs time in
//! proportion to the document (31 ms for one keystroke into a text of 260,000), loading one takes half a second there,
//! nothing is ever trimmed, and forged changes can be taken after which the saved document does not load.
//!
//! A change is one or more of Automerge's uncompressed change chunks, a snapshot its document chunk, followed by the change
//! chunks that wait for others. [`Automerge`] checks both before Automerge reads them: kind, length and checksum of each
//! chunk, how many rows the columns stand for, how much deflated ones inflate to, and how many operations the changes of
//! a document claim to have. Compressed change chunks are refused. So nothing takes memory or time out of proportion; a
//! row free for each of a million deletions, which take no bytes, is the most that a few bytes get. What
//! operations mean is not checked: Automerge can panic at them, which is caught, or take changes after which the saved
//! document does not load. A server with writers that it does not trust runs this engine in processes of its own.

mod chunk;
mod columns;
mod document;
mod json;

pub use document::AutomergeDocument;

use ::automerge::AutoCommit;

use crate::engine::{Edited, Engine, EngineError, ReplicaSeed, ValidateLimits, Version};
use crate::ids::EngineId;

/// Reads a document's bytes as an Automerge document.
///
/// `edit` and `read` lend an [`AutoCommit`]. Everything that an `edit` closure does is one change, whether it commits
/// meanwhile or not. If a closure panics, what it did since it last committed is rolled back.
///
/// Each process writes under an actor id of its own; one that a closure sets is replaced before the next edit. A document
/// has no handle besides what is lent, and no undo.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Automerge;

impl Automerge {
    /// The engine.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Engine for Automerge {
    type Document = AutomergeDocument;
    type Read<'a> = AutoCommit;
    type Edit<'a> = AutoCommit;

    fn id(&self) -> EngineId {
        EngineId::AUTOMERGE
    }

    fn create(&self, seed: ReplicaSeed) -> Result<AutomergeDocument, EngineError> {
        Ok(AutomergeDocument::new(seed))
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        chunk::check_change(change, limits)
    }

    fn read<R>(
        &self,
        document: &AutomergeDocument,
        f: impl FnOnce(&AutoCommit) -> R,
    ) -> Result<R, EngineError> {
        Ok(document.read(f))
    }

    /// # Errors
    /// [`EngineError::Poisoned`] if the closure put another document in the place of the one lent.
    fn edit<R>(
        &self,
        document: &mut AutomergeDocument,
        bytes_max: usize,
        f: impl FnOnce(&mut AutoCommit) -> R,
    ) -> Result<Edited<R>, EngineError> {
        document.edit(bytes_max, f)
    }

    /// Maps and tables as objects, lists as lists, texts as text without marks and blocks; counters as numbers, points in time as
    /// milliseconds since the Unix epoch, bytes as text of hexadecimal digits. Of concurrent writes, the one that is shown.
    fn to_json(&self, document: &AutomergeDocument) -> Result<String, EngineError> {
        document.read(json::to_json)
    }

    /// Lends a copy of the document as it was, which takes time and memory in proportion to the document.
    fn read_at<R>(
        &self,
        document: &mut AutomergeDocument,
        version: &Version,
        f: impl FnOnce(&AutoCommit) -> R,
    ) -> Result<R, EngineError> {
        Ok(f(&document.at(version)?))
    }
}

/// Faults deep inside have no offset.
const fn malformed(what: &'static str) -> EngineError {
    EngineError::Malformed { what, offset: 0 }
}
