//! Changes on their way: real clients, real sessions and a real room over a tiny registry, and everything that can come in
//! between.

mod checks;
mod client;
mod server;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use sync_core::client::{AttemptId, ClientState, Job, Replica};
use sync_core::ids::{ChangeId, Channel, DocumentId, SessionId, User};
use sync_core::planted::Bug;
use sync_core::server::{RegistryRequest, RequestNumber, Room, ServerSession};
use sync_core::time::Time;

use crate::explorer::{Model, Part, Print};
use crate::notes::{Censor, Notes};
use crate::registry::{Registry, Reply};

/// What there is, and how much of it may happen.
#[derive(Debug, Clone)]
pub struct Bounds {
    pub clients: usize,
    /// Notes that each client makes.
    pub edits: u8,
    /// Notes that the server does not take, by label: a client's n-th note has ten times its index, plus n.
    pub bad: BTreeSet<u8>,
    /// Whether what was made after a refused note can be made again.
    pub rebases: bool,
    /// Connections that are cut.
    pub cuts: u8,
    /// Registry calls that fail, or whose outcome stays unknown.
    pub faults: u8,
    /// Times that the server's process is killed.
    pub crashes: u8,
    /// Times that it is, and an older copy of the registry put in the place of the one there.
    pub restores: u8,
    /// Deadlines that pass while something else is under way. Without: only when nothing is.
    pub ticks: u8,
}

impl Bounds {
    pub const fn of(clients: usize, edits: u8) -> Self {
        Self {
            clients,
            edits,
            bad: BTreeSet::new(),
            rebases: false,
            cuts: 0,
            faults: 0,
            crashes: 0,
            restores: 0,
            ticks: 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A client makes a note.
    Edit(usize),
    /// A client's connection is there.
    Dialed(usize),
    /// A client does without the rest of its delay.
    Redial(usize),
    /// The next job on a client's replica is done.
    Job(usize),
    /// The next frame arrives at the server, or at the client.
    Up(u64),
    Down(u64),
    /// What the room has for a session is put on its way.
    Write(u64),
    /// The server notices that the client is gone.
    Lose(u64),
    /// The client notices that the server has closed the connection.
    Closed(u64),
    /// A registry call is carried out.
    Execute(u64),
    /// It is carried out, and it is not known whether.
    Blur(u64),
    /// It is not carried out, and it is not known whether.
    Drop(u64),
    /// It is not carried out.
    Fail(u64),
    /// Its answer arrives at the room.
    Answer(u64),
    Cut(usize),
    Crash,
    Restore,
    Tick,
}

#[derive(Clone)]
pub struct Client {
    state: ClientState,
    replica: Replica<Notes>,
    jobs: VecDeque<(u64, Job)>,
    /// What the shadow was given: it cannot be looked into.
    shadow: Vec<Bytes>,
    dialing: Option<AttemptId>,
    link: Option<u64>,
    /// Connections that it has had.
    links: u64,
    edits: u8,
    /// By which the machine knows its notes.
    ordinals: Vec<u64>,
    user: User,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            state,
            replica,
            jobs,
            shadow,
            dialing,
            link,
            links,
            edits,
            ordinals,
            user: _,
        } = self;
        replica.read(|notes| notes.fmt(f)).unwrap()?;
        (
            state, replica, jobs, shadow, dialing, link, links, edits, ordinals,
        )
            .fmt(f)
    }
}

#[derive(Debug, Clone)]
struct Link {
    client: usize,
    attempt: AttemptId,
    session: ServerSession,
    up: VecDeque<Bytes>,
    down: VecDeque<Bytes>,
    channel: Option<Channel>,
    /// The room has something for it.
    is_ready: bool,
    /// The client has left.
    is_left: bool,
    /// The server has closed it.
    closed: Option<u16>,
    /// Refused on it, since it opened the document last.
    refused: Option<ChangeId>,
}

#[derive(Debug, Clone)]
struct Pending {
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
    clients: Vec<Part<Client>>,
    links: BTreeMap<u64, Part<Link>>,
    room: Option<Part<Room>>,
    owners: server::Owners,
    calls: BTreeMap<u64, Pending>,
    registry: Registry,
    backup: Registry,
    /// Labels that have ever been in the log.
    committed: BTreeSet<u8>,
    left: Bounds,
    /// Rooms that have been made.
    rooms: u32,
}

pub struct Changes {
    bounds: Bounds,
    document: DocumentId,
    censor: Arc<Censor>,
    /// A bug in all machines.
    pub planted: Option<Bug>,
}

impl Changes {
    pub fn new(bounds: Bounds) -> Self {
        let bad = bounds.bad.clone();
        Self {
            bounds,
            document: DocumentId::new("d").unwrap(),
            censor: Arc::new(Censor { bad }),
            planted: None,
        }
    }

    /// Everybody has the document open, and it is empty.
    pub fn opened(&self) -> State {
        let mut state = self.fresh();
        self.settle(&mut state).unwrap();
        state.backup = state.registry.clone();
        state
    }

    /// Everybody is about to connect for the first time.
    pub fn fresh(&self) -> State {
        let mut state = State {
            now: Time::from_micros(1),
            clients: Vec::new(),
            links: BTreeMap::new(),
            room: None,
            owners: BTreeMap::new(),
            calls: BTreeMap::new(),
            registry: Registry::default(),
            backup: Registry::default(),
            committed: BTreeSet::new(),
            left: self.bounds.clone(),
            rooms: 0,
        };
        for index in 0..self.bounds.clients {
            let client = self.client(&state, index);
            state.clients.push(Part::new(client));
            self.perform_client(&mut state, index);
        }
        state
    }

    /// Each client has made its first note, after the backup was made, and everybody has it.
    pub fn ahead_of_the_backup(&self) -> State {
        let mut state = self.opened();
        for client in 0..self.bounds.clients {
            self.edit(&mut state, client);
            self.settle(&mut state).unwrap();
        }
        state
    }

    fn due(&self, state: &State) -> Vec<Action> {
        let mut due = Vec::new();
        for (id, call) in &state.calls {
            due.push(match call.step {
                Step::Asked(_) => Action::Execute(*id),
                Step::Answered(_) => Action::Answer(*id),
            });
        }
        for (id, link) in &state.links {
            if !link.up.is_empty() && link.closed.is_none() {
                due.push(Action::Up(*id));
            }
            if link.is_ready && link.closed.is_none() {
                due.push(Action::Write(*id));
            }
            if !link.is_left && !link.down.is_empty() {
                due.push(Action::Down(*id));
            }
            if link.is_left {
                due.push(Action::Lose(*id));
            } else if link.closed.is_some() && link.down.is_empty() {
                due.push(Action::Closed(*id));
            }
        }
        for (index, client) in state.clients.iter().enumerate() {
            if client.dialing.is_some() {
                due.push(Action::Dialed(index));
            }
            if !client.jobs.is_empty() {
                due.push(Action::Job(index));
            }
            if matches!(
                client.state.status(),
                sync_core::client::Status::Reconnecting { .. }
            ) && client.dialing.is_none()
                && client.link.is_none()
            {
                due.push(Action::Redial(index));
            }
        }
        due
    }

    /// What a user or a fault may do besides.
    fn possible(&self, state: &State) -> Vec<Action> {
        let mut possible = Vec::new();
        let left = &state.left;
        for (index, client) in state.clients.iter().enumerate() {
            if client.edits < left.edits {
                possible.push(Action::Edit(index));
            }
            if left.cuts > 0 && client.link.is_some() {
                possible.push(Action::Cut(index));
            }
        }
        if left.faults > 0 {
            for (id, call) in &state.calls {
                let Step::Asked(request) = &call.step else {
                    continue;
                };
                possible.push(Action::Fail(*id));
                if matches!(request, RegistryRequest::Append { .. }) {
                    possible.extend([Action::Blur(*id), Action::Drop(*id)]);
                }
            }
        }
        if left.crashes > 0 {
            possible.push(Action::Crash);
        }
        if left.restores > 0 {
            possible.push(Action::Restore);
        }
        if left.ticks > 0 && self.next_deadline(state).is_some() {
            possible.push(Action::Tick);
        }
        possible
    }

    fn next_deadline(&self, state: &State) -> Option<Time> {
        let clients = state
            .clients
            .iter()
            .map(|client| client.state.poll_timeout());
        let links = state.links.values().map(|link| link.session.poll_timeout());
        let room = state.room.as_ref().map(|room| room.poll_timeout());
        clients.chain(links).chain(room).flatten().min()
    }

    /// Moves to the next deadline.
    fn tick(&self, state: &mut State) -> Result<(), String> {
        let Some(at) = self.next_deadline(state) else {
            return Ok(());
        };
        state.now = state.now.max(at);
        let is_due = |deadline: Option<Time>| deadline.is_some_and(|deadline| deadline <= at);
        for index in 0..state.clients.len() {
            let client = &mut state.clients[index];
            if is_due(client.state.poll_timeout()) {
                client.state.handle_timeout(state.now);
                self.perform_client(state, index);
            }
        }
        for id in state.links.keys().copied().collect::<Vec<_>>() {
            let link = state.links.get_mut(&id).unwrap();
            if is_due(link.session.poll_timeout()) {
                link.session.handle_timeout(state.now);
                self.perform_session(state, id)?;
            }
        }
        if let Some(room) = &mut state.room
            && is_due(room.poll_timeout())
        {
            room.handle_timeout(state.now);
            self.perform_room(state)?;
        }
        Ok(())
    }

    /// Lets everything happen that is under way, and time pass, until everybody has everything.
    fn settle(&self, state: &mut State) -> Result<(), String> {
        let mut unsettled = String::new();
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
            match self.unsettled(state) {
                None => return Ok(()),
                Some(why) => unsettled = why,
            }
            self.tick(state)?;
        }
        Err(format!("does not come to rest: {unsettled}"))
    }
}

/// Steps after which what goes on is taken to go on for ever, and deadlines after which nothing more is taken to happen.
const STEPS_MAX: usize = 1_000;
const TICKS_MAX: usize = 40;

impl Model for Changes {
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
            Action::Edit(_)
                | Action::Blur(_)
                | Action::Drop(_)
                | Action::Fail(_)
                | Action::Cut(_)
                | Action::Crash
                | Action::Restore
                | Action::Tick
        )
    }

    fn apply(&self, state: &mut State, action: &Action) -> Result<(), String> {
        match *action {
            Action::Edit(client) => self.edit(state, client),
            Action::Dialed(client) => self.dialed(state, client),
            Action::Redial(client) => {
                let now = state.now;
                state.clients[client].state.network_changed(now);
                self.perform_client(state, client);
            }
            Action::Job(client) => self.run_job(state, client),
            Action::Cut(client) => {
                state.left.cuts -= 1;
                self.cut(state, client, None);
            }
            Action::Up(link) => self.up(state, link)?,
            Action::Down(link) => self.down(state, link),
            Action::Write(link) => self.write(state, link)?,
            Action::Lose(link) => self.lose(state, link)?,
            Action::Closed(link) => self.closed(state, link),
            Action::Execute(call) => self.execute(state, call)?,
            Action::Blur(call) => self.blur(state, call)?,
            Action::Drop(call) => self.fail(state, call, crate::registry::Failure::Unknown),
            Action::Fail(call) => self.fail(state, call, crate::registry::Failure::Unavailable),
            Action::Answer(call) => self.answer(state, call)?,
            Action::Crash => {
                state.left.crashes -= 1;
                self.crash(state);
            }
            Action::Restore => {
                state.left.restores -= 1;
                state.registry = state.backup.clone();
                self.crash(state);
            }
            Action::Tick => {
                state.left.ticks -= 1;
                self.tick(state)?;
            }
        }
        self.check(state)
    }

    fn print(&self, state: &State, out: &mut Print) {
        out.add(&(&state.clients, &state.links));
        out.add(&(&state.room, &state.calls, &state.registry));
        out.add(&(&state.committed, &state.left, state.now));
    }

    fn check_at_rest(&self, mut state: State) -> Result<(), String> {
        self.settle(&mut state)?;
        self.check_settled(&state)
    }
}

/// The session on a link.
const fn session(link: u64) -> SessionId {
    SessionId(link)
}
