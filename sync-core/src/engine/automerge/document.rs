//! An automerge document as the runtime sees it.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use ::automerge::{
    ActorId, AutoCommit, AutomergeError, Change, ChangeHash, Patch, PatchAction, Prop, ReadDoc,
};
use bytes::Bytes;
use twox_hash::XxHash3_128;

use super::{chunk, malformed};
use crate::engine::foreign::{Guarded, check_waiting, identity};
use crate::engine::{
    Document, Drained, Edited, EngineError, EngineEvent, Imported, ReplicaSeed, Source,
    ValidateLimits, Version, Wake,
};

const HASH_BYTES: usize = 32;

/// A replica in automerge.
pub struct AutomergeDocument {
    doc: AutoCommit,
    seed: ReplicaSeed,
    /// Counts the actors used, this one included.
    n_actors: u64,
    actor: ActorId,
    /// Imported changes that wait for others. Automerge has them too, but does not tell.
    waiting: Vec<Change>,
    is_unread: bool,
    drained: Drained,
    wake: Option<Wake>,
    /// As last computed, for when the engine has panicked.
    version: Version,
    is_poisoned: bool,
}

impl AutomergeDocument {
    pub(super) fn new(seed: ReplicaSeed) -> Self {
        let mut document = Self {
            doc: AutoCommit::new(),
            seed,
            n_actors: 0,
            actor: ActorId::from(&[][..]),
            waiting: Vec::new(),
            is_unread: false,
            drained: Drained::default(),
            wake: None,
            version: Version(Bytes::new()),
            is_poisoned: false,
        };
        document.adopt(AutoCommit::new());
        document
    }

    /// Also of a document that is poisoned: what it shows is mostly what it showed before.
    pub(super) fn read<R>(&self, f: impl FnOnce(&AutoCommit) -> R) -> R {
        f(&self.doc)
    }

    pub(super) fn edit<R>(
        &mut self,
        bytes_max: usize,
        f: impl FnOnce(&mut AutoCommit) -> R,
    ) -> Result<Edited<R>, EngineError> {
        let before = self.guarded(|this| {
            if *this.doc.get_actor() != this.actor {
                this.doc.set_actor(this.actor.clone());
            }
            Ok(this.doc.get_heads())
        })?;
        let result = catch_unwind(AssertUnwindSafe(|| f(&mut self.doc)));
        let change = self.guarded(|this| {
            if result.is_err() {
                this.doc.rollback();
            }
            this.doc.integrate();
            this.doc.commit();
            this.made_since(&before)
        })?;
        let limits = ValidateLimits {
            bytes_max,
            ..ValidateLimits::default()
        };
        let result = match (result, change) {
            (Ok(result), None) => Ok(result),
            (Ok(_), Some(change)) if chunk::check_change(&change, &limits).is_err() => {
                self.guarded(|this| this.go_back(&before))?;
                return Ok(Edited::TakenBack {
                    change,
                    replaced: false,
                });
            }
            (result, change) => {
                self.drained.local.extend(change);
                self.happened(Source::Local)?;
                result
            }
        };
        result.map_or_else(
            |panic| resume_unwind(panic),
            |result| Ok(Edited::Done(result)),
        )
    }

    /// The document as it was at a version.
    pub(super) fn at(&mut self, version: &Version) -> Result<AutoCommit, EngineError> {
        let heads = decode(version)?;
        self.guarded(|this| this.doc.fork_at(&heads).map_err(engine_error))
    }

    /// Goes on with another document, under an actor id that nobody else has.
    fn adopt(&mut self, doc: AutoCommit) {
        let input = identity(self.seed, self.n_actors);
        self.n_actors += 1;
        self.actor = ActorId::from(&XxHash3_128::oneshot(&input).to_be_bytes()[..]);
        self.doc = doc.with_actor(self.actor.clone());
    }

    /// What was committed since these heads, as one change.
    fn made_since(&mut self, before: &[ChangeHash]) -> Result<Option<Bytes>, EngineError> {
        if self.doc.get_heads() == before {
            return Ok(None);
        }
        if before
            .iter()
            .any(|head| self.doc.get_change_by_hash(head).is_none())
        {
            // Another document was put in this one's place.
            self.is_poisoned = true;
            return Err(EngineError::Poisoned);
        }
        Ok(concatenated(&self.doc.get_changes(before)))
    }

    /// Goes on with an earlier version.
    fn go_back(&mut self, heads: &[ChangeHash]) -> Result<(), EngineError> {
        let mut doc = self.doc.fork_at(heads).map_err(engine_error)?;
        doc.apply_changes(self.waiting.clone())
            .map_err(engine_error)?;
        self.adopt(doc);
        self.doc.update_diff_cursor();
        Ok(())
    }

    /// Notes what has changed since this was last called.
    fn happened(&mut self, source: Source) -> Result<(), EngineError> {
        if self.is_unread {
            return Ok(());
        }
        let patches = self.guarded(|this| Ok(this.doc.diff_incremental()))?;
        let event = EngineEvent::new(source, roots(&patches));
        self.drained.events.push(event);
        if let (Source::Local, Some(wake)) = (source, &self.wake) {
            wake();
        }
        Ok(())
    }

    /// Applies changes at once: each time costs as much as the document is large.
    fn apply(&mut self, changes: Vec<Change>) -> Result<Imported, EngineError> {
        let before = self.guarded(|this| Ok(this.doc.get_heads()))?;
        if !changes.is_empty() {
            self.waiting.extend_from_slice(&changes);
            let applied =
                self.guarded(|this| this.doc.apply_changes(changes).map_err(engine_error));
            if let Err(error) = applied {
                self.sift_waiting()?;
                return Err(error);
            }
            self.sift_waiting()?;
        }
        self.imported(&before)
    }

    fn imported(&mut self, before: &[ChangeHash]) -> Result<Imported, EngineError> {
        let changed = self.guarded(|this| Ok(this.doc.get_heads() != before))?;
        if changed {
            self.happened(Source::Remote)?;
        }
        Ok(Imported::new(changed, !self.waiting.is_empty()))
    }

    /// Keeps of `waiting` what does wait. Beyond the limit the document must be loaded afresh.
    fn sift_waiting(&mut self) -> Result<(), EngineError> {
        self.guarded(|this| {
            if this.doc.get_missing_deps(&[]).is_empty() {
                this.waiting.clear();
                return Ok(());
            }
            let mut hashes = BTreeSet::new();
            let doc = &mut this.doc;
            this.waiting.retain(|change| {
                hashes.insert(change.hash()) && doc.get_change_by_hash(&change.hash()).is_none()
            });
            let bytes: usize = this
                .waiting
                .iter()
                .map(|change| change.raw_bytes().len())
                .sum();
            let checked = check_waiting(bytes);
            this.is_poisoned |= checked.is_err();
            checked
        })
    }

    fn parse(&mut self, chunks: &[u8]) -> Result<Vec<Change>, EngineError> {
        self.guarded(|_| {
            chunk::changes(chunks)
                .map(|chunk| Change::try_from(chunk?).map_err(|_| malformed("change")))
                .collect()
        })
    }
}

impl Guarded for AutomergeDocument {
    fn has_panicked(&self) -> bool {
        self.is_poisoned
    }

    fn note_panic(&mut self) {
        self.is_poisoned = true;
    }
}

impl Document for AutomergeDocument {
    /// After a panic of the engine: the version when it was last asked for.
    fn version(&mut self) -> Version {
        if let Ok(heads) = self.guarded(|this| Ok(this.doc.get_heads())) {
            self.version = encode(heads);
        }
        self.version.clone()
    }

    fn readable_version(&mut self) -> Result<Version, EngineError> {
        self.usable()?;
        Ok(self.version())
    }

    fn set_wake(&mut self, wake: Wake) {
        self.wake = Some(wake);
    }

    fn drain(&mut self) -> Drained {
        std::mem::take(&mut self.drained)
    }

    /// All are applied at once, or none.
    fn import(&mut self, changes: &[Bytes]) -> Result<Imported, EngineError> {
        let limits = ValidateLimits {
            bytes_max: usize::MAX,
            ..ValidateLimits::default()
        };
        let mut parsed = Vec::new();
        for change in changes {
            chunk::check_change(change, &limits)?;
            parsed.append(&mut self.parse(change)?);
        }
        self.apply(parsed)
    }

    fn import_snapshot(&mut self, snapshot: &[u8]) -> Result<Imported, EngineError> {
        let parts = chunk::snapshot(snapshot)?;
        let mut changes = self.parse(parts.changes)?;
        if let Some(document) = parts.document {
            let mut loaded = self.guarded(|_| AutoCommit::load(document).map_err(engine_error))?;
            let is_empty = self.guarded(|this| Ok(this.doc.get_heads().is_empty()))?;
            if is_empty && self.waiting.is_empty() && changes.is_empty() {
                self.guarded(|this| {
                    this.adopt(loaded);
                    Ok(())
                })?;
                return self.imported(&[]);
            }
            let mut added = self.guarded(|this| Ok(this.doc.get_changes_added(&mut loaded)))?;
            added.append(&mut changes);
            changes = added;
        }
        self.apply(changes)
    }

    fn since(&mut self, version: &Version) -> Result<Option<Bytes>, EngineError> {
        let theirs = decode(version)?;
        self.guarded(|this| {
            let doc = &mut this.doc;
            let known: Vec<ChangeHash> = (theirs.into_iter())
                .filter(|head| doc.get_change_by_hash(head).is_some())
                .collect();
            Ok(concatenated(&doc.get_changes(&known)))
        })
    }

    /// Includes what waits for missing changes.
    fn snapshot(&mut self) -> Result<Bytes, EngineError> {
        self.guarded(|this| Ok(Bytes::from(this.doc.save())))
    }

    /// Reports no events, which automerge would have to compute.
    fn set_unread(&mut self) {
        self.is_unread = true;
        self.doc.reset_diff_cursor();
    }

    fn is_poisoned(&self) -> bool {
        self.is_poisoned
    }

    /// A change names those that its author had seen by their hashes, the refused one among them; and automerge has no way
    /// to take one change out beside others, or to apply a difference. So work behind a refused change is handed back, as is
    /// what [`rebase`](Document::rebase) is asked for.
    fn can_rebase(&self) -> bool {
        false
    }
}

impl fmt::Debug for AutomergeDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AutomergeDocument")
            .field("actor", &self.actor)
            .field("waiting", &self.waiting.len())
            .field("is_poisoned", &self.is_poisoned)
            .finish_non_exhaustive()
    }
}

/// Heads, ascending, one after the other.
fn encode(mut heads: Vec<ChangeHash>) -> Version {
    heads.sort_unstable();
    let bytes: Vec<u8> = heads.iter().flat_map(|head| head.0).collect();
    Version(Bytes::from(bytes))
}

fn decode(version: &Version) -> Result<Vec<ChangeHash>, EngineError> {
    let (hashes, rest) = version.0.as_chunks::<HASH_BYTES>();
    if rest.is_empty() && hashes.is_sorted_by(|first, second| first < second) {
        Ok(hashes.iter().copied().map(ChangeHash).collect())
    } else {
        Err(malformed("version"))
    }
}

fn concatenated(changes: &[Change]) -> Option<Bytes> {
    let chunks: Vec<&[u8]> = changes.iter().map(Change::raw_bytes).collect();
    (!chunks.is_empty()).then(|| Bytes::from(chunks.concat()))
}

/// Names of the entries of the root object that patches touch, sorted.
fn roots(patches: &[Patch]) -> Vec<Arc<str>> {
    let mut names = BTreeSet::new();
    for patch in patches {
        let name = match (patch.path.first(), &patch.action) {
            (Some((_, Prop::Map(name))), _) => Some(name),
            (Some(_), _) => None,
            (None, PatchAction::PutMap { key, .. } | PatchAction::DeleteMap { key }) => Some(key),
            (None, PatchAction::Increment { prop, .. } | PatchAction::Conflict { prop }) => {
                match prop {
                    Prop::Map(name) => Some(name),
                    Prop::Seq(_) => None,
                }
            }
            (None, _) => None,
        };
        names.extend(name.map(|name| Arc::from(name.as_str())));
    }
    names.into_iter().collect()
}

/// Automerge says no offset.
pub(super) fn engine_error(error: AutomergeError) -> EngineError {
    match error {
        AutomergeError::InvalidHash(_) | AutomergeError::MissingHash(_) => EngineError::Incomplete,
        _ => malformed("automerge data"),
    }
}
