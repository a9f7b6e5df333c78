//! Checking: what is looked at with the document at hand, before it is appended (design 8).
//!
//! The room decides what is checked and when; whoever drives it keeps the replica. One batch is checked at a time, and only
//! while nothing that was checked before waits to be committed: so the replica is the log and that batch, and nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::push::{Item, ItemKind};
use super::{Fill, Room, RoomOutput};
use crate::error::{ErrorCode, PeerError};
use crate::history::{Epoch, Seq};
use crate::ids::{ChangeId, EngineId, SessionId, User};
use crate::planted::Bug;
use crate::server::registry::RequestNumber;
use crate::time::Time;

/// Changes that a room wants checked; see [`RoomOutput::Check`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckRequest {
    /// The engine of the document.
    pub engine: EngineId,
    /// The history.
    pub epoch: Epoch,
    /// The last sequence committed: what the changes are checked against.
    pub at: Seq,
    /// Name of the replica to check with. The one used last, if it has this name, holds everything through `at`; one of
    /// another name may hold what was never committed, or lack what was: load afresh.
    pub replica: u64,
    /// The changes, in the order in which they are to be appended.
    pub changes: Vec<UncheckedChange>,
}

/// A change to be checked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UncheckedChange {
    /// Which.
    pub id: ChangeId,
    /// Whose.
    pub user: User,
    /// The session that it came from, which may have ended.
    pub session: SessionId,
    /// Its bytes.
    pub bytes: Bytes,
    /// Whether it says what the server's state lacks, on behalf of anybody.
    pub reconciling: bool,
    /// Counts the channels of this request's changes. Once one of a channel is not accepted, those that follow on that
    /// channel are not looked at.
    pub writer: u32,
}

/// What became of a change that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It may be appended, and the replica has it.
    Accepted {
        /// Whether the replica did not have it before.
        is_new: bool,
    },
    /// It never may; the replica does not have it. The error's code is final.
    Refused(PeerError),
    /// This cannot be said now; the replica does not have it.
    Unknown(PeerError),
    /// An earlier change of its writer was not accepted.
    Skipped,
}

/// Whether a change in the line has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    No,
    /// And whether the replica did not have it before.
    Yes {
        is_new: bool,
    },
}

/// The line in front of the line: changes that have not been checked.
#[derive(Debug, Clone, Default)]
pub(super) struct Checks {
    /// Whether the document's changes are checked at all.
    is_on: bool,
    line: VecDeque<Item>,
    running: Option<(RequestNumber, Vec<Item>)>,
    replica: u64,
    /// The head that the changes in the queue were checked at.
    at: Seq,
    /// Attempts of what goes round again.
    attempt: u32,
}

impl Checks {
    /// What is in it.
    pub(super) fn items(&self) -> impl Iterator<Item = &Item> {
        let running = self.running.iter().flat_map(|(_, items)| items);
        self.line.iter().chain(running)
    }

    /// Whether nothing is in it.
    pub(super) fn is_idle(&self) -> bool {
        self.line.is_empty() && self.running.is_none()
    }

    /// Whether something waits for its check.
    pub(super) fn is_waiting(&self) -> bool {
        !self.line.is_empty() && self.running.is_none()
    }

    /// How many wait for their check, or for its outcome.
    pub(super) fn len(&self) -> usize {
        let running = self.running.as_ref().map_or(0, |(_, items)| items.len());
        self.line.len() + running
    }

    /// What is being checked.
    pub(super) fn running_mut(&mut self) -> impl Iterator<Item = &mut Item> {
        self.running.iter_mut().flat_map(|(_, items)| items)
    }

    /// Takes what waits to be checked and is like this.
    pub(super) fn take(&mut self, is_taken: impl Fn(&Item) -> bool) -> VecDeque<Item> {
        let line = std::mem::take(&mut self.line);
        let (taken, kept) = line.into_iter().partition(is_taken);
        self.line = kept;
        taken
    }

    /// Whether what comes next has been checked and could not be appended.
    pub(super) const fn is_another_attempt(&self) -> bool {
        self.attempt > 0
    }

    pub(super) const fn take_attempt(&mut self) -> u32 {
        std::mem::replace(&mut self.attempt, 0)
    }
}

impl Room {
    /// Takes the answer to a [`RoomOutput::Check`]: a verdict for each change, in their order.
    pub fn handle_checked(&mut self, now: Time, number: RequestNumber, verdicts: Vec<Verdict>) {
        if let Some((_, items)) = self
            .checks
            .running
            .take_if(|(running, _)| *running == number)
        {
            self.take_verdicts(items, verdicts);
        }
        self.turn(now);
    }

    /// Whether the document's changes are checked against what it holds.
    pub(super) const fn is_checked(&self) -> bool {
        self.checks.is_on
    }

    /// Another history begins.
    pub(super) fn reset_checks(&mut self, engine: &EngineId) {
        self.checks.is_on = self.config.engines.is_checked(engine);
        self.checks.replica += 1;
    }

    /// Something is in the log that the replica does not have, or the other way round.
    pub(super) const fn drop_replica(&mut self) {
        self.checks.replica += 1;
    }

    /// Puts something at the end of the line.
    pub(super) fn line_up(&mut self, item: Item) {
        if let Some(item) = self.withhold(item) {
            self.line_up_anyway(item);
        }
    }

    /// The same for what does not depend on what its member may do.
    pub(super) fn line_up_anyway(&mut self, item: Item) {
        if self.checks.is_on {
            self.checks.line.push_back(item);
        } else {
            self.queue.push_back(item);
        }
    }

    /// Asks for a check of what has lined up, if nothing that was checked waits to be committed.
    pub(super) fn start_check(&mut self, now: Time) {
        let is_free = self.queue.is_empty() && self.in_flight.is_none() && self.fill == Fill::Idle;
        if !is_free
            || !self.checks.is_waiting()
            || self.paced_until().is_some_and(|until| now < until)
        {
            return;
        }
        let Some((epoch, at)) = self
            .current()
            .map(|history| (history.epoch, history.head))
            .filter(|(_, head)| self.seen <= *head)
        else {
            return;
        };
        let Some(engine) = self.folding.engine().cloned() else {
            return;
        };
        let items = self.next_unchecked();
        let mut writers = BTreeMap::new();
        let changes: Vec<_> = items
            .iter()
            .filter_map(|item| {
                let next = u32::try_from(writers.len()).unwrap_or(u32::MAX);
                let writer = *writers.entry(item.member).or_insert(next);
                match &item.kind {
                    ItemKind::Change {
                        change,
                        reconciling,
                        ..
                    } => Some(UncheckedChange {
                        id: change.id,
                        user: change.user.clone(),
                        session: item.member.0,
                        bytes: change.bytes.clone(),
                        reconciling: *reconciling,
                        writer,
                    }),
                    _ => None,
                }
            })
            .collect();
        self.checks.at = at;
        if changes.is_empty() {
            // Refusals and ends need no check, and nothing else may come to have them looked at.
            self.queue.extend(items);
            return self.start_append(now);
        }
        self.next_request += 1;
        let number = RequestNumber(self.next_request);
        self.checks.running = Some((number, items));
        let replica = self.checks.replica;
        let request = CheckRequest {
            engine,
            epoch,
            at,
            replica,
            changes,
        };
        self.outputs.push_back(RoomOutput::Check(number, request));
    }

    /// As much as one append takes.
    fn next_unchecked(&mut self) -> Vec<Item> {
        let (mut n, mut bytes) = (0_usize, 0_usize);
        let fits = |item: &Item| {
            if let ItemKind::Change { change, .. } = &item.kind {
                let larger = bytes.saturating_add(change.bytes.len());
                let is_full =
                    n >= self.config.append_changes_max || larger > self.config.append_bytes_max;
                if n > 0 && is_full {
                    return false;
                }
                (n, bytes) = (n + 1, larger);
            }
            true
        };
        let end = self
            .checks
            .line
            .iter()
            .map(fits)
            .position(|fits| !fits)
            .unwrap_or(self.checks.line.len());
        self.checks.line.drain(..end).collect()
    }

    fn take_verdicts(&mut self, items: Vec<Item>, verdicts: Vec<Verdict>) {
        let accepts_all = self.config.has(Bug::ForgedClockAccepted);
        let mut verdicts = verdicts.into_iter();
        let mut closed = BTreeSet::new();
        for mut item in items {
            let ItemKind::Change {
                change, checked, ..
            } = &mut item.kind
            else {
                if closed.contains(&item.member) {
                    self.settle(&item);
                } else {
                    self.queue.push_back(item);
                }
                continue;
            };
            let id = change.id;
            let kind = match verdicts.next() {
                Some(Verdict::Refused(_)) if accepts_all => {
                    *checked = Checked::Yes { is_new: true };
                    self.queue.push_back(item);
                    continue;
                }
                Some(Verdict::Accepted { is_new }) if !closed.contains(&item.member) => {
                    *checked = Checked::Yes { is_new };
                    self.queue.push_back(item);
                    continue;
                }
                Some(Verdict::Refused(error)) if error.code.is_final() => {
                    ItemKind::Refuse { change: id, error }
                }
                Some(Verdict::Refused(error) | Verdict::Unknown(error)) => ItemKind::Error(error),
                // Not answered as asked: what the replica holds is anybody's guess.
                Some(Verdict::Accepted { .. } | Verdict::Skipped) | None => {
                    if !closed.contains(&item.member) {
                        self.drop_replica();
                    }
                    ItemKind::Error(not_checked())
                }
            };
            if closed.insert(item.member) {
                self.close_line(item.member);
                self.queue.push_back(Item { kind, ..item });
            } else {
                self.settle(&item);
            }
        }
    }

    /// Nothing more of a member is taken, until it opens again.
    fn close_line(&mut self, key: (SessionId, u32)) {
        if let Some(member) = self.live(key) {
            member.writing = super::member::Writing::Closed;
        }
        self.drop_unchecked(Some(key));
    }

    /// Forgets what has not been checked, of one member or of all.
    pub(super) fn drop_unchecked(&mut self, key: Option<(SessionId, u32)>) {
        self.drop_asked(key);
        let is_dropped = |item: &Item| key.is_none_or(|key| item.member == key);
        let running = self.checks.running.take_if(|_| key.is_none());
        let dropped = self.checks.take(is_dropped);
        for item in running
            .into_iter()
            .flat_map(|(_, items)| items)
            .chain(dropped)
        {
            self.settle(&item);
        }
    }

    /// What was checked with a replica that is not good any more is checked again, before everything else.
    pub(super) fn recheck(&mut self, items: Vec<Item>, attempt: u32) {
        self.drop_replica();
        self.checks.attempt = attempt;
        let again = items.into_iter().chain(std::mem::take(&mut self.queue));
        let mut line: VecDeque<_> = again.collect();
        for item in &mut line {
            if let ItemKind::Change { checked, .. } = &mut item.kind {
                *checked = Checked::No;
            }
        }
        line.append(&mut self.checks.line);
        self.checks.line = line;
    }

    /// Whether what waits was checked against another head: then that is done again.
    pub(super) fn is_outdated(&mut self) -> bool {
        let is_outdated = self.is_checked()
            && self.checks.at != self.head()
            && self.queue.iter().any(|item| {
                matches!(&item.kind, ItemKind::Change { checked, .. } if *checked != Checked::No)
            });
        if is_outdated {
            self.recheck(Vec::new(), self.checks.attempt);
        }
        is_outdated
    }

    /// What was checked has been committed: what is left in the queue was checked on top of it.
    pub(super) fn advance_checks(&mut self) {
        self.checks.at = self.head();
    }
}

fn not_checked() -> PeerError {
    PeerError::new(
        ErrorCode::CheckUnavailable,
        "the change could not be checked",
    )
}
