//! The table that decides duplicates: per origin its user and its last committed number (design 2.1).

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use sync_core::history::Seq;
use sync_core::ids::OriginId;

use super::{NewChange, OriginEntry};

/// Origins without a change in the kept log that are remembered per document.
pub const ORIGINS_PER_DOCUMENT_MAX: usize = 10_000;

/// Origins of one user without a change in the kept log that are remembered per document, so that a user who starts
/// many processes pushes nobody else's out of the table.
pub const ORIGINS_PER_USER_MAX: usize = 100;

#[derive(Debug, Clone, Default)]
pub(super) struct OriginTable(HashMap<OriginId, OriginEntry>);

impl OriginTable {
    #[cfg(feature = "embedded")]
    pub(super) fn of(entries: Vec<OriginEntry>) -> Self {
        Self(
            entries
                .into_iter()
                .map(|entry| (entry.origin, entry))
                .collect(),
        )
    }

    /// All of it, in the order of origins.
    #[cfg(feature = "embedded")]
    pub(super) fn entries(&self) -> Vec<OriginEntry> {
        let mut entries: Vec<_> = self.0.values().cloned().collect();
        entries.sort_unstable_by_key(|entry| entry.origin);
        entries
    }

    pub(super) fn get(&self, origin: OriginId) -> Option<&OriginEntry> {
        self.0.get(&origin)
    }

    /// Notes that a change was committed.
    pub(super) fn advance(&mut self, change: &NewChange, seq: Seq) {
        let origin = change.id.origin;
        let entry = self
            .0
            .entry(origin)
            .or_insert_with(|| OriginEntry::new(origin, change.user.clone(), 0, seq));
        entry.last = entry.last.max(change.id.number);
        entry.seq = seq;
    }

    /// Forgets the oldest origins beyond the limits.
    pub(super) fn evict(&mut self, log_start: Seq) {
        for origin in evicted(self.0.values(), log_start) {
            self.0.remove(&origin);
        }
    }
}

/// The oldest origins beyond the limits. Those whose last change is after `log_start` are none of them in any case: a
/// client whose change is that recent may well be about to repeat it.
pub(super) fn evicted<'a>(
    entries: impl Iterator<Item = &'a OriginEntry>,
    log_start: Seq,
) -> Vec<OriginId> {
    let mut older: Vec<&OriginEntry> = entries.filter(|entry| entry.seq <= log_start).collect();
    older.sort_unstable_by_key(|entry| Reverse(entry.seq));
    let mut per_user: HashMap<Arc<str>, usize> = HashMap::new();
    let mut kept = 0;
    let mut evicted = Vec::new();
    for entry in older {
        let of_user = per_user.entry(entry.user.id.clone()).or_default();
        if *of_user < ORIGINS_PER_USER_MAX && kept < ORIGINS_PER_DOCUMENT_MAX {
            *of_user += 1;
            kept += 1;
        } else {
            evicted.push(entry.origin);
        }
    }
    evicted
}
