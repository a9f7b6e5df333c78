//! The turn of the one client that reconciles (`docs/protocol.md` section 8.2).

use super::Room;
use crate::ids::SessionId;
use crate::time::Time;

/// The turn of the one client that reconciles (`docs/protocol.md` section 8.2).
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) member: (SessionId, u32),
    pub(super) deadline: Time,
}

impl Room {
    /// Gives the turn up if it is this member's, and forgets that it waits for one.
    pub(super) fn leave_slot(&mut self, now: Time, key: (SessionId, u32)) {
        self.waiting.retain(|waiting| *waiting != key);
        if self.slot.as_ref().is_some_and(|slot| slot.member == key) {
            self.release_slot(now);
        }
    }

    /// Ends the present turn and begins the next one, if anybody waits.
    pub(super) fn release_slot(&mut self, now: Time) {
        self.slot = None;
        let Some(key) = self.waiting.pop_front() else {
            return;
        };
        self.slot = Some(Slot {
            member: key,
            deadline: now + self.config.reconcile_timeout,
        });
        self.start_open(key);
    }
}
