//! Live documents: one room each, one task each.

mod check;
mod ephemeral;

use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::{Epoch, Seq};
use sync_core::ids::{Channel, DocumentId, SessionId, User};
use sync_core::limits::push_charge;
use sync_core::registry::RegistryError;
use sync_core::server::{
    Allowance, AskRequest, CheckRequest, FoldError, FoldRequest, FoldedLog, Grant, MemberOutput,
    MemberStats, Occupied, OpenRequest, RegistryAnswer, RegistryRequest, RequestNumber, Room,
    RoomCounters, RoomEvent, RoomOutput, RoomPhase, RoomStats, RoomUnloaded,
};
use sync_core::time::Time;
use sync_core::transport::PeerInfo;
use sync_core::wire::{FoldOffer, Push};
use tokio::sync::Notify;

use super::budget::Shares;
use super::mailbox::Mailbox;
use super::statistics::{count, millis};
use super::{Shared, lock};
use crate::engine_host::{Checks, Hot, Meter};
use crate::event::ServerEvent;
use crate::registry::ServerRegistry;
use crate::stats::FoldStats;

/// The rooms of a server. There is at most one live room of a document.
#[derive(Debug)]
pub(super) struct Rooms {
    live: Mutex<HashMap<DocumentId, Arc<RoomHandle>>>,
    /// What rooms counted that are no more. Locked after `live`.
    retired: Mutex<RoomCounters>,
    /// Never used twice, so that a frame for a room that is no more cannot be taken for another's.
    next_channel: AtomicU32,
    /// Told whenever a room's task ends.
    pub(super) ended: Notify,
}

impl Rooms {
    pub(super) fn new() -> Self {
        Self {
            live: Mutex::default(),
            retired: Mutex::default(),
            // 0 means the session itself.
            next_channel: AtomicU32::new(1),
            ended: Notify::new(),
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<RoomHandle>> {
        lock(&self.live).values().cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.live).is_empty()
    }

    /// The live rooms, and what the others have counted.
    pub(super) fn counted(&self) -> (Vec<Arc<RoomHandle>>, RoomCounters) {
        let live = lock(&self.live);
        let retired = lock(&self.retired).clone();
        (live.values().cloned().collect(), retired)
    }

    /// Makes rooms that nobody is in end as soon as they have nothing under way.
    pub(super) fn wake_all(&self) {
        for room in lock(&self.live).values() {
            room.work.notify_one();
        }
    }
}

/// A room, shared by its task, which does what it wants from the registry, and the tasks of its sessions.
#[derive(Debug)]
pub(super) struct RoomHandle {
    server: Arc<Shared>,
    document: DocumentId,
    channel: Channel,
    state: Mutex<RoomState>,
    /// Told when there is something for the task to do.
    work: Notify,
}

/// What a room wants from its task.
#[derive(Debug)]
enum Request {
    Registry(RequestNumber, RegistryRequest),
    /// With who pays for it.
    Fold(FoldRequest, Shares),
    Ask(RequestNumber, AskRequest),
    Authorize(RequestNumber, User),
    /// With what is kept of the document, and who pays for it.
    Check(RequestNumber, CheckRequest, Option<Hot>, Shares),
}

/// What became of a [`Request`].
#[derive(Debug)]
enum Answer {
    Registry(RequestNumber, RegistryAnswer),
    Fold(Result<FoldedLog, FoldError>),
    /// How many changes are accepted, and what is the matter with the next one.
    Asked(RequestNumber, (usize, Option<PeerError>)),
    Check(RequestNumber, Epoch, Checks),
    Authorized(RequestNumber, Result<Grant, PeerError>),
}

#[derive(Debug)]
struct RoomState {
    room: Room,
    members: BTreeMap<SessionId, Arc<Mailbox>>,
    /// What the task has not picked up yet.
    requests: Vec<Request>,
    /// Whose changes the next fold takes.
    wrote: Shares,
    /// What checks keep of the document, while none is under way; with the history that it is of.
    hot: Option<(Epoch, Hot)>,
    /// When the task wakes by itself.
    timeout: Option<Time>,
    kept: Kept,
    /// Whether it has been told that the document is live, and not that it is not any more.
    is_loaded: bool,
}

/// What is kept of what happened, for statistics.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    pub(super) last_fold: Option<FoldStats>,
    pub(super) fold_failure: Option<String>,
    /// Why the document fell back to relay, and the history that it has.
    pub(super) relayed: Option<(Epoch, String)>,
}

impl Shared {
    /// Opens a document for a session: in its room, or in one made for it.
    pub(super) fn join(
        self: &Arc<Self>,
        document: &DocumentId,
        mailbox: &Arc<Mailbox>,
        open: &OpenRequest,
        asked_at: u64,
    ) -> Arc<RoomHandle> {
        loop {
            let room = self.room(document);
            if room.open(mailbox, open.clone(), asked_at).is_ok() {
                return room;
            }
            // It unloaded in between: it has nothing under way any more, so that another may begin.
            self.forget_room(&room);
        }
    }

    /// The live room of a document.
    fn room(self: &Arc<Self>, document: &DocumentId) -> Arc<RoomHandle> {
        let mut live = lock(&self.rooms.live);
        if let Some(room) = live.get(document) {
            return Arc::clone(room);
        }
        let channel = Channel(self.rooms.next_channel.fetch_add(1, Ordering::Relaxed));
        let mut config = self.room_config.clone();
        config.seed = lock(&self.rng).next_u64();
        let room = Arc::new(RoomHandle {
            server: Arc::clone(self),
            document: document.clone(),
            channel,
            state: Mutex::new(RoomState {
                room: Room::new(document.clone(), channel, config),
                members: BTreeMap::new(),
                requests: Vec::new(),
                wrote: Shares::default(),
                hot: None,
                timeout: None,
                kept: Kept::default(),
                is_loaded: false,
            }),
            work: Notify::new(),
        });
        live.insert(document.clone(), Arc::clone(&room));
        tokio::spawn(run(Arc::clone(&room)));
        room
    }

    fn forget_room(&self, room: &Arc<RoomHandle>) {
        let mut live = lock(&self.rooms.live);
        if live
            .get(&room.document)
            .is_some_and(|found| Arc::ptr_eq(found, room))
        {
            live.remove(&room.document);
            // In the same moment, so that totals never go back.
            let mut retired = lock(&self.rooms.retired);
            retired.add(lock(&room.state).room.counters());
        }
    }
}

impl RoomHandle {
    pub(super) const fn channel(&self) -> Channel {
        self.channel
    }

    pub(super) const fn document(&self) -> &DocumentId {
        &self.document
    }

    /// How the room stands; with a look at what it has counted.
    pub(super) fn stats(&self, counted: impl FnOnce(&RoomCounters)) -> (RoomStats, Kept) {
        let state = lock(&self.state);
        counted(state.room.counters());
        (
            state.room.stats(self.server.clock.now()),
            state.kept.clone(),
        )
    }

    /// How its sessions stand, and where each connects from.
    pub(super) fn members(&self) -> (Vec<MemberStats>, Vec<PeerInfo>) {
        let state = lock(&self.state);
        let members: Vec<_> = state.room.member_stats().collect();
        let peer = |member: &MemberStats| {
            let info = state.members.get(&member.session)?.info.get()?;
            Some(info.peer.clone())
        };
        let peers = members
            .iter()
            .map(|member| peer(member).unwrap_or_default());
        let peers = peers.collect();
        (members, peers)
    }

    /// Has the room ask the registry whether the document still is what was published.
    pub(super) fn look_again(self: &Arc<Self>) {
        self.turn(|state, now| state.room.handle_replaced(now));
    }

    /// Has the room end as soon as nobody is in it any more, and sees to it that nobody is.
    pub(super) fn evict(self: &Arc<Self>, reason: &PeerError) {
        self.turn(|state, now| state.room.handle_evict(now, reason));
    }

    /// Notes a fold that the room has not asked for.
    pub(super) fn keep_fold(&self, fold: FoldStats) {
        let kept = &mut lock(&self.state).kept;
        (kept.last_fold, kept.fold_failure) = (Some(fold), None);
    }

    fn open(
        self: &Arc<Self>,
        mailbox: &Arc<Mailbox>,
        mut open: OpenRequest,
        asked_at: u64,
    ) -> Result<(), RoomUnloaded> {
        self.turn(|state, now| {
            let doubts = &self.server.doubts;
            if doubts.concern(asked_at, &open.user, &self.document) {
                // What was said may not be so any more: the room asks again before it goes by that.
                open.valid_until = Some(now);
            }
            state.room.handle_open(now, mailbox.session(), open)?;
            state.members.insert(mailbox.session(), Arc::clone(mailbox));
            Ok(())
        })
    }

    pub(super) fn push(self: &Arc<Self>, session: SessionId, push: Push) {
        self.turn(|state, now| {
            if let Some(budget) = state.members.get(&session).and_then(|found| found.budget()) {
                state.wrote.add(budget, push_charge(&push.changes));
            }
            state.room.handle_push(now, session, push);
        });
    }

    pub(super) fn stop_push(self: &Arc<Self>, session: SessionId, error: PeerError) {
        self.turn(|state, now| state.room.handle_stop_push(now, session, error));
    }

    pub(super) fn user(self: &Arc<Self>, session: SessionId, user: User) {
        self.turn(|state, now| state.room.handle_user(now, session, user));
    }

    /// Goes by nothing that was said of this user, or of anybody, before it is asked anew.
    pub(super) fn reauthorize(self: &Arc<Self>, user: Option<&User>) {
        self.turn(|state, now| state.room.handle_reauthorize(now, user));
    }

    pub(super) fn fold_offer(self: &Arc<Self>, session: SessionId, offer: FoldOffer) {
        self.turn(|state, now| state.room.handle_fold_offer(now, session, offer));
    }

    /// As [`Room::hold_appends`], from now on.
    pub(super) fn hold_appends(self: &Arc<Self>, time: Duration) {
        self.turn(|state, now| state.room.hold_appends(now, now + time));
    }

    pub(super) fn release_appends(self: &Arc<Self>) {
        self.turn(|state, now| state.room.release_appends(now));
    }

    pub(super) fn trimmed(self: &Arc<Self>, epoch: Epoch) {
        self.turn(|state, now| state.room.handle_trimmed(now, epoch));
    }

    pub(super) fn presence(self: &Arc<Self>, session: SessionId, presence: Option<Bytes>) {
        self.turn(|state, now| state.room.handle_presence(now, session, presence));
    }

    /// As [`close`](Self::close), of a session that was cut off.
    pub(super) fn lose(self: &Arc<Self>, session: SessionId) {
        self.turn(|state, now| state.room.handle_lost(now, session));
        lock(&self.state).members.remove(&session);
    }

    pub(super) fn close(self: &Arc<Self>, session: SessionId) {
        self.turn(|state, now| state.room.handle_close(now, session));
        lock(&self.state).members.remove(&session);
    }

    pub(super) fn head_for(&self, session: SessionId) -> Option<Seq> {
        lock(&self.state).room.head_for(session)
    }

    /// Takes what the room has for a session, up to about so many bytes, and says whether there may be more
    /// and what the session has under way here.
    pub(super) fn poll(
        self: &Arc<Self>,
        session: SessionId,
        bytes_max: usize,
        allowance: Allowance,
        outputs: &mut Vec<MemberOutput>,
    ) -> (bool, Occupied) {
        self.turn(|state, now| {
            let mut bytes = 0;
            while bytes < bytes_max {
                let Some(output) = state.room.poll_member_within(now, session, allowance) else {
                    return (false, state.room.occupied(session));
                };
                match &output {
                    MemberOutput::Frame(frame) => bytes += frame.len(),
                    MemberOutput::Left => {
                        state.members.remove(&session);
                    }
                    _ => {}
                }
                outputs.push(output);
            }
            (true, state.room.occupied(session))
        })
    }

    /// Feeds the room, and passes on what it wants.
    fn turn<R>(self: &Arc<Self>, f: impl FnOnce(&mut RoomState, Time) -> R) -> R {
        let mut wakes = Vec::new();
        let mut is_unloaded = false;
        let mut state = lock(&self.state);
        // Read under the lock, so that time does not run backwards for the room.
        let result = f(&mut state, self.server.clock.now());
        let n_requests = state.requests.len();
        while let Some(output) = state.room.poll_output() {
            match output {
                RoomOutput::Registry(number, request) => {
                    state.requests.push(Request::Registry(number, request));
                }
                RoomOutput::Authorize(number, user) => {
                    state.requests.push(Request::Authorize(number, user));
                }
                RoomOutput::Fold(request) => {
                    let wrote = std::mem::take(&mut state.wrote);
                    state.requests.push(Request::Fold(request, wrote));
                }
                RoomOutput::Ask(number, request) => {
                    state.requests.push(Request::Ask(number, request));
                }
                RoomOutput::Check(number, request) => {
                    let now = self.server.clock.now();
                    self.check(&mut state, now, number, request);
                }
                RoomOutput::Wake(session) => wakes.extend(state.members.get(&session).cloned()),
                RoomOutput::Settled(session, charge) => {
                    if let Some(mailbox) = state.members.get(&session) {
                        mailbox.settle(charge);
                    } else {
                        self.server.settle(session, charge);
                    }
                }
                RoomOutput::Superseded(session) => {
                    if let Some(mailbox) = state.members.remove(&session) {
                        mailbox.end(superseded());
                    }
                }
                RoomOutput::Event(event) => {
                    state.is_loaded |= matches!(event, RoomEvent::Loaded { .. });
                    self.keep(&mut state.kept, &event);
                    self.tell(event);
                }
                RoomOutput::Unloaded => {
                    is_unloaded = true;
                    self.tell_unloaded(&mut state);
                }
                _ => {}
            }
        }
        let timeout = state.room.poll_timeout();
        let has_work = state.requests.len() > n_requests || timeout != state.timeout || is_unloaded;
        state.timeout = timeout;
        drop(state);
        if has_work {
            self.work.notify_one();
        }
        if is_unloaded {
            self.server.forget_room(self);
        }
        for mailbox in wakes {
            mailbox.ready(self);
        }
        result
    }

    fn keep(&self, kept: &mut Kept, event: &RoomEvent) {
        match event {
            RoomEvent::Folded {
                seq, bytes, took, ..
            } => {
                let clock = &self.server.clock;
                kept.fold_failure = None;
                kept.last_fold = Some(FoldStats {
                    at_ms: clock.wall_ms(clock.now()),
                    seq: *seq,
                    bytes: count(*bytes),
                    took_ms: millis(*took),
                });
            }
            RoomEvent::FoldFailed { error, .. } => kept.fold_failure = Some(error.to_string()),
            _ => {}
        }
    }

    /// Told before anybody can find out by opening the document, so that the next room is told of after it.
    fn tell_unloaded(&self, state: &mut RoomState) {
        if std::mem::take(&mut state.is_loaded) {
            self.server.events.send(ServerEvent::RoomUnloaded {
                document: self.document.clone(),
            });
        }
    }

    fn tell(&self, event: RoomEvent) {
        let document = self.document.clone();
        self.server.events.send(match event {
            RoomEvent::Loaded { head } => ServerEvent::RoomLoaded { document, head },
            RoomEvent::Opened { session, access } => ServerEvent::DocumentOpened {
                session,
                document,
                access,
            },
            RoomEvent::AccessChanged { session, access } => ServerEvent::AccessChanged {
                session,
                document,
                access,
            },
            RoomEvent::Left { session } => ServerEvent::DocumentClosed { session, document },
            RoomEvent::PresenceJoined {
                session,
                user,
                instead_of,
            } => ServerEvent::PresenceJoined {
                document,
                session,
                user,
                instead_of,
            },
            RoomEvent::PresenceLeft { session } => ServerEvent::PresenceLeft { document, session },
            RoomEvent::Committed {
                first,
                last,
                origin,
                user,
            } => ServerEvent::Committed {
                document,
                first,
                last,
                origin,
                user,
            },
            RoomEvent::Refused { change, user, code } => ServerEvent::Refused {
                document,
                change,
                user,
                code,
            },
            RoomEvent::Broadcast {
                sender,
                bytes,
                n_recipients,
            } => ServerEvent::Broadcast {
                document,
                sender,
                bytes,
                n_recipients,
            },
            RoomEvent::BroadcastsMissed { session, missed } => ServerEvent::BroadcastsMissed {
                document,
                session,
                missed,
            },
            RoomEvent::ValidatorPanicked { change } => {
                tracing::error!(%document, %change, "a validator panicked");
                ServerEvent::ValidatorPanicked { document, change }
            }
            RoomEvent::HistoryReplaced { epoch } => {
                tracing::warn!(%document, %epoch, "the document has another history now");
                ServerEvent::HistoryReplaced { document, epoch }
            }
            RoomEvent::SnapshotRead { seq, bytes } => ServerEvent::SnapshotRead {
                document,
                seq,
                bytes,
            },
            RoomEvent::NearLimit { bytes, max } => {
                tracing::warn!(%document, bytes, max, "the document is nearly too large");
                ServerEvent::DocumentNearLimit {
                    document,
                    bytes,
                    max,
                }
            }
            RoomEvent::Folded {
                seq,
                bytes,
                keep_after,
                took,
            } => ServerEvent::Folded {
                document,
                seq,
                bytes,
                keep_after,
                took,
            },
            RoomEvent::FoldFailed { through, error } => {
                let cause = std::error::Error::source(&*error).map(ToString::to_string);
                tracing::warn!(%document, %through, %error, cause, "the log was not folded");
                ServerEvent::FoldFailed {
                    document,
                    through,
                    error,
                }
            }
            RoomEvent::RegistryFailed { call, error } => {
                tracing::warn!(%document, call, %error, "the registry failed");
                ServerEvent::RegistryFailed {
                    document,
                    call,
                    error,
                }
            }
            _ => return,
        });
    }
}

/// What a session is told whose client has connected again.
pub(super) fn superseded() -> PeerError {
    PeerError::new(
        ErrorCode::Superseded,
        "a newer connection of the same client took over",
    )
}

/// A room's task: calls the registry, several calls at once, and minds the time.
async fn run(room: Arc<RoomHandle>) {
    let mut calls = FuturesUnordered::new();
    loop {
        let (requests, timeout, phase) = {
            let mut state = lock(&room.state);
            let requests = std::mem::take(&mut state.requests);
            (requests, state.timeout, state.room.phase())
        };
        for request in requests {
            calls.push(match request {
                Request::Registry(number, request) => call(&room, number, request),
                Request::Fold(request, payers) => fold(&room, request, payers),
                Request::Ask(number, request) => ask(&room, number, request),
                Request::Authorize(number, user) => {
                    let asked = Arc::clone(&room.server).ask_access(user, room.document.clone());
                    asked
                        .map(move |answer| Answer::Authorized(number, answer))
                        .boxed()
                }
                Request::Check(number, request, hot, payers) => {
                    check::check(&room, number, request, hot, payers)
                }
            });
        }
        let is_over = match phase {
            RoomPhase::Unloaded => true,
            RoomPhase::Draining { .. } => room.server.is_closing(),
            _ => false,
        };
        if is_over && calls.is_empty() {
            break;
        }
        let deadline = timeout.map(|time| room.server.clock.instant(time));
        tokio::select! {
            Some(answer) = calls.next() => {
                room.turn(|state, now| match answer {
                    Answer::Registry(number, answer) => {
                        state.room.handle_registry(now, number, answer);
                    }
                    Answer::Fold(result) => state.room.handle_folded(now, result),
                    Answer::Asked(number, (accepted, error)) => {
                        state.room.handle_asked(now, number, accepted, error);
                    }
                    Answer::Authorized(number, answer) => {
                        state.room.handle_authorized(now, number, answer);
                    }
                    Answer::Check(number, epoch, checks) => {
                        room.checked(state, now, number, epoch, checks);
                    }
                });
            }
            () = room.work.notified() => {}
            () = sleep_until(deadline), if deadline.is_some() => {
                room.turn(|state, now| state.room.handle_timeout(now));
            }
        }
    }
    room.tell_unloaded(&mut lock(&room.state));
    room.server.forget_room(&room);
    room.server.rooms.ended.notify_waiters();
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    if let Some(deadline) = deadline {
        tokio::time::sleep_until(deadline).await;
    }
}

/// Calls the registry. A call that panics may have been carried out or not.
fn call(
    room: &RoomHandle,
    number: RequestNumber,
    request: RegistryRequest,
) -> BoxFuture<'static, Answer> {
    let server = Arc::clone(&room.server);
    let document = room.document.clone();
    async move {
        let (registry, calls) = (&server.registry, &server.calls);
        let answer = match request {
            RegistryRequest::Create(new) => {
                RegistryAnswer::Create(calls.create.time(caught(registry.create(new))).await)
            }
            RegistryRequest::Meta => {
                RegistryAnswer::Meta(calls.meta.time(caught(registry.meta(&document))).await)
            }
            RegistryRequest::Size => RegistryAnswer::Size(caught(registry.size(&document)).await),
            RegistryRequest::Append {
                epoch,
                expect,
                changes,
            } => {
                let appended = registry.append(&document, epoch, expect, changes);
                RegistryAnswer::Append(calls.append.time(caught(appended)).await)
            }
            RegistryRequest::Tail { after, max_bytes } => {
                let tail = registry.tail(&document, after, max_bytes);
                RegistryAnswer::Tail(calls.tail.time(caught(tail)).await)
            }
            RegistryRequest::Snapshot => {
                let snapshot = caught(registry.snapshot(&document));
                RegistryAnswer::Snapshot(calls.snapshot.time(snapshot).await)
            }
            RegistryRequest::Origins(origins) => {
                let origins = caught(registry.origins(&document, &origins));
                RegistryAnswer::Origins(calls.origins.time(origins).await)
            }
            RegistryRequest::Compact {
                epoch,
                snapshot,
                keep_after,
            } => {
                let compacted = registry.compact(&document, epoch, snapshot, keep_after);
                RegistryAnswer::Compact(calls.compact.time(caught(compacted)).await)
            }
            // The core and the server are built together.
            _ => RegistryAnswer::Meta(Err(RegistryError::Unavailable {
                retry_after: None,
                source: None,
            })),
        };
        Answer::Registry(number, answer)
    }
    .boxed()
}

fn fold(room: &RoomHandle, request: FoldRequest, payers: Shares) -> BoxFuture<'static, Answer> {
    let server = Arc::clone(&room.server);
    let document = room.document.clone();
    async move {
        let meter = Meter::default();
        let folded = server.fold(&document, request, &meter).await;
        payers.spend(server.clock.now(), meter.spent());
        Answer::Fold(folded)
    }
    .boxed()
}

fn ask(
    room: &RoomHandle,
    number: RequestNumber,
    request: AskRequest,
) -> BoxFuture<'static, Answer> {
    let server = Arc::clone(&room.server);
    let document = room.document.clone();
    async move { Answer::Asked(number, server.ask_changes(&document, &request).await) }.boxed()
}

pub(super) async fn caught<T>(
    call: impl Future<Output = Result<T, RegistryError>>,
) -> Result<T, RegistryError> {
    AssertUnwindSafe(call)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| {
            Err(RegistryError::Unknown {
                source: Some("the registry panicked".into()),
            })
        })
}
