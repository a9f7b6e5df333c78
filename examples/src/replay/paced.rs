//! The yrs engine, with replicas that see changes only when it is their author's time to see them.
//!
//! A replay has what really happened to reproduce: who typed what, with what on the screen. Changes arrive sooner or
//! later than they did then, so each replica holds those back that its author did not know of yet, and its author waits
//! for those that it did know of. Nothing below the engine notices.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sync_client::engine::{
    Document, Drained, Edited, EngineError, Imported, ReplicaSeed, ValidateLimits, Version, Wake,
};
use sync_client::yrs::{Transaction, TransactionMut};
use sync_client::{Engine, EngineId, NativeEngine, Yrs};
use tokio::sync::Notify;

const ENGINE: Yrs = Yrs::new();

/// The largest replica id of yrs: 53 bits, which JavaScript can hold.
const REPLICA_MAX: u64 = (1 << 53) - 1;

/// Which change is which author's which step. Shared by all replicas of a replay.
///
/// A change is known by its bytes, which its author's replica puts down when they are made. Changes with the same bytes
/// (two authors delete the same character) do the same, so it does not matter which is taken for which.
#[derive(Debug, Clone, Default)]
pub struct Marks(Arc<Mutex<HashMap<Bytes, Vec<Mark>>>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    author: usize,
    step: usize,
}

/// The engine value of one author.
#[derive(Debug, Clone)]
pub struct Paced {
    pace: Arc<Pace>,
}

#[derive(Debug)]
struct Pace {
    marks: Marks,
    author: usize,
    n_authors: usize,
    /// For each step of this author, how many steps of each author it knows of.
    steps: Vec<Box<[usize]>>,
    state: Mutex<State>,
    /// Something has arrived.
    arrived: Notify,
}

#[derive(Debug)]
struct State {
    is_created: bool,
    /// Steps of this author that are done.
    n_done: usize,
    /// Of those, how many changes have been put down.
    n_marked: usize,
    /// Steps of each author that have arrived, held back or not.
    n_arrived: Vec<usize>,
    /// Steps of each author that are in the replica.
    n_seen: Vec<usize>,
    /// Arrived too early, in the order of the log.
    held: VecDeque<(Mark, Bytes)>,
}

impl Paced {
    /// An engine for `author`, whose steps know of so many steps of each author. For one document of one client.
    #[must_use]
    pub fn new(marks: &Marks, author: usize, n_authors: usize, steps: Vec<Box<[usize]>>) -> Self {
        Self {
            pace: Arc::new(Pace {
                marks: marks.clone(),
                author,
                n_authors,
                steps,
                state: Mutex::new(State {
                    is_created: false,
                    n_done: 0,
                    n_marked: 0,
                    n_arrived: vec![0; n_authors],
                    n_seen: vec![0; n_authors],
                    held: VecDeque::new(),
                }),
                arrived: Notify::new(),
            }),
        }
    }

    /// Whether this replica id makes the author's place among the authors: the smaller an author's number, the smaller
    /// its replica id.
    ///
    /// Of two texts inserted at one place at once, yrs puts that of the smaller replica id first, and others have other
    /// rules. The published traces should have no such insertions, but `friendsforever` has one (", huh?" and
    /// "The whole "), where its final text has that of author 0 first.
    fn is_in_order(&self, replica: u64) -> bool {
        let authors = u64::try_from(self.pace.n_authors).unwrap_or(1).max(1);
        let place = replica / (REPLICA_MAX / authors + 1);
        usize::try_from(place).is_ok_and(|place| place == self.pace.author)
    }

    /// Resolves when the replica holds exactly what the author's next step knows of.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn ready(&self) {
        while !self.pace.is_ready(&self.pace.lock()) {
            self.pace.arrived.notified().await;
        }
    }
}

impl Pace {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_ready(&self, state: &State) -> bool {
        let Some(knows) = self.steps.get(state.n_done) else {
            return true;
        };
        let others = |author: &usize| *author != self.author;
        let mut authors = (0..knows.len()).filter(others);
        authors.all(|author| state.n_seen.get(author) == knows.get(author))
    }

    /// Which step a change that arrives is, if it is one that is not here yet: each author's arrive in order.
    fn arrive(&self, state: &mut State, change: &Bytes) -> Option<Mark> {
        let marks = self.marks.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = marks.get(change)?.iter().find(|mark| {
            mark.author != self.author && state.n_arrived.get(mark.author) == Some(&mark.step)
        });
        let mark = *mark?;
        if let Some(n_arrived) = state.n_arrived.get_mut(mark.author) {
            *n_arrived += 1;
        }
        Some(mark)
    }

    /// Takes out what the next step knows of, in the order of the log; everything after the last step.
    fn release(&self, state: &mut State) -> Vec<Bytes> {
        let knows = self.steps.get(state.n_done);
        let mut released = Vec::new();
        for (mark, change) in std::mem::take(&mut state.held) {
            let n_known = knows.map_or(usize::MAX, |knows| {
                knows.get(mark.author).copied().unwrap_or(usize::MAX)
            });
            if mark.step < n_known {
                if let Some(n_seen) = state.n_seen.get_mut(mark.author) {
                    *n_seen += 1;
                }
                released.push(change);
            } else {
                state.held.push_back((mark, change));
            }
        }
        released
    }
}

impl Engine for Paced {
    type Document = PacedDocument;
    type Read<'a> = Transaction<'a>;
    type Edit<'a> = TransactionMut<'a>;

    fn id(&self) -> EngineId {
        ENGINE.id()
    }

    /// # Errors
    /// [`EngineError::Unsupported`] the second time: a reset would start the author's replica anew.
    fn create(&self, seed: ReplicaSeed) -> Result<Self::Document, EngineError> {
        if std::mem::replace(&mut self.pace.lock().is_created, true) {
            return Err(EngineError::Unsupported {
                what: "another replica of one author",
            });
        }
        let mut seed = seed;
        loop {
            let document = ENGINE.create(seed)?;
            if self.is_in_order(ENGINE.native(&document).client_id().get()) {
                return Ok(PacedDocument {
                    document,
                    pace: self.pace.clone(),
                });
            }
            seed.0 = seed.0.wrapping_add(1);
        }
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        Engine::validate(&ENGINE, change, limits)
    }

    fn read<R>(
        &self,
        document: &Self::Document,
        f: impl FnOnce(&Self::Read<'_>) -> R,
    ) -> Result<R, EngineError> {
        ENGINE.read(&document.document, f)
    }

    /// Does the author's next step, which `f` must do in one change.
    ///
    /// # Errors
    /// [`EngineError::Busy`] if the replica does not hold yet what the step knows of.
    fn edit<R>(
        &self,
        document: &mut Self::Document,
        bytes_max: usize,
        f: impl FnOnce(&mut Self::Edit<'_>) -> R,
    ) -> Result<Edited<R>, EngineError> {
        if !self.pace.is_ready(&self.pace.lock()) {
            return Err(EngineError::Busy);
        }
        let edited = ENGINE.edit(&mut document.document, bytes_max, f)?;
        let released = {
            let mut state = self.pace.lock();
            state.n_done += 1;
            self.pace.release(&mut state)
        };
        document.import_released(&released)?;
        Ok(edited)
    }
}

/// A replica whose imports wait for their time.
#[derive(Debug)]
pub struct PacedDocument {
    document: <Yrs as Engine>::Document,
    pace: Arc<Pace>,
}

impl PacedDocument {
    fn import_released(&mut self, changes: &[Bytes]) -> Result<Imported, EngineError> {
        if changes.is_empty() {
            return Ok(Imported::default());
        }
        let imported = self.document.import(changes);
        self.pace.arrived.notify_one();
        imported
    }
}

impl Document for PacedDocument {
    fn version(&mut self) -> Version {
        self.document.version()
    }

    fn set_wake(&mut self, wake: Wake) {
        self.document.set_wake(wake);
    }

    fn set_wall_time(&mut self, unix_ms: u64) {
        self.document.set_wall_time(unix_ms);
    }

    fn drain(&mut self) -> Drained {
        let drained = self.document.drain();
        if !drained.local.is_empty() {
            let mut state = self.pace.lock();
            let mut marks = self
                .pace
                .marks
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for change in &drained.local {
                marks.entry(change.clone()).or_default().push(Mark {
                    author: self.pace.author,
                    step: state.n_marked,
                });
                state.n_marked += 1;
            }
        }
        drained
    }

    fn import(&mut self, changes: &[Bytes]) -> Result<Imported, EngineError> {
        let ready = {
            let mut state = self.pace.lock();
            // What is no step of anybody, or here already, has nothing to wait for.
            let mut ready = Vec::new();
            for change in changes {
                match self.pace.arrive(&mut state, change) {
                    Some(mark) => state.held.push_back((mark, change.clone())),
                    None => ready.push(change.clone()),
                }
            }
            ready.extend(self.pace.release(&mut state));
            ready
        };
        self.import_released(&ready)
    }

    /// # Errors
    /// [`EngineError::Unsupported`]: whose changes are in a snapshot cannot be told. No server makes one while everybody
    /// is there from the beginning.
    fn import_snapshot(&mut self, _snapshot: &[u8]) -> Result<Imported, EngineError> {
        Err(EngineError::Unsupported {
            what: "a snapshot in a paced replica",
        })
    }

    fn since(&mut self, version: &Version) -> Result<Option<Bytes>, EngineError> {
        self.document.since(version)
    }

    fn snapshot(&mut self) -> Result<Bytes, EngineError> {
        self.document.snapshot()
    }

    fn outlives_replacement(&self) -> bool {
        self.document.outlives_replacement()
    }

    fn can_rebase(&self) -> bool {
        self.document.can_rebase()
    }
}
