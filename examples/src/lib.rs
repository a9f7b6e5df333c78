//! Parts of the example programs that are worth reading, and testing, on their own.

pub mod crash;
pub mod file_registry;
pub mod guests;
#[cfg(feature = "hostile")]
pub mod hostile;
pub mod link;
pub mod local;
pub mod progress;
pub mod random;
pub mod replay;
pub mod rooms;
pub mod server_process;
#[cfg(unix)]
pub mod storm;

/// The programs in the README and the guides, as doctests.
#[cfg(doctest)]
mod texts {
    #[doc = include_str!("../../README.md")]
    struct Readme;
    #[doc = include_str!("../../docs/guide/client.md")]
    struct Client;
    #[doc = include_str!("../../docs/guide/mergeable.md")]
    struct MergeableGuide;
    #[doc = include_str!("../../docs/guide/server.md")]
    struct Server;
    #[doc = include_str!("../../docs/guide/storage.md")]
    struct Storage;
    #[doc = include_str!("../../docs/guide/custom-transport.md")]
    struct CustomTransport;
    #[doc = include_str!("../../docs/guide/custom-engine.md")]
    struct CustomEngine;
    #[doc = include_str!("../../docs/guide/engines.md")]
    struct Engines;
    #[doc = include_str!("../../docs/guide/encryption.md")]
    struct Encryption;
}
