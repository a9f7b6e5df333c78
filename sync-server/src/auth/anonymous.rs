//! A server that asks nobody.

use std::time::Duration;

use async_trait::async_trait;
use sync_core::ids::{DocumentId, User};

use super::{Access, Auth, AuthError, Authenticator, Authorizer, ConnectRequest, Identity};

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
        // Nobody says anything else later.
        let access = access.valid_for(Duration::MAX);
        let anonymous = Self { access };
        Auth::new(anonymous, anonymous)
    }
}

#[async_trait]
impl Authenticator for Anonymous {
    async fn authenticate(&self, _request: &ConnectRequest) -> Result<Identity, AuthError> {
        Ok(Identity::new(User::new("anonymous")).anonymous())
    }
}

#[async_trait]
impl Authorizer for Anonymous {
    async fn authorize(&self, _user: &User, _document: &DocumentId) -> Result<Access, AuthError> {
        Ok(self.access)
    }
}
