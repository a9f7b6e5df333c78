//! Folding and reading documents of mergeable types without the types.

use bytes::Bytes;

use super::content::Content;
use super::json;
use super::node::Nodes;
use super::replica::Replica;
use super::{Change, MergeableValidator, decode_version};
use crate::engine::fold::{around_horizon, prove};
use crate::engine::{EngineError, Folder, Version};
use crate::json::Json;

/// A replica without the application's type: the same content and version as one with it.
type Untyped = Replica<Nodes>;

impl Folder for MergeableValidator {
    fn fold(&self, snapshot: Option<&[u8]>, changes: &[Bytes]) -> Result<Bytes, EngineError> {
        let mut replica = Untyped::default();
        import(&mut replica, snapshot, changes)?;
        proven(&replica)
    }

    fn trim(
        &self,
        snapshot: Option<&[u8]>,
        changes: &[Bytes],
        keep: usize,
    ) -> Result<Bytes, EngineError> {
        let (forgotten, kept) = around_horizon(changes, keep);
        let mut replica = Untyped::default();
        import(&mut replica, snapshot, forgotten)?;
        let horizon = replica.version.clone();
        import(&mut replica, None, kept)?;
        replica.compact(&horizon)?;
        proven(&replica)
    }

    /// Maps as objects (keys that are no text, as the text of their JSON), structs as objects of their tags, whose names are not
    /// in the document, sets and sequences as lists, sequences of nothing but characters as text.
    fn read_json(&self, snapshot: Option<&[u8]>, changes: &[Bytes]) -> Result<String, EngineError> {
        let mut replica = Untyped::default();
        import(&mut replica, snapshot, changes)?;
        let mut json = Json::default();
        json::write(&replica.content, &mut json)?;
        Ok(json.into_string())
    }
}

fn import(
    replica: &mut Untyped,
    snapshot: Option<&[u8]>,
    changes: &[Bytes],
) -> Result<(), EngineError> {
    for change in (snapshot.into_iter()).chain(changes.iter().map(AsRef::as_ref)) {
        replica.import(&Change::read(change)?)?;
    }
    Ok(())
}

impl MergeableValidator {
    /// A snapshot without what only a replica that lacks some of `horizon` would need: removals, and what they took
    /// away. Under which conditions that may be done says [`Mergeable::compact`](super::Mergeable::compact).
    ///
    /// # Errors
    /// [`EngineError::Incomplete`] if the snapshot lacks some of `horizon`, or waits for something;
    /// [`EngineError::Malformed`] if one of the two is not of a mergeable document.
    pub fn compact(&self, snapshot: &[u8], horizon: &Version) -> Result<Bytes, EngineError> {
        let mut replica = Untyped::default();
        replica.import(&Change::read(snapshot)?)?;
        replica.compact(&decode_version(&horizon.0)?.0)?;
        proven(&replica)
    }
}

/// The replica's state, which loads as what it is.
fn proven(replica: &Untyped) -> Result<Bytes, EngineError> {
    if replica.content.is_waiting() {
        return Err(EngineError::Incomplete);
    }
    let folded = replica.state();
    let mut proof = Untyped::default();
    proof.import(&Change::read(&folded)?)?;
    prove(
        &Untyped::default().version(),
        &replica.version(),
        &proof.version(),
    )?;
    Ok(folded)
}
