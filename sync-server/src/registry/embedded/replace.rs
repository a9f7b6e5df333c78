//! A new history in the place of a document's old one.

use std::sync::{Arc, Mutex};

use sync_core::ids::DocumentId;

use super::document::{Document, Standing};
use super::export::Export;
use super::index::lock;
use super::plan::segments;
use super::schema::seq_column;
use super::standing::find;
use super::writer::Engine;
use crate::registry::rules::refuse_if;
use crate::registry::{DocumentMeta, RegistryError};

/// What becomes of a document that is there already when one is imported under its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// It stays, and the import is refused.
    Keep,
    /// It goes, or its tombstone does.
    Replace,
}

impl Engine {
    /// Writes a history, which has been verified, under a number of its own: whatever was prepared for the old one, and
    /// what is left of it, is recognised by the old number.
    pub(super) fn replace(
        &mut self,
        new: &Export,
        existing: Existing,
    ) -> Result<DocumentMeta, RegistryError> {
        let meta = new.meta.clone();
        // No sequence of a history that has been verified is higher: nothing is refused once something is written.
        seq_column(meta.head)?;
        let old = self.present(&meta.id)?;
        if let Some((old, _)) = &old {
            if existing == Existing::Keep {
                return Err(if old.is_deleted {
                    RegistryError::Deleted
                } else {
                    RegistryError::Refused {
                        what: "the document exists",
                    }
                });
            }
            refuse_if(
                old.meta.epoch == meta.epoch && !old.is_deleted,
                "a new history needs a new epoch",
            )?;
        }
        if let Some((old, document)) = old {
            self.write(|connection| {
                connection.execute("DELETE FROM documents WHERE doc = ?1", [old.doc])
            })?;
            self.throw_away(Some(old.doc), None, None)?;
            if old.snapshot.is_some() {
                self.throw_away(None, None, old.snapshot)?;
            }
            if let Some(document) = document {
                lock(&document).roll_back();
            }
        }
        let standing = Standing {
            doc: self.allot_doc(),
            start_digest: new.start_digest,
            folded: meta.head,
            snapshot: new.snapshot.as_ref().map(|_| self.allot_snapshot()),
            is_deleted: false,
            meta: meta.clone(),
        };
        self.insert_document(&standing, new.snapshot.as_ref())?;
        self.write_log(standing.doc, &segments(&new.entries()))?;
        self.write_origins(standing.doc, &new.origins)?;
        self.introduce(standing);
        Ok(meta)
    }

    /// A document as it will stand, also a deleted or damaged one, and where it is in memory.
    #[expect(clippy::type_complexity, reason = "two things found in three places")]
    fn present(
        &mut self,
        id: &DocumentId,
    ) -> Result<Option<(Standing, Option<Arc<Mutex<Document>>>)>, RegistryError> {
        let created = self.created.get(id).cloned();
        if let Some(found) = created.or_else(|| self.shared.index.get(id)) {
            let standing = lock(&found).upcoming();
            return Ok(Some((standing, Some(found))));
        }
        let found = self.read(|connection| find(connection, id))?;
        Ok(found.map(|standing| (standing, None)))
    }
}
