//! Checking changes against what a document holds, as a node's engine host does in the node's own process.

use std::collections::BTreeSet;

use sync_core::engine::{Engine, EngineError, Ledger, Taken, Validator};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::{Epoch, Seq};
use sync_core::ids::{DocumentId, User};
use sync_core::registry::{RegistryError, Tail};
use sync_core::server::{CheckRequest, Verdict};

use super::calls::Caller;
use super::{World, wait};

/// Loads for one batch.
const LOADS_MAX: u32 = 4;

/// What a node keeps of a document between two checks.
pub(super) struct Hot {
    epoch: Epoch,
    replica: u64,
    ledger: Box<dyn Ledger>,
}

impl std::fmt::Debug for Hot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hot")
            .field("replica", &self.replica)
            .finish_non_exhaustive()
    }
}

impl<E: Engine + Validator> World<E> {
    pub(super) fn new_ledger(&self) -> Option<Box<dyn Ledger>> {
        match &self.validator {
            Some(validator) => validator.ledger(),
            None => Validator::ledger(&self.engine),
        }
    }

    pub(super) fn check(&mut self, caller: &Caller, request: &CheckRequest) -> Vec<Verdict> {
        let Some(document) = caller.document.clone() else {
            return Vec::new();
        };
        let hot = self.nodes[caller.node].hot.remove(&document);
        let hot = hot.filter(|hot| hot.epoch == request.epoch && hot.replica == request.replica);
        let mut ledger = hot.map(|hot| hot.ledger);
        let mut verdicts = Vec::new();
        let mut closed = BTreeSet::new();
        for _ in 0..=LOADS_MAX {
            let taken = match ledger.take() {
                Some(ledger) => Some(ledger),
                None => self.loaded(&document, request, &verdicts),
            };
            let Some(mut taken) = taken else { break };
            check_all(&mut *taken, request, &mut closed, &mut verdicts);
            if !taken.is_spent() {
                ledger = Some(taken);
                break;
            }
        }
        verdicts.resize_with(request.changes.len(), not_now);
        if let Some(ledger) = ledger {
            let hot = Hot {
                epoch: request.epoch,
                replica: request.replica,
                ledger,
            };
            self.nodes[caller.node].hot.insert(document, hot);
        }
        verdicts
    }

    /// A ledger of what is committed, and has been accepted since. `None` if that cannot be read now.
    fn loaded(
        &mut self,
        document: &DocumentId,
        request: &CheckRequest,
        verdicts: &[Verdict],
    ) -> Option<Box<dyn Ledger>> {
        if self.happens(self.faults.unavailable) {
            self.count("fault", "check not loaded");
            return None;
        }
        let mut ledger = self.new_ledger()?;
        self.load_into(&mut *ledger, document, request).ok()?;
        for (change, verdict) in request.changes.iter().zip(verdicts) {
            if matches!(verdict, Verdict::Accepted { .. }) {
                let checked = ledger.check(&change.bytes, &change.user, change.reconciling);
                checked.ok()?;
            }
        }
        Some(ledger)
    }

    fn load_into(
        &self,
        ledger: &mut dyn Ledger,
        document: &DocumentId,
        request: &CheckRequest,
    ) -> Result<(), RegistryError> {
        let unreadable = |_: EngineError| RegistryError::Damaged {
            what: "what is stored cannot be checked against".into(),
        };
        let meta = wait(self.registry.meta(document))?;
        if meta.epoch != request.epoch || meta.head < request.at || meta.snapshot_seq > request.at {
            return Err(RegistryError::unavailable("it is another history"));
        }
        if let Some(snapshot) = wait(self.registry.snapshot(document))? {
            ledger.load(&snapshot.bytes).map_err(unreadable)?;
        }
        let tail = wait(self.registry.tail(document, meta.snapshot_seq, usize::MAX))?;
        let Tail::Changes { changes, .. } = tail else {
            return Err(RegistryError::unavailable("the log was compacted"));
        };
        for row in changes.iter().filter(|row| row.seq <= request.at) {
            let author = self.author(document, row.id.origin, row.reconciling, row.seq);
            ledger
                .admit(&row.bytes, author.as_ref())
                .map_err(unreadable)?;
        }
        Ok(())
    }

    fn author(
        &self,
        document: &DocumentId,
        origin: sync_core::ids::OriginId,
        is_reconciling: bool,
        _: Seq,
    ) -> Option<User> {
        if is_reconciling {
            return None;
        }
        let entries = wait(self.registry.origins(document, &[origin])).ok()?;
        Some(entries.into_iter().next()??.user)
    }
}

fn check_all(
    ledger: &mut dyn Ledger,
    request: &CheckRequest,
    closed: &mut BTreeSet<u32>,
    verdicts: &mut Vec<Verdict>,
) {
    for change in request.changes.iter().skip(verdicts.len()) {
        if ledger.is_spent() {
            return;
        }
        let verdict = if closed.contains(&change.writer) {
            Verdict::Skipped
        } else {
            match ledger.check(&change.bytes, &change.user, change.reconciling) {
                Ok(taken) => Verdict::Accepted {
                    is_new: taken == Taken::New,
                },
                Err(error) => refused(&error),
            }
        };
        if !matches!(verdict, Verdict::Accepted { .. }) {
            closed.insert(change.writer);
        }
        verdicts.push(verdict);
    }
}

fn refused(error: &EngineError) -> Verdict {
    let code = match error {
        EngineError::Incomplete => ErrorCode::MissingDependency,
        _ => ErrorCode::InvalidChange,
    };
    Verdict::Refused(PeerError::new(code, error.to_string()))
}

fn not_now() -> Verdict {
    let error = PeerError::new(ErrorCode::CheckUnavailable, "not at the moment");
    Verdict::Unknown(error)
}
