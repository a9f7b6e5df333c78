//! Takes a transaction back: the encoded state of a document without what one open transaction did to it.
//!
//! yrs cannot roll back. But until a transaction is committed nothing is collected or merged, so the state still holds
//! all that was there before: whole blocks to leave out, and deletions to leave out.

use ::yrs::block::ClientID;
use ::yrs::updates::encoder::Encode;
use ::yrs::{ID, IdSet, ReadTxn, StateVector, TransactionMut};

use super::validate::{Block, Id, Visitor, scan};
use crate::engine::{EngineError, ValidateLimits};

/// The state from before an uncommitted transaction, as an update.
pub(super) fn state_before(txn: &TransactionMut<'_>) -> Result<Vec<u8>, EngineError> {
    let state = txn.encode_diff_v1(&StateVector::default());
    let mut without = Without {
        state: &state,
        inserted: txn.insert_set(),
        sections: Vec::new(),
        deleted: IdSet::new(),
        waiting: 0,
    };
    // Our own state: what it holds is bounded by the memory it came from.
    scan(
        &state,
        &ValidateLimits {
            bytes_max: usize::MAX,
            depth_max: u32::MAX,
        },
        &mut without,
    )?;
    let mut deleted = without.deleted;
    deleted.diff_with(txn.delete_set());
    deleted.diff_with(txn.insert_set());
    let mut out = Vec::with_capacity(state.len());
    write_var(&mut out, wide(without.sections.len()));
    for section in without.sections {
        write_var(&mut out, section.n_blocks);
        write_var(&mut out, section.client);
        write_var(&mut out, u64::from(section.clock));
        out.extend_from_slice(&section.bytes);
    }
    out.extend_from_slice(&deleted.encode_v1());
    Ok(out)
}

/// The blocks of one client that stay.
struct Section {
    client: u64,
    clock: u32,
    n_blocks: u64,
    bytes: Vec<u8>,
}

struct Without<'a> {
    state: &'a [u8],
    inserted: &'a IdSet,
    sections: Vec<Section>,
    deleted: IdSet,
    /// Elements left out since the section's last block: a hole if another block follows.
    waiting: u32,
}

impl Visitor for Without<'_> {
    fn block(&mut self, block: Block) {
        let is_new_section = self
            .sections
            .last()
            .is_none_or(|section| section.client != block.id.client);
        // A hole stays a hole, and one at the end of a section is no block at all.
        if block.is_skip
            || self
                .inserted
                .contains(&ID::new(ClientID::new(block.id.client), block.id.clock))
        {
            self.waiting = if is_new_section {
                0
            } else {
                self.waiting.saturating_add(block.len)
            };
            return;
        }
        if is_new_section {
            self.waiting = 0;
            let Id { client, clock } = block.id;
            self.sections.push(Section {
                client,
                clock,
                n_blocks: 0,
                bytes: Vec::new(),
            });
        }
        let (start, end) = block.bytes;
        let Some((section, bytes)) = self.sections.last_mut().zip(self.state.get(start..end))
        else {
            return;
        };
        if self.waiting > 0 {
            section.n_blocks += 1;
            section.bytes.push(super::validate::INFO_SKIP);
            write_var(&mut section.bytes, u64::from(self.waiting));
            self.waiting = 0;
        }
        section.n_blocks += 1;
        section.bytes.extend_from_slice(bytes);
    }

    fn deleted(&mut self, id: Id, len: u32) {
        self.deleted
            .insert(ID::new(ClientID::new(id.client), id.clock), len);
    }
}

/// A number in lib0's variable length: seven bits per byte, lowest first.
pub(super) fn write_var(out: &mut Vec<u8>, mut value: u64) {
    loop {
        let [byte, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            out.push(byte & 0x7f);
            return;
        }
        out.push(byte | 0x80);
    }
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
