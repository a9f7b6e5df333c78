//! Who somebody is.

use std::any::Any;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// An authenticated user. Two of one id are the same user, whatever else is said of them.
#[derive(Clone)]
#[non_exhaustive]
pub struct User {
    /// Unique name of the user, as the authenticator knows it.
    pub id: Arc<str>,
    claims: Option<Arc<dyn Any + Send + Sync>>,
}

impl User {
    /// A user of this name.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self {
            id: id.into(),
            claims: None,
        }
    }

    /// The same, with what the authenticator knows beyond that: groups, roles, whatever the authorizer of the same
    /// application wants to look at. Shared by all copies, never sent anywhere, and not printed.
    ///
    /// ```
    /// use sync_core::ids::User;
    ///
    /// struct Groups(Vec<String>);
    ///
    /// let user = User::new("ada").with_claims(Groups(vec!["staff".into()]));
    /// let is_staff = |user: &User| user.claims::<Groups>().is_some_and(|groups| groups.0.contains(&"staff".into()));
    /// assert!(is_staff(&user) && !is_staff(&User::new("bob")));
    /// ```
    #[must_use]
    pub fn with_claims<T: Any + Send + Sync>(mut self, claims: T) -> Self {
        self.claims = Some(Arc::new(claims));
        self
    }

    /// What was given to [`with_claims`](Self::with_claims), if it is of this type.
    #[must_use]
    pub fn claims<T: Any>(&self) -> Option<&T> {
        self.claims.as_deref()?.downcast_ref()
    }

    /// Whether more than the name is known.
    #[must_use]
    pub const fn has_claims(&self) -> bool {
        self.claims.is_some()
    }

    /// The name alone, to be kept.
    #[must_use]
    pub fn without_claims(&self) -> Self {
        Self {
            id: Arc::clone(&self.id),
            claims: None,
        }
    }
}

/// Without the claims.
impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("User").field(&self.id).finish()
    }
}

impl PartialEq for User {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for User {}

impl PartialOrd for User {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for User {
    fn cmp(&self, other: &Self) -> Ordering {
        self.id.cmp(&other.id)
    }
}

impl Hash for User {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_make_no_other_user_and_are_not_printed() {
        let user = User::new("ada").with_claims("a secret");
        assert_eq!(user, User::new("ada"));
        assert_eq!(user.claims::<&str>(), Some(&"a secret"));
        assert_eq!(user.claims::<u32>(), None);
        assert_eq!(user.without_claims().claims::<&str>(), None);
        assert_eq!(format!("{user:?}"), r#"User("ada")"#);
    }
}
