//! Appending: one line of changes, one append under way, and what became of them (`docs/protocol.md` section 7.3).

use std::collections::BTreeSet;

use bytes::Bytes;

use super::member::{Control, MemberState, Writing};
use super::ring::{Encoded, RingFrame, Sole};
use super::stream::frame_len;
use super::{Fill, Purpose, Room, RoomEvent, RoomOutput, absence};
use crate::engine::{EngineError, ValidateLimits};
use crate::error::{ErrorCode, PeerError};
use crate::history::{Epoch, Seq};
use crate::ids::{ChangeId, SessionId, User};
use crate::limits::{change_charge, push_charge};
use crate::registry::{NewChange, Outcome, RegistryError, Tail};
use crate::server::registry::{RegistryRequest, RequestNumber};
use crate::time::Time;
use crate::wire::{
    AccessLevel, Ack, AuthorMessage, Compression, ErrorMessage, Message, Push, Reference, Refuse,
    changes_frame, encode_frame,
};

/// Changes below this size are copied out of the frame they came in, so that a kept one does not pin it all.
const COPY_BYTES_MAX: usize = 64 * 1024;

/// Charge of a member's successive commits that is settled at once.
const SETTLE_BYTES: usize = 16 * 1024;

/// Something in the line.
#[derive(Debug)]
pub(super) struct Item {
    member: (SessionId, u32),
    kind: ItemKind,
    charge: usize,
}

#[derive(Debug)]
enum ItemKind {
    Change {
        change: NewChange,
        /// The registry may answer otherwise than `At`: nothing of this member follows in the same append.
        is_doubtful: bool,
    },
    /// Everything before it is committed: tell the member.
    Refuse { change: ChangeId, error: PeerError },
    /// Likewise, about the channel.
    Error(PeerError),
    /// The end of a reconciling push.
    Reconciled,
}

/// The append under way.
#[derive(Debug)]
pub(super) struct InFlight {
    epoch: Epoch,
    items: Vec<Item>,
    /// Repeats so far.
    attempt: u32,
    /// Its outcome is unknown; when to find out.
    retry_at: Option<Time>,
}

impl InFlight {
    pub(super) const fn retry_at(&self) -> Option<Time> {
        self.retry_at
    }

    fn changes(&self) -> Vec<NewChange> {
        let change = |item: &Item| match &item.kind {
            ItemKind::Change { change, .. } => Some(change.clone()),
            _ => None,
        };
        self.items.iter().filter_map(change).collect()
    }
}

/// A committed change on its way into the ring.
#[derive(Debug)]
struct Commit {
    seq: Seq,
    id: ChangeId,
    bytes: Bytes,
    /// Who pushed it; `None` if that was on another node, or is not known any more.
    by: Option<((SessionId, u32), User)>,
    /// Starts a frame, because a member is told something right before it.
    starts_frame: bool,
}

impl Room {
    /// Takes a push of a member: checks it, and puts it into the line.
    pub(super) fn push(&mut self, session: SessionId, push: Push) {
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        let key = (session, member.generation);
        if member.writing == Writing::Closed {
            member.settled = member.settled.saturating_add(push_charge(&push.changes));
            return self.wake(session);
        }
        if !push.changes.is_empty() && !member.origins.contains_key(&push.origin) {
            let author = self.author(push.origin);
            self.tell_author(session, &push, author);
        }
        let Push {
            origin,
            first_number,
            changes,
            reconciling,
            ..
        } = push;
        let mut left = push_charge(&changes);
        for (offset, bytes) in (0_u64..).zip(changes) {
            let id = ChangeId {
                origin,
                number: first_number.saturating_add(offset),
            };
            let charge = change_charge(&bytes);
            match self.check(session, id, &bytes, reconciling) {
                Ok(is_doubtful) => {
                    left = left.saturating_sub(charge);
                    self.enqueue(key, id, bytes, charge, is_doubtful);
                }
                Err(error) => {
                    // What follows on the channel is ignored, this push's rest included.
                    let kind = if error.code.is_final() {
                        ItemKind::Refuse { change: id, error }
                    } else {
                        ItemKind::Error(error)
                    };
                    self.queue.push_back(Item {
                        member: key,
                        kind,
                        charge: left,
                    });
                    if let Some(member) = self.members.get_mut(&session) {
                        member.writing = Writing::Closed;
                    }
                    return;
                }
            }
        }
        if reconciling {
            self.queue.push_back(Item {
                member: key,
                kind: ItemKind::Reconciled,
                charge: 0,
            });
        }
    }

    fn tell_author(&mut self, session: SessionId, push: &Push, author: crate::ids::Author) {
        if let Some(member) = self.members.get_mut(&session) {
            member.origins.insert(push.origin, None);
        }
        let message = AuthorMessage {
            channel: self.channel,
            origin: push.origin,
            author,
        };
        self.prompt(session, &Message::Author(message));
    }

    /// Checks a change; says whether the registry may answer otherwise than `At`.
    fn check(
        &mut self,
        session: SessionId,
        id: ChangeId,
        bytes: &Bytes,
        reconciling: bool,
    ) -> Result<bool, PeerError> {
        let Some(member) = self.members.get_mut(&session) else {
            return Ok(true);
        };
        if member.open.access < AccessLevel::Write {
            return Err(PeerError::new(
                ErrorCode::AccessDenied,
                format!("{} may only read the document", member.open.user.id),
            ));
        }
        if id.number == 0 || id.number == u64::MAX {
            return Err(PeerError::new(
                ErrorCode::Gap,
                "changes are numbered from 1",
            ));
        }
        let limits = &self.config.limits;
        let bytes_max = if reconciling {
            limits.message_bytes_max
        } else {
            limits.change_bytes_max
        };
        if bytes.len() > bytes_max {
            return Err(PeerError::new(
                ErrorCode::TooLarge,
                format!(
                    "the change has {} bytes, the limit is {bytes_max}",
                    bytes.len()
                ),
            ));
        }
        let engine = &member.open.engine;
        if let Some(Some(validator)) = self.config.engines.validator(engine) {
            // The same limits everywhere: whether a logged change is valid must not depend on who reads it.
            if let Err(error) = validator.validate(bytes, &ValidateLimits::default()) {
                let message = error.to_string();
                if error == EngineError::Poisoned {
                    self.event(RoomEvent::ValidatorPanicked { change: id });
                }
                return Err(PeerError::new(ErrorCode::InvalidChange, message));
            }
        }
        // If this one is not committed, the registry commits none of the origin that follow it.
        let before = member.origins.insert(id.origin, Some(id.number)).flatten();
        Ok(before.and_then(|last| last.checked_add(1)) != Some(id.number))
    }

    fn enqueue(
        &mut self,
        key: (SessionId, u32),
        id: ChangeId,
        bytes: Bytes,
        charge: usize,
        is_doubtful: bool,
    ) {
        let Some(user) = self.live(key).map(|member| member.open.user.clone()) else {
            return;
        };
        let bytes = if bytes.len() <= COPY_BYTES_MAX {
            Bytes::copy_from_slice(&bytes)
        } else {
            bytes
        };
        self.queue.push_back(Item {
            member: key,
            kind: ItemKind::Change {
                change: NewChange::new(id, user, bytes),
                is_doubtful,
            },
            charge,
        });
    }

    /// When the next append may begin, if something waits for nothing but that.
    pub(super) fn paced_until(&self) -> Option<Time> {
        let is_ready =
            self.in_flight.is_none() && self.fill == Fill::Idle && !self.queue.is_empty();
        let is_paced = self.members.len() >= self.config.append_interval_members_min;
        self.last_append
            .filter(|_| is_ready && is_paced)
            .map(|last| last + self.config.append_interval)
    }

    /// Begins the next append, if none is under way and something waits.
    pub(super) fn start_append(&mut self, now: Time) {
        while self.in_flight.is_none() && self.fill == Fill::Idle && !self.queue.is_empty() {
            if self.paced_until().is_some_and(|until| now < until) {
                return;
            }
            self.last_append = Some(now);
            let Some(epoch) = self.current().map(|history| history.epoch) else {
                return self.drop_queue();
            };
            let batch = InFlight {
                epoch,
                items: self.next_batch(),
                attempt: 0,
                retry_at: None,
            };
            let changes = batch.changes();
            if changes.is_empty() {
                self.conclude(now, batch, Vec::new());
            } else {
                self.in_flight = Some(batch);
                self.request(Purpose::Append, RegistryRequest::Append { epoch, changes });
            }
        }
    }

    /// Takes the next append's items out of the line.
    fn next_batch(&mut self) -> Vec<Item> {
        let (mut n, mut bytes) = (0_usize, 0_usize);
        let mut held_back = BTreeSet::new();
        let mut batch = Vec::new();
        let mut rest = std::collections::VecDeque::new();
        while let Some(item) = self.queue.pop_front() {
            if held_back.contains(&item.member) {
                rest.push_back(item);
                continue;
            }
            if let ItemKind::Change {
                change,
                is_doubtful,
            } = &item.kind
            {
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
        batch
    }

    /// Forgets the line: its members are told otherwise why.
    pub(super) fn drop_queue(&mut self) {
        for item in std::mem::take(&mut self.queue) {
            self.settle(&item);
        }
    }

    /// Tells the session that an item has been answered, or will not be.
    fn settle(&mut self, item: &Item) {
        self.settle_charge(item.member, item.charge);
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
                return self.conclude(now, batch, outcomes);
            }
            Ok(_) => RegistryError::Damaged {
                what: "an append was not answered change by change".into(),
            },
            Err(error) => error,
        };
        match error {
            RegistryError::Unknown { .. } if batch.attempt < self.config.append_attempts_max => {
                self.registry_failed("append", error);
                batch.attempt += 1;
                batch.retry_at = Some(now + self.config.retry_delay(batch.attempt));
                self.in_flight = Some(batch);
            }
            // One that was never there and one that is gone differ for whoever opens it: both start over.
            RegistryError::Fenced { .. } | RegistryError::NotFound => {
                for item in &batch.items {
                    self.settle(item);
                }
                self.mark_stale(now);
            }
            RegistryError::Deleted => {
                for item in &batch.items {
                    self.settle(item);
                }
                if let Some(absence) = absence(&RegistryError::Deleted) {
                    self.gone(now, &absence);
                }
            }
            error => {
                let error = self.registry_failed("append", error);
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
        let after = self.head();
        let max_bytes = self.config.catch_up_bytes;
        if let Some(batch) = &mut self.in_flight
            && batch.retry_at.is_some_and(|at| at <= now)
        {
            batch.retry_at = None;
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
                let (epoch, changes) = (batch.epoch, batch.changes());
                self.in_flight = Some(batch);
                self.request(Purpose::Append, RegistryRequest::Append { epoch, changes });
            }
            // As unknown as before; counted as another attempt.
            Err(RegistryError::Unavailable { source, .. }) => {
                self.on_append(now, Err(RegistryError::Unknown { source }));
            }
            Err(error) => self.on_append(now, Err(error)),
        }
    }

    /// Does what the registry's answer says, change by change.
    fn conclude(&mut self, now: Time, batch: InFlight, outcomes: Vec<Outcome>) {
        let mut outcomes = outcomes.into_iter();
        let mut commits = Vec::new();
        let mut starts_frame = false;
        // Members that have been told to open again: what else they sent is not refused on top of that.
        let mut closed = BTreeSet::new();
        for item in batch.items {
            let Item {
                member,
                kind,
                charge,
            } = item;
            match kind {
                ItemKind::Refuse { .. } | ItemKind::Error(_) if closed.contains(&member) => {
                    self.settle_charge(member, charge);
                }
                ItemKind::Change { change, .. } => {
                    let Some(outcome) = outcomes.next() else {
                        continue;
                    };
                    if let Outcome::At(seq) = outcome {
                        self.on_committed(member, seq, charge);
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
        self.announce(&commits);
        self.publish_own(now, commits);
    }

    fn on_committed(&mut self, key: (SessionId, u32), seq: Seq, charge: usize) {
        let Some(member) = self.live(key) else {
            return self.settle_charge(key, charge);
        };
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
                self.repeat(key, id, last, charge);
            }
            Outcome::IdReused => {
                let error = PeerError::new(
                    ErrorCode::IdReused,
                    format!("{id} has been committed with other bytes"),
                );
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

    fn settle_charge(&mut self, key: (SessionId, u32), charge: usize) {
        if charge > 0 {
            self.outputs.push_back(RoomOutput::Settled(key.0, charge));
        }
    }

    /// Says that everything of the origin through `last` had been committed before.
    fn repeat(&mut self, key: (SessionId, u32), id: ChangeId, last: u64, charge: usize) {
        let channel = self.channel;
        let number = last.max(id.number);
        let Some(member) = self.live(key) else {
            return self.settle_charge(key, charge);
        };
        if let Some(last) = member.origins.get_mut(&id.origin) {
            *last = (*last).max(Some(number));
        }
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
    fn refuse(
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
        self.event(RoomEvent::Refused { change, user, code });
        self.stop_writing(now, key);
    }

    /// Tells a member why nothing more of it is taken until it opens again. Its outbox stays as it is.
    fn close_writing(&mut self, now: Time, key: (SessionId, u32), error: PeerError) {
        let reference = Reference::Channel(self.channel);
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
        self.stop_writing(now, key);
    }

    fn stop_writing(&mut self, now: Time, key: (SessionId, u32)) {
        if let Some(member) = self.live(key) {
            member.writing = Writing::Closed;
        }
        for item in std::mem::take(&mut self.queue) {
            if item.member == key {
                self.settle(&item);
            } else {
                self.queue.push_back(item);
            }
        }
        self.leave_slot(now, key);
        self.wake(key.0);
    }

    fn announce(&mut self, commits: &[Commit]) {
        let runs = commits.chunk_by(|a, b| a.id.origin == b.id.origin);
        for run in runs {
            if let (Some(first), Some(last)) = (run.first(), run.last())
                && let Some((_, user)) = &first.by
            {
                let (first_seq, last_seq) = (first.seq, last.seq);
                let (origin, user) = (first.id.origin, user.clone());
                self.event(RoomEvent::Committed {
                    first: first_seq,
                    last: last_seq,
                    origin,
                    user,
                });
            }
        }
    }

    /// Publishes what this room appended, in log order: not before what others appended in between.
    fn publish_own(&mut self, now: Time, commits: Vec<Commit>) {
        let (Some(first), Some(last)) = (
            commits.first().map(|commit| commit.seq),
            commits.last().map(|commit| commit.seq),
        ) else {
            return;
        };
        self.seen = self.seen.max(last);
        let next = self.head().next();
        if first == next {
            self.publish(commits);
        } else if first < next {
            // The registry gave a sequence twice: it has lost something.
            self.mark_stale(now);
        }
        // Otherwise the log is read from the head on, these changes included.
    }

    /// Adds committed changes to the ring and tells every member.
    fn publish(&mut self, commits: Vec<Commit>) {
        let Some(history) = &mut self.history else {
            return;
        };
        for commit in &commits {
            history.head = commit.seq;
            history.digest = history.digest.with(commit.id.number, &commit.bytes);
        }
        self.seen = self.seen.max(self.head());
        let bytes = commits.iter().map(|commit| commit.bytes.len()).sum();
        self.folding.published(bytes);
        let authors: Vec<_> = commits
            .iter()
            .map(|commit| self.author(commit.id.origin))
            .collect();
        let (mut rest, mut authors): (&[_], &[_]) = (&commits, &authors);
        while let Some(first) = rest.first() {
            let fits = frame_len(rest.iter().zip(authors).map(|(commit, author)| {
                (*author, commit.id.number, commit.seq, commit.bytes.len())
            }));
            let until_break = rest
                .iter()
                .skip(1)
                .position(|commit| commit.starts_frame)
                .map_or(rest.len(), |at| at + 1);
            let n = fits.min(until_break).min(rest.len());
            let (now, later) = rest.split_at(n);
            let (by, later_by) = authors.split_at(n.min(authors.len()));
            let changes: Vec<_> = now
                .iter()
                .zip(by)
                .map(|(commit, author)| (*author, commit.id.number, &*commit.bytes))
                .collect();
            let frame = changes_frame(self.channel, first.seq, changes);
            let id = self.fragmented_id();
            self.ring.push(RingFrame {
                first: first.seq,
                last: now.last().map_or(first.seq, |commit| commit.seq),
                sole: sole(now),
                encoded: Encoded::new(self.channel, id, frame),
            });
            (rest, authors) = (later, later_by);
        }
        for (session, member) in &mut self.members {
            if !member.awake && matches!(member.state, MemberState::Streaming(_)) {
                member.awake = true;
                self.outputs.push_back(RoomOutput::Wake(*session));
            }
        }
    }

    /// Reads what is known to be there and has not been published.
    pub(super) fn read_ahead(&mut self) {
        let is_behind = self
            .current()
            .is_some_and(|history| self.seen > history.head);
        if is_behind && self.in_flight.is_none() && self.fill == Fill::Idle {
            self.read_fill(0);
        }
    }

    pub(super) fn read_fill(&mut self, attempt: u32) {
        let after = self.head();
        let max_bytes = self.config.append_bytes_max;
        let number = self.request(
            Purpose::Fill { attempt },
            RegistryRequest::Tail { after, max_bytes },
        );
        self.fill = Fill::Reading(number);
    }

    pub(super) fn on_fill(
        &mut self,
        now: Time,
        number: RequestNumber,
        attempt: u32,
        result: Result<Tail, RegistryError>,
    ) {
        if self.fill != Fill::Reading(number) {
            return;
        }
        self.fill = Fill::Idle;
        match result {
            Ok(tail) => {
                self.take_tail(now, tail);
            }
            Err(error) => match absence(&error) {
                Some(absence) => self.gone(now, &absence),
                None => {
                    self.registry_failed("tail", error);
                    let attempt = attempt.saturating_add(1);
                    self.fill = Fill::Waiting {
                        until: now + self.config.retry_delay(attempt),
                        attempt,
                    };
                }
            },
        }
    }

    /// Publishes rows read after the head. Anything but rows that continue what was published means that this was
    /// not the document's history.
    fn take_tail(&mut self, now: Time, tail: Tail) {
        let Some((epoch, digest)) = self
            .current()
            .map(|history| (history.epoch, history.digest))
        else {
            return;
        };
        match tail {
            Tail::Changes {
                epoch: found,
                digest: found_digest,
                changes,
                head,
            } if found == epoch && found_digest == digest => {
                let published = self.head();
                let rows = changes.into_iter().filter(|row| row.seq > published);
                let commits: Vec<_> = rows
                    .map(|row| Commit {
                        seq: row.seq,
                        id: row.id,
                        bytes: row.bytes,
                        by: None,
                        starts_frame: false,
                    })
                    .collect();
                // A hint may have claimed more than there is.
                self.seen = head;
                if !commits.is_empty() {
                    self.publish(commits);
                }
            }
            _ => self.mark_stale(now),
        }
    }
}

/// The member that pushed all of these, if they are of one origin and numbered without holes.
fn sole(commits: &[Commit]) -> Option<Sole> {
    let first = commits.first()?;
    let (member, _) = first.by.as_ref()?;
    let is_sole = (first.id.number..).zip(commits).all(|(number, commit)| {
        commit.id.origin == first.id.origin
            && commit.id.number == number
            && commit.by.as_ref().is_some_and(|(by, _)| by == member)
    });
    is_sole.then_some(Sole {
        session: member.0,
        generation: member.1,
        origin: first.id.origin,
        first_number: first.id.number,
    })
}
