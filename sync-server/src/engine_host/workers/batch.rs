//! What is known of a batch, while workers are asked about it.

use std::collections::{BTreeSet, VecDeque};

use sync_core::error::{ErrorCode, PeerError};
use sync_core::server::{CheckRequest, UncheckedChange, Verdict};

use super::protocol::{Change, Finding};
use crate::engine_host::check::not_now;

#[derive(Debug)]
pub(super) struct Batch {
    changes: Vec<UncheckedChange>,
    verdicts: Vec<Option<Verdict>>,
    /// Those that a worker is being asked about.
    asked: VecDeque<usize>,
    closed: BTreeSet<u32>,
}

impl Batch {
    pub(super) fn new(request: &CheckRequest) -> Self {
        Self {
            changes: request.changes.clone(),
            verdicts: vec![None; request.changes.len()],
            asked: VecDeque::new(),
            closed: BTreeSet::new(),
        }
    }

    pub(super) const fn len(&self) -> usize {
        self.changes.len()
    }

    pub(super) fn is_done(&self) -> bool {
        self.verdicts.iter().all(Option::is_some)
    }

    /// Nothing is known any more.
    pub(super) fn begin_again(&mut self) {
        *self = Self {
            changes: std::mem::take(&mut self.changes),
            verdicts: vec![None; self.verdicts.len()],
            asked: VecDeque::new(),
            closed: BTreeSet::new(),
        };
    }

    /// The next changes to ask about, at most so many, and the place of the first.
    pub(super) fn next(&mut self, n_max: usize) -> Option<(usize, Vec<Change>)> {
        self.asked.clear();
        let mut next = Vec::new();
        for (at, (change, verdict)) in self.changes.iter().zip(&mut self.verdicts).enumerate() {
            if verdict.is_some() {
                continue;
            }
            if self.closed.contains(&change.writer) {
                *verdict = Some(Verdict::Skipped);
            } else if next.len() < n_max {
                self.asked.push_back(at);
                next.push(to_worker(change));
            }
        }
        self.asked.front().map(|first| (*first, next))
    }

    /// What came out of those that were [next](Self::next).
    pub(super) fn take(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            self.say(finding.into());
        }
    }

    /// The one that is being asked about is the culprit.
    pub(super) fn refuse(&mut self, why: &str) {
        let error = PeerError::new(ErrorCode::InvalidChange, why);
        self.say(Verdict::Refused(error));
    }

    fn say(&mut self, verdict: Verdict) {
        let Some(at) = self.asked.pop_front() else {
            return;
        };
        if let Some(change) = self.changes.get(at)
            && !matches!(verdict, Verdict::Accepted { .. })
        {
            self.closed.insert(change.writer);
        }
        if let Some(place) = self.verdicts.get_mut(at) {
            *place = Some(verdict);
        }
    }

    /// Those accepted so far.
    pub(super) fn accepted(&self) -> Vec<Change> {
        let known = self.changes.iter().zip(&self.verdicts);
        known
            .filter(|(_, verdict)| matches!(verdict, Some(Verdict::Accepted { .. })))
            .map(|(change, _)| to_worker(change))
            .collect()
    }

    /// A verdict for each change; those that nothing is known of cannot be checked now.
    pub(super) fn finish(self) -> Vec<Verdict> {
        let verdicts = self.verdicts.into_iter();
        verdicts
            .map(|verdict| verdict.unwrap_or_else(not_now))
            .collect()
    }
}

fn to_worker(change: &UncheckedChange) -> Change {
    Change {
        writer: change.writer,
        user: change.user.id.to_string(),
        bytes: change.bytes.clone(),
        reconciling: change.reconciling,
    }
}
