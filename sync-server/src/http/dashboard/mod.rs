//! The dashboard: a page that shows what the admin API tells.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::with_header;

/// What the page may load: only what comes from here. Nobody may put it into a frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page, which holds nothing that is anybody's secret.
pub(super) fn page<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let page = || async { asset("text/html; charset=utf-8", include_str!("page.html")) };
    let style = || async { asset("text/css; charset=utf-8", include_str!("style.css")) };
    let script = || async { asset("text/javascript; charset=utf-8", include_str!("script.js")) };
    Router::new()
        .route("/dashboard", get(page))
        .route("/dashboard/style.css", get(style))
        .route("/dashboard/script.js", get(script))
}

fn asset(kind: &'static str, body: &'static str) -> Response {
    let headers: [(HeaderName, &'static str); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    headers
        .into_iter()
        .fold(body.into_response(), |response, (name, value)| {
            with_header(response, name, HeaderValue::from_static(value))
        })
}
