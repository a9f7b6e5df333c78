//! Broadcasts and extension messages, to the sessions of a room.

use std::sync::Arc;

use bytes::Bytes;
use sync_core::ids::{DocumentId, SessionId};
use sync_core::wire::Broadcast;

use super::{RoomHandle, Rooms};
use crate::server::lock;

impl Rooms {
    /// The document's room, if it is live.
    pub(in crate::server) fn live(&self, document: &DocumentId) -> Option<Arc<RoomHandle>> {
        lock(&self.live).get(document).cloned()
    }
}

impl RoomHandle {
    pub(in crate::server) fn broadcast(self: &Arc<Self>, session: SessionId, broadcast: Broadcast) {
        self.turn(|state, _| state.room.handle_broadcast(session, broadcast));
    }

    /// Of the server itself. To how many sessions.
    pub(in crate::server) fn broadcast_own(self: &Arc<Self>, topic: String, bytes: Bytes) -> usize {
        self.turn(|state, _| state.room.broadcast(topic, bytes))
    }
}
