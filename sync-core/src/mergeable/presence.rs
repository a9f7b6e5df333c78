//! Whether a key is there, and which content is its own: the two rules that the nested maps differ in.
//!
//! Removing a key and adding it again begins another *generation* of its content. What was written into an older
//! one, by whoever had not seen that, is gone with it.

use super::clock::Dot;
use super::tags::{self, Tags};
use super::{DeltaReader, DeltaWriter, Kind, VersionVector};
use crate::engine::EngineError;

/// What the content that follows a merged presence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// Of an older generation: not merged.
    Older,
    /// Of the generation that is held.
    Held,
    /// Of a newer one: it takes the place of what is held.
    Newer,
}

/// The rule by which a nested map says whether a key is there. Sealed: [`AddWins`] and [`RemoveWins`].
pub trait Presence: Rule {}

/// What a rule does, out of reach for others.
pub trait Rule: Default + Clone + Send + std::fmt::Debug + 'static {
    #[doc(hidden)]
    const KIND: Kind;
    #[doc(hidden)]
    fn is_live(&self) -> bool;
    /// Merges what is next in a delta. Returns whether that changed anything, and what the content behind it is.
    #[doc(hidden)]
    fn merge(&mut self, node: &mut DeltaReader<'_>) -> Result<(bool, Generation), EngineError>;
    #[doc(hidden)]
    fn has_news(&self, since: &VersionVector) -> bool;
    /// Writes the generation and what a holder of `since` lacks.
    #[doc(hidden)]
    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter);
    /// Writes that a commit begins another generation.
    #[doc(hidden)]
    fn put_fresh(&self, by: Dot, out: &mut DeltaWriter);
    /// Writes that a commit edits the content, or brings back what it has not lost.
    #[doc(hidden)]
    fn put_touch(&self, by: Dot, out: &mut DeltaWriter);
    /// Writes that a commit removes the key.
    #[doc(hidden)]
    fn put_removal(&self, by: Dot, out: &mut DeltaWriter);
    /// Whether nothing need be kept of the key above `horizon`.
    #[doc(hidden)]
    fn compact(&mut self, horizon: &VersionVector) -> bool;
    /// Whether the key is there by one replica's doing alone.
    #[doc(hidden)]
    fn is_by_one(&self) -> bool;
    /// Whether a removed key's content is still there.
    #[doc(hidden)]
    const KEEPS: bool;
}

/// An edit or an add wins over a concurrent removal: the rule of [`OrMap`](super::OrMap).
#[derive(Debug, Clone, Default)]
pub struct AddWins {
    generation: u64,
    /// Of this generation.
    tags: Tags,
}

impl Presence for AddWins {}

impl Rule for AddWins {
    const KIND: Kind = Kind::OrMap;
    const KEEPS: bool = true;

    fn is_live(&self) -> bool {
        self.tags.is_live()
    }

    fn merge(&mut self, node: &mut DeltaReader<'_>) -> Result<(bool, Generation), EngineError> {
        let generation = node.number()?;
        if generation == self.generation {
            return Ok((self.tags.apply(node)?, Generation::Held));
        }
        let mut tags = Tags::default();
        let said = tags.apply(node)?;
        // A newer one of which everything is settled has been reclaimed.
        let is_newer = generation > self.generation && said;
        if is_newer {
            *self = Self { generation, tags };
        }
        Ok((
            is_newer,
            if is_newer {
                Generation::Newer
            } else {
                Generation::Older
            },
        ))
    }

    fn has_news(&self, since: &VersionVector) -> bool {
        self.tags.has_news(since)
    }

    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        out.number(self.generation);
        self.tags.diff(since, out);
    }

    fn put_fresh(&self, by: Dot, out: &mut DeltaWriter) {
        out.number(self.generation.saturating_add(1));
        tags::put_addition(by, out);
    }

    fn put_touch(&self, by: Dot, out: &mut DeltaWriter) {
        out.number(self.generation);
        tags::put_addition(by, out);
    }

    fn put_removal(&self, by: Dot, out: &mut DeltaWriter) {
        out.number(self.generation);
        self.tags.put_removal(by, out);
    }

    fn compact(&mut self, horizon: &VersionVector) -> bool {
        self.tags.compact(horizon)
    }

    fn is_by_one(&self) -> bool {
        self.tags.n_live() == 1
    }
}

/// A removal wins over concurrent edits and adds: the rule of [`Dictionary`](super::Dictionary).
///
/// A causal length, after Yu and Rostad, "A low-cost set CRDT based on causal lengths" (PaPoC 2020): it counts how
/// often the key came and went, is odd while it is there, and merges as a maximum.
#[derive(Debug, Clone, Default)]
pub struct RemoveWins {
    length: u64,
    /// A commit that wrote this length, the largest seen: whoever has it has the length.
    by: Option<Dot>,
}

impl RemoveWins {
    fn put(length: u64, by: Dot, out: &mut DeltaWriter) {
        out.number(length);
        out.dot(by);
    }
}

impl Presence for RemoveWins {}

impl Rule for RemoveWins {
    const KIND: Kind = Kind::Dictionary;
    const KEEPS: bool = false;

    fn is_live(&self) -> bool {
        self.length % 2 == 1
    }

    fn merge(&mut self, node: &mut DeltaReader<'_>) -> Result<(bool, Generation), EngineError> {
        let theirs = (node.number()?, Some(node.dot()?));
        let ours = (self.length, self.by);
        let is_settled = theirs.1.is_some_and(|by| node.is_settled(by));
        if theirs > ours && !is_settled {
            (self.length, self.by) = theirs;
        }
        let generation = match theirs.0.cmp(&ours.0) {
            // Not of a key of which nothing is held but what has been reclaimed.
            std::cmp::Ordering::Equal if self.by.is_some() => Generation::Held,
            std::cmp::Ordering::Greater if !is_settled => Generation::Newer,
            _ => Generation::Older,
        };
        Ok((self.length != ours.0, generation))
    }

    fn has_news(&self, since: &VersionVector) -> bool {
        self.by.is_some_and(|by| !since.contains(by))
    }

    fn diff(&self, _: &VersionVector, out: &mut DeltaWriter) {
        if let Some(by) = self.by {
            Self::put(self.length, by, out);
        }
    }

    fn put_fresh(&self, by: Dot, out: &mut DeltaWriter) {
        // Over a key that is there, as after a removal.
        let more = if self.is_live() { 2 } else { 1 };
        Self::put(self.length.saturating_add(more), by, out);
    }

    fn put_touch(&self, by: Dot, out: &mut DeltaWriter) {
        Self::put(self.length, by, out);
    }

    fn put_removal(&self, by: Dot, out: &mut DeltaWriter) {
        Self::put(self.length.saturating_add(1), by, out);
    }

    fn compact(&mut self, horizon: &VersionVector) -> bool {
        !self.is_live() && self.by.is_some_and(|by| horizon.contains(by))
    }

    fn is_by_one(&self) -> bool {
        true
    }
}
