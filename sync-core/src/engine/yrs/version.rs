//! `Version`: a state vector and, because that is blind to deletions, a digest of all that is deleted.
//!
//! ```text
//! version := n (client clock)*n digest      clients ascending, clocks not zero; 8 bytes, big endian
//! ```
//!
//! Two replicas that hold the same have the same bytes: ranges are merged before they are hashed.

use std::collections::BTreeMap;

use ::yrs::block::ClientID;
use ::yrs::{ID, IdSet, ReadTxn, Snapshot, StateVector};
use bytes::Bytes;
use twox_hash::XxHash3_64;

use super::cursor::Cursor;
use super::rewrite::write_var;
use super::validate::{Block, Id, Visitor, scan};
use crate::engine::{EngineError, ValidateLimits, Version};

/// What a replica holds. Costs a walk over the document. `gaps` says whose blocks have holes: the state vector ends
/// before the first, so what is behind it goes into the digest.
pub(super) fn version_of(txn: &impl ReadTxn, gaps: &BTreeMap<ClientID, u32>) -> Version {
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
    let mut hashed = Vec::new();
    hash_input(&mut hashed, &delete_set);
    if !gaps.is_empty() {
        hash_input(&mut hashed, &behind_gaps(txn, &state_map, gaps));
    }
    out.extend_from_slice(&XxHash3_64::oneshot(&hashed).to_be_bytes());
    Version(Bytes::from(out))
}

fn hash_input(out: &mut Vec<u8>, set: &IdSet) {
    for (client, ranges) in set.iter() {
        for range in ranges.iter() {
            out.extend_from_slice(&client.get().to_be_bytes());
            out.extend_from_slice(&range.start.to_be_bytes());
            out.extend_from_slice(&range.end.to_be_bytes());
        }
    }
}

/// Elements that are there although an earlier one of their client is missing.
fn behind_gaps(txn: &impl ReadTxn, known: &StateVector, gaps: &BTreeMap<ClientID, u32>) -> IdSet {
    struct Behind<'a> {
        known: &'a StateVector,
        gaps: &'a BTreeMap<ClientID, u32>,
        found: IdSet,
    }
    impl Visitor for Behind<'_> {
        fn block(&mut self, block: Block) {
            let client = ClientID::new(block.id.client);
            if !block.is_skip
                && self.gaps.contains_key(&client)
                && block.id.clock >= self.known.get(&client)
            {
                self.found
                    .insert(ID::new(client, block.id.clock), block.len);
            }
        }

        fn deleted(&mut self, _: Id, _: u32) {}
    }
    let mut behind = Behind {
        known,
        gaps,
        found: IdSet::new(),
    };
    let state = txn.encode_diff_v1(&StateVector::default());
    // Our own state is well formed, as far as the limits do not matter.
    let _ = scan(
        &state,
        &ValidateLimits {
            bytes_max: usize::MAX,
            depth_max: u32::MAX,
        },
        &mut behind,
    );
    behind.found
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
