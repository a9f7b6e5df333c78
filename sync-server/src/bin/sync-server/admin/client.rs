//! One request after the other to the admin API.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use crate::output::Failure;

const URL: &str = "http://127.0.0.1:8080";

/// What stands behind the question mark.
pub(super) type Query = Vec<(&'static str, String)>;

pub(super) struct Client {
    agent: Agent,
    base: String,
    /// Of the header `Authorization`.
    credentials: String,
}

impl Client {
    /// # Errors
    /// There is no token, or something cannot be read.
    pub(super) fn new(
        url: Option<&str>,
        token_file: Option<&Path>,
        roots_file: Option<&Path>,
    ) -> Result<Self, Failure> {
        let from_environment =
            |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let url = url
            .map(str::to_owned)
            .or_else(|| from_environment("SYNC_ADMIN_URL"))
            .unwrap_or_else(|| URL.to_owned());
        let token = match token_file {
            Some(path) => {
                std::fs::read_to_string(path).map_err(|error| Failure::file(path, &error))?
            }
            None => from_environment("SYNC_ADMIN_TOKEN").ok_or_else(|| {
                Failure::Configuration(
                    "who asks? Give --token-file, or the variable SYNC_ADMIN_TOKEN".to_owned(),
                )
            })?,
        };
        // Nothing else bounds how long a large document takes.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(Duration::from_secs(300)))
            .tls_config(tls(roots_file)?);
        Ok(Self {
            agent: config.build().into(),
            base: format!("{}/admin/api/v1", url.trim_end_matches('/')),
            credentials: format!("Bearer {}", token.trim()),
        })
    }

    pub(super) fn get(
        &self,
        path: &[&str],
        query: &[(&'static str, String)],
    ) -> Result<Value, Failure> {
        let request = self.agent.get(self.url(path, query));
        let sent = request.header("Authorization", &self.credentials).call();
        value(answered(sent)?)
    }

    pub(super) fn text(&self, path: &[&str]) -> Result<String, Failure> {
        let request = self.agent.get(self.url(path, &[]));
        let sent = request.header("Authorization", &self.credentials).call();
        text(answered(sent)?)
    }

    /// The body, as it comes.
    pub(super) fn reader(&self, path: &[&str]) -> Result<impl Read + use<>, Failure> {
        let request = self.agent.get(self.url(path, &[]));
        let sent = request.header("Authorization", &self.credentials).call();
        let body = answered(sent)?.into_body();
        Ok(body.into_with_config().limit(u64::MAX).reader())
    }

    pub(super) fn post(
        &self,
        path: &[&str],
        query: &[(&'static str, String)],
    ) -> Result<Value, Failure> {
        self.post_with(path, query, &[])
    }

    pub(super) fn post_with(
        &self,
        path: &[&str],
        query: &[(&'static str, String)],
        bytes: &[u8],
    ) -> Result<Value, Failure> {
        let request = self.agent.post(self.url(path, query));
        let request = request.header("Authorization", &self.credentials);
        value(answered(request.send(bytes))?)
    }

    pub(super) fn put(
        &self,
        path: &[&str],
        query: &[(&'static str, String)],
        bytes: &[u8],
    ) -> Result<Value, Failure> {
        let request = self.agent.put(self.url(path, query));
        let request = request.header("Authorization", &self.credentials);
        value(answered(request.send(bytes))?)
    }

    pub(super) fn delete(&self, path: &[&str]) -> Result<Value, Failure> {
        let request = self.agent.delete(self.url(path, &[]));
        let sent = request.header("Authorization", &self.credentials).call();
        value(answered(sent)?)
    }

    fn url(&self, path: &[&str], query: &[(&'static str, String)]) -> String {
        let mut url = self.base.clone();
        for segment in path {
            url.push('/');
            encode(segment, &mut url);
        }
        for (n, (name, value)) in query.iter().enumerate() {
            url.push(if n == 0 { '?' } else { '&' });
            url.push_str(name);
            url.push('=');
            encode(value, &mut url);
        }
        url
    }
}

/// Percent-encodes all but what never means anything (RFC 3986 section 2.3).
fn encode(text: &str, url: &mut String) {
    // These would mean a folder.
    let is_dots = matches!(text, "." | "..");
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'~' => {
                url.push(char::from(byte));
            }
            b'.' if !is_dots => url.push('.'),
            // Writing to a text does not fail.
            _ => drop(write!(url, "%{byte:02X}")),
        }
    }
}

/// Trusts these roots, or those that the system trusts.
fn tls(roots_file: Option<&Path>) -> Result<TlsConfig, Failure> {
    let roots = match roots_file {
        Some(path) => roots(path)?,
        None => rustls_native_certs::load_native_certs()
            .certs
            .iter()
            .map(|root| Certificate::from_der(root.as_ref()).to_owned())
            .collect(),
    };
    let provider = rustls::crypto::ring::default_provider();
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .unversioned_rustls_crypto_provider(Arc::new(provider))
        .build())
}

fn roots(path: &Path) -> Result<Vec<Certificate<'static>>, Failure> {
    let pem = std::fs::read(path).map_err(|error| Failure::file(path, &error))?;
    let roots = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(root)) => Some(root),
        _ => None,
    });
    let roots: Vec<_> = roots.collect();
    if roots.is_empty() {
        let path = path.display();
        return Err(Failure::Configuration(format!(
            "{path}: there is no certificate in it"
        )));
    }
    Ok(roots)
}

fn answered(sent: Result<Response<Body>, ureq::Error>) -> Result<Response<Body>, Failure> {
    let response = sent.map_err(|error| match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => Failure::Configuration(error.to_string()),
        error => Failure::Unreachable(Failure::text(&error)),
    })?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let told: Value = serde_json::from_str(&text(response)?).unwrap_or_default();
    let field = |name| told.pointer(name).and_then(Value::as_str);
    let Some(code) = field("/error/code") else {
        return Err(Failure::Other(format!(
            "the answer is {status}, and not of an admin API: is there one at this address?"
        )));
    };
    let message = field("/error/message").unwrap_or(code).to_owned();
    Err(match code {
        "invalid" => Failure::Configuration(message),
        "not_found" | "deleted" => Failure::NotFound(message),
        "exists" => Failure::Exists(message),
        "damaged" => Failure::Damaged(message),
        "unauthenticated" | "forbidden" => Failure::Denied(message),
        "unavailable" => Failure::Unreachable(message),
        _ => Failure::Other(message),
    })
}

fn text(response: Response<Body>) -> Result<String, Failure> {
    let body = response.into_body();
    let mut text = String::new();
    let read = body
        .into_with_config()
        .limit(u64::MAX)
        .reader()
        .read_to_string(&mut text);
    read.map_err(|error| Failure::Unreachable(format!("the answer was cut: {error}")))?;
    Ok(text)
}

fn value(response: Response<Body>) -> Result<Value, Failure> {
    let text = text(response)?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::Other(format!("the answer is not understood: {error}")))
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn names_are_one_segment_whatever_is_in_them() {
        for (name, encoded) in [
            ("notes", "notes"),
            ("notes/42?a=b&c#d", "notes%2F42%3Fa%3Db%26c%23d"),
            ("ü %", "%C3%BC%20%25"),
            ("..", "%2E%2E"),
            ("../etc/passwd", "..%2Fetc%2Fpasswd"),
            ("a\n\0", "a%0A%00"),
        ] {
            let mut url = String::new();
            encode(name, &mut url);
            assert_eq!(url, encoded);
        }
    }
}
