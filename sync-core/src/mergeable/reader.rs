//! Reading the content of changes and snapshots that have been checked.

use std::cell::RefCell;

use super::clock::{Dot, ReplicaId, Stamp};
use super::cursor::Cursor;
use super::{DeltaWriter, Kind, Mergeable, VersionVector};
use crate::engine::EngineError;

/// What all of a change's content refers to, and what came up while it was read.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(super) stamps: &'a [Stamp],
    pub(super) replicas: &'a [ReplicaId],
    /// Writes of these commits have been merged, or reclaimed since: they are not merged again.
    pub(super) horizon: &'a VersionVector,
    /// The reader takes over a whole state, with what stands in it for what has been reclaimed.
    pub(super) adopts: bool,
    /// What the types did not know, for whoever keeps it.
    pub(super) kept: RefCell<Vec<Kept>>,
}

/// A node that the type at its place does not know.
#[derive(Debug)]
pub(super) struct Kept {
    /// Tags of the fields that lead to its place.
    pub(super) path: Vec<u32>,
    /// Where it stands.
    span: (usize, usize),
}

/// The fields that lead to a place, innermost first.
#[derive(Debug, Clone, Copy)]
struct Link<'a> {
    tag: u32,
    parent: Option<&'a Self>,
}

/// Reads the content of a change that has been checked as a whole, so that its structure is sound.
#[derive(Debug)]
pub struct DeltaReader<'a> {
    pub(super) cursor: Cursor<'a>,
    context: &'a Context<'a>,
    path: Option<&'a Link<'a>>,
}

impl<'a> DeltaReader<'a> {
    pub(super) const fn new(cursor: Cursor<'a>, context: &'a Context<'a>) -> Self {
        Self {
            cursor,
            context,
            path: None,
        }
    }

    /// The kind of the next node, which is not read yet.
    pub(crate) fn kind(&self) -> Result<Kind, EngineError> {
        let mut ahead = self.cursor;
        Kind::from_number(ahead.byte("a node's kind")?)
            .ok_or_else(|| self.cursor.malformed("a node's kind"))
    }

    /// The next node's body, which must be of this kind.
    ///
    /// # Errors
    /// [`EngineError::Malformed`] if the node is of another kind.
    pub fn node(&mut self, kind: Kind) -> Result<Self, EngineError> {
        let start = self.cursor;
        if self.cursor.byte("a node's kind")? != kind.number() {
            return Err(start.malformed("a node of this kind"));
        }
        let length = self.cursor.varint("a node's length")?;
        self.part(length)
    }

    /// Whether everything has been read.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.cursor.is_at_end()
    }

    /// The next field of a struct.
    ///
    /// # Errors
    /// [`EngineError::Malformed`] if the content has another shape than its kind says; never after a check.
    pub fn field(&mut self) -> Result<Field<'a>, EngineError> {
        let start = self.cursor;
        let tag = u32::try_from(self.cursor.varint("a field's tag")?)
            .map_err(|_| start.malformed("a field's tag"))?;
        let length = self.cursor.varint("a field's length")?;
        let content = self.part(length)?;
        Ok(Field { tag, content })
    }

    /// The stamp that is referred to next.
    ///
    /// # Errors
    /// As [`field`](Self::field).
    pub fn stamp(&mut self) -> Result<Stamp, EngineError> {
        let start = self.cursor;
        let index = self.cursor.varint("a stamp index")?;
        let stamp = usize::try_from(index)
            .ok()
            .and_then(|index| self.context.stamps.get(index));
        stamp
            .copied()
            .ok_or_else(|| start.malformed("a stamp index"))
    }

    /// The commit that is referred to next.
    ///
    /// # Errors
    /// As [`field`](Self::field).
    pub fn dot(&mut self) -> Result<Dot, EngineError> {
        self.stamp().map(|stamp| stamp.dot())
    }

    /// The replica that is referred to next.
    ///
    /// # Errors
    /// As [`field`](Self::field).
    pub fn replica(&mut self) -> Result<ReplicaId, EngineError> {
        let start = self.cursor;
        let index = self.cursor.varint("a replica index")?;
        let replica = usize::try_from(index)
            .ok()
            .and_then(|index| self.context.replicas.get(index));
        replica
            .copied()
            .ok_or_else(|| start.malformed("a replica index"))
    }

    /// A number.
    ///
    /// # Errors
    /// As [`field`](Self::field).
    pub fn number(&mut self) -> Result<u64, EngineError> {
        self.cursor.varint("a number")
    }

    /// Bytes with their length.
    ///
    /// # Errors
    /// As [`field`](Self::field).
    pub fn bytes(&mut self) -> Result<&'a [u8], EngineError> {
        let length = self.cursor.varint("a length")?;
        self.cursor.take(length, "bytes")
    }

    /// Bytes with their length, or that there are none.
    ///
    /// # Errors
    /// As [`field`](Self::field).
    pub fn optional_bytes(&mut self) -> Result<Option<&'a [u8]>, EngineError> {
        match self.cursor.varint("a length")?.checked_sub(1) {
            None => Ok(None),
            Some(length) => self.cursor.take(length, "bytes").map(Some),
        }
    }

    /// Whether this commit is below the horizon: what it wrote has been merged, and may have been reclaimed since, so
    /// it is not merged again.
    #[must_use]
    pub fn is_settled(&self, dot: Dot) -> bool {
        !self.context.adopts && self.context.horizon.contains(dot)
    }

    /// As [`is_settled`](Self::is_settled), for this commit of a replica, and through which number that is the same.
    pub(super) fn settled_through(&self, replica: ReplicaId, number: u64) -> (bool, u64) {
        if self.context.adopts {
            (false, u64::MAX)
        } else {
            self.context.horizon.same_through(replica, number)
        }
    }

    /// Whether all of these commits are settled, both bounds among them.
    pub(super) fn is_all_settled(&self, replica: ReplicaId, (first, last): (u64, u64)) -> bool {
        !self.context.adopts && self.context.horizon.contains_range(replica, first, last)
    }

    pub(super) fn byte(&mut self) -> Result<u8, EngineError> {
        self.cursor.byte("a byte")
    }

    /// Whether to take over what stands for what has been reclaimed, which only a whole state has.
    pub(super) const fn adopts(&self) -> bool {
        self.context.adopts
    }

    /// The content of a place inside this one, as long as it says.
    pub(super) fn content(&mut self) -> Result<Self, EngineError> {
        let length = self.cursor.varint("a length")?;
        let mut content = self.part(length)?;
        content.path = None;
        Ok(content)
    }

    /// How many nodes nobody has taken so far.
    pub(super) fn n_kept(&self) -> usize {
        self.context.kept.borrow().len()
    }

    /// Takes what has been left over since there were `n`.
    pub(super) fn take_kept(&self, n: usize) -> Vec<Kept> {
        let mut kept = self.context.kept.borrow_mut();
        if kept.len() > n {
            kept.split_off(n)
        } else {
            Vec::new()
        }
    }

    /// Reads a node that was left over.
    pub(super) fn reread(&self, kept: &Kept) -> Self {
        Self {
            cursor: self.cursor.at_span(kept.span),
            context: self.context,
            path: None,
        }
    }

    /// Skips the next node, which the type at this place does not know, and leaves it to whoever keeps such nodes.
    pub(super) fn keep(&mut self) -> Result<(), EngineError> {
        let start = self.cursor.span().0;
        self.cursor.byte("a node's kind")?;
        let length = self.cursor.varint("a node's length")?;
        self.cursor.take(length, "a node")?;
        let mut path = Vec::new();
        let mut link = self.path;
        while let Some(Link { tag, parent }) = link {
            path.push(*tag);
            link = *parent;
        }
        path.reverse();
        let span = (start, self.cursor.span().0);
        self.context.kept.borrow_mut().push(Kept { path, span });
        Ok(())
    }

    /// Merges the content of a place into the value there; what is of another kind is left over.
    pub(super) fn apply_to<T: Mergeable>(&mut self, value: &mut T) -> Result<bool, EngineError> {
        let mut changed = false;
        while !self.is_at_end() {
            if self.kind()? == T::KIND {
                changed |= value.apply(self)?;
            } else {
                self.keep()?;
            }
        }
        Ok(changed)
    }

    fn part(&mut self, length: u64) -> Result<Self, EngineError> {
        Ok(Self {
            cursor: self.cursor.part(length, "a part")?,
            context: self.context,
            path: self.path,
        })
    }
}

/// One field of a struct in a delta.
#[derive(Debug)]
pub struct Field<'a> {
    tag: u32,
    content: DeltaReader<'a>,
}

impl<'a> Field<'a> {
    /// Which field it is.
    #[must_use]
    pub const fn tag(&self) -> u32 {
        self.tag
    }

    /// Merges the field into its value. Returns whether that changed anything.
    ///
    /// # Errors
    /// As [`Mergeable::apply`].
    pub fn apply<T: Mergeable>(self, value: &mut T) -> Result<bool, EngineError> {
        self.inside(|content| content.apply_to(value))
    }

    /// Leaves the field to whoever keeps what the types do not know: it is in every difference and snapshot.
    ///
    /// # Errors
    /// As [`Mergeable::apply`].
    pub fn keep(self) -> Result<bool, EngineError> {
        self.inside(|content| {
            while !content.is_at_end() {
                content.keep()?;
            }
            Ok(false)
        })
    }

    /// Writes the field of an inverse, for a value before the change that this field is of.
    ///
    /// # Errors
    /// As [`Mergeable::inverse`].
    pub fn inverse<T: Mergeable>(
        mut self,
        value: &T,
        out: &mut DeltaWriter,
    ) -> Result<(), EngineError> {
        let mut outcome = Ok(());
        out.field(self.tag, |out| {
            while outcome.is_ok() && !self.content.is_at_end() {
                outcome = match self.content.kind() {
                    Ok(kind) if kind == T::KIND => value.inverse(&mut self.content, out),
                    Ok(kind) => self.content.node(kind).map(|_| ()),
                    Err(error) => Err(error),
                };
            }
        });
        outcome
    }

    /// Stages what takes back a change to the field, of an inverse.
    ///
    /// # Errors
    /// As [`Mergeable::revert`].
    pub fn revert<T: Mergeable>(mut self, value: &mut T) -> Result<(), EngineError> {
        value.revert(&mut self.content)
    }

    /// The content, for whoever reads it without a type.
    pub(super) fn into_content(self) -> DeltaReader<'a> {
        self.content
    }

    fn inside<R>(self, f: impl FnOnce(&mut DeltaReader<'_>) -> R) -> R {
        let link = Link {
            tag: self.tag,
            parent: self.content.path,
        };
        f(&mut DeltaReader {
            cursor: self.content.cursor,
            context: self.content.context,
            path: Some(&link),
        })
    }
}
