//! Contents by encoded key: the merge of the nested maps, with or without the application's types.

use std::collections::BTreeMap;

use super::content::Content;
use super::encoded::Encoded;
use super::presence::{Generation, Rule};
use super::{DeltaReader, DeltaWriter, VersionVector, digest};
use crate::engine::EngineError;

/// A key's presence and content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry<P, C> {
    pub(crate) presence: P,
    pub(crate) content: C,
}

impl<P: Rule, C: Content> Entry<P, C> {
    fn digest(&self, key: &[u8]) -> u64 {
        if self.presence.is_live() {
            let content = self.content.digest().wrapping_add(1);
            digest::key_factor(key).wrapping_mul(content)
        } else {
            0
        }
    }

    fn apply(&mut self, node: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        let (mut changed, generation) = self.presence.merge(node)?;
        let mut content = node.content()?;
        match generation {
            Generation::Older => {}
            Generation::Held => changed |= self.content.apply(&mut content)?,
            Generation::Newer => {
                self.content = C::default();
                self.content.apply(&mut content)?;
            }
        }
        Ok(changed)
    }
}

/// Entries by encoded key.
#[derive(Debug, Clone)]
pub(crate) struct Keyed<P, C> {
    entries: BTreeMap<Encoded, Entry<P, C>>,
    digest: u64,
    /// Entries in which something waits.
    n_waiting: usize,
}

impl<P: Rule, C: Content> Keyed<P, C> {
    pub(crate) const fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            digest: 0,
            n_waiting: 0,
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry<P, C>> {
        self.entries.get(key)
    }

    /// The keys that are there, with their contents.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&[u8], &C)> {
        let entries = self.entries.iter();
        let live = entries.filter(|(_, entry)| entry.presence.is_live());
        live.map(|(key, entry)| (&**key, &entry.content))
    }

    /// For what does not count until it is committed.
    pub(crate) fn get_mut(&mut self, key: &[u8]) -> Option<&mut Entry<P, C>> {
        self.entries.get_mut(key)
    }

    /// Whether the key is there.
    pub(crate) fn is_live(&self, key: &[u8]) -> bool {
        self.get(key).is_some_and(|entry| entry.presence.is_live())
    }

    /// Merges a node, telling `moved` which keys came and which went. Returns whether that changed anything.
    pub(crate) fn apply(
        &mut self,
        delta: &mut DeltaReader<'_>,
        mut moved: impl FnMut(&[u8], bool),
    ) -> Result<bool, EngineError> {
        let mut node = delta.node(P::KIND)?;
        let mut changed = false;
        while !node.is_at_end() {
            let key = node.bytes()?;
            let mut fresh = Entry::default();
            let is_fresh = !self.entries.contains_key(key);
            let entry = self.entries.get_mut(key).unwrap_or(&mut fresh);
            let before = (
                entry.presence.is_live(),
                entry.digest(key),
                entry.content.is_waiting(),
            );
            changed |= entry.apply(&mut node)?;
            let after = (
                entry.presence.is_live(),
                entry.digest(key),
                entry.content.is_waiting(),
            );
            self.digest = self.digest.wrapping_sub(before.1).wrapping_add(after.1);
            self.n_waiting = self.n_waiting + usize::from(after.2) - usize::from(before.2);
            if before.0 != after.0 {
                moved(key, after.0);
            }
            // Of what has been reclaimed nothing must come back, not even an entry.
            if is_fresh
                && (fresh.presence.has_news(&VersionVector::new()) || !fresh.content.is_nothing())
            {
                self.entries.insert(key.into(), fresh);
            }
        }
        Ok(changed)
    }

    pub(crate) fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        out.node(P::KIND, |out| {
            for (key, entry) in &self.entries {
                let start = out.len();
                out.bytes(key);
                entry.presence.diff(since, out);
                let content = out.len();
                out.sized(|out| entry.content.diff(since, out));
                // Its length alone is one byte.
                if out.len() == content + 1 && !entry.presence.has_news(since) {
                    out.truncate(start);
                }
            }
        });
    }

    pub(crate) fn compact(&mut self, horizon: &VersionVector) {
        let n_waiting = &mut self.n_waiting;
        self.entries.retain(|_, entry| {
            let was_live = entry.presence.is_live();
            let is_reclaimed = entry.presence.compact(horizon) && !was_live;
            let was_waiting = entry.content.is_waiting();
            if is_reclaimed {
                *n_waiting -= usize::from(was_waiting);
            } else {
                entry.content.compact(horizon);
                *n_waiting =
                    *n_waiting + usize::from(entry.content.is_waiting()) - usize::from(was_waiting);
            }
            !is_reclaimed
        });
    }

    pub(crate) const fn digest(&self) -> u64 {
        self.digest
    }

    pub(crate) const fn is_waiting(&self) -> bool {
        self.n_waiting > 0
    }
}

impl<P: Rule, C: Content> Default for Keyed<P, C> {
    fn default() -> Self {
        Self::new()
    }
}
