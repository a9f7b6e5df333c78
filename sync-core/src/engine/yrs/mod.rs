//! The yrs engine: documents of [Yjs](https://yjs.dev) and its Rust port [`yrs`](https://docs.rs/yrs).
//!
//! Changes, snapshots and [`since`](crate::engine::Document::since) are updates in lib0's v1 encoding, never v2, whose
//! decoder panics on hostile bytes. Whatever comes from elsewhere passes a validator first.
//!
//! Take what you need from a transaction inside the closure ([`get_or_insert_text`](::yrs::WriteTxn::get_or_insert_text),
//! [`get_text`](::yrs::ReadTxn::get_text)) and do not keep it: when the document is replaced, a `TextRef` kept from before
//! still points into the retired document. Edits made there, with a transaction of the retired
//! [`Native`](crate::engine::NativeEngine::Native), come out as [`stray`](crate::engine::Drained::stray). A kept
//! `TextRef` in a transaction of the new document damages that one: the change comes out as stray too, and everything
//! else says [`Poisoned`](crate::engine::EngineError::Poisoned) until the document is loaded afresh.

mod content;
mod cursor;
mod document;
mod graph;
mod history;
mod import;
mod json;
mod ledger;
mod observe;
mod pairs;
mod rewrite;
mod validate;
mod version;

pub use document::YrsDocument;

use ::yrs::{OffsetKind, Transact, Transaction, TransactionMut};

use crate::engine::{
    Edited, Engine, EngineError, Ledger, NativeEngine, ReplicaSeed, ValidateLimits, Version,
};
use crate::ids::EngineId;

/// Reads a document's bytes as a Yjs document.
///
/// `edit` lends a [`TransactionMut`], `read` a [`Transaction`]. If a closure panics, what it did until then is
/// committed (yrs cannot roll back) and drained as a change; the panic goes on to the caller, and the document stays
/// usable. A closure must not call `commit` or `gc` on its transaction: a change that is too large could not be taken
/// back whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Yrs {
    offset_kind: OffsetKind,
    keeps_history: bool,
}

impl Yrs {
    /// The engine with Yjs' own offsets into text: UTF-16 code units.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            offset_kind: OffsetKind::Utf16,
            keeps_history: false,
        }
    }

    /// How offsets into text count, on this replica only.
    ///
    /// Defaults to UTF-16 code units, as in Yjs. Bytes of UTF-8 suit Rust strings; an offset inside a character panics.
    #[must_use]
    pub const fn offset_kind(mut self, value: OffsetKind) -> Self {
        self.offset_kind = value;
        self
    }

    /// Keeps what is deleted, on this replica only, so that this replica's own edits can be undone (the last hundred, each
    /// `edit` closure, or native transaction, on its own) and earlier versions read.
    ///
    /// Off by default, because nothing that was ever written is then collected: replicas take more memory, and what this
    /// device stores grows. What others deleted before this replica had it stays gone. The first undo makes a second copy
    /// of the document, which is kept.
    #[must_use]
    pub const fn keep_history(mut self) -> Self {
        self.keeps_history = true;
        self
    }
}

impl Default for Yrs {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine for Yrs {
    type Document = YrsDocument;
    type Read<'a> = Transaction<'a>;
    type Edit<'a> = TransactionMut<'a>;

    fn id(&self) -> EngineId {
        EngineId::YRS
    }

    fn create(&self, seed: ReplicaSeed) -> Result<YrsDocument, EngineError> {
        Ok(YrsDocument::new(self.offset_kind, self.keeps_history, seed))
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        validate::scan(change, limits, &mut validate::Ignore)
    }

    fn read<R>(
        &self,
        document: &YrsDocument,
        f: impl FnOnce(&Transaction<'_>) -> R,
    ) -> Result<R, EngineError> {
        document.read(f)
    }

    fn edit<R>(
        &self,
        document: &mut YrsDocument,
        bytes_max: usize,
        f: impl FnOnce(&mut TransactionMut<'_>) -> R,
    ) -> Result<Edited<R>, EngineError> {
        document.edit(bytes_max, f)
    }

    fn ledger(&self) -> Option<Box<dyn Ledger>> {
        Some(Box::new(ledger::YrsLedger::default()))
    }

    /// The roots by their names, in no order: texts as strings, maps as objects, arrays as arrays, XML as its text.
    /// Formatting and attributes of texts are left out; an empty root is an empty array.
    fn to_json(&self, document: &YrsDocument) -> Result<String, EngineError> {
        document.read(|txn| content::to_json(txn))
    }

    /// Lends a copy of the document as it was, which takes time and memory in proportion to the document.
    fn read_at<R>(
        &self,
        document: &mut YrsDocument,
        version: &Version,
        f: impl FnOnce(&Transaction<'_>) -> R,
    ) -> Result<R, EngineError> {
        let doc = document.at(version)?;
        let txn = doc.try_transact().map_err(|_| EngineError::Busy)?;
        Ok(f(&txn))
    }
}

impl NativeEngine for Yrs {
    type Native = ::yrs::Doc;

    fn native(&self, document: &YrsDocument) -> ::yrs::Doc {
        document.native()
    }
}
