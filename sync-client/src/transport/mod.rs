//! Ways to reach a server: dialers, and the traits for another one.

#[cfg(feature = "websocket")]
mod websocket;

pub use sync_core::transport::{
    DialError, Dialer, FramedTransport, Transport, TransportError, memory,
};

#[cfg(feature = "websocket")]
pub use self::websocket::{AddressError, WebSocketDialer};
