//! What the next commit adds to a document.

use std::collections::HashMap;

use bytes::Bytes;
use rusqlite::Connection;
use sync_core::history::{Digest, Epoch, Seq};
use sync_core::ids::{ChangeId, OriginId};

use super::document::{Document, Known, RowRef, Standing};
use super::entries::Entries;
use super::origins;
use super::repeats::{Repeats, Rows};
use super::row::{Part, encode};
use crate::registry::rules::{self, Log};
use crate::registry::{NewChange, OriginEntry, Outcome, RegistryError};

/// What the next commit adds to a document.
#[derive(Debug, Default)]
pub(super) struct Staged {
    /// Where it will stand: after `changes`.
    pub(super) head: Seq,
    pub(super) digest: Digest,
    /// Changes after the last commit's head.
    pub(super) changes: Vec<NewChange>,
    /// The entries that `changes` have changed.
    pub(super) origins: Entries,
    /// More has changed than there are `changes`; the head and its digest here do not count.
    pub(super) changed: Option<Standing>,
    /// Origins to be forgotten, unless they have written since.
    pub(super) evicted: Vec<OriginId>,
}

impl Staged {
    /// Nothing yet, of a document that stands so.
    pub(super) fn begin(&mut self, standing: &Standing) {
        self.head = standing.meta.head;
        self.digest = standing.meta.digest;
    }

    /// Takes back the changes.
    pub(super) fn clear(&mut self) {
        self.changes.clear();
        self.origins.clear();
    }

    /// Whether it holds so little memory that it may be kept.
    pub(super) fn is_small(&self) -> bool {
        self.changes.capacity() <= 64 && self.evicted.capacity() == 0
    }

    /// The sequence of the first staged change.
    pub(super) fn first(&self) -> Seq {
        let staged = u64::try_from(self.changes.len()).unwrap_or(u64::MAX);
        Seq(self.head.0.saturating_sub(staged)).next()
    }

    /// Puts the changes behind what is in `buffer`, as a row of the journal; nothing if there are none.
    pub(super) fn encode(&self, row: i64, buffer: &mut Vec<u8>) -> Option<RowRef> {
        // A call has as many as its bytes allow; a commit is bounded in calls.
        let n = u32::try_from(self.changes.len()).unwrap_or(u32::MAX);
        if n == 0 {
            return None;
        }
        let seq = self.first();
        let parts = self.changes.iter().map(|change| Part {
            id: change.id,
            user: &change.user,
            bytes: &change.bytes,
            reconciling: change.reconciling,
        });
        let bytes = encode(buffer, seq, parts);
        Some(RowRef {
            row,
            seq,
            n,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        })
    }
}

/// A document to which changes are appended.
pub(super) struct Draft<'a> {
    pub(super) document: &'a mut Document,
    pub(super) staged: &'a mut Staged,
}

impl Draft<'_> {
    /// As [`ServerRegistry::append`](crate::registry::ServerRegistry::append).
    pub(super) fn append(
        &mut self,
        connection: &Connection,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        self.prepare(connection, &changes)?;
        rules::append(self, epoch, expect, changes)
    }

    /// Reads whatever the rules will ask for, so that nothing fails half-way.
    fn prepare(
        &mut self,
        connection: &Connection,
        changes: &[NewChange],
    ) -> Result<(), RegistryError> {
        if self.document.known != Known::All {
            self.read_origins(connection, changes)?;
        }
        let is_repeat = |change: &&NewChange| {
            let entry = self.entry(change.id.origin);
            entry.is_some_and(|entry| change.id.number <= entry.last)
        };
        let repeated: Vec<_> = changes
            .iter()
            .filter(is_repeat)
            .map(|change| change.id)
            .collect();
        if repeated.is_empty() && !repeats_itself(changes) {
            return Ok(());
        }
        let mut repeats = self
            .document
            .repeats
            .take()
            .unwrap_or_else(|| Box::new(Repeats::after(self.staged)));
        let rows = Rows {
            connection,
            document: self.document,
            log_start: self.log_start(),
        };
        let looked_up = repeats.look_up(&rows, &repeated, self.staged.first());
        self.document.repeats = Some(repeats);
        looked_up
    }

    fn read_origins(
        &mut self,
        connection: &Connection,
        changes: &[NewChange],
    ) -> Result<(), RegistryError> {
        /// Entries that are kept, if there are no more: a row each to read, once.
        const ORIGINS: usize = 1_000;
        let doc = self.document.standing.doc;
        for change in changes {
            let origin = change.id.origin;
            if self.entry(origin).is_some() {
                continue;
            }
            let document = &mut *self.document;
            if document.known != Known::Some {
                let read = origins::read_some(connection, doc, ORIGINS + 1)?;
                document.known = if read.len() <= ORIGINS {
                    Known::All
                } else {
                    Known::Some
                };
                for entry in read {
                    // What is here already is newer.
                    document.origins.fill_in(entry);
                }
            }
            if document.known == Known::All {
                return Ok(());
            }
            if document.origins.get(origin).is_none()
                && let Some(entry) = origins::find(connection, doc, origin)?
            {
                document.origins.fill_in(entry);
            }
        }
        Ok(())
    }

    /// As it will stand after the next commit, but for the head and its digest.
    fn standing(&self) -> &Standing {
        let changed = self.staged.changed.as_ref();
        changed.unwrap_or(&self.document.standing)
    }

    fn log_start(&self) -> Seq {
        self.standing().meta.log_start
    }
}

/// Whether changes of one call may repeat one of it.
fn repeats_itself(changes: &[NewChange]) -> bool {
    let mut seen = HashMap::new();
    changes.len() > 1
        && changes.iter().any(|change| {
            seen.insert(change.id.origin, change.id.number)
                .is_some_and(|before| before >= change.id.number)
        })
}

impl Log for Draft<'_> {
    fn epoch(&self) -> Epoch {
        // A new one may be staged already.
        self.standing().meta.epoch
    }

    fn head(&self) -> Seq {
        self.staged.head
    }

    fn entry(&self, origin: OriginId) -> Option<&OriginEntry> {
        let staged = self.staged.origins.get(origin);
        staged.or_else(|| self.document.origins.get(origin))
    }

    fn find(&self, id: ChangeId) -> Option<(Seq, &Bytes)> {
        let repeats = self.document.repeats.as_ref()?;
        let seq = repeats.stands(id)?;
        if let Some(offset) = seq.0.checked_sub(self.staged.first().0) {
            let change = self.staged.changes.get(usize::try_from(offset).ok()?)?;
            return Some((seq, &change.bytes));
        }
        if seq <= self.log_start() {
            return None;
        }
        Some((seq, repeats.bytes(id)?))
    }

    fn commit(&mut self, change: NewChange) -> Seq {
        let ChangeId { origin, number } = change.id;
        let staged = &mut *self.staged;
        let seq = staged.head.next();
        staged.head = seq;
        staged.digest = staged.digest.with(number, &change.bytes);
        staged.origins.advance(origin, &change.user, number, seq);
        if let Some(repeats) = &mut self.document.repeats {
            repeats.note(change.id, seq);
        }
        staged.changes.push(change);
        seq
    }
}
