//! Writing the content of changes and snapshots.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::clock::{Dot, ReplicaId, Stamp};
use super::cursor::{put_len, put_ranges, put_varint};
use super::format::{FORM_COMMIT, FORM_COMMIT_REFS, FORM_STATE, FORM_STATE_REFS};
use super::{Kind, VersionVector, joined};

/// Collects the content of a change: nodes, with the stamps and replicas that they refer to.
#[derive(Debug, Default)]
pub struct DeltaWriter {
    body: Vec<u8>,
    /// Whose commit it is, if it is one: the replica that needs no entry among `replicas`.
    author: Option<ReplicaId>,
    /// In the order of their first use.
    stamps: Vec<Stamp>,
    index: BTreeMap<Stamp, usize>,
    /// In the order of their first use.
    replicas: Vec<ReplicaId>,
    replica_index: BTreeMap<ReplicaId, usize>,
}

impl DeltaWriter {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            body: Vec::new(),
            author: None,
            stamps: Vec::new(),
            index: BTreeMap::new(),
            replicas: Vec::new(),
            replica_index: BTreeMap::new(),
        }
    }

    /// Nothing yet, of the commit of this replica.
    pub(crate) const fn of_commit(author: ReplicaId) -> Self {
        let mut out = Self::new();
        out.author = Some(author);
        out
    }

    /// Whether nothing has been written.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.body.is_empty()
    }

    /// Writes a node whose body is what `body` writes; nothing at all if it writes nothing.
    pub fn node(&mut self, kind: Kind, body: impl FnOnce(&mut Self)) {
        self.framed(&[kind.number()], body);
    }

    /// As [`node`](Self::node), for a body that can fail.
    ///
    /// # Errors
    /// What `body` returns.
    pub fn try_node<E>(
        &mut self,
        kind: Kind,
        body: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut outcome = Ok(());
        self.node(kind, |out| outcome = body(out));
        outcome
    }

    /// Writes the field of a struct; nothing at all if `content` writes nothing. Fields come in ascending order of
    /// their tags.
    pub fn field(&mut self, tag: u32, content: impl FnOnce(&mut Self)) {
        let mut head = Vec::new();
        put_varint(&mut head, u64::from(tag));
        self.framed(&head, content);
    }

    /// Writes a reference to a stamp.
    pub fn stamp(&mut self, stamp: Stamp) {
        // Most changes have one stamp: the last one used is looked at first.
        let index = match self.stamps.last() {
            Some(last) if *last == stamp => self.stamps.len() - 1,
            _ => *self.index.entry(stamp).or_insert_with(|| {
                self.stamps.push(stamp);
                self.stamps.len() - 1
            }),
        };
        put_len(&mut self.body, index);
    }

    /// Writes a reference to a commit, where its time does not matter.
    pub fn dot(&mut self, dot: Dot) {
        self.stamp(Stamp::new(0, 0, dot));
    }

    /// Writes a reference to a replica.
    pub fn replica(&mut self, replica: ReplicaId) {
        let own = usize::from(self.author.is_some());
        let index = if self.author == Some(replica) {
            0
        } else {
            own + *self.replica_index.entry(replica).or_insert_with(|| {
                self.replicas.push(replica);
                self.replicas.len() - 1
            })
        };
        put_len(&mut self.body, index);
    }

    /// Writes a number.
    pub fn number(&mut self, number: u64) {
        put_varint(&mut self.body, number);
    }

    /// Writes bytes with their length.
    pub fn bytes(&mut self, bytes: &[u8]) {
        put_len(&mut self.body, bytes.len());
        self.body.extend_from_slice(bytes);
    }

    /// Writes bytes with their length, or that there are none.
    pub fn optional_bytes(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            None => self.body.push(0),
            Some(bytes) => {
                put_len(&mut self.body, bytes.len().saturating_add(1));
                self.body.extend_from_slice(bytes);
            }
        }
    }

    /// Writes bytes of which the reader knows the length.
    pub(super) fn raw(&mut self, bytes: &[u8]) {
        self.body.extend_from_slice(bytes);
    }

    /// Writes something with its length before it, also if it is nothing.
    pub(super) fn sized(&mut self, body: impl FnOnce(&mut Self)) {
        let start = self.body.len();
        body(self);
        let mut head = Vec::new();
        put_len(&mut head, self.body.len() - start);
        self.body.splice(start..start, head);
    }

    /// What is written by `known`, and what by `rest`, as the content of one place.
    pub(super) fn both(&mut self, known: impl FnOnce(&mut Self), rest: impl FnOnce(&mut Self)) {
        let start = self.body.len();
        known(self);
        let middle = self.body.len();
        rest(self);
        if start < middle && middle < self.body.len() {
            let rest = self.body.split_off(middle);
            let known = self.body.split_off(start);
            joined::contents(&known, &rest, &mut self.body);
        }
    }

    /// Takes back what was written after the first `length` bytes. Stamps that only that used stay.
    pub(super) fn truncate(&mut self, length: usize) {
        self.body.truncate(length);
    }

    pub(super) const fn len(&self) -> usize {
        self.body.len()
    }

    fn framed(&mut self, head: &[u8], body: impl FnOnce(&mut Self)) {
        let start = self.body.len();
        body(self);
        let length = self.body.len() - start;
        if length > 0 {
            let mut head = head.to_vec();
            put_len(&mut head, length);
            self.body.splice(start..start, head);
        }
    }

    /// What was written as the change of one commit, in which all stamps must be.
    pub(crate) fn into_commit(self, dot: Dot) -> Bytes {
        let has_refs = !self.replicas.is_empty();
        let mut out = Vec::with_capacity(self.body.len() + 24);
        out.push(if has_refs {
            FORM_COMMIT_REFS
        } else {
            FORM_COMMIT
        });
        out.extend_from_slice(&dot.replica.0.to_be_bytes());
        put_varint(&mut out, dot.number);
        put_len(&mut out, self.stamps.len());
        for stamp in &self.stamps {
            debug_assert_eq!(stamp.dot(), dot, "a commit stamps what it writes itself");
            put_varint(&mut out, stamp.time);
            put_varint(&mut out, u64::from(stamp.counter));
        }
        if has_refs {
            put_len(&mut out, self.replicas.len());
            for replica in &self.replicas {
                out.extend_from_slice(&replica.0.to_be_bytes());
            }
        }
        out.extend_from_slice(&self.body);
        out.into()
    }

    /// What was written as a change that, for whoever holds `base`, brings all of `claims`. What is reclaimed below
    /// `horizon` is not in it.
    pub(crate) fn into_state(
        self,
        base: &VersionVector,
        claims: &VersionVector,
        horizon: &VersionVector,
    ) -> Bytes {
        let mut index: BTreeMap<ReplicaId, usize> = BTreeMap::new();
        for vector in [base, claims, horizon] {
            index.extend(vector.iter().map(|(replica, _)| (replica, 0)));
        }
        index.extend(self.stamps.iter().map(|stamp| (stamp.replica, 0)));
        index.extend(self.replicas.iter().map(|replica| (*replica, 0)));
        let trimmed = !self.replicas.is_empty() || !horizon.is_empty();
        let mut out = Vec::with_capacity(self.body.len() + 64);
        out.push(if trimmed { FORM_STATE_REFS } else { FORM_STATE });
        put_len(&mut out, index.len());
        for (position, (replica, slot)) in index.iter_mut().enumerate() {
            *slot = position;
            out.extend_from_slice(&replica.0.to_be_bytes());
        }
        for replica in index.keys() {
            put_ranges(&mut out, base.ranges(*replica));
            put_ranges(&mut out, claims.ranges(*replica));
            if trimmed {
                put_ranges(&mut out, horizon.ranges(*replica));
            }
        }
        let position = |replica| index.get(&replica).copied().unwrap_or_default();
        put_len(&mut out, self.stamps.len());
        for stamp in &self.stamps {
            put_len(&mut out, position(stamp.replica));
            put_varint(&mut out, stamp.number);
            put_varint(&mut out, stamp.time);
            put_varint(&mut out, u64::from(stamp.counter));
        }
        if trimmed {
            put_len(&mut out, self.replicas.len());
            for replica in &self.replicas {
                put_len(&mut out, position(*replica));
            }
        }
        out.extend_from_slice(&self.body);
        out.into()
    }
}
