//! Reads beside the writer, and prepares its longer work.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};
use sync_core::history::{Digest, Epoch, Seq};
use sync_core::ids::{DocumentId, OriginId};

use super::index::{Standing, find, list, lock};
use super::origins as stored;
use super::plan::{Compaction, FoldedDocument, Plan, segments};
use super::row::{Entry, check};
use super::rows::{Found, Page, View, digest_before};
use super::schema::{failed, unsigned};
use super::writer::Shared;
use crate::registry::group_commit::{BlockingReader, Patience};
use crate::registry::{DocumentMeta, OriginEntry, RegistryError, Snapshot, Tail, origins, rules};

/// Bytes of journal rows that are folded in one step.
const FOLD_BYTES: usize = 256 << 10;
/// Documents in one step: each touches some pages of its own.
const FOLD_DOCUMENTS: usize = 48;
/// Rows of the journal that are deleted in one step.
const TRIM_ROWS: i64 = 1_000;
/// How long tidying up waits for an idle moment.
const PATIENCE: Duration = Duration::from_millis(100);
/// Pages of the write-ahead log that the writer may be left to copy.
const PAGES_LEFT: u64 = 50;
/// Passes to get there, if appends are quicker than the disk.
const PASSES_MAX: usize = 4;

/// A connection that sees what is committed.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) connection: Connection,
    /// For checkpoints, once one is due.
    writing: Option<Connection>,
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
            Some(published) => View::new(&lock(&published), after)?,
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

    /// The digest at a sequence, of a log that holds it.
    fn digest_at(
        &mut self,
        document: &DocumentId,
        seq: Seq,
    ) -> Result<Option<Digest>, RegistryError> {
        Ok(match self.tail(document, seq, 0)? {
            Tail::Changes { digest, .. } => Some(digest),
            Tail::Compacted { .. } | Tail::BeyondHead { .. } => None,
        })
    }

    /// The whole table that decides duplicates.
    pub(super) fn origin_table(
        &self,
        document: &DocumentId,
    ) -> Result<HashMap<OriginId, OriginEntry>, RegistryError> {
        let (doc, changed) = self.changed_origins(document)?;
        let stored = stored::read_some(&self.connection, doc, usize::MAX)?;
        let mut entries: HashMap<OriginId, OriginEntry> = stored
            .into_iter()
            .map(|entry| (entry.origin, entry))
            .collect();
        entries.extend(changed);
        Ok(entries)
    }

    /// The document's number, and the entries that its rows in the journal have changed.
    fn changed_origins(
        &self,
        document: &DocumentId,
    ) -> Result<(i64, HashMap<OriginId, OriginEntry>), RegistryError> {
        let Some(published) = self.shared.index.get(document) else {
            return Ok((
                self.view(document, Seq(u64::MAX))?.standing.doc,
                HashMap::new(),
            ));
        };
        loop {
            let (standing, rows) = {
                let published = lock(&published);
                published.check()?;
                if published.standing.is_deleted {
                    return Err(RegistryError::Deleted);
                }
                let doc = published.standing.doc;
                if let Some(origins) = &published.origins {
                    return Ok((doc, origins.clone()));
                }
                let rows: Vec<_> = published.rows.iter().copied().collect();
                (published.standing.clone(), rows)
            };
            match stored::changed_by(&self.connection, standing.doc, &rows) {
                Ok(origins) => return Ok((standing.doc, origins)),
                // Unless they were folded in between.
                Err(error) if lock(&published).standing.folded == standing.folded => {
                    return Err(error);
                }
                Err(_) => {}
            }
        }
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
        let damaged = || RegistryError::Damaged {
            what: format!("the snapshot at sequence {}", standing.meta.snapshot_seq),
        };
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

    /// Copies what the write-ahead log has gained into the database, beside the writer. Whether the log is so long that it
    /// should begin again.
    fn checkpoint(&mut self, thorough: bool) -> Result<bool, RegistryError> {
        self.shared.index.wal_pages.store(0, Ordering::Relaxed);
        let connection = match &mut self.writing {
            Some(connection) => connection,
            none @ None => none.insert(self.shared.directory.writing().map_err(failed)?),
        };
        let shared = &self.shared;
        let directory = &shared.directory;
        let pass = || -> Result<(u64, u64), RegistryError> {
            let (pages, copied): (i64, i64) = connection
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                    Ok((row.get(1)?, row.get(2)?))
                })
                .map_err(|error| shared.not_copied(error))?;
            // SQLite syncs only when all is copied, which the writer then would have to wait for.
            directory.sync().map_err(RegistryError::unknown)?;
            let count = |pages: i64| u64::try_from(pages).unwrap_or_default();
            Ok((count(pages), count(pages - copied)))
        };
        let (pages, mut left) = pass()?;
        if !thorough && pages < self.shared.options.checkpoint_pages {
            return Ok(false);
        }
        // Each pass leaves what was written meanwhile, which is less each time.
        for _ in 0..PASSES_MAX {
            if left <= PAGES_LEFT {
                break;
            }
            left = pass()?.1;
        }
        Ok(true)
    }

    /// The next documents of the journal, as rows of the log.
    fn fold(&self) -> Result<Vec<FoldedDocument>, RegistryError> {
        let ids: Vec<DocumentId> = {
            let journal = self.shared.index.journal();
            journal
                .oldest
                .values()
                .take(FOLD_DOCUMENTS)
                .cloned()
                .collect()
        };
        let mut folded = Vec::new();
        let mut room = FOLD_BYTES;
        for document in ids {
            let Some(published) = self.shared.index.get(&document) else {
                continue;
            };
            let after = {
                let published = lock(&published);
                if published.damaged.is_some() || published.standing.is_deleted {
                    continue;
                }
                published.standing.folded
            };
            let (view, page) = match self.page(&document, after, room, |_| true) {
                Err(RegistryError::Damaged { what }) => {
                    self.shared.index.refuse(&published, what);
                    continue;
                }
                // Deleted in between.
                Err(RegistryError::Deleted) => continue,
                read => read?,
            };
            let entries = page.map(|page| page.entries).unwrap_or_default();
            let Some(last) = entries.last() else {
                continue;
            };
            let bytes: usize = entries.iter().map(|entry| entry.change.bytes.len()).sum();
            folded.push(FoldedDocument {
                doc: view.standing.doc,
                after,
                through: last.change.seq,
                digest: last.change.digest,
                segments: segments(&entries),
                origins: last_of_each(&entries),
                document,
            });
            match room.checked_sub(bytes) {
                Some(left) if left > 0 => room = left,
                _ => break,
            }
        }
        Ok(folded)
    }
}

pub(super) fn last_of_each(entries: &[Entry]) -> Vec<OriginEntry> {
    let mut origins = HashMap::new();
    for Entry { change, user } in entries {
        let entry = OriginEntry::new(change.id.origin, user.clone(), change.id.number, change.seq);
        origins.insert(change.id.origin, entry);
    }
    origins.into_values().collect()
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
                    Some(published) => lock(&published).standing.clone(),
                    None => stored,
                };
                if !standing.is_deleted {
                    metas.push(standing.meta);
                }
            }
        }
        Ok(metas)
    }

    fn heads(&mut self, documents: &[DocumentId]) -> Result<Vec<Option<Seq>>, RegistryError> {
        let head = |document| {
            let standing = match self.shared.index.get(document) {
                Some(published) => Some(lock(&published).standing.clone()),
                None => find(&self.connection, document)?,
            };
            let live = standing.filter(|standing| !standing.is_deleted);
            Ok(live.map(|standing| standing.meta.head))
        };
        documents.iter().map(head).collect()
    }

    fn origins(
        &mut self,
        document: &DocumentId,
        origins: &[OriginId],
    ) -> Result<Vec<Option<OriginEntry>>, RegistryError> {
        // First what is newer: it may be folded in between.
        let (doc, mut changed) = self.changed_origins(document)?;
        let mut entries = Vec::with_capacity(origins.len());
        for origin in origins {
            entries.push(match changed.get(origin) {
                Some(entry) => Some(entry.clone()),
                None => {
                    let found = stored::find(&self.connection, doc, *origin)?;
                    changed.extend(found.clone().map(|entry| (*origin, entry)));
                    found
                }
            });
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
        let standing = self.view(document, Seq(u64::MAX))?.standing;
        let stands = (snapshot.seq, snapshot.digest);
        let compacts = rules::compacts(&standing.meta, epoch, stands, keep_after, |seq| {
            self.digest_at(document, seq)
        })?;
        if !compacts {
            return Ok(None);
        }
        let (mut start_digest, mut evicted) = (standing.start_digest, Vec::new());
        if keep_after > standing.meta.log_start {
            // Another compaction may have been quicker: then this one drops nothing.
            if let Some(digest) = self.digest_at(document, keep_after)? {
                start_digest = digest;
                evicted = origins::evicted(self.origin_table(document)?.values(), keep_after);
            }
        }
        Ok(Some(Plan::Compact(Compaction {
            document: document.clone(),
            doc: standing.doc,
            epoch,
            snapshot,
            keep_after,
            start_digest,
            evicted,
            number: None,
            next: 0,
        })))
    }

    fn plan_upkeep(&mut self, thorough: bool) -> Result<Option<(Plan, Patience)>, RegistryError> {
        let options = self.shared.options.clone();
        let index = &self.shared.index;
        let pages = index.wal_pages.load(Ordering::Relaxed);
        if (pages >= options.pass_pages() || (thorough && pages > 0))
            && self.checkpoint(thorough)?
        {
            // What was written during the last pass is left for the writer: it can be sure that nothing follows.
            return Ok(Some((Plan::RestartLog, Duration::ZERO)));
        }
        let index = &self.shared.index;
        let (bytes, first, needed) = {
            let journal = index.journal();
            (journal.bytes, journal.first_row, journal.needed())
        };
        if needed - first >= TRIM_ROWS || (thorough && needed > first) {
            let through = (first + TRIM_ROWS).min(needed) - 1;
            let trim = Plan::Trim {
                from: first,
                through,
            };
            return Ok(Some((trim, PATIENCE)));
        }
        if bytes >= options.fold_bytes || (thorough && bytes > 0) {
            let folded = self.fold()?;
            if !folded.is_empty() {
                let is_urgent = bytes >= options.fold_bytes.saturating_mul(32);
                let patience = if is_urgent { Duration::ZERO } else { PATIENCE };
                return Ok(Some((Plan::Fold(folded), patience)));
            }
        }
        if index.has_garbage.load(Ordering::Relaxed) {
            return Ok(Some((Plan::Purge, PATIENCE)));
        }
        Ok(None)
    }
}
