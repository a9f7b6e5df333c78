//! What hooks are told.

use bytes::Bytes;
use sync_core::ids::{ChangeId, DocumentId, SessionId, User};
use sync_core::transport::PeerInfo;
use sync_core::wire::AccessLevel;

use crate::Server;

/// A client that has said who it is.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectContext<'a> {
    /// The server, to act on.
    pub server: &'a Server,
    /// Who it is.
    pub user: &'a User,
    /// Its session.
    pub session: SessionId,
    /// Where it connects from.
    pub peer: &'a PeerInfo,
}

/// An open of a document.
#[derive(Debug)]
#[non_exhaustive]
pub struct OpenContext<'a> {
    /// The server, to act on.
    pub server: &'a Server,
    /// Who it is.
    pub user: &'a User,
    /// Its session.
    pub session: SessionId,
    /// The document.
    pub document: &'a DocumentId,
    /// What the user may do with it.
    pub access: AccessLevel,
}

/// A change that is about to be appended.
#[derive(Debug)]
#[non_exhaustive]
pub struct ChangeContext<'a> {
    /// The server, to act on.
    pub server: &'a Server,
    /// Who it is.
    pub user: &'a User,
    /// Its session.
    pub session: SessionId,
    /// The document.
    pub document: &'a DocumentId,
    /// Which change.
    pub id: ChangeId,
    /// Its bytes, in the encoding of the document's engine.
    pub bytes: &'a Bytes,
}

/// A broadcast that is about to be sent.
#[derive(Debug)]
#[non_exhaustive]
pub struct BroadcastContext<'a> {
    /// The server, to act on.
    pub server: &'a Server,
    /// Who it is.
    pub user: &'a User,
    /// Its session.
    pub session: SessionId,
    /// The document.
    pub document: &'a DocumentId,
    /// What it is about.
    pub topic: &'a str,
    /// The payload.
    pub bytes: &'a Bytes,
}

/// A message of a type that belongs to plugins.
#[derive(Debug)]
#[non_exhaustive]
pub struct ExtensionContext<'a> {
    /// The server, to answer through: [`Server::send_extension`].
    pub server: &'a Server,
    /// Who it is.
    pub user: &'a User,
    /// Its session.
    pub session: SessionId,
    /// The document that it is about, if any, which the session has open.
    pub document: Option<&'a DocumentId>,
    /// 128 to 255.
    pub kind: u8,
    /// The payload.
    pub bytes: &'a Bytes,
}

/// A document that has been closed, or a session that has ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct CloseContext<'a> {
    /// The server, to act on.
    pub server: &'a Server,
    /// Who it is.
    pub user: &'a User,
    /// Its session.
    pub session: SessionId,
    /// The document; `None` if the session has ended.
    pub document: Option<&'a DocumentId>,
}
