//! Names of things: documents, engines, origins, changes, sessions, channels.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

pub use crate::user::User;

/// Longest document id, in bytes of UTF-8.
pub const DOCUMENT_ID_BYTES_MAX: usize = 255;

/// Name of a document: 1 to 255 bytes of UTF-8, compared byte for byte and never sanitised.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DocumentId(Arc<str>);

/// A string that cannot name a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DocumentIdError {
    /// The empty string names nothing.
    #[error("a document id cannot be empty")]
    Empty,
    /// Longer than [`DOCUMENT_ID_BYTES_MAX`].
    #[error("document id has {bytes} bytes, the limit is {DOCUMENT_ID_BYTES_MAX}")]
    TooLong {
        /// Length of the refused id in bytes.
        bytes: usize,
    },
}

impl DocumentId {
    /// Parses an id.
    ///
    /// # Errors
    /// [`DocumentIdError`] if it is empty or longer than 255 bytes.
    pub fn new(id: impl Into<Arc<str>>) -> Result<Self, DocumentIdError> {
        let id = id.into();
        match id.len() {
            0 => Err(DocumentIdError::Empty),
            bytes if bytes > DOCUMENT_ID_BYTES_MAX => Err(DocumentIdError::TooLong { bytes }),
            _ => Ok(Self(id)),
        }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for DocumentId {
    type Error = DocumentIdError;
    fn try_from(id: &str) -> Result<Self, Self::Error> {
        Self::new(id)
    }
}

impl TryFrom<String> for DocumentId {
    type Error = DocumentIdError;
    fn try_from(id: String) -> Result<Self, Self::Error> {
        Self::new(id)
    }
}

impl TryFrom<&String> for DocumentId {
    type Error = DocumentIdError;
    fn try_from(id: &String) -> Result<Self, Self::Error> {
        Self::new(id.as_str())
    }
}

impl From<&Self> for DocumentId {
    fn from(id: &Self) -> Self {
        id.clone()
    }
}

impl fmt::Display for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DocumentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Name of the CRDT that reads a document's bytes, such as `yrs` or `mergeable`; 1 to 32 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineId(Cow<'static, str>);

impl EngineId {
    /// Yjs documents, update encoding v1.
    pub const YRS: Self = Self(Cow::Borrowed("yrs"));
    /// Loro documents.
    pub const LORO: Self = Self(Cow::Borrowed("loro"));
    /// Automerge documents.
    pub const AUTOMERGE: Self = Self(Cow::Borrowed("automerge"));
    /// The built-in mergeable types.
    pub const MERGEABLE: Self = Self(Cow::Borrowed("mergeable"));
    /// Bytes that the server never reads.
    pub const OPAQUE: Self = Self(Cow::Borrowed("opaque"));

    /// Names an engine. `None` if the name is empty or longer than 32 bytes.
    #[must_use]
    pub fn new(name: impl Into<Cow<'static, str>>) -> Option<Self> {
        let name = name.into();
        (1..=32).contains(&name.len()).then_some(Self(name))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Random 128-bit id of one client process start, used for one user only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OriginId(pub u128);

impl fmt::Display for OriginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for OriginId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OriginId({self})")
    }
}

/// Identity of one change: who made it, and which of theirs it is in this document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeId {
    /// The process start that made the change.
    pub origin: OriginId,
    /// Counts the origin's changes in one document, from 1 and without holes.
    pub number: u64,
}

impl fmt::Display for ChangeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.origin, self.number)
    }
}

/// Names the protocol state over one connection; given by the server, unique while it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Secret by which a client says that it was another session before, which has been cut off.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ResumeToken([u8; Self::BYTES]);

impl ResumeToken {
    /// Bytes of a token.
    pub const BYTES: usize = 16;

    /// A token of these bytes, which nobody can guess.
    #[must_use]
    pub const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Reads a token; `None` if it is none of ours.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The bytes that travel.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for ResumeToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ResumeToken").field(&Hidden).finish()
    }
}

/// Number of an open document on every session of one node. 0 means the session itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Channel(pub u32);

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Small number by which one room's frames name an origin. Given by the room, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Author(pub u32);

/// Ties an answer to the request that it answers; chosen by the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u32);

/// Stands in logs for what must not be there.
pub(crate) struct Hidden;

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn document_ids_are_bounded_and_kept_byte_for_byte() {
        assert_eq!(DocumentId::new(""), Err(DocumentIdError::Empty));
        assert!(DocumentId::new("x".repeat(255)).is_ok());
        assert_eq!(
            DocumentId::new("x".repeat(256)),
            Err(DocumentIdError::TooLong { bytes: 256 })
        );
        assert_eq!(DocumentId::new("../A b").unwrap().as_str(), "../A b");
        assert_ne!(DocumentId::new("a").unwrap(), DocumentId::new("A").unwrap());
    }
}
