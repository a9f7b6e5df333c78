//! Ways to be reached by clients: acceptors, and the traits for another one.

#[cfg(feature = "websocket")]
mod websocket;

pub use sync_core::transport::{
    Acceptor, FramedTransport, PeerInfo, Transport, TransportError, memory,
};

#[cfg(feature = "websocket")]
pub use self::websocket::WebSocketAcceptor;
