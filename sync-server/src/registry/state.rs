//! The rules of one document, without storage.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use sync_core::history::{Digest, Epoch, EpochMode, Seq};
use sync_core::ids::{ChangeId, OriginId};

#[cfg(feature = "embedded")]
use super::Export;
use super::origins::OriginTable;
use super::rules::{self, Log, refuse_if};
use super::{
    DocumentMeta, DocumentSize, NewChange, NewDocument, OriginEntry, Outcome, RegistryError,
    Snapshot, StoredChange, Tail, wide,
};

/// One document as a registry keeps it: log, snapshot, digests and origin table. The methods follow the rules of
/// [`ServerRegistry`](super::ServerRegistry), and each is carried out wholly or not at all.
#[derive(Debug, Clone)]
pub(super) struct DocumentState {
    meta: DocumentMeta,
    /// Digest at `meta.log_start`: what a cursor that stands just before the log compares with.
    start_digest: Digest,
    /// Every change after `meta.log_start`, through `meta.head`.
    log: VecDeque<StoredChange>,
    /// Where the changes in `log` stand.
    by_id: HashMap<ChangeId, Seq>,
    snapshot: Option<Snapshot>,
    origins: OriginTable,
}

impl DocumentState {
    /// A document as [`create`](super::ServerRegistry::create) makes it.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] if it starts with a snapshot at sequence 0.
    pub(super) fn new(document: NewDocument) -> Result<Self, RegistryError> {
        let meta = rules::created(&document)?;
        Ok(Self {
            start_digest: meta.digest,
            meta,
            log: VecDeque::new(),
            by_id: HashMap::new(),
            snapshot: document.snapshot,
            origins: OriginTable::default(),
        })
    }

    /// A document as an operator's tools make it: it starts with a log that is taken as it is, numbers with holes
    /// included.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] as in [`new`](Self::new), or if an id occurs twice in the log.
    pub(super) fn with_log(
        document: NewDocument,
        log: Vec<NewChange>,
    ) -> Result<Self, RegistryError> {
        let mut state = Self::new(document)?;
        for change in log {
            refuse_if(
                state.by_id.contains_key(&change.id),
                "the log has an id twice",
            )?;
            state.commit(change);
        }
        Ok(state)
    }

    /// A document that was taken out of a registry, and has been verified.
    #[cfg(feature = "embedded")]
    pub(super) fn of_export(export: Export) -> Self {
        let log: VecDeque<_> = export.rows().collect();
        Self {
            start_digest: export.start_digest,
            by_id: log.iter().map(|row| (row.id, row.seq)).collect(),
            log,
            snapshot: export.snapshot,
            origins: OriginTable::of(export.origins),
            meta: export.meta,
        }
    }

    /// As [`export`](super::ServerRegistry::export).
    #[cfg(feature = "embedded")]
    pub(super) fn export(&self) -> Result<Export, RegistryError> {
        let change = |row: &StoredChange| {
            let author = self.origins.get(row.id.origin);
            let author = author.ok_or_else(|| RegistryError::Damaged {
                what: "a row's origin is not known".into(),
            })?;
            let change = NewChange::new(row.id, author.user.clone(), row.bytes.clone());
            Ok(change.with_reconciling(row.reconciling))
        };
        let log: Result<_, RegistryError> = self.log.iter().map(change).collect();
        Ok(Export {
            meta: self.meta.clone(),
            start_digest: self.start_digest,
            snapshot: self.snapshot.clone(),
            log: log?,
            origins: self.origins.entries(),
        })
    }

    /// A new history needs another epoch.
    pub(super) fn refuse_epoch(&self, epoch: Epoch) -> Result<(), RegistryError> {
        refuse_if(self.meta.epoch == epoch, "a new history needs a new epoch")
    }

    /// What is known of it.
    pub(super) const fn meta(&self) -> &DocumentMeta {
        &self.meta
    }

    /// As [`append`](super::ServerRegistry::append).
    pub(super) fn append(
        &mut self,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        rules::append(self, epoch, expect, changes)
    }

    /// As [`tail`](super::ServerRegistry::tail).
    pub(super) fn tail(&self, after: Seq, max_bytes: usize) -> Tail {
        let DocumentMeta {
            epoch,
            head,
            log_start,
            ..
        } = self.meta;
        if after > head {
            return Tail::BeyondHead { epoch, head };
        }
        let (Some(skip), Some(digest)) = (self.offset(after), self.digest_at(after)) else {
            return Tail::Compacted { epoch, log_start };
        };
        let mut changes = Vec::new();
        let mut room = max_bytes;
        for row in self.log.iter().skip(skip) {
            match room.checked_sub(row.bytes.len()) {
                Some(left) => room = left,
                None if changes.is_empty() => room = 0,
                None => break,
            }
            changes.push(row.clone());
        }
        Tail::Changes {
            epoch,
            digest,
            changes,
            head,
        }
    }

    /// As [`snapshot`](super::ServerRegistry::snapshot).
    pub(super) const fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// As [`size`](super::ServerRegistry::size).
    pub(super) fn size(&self) -> DocumentSize {
        let meta = &self.meta;
        let newer = self.log.iter().rev();
        let newer = newer.take_while(|row| row.seq > meta.snapshot_seq);
        DocumentSize::new(
            meta.head,
            meta.snapshot_seq,
            self.snapshot
                .as_ref()
                .map_or(0, |found| wide(found.bytes.len())),
            newer.map(|row| wide(row.bytes.len())).sum(),
        )
    }

    /// As [`compact`](super::ServerRegistry::compact).
    pub(super) fn compact(
        &mut self,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<(), RegistryError> {
        let stands = (snapshot.seq, snapshot.digest);
        let digest_at = |seq| Ok(self.digest_at(seq));
        if rules::compacts(&self.meta, epoch, stands, keep_after, digest_at)? {
            self.put(snapshot, keep_after);
        }
        Ok(())
    }

    /// As [`trim`](super::ServerRegistry::trim). Whether there is a new history.
    pub(super) fn trim(
        &mut self,
        epoch: Epoch,
        snapshot: Snapshot,
        next: Epoch,
    ) -> Result<bool, RegistryError> {
        let stands = (snapshot.seq, snapshot.digest);
        let is_new = rules::trims(&self.meta, epoch, stands, next)?;
        if is_new {
            self.put(snapshot, stands.0);
            self.meta.epoch = next;
            self.meta.mode = EpochMode::Rebase;
        }
        Ok(is_new)
    }

    /// Puts a snapshot in the place of the one there, and drops the rows through `keep_after`.
    fn put(&mut self, snapshot: Snapshot, keep_after: Seq) {
        self.meta.snapshot_seq = snapshot.seq;
        self.snapshot = Some(snapshot);
        while self.meta.log_start < keep_after {
            let Some(row) = self.log.pop_front() else {
                break;
            };
            self.by_id.remove(&row.id);
            self.meta.log_start = row.seq;
            self.start_digest = row.digest;
        }
        self.origins.evict(self.meta.log_start);
    }

    /// As [`origins`](super::ServerRegistry::origins).
    pub(super) fn origins(&self, origins: &[OriginId]) -> Vec<Option<OriginEntry>> {
        origins
            .iter()
            .map(|origin| self.origins.get(*origin).cloned())
            .collect()
    }

    /// How many rows of the log are at or before `seq`.
    fn offset(&self, seq: Seq) -> Option<usize> {
        usize::try_from(seq.0.checked_sub(self.meta.log_start.0)?).ok()
    }

    fn row(&self, seq: Seq) -> Option<&StoredChange> {
        self.log.get(self.offset(seq)?.checked_sub(1)?)
    }

    fn digest_at(&self, seq: Seq) -> Option<Digest> {
        if seq == self.meta.log_start {
            Some(self.start_digest)
        } else {
            self.row(seq).map(|row| row.digest)
        }
    }
}

impl Log for DocumentState {
    fn epoch(&self) -> Epoch {
        self.meta.epoch
    }

    fn head(&self) -> Seq {
        self.meta.head
    }

    fn entry(&self, origin: OriginId) -> Option<&OriginEntry> {
        self.origins.get(origin)
    }

    fn find(&self, id: ChangeId) -> Option<(Seq, &Bytes)> {
        let row = self.row(*self.by_id.get(&id)?)?;
        Some((row.seq, &row.bytes))
    }

    fn commit(&mut self, change: NewChange) -> Seq {
        let seq = self.meta.head.next();
        let digest = self.meta.digest.with(change.id.number, &change.bytes);
        self.origins.advance(&change, seq);
        self.by_id.insert(change.id, seq);
        let row = StoredChange::new(seq, change.id, change.bytes, digest);
        self.log.push_back(row.with_reconciling(change.reconciling));
        self.meta.head = seq;
        self.meta.digest = digest;
        seq
    }
}
