//! A deterministic world: the machines of clients and of a server's nodes, the registry that the nodes share, and a network
//! that delays, cuts and doubles connections, all under virtual time and from one seed. No runtime, no threads.
//!
//! What happens is in a file for each concern: on the network `links` and `writing`, on the server `sessions`, `rooms`,
//! `calls`, `check` and `nodes`, on devices `clients` and `devices`. What a test, or a plan, has people do is a method of
//! [`World`] in `acts`, `devices`, `network`, `nodes`, `operator` and `ephemeral`; what goes wrong by itself is drawn from
//! [`Weather`] and [`RegistryFaults`].

mod acts;
mod calls;
mod check;
mod checks;
mod clients;
mod devices;
mod ephemeral;
mod faults;
mod links;
pub mod maps;
mod memory;
mod network;
mod nodes;
mod operator;
pub mod permits;
mod registry;
mod rooms;
mod sessions;
mod weather;
mod witness;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sync_core::engine::{Engine, Validator};
use sync_core::ids::{DocumentId, SessionId};
use sync_core::limits::{Limits, SNAPSHOT_PIECE_BYTES};
use sync_core::planted::Bug;
use sync_core::rng::Rng;
use sync_core::time::Time;
use sync_core::wire::Message;
use sync_server::registry::MemoryRegistry;
use tokio::runtime::{Builder, Runtime};

use calls::Call;
pub use clients::SimClient;
pub use devices::{Store, WallClock};
pub use faults::{BuggyRegistry, CrashPoint, DriverBug, RegistryBug, RegistryFaults};
use links::Link;
use nodes::Node;
pub use operator::{Restored, TrimFailed};
pub use registry::{WorldRegistry, in_memory};
pub use weather::{CALM, Hints, ROUGH, Weather};

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
    /// How calls of the registry fail from now on.
    pub faults: RegistryFaults,
    /// Where the server keeps its documents.
    pub registry: Arc<dyn WorldRegistry>,
    /// By the index that [`add_client`](Self::add_client) returns.
    pub clients: Vec<SimClient<E>>,
    /// Of the sessions and rooms that begin from now on.
    pub limits: Limits,
    /// Messages that each client sent and was sent, unless [`keeps_traffic`](Self::keeps_traffic) says otherwise.
    pub traffic: Vec<Traffic>,
    /// Whether messages are kept. Default yes.
    pub keeps_traffic: bool,
    /// What checks changes on the server, if it is not the engine itself.
    pub validator: Option<Arc<dyn Validator>>,
    /// Whether the server's nodes check changes against what the document holds, where the engine can. Default no.
    pub checks: bool,
    /// If the server folds: from how many changes on, and how many bytes of the log it keeps.
    pub folding: Option<(u64, usize)>,
    /// Bytes of a snapshot in one message.
    pub piece_bytes: usize,
    /// Each frame from the server arrives so much later than the one before it: cuts then hit among them.
    pub trickle: Duration,
    /// Bytes of recent frames that a room keeps.
    pub ring_bytes: usize,
    /// Bytes of the log that a room reads at once for somebody behind that.
    pub catch_up_bytes: usize,
    /// Whether clients, or servers, may break the protocol: otherwise that ends the run.
    pub takes_nonsense: bool,
    /// A bug in the machines that begin from now on, for a test to find.
    pub planted: Option<Bug>,
    /// A bug in what drives them.
    pub driver_bug: Option<DriverBug>,
    /// What users may do.
    pub permits: permits::Permits,
    /// How often each thing has happened, by its kind and name: every message, every fault, every reason to close.
    pub counts: BTreeMap<(&'static str, &'static str), u64>,
    engine: E,
    nodes: Vec<Node>,
    links: BTreeMap<SessionId, Link>,
    calls: BTreeMap<u64, Call>,
    /// When something may happen to whom. Some are out of date: then nothing comes of it.
    agenda: BTreeSet<(Time, Target)>,
    next_id: u64,
    /// Pings that sessions answered.
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

/// What has its turn; a node's number first where it concerns one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Client(usize),
    Link(SessionId),
    Room(usize, DocumentId),
    Call(u64),
    /// A node looks at the heads of its documents.
    Heads(usize),
    /// A node that drains goes on doing so.
    Drain(usize),
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
            faults: RegistryFaults::default(),
            registry,
            clients: Vec::new(),
            limits: Limits::default(),
            traffic: Vec::new(),
            keeps_traffic: true,
            validator: None,
            checks: false,
            folding: None,
            piece_bytes: SNAPSHOT_PIECE_BYTES,
            trickle: Duration::ZERO,
            ring_bytes: 1024 * 1024,
            catch_up_bytes: 256 * 1024,
            takes_nonsense: false,
            planted: None,
            driver_bug: None,
            permits: permits::Permits::default(),
            counts: BTreeMap::new(),
            engine,
            nodes: vec![Node::new()],
            links: BTreeMap::new(),
            calls: BTreeMap::new(),
            agenda: BTreeSet::new(),
            next_id: 1,
            pings: 0,
        }
    }

    fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Notes that something has happened.
    pub fn count(&mut self, kind: &'static str, name: &'static str) {
        *self.counts.entry((kind, name)).or_default() += 1;
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.rng.next_u64() % n
    }

    /// Whether something happens that does so many times in a thousand.
    fn happens(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.below(1_000) < per_mille
    }

    /// Moves to the next thing that happens. `None` if nothing ever will.
    pub fn step(&mut self) -> Option<Time> {
        let (at, target) = self.agenda.pop_first()?;
        self.now = self.now.max(at);
        match target {
            Target::Client(client) => self.run_client(client),
            Target::Link(session) => self.run_link(session),
            Target::Room(node, document) => self.run_room(node, &document),
            Target::Call(call) => {
                if let Some(call) = self.calls.remove(&call) {
                    self.run_call(call);
                }
            }
            Target::Heads(node) => self.run_heads(node),
            Target::Drain(node) => self.go_on_draining(node),
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
