//! The loro engine: documents of [Loro](https://loro.dev).
//!
//! Changes and [`since`](crate::engine::Document::since) are Loro updates, snapshots are Loro snapshots with the full
//! history. A replica that holds changes which wait for others puts those behind its snapshot, because Loro leaves them out.
//!
//! [`Loro`] checks a change before Loro reads it: kind, checksum, blocks and their parts, how many rows their columns stand
//! for, how long and how deeply nested values are. That bounds what Loro reserves and how far it recurses as it decodes.
//! What operations mean is not checked: Loro can panic at them, which is caught, and the document must be loaded afresh.
//! **Snapshots** are not checked beyond their frame: they hold compressed tables of encoded values, which cannot be looked
//! into without Loro. Forged ones can end the process that reads them. They come from servers: a server that is not
//! trusted so far must not be given Loro documents, and a server with writers that it does not trust runs this engine in
//! processes of its own.
//!
//! History can be forgotten ([`Document::trim`](crate::engine::Document::trim)), which makes a Loro shallow snapshot: for a
//! new epoch that begins from it.
//!
//! How text marks grow at their ends is configured, and not in the document: give it to the engine value
//! ([`Loro::text_styles`]), so that also a document that replaces this one has it.

mod document;
mod input;
mod observe;
mod operations;
mod rebase;
mod trim;
mod validate;
mod version;

pub use document::LoroDocument;

use ::loro::{LoroDoc, StyleConfigMap, ToJson};

use crate::engine::{
    Edited, Engine, EngineError, NativeEngine, ReplicaSeed, ValidateLimits, Version,
};
use crate::ids::EngineId;

/// Reads a document's bytes as a Loro document.
///
/// `edit` and `read` lend a [`LoroDoc`]. Everything that an `edit` closure does is one change, whether it commits meanwhile
/// or not. If a closure panics, what it did until then is committed (Loro cannot roll back) and drained as a change; the
/// panic goes on to the caller, and the document stays usable.
///
/// Edits through the [native handle](NativeEngine::native), which also containers such as `LoroText` are, are picked up when
/// they are committed: call [`LoroDoc::commit`]. What is not committed is picked up with the next import or edit.
///
/// Each process writes under a peer id of its own. One that the application sets is replaced before the next change. While
/// the application keeps the document checked out at an earlier version, imports wait in its history, and `edit` can change
/// nothing.
#[derive(Debug, Clone, Default)]
pub struct Loro {
    keeps_undo: bool,
    text_styles: Option<StyleConfigMap>,
}

impl Loro {
    /// The engine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Remembers this replica's own edits, so that they can be undone: the last hundred, each `edit` closure (or commit) on
    /// its own.
    ///
    /// Off by default, because it takes memory and time with every change, of others too.
    #[must_use]
    pub const fn keep_undo(mut self) -> Self {
        self.keeps_undo = true;
        self
    }

    /// How text marks grow at their ends, by key. Defaults to what Loro defaults to.
    #[must_use]
    pub fn text_styles(mut self, value: StyleConfigMap) -> Self {
        self.text_styles = Some(value);
        self
    }

    /// An empty document.
    fn fresh(&self) -> LoroDoc {
        let doc = LoroDoc::new();
        if let Some(styles) = &self.text_styles {
            doc.config_text_style(styles.clone());
        }
        doc
    }
}

impl Engine for Loro {
    type Document = LoroDocument;
    type Read<'a> = LoroDoc;
    type Edit<'a> = LoroDoc;

    fn id(&self) -> EngineId {
        EngineId::LORO
    }

    fn create(&self, seed: ReplicaSeed) -> Result<LoroDocument, EngineError> {
        LoroDocument::new(self.clone(), seed)
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        validate::update(change, limits)
    }

    fn read<R>(
        &self,
        document: &LoroDocument,
        f: impl FnOnce(&LoroDoc) -> R,
    ) -> Result<R, EngineError> {
        Ok(document.read(f))
    }

    fn edit<R>(
        &self,
        document: &mut LoroDocument,
        bytes_max: usize,
        f: impl FnOnce(&mut LoroDoc) -> R,
    ) -> Result<Edited<R>, EngineError> {
        document.edit(bytes_max, f)
    }

    /// The containers at the root by their names: texts as strings, without their marks.
    fn to_json(&self, document: &LoroDocument) -> Result<String, EngineError> {
        Ok(document.read(|doc| doc.get_deep_value().to_json()))
    }

    /// Lends a copy of the document as it was, which takes time and memory in proportion to the document.
    fn read_at<R>(
        &self,
        document: &mut LoroDocument,
        version: &Version,
        f: impl FnOnce(&LoroDoc) -> R,
    ) -> Result<R, EngineError> {
        Ok(f(&document.at(version)?))
    }
}

impl NativeEngine for Loro {
    type Native = LoroDoc;

    fn native(&self, document: &LoroDocument) -> LoroDoc {
        document.native()
    }
}
