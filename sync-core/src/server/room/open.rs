//! Opening: what a client is told about where it stands, from fresh reads of the registry
//! (`docs/protocol.md` sections 7.1 and 8).

use super::member::{Member, MemberState, Stream, Writing};
use super::{
    Arc, CachedSnapshot, Encoded, OpenRequest, Purpose, Room, RoomEvent, RoomOutput, absence,
};
use crate::error::{ErrorCode, PeerError};
use crate::history::{Cursor, Epoch, EpochMode, Seq};
use crate::ids::{OriginId, SessionId};
use crate::registry::{
    DocumentMeta, NewDocument, OriginEntry, RegistryError, Snapshot, StoredChange, Tail,
};
use crate::server::registry::{RegistryRequest, RequestNumber};
use crate::time::Time;
use crate::wire::{
    AccessLevel, Compression, Continuation, Message, Opened, Reset, SnapshotMessage, encode_frame,
};

/// Times that an open is started over because the document got another history between two of its reads.
const OPEN_ATTEMPTS_MAX: u32 = 4;

/// The reads that an open waits for.
#[derive(Debug, Default)]
pub(super) struct Opening {
    attempts: u32,
    meta: Option<(RequestNumber, DocumentMeta)>,
    tail: Read<Tail>,
    origins: Read<Vec<Option<OriginEntry>>>,
}

#[derive(Debug, Default)]
enum Read<T> {
    #[default]
    NotNeeded,
    Pending,
    Done(T),
}

impl<T> Read<T> {
    const fn is_pending(&self) -> bool {
        matches!(self, Self::Pending)
    }

    fn take(&mut self) -> Option<T> {
        match std::mem::take(self) {
            Self::Done(value) => Some(value),
            Self::NotNeeded | Self::Pending => None,
        }
    }
}

/// The turn of the one client that reconciles (`docs/protocol.md` section 8.2).
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) member: (SessionId, u32),
    pub(super) deadline: Time,
}

/// How an open continues, before it is known what has to be sent for that.
enum Verdict {
    /// From a position on; with rows of the log that have been read already.
    Resume(Seq, Vec<StoredChange>),
    Snapshot,
    Reset(Reset),
}

impl Room {
    pub(super) fn open(&mut self, now: Time, session: SessionId, open: OpenRequest) {
        let key = (open.origin, open.user.clone());
        if let Some(other) = self.by_origin.get(&key).copied()
            && other != session
        {
            let is_newer = self
                .members
                .get(&other)
                .is_some_and(|member| member.open.connection > open.connection);
            if is_newer {
                // A straggler of a connection that the client has given up.
                return self.outputs.push_back(RoomOutput::Superseded(session));
            }
            self.remove(now, other);
            self.outputs.push_back(RoomOutput::Superseded(other));
        }
        self.by_origin.insert(key, session);
        self.last_generation = self.last_generation.wrapping_add(1);
        let generation = self.last_generation;
        if let Some(member) = self.members.get_mut(&session) {
            member.prompt.clear();
        }
        self.reset_member(session);
        if let Some(member) = self.members.get_mut(&session) {
            let earlier = (session, member.generation);
            member.open = open;
            member.generation = generation;
            member.state = MemberState::Stopped;
            self.leave_slot(now, earlier);
        } else {
            let member = Member::new(open, Opening::default(), generation);
            self.members.insert(session, member);
        }
        self.start_open((session, generation));
    }

    /// Reads everything about an open from the start.
    pub(super) fn start_open(&mut self, key: (SessionId, u32)) {
        let head = self.head();
        let Some(member) = self.live(key) else {
            return;
        };
        let attempts = match &member.state {
            MemberState::Opening(opening) => opening.attempts + 1,
            _ => 1,
        };
        member.state = MemberState::Opening(Box::new(Opening {
            attempts,
            ..Opening::default()
        }));
        if attempts > OPEN_ATTEMPTS_MAX {
            let error = PeerError::new(
                ErrorCode::StorageUnavailable,
                "the document's history keeps changing",
            )
            .retry_after(self.config.retry_delay_max);
            // The slot, if it is this member's, ends with its time.
            return self.fail_open(key, error);
        }
        self.request(
            Purpose::OpenMeta { member: key, head },
            RegistryRequest::Meta,
        );
    }

    /// Ends an open that found no answer, without touching anything else.
    fn fail_open(&mut self, key: (SessionId, u32), error: PeerError) {
        let Some(member) = self.live(key) else {
            return;
        };
        let request = member.open.request;
        member.state = MemberState::Ended;
        let error = crate::wire::ErrorMessage::new(error, crate::wire::Reference::Request(request));
        self.prompt(key.0, &Message::Error(error));
    }

    fn opening(&mut self, key: (SessionId, u32)) -> Option<&mut Opening> {
        match &mut self.live(key)?.state {
            MemberState::Opening(opening) => Some(opening),
            _ => None,
        }
    }

    pub(super) fn on_open_meta(
        &mut self,
        now: Time,
        number: RequestNumber,
        key: (SessionId, u32),
        head_before: Seq,
        result: Result<DocumentMeta, RegistryError>,
    ) {
        if self.opening(key).is_none() {
            return;
        }
        let meta = match result {
            Ok(meta) => meta,
            Err(error) => return self.on_open_failed(now, key, error),
        };
        if self.config.engines.validator(&meta.engine).is_none() {
            let error = PeerError::new(
                ErrorCode::UnknownEngine,
                format!("this server does not know the engine {}", meta.engine),
            );
            return self.refuse_open(now, key, error);
        }
        match &self.history {
            Some(history) if number < history.read => return self.start_open(key),
            Some(history)
                if !history.is_stale
                    && history.epoch == meta.epoch
                    && meta.head >= head_before
                    && (meta.head != history.head || meta.digest == history.digest) => {}
            // Nothing has been published yet, or something that is not the document's history any more.
            _ => self.adopt(now, number, &meta),
        }
        self.seen = self.seen.max(meta.head);
        self.folding.learn(meta.snapshot_seq);
        let Some(member) = self.live(key) else {
            return;
        };
        if member.open.engine != meta.engine {
            let error = PeerError::new(
                ErrorCode::EngineMismatch,
                format!(
                    "the document is of engine {}, not {}",
                    meta.engine, member.open.engine
                ),
            );
            return self.refuse_open(now, key, error);
        }
        self.read_open(now, key, number, meta);
    }

    /// Reads what depends on the document's history.
    fn read_open(
        &mut self,
        now: Time,
        key: (SessionId, u32),
        number: RequestNumber,
        meta: DocumentMeta,
    ) {
        let max_bytes = self.config.catch_up_bytes;
        let Some(member) = self.live(key) else {
            return;
        };
        let after = member
            .open
            .cursor
            .filter(|cursor| cursor.epoch == meta.epoch)
            .map(|cursor| cursor.seq);
        let origins = named_origins(&member.open);
        if let MemberState::Opening(opening) = &mut member.state {
            opening.meta = Some((number, meta));
            opening.origins = Read::Pending;
            if after.is_some() {
                opening.tail = Read::Pending;
            }
        }
        if let Some(after) = after {
            self.request(
                Purpose::OpenTail { member: key },
                RegistryRequest::Tail { after, max_bytes },
            );
        }
        self.request(
            Purpose::OpenOrigins { member: key },
            RegistryRequest::Origins(origins),
        );
        self.finish_open(now, key);
    }

    pub(super) fn on_open_tail(
        &mut self,
        now: Time,
        key: (SessionId, u32),
        result: Result<Tail, RegistryError>,
    ) {
        match (result, self.opening(key)) {
            (_, None) => {}
            (Ok(tail), Some(opening)) => {
                opening.tail = Read::Done(tail);
                self.finish_open(now, key);
            }
            (Err(error), Some(_)) => self.on_open_failed(now, key, error),
        }
    }

    pub(super) fn on_open_origins(
        &mut self,
        now: Time,
        key: (SessionId, u32),
        result: Result<Vec<Option<OriginEntry>>, RegistryError>,
    ) {
        match (result, self.opening(key)) {
            (_, None) => {}
            (Ok(origins), Some(opening)) => {
                opening.origins = Read::Done(origins);
                self.finish_open(now, key);
            }
            (Err(error), Some(_)) => self.on_open_failed(now, key, error),
        }
    }

    fn on_open_failed(&mut self, now: Time, key: (SessionId, u32), error: RegistryError) {
        let Some(absence) = absence(&error) else {
            let error = self.registry_failed("open", error);
            return self.refuse_open(now, key, error);
        };
        if absence.code == ErrorCode::Deleted {
            return self.gone(now, &absence);
        }
        let Some(member) = self.live(key) else {
            return;
        };
        if !member.open.create || member.open.access < AccessLevel::Write {
            return self.refuse_open(now, key, absence);
        }
        let engine = member.open.engine.clone();
        if self.config.engines.validator(&engine).is_none() {
            let error = PeerError::new(
                ErrorCode::UnknownEngine,
                format!("this server does not know the engine {engine}"),
            );
            return self.refuse_open(now, key, error);
        }
        self.n_epochs += 1;
        let epoch = twox_hash::XxHash3_64::oneshot_with_seed(
            self.config.seed,
            &self.n_epochs.to_le_bytes(),
        );
        let document = NewDocument::new(self.document.clone(), engine, Epoch(epoch));
        self.request(
            Purpose::OpenCreate { member: key },
            RegistryRequest::Create(document),
        );
    }

    fn refuse_open(&mut self, now: Time, key: (SessionId, u32), error: PeerError) {
        self.fail_open(key, error);
        self.leave_slot(now, key);
    }

    /// Answers the open if everything that it waits for is there.
    fn finish_open(&mut self, now: Time, key: (SessionId, u32)) {
        let current = self.current().map(|history| (history.epoch, history.read));
        let Some(member) = self.live(key) else {
            return;
        };
        let MemberState::Opening(opening) = &mut member.state else {
            return;
        };
        let Some((number, meta)) = opening.meta.clone() else {
            return;
        };
        if opening.tail.is_pending() || opening.origins.is_pending() {
            return;
        }
        if current.is_none_or(|(epoch, read)| epoch != meta.epoch || number < read) {
            return self.start_open(key);
        }
        let cursor = member.open.cursor;
        let verdict = match verdict(&meta, cursor, opening.tail.take()) {
            Ok(verdict) => verdict,
            Err(HistoryChanged) => return self.start_open(key),
        };
        let can_write = member.open.access >= AccessLevel::Write;
        let must_wait = matches!(verdict, Verdict::Reset(Reset::Merge))
            && can_write
            && self.slot.as_ref().is_some_and(|slot| slot.member != key);
        let needs_snapshot = match verdict {
            Verdict::Resume(..) => false,
            Verdict::Snapshot => true,
            Verdict::Reset(_) => meta.snapshot_seq > Seq::ZERO && !must_wait,
        };
        if needs_snapshot
            && self
                .snapshot
                .as_ref()
                .is_none_or(|snapshot| snapshot.seq < meta.snapshot_seq)
        {
            // The cursor is judged again then, on the same reads.
            if let Some(opening) = self.opening(key)
                && cursor.is_some_and(|cursor| cursor.epoch == meta.epoch)
            {
                opening.tail = Read::Done(retold(&verdict, &meta));
            }
            return self.read_snapshot(key);
        }
        self.answer_open(now, key, &meta, verdict, must_wait);
    }

    /// Queues `Opened` and puts the member at its place in the history.
    fn answer_open(
        &mut self,
        now: Time,
        key: (SessionId, u32),
        meta: &DocumentMeta,
        verdict: Verdict,
        must_wait: bool,
    ) {
        let snapshot = self
            .snapshot
            .as_ref()
            .filter(|_| meta.snapshot_seq > Seq::ZERO)
            .map(|snapshot| {
                let encoded = Arc::clone(&snapshot.encoded);
                (snapshot.seq, snapshot.total_bytes, encoded)
            });
        let total_bytes = snapshot.as_ref().map_or(0, |(_, bytes, _)| *bytes);
        let whole = |snapshot: Option<(Seq, u64, Arc<Encoded>)>| match snapshot {
            Some((seq, _, encoded)) => {
                let mut stream = Stream::new(seq.next());
                stream.catch_up.push_back((encoded, seq));
                stream
            }
            None => Stream::new(Seq::ZERO.next()),
        };
        let mut takes_turn = false;
        let (next, state) = match verdict {
            _ if must_wait => (Continuation::Wait, MemberState::Waiting),
            Verdict::Resume(from, rows) => {
                let mut stream = Stream::new(from.next());
                stream.catch_up = self.encode_rows(from, rows).into();
                (Continuation::Resume, MemberState::Streaming(stream))
            }
            Verdict::Snapshot => (
                Continuation::Snapshot { total_bytes },
                MemberState::Streaming(whole(snapshot)),
            ),
            Verdict::Reset(reset) => {
                takes_turn = reset == Reset::Merge;
                (
                    Continuation::Reset { reset, total_bytes },
                    MemberState::Streaming(whole(snapshot)),
                )
            }
        };
        let Some(origins) = self.tell_origins(key) else {
            return;
        };
        let (channel, head) = (self.channel, meta.head.max(self.head()));
        let Some(member) = self.live(key) else {
            return;
        };
        let access = member.open.access;
        let opened = Opened {
            request: member.open.request,
            channel,
            epoch: meta.epoch,
            mode: meta.mode,
            head,
            access,
            next,
            origins,
        };
        let is_first = !std::mem::replace(&mut member.announced, true);
        member.state = state;
        if !must_wait {
            member.writing = Writing::Open;
        }
        if must_wait {
            self.waiting.push_back(key);
        } else if takes_turn && access >= AccessLevel::Write {
            self.slot.get_or_insert(Slot {
                member: key,
                deadline: now + self.config.reconcile_timeout,
            });
        } else {
            self.leave_slot(now, key);
        }
        self.prompt(key.0, &Message::Opened(opened));
        if is_first {
            self.event(RoomEvent::Opened {
                session: key.0,
                access,
            });
        }
    }

    /// Numbers the origins of an open, and remembers what the registry said of them.
    fn tell_origins(
        &mut self,
        key: (SessionId, u32),
    ) -> Option<Vec<(OriginId, u64, crate::ids::Author)>> {
        let member = self.live(key)?;
        let MemberState::Opening(opening) = &mut member.state else {
            return None;
        };
        let entries = opening.origins.take()?;
        let user = member.open.user.clone();
        let named = named_origins(&member.open);
        let mut told = Vec::with_capacity(named.len());
        for (origin, entry) in named.into_iter().zip(entries) {
            let last = match entry {
                Some(entry) if entry.user == user => Some(entry.last),
                // Another user's: whatever is pushed under it will be refused.
                Some(_) => None,
                None => Some(0),
            };
            let author = self.author(origin);
            told.push((origin, last.unwrap_or(0), author));
            if let Some(member) = self.live(key) {
                member.origins.insert(origin, last);
            }
        }
        Some(told)
    }

    /// Reads the snapshot, once for all who wait for it.
    pub(super) fn read_snapshot(&mut self, key: (SessionId, u32)) {
        self.snapshot_waiters.push(key);
        if self.snapshot_request.is_none() {
            let number = self.request(Purpose::Snapshot, RegistryRequest::Snapshot);
            self.snapshot_request = Some(number);
        }
    }

    pub(super) fn on_snapshot(
        &mut self,
        now: Time,
        number: RequestNumber,
        result: Result<Option<Snapshot>, RegistryError>,
    ) {
        if self.snapshot_request != Some(number) {
            return;
        }
        self.snapshot_request = None;
        let waiters = std::mem::take(&mut self.snapshot_waiters);
        match result {
            Ok(Some(snapshot)) => {
                self.cache_snapshot(snapshot);
                for key in waiters {
                    self.on_snapshot_cached(now, key);
                }
                self.drop_unused_snapshot();
            }
            // The document has another history by now.
            Ok(None) => {
                self.mark_stale(now);
                for key in waiters {
                    if self.opening(key).is_some() {
                        self.start_open(key);
                    }
                }
            }
            Err(error) => match absence(&error) {
                Some(absence) => self.gone(now, &absence),
                None => {
                    let error = self.registry_failed("snapshot", error);
                    for key in waiters {
                        if self.opening(key).is_some() {
                            self.refuse_open(now, key, error.clone());
                        } else if self.live(key).is_some() {
                            self.stop(now, key.0, error.clone());
                        }
                    }
                }
            },
        }
    }

    fn cache_snapshot(&mut self, snapshot: Snapshot) {
        let Some(epoch) = self.history.as_ref().map(|history| history.epoch) else {
            return;
        };
        let total_bytes = u64::try_from(snapshot.bytes.len()).unwrap_or(u64::MAX);
        let frame = encode_frame(
            &Message::Snapshot(SnapshotMessage {
                channel: self.channel,
                epoch,
                seq: snapshot.seq,
                digest: snapshot.digest,
                codec: 0,
                bytes: snapshot.bytes,
            }),
            Compression::None,
        );
        let id = self.fragmented_id();
        self.snapshot = Some(CachedSnapshot {
            seq: snapshot.seq,
            total_bytes,
            encoded: Arc::new(Encoded::new(self.channel, id, frame)),
        });
    }

    fn on_snapshot_cached(&mut self, now: Time, key: (SessionId, u32)) {
        if self.opening(key).is_some() {
            return self.finish_open(now, key);
        }
        let Some((seq, encoded)) = self
            .snapshot
            .as_ref()
            .map(|snapshot| (snapshot.seq, Arc::clone(&snapshot.encoded)))
        else {
            return;
        };
        let Some(stream) = self.live(key).and_then(Member::stream) else {
            return;
        };
        stream.is_reading = false;
        if seq < stream.next {
            let what = "the log starts after the snapshot".into();
            let error = self.registry_failed("snapshot", RegistryError::Damaged { what });
            return self.stop(now, key.0, error);
        }
        stream.catch_up.push_back((encoded, seq));
        self.wake(key.0);
    }

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

struct HistoryChanged;

/// The table of `docs/protocol.md` section 8.1.
fn verdict(
    meta: &DocumentMeta,
    cursor: Option<Cursor>,
    tail: Option<Tail>,
) -> Result<Verdict, HistoryChanged> {
    let Some(cursor) = cursor else {
        return Ok(if meta.snapshot_seq > Seq::ZERO {
            Verdict::Snapshot
        } else {
            Verdict::Resume(Seq::ZERO, Vec::new())
        });
    };
    if cursor.epoch != meta.epoch {
        return Ok(Verdict::Reset(match meta.mode {
            EpochMode::New | EpochMode::Merge => Reset::Merge,
            EpochMode::Rebase => Reset::Rebase,
            EpochMode::Discard => Reset::Discard,
        }));
    }
    match tail {
        Some(
            Tail::Changes { epoch, .. }
            | Tail::Compacted { epoch, .. }
            | Tail::BeyondHead { epoch, .. },
        ) if epoch != meta.epoch => Err(HistoryChanged),
        Some(Tail::Changes {
            digest, changes, ..
        }) if digest == cursor.digest => Ok(Verdict::Resume(cursor.seq, changes)),
        Some(Tail::Changes { .. } | Tail::BeyondHead { .. }) => Ok(Verdict::Reset(Reset::Merge)),
        Some(Tail::Compacted { .. }) if meta.snapshot_seq >= cursor.seq => Ok(Verdict::Snapshot),
        // Compacted since `meta` was read.
        Some(Tail::Compacted { .. }) | None => Err(HistoryChanged),
    }
}

/// A tail that leads to the same verdict again.
fn retold(verdict: &Verdict, meta: &DocumentMeta) -> Tail {
    match verdict {
        Verdict::Snapshot => Tail::Compacted {
            epoch: meta.epoch,
            log_start: meta.log_start,
        },
        Verdict::Reset(_) | Verdict::Resume(..) => Tail::BeyondHead {
            epoch: meta.epoch,
            head: meta.head,
        },
    }
}

/// The session's own origin and those in its outbox.
fn named_origins(open: &OpenRequest) -> Vec<OriginId> {
    let mut origins: Vec<_> = open.origins.iter().map(|(origin, _)| *origin).collect();
    if !origins.contains(&open.origin) {
        origins.push(open.origin);
    }
    origins
}
