//! Ways to be reached by clients: acceptors, and the traits for another one.

#[cfg(any(feature = "websocket", feature = "tcp", all(feature = "unix", unix)))]
mod incoming;
#[cfg(any(feature = "websocket", feature = "tcp", all(feature = "unix", unix)))]
mod refuse;
#[cfg(any(feature = "tcp", all(feature = "unix", unix)))]
mod stream;
#[cfg(feature = "tcp")]
mod tcp;
#[cfg(all(feature = "unix", unix))]
mod unix;
#[cfg(feature = "websocket")]
mod websocket;

pub use sync_core::transport::{
    Acceptor, FramedTransport, PeerInfo, Transport, TransportError, memory,
};

#[cfg(any(feature = "websocket", feature = "tcp", all(feature = "unix", unix)))]
pub use self::incoming::tcp_listener;
#[cfg(feature = "tcp")]
pub use self::tcp::TcpAcceptor;
#[cfg(all(feature = "unix", unix))]
pub use self::unix::UnixAcceptor;
#[cfg(feature = "websocket")]
pub use self::websocket::WebSocketAcceptor;
