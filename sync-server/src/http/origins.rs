//! Which web pages may connect.

use axum::http::{HeaderMap, Uri, header};

/// Browsers let any page open a WebSocket to any host, and send the host's cookies with it; what they also send is which
/// page that is. Other programs send nothing of the kind, and need not be told from each other.
#[derive(Debug, Clone, Default)]
pub(super) enum Origins {
    /// Pages of the host that is connected to.
    #[default]
    Own,
    These(Vec<String>),
    Any,
}

impl Origins {
    /// Whether the page that sent this may connect.
    pub(super) fn allow(&self, headers: &HeaderMap) -> bool {
        let mut sent = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = sent.next() else {
            return true;
        };
        let (Ok(origin), None) = (origin.to_str(), sent.next()) else {
            return false;
        };
        match self {
            Self::Any => true,
            Self::These(origins) => origins
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(origin)),
            Self::Own => {
                let host = headers
                    .get(header::HOST)
                    .and_then(|host| host.to_str().ok());
                let origin = origin.parse::<Uri>().ok();
                let authority = origin.as_ref().and_then(Uri::authority);
                authority
                    .zip(host)
                    .is_some_and(|(page, host)| page.as_str().eq_ignore_ascii_case(host))
            }
        }
    }
}
