//! A tiny registry of one document, with the promises of `sync_server::ServerRegistry` and nothing else.

use std::collections::BTreeMap;

use sync_core::history::{Epoch, Seq};
use sync_core::ids::{ChangeId, OriginId};
use sync_core::registry::{
    DocumentMeta, DocumentSize, NewChange, NewDocument, OriginEntry, Outcome, RegistryError,
    StoredChange, Tail,
};
use sync_core::server::{RegistryAnswer, RegistryRequest};

#[derive(Debug, Clone, Default)]
pub struct Registry {
    pub document: Option<Document>,
}

#[derive(Debug, Clone)]
pub struct Document {
    pub meta: DocumentMeta,
    pub log: Vec<StoredChange>,
    pub origins: BTreeMap<OriginId, OriginEntry>,
}

/// A [`RegistryAnswer`] that can be copied.
#[derive(Debug, Clone)]
pub enum Reply {
    Create(DocumentMeta),
    Meta(DocumentMeta),
    Size(DocumentSize),
    Append(Vec<Outcome>),
    Tail(Tail),
    Origins(Vec<Option<OriginEntry>>),
    Snapshot,
    Failed(Call, Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Create,
    Meta,
    Size,
    Append,
    Tail,
    Origins,
    Snapshot,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    NotFound,
    Fenced(Epoch),
    Conflict(Seq),
    Unavailable,
    Unknown,
}

pub fn call(request: &RegistryRequest) -> Call {
    match request {
        RegistryRequest::Create(_) => Call::Create,
        RegistryRequest::Meta => Call::Meta,
        RegistryRequest::Size => Call::Size,
        RegistryRequest::Append { .. } => Call::Append,
        RegistryRequest::Tail { .. } => Call::Tail,
        RegistryRequest::Origins(_) => Call::Origins,
        RegistryRequest::Snapshot => Call::Snapshot,
        other => panic!("{other:?}"),
    }
}

impl Reply {
    pub fn answer(self) -> RegistryAnswer {
        match self {
            Self::Create(meta) => RegistryAnswer::Create(Ok(meta)),
            Self::Meta(meta) => RegistryAnswer::Meta(Ok(meta)),
            Self::Size(size) => RegistryAnswer::Size(Ok(size)),
            Self::Append(outcomes) => RegistryAnswer::Append(Ok(outcomes)),
            Self::Tail(tail) => RegistryAnswer::Tail(Ok(tail)),
            Self::Origins(origins) => RegistryAnswer::Origins(Ok(origins)),
            Self::Snapshot => RegistryAnswer::Snapshot(Ok(None)),
            Self::Failed(call, failure) => {
                let error = failure.error();
                match call {
                    Call::Create => RegistryAnswer::Create(Err(error)),
                    Call::Meta => RegistryAnswer::Meta(Err(error)),
                    Call::Size => RegistryAnswer::Size(Err(error)),
                    Call::Append => RegistryAnswer::Append(Err(error)),
                    Call::Tail => RegistryAnswer::Tail(Err(error)),
                    Call::Origins => RegistryAnswer::Origins(Err(error)),
                    Call::Snapshot => RegistryAnswer::Snapshot(Err(error)),
                }
            }
        }
    }
}

impl Failure {
    fn error(self) -> RegistryError {
        match self {
            Self::NotFound => RegistryError::NotFound,
            Self::Fenced(current) => RegistryError::Fenced { current },
            Self::Conflict(head) => RegistryError::Conflict { head },
            Self::Unavailable => RegistryError::unavailable("a fault"),
            Self::Unknown => RegistryError::unknown("a fault"),
        }
    }
}

impl Registry {
    pub fn log(&self) -> &[StoredChange] {
        self.document.as_ref().map_or(&[], |document| &document.log)
    }

    pub fn execute(&mut self, request: RegistryRequest) -> Reply {
        let call = call(&request);
        if let RegistryRequest::Create(new) = request {
            let document = self.document.get_or_insert_with(|| Document::new(&new));
            return Reply::Create(document.meta.clone());
        }
        let Some(document) = &mut self.document else {
            return Reply::Failed(call, Failure::NotFound);
        };
        match request {
            RegistryRequest::Meta => Reply::Meta(document.meta.clone()),
            RegistryRequest::Size => Reply::Size(document.size()),
            RegistryRequest::Append {
                epoch,
                expect,
                changes,
            } => document
                .append(epoch, expect, changes)
                .map_or_else(|why| Reply::Failed(call, why), Reply::Append),
            RegistryRequest::Tail { after, .. } => Reply::Tail(document.tail(after)),
            RegistryRequest::Origins(origins) => Reply::Origins(
                origins
                    .iter()
                    .map(|origin| document.origins.get(origin).cloned())
                    .collect(),
            ),
            RegistryRequest::Snapshot => Reply::Snapshot,
            other => panic!("{other:?}"),
        }
    }
}

impl Document {
    fn new(new: &NewDocument) -> Self {
        Self {
            meta: DocumentMeta::new(new.id.clone(), new.engine.clone(), new.epoch, new.mode),
            log: Vec::new(),
            origins: BTreeMap::new(),
        }
    }

    fn size(&self) -> DocumentSize {
        let bytes: usize = self.log.iter().map(|row| row.bytes.len()).sum();
        DocumentSize::new(self.meta.head, Seq::ZERO, 0, bytes as u64)
    }

    fn append(
        &mut self,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, Failure> {
        if epoch != self.meta.epoch {
            return Err(Failure::Fenced(self.meta.epoch));
        }
        let head = self.meta.head;
        if expect.is_some_and(|expect| expect != head) {
            return Err(Failure::Conflict(head));
        }
        Ok(changes
            .into_iter()
            .map(|change| self.take(change))
            .collect())
    }

    /// What follows a gap in an append is a gap, too.
    fn take(&mut self, change: NewChange) -> Outcome {
        let ChangeId { origin, number } = change.id;
        let last = match self.origins.get(&origin) {
            Some(entry) if entry.user != change.user => return Outcome::ForeignOrigin,
            entry => entry.map_or(0, |entry| entry.last),
        };
        if number == 0 || number > last + 1 {
            return Outcome::Gap { expected: last + 1 };
        }
        if number <= last {
            let row = self.log.iter().find(|row| row.id == change.id).unwrap();
            return if row.bytes == change.bytes {
                let seq = Some(row.seq);
                Outcome::Duplicate { last, seq }
            } else {
                Outcome::IdReused
            };
        }
        let seq = self.meta.head.next();
        let digest = self.meta.digest.with(number, &change.bytes);
        (self.meta.head, self.meta.digest) = (seq, digest);
        let entry = OriginEntry::new(origin, change.user, number, seq);
        self.origins.insert(origin, entry);
        let row = StoredChange::new(seq, change.id, change.bytes, digest);
        self.log.push(row.with_reconciling(change.reconciling));
        Outcome::At(seq)
    }

    fn tail(&self, after: Seq) -> Tail {
        let DocumentMeta { epoch, head, .. } = self.meta;
        if after > head {
            return Tail::BeyondHead { epoch, head };
        }
        let (before, rest) = self.log.split_at(usize::try_from(after.0).unwrap());
        Tail::Changes {
            epoch,
            digest: before
                .last()
                .map_or_else(Default::default, |row| row.digest),
            changes: rest.to_vec(),
            head,
        }
    }
}
