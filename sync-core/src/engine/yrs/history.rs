//! Undo, and what was there before.
//!
//! `yrs::UndoManager` watches a document through raw pointers and waits for the document's lock, which an application's
//! thread may hold while it waits for ours. So ours never sees the application's document: steps are noted when their
//! transactions are committed, and undone in a mirror of the document that nobody else has. What that changed is then
//! imported like the change of another client, except that it comes out as a local change.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use ::yrs::block::ClientID;
use ::yrs::branch::Branch;
use ::yrs::undo::{Options as UndoOptions, StackItem};
use ::yrs::{
    Doc, ID, IdSet, Options, Out, ReadTxn, Snapshot, StateVector, Transact, TransactionMut,
    UndoManager, WriteTxn,
};
use bytes::Bytes;

use super::cursor::Cursor;
use super::import::{Checked, Importer};
use super::observe::{OURS, Queue};
use super::rewrite::{keep, write_var};
use super::validate::{Block, KIND, UNLIMITED, Visitor, scan};
use crate::engine::{EngineError, Version};

/// Steps that can be undone; the oldest goes first.
const STEPS_MAX: usize = 100;

/// What one local transaction did.
#[derive(Debug, Clone, Default)]
pub(super) struct Step {
    inserted: IdSet,
    deleted: IdSet,
}

/// What can be undone and made again, the last one last.
#[derive(Debug, Clone, Default)]
pub(super) struct Steps {
    undo: VecDeque<Step>,
    redo: Vec<Step>,
}

impl Steps {
    pub(super) fn can_undo(&self) -> bool {
        !self.undo.is_empty()
    }

    pub(super) const fn can_redo(&self) -> bool {
        !self.redo.is_empty()
    }

    /// Notes what a local transaction did.
    pub(super) fn made(&mut self, txn: &TransactionMut<'_>) {
        self.redo.clear();
        if self.undo.len() >= STEPS_MAX {
            self.undo.pop_front();
        }
        self.undo.push_back(Step {
            inserted: txn.insert_set().clone(),
            deleted: txn.delete_set().clone(),
        });
    }

    /// Takes the last `n` notes back.
    pub(super) fn forget(&mut self, n: usize) {
        self.undo.truncate(self.undo.len().saturating_sub(n));
    }
}

/// A copy of the document. It lives on from one undo to the next, because only it knows which elements took the place of
/// which.
pub(super) struct Mirror {
    doc: Doc,
    importer: Importer,
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").finish_non_exhaustive()
    }
}

impl Mirror {
    /// What is undone is written under this client id.
    pub(super) fn new(client: ClientID) -> Self {
        let mut options = Options::with_client_id(client);
        options.skip_gc = true;
        options.cleanup_formatting = false;
        Self {
            doc: Doc::with_options(options),
            importer: Importer::default(),
        }
    }

    /// Undoes the last step, or makes it again. What that changed, if anything. After an error the mirror must not be used.
    pub(super) fn step(
        &mut self,
        txn: &TransactionMut<'_>,
        steps: &mut Steps,
        is_undo: bool,
    ) -> Result<Option<Bytes>, EngineError> {
        catch_unwind(AssertUnwindSafe(|| {
            self.follow(txn)?;
            Ok(self.undo_or_redo(steps, is_undo))
        }))
        .unwrap_or(Err(EngineError::Poisoned))
    }

    fn follow(&mut self, txn: &TransactionMut<'_>) -> Result<(), EngineError> {
        let mut mirror = self
            .doc
            .try_transact_mut_with(OURS)
            .map_err(|_| EngineError::Busy)?;
        // Roots without a type report no changes.
        for (name, root) in txn.root_refs() {
            match root {
                Out::YText(_) => drop(mirror.get_or_insert_text(name)),
                Out::YArray(_) => drop(mirror.get_or_insert_array(name)),
                Out::YMap(_) => drop(mirror.get_or_insert_map(name)),
                Out::YXmlFragment(_) => drop(mirror.get_or_insert_xml_fragment(name)),
                _ => {}
            }
        }
        let news = Bytes::from(txn.encode_diff_v1(&mirror.state_vector()));
        self.importer
            .import(&mut mirror, [Checked::new(news)?], &Queue::default())
    }

    fn undo_or_redo(&self, steps: &mut Steps, is_undo: bool) -> Option<Bytes> {
        let guid = self.doc.guid();
        let items = |steps: &mut dyn Iterator<Item = &Step>| {
            steps
                .map(|step| {
                    let Step { inserted, deleted } = step.clone();
                    StackItem::with_meta(guid.clone(), deleted, inserted, ())
                })
                .collect()
        };
        let mut manager = UndoManager::with_options(UndoOptions {
            // Each transaction is a step.
            capture_timeout_millis: 0,
            tracked_origins: Default::default(),
            capture_transaction: None,
            timestamp: Arc::new(|| 0),
            init_undo_stack: items(&mut steps.undo.iter()),
            init_redo_stack: items(&mut steps.redo.iter()),
        });
        let roots: Vec<_> = {
            let txn = self.doc.try_transact().ok()?;
            txn.root_refs().map(|(_, root)| root).collect()
        };
        for branch in roots.iter().filter_map(|root| root.try_branch()) {
            manager.expand_scope(&self.doc, &Root(branch));
        }
        let made = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&made);
        let _subscribed = self.doc.observe_update_v1(OURS, move |_, event| {
            *seen.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Bytes::copy_from_slice(&event.update));
        });
        if is_undo {
            manager.undo_blocking();
        } else {
            manager.redo_blocking();
        }
        let _unsubscribed = self.doc.unobserve_update_v1(OURS);
        let step = |item: &StackItem<()>| Step {
            inserted: item.insertions().clone(),
            deleted: item.deletions().clone(),
        };
        steps.undo = manager.undo_stack().iter().map(step).collect();
        steps.redo = manager.redo_stack().iter().map(step).collect();
        made.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

struct Root<'a>(&'a Branch);

impl AsRef<Branch> for Root<'_> {
    fn as_ref(&self) -> &Branch {
        self.0
    }
}

/// What is here now, so that it can be read later:
///
/// ```text
/// version := n (client clock)*n (client clock len)*     clients ascending in both
/// ```
///
/// The second part is what is deleted. A [`Version`](super::version) has but a digest of it.
pub(super) fn snapshot_of(txn: &impl ReadTxn) -> Version {
    let Snapshot {
        state_map,
        delete_set,
    } = txn.snapshot();
    let mut clients: Vec<(u64, u32)> = state_map
        .iter()
        .map(|(client, &clock)| (client.get(), clock))
        .collect();
    clients.sort_unstable();
    let mut out = Vec::new();
    write_var(&mut out, u64::try_from(clients.len()).unwrap_or(u64::MAX));
    for (client, clock) in clients {
        write_var(&mut out, client);
        write_var(&mut out, u64::from(clock));
    }
    for (client, ranges) in delete_set.iter() {
        for range in ranges.iter() {
            write_var(&mut out, client.get());
            write_var(&mut out, u64::from(range.start));
            write_var(&mut out, u64::from(range.end.saturating_sub(range.start)));
        }
    }
    Version(Bytes::from(out))
}

/// The state at a version made by [`snapshot_of`], as an update.
pub(super) fn state_at(txn: &impl ReadTxn, version: &Version) -> Result<Vec<u8>, EngineError> {
    let (now, mut cursor) = (txn.snapshot(), Cursor::new(&version.0));
    let mut then = Snapshot::new(StateVector::default(), IdSet::new());
    for _ in 0..cursor.var_u32("number of clients")? {
        let client = ClientID::new(cursor.client("client")?);
        let clock = cursor.var_u32("clock")?;
        if clock > now.state_map.get(&client) {
            return Err(EngineError::Incomplete);
        }
        if clock > 0 {
            then.state_map.set_max(client, clock);
        }
    }
    while !cursor.is_at_end() {
        let client = ClientID::new(cursor.client("client")?);
        let clock = cursor.var_u32("clock")?;
        let len = cursor.var_u32("length")?;
        if clock.saturating_add(len) > then.state_map.get(&client) {
            return Err(cursor.malformed("deletion"));
        }
        then.delete_set.insert(ID::new(client, clock), len);
    }
    if !then.delete_set.diff(&now.delete_set).is_empty() {
        return Err(EngineError::Incomplete);
    }
    let now = txn.encode_diff_v1(&StateVector::default());
    let is_old = |block: &mut Block| {
        let reach = then.state_map.get(&ClientID::new(block.id.client));
        block.len = block.len.min(reach.saturating_sub(block.id.clock));
        block.len > 0
    };
    // Not `encode_state_from_snapshot`: yrs 0.28 cuts blocks at their end wrongly (`ItemSlice::encode` announces a right
    // neighbour and leaves it out, `ItemContent::encode_slice` writes all of a text of which it was to write one element).
    let state = keep(&now, is_old, |id, len| (id, len))?;
    let state = state.with_deleted(then.delete_set.clone()).encode();
    let mut gone = Gone {
        update: &state,
        known: &then.delete_set,
        is_found: false,
    };
    scan(&state, &UNLIMITED, &mut gone)?;
    if gone.is_found {
        Err(EngineError::Trimmed)
    } else {
        Ok(state)
    }
}

/// Looks for elements that were there at a version, and whose content is not here any more.
struct Gone<'a> {
    update: &'a [u8],
    known: &'a IdSet,
    is_found: bool,
}

impl Visitor for Gone<'_> {
    fn block(&mut self, block: Block) {
        const COLLECTED: u8 = 0;
        const DELETED: u8 = 1;
        let kind = self.update.get(block.bytes.0).map(|info| info & KIND);
        if matches!(kind, Some(COLLECTED | DELETED)) {
            let client = ClientID::new(block.id.client);
            let mut clocks = block.id.clock..block.id.clock.saturating_add(block.len);
            self.is_found |= !clocks.all(|clock| self.known.contains(&ID::new(client, clock)));
        }
    }
}
