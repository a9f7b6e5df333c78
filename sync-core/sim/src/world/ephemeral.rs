//! What is kept for nobody: presence, broadcasts, extension messages.

use bytes::Bytes;
use sync_core::client::{BroadcastError, ExtensionError, PeerState, PresenceRefusal};
use sync_core::engine::{Engine, Validator};
use sync_core::ids::SessionId;

use super::{World, id};

impl<E: Engine + Validator> World<E> {
    /// Has a client say something of itself to all who have the document open; `None`: nothing any more.
    ///
    /// # Errors
    ///
    /// As [`ClientState::set_presence`](sync_core::client::ClientState::set_presence).
    pub fn set_presence(
        &mut self,
        client: usize,
        document: &str,
        says: Option<Bytes>,
    ) -> Result<(), PresenceRefusal> {
        let state = &mut self.clients[client].state;
        let result = state.set_presence(self.now, &id(document), says);
        self.perform_client(client);
        result
    }

    /// Whom a client sees in a document, itself included.
    pub fn roster(&self, client: usize, document: &str) -> Vec<PeerState> {
        let roster = self.clients[client].state.roster(&id(document));
        roster.map(|(_, peers)| peers).unwrap_or_default()
    }

    /// The session that a client has, by which others see it.
    pub fn session_of(&self, client: usize) -> Option<SessionId> {
        self.clients[client].link
    }

    /// Has a client broadcast something.
    ///
    /// # Errors
    ///
    /// As [`ClientState::broadcast`](sync_core::client::ClientState::broadcast).
    pub fn broadcast(
        &mut self,
        client: usize,
        document: &str,
        bytes: Bytes,
    ) -> Result<(), BroadcastError> {
        let state = &mut self.clients[client].state;
        let result = state.broadcast(self.now, &id(document), "topic", bytes);
        self.perform_client(client);
        result
    }

    /// Has a client send an extension message, which the server sends back to all who have the document open.
    ///
    /// # Errors
    ///
    /// As [`ClientState::extend`](sync_core::client::ClientState::extend).
    pub fn extend(
        &mut self,
        client: usize,
        document: Option<&str>,
        bytes: Bytes,
    ) -> Result<(), ExtensionError> {
        let document = document.map(id);
        let state = &mut self.clients[client].state;
        let result = state.extend(self.now, document.as_ref(), 200, bytes);
        self.perform_client(client);
        result
    }

    /// A plugin that sends back what it is sent.
    pub(super) fn received_extension(&mut self, session: SessionId, kind: u8, bytes: Bytes) {
        if let Some(link) = self.links.get_mut(&session) {
            link.session.handle_extend(kind, bytes);
        }
    }
}
