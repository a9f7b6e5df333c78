//! Messages beside the document.

use bytes::Bytes;
use sync_core::client::{Broadcast, BroadcastError, ExtensionError};
use sync_core::engine::Engine;
use sync_core::events::Events;

use super::DocumentHandle;

impl<E: Engine> DocumentHandle<E> {
    /// Sends a message to everybody else who has the document open now. It is lost by whoever is offline, and stored nowhere:
    /// what must stay is a document.
    ///
    /// The others are told which session and user it comes from, by the server. This client does not receive it. Messages of
    /// one client arrive in their order; in which order with its changes is not said.
    ///
    /// # Errors
    /// [`BroadcastError`]: nothing was sent, and nothing waits. What the server has against it after all (a hook's veto above
    /// all) shows as [`ClientEvent::DocumentError`](sync_core::client::ClientEvent::DocumentError).
    pub fn broadcast(&self, topic: &str, bytes: impl Into<Bytes>) -> Result<(), BroadcastError> {
        if let Some(retry_in) = self.shared.backlog() {
            return Err(BroadcastError::TooFast { retry_in });
        }
        let bytes = bytes.into();
        self.shared
            .command(|state, now| state.broadcast(now, &self.entry.id, topic, bytes))
    }

    /// Messages of others about this very topic, from here on. A reader that falls behind by more than 256 loses the oldest.
    #[must_use]
    pub fn broadcasts(&self, topic: &str) -> Events<Broadcast> {
        self.entry.broadcasts.subscribe(topic)
    }

    /// Sends a message about this document to a plugin of the server; `kind` is 128 to 255. See
    /// [`Client::extend`](crate::Client::extend).
    ///
    /// # Errors
    /// [`ExtensionError`]: nothing was sent, and nothing waits.
    pub fn extend(&self, kind: u8, bytes: impl Into<Bytes>) -> Result<(), ExtensionError> {
        self.shared.extend(Some(&self.entry.id), kind, bytes.into())
    }
}
