//! Taking back one's own changes of a sequence.
//!
//! What was inserted is removed again. What was removed is inserted again, as other elements: a removal is for ever. So
//! that an older change which inserted them can still be taken back, it is remembered which stand for which.

use std::collections::BTreeMap;

use super::super::{DeltaReader, DeltaWriter, Kind};
use super::order::Order;
use super::pieces::{Pieces, Values};
use super::run::{Id, Run, skip};
use super::wire;
use crate::engine::EngineError;

/// Which elements stand for removed ones. On this replica only.
#[derive(Debug, Clone, Default)]
pub(super) struct Restored {
    by: BTreeMap<Id, Id>,
    /// Removed elements for which others are being inserted now, in document order.
    now: Vec<Id>,
}

impl Restored {
    /// A change of another nature is being made.
    pub(super) fn forget_now(&mut self) {
        self.now.clear();
    }

    /// What was being inserted has become these.
    pub(super) fn become_runs<'a>(&mut self, runs: impl Iterator<Item = &'a Run>) {
        let old = std::mem::take(&mut self.now);
        if old.is_empty() {
            return;
        }
        let new: Vec<Id> = runs
            .flat_map(|run| (0..run.count).map(|offset| run.first.plus(offset)))
            .take(old.len() + 1)
            .collect();
        if new.len() == old.len() {
            self.by.extend(old.into_iter().zip(new));
        }
    }

    fn latest(&self, mut id: Id) -> Id {
        while let Some(by) = self.by.get(&id) {
            id = *by;
        }
        id
    }
}

/// Writes the elements that a change inserts, and those that it removes with their values.
pub(super) fn inverse(
    order: &Order,
    change: &mut DeltaReader<'_>,
    out: &mut DeltaWriter,
) -> Result<(), EngineError> {
    let news = wire::read(&mut change.node(Kind::Sequence)?)?;
    out.node(Kind::Sequence, |out| {
        out.number(u64::try_from(news.runs.len()).unwrap_or(u64::MAX));
        for run in &news.runs {
            put_id(run.first, out);
            out.number(run.count);
        }
        for removal in &news.removals {
            for (first, values) in order.visible_parts(removal.first, removal.count) {
                put_id(first, out);
                out.bytes(&values);
            }
        }
    });
    Ok(())
}

/// The elements that are inserted again, and their values.
type Insertion = (Vec<Id>, Values);

/// Stages what takes back a change.
pub(super) fn revert(
    order: &Order,
    pieces: &mut Pieces,
    restored: &mut Restored,
    inverse: &mut DeltaReader<'_>,
) -> Result<(), EngineError> {
    let mut node = inverse.node(Kind::Sequence)?;
    // By index among the merged elements, so that what is done to larger ones first moves no other. In one place
    // what is inserted comes before what is removed there.
    let mut steps: Vec<(u64, Option<Insertion>)> = Vec::new();
    for _ in 0..node.number()? {
        let first = read_id(&mut node)?;
        for offset in 0..node.number()? {
            let id = restored.latest(first.plus(offset));
            steps.extend(order.visible_index(id).map(|index| (index, None)));
        }
    }
    while !node.is_at_end() {
        let first = read_id(&mut node)?;
        let (mut values, mut rest) = (Values::new(), node.bytes()?);
        while !rest.is_empty() {
            let (value, after) = rest.split_at(skip(rest, 1));
            values.push(value.into());
            rest = after;
        }
        let n = u64::try_from(values.len()).unwrap_or_default();
        let ids = (0..n).map(|offset| first.plus(offset)).collect();
        if let Some(index) = order.index_before(first) {
            steps.push((index, Some((ids, values))));
        }
    }
    steps.sort_by_key(|(index, insertion)| (*index, insertion.is_none()));
    restored.now.clear();
    let inserted = steps.iter().filter_map(|(_, insertion)| insertion.as_ref());
    restored
        .now
        .extend(inserted.flat_map(|(ids, _)| ids.iter().copied()));
    let n_merged = order.n_visible();
    for (index, insertion) in steps.into_iter().rev() {
        match insertion {
            Some((ids, values)) => {
                pieces.insert(index, values, ids.last().copied(), n_merged);
            }
            None => pieces.remove(index, 1, n_merged),
        }
    }
    Ok(())
}

fn put_id(id: Id, out: &mut DeltaWriter) {
    out.replica(id.replica);
    out.number(id.counter);
}

fn read_id(node: &mut DeltaReader<'_>) -> Result<Id, EngineError> {
    let replica = node.replica()?;
    let counter = node.number()?;
    Ok(Id { replica, counter })
}
