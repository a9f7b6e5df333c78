//! A deterministic world: the machines of clients and of a server, a registry in memory, and a network that delays, cuts
//! and doubles connections, all under virtual time and from one seed. No runtime, no threads.

mod checks;
mod clients;
mod links;
pub mod maps;
pub mod permits;
mod registry;
mod server;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sync_core::client::{
    AttemptId, ClientState, DocumentEvent, Replica, StoreWrite, StoredDocument,
};
use sync_core::engine::{Engine, Validator};
use sync_core::error::PeerError;
use sync_core::ids::{Channel, DocumentId, OriginId, SessionId, User};
use sync_core::limits::{Limits, SNAPSHOT_PIECE_BYTES};
use sync_core::rng::Rng;
use sync_core::server::{
    Grant, RegistryAnswer, RegistryRequest, RequestNumber, Room, ServerSession,
};
use sync_core::time::Time;
use sync_core::wire::Message;
use sync_server::registry::MemoryRegistry;
use tokio::runtime::{Builder, Runtime};

pub use registry::WorldRegistry;

/// Waits for a registry. Time in a world stands still meanwhile.
pub fn wait<T>(call: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(call))
}

/// The document of this name.
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

/// Everything is quick.
pub const CALM: Weather = Weather {
    delay_max: Duration::from_millis(10),
    registry_delay_max: Duration::from_millis(2),
    linger_max: Duration::ZERO,
};

/// Everything takes its time, and nobody notices that anybody is gone.
pub const ROUGH: Weather = Weather {
    delay_max: Duration::from_millis(300),
    registry_delay_max: Duration::from_millis(50),
    linger_max: Duration::from_secs(20),
};

/// Runs it with the seeds from 1 on, as many as this environment variable says, or else the usual number.
pub fn run_seeds(setting: &str, usual: u64, run: fn(u64)) {
    let seeds = std::env::var(setting).map_or(usual, |seeds| seeds.parse().unwrap());
    for seed in 1..=seeds {
        println!("seed {seed}");
        run(seed);
    }
}

/// Clients, a server and a network between them. See the module.
pub struct World<E: Engine + Validator> {
    /// What time it is.
    pub now: Time,
    /// Where all chance comes from.
    pub rng: Rng,
    /// How the network behaves from now on.
    pub weather: Weather,
    /// Where the server keeps its documents.
    pub registry: Arc<dyn WorldRegistry>,
    /// By the index that [`add_client`](Self::add_client) returns.
    pub clients: Vec<SimClient<E>>,
    /// Of the sessions and rooms that begin from now on.
    pub limits: Limits,
    /// Messages that each client sent and was sent.
    pub traffic: Vec<Traffic>,
    /// What checks changes on the server, if it is not the engine itself.
    pub validator: Option<Arc<dyn Validator>>,
    /// If the server folds: from how many changes on, and how many bytes of the log it keeps.
    pub folding: Option<(u64, usize)>,
    /// Bytes of a snapshot in one message.
    pub piece_bytes: usize,
    /// Each frame from the server arrives so much later than the one before it: cuts then hit among them.
    pub trickle: Duration,
    /// What users may do.
    pub permits: permits::Permits,
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
    /// Pings that sessions sent.
    pub pings: u64,
}

/// What a client sent and was sent.
#[derive(Debug, Clone, Default)]
pub struct Traffic {
    /// By the client.
    pub up: Vec<Message>,
    /// By the server, delivered or not.
    pub down: Vec<Message>,
}

/// A client's process, and its device.
#[derive(Debug)]
pub struct SimClient<E: Engine> {
    /// The machine.
    pub state: ClientState,
    /// Of the documents that are open.
    pub replicas: BTreeMap<DocumentId, Replica<E>>,
    /// Everything that happened to its documents.
    pub events: Vec<(DocumentId, DocumentEvent)>,
    /// Whether it can reach the server.
    pub online: bool,
    /// What survives the process, if it has a store.
    pub store: Option<BTreeMap<DocumentId, StoredDocument>>,
    /// Writes that the store has not carried out.
    writing: VecDeque<(Time, DocumentId, u64, StoreWrite)>,
    user: User,
    link: Option<SessionId>,
    dialing: Option<(Time, AttemptId)>,
}

#[derive(Debug)]
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

#[derive(Debug)]
struct Call {
    document: DocumentId,
    number: RequestNumber,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Execute(RegistryRequest),
    Answer(RegistryAnswer),
    /// What a user may do: asked, and said.
    Ask(User),
    Said(Result<Grant, PeerError>),
}

impl<E: Engine + Validator> fmt::Debug for World<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("now", &self.now)
            .field("clients", &self.clients.len())
            .finish_non_exhaustive()
    }
}

impl<E: Engine + Validator> World<E> {
    /// A world with nobody in it, and a registry in memory.
    pub fn new(seed: u64, engine: E, weather: Weather) -> Self {
        Self::on(Arc::new(MemoryRegistry::new()), seed, engine, weather)
    }

    /// A world with nobody in it, on this registry.
    pub fn on(registry: Arc<dyn WorldRegistry>, seed: u64, engine: E, weather: Weather) -> Self {
        Self {
            now: Time::from_micros(1),
            rng: Rng::new(u128::from(seed) * 0x1_0000_0001),
            weather,
            registry,
            clients: Vec::new(),
            limits: Limits::default(),
            traffic: Vec::new(),
            validator: None,
            folding: None,
            piece_bytes: SNAPSHOT_PIECE_BYTES,
            trickle: Duration::ZERO,
            permits: permits::Permits::default(),
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

    /// Moves on by so much.
    pub fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.next_time().is_some_and(|at| at <= end) {
            self.step();
        }
        self.now = end;
    }

    /// Runs until this is so.
    ///
    /// # Panics
    ///
    /// If it takes longer than `max`.
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

    /// A time within `max`, on a whole millisecond: what happens together is one step.
    fn soon(&mut self, max: Duration) -> Time {
        let at = self.now + self.rng.up_to(max);
        Time::from_micros(at.as_micros().next_multiple_of(1_000))
    }
}
