//! A yrs document as the runtime sees it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use ::yrs::block::ClientID;
use ::yrs::{
    Doc, OffsetKind, Options, ReadTxn, StateVector, Transact, Transaction, TransactionMut,
};
use bytes::Bytes;
use twox_hash::XxHash3_64;

use super::cursor::CLIENT_MAX;
use super::history::{Mirror, Steps, snapshot_of, state_at};
use super::import::{Checked, Importer, LIMITS};
use super::observe::{OURS, Queue, roots};
use super::pairs;
use super::rewrite::state_before;
use super::validate::{Ignore, scan};
use super::version::{state_vector, version_of};
use crate::engine::foreign::identity;
use crate::engine::{
    Document, Drained, Edited, EngineError, EngineEvent, Imported, ReplicaSeed, Source,
    ValidateLimits, Version, Wake,
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
    keeps_history: bool,
    /// Where steps are undone, once one has been.
    mirror: Option<Mirror>,
    seed: ReplicaSeed,
    /// Counts the `Doc`s, this one included.
    generation: u64,
    importer: Importer,
    /// As last computed, for when a transaction of the application is in the way.
    version: Version,
    is_poisoned: bool,
}

impl YrsDocument {
    pub(super) fn new(offset_kind: OffsetKind, keeps_history: bool, seed: ReplicaSeed) -> Self {
        let queue = Queue::default();
        queue.lock().steps = keeps_history.then(Steps::default);
        let doc = fresh(offset_kind, keeps_history, client_id(seed, 0));
        if let Ok(mut txn) = doc.try_transact_mut() {
            queue.watch(&mut txn, 0);
        }
        let version = doc.try_transact().map(|txn| version_of(&txn));
        Self {
            doc,
            retired: Vec::new(),
            queue,
            offset_kind,
            keeps_history,
            mirror: None,
            seed,
            generation: 0,
            importer: Importer::default(),
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
        let n_before = self.queue.lock().local.len();
        let result = catch_unwind(AssertUnwindSafe(|| f(&mut txn)));
        let is_committed = self.queue.lock().local.len() > n_before;
        let limits = ValidateLimits {
            bytes_max,
            ..LIMITS
        };
        let mut before = None;
        if result.is_ok() && !is_committed && has_changes(&txn) {
            // Larger than what comes out in the end: not merged, nothing collected.
            let change = txn.encode_update_v1();
            let is_cut = {
                let mut inner = self.queue.lock();
                inner.pairs.note(pairs::in_update(&change).into_iter());
                inner.pairs.mend(&change).is_some()
            };
            if is_cut || scan(&change, &limits, &mut Ignore).is_err() {
                before = state_before(&txn).ok();
            }
        }
        // Not left to the drop, which would abort the process if it panics while another panic unwinds.
        let committed = catch_unwind(AssertUnwindSafe(|| txn.commit()));
        let is_mixed = self.queue.lock().is_mixed;
        if has_changes(&txn) && !is_mixed {
            let n_queued = self.queue.lock().local.len() - n_before;
            // A panic in somebody's observer keeps ours from being called, and `Doc::destroy` takes it off; a commit
            // inside the closure calls it too soon.
            if n_queued != 1 || is_committed {
                self.queue.watch(&mut txn, self.generation);
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
        if is_mixed {
            return Err(EngineError::Poisoned);
        }
        if let Some(before) = before {
            let change = self.queue.lock().local.last().cloned().unwrap_or_default();
            if self.queue.lock().is_cut || scan(&change, &limits, &mut Ignore).is_err() {
                // The transaction stays open: nobody edits the old document while it retires.
                // Should the engine not take its own state back, the change stays and is refused by the server instead.
                if self.replace(before).is_ok() {
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
        let is_damaged = {
            let inner = self.queue.lock();
            inner.is_cut || inner.is_mixed
        };
        if self.is_poisoned || is_damaged {
            Err(EngineError::Poisoned)
        } else {
            Ok(())
        }
    }

    /// Reads what is encoded. A panic of the engine is an error.
    fn encode<R>(
        &self,
        f: impl FnOnce(&Transaction<'_>) -> Result<R, EngineError>,
    ) -> Result<R, EngineError> {
        self.usable()?;
        let txn = self.doc.try_transact().map_err(|_| EngineError::Busy)?;
        catch_unwind(AssertUnwindSafe(|| f(&txn))).unwrap_or(Err(EngineError::Poisoned))
    }

    /// Goes on with a new `Doc` that holds `state`, and retires the present one.
    fn replace(&mut self, state: Vec<u8>) -> Result<(), EngineError> {
        let generation = self.generation + 1;
        let client = client_id(self.seed, generation);
        let doc = fresh(self.offset_kind, self.keeps_history, client);
        let mut txn = doc
            .try_transact_mut_with(OURS)
            .map_err(|_| EngineError::Busy)?;
        Importer::default().import(&mut txn, [Checked::new(Bytes::from(state))?], &self.queue)?;
        self.queue.watch(&mut txn, generation);
        self.importer.look_up(&txn);
        drop(txn);
        self.retired.push(std::mem::replace(&mut self.doc, doc));
        self.generation = generation;
        let mut inner = self.queue.lock();
        inner.generation = generation;
        inner.has_predecessor = true;
        inner.is_cut = false;
        inner.steps = self.keeps_history.then(Steps::default);
        drop(inner);
        self.mirror = None;
        Ok(())
    }

    /// The document as it was at a version made by [`readable_version`](Document::readable_version).
    pub(super) fn at(&self, version: &Version) -> Result<Doc, EngineError> {
        if !self.keeps_history {
            return Err(EngineError::Unsupported {
                what: "reading earlier versions without keep_history",
            });
        }
        let state = self.encode(|txn| state_at(txn, version))?;
        let doc = fresh(self.offset_kind, true, ClientID::new(0));
        let mut txn = doc
            .try_transact_mut_with(OURS)
            .map_err(|_| EngineError::Busy)?;
        let state = Checked::new(Bytes::from(state))?;
        Importer::default().import(&mut txn, [state], &Queue::default())?;
        drop(txn);
        Ok(doc)
    }

    /// Undoes the last step, or makes it again.
    fn step(&mut self, is_undo: bool) -> Result<bool, EngineError> {
        self.usable()?;
        let doc = self.doc.clone();
        let mut txn = doc
            .try_transact_mut_with(OURS)
            .map_err(|_| EngineError::Busy)?;
        // Nobody edits from here on.
        let steps = self.queue.lock().steps.clone();
        let mut steps = steps.ok_or(EngineError::Unsupported {
            what: "undo without keep_history",
        })?;
        if !(if is_undo {
            steps.can_undo()
        } else {
            steps.can_redo()
        }) {
            return Ok(false);
        }
        let client = client_id(self.seed, u64::MAX - self.generation);
        let mut mirror = self.mirror.take().unwrap_or_else(|| Mirror::new(client));
        let made = mirror.step(&txn, &mut steps, is_undo)?;
        self.mirror = Some(mirror);
        self.queue.lock().steps = Some(steps);
        let Some(change) = made else { return Ok(false) };
        let update = Checked::new(change.clone())?;
        let imported = self.queue.unwatched(&mut txn, self.generation, |txn| {
            self.importer.import(txn, [update], &self.queue)
        });
        self.is_poisoned = imported.is_err();
        imported?;
        let event = EngineEvent::new(Source::Local, roots(&txn));
        let mut inner = self.queue.lock();
        inner.local.push(change);
        inner.events.push(event);
        Ok(true)
    }

    fn import_all(
        &mut self,
        updates: impl Iterator<Item = Bytes>,
    ) -> Result<Imported, EngineError> {
        self.usable()?;
        let mut updates = updates.map(Checked::new);
        // Most imports are of one change, which needs no list.
        let first = updates.next().transpose()?;
        let others = updates.collect::<Result<Vec<_>, _>>()?;
        let updates = first.into_iter().chain(others);
        let doc = self.doc.clone();
        let mut txn = doc
            .try_transact_mut_with(OURS)
            .map_err(|_| EngineError::Busy)?;
        let imported = self.queue.unwatched(&mut txn, self.generation, |txn| {
            self.importer.import(txn, updates, &self.queue)
        });
        self.is_poisoned = imported.is_err();
        imported?;
        let changed = has_changes(&txn);
        if changed {
            let event = EngineEvent::new(Source::Remote, roots(&txn));
            self.queue.lock().events.push(event);
        }
        Ok(Imported::new(changed, self.importer.is_waiting()))
    }
}

impl Document for YrsDocument {
    /// While a transaction of the application holds the document, or after a panic of the engine: the version when it
    /// was last asked for.
    fn version(&mut self) -> Version {
        if let Ok(version) = self.encode(|txn| Ok(version_of(txn))) {
            self.version = version;
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
        self.import_all(changes.iter().cloned())
    }

    fn import_snapshot(&mut self, snapshot: &[u8]) -> Result<Imported, EngineError> {
        self.import_all(std::iter::once(Bytes::copy_from_slice(snapshot)))
    }

    fn since(&mut self, version: &Version) -> Result<Option<Bytes>, EngineError> {
        self.encode(|txn| {
            let theirs = state_vector(version, &txn.state_vector())?;
            if version_of(txn) == *version {
                return Ok(None);
            }
            Ok(Some(Bytes::from(txn.encode_diff_v1(&theirs))))
        })
    }

    /// Includes what waits for missing changes.
    fn snapshot(&mut self) -> Result<Bytes, EngineError> {
        self.encode(|txn| {
            let state = txn.encode_diff_v1(&StateVector::default());
            if !self.importer.is_waiting() {
                return Ok(Bytes::from(state));
            }
            let parts: Vec<&[u8]> = std::iter::once(state.as_slice())
                .chain(self.importer.waiting().map(Bytes::as_ref))
                .collect();
            let merged = ::yrs::merge_updates_v1(parts);
            merged.map(Bytes::from).map_err(|_| EngineError::Poisoned)
        })
    }

    fn readable_version(&mut self) -> Result<Version, EngineError> {
        if self.keeps_history {
            self.encode(|txn| Ok(snapshot_of(txn)))
        } else {
            Err(EngineError::Unsupported {
                what: "reading earlier versions without keep_history",
            })
        }
    }

    fn undo(&mut self) -> Result<bool, EngineError> {
        self.step(true)
    }

    fn redo(&mut self) -> Result<bool, EngineError> {
        self.step(false)
    }

    fn can_undo(&self) -> bool {
        let inner = self.queue.lock();
        inner.steps.as_ref().is_some_and(Steps::can_undo)
    }

    fn can_redo(&self) -> bool {
        let inner = self.queue.lock();
        inner.steps.as_ref().is_some_and(Steps::can_redo)
    }

    /// `TextRef` and its like are raw pointers, and a cloned `Doc` can be edited.
    fn outlives_replacement(&self) -> bool {
        true
    }

    fn succeed_another(&mut self) {
        self.queue.lock().has_predecessor = true;
    }

    fn is_poisoned(&self) -> bool {
        self.usable().is_err()
    }

    /// Elements name their neighbours, so a change stays meaningless without those before it.
    fn can_rebase(&self) -> bool {
        false
    }
}

/// A client id that nobody else has: two documents that go on from one state must not share one.
fn client_id(seed: ReplicaSeed, generation: u64) -> ClientID {
    let input = identity(seed, generation);
    ClientID::new(XxHash3_64::oneshot(&input) & CLIENT_MAX)
}

/// An empty document.
fn fresh(offset_kind: OffsetKind, keeps_history: bool, client: ClientID) -> Doc {
    let mut options =
        Options::with_guid_and_client_id(::yrs::uuid_v4_from(u128::from(client.get())), client);
    options.offset_kind = offset_kind;
    options.skip_gc = keeps_history;
    // Would delete redundant formatting on import: deletions of nobody, other on each replica.
    options.cleanup_formatting = false;
    Doc::with_options(options)
}

fn has_changes(txn: &TransactionMut<'_>) -> bool {
    !txn.insert_set().is_empty() || !txn.delete_set().is_empty()
}
