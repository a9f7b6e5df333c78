//! Who may do what: [`Auth`], and the traits behind it.

mod access;
mod anonymous;
mod identity;
#[cfg(feature = "jwt")]
mod jwt;
mod request;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sync_core::BoxError;
use sync_core::ids::{DocumentId, User};

pub use self::access::{Access, AccessLevel, AuthorizeFn, authorize_fn};
pub use self::anonymous::Anonymous;
pub use self::identity::Identity;
#[cfg(feature = "jwt")]
pub use self::jwt::{Jwt, JwtClaims, JwtError};
pub use self::request::{ConnectRequest, CredentialsSource};

/// Who clients are, and what they may do. A server has no default for it: an open one says so by name, with
/// [`Anonymous`].
#[derive(Clone)]
pub struct Auth {
    pub(crate) who: Arc<dyn Authenticator>,
    pub(crate) may: Arc<dyn Authorizer>,
}

impl Auth {
    /// Asks `who` for the user of each connection, and `may` for what a user may do with a document.
    #[must_use]
    pub fn new(who: impl Authenticator, may: impl Authorizer) -> Self {
        Self {
            who: Arc::new(who),
            may: Arc::new(may),
        }
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").finish_non_exhaustive()
    }
}

/// Names clients.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// Who has made a connection, and how long that is to be believed. Asked before an upgrade to WebSocket whose request has
    /// credentials, else when the client has said hello; and again for fresh credentials that the client sends.
    ///
    /// # Errors
    /// [`AuthError::Refused`] tells the client to get other credentials; any other error, to try again later.
    ///
    /// # Cancellation
    /// The future is dropped when the connection ends or its handshake takes too long.
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError>;
}

/// Decides what users may do. [`authorize_fn`] makes one of a closure.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// What a user may do with a document: asked for each open, again and again while the document is open
    /// ([`Access::valid_for`]), and when the application says so ([`Server::revoke`](crate::Server::revoke)).
    /// [`Access::none`] is the explicit no.
    ///
    /// # Errors
    /// Any error, [`AuthError::Refused`] included, means "not now": nothing that waits to be sent is refused. A client that opens
    /// the document tries again; of one that has it open, what was said last stays so for its time, and then edits and what is
    /// published wait for an answer.
    ///
    /// # Cancellation
    /// The future is dropped when the connection ends that opens, or after the handshake time.
    async fn authorize(&self, user: &User, document: &DocumentId) -> Result<Access, AuthError>;
}

/// Why nobody said who a client is, or what it may do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The credentials are missing, wrong or expired.
    #[error("refused: {reason}")]
    Refused {
        /// The same for the client.
        reason: String,
    },
    /// It cannot be told now.
    #[error("cannot tell now")]
    Unavailable {
        /// When to try again, if known.
        retry_after: Option<Duration>,
        /// What happened.
        #[source]
        source: Option<BoxError>,
    },
}

impl AuthError {
    /// A no, with the reason that the client is told.
    #[must_use]
    pub fn refused(reason: impl Into<String>) -> Self {
        Self::Refused {
            reason: reason.into(),
        }
    }

    /// Not now, because of this.
    #[must_use]
    pub fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable {
            retry_after: None,
            source: Some(source.into()),
        }
    }
}
