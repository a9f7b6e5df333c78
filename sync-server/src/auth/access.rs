//! What a user may do.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use sync_core::ids::{DocumentId, User};
use sync_core::server::Grant;
pub use sync_core::wire::AccessLevel;

use super::{AuthError, Authorizer};

/// How long an access is believed if nothing else is said.
const VALID_FOR: Duration = Duration::from_secs(60);
/// The shortest time: asked more often, authorizers would do nothing else.
const VALID_FOR_MIN: Duration = Duration::from_secs(1);
/// What is longer is for ever.
const VALID_FOR_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

/// What a user may do with a document.
///
/// ```
/// # use std::time::Duration;
/// # use sync_server::Access;
/// let access = Access::write().create(false).valid_for(Duration::from_secs(300));
/// # assert!(!access.create);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Access {
    /// How much.
    pub level: AccessLevel,
    /// Whether the user may create the document by opening it, where it is not there; only with a level for writing.
    pub create: bool,
    /// How long that is believed, from the answer on.
    pub valid_for: Duration,
}

impl Access {
    const fn new(level: AccessLevel) -> Self {
        Self {
            level,
            create: true,
            valid_for: VALID_FOR,
        }
    }

    /// Nothing: an explicit no.
    #[must_use]
    pub const fn none() -> Self {
        Self::new(AccessLevel::None)
    }

    /// Receive.
    #[must_use]
    pub const fn read() -> Self {
        Self::new(AccessLevel::Read)
    }

    /// Receive, edit, and create what is not there.
    #[must_use]
    pub const fn write() -> Self {
        Self::new(AccessLevel::Write)
    }

    /// All of that, and fold opaque documents.
    #[must_use]
    pub const fn maintain() -> Self {
        Self::new(AccessLevel::Maintain)
    }

    /// Whether a document that is not there may be created. Default: yes. Who may not is told that there is none.
    #[must_use]
    pub const fn create(mut self, may: bool) -> Self {
        self.create = may;
        self
    }

    /// How long this is believed, from the answer on: within that time the authorizer is asked again, while the document is
    /// open. Default 60 s, at least 1 s; more than a year is for ever.
    ///
    /// It is how long a no may take to be noticed that [`Server::revoke`](crate::Server::revoke) is not told of, and how long
    /// the authorizer may be away before edits wait for it.
    #[must_use]
    pub const fn valid_for(mut self, time: Duration) -> Self {
        self.valid_for = time;
        self
    }
}

impl From<Access> for Grant {
    fn from(access: Access) -> Self {
        let mut grant = Self::from(access.level);
        grant.create = access.create;
        grant.valid_for =
            (access.valid_for <= VALID_FOR_MAX).then_some(access.valid_for.max(VALID_FOR_MIN));
        grant
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
