//! What operators do with documents while the server runs.

use std::sync::Arc;
use std::time::Duration;

use sync_core::error::{ErrorCode, PeerError};
use sync_core::ids::DocumentId;
use sync_core::registry::{DocumentMeta, DocumentSize, RegistryError};
use sync_core::server::{FoldError, FoldRequest};

use super::rooms::caught;
use super::statistics::count;
use super::{Server, Shared};
use crate::engine_host::Meter;
use crate::event::ServerEvent;
use crate::registry::ServerRegistry;
use crate::stats::FoldStats;
#[cfg(feature = "embedded")]
use {
    crate::registry::{Existing, Export},
    sync_core::history::EpochMode,
};

/// Time that the sessions of a document have to leave it before it is given up to unload it.
const EVICT_TIMEOUT: Duration = Duration::from_secs(5);

impl Server {
    /// The documents that the registry has, live or not, whose ids come after `after`, in byte order of their ids, at most
    /// `limit`.
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn list(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentMeta>, RegistryError> {
        caught(self.shared.registry.list(after, limit)).await
    }

    /// What the registry knows of a document.
    ///
    /// # Errors
    /// Those of the registry: [`RegistryError::NotFound`] and [`RegistryError::Deleted`] among them.
    pub async fn meta(&self, document: &DocumentId) -> Result<DocumentMeta, RegistryError> {
        caught(self.shared.registry.meta(document)).await
    }

    /// How large a document is: see [`ServerRegistry::size`].
    ///
    /// # Errors
    /// Those of the registry.
    pub async fn size(&self, document: &DocumentId) -> Result<DocumentSize, RegistryError> {
        caught(self.shared.registry.size(document)).await
    }

    /// Deletes a document for good: its sessions are told, its memory and storage are freed, and clients that come back are
    /// told too instead of bringing it back.
    ///
    /// # Errors
    /// Those of the registry. [`RegistryError::NotFound`] if there never was such a document.
    ///
    /// # Cancellation
    /// It may be deleted, and its sessions told later, when they next push or open it.
    pub async fn delete(&self, document: &DocumentId) -> Result<(), RegistryError> {
        caught(self.shared.registry.delete(document)).await?;
        self.shared.look_again(document);
        Ok(())
    }

    /// Folds a document's log into a new snapshot now, and drops the rows that it covers, but for the newest that
    /// [`keep_log`](crate::ServerBuilder::keep_log) keeps by their bytes. Documents that are relayed cannot be folded here.
    ///
    /// # Errors
    /// [`FoldError`]: nothing has changed then. [`FoldError::Newer`] if the snapshot covers everything already.
    ///
    /// # Cancellation
    /// It may go on, or not.
    pub async fn compact(&self, document: &DocumentId) -> Result<FoldStats, FoldError> {
        let shared = &self.shared;
        let began = shared.clock.now();
        let meta = self.meta(document).await.map_err(FoldError::Registry)?;
        if meta.snapshot_seq == meta.head {
            return Err(FoldError::Newer {
                seq: meta.snapshot_seq,
            });
        }
        let request = FoldRequest::new(meta.engine, meta.epoch, meta.snapshot_seq, meta.head);
        let folded = shared
            // An operator does not pay.
            .fold(document, request, &Meter::default())
            .await?;
        let keep_after = folded.keep_after(shared.room_config.keep_bytes);
        let (seq, bytes) = (folded.snapshot.seq, folded.snapshot.bytes.len());
        let compacted = shared
            .registry
            .compact(document, meta.epoch, folded.snapshot, keep_after);
        let compacted = shared.calls.compact.time(caught(compacted)).await;
        compacted.map_err(FoldError::Registry)?;
        let now = shared.clock.now();
        let took = now.since(began);
        shared.events.send(ServerEvent::Folded {
            document: document.clone(),
            seq,
            bytes,
            keep_after,
            took,
        });
        let fold = FoldStats {
            at_ms: shared.clock.wall_ms(now),
            seq,
            bytes: count(bytes),
            took_ms: super::statistics::millis(took),
        };
        if let Some(room) = shared.rooms.live(document) {
            room.keep_fold(fold.clone());
        }
        Ok(fold)
    }

    /// Has a live document unloaded, so that the next open loads it afresh: also one that fell back to relay. Sessions that
    /// have it open are told to open it again a little later. Says whether it is not live any more: it stays where sessions
    /// do not read, or are back already.
    ///
    /// # Cancellation
    /// It may be unloaded or not.
    pub async fn evict(&self, document: &DocumentId) -> bool {
        let Some(room) = self.shared.rooms.live(document) else {
            return true;
        };
        let reason = PeerError::new(
            ErrorCode::ShuttingDown,
            "the document is being unloaded: open it again",
        );
        room.evict(&reason);
        let unloaded = async {
            loop {
                let next = self.shared.rooms.ended.notified();
                tokio::pin!(next);
                next.as_mut().enable();
                let live = self.shared.rooms.live(document);
                if live.is_none_or(|live| !Arc::ptr_eq(&live, &room)) {
                    return;
                }
                next.await;
            }
        };
        tokio::time::timeout(EVICT_TIMEOUT, unloaded).await.is_ok()
    }

    /// Everything that the registry keeps of a document, if it can tell.
    ///
    /// # Errors
    /// As [`ServerRegistry::export`].
    #[cfg(feature = "embedded")]
    pub async fn export(&self, document: &DocumentId) -> Result<Export, RegistryError> {
        caught(self.shared.registry.export(document)).await
    }

    /// Takes an exported document, under this id, which may be another one than it had, as a new history that came about as
    /// `mode` says: with [`EpochMode::Merge`] clients bring back what it lacks, with [`EpochMode::Discard`] they drop it. Sessions that
    /// have the document open are told to open it again.
    ///
    /// # Errors
    /// As [`ServerRegistry::restore`].
    ///
    /// # Cancellation
    /// It is carried out or not, but never half.
    #[cfg(feature = "embedded")]
    pub async fn import(
        &self,
        document: DocumentId,
        export: Export,
        mode: EpochMode,
        existing: Existing,
    ) -> Result<DocumentMeta, RegistryError> {
        let there = caught(self.shared.registry.meta(&document)).await;
        let (random, salt) = {
            let mut rng = super::lock(&self.shared.rng);
            let salt = (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64());
            (rng.next_u64(), salt)
        };
        let there = there.ok().map(|meta| meta.epoch);
        let epoch = export.epoch_after(there, random);
        let export = export.renamed(document.clone(), salt).under(epoch, mode);
        let meta = caught(self.shared.registry.restore(export, existing)).await?;
        self.shared.look_again(&document);
        Ok(meta)
    }

    /// Makes a new document of what another one is now. From then on they have nothing to do with each other.
    ///
    /// # Errors
    /// As [`ServerRegistry::export`] and [`ServerRegistry::restore`]: [`RegistryError::Refused`] if there is a document of that
    /// name, [`RegistryError::Deleted`] if there was one.
    ///
    /// # Cancellation
    /// It is carried out or not, but never half.
    #[cfg(feature = "embedded")]
    pub async fn fork(
        &self,
        document: &DocumentId,
        to: DocumentId,
    ) -> Result<DocumentMeta, RegistryError> {
        let export = self.export(document).await?;
        self.import(to, export, EpochMode::New, Existing::Keep)
            .await
    }
}

impl Shared {
    /// Has a live document's room look at what the registry has now: another history, or nothing any more.
    pub(super) fn look_again(&self, document: &DocumentId) {
        if let Some(room) = self.rooms.live(document) {
            room.look_again();
        }
    }
}
