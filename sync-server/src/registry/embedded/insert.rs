//! The rows that a document begins with, whether it is created, replaced or compacted.

use rusqlite::params;

use super::document::Standing;
use super::plan::{Compaction, Segment};
use super::row::check;
use super::schema::{seq_column, signed};
use super::writer::{Engine, PAGE};
use crate::registry::{RegistryError, Snapshot};

impl Engine {
    /// Writes a document that is not there, and its snapshot.
    pub(super) fn insert_document(
        &mut self,
        standing: &Standing,
        snapshot: Option<&Snapshot>,
    ) -> Result<(), RegistryError> {
        let meta = &standing.meta;
        let head = seq_column(meta.head)?;
        let log_start = seq_column(meta.log_start)?;
        let snapshot_seq = seq_column(meta.snapshot_seq)?;
        self.pages += 3;
        self.write(|connection| {
            connection
                .prepare_cached(
                    "INSERT INTO documents (doc, id, engine, epoch, mode, head, digest, log_start,
                         start_digest, snapshot, snapshot_seq)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
                )?
                .execute(params![
                    standing.doc,
                    meta.id.as_str(),
                    meta.engine.as_str(),
                    signed(meta.epoch.0),
                    meta.mode.code(),
                    head,
                    signed(meta.digest.0),
                    log_start,
                    signed(standing.start_digest.0),
                    standing.snapshot,
                    snapshot_seq,
                ])
        })?;
        let (Some(number), Some(snapshot)) = (standing.snapshot, snapshot) else {
            return Ok(());
        };
        for (part, bytes) in (0..).zip(snapshot.bytes.chunks(Compaction::PART)) {
            self.write_part(number, part, bytes)?;
        }
        self.write_snapshot(number, standing.doc, snapshot)
    }

    pub(super) fn write_part(
        &mut self,
        number: i64,
        part: i64,
        bytes: &[u8],
    ) -> Result<(), RegistryError> {
        self.pages += u64::try_from(bytes.len()).unwrap_or(0) / PAGE + 2;
        self.write(|connection| {
            connection
                .prepare_cached("INSERT INTO parts VALUES (?1, ?2, ?3)")?
                .execute(params![number, part, bytes])
        })?;
        Ok(())
    }

    /// Notes a snapshot whose parts are all written.
    pub(super) fn write_snapshot(
        &mut self,
        number: i64,
        doc: i64,
        snapshot: &Snapshot,
    ) -> Result<(), RegistryError> {
        let seq = seq_column(snapshot.seq)?;
        let digest = signed(snapshot.digest.0);
        let length = i64::try_from(snapshot.bytes.len()).unwrap_or(i64::MAX);
        let hash = i64::from_le_bytes(check(snapshot.seq, &snapshot.bytes));
        self.write(|connection| {
            connection
                .prepare_cached("INSERT INTO snapshots VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
                .execute(params![number, doc, seq, digest, length, hash])
        })?;
        Ok(())
    }

    pub(super) fn write_log(&mut self, doc: i64, rows: &[Segment]) -> Result<(), RegistryError> {
        for row in rows {
            let seq = seq_column(row.seq)?;
            let digest = signed(row.digest.0);
            self.pages += u64::try_from(row.changes.len()).unwrap_or(0) / PAGE + 2;
            self.write(|connection| {
                connection
                    .prepare_cached("INSERT INTO log VALUES (?1, ?2, ?3, ?4, ?5)")?
                    .execute(params![doc, seq, row.n, digest, row.changes])
            })?;
        }
        Ok(())
    }
}
