//! Who somebody is.

use std::time::Duration;

use sync_core::ids::User;

/// What an [`Authenticator`](super::Authenticator) says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// Who it is, with what the authorizer is to know beyond the name ([`User::with_claims`]).
    pub user: User,
    /// How long that is to be believed, from now on. The client is asked for fresh credentials in time, and the session ends if
    /// none come. `None`: as long as the connection lives.
    pub valid_for: Option<Duration>,
    /// Whether this is nobody in particular, and many people may have the same name: what they cost is then told apart by
    /// where they come from.
    pub is_anonymous: bool,
}

impl Identity {
    /// This user, as long as the connection lives.
    #[must_use]
    pub const fn new(user: User) -> Self {
        Self {
            user,
            valid_for: None,
            is_anonymous: false,
        }
    }

    /// The same as nobody in particular.
    #[must_use]
    pub const fn anonymous(mut self) -> Self {
        self.is_anonymous = true;
        self
    }

    /// The same for so long.
    #[must_use]
    pub const fn valid_for(mut self, time: Duration) -> Self {
        self.valid_for = Some(time);
        self
    }
}

impl From<User> for Identity {
    fn from(user: User) -> Self {
        Self::new(user)
    }
}
