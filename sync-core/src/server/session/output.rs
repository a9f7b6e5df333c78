//! What a session wants done, and what happens on it.

use std::fmt;

use bytes::Bytes;

use crate::error::{ErrorCode, PeerError};
use crate::ids::{Channel, DocumentId, Hidden, OriginId, RequestId, User};
use crate::server::room::OpenRequest;
use crate::wire::{Broadcast, ErrorMessage, FoldOffer, Push};

/// What a session wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionOutput {
    /// Send this frame, ahead of frames that rooms have for the session.
    Send(Bytes),
    /// Ask who the client is, and answer with [`handle_authenticated`](super::ServerSession::handle_authenticated)
    /// and, if that is limited, [`handle_validity`](super::ServerSession::handle_validity).
    Authenticate(AuthenticateRequest),
    /// Ask what the user may do, and answer with [`handle_authorized`](super::ServerSession::handle_authorized).
    Authorize {
        /// Names the answer.
        request: RequestId,
        /// What is to be opened.
        document: DocumentId,
    },
    /// Hand the open to the document's room, after [`handle_joined`](super::ServerSession::handle_joined) with the room's channel.
    Join(JoinRequest),
    /// Hand the changes to the channel's room.
    Push(Push),
    /// Tell the channel's room, with [`Room::handle_stop_push`](crate::server::Room::handle_stop_push), that nothing more is taken from the session
    /// until it opens the document again.
    StopPush {
        /// The channel.
        channel: Channel,
        /// Why; nothing that takes changes out of an outbox.
        error: PeerError,
    },
    /// Hand the broadcast to the channel's room.
    Broadcast(Broadcast),
    /// Hand this to whoever knows messages of its kind.
    Extension {
        /// 128 to 255.
        kind: u8,
        /// For [`refuse_extension`](super::ServerSession::refuse_extension).
        channel: Option<Channel>,
        /// The document, if it is about one.
        document: Option<DocumentId>,
        /// The payload.
        bytes: Bytes,
    },
    /// Hand what the session says of itself to the channel's room.
    Presence {
        /// The document.
        channel: Channel,
        /// The state; `None`: nothing any more.
        state: Option<Bytes>,
    },
    /// Hand the fold to the channel's room.
    FoldOffer(FoldOffer),
    /// Take the session out of the channel's room.
    Leave(Channel),
    /// Fresh credentials say something of the user, perhaps something else than before: hand it to the rooms of all channels.
    Refreshed(User),
    /// Collect the heads of the channels open on this session, and answer with [`handle_heads`](super::ServerSession::handle_heads).
    Heads {
        /// Names the answer.
        nonce: u64,
    },
    /// Something happened.
    Event(SessionEvent),
    /// Close the connection with this code once everything before has been sent. The last output.
    Close {
        /// Close code of the transport.
        code: u16,
        /// What ended the session.
        reason: PeerError,
    },
}

/// What is known of a client before anybody says who it is, or whether it still is.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthenticateRequest {
    /// The credentials of `Hello`, or fresh ones of `Auth`.
    pub credentials: Option<Bytes>,
    /// Name and version of its software; empty with fresh credentials.
    pub software: String,
    /// Its process start.
    pub origin: OriginId,
}

/// Without what is secret.
impl fmt::Debug for AuthenticateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            credentials,
            software,
            origin,
        } = self;
        f.debug_struct("AuthenticateRequest")
            .field("credentials", &credentials.as_ref().map(|_| Hidden))
            .field("software", software)
            .field("origin", origin)
            .finish()
    }
}

/// An open that the user may make.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JoinRequest {
    /// What is to be opened.
    pub document: DocumentId,
    /// For [`Room::handle_open`](crate::server::Room::handle_open).
    pub open: OpenRequest,
}

/// Something that happened on a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// `Welcome` has been sent. Of two sessions of one user and origin the one with the higher connection number stays:
    /// end the other with [`Superseded`](crate::error::ErrorCode::Superseded), its unread frames discarded. The older one's `Hello` may well
    /// arrive last.
    Opened {
        /// Who it is.
        user: User,
        /// Its process start.
        origin: OriginId,
        /// Which of the origin's connections it is.
        connection: u64,
    },
    /// The client broke the protocol; the session ends.
    ProtocolError(PeerError),
    /// The client said that this side broke it; the session ends.
    PeerReported(ErrorMessage),
    /// The client was told an error that does not end the session.
    ErrorSent(ErrorCode),
    /// A message that this version does not know or take was ignored or refused.
    Ignored {
        /// Its name.
        message: &'static str,
    },
}
