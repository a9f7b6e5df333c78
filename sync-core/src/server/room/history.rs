//! The history that a room publishes, and what happens when it is not the document's any more.

use super::member::MemberState;
use super::{Fill, Room, RoomEvent, absence};
use crate::error::{ErrorCode, PeerError};
use crate::history::{Digest, Epoch, Seq};
use crate::registry::{DocumentMeta, RegistryError};
use crate::server::registry::RequestNumber;
use crate::time::Time;

#[derive(Debug, Clone)]
pub(super) struct History {
    pub(super) epoch: Epoch,
    /// Last sequence published.
    pub(super) head: Seq,
    /// Digest over it.
    pub(super) digest: Digest,
    /// The read that it was taken from: older answers are of older histories.
    pub(super) read: RequestNumber,
    /// It is not the document's any more; the next read says what is.
    pub(super) is_stale: bool,
}

impl Room {
    pub(super) fn head(&self) -> Seq {
        self.history
            .as_ref()
            .map_or(Seq::ZERO, |history| history.head)
    }

    /// The history, unless it is known to be another by now.
    pub(super) fn current(&self) -> Option<&History> {
        self.history.as_ref().filter(|history| !history.is_stale)
    }

    /// What was published is not the document's history any more: everybody opens again.
    pub(super) fn mark_stale(&mut self, now: Time) {
        self.outdate_reads();
        self.end_history(now);
    }

    fn end_history(&mut self, now: Time) {
        let Some(history) = self.history.as_mut().filter(|history| !history.is_stale) else {
            return;
        };
        history.is_stale = true;
        let epoch = history.epoch;
        self.event(RoomEvent::HistoryReplaced { epoch });
        self.forget_published(now);
    }

    /// Takes what a fresh read says in place of whatever was published.
    pub(super) fn adopt(&mut self, now: Time, read: RequestNumber, meta: &DocumentMeta) {
        let is_first = self.history.is_none();
        self.end_history(now);
        self.history = Some(History {
            epoch: meta.epoch,
            head: meta.head,
            digest: meta.digest,
            read,
            is_stale: false,
        });
        self.seen = meta.head;
        self.is_doubted = false;
        self.folding.reset(meta);
        self.reset_checks(&meta.engine);
        self.read_size();
        if is_first {
            self.event(RoomEvent::Loaded { head: meta.head });
        }
    }

    fn forget_published(&mut self, now: Time) {
        self.ring.clear();
        self.snapshot = None;
        self.snapshot_request = None;
        self.reads.clear();
        self.fill = Fill::Idle;
        self.drop_queue();
        let error = PeerError::new(ErrorCode::Fenced, "the document has another history now");
        let sessions: Vec<_> = self.members.keys().copied().collect();
        for session in sessions {
            // Looked at one by one: who waited for a turn may be opening by now.
            let Some(member) = self.members.get(&session) else {
                continue;
            };
            let key = (session, member.generation);
            match member.state {
                MemberState::Streaming(_) => self.stop(now, session, error.clone()),
                // It knows no channel yet, only its request: that is answered once more.
                MemberState::Waiting => {
                    self.leave_slot(now, key);
                    self.start_open(key);
                }
                _ => {}
            }
        }
        // Those that are opening and wait for a snapshot get one of the history that is there now.
        let waiters = std::mem::take(&mut self.snapshot_waiters);
        for member in waiters {
            if self
                .live(member)
                .is_some_and(|member| matches!(member.state, MemberState::Opening(_)))
            {
                self.start_open(member);
            }
        }
    }

    /// Takes an answer to what was asked on nobody's behalf, or on that of members who have the document open.
    ///
    /// # Errors
    /// The error, if it does not say that there is no such document.
    pub(super) fn absent(&mut self, now: Time, error: RegistryError) -> Result<(), RegistryError> {
        match (&error, absence(&error)) {
            // One that was never there and one that is gone differ for whoever opens it: everybody starts over.
            (RegistryError::NotFound, _) => self.mark_stale(now),
            (_, Some(absence)) => self.gone(now, &absence),
            (_, None) => return Err(error),
        }
        Ok(())
    }

    /// The document is gone: so is everybody, but for those who are opening it. What they are told was read for them
    /// (design 2.3).
    pub(super) fn gone(&mut self, now: Time, error: &PeerError) {
        self.outdate_reads();
        // There is nothing to keep a room for.
        self.is_evicted = true;
        self.end_those(now, error, |state| {
            !matches!(state, MemberState::Opening(_))
        });
        if let Some(history) = &mut self.history {
            history.is_stale = true;
        }
        self.forget_published(now);
    }

    /// Takes everybody out of the room.
    pub(super) fn end_all(&mut self, now: Time, error: &PeerError) {
        self.end_those(now, error, |_| true);
    }

    fn end_those(&mut self, now: Time, error: &PeerError, are: impl Fn(&MemberState) -> bool) {
        let sessions: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| !matches!(member.state, MemberState::Ended) && are(&member.state))
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            self.end(now, session, error.clone());
        }
    }
}
