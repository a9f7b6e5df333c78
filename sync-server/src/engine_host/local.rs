//! Checking in the server's own process, beside the rooms.

use std::collections::BTreeSet;
use std::sync::Arc;

use sync_core::engine::{EngineError, Ledger, Validator};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::ids::ChangeId;
use sync_core::server::{CheckRequest, Verdict};

use super::check::{self, not_now};
use super::guard::on_large_stack;
use super::host::{CheckJob, Checks, Content, Hot, new_ledger};

/// Ledgers loaded for one batch: changes that leave traces when they are refused cost no more than this.
const LOADS_MAX: u32 = 4;

/// What is known of a batch so far.
#[derive(Debug, Default)]
struct Progress {
    verdicts: Vec<Verdict>,
    closed: BTreeSet<u32>,
    /// The change at which the engine panicked last.
    suspect: Option<usize>,
    panicked: Vec<ChangeId>,
}

enum Step {
    /// All that there is to say has been said.
    Done(Option<Box<dyn Ledger>>),
    /// With another ledger.
    Again,
    /// What is stored cannot be loaded.
    Unloadable(EngineError),
}

/// Checks a batch, on a blocking thread.
pub(super) async fn check(validator: Arc<dyn Validator>, job: CheckJob) -> Checks {
    let CheckJob {
        request,
        hot,
        load,
        meter,
        ..
    } = job;
    let request = Arc::new(request);
    let n = request.changes.len();
    let mut ledger = match hot {
        Some(Hot::Ledger(replica, ledger)) if replica == request.replica => Some(ledger),
        _ => None,
    };
    let mut content = None;
    let mut progress = Progress::default();
    for _ in 0..=LOADS_MAX {
        if ledger.is_none() && content.is_none() {
            content = load().await;
            if content.is_none() {
                break;
            }
        }
        let (validator, request, content) = (
            Arc::clone(&validator),
            Arc::clone(&request),
            content.clone(),
        );
        let (taken, meter) = (ledger.take(), meter.clone());
        let step = tokio::task::spawn_blocking(move || {
            let content = content.as_deref();
            let step = meter.count(|| step(&validator, taken, content, &request, &mut progress));
            (step, progress)
        });
        let Ok((step, so_far)) = step.await else {
            return Checks::new(vec![not_now(); n], None);
        };
        progress = so_far;
        match step {
            Step::Done(left) => {
                ledger = left;
                break;
            }
            Step::Again => {}
            Step::Unloadable(error) => {
                let relayed = Verdict::Accepted { is_new: false };
                let mut checks = Checks::new(vec![relayed; n], Some(Hot::Relayed));
                checks.relayed = Some(error.to_string());
                return checks;
            }
        }
    }
    let mut verdicts = progress.verdicts;
    verdicts.resize_with(n, not_now);
    let hot = ledger.map(|ledger| Hot::Ledger(request.replica, ledger));
    let mut checks = Checks::new(verdicts, hot);
    checks.panicked = progress.panicked;
    checks
}

/// As far as one ledger goes. Blocks.
fn step(
    validator: &Arc<dyn Validator>,
    ledger: Option<Box<dyn Ledger>>,
    content: Option<&Content>,
    request: &CheckRequest,
    progress: &mut Progress,
) -> Step {
    let mut ledger = match ledger {
        Some(ledger) => ledger,
        None => match loaded(validator, content) {
            Ok(mut ledger) => {
                if replay(&mut *ledger, request, &progress.verdicts).is_err() {
                    return Step::Done(None);
                }
                ledger
            }
            Err(error) => return Step::Unloadable(error),
        },
    };
    let changes = request.changes.iter().map(Into::into);
    let checked = on_large_stack(|| {
        check::check(
            &mut *ledger,
            changes,
            &mut progress.closed,
            &mut progress.verdicts,
        );
        Ok(())
    });
    let at = progress.verdicts.len();
    let Some(next) = request.changes.get(at) else {
        return Step::Done((checked.is_ok() && !ledger.is_spent()).then_some(ledger));
    };
    if checked.is_err() && progress.suspect.replace(at) == Some(at) {
        let error = PeerError::new(
            ErrorCode::InvalidChange,
            "the engine panicked at the change",
        );
        progress.verdicts.push(Verdict::Refused(error));
        progress.closed.insert(next.writer);
        progress.panicked.push(next.id);
    }
    Step::Again
}

/// A ledger of what is committed.
fn loaded(
    validator: &Arc<dyn Validator>,
    content: Option<&Content>,
) -> Result<Box<dyn Ledger>, EngineError> {
    let mut ledger = new_ledger(validator).ok_or(EngineError::Unsupported { what: "checking" })?;
    if let Some(content) = content {
        on_large_stack(|| content.load_into(&mut *ledger))?;
    }
    Ok(ledger)
}

/// Has another ledger take what an earlier one accepted.
fn replay(
    ledger: &mut dyn Ledger,
    request: &CheckRequest,
    verdicts: &[Verdict],
) -> Result<(), EngineError> {
    on_large_stack(|| {
        for (change, verdict) in request.changes.iter().zip(verdicts) {
            if matches!(verdict, Verdict::Accepted { .. }) {
                ledger.check(&change.bytes, &change.user, change.reconciling)?;
            }
        }
        Ok(())
    })
}
