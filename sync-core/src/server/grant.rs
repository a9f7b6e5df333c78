//! What somebody was said to be allowed to.

use std::time::Duration;

use crate::wire::AccessLevel;

/// What a user may do with a document, as the application says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Grant {
    /// How much. [`AccessLevel::None`] is an explicit no.
    pub level: AccessLevel,
    /// Whether the user may create the document if it is not there; only with a level for writing.
    pub create: bool,
    /// How long that is to be believed, from the moment at which it is handed in. `None`: as long as the session has the
    /// document open.
    pub valid_for: Option<Duration>,
}

impl From<AccessLevel> for Grant {
    /// This level, creation included, for ever.
    fn from(level: AccessLevel) -> Self {
        Self {
            level,
            create: true,
            valid_for: None,
        }
    }
}
