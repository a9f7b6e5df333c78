//! A document's replica on this device, and the work that the state machine asks of it.
//!
//! The machine never touches a document: it queues [`Job`]s, which the driver runs in order under the replica's lock,
//! on a thread with a large stack, and hands the [`JobOutcome`] back.

use std::fmt;

use bytes::Bytes;

use super::store::StoredDocument;
use crate::engine::fold::prove;
use crate::engine::{
    Document, Drained, Edited, Engine, EngineError, NativeEngine, ReplicaSeed, Unreadable,
    ValidateLimits, Version, Wake,
};
use crate::history::Seq;
use crate::ids::EngineId;
use crate::rng::Rng;

/// Which replica a job is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The one that the application sees.
    Main,
    /// One that holds the server's state and nothing else, while a reset is in progress (design 2.3).
    Shadow,
}

/// Work on a replica. Jobs of a document run one after the other, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Job {
    /// Import changes of the log; the first has this sequence.
    Import {
        /// Where.
        target: Target,
        /// The changes, in log order.
        changes: Vec<Bytes>,
        /// Sequence of the first one.
        first: Seq,
    },
    /// Import a snapshot.
    ImportSnapshot {
        /// Where.
        target: Target,
        /// The snapshot.
        bytes: Bytes,
    },
    /// Begin an empty shadow, dropping an earlier one.
    StartShadow,
    /// Merge the shadow into the main replica and compute what the shadow and the outbox lack.
    Merge {
        /// Whether the outcome is to have a snapshot for the store.
        keep: bool,
    },
    /// Put the shadow in the main replica's place, with pending work replayed on it where that is allowed.
    Replace {
        /// Whether the outcome is to have a snapshot for the store.
        keep: bool,
    },
    /// Make a snapshot of the main replica for the store.
    Snapshot,
    /// Make one for the server, and prove it: loaded afresh it says the same.
    Fold,
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum JobOutcome {
    /// Done; whether the engine now waits for changes that are not there.
    Done {
        /// Whether it waits.
        pending: bool,
    },
    /// The change at this index, or the snapshot (index 0), was refused by the engine. What comes before it was imported.
    Invalid {
        /// Index in the job's changes.
        index: u64,
    },
    /// The merge is done.
    Merged {
        /// What the server's state lacks, as one change, if it and the outbox lack anything.
        lacking: Option<Bytes>,
        /// Whether the engine waits for changes that are not there.
        pending: bool,
        /// The main replica's state, if asked for.
        snapshot: Option<Bytes>,
    },
    /// The replica was replaced.
    Replaced {
        /// What became of the pending work.
        replayed: Replayed,
        /// Whether the engine waits for changes that are not there.
        pending: bool,
        /// The main replica's state, if asked for.
        snapshot: Option<Bytes>,
    },
    /// The main replica must be loaded afresh first; nothing was done.
    Poisoned,
    /// The main replica's state; `None` if the engine could not encode it, or if it did not read back.
    Snapshot(Option<Bytes>),
}

/// What became of pending work when a replica was replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replayed {
    /// There was none, or it could not be done again.
    No,
    /// The same changes have been made again.
    AsItWas,
    /// It has been done again as one new change; `None` if nothing was left to do.
    Anew(Option<Bytes>),
}

/// What was pending when a replica is replaced, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PendingWork {
    /// Made before what was refused: it stays in the outbox, and in the replica.
    pub kept: Vec<Bytes>,
    /// To be done again on what takes the replica's place, if the engine can.
    pub replayed: Vec<Bytes>,
}

/// What a replica had to hand over.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ReplicaDrained {
    /// Local changes and events of the replica that the application sees.
    pub main: Drained,
    /// Changes made through engine handles of a replica that has been replaced. They are in no replica.
    pub stray: Vec<Bytes>,
}

/// One document's replica: the one that the application sees, the shadow of a reset, and retired ones.
pub struct Replica<E: Engine> {
    engine: E,
    limits: ValidateLimits,
    seeds: Rng,
    main: E::Document,
    shadow: Option<E::Document>,
    /// Replaced documents. They live as long as this, because engine handles of the application may still point into
    /// them, and what is done through those must surface.
    retired: Vec<E::Document>,
    wake: Option<Wake>,
}

/// A copy goes its own way, from the same state and with the same seeds; what is called when there is something to drain is
/// the same.
impl<E: Engine> Clone for Replica<E>
where
    E::Document: Clone,
{
    fn clone(&self) -> Self {
        Self {
            engine: self.engine.clone(),
            limits: self.limits,
            seeds: self.seeds.clone(),
            main: self.main.clone(),
            shadow: self.shadow.clone(),
            retired: self.retired.clone(),
            wake: self.wake.clone(),
        }
    }
}

impl<E: Engine> fmt::Debug for Replica<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica")
            .field("engine", &self.engine.id())
            .field("shadow", &self.shadow.is_some())
            .field("retired", &self.retired.len())
            .finish_non_exhaustive()
    }
}

impl<E: Engine> Replica<E> {
    /// An empty replica. The seed is random and used for nothing else.
    ///
    /// # Errors
    /// [`EngineError`] if the engine cannot make one.
    pub fn new(engine: E, seed: u128) -> Result<Self, EngineError> {
        let mut seeds = Rng::new(seed);
        let main = engine.create(ReplicaSeed(seeds.next_u128()))?;
        Ok(Self {
            engine,
            limits: ValidateLimits::default(),
            seeds,
            main,
            shadow: None,
            retired: Vec::new(),
            wake: None,
        })
    }

    /// A replica of what a store holds.
    ///
    /// # Errors
    /// [`EngineError`] if the engine refuses what is stored.
    pub fn load(engine: E, seed: u128, stored: &StoredDocument) -> Result<Self, EngineError> {
        let mut replica = Self::new(engine, seed)?;
        if let Some(snapshot) = &stored.snapshot {
            replica.main.import_snapshot(snapshot)?;
        }
        replica.main.import(&stored.tail)?;
        let outbox: Vec<Bytes> = stored
            .outbox
            .iter()
            .map(|change| change.bytes.clone())
            .collect();
        replica.main.import_pending(&outbox)?;
        // Nobody has seen the empty document that this began with.
        let _ = replica.main.drain();
        Ok(replica)
    }

    /// Sets what is called when there is something to drain.
    pub fn set_wake(&mut self, wake: Wake) {
        self.main.set_wake(wake.clone());
        self.wake = Some(wake);
    }

    /// Lends the content.
    ///
    /// # Errors
    /// As [`Engine::read`].
    pub fn read<R>(&self, f: impl FnOnce(&E::Read<'_>) -> R) -> Result<R, EngineError> {
        self.engine.read(&self.main, f)
    }

    /// Lends the content as it was.
    ///
    /// # Errors
    /// As [`Engine::read_at`].
    pub fn read_at<R>(
        &mut self,
        version: &Version,
        f: impl FnOnce(&E::Read<'_>) -> R,
    ) -> Result<R, EngineError> {
        self.engine.read_at(&mut self.main, version, f)
    }

    /// Lends the content for one change.
    ///
    /// # Errors
    /// As [`Engine::edit`].
    pub fn edit<R>(
        &mut self,
        bytes_max: usize,
        f: impl FnOnce(&mut E::Edit<'_>) -> R,
    ) -> Result<Edited<R>, EngineError> {
        self.engine.edit(&mut self.main, bytes_max, f)
    }

    /// Name of the engine.
    pub fn engine_id(&self) -> EngineId {
        self.engine.id()
    }

    /// The engine's own handle.
    pub fn native(&self) -> E::Native
    where
        E: NativeEngine,
    {
        self.engine.native(&self.main)
    }

    /// Whether the document that the application sees must be loaded afresh.
    pub fn is_poisoned(&self) -> bool {
        self.main.is_poisoned()
    }

    /// The document that the application sees.
    pub const fn document(&mut self) -> &mut E::Document {
        &mut self.main
    }

    /// What of the log the document cannot read.
    pub fn unreadable(&self) -> Unreadable {
        self.main.unreadable()
    }

    /// Takes local changes and events since the last call.
    pub fn drain(&mut self) -> ReplicaDrained {
        let mut drained = ReplicaDrained {
            main: self.main.drain(),
            stray: Vec::new(),
        };
        drained.stray.append(&mut drained.main.stray);
        for retired in &mut self.retired {
            let late = retired.drain();
            drained.stray.extend(late.local);
            drained.stray.extend(late.stray);
        }
        drained
    }

    /// Runs a job. `None` if a transaction of the application holds the document: nothing was done, and the same job is to
    /// be run again, before any other.
    ///
    /// `outbox` gives the bytes of everything in the outbox, oldest first; `pending` sorts it for a replacement. Both are
    /// called under the replica's lock, so that no edit comes in between.
    pub fn run(
        &mut self,
        job: &Job,
        outbox: impl FnOnce() -> Vec<Bytes>,
        pending: impl FnOnce() -> PendingWork,
    ) -> Option<JobOutcome> {
        let needs_main = match job {
            Job::Import { target, .. } | Job::ImportSnapshot { target, .. } => {
                *target == Target::Main
            }
            Job::Merge { .. } => true,
            Job::StartShadow | Job::Replace { .. } | Job::Snapshot | Job::Fold => false,
        };
        if needs_main && self.main.is_poisoned() {
            return Some(JobOutcome::Poisoned);
        }
        let outcome = match job {
            Job::Import {
                target, changes, ..
            } => self.import(*target, changes),
            Job::ImportSnapshot { target, bytes } => {
                let imported = self.target(*target).import_snapshot(bytes);
                imported.map(|imported| JobOutcome::Done {
                    pending: imported.pending,
                })
            }
            Job::StartShadow => {
                self.shadow = self.engine.create(ReplicaSeed(self.seeds.next_u128())).ok();
                Ok(JobOutcome::Done { pending: false })
            }
            Job::Merge { keep } => self.merge(&outbox(), *keep),
            Job::Replace { keep } => self.replace(&pending(), *keep),
            Job::Snapshot => Ok(JobOutcome::Snapshot(self.main.fold().ok())),
            Job::Fold => Ok(JobOutcome::Snapshot(self.fold())),
        };
        match outcome {
            Ok(outcome) => Some(outcome),
            Err(EngineError::Busy) => None,
            Err(_) => Some(JobOutcome::Invalid { index: 0 }),
        }
    }

    fn target(&mut self, target: Target) -> &mut E::Document {
        match (target, &mut self.shadow) {
            (Target::Shadow, Some(shadow)) => shadow,
            _ => &mut self.main,
        }
    }

    fn import(&mut self, target: Target, changes: &[Bytes]) -> Result<JobOutcome, EngineError> {
        // What is valid is the same function on both sides (design 7), so an invalid change in the log is damage.
        let valid = changes
            .iter()
            .take_while(|change| self.engine.validate(change, &self.limits).is_ok())
            .count();
        let index = u64::try_from(valid).unwrap_or(u64::MAX);
        let document = self.target(target);
        let changes_in = changes.get(..valid).unwrap_or(changes);
        let imported = match document.import(changes_in) {
            Err(error) if error != EngineError::Busy && valid > 1 && !document.is_poisoned() => {
                return first_invalid(document, changes_in);
            }
            imported => imported?,
        };
        Ok(if valid < changes.len() {
            JobOutcome::Invalid { index }
        } else {
            JobOutcome::Done {
                pending: imported.pending,
            }
        })
    }

    /// Design 2.3: both sides keep everything, and only what is really lacking is pushed.
    fn merge(&mut self, outbox: &[Bytes], keep: bool) -> Result<JobOutcome, EngineError> {
        let Some(shadow) = &mut self.shadow else {
            return Ok(JobOutcome::Merged {
                lacking: None,
                pending: false,
                snapshot: None,
            });
        };
        let pending = if self.main.follows_the_log() || shadow.import(&[])?.pending {
            // A version says nothing of what waits, nor of where things stand in the log: a snapshot does.
            self.main.import_snapshot(&shadow.snapshot()?)?.pending
        } else {
            let news = shadow.since(&self.main.version())?;
            self.main.import(news.as_slice())?.pending
        };
        // What is pushed goes in front of the outbox, so it must make sense right after the server's state: it is taken
        // against that, though only pushed if something is lacking beyond the outbox.
        let more = self.main.since(&shadow.version())?;
        let snapshot = if keep {
            Some(self.main.snapshot()?)
        } else {
            None
        };
        // From here on nothing is busy: the shadow is nobody else's.
        shadow.import(outbox)?;
        let lacking = match more {
            Some(more) if shadow.import(std::slice::from_ref(&more))?.changed => Some(more),
            _ => None,
        };
        self.shadow = None;
        Ok(JobOutcome::Merged {
            lacking,
            pending,
            snapshot,
        })
    }

    fn replace(&mut self, work: &PendingWork, keep: bool) -> Result<JobOutcome, EngineError> {
        let Some(mut shadow) = self.shadow.take() else {
            return Ok(JobOutcome::Replaced {
                replayed: Replayed::No,
                pending: false,
                snapshot: None,
            });
        };
        let pending = shadow.import_pending(&work.kept)?.pending;
        let replayed = if work.replayed.is_empty() {
            Replayed::No
        } else if shadow.can_rebase() {
            let is_same = shadow.can_replay(&self.main.version(), &work.replayed);
            match is_same.then(|| shadow.import_pending(&work.replayed)) {
                Some(Ok(_)) => Replayed::AsItWas,
                Some(Err(_)) | None => Replayed::No,
            }
        } else {
            let anew = shadow.rebase(&mut self.main, &work.replayed);
            anew.map_or(Replayed::No, Replayed::Anew)
        };
        // How the shadow came to be is no news: the application is told of the replacement.
        drop(shadow.drain());
        if let Some(wake) = &self.wake {
            shadow.set_wake(wake.clone());
        }
        if self.main.outlives_replacement() {
            shadow.succeed_another();
        }
        let retired = std::mem::replace(&mut self.main, shadow);
        if retired.outlives_replacement() {
            self.retired.push(retired);
        }
        Ok(JobOutcome::Replaced {
            replayed,
            pending,
            snapshot: self.snapshot_if(keep),
        })
    }

    /// `None` if the document cannot be folded, or if the result does not say the same.
    fn fold(&mut self) -> Option<Bytes> {
        if self.main.is_poisoned() {
            return None;
        }
        let folded = self.main.fold().ok()?;
        let mut proof = self
            .engine
            .create(ReplicaSeed(self.seeds.next_u128()))
            .ok()?;
        let empty = proof.version();
        if proof.import_snapshot(&folded).ok()?.pending {
            return None;
        }
        prove(&empty, &self.main.version(), &proof.version()).ok()?;
        Some(folded)
    }

    fn snapshot_if(&mut self, keep: bool) -> Option<Bytes> {
        keep.then(|| self.main.snapshot().ok()).flatten()
    }
}

/// Which of the changes it is that the engine refuses. Those before it are imported.
fn first_invalid<D: Document>(
    document: &mut D,
    changes: &[Bytes],
) -> Result<JobOutcome, EngineError> {
    for (change, index) in changes.iter().zip(0..) {
        match document.import(std::slice::from_ref(change)) {
            Ok(_) => {}
            Err(EngineError::Busy) => return Err(EngineError::Busy),
            Err(_) => return Ok(JobOutcome::Invalid { index }),
        }
    }
    // Together and not alone: what waits for others has become too much.
    let pending = document.import(&[])?.pending;
    Ok(JobOutcome::Done { pending })
}
