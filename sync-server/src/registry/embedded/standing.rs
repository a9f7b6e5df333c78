//! Documents as the database has them.

use rusqlite::{Connection, OptionalExtension, Row, params};
use sync_core::history::{Digest, Seq};
use sync_core::ids::DocumentId;

use super::document::Standing;
use super::schema::{engine, epoch, failed, mode, unsigned};
use crate::registry::{DocumentMeta, RegistryError};

const STANDING: &str = "SELECT doc, id, engine, epoch, mode, head, digest, log_start, start_digest, \
     snapshot, snapshot_seq, deleted FROM documents";

/// A document as the database has it.
pub(super) fn find(
    connection: &Connection,
    document: &DocumentId,
) -> Result<Option<Standing>, RegistryError> {
    connection
        .prepare_cached(&format!("{STANDING} WHERE id = ?1"))
        .and_then(|mut statement| {
            statement
                .query_row([document.as_str()], standing)
                .optional()
        })
        .map_err(failed)
        .map(|found| found.map(|(_, standing)| standing))
}

/// A document by its number.
pub(super) fn standing_of(
    connection: &Connection,
    doc: i64,
) -> Result<Option<(DocumentId, Standing)>, rusqlite::Error> {
    connection
        .prepare_cached(&format!("{STANDING} WHERE doc = ?1"))?
        .query_row([doc], standing)
        .optional()
}

/// Documents after an id, in the order of ids.
pub(super) fn list(
    connection: &Connection,
    after: Option<&DocumentId>,
    limit: usize,
) -> Result<Vec<(DocumentId, Standing)>, RegistryError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    // No id is empty.
    let after = after.map_or("", DocumentId::as_str);
    connection
        .prepare_cached(&format!("{STANDING} WHERE id > ?1 ORDER BY id LIMIT ?2"))
        .and_then(|mut statement| {
            statement
                .query_map(params![after, limit], standing)?
                .collect()
        })
        .map_err(failed)
}

fn standing(row: &Row<'_>) -> Result<(DocumentId, Standing), rusqlite::Error> {
    let unreadable = |column| rusqlite::Error::IntegralValueOutOfRange(column, 0);
    let id = DocumentId::new(row.get::<_, String>(1)?).map_err(|_| unreadable(1))?;
    let mut meta = DocumentMeta::new(
        id.clone(),
        engine(row.get(2)?).ok_or_else(|| unreadable(2))?,
        epoch(row.get(3)?),
        mode(row.get(4)?).ok_or_else(|| unreadable(4))?,
    );
    let seq = |column| Ok::<_, rusqlite::Error>(Seq(unsigned(row.get(column)?)));
    let digest = |column| Ok::<_, rusqlite::Error>(Digest(unsigned(row.get(column)?)));
    meta.head = seq(5)?;
    meta.digest = digest(6)?;
    meta.log_start = seq(7)?;
    meta.snapshot_seq = seq(10)?;
    if meta.log_start > meta.head || meta.log_start > meta.snapshot_seq {
        return Err(unreadable(7));
    }
    let standing = Standing {
        doc: row.get(0)?,
        folded: meta.head,
        meta,
        start_digest: digest(8)?,
        snapshot: row.get(9)?,
        is_deleted: row.get(11)?,
    };
    Ok((id, standing))
}
