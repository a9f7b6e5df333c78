//! Appending: one append under way at a time, and what to do when it fails.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::push::{Item, ItemKind};
use super::{Fill, Purpose, Room, RoomOutput};
use crate::error::{ErrorCode, PeerError};
use crate::history::{Epoch, Seq};
use crate::ids::SessionId;
use crate::planted::Bug;
use crate::registry::{NewChange, Outcome, RegistryError, Tail};
use crate::server::registry::RegistryRequest;
use crate::time::Time;

/// How many calls of the registry another node makes until it can append: it is told that it cannot, reads the log, loads
/// the document with four calls, and appends. And as many for one that begins in the middle of that.
const OTHERS_CALLS: u32 = 14;

const INTERVAL_FOR_OTHERS_MAX: Duration = Duration::from_millis(500);

/// How often an append is begun anew because others were quicker. Each time somebody's changes have been committed.
const CONFLICTS_MAX: u32 = 64;

/// The append under way.
#[derive(Debug, Clone)]
pub(super) struct InFlight {
    pub(super) epoch: Epoch,
    /// The head that its changes were checked at, if they were.
    pub(super) expect: Option<Seq>,
    pub(super) items: Vec<Item>,
    /// Repeats so far.
    pub(super) attempt: u32,
    /// Its outcome is unknown; when to find out.
    pub(super) retry_at: Option<Time>,
}

impl InFlight {
    pub(super) const fn retry_at(&self) -> Option<Time> {
        self.retry_at
    }

    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    fn changes(&self) -> Vec<NewChange> {
        let change = |item: &Item| match &item.kind {
            ItemKind::Change { change, .. } => Some(change.clone()),
            _ => None,
        };
        self.items.iter().filter_map(change).collect()
    }
}

impl Room {
    /// When the next append may begin, if something waits for nothing but that.
    pub(super) fn paced_until(&self) -> Option<Time> {
        let is_waiting = !self.queue.is_empty() || self.checks.is_waiting();
        let is_ready = self.in_flight.is_none() && self.fill == Fill::Idle && is_waiting;
        let is_paced = self.members.len() >= self.config.append_interval_members_min;
        let interval = if is_paced {
            self.config.append_interval
        } else {
            Duration::ZERO
        };
        let interval = interval.max(self.interval_for_others());
        self.last_append
            .filter(|_| is_ready && !interval.is_zero() && !self.is_held())
            .map(|last| last + interval)
    }

    /// Time between the beginnings of two appends that is left to other nodes, which have to read what this one appended, and
    /// check what they have anew, before they can append: without it a node that always has something keeps them from it.
    fn interval_for_others(&self) -> Duration {
        // What others were quicker than does not wait.
        let leaves_time =
            self.config.is_shared && self.is_checked() && !self.checks.is_another_attempt();
        if leaves_time {
            (self.append_took * OTHERS_CALLS).min(INTERVAL_FOR_OTHERS_MAX)
        } else {
            Duration::ZERO
        }
    }

    /// Begins the next append, if none is under way and something waits.
    pub(super) fn start_append(&mut self, now: Time) {
        while self.in_flight.is_none() && self.fill == Fill::Idle && !self.queue.is_empty() {
            if self.is_held() {
                return;
            }
            if self.paced_until().is_some_and(|until| now < until) {
                return;
            }
            if self.is_outdated() {
                return self.start_check(now);
            }
            self.last_append = Some(now);
            let Some(epoch) = self.current().map(|history| history.epoch) else {
                return self.drop_queue();
            };
            let batch = InFlight {
                epoch,
                expect: self.is_checked().then(|| self.head()),
                items: self.next_batch(now),
                attempt: self.checks.take_attempt(),
                retry_at: None,
            };
            let changes = batch.changes();
            if changes.is_empty() {
                self.conclude(now, batch, Vec::new());
            } else {
                self.request_append(batch, changes);
            }
        }
        // What was held back may have sent the rest back to be checked.
        self.start_check(now);
    }

    fn request_append(&mut self, batch: InFlight, changes: Vec<NewChange>) {
        let (epoch, expect) = (batch.epoch, batch.expect);
        self.in_flight = Some(batch);
        let request = RegistryRequest::Append {
            epoch,
            expect,
            changes,
        };
        self.request(Purpose::Append, request);
    }

    /// Takes the next append's items out of the line.
    fn next_batch(&mut self, now: Time) -> Vec<Item> {
        let (mut n, mut bytes) = (0_usize, 0_usize);
        let mut held_back = BTreeSet::new();
        let mut batch = Vec::new();
        let mut held = VecDeque::new();
        let mut allowed = None;
        let mut rest = VecDeque::new();
        while let Some(item) = self.queue.pop_front() {
            if held_back.contains(&item.member) {
                if self.is_checked() {
                    // Others' changes were checked after this one, and may rest on it.
                    self.queue.push_front(item);
                    break;
                }
                rest.push_back(item);
                continue;
            }
            if let ItemKind::Change {
                change,
                is_doubtful,
                ..
            } = &item.kind
            {
                if allowed != Some(item.member) {
                    if !self.may_append(now, &item) {
                        held.push_back(item);
                        if self.is_checked() {
                            break;
                        }
                        continue;
                    }
                    allowed = Some(item.member);
                }
                let larger = bytes.saturating_add(change.bytes.len());
                if n > 0
                    && (n >= self.config.append_changes_max
                        || larger > self.config.append_bytes_max)
                {
                    self.queue.push_front(item);
                    break;
                }
                (n, bytes) = (n + 1, larger);
                if *is_doubtful {
                    held_back.insert(item.member);
                }
            }
            batch.push(item);
        }
        rest.append(&mut self.queue);
        self.queue = rest;
        if !held.is_empty() {
            self.hold_back(now, held);
        }
        batch
    }

    /// Forgets the line: its members are told otherwise why.
    pub(super) fn drop_queue(&mut self) {
        for item in std::mem::take(&mut self.queue) {
            self.settle(&item);
        }
        self.drop_unchecked(None);
    }

    /// Tells the session that an item has been answered, or will not be.
    pub(super) fn settle(&mut self, item: &Item) {
        self.settle_charge(item.member, item.charge);
    }

    pub(super) fn settle_charge(&mut self, key: (SessionId, u32), charge: usize) {
        if charge > 0 {
            self.outputs.push_back(RoomOutput::Settled(key.0, charge));
        }
    }

    pub(super) fn on_append(&mut self, now: Time, result: Result<Vec<Outcome>, RegistryError>) {
        let Some(mut batch) = self.in_flight.take() else {
            return;
        };
        let is_current = self
            .current()
            .is_some_and(|history| history.epoch == batch.epoch);
        if !is_current {
            // Its members have been told to open again.
            for item in &batch.items {
                self.settle(item);
            }
            return;
        }
        let error = match result {
            Ok(outcomes) if outcomes.len() == batch.changes().len() => {
                self.append_took = self
                    .last_append
                    .map_or(Duration::ZERO, |last| now.since(last));
                return self.conclude(now, batch, outcomes);
            }
            Ok(_) => RegistryError::Damaged {
                what: "an append was not answered change by change".into(),
            },
            Err(error) => error,
        };
        match error {
            RegistryError::Unknown { .. } if self.config.has(Bug::UnknownAppendFailed) => {
                for item in batch.items {
                    let ItemKind::Change { change, .. } = &item.kind else {
                        self.settle(&item);
                        continue;
                    };
                    let error = PeerError::new(ErrorCode::Vetoed, "not appended");
                    self.refuse(now, item.member, change.id, error, item.charge);
                }
            }
            RegistryError::Unknown { .. } if batch.attempt < self.config.append_attempts_max => {
                self.registry_failed("append", error);
                batch.attempt += 1;
                batch.retry_at = Some(now + self.config.retry_delay(batch.attempt));
                self.in_flight = Some(batch);
            }
            RegistryError::Conflict { head }
                if batch.expect.is_some() && batch.attempt < CONFLICTS_MAX =>
            {
                self.seen = self.seen.max(head);
                self.recheck(batch.items, batch.attempt + 1);
            }
            RegistryError::Fenced { .. } => {
                for item in &batch.items {
                    self.settle(item);
                }
                self.mark_stale(now);
            }
            error @ (RegistryError::NotFound | RegistryError::Deleted) => {
                for item in &batch.items {
                    self.settle(item);
                }
                // It is one of the two.
                let _ = self.absent(now, error);
            }
            error => {
                let error = self.registry_failed("append", error);
                if self.is_checked() {
                    self.recheck(Vec::new(), 0);
                }
                let mut told = BTreeSet::new();
                for item in &batch.items {
                    if told.insert(item.member) {
                        self.close_writing(now, item.member, error.clone());
                    }
                    self.settle(item);
                }
            }
        }
    }

    /// An append of unknown outcome: looks at the log, then appends again.
    pub(super) fn retry_append(&mut self, now: Time) {
        let max_bytes = self.config.catch_up_bytes;
        if let Some(batch) = &mut self.in_flight
            && batch.retry_at.is_some_and(|at| at <= now)
        {
            batch.retry_at = None;
            let after = self.begin_read();
            self.request(Purpose::Settle, RegistryRequest::Tail { after, max_bytes });
        }
    }

    pub(super) fn on_settle(&mut self, now: Time, result: Result<Tail, RegistryError>) {
        match result {
            Ok(tail) => {
                self.take_tail(now, tail);
                let current = self.current().map(|history| history.epoch);
                let Some(batch) = self.in_flight.take() else {
                    return;
                };
                if current != Some(batch.epoch) {
                    return batch.items.iter().for_each(|item| self.settle(item));
                }
                if batch.expect.is_some() {
                    // What of it is committed, and what else, the next check and append find out.
                    return self.recheck(batch.items, batch.attempt);
                }
                let changes = batch.changes();
                self.request_append(batch, changes);
            }
            // As unknown as before; counted as another attempt.
            Err(RegistryError::Unavailable { source, .. }) => {
                self.on_append(now, Err(RegistryError::Unknown { source }));
            }
            Err(error) => self.on_append(now, Err(error)),
        }
    }
}
