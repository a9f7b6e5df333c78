//! Updates with parts left out.
//!
//! yrs cannot roll back. But until a transaction is committed nothing is collected or merged, so the encoded state still
//! holds all that was there before: whole blocks to leave out, and deletions to leave out.

use ::yrs::block::ClientID;
use ::yrs::updates::encoder::Encode;
use ::yrs::{ID, IdSet, ReadTxn, StateVector, TransactionMut};

use super::validate::{Block, INFO_SKIP, Id, Visitor, scan};
use crate::engine::{EngineError, ValidateLimits};

/// The state from before an uncommitted transaction, as an update.
pub(super) fn state_before(txn: &TransactionMut<'_>) -> Result<Vec<u8>, EngineError> {
    let state = txn.encode_diff_v1(&StateVector::default());
    let is_old = |block: &Block| {
        !txn.insert_set()
            .contains(&ID::new(ClientID::new(block.id.client), block.id.clock))
    };
    let mut kept = keep(&state, is_old)?;
    kept.deleted.diff_with(txn.delete_set());
    kept.deleted.diff_with(txn.insert_set());
    Ok(kept.encode())
}

/// An update without the blocks behind a hole in their client's clocks, where `known` has all before.
pub(super) fn without_holes(
    update: &[u8],
    known: impl Fn(u64) -> u32,
) -> Result<Vec<u8>, EngineError> {
    let mut client = None;
    let mut reach = 0;
    let follows = |block: &Block| {
        if client != Some(block.id.client) {
            client = Some(block.id.client);
            reach = known(block.id.client);
        }
        let follows = block.id.clock <= reach;
        if follows {
            reach = block.id.clock.saturating_add(block.len).max(reach);
        }
        follows
    };
    Ok(keep(update, follows)?.encode())
}

/// The blocks of one client that stay.
struct Section {
    client: u64,
    clock: u32,
    n_blocks: u64,
    bytes: Vec<u8>,
}

struct Kept {
    sections: Vec<Section>,
    deleted: IdSet,
}

/// Takes apart an update that is well formed, keeping some of its blocks.
fn keep(update: &[u8], keep: impl FnMut(&Block) -> bool) -> Result<Kept, EngineError> {
    struct Keep<'a, F> {
        update: &'a [u8],
        keep: F,
        kept: Kept,
        /// Elements left out since the section's last block: a hole if another block follows.
        left_out: u32,
    }
    impl<F: FnMut(&Block) -> bool> Visitor for Keep<'_, F> {
        fn block(&mut self, block: Block) {
            let sections = &mut self.kept.sections;
            let is_first = sections
                .last()
                .is_none_or(|section| section.client != block.id.client);
            if block.is_skip || !(self.keep)(&block) {
                self.left_out = if is_first {
                    0
                } else {
                    self.left_out.saturating_add(block.len)
                };
                return;
            }
            if is_first {
                self.left_out = 0;
                let Id { client, clock } = block.id;
                sections.push(Section {
                    client,
                    clock,
                    n_blocks: 0,
                    bytes: Vec::new(),
                });
            }
            let (start, end) = block.bytes;
            let Some((section, bytes)) = sections.last_mut().zip(self.update.get(start..end))
            else {
                return;
            };
            if self.left_out > 0 {
                section.n_blocks += 1;
                section.bytes.push(INFO_SKIP);
                write_var(&mut section.bytes, u64::from(self.left_out));
                self.left_out = 0;
            }
            section.n_blocks += 1;
            section.bytes.extend_from_slice(bytes);
        }

        fn deleted(&mut self, id: Id, len: u32) {
            self.kept
                .deleted
                .insert(ID::new(ClientID::new(id.client), id.clock), len);
        }
    }
    let kept = Kept {
        sections: Vec::new(),
        deleted: IdSet::new(),
    };
    let mut visitor = Keep {
        update,
        keep,
        kept,
        left_out: 0,
    };
    // Checked before, or our own state: what it holds is bounded by the memory it came from.
    let limits = ValidateLimits {
        bytes_max: usize::MAX,
        depth_max: u32::MAX,
    };
    scan(update, &limits, &mut visitor)?;
    Ok(visitor.kept)
}

impl Kept {
    fn encode(self) -> Vec<u8> {
        let mut out = Vec::new();
        write_var(
            &mut out,
            u64::try_from(self.sections.len()).unwrap_or(u64::MAX),
        );
        for section in self.sections {
            write_var(&mut out, section.n_blocks);
            write_var(&mut out, section.client);
            write_var(&mut out, u64::from(section.clock));
            out.extend_from_slice(&section.bytes);
        }
        out.extend_from_slice(&self.deleted.encode_v1());
        out
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
