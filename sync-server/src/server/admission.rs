//! Who is let in: how many at once, and how many from one address.

use std::collections::HashMap;
use std::net::IpAddr;

use sync_core::error::{ErrorCode, PeerError};
use sync_core::limits::Limits;
use sync_core::transport::PeerInfo;

/// The connections of each address.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    counts: HashMap<IpAddr, usize>,
}

/// What connections are counted by: who has one address of an IPv6 network has 2^64 of them.
pub(super) fn network(peer: &PeerInfo) -> Option<IpAddr> {
    let address = peer.address?.ip().to_canonical();
    // A proxy on this machine, or one of its own programs.
    if address.is_loopback() {
        return None;
    }
    Some(match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            [a, b, c, d, 0, 0, 0, 0].into()
        }
    })
}

impl Addresses {
    /// Counts a connection, when `n` are there.
    pub(super) fn enter(
        &mut self,
        peer: &PeerInfo,
        n: usize,
        limits: &Limits,
    ) -> Result<(), PeerError> {
        let max = limits.connections_max;
        if n >= max {
            return Err(PeerError::new(
                ErrorCode::TooManyConnections,
                format!("{max} connections are open, which is the limit"),
            ));
        }
        let Some(network) = network(peer) else {
            return Ok(());
        };
        let max = limits.connections_per_address_max;
        let count = self.counts.entry(network).or_default();
        if *count >= max {
            return Err(PeerError::new(
                ErrorCode::TooManyFromAddress,
                format!("{max} connections are open from {network}, which is the limit"),
            ));
        }
        *count += 1;
        Ok(())
    }

    /// One that was let in has ended.
    pub(super) fn leave(&mut self, peer: &PeerInfo) {
        if let Some(network) = network(peer)
            && let Some(count) = self.counts.get_mut(&network)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.counts.remove(&network);
            }
        }
    }
}
