//! What a token says beside who it names.

use std::fmt;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// All claims of the token that named a user, for the authorizer.
///
/// ```
/// use sync_server::{Access, JwtClaims, authorize_fn};
///
/// let may = authorize_fn(|user, _document| async move {
///     let role = user.claims::<JwtClaims>().and_then(|claims| claims.get::<String>("role"));
///     Ok(if role.as_deref() == Some("editor") { Access::write() } else { Access::read() })
/// });
/// # let _: &dyn sync_server::Authorizer = &may;
/// ```
pub struct JwtClaims(pub(super) Map<String, Value>);

impl JwtClaims {
    /// A claim as what it has to be; `None` if there is none, or if it is something else.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        T::deserialize(self.0.get(name)?).ok()
    }

    /// The texts of a claim that is a text, or a list in which there are some.
    pub fn texts<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        let values = match self.0.get(name) {
            Some(Value::Array(values)) => values.as_slice(),
            Some(value) => std::slice::from_ref(value),
            None => &[],
        };
        values.iter().filter_map(Value::as_str)
    }
}

/// Their names: the values are the user's own affair.
impl fmt::Debug for JwtClaims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}
