//! The table that decides duplicates, on disk.

use rusqlite::{Connection, OptionalExtension, Row, params};
use sync_core::history::Seq;
use sync_core::ids::{OriginId, User};

use super::document::RowRef;
use super::entries::Entries;
use super::rows::read_journal;
use super::schema::{failed, unsigned};
use crate::registry::{OriginEntry, RegistryError};

/// An entry.
pub(super) fn find(
    connection: &Connection,
    doc: i64,
    origin: OriginId,
) -> Result<Option<OriginEntry>, RegistryError> {
    connection
        .prepare_cached(
            "SELECT origin, user, last, seq FROM origins WHERE doc = ?1 AND origin = ?2",
        )
        .and_then(|mut statement| {
            statement
                .query_row(params![doc, origin.0.to_be_bytes()], entry)
                .optional()
        })
        .map_err(failed)
}

/// Any entries of a document, at most so many.
pub(super) fn read_some(
    connection: &Connection,
    doc: i64,
    limit: usize,
) -> Result<Vec<OriginEntry>, RegistryError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    connection
        .prepare_cached("SELECT origin, user, last, seq FROM origins WHERE doc = ?1 LIMIT ?2")
        .and_then(|mut statement| statement.query_map(params![doc, limit], entry)?.collect())
        .map_err(failed)
}

fn entry(row: &Row<'_>) -> Result<OriginEntry, rusqlite::Error> {
    let origin = OriginId(u128::from_be_bytes(row.get(0)?));
    let user = User::new(row.get::<_, String>(1)?);
    let (last, seq) = (unsigned(row.get(2)?), Seq(unsigned(row.get(3)?)));
    Ok(OriginEntry::new(origin, user, last, seq))
}

/// The entries that rows of the journal have changed.
pub(super) fn changed_by(
    connection: &Connection,
    doc: i64,
    rows: &[RowRef],
) -> Result<Entries, RegistryError> {
    let mut origins = Entries::default();
    for row in rows {
        let entries =
            read_journal(connection, doc, *row)?.ok_or_else(|| RegistryError::Damaged {
                what: format!("the changes at sequence {} are missing", row.seq),
            })?;
        for entry in entries {
            let change = entry.change;
            origins.advance(change.id.origin, &entry.user, change.id.number, change.seq);
        }
    }
    Ok(origins)
}
