//! What the writer does besides appending: compaction, and tidying up, in small steps.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rusqlite::{OptionalExtension, params};
use sync_core::history::{Digest, EpochMode, Seq};
use sync_core::ids::OriginId;

use super::document::Standing;
use super::index::lock;
use super::plan::{Compaction, FoldedDocument, Plan};
use super::schema::{failed, seq_column, signed};
use super::writer::Engine;
use crate::registry::{OriginEntry, RegistryError};

/// Time after which a step of folding ends, at the next document.
const STEP: Duration = Duration::from_millis(1);

impl Engine {
    pub(super) fn compact_step(
        &mut self,
        mut plan: Compaction,
    ) -> Result<Option<Plan>, RegistryError> {
        let standing = lock(&*self.load_live(&plan.document)?).upcoming();
        if standing.doc != plan.doc {
            return Err(RegistryError::Fenced {
                current: standing.meta.epoch,
            });
        }
        // Asked again with each step: another one may have been quicker, or the log has moved on.
        let goes_on = plan.goes_on(&standing.meta);
        if !matches!(goes_on, Ok(true)) {
            if plan.is_begun() {
                self.throw_away(None, None, Some(plan.number()))?;
            }
            return goes_on.map(|_| None);
        }
        if !plan.is_begun() {
            plan.begin(self.allot_snapshot());
        }
        let parts = plan.next_parts();
        if !parts.is_empty() {
            let number = plan.number();
            for (part, bytes) in parts {
                self.write_part(number, part, &bytes)?;
            }
            return Ok(Some(Plan::Compact(plan)));
        }
        self.finish_compaction(plan).map(Some)
    }

    /// The step that counts: the snapshot and the log's start change together.
    fn finish_compaction(&mut self, plan: Compaction) -> Result<Plan, RegistryError> {
        let document = self.load_live(&plan.document)?;
        let mut standing = lock(&document).upcoming();
        let replaced = standing.snapshot.replace(plan.number());
        standing.meta.snapshot_seq = plan.snapshot.seq;
        if let Some(next) = plan.begins {
            standing.meta.epoch = next;
            standing.meta.mode = EpochMode::Rebase;
        }
        let mut evicted = Vec::new();
        let mut unfolded = Vec::new();
        let drops = plan.keep_after > standing.meta.log_start;
        if drops {
            standing.meta.log_start = plan.keep_after;
            standing.start_digest = plan.start_digest;
            evicted.clone_from(&plan.evicted);
            if plan.keep_after > standing.folded {
                // These rows are dropped before they were folded; what they did to origins stays.
                let unwritten = standing.folded.next()..=plan.keep_after;
                let document = lock(&document);
                let origins = document.origins.iter();
                unfolded.extend(
                    origins
                        .filter(|entry| unwritten.contains(&entry.seq))
                        .cloned(),
                );
                standing.folded = plan.keep_after;
            }
        }
        let doc = plan.doc;
        self.write_snapshot(plan.number(), doc, &plan.snapshot)?;
        self.write_origins(doc, &unfolded)?;
        self.write_standing(&standing)?;
        if drops {
            self.throw_away(Some(doc), Some(plan.keep_after), None)?;
        }
        if replaced.is_some() {
            self.throw_away(None, None, replaced)?;
        }
        self.stage(&document, |staged| {
            staged.changed = Some(standing);
            staged.evicted.extend(&evicted);
        });
        Ok(Plan::Evict {
            doc,
            origins: evicted,
            through: plan.keep_after,
        })
    }

    /// As many of these documents as there is time for; the rest comes back.
    pub(super) fn fold(
        &mut self,
        mut folded: Vec<FoldedDocument>,
    ) -> Result<Option<Plan>, RegistryError> {
        let began = Instant::now();
        while let Some(fold) = folded.pop() {
            let Some(document) = self.load(&fold.document)? else {
                continue;
            };
            let mut standing = lock(&document).upcoming();
            if standing.doc != fold.doc || standing.is_deleted || standing.folded != fold.after {
                // Compacted, replaced or deleted in between.
                continue;
            }
            standing.folded = fold.through;
            let doc = fold.doc;
            self.write_log(doc, &fold.segments)?;
            self.write_origins(doc, &fold.origins)?;
            self.write_head(doc, fold.through, fold.digest)?;
            self.stage(&document, |staged| staged.changed = Some(standing));
            if began.elapsed() >= STEP && !folded.is_empty() {
                return Ok(Some(Plan::Fold(folded)));
            }
        }
        Ok(None)
    }

    fn write_head(&mut self, doc: i64, head: Seq, digest: Digest) -> Result<(), RegistryError> {
        let head = seq_column(head)?;
        self.pages += 1;
        self.write(|connection| {
            connection
                .prepare_cached("UPDATE documents SET head = ?2, digest = ?3 WHERE doc = ?1")?
                .execute(params![doc, head, signed(digest.0)])
        })?;
        Ok(())
    }

    /// Writes everything but what only folding changes, unless the log now starts later.
    pub(super) fn write_standing(&mut self, standing: &Standing) -> Result<(), RegistryError> {
        let Standing {
            doc,
            meta,
            start_digest,
            snapshot,
            is_deleted,
            ..
        } = standing;
        let log_start = seq_column(meta.log_start)?;
        let snapshot_seq = seq_column(meta.snapshot_seq)?;
        self.pages += 2;
        self.write(|connection| {
            connection
                .prepare_cached(
                    "UPDATE documents SET log_start = ?2, start_digest = ?3, snapshot = ?4,
                         snapshot_seq = ?5, deleted = ?6, epoch = ?7, mode = ?8,
                         digest = iif(head < ?2, ?3, digest), head = max(head, ?2)
                     WHERE doc = ?1",
                )?
                .execute(params![
                    doc,
                    log_start,
                    signed(start_digest.0),
                    snapshot,
                    snapshot_seq,
                    is_deleted,
                    signed(meta.epoch.0),
                    meta.mode.code()
                ])
        })?;
        Ok(())
    }

    pub(super) fn write_origins(
        &mut self,
        doc: i64,
        entries: &[OriginEntry],
    ) -> Result<(), RegistryError> {
        for entry in entries {
            let seq = seq_column(entry.seq)?;
            self.pages += 1;
            self.write(|connection| {
                connection
                    .prepare_cached(
                        "INSERT INTO origins VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO UPDATE
                         SET last = excluded.last, seq = excluded.seq WHERE excluded.seq > seq",
                    )?
                    .execute(params![
                        doc,
                        entry.origin.0.to_be_bytes(),
                        &*entry.user.id,
                        signed(entry.last),
                        seq
                    ])
            })?;
        }
        Ok(())
    }

    /// Notes what is not needed any more, to be deleted piece by piece.
    pub(super) fn throw_away(
        &mut self,
        doc: Option<i64>,
        through: Option<Seq>,
        snapshot: Option<i64>,
    ) -> Result<(), RegistryError> {
        let through = through.map(seq_column).transpose()?;
        self.write(|connection| {
            connection
                .prepare_cached("INSERT INTO garbage (doc, through, snapshot) VALUES (?1, ?2, ?3)")?
                .execute(params![doc, through, snapshot])
        })?;
        self.shared.index.has_garbage.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Deletes a piece of what is not needed any more.
    pub(super) fn purge(&mut self) -> Result<(), RegistryError> {
        // A row may have many pages.
        const ROWS: i64 = 32;
        type Garbage = (i64, Option<i64>, Option<i64>, Option<i64>);
        let next: Option<Garbage> = self.read(|connection| {
            connection
                .prepare_cached("SELECT garbage, doc, through, snapshot FROM garbage LIMIT 1")
                .and_then(|mut statement| {
                    statement
                        .query_row([], |row| {
                            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
                        })
                        .optional()
                })
                .map_err(failed)
        })?;
        let Some((garbage, doc, through, snapshot)) = next else {
            self.shared
                .index
                .has_garbage
                .store(false, Ordering::Relaxed);
            return Ok(());
        };
        self.pages += 64;
        self.write(|connection| {
            let delete =
                |sql: &str, key: i64| connection.prepare_cached(sql)?.execute(params![key, ROWS]);
            let mut rows = 0;
            if let Some(snapshot) = snapshot {
                rows = delete(
                    "DELETE FROM parts WHERE snapshot = ?1 AND part IN
                         (SELECT part FROM parts WHERE snapshot = ?1 LIMIT ?2)",
                    snapshot,
                )?;
                connection.execute("DELETE FROM snapshots WHERE snapshot = ?1", [snapshot])?;
            } else if let (Some(doc), Some(through)) = (doc, through) {
                rows = connection
                    .prepare_cached(
                        "DELETE FROM log WHERE doc = ?1 AND seq IN (SELECT seq FROM log
                             WHERE doc = ?1 AND seq + n - 1 <= ?3 ORDER BY seq LIMIT ?2)",
                    )?
                    .execute(params![doc, ROWS, through])?;
            } else if let Some(doc) = doc {
                rows = delete(
                    "DELETE FROM log WHERE doc = ?1 AND seq IN
                         (SELECT seq FROM log WHERE doc = ?1 LIMIT ?2)",
                    doc,
                )?;
                rows += delete(
                    "DELETE FROM origins WHERE doc = ?1 AND origin IN
                         (SELECT origin FROM origins WHERE doc = ?1 LIMIT ?2)",
                    doc,
                )?;
            }
            if rows == 0 {
                connection.execute("DELETE FROM garbage WHERE garbage = ?1", [garbage])?;
            }
            Ok(())
        })
    }

    pub(super) fn trim(&mut self, from: i64, through: i64) -> Result<(), RegistryError> {
        let damaged: Vec<_> = {
            let journal = self.shared.index.journal();
            journal.damaged.iter().map(i64::to_string).collect()
        };
        let damaged = damaged.join(", ");
        self.write(|connection| {
            connection
                .prepare_cached(&format!(
                    "DELETE FROM journal WHERE row BETWEEN ?1 AND ?2 AND doc NOT IN ({damaged})"
                ))?
                .execute(params![from, through])
        })?;
        self.pages += 64;
        let mut journal = self.shared.index.journal();
        journal.first_row = journal.first_row.max(through + 1);
        Ok(())
    }

    pub(super) fn evict(
        &mut self,
        doc: i64,
        mut origins: Vec<OriginId>,
        through: Seq,
    ) -> Result<Option<Plan>, RegistryError> {
        const ORIGINS: usize = 200;
        let rest = origins.split_off(origins.len().min(ORIGINS));
        let through_column = seq_column(through)?;
        for origin in origins {
            self.pages += 1;
            self.write(|connection| {
                connection
                    .prepare_cached(
                        "DELETE FROM origins WHERE doc = ?1 AND origin = ?2 AND seq <= ?3",
                    )?
                    .execute(params![doc, origin.0.to_be_bytes(), through_column])
            })?;
        }
        Ok((!rest.is_empty()).then_some(Plan::Evict {
            doc,
            origins: rest,
            through,
        }))
    }

    /// Finishes a checkpoint. Most of it was done beside the writer. What is left must find nobody writing.
    pub(super) fn restart_log(&mut self) -> Result<(), RegistryError> {
        if self.in_transaction {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        self.read(|connection| {
            connection
                .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
                .map_err(|error| shared.not_copied(error))
        })
    }
}
