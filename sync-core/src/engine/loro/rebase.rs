//! Work behind a refused change, or behind history that was trimmed, written anew.
//!
//! Operations of Loro name what they follow: those behind a refused one cannot be imported without it. So what they did is
//! computed as a difference of states, and applied to the state of the server as one change. The refused change is first
//! taken back on a branch of its own, and the branches are merged, so that Loro itself finds out where everything belongs
//! without it. Where that would be a guess, nothing is written: where what is behind touches a container that the refused
//! change has made, or moves in a list or a tree in which the refused change did something too; and where the refused change
//! has deleted from what is touched, because what comes back is not what was there.

use ::loro::event::{Diff, DiffBatch, ListDiffItem, MapDelta};
use ::loro::{
    ContainerID, ContainerType, ExportMode, LoroDoc, LoroError, TextDelta, ValueOrContainer,
    VersionVector,
};
use bytes::Bytes;

use super::Loro;
use super::document::{as_of, engine_error, export, waiting};
use super::version::{clamp, includes};
use crate::engine::EngineError;

/// What is written under it is seen by nobody.
const BRANCH_PEER: u64 = 0;

/// What the last of all, `changes`, did in `theirs`, done to `ours`, which lacks them and perhaps what they follow, under
/// `peer`. `None` if there is nothing left to do.
pub(super) fn rewritten(
    engine: &Loro,
    ours: &LoroDoc,
    theirs: &LoroDoc,
    changes: &[Bytes],
    peer: u64,
) -> Result<Option<Bytes>, EngineError> {
    let base = ours.oplog_vv();
    let (all, scratch) = (copy_of(engine, theirs)?, copy_of(engine, ours)?);
    let shared = clamp(&base, &all.oplog_vv());
    if shared != base {
        import(&all, &export(ours, ExportMode::updates(&shared))?)?;
    }
    let before = before(&all, changes)?;
    if waiting(&all)?.is_some() || !includes(&before, entries(&base)) {
        return Err(EngineError::Incomplete);
    }
    let behind = diff(&all, &before, &all.oplog_vv())?;
    let mut refused = DiffBatch::default();
    if !includes(&base, entries(&before)) {
        refused = diff(&all, &base, &before)?;
        check_apart(&refused, &behind, &base, &before)?;
        let branch = as_of(engine, &all, &before)?;
        branch.set_peer_id(BRANCH_PEER).map_err(loro_error)?;
        let base = branch.vv_to_frontiers(&base);
        branch.revert_to(&base).map_err(loro_error)?;
        branch.commit();
        import(&all, &export(&branch, ExportMode::updates(&before))?)?;
    }
    let merged = diff(&all, &base, &all.oplog_vv())?;
    let wanted = of_behind(&merged, &behind, &refused, &before, &scratch)?;
    scratch.set_peer_id(peer).map_err(loro_error)?;
    scratch.apply_diff(wanted).map_err(loro_error)?;
    scratch.commit();
    if scratch.oplog_vv() == base {
        return Ok(None);
    }
    export(&scratch, ExportMode::updates(&base)).map(Some)
}

fn copy_of(engine: &Loro, doc: &LoroDoc) -> Result<LoroDoc, EngineError> {
    let copy = engine.fresh();
    import(&copy, &export(doc, ExportMode::Snapshot)?)?;
    Ok(copy)
}

/// The version of `all` without `changes`.
fn before(all: &LoroDoc, changes: &[Bytes]) -> Result<VersionVector, EngineError> {
    let mut before = all.oplog_vv();
    for change in changes {
        let meta = LoroDoc::decode_import_blob_meta(change, false).map_err(loro_error)?;
        for peer in meta.partial_end_vv.keys() {
            let start = meta.partial_start_vv.get(peer).copied().unwrap_or_default();
            let there = before.get(peer).copied().unwrap_or_default();
            before.insert(*peer, start.min(there));
        }
    }
    Ok(before
        .iter()
        .map(|(&peer, &end)| (peer, end))
        .filter(|(_, end)| *end > 0)
        .collect())
}

fn diff(doc: &LoroDoc, from: &VersionVector, to: &VersionVector) -> Result<DiffBatch, EngineError> {
    let (from, to) = (doc.vv_to_frontiers(from), doc.vv_to_frontiers(to));
    doc.diff(&from, &to).map_err(loro_error)
}

/// That what is behind can be told from what was refused.
fn check_apart(
    refused: &DiffBatch,
    behind: &DiffBatch,
    base: &VersionVector,
    before: &VersionVector,
) -> Result<(), EngineError> {
    for (container, _) in behind.iter() {
        if is_made_between(container, base, before) {
            return Err(DEPENDS);
        }
        let moves = matches!(
            container.container_type(),
            ContainerType::MovableList | ContainerType::Tree | ContainerType::Unknown(_)
        );
        let Some(other) = found(refused, container) else {
            continue;
        };
        let deletes = match other {
            Diff::Text(items) => items
                .iter()
                .any(|item| matches!(item, TextDelta::Delete { .. })),
            Diff::List(items) => items
                .iter()
                .any(|item| matches!(item, ListDiffItem::Delete { .. })),
            Diff::Map(_) | Diff::Tree(_) | Diff::Counter(_) | Diff::Unknown => false,
        };
        if moves || deletes {
            return Err(DEPENDS);
        }
    }
    Ok(())
}

/// Of the merged difference from `ours` what is the doing of what is behind, which must be all of it. Where both wrote an entry
/// of a map, the write behind stands, whichever Loro has made win.
fn of_behind(
    merged: &DiffBatch,
    behind: &DiffBatch,
    refused: &DiffBatch,
    before: &VersionVector,
    ours: &LoroDoc,
) -> Result<DiffBatch, EngineError> {
    let mut wanted = DiffBatch::default();
    wanted.set_full_state(merged.is_full_state());
    let nothing = VersionVector::new();
    for (container, change) in merged.iter() {
        let is_new = !container.is_root() && !is_made_between(container, &nothing, before);
        let change = match (change, found(behind, container)) {
            (change, _) if is_new => change.clone(),
            (Diff::Map(change), theirs) => {
                let nothing = no_entries();
                let theirs = match theirs {
                    Some(Diff::Map(theirs)) => theirs,
                    _ => &nothing,
                };
                let mut change = change.clone();
                // Loro also tells of entries that were there in between.
                let held = ours.get_map(container.clone());
                change
                    .updated
                    .retain(|key, value| value.is_some() || held.get(key).is_some());
                let known = |key| theirs.updated.contains_key(key);
                if !change.updated.keys().all(known) {
                    return Err(DEPENDS);
                }
                let change = with_entries(change, theirs, found(refused, container))?;
                if change.updated.is_empty() {
                    continue;
                }
                Diff::Map(change)
            }
            (change, Some(_)) => change.clone(),
            (change, None) if does_nothing(change) => continue,
            (_, None) => return Err(DEPENDS),
        };
        let _ = wanted.push(container.clone(), change);
    }
    for (container, theirs) in behind.iter() {
        if let (Diff::Map(theirs), None) = (theirs, found(merged, container)) {
            let nothing = no_entries();
            let change = with_entries(nothing, theirs, found(refused, container))?;
            if !change.updated.is_empty() {
                let _ = wanted.push(container.clone(), Diff::Map(change));
            }
        }
    }
    Ok(wanted)
}

fn no_entries() -> MapDelta<'static> {
    MapDelta {
        updated: Default::default(),
    }
}

fn does_nothing(change: &Diff<'_>) -> bool {
    match change {
        Diff::Text(items) => items.is_empty(),
        Diff::List(items) => items.is_empty(),
        Diff::Counter(sum) => *sum == 0.0,
        Diff::Map(_) | Diff::Tree(_) | Diff::Unknown => false,
    }
}

/// The entries of a map, with those written behind in the place of those that the refused change wrote too.
fn with_entries(
    mut change: MapDelta<'static>,
    theirs: &MapDelta<'static>,
    refused: Option<&Diff<'static>>,
) -> Result<MapDelta<'static>, EngineError> {
    let Some(Diff::Map(refused)) = refused else {
        return Ok(change);
    };
    for (key, value) in &theirs.updated {
        if !refused.updated.contains_key(key) {
            continue;
        }
        if matches!(value, Some(ValueOrContainer::Container(_))) {
            return Err(DEPENDS);
        }
        change.updated.insert(key.clone(), value.clone());
    }
    Ok(change)
}

/// Whether an operation between two versions made the container.
fn is_made_between(container: &ContainerID, from: &VersionVector, to: &VersionVector) -> bool {
    match container {
        ContainerID::Normal { peer, counter, .. } => {
            let end = |version: &VersionVector| version.get(peer).copied().unwrap_or_default();
            (end(from)..end(to)).contains(counter)
        }
        ContainerID::Root { .. } => false,
    }
}

fn found<'a>(batch: &'a DiffBatch, container: &ContainerID) -> Option<&'a Diff<'static>> {
    let mut diffs = batch.iter();
    diffs
        .find(|(other, _)| *other == container)
        .map(|(_, diff)| diff)
}

fn entries(version: &VersionVector) -> impl Iterator<Item = (u64, i32)> {
    version.iter().map(|(&peer, &counter)| (peer, counter))
}

fn import(doc: &LoroDoc, bytes: &[u8]) -> Result<(), EngineError> {
    doc.import(bytes).map(drop).map_err(loro_error)
}

fn loro_error(error: LoroError) -> EngineError {
    engine_error(&error)
}

const DEPENDS: EngineError = EngineError::Unsupported {
    what: "writing anew what depends on a refused change",
};
