//! A server and clients through their public APIs, over a network in memory that tests can break, or over WebSockets.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test binary uses its own part"
)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "test harness")]

pub mod frames;
pub mod proxy;
pub mod slow;
pub mod tap;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sync_client::transport::memory::MemoryNetwork;
use sync_client::transport::{Dialer, WebSocketDialer};
use sync_client::yrs::{GetString, Text, TransactionMut, WriteTxn};
use sync_client::{Client, ClientBuilder, DocumentHandle, LwwMap, Status, SyncState, Typed, Yrs};
use sync_server::registry::{DocumentId, FaultyRegistry, Seq, ServerRegistry, StoredChange, Tail};
use sync_server::{Anonymous, Auth, Listener, Server, ServerBuilder};

use tap::Tap;

use crate::registries::{Registry, registry};

pub type Map = Typed<LwwMap<String, String>>;

/// How clients reach the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Memory,
    WebSocket,
}

/// Runs a scenario in memory under virtual time, the same with a registry on disk, and over real WebSockets.
///
/// The scenario is given its [`World`], or what another function makes of [`Over`]: `scenario(super::function)`.
#[macro_export]
macro_rules! both {
    ($(#[$doc:meta])* $name:ident => $scenario:ident) => {
        $crate::both! { $(#[$doc])* $name => $scenario($crate::e2e::World::new) }
    };
    ($(#[$doc:meta])* $name:ident => $scenario:ident($world:path)) => {
        mod $name {
            $(#[$doc])*
            #[tokio::test(start_paused = true)]
            async fn in_memory() {
                super::$scenario($world($crate::e2e::Over::Memory).await).await;
            }

            $(#[$doc])*
            #[tokio::test(start_paused = true)]
            async fn on_disk() {
                $crate::registries::on_disk(async {
                    super::$scenario($world($crate::e2e::Over::Memory).await).await;
                })
                .await;
            }

            $(#[$doc])*
            #[tokio::test]
            async fn over_websockets() {
                super::$scenario($world($crate::e2e::Over::WebSocket).await).await;
            }
        }
    };
}

pub struct World {
    pub server: Server,
    /// What the server has committed.
    pub registry: Arc<Registry>,
    /// Between the server and the registry; passes everything on until told otherwise.
    pub faults: Arc<FaultyRegistry<Arc<Registry>>>,
    pub network: MemoryNetwork,
    over: Over,
    listener: Option<Listener>,
    /// Kept over restarts.
    address: Option<SocketAddr>,
}

impl World {
    pub async fn memory() -> Self {
        Self::new(Over::Memory).await
    }

    pub async fn new(over: Over) -> Self {
        Self::with(over, |builder| builder).await
    }

    pub async fn with(over: Over, configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        Self::assemble(over, Anonymous::read_write(), configure).await
    }

    /// With a server that asks who its clients are, in memory.
    pub async fn with_auth(auth: Auth) -> Self {
        Self::assemble(Over::Memory, auth, |builder| builder).await
    }

    pub async fn assemble(
        over: Over,
        auth: Auth,
        configure: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Self {
        let registry = registry();
        let faults = Arc::new(FaultyRegistry::new(registry.clone()));
        let builder = Server::builder(faults.clone(), auth);
        let mut world = Self {
            server: configure(builder).build().unwrap(),
            registry,
            faults,
            network: MemoryNetwork::new(),
            over,
            listener: None,
            address: None,
        };
        world.listen().await;
        world
    }

    /// Has the server listen where clients dial, in the place of whoever does.
    pub async fn listen(&mut self) {
        self.listener = Some(match self.over {
            Over::Memory => self.server.listen(self.network.acceptor()),
            Over::WebSocket => {
                let any = SocketAddr::from(([127, 0, 0, 1], 0));
                let address = self.address.unwrap_or(any);
                let listener = self.server.listen_websocket(address).await.unwrap();
                self.address = listener.local_addr();
                listener
            }
        });
    }

    /// A client that connects at once.
    pub fn client(&self) -> Client {
        self.builder().start().unwrap()
    }

    pub fn builder(&self) -> ClientBuilder {
        match self.over {
            Over::Memory => Client::with_dialer(self.network.dialer()),
            Over::WebSocket => Client::builder(self.address()),
        }
    }

    /// A client whose messages can be looked at.
    pub fn tapped(&self) -> (ClientBuilder, Tap) {
        let tap = Tap::default();
        let builder = match self.over {
            Over::Memory => Client::with_dialer(tap.on(self.network.dialer())),
            Over::WebSocket => {
                Client::with_dialer(tap.on(WebSocketDialer::new(&self.address()).unwrap()))
            }
        };
        (builder, tap)
    }

    /// A connection of a scripted peer.
    pub async fn dial(&self) -> frames::Peer {
        let dialed = match self.over {
            Over::Memory => self.network.dialer().dial().await,
            Over::WebSocket => {
                let dialer = WebSocketDialer::new(&self.address()).unwrap();
                within("dialed", dialer.dial()).await
            }
        };
        dialed.unwrap()
    }

    /// Lets time pass without waiting for it, over real sockets too.
    pub async fn pass(&self, time: Duration) {
        if self.is_virtual() {
            return tokio::time::sleep(time).await;
        }
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
    }

    /// Whether time is virtual.
    pub fn is_virtual(&self) -> bool {
        self.over == Over::Memory
    }

    pub fn address(&self) -> String {
        format!("ws://{}", self.address.unwrap())
    }

    /// Shuts the server down: whoever dials finds nobody.
    pub async fn stop(&mut self) {
        self.server.shutdown(Duration::ZERO).await;
        within("the listener ends", self.listener.take().unwrap().wait())
            .await
            .unwrap();
    }

    /// Another server on the same registry, in the place of the one that was stopped.
    pub async fn start(&mut self) {
        self.server = Server::builder(self.faults.clone(), Anonymous::read_write())
            .build()
            .unwrap();
        self.listen().await;
    }

    /// The document's log, as the registry has it.
    pub async fn log(&self, document: &str) -> Vec<StoredChange> {
        let document = DocumentId::new(document).unwrap();
        match self.registry.tail(&document, Seq::ZERO, usize::MAX).await {
            Ok(Tail::Changes { changes, .. }) => changes,
            other => panic!("no log: {other:?}"),
        }
    }

    /// Another server on the same registry, in the place of the one that is there.
    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }
}

pub async fn text(client: &Client, id: &str) -> DocumentHandle<Yrs> {
    client.open(id, Yrs::new()).await.unwrap()
}

pub async fn map(client: &Client, id: &str) -> DocumentHandle<Map> {
    client.open(id, Map::new()).await.unwrap()
}

/// Types at the end of the text.
pub fn push(document: &DocumentHandle<Yrs>, what: &str) {
    document.edit(|txn| append(txn, what)).unwrap();
}

pub fn append(txn: &mut TransactionMut<'_>, what: &str) {
    let body = txn.get_or_insert_text("body");
    body.push(txn, what);
}

pub fn content(document: &DocumentHandle<Yrs>) -> String {
    use sync_client::yrs::ReadTxn;
    document.read(|txn| {
        txn.get_text("body")
            .map(|body| body.get_string(txn))
            .unwrap_or_default()
    })
}

pub fn set(document: &DocumentHandle<Map>, key: &str, value: &str) {
    document
        .edit(|map| map.insert(key.to_owned(), value.to_owned()))
        .unwrap()
        .unwrap();
}

pub fn get(document: &DocumentHandle<Map>, key: &str) -> Option<String> {
    document.read(|map| map.get(key).cloned())
}

/// Waits until this is so of what the document says of itself, and fails after a while.
pub async fn until<E: sync_client::Engine>(
    document: &DocumentHandle<E>,
    what: &str,
    mut is_so: impl FnMut(&DocumentHandle<E>, SyncState) -> bool,
) {
    let mut revision = document.revision();
    let mut state = document.sync_state();
    let waiting = async {
        while !is_so(document, state.get()) {
            tokio::select! {
                changed = revision.changed() => { changed.unwrap(); }
                changed = state.changed() => { changed.unwrap(); }
            }
        }
    };
    within(what, waiting).await;
}

pub async fn until_status(client: &Client, what: &str, is_so: impl FnMut(&Status) -> bool) {
    within(what, client.status().wait_for(is_so)).await.unwrap();
}

/// Fails if it takes longer than a minute.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .unwrap_or_else(|_| panic!("not within a minute: {what}"))
}
