//! What can be wrong with bytes from a peer.

use crate::error::{ErrorCode, PeerError};
use crate::ids::DocumentIdError;

/// Bytes that are not a frame of this protocol. The peer is at fault, and the session is closed with
/// [`DecodeError::code`]; nothing has been applied.
///
/// Fields are named as in `docs/protocol.md` section 4, such as `open.cursor`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// A frame without a flag byte.
    #[error("the frame is empty")]
    Empty,
    /// A flag byte with bits that mean nothing: the usual sign of another protocol on the port.
    #[error("flag byte {flags:#04x} has unknown bits")]
    UnknownFlags {
        /// The flag byte.
        flags: u8,
    },
    /// More bytes than the receiver takes, on arrival or put together.
    #[error("message of {bytes} bytes or more, the limit is {limit}")]
    FrameTooLarge {
        /// Bytes counted when it was refused.
        bytes: usize,
        /// Most that is taken.
        limit: usize,
    },
    /// A compressed frame that says, or turns out, to be larger than the receiver takes. It was refused before
    /// anything beyond the limit was inflated.
    #[error("compressed frame inflates to {bytes} bytes or more, the limit is {limit}")]
    InflatesTooLarge {
        /// Bytes that it claims or has reached.
        bytes: usize,
        /// Most that is taken.
        limit: usize,
    },
    /// A compressed frame that is not one whole gzip member.
    #[error("the frame is not one whole gzip stream")]
    InvalidGzip,
    /// A message that may not be compressed was: credentials, and fragments, which are cut from frames.
    #[error("a message of type {kind} must not be compressed")]
    MustBePlain {
        /// The message type.
        kind: u8,
    },
    /// The bytes end before the value does.
    #[error("{field}: {needed} more bytes or values announced, {remaining} bytes left")]
    Truncated {
        /// The field.
        field: &'static str,
        /// What the value needs at least.
        needed: u64,
        /// What is left of the payload.
        remaining: usize,
    },
    /// Bytes after the message.
    #[error("{bytes} bytes after the message")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// A value of another MessagePack type.
    #[error("{field}: expected {expected}, found {found}")]
    WrongType {
        /// The field.
        field: &'static str,
        /// The type of the field.
        expected: &'static str,
        /// The type found.
        found: &'static str,
    },
    /// An integer that is too large for its field.
    #[error("{field}: {found} is over the limit of {limit}")]
    OutOfRange {
        /// The field.
        field: &'static str,
        /// The value.
        found: u64,
        /// Largest value of the field.
        limit: u64,
    },
    /// A number that is none of the field's choices.
    #[error("{field}: {found} has no meaning")]
    UnknownValue {
        /// The field.
        field: &'static str,
        /// The value.
        found: u64,
    },
    /// Bytes or text of a length that the field cannot have.
    #[error("{field}: {found} bytes, expected {expected}")]
    WrongLength {
        /// The field.
        field: &'static str,
        /// Its length.
        found: usize,
        /// Lengths that it may have.
        expected: &'static str,
    },
    /// Text that is not UTF-8.
    #[error("{field}: not UTF-8")]
    InvalidUtf8 {
        /// The field.
        field: &'static str,
    },
    /// The array ends before this field.
    #[error("{field} is missing")]
    MissingField {
        /// The field.
        field: &'static str,
    },
    /// More entries than one list may have.
    #[error("{field}: {found} entries, the limit is {limit}")]
    TooManyEntries {
        /// The list.
        field: &'static str,
        /// Entries announced.
        found: u64,
        /// Most that are taken.
        limit: u64,
    },
    /// `Changes` whose values after the check do not come in threes.
    #[error("changes: {values} values do not make whole changes of author, number and bytes")]
    UnevenChanges {
        /// Values after the check.
        values: u64,
    },
    /// A document id that cannot be.
    #[error("open.document: {0}")]
    DocumentId(DocumentIdError),
    /// A message type below 64 that this version does not know.
    #[error("unknown message type {kind}")]
    UnknownMessage {
        /// The type.
        kind: u64,
    },
    /// A fragment out of order, repeated, or without its beginning.
    #[error("fragment {found} of message {id} on channel {channel}, expected {expected}")]
    FragmentOrder {
        /// The fragment's channel.
        channel: u32,
        /// The fragmented message.
        id: u32,
        /// Index expected.
        expected: u32,
        /// Index found.
        found: u32,
    },
    /// A fragment that disagrees with the first about how many there are, or says less than its own index.
    #[error("fragment total {found} of message {id} on channel {channel}, expected {expected}")]
    FragmentTotal {
        /// The fragment's channel.
        channel: u32,
        /// The fragmented message.
        id: u32,
        /// Total expected.
        expected: u32,
        /// Total found.
        found: u32,
    },
    /// A fragment without bytes: it could be repeated for ever.
    #[error("empty fragment of message {id} on channel {channel}")]
    EmptyFragment {
        /// The fragment's channel.
        channel: u32,
        /// The fragmented message.
        id: u32,
    },
    /// More fragmented messages at once than the receiver takes.
    #[error("more than {limit} fragmented messages at once")]
    TooManyFragmented {
        /// Most that are taken.
        limit: usize,
    },
    /// A message put together from fragments that is a fragment.
    #[error("message {id} on channel {channel} is a fragment made of fragments")]
    NestedFragment {
        /// The fragment's channel.
        channel: u32,
        /// The fragmented message.
        id: u32,
    },
}

impl DecodeError {
    /// What the peer is told.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Empty
            | Self::UnknownFlags { .. }
            | Self::MustBePlain { .. }
            | Self::Truncated { .. }
            | Self::TrailingBytes { .. }
            | Self::WrongType { .. }
            | Self::OutOfRange { .. }
            | Self::UnknownValue { .. }
            | Self::WrongLength { .. }
            | Self::InvalidUtf8 { .. }
            | Self::MissingField { .. }
            | Self::UnevenChanges { .. } => ErrorCode::MalformedFrame,
            Self::FrameTooLarge { .. } | Self::TooManyEntries { .. } => ErrorCode::FrameTooLarge,
            Self::InflatesTooLarge { .. } | Self::InvalidGzip => ErrorCode::DecompressionFailed,
            Self::DocumentId(_) => ErrorCode::InvalidDocumentId,
            Self::UnknownMessage { .. } => ErrorCode::UnknownMessage,
            Self::FragmentOrder { .. }
            | Self::FragmentTotal { .. }
            | Self::EmptyFragment { .. }
            | Self::TooManyFragmented { .. }
            | Self::NestedFragment { .. } => ErrorCode::InvalidFragment,
        }
    }
}

impl From<DecodeError> for PeerError {
    fn from(error: DecodeError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}
