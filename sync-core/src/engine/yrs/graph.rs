//! What the blocks of one update need of each other: how deep containers nest in it, and in which order it can be
//! applied.
//!
//! yrs recurses as deep as containers nest (when it deletes, collects, or makes JSON), and as many clients in a row as
//! are exhausted while it integrates an update; both overflow a stack. A snapshot of many short sessions, each of which
//! wrote after the one before, does the latter without any malice.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ::yrs::block::ClientID;
use ::yrs::updates::encoder::Encode;
use ::yrs::{ID, IdSet};

use super::rewrite::write_var;
use super::validate::{Block, Id, UNLIMITED, Visitor, scan};
use crate::engine::EngineError;

/// The blocks of an update that is well formed.
#[derive(Default)]
struct Graph {
    /// By client, descending.
    sections: Vec<Section>,
    deleted: IdSet,
}

struct Section {
    client: u64,
    /// By clock.
    blocks: Vec<Block>,
}

impl Visitor for Graph {
    fn block(&mut self, block: Block) {
        let client = block.id.client;
        match self.sections.last_mut() {
            Some(section) if section.client == client => section.blocks.push(block),
            _ => self.sections.push(Section {
                client,
                blocks: vec![block],
            }),
        }
    }

    fn deleted(&mut self, id: Id, len: u32) {
        self.deleted
            .insert(ID::new(ClientID::new(id.client), id.clock), len);
    }
}

impl Graph {
    fn new(update: &[u8]) -> Result<Self, EngineError> {
        let mut graph = Self::default();
        scan(update, &UNLIMITED, &mut graph)?;
        Ok(graph)
    }

    fn section_of(&self, client: u64) -> Option<usize> {
        self.sections
            .binary_search_by(|section| client.cmp(&section.client))
            .ok()
    }

    /// Where the block with an element is: section, and block in it.
    fn find(&self, id: Id) -> Option<(usize, usize)> {
        let section = self.section_of(id.client)?;
        let blocks = &self.sections.get(section)?.blocks;
        let after = blocks.partition_point(|block| block.id.clock <= id.clock);
        let at = after.checked_sub(1)?;
        let block = blocks.get(at)?;
        (id.clock - block.id.clock < block.len).then_some((section, at))
    }

    fn block(&self, (section, at): (usize, usize)) -> Option<&Block> {
        self.sections.get(section)?.blocks.get(at)
    }
}

/// Checks how deep containers nest in an update, as far as it says. Takes memory in proportion to its blocks.
pub(super) fn check_nesting(update: &[u8], depth_max: u32) -> Result<(), EngineError> {
    let graph = Graph::new(update)?;
    let unknown = |section: &Section| vec![None; section.blocks.len()];
    let mut depths: Vec<Vec<Option<u32>>> = graph.sections.iter().map(unknown).collect();
    let mut path = Vec::new();
    for (section, Section { blocks, .. }) in graph.sections.iter().enumerate() {
        for at in 0..blocks.len() {
            let mut next = Some((section, at));
            let mut depth = 0;
            // Down to a block whose depth is known, or that is in a root or in something that is not here.
            while let Some(place) = next {
                let (Some(block), Some(known)) = (graph.block(place), depth_of(&mut depths, place))
                else {
                    break;
                };
                if let Some(known) = *known {
                    depth = known;
                    break;
                }
                // Blocks that need each other are in no document.
                *known = Some(0);
                path.push((place, block.parent.is_some()));
                let beside = block.left.or(block.right).map(|link| link.id);
                next = block.parent.or(beside).and_then(|id| graph.find(id));
            }
            while let Some((place, is_inside)) = path.pop() {
                depth += u32::from(is_inside);
                if depth > depth_max {
                    return Err(EngineError::LimitExceeded {
                        what: "nesting of containers",
                        value: u64::from(depth),
                        max: u64::from(depth_max),
                    });
                }
                if let Some(known) = depth_of(&mut depths, place) {
                    *known = Some(depth);
                }
            }
        }
    }
    Ok(())
}

fn depth_of(
    depths: &mut [Vec<Option<u32>>],
    (section, at): (usize, usize),
) -> Option<&mut Option<u32>> {
    depths.get_mut(section)?.get_mut(at)
}

/// An update in parts that can be applied one after the other, and the clients that have what is missing for the rest.
/// `known` tells up to where the document has a client's elements.
pub(super) fn in_order(
    update: &[u8],
    known: impl Fn(u64) -> u32,
) -> Result<(Vec<Vec<u8>>, BTreeSet<ClientID>), EngineError> {
    let graph = Graph::new(update)?;
    let mut reach: Vec<u32> = graph
        .sections
        .iter()
        .map(|section| known(section.client))
        .collect();
    let mut next = vec![0; reach.len()];
    let mut ready: VecDeque<usize> = (0..reach.len()).collect();
    // Sections by the element that they wait for.
    let mut waiting: BTreeMap<(usize, u32), Vec<usize>> = BTreeMap::new();
    let mut missing = BTreeSet::new();
    let mut parts = Vec::new();
    while let Some(index) = ready.pop_front() {
        let Some(section) = graph.sections.get(index) else {
            continue;
        };
        let (Some(at), Some(&before)) = (next.get_mut(index), reach.get(index)) else {
            continue;
        };
        let mut part = Part::default();
        let mut here = before;
        for block in section.blocks.iter().skip(*at) {
            let end = block.id.clock.saturating_add(block.len);
            if !block.is_skip && end > here {
                let has = |id: Id| {
                    let other = graph.section_of(id.client);
                    let there = other.and_then(|other| reach.get(other).copied());
                    let there = if other == Some(index) {
                        Some(here)
                    } else {
                        there
                    };
                    id.clock < there.unwrap_or_else(|| known(id.client))
                };
                let own = (block.id.clock > here).then_some(Id {
                    clock: here,
                    ..block.id
                });
                let links = [block.left, block.right]
                    .into_iter()
                    .flatten()
                    .map(|link| link.id);
                let needed = own
                    .into_iter()
                    .chain(links.chain(block.parent).filter(|&id| !has(id)))
                    .next();
                if let Some(id) = needed {
                    match graph.section_of(id.client).filter(|&other| other != index) {
                        Some(other) => waiting.entry((other, id.clock)).or_default().push(index),
                        None => {
                            missing.insert(ClientID::new(id.client));
                        }
                    }
                    break;
                }
                part.push(update, block);
                here = end;
            }
            *at += 1;
        }
        parts.extend(part.encode());
        if let Some(reach) = reach.get_mut(index) {
            *reach = here;
        }
        let released: Vec<_> = waiting
            .range((index, 0)..(index, here))
            .map(|(&key, _)| key)
            .collect();
        for key in released {
            ready.extend(waiting.remove(&key).unwrap_or_default());
        }
    }
    // What still waits needs something that is missing, or blocks that need each other.
    let clients = waiting
        .keys()
        .filter_map(|&(section, _)| graph.sections.get(section));
    missing.extend(clients.map(|section| ClientID::new(section.client)));
    if !graph.deleted.is_empty() {
        // No sections, then the deletions.
        parts.push([&[0], graph.deleted.encode_v1().as_slice()].concat());
    }
    Ok((parts, missing))
}

/// Blocks of one client in a row.
#[derive(Default)]
struct Part {
    first: Option<Id>,
    n_blocks: u64,
    bytes: Vec<u8>,
}

impl Part {
    fn push(&mut self, update: &[u8], block: &Block) {
        self.first.get_or_insert(block.id);
        self.n_blocks += 1;
        let (start, end) = block.bytes;
        self.bytes
            .extend_from_slice(update.get(start..end).unwrap_or_default());
    }

    /// The blocks as an update.
    fn encode(self) -> Option<Vec<u8>> {
        let first = self.first?;
        let mut out = vec![1];
        write_var(&mut out, self.n_blocks);
        write_var(&mut out, first.client);
        write_var(&mut out, u64::from(first.clock));
        out.extend_from_slice(&self.bytes);
        out.push(0);
        Some(out)
    }
}
