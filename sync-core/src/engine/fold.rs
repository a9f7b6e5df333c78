//! Folding: one snapshot out of a snapshot and the log after it (design 2.4), with its history or without (design 2.3).

use bytes::Bytes;

use super::{Document, Engine, EngineError, ReplicaSeed, Version};

/// Folds a document's log into a snapshot. Every [`Engine`] whose documents have snapshots does.
///
/// Synchronous, and as heavy as loading the document three times: for a thread with a large stack that may block.
/// An implementation of an engine of somebody else may panic on bytes that it was not made for.
pub trait Folder: Send + Sync {
    /// The full state after `snapshot` (nothing if `None`) and then `changes`, front to back, imported into a replica
    /// that never imported anything else. Nothing is trimmed: importing the result is importing what it was made of.
    ///
    /// The result is proven before it is returned: it has been loaded into another fresh replica, whose version is
    /// the same.
    ///
    /// # Errors
    /// [`EngineError::Incomplete`] if something waits for changes that are not there, [`EngineError::Unproven`] if
    /// the result reads back as anything else than what was folded, or as nothing; and what imports fail with.
    fn fold(&self, snapshot: Option<&[u8]>, changes: &[Bytes]) -> Result<Bytes, EngineError>;

    /// As [`fold`](Self::fold), without the history before the last `keep` changes: only who has everything before them, and
    /// begins again from the result, may go on with work of its own (a new epoch, design 2.3). The result may hold an operation
    /// more than what it was made of, which changes no content; see [`Document::trim`].
    ///
    /// # Errors
    /// [`EngineError::Unsupported`], which is the default, if nothing can be forgotten; and what folds fail with.
    fn trim(
        &self,
        snapshot: Option<&[u8]>,
        changes: &[Bytes],
        keep: usize,
    ) -> Result<Bytes, EngineError> {
        let _ = (snapshot, changes, keep);
        Err(EngineError::Unsupported {
            what: "forgetting history",
        })
    }

    /// What the same replica holds, as JSON; see [`Engine::to_json`].
    ///
    /// # Errors
    /// [`EngineError::Unsupported`], which is the default, if there is no such form; and what imports fail with.
    fn read_json(&self, snapshot: Option<&[u8]>, changes: &[Bytes]) -> Result<String, EngineError> {
        let _ = (snapshot, changes);
        Err(EngineError::Unsupported {
            what: "reading as JSON",
        })
    }
}

impl<E: Engine> Folder for E {
    fn fold(&self, snapshot: Option<&[u8]>, changes: &[Bytes]) -> Result<Bytes, EngineError> {
        let mut replica = self.create(SEED)?;
        replica.set_unread();
        let empty = replica.version();
        if import(&mut replica, snapshot, changes)? {
            return Err(EngineError::Incomplete);
        }
        let (version, folded) = (replica.version(), replica.snapshot()?);
        drop(replica);
        let mut proof = self.create(SEED)?;
        proof.set_unread();
        if proof.import_snapshot(&folded)?.pending {
            return Err(EngineError::Incomplete);
        }
        prove(&empty, &version, &proof.version())?;
        Ok(folded)
    }

    fn trim(
        &self,
        snapshot: Option<&[u8]>,
        changes: &[Bytes],
        keep: usize,
    ) -> Result<Bytes, EngineError> {
        let (forgotten, kept) = around_horizon(changes, keep);
        let mut replica = self.create(SEED)?;
        replica.set_unread();
        let empty = replica.version();
        if import(&mut replica, snapshot, forgotten)? {
            return Err(EngineError::Incomplete);
        }
        let horizon = replica.version();
        if replica.import(kept)?.pending {
            return Err(EngineError::Incomplete);
        }
        let trimmed = replica.trim(&horizon)?;
        // Whoever has everything lacks at most what the engine has added.
        replica.import_snapshot(&trimmed)?;
        let version = replica.version();
        drop(replica);
        let mut proof = self.create(SEED)?;
        proof.set_unread();
        if proof.import_snapshot(&trimmed)?.pending {
            return Err(EngineError::Incomplete);
        }
        prove(&empty, &version, &proof.version())?;
        Ok(trimmed)
    }

    fn read_json(&self, snapshot: Option<&[u8]>, changes: &[Bytes]) -> Result<String, EngineError> {
        let mut replica = self.create(SEED)?;
        import(&mut replica, snapshot, changes)?;
        self.to_json(&replica)
    }
}

/// What comes before the last `keep` changes, and those.
pub(crate) fn around_horizon(changes: &[Bytes], keep: usize) -> (&[Bytes], &[Bytes]) {
    changes.split_at(changes.len().saturating_sub(keep))
}

/// Whether something waits for changes that are not there.
fn import<D: Document>(
    replica: &mut D,
    snapshot: Option<&[u8]>,
    changes: &[Bytes],
) -> Result<bool, EngineError> {
    if let Some(snapshot) = snapshot {
        replica.import_snapshot(snapshot)?;
    }
    Ok(replica.import(changes)?.pending)
}

/// Replicas that fold never edit, so that nothing is ever written under their identity.
const SEED: ReplicaSeed = ReplicaSeed(0);

/// Whether a fold may take the place of what it was made of: `read_back` is the version that it loads as. One that
/// loads as nothing never may, not even where a log says nothing: too much is at stake for too little.
pub(crate) fn prove(
    empty: &Version,
    folded: &Version,
    read_back: &Version,
) -> Result<(), EngineError> {
    if folded == read_back && folded != empty {
        Ok(())
    } else {
        Err(EngineError::Unproven)
    }
}
