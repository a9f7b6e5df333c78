//! Prepares the writer's longer work: compaction, and tidying up.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sync_core::history::{Digest, Epoch, Seq};
use sync_core::ids::{DocumentId, OriginId};

use super::document::Standing;
use super::index::lock;
use super::origins as stored;
use super::plan::{Compaction, FoldedDocument, Plan, segments};
use super::reader::Reader;
use super::row::Entry;
use super::schema::failed;
use crate::registry::group_commit::{BlockingReader, Patience};
use crate::registry::{OriginEntry, RegistryError, Snapshot, Tail, origins, rules};

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

impl Reader {
    /// As [`BlockingReader::plan_compaction`].
    pub(super) fn compaction(
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
        self.plan(document, standing, epoch, snapshot, keep_after)
            .map(|plan| Some(Plan::Compact(plan)))
    }

    /// As [`BlockingReader::plan_trim`].
    pub(super) fn trimming(
        &mut self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        next: Epoch,
    ) -> Result<Option<Plan>, RegistryError> {
        let standing = self.view(document, Seq(u64::MAX))?.standing;
        let stands = (snapshot.seq, snapshot.digest);
        if !rules::trims(&standing.meta, epoch, stands, next)? {
            return Ok(None);
        }
        let mut plan = self.plan(document, standing, epoch, snapshot, stands.0)?;
        plan.begins = Some(next);
        Ok(Some(Plan::Compact(plan)))
    }

    fn plan(
        &mut self,
        document: &DocumentId,
        standing: Standing,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<Compaction, RegistryError> {
        let (mut start_digest, mut evicted) = (standing.start_digest, Vec::new());
        if keep_after > standing.meta.log_start {
            // Another compaction may have been quicker: then this one drops nothing.
            if let Some(digest) = self.digest_at(document, keep_after)? {
                start_digest = digest;
                evicted = origins::evicted(self.origin_table(document)?.values(), keep_after);
            }
        }
        Ok(Compaction {
            document: document.clone(),
            doc: standing.doc,
            epoch,
            snapshot,
            keep_after,
            begins: None,
            start_digest,
            evicted,
            number: None,
            next: 0,
        })
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
        let (doc, changed) = self.changed_origins(document, |changed| {
            changed.iter().cloned().collect::<Vec<_>>()
        })?;
        let stored = stored::read_some(&self.connection, doc, usize::MAX)?;
        let all = stored.into_iter().chain(changed);
        Ok(all.map(|entry| (entry.origin, entry)).collect())
    }

    /// As [`BlockingReader::plan_upkeep`].
    pub(super) fn upkeep(
        &mut self,
        thorough: bool,
    ) -> Result<Option<(Plan, Patience)>, RegistryError> {
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

    /// Copies what the write-ahead log has gained into the database, beside the writer. Whether the log is so long that it
    /// should begin again.
    fn checkpoint(&mut self, thorough: bool) -> Result<bool, RegistryError> {
        self.shared.index.wal_pages.store(0, Ordering::Relaxed);
        let connection = match &mut self.writing {
            Some(connection) => connection,
            none @ None => none.insert(self.shared.directory.writing().map_err(failed)?),
        };
        let shared = &self.shared;
        let pass = || -> Result<(u64, u64), RegistryError> {
            let (pages, copied): (i64, i64) = connection
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                    Ok((row.get(1)?, row.get(2)?))
                })
                .map_err(|error| shared.not_copied(error))?;
            // SQLite syncs only when all is copied, which the writer then would have to wait for.
            let synced = shared.directory.sync();
            synced.map_err(|error| shared.not_synced(Box::new(error)))?;
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
