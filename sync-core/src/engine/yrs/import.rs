//! Gives updates to yrs in an order that it bears, and keeps those that wait for others.
//!
//! yrs 0.28 has a queue of its own for what waits, and applies independent blocks over holes in a client's clocks. We
//! let it do neither. It does not look at its queue again when a hole is filled, so that replicas with the same changes
//! differ for ever; and where a collected block overlaps both sides of a hole (`Block::splice` does not shorten the
//! left part) it overwrites live blocks in a release build.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use ::yrs::block::ClientID;
use ::yrs::updates::decoder::Decode;
use ::yrs::updates::encoder::Encode;
use ::yrs::{ReadTxn, TransactionMut, Update, WriteTxn};
use bytes::Bytes;

use super::graph::in_order;
use super::observe::Queue;
use super::pairs::{self, Pairs};
use super::rewrite::{continued, without_holes};
use super::validate::{Block, Id, Visitor, scan};
use crate::engine::foreign::check_waiting;
use crate::engine::{EngineError, ValidateLimits};

/// What imports are held to, whatever was checked before: protocol constants, but no limit on the size of a state.
pub(super) const LIMITS: ValidateLimits = ValidateLimits {
    bytes_max: usize::MAX,
    depth_max: 64,
};

/// Updates with more clients than this are given to yrs in parts: it recurses once for each.
const RUNS_MAX: usize = 256;

/// An update that passed the validator.
#[derive(Debug, Clone, Default)]
pub(super) struct Checked {
    bytes: Bytes,
    /// Most updates have one run; more take memory.
    last_run: Option<Run>,
    runs_before: Vec<Run>,
    /// Where its characters of two elements start.
    pairs: Vec<Id>,
}

/// The clocks of one client's blocks in an update.
#[derive(Debug, Clone, Copy)]
struct Run {
    client: u64,
    /// The document must have this client's elements up to here.
    needs: u32,
    is_behind_hole: bool,
    /// Its first clock, and the one after its last.
    clocks: (u32, u32),
}

impl Checked {
    pub(super) fn new(bytes: Bytes) -> Result<Self, EngineError> {
        let mut checked = Self::default();
        scan(&bytes, &LIMITS, &mut checked)?;
        Ok(Self { bytes, ..checked })
    }

    fn runs(&self) -> impl Iterator<Item = &Run> {
        self.runs_before.iter().chain(&self.last_run)
    }
}

impl Visitor for Checked {
    fn block(&mut self, block: Block) {
        let Id { client, clock } = block.id;
        let end = clock.saturating_add(block.len);
        if let Some(run) = self.last_run.as_mut().filter(|run| run.client == client) {
            if run.is_behind_hole && !block.is_skip {
                run.needs = clock;
            }
            run.is_behind_hole = block.is_skip;
            run.clocks.1 = end;
        } else {
            let needs = if block.is_skip { 0 } else { clock };
            let run = Run {
                client,
                needs,
                is_behind_hole: block.is_skip,
                clocks: (clock, end),
            };
            self.runs_before.extend(self.last_run.replace(run));
        }
    }

    fn text(&mut self, start: Id, text: &str) {
        pairs::find(start, text, |id| self.pairs.push(id));
    }
}

/// What waits for missing changes, and how far each client's blocks are there.
#[derive(Debug, Default)]
pub(super) struct Importer {
    waiting: Vec<Waiting>,
    /// How far each client's blocks are there; looked up again where an update needs more.
    next: BTreeMap<u64, u32>,
}

#[derive(Debug)]
struct Waiting {
    update: Checked,
    /// Clients that have something it needs.
    on: BTreeSet<ClientID>,
}

impl Importer {
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = &Bytes> {
        self.waiting.iter().map(|waiting| &waiting.update.bytes)
    }

    /// Looks up how far each client's blocks are there. Its cost grows with the number of clients ever seen.
    pub(super) fn look_up(&mut self, txn: &impl ReadTxn) {
        let known = txn.state_vector();
        self.next = known
            .iter()
            .map(|(client, &clock)| (client.get(), clock))
            .collect();
    }

    /// Imports updates and commits. After an error the document must not be used: part of one may be in it.
    pub(super) fn import(
        &mut self,
        txn: &mut TransactionMut<'_>,
        updates: impl IntoIterator<Item = Checked>,
        queue: &Queue,
    ) -> Result<(), EngineError> {
        let imported = catch_unwind(AssertUnwindSafe(|| {
            self.adopt(txn)?;
            // All others' blocks come through here; this replica's own are counted by yrs.
            let own = ReadTxn::store(txn).get_local_state();
            self.next.insert(txn.doc().client_id().get(), own);
            // Nothing is called back before the commit.
            let pairs = &mut queue.lock().pairs;
            for update in updates {
                self.apply(txn, update, pairs)?;
            }
            self.retry(txn, pairs)
        }));
        // yrs commits when a transaction is dropped, where a second panic could not be caught.
        let committed = catch_unwind(AssertUnwindSafe(|| txn.commit()));
        match (imported, committed) {
            (Ok(imported), Ok(())) => imported,
            _ => Err(EngineError::Poisoned),
        }
    }

    /// Takes over what waits in yrs because the application imported something itself.
    fn adopt(&mut self, txn: &mut TransactionMut<'_>) -> Result<(), EngineError> {
        if !txn.has_missing_updates() {
            return Ok(());
        }
        let on = missing(txn);
        if let Some(update) = txn.prune_pending() {
            self.wait(Checked::new(Bytes::from(update.encode_v1()))?, on)?;
        }
        Ok(())
    }

    fn apply(
        &mut self,
        txn: &mut TransactionMut<'_>,
        update: Checked,
        pairs: &mut Pairs,
    ) -> Result<(), EngineError> {
        let is_long = update.runs_before.len() >= RUNS_MAX;
        if is_long || update.runs().any(|run| self.is_missing(run)) {
            self.look_up(txn);
        }
        let missing: BTreeSet<ClientID> = update
            .runs()
            .filter(|run| self.is_missing(run))
            .map(|run| ClientID::new(run.client))
            .collect();
        let known = |client| self.next.get(&client).copied().unwrap_or_default();
        if update
            .pairs
            .iter()
            .any(|id| id.clock + 1 == known(id.client))
        {
            // Ends inside a character of this block: another block took its clocks.
            return Err(malformed("clocks of a block"));
        }
        // Not those of a block that is there: whatever it says now, it changes nothing.
        pairs.note(
            update
                .pairs
                .iter()
                .copied()
                .filter(|id| id.clock >= known(id.client)),
        );
        let begins_before =
            |run: &Run| run.clocks.0 < known(run.client) && known(run.client) < run.clocks.1;
        let begins_before = update.runs().any(begins_before);
        let mut apply = |part: &[u8]| {
            let mended = pairs.mend(part);
            let part = mended.as_deref().unwrap_or(part);
            if begins_before {
                apply(txn, &continued(part, known)?)
            } else {
                apply(txn, part)
            }
        };
        let missing = if is_long {
            let (parts, mut missing) = in_order(&update.bytes, known)?;
            for part in &parts {
                missing.append(&mut apply(part)?);
            }
            missing
        } else if missing.is_empty() {
            apply(&update.bytes)?
        } else {
            &missing | &apply(&without_holes(&update.bytes, known)?)?
        };
        for run in update.runs() {
            let ranges = txn.insert_set().get(&ClientID::new(run.client));
            if let Some(end) = ranges.and_then(|ranges| ranges.clock_end()) {
                let next = self.next.entry(run.client).or_default();
                *next = end.max(*next);
            }
        }
        if missing.is_empty() {
            Ok(())
        } else {
            self.wait(update, missing)
        }
    }

    fn is_missing(&self, run: &Run) -> bool {
        run.needs > self.next.get(&run.client).copied().unwrap_or_default()
    }

    fn wait(&mut self, update: Checked, on: BTreeSet<ClientID>) -> Result<(), EngineError> {
        if self.waiting().any(|waiting| *waiting == update.bytes) {
            return Ok(());
        }
        let bytes = self.waiting().map(Bytes::len).sum::<usize>() + update.bytes.len();
        check_waiting(bytes)?;
        self.waiting.push(Waiting { update, on });
        Ok(())
    }

    /// Tries again what waits for something that came with this transaction, until nothing more fits.
    fn retry(
        &mut self,
        txn: &mut TransactionMut<'_>,
        pairs: &mut Pairs,
    ) -> Result<(), EngineError> {
        while self.is_waiting() {
            let inserted = txn.insert_set().clone();
            for waiting in std::mem::take(&mut self.waiting) {
                if waiting
                    .on
                    .iter()
                    .any(|client| txn.insert_set().get(client).is_some())
                {
                    self.apply(txn, waiting.update, pairs)?;
                } else {
                    self.waiting.push(waiting);
                }
            }
            if *txn.insert_set() == inserted {
                break;
            }
        }
        Ok(())
    }
}

/// Applies an update, and tells which clients have what is missing for part of it. That part is dropped.
pub(super) fn apply(
    txn: &mut TransactionMut<'_>,
    update: &[u8],
) -> Result<BTreeSet<ClientID>, EngineError> {
    let update = Update::decode_v1(update).map_err(|_| malformed("update"))?;
    txn.apply_update(update)
        .map_err(|_| malformed("parent of a block"))?;
    if !txn.has_missing_updates() {
        return Ok(BTreeSet::new());
    }
    let missing = missing(txn);
    // Emptied first: what is pruned is merged, which is work for nothing.
    if let Some(pending) = txn.store_mut().pending_update_mut() {
        pending.update = Update::default();
    }
    txn.prune_pending();
    Ok(missing)
}

/// Faults that only the document shows have no offset.
const fn malformed(what: &'static str) -> EngineError {
    EngineError::Malformed { what, offset: 0 }
}

/// Clients of which yrs misses something.
fn missing(txn: &TransactionMut<'_>) -> BTreeSet<ClientID> {
    let store = ReadTxn::store(txn);
    let mut clients = BTreeSet::new();
    if let Some(pending) = store.pending_update() {
        clients.extend(pending.missing.iter().map(|(&client, _)| client));
    }
    if let Some(deleted) = store.pending_ds() {
        clients.extend(deleted.client_ids());
    }
    clients
}
