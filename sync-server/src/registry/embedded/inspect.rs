//! A look into a directory, beside whoever has it open.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rusqlite::params;
use sync_core::history::Seq;
use sync_core::ids::DocumentId;

use super::EmbeddedOptions;
use super::document::Standing;
use super::export::Export;
use super::index::{Index, lock};
use super::planning::last_of_each;
use super::reader::Reader;
use super::row::Entry;
use super::schema::{Directory, OpenError, failed, opening, seq_column};
use super::standing::{find, list};
use super::writer::Shared;
use crate::registry::{DocumentMeta, RegistryError};

/// Reads the directory of an [`EmbeddedRegistry`](super::EmbeddedRegistry) as it was at one moment, also while a server
/// has it open.
///
/// It writes nothing, but to share the directory with a writer SQLite wants `sync.db-shm`, which it makes if it is not
/// there. While an inspector is open, the server's write-ahead log grows and does not begin again.
#[derive(Debug)]
pub struct Inspector {
    reader: Reader,
}

/// What there is of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DocumentInfo {
    /// What the registry says of it; of a deleted one, what it said last.
    pub meta: DocumentMeta,
    /// There is only a tombstone.
    pub is_deleted: bool,
    /// Bytes of the snapshot.
    pub snapshot_bytes: u64,
    /// Bytes that the rows of the kept log take, from the one on that holds its first change.
    pub log_bytes: u64,
    /// Bytes of `log_bytes` that are in the journal.
    pub journal_bytes: u64,
    /// Why the registry refuses it, if that is known without reading it.
    pub damaged: Option<String>,
}

impl DocumentInfo {
    /// Changes in the kept log.
    #[must_use]
    pub const fn log_changes(&self) -> u64 {
        self.meta.head.0.saturating_sub(self.meta.log_start.0)
    }
}

impl Inspector {
    /// Opens a directory that has a registry. Reads its journal: about a second for a gigabyte of it.
    ///
    /// # Errors
    /// [`OpenError`], but never [`OpenError::InUse`].
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, OpenError> {
        let directory = Directory::look(directory.as_ref());
        let path = directory.database();
        let is_there = path.try_exists().and_then(|is_there| {
            let missing = || io::Error::from(io::ErrorKind::NotFound);
            is_there.then_some(()).ok_or_else(missing)
        });
        is_there.map_err(|error| OpenError::Io {
            path: path.clone(),
            source: Box::new(error),
        })?;
        let opening = |error| opening(&path, error);
        let connection = directory.reading().map_err(opening)?;
        // What is read from here on is of one moment.
        connection.execute_batch("BEGIN").map_err(opening)?;
        if directory.format(&connection)?.is_none() {
            return Err(OpenError::Foreign { path });
        }
        let index = Index::read(&connection).map_err(opening)?;
        let shared = Arc::new(Shared {
            index,
            options: EmbeddedOptions::default(),
            is_broken: AtomicBool::new(false),
            directory,
        });
        let reader = Reader::with(connection, shared);
        Ok(Self { reader })
    }

    /// The documents whose ids come after `after`, in byte order of their ids, at most `limit`; deleted ones too.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`], [`RegistryError::Unavailable`].
    pub fn documents(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentInfo>, RegistryError> {
        let found = list(&self.reader.connection, after, limit)?;
        found
            .into_iter()
            .map(|(_, standing)| self.info(standing))
            .collect()
    }

    /// One document, also a deleted one.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Damaged`], [`RegistryError::Unavailable`].
    pub fn document(&self, document: &DocumentId) -> Result<DocumentInfo, RegistryError> {
        let found = find(&self.reader.connection, document)?;
        self.info(found.ok_or(RegistryError::NotFound)?)
    }

    /// All of a document. What can be read has been compared with its checksums; [`Export::verify`] says whether it fits
    /// together.
    ///
    /// # Errors
    /// [`RegistryError::NotFound`], [`RegistryError::Deleted`], [`RegistryError::Damaged`],
    /// [`RegistryError::Unavailable`].
    pub fn export(&self, document: &DocumentId) -> Result<Export, RegistryError> {
        self.reader.export(document)
    }

    /// Whether the database is whole, by SQLite's own check of its pages and indexes.
    ///
    /// # Errors
    /// [`RegistryError::Damaged`] with the first of what it found.
    pub fn check_database(&self) -> Result<(), RegistryError> {
        let said: String = self
            .reader
            .connection
            .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
            .map_err(failed)?;
        if said == "ok" {
            Ok(())
        } else {
            Err(RegistryError::Damaged { what: said })
        }
    }

    fn info(&self, stored: Standing) -> Result<DocumentInfo, RegistryError> {
        let (standing, journal_bytes, damaged) = match self.reader.shared.index.get(&stored.meta.id)
        {
            None => (stored, 0, None),
            Some(found) => {
                let found = lock(&found);
                let (bytes, damaged) = (found.bytes(), found.damaged.clone());
                (found.standing.clone(), bytes, damaged)
            }
        };
        let mut info = DocumentInfo {
            is_deleted: standing.is_deleted,
            snapshot_bytes: 0,
            log_bytes: 0,
            journal_bytes: 0,
            damaged,
            meta: standing.meta,
        };
        if info.is_deleted {
            return Ok(info);
        }
        let number = |sql: &str, keys: [i64; 2]| -> Result<u64, RegistryError> {
            let found = self.reader.number(sql, params![keys[0], keys[1]])?;
            Ok(found.unwrap_or(0))
        };
        let log_start = seq_column(info.meta.log_start)?;
        let log = number(
            "SELECT sum(length(changes)) FROM log WHERE doc = ?1 AND seq + n - 1 > ?2",
            [standing.doc, log_start],
        )?;
        info.journal_bytes = journal_bytes;
        info.log_bytes = log + journal_bytes;
        if let Some(snapshot) = standing.snapshot {
            info.snapshot_bytes = number(
                "SELECT length FROM snapshots WHERE snapshot = ?1 AND doc = ?2",
                [snapshot, standing.doc],
            )?;
        }
        Ok(info)
    }
}

/// Reads that are begun anew because the document was compacted or replaced between two of them.
const ATTEMPTS_MAX: u32 = 8;

impl Reader {
    pub(super) fn export(&self, document: &DocumentId) -> Result<Export, RegistryError> {
        for _ in 0..ATTEMPTS_MAX {
            if let Some(export) = self.try_export(document)? {
                return Ok(export);
            }
        }
        Err(RegistryError::unavailable(
            "the document keeps being compacted",
        ))
    }

    /// `None` if the document was compacted or replaced meanwhile.
    fn try_export(&self, document: &DocumentId) -> Result<Option<Export>, RegistryError> {
        let before = self.view(document, Seq(u64::MAX))?.standing;
        let stayed = |now: &Standing| {
            (now.doc, now.snapshot, now.meta.log_start)
                == (before.doc, before.snapshot, before.meta.log_start)
        };
        let snapshot = match self.read_snapshot(&before) {
            Err(_) if !stayed(&self.view(document, Seq(u64::MAX))?.standing) => {
                return Ok(None);
            }
            read => read?,
        };
        let mut origins = self.origin_table(document)?;
        let (view, page) = self.page(document, before.meta.log_start, usize::MAX, stayed)?;
        let Some(page) = page else {
            return Ok(None);
        };
        let mut meta = view.standing.meta;
        if let Some(last) = page.entries.last() {
            (meta.head, meta.digest) = (last.change.seq, last.change.digest);
        }
        // What was appended since the table was read is in the log.
        for entry in last_of_each(&page.entries) {
            origins.insert(entry.origin, entry);
        }
        let mut origins: Vec<_> = origins.into_values().collect();
        origins.sort_unstable_by_key(|entry| entry.origin);
        let log = page.entries.into_iter().map(Entry::into_change).collect();
        Ok(Some(Export {
            start_digest: view.standing.start_digest,
            meta,
            snapshot,
            log,
            origins,
        }))
    }
}
