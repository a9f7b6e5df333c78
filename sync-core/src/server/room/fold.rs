//! Compaction: when the log is folded into a new snapshot, and what of the log stays (design 2.4).
//!
//! The room decides when, and what is dropped; whoever drives it reads committed rows and runs the engine, beside the
//! room and for as long as that takes.

use std::sync::Arc;

use bytes::Bytes;

use super::ages::Ages;
use super::member::{Member, MemberState};
use super::{Purpose, Room, RoomEvent, RoomOutput};
use crate::engine::EngineError;
use crate::history::{Epoch, Seq};
use crate::ids::EngineId;
use crate::registry::{DocumentMeta, DocumentSize, RegistryError, Snapshot};
use crate::server::registry::RegistryRequest;
use crate::time::Time;

/// A fold of the log that a room wants; see [`super::RoomOutput::Fold`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoldRequest {
    /// The engine of the document, which has a [`Folder`](crate::engine::Folder) unless the fold is there.
    pub engine: EngineId,
    /// The history.
    pub epoch: Epoch,
    /// Sequence of the snapshot that the room knows of.
    pub after: Seq,
    /// Sequence of the snapshot to be made: a committed one.
    pub through: Seq,
    /// The fold, if a client has offered it: then only the log is to be read.
    pub offered: Option<Bytes>,
}

/// A fold of the log, proven.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoldedLog {
    /// The new snapshot: its bytes are the fold, its digest is that of the row at its sequence.
    pub snapshot: Snapshot,
    /// Bytes of each row that the registry still has, oldest first, up to the snapshot's sequence.
    pub row_bytes: Vec<usize>,
}

impl FoldRequest {
    /// A fold of everything through a sequence, after the snapshot that stands at another one.
    #[must_use]
    pub const fn new(engine: EngineId, epoch: Epoch, after: Seq, through: Seq) -> Self {
        Self {
            engine,
            epoch,
            after,
            through,
            offered: None,
        }
    }
}

impl FoldedLog {
    /// A fold.
    #[must_use]
    pub const fn new(snapshot: Snapshot, row_bytes: Vec<usize>) -> Self {
        Self {
            snapshot,
            row_bytes,
        }
    }

    /// The rows after this sequence, up to the fold, have at most so many bytes together.
    #[must_use]
    pub fn keep_after(&self, bytes_max: usize) -> Seq {
        newest(self.snapshot.seq, &self.row_bytes, bytes_max)
    }
}

/// Why a log was not folded. Nothing has changed: the document goes on with the log that it has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FoldError {
    /// Somebody else's snapshot is newer than the one that the room knew of. No failure: the room goes on from that.
    #[error("there is a snapshot at {seq} already")]
    Newer {
        /// Its sequence.
        seq: Seq,
    },
    /// The document has another history by now. No failure either.
    #[error("the document has another history")]
    HistoryReplaced,
    /// The registry did not give or take what was needed.
    #[error("the registry failed")]
    Registry(#[source] RegistryError),
    /// The engine did not fold the log.
    #[error("the engine failed")]
    Engine(#[source] EngineError),
    /// Whatever ran the engine did not answer.
    #[error("no engine could be run on the document: {what}")]
    Host {
        /// Why not.
        what: String,
    },
}

/// What a room knows of its log's length.
#[derive(Debug, Clone)]
pub(super) struct Folding {
    pub(super) engine: Option<EngineId>,
    pub(super) snapshot_seq: Seq,
    /// 0 if not known.
    snapshot_bytes: usize,
    /// Published since the snapshot, as far as this room knows.
    bytes: usize,
    /// Something has been published since the last fold began: only that makes room for another.
    pub(super) is_due: bool,
    /// After a failure: not before the log has this many changes or bytes.
    not_before: (u64, usize),
    ages: Ages,
    step: Step,
}

#[derive(Debug, Clone)]
enum Step {
    Idle,
    /// The driver folds, or the registry compacts.
    Running(Running),
}

#[derive(Debug, Clone, Copy)]
struct Running {
    epoch: Epoch,
    through: Seq,
    /// Changes and bytes that the log had when it began.
    log: (u64, usize),
    began: Time,
    /// Bytes of the new snapshot, once there is one.
    snapshot_bytes: usize,
    keep_after: Seq,
}

impl Folding {
    pub(super) fn new() -> Self {
        Self {
            engine: None,
            snapshot_seq: Seq::ZERO,
            snapshot_bytes: 0,
            bytes: 0,
            is_due: false,
            not_before: (0, 0),
            ages: Ages::default(),
            step: Step::Idle,
        }
    }

    pub(super) const fn engine(&self) -> Option<&EngineId> {
        self.engine.as_ref()
    }

    /// Bytes of the snapshot, if they are known.
    pub(super) const fn snapshot_bytes(&self) -> Option<usize> {
        match self.snapshot_bytes {
            0 => None,
            bytes => Some(bytes),
        }
    }

    /// Bytes published since the snapshot, as far as this room knows.
    pub(super) const fn log_bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is something under way that the room must not unload before.
    pub(super) const fn is_running(&self) -> bool {
        matches!(self.step, Step::Running(_))
    }

    /// Another history begins. What is under way for the older one ends by itself.
    pub(super) fn reset(&mut self, meta: &DocumentMeta) {
        let step = std::mem::replace(&mut self.step, Step::Idle);
        *self = Self {
            engine: Some(meta.engine.clone()),
            snapshot_seq: meta.snapshot_seq,
            step,
            ..Self::new()
        };
    }

    /// There is a snapshot at this sequence, of this history.
    pub(super) fn learn(&mut self, snapshot_seq: Seq) {
        if snapshot_seq > self.snapshot_seq {
            self.snapshot_seq = snapshot_seq;
            // How many of the bytes are after it is not known; few, for it is new.
            self.bytes = 0;
            self.not_before = (0, 0);
        }
    }

    pub(super) const fn published(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.is_due = true;
    }

    /// Takes what the registry says of its length, and what has been published since.
    pub(super) fn measure(&mut self, size: &DocumentSize, newer: usize) {
        let narrow = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        if size.snapshot_seq >= self.snapshot_seq {
            self.snapshot_seq = size.snapshot_seq;
            self.snapshot_bytes = narrow(size.snapshot_bytes);
            self.bytes = narrow(size.log_bytes).saturating_add(newer);
        }
    }

    /// Bytes of the snapshot and of what is after it.
    pub(super) const fn size(&self) -> usize {
        self.snapshot_bytes.saturating_add(self.bytes)
    }

    /// Begins no other before the log is twice as long as it is now: what failed once fails as often as that.
    fn back_off(&mut self, (changes, bytes): (u64, usize), bytes_min: usize) {
        self.not_before = (
            changes.saturating_mul(2),
            bytes.max(bytes_min).saturating_mul(2),
        );
    }
}

impl Room {
    /// Asks for a fold, if the log is long enough and none is under way.
    pub(super) fn start_fold(&mut self, now: Time) {
        self.end_vain_request(now);
        let current = self.current();
        let Some((epoch, through)) = current.map(|history| (history.epoch, history.head)) else {
            return;
        };
        let age = self.keep_age();
        self.folding.ages.note(now, through, age);
        if !self.folding.is_due || self.folding.is_running() || self.offers.is_asked() {
            return;
        }
        let folding = &self.folding;
        let changes = through.0.saturating_sub(folding.snapshot_seq.0);
        let bytes = folding.bytes;
        let bytes_min = self.config.fold_bytes.max(folding.snapshot_bytes);
        let is_long = changes >= self.config.fold_changes.max(folding.not_before.0)
            || bytes >= bytes_min.max(folding.not_before.1)
            || (self.is_fold_urgent() && bytes >= folding.not_before.1);
        if !is_long || changes == 0 {
            return;
        }
        if self.is_relayed() {
            return self.ask_for_fold(now, (changes, bytes));
        }
        let after = folding.snapshot_seq;
        self.folding.is_due = false;
        let validator = self
            .folding
            .engine
            .as_ref()
            .and_then(|engine| self.config.engines.validator(engine).flatten());
        let Some(engine) = validator
            .filter(|validator| validator.folder().is_some())
            .and(self.folding.engine.clone())
        else {
            return;
        };
        let request = FoldRequest::new(engine, epoch, after, through);
        self.begin_fold(now, request, (changes, bytes));
    }

    /// Has the log folded, which has so many changes and bytes now.
    pub(super) fn begin_fold(&mut self, now: Time, request: FoldRequest, log: (u64, usize)) {
        self.folding.step = Step::Running(Running {
            epoch: request.epoch,
            through: request.through,
            log,
            began: now,
            snapshot_bytes: 0,
            keep_after: Seq::ZERO,
        });
        self.outputs.push_back(RoomOutput::Fold(request));
    }

    /// Takes the outcome of a [`RoomOutput::Fold`].
    pub fn handle_folded(&mut self, now: Time, result: Result<FoldedLog, FoldError>) {
        if let Step::Running(mut running) = self.folding.step {
            let is_current = self
                .current()
                .is_some_and(|history| history.epoch == running.epoch);
            match result {
                // Nothing is said about a history that is no more.
                _ if !is_current => self.folding.step = Step::Idle,
                Ok(folded) if folded.snapshot.seq == running.through => {
                    running.snapshot_bytes = folded.snapshot.bytes.len();
                    running.keep_after = self.keep_after(now, &folded);
                    self.folding.step = Step::Running(running);
                    self.request(
                        Purpose::Compact,
                        RegistryRequest::Compact {
                            epoch: running.epoch,
                            snapshot: folded.snapshot,
                            keep_after: running.keep_after,
                        },
                    );
                }
                Ok(_) => self.fold_failed(running, FoldError::Engine(EngineError::Unproven)),
                Err(error) => self.fold_failed(running, error),
            }
        }
        self.turn(now);
    }

    pub(super) fn on_compact(&mut self, now: Time, result: Result<(), RegistryError>) {
        let Step::Running(running) = self.folding.step else {
            return;
        };
        match result {
            Ok(()) => {
                self.folding.step = Step::Idle;
                let is_current = self
                    .current()
                    .is_some_and(|history| history.epoch == running.epoch);
                if is_current {
                    let folding = &mut self.folding;
                    let bytes = folding.bytes.saturating_sub(running.log.1);
                    folding.learn(running.through);
                    folding.bytes = bytes;
                    folding.snapshot_bytes = running.snapshot_bytes;
                    folding.not_before = (0, 0);
                    self.mind_size();
                }
                self.event(RoomEvent::Folded {
                    seq: running.through,
                    bytes: running.snapshot_bytes,
                    keep_after: running.keep_after,
                    took: now.since(running.began),
                });
            }
            Err(RegistryError::Fenced { .. }) => self.folding.step = Step::Idle,
            // `Unknown` too: whether the snapshot is there shows when the document is read next.
            Err(error) => self.fold_failed(running, FoldError::Registry(error)),
        }
    }

    fn fold_failed(&mut self, running: Running, error: FoldError) {
        self.folding.step = Step::Idle;
        match error {
            FoldError::Newer { seq } => self.folding.learn(seq),
            FoldError::HistoryReplaced => {}
            error => {
                let bytes_min = self.config.fold_bytes.max(self.folding.snapshot_bytes);
                self.folding.back_off(running.log, bytes_min);
                self.event(RoomEvent::FoldFailed {
                    through: running.through,
                    error: Arc::new(error),
                });
            }
        }
    }

    /// Rows through this one are dropped once the fold is there.
    ///
    /// Kept are the newest rows, by bytes, so that whoever comes back soon is sent what it missed. Within a larger bound
    /// also those younger than some age, so that "soon" is a time, and whatever a member has yet to be sent, so that also
    /// a slow one arrives.
    fn keep_after(&self, now: Time, folded: &FoldedLog) -> Seq {
        let twice = folded.snapshot.bytes.len().saturating_mul(2);
        let pinned_bytes = self.config.pin_bytes_max.max(twice);
        let kept = folded.keep_after(self.config.keep_bytes);
        let pinnable = folded.keep_after(pinned_bytes);
        let positions = self.members.values().filter_map(position);
        let old = self.folding.ages.older(now, self.keep_age());
        let needed = positions.fold(old, Seq::min);
        kept.min(needed.max(pinnable))
    }
}

/// The rows after this sequence, up to `through`, have at most so many bytes together.
fn newest(through: Seq, row_bytes: &[usize], bytes_max: usize) -> Seq {
    let mut left = bytes_max;
    let mut first = through;
    for bytes in row_bytes.iter().rev() {
        let Some(rest) = left.checked_sub(*bytes) else {
            break;
        };
        left = rest;
        first = Seq(first.0.saturating_sub(1));
    }
    first
}

/// The sequence after which a member still needs the log.
fn position(member: &Member) -> Option<Seq> {
    let MemberState::Streaming(stream) = &member.state else {
        return None;
    };
    let sending = stream.sending.as_ref().map(|(_, last)| *last);
    let read = stream.catch_up.back().map(|(_, last)| *last);
    let sent = Seq(stream.next.0.saturating_sub(1));
    let snapshot = stream.snapshot.as_ref().map(|(pieces, _)| pieces.seq());
    [snapshot, sending, read]
        .into_iter()
        .flatten()
        .chain([sent])
        .max()
}
