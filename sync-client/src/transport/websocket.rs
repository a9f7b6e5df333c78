//! Dials `ws://` addresses.

use async_trait::async_trait;
use sync_core::transport::websocket::{WebSocketTransport, config};
use sync_core::transport::{DialError, Dialer, Transport};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use tokio_tungstenite::tungstenite::{self, Error};

/// Dials a server at a `ws://host:port/path` address. Runs on tokio.
///
/// How long a dial takes is up to the network: bound it.
#[derive(Debug, Clone)]
pub struct WebSocketDialer {
    uri: Uri,
    host: String,
    port: u16,
    headers: HeaderMap,
}

impl WebSocketDialer {
    /// A dialer for this address. The port is 80 if the address names none, the path `/`.
    ///
    /// # Errors
    /// [`AddressError`] if it is not a `ws://` address with a host.
    pub fn new(address: &str) -> Result<Self, AddressError> {
        let invalid = |reason: &str| AddressError::Invalid {
            address: address.into(),
            reason: reason.into(),
        };
        let uri: Uri = address
            .parse()
            .map_err(|error: tungstenite::http::uri::InvalidUri| invalid(&error.to_string()))?;
        match uri.scheme_str() {
            Some("ws") => {}
            Some(scheme) => {
                return Err(AddressError::Unsupported {
                    scheme: scheme.into(),
                });
            }
            None => return Err(invalid("it does not begin with ws://")),
        }
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        if authority.contains('@') {
            return Err(invalid("it names a user, which WebSocket does not send"));
        }
        let host = uri.host().unwrap_or_default();
        // `Uri` takes anything for a port, and then says that there is none.
        let port = match authority.strip_prefix(host).unwrap_or_default() {
            "" => 80,
            _ => uri
                .port_u16()
                .ok_or_else(|| invalid("its port is not a number up to 65535"))?,
        };
        // Brackets belong to the address of the URI, not to the IPv6 address in it.
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host)
            .to_owned();
        if host.is_empty() {
            return Err(invalid("it names no host"));
        }
        Ok(Self {
            uri,
            host,
            port,
            headers: HeaderMap::new(),
        })
    }

    /// Sends this HTTP header when dialing, for proxies on the way. A second one of the same name is added.
    ///
    /// # Errors
    /// [`AddressError::InvalidHeader`] if HTTP does not allow it, or WebSocket needs it for itself.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, AddressError> {
        let invalid = || AddressError::InvalidHeader { name: name.into() };
        let parsed = HeaderName::try_from(name).map_err(|_| invalid())?;
        let value = HeaderValue::try_from(value).map_err(|_| invalid())?;
        let is_ours = matches!(parsed.as_str(), "host" | "connection" | "upgrade");
        if is_ours || parsed.as_str().starts_with("sec-websocket-") {
            return Err(invalid());
        }
        self.headers.append(parsed, value);
        Ok(self)
    }
}

#[async_trait]
impl Dialer for WebSocketDialer {
    async fn dial(&self) -> Result<Box<dyn Transport>, DialError> {
        let mut request = self.uri.clone().into_client_request().map_err(dial_error)?;
        request.headers_mut().extend(self.headers.clone());
        let stream = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .map_err(unreachable)?;
        // Our frames are written when they should leave.
        stream.set_nodelay(true).map_err(unreachable)?;
        let (socket, _) = client_async_with_config(request, stream, Some(config()))
            .await
            .map_err(dial_error)?;
        Ok(Box::new(WebSocketTransport::new(socket)))
    }
}

/// An address or header that cannot be dialed with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// It is not an address.
    #[error("invalid address {address:?}: {reason}")]
    Invalid {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No dialer here knows its scheme. `wss` needs TLS, which this version does not have.
    #[error("addresses that begin with {scheme}:// are not supported by this version")]
    Unsupported {
        /// Its scheme, such as `wss`.
        scheme: String,
    },
    /// HTTP does not allow this header, or WebSocket needs it for itself.
    #[error("the header {name:?} cannot be set")]
    InvalidHeader {
        /// Its name.
        name: String,
    },
}

fn unreachable(error: impl Into<sync_core::BoxError>) -> DialError {
    DialError::Unreachable(error.into())
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
            if is_final {
                DialError::Refused(said)
            } else {
                unreachable(said)
            }
        }
        Error::Protocol(ProtocolError::HandshakeIncomplete) | Error::Io(_) => unreachable(error),
        other => DialError::Refused(format!("the server does not speak WebSocket: {other}")),
    }
}
