//! What the server itself sends beside documents.

use bytes::Bytes;
use sync_core::ids::DocumentId;
use sync_core::limits::TOPIC_BYTES_MAX;

use super::Server;

/// Why the server sent nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The payload, or the topic, is over the limit.
    #[error("the {what} has {bytes} bytes, the limit is {max}")]
    TooLarge {
        /// Which of them.
        what: &'static str,
        /// Its bytes.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

impl Server {
    /// Sends a broadcast of the server itself to every session that has the document open on this server: its sender is
    /// `None`. It is stored nowhere. Returns to how many sessions; 0 if nobody has the document open.
    ///
    /// # Errors
    /// [`SendError::TooLarge`]: over [`Limits::broadcast_bytes_max`](crate::Limits::broadcast_bytes_max), or a topic of more than
    /// 255 bytes.
    pub fn broadcast(
        &self,
        document: &DocumentId,
        topic: &str,
        bytes: impl Into<Bytes>,
    ) -> Result<usize, SendError> {
        let bytes = bytes.into();
        let limits = &self.shared.room_config.limits;
        within("broadcast", bytes.len(), limits.broadcast_bytes_max)?;
        within("topic", topic.len(), TOPIC_BYTES_MAX)?;
        let room = self.shared.rooms.live(document);
        Ok(room.map_or(0, |room| room.broadcast_own(topic.to_owned(), bytes)))
    }
}

fn within(what: &'static str, bytes: usize, max: usize) -> Result<(), SendError> {
    if bytes > max {
        return Err(SendError::TooLarge { what, bytes, max });
    }
    Ok(())
}
