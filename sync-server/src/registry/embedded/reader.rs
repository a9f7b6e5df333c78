//! Reads beside the writer.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, ToSql, params};
use sync_core::history::{Cursor, Digest, Epoch, Seq};
use sync_core::ids::{DocumentId, OriginId};

use super::document::{Known, Standing};
use super::entries::Entries;
use super::index::lock;
use super::origins as stored;
use super::plan::Plan;
use super::row::check;
use super::rows::{Found, Page, View, digest_before};
use super::schema::{failed, seq_column, unsigned};
use super::standing::{find, list};
use super::writer::Shared;
use crate::registry::group_commit::{BlockingReader, Patience};
use crate::registry::{DocumentMeta, DocumentSize, OriginEntry, RegistryError, Snapshot, Tail};

/// A connection that sees what is committed.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) connection: Connection,
    /// For checkpoints, once one is due.
    pub(super) writing: Option<Connection>,
    pub(super) shared: Arc<Shared>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>) -> Result<Self, rusqlite::Error> {
        Ok(Self::with(shared.directory.reading()?, shared))
    }

    pub(super) const fn with(connection: Connection, shared: Arc<Shared>) -> Self {
        Self {
            connection,
            writing: None,
            shared,
        }
    }

    /// The document as it stands, with its rows after a sequence.
    pub(super) fn view(&self, document: &DocumentId, after: Seq) -> Result<View, RegistryError> {
        let view = match self.shared.index.get(document) {
            Some(found) => View::new(&lock(&found), after)?,
            None => {
                let found = find(&self.connection, document)?;
                View::folded(found.ok_or(RegistryError::NotFound)?)
            }
        };
        if view.standing.is_deleted {
            return Err(RegistryError::Deleted);
        }
        Ok(view)
    }

    /// A page of changes, and the document as it stood when the last of them were read. `None` if `wanted` says so of
    /// the document.
    pub(super) fn page(
        &self,
        document: &DocumentId,
        after: Seq,
        max_bytes: usize,
        wanted: impl Fn(&Standing) -> bool,
    ) -> Result<(View, Option<Page>), RegistryError> {
        let mut page = Page::new(after, max_bytes);
        let mut view = self.view(document, page.through())?;
        loop {
            if !wanted(&view.standing) {
                return Ok((view, None));
            }
            match page.read(&self.connection, &view)? {
                Found::All => return Ok((view, Some(page))),
                Found::More => view = self.view(document, page.through())?,
                Found::Missing => {
                    // Rows move from the journal to the log; only what moved is looked for again.
                    let now = self.view(document, page.through())?;
                    let stayed = |a: &Standing, b: &Standing| {
                        (a.doc, a.folded, a.meta.log_start) == (b.doc, b.folded, b.meta.log_start)
                    };
                    if stayed(&view.standing, &now.standing) {
                        return Err(missing(page.through().next()));
                    }
                    if now.standing.doc == view.standing.doc {
                        view = now;
                    } else {
                        page = Page::new(after, max_bytes);
                        view = self.view(document, after)?;
                    }
                }
            }
        }
    }

    /// The document's number, and what `f` makes of the entries that its rows in the journal have changed. There may be
    /// more, but none that is older than the database's.
    pub(super) fn changed_origins<T>(
        &self,
        document: &DocumentId,
        f: impl Fn(&Entries) -> T,
    ) -> Result<(i64, T), RegistryError> {
        let Some(found) = self.shared.index.get(document) else {
            let doc = self.view(document, Seq(u64::MAX))?.standing.doc;
            return Ok((doc, f(&Entries::default())));
        };
        loop {
            let (doc, folded, rows) = {
                let found = lock(&found);
                found.check()?;
                let standing = &found.standing;
                if standing.is_deleted {
                    return Err(RegistryError::Deleted);
                }
                if found.known != Known::Nothing {
                    return Ok((standing.doc, f(&found.origins)));
                }
                let rows: Vec<_> = found.rows.iter().copied().collect();
                (standing.doc, standing.folded, rows)
            };
            match stored::changed_by(&self.connection, doc, &rows) {
                Ok(origins) => return Ok((doc, f(&origins))),
                // Unless they were folded in between.
                Err(error) if lock(&found).standing.folded == folded => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
    }

    /// The document as it stands, and what its rows in the journal take that are after the snapshot.
    fn sized(&self, document: &DocumentId) -> Result<(Standing, u64), RegistryError> {
        let (standing, journal) = match self.shared.index.get(document) {
            Some(found) => {
                let found = lock(&found);
                let after = found.standing.meta.snapshot_seq;
                let rows = found.rows_after(after);
                let bytes = rows.map(|row| row.bytes_after(after)).sum();
                (found.standing.clone(), bytes)
            }
            None => {
                let found = find(&self.connection, document)?;
                (found.ok_or(RegistryError::NotFound)?, 0)
            }
        };
        if standing.is_deleted {
            return Err(RegistryError::Deleted);
        }
        Ok((standing, journal))
    }

    /// The one number that a query finds, unless there is none.
    pub(super) fn number(
        &self,
        sql: &str,
        keys: &[&dyn ToSql],
    ) -> Result<Option<u64>, RegistryError> {
        let found: Option<Option<i64>> = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row(keys, |row| row.get(0)).optional())
            .map_err(failed)?;
        Ok(found.flatten().and_then(|n| n.try_into().ok()))
    }

    pub(super) fn read_snapshot(
        &self,
        standing: &Standing,
    ) -> Result<Option<Snapshot>, RegistryError> {
        let Some(number) = standing.snapshot else {
            return Ok(None);
        };
        // One moment for all parts.
        let transaction = self
            .connection
            .is_autocommit()
            .then(|| self.connection.unchecked_transaction());
        let _transaction = transaction.transpose().map_err(failed)?;
        let head = self
            .connection
            .prepare_cached("SELECT seq, digest, length, hash FROM snapshots WHERE snapshot = ?1")
            .and_then(|mut statement| {
                statement
                    .query_row([number], |row| {
                        let seq = Seq(unsigned(row.get(0)?));
                        let digest = Digest(unsigned(row.get(1)?));
                        Ok((seq, digest, row.get::<_, u32>(2)?, row.get::<_, i64>(3)?))
                    })
                    .optional()
            })
            .map_err(failed)?;
        let damaged = || damaged(&standing.meta);
        let (seq, digest, length, hash) = head.ok_or_else(damaged)?;
        // Growing by doubling would take up to three times a large document.
        let mut bytes = Vec::new();
        let whole = usize::try_from(length).map_err(|_| damaged())?;
        bytes.try_reserve_exact(whole).map_err(|_| damaged())?;
        let mut statement = self
            .connection
            .prepare_cached("SELECT bytes FROM parts WHERE snapshot = ?1 ORDER BY part")
            .map_err(failed)?;
        let mut parts = statement.query([number]).map_err(failed)?;
        while let Some(part) = parts.next().map_err(failed)? {
            let part = part.get_ref(0).map_err(failed)?;
            bytes.extend_from_slice(part.as_blob().map_err(|_| damaged())?);
        }
        let is_whole = u32::try_from(bytes.len()) == Ok(length)
            && i64::from_le_bytes(check(seq, &bytes)) == hash
            && seq == standing.meta.snapshot_seq;
        if is_whole {
            Ok(Some(Snapshot::new(seq, digest, bytes.into())))
        } else {
            Err(damaged())
        }
    }
}

fn damaged(meta: &DocumentMeta) -> RegistryError {
    RegistryError::Damaged {
        what: format!("the snapshot at sequence {}", meta.snapshot_seq),
    }
}

fn missing(seq: Seq) -> RegistryError {
    RegistryError::Damaged {
        what: format!("the change at sequence {seq} is missing"),
    }
}

impl BlockingReader for Reader {
    type Plan = Plan;

    fn meta(&mut self, document: &DocumentId) -> Result<DocumentMeta, RegistryError> {
        Ok(self.view(document, Seq(u64::MAX))?.standing.meta)
    }

    fn tail(
        &mut self,
        document: &DocumentId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Tail, RegistryError> {
        let (view, page) = self.page(document, after, max_bytes, |standing| {
            (standing.meta.log_start..=standing.meta.head).contains(&after)
        })?;
        let meta = &view.standing.meta;
        let (epoch, head) = (meta.epoch, meta.head);
        let Some(page) = page else {
            return Ok(if after > head {
                Tail::BeyondHead { epoch, head }
            } else {
                Tail::Compacted {
                    epoch,
                    log_start: meta.log_start,
                }
            });
        };
        let digest = page
            .entries
            .first()
            .map_or(meta.digest, |first| digest_before(&first.change));
        let known = after == meta.log_start && digest != view.standing.start_digest;
        if known {
            return Err(RegistryError::Damaged {
                what: format!("the digest at sequence {after}"),
            });
        }
        Ok(Tail::Changes {
            epoch,
            digest,
            changes: page.entries.into_iter().map(|entry| entry.change).collect(),
            head,
        })
    }

    fn snapshot(&mut self, document: &DocumentId) -> Result<Option<Snapshot>, RegistryError> {
        loop {
            let view = self.view(document, Seq(u64::MAX))?;
            match self.read_snapshot(&view.standing) {
                Err(error @ RegistryError::Damaged { .. }) => {
                    let now = self.view(document, Seq(u64::MAX))?;
                    if now.standing.snapshot == view.standing.snapshot {
                        return Err(error);
                    }
                    // Replaced, and thrown away, in between.
                }
                read => return read,
            }
        }
    }

    fn size(&mut self, document: &DocumentId) -> Result<DocumentSize, RegistryError> {
        loop {
            let (standing, journal) = self.sized(document)?;
            let meta = &standing.meta;
            let (first, last) = (seq_column(meta.snapshot_seq)?, seq_column(standing.folded)?);
            let log = self.number(
                "SELECT sum(length(changes) * min(n, seq + n - 1 - ?2) / n) FROM log \
                 WHERE doc = ?1 AND seq + n - 1 > ?2 AND seq <= ?3",
                params![standing.doc, first, last],
            )?;
            let snapshot = match standing.snapshot {
                None => Some(0),
                Some(number) => self.number(
                    "SELECT length FROM snapshots WHERE snapshot = ?1",
                    params![number],
                )?,
            };
            match snapshot {
                Some(bytes) => {
                    let log = log.unwrap_or(0) + journal;
                    return Ok(DocumentSize::new(meta.head, meta.snapshot_seq, bytes, log));
                }
                None if self.sized(document)?.0.snapshot == standing.snapshot => {
                    return Err(damaged(meta));
                }
                // Replaced, and thrown away, in between.
                None => {}
            }
        }
    }

    fn list(
        &mut self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentMeta>, RegistryError> {
        let mut metas = Vec::new();
        let mut after = after.cloned();
        while metas.len() < limit {
            let found = list(&self.connection, after.as_ref(), limit - metas.len())?;
            let Some((last, _)) = found.last() else {
                break;
            };
            after = Some(last.clone());
            for (id, stored) in found {
                let standing = match self.shared.index.get(&id) {
                    Some(found) => lock(&found).standing.clone(),
                    None => stored,
                };
                if !standing.is_deleted {
                    metas.push(standing.meta);
                }
            }
        }
        Ok(metas)
    }

    fn heads(&mut self, documents: &[DocumentId]) -> Result<Vec<Option<Cursor>>, RegistryError> {
        let head = |document| {
            let standing = match self.shared.index.get(document) {
                Some(published) => Some(lock(&published).standing.clone()),
                None => find(&self.connection, document)?,
            };
            let live = standing.filter(|standing| !standing.is_deleted);
            Ok(live.map(|standing| standing.meta.cursor()))
        };
        documents.iter().map(head).collect()
    }

    fn origins(
        &mut self,
        document: &DocumentId,
        origins: &[OriginId],
    ) -> Result<Vec<Option<OriginEntry>>, RegistryError> {
        // First what is newer: it may be folded in between.
        let (doc, mut entries) = self.changed_origins(document, |changed| {
            let changed = origins.iter().map(|origin| changed.get(*origin).cloned());
            changed.collect::<Vec<_>>()
        })?;
        for (origin, entry) in origins.iter().zip(&mut entries) {
            if entry.is_none() {
                *entry = stored::find(&self.connection, doc, *origin)?;
            }
        }
        Ok(entries)
    }

    fn plan_compaction(
        &mut self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<Option<Plan>, RegistryError> {
        self.compaction(document, epoch, snapshot, keep_after)
    }

    fn plan_trim(
        &mut self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        next: Epoch,
    ) -> Result<Option<Plan>, RegistryError> {
        self.trimming(document, epoch, snapshot, next)
    }

    fn plan_upkeep(&mut self, thorough: bool) -> Result<Option<(Plan, Patience)>, RegistryError> {
        self.upkeep(thorough)
    }
}
