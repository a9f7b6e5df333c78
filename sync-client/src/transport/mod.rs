//! Ways to reach a server: dialers, and the traits for another one.

pub(crate) mod address;
#[cfg(any(feature = "websocket", feature = "tcp", all(feature = "unix", unix)))]
mod connect;
#[cfg(feature = "proxy")]
mod proxy;
#[cfg(any(feature = "tcp", all(feature = "unix", unix)))]
mod stream;
#[cfg(feature = "tcp")]
mod tcp;
#[cfg(feature = "tls")]
mod tls;
#[cfg(all(feature = "unix", unix))]
mod unix;
#[cfg(feature = "websocket")]
mod websocket;

pub use sync_core::transport::{
    CertificateProblem, DialError, Dialer, FramedTransport, Transport, TransportError, memory,
};

pub use self::address::AddressError;
#[cfg(feature = "tcp")]
pub use self::tcp::TcpDialer;
#[cfg(all(feature = "unix", unix))]
pub use self::unix::UnixDialer;
#[cfg(feature = "websocket")]
pub use self::websocket::WebSocketDialer;
