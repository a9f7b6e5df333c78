//! Who added a key, and whose additions have been taken away: presence by observed removal, in which an add wins over
//! a concurrent removal.
//!
//! After Bieniusa et al., "An optimized conflict-free replicated set" (INRIA RR-8083, 2012): of the additions of one
//! replica only the last counts, because it was made knowing the others. Theirs tells "removed" from "not seen yet" by
//! the version; here a removal is kept, as "everything of this replica through that number", until it is
//! reclaimed. So tags merge in any order and with holes: each number is a maximum.

use super::clock::{Dot, ReplicaId};
use super::{DeltaReader, DeltaWriter, VersionVector};
use crate::engine::EngineError;

/// What one replica did to a key, and what was done to that.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Tag {
    replica: ReplicaId,
    /// The replica's last commit that added; 0 for none.
    added: u64,
    /// Its additions through this number have been taken away, and in which commit.
    removed: Option<(u64, Dot)>,
}

impl Tag {
    fn is_live(&self) -> bool {
        self.added > self.removed.map_or(0, |(through, _)| through)
    }
}

/// The tags of one key, by replica.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tags(Vec<Tag>);

impl Tags {
    /// Whether somebody added what nobody has taken away.
    pub(super) fn is_live(&self) -> bool {
        self.0.iter().any(Tag::is_live)
    }

    /// How many replicas' additions nobody has taken away.
    pub(super) fn n_live(&self) -> usize {
        self.0.iter().filter(|tag| tag.is_live()).count()
    }

    /// Merges what is next in a delta. Returns whether that changed anything.
    pub(super) fn apply(&mut self, node: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        let mut changed = false;
        for _ in 0..node.number()? {
            let dot = node.dot()?;
            if !node.is_settled(dot) {
                let tag = self.tag(dot.replica);
                changed |= tag.added < dot.number;
                tag.added = tag.added.max(dot.number);
            }
        }
        for _ in 0..node.number()? {
            let replica = node.replica()?;
            let removed = Some((node.number()?, node.dot()?));
            if !removed.is_some_and(|(_, by)| node.is_settled(by)) {
                let tag = self.tag(replica);
                changed |= tag.removed < removed;
                tag.removed = tag.removed.max(removed);
            }
        }
        Ok(changed)
    }

    /// Whether a holder of `since` lacks any.
    pub(super) fn has_news(&self, since: &VersionVector) -> bool {
        self.0
            .iter()
            .any(|tag| is_added_unseen(tag, since) || is_removed_unseen(tag, since))
    }

    /// Writes what a holder of `since` lacks.
    pub(super) fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        let added = || self.0.iter().filter(|tag| is_added_unseen(tag, since));
        out.number(count(added()));
        for tag in added() {
            out.dot(Dot::new(tag.replica, tag.added));
        }
        let removed = || self.0.iter().filter(|tag| is_removed_unseen(tag, since));
        out.number(count(removed()));
        for (tag, (through, by)) in removed().filter_map(|tag| tag.removed.map(|r| (tag, r))) {
            out.replica(tag.replica);
            out.number(through);
            out.dot(by);
        }
    }

    /// Writes that all these additions are taken away in a commit.
    pub(super) fn put_removal(&self, by: Dot, out: &mut DeltaWriter) {
        out.number(0);
        let live = || self.0.iter().filter(|tag| tag.is_live());
        out.number(count(live()));
        for tag in live() {
            out.replica(tag.replica);
            out.number(tag.added);
            out.dot(by);
        }
    }

    /// Forgets what these commits took away from these commits; whether nothing is left.
    pub(super) fn compact(&mut self, horizon: &VersionVector) -> bool {
        self.0.retain_mut(|tag| {
            if tag.removed.is_none_or(|(_, by)| !horizon.contains(by)) {
                return true;
            }
            if tag.is_live() {
                tag.removed = None;
                return true;
            }
            // What was taken away before it came may still come.
            tag.added == 0 || !horizon.contains(Dot::new(tag.replica, tag.added))
        });
        self.0.is_empty()
    }

    fn tag(&mut self, replica: ReplicaId) -> &mut Tag {
        let at = self.0.partition_point(|tag| tag.replica < replica);
        if self.0.get(at).is_none_or(|tag| tag.replica != replica) {
            self.0.insert(
                at,
                Tag {
                    replica,
                    added: 0,
                    removed: None,
                },
            );
        }
        #[expect(
            clippy::indexing_slicing,
            reason = "it is there, or has just been inserted"
        )]
        &mut self.0[at]
    }
}

/// Writes that a commit adds.
pub(super) fn put_addition(by: Dot, out: &mut DeltaWriter) {
    out.number(1);
    out.dot(by);
    out.number(0);
}

fn is_added_unseen(tag: &Tag, since: &VersionVector) -> bool {
    tag.added > 0 && !since.contains(Dot::new(tag.replica, tag.added))
}

fn is_removed_unseen(tag: &Tag, since: &VersionVector) -> bool {
    tag.removed.is_some_and(|(_, by)| !since.contains(by))
}

fn count<T>(items: impl Iterator<Item = T>) -> u64 {
    u64::try_from(items.count()).unwrap_or(u64::MAX)
}
