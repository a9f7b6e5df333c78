//! What finished jobs on the replica mean: the cursor, the end of a reset (protocol.md section 8).

use std::sync::Arc;

use bytes::Bytes;

use super::{DocumentState, Effect, Fresh, Link, Turn};
use crate::client::event::{DocumentEvent, RefusedChange, RefusedReason};
use crate::client::outbox::Entry;
use crate::client::replica::{JobOutcome, Replayed};
use crate::history::Seq;
use crate::ids::{Channel, OriginId};
use crate::rng::Rng;
use crate::time::Time;
use crate::wire::{AccessLevel, Close, Message, Push};

impl DocumentState {
    pub(crate) fn handle_job(
        &mut self,
        now: Time,
        number: u64,
        outcome: JobOutcome,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        let Some(job) = self.jobs.pop_front() else {
            return;
        };
        debug_assert_eq!(job.number, number, "jobs are answered in order");
        turn.touched = true;
        match (job.effect, outcome) {
            (_, JobOutcome::Poisoned) => self.rebuild(turn),
            (Effect::Moved { cursor, .. }, JobOutcome::Done { pending }) => {
                self.cursor = Some(cursor);
                self.keep_passed(job.passed);
                self.backoff.reset();
                self.note_pending(now, pending, rng, turn);
                self.fold_tail(turn);
            }
            (Effect::Shadow { .. }, JobOutcome::Done { .. }) => {}
            (Effect::Snapshot, JobOutcome::Snapshot(snapshot)) => self.finish_fold(snapshot),
            (Effect::Snapshot, _) => self.finish_fold(None),
            (Effect::Folded(asked), JobOutcome::Snapshot(folded)) => {
                self.offer_fold(asked, folded, turn);
            }
            (Effect::Folded(_), _) => {}
            (
                Effect::Merged {
                    cursor,
                    turn: waited_for,
                    channel,
                },
                JobOutcome::Merged {
                    lacking,
                    pending,
                    snapshot,
                },
            ) => {
                self.cursor = Some(cursor);
                self.keep_snapshot(snapshot);
                self.keep_passed(job.passed);
                self.backoff.reset();
                self.note_pending_after_reset(pending);
                self.reconcile(channel, lacking, waited_for, rng, turn);
            }
            (
                Effect::Replaced { cursor, .. },
                JobOutcome::Replaced {
                    replayed,
                    pending,
                    snapshot,
                },
            ) => {
                self.keep_snapshot(snapshot);
                self.keep_passed(job.passed);
                let refused = self.fresh.take() == Some(Fresh::Replace);
                self.owes = false;
                self.cursor = Some(cursor);
                self.backoff.reset();
                self.note_pending_after_reset(pending);
                self.finish_replacement(replayed, refused, rng, turn);
            }
            (
                Effect::Moved { first, .. } | Effect::Shadow { first },
                JobOutcome::Invalid { index },
            ) => {
                self.damaged(first.plus(index), turn);
            }
            (Effect::Merged { cursor, .. } | Effect::Replaced { cursor, .. }, _) => {
                self.damaged(cursor.seq, turn)
            }
            (Effect::Moved { first, .. } | Effect::Shadow { first }, _) => {
                self.damaged(first, turn)
            }
        }
    }

    /// Scenario 23: one resync for missing dependencies, not one for each change, and none while it did not help.
    fn note_pending(&mut self, now: Time, pending: bool, rng: &mut Rng, turn: &mut Turn) {
        self.pending = pending;
        if !pending {
            self.resynced = false;
        } else if !self.resynced && self.fresh.is_none() {
            self.resynced = true;
            self.fresh = Some(Fresh::Merge);
            self.out_of_step(now, rng, turn);
        }
    }

    /// The whole state has just been read: if something is missing still, reading it again does not help.
    const fn note_pending_after_reset(&mut self, pending: bool) {
        self.pending = pending;
        self.resynced = pending;
    }

    fn damaged(&mut self, sequence: Seq, turn: &mut Turn) {
        if let Link::Streaming(stream) = &self.link {
            turn.messages.push(Message::Close(Close {
                channel: stream.channel,
            }));
            turn.left = Some(stream.channel);
        }
        self.link = Link::Damaged(sequence);
        self.outbox.requeue();
    }

    /// Ends a merge: pushes what the server lacks, in front of the outbox, under an origin of its own.
    fn reconcile(
        &mut self,
        channel: Channel,
        lacking: Option<Bytes>,
        waited_for: bool,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        drop(self.outbox.take_covered());
        let may_write = self.access >= AccessLevel::Write;
        self.owes = lacking.is_some() && !may_write;
        match lacking {
            Some(bytes) if may_write => {
                self.outbox
                    .push_front_reconciling(bytes, OriginId(rng.next_u128()));
            }
            _ if waited_for
                && matches!(&self.link, Link::Streaming(stream) if stream.channel == channel) =>
            {
                turn.messages.push(Message::Push(Push {
                    channel,
                    origin: OriginId(rng.next_u128()),
                    first_number: 1,
                    changes: Vec::new(),
                    reconciling: true,
                }));
            }
            _ => {}
        }
        // What has passed by in the shadow has left it too.
        self.keep_outbox();
    }

    fn finish_replacement(
        &mut self,
        replayed: Replayed,
        refused: bool,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        turn.events.push(DocumentEvent::Replaced);
        drop(self.outbox.take_covered());
        let entries = std::mem::take(&mut self.replaying);
        self.outbox.restart(OriginId(rng.next_u128()));
        if replayed != Replayed::No {
            self.replayed
                .extend(entries.iter().map(|entry| entry.ordinal));
        }
        match replayed {
            Replayed::No => {}
            Replayed::AsItWas => {
                self.outbox.replay(entries);
                return self.keep_renamed();
            }
            Replayed::Anew(change) => {
                // It stands for all: whoever waits for one of them waits for the first.
                if let (Some(bytes), Some(first)) = (change, entries.into_iter().next()) {
                    self.outbox.replay([Entry { bytes, ..first }]);
                }
                return self.keep_renamed();
            }
        }
        let (reason, message): (_, Arc<str>) = if refused {
            (RefusedReason::Behind, "made after a refused change".into())
        } else {
            (
                RefusedReason::HistoryReset,
                "the document's history was rewritten".into(),
            )
        };
        self.lose(&entries);
        let changes: Vec<RefusedChange> = entries
            .into_iter()
            .map(|entry| RefusedChange {
                id: entry.id,
                bytes: entry.bytes,
                reason,
                message: message.clone(),
            })
            .collect();
        self.hand_back(changes, turn);
        self.keep_outbox();
    }
}
