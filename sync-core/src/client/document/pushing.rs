//! What of the outbox may be sent (protocol.md section 7.3).

use super::{DocumentState, Effect, Link, Plan, Stream};
use crate::history::Cursor;
use crate::ids::{Channel, EngineId};
use crate::limits::FRAGMENT_BYTES;
use crate::wire::{AccessLevel, Push};

impl DocumentState {
    /// What the next change that may be sent now counts for in the push window.
    pub(crate) fn next_push_charge(&self) -> Option<usize> {
        let Link::Streaming(stream) = &self.link else {
            return None;
        };
        // While a reset is in progress what is lacking is not known, and it goes first.
        let resetting = stream.plan != Plan::Follow
            || stream.awaits_snapshot
            || self.fresh.is_some()
            || !self.has_read(stream)
            || self
                .jobs
                .iter()
                .any(|job| matches!(job.effect, Effect::Merged { .. } | Effect::Replaced { .. }));
        // Also without the right to write: nobody waits for ever, and refusing is the server's to do.
        if resetting || !self.are_names_kept() {
            None
        } else {
            self.outbox.next_charge()
        }
    }

    /// Whether what was there at the open has been read, where it takes keys to read it: with a wrong one nothing may be
    /// added to it.
    fn has_read(&self, stream: &Stream) -> bool {
        let is_imported = || {
            self.cursor
                .is_some_and(|cursor| cursor.seq >= stream.open_head)
        };
        let needs_keys = self.engine == EngineId::OPAQUE && !self.headless;
        !needs_keys || (is_imported() && !self.unreadable.wrong_key)
    }

    /// The next push: one frame, within this part of the window or one change.
    pub(crate) fn push(&mut self, charge_max: usize) -> Option<Push> {
        let Link::Streaming(stream) = &self.link else {
            return None;
        };
        let batch = self
            .outbox
            .take_push(FRAGMENT_BYTES - PUSH_OVERHEAD_BYTES, charge_max)?;
        Some(Push {
            channel: stream.channel,
            origin: batch.first.origin,
            first_number: batch.first.number,
            changes: batch.changes,
            reconciling: batch.reconciling,
        })
    }

    pub(crate) fn in_flight_charge(&self) -> usize {
        self.outbox.in_flight_charge()
    }

    pub(crate) fn channel(&self) -> Option<Channel> {
        match &self.link {
            Link::Streaming(stream) => Some(stream.channel),
            _ => None,
        }
    }

    pub(crate) const fn access(&self) -> AccessLevel {
        self.access
    }

    pub(crate) const fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }
}

/// Room for a `Push` frame's own fields, so that a batch of small changes is one frame and no fragments.
const PUSH_OVERHEAD_BYTES: usize = 1024;
