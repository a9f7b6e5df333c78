//! The history as it arrives (protocol.md section 7.2).

use bytes::Bytes;

use super::journal::Passed;
use super::partial::Taken;
use super::{DocumentState, Effect, Link, PendingJob, Plan, Turn};
use crate::client::replica::{Job, Target};
use crate::history::{Cursor, Seq};
use crate::ids::{Author, ChangeId, OriginId};
use crate::rng::Rng;
use crate::time::Time;
use crate::wire::{Ack, Changes, SnapshotMessage, check_of};

impl DocumentState {
    pub(crate) fn handle_head(&mut self, head: Seq, turn: &mut Turn) {
        if let Link::Streaming(stream) = &mut self.link
            && head > stream.head
        {
            stream.head = head;
            turn.touched = true;
            self.update_progress();
        }
    }

    pub(crate) fn handle_author(&mut self, origin: OriginId, author: Author) {
        if let Link::Streaming(stream) = &mut self.link {
            stream.authors.insert(author, origin);
        }
    }

    pub(crate) fn handle_changes(
        &mut self,
        now: Time,
        message: Changes,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        let Link::Streaming(stream) = &mut self.link else {
            return;
        };
        let first = stream.received.seq.next();
        if stream.awaits_snapshot || message.check != check_of(first) {
            return self.out_of_step(now, rng, turn);
        }
        let bytes = message
            .changes
            .iter()
            .map(|change| change.bytes.len())
            .sum();
        self.progress
            .changes(wide(message.changes.len()), wide(bytes));
        let mut cursor = stream.received;
        let mut import = Vec::with_capacity(message.changes.len());
        let mut passed = Passed::default();
        for change in message.changes {
            let Some(number) = change.number.resolve(cursor.seq.next()) else {
                return self.out_of_step(now, rng, turn);
            };
            cursor = cursor.with(number, &change.bytes);
            let id = stream.authors.get(&change.author).map(|origin| ChangeId {
                origin: *origin,
                number,
            });
            if self.headless {
                // No replica takes it over, so what is ours stays in the outbox, as something that the registry has: if the
                // registry ever forgets it, nothing else would tell.
                if let Some(id) = id {
                    self.outbox.commit_own(id);
                }
                continue;
            }
            let own = id.filter(|id| self.outbox.pass(*id));
            if let Some(id) = own {
                passed.own(id);
            }
            if self.keeps {
                passed.change(change.bytes.clone());
            }
            if own.is_none() || !stream.own_are_imported {
                import.push(change.bytes);
            }
        }
        self.received(cursor, import, passed, first, turn);
    }

    pub(crate) fn handle_ack(&mut self, now: Time, ack: Ack, rng: &mut Rng, turn: &mut Turn) {
        let Link::Streaming(stream) = &mut self.link else {
            return;
        };
        turn.touched = true;
        if ack.count == 0 {
            self.outbox.commit_front_through(ack.number);
            return;
        }
        let first = stream.received.seq.next();
        let passed = if stream.awaits_snapshot || ack.check != check_of(first) {
            None
        } else if self.headless {
            self.outbox.commit_front(ack.number, ack.count)
        } else {
            self.outbox.pass_front(ack.number, ack.count)
        };
        let Some(passed) = passed else {
            return self.out_of_step(now, rng, turn);
        };
        let cursor = passed.iter().fold(stream.received, |cursor, entry| {
            cursor.with(entry.id.number, &entry.bytes)
        });
        let mut own = Passed::default();
        for entry in &passed {
            own.own(entry.id);
            if self.keeps {
                own.change(entry.bytes.clone());
            }
        }
        let import = if stream.own_are_imported {
            Vec::new()
        } else {
            passed.into_iter().map(|entry| entry.bytes).collect()
        };
        self.received(cursor, import, own, first, turn);
    }

    pub(crate) fn handle_snapshot(
        &mut self,
        now: Time,
        snapshot: SnapshotMessage,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        let Link::Streaming(stream) = &mut self.link else {
            return;
        };
        if !stream.awaits_snapshot || snapshot.codec != 0 || snapshot.epoch != stream.received.epoch
        {
            return self.out_of_step(now, rng, turn);
        }
        turn.touched = true;
        let (seq, total) = (snapshot.seq, snapshot.total_bytes);
        let cursor = Cursor {
            epoch: snapshot.epoch,
            seq: snapshot.seq,
            digest: snapshot.digest,
        };
        let state = if self.headless {
            // No replica takes it over: only its end counts.
            let end = snapshot.offset.saturating_add(wide(snapshot.bytes.len()));
            (end >= total).then(Bytes::new)
        } else {
            match self.partial.take(snapshot) {
                Taken::Part => None,
                Taken::Whole(state) => Some(state),
                Taken::Misplaced => return self.out_of_step(now, rng, turn),
            }
        };
        let Some(state) = state else {
            let (received, _) = self.partial.progress();
            self.progress.snapshot(seq, received, total);
            return self.update_progress();
        };
        self.progress.snapshot(seq, total, total);
        stream.awaits_snapshot = false;
        stream.received = cursor;
        stream.head = stream.head.max(seq);
        if self.headless {
            return;
        }
        let (plan, open_head) = (stream.plan, stream.open_head);
        let (target, effect) = match plan {
            Plan::Follow => (Target::Main, Effect::Moved { cursor, first: seq }),
            Plan::Merge { .. } | Plan::Replace { .. } => {
                (Target::Shadow, Effect::Shadow { first: seq })
            }
        };
        let mut passed = Passed::snapshot(state.clone());
        if seq >= open_head && plan == Plan::Follow {
            // Nothing of what was committed before the open comes after the snapshot: the next `Ack` is not about that.
            for entry in self.outbox.take_covered() {
                passed.own(entry.id);
            }
        }
        let job = Job::ImportSnapshot {
            target,
            bytes: state,
        };
        self.queue_passing(job, effect, passed, turn);
        self.update_progress();
        self.finish_if_complete(turn);
    }

    /// The stream moved to `cursor`.
    fn received(
        &mut self,
        cursor: Cursor,
        changes: Vec<Bytes>,
        mut passed: Passed,
        first: Seq,
        turn: &mut Turn,
    ) {
        let Link::Streaming(stream) = &mut self.link else {
            return;
        };
        turn.touched = true;
        stream.received = cursor;
        stream.head = stream.head.max(cursor.seq);
        let (plan, open_head) = (stream.plan, stream.open_head);
        self.update_progress();
        if self.headless {
            return self.keep_acknowledged();
        }
        let (target, effect) = match plan {
            Plan::Follow => (Target::Main, Effect::Moved { cursor, first }),
            Plan::Merge { .. } | Plan::Replace { .. } => (Target::Shadow, Effect::Shadow { first }),
        };
        if cursor.seq >= open_head && plan == Plan::Follow {
            // What was committed before the open has passed by, or is covered by a snapshot. It leaves the store when the
            // cursor moves, not before: until then nothing else there holds it.
            for entry in self.outbox.take_covered() {
                passed.own(entry.id);
                if self.keeps {
                    passed.change(entry.bytes);
                }
            }
        }
        if !changes.is_empty() {
            let job = Job::Import {
                target,
                changes,
                first,
            };
            self.queue_passing(job, effect, passed, turn);
        } else if let Effect::Moved { cursor, .. } = effect {
            self.move_without_import(cursor, passed);
            self.backoff.reset();
        }
        self.finish_if_complete(turn);
    }

    /// There is nothing to import, but what is before it may still be being imported: the cursor must not overtake it.
    fn move_without_import(&mut self, cursor: Cursor, passed: Passed) {
        let last = self
            .jobs
            .iter_mut()
            .rev()
            .find_map(|job| match &mut job.effect {
                Effect::Moved { cursor, .. }
                | Effect::Merged { cursor, .. }
                | Effect::Replaced { cursor, .. } => Some((cursor, &mut job.passed)),
                Effect::Shadow { .. } | Effect::Snapshot | Effect::Folded(_) => None,
            });
        match last {
            Some((last, before)) => {
                *last = cursor;
                before.append(passed);
            }
            None => {
                self.cursor = Some(cursor);
                self.keep_passed(passed);
            }
        }
    }

    /// Ends a reset when the shadow holds everything that was in the log at the open.
    pub(super) fn finish_if_complete(&mut self, turn: &mut Turn) {
        let Link::Streaming(stream) = &mut self.link else {
            return;
        };
        if stream.awaits_snapshot || stream.received.seq < stream.open_head {
            return;
        }
        let cursor = stream.received;
        let channel = stream.channel;
        match std::mem::replace(&mut stream.plan, Plan::Follow) {
            Plan::Follow => {}
            Plan::Merge { turn: waited_for } => {
                self.fresh = None;
                self.queue(
                    Job::Merge { keep: self.keeps },
                    Effect::Merged {
                        cursor,
                        turn: waited_for,
                        channel,
                    },
                    turn,
                );
            }
            Plan::Replace { replay } => {
                let keep = self.keeps;
                self.queue(
                    Job::Replace { keep },
                    Effect::Replaced { cursor, replay },
                    turn,
                );
            }
        }
    }

    pub(super) fn queue(&mut self, job: Job, effect: Effect, turn: &mut Turn) {
        self.queue_passing(job, effect, Passed::default(), turn);
    }

    fn queue_passing(&mut self, job: Job, effect: Effect, passed: Passed, turn: &mut Turn) {
        self.next_job += 1;
        self.jobs.push_back(PendingJob {
            number: self.next_job,
            effect,
            passed,
        });
        turn.jobs.push((self.next_job, job));
        turn.touched = true;
    }
}

fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
