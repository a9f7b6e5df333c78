//! Dials `ws://` addresses.

use async_trait::async_trait;
use sync_core::transport::websocket::{WebSocketTransport, config};
use sync_core::transport::{DialError, Dialer, Transport};
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::http::uri::InvalidUri;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};

use super::AddressError;
use super::address::host_and_port;
use super::connect::{connect, unreachable};

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
        let uri: Uri = address
            .parse()
            .map_err(|error: InvalidUri| AddressError::invalid(address, error))?;
        match uri.scheme_str() {
            Some("ws") => {}
            #[cfg(not(feature = "tls"))]
            Some("wss") => return Err(AddressError::off("wss", "tls")),
            _ => return Err(AddressError::other_scheme(address, "ws")),
        }
        // `Uri` takes anything for a port, and then says that there is none.
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let (host, port) = host_and_port(authority, Some(80))
            .map_err(|reason| AddressError::invalid(address, reason))?;
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
        let stream = connect(&self.host, self.port).await?;
        let (socket, _) = client_async_with_config(request, stream, Some(config()))
            .await
            .map_err(dial_error)?;
        Ok(Box::new(WebSocketTransport::new(socket)))
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
