//! Credentials that come with an HTTP request.

use axum::extract::Query;
use axum::http::header;
use axum::http::request::Parts;
use bytes::Bytes;

use crate::auth::CredentialsSource;

/// Where credentials may be, beside the header `Authorization`.
#[derive(Debug, Default)]
pub(super) struct Credentials {
    pub(super) cookie: Option<String>,
    pub(super) in_query: bool,
}

impl Credentials {
    /// The credentials, from where they are least likely to be there by accident.
    pub(super) fn find(&self, parts: &Parts) -> Option<(Bytes, CredentialsSource)> {
        let text = |name| parts.headers.get(name)?.to_str().ok();
        if let Some(value) = text(header::AUTHORIZATION) {
            let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
            // Other schemes are for proxies on the way.
            if scheme.eq_ignore_ascii_case("bearer") {
                return Some((owned(token.trim()), CredentialsSource::Authorization));
            }
        }
        let cookies = parts.headers.get_all(header::COOKIE).iter();
        let cookies = cookies.filter_map(|cookies| cookies.to_str().ok());
        let mut pairs = cookies
            .flat_map(|cookies| cookies.split(';'))
            .filter_map(|pair| pair.trim().split_once('='));
        if let Some(name) = &self.cookie
            && let Some((_, value)) = pairs.find(|(found, _)| found == name)
        {
            let value = value.trim_matches('"');
            return Some((owned(value), CredentialsSource::Cookie));
        }
        if self.in_query
            && let Ok(Query(query)) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            && let Some((_, token)) = query.into_iter().find(|(name, _)| name == "token")
        {
            return Some((token.into(), CredentialsSource::Query));
        }
        None
    }
}

fn owned(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
