//! What a server says and keeps is so: looked at when it says it, and before it is kept.

use sync_core::engine::{Document, Engine, ReplicaSeed, Validator};
use sync_core::history::{Epoch, Seq};
use sync_core::ids::{DocumentId, SessionId};
use sync_core::registry::{Snapshot, Tail};
use sync_core::wire::{Continuation, Message, Reset};

use super::{World, wait};

impl<E: Engine + Validator> World<E> {
    /// Nobody is told to merge who stands in the document's history.
    pub(super) fn check_opened(&self, session: SessionId, message: &Message) {
        let Message::Opened(opened) = message else {
            return;
        };
        let is_merge = matches!(
            opened.next,
            Continuation::Reset {
                reset: Reset::Merge,
                ..
            }
        );
        let link = &self.links[&session];
        let found = link.rooms.get(&opened.channel).filter(|_| is_merge);
        let Some(document) = found else { return };
        let cursor = self.clients[link.client].state.cursor(document);
        let (Some(cursor), Ok(meta)) = (cursor, wait(self.registry.meta(document))) else {
            return;
        };
        // What has changed since the registry was read for the answer is not looked at.
        if (meta.epoch, meta.head) != (opened.epoch, opened.head) || cursor.epoch != meta.epoch {
            return;
        }
        if let Ok(Tail::Changes { digest, .. }) = wait(self.registry.tail(document, cursor.seq, 1))
        {
            assert!(
                digest != cursor.digest,
                "client {} is told to merge, and stands in the history of {document:?} at {cursor:?}",
                link.client
            );
        }
    }

    /// A snapshot that is to be kept holds what was committed through its sequence, and nothing else.
    pub(super) fn check_snapshot(&self, document: &DocumentId, epoch: Epoch, snapshot: &Snapshot) {
        let Ok(meta) = wait(self.registry.meta(document)) else {
            return;
        };
        let before = wait(self.registry.snapshot(document)).unwrap();
        let from = before.as_ref().map_or(Seq::ZERO, |before| before.seq);
        if meta.epoch != epoch || snapshot.seq <= from {
            return;
        }
        let Ok(Tail::Changes { changes, .. }) =
            wait(self.registry.tail(document, from, usize::MAX))
        else {
            return;
        };
        let engine = self.engine.clone().bind(document);
        let rows = changes.into_iter().filter(|row| row.seq <= snapshot.seq);
        let rows: Vec<_> = rows.map(|row| row.bytes).collect();
        let mut committed = engine.create(ReplicaSeed(1)).unwrap();
        if let Some(before) = &before {
            committed.import_snapshot(&before.bytes).unwrap();
        }
        committed.import(&rows).unwrap();
        let mut folded = engine.create(ReplicaSeed(2)).unwrap();
        folded.import_snapshot(&snapshot.bytes).unwrap();
        assert_eq!(
            folded.version(),
            committed.version(),
            "the snapshot of {document:?} at {} is not what was committed",
            snapshot.seq
        );
    }
}
