//! Nodes without the application's types: what a server has of a document, and what an application has of the parts
//! that it does not know. Keys and values stay the bytes that they are.

use std::collections::BTreeMap;

use super::content::Content;
use super::counter::Cells;
use super::entries::{self, Entries};
use super::keyed::Keyed;
use super::or_set::Elements;
use super::presence::{AddWins, RemoveWins};
use super::register::Cell;
use super::sequence::Order;
use super::{DeltaReader, DeltaWriter, Kind, VersionVector, digest};
use crate::engine::EngineError;

/// One node.
#[derive(Debug, Clone)]
pub(super) enum Node {
    LwwMap(Entries),
    Register(Cell),
    Counter(Cells),
    OrSet(Elements),
    OrMap(Keyed<AddWins, Nodes>),
    Dictionary(Keyed<RemoveWins, Nodes>),
    Sequence(Box<Order>),
    Struct(Fields),
}

impl Node {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::LwwMap => Self::LwwMap(Entries::new()),
            Kind::Register => Self::Register(Cell::default()),
            Kind::Counter => Self::Counter(Cells::default()),
            Kind::OrSet => Self::OrSet(Elements::default()),
            Kind::OrMap => Self::OrMap(Keyed::default()),
            Kind::Dictionary => Self::Dictionary(Keyed::default()),
            Kind::Sequence => Self::Sequence(Box::default()),
            Kind::Struct => Self::Struct(Fields::default()),
        }
    }

    fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        match self {
            Self::LwwMap(held) => {
                let mut node = delta.node(Kind::LwwMap)?;
                let mut changed = false;
                while !node.is_at_end() {
                    let (key, write) = entries::read(&mut node)?;
                    changed |= !node.is_settled(write.stamp.dot()) && held.apply(key, &write);
                }
                Ok(changed)
            }
            Self::Register(held) => held.apply(delta),
            Self::Counter(held) => held.apply(delta),
            Self::OrSet(held) => held.apply(delta, |_, _| {}),
            Self::OrMap(held) => held.apply(delta, |_, _| {}),
            Self::Dictionary(held) => held.apply(delta, |_, _| {}),
            Self::Sequence(held) => held.apply(delta),
            Self::Struct(held) => held.apply(delta),
        }
    }

    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        match self {
            Self::LwwMap(held) => out.node(Kind::LwwMap, |out| held.diff(since, out)),
            Self::Register(held) => held.diff(since, out),
            Self::Counter(held) => held.diff(since, out),
            Self::OrSet(held) => held.diff(since, out),
            Self::OrMap(held) => held.diff(since, out),
            Self::Dictionary(held) => held.diff(since, out),
            Self::Sequence(held) => held.diff(since, out),
            Self::Struct(held) => held.diff(since, out),
        }
    }

    fn compact(&mut self, horizon: &VersionVector) {
        match self {
            Self::LwwMap(held) => held.compact(horizon),
            Self::Register(held) => held.compact(horizon),
            Self::Counter(held) => held.compact(horizon),
            Self::OrSet(held) => held.compact(horizon),
            Self::OrMap(held) => held.compact(horizon),
            Self::Dictionary(held) => held.compact(horizon),
            Self::Sequence(held) => held.compact(horizon),
            Self::Struct(Fields(fields)) => {
                fields.values_mut().for_each(|field| field.compact(horizon));
            }
        }
    }

    fn digest(&self) -> u64 {
        match self {
            Self::LwwMap(held) => held.digest(),
            Self::Register(held) => held.digest(),
            Self::Counter(held) => held.digest(),
            Self::OrSet(held) => held.digest(),
            Self::OrMap(held) => held.digest(),
            Self::Dictionary(held) => held.digest(),
            Self::Sequence(held) => held.digest(),
            Self::Struct(held) => held.digest(),
        }
    }

    fn is_waiting(&self) -> bool {
        match self {
            Self::OrMap(held) => held.is_waiting(),
            Self::Dictionary(held) => held.is_waiting(),
            Self::Sequence(held) => held.is_waiting(),
            Self::Struct(Fields(fields)) => fields.values().any(Content::is_waiting),
            Self::LwwMap(_) | Self::Register(_) | Self::Counter(_) | Self::OrSet(_) => false,
        }
    }
}

/// The nodes of one place, by kind.
///
/// Which kind a place has is the application's matter. Where two versions of it disagree, each keeps its own node, and
/// neither loses anything.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nodes(BTreeMap<Kind, Node>);

impl Nodes {
    pub(super) fn nodes(&self) -> impl Iterator<Item = (&Kind, &Node)> {
        self.0.iter()
    }

    /// Merges a content at the place that these fields of structs lead to.
    pub(super) fn apply_at(
        &mut self,
        path: &[u32],
        content: &mut DeltaReader<'_>,
    ) -> Result<bool, EngineError> {
        let Some((tag, rest)) = path.split_first() else {
            return self.apply(content);
        };
        let node = self
            .0
            .entry(Kind::Struct)
            .or_insert_with(|| Node::Struct(Fields::default()));
        match node {
            Node::Struct(Fields(fields)) => fields.entry(*tag).or_default().apply_at(rest, content),
            // Nodes stand under their own kind.
            _ => Ok(false),
        }
    }
}

impl Content for Nodes {
    fn apply(&mut self, content: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        let mut changed = false;
        while !content.is_at_end() {
            let kind = content.kind()?;
            changed |= self
                .0
                .entry(kind)
                .or_insert_with(|| Node::new(kind))
                .apply(content)?;
        }
        Ok(changed)
    }

    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        self.0.values().for_each(|node| node.diff(since, out));
    }

    fn compact(&mut self, horizon: &VersionVector) {
        self.0.values_mut().for_each(|node| node.compact(horizon));
    }

    fn digest(&self) -> u64 {
        let parts = self.0.iter();
        let parts = parts.map(|(kind, node)| kind.factor().wrapping_mul(node.digest()));
        parts.fold(0, u64::wrapping_add)
    }

    fn is_waiting(&self) -> bool {
        self.0.values().any(Node::is_waiting)
    }
}

/// The fields of a struct, by tag.
#[derive(Debug, Clone, Default)]
pub(super) struct Fields(BTreeMap<u32, Nodes>);

impl Fields {
    pub(super) fn iter(&self) -> impl Iterator<Item = (&u32, &Nodes)> {
        self.0.iter()
    }

    fn apply(&mut self, delta: &mut DeltaReader<'_>) -> Result<bool, EngineError> {
        let mut node = delta.node(Kind::Struct)?;
        let mut changed = false;
        while !node.is_at_end() {
            let field = node.field()?;
            changed |= self
                .0
                .entry(field.tag())
                .or_default()
                .apply(&mut field.into_content())?;
        }
        Ok(changed)
    }

    fn diff(&self, since: &VersionVector, out: &mut DeltaWriter) {
        out.node(Kind::Struct, |out| {
            for (tag, field) in &self.0 {
                out.field(*tag, |out| field.diff(since, out));
            }
        });
    }

    fn digest(&self) -> u64 {
        let parts = self.0.iter();
        let parts = parts.map(|(tag, field)| digest::field(*tag, field.digest()));
        parts.fold(0, u64::wrapping_add)
    }
}
