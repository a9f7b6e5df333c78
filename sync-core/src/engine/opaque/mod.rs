//! Documents of opaque bytes: a log of changes that only the application reads.

mod document;
mod format;
mod log;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

pub use self::document::OpaqueDocument;
pub use self::log::{OpaqueEdit, OpaqueLog};
use super::{Edited, Engine, EngineError, ReplicaSeed, ValidateLimits};
use crate::ids::EngineId;
use crate::mergeable::ReplicaId;

/// The engine value for documents whose changes nobody but the application understands.
///
/// A document is a list: snapshots, if there are any, then the changes after them in the order of the server's log, then
/// those made here that the log does not have yet. All replicas see the same list, whatever order things arrive in, so an
/// application may apply the changes one after the other and needs no CRDT, or merge in any way of its own.
///
/// No server reads it. When the log has become long, the server asks a client for a snapshot: what
/// [`fold`](Self::fold) makes of it, or else the list as it is, which saves nothing but rows.
///
/// # Examples
/// ```
/// use sync_core::engine::opaque::Opaque;
/// use sync_core::engine::{Engine, ReplicaSeed};
///
/// let engine = Opaque::new();
/// let mut document = engine.create(ReplicaSeed(7))?;
/// engine.edit(&mut document, 1024, |log| log.push("+3"))?;
/// let pending = engine.read(&document, |log| log.pending().cloned().collect::<Vec<_>>())?;
/// assert_eq!(pending, ["+3"]);
/// # Ok::<(), sync_core::engine::EngineError>(())
/// ```
#[derive(Clone, Default)]
pub struct Opaque {
    fold: Option<Fold>,
    can_rebase: bool,
}

/// Makes one snapshot of snapshots and the changes after them.
type Fold = Arc<dyn Fn(&[Bytes], &[Bytes]) -> Bytes + Send + Sync>;

impl Opaque {
    /// Documents of opaque bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How to make a snapshot out of earlier ones and the changes after them, in order. It stands for them from then on,
    /// everywhere, so it must say all that they said.
    ///
    /// Usually there is one earlier snapshot, or none. There are several only when a server has lost changes and gone on
    /// from there while somebody had a snapshot with them: both cover the changes before the loss.
    #[must_use]
    pub fn fold(
        mut self,
        fold: impl Fn(&[Bytes], &[Bytes]) -> Bytes + Send + Sync + 'static,
    ) -> Self {
        self.fold = Some(Arc::new(fold));
        self
    }

    /// Changes stay meaningful without earlier ones of the same user: when one has been refused, those made after it are
    /// sent all the same. Otherwise, which is the default, they are handed back with it.
    #[must_use]
    pub const fn independent(mut self) -> Self {
        self.can_rebase = true;
        self
    }

    /// What was pushed by the edit that made this change, such as one that was refused. `None` if the bytes are not a
    /// change of such a document.
    #[must_use]
    pub fn pushed(change: &Bytes) -> Option<Vec<Bytes>> {
        let pushed = format::read(change).ok()?;
        Some(
            pushed
                .changes
                .into_iter()
                .map(|entry| entry.bytes)
                .collect(),
        )
    }
}

impl Engine for Opaque {
    type Document = OpaqueDocument;
    type Read<'a> = OpaqueLog;
    type Edit<'a> = OpaqueEdit<'a>;

    fn id(&self) -> EngineId {
        EngineId::OPAQUE
    }

    fn create(&self, seed: ReplicaSeed) -> Result<Self::Document, EngineError> {
        let [.., a, b, c, d, e, f, g, h] = seed.0.to_be_bytes();
        let replica = ReplicaId(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
        Ok(OpaqueDocument::new(self.clone(), replica))
    }

    /// Takes any bytes of acceptable size: what is no change of such a document is passed over by everybody, and counted.
    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        limits.check_len(change)
    }

    fn read<R>(
        &self,
        document: &Self::Document,
        f: impl FnOnce(&OpaqueLog) -> R,
    ) -> Result<R, EngineError> {
        Ok(f(document.log()))
    }

    /// Lends the log. Everything that the closure pushes is one change.
    fn edit<R>(
        &self,
        document: &mut Self::Document,
        bytes_max: usize,
        f: impl FnOnce(&mut OpaqueEdit<'_>) -> R,
    ) -> Result<Edited<R>, EngineError> {
        Ok(document.edit(bytes_max, f))
    }
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opaque")
            .field("folds", &self.fold.is_some())
            .field("can_rebase", &self.can_rebase)
            .finish()
    }
}
