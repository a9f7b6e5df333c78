//! The server as a whole: totals, sessions, users.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::ErrorBody;
use super::respond::{Name, Params, json};
use super::{Shared, Who};
use crate::stats::{ServerStats, SessionStats};

/// How the server stands: totals since its start, and what is true now.
#[utoipa::path(
    get,
    path = "/stats",
    tag = "server",
    responses(
        (status = 200, body = ServerStats),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn stats(State(api): Shared) -> Response {
    json(&api.server.stats())
}

/// Which sessions.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SessionsParams {
    /// At most so many; by default 1,000.
    limit: Option<usize>,
    /// Those of this user only.
    user: Option<String>,
}

/// Sessions, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Sessions {
    sessions: Vec<SessionStats>,
    /// How many there are, those left out among them.
    n_sessions: usize,
}

/// Lists the sessions: connections whose clients have been welcomed.
#[utoipa::path(
    get,
    path = "/sessions",
    tag = "server",
    params(SessionsParams),
    responses(
        (status = 200, body = Sessions),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn sessions(
    State(api): Shared,
    Params(params): Params<SessionsParams>,
) -> Response {
    let mut sessions = api.server.sessions();
    if let Some(user) = &params.user {
        sessions.retain(|session| *session.identity.user.id == **user);
    }
    let n_sessions = sessions.len();
    sessions.truncate(params.limit.unwrap_or(1_000));
    json(&Sessions {
        sessions,
        n_sessions,
    })
}

/// How many sessions were ended.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Disconnected {
    n_sessions: usize,
}

/// Ends the sessions that a user has now. Its clients come back if they can get fresh credentials.
#[utoipa::path(
    post,
    path = "/users/{user}/disconnect",
    tag = "server",
    params(("user" = String, Path, description = "Its id, percent-encoded")),
    responses(
        (status = 200, body = Disconnected),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn disconnect(
    State(api): Shared,
    Extension(who): Who,
    Name(user): Name,
) -> Response {
    let n_sessions = api.server.disconnect(&user);
    tracing::info!(admin = &*who.name, user, n_sessions, "user disconnected");
    json(&Disconnected { n_sessions })
}
