//! Through an HTTP proxy: CONNECT (RFC 9110 section 9.3.6).

use std::fmt;

use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use sync_core::transport::DialError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::http::Uri;

use super::connect::{connect, unreachable};

/// The proxies of the environment, and what goes past them.
pub(super) struct Proxies(Matcher);

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Their addresses may have credentials in them.
        f.debug_struct("Proxies").finish_non_exhaustive()
    }
}

impl Proxies {
    pub(super) fn from_environment() -> Self {
        Self(Matcher::from_env())
    }

    /// A connection to this host, through a proxy if there is one for it.
    pub(super) async fn connect(
        &self,
        is_tls: bool,
        host: &str,
        port: u16,
    ) -> Result<TcpStream, DialError> {
        let authority = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let scheme = if is_tls { "https" } else { "http" };
        let proxy = format!("{scheme}://{authority}")
            .parse::<Uri>()
            .ok()
            .and_then(|uri| self.0.intercept(&uri));
        match proxy {
            Some(proxy) => tunnel(&proxy, &authority).await,
            None => connect(host, port).await,
        }
    }
}

async fn tunnel(proxy: &Intercept, authority: &str) -> Result<TcpStream, DialError> {
    let uri = proxy.uri();
    if uri.scheme_str() != Some("http") {
        let scheme = uri.scheme_str().unwrap_or_default();
        let why = format!("proxies that begin with {scheme}:// are not supported, http:// are");
        return Err(DialError::Refused(why));
    }
    let host = uri.host().unwrap_or_default();
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let mut stream = connect(host, uri.port_u16().unwrap_or(80)).await?;
    let mut request = format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n").into_bytes();
    if let Some(credentials) = proxy.basic_auth() {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(credentials.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.map_err(unreachable)?;
    let mut answer = Vec::with_capacity(256);
    let head = loop {
        if let Some(end) = answer.windows(END.len()).position(|bytes| bytes == END) {
            break end.saturating_add(END.len());
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(DialError::Refused("the proxy answers without end".into()));
        }
        if stream.read_buf(&mut answer).await.map_err(unreachable)? == 0 {
            return Err(unreachable("the proxy closed the connection"));
        }
    };
    match status(&answer) {
        Some(200..=299) if answer.len() == head => Ok(stream),
        // A server says nothing before us.
        Some(200..=299) => Err(DialError::Refused("the proxy is no tunnel".into())),
        Some(status @ (400..=407 | 409..=428 | 430..=499)) => Err(DialError::Refused(format!(
            "the proxy answered with status {status}"
        ))),
        Some(status) => Err(unreachable(format!(
            "the proxy answered with status {status}"
        ))),
        None => Err(DialError::Refused("the proxy does not speak HTTP".into())),
    }
}

/// The status of an answer: `HTTP/1.1 200 ...`.
fn status(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words.next()?.strip_prefix("HTTP/1.")?;
    words.next()?.parse().ok()
}

/// Of the head of an answer.
const END: &[u8] = b"\r\n\r\n";
/// Bytes of the answer of a proxy.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
