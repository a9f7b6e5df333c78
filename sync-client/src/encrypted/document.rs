//! One replica of a sealed document: the replica of the engine inside, and what has been opened for it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use sync_core::engine::{
    Document, Drained, Engine, EngineError, Imported, Unreadable, ValidateLimits, Version, Wake,
};
use sync_core::ids::ChangeId;
use sync_core::mergeable::{Dot, ReplicaId, VersionVector};

use super::key::{Keyring, Unopened};
use super::sealed::Kind;

/// One replica of a sealed document.
pub struct EncryptedDocument<E: Engine> {
    engine: E,
    pub(super) inner: E::Document,
    ring: Arc<Keyring>,
    /// Every change of the log that has been opened, by the id that is sealed with it.
    seen: VersionVector,
    /// Changes of the log under keys that have not been given. Kept, so that no snapshot made here lacks them.
    foreign: Vec<Bytes>,
    /// The same, to be found.
    foreign_set: BTreeSet<Bytes>,
    /// Changes of the log that do not open with the key that they name, or are nothing sealed at all.
    broken: u64,
    has_opened: bool,
    /// A state of the log was sealed with a key that has not been given: what is here is not the document.
    is_locked: bool,
    /// A local change could not be sealed, and is in no outbox.
    is_poisoned: bool,
}

impl<E: Engine> fmt::Debug for EncryptedDocument<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedDocument")
            .field("ring", &self.ring)
            .field("foreign", &self.foreign.len())
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl<E: Engine> EncryptedDocument<E> {
    pub(super) const fn new(engine: E, inner: E::Document, ring: Arc<Keyring>) -> Self {
        Self {
            engine,
            inner,
            ring,
            seen: VersionVector::new(),
            foreign: Vec::new(),
            foreign_set: BTreeSet::new(),
            broken: 0,
            has_opened: false,
            is_locked: false,
            is_poisoned: false,
        }
    }

    /// Seals a change that has no id yet.
    pub(super) fn draft(&self, change: &[u8]) -> Result<Bytes, EngineError> {
        let sealed = self.ring.seal(Kind::Draft, None, change);
        sealed.map_err(|_| EngineError::Unsupported {
            what: "sealing without randomness",
        })
    }

    fn drafts(&mut self, changes: Vec<Bytes>) -> Vec<Bytes> {
        let drafts: Result<_, _> = changes.iter().map(|change| self.draft(change)).collect();
        drafts.unwrap_or_else(|_| {
            self.is_poisoned = true;
            Vec::new()
        })
    }

    /// Opens changes of the log, in its order. What does not open, and what has been opened before, is left out; so is
    /// what the engine inside would refuse.
    fn open_logged(&mut self, changes: &[Bytes]) -> Vec<Bytes> {
        let mut opened = Vec::with_capacity(changes.len());
        for change in changes {
            match self.ring.open(change) {
                Ok((header, plain)) if header.kind != Kind::State => {
                    self.has_opened = true;
                    let is_repeat = header.id.is_some_and(|id| self.seen.contains(dot(id)));
                    if let Some(id) = header.id {
                        self.seen.insert(dot(id));
                    }
                    let limits = ValidateLimits::default();
                    if self.engine.validate(&plain, &limits).is_err() {
                        self.broken += 1;
                    } else if !is_repeat {
                        opened.push(plain);
                    }
                }
                Err(Unopened::Foreign) => {
                    if self.foreign_set.insert(change.clone()) {
                        self.foreign.push(change.clone());
                    }
                }
                Ok(_) | Err(Unopened::Broken) => self.broken += 1,
            }
        }
        opened
    }

    /// Seals a state of the engine inside, together with what is known of the log.
    fn seal_state(&self, inner: &[u8]) -> Result<Bytes, EngineError> {
        let mut out = Vec::new();
        put_bytes(&mut out, &self.seen.encode());
        put_len(&mut out, self.foreign.len());
        for change in &self.foreign {
            put_bytes(&mut out, change);
        }
        out.extend_from_slice(inner);
        let sealed = self.ring.seal(Kind::State, None, &out);
        sealed.map_err(|_| EngineError::Unsupported {
            what: "sealing without randomness",
        })
    }

    const fn check_unlocked(&self) -> Result<(), EngineError> {
        if self.is_locked {
            return Err(EngineError::WrongKey);
        }
        Ok(())
    }
}

/// The first half of an origin, which is random, names it well enough among those of a document.
fn dot(id: ChangeId) -> Dot {
    let [a, b, c, d, e, f, g, h, ..] = id.origin.0.to_be_bytes();
    let replica = ReplicaId(u64::from_be_bytes([a, b, c, d, e, f, g, h]));
    Dot::new(replica, id.number)
}

impl<E: Engine> Document for EncryptedDocument<E> {
    fn version(&mut self) -> Version {
        self.inner.version()
    }

    fn set_wake(&mut self, wake: Wake) {
        self.inner.set_wake(wake);
    }

    fn set_wall_time(&mut self, unix_ms: u64) {
        self.inner.set_wall_time(unix_ms);
    }

    fn drain(&mut self) -> Drained {
        let mut drained = self.inner.drain();
        drained.local = self.drafts(std::mem::take(&mut drained.local));
        drained.stray = self.drafts(std::mem::take(&mut drained.stray));
        drained
    }

    fn import(&mut self, changes: &[Bytes]) -> Result<Imported, EngineError> {
        let opened = self.open_logged(changes);
        self.inner.import(&opened)
    }

    fn import_pending(&mut self, changes: &[Bytes]) -> Result<Imported, EngineError> {
        let opened: Result<Vec<Bytes>, Unopened> = changes
            .iter()
            .map(|change| self.ring.open(change).map(|(_, plain)| plain))
            .collect();
        // One's own work: it was sealed here, so the key has been changed.
        self.inner
            .import_pending(&opened.map_err(|_| EngineError::WrongKey)?)
    }

    fn import_snapshot(&mut self, snapshot: &[u8]) -> Result<Imported, EngineError> {
        let state = match self.ring.open(snapshot) {
            Ok((header, state)) if header.kind == Kind::State => state,
            Err(Unopened::Foreign) => {
                self.is_locked = true;
                return Ok(Imported::default());
            }
            _ => return Err(malformed()),
        };
        let State {
            seen,
            foreign,
            inner,
        } = State::read(state)?;
        self.has_opened = true;
        self.is_locked = false;
        self.seen.union(&seen);
        // Perhaps a key has been given since.
        let opened = self.open_logged(&foreign);
        let snapshot = self.inner.import_snapshot(&inner)?;
        let late = self.inner.import(&opened)?;
        Ok(Imported::new(
            snapshot.changed || late.changed,
            late.pending,
        ))
    }

    fn since(&mut self, version: &Version) -> Result<Option<Bytes>, EngineError> {
        self.check_unlocked()?;
        let lacking = self.inner.since(version)?;
        lacking.map(|lacking| self.draft(&lacking)).transpose()
    }

    fn snapshot(&mut self) -> Result<Bytes, EngineError> {
        self.check_unlocked()?;
        let inner = self.inner.snapshot()?;
        self.seal_state(&inner)
    }

    fn fold(&mut self) -> Result<Bytes, EngineError> {
        self.check_unlocked()?;
        let inner = self.inner.fold()?;
        self.seal_state(&inner)
    }

    /// What is sealed with changes says where in the log they are.
    fn follows_the_log(&self) -> bool {
        true
    }

    fn unreadable(&self) -> Unreadable {
        let foreign = u64::try_from(self.foreign.len()).unwrap_or(u64::MAX);
        let changes = foreign.saturating_add(self.broken);
        let is_wrong_key = self.is_locked || (!self.has_opened && changes > 0);
        Unreadable::new(changes, self.seen.holes(), is_wrong_key)
    }

    fn set_unread(&mut self) {
        self.inner.set_unread();
    }

    fn readable_version(&mut self) -> Result<Version, EngineError> {
        self.inner.readable_version()
    }

    fn undo(&mut self) -> Result<bool, EngineError> {
        self.inner.undo()
    }

    fn redo(&mut self) -> Result<bool, EngineError> {
        self.inner.redo()
    }

    fn can_undo(&self) -> bool {
        self.inner.can_undo()
    }

    fn can_redo(&self) -> bool {
        self.inner.can_redo()
    }

    fn outlives_replacement(&self) -> bool {
        self.inner.outlives_replacement()
    }

    fn succeed_another(&mut self) {
        self.inner.succeed_another();
    }

    fn is_poisoned(&self) -> bool {
        self.is_poisoned || self.inner.is_poisoned()
    }

    fn can_rebase(&self) -> bool {
        self.inner.can_rebase()
    }
}

/// What is inside a sealed state.
struct State {
    seen: VersionVector,
    foreign: Vec<Bytes>,
    inner: Bytes,
}

impl State {
    fn read(mut bytes: Bytes) -> Result<Self, EngineError> {
        let seen = VersionVector::decode(&get_bytes(&mut bytes)?)?;
        let n = bytes.try_get_u32().map_err(|_| malformed())?;
        let foreign = (0..n)
            .map(|_| get_bytes(&mut bytes))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            seen,
            foreign,
            inner: bytes,
        })
    }
}

const fn malformed() -> EngineError {
    EngineError::Malformed {
        what: "a sealed state",
        offset: 0,
    }
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_len(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn get_bytes(from: &mut Bytes) -> Result<Bytes, EngineError> {
    let len = from.try_get_u32().map_err(|_| malformed())?;
    let len = usize::try_from(len).map_err(|_| malformed())?;
    if len > from.len() {
        return Err(malformed());
    }
    Ok(from.split_to(len))
}
