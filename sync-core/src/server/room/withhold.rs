//! What may not be appended, or not now: looked at in the turn that appends (design 8).

use std::collections::{BTreeSet, VecDeque};

use super::Room;
use super::append::InFlight;
use super::check::Checked;
use super::member::Writing;
use super::push::{Item, ItemKind};
use crate::ids::{SessionId, User};
use crate::time::Time;
use crate::wire::AccessLevel;

/// Whether something in the line may be appended in this turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    /// Nobody can tell now.
    Unknown,
    /// An explicit no.
    Denied,
    /// Its session is not here any more, and was allowed to until before this.
    Over,
}

impl Room {
    fn gate(&self, now: Time, item: &Item) -> Gate {
        // Also what it pushed before it opened the document again: what was said last counts.
        match self.members.get(&item.member.0) {
            None if item.until.is_none_or(|until| now < until) => Gate::Open,
            None => Gate::Over,
            Some(member) if member.open.access == AccessLevel::None => Gate::Denied,
            Some(member) if member.permit.is_stopped() || member.permit.is_over(now) => {
                Gate::Unknown
            }
            Some(member) if member.open.access < AccessLevel::Write => Gate::Denied,
            Some(_) => Gate::Open,
        }
    }

    /// Whether this may be appended in this turn.
    pub(super) fn may_append(&self, now: Time, item: &Item) -> bool {
        self.gate(now, item) == Gate::Open
    }

    /// Puts what may not be appended in this turn where it belongs; in the order in which it was in the line.
    pub(super) fn hold_back(&mut self, now: Time, items: VecDeque<Item>) {
        self.recheck_behind(&items);
        let mut refused = BTreeSet::new();
        for item in items.into_iter().rev() {
            let session = item.member.0;
            match self.gate(now, &item) {
                Gate::Open | Gate::Over => {
                    self.settle(&item);
                    continue;
                }
                Gate::Unknown => self.stop_if_over(now, session),
                Gate::Denied => {
                    refused.insert(session);
                }
            }
            // What it has in the line came after this, and before what has been withheld.
            let mut behind = self.take_lined_up(session);
            if let Some(member) = self.members.get_mut(&session) {
                behind.append(&mut member.permit.withheld);
                behind.push_front(item.unchecked());
                member.permit.withheld = behind;
            }
        }
        for session in refused {
            self.refuse_lined_up(session);
        }
    }

    /// Keeps something back that a member pushed while nobody can tell; gives it back otherwise.
    pub(super) fn withhold(&mut self, item: Item) -> Option<Item> {
        match self.live(item.member) {
            Some(member) if member.permit.is_stopped() && member.may_read() => {
                member.permit.withheld.push_back(item);
                None
            }
            _ => Some(item),
        }
    }

    /// Refuses the first change of a member that has not been appended, and with it all behind it.
    pub(super) fn refuse_lined_up(&mut self, session: SessionId) {
        let lined_up = self.take_lined_up(session);
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        let key = (session, member.generation);
        let error = member.denied();
        let mut items = std::mem::take(&mut member.permit.withheld);
        items.extend(lined_up);
        items.extend(self.take_asked(key));
        let mut is_told = false;
        for item in items {
            // Of an earlier open: nobody waits for an answer.
            if is_told || item.member != key || matches!(item.kind, ItemKind::Reconciled) {
                self.settle(&item);
                continue;
            }
            is_told = true;
            if let Some(member) = self.live(key) {
                member.writing = Writing::Closed;
            }
            self.line_up_anyway(item.refused(&error));
        }
    }

    /// Takes what a session has in the line, in order; not what is being checked or appended.
    pub(super) fn take_lined_up(&mut self, session: SessionId) -> VecDeque<Item> {
        self.take_from_line(|item| item.member.0 == session)
            .into_iter()
            .map(Item::unchecked)
            .collect()
    }

    fn take_from_line(&mut self, is_taken: impl Fn(&Item) -> bool) -> VecDeque<Item> {
        let queue = std::mem::take(&mut self.queue);
        let (mut taken, kept): (VecDeque<_>, VecDeque<_>) = queue.into_iter().partition(&is_taken);
        self.queue = kept;
        self.recheck_behind(&taken);
        taken.append(&mut self.checks.take(is_taken));
        taken
    }

    /// What is left in the line was checked on top of these, if they were.
    fn recheck_behind(&mut self, taken: &VecDeque<Item>) {
        let is_checked = |item: &Item| matches!(&item.kind, ItemKind::Change { checked, .. } if *checked != Checked::No);
        if taken.iter().any(is_checked) {
            self.recheck(Vec::new(), 0);
        }
    }

    /// Whether something of a session has yet to be answered.
    pub(super) fn has_lined_up(&self, session: SessionId) -> bool {
        let in_flight = self.in_flight.iter().flat_map(InFlight::items);
        self.queue
            .iter()
            .chain(in_flight)
            .chain(self.checks.items())
            .any(|item| item.member.0 == session)
    }

    /// Forgets what sessions that are not here any more pushed for these users: nobody can be asked for them, and their
    /// clients have it still.
    pub(super) fn drop_departed(&mut self, is_meant: impl Fn(&User) -> bool) {
        let here: BTreeSet<_> = self.members.keys().copied().collect();
        let is_dropped = |item: &Item| match &item.kind {
            ItemKind::Change { change, .. } => {
                !here.contains(&item.member.0) && is_meant(&change.user)
            }
            _ => false,
        };
        for item in self.take_from_line(is_dropped) {
            self.settle(&item);
        }
        let (checked, asked) = (self.checks.running_mut(), self.asks.items_mut());
        for item in checked.chain(asked) {
            if is_dropped(item) {
                item.until = Some(Time::ZERO);
            }
        }
    }
}
