//! How a client is made.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sync_core::BoxError;
use sync_core::client::{ClientConfig, ClientState};
use sync_core::ids::OriginId;
use sync_core::transport::Dialer;
use sync_core::wire::Compression;
use tokio::runtime::{Handle, Runtime};

use crate::client::Client;
use crate::credentials::Credentials;
use crate::dialing::Dialing;
use crate::driver::drive;
use crate::error::StartError;
use crate::shared::Shared;
use crate::store::ClientStore;

/// How a client is made; from [`Client::builder`] or [`Client::with_dialer`].
#[must_use]
pub struct ClientBuilder {
    dialing: Dialing,
    config: ClientConfig,
    credentials: Option<Credentials>,
    store: Option<Arc<dyn ClientStore>>,
    account: String,
}

impl std::fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientBuilder").finish_non_exhaustive()
    }
}

impl ClientBuilder {
    pub(crate) fn address(address: String) -> Self {
        Self::new(Dialing::to(address))
    }

    pub(crate) fn with_dialer(dialer: impl Dialer) -> Self {
        Self::new(Dialing::with(Arc::new(dialer)))
    }

    fn new(dialing: Dialing) -> Self {
        // The ids are drawn at the start: the same builder value never makes two clients.
        let mut config = ClientConfig::new(OriginId(0), 0);
        config.software = concat!("sync-client/", env!("CARGO_PKG_VERSION")).to_owned();
        Self {
            dialing,
            config,
            credentials: None,
            store: None,
            account: String::new(),
        }
    }

    /// Credentials for the server, sent when connecting. Default none.
    pub fn token(mut self, token: impl Into<Bytes>) -> Self {
        self.config.credentials = Some(token.into());
        self
    }

    /// Where credentials for the server come from, in the place of a [`token`](Self::token) that stays the same. Asked before each
    /// connection, as a part of its attempt, and when the server says that those it has end soon; then the connection stays.
    ///
    /// If it fails, the attempt has failed, and there will be another one later. Credentials that the server refuses are
    /// asked for anew in the same way, without end.
    ///
    /// ```no_run
    /// # fn start() -> Result<(), sync_client::StartError> {
    /// # async fn fetch_token() -> Result<String, std::io::Error> { Ok(String::new()) }
    /// let client = sync_client::Client::builder("ws://127.0.0.1:8080")
    ///     .credentials(|| async { fetch_token().await })
    ///     .start()?;
    /// # Ok(()) }
    /// ```
    pub fn credentials<F, Fut, T, X>(mut self, ask: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, X>> + Send + 'static,
        T: Into<Bytes>,
        X: Into<BoxError>,
    {
        self.config.refreshes = true;
        self.credentials = Some(Credentials::new(ask));
        self
    }

    /// An HTTP header to send when connecting to `ws://` and `wss://` addresses, such as one that a proxy on the way asks for.
    /// Several may have the same name. Addresses of other kinds have none. Not shown by `Debug`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.dialing.headers.push((name.into(), value.into()));
        self
    }

    /// Trusts servers at `wss://` addresses whose certificate is signed by one of these, in PEM, beside those that the platform
    /// trusts.
    #[cfg(feature = "tls")]
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.dialing.roots.push(pem.into());
        self
    }

    /// Whether to trust servers whose certificate the platform trusts. Defaults to yes; with no, only those that
    /// [`root_certificate`](Self::root_certificate) names sign for servers.
    #[cfg(feature = "tls")]
    pub const fn platform_roots(mut self, value: bool) -> Self {
        self.dialing.platform_roots = value;
        self
    }

    /// Connects to `ws://` and `wss://` addresses through the HTTP proxy that the environment names at the start: `HTTPS_PROXY`
    /// for `wss://`, `HTTP_PROXY` for `ws://`, `ALL_PROXY` for both, except for hosts in `NO_PROXY`, as curl does. Default:
    /// directly.
    #[cfg(feature = "proxy")]
    pub const fn proxy_from_environment(mut self) -> Self {
        self.dialing.proxy = true;
        self
    }

    /// Where the client keeps its documents on this device. Default none: what the server has not acknowledged is lost with
    /// the process.
    pub fn store(mut self, store: impl ClientStore) -> Self {
        self.store = Some(Arc::new(store));
        self
    }

    /// Whose documents the store holds. A store belongs to one account; default the empty name.
    pub fn account(mut self, account: impl Into<String>) -> Self {
        self.account = account.into();
        self
    }

    /// Longest delay between two attempts at a connection.
    ///
    /// Defaults to 30 s. Delays double from half a second up to this, each drawn evenly from zero to its bound. Shorter
    /// reconnects sooner after a long outage, and loads a server that is just coming back more.
    pub const fn reconnect_max(mut self, value: Duration) -> Self {
        self.config.backoff.max = value;
        self
    }

    /// Time from the start of an attempt to the server's welcome. Defaults to 10 s.
    pub const fn handshake_timeout(mut self, value: Duration) -> Self {
        self.config.handshake_timeout = value;
        self
    }

    /// Silence after a ping after which the connection is given up.
    ///
    /// Defaults to 10 s. The server says how often to ping, so a dead link is noticed within the sum of both.
    pub const fn ping_timeout(mut self, value: Duration) -> Self {
        self.config.ping_timeout = value;
        self
    }

    /// Whether frames may be compressed. Defaults to yes.
    pub fn compression(mut self, value: bool) -> Self {
        self.config.compression = if value {
            vec![Compression::Gzip]
        } else {
            Vec::new()
        };
        self
    }

    /// Changes of one document that may wait for the server; `edit` is refused beyond. Defaults to 1,000,000.
    pub const fn outbox_max(mut self, value: usize) -> Self {
        self.config.outbox_max = value;
        self
    }

    /// Starts the client. It connects in the background: on the tokio runtime of the caller, or else on a thread of its own.
    ///
    /// # Errors
    /// [`StartError`] if the address cannot be dialed by this build, or there is neither a runtime nor a thread.
    pub fn start(mut self) -> Result<Client, StartError> {
        let dialer = self.dialing.dialer()?;
        if let Some(store) = &self.store {
            store.bind(&self.account)?;
        }
        self.config.store = self.store.is_some();
        self.config.origin = OriginId(random()?);
        self.config.seed = random()?;
        let mut state = ClientState::new(self.config);
        state.connect(sync_core::time::Time::ZERO);
        let (runtime, own) = runtime()?;
        let shared = Arc::new(Shared::new(state, self.store, runtime));
        let driver = drive(shared.clone(), dialer, self.credentials);
        match own {
            None => drop(shared.runtime.spawn(driver)),
            Some(own) => {
                std::thread::Builder::new()
                    .name("sync-client".to_owned())
                    .spawn(move || own.block_on(driver))
                    .map_err(StartError::Thread)?;
            }
        }
        Ok(Client::new(shared))
    }
}

/// 128 random bits.
pub(crate) fn random() -> Result<u128, StartError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| StartError::Random)?;
    Ok(u128::from_be_bytes(bytes))
}

/// The runtime of the caller, or one that is to run on a thread of its own.
fn runtime() -> Result<(Handle, Option<Runtime>), StartError> {
    if let Ok(current) = Handle::try_current() {
        return Ok((current, None));
    }
    let own = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(StartError::Thread)?;
    Ok((own.handle().clone(), Some(own)))
}
