//! Documents of an application's own mergeable type.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;

use super::{
    Document, Drained, Edited, Engine, EngineError, EngineEvent, Imported, ReplicaSeed, Source,
    ValidateLimits, Version, Wake,
};
use crate::ids::EngineId;
use crate::mergeable::{
    Change, Clock, DeltaWriter, Mergeable, ReplicaId, VersionVector, decode_version,
    encode_version, validate,
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
pub struct Typed<T>(PhantomData<fn() -> T>);

impl<T: Mergeable> Typed<T> {
    /// Documents that hold a `T`.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Mergeable> Engine for Typed<T> {
    type Document = TypedDocument<T>;
    type Read<'a> = T;
    type Edit<'a> = T;

    fn id(&self) -> EngineId {
        EngineId::MERGEABLE
    }

    fn create(&self, seed: ReplicaSeed) -> Result<Self::Document, EngineError> {
        Ok(TypedDocument::new(seed))
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
        Ok(f(&document.value))
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
            digest: document.value.digest(),
            finished: false,
            document: &mut *document,
        };
        let result = f(&mut lent.document.value);
        lent.finished = true;
        drop(lent);
        document.check_usable()?;
        document.commit(bytes_max, result)
    }
}

/// One replica of a document that holds a `T`.
///
/// [`version`](Document::version) takes time in proportion to the number of replicas that ever wrote, not to the
/// content.
pub struct TypedDocument<T> {
    value: T,
    clock: Clock,
    /// The commits whose writes are in `value`, or were and are beaten by others that are.
    version: VersionVector,
    /// A closure put another value in the place of ours.
    poisoned: bool,
    wake: Option<Wake>,
    drained: Drained,
}

impl<T: Mergeable> TypedDocument<T> {
    fn new(seed: ReplicaSeed) -> Self {
        let [.., a, b, c, d, e, f, g, h] = seed.0.to_be_bytes();
        Self {
            value: T::default(),
            clock: Clock::new(ReplicaId(u64::from_be_bytes([a, b, c, d, e, f, g, h]))),
            version: VersionVector::new(),
            poisoned: false,
            wake: None,
            drained: Drained::default(),
        }
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
        self.clock.tick(&self.version);
        let mut out = DeltaWriter::new();
        self.value.commit(&self.clock, &mut out);
        self.value.discard();
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
        self.apply(&change)?;
        self.clock.finish();
        self.drained.local.push(change);
        self.happened(Source::Local);
        Ok(Edited::Done(result))
    }

    /// Merges a change. Returns whether the content changed, and whether the version did.
    fn apply(&mut self, change: &[u8]) -> Result<(bool, bool), EngineError> {
        let change = Change::read(change)?;
        let content = change
            .content()
            .map_or(Ok(false), |mut content| self.value.apply(&mut content))?;
        for stamp in change.stamps() {
            self.clock.observe(stamp);
        }
        let claims = change.claim(&mut self.version);
        Ok((content, content || claims))
    }

    fn happened(&mut self, source: Source) {
        self.drained
            .events
            .push(EngineEvent::new(source, Vec::new()));
        if let Some(wake) = &self.wake {
            wake();
        }
    }

    /// The whole state as a change.
    fn state(&self) -> Bytes {
        let none = VersionVector::new();
        let mut out = DeltaWriter::new();
        self.value.diff(&none, &mut out);
        out.into_state(&none, &self.version)
    }
}

impl<T: Mergeable> Document for TypedDocument<T> {
    fn version(&mut self) -> Version {
        Version(encode_version(&self.version, self.value.digest()))
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
        let (mut content, mut version) = (false, false);
        let mut outcome = Ok(());
        for change in changes {
            match self.apply(change) {
                Ok(done) => (content, version) = (content || done.0, version || done.1),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        // What came before a refused change is there, so whoever watches is told.
        if content {
            self.happened(Source::Remote);
        }
        outcome.map(|()| Imported::new(version, false))
    }

    fn import_snapshot(&mut self, snapshot: &[u8]) -> Result<Imported, EngineError> {
        self.check_usable()?;
        let (content, version) = self.apply(snapshot)?;
        if content {
            self.happened(Source::Remote);
        }
        Ok(Imported::new(version, false))
    }

    fn since(&mut self, version: &Version) -> Result<Option<Bytes>, EngineError> {
        self.check_usable()?;
        let (theirs, digest) = decode_version(&version.0)?;
        if theirs == self.version {
            // The same commits and another content: somebody used one dot for two changes. Only all of it helps.
            return Ok((digest != self.value.digest()).then(|| self.state()));
        }
        let claims = self.version.minus(&theirs);
        let mut out = DeltaWriter::new();
        self.value.diff(&theirs, &mut out);
        if claims.is_empty() && out.is_empty() {
            return Ok(None);
        }
        let base = self.version.minus(&claims);
        Ok(Some(out.into_state(&base, &claims)))
    }

    fn snapshot(&mut self) -> Result<Bytes, EngineError> {
        self.check_usable()?;
        Ok(self.state())
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
        self.document.poisoned = self.document.value.digest() != self.digest;
        if !self.finished {
            self.document.value.discard();
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
        let Self { value, version, .. } = self;
        f.debug_struct("TypedDocument")
            .field("value", value)
            .field("version", version)
            .finish_non_exhaustive()
    }
}
