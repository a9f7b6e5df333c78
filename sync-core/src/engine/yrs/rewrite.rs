//! Updates with parts left out or changed.
//!
//! yrs cannot roll back. But until a transaction is committed nothing is collected or merged, so the encoded state still
//! holds all that was there before: whole blocks to leave out, and deletions to leave out.

use ::yrs::block::ClientID;
use ::yrs::updates::encoder::Encode;
use ::yrs::{ID, IdSet, ReadTxn, StateVector, TransactionMut};

use super::cursor::Cursor;
use super::validate::{Block, HAS_LEFT, HAS_RIGHT, INFO_SKIP, Id, KIND, UNLIMITED, Visitor, scan};
use crate::engine::EngineError;

/// The state from before an uncommitted transaction, as an update.
pub(super) fn state_before(txn: &TransactionMut<'_>) -> Result<Vec<u8>, EngineError> {
    let state = txn.encode_diff_v1(&StateVector::default());
    let is_old = |block: &mut Block| {
        !txn.insert_set()
            .contains(&ID::new(ClientID::new(block.id.client), block.id.clock))
    };
    let mut kept = keep(&state, is_old, |id, len| (id, len))?;
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
    let follows = |block: &mut Block| {
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
    Ok(keep(update, follows, |id, len| (id, len))?.encode())
}

/// An update in which blocks of which `known` has a part, and which name their container themselves, are said to follow the last
/// element that is there: then what is new in them is where that is, and yrs asks nobody else. It would take the container
/// from the block and the neighbour from the document, and build lists that run through two containers if they disagree.
pub(super) fn continued(update: &[u8], known: impl Fn(u64) -> u32) -> Result<Vec<u8>, EngineError> {
    let mut pieces = Continued {
        update,
        known,
        copied: 0,
        out: Vec::with_capacity(update.len()),
    };
    scan(update, &UNLIMITED, &mut pieces)?;
    pieces.copy_to(update.len());
    Ok(pieces.out)
}

struct Continued<'a, K> {
    update: &'a [u8],
    known: K,
    /// So many bytes of it are in `out`, or have something else in their place.
    copied: usize,
    out: Vec<u8>,
}

impl<K> Continued<'_, K> {
    fn copy_to(&mut self, end: usize) {
        let piece = self.update.get(self.copied..end).unwrap_or_default();
        self.out.extend_from_slice(piece);
        self.copied = end;
    }
}

impl<K: Fn(u64) -> u32> Visitor for Continued<'_, K> {
    fn block(&mut self, block: Block) {
        let Id { client, clock } = block.id;
        let known = (self.known)(client);
        let (start, _) = block.bytes;
        let info = self.update.get(start).copied().unwrap_or_default();
        let names_container = info & KIND != 0 && block.left.is_none() && block.right.is_none();
        let is_cut = clock < known && known < clock.saturating_add(block.len);
        if !is_cut || block.is_skip || !names_container {
            return;
        }
        self.copy_to(start);
        self.out.push(info & KIND | HAS_LEFT);
        write_var(&mut self.out, client);
        write_var(&mut self.out, u64::from(known - 1));
        self.copied = block.content;
    }
}

/// What stays of an update.
pub(super) struct Kept {
    sections: Vec<Section>,
    deleted: IdSet,
}

/// The blocks of one client that stay.
struct Section {
    client: u64,
    clock: u32,
    n_blocks: u64,
    bytes: Vec<u8>,
}

/// Takes apart an update that is well formed. `keep` may change a block's links, or shorten it, and says whether it stays;
/// `range` gives what stands for a range of deletions.
pub(super) fn keep(
    update: &[u8],
    keep: impl FnMut(&mut Block) -> bool,
    range: impl FnMut(Id, u32) -> (Id, u32),
) -> Result<Kept, EngineError> {
    let kept = Kept {
        sections: Vec::new(),
        deleted: IdSet::new(),
    };
    let mut keeper = Keeper {
        update,
        keep,
        range,
        kept,
        left_out: 0,
        values: Vec::new(),
    };
    scan(update, &UNLIMITED, &mut keeper)?;
    Ok(keeper.kept)
}

struct Keeper<'a, K, R> {
    update: &'a [u8],
    keep: K,
    range: R,
    kept: Kept,
    /// Elements left out since the section's last block: a hole if another block follows.
    left_out: u32,
    /// Where the values of the block that is being read end.
    values: Vec<usize>,
}

impl<K, R> Visitor for Keeper<'_, K, R>
where
    K: FnMut(&mut Block) -> bool,
    R: FnMut(Id, u32) -> (Id, u32),
{
    fn value(&mut self, end: usize) {
        self.values.push(end);
    }

    fn block(&mut self, mut block: Block) {
        let values = std::mem::take(&mut self.values);
        // What yrs writes for the second half of a cut character, whose first half it writes whole.
        if block.len == 0 {
            return;
        }
        let original = block;
        let sections = &mut self.kept.sections;
        let is_first = sections
            .last()
            .is_none_or(|section| section.client != block.id.client);
        if block.is_skip || !(self.keep)(&mut block) {
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
        let Some(section) = sections.last_mut() else {
            return;
        };
        if self.left_out > 0 {
            section.n_blocks += 1;
            section.bytes.push(INFO_SKIP);
            write_var(&mut section.bytes, u64::from(self.left_out));
            self.left_out = 0;
        }
        section.n_blocks += 1;
        if block.len < original.len {
            // Whatever follows in the section starts elsewhere now.
            self.left_out = original.len - block.len;
            write_start(&mut section.bytes, self.update, &block, &values);
        } else {
            write_block(&mut section.bytes, self.update, &original, &block);
        }
    }

    fn deleted(&mut self, id: Id, len: u32) {
        let (id, len) = (self.range)(id, len);
        self.kept
            .deleted
            .insert(ID::new(ClientID::new(id.client), id.clock), len);
    }
}

/// Copies a block of an update, with other links.
fn write_block(out: &mut Vec<u8>, update: &[u8], original: &Block, block: &Block) {
    let copy = |from: usize, to: usize, out: &mut Vec<u8>| {
        out.extend_from_slice(update.get(from..to).unwrap_or_default());
    };
    let (start, end) = block.bytes;
    if block == original {
        return copy(start, end, out);
    }
    let mut at = start + 1;
    let info = update.get(start).copied().unwrap_or_default();
    out.push(if block.right.is_none() {
        info & !HAS_RIGHT
    } else {
        info
    });
    for (original, link) in [(original.left, block.left), (original.right, block.right)] {
        let Some(original) = original else { continue };
        copy(at, original.bytes.0, out);
        at = original.bytes.1;
        if let Some(link) = link {
            write_var(out, link.id.client);
            write_var(out, u64::from(link.id.clock));
        }
    }
    copy(at, end, out);
}

/// Copies the first elements of a block of an update: as many as `block` has now. Its links stay.
fn write_start(out: &mut Vec<u8>, update: &[u8], block: &Block, values: &[usize]) {
    let copy = |from: usize, to: usize, out: &mut Vec<u8>| {
        out.extend_from_slice(update.get(from..to).unwrap_or_default());
    };
    let (start, end) = block.bytes;
    let content = block.content;
    copy(start, content, out);
    let mut cursor = Cursor::new(update.get(content..end).unwrap_or_default());
    match update.get(start).map(|info| info & KIND) {
        Some(STRING) => {
            let text = cursor.string("text").unwrap_or_default();
            let mut units = 0;
            let start: String = text
                .chars()
                .take_while(|c| {
                    units += c.len_utf16();
                    u32::try_from(units).is_ok_and(|units| units <= block.len)
                })
                .collect();
            write_var(out, u64::try_from(start.len()).unwrap_or(u64::MAX));
            out.extend_from_slice(start.as_bytes());
        }
        Some(VALUES) => {
            let _ = cursor.var_u32("number of values");
            let last = usize::try_from(block.len).unwrap_or(usize::MAX);
            let to = last.checked_sub(1).and_then(|last| values.get(last));
            write_var(out, u64::from(block.len));
            copy(content + cursor.at(), to.copied().unwrap_or(end), out);
        }
        // All others that have more than one element say nothing but how many.
        _ => write_var(out, u64::from(block.len)),
    }
}

const STRING: u8 = 4;
const VALUES: u8 = 8;

impl Kept {
    /// With other deletions.
    pub(super) fn with_deleted(self, deleted: IdSet) -> Self {
        Self { deleted, ..self }
    }

    pub(super) fn encode(self) -> Vec<u8> {
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
