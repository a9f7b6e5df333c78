//! One document of a client: its outbox, its place in the log, and the stream that moves it.
//!
//! ```text
//!          ┌────────── lost, Resync, Refuse ──────────┐
//!          ▼                                          │
//! Idle ── Open sent ──▶ Opening ── Opened ──▶ Streaming      (protocol.md section 7)
//!  ▲ ▲                   │    └── Wait ──▶ Waiting ──▶ ┘      (protocol.md section 8.2)
//!  │ └──── delay ────────┤
//!  └ connect()           └── final error ──▶ Blocked
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use super::backoff::Backoff;
use super::event::{DocumentEvent, RefusedChange, RefusedReason, SyncPhase, SyncState};
use super::outbox::{Entry, Outbox, Standing};
use super::replica::{Job, JobOutcome, Target};
use crate::error::{Action, ErrorCode, PeerError};
use crate::history::{Cursor, Seq};
use crate::ids::{Author, ChangeId, Channel, DocumentId, EngineId, OriginId, RequestId};
use crate::limits::FRAGMENT_BYTES;
use crate::rng::Rng;
use crate::time::Time;
use crate::wire::{
    AccessLevel, Ack, Changes, Continuation, Message, Open, Opened, Push, Refuse, Reset,
    SnapshotMessage, check_of,
};

/// What the application asked for when it opened a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenOptions {
    /// Wanted access: read or write. Default write.
    pub access: AccessLevel,
    /// Whether the server is to create the document if there is none. Default yes.
    pub create: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            access: AccessLevel::Write,
            create: true,
        }
    }
}

/// What a turn of a document's machine asks of the client around it.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub(crate) messages: Vec<Message>,
    pub(crate) jobs: Vec<(u64, Job)>,
    pub(crate) events: Vec<DocumentEvent>,
    /// Something about the document's state changed.
    pub(crate) touched: bool,
    /// A channel that is not followed any more.
    pub(crate) left: Option<Channel>,
}

#[derive(Debug)]
pub(crate) struct DocumentState {
    id: DocumentId,
    engine: EngineId,
    options: OpenOptions,
    outbox: Outbox,
    /// Kept until the application drops them.
    refused: Vec<RefusedChange>,
    /// Ordinals of edits that were refused, for whoever waits for them to be saved.
    lost: BTreeMap<u64, ChangeId>,
    /// What the main replica has imported.
    cursor: Option<Cursor>,
    link: Link,
    jobs: VecDeque<PendingJob>,
    next_job: u64,
    /// The next open must bring the whole state.
    fresh: Option<Fresh>,
    /// Edits whose changes wait for a replacement to be replayed.
    replaying: Vec<Entry>,
    /// Ordinals of edits that have been replayed once: a second refusal hands everything back (design 2.2).
    replayed: BTreeSet<u64>,
    access: AccessLevel,
    backoff: Backoff,
    /// The engine waits for changes that are not there.
    pending: bool,
    /// A resync for that has been made, and is not made again before the engine has stopped waiting.
    resynced: bool,
    closed: bool,
}

#[derive(Debug)]
enum Link {
    /// To be opened as soon as there is a connection and no job is running.
    Idle,
    /// To be opened at this time.
    Delayed(Time),
    Opening(RequestId),
    /// Another client reconciles; the server answers the same request again.
    Waiting(RequestId),
    Streaming(Box<Stream>),
    /// The server said no for good.
    Blocked(ErrorCode),
    Damaged(Seq),
}

/// Why the whole state is needed, and what to do with what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fresh {
    /// A change was refused: the replica is rebuilt without it.
    Replace,
    /// The engine waits for something: merge with the server's state.
    Merge,
}

#[derive(Debug)]
struct Stream {
    channel: Channel,
    /// What has arrived and is at least queued for import.
    received: Cursor,
    /// Where `received` stood at the open, for progress.
    started: Seq,
    open_head: Seq,
    /// Last head told.
    head: Seq,
    authors: BTreeMap<Author, OriginId>,
    plan: Plan,
    /// A snapshot comes first.
    awaits_snapshot: bool,
    /// Own changes are in the replica already. Not so in a shadow, nor in what was one.
    own_are_imported: bool,
}

/// What to do with what arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    /// Import it.
    Follow,
    /// Collect it in a shadow up to the head at the open, then merge. `turn`: the server waits for a reconciling push.
    Merge { turn: bool },
    /// Collect it in a shadow up to the head at the open, then replace. `replay`: pending work may be replayed.
    Replace { replay: bool },
}

#[derive(Debug)]
struct PendingJob {
    number: u64,
    effect: Effect,
}

/// What a finished job means.
#[derive(Debug, Clone, Copy)]
enum Effect {
    /// The main replica has imported everything through here.
    Moved {
        cursor: Cursor,
        first: Seq,
    },
    /// The shadow grew.
    Shadow {
        first: Seq,
    },
    Merged {
        cursor: Cursor,
        turn: bool,
        channel: Channel,
    },
    Replaced {
        cursor: Cursor,
        replay: bool,
    },
}

impl DocumentState {
    pub(crate) fn new(
        id: DocumentId,
        engine: EngineId,
        options: OpenOptions,
        origin: OriginId,
        backoff: Backoff,
    ) -> Self {
        Self {
            id,
            engine,
            options,
            outbox: Outbox::new(origin),
            refused: Vec::new(),
            lost: BTreeMap::new(),
            cursor: None,
            link: Link::Idle,
            jobs: VecDeque::new(),
            next_job: 0,
            fresh: None,
            replaying: Vec::new(),
            replayed: BTreeSet::new(),
            access: options.access,
            backoff,
            pending: false,
            resynced: false,
            closed: false,
        }
    }

    // ---- what the application does

    pub(crate) fn engine(&self) -> &EngineId {
        &self.engine
    }

    /// Opens it again for the application: the same replica, and the wider of the wishes.
    pub(crate) fn reopen(&mut self, options: OpenOptions) {
        self.closed = false;
        self.options.access = self.options.access.max(options.access);
        self.options.create |= options.create;
    }

    /// Why an edit cannot be made now, if so.
    pub(crate) fn edit_refusal(&self, outbox_max: usize) -> Option<EditRefusal> {
        if self.closed {
            return Some(EditRefusal::Closed);
        }
        match self.link {
            Link::Blocked(ErrorCode::Deleted) => Some(EditRefusal::Deleted),
            _ if self.access < AccessLevel::Write => Some(EditRefusal::ReadOnly),
            _ if self.unsaved() >= u64::try_from(outbox_max).unwrap_or(u64::MAX) => {
                Some(EditRefusal::OutboxFull { max: outbox_max })
            }
            _ => None,
        }
    }

    /// A change was made on the main replica.
    pub(crate) fn handle_edit(&mut self, bytes: Bytes, turn: &mut Turn) -> ChangeId {
        turn.touched = true;
        self.outbox.push(bytes)
    }

    /// A change was made on the main replica that can never be sent: the replica must be rebuilt without it, and what
    /// came before it is kept.
    pub(crate) fn handle_oversized(&mut self, bytes: Bytes, message: Arc<str>, turn: &mut Turn) {
        let id = self.outbox.push(bytes);
        self.refuse_from(id, ErrorCode::TooLarge, message, turn);
    }

    /// A change that is in no replica is handed to the application.
    pub(crate) fn handle_taken_back(
        &mut self,
        bytes: Bytes,
        reason: RefusedReason,
        message: Arc<str>,
        turn: &mut Turn,
    ) {
        let id = self.outbox.unnumbered();
        self.hand_back(
            [RefusedChange {
                id,
                bytes,
                reason,
                message,
            }],
            turn,
        );
    }

    pub(crate) fn refused(&self) -> &[RefusedChange] {
        &self.refused
    }

    /// Drops refused changes of this id. Whether there were any.
    pub(crate) fn drop_refused(&mut self, id: ChangeId) -> bool {
        let before = self.refused.len();
        self.refused.retain(|change| change.id != id);
        self.refused.len() != before
    }

    pub(crate) fn outbox_bytes(&self) -> Vec<Bytes> {
        self.outbox.bytes()
    }

    /// Takes what is pending out of the outbox for a replacement, and gives the bytes of what may be replayed.
    pub(crate) fn take_for_replay(&mut self) -> Vec<Bytes> {
        let behind = self.outbox.take_pending();
        self.replaying.extend(behind);
        let may_replay = matches!(
            self.jobs.front(),
            Some(PendingJob {
                effect: Effect::Replaced { replay: true, .. },
                ..
            })
        );
        if !may_replay
            || self
                .replaying
                .iter()
                .any(|entry| self.replayed.contains(&entry.ordinal))
        {
            return Vec::new();
        }
        self.replaying
            .iter()
            .map(|entry| entry.bytes.clone())
            .collect()
    }

    /// The application closed its last handle. The outbox is delivered all the same.
    pub(crate) fn close(&mut self, turn: &mut Turn) {
        self.closed = true;
        turn.touched = true;
        self.leave_if_done(turn);
    }

    fn leave_if_done(&mut self, turn: &mut Turn) {
        if !self.closed || self.unsaved() > 0 {
            return;
        }
        if let Link::Streaming(stream) = &self.link {
            turn.messages.push(Message::Close(crate::wire::Close {
                channel: stream.channel,
            }));
            turn.left = Some(stream.channel);
            self.link = Link::Idle;
        }
    }

    /// Whether nothing is left to do for a closed document.
    pub(crate) fn is_done(&self) -> bool {
        self.closed && self.unsaved() == 0 && self.jobs.is_empty()
    }

    // ---- what is true now

    fn unsaved(&self) -> u64 {
        let pending = self.outbox.pending_count() + self.replaying.len();
        u64::try_from(pending).unwrap_or(u64::MAX)
    }

    pub(crate) fn has_unsaved(&self) -> bool {
        self.unsaved() > 0
    }

    /// Ordinals of the edits that are pending now: first and last. `None` if there are none.
    pub(crate) fn pending_ordinals(&self) -> Option<(u64, u64)> {
        self.oldest_pending()
            .map(|oldest| (oldest, self.outbox.last_ordinal()))
    }

    /// Edits are in the outbox, and among those waiting to be replayed, in the order in which they were made.
    fn oldest_pending(&self) -> Option<u64> {
        let in_outbox = self.outbox.pending().find(|entry| !entry.reconciling);
        self.replaying
            .first()
            .into_iter()
            .chain(in_outbox)
            .map(|entry| entry.ordinal)
            .min()
    }

    /// What became of the edits with these ordinals; `None` while some are pending.
    pub(crate) fn settled(&self, first: u64, last: u64) -> Option<Result<(), Vec<ChangeId>>> {
        if self.oldest_pending().is_some_and(|oldest| oldest <= last) {
            return None;
        }
        let lost: Vec<ChangeId> = self.lost.range(first..=last).map(|(_, id)| *id).collect();
        Some(if lost.is_empty() { Ok(()) } else { Err(lost) })
    }

    pub(crate) fn sync_state(&self) -> SyncState {
        SyncState {
            unsaved: self.unsaved(),
            refused: u64::try_from(self.refused.len()).unwrap_or(u64::MAX),
            phase: self.phase(),
            access: self.access,
        }
    }

    fn phase(&self) -> SyncPhase {
        if self.closed {
            return SyncPhase::Closed;
        }
        match &self.link {
            Link::Idle | Link::Delayed(_) => SyncPhase::Offline,
            Link::Opening(_) | Link::Waiting(_) => SyncPhase::CatchingUp {
                received: 0,
                total: 0,
            },
            Link::Blocked(ErrorCode::Deleted) => SyncPhase::Deleted,
            Link::Blocked(code) => SyncPhase::Refused(*code),
            Link::Damaged(sequence) => SyncPhase::Damaged {
                sequence: *sequence,
            },
            Link::Streaming(stream) => {
                let imported = self.cursor.is_some_and(|cursor| {
                    cursor.epoch == stream.received.epoch && cursor.seq >= stream.head
                });
                // In this order design 7's "caught up": at the head, no reset in progress, the engine waits for nothing.
                if imported
                    && stream.plan == Plan::Follow
                    && !stream.awaits_snapshot
                    && !self.pending
                    && self.jobs.is_empty()
                {
                    SyncPhase::Live
                } else {
                    SyncPhase::CatchingUp {
                        received: stream.received.seq.0.saturating_sub(stream.started.0),
                        total: stream.head.0.saturating_sub(stream.started.0),
                    }
                }
            }
        }
    }

    pub(crate) const fn next_deadline(&self) -> Option<Time> {
        match self.link {
            Link::Delayed(at) => Some(at),
            _ => None,
        }
    }

    // ---- the connection

    /// The connection is gone.
    pub(crate) fn handle_lost(&mut self, turn: &mut Turn) {
        match self.link {
            Link::Blocked(_) | Link::Damaged(_) => {}
            _ => self.link = Link::Idle,
        }
        self.outbox.requeue();
        turn.touched = true;
    }

    /// The application asks for another try of everything.
    pub(crate) fn unblock(&mut self) {
        if matches!(self.link, Link::Blocked(_) | Link::Delayed(_)) {
            self.link = Link::Idle;
        }
    }

    /// Whether an `Open` should be sent now. Not while a job runs: the cursor must say exactly what is imported.
    pub(crate) fn wants_open(&self, now: Time) -> bool {
        let due = match self.link {
            Link::Idle => true,
            Link::Delayed(at) => at <= now,
            _ => false,
        };
        due && self.jobs.is_empty() && !(self.closed && self.unsaved() == 0)
    }

    pub(crate) fn open(&mut self, request: RequestId, turn: &mut Turn) {
        self.outbox.requeue();
        self.link = Link::Opening(request);
        turn.touched = true;
        turn.messages.push(Message::Open(Open {
            request,
            document: self.id.clone(),
            engine: self.engine.clone(),
            cursor: if self.fresh.is_some() {
                None
            } else {
                self.cursor
            },
            origins: self.outbox.origins(),
            access: self.options.access,
            create: self.options.create,
            partial: None,
        }));
    }

    pub(crate) fn handle_opened(&mut self, opened: Opened, rng: &mut Rng, turn: &mut Turn) -> bool {
        let (Link::Opening(request) | Link::Waiting(request)) = self.link else {
            return false;
        };
        if request != opened.request {
            return false;
        }
        turn.touched = true;
        if self.access != opened.access {
            self.access = opened.access;
            turn.events
                .push(DocumentEvent::AccessChanged(opened.access));
        }
        if opened.next == Continuation::Wait {
            self.link = Link::Waiting(request);
            return true;
        }
        let last: Vec<(OriginId, u64)> = opened
            .origins
            .iter()
            .map(|(origin, last, _)| (*origin, *last))
            .collect();
        if self.outbox.reconcile_with(&last) == Standing::Forgotten {
            self.outbox.reissue(OriginId(rng.next_u128()));
        }
        let start = Cursor::start(opened.epoch);
        let (plan, received, awaits_snapshot) = self.plan(opened.next, start);
        let own_are_imported = plan == Plan::Follow;
        if plan != Plan::Follow {
            self.queue(Job::StartShadow, Effect::Shadow { first: Seq::ZERO }, turn);
        }
        self.link = Link::Streaming(Box::new(Stream {
            channel: opened.channel,
            received,
            started: received.seq,
            open_head: opened.head,
            head: opened.head,
            authors: opened
                .origins
                .iter()
                .map(|(origin, _, author)| (*author, *origin))
                .collect(),
            plan,
            awaits_snapshot,
            own_are_imported,
        }));
        if own_are_imported && !awaits_snapshot && self.cursor.is_none() {
            self.cursor = Some(start);
        }
        self.finish_if_complete(turn);
        true
    }

    /// Protocol 8.1 to 8.3, from the client's side.
    fn plan(&self, next: Continuation, start: Cursor) -> (Plan, Cursor, bool) {
        match (self.fresh, next) {
            (
                Some(fresh),
                Continuation::Resume | Continuation::Snapshot { .. } | Continuation::Reset { .. },
            ) => {
                let plan = match fresh {
                    Fresh::Replace => Plan::Replace { replay: true },
                    Fresh::Merge => Plan::Merge { turn: false },
                };
                (plan, start, snapshot_follows(next))
            }
            (
                None,
                Continuation::Reset {
                    reset: Reset::Merge,
                    ..
                },
            ) => (
                Plan::Merge {
                    turn: self.access >= AccessLevel::Write,
                },
                start,
                snapshot_follows(next),
            ),
            (None, Continuation::Reset { reset, .. }) => (
                Plan::Replace {
                    replay: reset == Reset::Rebase,
                },
                start,
                snapshot_follows(next),
            ),
            // State from a server is here already: a snapshot that lacks some of it is repaired (design 2.3).
            (None, Continuation::Snapshot { .. }) if self.cursor.is_some() => {
                (Plan::Merge { turn: false }, start, true)
            }
            (None, Continuation::Snapshot { .. }) => (Plan::Follow, start, true),
            (_, Continuation::Resume | Continuation::Wait) => {
                (Plan::Follow, self.cursor.unwrap_or(start), false)
            }
        }
    }

    /// An error about this document's open request.
    pub(crate) fn handle_request_error(
        &mut self,
        now: Time,
        error: &PeerError,
        action: Action,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        turn.touched = true;
        self.link = match action {
            Action::Retry | Action::Resync | Action::RefreshAuth => self.delayed(now, error, rng),
            Action::Refuse | Action::Upgrade | Action::Stop => Link::Blocked(error.code),
        };
        if error.code == ErrorCode::Deleted {
            turn.events.push(DocumentEvent::Deleted);
        }
    }

    fn delayed(&mut self, now: Time, error: &PeerError, rng: &mut Rng) -> Link {
        let drawn = self.backoff.next(rng);
        Link::Delayed(now + error.retry_after.unwrap_or(drawn))
    }

    /// An error about this document's channel.
    pub(crate) fn handle_channel_error(
        &mut self,
        now: Time,
        error: &PeerError,
        action: Action,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        self.forget_channel(turn);
        if action == Action::Resync {
            self.resync(now, rng);
        } else {
            self.handle_request_error(now, error, action, rng, turn);
        }
    }

    fn forget_channel(&mut self, turn: &mut Turn) {
        if let Link::Streaming(stream) = &self.link {
            turn.left = Some(stream.channel);
            self.link = Link::Idle;
        }
        turn.touched = true;
    }

    /// Opens again: at once the first time, later with growing delays until something has worked.
    fn resync(&mut self, now: Time, rng: &mut Rng) {
        self.link = if self.backoff.attempts() == 0 {
            self.backoff.next(rng);
            Link::Idle
        } else {
            Link::Delayed(now + self.backoff.next(rng))
        };
    }

    /// The stream and what is here do not fit: open again.
    fn out_of_step(&mut self, now: Time, rng: &mut Rng, turn: &mut Turn) {
        self.forget_channel(turn);
        self.resync(now, rng);
    }

    pub(crate) fn handle_closed(
        &mut self,
        now: Time,
        reason: Option<ErrorCode>,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        let Some(code) = reason else { return };
        let error = PeerError::new(code, String::new());
        self.handle_channel_error(now, &error, code.action(), rng, turn);
    }

    pub(crate) fn handle_access(&mut self, access: AccessLevel, turn: &mut Turn) {
        if self.access != access {
            self.access = access;
            turn.events.push(DocumentEvent::AccessChanged(access));
            turn.touched = true;
        }
    }

    // ---- the stream

    pub(crate) fn handle_head(&mut self, head: Seq, turn: &mut Turn) {
        if let Link::Streaming(stream) = &mut self.link
            && head > stream.head
        {
            stream.head = head;
            turn.touched = true;
        }
    }

    pub(crate) fn handle_author(&mut self, origin: OriginId, author: Author) {
        if let Link::Streaming(stream) = &mut self.link {
            stream.authors.insert(author, origin);
        }
    }

    pub(crate) fn handle_changes(
        &mut self,
        now: Time,
        message: Changes,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        let Link::Streaming(stream) = &mut self.link else {
            return;
        };
        let first = stream.received.seq.next();
        if stream.awaits_snapshot || message.check != check_of(first) {
            return self.out_of_step(now, rng, turn);
        }
        let mut cursor = stream.received;
        let mut import = Vec::with_capacity(message.changes.len());
        for change in message.changes {
            let Some(number) = change.number.resolve(cursor.seq.next()) else {
                return self.out_of_step(now, rng, turn);
            };
            cursor = cursor.with(number, &change.bytes);
            let own = stream.authors.get(&change.author).is_some_and(|origin| {
                self.outbox.pass(ChangeId {
                    origin: *origin,
                    number,
                })
            });
            if !(own && stream.own_are_imported) {
                import.push(change.bytes);
            }
        }
        self.received(cursor, import, first, turn);
    }

    pub(crate) fn handle_ack(&mut self, now: Time, ack: Ack, rng: &mut Rng, turn: &mut Turn) {
        let Link::Streaming(stream) = &mut self.link else {
            return;
        };
        turn.touched = true;
        if ack.count == 0 {
            self.outbox.commit_front_through(ack.number);
            return self.leave_if_done(turn);
        }
        let first = stream.received.seq.next();
        let passed = if stream.awaits_snapshot || ack.check != check_of(first) {
            None
        } else {
            self.outbox.pass_front(ack.number, ack.count)
        };
        let Some(passed) = passed else {
            return self.out_of_step(now, rng, turn);
        };
        let cursor = passed.iter().fold(stream.received, |cursor, entry| {
            cursor.with(entry.id.number, &entry.bytes)
        });
        let import = if stream.own_are_imported {
            Vec::new()
        } else {
            passed.into_iter().map(|entry| entry.bytes).collect()
        };
        self.received(cursor, import, first, turn);
        self.leave_if_done(turn);
    }

    pub(crate) fn handle_snapshot(
        &mut self,
        now: Time,
        snapshot: SnapshotMessage,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        let Link::Streaming(stream) = &mut self.link else {
            return;
        };
        if !stream.awaits_snapshot || snapshot.codec != 0 || snapshot.epoch != stream.received.epoch
        {
            return self.out_of_step(now, rng, turn);
        }
        stream.awaits_snapshot = false;
        let cursor = Cursor {
            epoch: snapshot.epoch,
            seq: snapshot.seq,
            digest: snapshot.digest,
        };
        stream.received = cursor;
        stream.started = snapshot.seq;
        stream.head = stream.head.max(snapshot.seq);
        let (target, effect) = match stream.plan {
            Plan::Follow => (
                Target::Main,
                Effect::Moved {
                    cursor,
                    first: snapshot.seq,
                },
            ),
            Plan::Merge { .. } | Plan::Replace { .. } => (
                Target::Shadow,
                Effect::Shadow {
                    first: snapshot.seq,
                },
            ),
        };
        self.queue(
            Job::ImportSnapshot {
                target,
                bytes: snapshot.bytes,
            },
            effect,
            turn,
        );
        self.finish_if_complete(turn);
    }

    /// The stream moved to `cursor`.
    fn received(&mut self, cursor: Cursor, changes: Vec<Bytes>, first: Seq, turn: &mut Turn) {
        let Link::Streaming(stream) = &mut self.link else {
            return;
        };
        turn.touched = true;
        stream.received = cursor;
        stream.head = stream.head.max(cursor.seq);
        let (target, effect) = match stream.plan {
            Plan::Follow => (Target::Main, Effect::Moved { cursor, first }),
            Plan::Merge { .. } | Plan::Replace { .. } => (Target::Shadow, Effect::Shadow { first }),
        };
        if cursor.seq >= stream.open_head {
            // What was committed before the open has passed by, or is covered by a snapshot.
            self.outbox.drop_covered();
        }
        if !changes.is_empty() {
            self.queue(
                Job::Import {
                    target,
                    changes,
                    first,
                },
                effect,
                turn,
            );
        } else if let Effect::Moved { cursor, .. } = effect {
            match self.jobs.back_mut() {
                // Nothing to import, but what is before it is still being imported: the cursor must not overtake it.
                Some(PendingJob {
                    effect:
                        Effect::Moved { cursor: last, .. }
                        | Effect::Merged { cursor: last, .. }
                        | Effect::Replaced { cursor: last, .. },
                    ..
                }) => *last = cursor,
                _ => self.cursor = Some(cursor),
            }
            self.backoff.reset();
        }
        self.finish_if_complete(turn);
    }

    /// Ends a reset when the shadow holds everything that was in the log at the open.
    fn finish_if_complete(&mut self, turn: &mut Turn) {
        let Link::Streaming(stream) = &mut self.link else {
            return;
        };
        if stream.awaits_snapshot || stream.received.seq < stream.open_head {
            return;
        }
        let cursor = stream.received;
        let channel = stream.channel;
        match std::mem::replace(&mut stream.plan, Plan::Follow) {
            Plan::Follow => {}
            Plan::Merge { turn: waited_for } => {
                self.fresh = None;
                self.queue(
                    Job::Merge,
                    Effect::Merged {
                        cursor,
                        turn: waited_for,
                        channel,
                    },
                    turn,
                );
            }
            Plan::Replace { replay } => {
                self.queue(Job::Replace, Effect::Replaced { cursor, replay }, turn)
            }
        }
    }

    fn queue(&mut self, job: Job, effect: Effect, turn: &mut Turn) {
        self.next_job += 1;
        self.jobs.push_back(PendingJob {
            number: self.next_job,
            effect,
        });
        turn.jobs.push((self.next_job, job));
        turn.touched = true;
    }

    // ---- jobs

    pub(crate) fn handle_job(
        &mut self,
        now: Time,
        number: u64,
        outcome: JobOutcome,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        let Some(job) = self.jobs.pop_front() else {
            return;
        };
        debug_assert_eq!(job.number, number, "jobs are answered in order");
        turn.touched = true;
        match (job.effect, outcome) {
            (Effect::Moved { cursor, .. }, JobOutcome::Done { pending }) => {
                self.cursor = Some(cursor);
                self.backoff.reset();
                self.note_pending(now, pending, rng, turn);
            }
            (Effect::Shadow { .. }, JobOutcome::Done { .. }) => {}
            (
                Effect::Merged {
                    cursor,
                    turn: waited_for,
                    channel,
                },
                JobOutcome::Merged { lacking },
            ) => {
                self.cursor = Some(cursor);
                self.backoff.reset();
                self.reconcile(channel, lacking, waited_for, rng, turn);
            }
            (Effect::Replaced { cursor, .. }, JobOutcome::Replaced { replayed }) => {
                let refused = self.fresh.take() == Some(Fresh::Replace);
                self.cursor = Some(cursor);
                self.pending = false;
                self.backoff.reset();
                self.finish_replacement(replayed, refused, rng, turn);
            }
            (
                Effect::Moved { first, .. } | Effect::Shadow { first },
                JobOutcome::Invalid { index },
            ) => {
                self.damaged(first.plus(index), turn);
            }
            (Effect::Merged { cursor, .. } | Effect::Replaced { cursor, .. }, _) => {
                self.damaged(cursor.seq, turn)
            }
            (Effect::Moved { first, .. } | Effect::Shadow { first }, _) => {
                self.damaged(first, turn)
            }
        }
        self.leave_if_done(turn);
    }

    /// Scenario 23: one resync for missing dependencies, not one for each change, and none while it did not help.
    fn note_pending(&mut self, now: Time, pending: bool, rng: &mut Rng, turn: &mut Turn) {
        self.pending = pending;
        if !pending {
            self.resynced = false;
        } else if !self.resynced && self.fresh.is_none() {
            self.resynced = true;
            self.fresh = Some(Fresh::Merge);
            self.out_of_step(now, rng, turn);
        }
    }

    fn damaged(&mut self, sequence: Seq, turn: &mut Turn) {
        if let Link::Streaming(stream) = &self.link {
            turn.messages.push(Message::Close(crate::wire::Close {
                channel: stream.channel,
            }));
            turn.left = Some(stream.channel);
        }
        self.link = Link::Damaged(sequence);
        self.outbox.requeue();
    }

    /// Ends a merge: pushes what the server lacks, in front of the outbox, under an origin of its own.
    fn reconcile(
        &mut self,
        channel: Channel,
        lacking: Option<Bytes>,
        waited_for: bool,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        self.pending = false;
        self.outbox.drop_covered();
        let may_write = self.access >= AccessLevel::Write;
        match lacking {
            Some(bytes) if may_write => {
                self.outbox
                    .push_front_reconciling(bytes, OriginId(rng.next_u128()));
            }
            _ if waited_for
                && matches!(&self.link, Link::Streaming(stream) if stream.channel == channel) =>
            {
                turn.messages.push(Message::Push(Push {
                    channel,
                    origin: OriginId(rng.next_u128()),
                    first_number: 1,
                    changes: Vec::new(),
                    reconciling: true,
                }));
            }
            _ => {}
        }
    }

    fn finish_replacement(
        &mut self,
        replayed: bool,
        refused: bool,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        turn.events.push(DocumentEvent::Replaced);
        self.outbox.drop_covered();
        let entries = std::mem::take(&mut self.replaying);
        self.outbox.restart(OriginId(rng.next_u128()));
        if replayed {
            self.replayed
                .extend(entries.iter().map(|entry| entry.ordinal));
            self.outbox.replay(entries);
            return;
        }
        let (reason, message): (_, Arc<str>) = if refused {
            (RefusedReason::Behind, "made after a refused change".into())
        } else {
            (
                RefusedReason::HistoryReset,
                "the document's history was rewritten".into(),
            )
        };
        self.lose(&entries);
        let changes: Vec<RefusedChange> = entries
            .into_iter()
            .map(|entry| RefusedChange {
                id: entry.id,
                bytes: entry.bytes,
                reason,
                message: message.clone(),
            })
            .collect();
        self.hand_back(changes, turn);
    }

    // ---- refusals

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

    /// Design 2.2: the refused change and all behind it leave the outbox; the replica is rebuilt from server state.
    fn refuse_from(&mut self, id: ChangeId, code: ErrorCode, message: Arc<str>, turn: &mut Turn) {
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
        self.fresh = Some(Fresh::Replace);
        self.forget_channel(turn);
    }

    fn lose(&mut self, entries: &[Entry]) {
        self.lost
            .extend(entries.iter().map(|entry| (entry.ordinal, entry.id)));
    }

    fn hand_back(&mut self, changes: impl IntoIterator<Item = RefusedChange>, turn: &mut Turn) {
        let before = self.refused.len();
        self.refused.extend(changes);
        let count = self.refused.len() - before;
        if count > 0 {
            turn.events.push(DocumentEvent::Refused { count });
            turn.touched = true;
        }
    }

    // ---- pushing

    /// Bytes of the next change that may be sent now.
    pub(crate) fn next_push_bytes(&self) -> Option<usize> {
        let Link::Streaming(stream) = &self.link else {
            return None;
        };
        // While a reset is in progress what is lacking is not known, and it goes first.
        let resetting = stream.plan != Plan::Follow
            || stream.awaits_snapshot
            || self.fresh.is_some()
            || self
                .jobs
                .iter()
                .any(|job| matches!(job.effect, Effect::Merged { .. } | Effect::Replaced { .. }));
        if resetting || self.access < AccessLevel::Write {
            None
        } else {
            self.outbox.next_bytes()
        }
    }

    /// The next push, of at most this many bytes or one change.
    pub(crate) fn push(&mut self, bytes_max: usize) -> Option<Push> {
        let Link::Streaming(stream) = &self.link else {
            return None;
        };
        let batch = self
            .outbox
            .take_push(bytes_max.min(FRAGMENT_BYTES - PUSH_OVERHEAD_BYTES))?;
        Some(Push {
            channel: stream.channel,
            origin: batch.first.origin,
            first_number: batch.first.number,
            changes: batch.changes,
            reconciling: batch.reconciling,
        })
    }

    pub(crate) fn in_flight_bytes(&self) -> usize {
        self.outbox.in_flight_bytes()
    }

    pub(crate) fn channel(&self) -> Option<Channel> {
        match &self.link {
            Link::Streaming(stream) => Some(stream.channel),
            _ => None,
        }
    }

    pub(crate) const fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }
}

/// Why an edit cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EditRefusal {
    /// The document may only be read.
    ReadOnly,
    /// It was deleted on the server.
    Deleted,
    /// Its handle was closed.
    Closed,
    /// Too many changes wait for the server.
    OutboxFull {
        /// How many may wait.
        max: usize,
    },
}

const fn snapshot_follows(next: Continuation) -> bool {
    match next {
        Continuation::Snapshot { .. } => true,
        Continuation::Reset { total_bytes, .. } => total_bytes > 0,
        Continuation::Resume | Continuation::Wait => false,
    }
}

/// Room for a `Push` frame's own fields, so that a batch of small changes is one frame and no fragments.
const PUSH_OVERHEAD_BYTES: usize = 1024;
