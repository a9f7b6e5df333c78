//! Changes that are sealed for their readers when they are given their ids.

use std::fmt;

use bytes::Bytes;

use crate::ids::ChangeId;

/// Seals changes for the ids under which they are logged. One document's; called where ids are given, with no replica at
/// hand, so it must be quick.
pub trait Sealer: fmt::Debug + Send + Sync + 'static {
    /// The change for this id. It comes as the document has handed it over, or sealed for another id before. Its length
    /// stays the same.
    fn seal(&self, id: ChangeId, change: &Bytes) -> Bytes;

    /// Whether the change is sealed as this one would seal it. Otherwise it is sealed anew, under another id, before it is
    /// sent.
    fn is_current(&self, change: &Bytes) -> bool;
}

/// What of the log a document cannot read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unreadable {
    /// Changes that were passed over, as everybody does.
    pub changes: u64,
    /// Changes that have not come although later ones of the same origins have: somebody withholds them, or has put them
    /// into another order.
    pub missing: u64,
    /// There is content, and none of it can be read with the keys given.
    pub wrong_key: bool,
}

impl Unreadable {
    /// What cannot be read.
    #[must_use]
    pub const fn new(changes: u64, missing: u64, wrong_key: bool) -> Self {
        Self {
            changes,
            missing,
            wrong_key,
        }
    }
}
