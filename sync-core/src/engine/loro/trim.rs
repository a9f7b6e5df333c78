//! Snapshots without the history before a horizon: loro's shallow ones.

use std::collections::BTreeMap;

use ::loro::{
    ContainerType, ExportMode, Frontiers, ID, LoroDoc, LoroResult, LoroValue, TreeParentId,
    VersionVector,
};
use bytes::Bytes;
use twox_hash::XxHash3_64;

use super::Loro;
use super::document::{engine_error, export};
use super::version::encode;
use crate::engine::EngineError;

/// What `doc` holds, without the history before `horizon`, which it has. `doc` is left as it is.
///
/// Loro keeps everything since the last operation that all heads of the horizon build on. Where the horizon is all
/// that there is, the heads are joined by an operation that changes nothing; elsewhere more history may stay.
pub(super) fn shallow(
    engine: &Loro,
    doc: &LoroDoc,
    horizon: &VersionVector,
) -> Result<Bytes, EngineError> {
    let state = export(doc, ExportMode::Snapshot)?;
    if horizon.iter().next().is_none() {
        // There is nothing to forget.
        return Ok(state);
    }
    let whole = engine.fresh();
    import(&whole, &state)?;
    let is_all = whole.oplog_vv() == *horizon;
    let start = if is_all && whole.oplog_frontiers().len() > 1 {
        join_heads(&whole).map_err(|error| engine_error(&error))?
    } else {
        whole.vv_to_frontiers(horizon)
    };
    let trimmed = export(&whole, ExportMode::shallow_snapshot(&start))?;
    let proof = engine.fresh();
    import(&proof, &trimmed)?;
    if proof.oplog_vv() == whole.oplog_vv() && proof.get_deep_value() == whole.get_deep_value() {
        Ok(trimmed)
    } else {
        Err(EngineError::Unproven)
    }
}

fn import(doc: &LoroDoc, bytes: &[u8]) -> Result<(), EngineError> {
    doc.import(bytes)
        .map(drop)
        .map_err(|error| engine_error(&error))
}

/// Commits operations that build on all heads and leave everything as it is, in a container that is there. Where to begin,
/// so that whoever has the heads has what came before.
fn join_heads(doc: &LoroDoc) -> LoroResult<Frontiers> {
    // A function of what is joined: whoever joins the same heads writes the same operations under this id.
    let peer = XxHash3_64::oneshot(&encode(&doc.oplog_vv()).0).min(u64::MAX - 1);
    doc.set_peer_id(peer)?;
    // In order, so that it is the same one everywhere.
    let roots: BTreeMap<String, ContainerType> = match doc.get_value() {
        LoroValue::Map(roots) => (roots.iter())
            .filter_map(|(name, root)| Some((name.clone(), root.as_container()?.container_type())))
            .collect(),
        _ => BTreeMap::new(),
    };
    for (name, kind) in roots {
        touch(doc, name.as_str(), kind)?;
        doc.commit();
        if doc.oplog_frontiers().len() == 1 {
            // Not the last operation: the one before it would be missed.
            return Ok(Frontiers::from_id(ID::new(peer, 0)));
        }
    }
    Ok(doc.oplog_frontiers())
}

/// Does something to a container, and takes it back.
fn touch(doc: &LoroDoc, root: &str, kind: ContainerType) -> LoroResult<()> {
    match kind {
        ContainerType::Text => {
            let text = doc.get_text(root);
            text.insert(0, " ")?;
            text.delete(0, 1)
        }
        ContainerType::List => {
            let list = doc.get_list(root);
            list.insert(0, LoroValue::Null)?;
            list.delete(0, 1)
        }
        ContainerType::MovableList => {
            let list = doc.get_movable_list(root);
            list.insert(0, LoroValue::Null)?;
            list.delete(0, 1)
        }
        ContainerType::Map => {
            let map = doc.get_map(root);
            let mut key = String::new();
            while map.get(&key).is_some() {
                key.push(' ');
            }
            map.insert(&key, LoroValue::Null)?;
            map.delete(&key)
        }
        ContainerType::Tree => {
            let tree = doc.get_tree(root);
            tree.delete(tree.create(TreeParentId::Root)?)
        }
        ContainerType::Counter => doc.get_counter(root).increment(0.0),
        ContainerType::Unknown(_) => Ok(()),
    }
}
