//! A yrs document as the runtime sees it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use ::yrs::block::ClientID;
use ::yrs::updates::decoder::Decode;
use ::yrs::updates::encoder::Encode;
use ::yrs::{
    Doc, OffsetKind, Options, ReadTxn, StateVector, Transact, Transaction, TransactionMut, Update,
    WriteTxn,
};
use bytes::Bytes;
use twox_hash::XxHash3_64;

use super::cursor::CLIENT_MAX;
use super::observe::{OURS, Queue, roots};
use super::rewrite::state_before;
use super::validate::{Ignore, scan};
use super::version::{state_vector, version_of};
use crate::engine::{
    Document, Drained, Edited, EngineError, EngineEvent, Imported, ReplicaSeed, Source,
    ValidateLimits, Version, Wake,
};

/// What imports are held to, whatever was checked before: protocol constants, but no limit on the size of a state.
const LIMITS: ValidateLimits = ValidateLimits {
    bytes_max: usize::MAX,
    depth_max: 64,
};

/// A replica in yrs.
///
/// After a change had to be taken back the replica is another `yrs::Doc`. Retired ones are kept, and watched, for
/// the document's whole life: handles into them are raw pointers.
#[derive(Debug)]
pub struct YrsDocument {
    doc: Doc,
    retired: Vec<Doc>,
    queue: Queue,
    offset_kind: OffsetKind,
    seed: ReplicaSeed,
    /// Counts the `Doc`s, this one included.
    generation: u64,
    clocks: Clocks,
    /// As last computed, for when a transaction of the application is in the way.
    version: Version,
    is_poisoned: bool,
}

impl YrsDocument {
    pub(super) fn new(offset_kind: OffsetKind, seed: ReplicaSeed) -> Self {
        let queue = Queue::default();
        let doc = fresh(offset_kind, seed, 0);
        if let Ok(mut txn) = doc.try_transact_mut() {
            queue.watch(&mut txn, 0);
        }
        let version = doc
            .try_transact()
            .map(|txn| version_of(&txn, &BTreeMap::new()));
        Self {
            doc,
            retired: Vec::new(),
            queue,
            offset_kind,
            seed,
            generation: 0,
            clocks: Clocks::default(),
            version: version.unwrap_or_else(|_| Version(Bytes::new())),
            is_poisoned: false,
        }
    }

    pub(super) fn native(&self) -> Doc {
        self.doc.clone()
    }

    pub(super) fn read<R>(&self, f: impl FnOnce(&Transaction<'_>) -> R) -> Result<R, EngineError> {
        let txn = self.doc.try_transact().map_err(|_| EngineError::Busy)?;
        Ok(f(&txn))
    }

    pub(super) fn edit<R>(
        &mut self,
        bytes_max: usize,
        f: impl FnOnce(&mut TransactionMut<'_>) -> R,
    ) -> Result<Edited<R>, EngineError> {
        self.usable()?;
        let doc = self.doc.clone();
        let mut txn = doc.try_transact_mut().map_err(|_| EngineError::Busy)?;
        // Again each time: `Doc::destroy` and a panic in somebody's observer take all observers off.
        self.queue.watch(&mut txn, self.generation);
        let n_before = self.queue.lock().local.len();
        let pending = encode_pending(&txn);
        let result = catch_unwind(AssertUnwindSafe(|| f(&mut txn)));
        let is_committed = self.queue.lock().local.len() > n_before;
        let limits = ValidateLimits {
            bytes_max,
            ..LIMITS
        };
        let mut before = None;
        if result.is_ok() && !is_committed && has_changes(&txn) {
            // Larger than what comes out in the end: not merged, nothing collected.
            if scan(&txn.encode_update_v1(), &limits, &mut Ignore).is_err() {
                before = state_before(&txn).ok();
            }
        }
        // Not left to the drop, which would abort the process if it panics while another panic unwinds.
        let committed = catch_unwind(AssertUnwindSafe(|| txn.commit()));
        if has_changes(&txn) {
            let n_queued = self.queue.lock().local.len() - n_before;
            // A panic in somebody's observer keeps ours from being called; a commit inside the closure calls it too soon.
            if n_queued != 1 || is_committed {
                let change = Bytes::from(txn.encode_update_v1());
                self.queue.lock().forget_local(n_before);
                self.queue.push(&txn, self.generation, change);
            }
        }
        let result = match (result, committed) {
            (Ok(result), Ok(())) => result,
            (Err(panic), _) | (_, Err(panic)) => {
                self.queue.watch(&mut txn, self.generation);
                drop(txn);
                resume_unwind(panic)
            }
        };
        if let Some(before) = before {
            let change = self.queue.lock().local.last().cloned().unwrap_or_default();
            if scan(&change, &limits, &mut Ignore).is_err() {
                let states: Vec<&[u8]> = [Some(before.as_slice()), pending.as_deref()]
                    .into_iter()
                    .flatten()
                    .collect();
                // The transaction stays open: nobody edits the old document while it retires.
                // Should the engine not take its own state back, the change stays and is refused by the server instead.
                if self.replace(&states).is_ok() {
                    self.queue.lock().forget_local(n_before);
                    return Ok(Edited::TakenBack {
                        change,
                        replaced: true,
                    });
                }
            }
        }
        Ok(Edited::Done(result))
    }

    fn usable(&self) -> Result<(), EngineError> {
        if self.is_poisoned {
            Err(EngineError::Poisoned)
        } else {
            Ok(())
        }
    }

    /// Goes on with a new `Doc` that holds `states`, and retires the present one.
    fn replace(&mut self, states: &[&[u8]]) -> Result<(), EngineError> {
        let generation = self.generation + 1;
        let doc = fresh(self.offset_kind, self.seed, generation);
        let mut txn = doc
            .try_transact_mut_with(OURS)
            .map_err(|_| EngineError::Busy)?;
        let mut clocks = Clocks::default();
        apply(&mut txn, states, &mut clocks)?;
        self.queue.watch(&mut txn, generation);
        drop(txn);
        self.retired.push(std::mem::replace(&mut self.doc, doc));
        self.generation = generation;
        self.queue.lock().generation = generation;
        self.clocks = clocks;
        Ok(())
    }

    fn import_all(&mut self, updates: &[&[u8]]) -> Result<Imported, EngineError> {
        self.usable()?;
        for update in updates {
            scan(update, &LIMITS, &mut Ignore)?;
        }
        let doc = self.doc.clone();
        let mut txn = doc
            .try_transact_mut_with(OURS)
            .map_err(|_| EngineError::Busy)?;
        Queue::unwatch(&mut txn);
        let applied = apply(&mut txn, updates, &mut self.clocks);
        self.queue.watch(&mut txn, self.generation);
        if applied.is_err() {
            // Part of an update may be in the document.
            self.is_poisoned = true;
        }
        applied?;
        let changed = has_changes(&txn);
        if changed {
            self.queue
                .lock()
                .events
                .push(EngineEvent::new(Source::Remote, roots(&txn)));
        }
        Ok(Imported::new(
            changed,
            txn.has_missing_updates() || self.clocks.has_gaps(),
        ))
    }
}

impl Document for YrsDocument {
    /// While a transaction of the application holds the document: the version when it was last asked for.
    fn version(&mut self) -> Version {
        if let Ok(txn) = self.doc.try_transact() {
            self.version = version_of(&txn, &self.clocks.gaps);
        }
        self.version.clone()
    }

    fn set_wake(&mut self, wake: Wake) {
        self.queue.lock().wake = Some(wake);
    }

    fn drain(&mut self) -> Drained {
        let mut inner = self.queue.lock();
        Drained {
            local: std::mem::take(&mut inner.local),
            stray: std::mem::take(&mut inner.stray),
            events: std::mem::take(&mut inner.events),
        }
    }

    /// One transaction for all changes. All are checked before the first is applied.
    fn import(&mut self, changes: &[Bytes]) -> Result<Imported, EngineError> {
        let updates: Vec<&[u8]> = changes.iter().map(Bytes::as_ref).collect();
        self.import_all(&updates)
    }

    fn import_snapshot(&mut self, snapshot: &[u8]) -> Result<Imported, EngineError> {
        self.import_all(&[snapshot])
    }

    fn since(&mut self, version: &Version) -> Result<Option<Bytes>, EngineError> {
        self.usable()?;
        let txn = self.doc.try_transact().map_err(|_| EngineError::Busy)?;
        let theirs = state_vector(version, &txn.state_vector())?;
        if version_of(&txn, &self.clocks.gaps) == *version {
            return Ok(None);
        }
        Ok(Some(Bytes::from(txn.encode_diff_v1(&theirs))))
    }

    /// Includes what waits for missing changes.
    fn snapshot(&mut self) -> Result<Bytes, EngineError> {
        self.usable()?;
        let txn = self.doc.try_transact().map_err(|_| EngineError::Busy)?;
        Ok(Bytes::from(
            txn.encode_state_as_update_v1(&StateVector::default()),
        ))
    }

    /// Elements name their neighbours, so a change stays meaningless without those before it.
    fn can_rebase(&self) -> bool {
        false
    }
}

/// An empty document, with a client id of its own: two documents that go on from one state must not share one.
fn fresh(offset_kind: OffsetKind, seed: ReplicaSeed, generation: u64) -> Doc {
    let mut input = [0; 24];
    let (first, second) = input.split_at_mut(16);
    first.copy_from_slice(&seed.0.to_be_bytes());
    second.copy_from_slice(&generation.to_be_bytes());
    let client = ClientID::new(XxHash3_64::oneshot(&input) & CLIENT_MAX);
    let mut options = Options::with_guid_and_client_id(::yrs::uuid_v4_from(seed.0), client);
    options.offset_kind = offset_kind;
    options.skip_gc = false;
    // Would delete redundant formatting on import: deletions of nobody, other on each replica.
    options.cleanup_formatting = false;
    Doc::with_options(options)
}

fn has_changes(txn: &TransactionMut<'_>) -> bool {
    !txn.insert_set().is_empty() || !txn.delete_set().is_empty()
}

/// What waits for missing changes, as an update.
fn encode_pending(txn: &TransactionMut<'_>) -> Option<Vec<u8>> {
    if !txn.has_missing_updates() {
        return None;
    }
    let mut updates = Vec::new();
    if let Some(pending) = ReadTxn::store(txn).pending_update() {
        updates.push(pending.update.encode_v1());
    }
    if let Some(deleted) = ReadTxn::store(txn).pending_ds() {
        // No sections, then the deletions.
        updates.push([&[0], deleted.encode_v1().as_slice()].concat());
    }
    ::yrs::merge_updates_v1(updates).ok()
}

/// Imports updates that passed the validator, and commits.
fn apply(
    txn: &mut TransactionMut<'_>,
    updates: &[&[u8]],
    clocks: &mut Clocks,
) -> Result<(), EngineError> {
    let applied = catch_unwind(AssertUnwindSafe(|| {
        for update in updates {
            let update = Update::decode_v1(update).map_err(|_| malformed("update"))?;
            txn.apply_update(update)
                .map_err(|_| malformed("parent of a block"))?;
        }
        // yrs tries what is pending again only when a client's last clock grows, not when a hole is filled.
        if clocks.has_gaps()
            && has_changes(txn)
            && let Some(pending) = txn.prune_pending()
        {
            txn.apply_update(pending)
                .map_err(|_| malformed("parent of a block"))?;
        }
        txn.commit();
        Ok(())
    }));
    match applied {
        Ok(Ok(())) => {
            clocks.note(txn);
            Ok(())
        }
        Ok(Err(error)) => {
            let committed = catch_unwind(AssertUnwindSafe(|| txn.commit()));
            committed.map_err(|_| EngineError::Poisoned).and(Err(error))
        }
        Err(_) => {
            // yrs commits when a transaction is dropped, where a second panic could not be caught.
            let _ = catch_unwind(AssertUnwindSafe(|| txn.commit()));
            Err(EngineError::Poisoned)
        }
    }
}

/// Faults that only yrs sees have no offset.
const fn malformed(what: &'static str) -> EngineError {
    EngineError::Malformed { what, offset: 0 }
}

/// Notices holes: yrs applies a block whose predecessors are missing if it needs none of them, and does not call it
/// pending.
#[derive(Debug, Default)]
struct Clocks {
    /// Elements of each client are known to be there without a hole up to here.
    next: BTreeMap<ClientID, u32>,
    /// Clients with a hole, and where their elements end.
    gaps: BTreeMap<ClientID, u32>,
}

impl Clocks {
    fn has_gaps(&self) -> bool {
        !self.gaps.is_empty()
    }

    /// Takes account of a committed import. Looks at the state vector, whose cost grows with the number of clients
    /// ever seen, only where a block does not follow what is known.
    fn note(&mut self, txn: &TransactionMut<'_>) {
        let mut known = None;
        for (&client, ranges) in txn.insert_set().iter() {
            let (Some(first), Some(last)) = (ranges.iter().next(), ranges.iter().next_back())
            else {
                continue;
            };
            let next = self.next.entry(client).or_default();
            if ranges.len() == 1 && first.start <= *next {
                *next = last.end.max(*next);
                continue;
            }
            let known = known.get_or_insert_with(|| txn.state_vector()).get(&client);
            if known < last.end {
                let end = self.gaps.entry(client).or_default();
                *end = last.end.max(*end);
            }
            *next = known.max(*next);
        }
        if self.has_gaps() {
            let known = known.unwrap_or_else(|| txn.state_vector());
            self.gaps.retain(|client, end| known.get(client) < *end);
        }
    }
}
