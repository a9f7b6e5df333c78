//! What the server itself sends beside documents.

use bytes::Bytes;
use sync_core::ids::{DocumentId, SessionId};
use sync_core::limits::TOPIC_BYTES_MAX;
use sync_core::wire::FIRST_EXTENSION;

use super::{Server, lock};

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
    /// Types below 128 are the protocol's own.
    #[error("{kind} is not a type of extensions, which are 128 to 255")]
    WrongKind {
        /// The type asked for.
        kind: u8,
    },
    /// There is no such session.
    #[error("there is no such session")]
    NoSession,
    /// The session has not read what was sent to it before.
    #[error("the session does not read fast enough")]
    Full,
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

    /// Sends a message of a plugin to one session; `kind` is 128 to 255. Up to
    /// [`Limits::broadcast_queue_bytes_max`](crate::Limits::broadcast_queue_bytes_max) of them wait for a session that does not read.
    ///
    /// # Errors
    /// [`SendError`]: nothing was sent. [`SendError::TooLarge`] over
    /// [`Limits::extension_bytes_max`](crate::Limits::extension_bytes_max).
    pub fn send_extension(
        &self,
        session: SessionId,
        kind: u8,
        bytes: impl Into<Bytes>,
    ) -> Result<(), SendError> {
        let bytes = self.extension(kind, bytes.into())?;
        let mailbox = lock(&self.shared.sessions).live.get(&session).cloned();
        let mailbox = mailbox.filter(|mailbox| mailbox.info.get().is_some());
        let max = self.shared.room_config.limits.broadcast_queue_bytes_max;
        match mailbox.map(|mailbox| mailbox.extend(kind, bytes, max)) {
            Some(true) => Ok(()),
            Some(false) => Err(SendError::Full),
            None => Err(SendError::NoSession),
        }
    }

    /// Sends a message of a plugin to every session that has the document open on this server; `kind` is 128 to 255. Returns to
    /// how many. For whoever does not read, the oldest are dropped, as with broadcasts.
    ///
    /// # Errors
    /// As [`send_extension`](Self::send_extension), but for [`SendError::NoSession`] and [`SendError::Full`].
    pub fn broadcast_extension(
        &self,
        document: &DocumentId,
        kind: u8,
        bytes: impl Into<Bytes>,
    ) -> Result<usize, SendError> {
        let bytes = self.extension(kind, bytes.into())?;
        let room = self.shared.rooms.live(document);
        Ok(room.map_or(0, |room| room.extend(kind, bytes)))
    }

    fn extension(&self, kind: u8, bytes: Bytes) -> Result<Bytes, SendError> {
        if kind < FIRST_EXTENSION {
            return Err(SendError::WrongKind { kind });
        }
        let max = self.shared.room_config.limits.extension_bytes_max;
        within("extension message", bytes.len(), max)?;
        Ok(bytes)
    }
}

fn within(what: &'static str, bytes: usize, max: usize) -> Result<(), SendError> {
    if bytes > max {
        return Err(SendError::TooLarge { what, bytes, max });
    }
    Ok(())
}
