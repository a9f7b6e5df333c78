//! A document taken out of a registry, and how it fits together.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use sync_core::history::{Digest, Epoch, EpochMode, Seq};
use sync_core::ids::{DocumentId, OriginId};

use super::export_file;
pub use super::export_file::ExportError;
use super::row::Entry;
use crate::registry::rules::{self, refuse_if};
use crate::registry::{
    DocumentMeta, NewChange, NewDocument, OriginEntry, RegistryError, Snapshot, StoredChange,
};

/// One document with everything that a registry keeps of it: to be written to a file, looked at, or put into a registry
/// again.
///
/// [`EmbeddedRegistry::export`](super::EmbeddedRegistry::export) and [`Inspector::export`](super::Inspector::export)
/// make them. All of it is in memory.
///
/// # Examples
///
/// ```
/// use sync_server::registry::{
///     ChangeId, DocumentId, EngineId, Epoch, Export, NewChange, NewDocument, OriginId, User,
/// };
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let document = NewDocument::new(DocumentId::new("notes/42")?, EngineId::OPAQUE, Epoch(7));
/// let id = ChangeId { origin: OriginId(1), number: 1 };
/// let export = Export::new(document, vec![NewChange::new(id, User::new("ada"), "hello".into())])?;
///
/// let mut file = Vec::new();
/// export.write_to(&mut file)?;
/// assert_eq!(Export::read_from(&file[..])?, export);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Export {
    /// What is known of the document without its content.
    pub meta: DocumentMeta,
    /// Digest at `meta.log_start`.
    pub start_digest: Digest,
    /// The snapshot, if there is one.
    pub snapshot: Option<Snapshot>,
    /// Every change after `meta.log_start`, in order.
    pub log: Vec<NewChange>,
    /// The table that decides duplicates, in the order of origins.
    pub origins: Vec<OriginEntry>,
}

impl Export {
    /// A history that starts with the document's snapshot, if it has one, and goes on with `log`, taken as it is. Origins are
    /// known by what is in it.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] if the snapshot stands at sequence 0, or if an origin's numbers do not ascend or belong to
    /// several users.
    pub fn new(document: NewDocument, log: Vec<NewChange>) -> Result<Self, RegistryError> {
        let mut meta = rules::created(&document)?;
        let start_digest = meta.digest;
        let mut origins: BTreeMap<OriginId, OriginEntry> = BTreeMap::new();
        for change in &log {
            meta.head = meta.head.next();
            meta.digest = meta.digest.with(change.id.number, &change.bytes);
            let origin = change.id.origin;
            let entry = origins
                .entry(origin)
                .or_insert_with(|| OriginEntry::new(origin, change.user.clone(), 0, meta.head));
            refuse_if(
                change.id.number <= entry.last,
                "an origin's numbers do not ascend in the log",
            )?;
            refuse_if(
                change.user != entry.user,
                "an origin belongs to several users in the log",
            )?;
            (entry.last, entry.seq) = (change.id.number, meta.head);
        }
        Ok(Self {
            meta,
            start_digest,
            snapshot: document.snapshot,
            log,
            origins: origins.into_values().collect(),
        })
    }

    /// A name for the history that takes the place of this one, and of the one that is there.
    pub(crate) fn epoch_after(&self, there: Option<Epoch>, random: u64) -> Epoch {
        let own = self.meta.epoch;
        let later = there.filter(|there| !there.is_before(own));
        later.unwrap_or(own).next(random)
    }

    /// The same content as another history: what an import makes of it.
    #[must_use]
    pub fn under(mut self, epoch: Epoch, mode: EpochMode) -> Self {
        self.meta.epoch = epoch;
        self.meta.mode = mode;
        self
    }

    /// The same content as another document: what a fork is made of, and an import under another name. Its changes get other
    /// origins, named by `salt`, which has to be random: clients number their changes anew in each document, and those that
    /// made these would use the same numbers again. Under the name that it has, it stays as it is.
    #[must_use]
    pub fn renamed(mut self, document: DocumentId, salt: u128) -> Self {
        if document == self.meta.id {
            return self;
        }
        self.meta.id = document;
        let other = |origin: OriginId| OriginId(origin.0 ^ salt);
        for change in &mut self.log {
            change.id.origin = other(change.id.origin);
        }
        for entry in &mut self.origins {
            entry.origin = other(entry.origin);
        }
        self.origins.sort_unstable_by_key(|entry| entry.origin);
        self
    }

    /// Whether everything fits together: sequences, digests, snapshot and origins.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`], which says what does not.
    pub fn verify(&self) -> Result<(), RegistryError> {
        self.contradiction().map_or(Ok(()), |what| {
            Err(RegistryError::Damaged { what: what.into() })
        })
    }

    fn contradiction(&self) -> Option<&'static str> {
        let meta = &self.meta;
        let snapshot_seq = self.snapshot.as_ref().map_or(Seq::ZERO, |found| found.seq);
        let end = u64::try_from(self.log.len())
            .ok()
            .and_then(|rows| meta.log_start.0.checked_add(rows));
        let start_is_known = meta.log_start > Seq::ZERO || self.start_digest == Digest::EMPTY;
        let rules = [
            (snapshot_seq == meta.snapshot_seq, "the snapshot is another"),
            (
                meta.log_start <= snapshot_seq && snapshot_seq <= meta.head,
                "the log does not continue the snapshot",
            ),
            (end == Some(meta.head.0), "the log does not end at the head"),
            (start_is_known, "the digest before the first change"),
        ];
        if let Some((_, what)) = rules.iter().find(|(holds, _)| !holds) {
            return Some(what);
        }
        let mut last: BTreeMap<OriginId, &StoredChange> = BTreeMap::new();
        let entries = self.entries();
        let mut digests = vec![(meta.log_start, self.start_digest)];
        digests.extend(
            entries
                .iter()
                .map(|row| (row.change.seq, row.change.digest)),
        );
        if digests.last() != Some(&(meta.head, meta.digest)) {
            return Some("the digest at the head");
        }
        let stands = |snapshot: &Snapshot| digests.contains(&(snapshot.seq, snapshot.digest));
        if self.snapshot.as_ref().is_some_and(|found| !stands(found)) {
            return Some("the digest of the snapshot is not the log's");
        }
        for row in &entries {
            let before = last.insert(row.change.id.origin, &row.change);
            if before.is_some_and(|before| before.id.number >= row.change.id.number) {
                return Some("an origin's numbers do not ascend in the log");
            }
        }
        let table: BTreeMap<_, _> = self.origins.iter().map(|e| (e.origin, e)).collect();
        let is_whole = table.len() == self.origins.len()
            && self
                .origins
                .iter()
                .all(|entry| match last.get(&entry.origin) {
                    Some(row) => (row.id.number, row.seq) == (entry.last, entry.seq),
                    None => entry.seq <= meta.log_start,
                })
            && entries.iter().all(|row| {
                let entry = table.get(&row.change.id.origin);
                entry.is_some_and(|entry| entry.user == row.user)
            });
        (!is_whole).then_some("the table of origins is not the log's")
    }

    /// The rows of the log, as they are committed.
    pub(in crate::registry) fn rows(&self) -> impl Iterator<Item = StoredChange> {
        self.entries().into_iter().map(|entry| entry.change)
    }

    /// The rows of the log, with the sequences and digests that follow from the start.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let (mut seq, mut digest) = (self.meta.log_start, self.start_digest);
        let row = |change: &NewChange| {
            seq = seq.next();
            digest = digest.with(change.id.number, &change.bytes);
            Entry {
                change: StoredChange::new(seq, change.id, change.bytes.clone(), digest)
                    .with_reconciling(change.reconciling),
                user: change.user.clone(),
            }
        };
        self.log.iter().map(row).collect()
    }

    /// Writes it as a file: `docs/guide/storage.md` has the format.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_to(&self, out: impl Write) -> std::io::Result<()> {
        export_file::write(self, out)
    }

    /// Reads what [`write_to`](Self::write_to) has written, to its end.
    ///
    /// # Errors
    /// [`ExportError`].
    pub fn read_from(input: impl Read) -> Result<Self, ExportError> {
        export_file::read(input)
    }
}
