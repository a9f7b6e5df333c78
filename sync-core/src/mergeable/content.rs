//! What stands at one place: a value of a type, or nodes without one, and what the type does not know.

use super::node::Nodes;
use super::{DeltaReader, DeltaWriter, Mergeable, VersionVector};
use crate::engine::EngineError;

/// The content of a place: a document's root, or an entry of a map.
pub(crate) trait Content: Default + Clone + Send + 'static {
    /// Merges all nodes of a content. Returns whether that changed anything that a reader sees.
    fn apply(&mut self, content: &mut DeltaReader<'_>) -> Result<bool, EngineError>;

    /// Writes the nodes that a holder of `since` lacks.
    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter);

    /// Forgets what only holders of less than `horizon` need.
    fn compact(&mut self, horizon: &VersionVector);

    fn digest(&self) -> u64;

    /// Whether something waits for a change that is not there.
    fn is_waiting(&self) -> bool;

    /// Whether it has nothing at all, also nothing that does not show.
    fn is_nothing(&self) -> bool {
        let mut out = DeltaWriter::new();
        self.diff(&VersionVector::new(), &mut out);
        out.is_empty()
    }
}

/// A value, and what stands at its place that its type does not know: nodes of other kinds, fields of a later version.
/// That is merged as software without the type merges it, and is in every difference and snapshot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slot<T> {
    pub(crate) value: T,
    rest: Nodes,
}

impl<T: Mergeable> Content for Slot<T> {
    fn apply(&mut self, content: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        let n_kept = content.n_kept();
        let changed = content.apply_to(&mut self.value)?;
        for kept in content.take_kept(n_kept) {
            self.rest.apply_at(&kept.path, &mut content.reread(&kept))?;
        }
        Ok(changed)
    }

    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        out.both(
            |out| self.value.diff(since, out),
            |out| self.rest.diff(since, out),
        );
    }

    fn compact(&mut self, horizon: &VersionVector) {
        self.value.compact(horizon);
        self.rest.compact(horizon);
    }

    fn digest(&self) -> u64 {
        let known = T::KIND.factor().wrapping_mul(self.value.digest());
        known.wrapping_add(self.rest.digest())
    }

    fn is_waiting(&self) -> bool {
        self.value.is_waiting() || self.rest.is_waiting()
    }
}
