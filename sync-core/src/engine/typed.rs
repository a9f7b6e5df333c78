//! Documents of an application's own mergeable type.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;

use super::undo::{Direction, UndoStack};
use super::{
    Document, Drained, Edited, Engine, EngineError, EngineEvent, Folder, Imported, ReplicaSeed,
    Source, ValidateLimits, Version, Wake,
};
use crate::ids::EngineId;
use crate::mergeable::{
    Change, Clock, Content, DeltaWriter, Mergeable, MergeableValidator, Merged, Replica, ReplicaId,
    Slot, VersionVector, decode_version, validate,
};

/// The engine value for documents that hold a `T`.
///
/// # Examples
/// ```
/// use sync_core::engine::typed::Typed;
/// use sync_core::engine::{Document, Engine, ReplicaSeed};
/// use sync_core::mergeable::LwwMap;
///
/// let engine = Typed::<LwwMap<(u8, u8), char>>::new();
/// let mut grid = engine.create(ReplicaSeed(7))?;
/// grid.set_wall_time(1_767_225_600_000);
/// engine.edit(&mut grid, 1024, |cells| cells.insert((1, 1), 'X'))?;
/// assert_eq!(grid.drain().local.len(), 1);
/// # Ok::<(), sync_core::engine::EngineError>(())
/// ```
pub struct Typed<T> {
    keeps_undo: bool,
    of: PhantomData<fn() -> T>,
}

impl<T: Mergeable> Typed<T> {
    /// Documents that hold a `T`.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            keeps_undo: false,
            of: PhantomData,
        }
    }

    /// Remembers what it takes to undo this replica's own edits: the last hundred, each `edit` closure on its own.
    ///
    /// Off by default, because it takes memory for what each edit replaced.
    #[must_use]
    pub const fn keep_undo(mut self) -> Self {
        self.keeps_undo = true;
        self
    }
}

/// Steps that [`Typed::keep_undo`] remembers.
const STEPS_MAX: usize = 100;

impl<T: Mergeable> Engine for Typed<T> {
    type Document = TypedDocument<T>;
    type Read<'a> = T;
    type Edit<'a> = T;

    fn id(&self) -> EngineId {
        EngineId::MERGEABLE
    }

    fn create(&self, seed: ReplicaSeed) -> Result<Self::Document, EngineError> {
        let mut document = TypedDocument::new(seed);
        if self.keeps_undo {
            document.set_undo_max(STEPS_MAX);
        }
        Ok(document)
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        validate(change, limits)
    }

    fn read<R>(
        &self,
        document: &Self::Document,
        f: impl FnOnce(&T) -> R,
    ) -> Result<R, EngineError> {
        document.check_usable()?;
        Ok(f(&document.replica.content.value))
    }

    /// As a server reads it, without the type: see [`MergeableValidator`].
    fn to_json(&self, document: &Self::Document) -> Result<String, EngineError> {
        document.check_usable()?;
        MergeableValidator::new().read_json(Some(&document.replica.state()), &[])
    }

    /// Lends the value for one change: all mutations of the closure are stamped at its end and travel together.
    ///
    /// The value is changed by its methods. Putting another in its place (`*value = T::default()`) would take away
    /// what this replica knows of everybody's writes: that is noticed, and the document must be loaded afresh.
    ///
    /// # Errors
    /// [`EngineError::Poisoned`] if the closure put another value in the place of the one lent.
    fn edit<R>(
        &self,
        document: &mut Self::Document,
        bytes_max: usize,
        f: impl FnOnce(&mut T) -> R,
    ) -> Result<Edited<R>, EngineError> {
        document.check_usable()?;
        let mut lent = Lent {
            digest: document.value().digest(),
            finished: false,
            document: &mut *document,
        };
        let result = f(lent.document.value_mut());
        lent.finished = true;
        drop(lent);
        document.check_usable()?;
        document.undo.begin();
        document.commit(bytes_max, result)
    }
}

/// One replica of a document that holds a `T`.
///
/// [`version`](Document::version) takes time in proportion to the number of replicas that ever wrote, not to the
/// content.
pub struct TypedDocument<T> {
    replica: Replica<Slot<T>>,
    clock: Clock,
    undo: UndoStack,
    /// A closure put another value in the place of ours.
    poisoned: bool,
    wake: Option<Wake>,
    drained: Drained,
}

impl<T: Mergeable> TypedDocument<T> {
    fn new(seed: ReplicaSeed) -> Self {
        let [.., a, b, c, d, e, f, g, h] = seed.0.to_be_bytes();
        Self {
            replica: Replica::default(),
            clock: Clock::new(ReplicaId(u64::from_be_bytes([a, b, c, d, e, f, g, h]))),
            undo: UndoStack::default(),
            poisoned: false,
            wake: None,
            drained: Drained::default(),
        }
    }

    /// Keeps what it takes to undo the last `n` changes made here; none at first. In memory, and not larger than the
    /// changes and what they replaced.
    pub fn set_undo_max(&mut self, n: usize) {
        self.undo.set_max(n);
    }

    /// Takes back the last change made here that has not been taken back, with a change of its own; what others have
    /// written over since stays. Returns whether there was anything to take back.
    ///
    /// # Errors
    /// [`EngineError::Poisoned`] if the document must be loaded afresh.
    pub fn undo(&mut self, bytes_max: usize) -> Result<Edited<bool>, EngineError> {
        self.take_back(Direction::Undo, bytes_max)
    }

    /// Takes back the last [`undo`](Self::undo), unless there has been another change since.
    ///
    /// # Errors
    /// As [`undo`](Self::undo).
    pub fn redo(&mut self, bytes_max: usize) -> Result<Edited<bool>, EngineError> {
        self.take_back(Direction::Redo, bytes_max)
    }

    fn take_back(
        &mut self,
        direction: Direction,
        bytes_max: usize,
    ) -> Result<Edited<bool>, EngineError> {
        self.check_usable()?;
        while let Some(inverse) = self.undo.pop(direction) {
            let inverse = Change::read_inverse(&inverse)?;
            let none = VersionVector::new();
            let context = inverse.context(&none, true);
            if let Some(mut content) = inverse.content(&context) {
                self.replica.content.value.revert(&mut content)?;
            }
            let n_before = self.drained.local.len();
            let edited = self.commit(bytes_max, true)?;
            // Where others have written over all of it, the change before it is what the user means.
            if self.drained.local.len() > n_before || edited != Edited::Done(true) {
                return Ok(edited);
            }
        }
        Ok(Edited::Done(false))
    }

    /// Forgets what only a replica that lacks some of `horizon` would need. Under which conditions that may be done
    /// says [`Mergeable::compact`].
    ///
    /// # Errors
    /// [`EngineError::Incomplete`] if this one does; [`EngineError::Malformed`] if it is no version of such a document.
    pub fn compact(&mut self, horizon: &Version) -> Result<(), EngineError> {
        self.check_usable()?;
        self.replica.compact(&decode_version(&horizon.0)?.0)
    }

    fn step(&mut self, what: &'static str, direction: Direction) -> Result<bool, EngineError> {
        if !self.undo.is_on() {
            return Err(EngineError::Unsupported { what });
        }
        // Not larger than what was done, and what that replaced: within the limit, or refused by the server.
        Ok(self.take_back(direction, usize::MAX)? == Edited::Done(true))
    }

    const fn value(&self) -> &T {
        &self.replica.content.value
    }

    const fn value_mut(&mut self) -> &mut T {
        &mut self.replica.content.value
    }

    const fn check_usable(&self) -> Result<(), EngineError> {
        if self.poisoned {
            Err(EngineError::Poisoned)
        } else {
            Ok(())
        }
    }

    /// Turns what is pending into a change, which is taken back if it is larger than `bytes_max`.
    fn commit<R>(&mut self, bytes_max: usize, result: R) -> Result<Edited<R>, EngineError> {
        self.clock.tick(&self.replica.version);
        let mut out = DeltaWriter::of_commit(self.clock.dot().replica);
        self.value().commit(&self.clock, &mut out);
        self.value_mut().discard();
        if out.is_empty() {
            return Ok(Edited::Done(result));
        }
        let change = out.into_commit(self.clock.dot());
        if change.len() > bytes_max {
            return Ok(Edited::TakenBack {
                change,
                replaced: false,
            });
        }
        if self.undo.is_on() {
            self.undo.push(self.inverse(&change)?);
        }
        self.apply(&change)?;
        self.clock.finish();
        self.drained.local.push(change);
        self.happened(Source::Local);
        Ok(Edited::Done(result))
    }

    fn inverse(&self, change: &[u8]) -> Result<Bytes, EngineError> {
        let none = VersionVector::new();
        let change = Change::read(change)?;
        let context = change.context(&none, true);
        let mut out = DeltaWriter::new();
        if let Some(mut content) = change.content(&context) {
            self.value().inverse(&mut content, &mut out)?;
        }
        Ok(out.into_state(&none, &none, &none))
    }

    /// Merges a change.
    fn apply(&mut self, change: &[u8]) -> Result<Merged, EngineError> {
        let change = Change::read(change)?;
        let merged = self.replica.import(&change)?;
        for stamp in change.stamps() {
            self.clock.observe(stamp);
        }
        Ok(merged)
    }

    fn happened(&mut self, source: Source) {
        self.drained
            .events
            .push(EngineEvent::new(source, Vec::new()));
        if let Some(wake) = &self.wake {
            wake();
        }
    }
}

impl<T: Mergeable> Document for TypedDocument<T> {
    fn version(&mut self) -> Version {
        self.replica.version()
    }

    fn set_wake(&mut self, wake: Wake) {
        self.wake = Some(wake);
    }

    fn set_wall_time(&mut self, unix_ms: u64) {
        self.clock.set_wall(unix_ms);
    }

    fn drain(&mut self) -> Drained {
        std::mem::take(&mut self.drained)
    }

    fn import(&mut self, changes: &[Bytes]) -> Result<Imported, EngineError> {
        self.check_usable()?;
        let mut all = Merged::default();
        let mut outcome = Ok(());
        for change in changes {
            match self.apply(change) {
                Ok(merged) => all = all.or(merged),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        // What came before a refused change is there, so whoever watches is told.
        if all.content {
            self.happened(Source::Remote);
        }
        outcome.map(|()| Imported::new(all.version, self.replica.content.is_waiting()))
    }

    fn import_snapshot(&mut self, snapshot: &[u8]) -> Result<Imported, EngineError> {
        self.check_usable()?;
        let merged = self.apply(snapshot)?;
        if merged.content {
            self.happened(Source::Remote);
        }
        Ok(Imported::new(
            merged.version,
            self.replica.content.is_waiting(),
        ))
    }

    fn since(&mut self, version: &Version) -> Result<Option<Bytes>, EngineError> {
        self.check_usable()?;
        self.replica.since(version)
    }

    fn snapshot(&mut self) -> Result<Bytes, EngineError> {
        self.check_usable()?;
        Ok(self.replica.state())
    }

    /// As [`compact`](TypedDocument::compact).
    fn trim(&mut self, horizon: &Version) -> Result<Bytes, EngineError> {
        self.compact(horizon)?;
        if self.replica.content.is_waiting() {
            return Err(EngineError::Incomplete);
        }
        Ok(self.replica.state())
    }

    fn can_replay(&mut self, made_on: &Version, changes: &[Bytes]) -> bool {
        let made_on = decode_version(&made_on.0);
        made_on.is_ok_and(|(made_on, _)| self.replica.can_replay(&made_on, changes))
    }

    fn undo(&mut self) -> Result<bool, EngineError> {
        self.step("undo without keep_undo", Direction::Undo)
    }

    fn redo(&mut self) -> Result<bool, EngineError> {
        self.step("redo without keep_undo", Direction::Redo)
    }

    fn can_undo(&self) -> bool {
        self.undo.can(Direction::Undo)
    }

    fn can_redo(&self) -> bool {
        self.undo.can(Direction::Redo)
    }

    fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    fn can_rebase(&self) -> bool {
        true
    }
}

/// The value while a closure has it: what the closure did is looked at also if it panics.
struct Lent<'a, T: Mergeable> {
    document: &'a mut TypedDocument<T>,
    /// Of the content, before the closure.
    digest: u64,
    /// Whether the closure has returned.
    finished: bool,
}

impl<T: Mergeable> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        self.document.poisoned = self.document.value().digest() != self.digest;
        if !self.finished {
            self.document.value_mut().discard();
        }
    }
}

impl<T> Clone for Typed<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Typed<T> {}

impl<T: Mergeable> Default for Typed<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for Typed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Typed<{}>", std::any::type_name::<T>())
    }
}

impl<T: fmt::Debug> fmt::Debug for TypedDocument<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedDocument")
            .field("value", &self.replica.content.value)
            .field("version", &self.replica.version)
            .finish_non_exhaustive()
    }
}
