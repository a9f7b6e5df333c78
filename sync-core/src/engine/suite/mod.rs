//! The checks that every engine passes. Run them over your own:
//!
//! ```
//! use sync_core::engine::suite::{Probe, Suite};
//! use sync_core::engine::typed::Typed;
//! use sync_core::mergeable::LwwMap;
//! use sync_core::rng::Rng;
//!
//! /// Maps of small numbers.
//! struct Numbers;
//!
//! impl Probe for Numbers {
//!     type Engine = Typed<LwwMap<u64, u64>>;
//!
//!     fn engine() -> Self::Engine {
//!         Typed::new()
//!     }
//!
//!     fn edit(map: &mut LwwMap<u64, u64>, random: &mut Rng) {
//!         let _ = map.insert(random.next_u64() % 5, random.next_u64());
//!     }
//!
//!     fn add(map: &mut LwwMap<u64, u64>, number: u64) {
//!         let _ = map.insert(number, number);
//!     }
//!
//!     fn has(map: &LwwMap<u64, u64>, number: u64) -> bool {
//!         map.get(&number).is_some()
//!     }
//!
//!     fn content(map: &LwwMap<u64, u64>) -> String {
//!         format!("{:?}", map.iter().collect::<Vec<_>>())
//!     }
//! }
//!
//! Suite::<Numbers>::new().cases(5).run();
//! ```
#![expect(clippy::panic, reason = "a check says that it failed by panicking")]

mod changes;
mod history;
mod hostile;
mod laws;
mod probes;
mod world;

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;

pub use self::hostile::Hostile;
#[cfg(feature = "automerge")]
pub use self::probes::AutomergeProbe;
#[cfg(feature = "loro")]
pub use self::probes::LoroProbe;
#[cfg(feature = "yrs")]
pub use self::probes::YrsProbe;
pub use self::probes::{OpaqueProbe, TypedProbe};
use super::{Document, Edited, Engine, EngineError, ReplicaSeed};
use crate::rng::Rng;

/// An engine, and how to do a few things with it.
pub trait Probe: 'static {
    /// The engine.
    type Engine: Engine;

    /// The engine value. With everything that is optional, such as undo.
    fn engine() -> Self::Engine;

    /// One random edit. What it does may depend on what is there; it may do nothing.
    fn edit(edit: &mut <Self::Engine as Engine>::Edit<'_>, random: &mut Rng);

    /// Adds this number to the content. Adding what is there need not change anything. The number is at most 999.
    fn add(edit: &mut <Self::Engine as Engine>::Edit<'_>, number: u64);

    /// Takes this number away, if the engine can. Whether it could.
    fn remove(edit: &mut <Self::Engine as Engine>::Edit<'_>, number: u64) -> bool {
        let _ = (edit, number);
        false
    }

    /// Whether this number was [added](Self::add), and nothing took it away.
    fn has(read: &<Self::Engine as Engine>::Read<'_>, number: u64) -> bool;

    /// All of the content, equal for equal content.
    fn content(read: &<Self::Engine as Engine>::Read<'_>) -> String;

    /// Changes that are known to ruin the engine where nothing looks at them first.
    #[must_use]
    fn hostile_changes() -> Vec<Hostile> {
        Vec::new()
    }

    /// The same, as snapshots.
    #[must_use]
    fn hostile_snapshots() -> Vec<Hostile> {
        Vec::new()
    }

    /// Whether [`Document::undo`] and [`Document::redo`] work.
    const HAS_UNDO: bool = false;

    /// Whether [`Engine::read_at`] works.
    const HAS_HISTORY: bool = false;
}

/// Runs the checks over an engine. A check that fails panics and says what it saw.
pub struct Suite<P> {
    cases: u64,
    first_seed: u64,
    probe: PhantomData<fn() -> P>,
}

impl<P: Probe> Suite<P> {
    /// A suite over the probe's engine.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            cases: 100,
            first_seed: 1,
            probe: PhantomData,
        }
    }

    /// How many random histories each of the checks that have them runs. 100 by default.
    #[must_use]
    pub const fn cases(mut self, value: u64) -> Self {
        self.cases = value;
        self
    }

    /// The seed of the first random history; the others' follow it. 1 by default.
    #[must_use]
    pub const fn first_seed(mut self, value: u64) -> Self {
        self.first_seed = value;
        self
    }

    /// Runs every check.
    ///
    /// # Panics
    /// If a check fails.
    pub fn run(&self) {
        self.laws();
        self.changes();
        self.history();
    }

    /// Scenario 1: replicas with the same changes are equal, however they got them.
    ///
    /// # Panics
    /// If a check fails.
    pub fn laws(&self) {
        for seed in self.first_seed..self.first_seed.saturating_add(self.cases) {
            laws::replicas_converge_in_every_causal_order_with_repeats_and_snapshots::<P>(seed);
            laws::merging_states_is_commutative_associative_and_idempotent::<P>(seed);
            laws::importing_changes_in_a_batch_is_importing_them_singly::<P>(seed);
            laws::changes_in_any_order_leave_the_same_once_all_have_arrived::<P>(seed);
            laws::since_gives_exactly_what_another_replica_lacks::<P>(seed);
            laws::a_fold_is_what_importing_the_log_gives::<P>(seed);
            laws::a_trim_changes_no_content_and_work_goes_on_from_it::<P>(seed);
        }
    }

    /// What goes in and comes out.
    ///
    /// # Panics
    /// If a check fails.
    pub fn changes(&self) {
        changes::one_closure_is_one_change::<P>();
        changes::a_closure_that_does_nothing_makes_no_change::<P>();
        changes::an_import_never_comes_out_as_local::<P>();
        changes::replicas_of_one_state_write_under_ids_of_their_own::<P>();
        changes::a_panicking_closure_leaves_the_document_usable::<P>();
        changes::what_waits_survives_in_the_snapshot::<P>();
        changes::nothing_folds_to_no_snapshot::<P>();
        changes::what_is_known_to_ruin_the_engine_is_refused::<P>();
        for seed in self.first_seed..self.first_seed.saturating_add(self.cases) {
            changes::what_is_too_large_is_taken_back_whole::<P>(seed);
            changes::damaged_bytes_are_errors_and_leave_the_document_usable::<P>(seed);
        }
    }

    /// Undo, redo and views of earlier versions.
    ///
    /// # Panics
    /// If a check fails.
    pub fn history(&self) {
        history::undo_and_redo_touch_only_ones_own_edits::<P>();
        history::an_edit_after_an_undo_leaves_nothing_to_redo::<P>();
        history::nothing_of_others_and_nothing_loaded_can_be_undone::<P>();
        for seed in self.first_seed..self.first_seed.saturating_add(self.cases) {
            history::undoing_everything_and_redoing_it_leaves_the_same::<P>(seed);
            history::an_earlier_version_shows_what_was_seen_then::<P>(seed);
        }
    }
}

impl<P: Probe> Default for Suite<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P> fmt::Debug for Suite<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite")
            .field("cases", &self.cases)
            .field("first_seed", &self.first_seed)
            .finish_non_exhaustive()
    }
}

type DocumentOf<P> = <<P as Probe>::Engine as Engine>::Document;

/// An empty replica. Its wall clock is the same everywhere: what is told apart is told apart by the engine.
fn replica<P: Probe>(seed: u128) -> DocumentOf<P> {
    let mut replica = ok(P::engine().create(ReplicaSeed(seed)));
    replica.set_wall_time(WALL_TIME);
    replica
}

const WALL_TIME: u64 = 1_767_225_600_000;

fn loaded<P: Probe>(seed: u128, snapshot: &[u8]) -> DocumentOf<P> {
    let mut loaded = replica::<P>(seed);
    ok(loaded.import_snapshot(snapshot));
    drop(loaded.drain());
    loaded
}

/// Makes one change. Its bytes, if it changed anything.
fn edit<P: Probe>(
    document: &mut DocumentOf<P>,
    f: impl FnOnce(&mut <P::Engine as Engine>::Edit<'_>),
) -> Option<Bytes> {
    match ok(P::engine().edit(document, usize::MAX, f)) {
        Edited::Done(()) => {}
        taken_back @ Edited::TakenBack { .. } => panic!("an edit without a limit: {taken_back:?}"),
    }
    let mut local = document.drain().local;
    assert!(local.len() <= 1, "one closure made {} changes", local.len());
    local.pop()
}

fn add<P: Probe>(document: &mut DocumentOf<P>, number: u64) -> Bytes {
    edit::<P>(document, |edit| P::add(edit, number))
        .unwrap_or_else(|| panic!("adding {number} made no change"))
}

fn content<P: Probe>(document: &DocumentOf<P>) -> String {
    ok(P::engine().read(document, |read| P::content(read)))
}

fn has<P: Probe>(document: &DocumentOf<P>, number: u64) -> bool {
    ok(P::engine().read(document, |read| P::has(read, number)))
}

/// Asserts that replicas are equal.
fn assert_equal<P: Probe>(what: &str, replicas: &mut [&mut DocumentOf<P>]) {
    let Some((first, others)) = replicas.split_first_mut() else {
        return;
    };
    for other in others {
        assert_eq!(content::<P>(first), content::<P>(other), "content, {what}");
        assert_eq!(first.version(), other.version(), "version, {what}");
    }
}

fn ok<T>(result: Result<T, EngineError>) -> T {
    result.unwrap_or_else(|error| panic!("the engine failed: {error}"))
}

/// A number below `n`.
fn below(random: &mut Rng, n: usize) -> usize {
    let n = u64::try_from(n).unwrap_or(u64::MAX);
    usize::try_from(random.next_u64() % n.max(1)).unwrap_or_default()
}
