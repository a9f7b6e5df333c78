//! What a client can be told about how to behave.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

use super::backoff::BackoffConfig;
use crate::ids::{Hidden, OriginId};
use crate::limits::Limits;
#[cfg(feature = "planted-bugs")]
use crate::planted::Bug;
use crate::planted::Planted;
use crate::wire::{Compression, PROTOCOL_VERSIONS, VersionRange};

/// Configuration of a [`ClientState`](super::ClientState).
#[derive(Clone)]
#[non_exhaustive]
pub struct ClientConfig {
    /// Name of this process start; random, never used before.
    pub origin: OriginId,
    /// Where jitter and fresh origins come from; random.
    pub seed: u128,
    /// Versions spoken.
    pub versions: VersionRange,
    /// Name and version of the software, for the server's logs.
    pub software: String,
    /// Credentials for the server.
    pub credentials: Option<Bytes>,
    /// Whether fresh credentials can be had: a server that refuses those it has is tried again then. Default no.
    pub refreshes: bool,
    /// Ways to compress offered to the server. Default gzip.
    pub compression: Vec<Compression>,
    /// Limits used until the server has told its own.
    pub limits: Limits,
    /// Time from the start of an attempt to `Welcome`. Default 10 s.
    pub handshake_timeout: Duration,
    /// Silence after a ping after which the connection is given up. Default 10 s.
    pub ping_timeout: Duration,
    /// How attempts are spaced.
    pub backoff: BackoffConfig,
    /// Unacknowledged changes of one document above which `edit` is refused. Default 1,000,000.
    pub outbox_max: usize,
    /// Whether there is a store. Default no.
    pub store: bool,
    /// A bug, for the simulator to find.
    #[cfg(feature = "planted-bugs")]
    #[doc(hidden)]
    pub planted: Option<Bug>,
}

/// Without what is secret.
impl fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            origin,
            seed,
            versions,
            software,
            credentials,
            refreshes,
            compression,
            limits,
            handshake_timeout,
            ping_timeout,
            backoff,
            outbox_max,
            store,
            #[cfg(feature = "planted-bugs")]
                planted: _,
        } = self;
        f.debug_struct("ClientConfig")
            .field("origin", origin)
            .field("seed", seed)
            .field("versions", versions)
            .field("software", software)
            .field("credentials", &credentials.as_ref().map(|_| Hidden))
            .field("refreshes", refreshes)
            .field("compression", compression)
            .field("limits", limits)
            .field("handshake_timeout", handshake_timeout)
            .field("ping_timeout", ping_timeout)
            .field("backoff", backoff)
            .field("outbox_max", outbox_max)
            .field("store", store)
            .finish()
    }
}

impl ClientConfig {
    /// The defaults.
    #[must_use]
    pub fn new(origin: OriginId, seed: u128) -> Self {
        Self {
            origin,
            seed,
            versions: PROTOCOL_VERSIONS,
            software: concat!("sync-core/", env!("CARGO_PKG_VERSION")).to_owned(),
            credentials: None,
            refreshes: false,
            compression: vec![Compression::Gzip],
            limits: Limits::default(),
            handshake_timeout: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(10),
            backoff: BackoffConfig::default(),
            outbox_max: 1_000_000,
            store: false,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }

    /// The bug that is planted, if there is one.
    pub(crate) const fn planted(&self) -> Planted {
        Planted {
            #[cfg(feature = "planted-bugs")]
            bug: self.planted,
        }
    }
}
