//! Who may do what: [`Auth`], and the traits behind it.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use sync_core::BoxError;
use sync_core::ids::{DocumentId, OriginId, User};
use sync_core::transport::PeerInfo;
pub use sync_core::wire::AccessLevel;

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

/// What is known of a connection when its client is to be named.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectRequest {
    /// What the client sent to prove who it is.
    pub credentials: Option<Bytes>,
    /// Where it connects from.
    pub peer: PeerInfo,
    /// Name and version of its software, as it says.
    pub software: String,
    /// Its process start, as it says.
    pub origin: OriginId,
}

impl ConnectRequest {
    /// A request that says nothing else.
    #[must_use]
    pub const fn new(origin: OriginId, peer: PeerInfo) -> Self {
        Self {
            credentials: None,
            peer,
            software: String::new(),
            origin,
        }
    }
}

/// Names clients.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The user of a connection.
    ///
    /// # Errors
    /// [`AuthError::Refused`] tells the client to get other credentials; any other error, to try again later.
    ///
    /// # Cancellation
    /// The future is dropped when the connection ends or its handshake takes too long.
    async fn authenticate(&self, request: &ConnectRequest) -> Result<User, AuthError>;
}

/// Decides what users may do. [`authorize_fn`] makes one of a closure.
#[async_trait]
pub trait Authorizer: Send + Sync + 'static {
    /// What a user may do with a document; asked for each open. [`Access::none`] is the explicit no.
    ///
    /// # Errors
    /// Any error, [`AuthError::Refused`] included, means "not now": the client tries again, and nothing that waits
    /// to be sent is refused.
    ///
    /// # Cancellation
    /// The future is dropped when the connection ends, or after the handshake time.
    async fn authorize(&self, user: &User, document: &DocumentId) -> Result<Access, AuthError>;
}

/// What a user may do with a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Access {
    /// How much.
    pub level: AccessLevel,
}

impl Access {
    /// Nothing: an explicit no.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            level: AccessLevel::None,
        }
    }

    /// Receive.
    #[must_use]
    pub const fn read() -> Self {
        Self {
            level: AccessLevel::Read,
        }
    }

    /// Receive, edit, and create what is not there.
    #[must_use]
    pub const fn write() -> Self {
        Self {
            level: AccessLevel::Write,
        }
    }

    /// All of that, and fold opaque documents.
    #[must_use]
    pub const fn maintain() -> Self {
        Self {
            level: AccessLevel::Maintain,
        }
    }
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

/// An [`Authorizer`] of a closure.
///
/// ```
/// use sync_server::{Access, authorize_fn};
///
/// let authorizer = authorize_fn(|user, document| async move {
///     let is_own = document.as_str().starts_with(&*user.id);
///     Ok(if is_own { Access::write() } else { Access::read() })
/// });
/// # let _: &dyn sync_server::Authorizer = &authorizer;
/// ```
pub const fn authorize_fn<F, Fut>(f: F) -> AuthorizeFn<F>
where
    F: Fn(User, DocumentId) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Access, AuthError>> + Send + 'static,
{
    AuthorizeFn(f)
}

/// Made by [`authorize_fn`].
#[derive(Clone)]
pub struct AuthorizeFn<F>(F);

impl<F> fmt::Debug for AuthorizeFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizeFn").finish_non_exhaustive()
    }
}

#[async_trait]
impl<F, Fut> Authorizer for AuthorizeFn<F>
where
    F: Fn(User, DocumentId) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Access, AuthError>> + Send + 'static,
{
    async fn authorize(&self, user: &User, document: &DocumentId) -> Result<Access, AuthError> {
        (self.0)(user.clone(), document.clone()).await
    }
}

/// Everybody is the user `anonymous`, and may do the same with every document.
#[derive(Debug, Clone, Copy)]
pub struct Anonymous {
    access: Access,
}

impl Anonymous {
    /// Anybody who can connect may read, edit and create every document.
    #[must_use]
    pub fn read_write() -> Auth {
        Self::with(Access::write())
    }

    /// As [`read_write`](Self::read_write), and anybody's fold of a document that the server only relays is taken: its log
    /// does not grow without end then, and whoever can connect can put an empty state in the place of it.
    #[must_use]
    pub fn maintain() -> Auth {
        Self::with(Access::maintain())
    }

    /// Anybody who can connect may read every document, and nobody may edit one.
    #[must_use]
    pub fn read_only() -> Auth {
        Self::with(Access::read())
    }

    fn with(access: Access) -> Auth {
        let anonymous = Self { access };
        Auth::new(anonymous, anonymous)
    }
}

#[async_trait]
impl Authenticator for Anonymous {
    async fn authenticate(&self, _request: &ConnectRequest) -> Result<User, AuthError> {
        Ok(User::new("anonymous"))
    }
}

#[async_trait]
impl Authorizer for Anonymous {
    async fn authorize(&self, _user: &User, _document: &DocumentId) -> Result<Access, AuthError> {
        Ok(self.access)
    }
}
