//! What happens on the server, as logs.

use sync_server::{Events, ServerEvent};
use tracing::{debug, error, info, warn};

/// Logs events until the server is gone.
pub(crate) async fn log(mut events: Events<ServerEvent>) {
    while let Some(event) = events.next().await {
        log_one(event);
    }
}

fn log_one(event: ServerEvent) {
    match event {
        ServerEvent::SessionOpened {
            session,
            user,
            peer,
        } => info!(%session, user = &*user.id, %peer, "session opened"),
        ServerEvent::SessionClosed { session, reason } => {
            info!(%session, ?reason, "session closed");
        }
        ServerEvent::ConnectionFailed { peer, reason } => {
            debug!(%peer, ?reason, "connection failed");
        }
        ServerEvent::ProtocolError { session, error } => {
            warn!(%session, %error, "protocol error");
        }
        ServerEvent::Refused {
            document,
            change,
            user,
            code,
        } => warn!(%document, %change, user = &*user.id, %code, "change refused"),
        ServerEvent::WorkerDied { document, what } => warn!(%document, what, "worker died"),
        ServerEvent::DocumentRelayed { document, what } => {
            error!(%document, what, "document relayed");
        }
        ServerEvent::HistoryReplaced { document, epoch } => {
            info!(%document, %epoch, "history replaced");
        }
        ServerEvent::DocumentNearLimit {
            document,
            bytes,
            max,
        } => warn!(%document, bytes, max, "document is nearly too large"),
        ServerEvent::FoldFailed {
            document, error, ..
        } => warn!(%document, %error, "fold failed"),
        ServerEvent::RegistryFailed {
            document,
            call,
            error,
        } => {
            error!(%document, call, error = %crate::output::Failure::text(&*error), "registry failed")
        }
        ServerEvent::Lagged { missed } => warn!(missed, "events were not logged"),
        other => debug!(event = ?other, "event"),
    }
}
