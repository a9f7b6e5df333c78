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

mod connection;
mod folding;
mod jobs;
mod journal;
mod partial;
mod presence;
mod progress;
mod pushing;
mod refusals;
mod stream;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;

use self::folding::Asked;
use self::journal::{Journal, Passed};
use self::partial::Partial;
pub use self::presence::PeerState;
use self::presence::Presence;
pub(crate) use self::presence::{Me, Saying};
use self::progress::Progress;
use super::backoff::Backoff;
use super::event::{DocumentEvent, RefusedChange, RefusedReason, SyncPhase, SyncState};
use super::outbox::{Entry, Outbox};
use super::replica::{Job, PendingWork};
use super::store::OutboxChange;
use crate::engine::{Sealer, Unreadable};
use crate::error::ErrorCode;
use crate::history::{Cursor, Seq};
use crate::ids::{Author, ChangeId, Channel, DocumentId, EngineId, OriginId, RequestId};
use crate::planted::Planted;
use crate::rng::Rng;
use crate::time::Time;
use crate::wire::{AccessLevel, Close, Message};

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
#[derive(Debug, Clone, Default)]
pub(crate) struct Turn {
    pub(crate) messages: Vec<Message>,
    pub(crate) jobs: Vec<(u64, Job)>,
    pub(crate) events: Vec<DocumentEvent>,
    /// Something about the document's state changed.
    pub(crate) touched: bool,
    /// A channel that is not followed any more.
    pub(crate) left: Option<Channel>,
    /// Who is here has changed.
    pub(crate) shows_presence: bool,
}

#[derive(Debug, Clone)]
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
    /// The server lacks something that is here, and it could not be told: that may not be written.
    owes: bool,
    /// Edits whose changes wait for a replacement to be replayed.
    replaying: Vec<Entry>,
    /// Ordinal of the newest pending edit made before what the replacement is for: through it, the outbox stays.
    ahead: Option<u64>,
    /// Ordinals of edits that have been replayed once: a second refusal hands everything back (design 2.2).
    replayed: BTreeSet<u64>,
    access: AccessLevel,
    backoff: Backoff,
    /// The engine waits for changes that are not there.
    pending: bool,
    /// A resync for that has been made, and is not made again before the engine has stopped waiting.
    resynced: bool,
    closed: bool,
    /// Only the outbox is here, to be delivered; the replica is in the store.
    headless: bool,
    /// There is a store.
    keeps: bool,
    journal: Journal,
    /// What has arrived of a snapshot that has not arrived whole.
    partial: Partial,
    /// What of the log the replica cannot read.
    unreadable: Unreadable,
    progress: Progress,
    presence: Presence,
    planted: Planted,
}

#[derive(Debug, Clone)]
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
    /// There is no replica here to do what is needed: waits for the application to open the document.
    Parked,
}

/// Why the whole state is needed, and what to do with what is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fresh {
    /// A change was refused: the replica is rebuilt without it.
    Replace,
    /// The engine waits for something: merge with the server's state.
    Merge,
}

#[derive(Debug, Clone)]
struct Stream {
    channel: Channel,
    /// What has arrived and is at least queued for import.
    received: Cursor,
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

#[derive(Debug, Clone)]
struct PendingJob {
    number: u64,
    effect: Effect,
    /// What is stored when it is done.
    passed: Passed,
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
    /// A snapshot for the store is there.
    Snapshot,
    /// A fold for the server is there.
    Folded(Asked),
}

impl DocumentState {
    pub(crate) fn new(
        id: DocumentId,
        engine: EngineId,
        options: OpenOptions,
        origin: OriginId,
        backoff: Backoff,
        keeps: bool,
        planted: Planted,
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
            owes: false,
            replaying: Vec::new(),
            ahead: None,
            replayed: BTreeSet::new(),
            access: options.access,
            backoff,
            pending: false,
            resynced: false,
            closed: false,
            headless: false,
            keeps,
            journal: Journal::default(),
            partial: Partial::default(),
            unreadable: Unreadable::default(),
            progress: Progress::default(),
            presence: Presence::default(),
            planted,
        }
    }

    pub(crate) fn engine(&self) -> &EngineId {
        &self.engine
    }

    /// Seals changes from here on. What waits under another seal is issued again, under this origin.
    pub(crate) fn set_sealer(&mut self, sealer: Arc<dyn Sealer>, origin: OriginId) {
        self.outbox.set_sealer(sealer);
        let is_sent_from = matches!(self.link, Link::Streaming(_));
        if !is_sent_from && !self.outbox.is_sealed() {
            self.outbox.reseal(origin);
            self.keep_renamed();
        }
    }

    /// What of the log the replica cannot read now. To be told before what a job has done.
    pub(crate) fn set_unreadable(&mut self, unreadable: Unreadable, turn: &mut Turn) {
        turn.touched |= self.unreadable != unreadable;
        self.unreadable = unreadable;
    }

    /// Opens it again for the application: the same replica, and the wider of the wishes.
    pub(crate) fn reopen(&mut self, options: OpenOptions, turn: &mut Turn) {
        if std::mem::replace(&mut self.closed, false) {
            self.reopen_presence();
            turn.shows_presence = true;
        }
        if std::mem::take(&mut self.headless) {
            // What has passed by without a replica is needed now.
            self.forget_channel(turn);
            self.link = Link::Idle;
        }
        self.options.access = self.options.access.max(options.access);
        self.options.create |= options.create;
        // Asked again, perhaps for more, or after other documents have been closed.
        if matches!(self.link, Link::Blocked(_)) {
            self.link = Link::Idle;
            if self.access == AccessLevel::None {
                self.handle_access(self.options.access, turn);
            }
        }
    }

    /// Why an edit cannot be made now, if so.
    pub(crate) fn edit_refusal(&self, outbox_max: usize) -> Option<EditRefusal> {
        if self.closed {
            return Some(EditRefusal::Closed);
        }
        match self.link {
            Link::Blocked(ErrorCode::Deleted) => Some(EditRefusal::Deleted),
            _ if self.unreadable.wrong_key => Some(EditRefusal::WrongKey),
            _ if self.access < AccessLevel::Write => Some(EditRefusal::ReadOnly),
            _ if self.unsaved() >= u64::try_from(outbox_max).unwrap_or(u64::MAX) => {
                Some(EditRefusal::OutboxFull { max: outbox_max })
            }
            _ => None,
        }
    }

    /// A change was made on the main replica. Gives what a store can stage of it.
    pub(crate) fn handle_edit(&mut self, bytes: Bytes, turn: &mut Turn) -> Option<OutboxChange> {
        turn.touched = true;
        self.outbox.push(bytes);
        self.keep_edit();
        self.outbox
            .last()
            .filter(|_| self.keeps)
            .map(Entry::to_stored)
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
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        // It never had an id; this one is only for `drop_refused`.
        let id = ChangeId {
            origin: OriginId(rng.next_u128()),
            number: 0,
        };
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
        self.keep_unrefused(id);
        self.refused.len() != before
    }

    pub(crate) fn outbox_bytes(&self) -> Vec<Bytes> {
        self.outbox.bytes()
    }

    /// Sorts what is pending for a replacement, and takes out of the outbox what cannot stay as it is.
    pub(crate) fn take_for_replacement(&mut self) -> PendingWork {
        let behind = self.outbox.take_pending_behind(self.ahead.take());
        self.replaying.extend(behind);
        PendingWork {
            kept: self.outbox.pending_bytes(),
            replayed: self.replayable(),
        }
    }

    fn replayable(&self) -> Vec<Bytes> {
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
        self.close_presence();
        turn.shows_presence = true;
    }

    /// Leaves the channel of a closed document when nothing is left to deliver, however that came about.
    pub(crate) fn leave_if_done(&mut self, turn: &mut Turn) {
        if !self.closed || self.unsaved() > 0 {
            return;
        }
        if let Link::Streaming(stream) = &self.link {
            turn.messages.push(Message::Close(Close {
                channel: stream.channel,
            }));
            turn.left = Some(stream.channel);
            self.link = Link::Idle;
            self.forget_others();
        }
    }

    /// Whether nothing is left to do for a closed document.
    pub(crate) fn is_done(&self) -> bool {
        // Without a store, what is refused and what has to be rebuilt is known only here.
        let is_kept_elsewhere = self.keeps || (self.refused.is_empty() && self.fresh.is_none());
        self.closed && self.unsaved() == 0 && self.jobs.is_empty() && is_kept_elsewhere
    }

    /// Whether changes have been numbered under the client's origin.
    pub(crate) const fn has_numbered(&self) -> bool {
        self.outbox.last_ordinal() > 0
    }

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
            unsaved_locally: self.unsaved_locally(),
            unsaved: self.unsaved(),
            refused: u64::try_from(self.refused.len()).unwrap_or(u64::MAX),
            phase: self.phase(),
            access: self.access,
            unreadable: self.unreadable.changes,
            missing: self.unreadable.missing,
        }
    }

    fn phase(&self) -> SyncPhase {
        if self.closed {
            return SyncPhase::Closed;
        }
        if self.unreadable.wrong_key {
            return SyncPhase::WrongKey;
        }
        match &self.link {
            Link::Idle | Link::Delayed(_) | Link::Parked => SyncPhase::Offline,
            Link::Opening(_) | Link::Waiting(_) => self.catching_up(),
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
                    && self
                        .jobs
                        .iter()
                        .all(|job| matches!(job.effect, Effect::Snapshot | Effect::Folded(_)))
                {
                    SyncPhase::Live
                } else {
                    self.catching_up()
                }
            }
        }
    }

    const fn catching_up(&self) -> SyncPhase {
        let (received, total) = self.progress.told();
        SyncPhase::CatchingUp { received, total }
    }

    /// Reckons again how much has yet to come.
    fn update_progress(&mut self) {
        if let Link::Streaming(stream) = &self.link {
            let known = if stream.awaits_snapshot {
                self.partial.seq().unwrap_or(stream.head)
            } else {
                stream.received.seq
            };
            self.progress.update(stream.head.0.saturating_sub(known.0));
        }
    }

    /// Ends the count of what was missing when nothing is.
    pub(crate) fn finish_progress(&mut self) {
        if self.progress.told().0 > 0 && self.phase() == SyncPhase::Live {
            self.progress.finish();
        }
    }

    pub(crate) const fn next_deadline(&self) -> Option<Time> {
        match self.link {
            Link::Delayed(at) => Some(at),
            _ => None,
        }
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
    /// What is there was sealed with a key that has not been given.
    WrongKey,
    /// Too many changes wait for the server.
    OutboxFull {
        /// How many may wait.
        max: usize,
    },
}
