//! Standing still while the document gets another history, and finding out that it has one.

use super::Room;
use crate::history::Epoch;
use crate::time::Time;

/// What a room is told by those who give its document another history.
#[derive(Debug, Clone, Default)]
pub(super) struct Standstill {
    /// Nothing is appended before.
    until: Option<Time>,
}

impl Standstill {
    pub(super) const fn until(&self) -> Option<Time> {
        self.until
    }
}

impl Room {
    /// Appends nothing before `until`, so that whoever trims the document finds its head where it was. What is pushed waits.
    pub fn hold_appends(&mut self, now: Time, until: Time) {
        self.standstill.until = Some(until);
        self.turn(now);
    }

    /// Goes on appending.
    pub fn release_appends(&mut self, now: Time) {
        self.standstill.until = None;
        self.turn(now);
    }

    /// Says that the document has this history now: if the room publishes another, everybody opens the document again. Only a
    /// hint: wrong ones do no harm.
    pub fn handle_trimmed(&mut self, now: Time, epoch: Epoch) {
        let current = self.current().map(|history| history.epoch);
        if current != Some(epoch) {
            self.mark_stale(now);
        }
        self.turn(now);
    }

    pub(super) fn end_standstill(&mut self, now: Time) {
        self.standstill.until = self.standstill.until.filter(|until| now < *until);
    }

    pub(super) const fn is_held(&self) -> bool {
        self.standstill.until.is_some()
    }
}
