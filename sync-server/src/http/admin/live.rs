//! What the dashboard shows, as it changes: server-sent events.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use sync_core::events::Events;
use sync_core::ids::DocumentId;
use tokio::time::{Interval, MissedTickBehavior, interval};
use utoipa::{IntoParams, ToSchema};

use super::Shared;
use super::error::{Answer, ErrorBody};
use super::events::{EventReport, message, report, stream_of};
use super::respond::{Params, document};
use crate::event::ServerEvent;
use crate::server::Server;
use crate::stats::{DocumentDetails, DocumentStats, ServerStats};

/// Documents told, the most remarkable ones.
const DOCUMENTS_MAX: usize = 50;
/// Users told, those with the most sessions.
const USERS_MAX: usize = 100;
/// Events told in a period, at most.
const EVENTS_MAX: u64 = 50;
/// Time between two looks at the server: each adds up what all rooms and connections have counted.
const PERIOD: Duration = Duration::from_secs(1);

/// What more to tell.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LiveParams {
    /// A document whose sessions are told too.
    document: Option<String>,
}

/// How the server stands, once a second.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LiveState {
    /// Name and version of the software.
    #[schema(value_type = String)]
    software: &'static str,
    stats: ServerStats,
    /// Live documents, at most 50: those that fell back to relay first, then those with lagging sessions, then the busiest.
    documents: Vec<DocumentStats>,
    /// Users with a session, at most 100: those with the most first.
    users: Vec<UserSessions>,
    /// The document asked for, while it is live.
    inspected: Option<DocumentDetails>,
}

/// A user's sessions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UserSessions {
    user: String,
    n_sessions: u64,
}

/// Streams how the server stands, `state`, every second, and what happens on it, under the names of the events. Changes are
/// only counted; of more than 50 events in a second the rest is left out, and told as `lagged`.
#[utoipa::path(
    get,
    path = "/live",
    tag = "server",
    params(LiveParams),
    responses(
        (status = 200, description = "Server-sent events: `state` has this as its data, others what `/events` gives them", content_type = "text/event-stream", body = LiveState),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn live(
    State(api): Shared,
    Params(params): Params<LiveParams>,
) -> Answer<Response> {
    let inspected = params.document.as_deref().map(document).transpose()?;
    let place = api.stream()?;
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let live = Live {
        events: api.server.events(),
        server: api.server.clone(),
        inspected,
        ticks,
        n_told: 0,
        n_left_out: 0,
    };
    let messages = stream::unfold((live, place), |(mut live, place)| async {
        let message = live.next().await?;
        Some((Ok(message), (live, place)))
    });
    let ended = Box::pin(api.server.draining());
    Ok(stream_of(messages.take_until(ended)))
}

struct Live {
    server: Server,
    events: Events<ServerEvent>,
    inspected: Option<DocumentId>,
    ticks: Interval,
    /// Events told in this period, and those that were too many.
    n_told: u64,
    n_left_out: u64,
}

impl Live {
    async fn next(&mut self) -> Option<Event> {
        loop {
            tokio::select! {
                biased;
                _ = self.ticks.tick() => {
                    self.n_told = 0;
                    let missed = std::mem::take(&mut self.n_left_out);
                    if missed == 0 {
                        return Some(message("state", &self.state()));
                    }
                    self.ticks.reset_immediately();
                    return Some(told(&report(&ServerEvent::Lagged { missed })));
                }
                event = self.events.next() => match event? {
                    // Statistics tell how many.
                    ServerEvent::Committed { .. } => {}
                    _ if self.n_told == EVENTS_MAX => self.n_left_out += 1,
                    event => {
                        self.n_told += 1;
                        return Some(told(&report(&event)));
                    }
                }
            }
        }
    }

    fn state(&self) -> LiveState {
        let mut documents = self.server.documents();
        documents.sort_by(|a, b| {
            let remarkable = |one: &DocumentStats| (one.relayed.is_some(), one.n_lagging);
            let busy = b.changes_per_second.total_cmp(&a.changes_per_second);
            let remarkable = remarkable(b).cmp(&remarkable(a));
            remarkable.then(busy).then(b.n_sessions.cmp(&a.n_sessions))
        });
        documents.truncate(DOCUMENTS_MAX);
        let mut by_user = BTreeMap::new();
        for session in self.server.sessions() {
            *by_user.entry(session.identity.user.id).or_insert(0) += 1;
        }
        let users = by_user.into_iter();
        let mut users: Vec<_> = users
            .map(|(user, n_sessions)| UserSessions {
                user: user.to_string(),
                n_sessions,
            })
            .collect();
        users.sort_by_key(|one| Reverse(one.n_sessions));
        users.truncate(USERS_MAX);
        let inspected = self.inspected.as_ref();
        LiveState {
            software: concat!("sync-server ", env!("CARGO_PKG_VERSION")),
            stats: self.server.stats(),
            documents,
            users,
            inspected: inspected.and_then(|document| self.server.inspect(document)),
        }
    }
}

fn told(report: &EventReport) -> Event {
    message(report.event, report)
}
