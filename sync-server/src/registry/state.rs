//! The rules of one document, without storage.

use std::collections::{BTreeSet, HashMap, VecDeque};

use sync_core::history::{Digest, Epoch, Seq};
use sync_core::ids::{ChangeId, OriginId};

use super::origins::OriginTable;
use super::{
    DocumentMeta, NewChange, NewDocument, OriginEntry, Outcome, RegistryError, Snapshot,
    StoredChange, Tail,
};

/// One document as a registry keeps it: log, snapshot, digests and origin table. The methods follow the rules of
/// [`ServerRegistry`](super::ServerRegistry), and each is carried out wholly or not at all.
#[derive(Debug)]
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
        let mut meta =
            DocumentMeta::new(document.id, document.engine, document.epoch, document.mode);
        if let Some(snapshot) = &document.snapshot {
            refuse_if(
                snapshot.seq == Seq::ZERO,
                "no snapshot stands at sequence 0",
            )?;
            meta.head = snapshot.seq;
            meta.digest = snapshot.digest;
            meta.snapshot_seq = snapshot.seq;
            meta.log_start = snapshot.seq;
        }
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
        self.fence(epoch)?;
        if expect.is_some_and(|expect| expect != self.meta.head) {
            return Err(RegistryError::Conflict {
                head: self.meta.head,
            });
        }
        // By user too: one who borrows another's origin must not stop its owner.
        let mut refused = BTreeSet::new();
        let mut outcomes = Vec::with_capacity(changes.len());
        for change in changes {
            let key = (change.id.origin, change.user.clone());
            let verdict = if refused.contains(&key) {
                Err(self.gap(change.id.origin))
            } else {
                self.judge(&change)
            };
            outcomes.push(match verdict {
                Ok(()) => Outcome::At(self.commit(change)),
                Err(duplicate @ Outcome::Duplicate { .. }) => duplicate,
                Err(refusal) => {
                    refused.insert(key);
                    refusal
                }
            });
        }
        Ok(outcomes)
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

    /// As [`compact`](super::ServerRegistry::compact).
    pub(super) fn compact(
        &mut self,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<(), RegistryError> {
        self.fence(epoch)?;
        refuse_if(
            snapshot.seq == Seq::ZERO,
            "no snapshot stands at sequence 0",
        )?;
        refuse_if(
            snapshot.seq > self.meta.head,
            "the snapshot is beyond the head",
        )?;
        refuse_if(
            keep_after > snapshot.seq,
            "rows would be dropped that the snapshot does not cover",
        )?;
        if snapshot.seq < self.meta.snapshot_seq {
            return Ok(());
        }
        // Known: a snapshot is never before the start of the log, and this one is not before the present one.
        let digest = self.digest_at(snapshot.seq);
        refuse_if(
            digest != Some(snapshot.digest),
            "the snapshot's digest is not the log's",
        )?;
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
        Ok(())
    }

    /// As [`origins`](super::ServerRegistry::origins).
    pub(super) fn origins(&self, origins: &[OriginId]) -> Vec<Option<OriginEntry>> {
        origins
            .iter()
            .map(|origin| self.origins.get(*origin).cloned())
            .collect()
    }

    /// `Ok` if the change is the origin's next.
    fn judge(&self, change: &NewChange) -> Result<(), Outcome> {
        let ChangeId { origin, number } = change.id;
        let entry = self.origins.get(origin);
        if entry.is_some_and(|entry| entry.user != change.user) {
            return Err(Outcome::ForeignOrigin);
        }
        let last = entry.map_or(0, |entry| entry.last);
        if last.checked_add(1) == Some(number) {
            return Ok(());
        }
        if number == 0 || number > last {
            return Err(self.gap(origin));
        }
        let seq = self.by_id.get(&change.id).copied();
        match seq.and_then(|seq| self.row(seq)) {
            Some(row) if row.bytes != change.bytes => Err(Outcome::IdReused),
            _ => Err(Outcome::Duplicate { last, seq }),
        }
    }

    fn gap(&self, origin: OriginId) -> Outcome {
        let last = self.origins.get(origin).map_or(0, |entry| entry.last);
        Outcome::Gap {
            expected: last.saturating_add(1),
        }
    }

    fn commit(&mut self, change: NewChange) -> Seq {
        let seq = self.meta.head.next();
        let digest = self.meta.digest.with(change.id.number, &change.bytes);
        self.origins.advance(&change, seq);
        self.by_id.insert(change.id, seq);
        self.log
            .push_back(StoredChange::new(seq, change.id, change.bytes, digest));
        self.meta.head = seq;
        self.meta.digest = digest;
        seq
    }

    const fn fence(&self, epoch: Epoch) -> Result<(), RegistryError> {
        if epoch.0 == self.meta.epoch.0 {
            Ok(())
        } else {
            Err(RegistryError::Fenced {
                current: self.meta.epoch,
            })
        }
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

const fn refuse_if(wrong: bool, what: &'static str) -> Result<(), RegistryError> {
    if wrong {
        Err(RegistryError::Refused { what })
    } else {
        Ok(())
    }
}
