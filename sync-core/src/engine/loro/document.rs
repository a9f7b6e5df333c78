//! A loro document as the runtime sees it.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use ::loro::{
    EncodedBlobMode, ExportMode, IdSpan, LoroDoc, LoroEncodeError, LoroError, Subscription,
    UndoManager, VersionVector,
};
use bytes::Bytes;
use twox_hash::XxHash3_64;

use super::Loro;
use super::observe::Queue;
use super::validate;
use super::version::{clamp, decode, encode, includes};
use super::{rebase, trim};
use crate::engine::foreign::{Guarded, check_waiting, identity, waits_too_much};
use crate::engine::{
    Document, Drained, Edited, EngineError, EngineEvent, Imported, ReplicaSeed, Source,
    ValidateLimits, Version, Wake,
};

/// What stands before the snapshot of a replica that holds changes which wait: the length of the snapshot proper follows in
/// 8 bytes, big endian, then both.
const WITH_WAITING: &[u8] = b"loro+waiting";

/// A replica in loro.
///
/// After a change had to be taken back the replica is another `LoroDoc`. Retired ones are kept, and watched, for the
/// document's whole life: handles of the application may still edit them.
pub struct LoroDocument {
    engine: Loro,
    doc: LoroDoc,
    subscriptions: [Subscription; 3],
    undo: Option<UndoManager>,
    retired: Vec<(LoroDoc, [Subscription; 3])>,
    queue: Queue,
    seed: ReplicaSeed,
    /// Counts the peer ids used, this one included.
    n_peers: u64,
    peer: u64,
    /// What has been imported, and what has been put into the queue. Local changes in the queue beyond `n_settled` are not
    /// in it.
    settled: VersionVector,
    n_settled: usize,
    waiting_bytes: usize,
    /// As last computed, for when the engine has panicked.
    version: Version,
    is_poisoned: bool,
}

impl LoroDocument {
    pub(super) fn new(engine: Loro, seed: ReplicaSeed) -> Result<Self, EngineError> {
        let doc = engine.fresh();
        let queue = Queue::default();
        let subscriptions = queue.watch(&doc, 0);
        let undo = engine.keeps_undo.then(|| UndoManager::new(&doc));
        let settled = VersionVector::new();
        let mut document = Self {
            engine,
            doc,
            subscriptions,
            undo,
            retired: Vec::new(),
            queue,
            seed,
            n_peers: 0,
            peer: 0,
            version: encode(&settled),
            settled,
            n_settled: 0,
            waiting_bytes: 0,
            is_poisoned: false,
        };
        document.guarded(Self::take_fresh_peer)?;
        Ok(document)
    }

    pub(super) fn native(&self) -> LoroDoc {
        self.doc.clone()
    }

    /// Also of a document that is poisoned: what it shows is mostly what it showed before.
    pub(super) fn read<R>(&self, f: impl FnOnce(&LoroDoc) -> R) -> R {
        f(&self.doc)
    }

    pub(super) fn edit<R>(
        &mut self,
        bytes_max: usize,
        f: impl FnOnce(&mut LoroDoc) -> R,
    ) -> Result<Edited<R>, EngineError> {
        // What came before is another change.
        self.settle()?;
        let before = self.settled.clone();
        let n_changes = self.n_settled;
        let n_events = self.queue.lock().events.len();
        // A clone is another handle: the closure cannot put another document in this one's place.
        let mut lent = self.doc.clone();
        let result = catch_unwind(AssertUnwindSafe(|| f(&mut lent)));
        drop(lent);
        // A panic here is one of the application's subscribers, unless it has left the document unusable.
        let committed = catch_unwind(AssertUnwindSafe(|| self.doc.commit()));
        self.settle_as_one(n_events)?;
        let result = match (result, committed) {
            (Ok(result), Ok(())) => result,
            (Err(panic), _) | (_, Err(panic)) => resume_unwind(panic),
        };
        let change = self.queue.lock().local.get(n_changes).cloned();
        let limits = ValidateLimits {
            bytes_max,
            ..ValidateLimits::default()
        };
        if let Some(change) = change.filter(|change| validate::update(change, &limits).is_err()) {
            // Should the engine not go back, the change stays and is refused by the server instead.
            if self.guarded(|this| this.go_back(&before)).is_ok() {
                self.queue.lock().forget(n_changes, n_events);
                self.n_settled = n_changes;
                return Ok(Edited::TakenBack {
                    change,
                    replaced: true,
                });
            }
            self.usable()?;
        }
        Ok(Edited::Done(result))
    }

    /// The document as it was at a version.
    pub(super) fn at(&mut self, version: &Version) -> Result<LoroDoc, EngineError> {
        let theirs = decode(version)?;
        self.settle()?;
        if !includes(
            &self.settled,
            theirs.iter().map(|(&peer, &counter)| (peer, counter)),
        ) {
            return Err(EngineError::Incomplete);
        }
        self.check_not_trimmed(&theirs)?;
        self.guarded(|this| {
            let doc = as_of(&this.engine, &this.doc, &theirs)?;
            // A version that no replica ever had may be in between.
            if doc.oplog_vv() != theirs {
                return Err(EngineError::Incomplete);
            }
            // Read-only.
            doc.detach();
            Ok(doc)
        })
    }

    /// A peer id that nobody else has.
    fn next_peer(&mut self) -> u64 {
        let input = identity(self.seed, self.n_peers);
        self.n_peers += 1;
        // The largest number is loro's own.
        XxHash3_64::oneshot(&input).min(u64::MAX - 1)
    }

    /// Writes under a peer id that nobody else has.
    fn take_fresh_peer(&mut self) -> Result<(), EngineError> {
        self.peer = self.next_peer();
        self.queue.lock().peers.insert(self.peer);
        self.doc
            .set_peer_id(self.peer)
            .map_err(|error| engine_error(&error))
    }

    /// Commits what was done through handles of the application, and puts what is not in the queue into it.
    fn settle(&mut self) -> Result<(), EngineError> {
        self.guarded(|this| {
            this.doc.commit();
            this.take_over(false)?;
            // Loro gives itself another id when the document is edited at an earlier version.
            if !this.doc.is_detached() && this.doc.peer_id() != this.peer {
                this.take_fresh_peer()?;
            }
            Ok(())
        })
    }

    /// As [`settle`](Self::settle), after the commit, and makes whatever happened since the last time one change, with one
    /// event in the place of those after the first `n_events`.
    fn settle_as_one(&mut self, n_events: usize) -> Result<(), EngineError> {
        self.guarded(|this| {
            this.take_over(true)?;
            let mut inner = this.queue.lock();
            if inner.events.len() > n_events + 1 {
                let n_changes = inner.local.len();
                let roots = inner.forget(n_changes, n_events);
                inner.events.push(EngineEvent::new(Source::Local, roots));
            }
            Ok(())
        })
    }

    fn take_over(&mut self, as_one: bool) -> Result<(), EngineError> {
        let now = self.doc.oplog_vv();
        let (is_foreign, n_changes) = {
            let inner = self.queue.lock();
            let is_foreign = now.iter().any(|(peer, counter)| {
                !inner.peers.contains(peer) && self.settled.get(peer) != Some(counter)
            });
            (is_foreign, inner.local.len())
        };
        let n_new = n_changes.saturating_sub(self.n_settled);
        // The application has imported something itself, which others may lack; or it has committed more than once.
        if now != self.settled && (is_foreign || as_one && n_new != 1) {
            let change = export(&self.doc, ExportMode::updates(&self.settled))?;
            let mut inner = self.queue.lock();
            inner.local.truncate(self.n_settled);
            inner.local.push(change);
            if let Some(wake) = inner.wake.clone() {
                drop(inner);
                wake();
            }
        }
        self.settled = now;
        self.n_settled = self.queue.lock().local.len();
        Ok(())
    }

    /// Goes on with a new `LoroDoc` of an earlier version, and retires the present one.
    fn go_back(&mut self, version: &VersionVector) -> Result<(), EngineError> {
        let doc = as_of(&self.engine, &self.doc, version)?;
        if self.waiting_bytes > 0
            && let Some(waiting) = waiting(&self.doc)?
        {
            doc.import(&waiting).map_err(|error| engine_error(&error))?;
        }
        let generation = self.queue.lock().generation + 1;
        let subscriptions = self.queue.watch(&doc, generation);
        if self.undo.is_some() {
            self.undo = Some(UndoManager::new(&doc));
        }
        let retired = std::mem::replace(&mut self.doc, doc);
        let subscriptions = std::mem::replace(&mut self.subscriptions, subscriptions);
        self.retired.push((retired, subscriptions));
        self.queue.lock().generation = generation;
        self.take_fresh_peer()?;
        self.settled = self.doc.oplog_vv();
        Ok(())
    }

    /// Whether what a replica of `version` lacks is still here.
    fn check_not_trimmed(&self, version: &VersionVector) -> Result<(), EngineError> {
        let since = self.doc.shallow_since_vv();
        if includes(
            version,
            since.iter().map(|(&peer, &counter)| (peer, counter)),
        ) {
            Ok(())
        } else {
            Err(EngineError::Trimmed)
        }
    }

    /// Runs an import of loro's.
    fn import_with(
        &mut self,
        bytes: usize,
        import: impl FnOnce(&LoroDoc) -> Result<(), LoroError>,
    ) -> Result<Imported, EngineError> {
        self.settle()?;
        self.queue.lock().importing = Some(BTreeSet::new());
        let imported = self.guarded(|this| import(&this.doc).map_err(|error| engine_error(&error)));
        let touched = self.queue.lock().importing.take().unwrap_or_default();
        self.usable()?;
        let now = self.guarded(|this| Ok(this.doc.oplog_vv()))?;
        let changed = now != self.settled;
        self.settled = now;
        if changed {
            let event = EngineEvent::new(Source::Remote, touched.into_iter().collect());
            self.queue.lock().events.push(event);
        }
        let counted = self.count_waiting(bytes, changed);
        imported?;
        counted?;
        Ok(Imported::new(changed, self.waiting_bytes > 0))
    }

    /// Counts what waits, after an import of so many bytes. Beyond the limit the document must be loaded afresh.
    fn count_waiting(&mut self, bytes: usize, changed: bool) -> Result<(), EngineError> {
        self.guarded(|this| {
            // Costs as much as there is. If nothing came in, all that is new waits, or was here before.
            let mut count = this.waiting_bytes.saturating_add(bytes);
            if changed || this.waiting_bytes == 0 || waits_too_much(count) {
                count = waiting(&this.doc)?.map_or(0, |waiting| waiting.len());
            }
            this.waiting_bytes = count;
            Ok(())
        })?;
        let checked = check_waiting(self.waiting_bytes);
        self.is_poisoned |= checked.is_err();
        checked
    }

    /// Undoes or makes again one step.
    fn step(
        &mut self,
        what: &'static str,
        f: impl Fn(&mut UndoManager) -> Option<Result<bool, LoroError>>,
    ) -> Result<bool, EngineError> {
        self.settle()?;
        let n_events = self.queue.lock().events.len();
        let done = self.guarded(|this| {
            let undo = this
                .undo
                .as_mut()
                .ok_or(EngineError::Unsupported { what })?;
            // A step that has nothing left to do is passed over.
            while let Some(done) = f(undo) {
                if done.map_err(|error| engine_error(&error))? {
                    return Ok(true);
                }
            }
            Ok(false)
        })?;
        self.guarded(|this| {
            this.doc.commit();
            Ok(())
        })?;
        self.settle_as_one(n_events)?;
        Ok(done)
    }
}

impl Guarded for LoroDocument {
    fn has_panicked(&self) -> bool {
        self.is_poisoned
    }

    fn note_panic(&mut self) {
        self.is_poisoned = true;
    }
}

impl Document for LoroDocument {
    /// After a panic of the engine: the version when it was last asked for.
    fn version(&mut self) -> Version {
        if self.settle().is_ok() {
            self.version = encode(&self.settled);
        }
        self.version.clone()
    }

    fn readable_version(&mut self) -> Result<Version, EngineError> {
        self.usable()?;
        Ok(self.version())
    }

    fn set_wake(&mut self, wake: Wake) {
        self.queue.lock().wake = Some(wake);
    }

    fn drain(&mut self) -> Drained {
        // Of a document that is poisoned, or is being so, what was seen before comes out all the same.
        let _ = self.settle();
        for (retired, _) in &self.retired {
            let _ = catch_unwind(AssertUnwindSafe(|| retired.commit()));
        }
        let mut inner = self.queue.lock();
        self.n_settled = 0;
        Drained {
            local: std::mem::take(&mut inner.local),
            stray: std::mem::take(&mut inner.stray),
            events: std::mem::take(&mut inner.events),
        }
    }

    /// All are imported at once, or none.
    fn import(&mut self, changes: &[Bytes]) -> Result<Imported, EngineError> {
        let limits = ValidateLimits {
            bytes_max: usize::MAX,
            ..ValidateLimits::default()
        };
        for change in changes {
            validate::update(change, &limits)?;
        }
        let bytes = changes.iter().map(Bytes::len).sum();
        self.import_with(bytes, |doc| match changes {
            [] => Ok(()),
            [change] => doc.import(change).map(drop),
            // Not `import_batch`: it decodes everything twice, and ends with a checkout, which empties the undo stack.
            changes => doc.import(&validate::joined(changes)).map(drop),
        })
    }

    fn import_snapshot(&mut self, snapshot: &[u8]) -> Result<Imported, EngineError> {
        let (state, waiting) = parts(snapshot)?;
        self.settle()?;
        let is_empty = self.settled.iter().next().is_none();
        let mut attaches = false;
        if !is_empty || self.doc.is_detached() {
            self.guarded(|this| {
                let meta = LoroDoc::decode_import_blob_meta(state, true)
                    .map_err(|error| engine_error(&error))?;
                let start = meta.partial_start_vv.iter();
                let mut start = start.map(|(&peer, &counter)| (peer, counter));
                let is_shallow = meta.mode == EncodedBlobMode::ShallowSnapshot;
                // Loro would wait for ever for what is not in there.
                if is_shallow && !is_empty && !includes(&this.settled, &mut start) {
                    return Err(EngineError::Trimmed);
                }
                // So it would in a document without content, which reads it as changes.
                attaches = is_shallow && is_empty;
                Ok(())
            })?;
        }
        self.import_with(snapshot.len(), |doc| {
            if attaches {
                doc.attach();
            }
            let imported = doc.import(state);
            if attaches {
                doc.detach();
            }
            imported?;
            waiting.map_or(Ok(()), |waiting| doc.import(waiting).map(drop))
        })
    }

    fn since(&mut self, version: &Version) -> Result<Option<Bytes>, EngineError> {
        let theirs = decode(version)?;
        self.settle()?;
        let theirs = clamp(&theirs, &self.settled);
        if theirs == self.settled {
            return Ok(None);
        }
        self.check_not_trimmed(&theirs)?;
        self.guarded(|this| export(&this.doc, ExportMode::updates(&theirs)).map(Some))
    }

    /// Includes what waits for missing changes.
    fn snapshot(&mut self) -> Result<Bytes, EngineError> {
        self.settle()?;
        self.guarded(|this| {
            let state = export(&this.doc, ExportMode::Snapshot)?;
            let waiting = if this.waiting_bytes > 0 {
                waiting(&this.doc)?
            } else {
                None
            };
            let Some(waiting) = waiting else {
                return Ok(state);
            };
            let length = u64::try_from(state.len()).unwrap_or(u64::MAX);
            let parts = [WITH_WAITING, &length.to_be_bytes(), &state, &waiting];
            Ok(Bytes::from(parts.concat()))
        })
    }

    /// What comes out is a shallow snapshot. Loro keeps everything since the last operation on which all heads of the horizon
    /// build. Where the horizon is all that there is, an operation that changes nothing is added to join the heads.
    fn trim(&mut self, horizon: &Version) -> Result<Bytes, EngineError> {
        let horizon = decode(horizon)?;
        self.settle()?;
        let entries = horizon.iter().map(|(&peer, &counter)| (peer, counter));
        if self.waiting_bytes > 0 || !includes(&self.settled, entries) {
            return Err(EngineError::Incomplete);
        }
        self.check_not_trimmed(&horizon)?;
        self.guarded(|this| trim::shallow(&this.engine, &this.doc, &horizon))
    }

    /// Keeps no content: loro makes it from the history when a snapshot is asked for.
    fn set_unread(&mut self) {
        let _ = self.guarded(|this| {
            this.doc.detach();
            Ok(())
        });
    }

    fn undo(&mut self) -> Result<bool, EngineError> {
        self.step("undo", |undo| undo.can_undo().then(|| undo.undo()))
    }

    fn redo(&mut self) -> Result<bool, EngineError> {
        self.step("redo", |undo| undo.can_redo().then(|| undo.redo()))
    }

    fn can_undo(&self) -> bool {
        self.undo.as_ref().is_some_and(UndoManager::can_undo)
    }

    fn can_redo(&self) -> bool {
        self.undo.as_ref().is_some_and(UndoManager::can_redo)
    }

    /// A cloned `LoroDoc`, or a container of it, can be edited.
    fn outlives_replacement(&self) -> bool {
        true
    }

    fn is_poisoned(&self) -> bool {
        self.is_poisoned
    }

    /// A change needs those that its author had seen: work is [written anew](Self::rebase).
    fn can_rebase(&self) -> bool {
        false
    }

    fn rebase(
        &mut self,
        other: &mut Self,
        changes: &[Bytes],
    ) -> Result<Option<Bytes>, EngineError> {
        other.settle()?;
        self.settle()?;
        self.check_not_trimmed(&clamp(&other.settled, &self.settled))?;
        let peer = self.next_peer();
        let change = self.guarded(|this| {
            rebase::rewritten(&this.engine, &this.doc, &other.doc, changes, peer)
        })?;
        if let Some(change) = &change {
            self.import(std::slice::from_ref(change))?;
        }
        Ok(change)
    }
}

impl fmt::Debug for LoroDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoroDocument")
            .field("peer", &self.peer)
            .field("waiting_bytes", &self.waiting_bytes)
            .field("is_poisoned", &self.is_poisoned)
            .finish_non_exhaustive()
    }
}

pub(super) fn export(doc: &LoroDoc, mode: ExportMode<'_>) -> Result<Bytes, EngineError> {
    doc.export(mode).map(Bytes::from).map_err(encode_error)
}

/// The document as it was at a version that is here. Made from the history: loro's own `fork_at` takes the state of the
/// document itself there and back, through everything that has happened since, which for one large insertion takes
/// minutes.
pub(super) fn as_of(
    engine: &Loro,
    doc: &LoroDoc,
    version: &VersionVector,
) -> Result<LoroDoc, EngineError> {
    if doc.is_shallow() {
        let frontiers = doc.vv_to_frontiers(version);
        let doc = doc.fork_at(&frontiers);
        return doc.map_err(|error| engine_error(&error));
    }
    let spans: Vec<IdSpan> = version
        .iter()
        .map(|(&peer, &counter)| IdSpan::new(peer, 0, counter))
        .collect();
    let history = export(doc, ExportMode::updates_in_range(spans))?;
    let doc = engine.fresh();
    doc.import(&history).map_err(|error| engine_error(&error))?;
    Ok(doc)
}

/// The imported changes that wait for others.
pub(super) fn waiting(doc: &LoroDoc) -> Result<Option<Vec<u8>>, EngineError> {
    doc.export_pending_updates().map_err(encode_error)
}

/// A snapshot proper, and the changes that wait behind it.
fn parts(snapshot: &[u8]) -> Result<(&[u8], Option<&[u8]>), EngineError> {
    let Some(rest) = snapshot.strip_prefix(WITH_WAITING) else {
        return Ok((snapshot, None));
    };
    let malformed = EngineError::Malformed {
        what: "length of a snapshot",
        offset: WITH_WAITING.len(),
    };
    rest.split_first_chunk()
        .and_then(|(length, rest)| {
            rest.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)
        })
        .map(|(state, waiting)| (state, Some(waiting)))
        .ok_or(malformed)
}

/// Loro says no offset.
pub(super) fn engine_error(error: &LoroError) -> EngineError {
    match error {
        LoroError::ImportUpdatesThatDependsOnOutdatedVersion
        | LoroError::SwitchToVersionBeforeShallowRoot => EngineError::Trimmed,
        _ => EngineError::Malformed {
            what: "loro data",
            offset: 0,
        },
    }
}

fn encode_error(_: LoroEncodeError) -> EngineError {
    EngineError::Unsupported {
        what: "encoding this version",
    }
}
