//! What became of an append, change by change, and what its authors are told.

use std::collections::BTreeSet;

use super::append::InFlight;
use super::check::Checked;
use super::member::{Control, Writing};
use super::publish::Commit;
use super::push::{Item, ItemKind};
use super::{Room, RoomEvent};
use crate::error::{ErrorCode, PeerError};
use crate::history::Seq;
use crate::ids::{ChangeId, SessionId};
use crate::planted::Bug;
use crate::registry::{NewChange, Outcome};
use crate::time::Time;
use crate::wire::{Ack, Compression, ErrorMessage, Message, Reference, Refuse, encode_frame};

/// Charge of a member's successive commits that is settled at once.
const SETTLE_BYTES: usize = 16 * 1024;

impl Room {
    /// Does what the registry's answer says, change by change.
    pub(super) fn conclude(&mut self, now: Time, batch: InFlight, outcomes: Vec<Outcome>) {
        if self.is_checked() && !is_all_there(&batch, &outcomes) {
            self.recheck(Vec::new(), 0);
        }
        let mut outcomes = outcomes.into_iter();
        let mut commits = Vec::new();
        let mut starts_frame = false;
        // Members that have been told to open again: what else they sent is not refused on top of that.
        let mut closed = BTreeSet::new();
        for item in batch.items {
            let Item {
                member,
                received,
                kind,
                charge,
                ..
            } = item;
            match kind {
                ItemKind::Refuse { .. } | ItemKind::Error(_) if closed.contains(&member) => {
                    self.settle_charge(member, charge);
                }
                ItemKind::Change {
                    change, checked, ..
                } => {
                    let Some(outcome) = outcomes.next() else {
                        continue;
                    };
                    let is_news = checked == (Checked::Yes { is_new: true });
                    let outcome = match outcome {
                        // The document that has it has it: these are other bytes, whose row is gone.
                        Outcome::Duplicate { .. } if is_news => Outcome::IdReused,
                        outcome => outcome,
                    };
                    if let Outcome::At(seq) = outcome {
                        self.on_committed(member, change.id, seq, charge);
                        self.counts.totals.commits.record(now.since(received));
                        commits.push(Commit {
                            seq,
                            id: change.id,
                            bytes: change.bytes,
                            by: Some((member, change.user)),
                            starts_frame: std::mem::take(&mut starts_frame),
                        });
                    } else {
                        starts_frame = true;
                        if !matches!(outcome, Outcome::Duplicate { .. }) {
                            closed.insert(member);
                        }
                        self.on_not_committed(now, member, &change, outcome, charge);
                    }
                }
                ItemKind::Refuse { change, error } => {
                    starts_frame = true;
                    self.refuse(now, member, change, error, charge);
                }
                ItemKind::Error(error) => {
                    starts_frame = true;
                    self.close_writing(now, member, error);
                    self.settle_charge(member, charge);
                }
                ItemKind::Reconciled => self.leave_slot(now, member),
            }
        }
        self.counts.committed(now, commits.len());
        self.announce(&commits);
        self.publish_own(now, commits);
        self.advance_checks();
    }

    fn on_committed(&mut self, key: (SessionId, u32), id: ChangeId, seq: Seq, charge: usize) {
        let Some(member) = self.live(key) else {
            return self.settle_charge(key, charge);
        };
        member.permit.note_commit(id, seq);
        member.last_commit = seq;
        match member.unsettled.back_mut() {
            // Kept in few pieces, and in pieces: one that always grew would never be settled.
            Some((last, before)) if last.next() == seq && *before < SETTLE_BYTES => {
                *last = seq;
                *before = before.saturating_add(charge);
            }
            _ => member.unsettled.push_back((seq, charge)),
        }
    }

    fn on_not_committed(
        &mut self,
        now: Time,
        key: (SessionId, u32),
        change: &NewChange,
        outcome: Outcome,
        charge: usize,
    ) {
        let id = change.id;
        match outcome {
            Outcome::At(_) => {}
            Outcome::Duplicate { last, seq } => {
                self.seen = self.seen.max(seq.unwrap_or(Seq::ZERO));
                self.on_repeat(key, id, last, seq, charge);
            }
            Outcome::IdReused => {
                let error = PeerError::new(
                    ErrorCode::IdReused,
                    format!("{id} has been committed with other bytes"),
                );
                self.refuse(now, key, id, error, charge);
            }
            Outcome::Gap { .. } if self.config.has(Bug::EvictedOriginRefused) => {
                let error = PeerError::new(ErrorCode::MissingDependency, "not the next");
                self.refuse(now, key, id, error, charge);
            }
            Outcome::Gap { expected } => {
                let error = PeerError::new(
                    ErrorCode::Gap,
                    format!("{id} is not the origin's next, which is {expected}"),
                );
                self.close_writing(now, key, error);
                self.settle_charge(key, charge);
            }
            Outcome::ForeignOrigin => {
                let error = PeerError::new(
                    ErrorCode::ForeignOrigin,
                    format!("origin {} belongs to another user", id.origin),
                );
                self.close_writing(now, key, error);
                self.settle_charge(key, charge);
            }
        }
    }

    /// What is said of a change that had been committed before.
    fn on_repeat(
        &mut self,
        key: (SessionId, u32),
        id: ChangeId,
        last: u64,
        seq: Option<Seq>,
        charge: usize,
    ) {
        let Some(member) = self.live(key) else {
            return self.settle_charge(key, charge);
        };
        if !seq.is_some_and(|seq| member.is_shown(seq)) {
            return self.repeat(key, id, last, charge);
        }
        // The stream says so. When that has passed the change, it is not at the front of the outbox any more, and an `Ack`
        // without a count would be taken for what is there instead, of another origin.
        member.note_taken(id.origin, last.max(id.number));
        member.settled = member.settled.saturating_add(charge);
        self.wake(key.0);
    }

    /// Says that everything of the origin through `last` had been committed before. Not of what the stream shows.
    pub(super) fn repeat(&mut self, key: (SessionId, u32), id: ChangeId, last: u64, charge: usize) {
        let channel = self.channel;
        let number = last.max(id.number);
        let Some(member) = self.live(key) else {
            return self.settle_charge(key, charge);
        };
        member.note_taken(id.origin, number);
        let (mut number, mut charge) = (number, charge);
        // One answer for many repeats, so that repeating costs this side nothing that is kept.
        if let Some(last) = member.controls.back()
            && let Some((origin, before)) = last.repeat
            && origin == id.origin
            && last.after == member.last_commit
            && let Some(before_it) = member.controls.pop_back()
        {
            number = number.max(before);
            charge = charge.saturating_add(before_it.charge);
        }
        let ack = Ack {
            channel,
            check: 0,
            number,
            count: 0,
        };
        member.controls.push_back(Control {
            after: member.last_commit,
            frame: encode_frame(&Message::Ack(ack), Compression::None),
            charge,
            repeat: Some((id.origin, number)),
        });
        self.wake(key.0);
    }

    /// Refuses a change for good; everything before it has been committed.
    pub(super) fn refuse(
        &mut self,
        now: Time,
        key: (SessionId, u32),
        change: ChangeId,
        error: PeerError,
        charge: usize,
    ) {
        let channel = self.channel;
        let Some(member) = self.live(key) else {
            return self.settle_charge(key, charge);
        };
        let (user, code) = (member.open.user.clone(), error.code);
        let refuse = Refuse {
            channel,
            origin: change.origin,
            number: change.number,
            code,
            message: error.message,
        };
        member.controls.push_back(Control {
            after: member.last_commit,
            frame: encode_frame(&Message::Refuse(refuse), Compression::None),
            charge,
            repeat: None,
        });
        self.counts.told(code);
        self.event(RoomEvent::Refused { change, user, code });
        self.stop_writing(now, key);
    }

    /// Tells a member why nothing more of it is taken until it opens again. Its outbox stays as it is.
    pub(super) fn close_writing(&mut self, now: Time, key: (SessionId, u32), error: PeerError) {
        let reference = Reference::Channel(self.channel);
        let code = error.code;
        let Some(member) = self.live(key) else {
            return;
        };
        let error = ErrorMessage::new(error, reference);
        member.controls.push_back(Control {
            after: member.last_commit,
            frame: encode_frame(&Message::Error(error), Compression::None),
            charge: 0,
            repeat: None,
        });
        self.counts.told(code);
        self.stop_writing(now, key);
    }

    fn stop_writing(&mut self, now: Time, key: (SessionId, u32)) {
        if let Some(member) = self.live(key) {
            member.writing = Writing::Closed;
        }
        self.drop_unchecked(Some(key));
        let lets_through = self.config.has(Bug::RefusalOvertaken);
        for item in std::mem::take(&mut self.queue) {
            if item.member == key && !lets_through {
                self.settle(&item);
            } else {
                self.queue.push_back(item);
            }
        }
        self.leave_slot(now, key);
        self.wake(key.0);
    }
}

/// Whether the replica that checked these is what the log is now.
fn is_all_there(batch: &InFlight, outcomes: &[Outcome]) -> bool {
    let checked = batch.items.iter().filter_map(|item| match &item.kind {
        ItemKind::Change { checked, .. } => Some(*checked),
        _ => None,
    });
    let is_there = |(checked, outcome): (Checked, &Outcome)| match outcome {
        Outcome::At(_) => true,
        Outcome::Duplicate { .. } => checked != Checked::Yes { is_new: true },
        _ => false,
    };
    checked.zip(outcomes).all(is_there)
}
