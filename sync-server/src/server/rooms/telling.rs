//! What a room has to tell: events, and what statistics keep of them.

use sync_core::server::RoomEvent;

use super::super::statistics::{count, millis};
use super::{Kept, RoomHandle, RoomState};
use crate::event::ServerEvent;
use crate::stats::FoldStats;

impl RoomHandle {
    pub(super) fn keep(&self, kept: &mut Kept, event: &RoomEvent) {
        match event {
            RoomEvent::Folded {
                seq, bytes, took, ..
            } => {
                let clock = &self.server.clock;
                kept.fold_failure = None;
                kept.last_fold = Some(FoldStats {
                    at_ms: clock.wall_ms(clock.now()),
                    seq: *seq,
                    bytes: count(*bytes),
                    took_ms: millis(*took),
                });
            }
            RoomEvent::FoldFailed { error, .. } => kept.fold_failure = Some(error.to_string()),
            _ => {}
        }
    }

    /// Told before anybody can find out by opening the document, so that the next room is told of after it.
    pub(super) fn tell_unloaded(&self, state: &mut RoomState) {
        if std::mem::take(&mut state.is_loaded) {
            self.server.events.send(ServerEvent::RoomUnloaded {
                document: self.document.clone(),
            });
        }
    }

    pub(super) fn tell(&self, event: RoomEvent) {
        let document = self.document.clone();
        self.server.events.send(match event {
            RoomEvent::Loaded { head } => ServerEvent::RoomLoaded { document, head },
            RoomEvent::Opened { session, access } => ServerEvent::DocumentOpened {
                session,
                document,
                access,
            },
            RoomEvent::AccessChanged { session, access } => ServerEvent::AccessChanged {
                session,
                document,
                access,
            },
            RoomEvent::Left { session } => ServerEvent::DocumentClosed { session, document },
            RoomEvent::PresenceJoined {
                session,
                user,
                instead_of,
            } => ServerEvent::PresenceJoined {
                document,
                session,
                user,
                instead_of,
            },
            RoomEvent::PresenceLeft { session } => ServerEvent::PresenceLeft { document, session },
            RoomEvent::Committed {
                first,
                last,
                origin,
                user,
            } => ServerEvent::Committed {
                document,
                first,
                last,
                origin,
                user,
            },
            RoomEvent::Refused { change, user, code } => ServerEvent::Refused {
                document,
                change,
                user,
                code,
            },
            RoomEvent::Broadcast {
                sender,
                bytes,
                n_recipients,
            } => ServerEvent::Broadcast {
                document,
                sender,
                bytes,
                n_recipients,
            },
            RoomEvent::BroadcastsMissed { session, missed } => ServerEvent::BroadcastsMissed {
                document,
                session,
                missed,
            },
            RoomEvent::ValidatorPanicked { change } => {
                tracing::error!(%document, %change, "a validator panicked");
                ServerEvent::ValidatorPanicked { document, change }
            }
            RoomEvent::HistoryReplaced { epoch } => {
                tracing::warn!(%document, %epoch, "the document has another history now");
                ServerEvent::HistoryReplaced { document, epoch }
            }
            RoomEvent::SnapshotRead { seq, bytes } => ServerEvent::SnapshotRead {
                document,
                seq,
                bytes,
            },
            RoomEvent::NearLimit { bytes, max } => {
                tracing::warn!(%document, bytes, max, "the document is nearly too large");
                ServerEvent::DocumentNearLimit {
                    document,
                    bytes,
                    max,
                }
            }
            RoomEvent::Folded {
                seq,
                bytes,
                keep_after,
                took,
            } => ServerEvent::Folded {
                document,
                seq,
                bytes,
                keep_after,
                took,
            },
            RoomEvent::FoldFailed { through, error } => {
                let cause = std::error::Error::source(&*error).map(ToString::to_string);
                tracing::warn!(%document, %through, %error, cause, "the log was not folded");
                ServerEvent::FoldFailed {
                    document,
                    through,
                    error,
                }
            }
            RoomEvent::RegistryFailed { call, error } => {
                tracing::warn!(%document, call, %error, "the registry failed");
                ServerEvent::RegistryFailed {
                    document,
                    call,
                    error,
                }
            }
            _ => return,
        });
    }
}
