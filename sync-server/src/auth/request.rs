//! What is known of a client before anybody says who it is.

use std::fmt;

use bytes::Bytes;
use sync_core::ids::OriginId;
use sync_core::transport::PeerInfo;

/// What is known of a connection when its client is to be named.
#[derive(Clone)]
#[non_exhaustive]
pub struct ConnectRequest {
    /// What the client sent to prove who it is.
    pub credentials: Option<Bytes>,
    /// How the credentials came.
    pub source: CredentialsSource,
    /// Where it connects from.
    pub peer: PeerInfo,
    /// Name and version of its software, as it says; empty before its hello.
    pub software: String,
    /// Its process start, as it says; `None` before its hello.
    pub origin: Option<OriginId>,
}

/// How credentials came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CredentialsSource {
    /// In the client's hello, or later in the session.
    #[default]
    Session,
    /// As `Authorization: Bearer` of the HTTP request.
    Authorization,
    /// As a cookie of the HTTP request, which browsers also send for pages of others.
    Cookie,
    /// As `?token=` of the HTTP request.
    Query,
}

impl ConnectRequest {
    /// A request that says nothing else.
    #[must_use]
    pub const fn new(peer: PeerInfo) -> Self {
        Self {
            credentials: None,
            source: CredentialsSource::Session,
            peer,
            software: String::new(),
            origin: None,
        }
    }
}

/// Without the credentials.
impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let has_credentials = self.credentials.is_some();
        f.debug_struct("ConnectRequest")
            .field("has_credentials", &has_credentials)
            .field("source", &self.source)
            .field("peer", &self.peer)
            .field("software", &self.software)
            .field("origin", &self.origin)
            .finish()
    }
}
