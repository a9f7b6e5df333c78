//! What a client keeps on its device: the shapes of it. The trait itself is `sync_client::ClientStore`.

use bytes::Bytes;

use super::event::RefusedChange;
use crate::history::Cursor;
use crate::ids::{ChangeId, EngineId, OriginId};

/// A change of the outbox, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxChange {
    /// Its identity, which it keeps when it is loaded again.
    pub id: ChangeId,
    /// Its place: the outbox is sent in ascending order of these. Unique within a document.
    pub position: i64,
    /// Its bytes, in the engine's encoding.
    pub bytes: Bytes,
    /// Whether it ends a reconciliation.
    pub reconciling: bool,
}

impl OutboxChange {
    /// A change of the outbox.
    #[must_use]
    pub const fn new(id: ChangeId, position: i64, bytes: Bytes, reconciling: bool) -> Self {
        Self {
            id,
            position,
            bytes,
            reconciling,
        }
    }
}

/// Where a document stands: what every write says anew.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredState {
    /// The engine that reads its bytes.
    pub engine: EngineId,
    /// What the snapshot and the tail hold of the server's log; `None` if nothing.
    pub cursor: Option<Cursor>,
    /// Per origin in the outbox, the number through which it is known acknowledged.
    pub acknowledged: Vec<(OriginId, u64)>,
    /// A change was refused and the replica has not been rebuilt without it yet.
    pub rebuild: bool,
}

impl StoredState {
    /// Nothing is known of the server's log.
    #[must_use]
    pub const fn new(engine: EngineId) -> Self {
        Self {
            engine,
            cursor: None,
            acknowledged: Vec::new(),
            rebuild: false,
        }
    }
}

/// What a store holds of one document. The replica is the snapshot, then the tail, then the outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredDocument {
    /// Where it stands.
    pub state: StoredState,
    /// A state of the replica.
    pub snapshot: Option<Bytes>,
    /// Changes imported since, in order.
    pub tail: Vec<Bytes>,
    /// Changes not acknowledged, in order.
    pub outbox: Vec<OutboxChange>,
    /// Changes refused for good and not dropped by the application, in the order of their refusal.
    pub refused: Vec<RefusedChange>,
}

impl StoredDocument {
    /// A document of which nothing is stored yet.
    #[must_use]
    pub const fn new(engine: EngineId) -> Self {
        Self {
            state: StoredState::new(engine),
            snapshot: None,
            tail: Vec::new(),
            outbox: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Puts a change into the outbox, unless it is there already.
    pub fn stage(&mut self, change: OutboxChange) {
        if self.outbox.iter().any(|there| there.id == change.id) {
            return;
        }
        let at = self
            .outbox
            .partition_point(|there| there.position < change.position);
        self.outbox.insert(at, change);
    }

    /// Carries out a write, as every store does.
    pub fn apply(&mut self, write: StoreWrite) {
        self.state = write.state;
        if let Some(snapshot) = write.snapshot {
            self.snapshot = Some(snapshot);
            self.tail.clear();
        }
        self.tail.extend(write.imported);
        if let Some(through) = write.outbox_clear {
            self.outbox.retain(|change| change.position > through);
        }
        self.outbox
            .retain(|change| !write.outbox_remove.contains(&change.id));
        for change in write.outbox_add {
            self.stage(change);
        }
        self.refused
            .retain(|change| !write.refused_remove.contains(&change.id));
        self.refused.extend(write.refused_add);
    }
}

/// One transaction on a stored document: all parts or none.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreWrite {
    /// Where the document stands from now on; with its engine, which matters for one that is not stored yet.
    pub state: StoredState,
    /// A state of the replica that takes the place of the stored snapshot and the whole stored tail.
    pub snapshot: Option<Bytes>,
    /// Changes to append to the tail, after that.
    pub imported: Vec<Bytes>,
    /// Forget the stored outbox through this position, before the following two. What was staged since the write was made
    /// is behind it.
    pub outbox_clear: Option<i64>,
    /// Changes to take out of the outbox; some may not be there.
    pub outbox_remove: Vec<ChangeId>,
    /// Changes to put into the outbox. One whose id is there already, because it was staged, stays as it is.
    pub outbox_add: Vec<OutboxChange>,
    /// Refused changes to append.
    pub refused_add: Vec<RefusedChange>,
    /// Refused changes to forget.
    pub refused_remove: Vec<ChangeId>,
}

impl StoreWrite {
    /// A write that changes nothing but what every write says: the engine, and no cursor.
    #[must_use]
    pub const fn new(engine: EngineId) -> Self {
        Self {
            state: StoredState::new(engine),
            snapshot: None,
            imported: Vec::new(),
            outbox_clear: None,
            outbox_remove: Vec::new(),
            outbox_add: Vec::new(),
            refused_add: Vec::new(),
            refused_remove: Vec::new(),
        }
    }

    /// Adds a later write to this one, so that one transaction carries out both.
    pub fn merge(&mut self, later: Self) {
        if later.snapshot.is_some() {
            self.snapshot = later.snapshot;
            self.imported.clear();
        }
        self.imported.extend(later.imported);
        if let Some(through) = later.outbox_clear {
            self.outbox_clear = self.outbox_clear.max(later.outbox_clear);
            self.outbox_add.retain(|change| change.position > through);
        }
        self.outbox_add
            .retain(|change| !later.outbox_remove.contains(&change.id));
        self.outbox_remove.extend(later.outbox_remove);
        self.outbox_add.extend(later.outbox_add);
        self.refused_add
            .retain(|change| !later.refused_remove.contains(&change.id));
        self.refused_remove.extend(later.refused_remove);
        self.refused_add.extend(later.refused_add);
        self.state = later.state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write() -> StoreWrite {
        StoreWrite::new(EngineId::YRS)
    }

    fn change(number: u64) -> OutboxChange {
        let id = ChangeId {
            origin: OriginId(1),
            number,
        };
        OutboxChange::new(
            id,
            i64::try_from(number).unwrap(),
            Bytes::from(number.to_string()),
            false,
        )
    }

    #[test]
    fn a_rewritten_outbox_leaves_what_was_staged_since() {
        let mut stored = StoredDocument::new(EngineId::YRS);
        stored.stage(change(1));
        let rewritten = StoreWrite {
            outbox_clear: Some(change(1).position),
            outbox_add: vec![OutboxChange::new(
                change(8).id,
                change(1).position,
                Bytes::from_static(b"1"),
                false,
            )],
            ..write()
        };
        stored.stage(change(2));
        stored.apply(rewritten);
        let left: Vec<u64> = stored.outbox.iter().map(|left| left.id.number).collect();
        assert_eq!(left, [8, 2]);
    }

    /// Every pair of these writes does the same merged as one after the other.
    #[test]
    fn merged_writes_do_what_they_do_one_after_the_other() {
        let id = |number| change(number).id;
        let writes = [
            StoreWrite {
                outbox_add: vec![change(1), change(2)],
                ..write()
            },
            StoreWrite {
                outbox_remove: vec![id(1)],
                imported: vec!["a".into()],
                ..write()
            },
            StoreWrite {
                outbox_clear: Some(4),
                outbox_add: vec![change(3), change(2)],
                ..write()
            },
            StoreWrite {
                snapshot: Some("s".into()),
                imported: vec!["b".into()],
                state: StoredState {
                    rebuild: true,
                    ..StoredState::new(EngineId::YRS)
                },
                ..write()
            },
            StoreWrite {
                outbox_remove: vec![id(2), id(3)],
                outbox_add: vec![change(4)],
                ..write()
            },
        ];
        let mut start = StoredDocument::new(EngineId::YRS);
        start.tail = vec!["t".into()];
        start.stage(change(1));
        start.stage(change(9));
        for first in &writes {
            for second in &writes {
                let mut apart = start.clone();
                apart.apply(first.clone());
                apart.apply(second.clone());
                let mut merged = first.clone();
                merged.merge(second.clone());
                let mut together = start.clone();
                together.apply(merged);
                assert_eq!(together, apart, "{first:?}\nthen {second:?}");
            }
        }
    }
}
