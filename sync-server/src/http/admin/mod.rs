//! The admin API: what operators see and do over HTTP, described in OpenAPI by the code itself.

mod access;
#[allow(unused_qualifications, reason = "made by a macro")]
mod actions;
#[allow(unused_qualifications, reason = "made by a macro")]
mod documents;
mod error;
mod events;
#[allow(unused_qualifications, reason = "made by a macro")]
mod live;
mod respond;
#[allow(unused_qualifications, reason = "made by a macro")]
mod server;
#[cfg(feature = "embedded")]
#[allow(unused_qualifications, reason = "made by a macro")]
mod transfer;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, InfoBuilder, OpenApi, OpenApiBuilder, SecurityRequirement};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use self::access::{
    Admin, AdminAccess, AdminRefusal, AdminRequest, AdminToken, AdminTokenError,
};
use self::error::{ApiError, Code};
use self::respond::peer;
use crate::server::Server;

/// Streams of events at once.
const STREAMS_MAX: usize = 32;

/// Bytes of a document that is imported.
#[cfg(feature = "embedded")]
const IMPORT_BYTES_MAX: usize = 1 << 30;

/// What the handlers share.
pub(super) struct Api {
    server: Server,
    access: Arc<dyn AdminAccess>,
    streams: Arc<Semaphore>,
}

impl Api {
    /// Leave to stream events, for as long as it is held.
    fn stream(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let place = Arc::clone(&self.streams).try_acquire_owned();
        place.map_err(|_| ApiError::new(Code::Unavailable, "too many streams of events are open"))
    }
}

type Shared = State<Arc<Api>>;

/// Who made the request: put there by the layer that let it in.
type Who = Extension<Admin>;

/// All routes, to be nested at `/admin`.
pub(super) fn router<S: Clone + Send + Sync + 'static>(
    server: Server,
    access: Arc<dyn AdminAccess>,
) -> Router<S> {
    let api = Arc::new(Api {
        server,
        access,
        streams: Arc::new(Semaphore::new(STREAMS_MAX)),
    });
    let description = Bytes::from(openapi());
    let (router, _) = OpenApiRouter::new().nest("/api/v1", v1()).split_for_parts();
    router
        .route(
            "/openapi.json",
            axum::routing::get(|| async { respond::content("application/json", description) }),
        )
        .fallback(|| async { ApiError::new(Code::NotFound, "there is no such route") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                Code::MethodNotAllowed,
                "the route does not take this method",
            )
        })
        // Outermost: who is not let in learns nothing, not even which routes there are.
        .layer(from_fn_with_state(Arc::clone(&api), admit))
        .with_state(api)
}

/// The admin API in OpenAPI 3.1, as JSON: what is served at `/admin/openapi.json`.
#[must_use]
pub fn openapi() -> String {
    let described = OpenApiRouter::with_openapi(info()).nest("/admin/api/v1", v1());
    described.into_openapi().to_json().unwrap_or_default()
}

fn v1() -> OpenApiRouter<Arc<Api>> {
    let router = OpenApiRouter::new()
        .routes(routes!(server::stats))
        .routes(routes!(server::sessions))
        .routes(routes!(server::disconnect))
        .routes(routes!(events::events))
        .routes(routes!(live::live))
        .routes(routes!(documents::list))
        .routes(routes!(documents::inspect, actions::delete))
        .routes(routes!(documents::read_json))
        .routes(routes!(actions::compact))
        .routes(routes!(actions::evict))
        .routes(routes!(actions::broadcast));
    #[cfg(feature = "embedded")]
    let router = router
        .routes(routes!(transfer::export))
        .routes(routes!(transfer::import))
        .routes(routes!(transfer::fork));
    router
}

fn info() -> OpenApi {
    let info = InfoBuilder::new()
        .title("Sync server: administration")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Every request needs `Authorization: Bearer` with the credentials of an admin; cookies are not looked at. Names in \
             paths are percent-encoded, `/` as `%2F`. Errors are JSON, each with a code.",
        ))
        .build();
    let mut components = Components::new();
    components.add_security_scheme(
        "admin",
        SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
    );
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .security(Some([SecurityRequirement::new::<_, [&str; 0], &str>(
            "admin",
            [],
        )]))
        .build()
}

/// Lets in admins, and nobody else.
async fn admit(State(api): Shared, mut request: Request, next: Next) -> Response {
    let peer = peer(request.extensions());
    let asked = AdminRequest::new(bearer(&request), peer.clone());
    let mut response = match api.access.admit(&asked).await {
        Ok(admin) => {
            request.extensions_mut().insert(admin);
            next.run(request).await
        }
        Err(refusal) => {
            tracing::warn!(%peer, method = %request.method(), %refusal, "an admin request was refused");
            ApiError::from(refusal).into_response()
        }
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn bearer(request: &Request) -> Option<Bytes> {
    let value = request.headers().get(header::AUTHORIZATION)?;
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    is_bearer.then(|| Bytes::copy_from_slice(token.trim().as_bytes()))
}
