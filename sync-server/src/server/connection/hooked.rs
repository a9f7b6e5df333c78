//! What a connection does for hooks, and without any.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use sync_core::error::PeerError;
use sync_core::ids::{Channel, DocumentId};
use sync_core::transport::Transport;
use sync_core::wire::Broadcast;

use super::{Connection, RoomHandle};
use crate::auth::{ConnectRequest, Identity};
use crate::event::ServerEvent;

impl<T: Transport> Connection<T> {
    /// Finds out who it is, and asks hooks whether that is welcome.
    pub(super) fn connect(
        &mut self,
        request: ConnectRequest,
    ) -> impl Future<Output = Result<Identity, PeerError>> + Send + 'static + use<T> {
        let (shared, peer) = (Arc::clone(&self.server), self.peer.clone());
        let (known, session) = (self.known.take(), self.session.id());
        async move {
            let identity = match known {
                Some(known) => known,
                None => Arc::clone(&shared).identify(request).await?,
            };
            shared.ask_connect(&identity.user, session, &peer).await?;
            Ok(identity)
        }
    }

    pub(super) fn broadcast(&mut self, room: &Arc<RoomHandle>, broadcast: Broadcast) {
        let session = self.session.id();
        let Some(line) = &mut self.line else {
            return room.broadcast(session, broadcast);
        };
        let queued = room.may_broadcast(session);
        if let Err(error) = queued.and_then(|()| line.broadcast(room, broadcast)) {
            room.refuse_broadcast(session, error);
        }
    }

    pub(super) fn extension(
        &mut self,
        kind: u8,
        channel: Option<Channel>,
        document: Option<DocumentId>,
        bytes: Bytes,
    ) {
        let Some(line) = &mut self.line else {
            let session = self.session.id();
            let message = "Extension";
            let ignored = ServerEvent::MessageIgnored { session, message };
            return self.server.events.send(ignored);
        };
        if let Err(error) = line.extension(kind, document, bytes) {
            self.session.refuse_extension(channel, error);
        }
    }

    pub(super) fn closed(&mut self, room: &RoomHandle) {
        if let Some(line) = &mut self.line {
            line.closed(room.document());
        }
    }

    /// Sends on what hooks have accepted; whether there was anything.
    pub(super) fn poll_line(&mut self, cx: &mut Context<'_>) -> bool {
        let session = self.session.id();
        let Some(line) = &mut self.line else {
            return false;
        };
        let mut is_busy = false;
        while let Poll::Ready(asked) = line.poll_asked(cx) {
            is_busy = true;
            match asked.answer {
                Ok(()) => asked.room.broadcast(session, asked.broadcast),
                Err(error) => asked.room.refuse_broadcast(session, error),
            }
        }
        is_busy
    }
}
