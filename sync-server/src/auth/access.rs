//! What a user may do.

use std::fmt;
use std::future::Future;

use async_trait::async_trait;
use sync_core::ids::{DocumentId, User};
pub use sync_core::wire::AccessLevel;

use super::{AuthError, Authorizer};

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
