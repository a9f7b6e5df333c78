//! The server: its settings, its sessions, its rooms, and how it ends.

mod admission;
mod budget;
mod builder;
mod clock;
mod committed;
mod connection;
mod ephemeral;
mod fold;
mod hooks;
mod identify;
mod line;
mod listener;
mod mailbox;
mod nodes;
mod operator;
mod permission;
mod rooms;
mod statistics;
mod trim;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sync_core::error::{ErrorCode, PeerError};
use sync_core::events::Events;
#[cfg(feature = "http")]
use sync_core::ids::DocumentId;
use sync_core::ids::{OriginId, ResumeToken, SessionId, User};
use sync_core::rng::Rng;
use sync_core::server::{HeadsConfig, RoomConfig, SessionConfig};
use sync_core::transport::{PeerInfo, Transport};
use tokio::sync::{Notify, Semaphore, watch};

use self::admission::Addresses;
use self::budget::Budgets;
pub use self::builder::{BuildError, ServerBuilder};
use self::clock::Clock;
use self::connection::Connection;
pub use self::ephemeral::SendError;
pub use self::fold::ReadError;
use self::hooks::Hooks;
pub use self::listener::{ListenError, Listener};
use self::mailbox::Mailbox;
use self::nodes::Nodes;
use self::permission::Doubts;
use self::rooms::{Rooms, superseded};
pub use self::trim::{Horizon, TrimError, Trimmed};
#[cfg(feature = "http")]
use crate::auth::ConnectRequest;
use crate::auth::{Auth, Identity};
use crate::engine_host::Host;
use crate::event::ServerEvent;
use crate::registry::ServerRegistry;
use crate::stats::{CountedEvents, RegistryCalls};

/// Events that a subscriber may be behind.
const EVENTS_MAX: usize = 1024;

/// How long sessions and rooms may take to end after they have been told to.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// A sync server: documents in a registry, served to clients over any transport. Cheap to clone.
///
/// Whatever serves ([`listen_websocket`](Self::listen_websocket), [`listen`](Self::listen), [`serve`](Self::serve))
/// runs on tokio, with its time enabled. Dropping all handles stops nothing that is being served; see
/// [`shutdown`](Self::shutdown).
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use sync_server::{Anonymous, MemoryRegistry, Server};
///
/// let server = Server::builder(MemoryRegistry::new(), Anonymous::read_write()).build()?;
/// # #[cfg(feature = "websocket")]
/// server.listen_websocket("127.0.0.1:8080").await?.wait().await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

/// What the server's tasks share.
struct Shared {
    registry: Arc<dyn ServerRegistry>,
    auth: Auth,
    room_config: RoomConfig,
    gzip: bool,
    clock: Clock,
    rng: Mutex<Rng>,
    events: CountedEvents,
    /// Errors that clients were told, but for those that rooms count.
    session_errors: Mutex<BTreeMap<ErrorCode, u64>>,
    calls: RegistryCalls,
    sessions: Mutex<Sessions>,
    /// Told whenever a session ends.
    session_ended: Notify,
    rooms: Rooms,
    /// `None`: nobody else writes to the registry.
    nodes: Option<Nodes>,
    budgets: Budgets,
    doubts: Doubts,
    /// Folds that may go on at once.
    folds: Semaphore,
    /// Documents that checks may load at once.
    loads: Semaphore,
    host: Host,
    hooks: Hooks,
    phase: watch::Sender<Phase>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("n_sessions", &lock(&self.sessions).live.len())
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// New connections are turned away.
    Draining,
    /// Nobody is served any more.
    Closing,
}

#[derive(Debug, Default)]
struct Sessions {
    live: HashMap<SessionId, Arc<Mailbox>>,
    /// The session of each client process, and which of its connections that is; a newer one ends it.
    by_client: HashMap<(OriginId, User), (u64, SessionId)>,
    /// Where those that are live come from.
    addresses: Addresses,
    /// How many sessions each user has.
    users: HashMap<User, u64>,
    /// Connections so far.
    n_admitted: u64,
    /// Bytes received and sent on connections that have ended.
    ended_bytes: (u64, u64),
}

impl Sessions {
    /// One session less of this user.
    fn forget_user(&mut self, user: &User) {
        if let Some(n) = self.users.get_mut(user) {
            *n -= 1;
            if *n == 0 {
                self.users.remove(user);
            }
        }
    }
}

impl Shared {
    fn new(
        registry: Arc<dyn ServerRegistry>,
        auth: Auth,
        host: Host,
        hooks: Hooks,
        mut room_config: RoomConfig,
        gzip: bool,
        heads_poll: Duration,
        mut rng: Rng,
    ) -> Self {
        let nodes = registry.is_shared().then(|| {
            let mut config = HeadsConfig::new(rng.next_u64());
            config.interval = heads_poll;
            Nodes::new(config)
        });
        room_config.is_shared = nodes.is_some();
        room_config.engines = host.engines();
        room_config.asks = !hooks.is_empty();
        let budgets = Budgets::new(&room_config.limits);
        Self {
            registry,
            auth,
            host,
            hooks,
            room_config,
            gzip,
            clock: Clock::start(),
            rng: Mutex::new(rng),
            events: CountedEvents::new(EVENTS_MAX),
            session_errors: Mutex::default(),
            calls: RegistryCalls::new(),
            sessions: Mutex::default(),
            session_ended: Notify::new(),
            rooms: Rooms::default(),
            nodes,
            budgets,
            doubts: Doubts::default(),
            folds: Semaphore::new(fold::FOLDS_MAX),
            loads: Semaphore::new(fold::LOADS_MAX),
            phase: watch::Sender::new(Phase::Serving),
        }
    }

    fn session_config(&self, user: Option<User>) -> SessionConfig {
        let mut config = SessionConfig::new(self.room_config.limits.clone());
        config.gzip = self.gzip;
        config.user = user;
        config.resume_token = resume_token();
        config.start_wall_ms = self.clock.start_wall_ms();
        config
    }

    /// Makes a session; with the reason why it is to end at once, if it is.
    fn admit(&self, peer: &PeerInfo) -> (Arc<Mailbox>, Option<PeerError>) {
        let mut sessions = lock(&self.sessions);
        let refusal = if *self.phase.borrow() > Phase::Serving {
            Some(shutting_down())
        } else {
            let n = sessions.live.len();
            let limits = &self.room_config.limits;
            sessions.addresses.enter(peer, n, limits).err()
        };
        let mut rng = lock(&self.rng);
        let id = loop {
            let id = SessionId(rng.next_u64());
            if !sessions.live.contains_key(&id) {
                break id;
            }
        };
        drop(rng);
        let mailbox = Arc::new(Mailbox::new(id));
        sessions.n_admitted += 1;
        // One that is turned away needs no place: it ends before anybody could want to reach it.
        if refusal.is_none() {
            sessions.live.insert(id, Arc::clone(&mailbox));
        }
        (mailbox, refusal)
    }

    /// Makes this the session of its client, unless a newer one is there already; the older one ends (protocol 6.2).
    fn take_over(&self, session: SessionId, client: (OriginId, User), connection: u64) {
        let mut sessions = lock(&self.sessions);
        *sessions.users.entry(client.1.clone()).or_default() += 1;
        let older = match sessions.by_client.get(&client) {
            Some((theirs, _)) if *theirs > connection => Some(session),
            _ => sessions
                .by_client
                .insert(client, (connection, session))
                .map(|(_, older)| older),
        };
        if let Some(older) = older.and_then(|older| sessions.live.get(&older)) {
            older.end(superseded());
        }
    }

    fn dismiss(&self, session: SessionId, peer: &PeerInfo, client: Option<(OriginId, User)>) {
        let mut sessions = lock(&self.sessions);
        if let Some(mailbox) = sessions.live.remove(&session) {
            sessions.addresses.leave(peer);
            let (bytes_in, bytes_out) = mailbox.traffic.bytes();
            sessions.ended_bytes.0 += bytes_in;
            sessions.ended_bytes.1 += bytes_out;
        }
        if let Some(client) = client {
            sessions.forget_user(&client.1);
            if sessions
                .by_client
                .get(&client)
                .is_some_and(|(_, owner)| *owner == session)
            {
                sessions.by_client.remove(&client);
            }
        }
        drop(sessions);
        self.session_ended.notify_waiters();
    }

    fn settle(&self, session: SessionId, charge: usize) {
        if let Some(mailbox) = lock(&self.sessions).live.get(&session) {
            mailbox.settle(charge);
        }
    }

    fn is_closing(&self) -> bool {
        *self.phase.borrow() == Phase::Closing
    }

    fn mailboxes(&self) -> Vec<Arc<Mailbox>> {
        lock(&self.sessions).live.values().cloned().collect()
    }

    /// Waits until no session is left, or the time is over.
    async fn sessions_ended(&self, within: Duration) {
        let ended = async {
            loop {
                let next = self.session_ended.notified();
                tokio::pin!(next);
                next.as_mut().enable();
                if lock(&self.sessions).live.is_empty() {
                    return;
                }
                next.await;
            }
        };
        // Those that take longer are left to themselves.
        let _ = tokio::time::timeout(within, ended).await;
    }

    async fn rooms_ended(&self, within: Duration) {
        let ended = async {
            loop {
                let next = self.rooms.ended.notified();
                tokio::pin!(next);
                next.as_mut().enable();
                if self.rooms.is_empty() {
                    return;
                }
                self.rooms.wake_all();
                next.await;
            }
        };
        let _ = tokio::time::timeout(within, ended).await;
    }
}

impl Server {
    /// Settings of a server that keeps its documents in `registry` and lets in whom `auth` says.
    pub fn builder(registry: impl ServerRegistry, auth: Auth) -> ServerBuilder {
        ServerBuilder::new(registry, auth)
    }

    fn new(shared: Shared) -> Self {
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Serves one connection until it ends.
    ///
    /// # Cancellation
    /// Dropping the future ends the session; its documents are left, and what it had pushed is appended.
    pub fn serve(
        &self,
        transport: impl Transport,
        peer: PeerInfo,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.serve_with(transport, peer, None)
    }

    /// Serves one connection whose user is known, because something in front of this server has found out. Its
    /// credentials are not looked at.
    ///
    /// # Cancellation
    /// As for [`serve`](Self::serve).
    pub fn serve_as(
        &self,
        transport: impl Transport,
        peer: PeerInfo,
        user: User,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.serve_with(transport, peer, Some(user.into()))
    }

    pub(crate) fn serve_with<T: Transport>(
        &self,
        transport: T,
        peer: PeerInfo,
        known: Option<Identity>,
    ) -> impl Future<Output = ()> + Send + use<T> + 'static {
        let shared = Arc::clone(&self.shared);
        async move { Connection::new(shared, transport, peer, known).run().await }
    }

    /// Asks who somebody is whose request came with credentials.
    #[cfg(feature = "http")]
    pub(crate) async fn identify(&self, request: ConnectRequest) -> Result<Identity, PeerError> {
        Arc::clone(&self.shared).identify_in_time(request).await
    }

    /// Whether new connections are served.
    #[cfg(feature = "http")]
    pub(crate) fn is_serving(&self) -> bool {
        *self.shared.phase.borrow() == Phase::Serving
    }

    /// Resolves when new connections are turned away.
    #[cfg(feature = "http")]
    pub(crate) fn draining(&self) -> impl Future<Output = ()> + Send + use<> + 'static {
        let mut phase = self.shared.phase.subscribe();
        async move {
            // If nobody tells any more, there is no server either.
            let _ = phase.wait_for(|phase| *phase > Phase::Serving).await;
        }
    }

    /// Asks the registry something that costs it little.
    #[cfg(feature = "http")]
    pub(crate) async fn registry_answers(&self) -> Result<(), crate::registry::RegistryError> {
        let nobodys: Vec<_> = DocumentId::new("readyz").into_iter().collect();
        self.shared.registry.heads(&nobodys).await.map(drop)
    }

    /// What happens on this server from now on.
    #[must_use]
    pub fn events(&self) -> Events<ServerEvent> {
        self.shared.events.subscribe()
    }

    /// Ends everything in order: listeners stop; clients are told to connect again somewhere within `drain`, which is
    /// how long they have to leave by themselves; then every session is closed with a code that says "try again",
    /// appends under way are finished, and the registry is closed.
    ///
    /// Sessions and appends that do not end within some seconds are left behind. Nothing acknowledged is lost, whatever
    /// happens. A second call waits for the same.
    ///
    /// # Cancellation
    /// Dropping the future leaves the server turning new connections away.
    pub async fn shutdown(&self, drain: Duration) {
        let shared = &self.shared;
        shared
            .phase
            .send_modify(|phase| *phase = (*phase).max(Phase::Draining));
        for mailbox in shared.mailboxes() {
            mailbox.go_away(drain);
        }
        shared.sessions_ended(drain).await;
        shared.phase.send_modify(|phase| *phase = Phase::Closing);
        for mailbox in shared.mailboxes() {
            mailbox.end(shutting_down());
        }
        shared.sessions_ended(END_TIMEOUT).await;
        shared.rooms_ended(END_TIMEOUT).await;
        if let Err(error) = shared.registry.close().await {
            tracing::error!(%error, "the registry could not be closed in order");
        }
    }
}

/// Without randomness there is none: then nobody can come back as the same.
fn resume_token() -> Option<ResumeToken> {
    let mut bytes = [0; ResumeToken::BYTES];
    getrandom::fill(&mut bytes).ok()?;
    Some(ResumeToken::new(bytes))
}

fn shutting_down() -> PeerError {
    PeerError::new(ErrorCode::ShuttingDown, "the server is shutting down")
}

/// Nothing is left half-changed by a panic under these locks: all of it is bookkeeping that is put in place at once.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
