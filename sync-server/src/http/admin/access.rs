//! Who may administer a server.

use std::fmt;
use std::hint::black_box;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use sync_core::transport::PeerInfo;

/// Says who may use the admin API of a server: a permission of its own, which no permission for documents implies.
/// [`AdminToken`] is one, `Jwt` (feature `jwt`) another: whom a token names that has the claim `admin`, and it is `true`.
#[async_trait]
pub trait AdminAccess: Send + Sync + 'static {
    /// Asked for each request.
    ///
    /// # Errors
    /// [`AdminRefusal`]. Nothing is done then.
    ///
    /// # Cancellation
    /// The future is dropped when the client gives the request up.
    async fn admit(&self, request: &AdminRequest) -> Result<Admin, AdminRefusal>;
}

/// What is known of who makes a request.
#[derive(Clone)]
#[non_exhaustive]
pub struct AdminRequest {
    /// From `Authorization: Bearer`. Cookies are never looked at: browsers send them for any page.
    pub credentials: Option<Bytes>,
    /// Where it comes from.
    pub peer: PeerInfo,
}

impl AdminRequest {
    pub(super) const fn new(credentials: Option<Bytes>, peer: PeerInfo) -> Self {
        Self { credentials, peer }
    }
}

/// Without the credentials.
impl fmt::Debug for AdminRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminRequest")
            .field("has_credentials", &self.credentials.is_some())
            .field("peer", &self.peer)
            .finish()
    }
}

/// Somebody who may.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Admin {
    /// Name, for logs.
    pub name: Arc<str>,
}

impl Admin {
    /// An admin of this name.
    #[must_use]
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self { name: name.into() }
    }
}

/// Why somebody may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AdminRefusal {
    /// The credentials are missing, wrong or expired: 401.
    #[error("the credentials are missing, wrong or expired")]
    Unauthenticated,
    /// They are good, and their user is no admin: 403.
    #[error("this needs the permission to administer the server")]
    Forbidden,
    /// It cannot be told now: 503.
    #[error("cannot tell now who may administer the server")]
    Unavailable,
}

/// Lets in whoever has this token.
pub struct AdminToken {
    token: Bytes,
}

/// The token is too short: others could guess it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an admin token of {bytes} bytes, {min} at least are needed", min = AdminToken::BYTES_MIN)]
#[non_exhaustive]
pub struct AdminTokenError {
    /// What it has.
    pub bytes: usize,
}

impl AdminToken {
    /// Bytes that a token has at least.
    pub const BYTES_MIN: usize = 16;

    /// Requests need this token, in full.
    ///
    /// # Errors
    /// [`AdminTokenError`] if it has fewer than [`BYTES_MIN`](Self::BYTES_MIN) bytes.
    pub fn new(token: impl AsRef<[u8]>) -> Result<Self, AdminTokenError> {
        let token = Bytes::copy_from_slice(token.as_ref());
        match token.len() {
            bytes if bytes < Self::BYTES_MIN => Err(AdminTokenError { bytes }),
            _ => Ok(Self { token }),
        }
    }

    /// Compares all of it, so that the time it takes tells nothing but the length.
    fn is(&self, found: &[u8]) -> bool {
        let differs = self.token.iter().zip(found);
        let differs = differs.fold(0, |differs, (a, b)| black_box(differs | (a ^ b)));
        found.len() == self.token.len() && differs == 0
    }
}

/// Without the token.
impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminToken").finish_non_exhaustive()
    }
}

#[async_trait]
impl AdminAccess for AdminToken {
    async fn admit(&self, request: &AdminRequest) -> Result<Admin, AdminRefusal> {
        match &request.credentials {
            Some(found) if self.is(found) => Ok(Admin::new("admin token")),
            _ => Err(AdminRefusal::Unauthenticated),
        }
    }
}

#[async_trait]
impl<A: AdminAccess + ?Sized> AdminAccess for Arc<A> {
    async fn admit(&self, request: &AdminRequest) -> Result<Admin, AdminRefusal> {
        (**self).admit(request).await
    }
}

#[cfg(feature = "jwt")]
#[async_trait]
impl AdminAccess for crate::Jwt {
    async fn admit(&self, request: &AdminRequest) -> Result<Admin, AdminRefusal> {
        let credentials = request.credentials.as_ref();
        let token = credentials.ok_or(AdminRefusal::Unauthenticated)?;
        match self.admin(token) {
            Ok((user, true)) => Ok(Admin::new(user.id)),
            Ok((_, false)) => Err(AdminRefusal::Forbidden),
            Err(crate::AuthError::Refused { .. }) => Err(AdminRefusal::Unauthenticated),
            Err(_) => Err(AdminRefusal::Unavailable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_compared_in_full_and_never_printed() {
        let token = AdminToken::new("sixteen bytes ok").unwrap();
        assert!(token.is(b"sixteen bytes ok"));
        for wrong in [
            &b"sixteen bytes oK"[..],
            b"sixteen bytes o",
            b"sixteen bytes ok!",
            b"",
        ] {
            assert!(!token.is(wrong));
        }
        assert_eq!(format!("{token:?}"), "AdminToken { .. }");
        assert_eq!(AdminToken::new("short").unwrap_err().bytes, 5);
        let request = AdminRequest::new(Some("secret".into()), PeerInfo::default());
        assert!(!format!("{request:?}").contains("secret"));
    }
}
