//! Changes that the server will never take (design 2.2).

use std::sync::Arc;

use super::{DocumentState, Fresh, Link, Turn};
use crate::client::event::{DocumentEvent, RefusedChange, RefusedReason};
use crate::client::outbox::Entry;
use crate::error::ErrorCode;
use crate::ids::ChangeId;
use crate::wire::Refuse;

impl DocumentState {
    pub(crate) fn handle_refuse(&mut self, refuse: Refuse, turn: &mut Turn) {
        let Link::Streaming(_) = &self.link else {
            return;
        };
        let id = ChangeId {
            origin: refuse.origin,
            number: refuse.number,
        };
        // "All before it is committed" (protocol 7.3), though the stream may not have shown it yet.
        self.outbox.commit_before(id);
        self.refuse_from(id, refuse.code, refuse.message.into(), turn);
    }

    /// Design 2.2: the refused change and all behind it leave the outbox; the replica is rebuilt from server state and what
    /// was pending before it.
    pub(super) fn refuse_from(
        &mut self,
        id: ChangeId,
        code: ErrorCode,
        message: Arc<str>,
        turn: &mut Turn,
    ) {
        let mut taken = self.outbox.take_from(id).into_iter();
        if let Some(entry) = taken.next() {
            self.lose(std::slice::from_ref(&entry));
            let reason = RefusedReason::Code(code);
            self.hand_back(
                [RefusedChange {
                    id: entry.id,
                    bytes: entry.bytes,
                    reason,
                    message,
                }],
                turn,
            );
        }
        self.replaying.extend(taken);
        self.rebuild(turn);
    }

    /// A bug that can be planted: the first pending change is refused, and with it everything.
    pub(super) fn refuse_pending(&mut self, code: ErrorCode, turn: &mut Turn) {
        let first = self.outbox.pending().next().map(|entry| entry.id);
        if let Some(first) = first {
            self.refuse_from(first, code, "".into(), turn);
        }
    }

    /// The replica is rebuilt from server state and what is pending now. Does nothing while that is under way.
    pub(crate) fn rebuild(&mut self, turn: &mut Turn) {
        if matches!(self.link, Link::Damaged(_)) {
            return;
        }
        if self.fresh != Some(Fresh::Replace) {
            self.fresh = Some(Fresh::Replace);
            self.ahead = self.outbox.last_pending();
            self.forget_channel(turn);
        }
    }

    pub(super) fn lose(&mut self, entries: &[Entry]) {
        self.lost
            .extend(entries.iter().map(|entry| (entry.ordinal, entry.id)));
    }

    pub(super) fn hand_back(
        &mut self,
        changes: impl IntoIterator<Item = RefusedChange>,
        turn: &mut Turn,
    ) {
        let changes: Vec<RefusedChange> = changes.into_iter().collect();
        let count = changes.len();
        self.keep_refused(&changes);
        self.refused.extend(changes);
        if count > 0 {
            turn.events.push(DocumentEvent::Refused { count });
            turn.touched = true;
        }
    }
}
