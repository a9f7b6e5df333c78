//! Events, as they happen: server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt, stream};
use serde::Serialize;
use utoipa::ToSchema;

use super::Shared;
use super::error::{Answer, ErrorBody};
use crate::event::{CloseReason, ServerEvent, Severity};

/// Silence after which something is sent, so that proxies do not take the stream for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventReport {
    /// Its kind, which is also the name of the server-sent event.
    #[schema(value_type = String)]
    pub(super) event: &'static str,
    /// How much it matters.
    severity: Severity,
    /// What happened, in a line.
    text: String,
    /// The document that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<String>,
    /// The session.
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// The user.
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// The error code, if a client was told one.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<String>,
    /// How many events this stream has lost, because it was not read fast enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    missed: Option<u64>,
}

/// Streams what happens on the server from now on. Whoever reads too slowly loses the oldest, and is told how many:
/// `lagged`.
#[utoipa::path(
    get,
    path = "/events",
    tag = "server",
    responses(
        (status = 200, description = "Server-sent events, each with this as its data", content_type = "text/event-stream", body = EventReport),
        (status = "default", body = ErrorBody),
    )
)]
pub(super) async fn events(State(api): Shared) -> Answer<Response> {
    let place = api.stream()?;
    let events = api.server.events();
    let told = events.map(move |event| {
        // Held as long as the stream is.
        let _ = &place;
        let report = report(&event);
        Ok(message(report.event, &report))
    });
    // Otherwise whoever waits for connections to end would wait for ever.
    let ended = api.server.draining();
    let told = told.take_until(Box::pin(ended));
    // Shows that the stream has begun.
    let begun = stream::once(async { Ok(Event::default().comment("from now on")) });
    Ok(stream_of(begun.chain(told)))
}

/// A stream of server-sent events.
pub(super) fn stream_of(
    events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static,
) -> Response {
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

/// One server-sent event.
pub(super) fn message(name: &str, data: &impl Serialize) -> Event {
    // Nothing here has keys that are no texts.
    let data = serde_json::to_string(data).unwrap_or_default();
    Event::default().event(name).data(data)
}

pub(super) fn report(event: &ServerEvent) -> EventReport {
    let mut report = EventReport {
        event: event.name(),
        severity: event.severity(),
        text: event.to_string(),
        document: event.document().map(ToString::to_string),
        session: None,
        user: None,
        code: None,
        missed: None,
    };
    match event {
        ServerEvent::SessionOpened { session, user, .. } => {
            report.session = Some(session.to_string());
            report.user = Some(user.id.to_string());
        }
        ServerEvent::SessionClosed { session, reason } => {
            report.session = Some(session.to_string());
            report.code = code_of(reason);
        }
        ServerEvent::ConnectionFailed { reason, .. } => report.code = code_of(reason),
        ServerEvent::ProtocolError { session, error } => {
            report.session = Some(session.to_string());
            report.code = Some(error.code.to_string());
        }
        ServerEvent::MessageIgnored { session, .. }
        | ServerEvent::DocumentOpened { session, .. }
        | ServerEvent::DocumentClosed { session, .. }
        | ServerEvent::BroadcastsMissed { session, .. } => {
            report.session = Some(session.to_string());
        }
        ServerEvent::Broadcast { sender, .. } => {
            report.session = sender.map(|session| session.to_string());
        }
        ServerEvent::Committed { user, .. } => report.user = Some(user.id.to_string()),
        ServerEvent::Refused { user, code, .. } => {
            report.user = Some(user.id.to_string());
            report.code = Some(code.to_string());
        }
        ServerEvent::Lagged { missed } => report.missed = Some(*missed),
        // The document says it, and the line does.
        _ => {}
    }
    report
}

fn code_of(reason: &CloseReason) -> Option<String> {
    match reason {
        CloseReason::Ended(error) => Some(error.code.to_string()),
        _ => None,
    }
}
