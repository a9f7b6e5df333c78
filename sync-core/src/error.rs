//! The error table: every code that travels, in one enum, with what its receiver should do.
//!
//! The normative table is `docs/protocol.md` section 9; a test compares the two.

use std::fmt;
use std::time::Duration;

/// What the receiver of an error should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Action {
    /// Try again, after the delay given or the usual backoff. Nothing is lost.
    Retry = 0,
    /// Get fresh credentials, then try again.
    RefreshAuth = 1,
    /// Open the document again: what this side believed of its position was wrong.
    Resync = 2,
    /// Take the change named out of the outbox and hand it to the application.
    Refuse = 3,
    /// One side is too old for the other.
    Upgrade = 4,
    /// Do not try again.
    Stop = 5,
}

impl Action {
    /// Parses the number that travels.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Retry,
            1 => Self::RefreshAuth,
            2 => Self::Resync,
            3 => Self::Refuse,
            4 => Self::Upgrade,
            5 => Self::Stop,
            _ => return None,
        })
    }
}

macro_rules! error_table {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $retryable:literal, $action:ident;)+) => {
        /// Why something was refused. The number travels; a number that this version does not know is kept.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$doc])* $name,)+
            /// A code of a newer version.
            Other(u16),
        }

        impl ErrorCode {
            /// Every code of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// The number that travels.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$name => $code,)+
                    Self::Other(number) => number,
                }
            }

            /// The code of this number.
            #[must_use]
            pub const fn from_number(number: u16) -> Self {
                match number {
                    $($code => Self::$name,)+
                    other => Self::Other(other),
                }
            }

            /// Name in the table.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                    Self::Other(_) => "Other",
                }
            }

            /// Whether the same request may succeed later without anybody acting.
            #[must_use]
            pub const fn is_retryable(self) -> bool {
                match self {
                    $(Self::$name => $retryable,)+
                    Self::Other(_) => false,
                }
            }

            /// What the receiver should do.
            #[must_use]
            pub const fn action(self) -> Action {
                match self {
                    $(Self::$name => Action::$action,)+
                    Self::Other(_) => Action::Stop,
                }
            }
        }
    };
}

error_table! {
    /// The bytes are not a frame of this protocol. The session is closed.
    MalformedFrame = 100, false, Stop;
    /// A message that makes no sense in this state. The session is closed.
    UnexpectedMessage = 101, false, Stop;
    /// A message type below 64 that this version does not know. The session is closed.
    UnknownMessage = 102, false, Stop;
    /// A frame, or a message put together from fragments, over the limit. The session is closed.
    FrameTooLarge = 103, false, Stop;
    /// Fragments out of order, of different totals, or too many at once. The session is closed.
    InvalidFragment = 104, false, Stop;
    /// A compressed frame that does not inflate, or would inflate beyond the limit. The session is closed.
    DecompressionFailed = 105, false, Stop;
    /// What arrived first is not this protocol at all. The session is closed.
    WrongProtocol = 106, false, Stop;
    /// The two sides have no protocol version in common. The session is closed.
    UnsupportedVersion = 107, false, Upgrade;
    /// No `Hello` within the handshake time. The session is closed.
    HandshakeTimeout = 108, true, Retry;
    /// Nothing heard for the idle time. The session is closed.
    IdleTimeout = 109, true, Retry;
    /// The server has no room for another connection.
    TooManyConnections = 110, true, Retry;
    /// A newer connection of the same origin took over. The session is closed.
    Superseded = 111, false, Stop;
    /// The server is draining.
    ShuttingDown = 112, true, Retry;
    /// A fault of the other side.
    Internal = 113, true, Retry;
    /// The credentials are missing, wrong or expired.
    Unauthenticated = 114, false, RefreshAuth;
    /// More unacknowledged bytes than the push window allows. The session is closed.
    WindowExceeded = 115, false, Stop;
    /// The server has no room for another connection from this address.
    TooManyFromAddress = 116, true, Retry;

    /// The document id is empty or too long.
    InvalidDocumentId = 200, false, Stop;
    /// There is no such document, and none is created: the open did not ask for it, or the user may not.
    NotFound = 201, false, Stop;
    /// The document has been deleted.
    Deleted = 202, false, Stop;
    /// The document is of another engine.
    EngineMismatch = 203, false, Stop;
    /// The server does not know the engine.
    UnknownEngine = 204, false, Stop;
    /// An explicit no to reading or writing the document.
    AccessDenied = 205, false, Refuse;
    /// More open documents on this session than the limit.
    TooManyDocuments = 206, false, Stop;
    /// A message for a channel that is not open on this session.
    ChannelNotOpen = 207, false, Resync;
    /// The fold offered is not the one that was asked for. The document goes on as it is.
    FoldRefused = 208, false, Stop;
    /// A broadcast that this user may not send to the document, or that a hook of the server said no to. The document goes on.
    BroadcastRefused = 209, false, Stop;
    /// A broadcast, or its topic, over the limit. The document goes on.
    BroadcastTooLarge = 210, false, Stop;
    /// An extension message over the limit. The session goes on.
    ExtensionTooLarge = 211, false, Stop;
    /// What a session says of itself is over the size limit: it was dropped. The document goes on.
    PresenceTooLarge = 212, false, Stop;

    /// The change's bytes break the engine's rules.
    InvalidChange = 300, false, Refuse;
    /// The change refers to something that is in no change before it.
    MissingDependency = 301, false, Refuse;
    /// The change's id has been used for other bytes.
    IdReused = 302, false, Refuse;
    /// The change is over the size limit.
    TooLarge = 303, false, Refuse;
    /// A hook of the server said no.
    Vetoed = 304, false, Refuse;

    /// Numbers were skipped.
    Gap = 400, true, Resync;
    /// The history has been replaced by another epoch.
    Fenced = 401, true, Resync;
    /// The origin belongs to another user.
    ForeignOrigin = 402, true, Resync;
    /// A frame does not start where the receiver stands.
    OutOfStep = 403, true, Resync;
    /// The registry could not be reached or answered with a fault.
    StorageUnavailable = 404, true, Retry;
    /// Too many changes in too short a time.
    RateLimited = 405, true, Retry;
    /// What the user may cost is used up.
    QuotaExceeded = 406, true, Retry;
    /// Whether the user may cannot be told now. Never a no.
    AuthorizationUnavailable = 407, true, Retry;
    /// The server does not offer this message.
    Unsupported = 408, false, Stop;
    /// The change could not be checked now. Never a no.
    CheckUnavailable = 409, true, Retry;
    /// The document would be over the size limit. Nobody's change is taken until that changes.
    DocumentFull = 410, true, Retry;
    /// Too many broadcasts in too short a time: this one was dropped. The document goes on.
    BroadcastTooFast = 411, true, Retry;
    /// Too many extension messages in too short a time: this one was dropped. The session goes on.
    ExtensionTooFast = 412, true, Retry;
    /// A hook of the server could not say yes or no. Never a no.
    HookUnavailable = 413, true, Retry;
    /// It could not be told whether the broadcast may be sent: it was dropped. The document goes on.
    BroadcastUnavailable = 414, true, Retry;
    /// A session says something of itself too often: this was dropped. The document goes on.
    PresenceTooFast = 415, true, Retry;
}

impl ErrorCode {
    /// Whether this code takes changes out of an outbox: the closed list of design 2.2.
    #[must_use]
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::InvalidChange
                | Self::MissingDependency
                | Self::IdReused
                | Self::TooLarge
                | Self::Vetoed
                | Self::AccessDenied
        )
    }

    /// Whether an `Error` of this code about a channel leaves the channel as it is: it answers something that stands by itself.
    #[must_use]
    pub const fn leaves_channel_open(self) -> bool {
        matches!(
            self,
            Self::FoldRefused
                | Self::BroadcastRefused
                | Self::BroadcastTooLarge
                | Self::BroadcastTooFast
                | Self::BroadcastUnavailable
                | Self::ExtensionTooLarge
                | Self::ExtensionTooFast
                | Self::PresenceTooLarge
                | Self::PresenceTooFast
        )
    }

    /// Close code of the transport for a session that ends with this error: 44xx is permanent, 1012 and 1013
    /// mean "try again".
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::ShuttingDown => 1012,
            code if code.is_retryable() => 1013,
            code if code.number() >= 100 && code.number() < 200 => 4400 + (code.number() - 100),
            _ => 4499,
        }
    }
}

impl ErrorCode {
    /// What a bare close code says, if it says that trying again makes no sense.
    #[must_use]
    pub const fn from_close_code(close_code: u16) -> Option<Self> {
        match close_code {
            4400..4499 => Some(Self::from_number(close_code - 4400 + 100)),
            4499 => Some(Self::Other(close_code)),
            _ => None,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(number) => write!(f, "error {number}"),
            known => f.write_str(known.name()),
        }
    }
}

/// An error as it travels: the code, and words for a person.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
#[non_exhaustive]
pub struct PeerError {
    /// What is wrong.
    pub code: ErrorCode,
    /// The same for a person; names the value and the limit.
    pub message: String,
    /// When to try again, if the sender knows.
    pub retry_after: Option<Duration>,
}

impl PeerError {
    /// An error.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after: None,
        }
    }

    /// The same with a delay.
    #[must_use]
    pub const fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }
}
