//! Checks that hold a [`ServerRegistry`] to its promises.
//!
//! ```
//! use sync_server::registry::{MemoryRegistry, conformance};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! conformance::run(|| async { MemoryRegistry::new() }).await.unwrap();
//! # }
//! ```
//!
//! Of a registry that outlives its process, say how it is opened again, and it is checked at every crash point that can be
//! made without ending this process, too:
//!
//! ```
//! use std::sync::Arc;
//! use sync_server::registry::{MemoryRegistry, conformance};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // An empty directory, a fresh database: whatever the registry keeps its documents in.
//! let place = async || Arc::new(MemoryRegistry::new());
//! conformance::run_with_crashes(place, async |place| place.clone()).await.unwrap();
//! # }
//! ```
//!
//! Nothing here reads hints: `watch` may drop all of them. The suite uses no runtime, so it runs on the one that the
//! registry needs. What only the end of a process, or a power cut, shows it cannot see: test that with real processes.

mod append;
mod compaction;
mod concurrency;
mod crash;
mod fixture;
mod reading;

use std::fmt;
use std::future::Future;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, LocalBoxFuture};

use super::ServerRegistry;

/// What was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Names of the promises that were kept.
    pub kept: Vec<&'static str>,
}

/// The promises that a registry broke. Displays, and debugs, as one line for each.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failures {
    /// Name of the promise, and what was found.
    pub broken: Vec<(&'static str, String)>,
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} promises broken", self.broken.len())?;
        self.broken
            .iter()
            .try_for_each(|(name, found)| write!(f, "\n  {name}: {found}"))
    }
}

impl fmt::Debug for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failures {}

/// Runs all checks, each on a registry of its own, and closes each registry afterwards.
///
/// `factory` opens an empty registry.
///
/// # Errors
/// [`Failures`] if any check fails. All are run in any case.
///
/// # Cancellation
/// Safe; registries that are open are dropped without `close`.
pub async fn run<R, F, Fut>(factory: F) -> Result<Report, Failures>
where
    R: ServerRegistry,
    F: Fn() -> Fut,
    Fut: Future<Output = R>,
{
    let mut tally = Tally::default();
    for (name, check) in CHECKS {
        tally.note(name, check_one(*check, factory().await).await);
    }
    tally.report()
}

/// Runs all checks, as [`run`] does, and then those of what is there when a registry is opened again.
///
/// `place` makes an empty place for a registry, and `open` opens the registry there: the first time, and again after the one
/// before was closed, was dropped, or was dropped while it had calls to carry out. What that one had begun must have
/// ended, or be ended, when `open` returns.
///
/// # Errors
/// [`Failures`] if any check fails. All are run in any case.
///
/// # Cancellation
/// Safe; registries that are open are dropped without `close`.
pub async fn run_with_crashes<P, R: ServerRegistry>(
    place: impl AsyncFn() -> P,
    open: impl AsyncFn(&P) -> R,
) -> Result<Report, Failures> {
    let mut tally = Tally::default();
    for (name, check) in CHECKS {
        let place = place().await;
        tally.note(name, check_one(*check, open(&place).await).await);
    }
    for (name, check) in CRASH_CHECKS {
        // Until no call is cut short any more.
        let mut polls = 0;
        let checked = loop {
            let place = place().await;
            let open = || {
                let opened = open(&place);
                async {
                    let registry: Box<dyn ServerRegistry> = Box::new(opened.await);
                    registry
                }
                .boxed_local()
            };
            match check(&open, polls).await {
                Ok(Cut::Some) if polls < POLLS_MAX => polls += 1,
                checked => break checked.map(drop),
            }
        };
        tally.note(name, checked);
    }
    tally.report()
}

/// Polls after which calls are cut short at most.
const POLLS_MAX: usize = 12;

async fn check_one(check: Check, registry: impl ServerRegistry) -> Checked {
    let checked = check(&registry).await;
    let closed = registry.close().await;
    checked.and(closed.map_err(|error| Failure(format!("close: {error}"))))
}

#[derive(Default)]
struct Tally {
    kept: Vec<&'static str>,
    broken: Vec<(&'static str, String)>,
}

impl Tally {
    fn note(&mut self, name: &'static str, checked: Checked) {
        match checked {
            Ok(()) => self.kept.push(name),
            Err(failure) => self.broken.push((name, failure.0)),
        }
    }

    fn report(self) -> Result<Report, Failures> {
        let Self { kept, broken } = self;
        if broken.is_empty() {
            Ok(Report { kept })
        } else {
            Err(Failures { broken })
        }
    }
}

type Checked = Result<(), Failure>;
type Check = for<'a> fn(&'a dyn ServerRegistry) -> BoxFuture<'a, Checked>;

/// Whether a check had calls to cut short: if not, more patience makes no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Some,
    None,
}

type CrashCheck = for<'a> fn(crash::Open<'a>, usize) -> LocalBoxFuture<'a, Result<Cut, Failure>>;

macro_rules! checks {
    ($($module:ident::$name:ident,)+) => {
        &[$((stringify!($name), |registry| $module::$name(registry).boxed())),+]
    };
}

const CHECKS: &[(&str, Check)] = checks![
    append::commits_are_numbered_from_one_without_holes,
    append::an_append_of_nothing_does_nothing,
    append::bytes_and_names_are_kept_as_they_are,
    append::a_repeat_is_a_duplicate_and_changes_nothing,
    append::changes_see_the_ones_before_them_in_the_call,
    append::an_id_used_for_other_bytes_is_refused,
    append::skipped_numbers_are_a_gap,
    append::an_origin_belongs_to_its_first_user,
    append::a_refused_change_stops_its_origin_and_nobody_else,
    append::origins_count_per_document,
    append::a_stale_epoch_is_fenced,
    append::an_unexpected_head_is_a_conflict,
    reading::a_missing_document_is_not_found,
    reading::create_returns_what_exists,
    reading::a_document_can_start_with_a_snapshot,
    reading::tail_pages_by_bytes_with_at_least_one_change,
    reading::tail_tells_the_digest_at_every_position,
    reading::list_pages_in_byte_order,
    reading::heads_come_in_the_order_asked,
    reading::the_size_counts_the_snapshot_and_what_is_after_it,
    reading::origins_tell_user_last_number_and_position,
    reading::a_deleted_document_stays_deleted,
    compaction::a_snapshot_replaces_the_rows_through_keep_after,
    compaction::the_log_goes_on_after_everything_was_folded,
    compaction::a_snapshot_that_contradicts_the_log_is_refused,
    compaction::an_older_snapshot_changes_nothing,
    compaction::a_snapshot_at_the_same_sequence_drops_more_rows,
    compaction::a_trim_begins_a_new_history_at_the_head,
    compaction::a_trim_that_is_not_of_the_head_is_refused,
    compaction::folded_changes_are_still_duplicates,
    compaction::origins_in_the_log_are_never_forgotten,
    concurrency::concurrent_appends_leave_no_holes,
    concurrency::a_call_repeated_concurrently_commits_once,
    concurrency::one_of_many_that_expect_the_same_head_wins,
    concurrency::concurrent_creates_agree,
    concurrency::a_trim_among_appends_loses_nothing,
    concurrency::compaction_among_appends_loses_nothing,
];

macro_rules! crash_checks {
    ($($name:ident,)+) => {
        &[$((stringify!($name), |open, polls| crash::$name(open, polls).boxed_local())),+]
    };
}

const CRASH_CHECKS: &[(&str, CrashCheck)] = crash_checks![
    what_was_answered_is_there_after_it_was_closed,
    what_was_answered_is_there_after_it_was_dropped,
    a_call_whose_answer_was_lost_changes_nothing_when_repeated,
    a_call_that_was_cut_short_is_carried_out_or_not,
    a_call_that_was_dropped_is_in_nobodys_way,
    appends_cut_short_together_leave_a_whole_log,
];

/// What was found instead of what was promised.
struct Failure(String);

impl From<super::RegistryError> for Failure {
    fn from(error: super::RegistryError) -> Self {
        Self(format!("unexpected error: {error}"))
    }
}
