//! `Version`: a state vector and, because that is blind to deletions, a digest of all that is deleted.
//!
//! ```text
//! version := n (client clock)*n digest      clients ascending, clocks not zero; 8 bytes, big endian
//! ```
//!
//! Two replicas that hold the same have the same bytes: ranges are merged before they are hashed.

use ::yrs::block::ClientID;
use ::yrs::{ReadTxn, Snapshot, StateVector};
use bytes::Bytes;
use twox_hash::XxHash3_64;

use super::cursor::Cursor;
use super::rewrite::write_var;
use crate::engine::{EngineError, Version};

/// What a replica holds. Costs a walk over the document.
pub(super) fn version_of(txn: &impl ReadTxn) -> Version {
    let Snapshot {
        state_map,
        delete_set,
    } = txn.snapshot();
    let mut clients: Vec<(u64, u32)> = state_map
        .iter()
        .map(|(client, &clock)| (client.get(), clock))
        .collect();
    clients.retain(|&(_, clock)| clock > 0);
    clients.sort_unstable();
    let mut out = Vec::with_capacity(clients.len() * 8 + 10);
    write_var(&mut out, u64::try_from(clients.len()).unwrap_or(u64::MAX));
    for (client, clock) in clients {
        write_var(&mut out, client);
        write_var(&mut out, u64::from(clock));
    }
    let mut deleted = Vec::new();
    for (client, ranges) in delete_set.iter() {
        for range in ranges.iter() {
            deleted.extend_from_slice(&client.get().to_be_bytes());
            deleted.extend_from_slice(&range.start.to_be_bytes());
            deleted.extend_from_slice(&range.end.to_be_bytes());
        }
    }
    out.extend_from_slice(&XxHash3_64::oneshot(&deleted).to_be_bytes());
    Version(Bytes::from(out))
}

/// The state vector in a version of somebody else, as far as it concerns clients in `ours`, so that what it claims to
/// know takes no memory.
pub(super) fn state_vector(
    version: &Version,
    ours: &StateVector,
) -> Result<StateVector, EngineError> {
    let mut cursor = Cursor::new(&version.0);
    let mut theirs = StateVector::default();
    for _ in 0..cursor.var_u32("number of clients")? {
        let client = ClientID::new(cursor.client("client")?);
        let clock = cursor.var_u32("clock")?;
        if ours.contains_client(&client) {
            theirs.set_max(client, clock);
        }
    }
    cursor.take(8, "digest")?;
    if cursor.is_at_end() {
        Ok(theirs)
    } else {
        Err(cursor.malformed("end of the version"))
    }
}
