//! What the checks share: a document of the registry next to a model of what it must hold.

use std::fmt;

use bytes::Bytes;
use sync_core::history::{Digest, Epoch, Seq};
use sync_core::ids::{ChangeId, DocumentId, EngineId, OriginId, User};

use super::{Checked, Failure};
use crate::registry::{
    DocumentMeta, NewChange, NewDocument, Outcome, RegistryError, ServerRegistry, Snapshot,
    StoredChange, Tail,
};

pub(super) const EPOCH: Epoch = Epoch(0x00e9_0c4a);
/// The name of a history that follows a trim.
pub(super) const TRIMMED: Epoch = Epoch(0x7213_33ed);
pub(super) const STALE: Epoch = Epoch(0x57a1_e000);
/// Tail pages larger than any log here.
pub(super) const EVERYTHING: usize = 1 << 30;

/// A document in the registry, and all rows that it was seen to commit.
pub(super) struct Document<'a> {
    pub(super) registry: &'a dyn ServerRegistry,
    pub(super) id: DocumentId,
    pub(super) epoch: Epoch,
    /// Where the model starts, and its digest there.
    start: (Seq, Digest),
    rows: Vec<StoredChange>,
}

impl<'a> Document<'a> {
    pub(super) async fn create(
        registry: &'a dyn ServerRegistry,
        name: &str,
    ) -> Result<Self, Failure> {
        let new = NewDocument::new(document_id(name)?, EngineId::OPAQUE, EPOCH);
        Self::create_with(registry, new).await
    }

    pub(super) async fn create_with(
        registry: &'a dyn ServerRegistry,
        new: NewDocument,
    ) -> Result<Self, Failure> {
        let id = new.id.clone();
        let meta = registry.create(new).await?;
        Ok(Self {
            registry,
            id,
            epoch: EPOCH,
            start: (meta.head, meta.digest),
            rows: Vec::new(),
        })
    }

    pub(super) async fn append(
        &self,
        changes: &[NewChange],
    ) -> Result<Vec<Outcome>, RegistryError> {
        self.registry
            .append(&self.id, self.epoch, None, changes.to_vec())
            .await
    }

    /// Appends changes that must all be committed, next to each other, after the head.
    pub(super) async fn commit(&mut self, changes: &[NewChange]) -> Checked {
        let outcomes = self.append(changes).await?;
        let first = self.head();
        for change in changes {
            self.add(change);
        }
        let expected: Vec<_> = (1..)
            .take(changes.len())
            .map(|n| Outcome::At(first.plus(n)))
            .collect();
        same(
            "outcomes of an append of the next changes",
            outcomes,
            expected,
        )
    }

    /// Notes in the model that a change was committed at the head.
    pub(super) fn add(&mut self, change: &NewChange) {
        let digest = self.digest().with(change.id.number, &change.bytes);
        let row = StoredChange::new(self.head().next(), change.id, change.bytes.clone(), digest);
        self.rows.push(row.with_reconciling(change.reconciling));
    }

    pub(super) fn head(&self) -> Seq {
        self.rows.last().map_or(self.start.0, |row| row.seq)
    }

    pub(super) fn digest(&self) -> Digest {
        self.rows.last().map_or(self.start.1, |row| row.digest)
    }

    pub(super) fn digest_at(&self, seq: Seq) -> Digest {
        self.rows
            .iter()
            .find(|row| row.seq == seq)
            .map_or(self.start.1, |row| row.digest)
    }

    pub(super) fn rows_after(&self, after: Seq) -> Vec<StoredChange> {
        self.rows
            .iter()
            .filter(|row| row.seq > after)
            .cloned()
            .collect()
    }

    /// A snapshot that the log bears out.
    pub(super) fn snapshot(&self, seq: u64, bytes: &'static str) -> Snapshot {
        Snapshot::new(
            Seq(seq),
            self.digest_at(Seq(seq)),
            Bytes::from_static(bytes.as_bytes()),
        )
    }

    pub(super) async fn compact(
        &self,
        snapshot: Snapshot,
        keep_after: u64,
    ) -> Result<(), RegistryError> {
        self.registry
            .compact(&self.id, self.epoch, snapshot, Seq(keep_after))
            .await
    }

    pub(super) async fn meta(&self) -> Result<DocumentMeta, RegistryError> {
        self.registry.meta(&self.id).await
    }

    /// Tail, head and digest are those of the model, from `after` on.
    pub(super) async fn holds_all_after(&self, after: u64) -> Checked {
        let after = Seq(after);
        let expected = Tail::Changes {
            epoch: self.epoch,
            digest: self.digest_at(after),
            changes: self.rows_after(after),
            head: self.head(),
        };
        same(
            "the tail",
            self.registry.tail(&self.id, after, EVERYTHING).await?,
            expected,
        )?;
        let meta = self.meta().await?;
        same(
            "meta's head and digest",
            (meta.head, meta.digest),
            (self.head(), self.digest()),
        )?;
        same(
            "heads",
            self.registry.heads(std::slice::from_ref(&self.id)).await?,
            vec![Some(meta.cursor())],
        )
    }
}

pub(super) fn document_id(name: &str) -> Result<DocumentId, Failure> {
    DocumentId::new(name).map_err(|error| Failure(error.to_string()))
}

pub(super) fn user(name: &str) -> User {
    User::new(name)
}

/// Change `number` of `origin`, by `ada`, with bytes of its own. Every third says what a server lacked.
pub(super) fn change(origin: u128, number: u64) -> NewChange {
    change_by("ada", origin, number)
}

pub(super) fn change_by(name: &str, origin: u128, number: u64) -> NewChange {
    let id = ChangeId {
        origin: OriginId(origin),
        number,
    };
    let change = NewChange::new(id, user(name), Bytes::from(format!("{id}")));
    change.with_reconciling(number.is_multiple_of(3))
}

/// The same change with other bytes.
pub(super) fn forged(origin: u128, number: u64) -> NewChange {
    with_bytes(change(origin, number), "something else")
}

pub(super) fn with_bytes(mut change: NewChange, bytes: impl Into<Bytes>) -> NewChange {
    change.bytes = bytes.into();
    change
}

pub(super) fn same<T: PartialEq + fmt::Debug>(what: &str, found: T, promised: T) -> Checked {
    that(found == promised, || {
        format!("{what}: found {found:?}, promised {promised:?}")
    })
}

pub(super) fn that(kept: bool, found: impl FnOnce() -> String) -> Checked {
    if kept { Ok(()) } else { Err(Failure(found())) }
}

/// The call failed with the error that `is` recognises.
pub(super) fn fails<T: fmt::Debug>(
    what: &str,
    found: Result<T, RegistryError>,
    is: impl FnOnce(&RegistryError) -> bool,
) -> Checked {
    match found {
        Err(error) if is(&error) => Ok(()),
        other => Err(Failure(format!("{what}: found {other:?}"))),
    }
}
