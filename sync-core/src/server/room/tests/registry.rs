//! The registry of one document in memory, and a validator, for the tests of the room.

use super::*;

/// The registry of one document, as small as its promises allow.
#[derive(Default)]
pub(super) struct TestRegistry {
    pub(super) meta: Option<DocumentMeta>,
    pub(super) log: Vec<(NewChange, Digest)>,
    pub(super) log_start: u64,
    pub(super) snapshot: Option<Snapshot>,
    /// Errors for the next calls of append; `true` if the append is carried out all the same.
    pub(super) append_errors: VecDeque<(RegistryError, bool)>,
    pub(super) n_tails: usize,
    pub(super) is_deleted: bool,
}

impl TestRegistry {
    pub(super) fn head(&self) -> u64 {
        self.log.len().try_into().unwrap()
    }

    pub(super) fn digest(&self, seq: u64) -> Digest {
        match usize::try_from(seq).unwrap() {
            0 => Digest::EMPTY,
            n => self.log[n - 1].1,
        }
    }

    pub(super) fn meta(&self) -> Result<DocumentMeta, RegistryError> {
        if self.is_deleted {
            return Err(RegistryError::Deleted);
        }
        let mut meta = self.meta.clone().ok_or(RegistryError::NotFound)?;
        meta.head = Seq(self.head());
        meta.digest = self.digest(self.head());
        meta.log_start = Seq(self.log_start);
        meta.snapshot_seq = self.snapshot.as_ref().map_or(Seq::ZERO, |s| s.seq);
        Ok(meta)
    }

    pub(super) fn entry(&self, origin: OriginId) -> Option<OriginEntry> {
        let at = self.log.iter().rposition(|(c, _)| c.id.origin == origin)?;
        let change = &self.log[at].0;
        let seq = Seq(u64::try_from(at).unwrap() + 1);
        Some(OriginEntry::new(
            origin,
            change.user.clone(),
            change.id.number,
            seq,
        ))
    }

    pub(super) fn append(
        &mut self,
        epoch: Epoch,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        let current = self.meta()?.epoch;
        if current != epoch {
            return Err(RegistryError::Fenced { current });
        }
        Ok(changes
            .into_iter()
            .map(|change| self.append_one(change))
            .collect())
    }

    pub(super) fn append_one(&mut self, change: NewChange) -> Outcome {
        let entry = self.entry(change.id.origin);
        let last = entry.as_ref().map_or(0, |entry| entry.last);
        if entry.is_some_and(|entry| entry.user != change.user) {
            return Outcome::ForeignOrigin;
        }
        if let Some(at) = self.log.iter().position(|(c, _)| c.id == change.id) {
            return if self.log[at].0.bytes == change.bytes {
                let seq = Some(Seq(u64::try_from(at).unwrap() + 1));
                Outcome::Duplicate { last, seq }
            } else {
                Outcome::IdReused
            };
        }
        if change.id.number != last + 1 {
            return Outcome::Gap { expected: last + 1 };
        }
        let digest = self
            .digest(self.head())
            .with(change.id.number, &change.bytes);
        self.log.push((change, digest));
        Outcome::At(Seq(self.head()))
    }

    fn size(&self) -> DocumentSize {
        let snapshot = self.snapshot.as_ref();
        let after = snapshot.map_or(Seq::ZERO, |snapshot| snapshot.seq);
        let newer = self.log.iter().skip(after.0.try_into().unwrap());
        let bytes = |len: usize| u64::try_from(len).unwrap();
        DocumentSize::new(
            Seq(self.head()),
            after,
            snapshot.map_or(0, |snapshot| bytes(snapshot.bytes.len())),
            newer.map(|(change, _)| bytes(change.bytes.len())).sum(),
        )
    }

    pub(super) fn tail(&mut self, after: Seq, max_bytes: usize) -> Result<Tail, RegistryError> {
        self.n_tails += 1;
        let (epoch, head) = (self.meta()?.epoch, Seq(self.head()));
        if after > head {
            return Ok(Tail::BeyondHead { epoch, head });
        }
        if after.0 < self.log_start {
            return Ok(Tail::Compacted {
                epoch,
                log_start: Seq(self.log_start),
            });
        }
        let mut changes: Vec<StoredChange> = Vec::new();
        let mut bytes = 0;
        for (at, (change, digest)) in self
            .log
            .iter()
            .enumerate()
            .skip(after.0.try_into().unwrap())
        {
            bytes += change.bytes.len();
            if bytes > max_bytes && !changes.is_empty() {
                break;
            }
            let seq = Seq(u64::try_from(at).unwrap() + 1);
            changes.push(StoredChange::new(
                seq,
                change.id,
                change.bytes.clone(),
                *digest,
            ));
        }
        Ok(Tail::Changes {
            epoch,
            digest: self.digest(after.0),
            changes,
            head,
        })
    }

    pub(super) fn answer(&mut self, request: RegistryRequest) -> RegistryAnswer {
        match request {
            RegistryRequest::Create(document) => {
                self.meta.get_or_insert_with(|| {
                    DocumentMeta::new(document.id, document.engine, document.epoch, document.mode)
                });
                RegistryAnswer::Create(self.meta())
            }
            RegistryRequest::Meta => RegistryAnswer::Meta(self.meta()),
            RegistryRequest::Size => RegistryAnswer::Size(Ok(self.size())),
            RegistryRequest::Append {
                epoch,
                expect,
                changes,
            } => {
                let head = Seq(self.head());
                RegistryAnswer::Append(match self.append_errors.pop_front() {
                    None if expect.is_some_and(|expect| expect != head) => {
                        Err(RegistryError::Conflict { head })
                    }
                    None => self.append(epoch, changes),
                    Some((error, is_done)) => {
                        if is_done {
                            self.append(epoch, changes).unwrap();
                        }
                        Err(error)
                    }
                })
            }
            RegistryRequest::Tail { after, max_bytes } => {
                RegistryAnswer::Tail(self.tail(after, max_bytes))
            }
            RegistryRequest::Snapshot => RegistryAnswer::Snapshot(Ok(self.snapshot.clone())),
            RegistryRequest::Origins(origins) => RegistryAnswer::Origins(Ok(origins
                .into_iter()
                .map(|origin| self.entry(origin))
                .collect())),
            RegistryRequest::Compact {
                snapshot,
                keep_after,
                ..
            } => {
                assert_eq!(snapshot.digest, self.digest(snapshot.seq.0));
                assert!(keep_after <= snapshot.seq);
                self.log_start = self.log_start.max(keep_after.0);
                self.snapshot = Some(snapshot);
                RegistryAnswer::Compact(Ok(()))
            }
        }
    }
}

/// Refuses changes that start with `!`, and panics (as its wrapper reports it) at `?`.
pub(super) struct NoBang;

impl Validator for NoBang {
    fn engine(&self) -> EngineId {
        EngineId::YRS
    }

    fn validate(&self, change: &[u8], _: &ValidateLimits) -> Result<(), EngineError> {
        match change.first() {
            Some(b'!') => Err(EngineError::Malformed {
                what: "update",
                offset: 0,
            }),
            Some(b'?') => Err(EngineError::Poisoned),
            _ => Ok(()),
        }
    }

    fn folder(&self) -> Option<&dyn Folder> {
        Some(self)
    }
}

impl Folder for NoBang {
    fn fold(&self, snapshot: Option<&[u8]>, changes: &[Bytes]) -> Result<Bytes, EngineError> {
        let parts = snapshot
            .into_iter()
            .chain(changes.iter().map(AsRef::as_ref));
        Ok(parts.collect::<Vec<_>>().concat().into())
    }
}
