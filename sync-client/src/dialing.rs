//! How a client that is being made will reach its server.

use std::sync::Arc;

use sync_core::transport::Dialer;

use crate::error::StartError;
use crate::transport::AddressError;
#[cfg(feature = "tcp")]
use crate::transport::TcpDialer;
#[cfg(all(feature = "unix", unix))]
use crate::transport::UnixDialer;
#[cfg(feature = "websocket")]
use crate::transport::WebSocketDialer;
use crate::transport::address::without_secrets;

pub(crate) struct Dialing {
    to: To,
    /// Names and values.
    pub(crate) headers: Vec<(String, String)>,
    /// In PEM.
    #[cfg(feature = "tls")]
    pub(crate) roots: Vec<Vec<u8>>,
    #[cfg(feature = "tls")]
    pub(crate) platform_roots: bool,
    #[cfg(feature = "proxy")]
    pub(crate) proxy: bool,
}

enum To {
    Address(String),
    With(Arc<dyn Dialer>),
}

impl Dialing {
    pub(crate) fn to(address: String) -> Self {
        Self::new(To::Address(address))
    }

    pub(crate) fn with(dialer: Arc<dyn Dialer>) -> Self {
        Self::new(To::With(dialer))
    }

    fn new(to: To) -> Self {
        Self {
            to,
            headers: Vec::new(),
            #[cfg(feature = "tls")]
            roots: Vec::new(),
            #[cfg(feature = "tls")]
            platform_roots: true,
            #[cfg(feature = "proxy")]
            proxy: false,
        }
    }

    /// The dialer, by the scheme of the address.
    pub(crate) fn dialer(self) -> Result<Arc<dyn Dialer>, StartError> {
        match &self.to {
            To::With(dialer) => Ok(Arc::clone(dialer)),
            To::Address(address) => self
                .dialer_for(address)
                .map_err(|error| start_error(address, error)),
        }
    }

    fn dialer_for(&self, address: &str) -> Result<Arc<dyn Dialer>, AddressError> {
        let scheme = address.split_once("://").map(|(scheme, _)| scheme);
        match scheme {
            #[cfg(feature = "websocket")]
            Some("ws" | "wss") => Ok(Arc::new(self.websocket(address)?)),
            #[cfg(not(feature = "websocket"))]
            Some("ws" | "wss") => Err(AddressError::off("ws", "websocket")),
            #[cfg(feature = "tcp")]
            Some("tcp") => Ok(Arc::new(TcpDialer::new(address)?)),
            #[cfg(not(feature = "tcp"))]
            Some("tcp") => Err(AddressError::off("tcp", "tcp")),
            #[cfg(all(feature = "unix", unix))]
            Some("unix") => Ok(Arc::new(UnixDialer::new(address)?)),
            #[cfg(all(not(feature = "unix"), unix))]
            Some("unix") => Err(AddressError::off("unix", "unix")),
            _ => Err(AddressError::other_scheme(address, "ws")),
        }
    }

    #[cfg(feature = "websocket")]
    fn websocket(&self, address: &str) -> Result<WebSocketDialer, AddressError> {
        let mut dialer = WebSocketDialer::new(address)?;
        for (name, value) in &self.headers {
            dialer = dialer.header(name, value)?;
        }
        #[cfg(feature = "tls")]
        {
            for pem in &self.roots {
                dialer = dialer.root_certificate(pem)?;
            }
            dialer = dialer.platform_roots(self.platform_roots);
        }
        #[cfg(feature = "proxy")]
        if self.proxy {
            dialer = dialer.proxy_from_environment();
        }
        Ok(dialer)
    }
}

fn start_error(address: &str, error: AddressError) -> StartError {
    let address = without_secrets(address);
    match error {
        AddressError::FeatureOff { feature, .. } => StartError::FeatureOff { address, feature },
        AddressError::InvalidHeader { name } => StartError::Header { name },
        AddressError::InvalidCertificate { reason } => StartError::RootCertificate { reason },
        error => StartError::Address {
            reason: error.to_string(),
            address,
        },
    }
}
