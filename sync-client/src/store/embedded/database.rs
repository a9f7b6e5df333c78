//! The tables, and what is written to and read from them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode as SqliteCode, OptionalExtension, Row, Transaction, params};
use sync_core::BoxError;
use sync_core::client::{RefusedChange, RefusedReason};
use sync_core::error::ErrorCode;
use sync_core::history::{Cursor, Digest, Epoch, Seq};
use sync_core::ids::{ChangeId, DocumentId, EngineId, OriginId};

use super::writer::Change;
use crate::store::{OutboxChange, StoreError, StoreWrite, StoredDocument};

/// What is in `user_version`.
const FORMAT: u32 = 1;

/// What is in `application_id`: "sync".
const APPLICATION: u32 = 0x7379_6e63;

/// Time that another program, such as the `sqlite3` tool, may hold the database.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Unsigned numbers are stored with their bits, as SQLite's are signed. The snapshot is in a table of its own, so that a new
/// cursor does not rewrite it.
const SCHEMA: &str = "
    CREATE TABLE account (name TEXT NOT NULL) STRICT;
    CREATE TABLE document (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        engine TEXT NOT NULL,
        epoch INTEGER,
        seq INTEGER,
        digest INTEGER,
        acknowledged BLOB NOT NULL,
        rebuild INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE snapshot (document INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
    CREATE TABLE tail (
        document INTEGER NOT NULL,
        number INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        PRIMARY KEY (document, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE outbox (
        document INTEGER NOT NULL,
        origin BLOB NOT NULL,
        number INTEGER NOT NULL,
        position INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        reconciling INTEGER NOT NULL,
        PRIMARY KEY (document, origin, number)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE refused (
        id INTEGER PRIMARY KEY,
        document INTEGER NOT NULL,
        origin BLOB NOT NULL,
        number INTEGER NOT NULL,
        bytes BLOB NOT NULL,
        reason INTEGER NOT NULL,
        message TEXT NOT NULL
    ) STRICT;
    CREATE INDEX refused_of ON refused (document);
";

pub(super) struct Database {
    connection: Connection,
}

impl Database {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let mut connection = Connection::open(path).map_err(failed)?;
        prepare(&mut connection)?;
        Ok(Self { connection })
    }

    pub(super) fn bind(&mut self, account: &str) -> Result<(), StoreError> {
        let bound: Option<String> = self
            .connection
            .query_row("SELECT name FROM account", [], |row| row.get(0))
            .optional()
            .map_err(failed)?;
        match bound {
            Some(bound) if bound == account => Ok(()),
            Some(bound) => Err(StoreError::WrongAccount {
                bound,
                asked: account.to_owned(),
            }),
            None => {
                let insert = "INSERT INTO account (name) VALUES (?1)";
                self.connection.execute(insert, [account]).map_err(failed)?;
                Ok(())
            }
        }
    }

    /// All of it or nothing. Not synced: the end of the process does not undo it, a loss of power may.
    pub(super) fn write(&mut self, changes: &[Change]) -> Result<(), StoreError> {
        let transaction = self.connection.transaction().map_err(failed)?;
        for change in changes {
            match change {
                Change::Write(document, write) => apply(&transaction, document, write),
                Change::Remove(document) => remove(&transaction, document).map_err(failed),
            }?;
        }
        transaction.commit().map_err(failed)
    }

    /// As [`write`](Self::write), for one change of the outbox.
    pub(super) fn stage(
        &mut self,
        document: &DocumentId,
        engine: &EngineId,
        change: &OutboxChange,
    ) -> Result<(), StoreError> {
        let known = id_of(&self.connection, document).map_err(failed)?;
        if let Some(id) = known {
            // One statement is a transaction.
            return add_to_outbox(&self.connection, id, change).map_err(failed);
        }
        let transaction = self.connection.transaction().map_err(failed)?;
        let write = StoreWrite::new(engine.clone());
        let id = upsert(&transaction, document, &write).map_err(failed)?;
        add_to_outbox(&transaction, id, change).map_err(failed)?;
        transaction.commit().map_err(failed)
    }

    pub(super) fn load(
        &mut self,
        document: &DocumentId,
    ) -> Result<Option<StoredDocument>, StoreError> {
        // One transaction, so that nothing is written in between.
        let transaction = self.connection.transaction().map_err(failed)?;
        match id_of(&transaction, document).map_err(failed)? {
            Some(id) => Ok(Some(read(&transaction, id).map_err(failed)?)),
            None => Ok(None),
        }
    }

    pub(super) fn list(&self) -> Result<Vec<(DocumentId, usize)>, StoreError> {
        let query = "SELECT name, (SELECT count(*) FROM outbox WHERE document = id)
            FROM document ORDER BY name";
        let read = |row: &Row<'_>| {
            let name: String = row.get(0)?;
            let id = DocumentId::new(name).map_err(|error| conversion(0, error.into()))?;
            let outbox = usize::try_from(row.get::<_, i64>(1)?);
            Ok((id, outbox.map_err(|error| conversion(1, error.into()))?))
        };
        let mut statement = self.connection.prepare_cached(query).map_err(failed)?;
        let rows = statement.query_map([], read).map_err(failed)?;
        rows.collect::<Result<_, _>>().map_err(failed)
    }

    /// Leaves the WAL as it is when this is closed: after a failed sync the database must not be changed any more, for there
    /// may be less on the disk of what would repair it than what is read.
    pub(super) fn keep_wal(&self) -> Result<(), StoreError> {
        self.connection
            .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
            .map(drop)
            .map_err(failed)
    }

    /// Syncs the WAL, and moves what it can of it into the database. On a full disk that is nothing, and tried again later.
    ///
    /// # Errors
    /// Those of the disk: what was not synced before may never reach it.
    pub(super) fn checkpoint(&self) -> Result<(), StoreError> {
        let moved = self
            .connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        match moved {
            Err(error) if error.sqlite_error_code() == Some(SqliteCode::DiskFull) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(error, "the store could not be checkpointed");
                Ok(())
            }
            moved => moved.map_err(failed),
        }
    }
}

fn prepare(connection: &mut Connection) -> Result<(), StoreError> {
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.set_prepared_statement_cache_capacity(32);
    // Looked at before anything is written: what is no store, or a newer one, stays as it is.
    let format = format_of(connection)?;
    switch(connection).map_err(failed)?;
    let pragmas = [
        // The store's thread syncs commits itself. This keeps the database whole.
        ("synchronous", "NORMAL"),
        ("checkpoint_fullfsync", "ON"),
        // The store's thread does that too.
        ("wal_autocheckpoint", "0"),
    ];
    for (name, value) in pragmas {
        connection
            .pragma_update(None, name, value)
            .map_err(failed)?;
    }
    if format.is_none() {
        let transaction = connection.transaction().map_err(failed)?;
        transaction.execute_batch(SCHEMA).map_err(failed)?;
        transaction
            .pragma_update(None, "application_id", APPLICATION)
            .map_err(failed)?;
        transaction
            .pragma_update(None, "user_version", FORMAT)
            .map_err(failed)?;
        transaction.commit().map_err(failed)?;
    }
    Ok(())
}

/// Switches to a WAL. To the end of the statement: it commits the switch after it has answered.
fn switch(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = statement.query([])?;
    while rows.next()?.is_some() {}
    Ok(())
}

/// The format of what is there; `None` for an empty file.
fn format_of(connection: &Connection) -> Result<Option<u32>, StoreError> {
    let number = |name| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, u32>(0))
            .map_err(failed)
    };
    let (application, format) = (number("application_id")?, number("user_version")?);
    if application == APPLICATION && (1..=FORMAT).contains(&format) {
        return Ok(Some(format));
    }
    if application == APPLICATION && format > FORMAT {
        return Err(StoreError::NewerFormat {
            found: format,
            supported: FORMAT,
        });
    }
    let tables: u32 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(failed)?;
    if tables == 0 && application == 0 {
        return Ok(None);
    }
    Err(StoreError::Damaged(
        "it is a database of something else".into(),
    ))
}

fn id_of(connection: &Connection, document: &DocumentId) -> rusqlite::Result<Option<i64>> {
    connection
        .prepare_cached("SELECT id FROM document WHERE name = ?1")?
        .query_row([document.as_str()], |row| row.get(0))
        .optional()
}

/// Carries out a write, as [`StoredDocument::apply`] does.
fn apply(
    transaction: &Transaction<'_>,
    document: &DocumentId,
    write: &StoreWrite,
) -> Result<(), StoreError> {
    let id = upsert(transaction, document, write).map_err(failed)?;
    put_replica(transaction, id, write).map_err(failed)?;
    put_outbox(transaction, id, write).map_err(failed)?;
    for gone in &write.refused_remove {
        transaction
            .prepare_cached(
                "DELETE FROM refused WHERE document = ?1 AND origin = ?2 AND number = ?3",
            )
            .and_then(|mut statement| {
                statement.execute(params![
                    id,
                    gone.origin.0.to_be_bytes(),
                    gone.number.cast_signed()
                ])
            })
            .map_err(failed)?;
    }
    for refused in &write.refused_add {
        let reason = reason_to_number(refused.reason)?;
        add_refused(transaction, id, refused, reason).map_err(failed)?;
    }
    Ok(())
}

/// Puts in place what every write says, and gives the document's row.
fn upsert(
    transaction: &Transaction<'_>,
    document: &DocumentId,
    write: &StoreWrite,
) -> rusqlite::Result<i64> {
    let statement = "INSERT INTO document (name, engine, epoch, seq, digest, acknowledged, rebuild)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
        ON CONFLICT (name) DO UPDATE SET engine = ?2, epoch = ?3, seq = ?4, digest = ?5, acknowledged = ?6, rebuild = ?7
        RETURNING id";
    let state = &write.state;
    let cursor = state.cursor;
    transaction.prepare_cached(statement)?.query_row(
        params![
            document.as_str(),
            state.engine.as_str(),
            cursor.map(|cursor| cursor.epoch.0.cast_signed()),
            cursor.map(|cursor| cursor.seq.0.cast_signed()),
            cursor.map(|cursor| cursor.digest.0.cast_signed()),
            encode_acknowledged(&state.acknowledged),
            state.rebuild,
        ],
        |row| row.get(0),
    )
}

fn put_replica(transaction: &Transaction<'_>, id: i64, write: &StoreWrite) -> rusqlite::Result<()> {
    if let Some(snapshot) = &write.snapshot {
        let put = "INSERT INTO snapshot (document, bytes) VALUES (?1, ?2)
            ON CONFLICT (document) DO UPDATE SET bytes = ?2";
        transaction
            .prepare_cached(put)?
            .execute(params![id, snapshot.as_ref()])?;
        transaction
            .prepare_cached("DELETE FROM tail WHERE document = ?1")?
            .execute([id])?;
    }
    for bytes in &write.imported {
        let append = "INSERT INTO tail (document, number, bytes)
            VALUES (?1, (SELECT coalesce(max(number), 0) + 1 FROM tail WHERE document = ?1), ?2)";
        transaction
            .prepare_cached(append)?
            .execute(params![id, bytes.as_ref()])?;
    }
    Ok(())
}

fn put_outbox(transaction: &Transaction<'_>, id: i64, write: &StoreWrite) -> rusqlite::Result<()> {
    if let Some(through) = write.outbox_clear {
        transaction
            .prepare_cached("DELETE FROM outbox WHERE document = ?1 AND position <= ?2")?
            .execute([id, through])?;
    }
    for gone in &write.outbox_remove {
        transaction
            .prepare_cached(
                "DELETE FROM outbox WHERE document = ?1 AND origin = ?2 AND number = ?3",
            )?
            .execute(params![
                id,
                gone.origin.0.to_be_bytes(),
                gone.number.cast_signed()
            ])?;
    }
    for change in &write.outbox_add {
        add_to_outbox(transaction, id, change)?;
    }
    Ok(())
}

fn add_to_outbox(connection: &Connection, id: i64, change: &OutboxChange) -> rusqlite::Result<()> {
    let add = "INSERT INTO outbox (document, origin, number, position, bytes, reconciling)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING";
    connection.prepare_cached(add)?.execute(params![
        id,
        change.id.origin.0.to_be_bytes(),
        change.id.number.cast_signed(),
        change.position,
        change.bytes.as_ref(),
        change.reconciling,
    ])?;
    Ok(())
}

fn add_refused(
    transaction: &Transaction<'_>,
    id: i64,
    refused: &RefusedChange,
    reason: i64,
) -> rusqlite::Result<()> {
    let add = "INSERT INTO refused (document, origin, number, bytes, reason, message)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    transaction.prepare_cached(add)?.execute(params![
        id,
        refused.id.origin.0.to_be_bytes(),
        refused.id.number.cast_signed(),
        refused.bytes.as_ref(),
        reason,
        refused.message.as_ref(),
    ])?;
    Ok(())
}

fn remove(transaction: &Transaction<'_>, document: &DocumentId) -> rusqlite::Result<()> {
    let Some(id) = id_of(transaction, document)? else {
        return Ok(());
    };
    for table in ["snapshot", "tail", "outbox", "refused"] {
        transaction.execute(&format!("DELETE FROM {table} WHERE document = ?1"), [id])?;
    }
    transaction.execute("DELETE FROM document WHERE id = ?1", [id])?;
    Ok(())
}

fn read(transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<StoredDocument> {
    let head =
        "SELECT engine, epoch, seq, digest, acknowledged, rebuild FROM document WHERE id = ?1";
    let mut stored = transaction
        .prepare_cached(head)?
        .query_row([id], read_head)?;
    stored.snapshot = transaction
        .prepare_cached("SELECT bytes FROM snapshot WHERE document = ?1")?
        .query_row([id], |row| bytes(row, 0))
        .optional()?;
    stored.tail = transaction
        .prepare_cached("SELECT bytes FROM tail WHERE document = ?1 ORDER BY number")?
        .query_map([id], |row| bytes(row, 0))?
        .collect::<Result<_, _>>()?;
    let outbox =
        "SELECT origin, number, position, bytes, reconciling FROM outbox WHERE document = ?1
        ORDER BY position";
    stored.outbox = transaction
        .prepare_cached(outbox)?
        .query_map([id], |row| {
            let (id, position) = (change_id(row)?, row.get(2)?);
            Ok(OutboxChange::new(id, position, bytes(row, 3)?, row.get(4)?))
        })?
        .collect::<Result<_, _>>()?;
    let refused = "SELECT origin, number, bytes, reason, message FROM refused WHERE document = ?1
        ORDER BY id";
    stored.refused = transaction
        .prepare_cached(refused)?
        .query_map([id], |row| {
            let (id, bytes) = (change_id(row)?, bytes(row, 2)?);
            let reason = reason_from_number(row.get(3)?)
                .ok_or_else(|| conversion(3, "not a reason".into()))?;
            let message: String = row.get(4)?;
            Ok(RefusedChange::new(id, bytes, reason, Arc::from(message)))
        })?
        .collect::<Result<_, _>>()?;
    Ok(stored)
}

fn read_head(row: &Row<'_>) -> rusqlite::Result<StoredDocument> {
    let engine = EngineId::new(row.get::<_, String>(0)?)
        .ok_or_else(|| conversion(0, "not the name of an engine".into()))?;
    let mut stored = StoredDocument::new(engine);
    if let Some(epoch) = row.get::<_, Option<i64>>(1)? {
        stored.state.cursor = Some(Cursor {
            epoch: Epoch(epoch.cast_unsigned()),
            seq: Seq(row.get::<_, i64>(2)?.cast_unsigned()),
            digest: Digest(row.get::<_, i64>(3)?.cast_unsigned()),
        });
    }
    let acknowledged: Vec<u8> = row.get(4)?;
    stored.state.acknowledged = decode_acknowledged(&acknowledged)
        .ok_or_else(|| conversion(4, "not a list of numbers".into()))?;
    stored.state.rebuild = row.get(5)?;
    Ok(stored)
}

fn bytes(row: &Row<'_>, column: usize) -> rusqlite::Result<Bytes> {
    match row.get_ref(column)? {
        ValueRef::Blob(bytes) => Ok(Bytes::copy_from_slice(bytes)),
        _ => Err(conversion(column, "not bytes".into())),
    }
}

/// From the first two columns.
fn change_id(row: &Row<'_>) -> rusqlite::Result<ChangeId> {
    Ok(ChangeId {
        origin: OriginId(u128::from_be_bytes(row.get(0)?)),
        number: row.get::<_, i64>(1)?.cast_unsigned(),
    })
}

/// For each origin its 16 bytes, then the number's 8.
fn encode_acknowledged(acknowledged: &[(OriginId, u64)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(acknowledged.len() * 24);
    for (origin, number) in acknowledged {
        bytes.extend(origin.0.to_be_bytes());
        bytes.extend(number.to_be_bytes());
    }
    bytes
}

fn decode_acknowledged(bytes: &[u8]) -> Option<Vec<(OriginId, u64)>> {
    let (pairs, []) = bytes.as_chunks::<24>() else {
        return None;
    };
    pairs
        .iter()
        .map(|pair| {
            let (origin, number) = pair.split_first_chunk()?;
            let number = number.try_into().ok()?;
            let origin = OriginId(u128::from_be_bytes(*origin));
            Some((origin, u64::from_be_bytes(number)))
        })
        .collect()
}

/// Codes are not negative; what is no code is.
fn reason_to_number(reason: RefusedReason) -> Result<i64, StoreError> {
    match reason {
        RefusedReason::Code(code) => Ok(code.number().into()),
        RefusedReason::Behind => Ok(-1),
        RefusedReason::HistoryReset => Ok(-2),
        RefusedReason::Replaced => Ok(-3),
        _ => Err(StoreError::Failed("a reason that has no number".into())),
    }
}

fn reason_from_number(number: i64) -> Option<RefusedReason> {
    match number {
        -1 => Some(RefusedReason::Behind),
        -2 => Some(RefusedReason::HistoryReset),
        -3 => Some(RefusedReason::Replaced),
        _ => {
            let number = u16::try_from(number).ok()?;
            Some(RefusedReason::Code(ErrorCode::from_number(number)))
        }
    }
}

fn conversion(column: usize, error: BoxError) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, error)
}

fn failed(error: rusqlite::Error) -> StoreError {
    let is_damaged = match &error {
        rusqlite::Error::SqliteFailure(error, _) => {
            matches!(
                error.code,
                SqliteCode::DatabaseCorrupt | SqliteCode::NotADatabase
            )
        }
        // What is read back is not what was written.
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => true,
        _ => false,
    };
    if is_damaged {
        StoreError::Damaged(error.into())
    } else {
        StoreError::Failed(error.into())
    }
}
