//! A deterministic world: the machines of clients and of a server, a registry in memory, and a network that delays, cuts
//! and doubles connections, all under virtual time and from one seed. No runtime, no threads.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test binary uses its own part"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stderr,
    reason = "test harness"
)]

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use sync_core::client::{
    AttemptId, ClientConfig, ClientState, DocumentEvent, Job, OpenOptions, Output, RefusedChange,
    Replica, Status, StoreWrite, StoredDocument, SyncState,
};
use sync_core::engine::{Document, Engine, Validator, Version};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::{Cursor, Seq};
use sync_core::ids::{Channel, DocumentId, OriginId, SessionId, User};
use sync_core::limits::{Limits, SNAPSHOT_PIECE_BYTES};
use sync_core::registry::{DocumentMeta, Snapshot, StoredChange, Tail};
use sync_core::rng::Rng;
use sync_core::server::{
    Engines, FoldError, FoldRequest, FoldedLog, MemberOutput, RegistryAnswer, RegistryRequest,
    RequestNumber, Room, RoomConfig, RoomOutput, ServerSession, SessionConfig, SessionEvent,
    SessionOutput,
};
use sync_core::time::Time;
use sync_core::wire::{AccessLevel, Message, decode_frame};
use sync_server::registry::{MemoryRegistry, ServerRegistry};

pub fn id(name: &str) -> DocumentId {
    DocumentId::new(name).unwrap()
}

/// How the network behaves.
#[derive(Debug, Clone, Copy)]
pub struct Weather {
    /// Longest delay of a frame one way.
    pub delay_max: Duration,
    /// Longest delay of a registry call, before and after it takes effect.
    pub registry_delay_max: Duration,
    /// Longest time until the server notices that a connection is gone. Frames under way still arrive meanwhile.
    pub linger_max: Duration,
}

pub const CALM: Weather = Weather {
    delay_max: Duration::from_millis(10),
    registry_delay_max: Duration::from_millis(2),
    linger_max: Duration::ZERO,
};

pub const ROUGH: Weather = Weather {
    delay_max: Duration::from_millis(300),
    registry_delay_max: Duration::from_millis(50),
    linger_max: Duration::from_secs(20),
};

pub struct World<E: Engine + Validator> {
    pub now: Time,
    pub rng: Rng,
    pub weather: Weather,
    pub registry: Arc<MemoryRegistry>,
    pub clients: Vec<SimClient<E>>,
    pub limits: Limits,
    /// Frames that a session of this client was sent or has sent: for counting. By client: (up, down).
    pub traffic: Vec<Traffic>,
    /// What checks changes on the server, if it is not the engine itself.
    pub validator: Option<Arc<dyn Validator>>,
    /// If the server folds: from how many changes on, and how many bytes of the log it keeps.
    pub folding: Option<(u64, usize)>,
    /// Bytes of a snapshot in one message.
    pub piece_bytes: usize,
    /// Each frame from the server arrives so much later than the one before it: cuts then hit among them.
    pub trickle: Duration,
    engine: E,
    links: BTreeMap<SessionId, Link>,
    rooms: BTreeMap<DocumentId, Room>,
    channels: BTreeMap<Channel, DocumentId>,
    owners: BTreeMap<(OriginId, User), (u64, SessionId)>,
    calls: BTreeMap<u64, Call>,
    /// When something may happen to whom. Some are out of date: then nothing comes of it.
    agenda: BTreeSet<(Time, Target)>,
    next_id: u64,
    server_up: bool,
    /// Edits that the registry once said it had, by bytes: what an ack promised.
    pub pings: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Traffic {
    pub up: Vec<Message>,
    pub down: Vec<Message>,
}

pub struct SimClient<E: Engine> {
    pub state: ClientState,
    pub replicas: BTreeMap<DocumentId, Replica<E>>,
    pub events: Vec<(DocumentId, DocumentEvent)>,
    pub online: bool,
    /// What survives the process, if it has a store.
    pub store: Option<BTreeMap<DocumentId, StoredDocument>>,
    /// Writes that the store has not carried out.
    writing: VecDeque<(Time, DocumentId, u64, StoreWrite)>,
    user: User,
    link: Option<SessionId>,
    dialing: Option<(Time, AttemptId)>,
}

struct Link {
    client: usize,
    attempt: AttemptId,
    session: ServerSession,
    up: VecDeque<(Time, Bytes)>,
    down: VecDeque<(Time, Bytes)>,
    /// The client has left; the server notices then.
    gone_at: Option<Time>,
    documents: BTreeSet<DocumentId>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Client(usize),
    Link(SessionId),
    Room(DocumentId),
    Call(u64),
}

struct Call {
    document: DocumentId,
    number: RequestNumber,
    step: Step,
}

enum Step {
    Execute(RegistryRequest),
    Answer(RegistryAnswer),
}

impl<E: Engine + Validator> World<E> {
    pub fn new(seed: u64, engine: E, weather: Weather) -> Self {
        Self {
            now: Time::from_micros(1),
            rng: Rng::new(u128::from(seed) * 0x1_0000_0001),
            weather,
            registry: Arc::new(MemoryRegistry::new()),
            clients: Vec::new(),
            limits: Limits::default(),
            traffic: Vec::new(),
            validator: None,
            folding: None,
            piece_bytes: SNAPSHOT_PIECE_BYTES,
            trickle: Duration::ZERO,
            engine,
            links: BTreeMap::new(),
            rooms: BTreeMap::new(),
            channels: BTreeMap::new(),
            owners: BTreeMap::new(),
            calls: BTreeMap::new(),
            agenda: BTreeSet::new(),
            next_id: 1,
            server_up: true,
            pings: 0,
        }
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.rng.next_u64() % n
    }

    // ---- clients

    /// A client that connects at once. Returns its index.
    pub fn add_client(&mut self) -> usize {
        let index = self.clients.len();
        self.add_client_of(&format!("user-{index}"))
    }

    pub fn add_client_of(&mut self, user: &str) -> usize {
        let config = ClientConfig::new(OriginId(self.rng.next_u128()), self.rng.next_u128());
        let mut state = ClientState::new(config);
        state.connect(self.now);
        self.clients.push(SimClient {
            state,
            replicas: BTreeMap::new(),
            events: Vec::new(),
            online: true,
            store: None,
            writing: VecDeque::new(),
            user: User::new(user),
            link: None,
            dialing: None,
        });
        self.traffic.push(Traffic::default());
        let index = self.clients.len() - 1;
        self.perform_client(index);
        index
    }

    pub fn open(&mut self, client: usize, document: &str) {
        self.open_with(client, document, OpenOptions::default());
    }

    pub fn open_with(&mut self, client: usize, document: &str, options: OpenOptions) {
        let seed = self.rng.next_u128();
        let engine = self.engine.clone();
        let engine_id = engine.id();
        let it = &mut self.clients[client];
        let stored = it
            .store
            .as_ref()
            .and_then(|store| store.get(&id(document)).cloned());
        it.replicas
            .entry(id(document))
            .or_insert_with(|| match &stored {
                Some(stored) => Replica::load(engine, seed, stored).unwrap(),
                None => Replica::new(engine, seed).unwrap(),
            });
        it.state
            .open(self.now, &id(document), &engine_id, options, stored)
            .unwrap();
        self.perform_client(client);
    }

    /// One edit. Whether it was allowed.
    pub fn edit(
        &mut self,
        client: usize,
        document: &str,
        f: impl FnOnce(&mut E::Edit<'_>),
    ) -> bool {
        self.edit_at(client, document, self.now.as_micros() / 1000, f)
    }

    /// One edit by this wall clock. Whether it was allowed.
    pub fn edit_at(
        &mut self,
        client: usize,
        document: &str,
        wall_ms: u64,
        f: impl FnOnce(&mut E::Edit<'_>),
    ) -> bool {
        let document = id(document);
        let it = &mut self.clients[client];
        if it.state.edit_refusal(&document).is_some() {
            return false;
        }
        let replica = it.replicas.get_mut(&document).unwrap();
        replica.document().set_wall_time(wall_ms);
        replica.edit(usize::MAX, f).unwrap();
        let drained = replica.drain();
        for bytes in drained.main.local {
            let staged = it.state.handle_edit(self.now, &document, bytes);
            if let (Some(store), Some(change)) = (&mut it.store, staged) {
                let new = || StoredDocument::new(Engine::id(&self.engine));
                store
                    .entry(document.clone())
                    .or_insert_with(new)
                    .stage(change);
            }
        }
        self.perform_client(client);
        true
    }

    /// Hands a change to the client's machine that no engine made.
    pub fn inject(&mut self, client: usize, document: &str, bytes: Bytes) {
        self.clients[client]
            .state
            .handle_edit(self.now, &id(document), bytes);
        self.perform_client(client);
    }

    pub fn read<R>(&self, client: usize, document: &str, f: impl FnOnce(&E::Read<'_>) -> R) -> R {
        self.clients[client].replicas[&id(document)]
            .read(f)
            .unwrap()
    }

    pub fn version(&mut self, client: usize, document: &str) -> Version {
        self.clients[client]
            .replicas
            .get_mut(&id(document))
            .unwrap()
            .document()
            .version()
    }

    pub fn sync_state(&self, client: usize, document: &str) -> SyncState {
        self.clients[client]
            .state
            .sync_state(&id(document))
            .unwrap()
    }

    pub fn cursor(&self, client: usize, document: &str) -> Option<Cursor> {
        self.clients[client].state.cursor(&id(document))
    }

    pub fn refused(&self, client: usize, document: &str) -> Vec<RefusedChange> {
        self.clients[client].state.refused(&id(document))
    }

    /// Loses the client's connection: it notices now, the server some time later. What is under way may still arrive there.
    pub fn cut(&mut self, client: usize) {
        let Some(session) = self.clients[client].link.take() else {
            return;
        };
        let attempt = self.links[&session].attempt;
        self.leave(session);
        self.clients[client]
            .state
            .handle_lost(self.now, attempt, None);
        self.perform_client(client);
    }

    pub fn set_online(&mut self, client: usize, online: bool) {
        self.clients[client].online = online;
        if online {
            self.clients[client].state.network_changed(self.now);
            self.perform_client(client);
        } else {
            self.cut(client);
        }
    }

    /// Gives a client that has opened nothing yet a store.
    pub fn give_store(&mut self, client: usize) {
        self.clients[client].store = Some(BTreeMap::new());
        self.start_client(client);
    }

    /// The client's process is killed: what is not in its store is gone with it. Another one starts on the store, and
    /// delivers what is in it; it has no document open.
    pub fn restart_client(&mut self, client: usize) {
        if let Some(session) = self.clients[client].link.take() {
            self.leave(session);
        }
        self.clients[client].writing.clear();
        self.clients[client].replicas.clear();
        self.clients[client].dialing = None;
        self.start_client(client);
    }

    fn start_client(&mut self, client: usize) {
        let mut config = ClientConfig::new(OriginId(self.rng.next_u128()), self.rng.next_u128());
        let it = &mut self.clients[client];
        config.store = it.store.is_some();
        it.state = ClientState::new(config);
        for (document, stored) in it.store.iter().flatten() {
            if !stored.outbox.is_empty() {
                it.state.deliver(self.now, document, stored.clone());
            }
        }
        it.state.connect(self.now);
        self.perform_client(client);
    }

    fn leave(&mut self, session: SessionId) {
        let gone_at = self.now + self.rng.up_to(self.weather.linger_max);
        if let Some(link) = self.links.get_mut(&session) {
            link.down.clear();
            link.gone_at = Some(gone_at);
        }
        self.schedule(Some(gone_at), Target::Link(session));
    }

    // ---- the server

    /// The server's process is killed: connections, rooms and calls under way are gone; the registry stays.
    pub fn kill_server(&mut self) {
        self.server_up = false;
        self.rooms.clear();
        self.channels.clear();
        self.calls.clear();
        self.owners.clear();
        for (_, link) in std::mem::take(&mut self.links) {
            let it = &mut self.clients[link.client];
            if link.gone_at.is_none() {
                it.link = None;
                it.state.handle_lost(self.now, link.attempt, None);
                self.perform_client(link.client);
            }
        }
    }

    pub fn start_server(&mut self) {
        self.server_up = true;
    }

    /// A new, empty registry in the place of the old one.
    pub fn lose_everything(&mut self) {
        self.restore(MemoryRegistry::new());
    }

    /// The server starts again on another registry.
    pub fn restore(&mut self, registry: MemoryRegistry) {
        self.kill_server();
        self.registry = Arc::new(registry);
        self.start_server();
    }

    pub fn meta(&self, document: &str) -> DocumentMeta {
        self.registry
            .meta(&id(document))
            .now_or_never()
            .unwrap()
            .unwrap()
    }

    /// The whole kept log.
    pub fn log(&self, document: &str) -> Vec<StoredChange> {
        let after = self.meta(document).log_start;
        match self
            .registry
            .tail(&id(document), after, usize::MAX)
            .now_or_never()
            .unwrap()
            .unwrap()
        {
            Tail::Changes { changes, .. } => changes,
            other => panic!("{other:?}"),
        }
    }

    fn engines(&self) -> Engines {
        let mut engines = Engines::new();
        engines.insert(match &self.validator {
            Some(validator) => validator.clone(),
            None => Arc::new(self.engine.clone()),
        });
        engines
    }

    // ---- time

    /// Moves to the next thing that happens. `None` if nothing ever will.
    pub fn step(&mut self) -> Option<Time> {
        let (at, target) = self.agenda.pop_first()?;
        self.now = self.now.max(at);
        match target {
            Target::Client(client) => self.run_client(client),
            Target::Link(session) => self.run_link(session),
            Target::Room(document) => {
                if let Some(room) = self.rooms.get_mut(&document) {
                    room.handle_timeout(self.now);
                    self.perform_room(&document);
                }
            }
            Target::Call(call) => {
                if let Some(call) = self.calls.remove(&call) {
                    self.run_call(call);
                }
            }
        }
        Some(self.now)
    }

    fn next_time(&self) -> Option<Time> {
        self.agenda.first().map(|(at, _)| *at)
    }

    fn schedule(&mut self, at: Option<Time>, target: Target) {
        if let Some(at) = at {
            self.agenda.insert((at, target));
        }
    }

    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.next_time().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Runs until this is so.
    #[track_caller]
    pub fn run_until(
        &mut self,
        max: Duration,
        what: &str,
        mut is_so: impl FnMut(&mut Self) -> bool,
    ) {
        let end = self.now + max;
        while !is_so(self) {
            // Not after each step: looking costs more than stepping.
            self.run_for(Duration::from_millis(20));
            if self.now > end {
                for (client, it) in self
                    .clients
                    .iter()
                    .enumerate()
                    .filter(|(_, it)| !it.replicas.is_empty())
                {
                    for document in it.replicas.keys() {
                        eprintln!(
                            "client {client}: {:?} {:?} {:?}",
                            it.state.status(),
                            it.state.sync_state(document),
                            it.state.cursor(document)
                        );
                    }
                }
                panic!("not within {max:?}: {what}");
            }
        }
    }

    /// Runs until every client that is online is caught up and has nothing unsaved.
    #[track_caller]
    pub fn settle(&mut self, document: &str) {
        self.run_until(
            Duration::from_secs(300),
            "everybody is caught up and saved",
            |world| {
                world.members(document).iter().all(|client| {
                    let state = world.sync_state(*client, document);
                    state.is_caught_up() && state.is_saved()
                }) && {
                    let head = world.meta(document).head;
                    world.members(document).iter().all(|client| {
                        world
                            .cursor(*client, document)
                            .is_some_and(|c| c.seq == head)
                    })
                }
            },
        );
    }

    pub fn online(&self) -> Vec<usize> {
        (0..self.clients.len())
            .filter(|client| {
                self.clients[*client].online && !self.clients[*client].replicas.is_empty()
            })
            .collect()
    }

    /// Who is online and has the document open.
    pub fn members(&self, document: &str) -> Vec<usize> {
        let mut members = self.online();
        members.retain(|client| self.clients[*client].replicas.contains_key(&id(document)));
        members
    }

    /// Everybody online has the same version, and stands at the registry's head with its digest.
    #[track_caller]
    pub fn assert_converged(&mut self, document: &str) {
        let meta = self.meta(document);
        let online = self.members(document);
        let first = self.version(online[0], document);
        for client in online {
            assert_eq!(self.version(client, document), first, "client {client}");
            let cursor = self.cursor(client, document).unwrap();
            assert_eq!(
                (cursor.epoch, cursor.seq, cursor.digest),
                (meta.epoch, meta.head, meta.digest),
                "client {client}"
            );
        }
    }

    // ---- the machinery

    fn run_client(&mut self, client: usize) {
        self.clients[client].state.handle_timeout(self.now);
        self.run_store(client);
        self.perform_client(client);
        if let Some((_, attempt)) = self.clients[client]
            .dialing
            .take_if(|(at, _)| *at <= self.now)
        {
            self.connect(client, attempt);
        }
    }

    fn run_store(&mut self, client: usize) {
        let it = &mut self.clients[client];
        while let Some((at, document, number, write)) = it.writing.pop_front() {
            if at > self.now {
                it.writing.push_front((at, document, number, write));
                return;
            }
            let engine = write.engine.clone();
            let store = it.store.as_mut().unwrap();
            store
                .entry(document.clone())
                .or_insert_with(|| StoredDocument::new(engine))
                .apply(write);
            it.state.handle_stored(self.now, &document, number);
        }
    }

    fn run_link(&mut self, session: SessionId) {
        while let Some(link) = self.links.get_mut(&session) {
            let Some((_, frame)) = link.up.pop_front_if(|(at, _)| *at <= self.now) else {
                break;
            };
            link.session.handle_frame(self.now, frame);
            self.perform_session(session);
        }
        if let Some(link) = self.links.get_mut(&session)
            && link.session.poll_timeout().is_some_and(|at| at <= self.now)
        {
            link.session.handle_timeout(self.now);
            self.perform_session(session);
        }
        while let Some(link) = self.links.get_mut(&session) {
            let Some((_, frame)) = link.down.pop_front_if(|(at, _)| *at <= self.now) else {
                break;
            };
            let (client, attempt) = (link.client, link.attempt);
            self.clients[client]
                .state
                .handle_frame(self.now, attempt, frame);
            self.perform_client(client);
        }
        if self
            .links
            .get(&session)
            .is_some_and(|link| link.gone_at.is_some_and(|at| at <= self.now))
        {
            self.end_link(session);
        }
        self.schedule_link(session);
    }

    fn schedule_link(&mut self, session: SessionId) {
        let Some(link) = self.links.get(&session) else {
            return;
        };
        let front = |queue: &VecDeque<(Time, Bytes)>| queue.front().map(|(at, _)| *at);
        let times = [
            front(&link.up),
            front(&link.down),
            link.gone_at,
            link.session.poll_timeout(),
        ];
        self.schedule(times.into_iter().flatten().min(), Target::Link(session));
    }

    fn call(&mut self, call: Call) {
        let at = self.soon(self.weather.registry_delay_max);
        let number = self.fresh_id();
        self.calls.insert(number, call);
        self.schedule(Some(at), Target::Call(number));
    }

    fn connect(&mut self, client: usize, attempt: AttemptId) {
        if !self.server_up || !self.clients[client].online {
            self.clients[client]
                .state
                .handle_dial_failed(self.now, attempt, None);
            return self.perform_client(client);
        }
        let session = SessionId(self.fresh_id());
        let mut config = SessionConfig::new(self.limits.clone());
        config.user = Some(self.clients[client].user.clone());
        self.links.insert(
            session,
            Link {
                client,
                attempt,
                session: ServerSession::new(self.now, config, session),
                up: VecDeque::new(),
                down: VecDeque::new(),
                gone_at: None,
                documents: BTreeSet::new(),
            },
        );
        self.schedule_link(session);
        self.clients[client].link = Some(session);
        self.clients[client]
            .state
            .handle_connected(self.now, attempt);
        self.perform_client(client);
    }

    /// Frames on one direction of one connection stay in order.
    fn arrival(&mut self, last: Option<Time>) -> Time {
        let at = self.soon(self.weather.delay_max);
        last.map_or(at, |last| at.max(last))
    }

    /// A time within `max`, on a whole millisecond: what happens together is one step.
    fn soon(&mut self, max: Duration) -> Time {
        let at = self.now + self.rng.up_to(max);
        Time::from_micros(at.as_micros().next_multiple_of(1_000))
    }

    fn perform_client(&mut self, client: usize) {
        while let Some(output) = self.clients[client].state.poll_output() {
            match output {
                Output::Dial(attempt) => {
                    let at = self.soon(self.weather.delay_max);
                    self.clients[client].dialing = Some((at, attempt));
                }
                Output::Send { attempt, frame, .. } => {
                    self.traffic[client]
                        .up
                        .push(decode_frame(frame.clone(), usize::MAX - 1).unwrap());
                    let Some(session) = self.clients[client].link else {
                        continue;
                    };
                    let last = self
                        .links
                        .get(&session)
                        .and_then(|link| link.up.back().map(|(at, _)| *at));
                    let at = self.arrival(last);
                    if let Some(link) = self
                        .links
                        .get_mut(&session)
                        .filter(|link| link.attempt == attempt)
                    {
                        link.up.push_back((at, frame));
                    }
                    self.schedule(Some(at), Target::Link(session));
                }
                Output::Hangup { attempt, .. } => {
                    let it = &mut self.clients[client];
                    it.dialing.take_if(|(_, dialing)| *dialing == attempt);
                    let links = &self.links;
                    if let Some(session) = it.link.take_if(|session| {
                        links
                            .get(session)
                            .is_some_and(|link| link.attempt == attempt)
                    }) {
                        self.leave(session);
                    }
                }
                Output::Job {
                    document,
                    number,
                    job,
                } => self.run_job(client, &document, number, &job),
                Output::DocumentEvent { document, event } => {
                    self.clients[client].events.push((document, event));
                }
                Output::Store {
                    document,
                    number,
                    write,
                } => {
                    let last = self.clients[client].writing.back().map(|(at, ..)| *at);
                    let at = self.soon(self.weather.registry_delay_max);
                    let at = last.map_or(at, |last| at.max(last));
                    self.clients[client]
                        .writing
                        .push_back((at, document, number, *write));
                }
                _ => {}
            }
        }
        let it = &self.clients[client];
        let dialing = it.dialing.map(|(at, _)| at);
        let writing = it.writing.front().map(|(at, ..)| *at);
        let next = it
            .state
            .poll_timeout()
            .into_iter()
            .chain(dialing)
            .chain(writing)
            .min();
        self.schedule(next, Target::Client(client));
    }

    fn run_job(&mut self, client: usize, document: &DocumentId, number: u64, job: &Job) {
        let it = &mut self.clients[client];
        let Some(replica) = it.replicas.get_mut(document) else {
            return;
        };
        let state = std::cell::RefCell::new(&mut it.state);
        let outcome = replica.run(
            job,
            || state.borrow().outbox_bytes(document),
            || state.borrow_mut().take_for_replacement(document),
        );
        let outcome = outcome.unwrap();
        let drained = replica.drain();
        assert!(
            drained.main.local.is_empty(),
            "an import never comes out as a local change"
        );
        it.state.handle_job(self.now, document, number, outcome);
    }

    fn perform_session(&mut self, session: SessionId) {
        while let Some(output) = self
            .links
            .get_mut(&session)
            .and_then(|link| link.session.poll_output())
        {
            match output {
                SessionOutput::Send(frame) => self.send_down(session, frame),
                SessionOutput::Authenticate(_) => panic!("the user is given"),
                SessionOutput::Authorize { request, .. } => {
                    let link = self.links.get_mut(&session).unwrap();
                    link.session
                        .handle_authorized(self.now, request, Ok(AccessLevel::Write));
                }
                SessionOutput::Join(join) => {
                    let document = join.document.clone();
                    self.room(&document);
                    let room = self.rooms.get_mut(&document).unwrap();
                    let link = self.links.get_mut(&session).unwrap();
                    link.session
                        .handle_joined(self.now, document.clone(), room.channel());
                    link.documents.insert(document.clone());
                    room.handle_open(self.now, session, join.open).unwrap();
                    self.perform_room(&document);
                }
                SessionOutput::Push(push) => {
                    if let Some(document) = self.channels.get(&push.channel).cloned()
                        && let Some(room) = self.rooms.get_mut(&document)
                    {
                        room.handle_push(self.now, session, push);
                        self.perform_room(&document);
                    }
                }
                SessionOutput::Leave(channel) => {
                    if let Some(document) = self.channels.get(&channel).cloned()
                        && let Some(room) = self.rooms.get_mut(&document)
                    {
                        room.handle_close(self.now, session);
                        self.perform_room(&document);
                    }
                }
                SessionOutput::Heads { nonce } => {
                    self.pings += 1;
                    let link = self.links.get_mut(&session).unwrap();
                    let heads: Vec<(Channel, Seq)> = link
                        .session
                        .channels()
                        .filter_map(|(channel, document)| {
                            Some((channel, self.rooms.get(document)?.head_for(session)?))
                        })
                        .collect();
                    link.session.handle_heads(self.now, nonce, heads);
                }
                SessionOutput::Event(SessionEvent::Opened {
                    user,
                    origin,
                    connection,
                }) => {
                    self.take_over((origin, user), connection, session);
                }
                SessionOutput::Event(_) => {}
                SessionOutput::Close { code, .. } => {
                    if let Some(link) = self.links.get(&session) {
                        let (client, attempt, here) =
                            (link.client, link.attempt, link.gone_at.is_none());
                        self.end_link(session);
                        if here {
                            self.clients[client].link = None;
                            self.clients[client]
                                .state
                                .handle_lost(self.now, attempt, Some(code));
                            self.perform_client(client);
                        }
                    }
                }
                _ => {}
            }
        }
    }

    /// Protocol 6.2.
    fn take_over(&mut self, owner: (OriginId, User), connection: u64, session: SessionId) {
        let older = match self.owners.get(&owner).copied() {
            Some((theirs, _)) if theirs > connection => session,
            other => {
                self.owners.insert(owner, (connection, session));
                let Some((_, older)) = other else { return };
                older
            }
        };
        if let Some(link) = self.links.get_mut(&older) {
            link.up.clear();
            let error = PeerError::new(ErrorCode::Superseded, "a newer connection took over");
            link.session.handle_end(self.now, error);
        }
        self.perform_session(older);
    }

    fn end_link(&mut self, session: SessionId) {
        let Some(link) = self.links.remove(&session) else {
            return;
        };
        self.owners.retain(|_, (_, owner)| *owner != session);
        for document in link.documents {
            if let Some(room) = self.rooms.get_mut(&document) {
                room.handle_close(self.now, session);
                self.perform_room(&document);
            }
        }
    }

    fn send_down(&mut self, session: SessionId, frame: Bytes) {
        let Some(link) = self.links.get(&session) else {
            return;
        };
        let (client, last, here) = (
            link.client,
            link.down.back().map(|(at, _)| *at),
            link.gone_at.is_none(),
        );
        if !here {
            return;
        }
        self.traffic[client]
            .down
            .push(decode_frame(frame.clone(), usize::MAX - 1).unwrap());
        let at = self.arrival(last.map(|last| last + self.trickle));
        if let Some(link) = self.links.get_mut(&session) {
            link.down.push_back((at, frame));
        }
        self.schedule(Some(at), Target::Link(session));
    }

    fn room(&mut self, document: &DocumentId) {
        if !self.rooms.contains_key(document) {
            let channel = Channel(u32::try_from(self.fresh_id()).unwrap());
            let mut config =
                RoomConfig::new(self.limits.clone(), self.engines(), self.rng.next_u64());
            let (changes, keep) = self.folding.unwrap_or((u64::MAX, 0));
            config.fold_changes = changes;
            config.fold_bytes = usize::MAX;
            config.keep_bytes = keep;
            config.snapshot_piece_bytes = self.piece_bytes;
            config.keep_age = Duration::ZERO;
            self.rooms.insert(
                document.clone(),
                Room::new(document.clone(), channel, config),
            );
            self.channels.insert(channel, document.clone());
        }
    }

    fn perform_room(&mut self, document: &DocumentId) {
        while let Some(output) = self.rooms.get_mut(document).and_then(Room::poll_output) {
            match output {
                RoomOutput::Registry(number, request) => {
                    self.call(Call {
                        document: document.clone(),
                        number,
                        step: Step::Execute(request),
                    });
                }
                RoomOutput::Fold(request) => {
                    let folded = self.fold(document, &request);
                    if let Some(room) = self.rooms.get_mut(document) {
                        room.handle_folded(self.now, folded);
                    }
                }
                RoomOutput::Wake(session) => self.poll_member(document, session),
                RoomOutput::Settled(session, charge) => {
                    if let Some(link) = self.links.get_mut(&session) {
                        link.session.handle_settled(charge);
                    }
                }
                RoomOutput::Unloaded => {
                    if let Some(room) = self.rooms.remove(document) {
                        self.channels.remove(&room.channel());
                    }
                }
                _ => {}
            }
        }
        let next = self.rooms.get(document).and_then(Room::poll_timeout);
        self.schedule(next, Target::Room(document.clone()));
    }

    /// At once: what takes time is the compaction that follows.
    fn fold(&self, document: &DocumentId, request: &FoldRequest) -> Result<FoldedLog, FoldError> {
        let meta = self.meta(document.as_str());
        if meta.epoch != request.epoch {
            return Err(FoldError::HistoryReplaced);
        }
        let snapshot = self.registry.snapshot(document).now_or_never().unwrap();
        let snapshot = snapshot.unwrap();
        let from = snapshot.as_ref().map_or(Seq::ZERO, |snapshot| snapshot.seq);
        if from > request.after {
            return Err(FoldError::Newer { seq: from });
        }
        let mut rows = self.log(document.as_str());
        rows.retain(|row| row.seq <= request.through);
        let new = rows.iter().filter(|row| row.seq > from);
        let changes: Vec<_> = new.map(|row| row.bytes.clone()).collect();
        let engines = self.engines();
        let folder = engines.validator(&request.engine).flatten().unwrap();
        let bytes = folder
            .folder()
            .unwrap()
            .fold(snapshot.as_ref().map(|found| &*found.bytes), &changes)
            .map_err(FoldError::Engine)?;
        let digest = rows.last().unwrap().digest;
        Ok(FoldedLog::new(
            Snapshot::new(request.through, digest, bytes),
            rows.iter().map(|row| row.bytes.len()).collect(),
        ))
    }

    fn poll_member(&mut self, document: &DocumentId, session: SessionId) {
        let now = self.now;
        while let Some(output) = self
            .rooms
            .get_mut(document)
            .and_then(|room| room.poll_member(now, session))
        {
            match output {
                MemberOutput::Frame(frame) => self.send_down(session, frame),
                MemberOutput::Settled(charge) => {
                    if let Some(link) = self.links.get_mut(&session) {
                        link.session.handle_settled(charge);
                    }
                }
                MemberOutput::Left => {
                    let channel = self.rooms[document].channel();
                    if let Some(link) = self.links.get_mut(&session) {
                        link.documents.remove(document);
                        link.session.handle_left(now, channel);
                    }
                }
                _ => {}
            }
        }
        self.perform_session(session);
    }

    fn run_call(&mut self, call: Call) {
        match call.step {
            Step::Execute(request) => {
                let answer = self.execute(&call.document, request);
                self.call(Call {
                    step: Step::Answer(answer),
                    ..call
                });
            }
            Step::Answer(answer) => {
                if let Some(room) = self.rooms.get_mut(&call.document) {
                    room.handle_registry(self.now, call.number, answer);
                    self.perform_room(&call.document);
                }
            }
        }
    }

    fn execute(&self, document: &DocumentId, request: RegistryRequest) -> RegistryAnswer {
        let registry = &self.registry;
        let call = async {
            match request {
                RegistryRequest::Create(new) => RegistryAnswer::Create(registry.create(new).await),
                RegistryRequest::Meta => RegistryAnswer::Meta(registry.meta(document).await),
                RegistryRequest::Append { epoch, changes } => {
                    RegistryAnswer::Append(registry.append(document, epoch, None, changes).await)
                }
                RegistryRequest::Tail { after, max_bytes } => {
                    RegistryAnswer::Tail(registry.tail(document, after, max_bytes).await)
                }
                RegistryRequest::Compact {
                    epoch,
                    snapshot,
                    keep_after,
                } => RegistryAnswer::Compact(
                    registry
                        .compact(document, epoch, snapshot, keep_after)
                        .await,
                ),
                RegistryRequest::Snapshot => {
                    RegistryAnswer::Snapshot(registry.snapshot(document).await)
                }
                RegistryRequest::Origins(origins) => {
                    RegistryAnswer::Origins(registry.origins(document, &origins).await)
                }
                other => panic!("{other:?}"),
            }
        };
        call.now_or_never().unwrap()
    }

    pub fn status(&self, client: usize) -> Status {
        self.clients[client].state.status()
    }
}
