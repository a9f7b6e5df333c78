//! Broadcasts and extension messages, to the sessions of a room.

use std::sync::Arc;

use bytes::Bytes;
use sync_core::error::PeerError;
use sync_core::ids::SessionId;
use sync_core::wire::Broadcast;

use super::RoomHandle;
use crate::server::lock;

impl RoomHandle {
    pub(in crate::server) fn broadcast(self: &Arc<Self>, session: SessionId, broadcast: Broadcast) {
        self.turn(|state, _| state.room.handle_broadcast(session, broadcast));
    }

    /// # Errors
    /// What to tell the session.
    pub(in crate::server) fn may_broadcast(&self, session: SessionId) -> Result<(), PeerError> {
        lock(&self.state).room.may_broadcast(session)
    }

    pub(in crate::server) fn refuse_broadcast(
        self: &Arc<Self>,
        session: SessionId,
        error: PeerError,
    ) {
        self.turn(|state, _| state.room.refuse_broadcast(session, error));
    }

    /// Of the server itself. To how many sessions.
    pub(in crate::server) fn extend(self: &Arc<Self>, kind: u8, bytes: Bytes) -> usize {
        self.turn(|state, _| state.room.extend(kind, bytes))
    }

    /// Of the server itself. To how many sessions.
    pub(in crate::server) fn broadcast_own(self: &Arc<Self>, topic: String, bytes: Bytes) -> usize {
        self.turn(|state, _| state.room.broadcast(topic, bytes))
    }
}
