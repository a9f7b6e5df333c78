//! Events for people.

use std::fmt;

use sync_core::ids::DocumentId;

use super::{CloseReason, ServerEvent};

/// How much somebody who runs the server should care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(
    feature = "http",
    derive(serde::Serialize, utoipa::ToSchema),
    serde(rename_all = "snake_case")
)]
pub enum Severity {
    /// What goes on.
    Info,
    /// Something was refused, or is tried again.
    Warning,
    /// Something is broken.
    Error,
}

impl ServerEvent {
    /// How much somebody who runs the server should care.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::DocumentRelayed { .. } | Self::RegistryFailed { .. } => Severity::Error,
            Self::ProtocolError { .. }
            | Self::Refused { .. }
            | Self::ValidatorPanicked { .. }
            | Self::WorkerDied { .. }
            | Self::DocumentNearLimit { .. }
            | Self::FoldFailed { .. }
            | Self::HookFailed { .. }
            | Self::Lagged { .. } => Severity::Warning,
            Self::SessionOpened { .. }
            | Self::SessionClosed { .. }
            | Self::ConnectionFailed { .. }
            | Self::MessageIgnored { .. }
            | Self::DocumentOpened { .. }
            | Self::AccessChanged { .. }
            | Self::DocumentClosed { .. }
            | Self::PresenceJoined { .. }
            | Self::PresenceLeft { .. }
            | Self::RoomLoaded { .. }
            | Self::RoomUnloaded { .. }
            | Self::Committed { .. }
            | Self::Broadcast { .. }
            | Self::BroadcastsMissed { .. }
            | Self::HistoryReplaced { .. }
            | Self::SnapshotRead { .. }
            | Self::Folded { .. } => Severity::Info,
        }
    }
}

impl ServerEvent {
    /// The document that it is about, if it is about one.
    #[must_use]
    pub const fn document(&self) -> Option<&DocumentId> {
        match self {
            Self::SessionOpened { .. }
            | Self::SessionClosed { .. }
            | Self::ConnectionFailed { .. }
            | Self::ProtocolError { .. }
            | Self::MessageIgnored { .. }
            | Self::HookFailed { .. }
            | Self::Lagged { .. } => None,
            Self::DocumentOpened { document, .. }
            | Self::AccessChanged { document, .. }
            | Self::DocumentClosed { document, .. }
            | Self::PresenceJoined { document, .. }
            | Self::PresenceLeft { document, .. }
            | Self::RoomLoaded { document, .. }
            | Self::RoomUnloaded { document }
            | Self::DocumentNearLimit { document, .. }
            | Self::Committed { document, .. }
            | Self::Refused { document, .. }
            | Self::Broadcast { document, .. }
            | Self::BroadcastsMissed { document, .. }
            | Self::ValidatorPanicked { document, .. }
            | Self::WorkerDied { document, .. }
            | Self::DocumentRelayed { document, .. }
            | Self::HistoryReplaced { document, .. }
            | Self::SnapshotRead { document, .. }
            | Self::Folded { document, .. }
            | Self::FoldFailed { document, .. }
            | Self::RegistryFailed { document, .. } => Some(document),
        }
    }
}

/// One line, for people.
impl fmt::Display for ServerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SessionOpened {
                session,
                user,
                peer,
            } => write!(f, "{} connected from {peer}, session {session}", user.id),
            Self::SessionClosed { session, reason } => {
                write!(f, "session {session} ended: {reason}")
            }
            Self::ConnectionFailed { peer, reason } => {
                write!(f, "a connection from {peer} came to nothing: {reason}")
            }
            Self::ProtocolError { session, error } => {
                write!(f, "session {session} broke the protocol: {error}")
            }
            Self::MessageIgnored { session, message } => {
                write!(f, "{message} of session {session} was ignored")
            }
            Self::DocumentOpened {
                session, document, ..
            } => write!(f, "session {session} opened {document}"),
            Self::AccessChanged {
                session,
                document,
                access,
            } => write!(
                f,
                "session {session} has {access:?} access to {document} now"
            ),
            Self::DocumentClosed { session, document } => {
                write!(f, "session {session} closed {document}")
            }
            Self::PresenceJoined {
                document,
                session,
                user,
                ..
            } => write!(f, "{} is seen in {document}, session {session}", user.id),
            Self::PresenceLeft { document, session } => {
                write!(f, "session {session} is not seen in {document} any more")
            }
            Self::RoomLoaded { document, head } => write!(f, "{document} is live, at {head}"),
            Self::RoomUnloaded { document } => write!(f, "{document} was unloaded"),
            Self::Committed {
                document,
                first,
                last,
                user,
                ..
            } => write!(f, "{} changed {document}: {first} to {last}", user.id),
            Self::Refused {
                document,
                change,
                user,
                code,
            } => write!(
                f,
                "change {change} of {} to {document} was refused: {code}",
                user.id
            ),
            Self::Broadcast {
                document,
                sender,
                bytes,
                n_recipients,
            } => {
                let by = sender.map_or_else(|| "the server".to_owned(), |s| format!("session {s}"));
                write!(
                    f,
                    "{by} broadcast {bytes} bytes to {n_recipients} sessions of {document}"
                )
            }
            Self::BroadcastsMissed {
                document,
                session,
                missed,
            } => write!(
                f,
                "session {session} missed {missed} broadcasts of {document}"
            ),
            Self::HookFailed { call, failure } => write!(f, "the hook {call} {failure}"),
            Self::ValidatorPanicked { document, change } => {
                write!(f, "change {change} to {document} made its validator panic")
            }
            Self::WorkerDied { document, what } => {
                write!(f, "a worker died of changes to {document}: {what}")
            }
            Self::DocumentRelayed { document, what } => {
                write!(f, "{document} fell back to relay: {what}")
            }
            Self::HistoryReplaced { document, epoch } => {
                write!(f, "history {epoch} of {document} was replaced")
            }
            Self::SnapshotRead {
                document,
                seq,
                bytes,
            } => write!(
                f,
                "the snapshot of {document} at {seq} was read, {bytes} bytes"
            ),
            Self::DocumentNearLimit {
                document,
                bytes,
                max,
            } => write!(
                f,
                "{document} has {bytes} bytes of the {max} that it may have"
            ),
            Self::Folded {
                document,
                seq,
                bytes,
                took,
                ..
            } => write!(
                f,
                "{document} was folded through {seq} into {bytes} bytes in {took:.1?}"
            ),
            Self::FoldFailed {
                document,
                through,
                error,
            } => write!(
                f,
                "{document} could not be folded through {through}: {error}"
            ),
            Self::RegistryFailed {
                document,
                call,
                error,
            } => write!(f, "the registry failed to {call} {document}: {error}"),
            Self::Lagged { missed } => write!(f, "{missed} events were missed"),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(error) => write!(f, "ended with {error}"),
            Self::ByClient { code: Some(code) } => write!(f, "closed by the client with {code}"),
            Self::ByClient { code: None } => write!(f, "closed by the client"),
            Self::Lost { error } => write!(f, "the connection broke: {error}"),
            Self::Dropped => write!(f, "given up by this server"),
        }
    }
}
