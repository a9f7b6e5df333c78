//! Asking a ledger about a batch of changes.

use std::collections::BTreeSet;

use bytes::Bytes;
use sync_core::engine::{EngineError, Ledger, Taken};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::ids::User;
use sync_core::server::{UncheckedChange, Verdict};

/// A change, as a ledger is asked about it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) writer: u32,
    pub(crate) user: &'a User,
    pub(crate) bytes: &'a Bytes,
    pub(crate) reconciling: bool,
}

impl<'a> From<&'a UncheckedChange> for Asked<'a> {
    fn from(change: &'a UncheckedChange) -> Self {
        Self {
            writer: change.writer,
            user: &change.user,
            bytes: &change.bytes,
            reconciling: change.reconciling,
        }
    }
}

/// Asks about changes, in order, from where `verdicts` end. Stops early if the ledger is spent.
pub(crate) fn check<'a>(
    ledger: &mut dyn Ledger,
    changes: impl Iterator<Item = Asked<'a>>,
    closed: &mut BTreeSet<u32>,
    verdicts: &mut Vec<Verdict>,
) {
    for change in changes.skip(verdicts.len()) {
        if ledger.is_spent() {
            return;
        }
        let verdict = if closed.contains(&change.writer) {
            Verdict::Skipped
        } else {
            match ledger.check(change.bytes, change.user, change.reconciling) {
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

/// What is told of a change that cannot be checked now.
pub(crate) fn not_now() -> Verdict {
    let error = PeerError::new(
        ErrorCode::CheckUnavailable,
        "changes cannot be checked at the moment",
    );
    Verdict::Unknown(error)
}
