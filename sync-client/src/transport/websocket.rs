//! Dials `ws://` and `wss://` addresses.

use std::fmt;
#[cfg(feature = "proxy")]
use std::sync::Arc;

use async_trait::async_trait;
use sync_core::transport::websocket::{WebSocketTransport, config};
use sync_core::transport::{DialError, Dialer, Transport};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::uri::InvalidUri;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

use super::AddressError;
use super::address::host_and_port;
use super::connect::{connect, unreachable};
#[cfg(feature = "proxy")]
use super::proxy::Proxies;
#[cfg(feature = "tls")]
use super::tls::Trust;

/// Dials a server at a `ws://host:port/path` address, or with the feature `tls` a `wss://` address. Runs on tokio.
///
/// How long a dial takes is up to the network: bound it.
#[derive(Clone)]
pub struct WebSocketDialer {
    uri: Uri,
    host: String,
    port: u16,
    /// Marked as secret.
    headers: HeaderMap,
    /// For `wss://`.
    is_tls: bool,
    #[cfg(feature = "tls")]
    trust: Trust,
    #[cfg(feature = "proxy")]
    proxies: Option<Arc<Proxies>>,
}

impl fmt::Debug for WebSocketDialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The rest of the address may have a token in it.
        f.debug_struct("WebSocketDialer")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("is_tls", &self.is_tls)
            .field("headers", &self.headers)
            .finish_non_exhaustive()
    }
}

impl WebSocketDialer {
    /// A dialer for this address. The port is 80 if the address names none, 443 for `wss://`, and the path `/`.
    ///
    /// # Errors
    /// [`AddressError`] if it is not such an address with a host, or begins with `wss://` without the feature `tls`.
    pub fn new(address: &str) -> Result<Self, AddressError> {
        let uri: Uri = address
            .parse()
            .map_err(|error: InvalidUri| AddressError::invalid(address, error))?;
        let is_tls = match uri.scheme_str() {
            Some("ws") => false,
            #[cfg(feature = "tls")]
            Some("wss") => true,
            #[cfg(not(feature = "tls"))]
            Some("wss") => return Err(AddressError::off("wss", "tls")),
            _ => return Err(AddressError::other_scheme(address, "ws")),
        };
        // `Uri` takes anything for a port, and then says that there is none.
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let (host, port) = host_and_port(authority, Some(if is_tls { 443 } else { 80 }))
            .map_err(|reason| AddressError::invalid(address, reason))?;
        Ok(Self {
            uri,
            host,
            port,
            headers: HeaderMap::new(),
            is_tls,
            #[cfg(feature = "tls")]
            trust: Trust::new(),
            #[cfg(feature = "proxy")]
            proxies: None,
        })
    }

    /// Sends this HTTP header when dialing, for proxies on the way. A second one of the same name is added. Its value is not
    /// shown by `Debug`.
    ///
    /// # Errors
    /// [`AddressError::InvalidHeader`] if HTTP does not allow it, or WebSocket needs it for itself.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, AddressError> {
        let invalid = || AddressError::InvalidHeader { name: name.into() };
        let parsed = HeaderName::try_from(name).map_err(|_| invalid())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| invalid())?;
        value.set_sensitive(true);
        let is_ours = matches!(parsed.as_str(), "host" | "connection" | "upgrade");
        if is_ours || parsed.as_str().starts_with("sec-websocket-") {
            return Err(invalid());
        }
        self.headers.append(parsed, value);
        Ok(self)
    }

    /// Trusts whom these certificates sign, in PEM, beside whom the platform trusts.
    ///
    /// # Errors
    /// [`AddressError::InvalidCertificate`] if there is none in it, or one that cannot be read.
    #[cfg(feature = "tls")]
    pub fn root_certificate(mut self, pem: &[u8]) -> Result<Self, AddressError> {
        self.trust
            .add(pem)
            .map_err(|reason| AddressError::InvalidCertificate { reason })?;
        Ok(self)
    }

    /// Whether to trust whom the platform trusts. Default yes.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn platform_roots(mut self, value: bool) -> Self {
        self.trust.set_platform(value);
        self
    }

    /// Dials through the HTTP proxy that the environment names now: `HTTPS_PROXY` for `wss://`, `HTTP_PROXY` for `ws://`,
    /// `ALL_PROXY` for both, except for hosts in `NO_PROXY`, as curl does. Default: directly.
    #[cfg(feature = "proxy")]
    #[must_use]
    pub fn proxy_from_environment(mut self) -> Self {
        self.proxies = Some(Arc::new(Proxies::from_environment()));
        self
    }

    async fn connect(&self) -> Result<TcpStream, DialError> {
        #[cfg(feature = "proxy")]
        if let Some(proxies) = &self.proxies {
            return proxies.connect(self.is_tls, &self.host, self.port).await;
        }
        connect(&self.host, self.port).await
    }

    /// Asks for a WebSocket over a connection to the server.
    async fn open<S>(&self, stream: S) -> Result<Box<dyn Transport>, DialError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut request = self.uri.clone().into_client_request().map_err(dial_error)?;
        request.headers_mut().extend(self.headers.clone());
        let (socket, _) = client_async_with_config(request, stream, Some(config()))
            .await
            .map_err(dial_error)?;
        Ok(Box::new(WebSocketTransport::new(socket)))
    }
}

#[async_trait]
impl Dialer for WebSocketDialer {
    async fn dial(&self) -> Result<Box<dyn Transport>, DialError> {
        let stream = self.connect().await?;
        #[cfg(feature = "tls")]
        if self.is_tls {
            return self
                .open(self.trust.connect(&self.host, stream).await?)
                .await;
        }
        self.open(stream).await
    }
}

fn dial_error(error: Error) -> DialError {
    match error {
        Error::Http(answer) => {
            let status = answer.status();
            let is_final = status.is_client_error()
                && !matches!(
                    status,
                    StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
                );
            let said = format!("the server answered {status}");
            // A captive portal answers 200 or 302, a proxy without its server 502: neither is the server.
            if status == StatusCode::UNAUTHORIZED {
                DialError::Unauthenticated(said)
            } else if is_final {
                DialError::Refused(said)
            } else {
                unreachable(said)
            }
        }
        Error::Protocol(ProtocolError::HandshakeIncomplete) | Error::Io(_) => unreachable(error),
        other => DialError::Refused(format!("the server does not speak WebSocket: {other}")),
    }
}
