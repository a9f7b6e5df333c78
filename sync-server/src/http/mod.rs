//! The server as part of an axum application, or all of one.
//!
//! ```no_run
//! # async fn run(server: sync_server::Server) -> Result<(), Box<dyn std::error::Error>> {
//! use std::net::SocketAddr;
//!
//! let app = axum::Router::new()
//!     .route("/", axum::routing::get(|| async { "hello" }))
//!     .nest("/sync", sync_server::http::router(server));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! // With the address of the peer, for events and logs.
//! axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
//! # Ok(()) }
//! ```
//!
//! Clients dial `ws://127.0.0.1:8080/sync` then. axum's own graceful shutdown does not wait for WebSockets, nor end them:
//! [`Server::shutdown`] does.

mod admin;
mod credentials;
mod dashboard;
mod origins;
mod socket;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ws::WebSocket;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State, WebSocketUpgrade};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sync_core::error::{ErrorCode, PeerError};
use sync_core::ids::User;
use sync_core::transport::websocket::{MESSAGE_BYTES_MAX, WebSocketTransport, config};
use sync_core::transport::{PeerInfo, Transport};

pub use self::admin::{
    Admin, AdminAccess, AdminRefusal, AdminRequest, AdminToken, AdminTokenError,
    openapi as admin_openapi,
};
use self::credentials::Credentials;
use self::origins::Origins;
use self::socket::Socket;
use crate::auth::{ConnectRequest, Identity};
use crate::server::Server;

/// Time that the registry has to answer `/readyz`.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// Everything that a server serves over HTTP, for [`axum::Router::nest`]: clients connect at `/`, and `/healthz` and
/// `/readyz` are there. [`routes`] chooses.
pub fn router<S: Clone + Send + Sync + 'static>(server: Server) -> Router<S> {
    routes(server).sync("/").health().into_router()
}

/// What a server is to serve over HTTP; nothing until it is named.
pub fn routes(server: Server) -> Routes {
    Routes {
        server,
        sync: None,
        health: false,
        metrics: None,
        admin: None,
        dashboard: false,
        origins: Origins::default(),
        credentials: Credentials::default(),
    }
}

/// What a server serves over HTTP, from [`routes`].
#[must_use]
pub struct Routes {
    server: Server,
    sync: Option<String>,
    health: bool,
    /// How many documents are named in them.
    metrics: Option<usize>,
    admin: Option<Arc<dyn AdminAccess>>,
    dashboard: bool,
    origins: Origins,
    credentials: Credentials,
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes")
            .field("sync", &self.sync)
            .field("health", &self.health)
            .field("metrics", &self.metrics)
            .field("admin", &self.admin.is_some())
            .field("dashboard", &self.dashboard)
            .finish_non_exhaustive()
    }
}

impl Routes {
    /// Clients connect here, such as at `/`. What is no request for a WebSocket gets 426, a page that may not connect 403.
    ///
    /// A request with credentials, as `Authorization: Bearer` or as [said](Self::cookie) [otherwise](Self::token_in_query),
    /// gets 401 if the server's authenticator refuses them, 503 if it cannot tell; what the client's hello says is not looked
    /// at then. Without them the hello decides.
    pub fn sync(mut self, path: &str) -> Self {
        self.sync = Some(path.to_owned());
        self
    }

    /// `/healthz` says 200 as long as anything is said at all. `/readyz` does while clients are served and the registry
    /// answers, else 503.
    pub fn health(mut self) -> Self {
        self.health = true;
        self
    }

    /// `/metrics` for Prometheus: totals of the server, in the text format of OpenMetrics 1.0. For whoever asks: there is nothing
    /// in them that names users or documents, unless [`metrics_by_document`](Self::metrics_by_document) says so.
    pub fn metrics(mut self) -> Self {
        self.metrics.get_or_insert(0);
        self
    }

    /// The same, and some metrics of the busiest live documents, so many of them at most, with their names as labels. Names may
    /// tell things, and each costs Prometheus a series for every metric, also of documents that are idle again.
    pub fn metrics_by_document(mut self, documents_max: usize) -> Self {
        self.metrics = Some(documents_max);
        self
    }

    /// The admin API, at `/admin/api/v1`, and its description in OpenAPI at `/admin/openapi.json`: for whom `access` lets in.
    /// Who is not let in gets 401 or 403, whatever is asked for.
    pub fn admin(mut self, access: impl AdminAccess) -> Self {
        self.admin = Some(Arc::new(access));
        self
    }

    /// `/dashboard`: a page that shows documents, sessions, users and events as they come. It asks for the credentials of an
    /// admin, and shows what the [admin API](Self::admin) tells it; without that it shows nothing.
    pub fn dashboard(mut self) -> Self {
        self.dashboard = true;
        self
    }

    /// Web pages of these origins may connect, such as `https://app.example.com`. Default: those of the host that they
    /// connect to. Programs that are no browsers are not concerned.
    pub fn allowed_origins<O: Into<String>>(
        mut self,
        origins: impl IntoIterator<Item = O>,
    ) -> Self {
        self.origins = Origins::These(origins.into_iter().map(Into::into).collect());
        self
    }

    /// Any web page may connect. Where cookies say who somebody is, each of them can act for all who visit it; where
    /// everybody is let in, it reaches servers that only its visitors can.
    pub fn any_origin(mut self) -> Self {
        self.origins = Origins::Any;
        self
    }

    /// Credentials may also be the value of this cookie, which pages of [allowed origins](Self::allowed_origins) send without
    /// knowing it. Default: none.
    pub fn cookie(mut self, name: &str) -> Self {
        self.credentials.cookie = Some(name.to_owned());
        self
    }

    /// Credentials may also stand in the address, as `?token=`, for clients that can send no header. Addresses end up in the
    /// logs of proxies, and in histories: give such tokens a short life. Default: they may not.
    pub fn token_in_query(mut self) -> Self {
        self.credentials.in_query = true;
        self
    }

    /// All of it, with any state.
    pub fn into_router<S: Clone + Send + Sync + 'static>(self) -> Router<S> {
        let mut router = Router::new();
        if let Some(path) = &self.sync {
            router = router.route(path, get(sync));
        }
        if self.health {
            router = router
                .route("/healthz", get(|| async { "ok\n" }))
                .route("/readyz", get(ready));
        }
        if self.metrics.is_some() {
            router = router.route("/metrics", get(metrics));
        }
        if let Some(access) = &self.admin {
            let admin = admin::router(self.server.clone(), Arc::clone(access));
            router = router.nest("/admin", admin);
        }
        if self.dashboard {
            router = router.merge(dashboard::page());
        }
        router.with_state(Arc::new(self))
    }
}

/// Serves a request for a WebSocket, in an application that has found out itself whether to, and who this is. `None`: the
/// client says it in its first message, and the server's authenticator is asked.
///
/// Which page a browser is on is not looked at: where cookies say who the user is, look at the header `Origin` first.
pub fn upgrade(server: &Server, ws: WebSocketUpgrade, user: Option<User>) -> Response {
    upgrade_from(server, ws, PeerInfo::default(), user.map(Identity::new))
}

fn upgrade_from(
    server: &Server,
    ws: WebSocketUpgrade,
    peer: PeerInfo,
    known: Option<Identity>,
) -> Response {
    let server = server.clone();
    let failed = peer.clone();
    configured(ws)
        .on_failed_upgrade(move |error| {
            tracing::debug!(peer = %failed, %error, "a connection came to nothing");
        })
        .on_upgrade(move |socket| server.serve_with(transport(socket), peer, known))
}

/// A request for a WebSocket with buffers and limits as small as this protocol needs, for [`transport`]. What axum takes by
/// default is 128 KiB per connection, and messages of up to 64 MiB.
pub fn configured<F>(ws: WebSocketUpgrade<F>) -> WebSocketUpgrade<F> {
    let config = config();
    // axum compresses nothing.
    ws.read_buffer_size(config.read_buffer_size)
        .write_buffer_size(config.write_buffer_size)
        .max_write_buffer_size(config.max_write_buffer_size)
        .max_message_size(MESSAGE_BYTES_MAX)
        .max_frame_size(MESSAGE_BYTES_MAX)
}

/// A transport over a WebSocket of axum, for [`Server::serve`] and [`Server::serve_as`].
pub fn transport(socket: WebSocket) -> impl Transport {
    WebSocketTransport::new(Socket(socket))
}

async fn sync(State(routes): State<Arc<Routes>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let ws = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(ws) => ws,
        Err(rejection) => return refuse_upgrade(rejection),
    };
    if !routes.origins.allow(&parts.headers) {
        return plain(
            StatusCode::FORBIDDEN,
            "Pages of this origin may not connect here.\n",
        );
    }
    if !routes.server.is_serving() {
        return shutting_down();
    }
    let address = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    let peer = address.map_or_else(PeerInfo::default, |ConnectInfo(address)| {
        PeerInfo::at(*address)
    });
    let Some((credentials, source)) = routes.credentials.find(&parts) else {
        return upgrade_from(&routes.server, ws, peer, None);
    };
    let mut connect = ConnectRequest::new(peer.clone());
    connect.credentials = Some(credentials);
    connect.source = source;
    match routes.server.identify(connect).await {
        Ok(identity) => upgrade_from(&routes.server, ws, peer, Some(identity)),
        Err(error) => refuse(&error),
    }
}

/// Answers who is not let in.
fn refuse(error: &PeerError) -> Response {
    if error.code != ErrorCode::Unauthenticated {
        let seconds = error.retry_after.map_or(1, |delay| delay.as_secs().max(1));
        let response = (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", error.message),
        );
        return with_header(
            response.into_response(),
            header::RETRY_AFTER,
            seconds.into(),
        );
    }
    let response = (StatusCode::UNAUTHORIZED, format!("{}\n", error.message)).into_response();
    with_header(
        response,
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Bearer"),
    )
}

fn with_header(mut response: Response, name: HeaderName, value: HeaderValue) -> Response {
    response.headers_mut().insert(name, value);
    response
}

/// Answers what is no request for a WebSocket.
fn refuse_upgrade(rejection: WebSocketUpgradeRejection) -> Response {
    let is_plain_http = matches!(
        rejection,
        WebSocketUpgradeRejection::InvalidConnectionHeader(_)
            | WebSocketUpgradeRejection::InvalidUpgradeHeader(_)
    );
    if !is_plain_http {
        return rejection.into_response();
    }
    let response = plain(
        StatusCode::UPGRADE_REQUIRED,
        "This address speaks the sync protocol over WebSocket.\n",
    );
    let response = with_header(
        response,
        header::UPGRADE,
        HeaderValue::from_static("websocket"),
    );
    with_header(
        response,
        header::SEC_WEBSOCKET_VERSION,
        HeaderValue::from_static("13"),
    )
}

async fn ready(State(routes): State<Arc<Routes>>) -> Response {
    if !routes.server.is_serving() {
        return shutting_down();
    }
    match tokio::time::timeout(READY_TIMEOUT, routes.server.registry_answers()).await {
        Ok(Ok(())) => "ready\n".into_response(),
        Ok(Err(error)) => {
            tracing::warn!(%error, "not ready");
            plain(StatusCode::SERVICE_UNAVAILABLE, "the registry fails\n")
        }
        Err(_) => plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "the registry does not answer\n",
        ),
    }
}

async fn metrics(State(routes): State<Arc<Routes>>) -> Response {
    let documents_max = routes.metrics.unwrap_or(0);
    match crate::metrics::text(&routes.server, documents_max) {
        Ok(text) => with_header(
            text.into_response(),
            header::CONTENT_TYPE,
            HeaderValue::from_static(crate::metrics::CONTENT_TYPE),
        ),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "no metrics\n"),
    }
}

fn shutting_down() -> Response {
    with_header(
        plain(StatusCode::SERVICE_UNAVAILABLE, "shutting down\n"),
        header::RETRY_AFTER,
        HeaderValue::from_static("1"),
    )
}

fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, text).into_response()
}
