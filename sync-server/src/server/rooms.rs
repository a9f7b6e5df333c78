//! Live documents: one room each, one task each.

mod check;
mod ephemeral;
mod task;
mod telling;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::{Cursor, Epoch, Seq};
use sync_core::ids::{Channel, DocumentId, SessionId, User};
use sync_core::limits::push_charge;
use sync_core::server::{
    Allowance, AskRequest, CheckRequest, FoldError, FoldRequest, FoldedLog, Grant, MemberOutput,
    MemberStats, Occupied, OpenRequest, RegistryAnswer, RegistryRequest, RequestNumber, Room,
    RoomCounters, RoomEvent, RoomOutput, RoomStats, RoomUnloaded,
};
use sync_core::time::Time;
use sync_core::transport::PeerInfo;
use sync_core::wire::{FoldOffer, Push};
use tokio::sync::Notify;

pub(super) use self::task::{caught, sleep_until};
use super::budget::Shares;
use super::mailbox::Mailbox;
use super::{Shared, lock};
use crate::engine_host::{Checks, Hot};
use crate::stats::FoldStats;

/// The rooms of a server.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    /// Locked before the state of a room.
    live: Mutex<sync_core::server::Rooms<Arc<RoomHandle>>>,
    /// Told whenever a room's task ends.
    pub(super) ended: Notify,
}

impl Rooms {
    /// The document's room, if it is live.
    pub(super) fn live(&self, document: &DocumentId) -> Option<Arc<RoomHandle>> {
        lock(&self.live).get(document).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<RoomHandle>> {
        lock(&self.live).iter().cloned().collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        lock(&self.live).is_empty()
    }

    /// The live rooms, and what the others have counted.
    pub(super) fn counted(&self) -> (Vec<Arc<RoomHandle>>, RoomCounters) {
        let live = lock(&self.live);
        (live.iter().cloned().collect(), live.forgotten().clone())
    }

    /// Makes rooms that nobody is in end as soon as they have nothing under way.
    pub(super) fn wake_all(&self) {
        for room in lock(&self.live).iter() {
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
                self.keep_up();
                return room;
            }
            // It unloaded in between: it has nothing under way any more, so that another may begin.
            self.forget_room(&room);
        }
    }

    /// The room of a document: the live one, or another.
    fn room(self: &Arc<Self>, document: &DocumentId) -> Arc<RoomHandle> {
        let mut live = lock(&self.rooms.live);
        let room = live.enter(document, |channel| {
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
            tokio::spawn(task::run(Arc::clone(&room)));
            room
        });
        Arc::clone(room)
    }

    /// To be called of a room that is unloaded.
    fn forget_room(&self, room: &RoomHandle) {
        lock(&self.rooms.live).forget(&room.document, room.channel, |total| {
            total.add(lock(&room.state).room.counters());
        });
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

    /// How many sessions are in the room, and what it has published.
    pub(super) fn position(&self) -> (usize, Option<Cursor>) {
        let state = lock(&self.state);
        (state.room.n_members(), state.room.position())
    }

    /// Tells the room that somebody appended through this sequence.
    pub(super) fn hear(self: &Arc<Self>, head: Seq) {
        self.turn(|state, now| state.room.handle_head(now, head));
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
}

/// What a session is told whose client has connected again.
pub(super) fn superseded() -> PeerError {
    PeerError::new(
        ErrorCode::Superseded,
        "a newer connection of the same client took over",
    )
}
