//! One live document: who has it open, what they are sent, and the one line in which changes are appended.

mod append;
mod fold;
mod member;
mod open;
mod ring;
mod stream;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::append::{InFlight, Item};
use self::fold::Folding;
pub use self::fold::{FoldError, FoldRequest, FoldedLog};
use self::member::{Member, MemberState, Writing};
use self::open::Slot;
use self::ring::{Encoded, Ring};
use super::config::RoomConfig;
use super::registry::{RegistryAnswer, RegistryRequest, RequestNumber};
use crate::error::{ErrorCode, PeerError};
use crate::history::{Cursor, Digest, Epoch, Seq};
use crate::ids::{
    Author, ChangeId, Channel, DocumentId, EngineId, OriginId, RequestId, SessionId, User,
};
use crate::limits::push_charge;
use crate::registry::{DocumentMeta, RegistryError};
use crate::time::Time;
use crate::wire::{
    AccessLevel, Closed, Compression, ErrorMessage, Message, Reference, abort_frame, encode_frame,
    split,
};

/// One live document (design 2 and 8).
///
/// Its truth is the registry; what it keeps itself is a bounded [ring](RoomConfig::ring_bytes_max) of recent frames,
/// a position for each member, and the changes that are being appended. Members behind the ring are served from
/// the registry, so a slow one costs one read at a time and nothing to the others.
#[derive(Debug)]
pub struct Room {
    config: RoomConfig,
    document: DocumentId,
    channel: Channel,
    phase: RoomPhase,
    /// What the room publishes; `None` until the first open has read the registry.
    history: Option<History>,
    ring: Ring,
    /// Kept while a member is being sent it.
    snapshot: Option<CachedSnapshot>,
    members: BTreeMap<SessionId, Member>,
    by_origin: BTreeMap<(OriginId, User), SessionId>,
    last_generation: u32,
    authors: BTreeMap<OriginId, Author>,
    next_author: u32,
    next_fragmented: u32,
    n_epochs: u64,
    queue: VecDeque<Item>,
    in_flight: Option<InFlight>,
    /// When the last append began.
    last_append: Option<Time>,
    fill: Fill,
    /// The highest sequence known to exist; beyond the head if somebody else appends too.
    seen: Seq,
    slot: Option<Slot>,
    waiting: VecDeque<(SessionId, u32)>,
    pending: BTreeMap<RequestNumber, Purpose>,
    /// Members waiting for the log after a sequence, which is being read once for all of them.
    reads: BTreeMap<Seq, (RequestNumber, Vec<(SessionId, u32)>)>,
    snapshot_request: Option<RequestNumber>,
    snapshot_waiters: Vec<(SessionId, u32)>,
    folding: Folding,
    next_request: u64,
    outputs: VecDeque<RoomOutput>,
}

/// ```text
///  Loading ── first answer ──▶ Live ◀── open ──┐
///     │                         │ nobody, and nothing under way
///     │ nobody is left          ▼              │
///     └───────▶ Unloaded ◀── Draining ─────────┘
///                      after a while
/// ```
///
/// A room that is [`Unloaded`](Self::Unloaded) stays so: it has nothing under way, and another one may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoomPhase {
    /// The registry has not been read yet.
    Loading,
    /// Somebody is here, or something is under way.
    Live,
    /// Nobody is here.
    Draining {
        /// When the room unloads.
        until: Time,
    },
    /// The room is no more.
    Unloaded,
}

/// The room is no more: make another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the room is unloaded")]
pub struct RoomUnloaded;

/// An open of the room's document, by a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenRequest {
    /// Repeated by the answer.
    pub request: RequestId,
    /// The engine that the client reads it with.
    pub engine: EngineId,
    /// Where the client stands.
    pub cursor: Option<Cursor>,
    /// Origins in its outbox, with the numbers through which it knows them acknowledged.
    pub origins: Vec<(OriginId, u64)>,
    /// What the client may do, and wants to.
    pub access: AccessLevel,
    /// Whether to create the document if there is none and the access is for writing.
    pub create: bool,
    /// Who the client is.
    pub user: User,
    /// The client's process start.
    pub origin: OriginId,
    /// Which of the origin's connections this is: of two sessions, the one with the higher number stays.
    pub connection: u64,
    /// How its frames may be compressed.
    pub compression: Compression,
}

/// What a room wants done.
#[derive(Debug)]
#[non_exhaustive]
pub enum RoomOutput {
    /// Ask the registry, and hand the answer to [`Room::handle_registry`].
    Registry(RequestNumber, RegistryRequest),
    /// There is something for this session in [`Room::poll_member`], and there was nothing before.
    Wake(SessionId),
    /// Changes of this charge have been answered, of a session that is not in the room any more.
    Settled(SessionId, usize),
    /// A newer session of the same client has this one's place.
    Superseded(SessionId),
    /// Fold the log, and hand the outcome to [`Room::handle_folded`]: at most one at a time. Not on the thread that
    /// drives the room; only from rows that the registry gives, and never instead of an error.
    Fold(FoldRequest),
    /// Something happened.
    Event(RoomEvent),
    /// The room is no more.
    Unloaded,
}

/// What a room has for one session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberOutput {
    /// Send this frame.
    Frame(Bytes),
    /// Changes of this charge have been answered, by frames before this.
    Settled(usize),
    /// The session is not in the room any more. The last output.
    Left,
}

/// Something that happened in a room.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RoomEvent {
    /// The registry has been read for the first time.
    Loaded {
        /// Last sequence.
        head: Seq,
    },
    /// A session has opened the document; said once until it leaves.
    Opened {
        /// The session.
        session: SessionId,
        /// What it may do.
        access: AccessLevel,
    },
    /// A session that had opened the document has left.
    Left {
        /// The session.
        session: SessionId,
    },
    /// Changes of one origin have been committed.
    Committed {
        /// Sequence of the first.
        first: Seq,
        /// Sequence of the last.
        last: Seq,
        /// Who made them.
        origin: OriginId,
        /// For whom.
        user: User,
    },
    /// A change has been refused for good.
    Refused {
        /// The change.
        change: ChangeId,
        /// Whose.
        user: User,
        /// Why.
        code: ErrorCode,
    },
    /// A validator panicked; the change has been refused.
    ValidatorPanicked {
        /// The change.
        change: ChangeId,
    },
    /// The history that members were sent is not the document's any more; they open it again.
    HistoryReplaced {
        /// The one that is no more.
        epoch: Epoch,
    },
    /// The log has been folded into a new snapshot.
    Folded {
        /// Sequence of the snapshot.
        seq: Seq,
        /// Its bytes.
        bytes: usize,
        /// Rows through this one have been dropped.
        keep_after: Seq,
        /// Time from the decision to the commit.
        took: Duration,
    },
    /// The log could not be folded: it stays as it is, and so does the snapshot. Tried again when it is twice as long.
    FoldFailed {
        /// Sequence that the snapshot would have had.
        through: Seq,
        /// Why.
        error: Arc<FoldError>,
    },
    /// The registry did not do what was asked.
    RegistryFailed {
        /// What was asked.
        call: &'static str,
        /// What it said.
        error: Arc<RegistryError>,
    },
}

#[derive(Debug)]
struct History {
    epoch: Epoch,
    /// Last sequence published.
    head: Seq,
    /// Digest over it.
    digest: Digest,
    /// The read that it was taken from: older answers are of older histories.
    read: RequestNumber,
    /// It is not the document's any more; the next read says what is.
    is_stale: bool,
}

#[derive(Debug)]
struct CachedSnapshot {
    seq: Seq,
    total_bytes: u64,
    encoded: Arc<Encoded>,
}

/// Reading what others appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    Idle,
    Reading(RequestNumber),
    /// After so many failures.
    Waiting {
        until: Time,
        attempt: u32,
    },
}

/// What a registry answer is for.
#[derive(Debug)]
enum Purpose {
    OpenMeta {
        member: (SessionId, u32),
        head: Seq,
    },
    OpenCreate {
        member: (SessionId, u32),
    },
    OpenTail {
        member: (SessionId, u32),
    },
    OpenOrigins {
        member: (SessionId, u32),
    },
    Snapshot,
    CatchUp {
        after: Seq,
    },
    Append,
    /// After an append of unknown outcome.
    Settle,
    Fill {
        attempt: u32,
    },
    Compact,
}

impl Room {
    /// A room that nobody is in. The channel is a number that names no other document on this node.
    #[must_use]
    pub fn new(document: DocumentId, channel: Channel, config: RoomConfig) -> Self {
        Self {
            ring: Ring::new(config.ring_bytes_max),
            config,
            document,
            channel,
            phase: RoomPhase::Loading,
            history: None,
            snapshot: None,
            members: BTreeMap::new(),
            by_origin: BTreeMap::new(),
            last_generation: 0,
            authors: BTreeMap::new(),
            next_author: 0,
            next_fragmented: 0,
            n_epochs: 0,
            queue: VecDeque::new(),
            in_flight: None,
            last_append: None,
            fill: Fill::Idle,
            seen: Seq::ZERO,
            slot: None,
            waiting: VecDeque::new(),
            pending: BTreeMap::new(),
            reads: BTreeMap::new(),
            snapshot_request: None,
            snapshot_waiters: Vec::new(),
            folding: Folding::new(),
            next_request: 0,
            outputs: VecDeque::new(),
        }
    }

    /// The document.
    #[must_use]
    pub const fn document(&self) -> &DocumentId {
        &self.document
    }

    /// Its number in frames.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        self.channel
    }

    /// Where the room is in its life.
    #[must_use]
    pub const fn phase(&self) -> RoomPhase {
        self.phase
    }

    /// Sessions in the room.
    #[must_use]
    pub fn n_members(&self) -> usize {
        self.members.len()
    }

    /// The last sequence published, if this session is being sent the history.
    #[must_use]
    pub fn head_for(&self, session: SessionId) -> Option<Seq> {
        let member = self.members.get(&session)?;
        matches!(member.state, MemberState::Streaming(_)).then(|| self.head())
    }

    /// Takes an open: of a session that is not here, or again of one that is.
    ///
    /// # Errors
    /// [`RoomUnloaded`] if the room is no more; nothing happened.
    pub fn handle_open(
        &mut self,
        now: Time,
        session: SessionId,
        open: OpenRequest,
    ) -> Result<(), RoomUnloaded> {
        if self.phase == RoomPhase::Unloaded {
            return Err(RoomUnloaded);
        }
        self.open(now, session, open);
        self.turn(now);
        Ok(())
    }

    /// Takes changes from a session.
    pub fn handle_push(&mut self, now: Time, session: SessionId, push: crate::wire::Push) {
        let charge = push_charge(&push.changes);
        if self.members.contains_key(&session) {
            self.push(session, push);
        } else if charge > 0 {
            self.outputs.push_back(RoomOutput::Settled(session, charge));
        }
        self.turn(now);
    }

    /// Takes a session out: it closed the document, or ended. What it pushed before is appended all the same.
    pub fn handle_close(&mut self, now: Time, session: SessionId) {
        self.remove(now, session);
        self.turn(now);
    }

    /// Takes the answer to a [`RoomOutput::Registry`].
    pub fn handle_registry(&mut self, now: Time, number: RequestNumber, answer: RegistryAnswer) {
        let Some(purpose) = self.pending.remove(&number) else {
            return;
        };
        match (purpose, answer) {
            (Purpose::OpenMeta { member, head }, RegistryAnswer::Meta(result)) => {
                self.on_open_meta(now, number, member, head, result);
            }
            (Purpose::OpenCreate { member }, RegistryAnswer::Create(result)) => {
                self.on_open_meta(now, number, member, Seq::ZERO, result);
            }
            (Purpose::OpenTail { member }, RegistryAnswer::Tail(result)) => {
                self.on_open_tail(now, member, result);
            }
            (Purpose::OpenOrigins { member }, RegistryAnswer::Origins(result)) => {
                self.on_open_origins(now, member, result);
            }
            (Purpose::Snapshot, RegistryAnswer::Snapshot(result)) => {
                self.on_snapshot(now, number, result);
            }
            (Purpose::CatchUp { after }, RegistryAnswer::Tail(result)) => {
                self.on_catch_up(now, number, after, result);
            }
            (Purpose::Append, RegistryAnswer::Append(result)) => self.on_append(now, result),
            (Purpose::Settle, RegistryAnswer::Tail(result)) => self.on_settle(now, result),
            (Purpose::Compact, RegistryAnswer::Compact(result)) => self.on_compact(now, result),
            (Purpose::Fill { attempt }, RegistryAnswer::Tail(result)) => {
                self.on_fill(now, number, attempt, result);
            }
            _ => debug_assert!(false, "the answer is to another request"),
        }
        self.turn(now);
    }

    /// Says that somebody else appended through this sequence. Only a hint: wrong ones do no harm.
    pub fn handle_head(&mut self, now: Time, head: Seq) {
        if self.history.is_some() {
            self.seen = self.seen.max(head);
            self.turn(now);
        }
    }

    /// To be called when [`poll_timeout`](Self::poll_timeout) has passed. Early or repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.slot.as_ref().is_some_and(|slot| slot.deadline <= now) {
            self.release_slot(now);
        }
        self.retry_append(now);
        if let Fill::Waiting { until, attempt } = self.fill
            && until <= now
        {
            self.read_fill(attempt);
        }
        if let RoomPhase::Draining { until } = self.phase
            && until <= now
        {
            self.unload();
        }
        self.turn(now);
    }

    /// The next thing to do.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<RoomOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let draining = match self.phase {
            RoomPhase::Draining { until } => Some(until),
            _ => None,
        };
        let filling = match self.fill {
            Fill::Waiting { until, .. } => Some(until),
            Fill::Idle | Fill::Reading(_) => None,
        };
        let appending = self.in_flight.as_ref().and_then(InFlight::retry_at);
        let slot = self.slot.as_ref().map(|slot| slot.deadline);
        let paced = self.paced_until();
        [draining, filling, appending, slot, paced]
            .into_iter()
            .flatten()
            .min()
    }

    /// What follows from anything that was handled: appends, reads, the phase.
    fn turn(&mut self, now: Time) {
        self.read_ahead();
        self.start_append(now);
        if self.phase == RoomPhase::Unloaded {
            return;
        }
        self.start_fold(now);
        let is_idle = self.members.is_empty()
            && self.queue.is_empty()
            && self.in_flight.is_none()
            && !self.folding.is_running()
            && self.pending.is_empty();
        match (is_idle, &self.history, self.phase) {
            (true, None, _) => self.unload(),
            (true, Some(_), RoomPhase::Draining { .. }) => {}
            (true, Some(_), _) => {
                self.phase = RoomPhase::Draining {
                    until: now + self.config.unload_after,
                };
            }
            (false, None, _) => self.phase = RoomPhase::Loading,
            (false, Some(_), _) => self.phase = RoomPhase::Live,
        }
    }

    fn unload(&mut self) {
        self.phase = RoomPhase::Unloaded;
        self.fill = Fill::Idle;
        self.ring.clear();
        self.outputs.push_back(RoomOutput::Unloaded);
    }

    fn head(&self) -> Seq {
        self.history
            .as_ref()
            .map_or(Seq::ZERO, |history| history.head)
    }

    /// The history, unless it is known to be another by now.
    fn current(&self) -> Option<&History> {
        self.history.as_ref().filter(|history| !history.is_stale)
    }

    fn request(&mut self, purpose: Purpose, request: RegistryRequest) -> RequestNumber {
        self.next_request += 1;
        let number = RequestNumber(self.next_request);
        self.pending.insert(number, purpose);
        self.outputs
            .push_back(RoomOutput::Registry(number, request));
        number
    }

    fn event(&mut self, event: RoomEvent) {
        self.outputs.push_back(RoomOutput::Event(event));
    }

    fn registry_failed(&mut self, call: &'static str, error: RegistryError) -> PeerError {
        let retry_after = match &error {
            RegistryError::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        };
        self.event(RoomEvent::RegistryFailed {
            call,
            error: Arc::new(error),
        });
        // What exactly is wrong with the storage is nothing that clients need to know.
        PeerError::new(ErrorCode::StorageUnavailable, "storage is unavailable")
            .retry_after(retry_after.unwrap_or(self.config.retry_delay_max))
    }

    fn wake(&mut self, session: SessionId) {
        if let Some(member) = self.members.get_mut(&session)
            && !member.awake
        {
            member.awake = true;
            self.outputs.push_back(RoomOutput::Wake(session));
        }
    }

    /// Queues a message that waits for nothing.
    fn prompt(&mut self, session: SessionId, message: &Message) {
        let compression = match self.members.get(&session) {
            Some(member) => member.compression(),
            None => return,
        };
        let id = self.fragmented_id();
        let frames = split(encode_frame(message, compression), self.channel, id);
        if let Some(member) = self.members.get_mut(&session) {
            member.prompt.extend(frames);
        }
        self.wake(session);
    }

    const fn fragmented_id(&mut self) -> u32 {
        self.next_fragmented = self.next_fragmented.wrapping_add(1);
        self.next_fragmented
    }

    fn live(&mut self, (session, generation): (SessionId, u32)) -> Option<&mut Member> {
        self.members
            .get_mut(&session)
            .filter(|member| member.generation == generation)
    }

    /// Number by which frames name an origin.
    fn author(&mut self, origin: OriginId) -> Author {
        if let Some(author) = self.authors.get(&origin) {
            return *author;
        }
        if self.authors.len() >= AUTHORS_MAX {
            // Those that no member was told of may have another number next time.
            let members = &self.members;
            self.authors.retain(|origin, _| {
                members
                    .values()
                    .any(|member| member.origins.contains_key(origin))
            });
        }
        let author = Author(self.next_author);
        self.next_author = self.next_author.wrapping_add(1);
        self.authors.insert(origin, author);
        author
    }

    /// Forgets what a member was being sent, but for the frames that wait for nothing: `Opened` is among them.
    fn reset_member(&mut self, session: SessionId) {
        let channel = self.channel;
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        let begun = member.begun_message();
        member
            .prompt
            .extend(begun.map(|id| abort_frame(channel, id)));
        member.settled = member.take_unsettled();
        member.writing = Writing::Closed;
        member.origins.clear();
        member.last_commit = Seq::ZERO;
        self.wake(session);
        self.drop_unused_snapshot();
    }

    /// Stops sending a member a history that is not the document's any more.
    fn stop(&mut self, now: Time, session: SessionId, error: PeerError) {
        self.reset_member(session);
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        member.state = MemberState::Stopped;
        let generation = member.generation;
        self.leave_slot(now, (session, generation));
        let error = ErrorMessage::new(error, Reference::Channel(self.channel));
        self.prompt(session, &Message::Error(error));
    }

    /// Ends a member's part in the room with a last message; it is removed when it has polled that.
    fn end(&mut self, now: Time, session: SessionId, error: PeerError) {
        self.reset_member(session);
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        let was_opened = !matches!(member.state, MemberState::Opening(_));
        let request = member.open.request;
        member.state = MemberState::Ended;
        let generation = member.generation;
        self.leave_slot(now, (session, generation));
        let message = if was_opened {
            Message::Closed(Closed {
                channel: self.channel,
                reason: Some(error.code),
                message: error.message,
            })
        } else {
            Message::Error(ErrorMessage::new(error, Reference::Request(request)))
        };
        self.prompt(session, &message);
    }

    fn remove(&mut self, now: Time, session: SessionId) {
        let Some(mut member) = self.members.remove(&session) else {
            return;
        };
        let key = (member.open.origin, member.open.user.clone());
        if self.by_origin.get(&key) == Some(&session) {
            self.by_origin.remove(&key);
        }
        let settled = member.take_unsettled();
        if settled > 0 {
            self.outputs
                .push_back(RoomOutput::Settled(session, settled));
        }
        if member.announced {
            self.event(RoomEvent::Left { session });
        }
        self.leave_slot(now, (session, member.generation));
        drop(member);
        self.drop_unused_snapshot();
    }

    fn drop_unused_snapshot(&mut self) {
        if self.snapshot_waiters.is_empty()
            && self
                .snapshot
                .as_ref()
                .is_some_and(|snapshot| Arc::strong_count(&snapshot.encoded) == 1)
        {
            self.snapshot = None;
        }
    }

    /// What was published is not the document's history any more: everybody opens again.
    fn mark_stale(&mut self, now: Time) {
        let Some(history) = self.history.as_mut().filter(|history| !history.is_stale) else {
            return;
        };
        history.is_stale = true;
        let epoch = history.epoch;
        self.event(RoomEvent::HistoryReplaced { epoch });
        self.forget_published(now);
    }

    /// Takes what a fresh read says in place of whatever was published.
    fn adopt(&mut self, now: Time, read: RequestNumber, meta: &DocumentMeta) {
        let is_first = self.history.is_none();
        self.mark_stale(now);
        self.history = Some(History {
            epoch: meta.epoch,
            head: meta.head,
            digest: meta.digest,
            read,
            is_stale: false,
        });
        self.seen = meta.head;
        self.folding.reset(meta);
        if is_first {
            self.event(RoomEvent::Loaded { head: meta.head });
        }
    }

    fn forget_published(&mut self, now: Time) {
        self.ring.clear();
        self.snapshot = None;
        self.snapshot_request = None;
        self.reads.clear();
        self.fill = Fill::Idle;
        self.drop_queue();
        let error = PeerError::new(ErrorCode::Fenced, "the document has another history now");
        let sessions: Vec<_> = self.members.keys().copied().collect();
        for session in sessions {
            // Looked at one by one: who waited for a turn may be opening by now.
            if self.members.get(&session).is_some_and(|member| {
                matches!(
                    member.state,
                    MemberState::Streaming(_) | MemberState::Waiting
                )
            }) {
                self.stop(now, session, error.clone());
            }
        }
        // Those that are opening and wait for a snapshot get one of the history that is there now.
        let waiters = std::mem::take(&mut self.snapshot_waiters);
        for member in waiters {
            if self
                .live(member)
                .is_some_and(|member| matches!(member.state, MemberState::Opening(_)))
            {
                self.start_open(member);
            }
        }
    }

    /// The document is gone: so is everybody.
    fn gone(&mut self, now: Time, error: &PeerError) {
        let sessions: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| !matches!(member.state, MemberState::Ended))
            .map(|(session, _)| *session)
            .collect();
        for session in sessions {
            self.end(now, session, error.clone());
        }
        if let Some(history) = &mut self.history {
            history.is_stale = true;
        }
        self.forget_published(now);
    }
}

/// Origins that a room has numbers for before it looks for some to forget.
const AUTHORS_MAX: usize = 16 * 1024;

/// The error for a document that is not there, if that is what the registry says.
fn absence(error: &RegistryError) -> Option<PeerError> {
    match error {
        RegistryError::NotFound => Some(PeerError::new(
            ErrorCode::NotFound,
            "there is no such document",
        )),
        RegistryError::Deleted => Some(PeerError::new(
            ErrorCode::Deleted,
            "the document has been deleted",
        )),
        _ => None,
    }
}
