//! The life of rooms on a node: the driver's steps, one at a time, in any order that its locks allow.
//!
//! [`Rooms`], [`Room`] and [`ServerSession`] are the real ones. What a driver does with them between two locks is one action here; the code is
//! `sync-server/src/server/rooms.rs`:
//!
//! | here | there |
//! | --- | --- |
//! | `Look` | `Shared::room`, under the lock of the map |
//! | `Enter` | `RoomHandle::open`, under the lock of the room; with `Connection::join` |
//! | `Forget` | `Shared::forget_room`, of `Shared::join` and of `RoomHandle::turn`, under the lock of the map |
//! | `Take` | the head of the loop in `rooms/task.rs` |
//! | `Poll` | `RoomHandle::poll` and `Connection::write_room` |
//! | `Execute`, `Answer`, `Timeout` | its calls, and its `select!` |
//! | `Ended` | a session's task finds in its mailbox that the server is closing, and leaves its rooms |
//! | `End` | `RoomHandle::evict` from that loop while the server is closing |

mod checks;
mod node;
mod visitor;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sync_core::ids::{Channel, DocumentId};
use sync_core::server::ServerSession;
use sync_core::server::{JoinRequest, RegistryRequest, RequestNumber, Room, RoomPhase, Rooms};
use sync_core::time::Time;

use crate::explorer::{Model, Part, Print};
use crate::notes::Censor;
use crate::registry::{Failure, Registry, Reply};

/// What there is, and how much of it may happen.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub visitors: usize,
    /// Times that each opens the document.
    pub opens: u8,
    /// Changes that each pushes.
    pub pushes: u8,
    /// Registry calls that fail, or whose outcome stays unknown.
    pub faults: u8,
    /// Changes that another node appends.
    pub elsewhere: u8,
    /// Times that the room is told to end.
    pub evictions: u8,
    /// Whether the server is closed at some time.
    pub closes: bool,
    /// Times that a deadline passes while something else is under way, and how often that is noticed only a minute later.
    pub ticks: u8,
    pub late_ticks: u8,
}

impl Bounds {
    pub const fn of(visitors: usize, opens: u8) -> Self {
        Self {
            visitors,
            opens,
            pushes: 0,
            faults: 0,
            elsewhere: 0,
            evictions: 0,
            closes: false,
            ticks: 0,
            late_ticks: 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A visitor's client asks for the document, pushes a change, closes the document, or is cut off.
    Open(usize),
    Push(usize),
    Close(usize),
    Lose(usize),
    /// Its session's task looks for the document's room, and hands the open to it.
    Look(usize),
    Enter(usize),
    /// It forgets a room that was unloaded.
    Forget(usize),
    /// It takes what the room has for it.
    Poll(usize),
    /// It ends, because the server is closing.
    Ended(usize),
    /// Of rooms, by channel: whoever had the last turn forgets it; its task picks up what there is to do.
    Forgotten(Channel),
    Take(Channel),
    Timeout(Channel),
    /// Its task has it end because the server is closing.
    End(Channel),
    Execute(u64),
    Fail(u64),
    Blur(u64),
    Answer(u64),
    /// Another node appends, and says so.
    Elsewhere,
    Evict,
    CloseServer,
    Tick,
    LateTick,
}

/// Somebody with a session.
#[derive(Debug, Clone)]
struct Visitor {
    session: ServerSession,
    opens: u8,
    pushes: u8,
    /// What it is doing about an open: nothing else meanwhile.
    join: Option<(JoinRequest, Join)>,
    /// Rooms that it is in, as its connection knows.
    rooms: BTreeSet<Channel>,
    /// Rooms that have something for it.
    ready: VecDeque<Channel>,
    /// As its client knows it: the last open without an answer, and the channel that it may push to.
    asked: Option<u32>,
    writes_to: Option<Channel>,
    /// Numbers pushed and not answered.
    unanswered: BTreeSet<u64>,
    pushed_charge: usize,
    settled_charge: usize,
    is_gone: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Join {
    Look,
    Enter(Channel),
    Forget(Channel),
}

/// A room with its task.
#[derive(Debug, Clone)]
struct Live {
    room: Room,
    /// What the task has not picked up.
    requests: Vec<(RequestNumber, RegistryRequest)>,
    /// Calls under way.
    calls: BTreeSet<u64>,
    is_told: bool,
    /// It was seen to be unloaded, and is to be forgotten.
    forgets: bool,
    is_over: bool,
}

#[derive(Debug, Clone)]
struct Call {
    channel: Channel,
    number: RequestNumber,
    step: Step,
}

#[derive(Debug, Clone)]
enum Step {
    Asked(RegistryRequest),
    Answered(Reply),
}

#[derive(Clone)]
pub struct State {
    now: Time,
    visitors: Vec<Part<Visitor>>,
    rooms: Rooms<Channel>,
    all: BTreeMap<Channel, Part<Live>>,
    calls: BTreeMap<u64, Call>,
    registry: Registry,
    left: Bounds,
    is_closing: bool,
    /// Whether anything was refused or failed: then not all that was pushed needs to be in the log.
    has_failed: bool,
}

pub struct Life {
    bounds: Bounds,
    document: DocumentId,
    censor: Arc<Censor>,
}

impl Life {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            document: DocumentId::new("d").unwrap(),
            censor: Arc::new(Censor {
                bad: BTreeSet::new(),
            }),
        }
    }

    /// Everybody is welcomed, and the document is not live.
    pub fn start(&self) -> State {
        let now = Time::from_micros(1);
        State {
            now,
            visitors: (0..self.bounds.visitors)
                .map(|index| Part::new(self.visitor(now, index)))
                .collect(),
            rooms: Rooms::default(),
            all: BTreeMap::new(),
            calls: BTreeMap::new(),
            registry: Registry::default(),
            left: self.bounds,
            is_closing: false,
            has_failed: false,
        }
    }

    fn due(&self, state: &State) -> Vec<Action> {
        let mut due = Vec::new();
        for (index, visitor) in state.visitors.iter().enumerate() {
            match visitor.join {
                Some((_, Join::Look)) => due.push(Action::Look(index)),
                Some((_, Join::Enter(_))) => due.push(Action::Enter(index)),
                Some((_, Join::Forget(_))) => due.push(Action::Forget(index)),
                None if state.is_closing && !visitor.is_gone => due.push(Action::Ended(index)),
                None if !visitor.ready.is_empty() && !visitor.is_gone => {
                    due.push(Action::Poll(index));
                }
                None => {}
            }
        }
        for (channel, live) in &state.all {
            if live.forgets {
                due.push(Action::Forgotten(*channel));
            }
            if live.is_over {
                continue;
            }
            let is_unloaded = live.room.phase() == RoomPhase::Unloaded;
            if !live.requests.is_empty() || (is_unloaded && live.calls.is_empty()) {
                due.push(Action::Take(*channel));
            }
            if live.room.poll_timeout().is_some_and(|at| at <= state.now) && !is_unloaded {
                due.push(Action::Timeout(*channel));
            }
            if state.is_closing && matches!(live.room.phase(), RoomPhase::Draining { .. }) {
                due.push(Action::End(*channel));
            }
        }
        for (id, call) in &state.calls {
            due.push(match call.step {
                Step::Asked(_) => Action::Execute(*id),
                Step::Answered(_) => Action::Answer(*id),
            });
        }
        due
    }

    fn possible(&self, state: &State) -> Vec<Action> {
        let mut possible = Vec::new();
        let left = &state.left;
        for (index, visitor) in state.visitors.iter().enumerate() {
            // A session's task does one thing after the other.
            if visitor.is_gone || visitor.join.is_some() || state.is_closing {
                continue;
            }
            if visitor.opens < left.opens {
                possible.push(Action::Open(index));
            }
            if visitor.writes_to.is_some() && visitor.pushes < left.pushes {
                possible.push(Action::Push(index));
            }
            if visitor.writes_to.is_some() {
                possible.push(Action::Close(index));
            }
            if !visitor.rooms.is_empty() {
                possible.push(Action::Lose(index));
            }
        }
        if left.faults > 0 {
            for (id, call) in &state.calls {
                if let Step::Asked(request) = &call.step {
                    possible.push(Action::Fail(*id));
                    if matches!(request, RegistryRequest::Append { .. }) {
                        possible.push(Action::Blur(*id));
                    }
                }
            }
        }
        if left.elsewhere > 0 && state.registry.document.is_some() {
            possible.push(Action::Elsewhere);
        }
        if left.evictions > 0 && state.rooms.get(&self.document).is_some() {
            possible.push(Action::Evict);
        }
        if left.closes && !state.is_closing {
            possible.push(Action::CloseServer);
        }
        let has_deadline = self.next_deadline(state).is_some();
        if left.ticks > 0 && has_deadline {
            possible.push(Action::Tick);
        }
        if left.late_ticks > 0 && has_deadline {
            possible.push(Action::LateTick);
        }
        possible
    }

    fn next_deadline(&self, state: &State) -> Option<Time> {
        let later = state
            .all
            .values()
            .filter_map(|live| live.room.poll_timeout());
        later.filter(|at| *at > state.now).min()
    }

    fn settle(&self, state: &mut State) -> Result<(), String> {
        for _ in 0..TICKS_MAX {
            for _ in 0..STEPS_MAX {
                let Some(action) = self.due(state).into_iter().next() else {
                    break;
                };
                self.apply(state, &action)?;
            }
            if !self.due(state).is_empty() {
                return Err(format!("something goes on for ever: {:?}", self.due(state)));
            }
            let Some(at) = self.next_deadline(state) else {
                return Ok(());
            };
            state.now = at;
        }
        Err("time goes on for ever".into())
    }
}

/// Steps after which what goes on is taken to go on for ever, and deadlines after which there are always more.
const STEPS_MAX: usize = 1_000;
const TICKS_MAX: usize = 40;

impl Model for Life {
    type State = State;
    type Action = Action;

    fn actions(&self, state: &State) -> Vec<Action> {
        let mut actions = self.due(state);
        actions.extend(self.possible(state));
        actions
    }

    fn is_due(&self, action: &Action) -> bool {
        !matches!(
            action,
            Action::Open(_)
                | Action::Push(_)
                | Action::Close(_)
                | Action::Lose(_)
                | Action::Fail(_)
                | Action::Blur(_)
                | Action::Elsewhere
                | Action::Evict
                | Action::CloseServer
                | Action::Tick
                | Action::LateTick
        )
    }

    fn apply(&self, state: &mut State, action: &Action) -> Result<(), String> {
        match *action {
            Action::Open(index) => self.ask_to_open(state, index)?,
            Action::Push(index) => self.push(state, index)?,
            Action::Close(index) => self.close(state, index)?,
            Action::Lose(index) | Action::Ended(index) => self.lose(state, index)?,
            Action::Look(index) => self.look(state, index)?,
            Action::Enter(index) => self.enter(state, index)?,
            Action::Forget(index) => self.forget(state, index),
            Action::Poll(index) => self.poll(state, index)?,
            Action::Forgotten(channel) => {
                state.all.get_mut(&channel).unwrap().forgets = false;
                self.forget_room(state, channel);
            }
            Action::Take(channel) => self.take(state, channel),
            Action::Timeout(channel) => {
                let now = state.now;
                self.turn(state, channel, |room| room.handle_timeout(now))?;
            }
            Action::End(channel) => self.evict(state, channel)?,
            Action::Execute(id) => self.execute(state, id),
            Action::Fail(id) => self.fail(state, id, Failure::Unavailable),
            Action::Blur(id) => {
                self.execute(state, id);
                self.fail(state, id, Failure::Unknown);
            }
            Action::Answer(id) => self.answer(state, id)?,
            Action::Elsewhere => self.append_elsewhere(state)?,
            Action::Evict => {
                state.left.evictions -= 1;
                state.has_failed = true;
                let channel = *state.rooms.get(&self.document).unwrap();
                self.evict(state, channel)?;
            }
            Action::CloseServer => state.is_closing = true,
            Action::Tick => {
                state.left.ticks -= 1;
                state.now = self.next_deadline(state).unwrap();
            }
            Action::LateTick => {
                state.left.late_ticks -= 1;
                state.now = self.next_deadline(state).unwrap() + Duration::from_secs(60);
            }
        }
        self.check(state)
    }

    fn print(&self, state: &State, out: &mut Print) {
        out.add(&(&state.visitors, &state.rooms, &state.all));
        out.add(&(&state.calls, &state.registry, &state.left));
        out.add(&(state.is_closing, state.has_failed, state.now));
    }

    fn check_at_rest(&self, mut state: State) -> Result<(), String> {
        self.settle(&mut state)?;
        self.check_settled(&state)
    }
}
