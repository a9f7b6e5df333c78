//! The history as it arrives (protocol.md section 7.2).

use bytes::Bytes;

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
        let mut cursor = stream.received;
        let mut import = Vec::with_capacity(message.changes.len());
        for change in message.changes {
            let Some(number) = change.number.resolve(cursor.seq.next()) else {
                return self.out_of_step(now, rng, turn);
            };
            cursor = cursor.with(number, &change.bytes);
            let own = stream.authors.get(&change.author).is_some_and(|origin| {
                self.outbox.pass(ChangeId {
                    origin: *origin,
                    number,
                })
            });
            if !(own && stream.own_are_imported) {
                import.push(change.bytes);
            }
        }
        self.received(cursor, import, first, turn);
    }

    pub(crate) fn handle_ack(&mut self, now: Time, ack: Ack, rng: &mut Rng, turn: &mut Turn) {
        let Link::Streaming(stream) = &mut self.link else {
            return;
        };
        turn.touched = true;
        if ack.count == 0 {
            self.outbox.commit_front_through(ack.number);
            return self.leave_if_done(turn);
        }
        let first = stream.received.seq.next();
        let passed = if stream.awaits_snapshot || ack.check != check_of(first) {
            None
        } else {
            self.outbox.pass_front(ack.number, ack.count)
        };
        let Some(passed) = passed else {
            return self.out_of_step(now, rng, turn);
        };
        let cursor = passed.iter().fold(stream.received, |cursor, entry| {
            cursor.with(entry.id.number, &entry.bytes)
        });
        let import = if stream.own_are_imported {
            Vec::new()
        } else {
            passed.into_iter().map(|entry| entry.bytes).collect()
        };
        self.received(cursor, import, first, turn);
        self.leave_if_done(turn);
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
        stream.awaits_snapshot = false;
        let cursor = Cursor {
            epoch: snapshot.epoch,
            seq: snapshot.seq,
            digest: snapshot.digest,
        };
        stream.received = cursor;
        stream.started = snapshot.seq;
        stream.head = stream.head.max(snapshot.seq);
        let (target, effect) = match stream.plan {
            Plan::Follow => (
                Target::Main,
                Effect::Moved {
                    cursor,
                    first: snapshot.seq,
                },
            ),
            Plan::Merge { .. } | Plan::Replace { .. } => (
                Target::Shadow,
                Effect::Shadow {
                    first: snapshot.seq,
                },
            ),
        };
        self.queue(
            Job::ImportSnapshot {
                target,
                bytes: snapshot.bytes,
            },
            effect,
            turn,
        );
        self.finish_if_complete(turn);
    }

    /// The stream moved to `cursor`.
    fn received(&mut self, cursor: Cursor, changes: Vec<Bytes>, first: Seq, turn: &mut Turn) {
        let Link::Streaming(stream) = &mut self.link else {
            return;
        };
        turn.touched = true;
        stream.received = cursor;
        stream.head = stream.head.max(cursor.seq);
        let (target, effect) = match stream.plan {
            Plan::Follow => (Target::Main, Effect::Moved { cursor, first }),
            Plan::Merge { .. } | Plan::Replace { .. } => (Target::Shadow, Effect::Shadow { first }),
        };
        if cursor.seq >= stream.open_head {
            // What was committed before the open has passed by, or is covered by a snapshot.
            self.outbox.drop_covered();
        }
        if !changes.is_empty() {
            self.queue(
                Job::Import {
                    target,
                    changes,
                    first,
                },
                effect,
                turn,
            );
        } else if let Effect::Moved { cursor, .. } = effect {
            match self.jobs.back_mut() {
                // Nothing to import, but what is before it is still being imported: the cursor must not overtake it.
                Some(PendingJob {
                    effect:
                        Effect::Moved { cursor: last, .. }
                        | Effect::Merged { cursor: last, .. }
                        | Effect::Replaced { cursor: last, .. },
                    ..
                }) => *last = cursor,
                _ => self.cursor = Some(cursor),
            }
            self.backoff.reset();
        }
        self.finish_if_complete(turn);
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
                    Job::Merge,
                    Effect::Merged {
                        cursor,
                        turn: waited_for,
                        channel,
                    },
                    turn,
                );
            }
            Plan::Replace { replay } => {
                self.queue(Job::Replace, Effect::Replaced { cursor, replay }, turn)
            }
        }
    }

    pub(super) fn queue(&mut self, job: Job, effect: Effect, turn: &mut Turn) {
        self.next_job += 1;
        self.jobs.push_back(PendingJob {
            number: self.next_job,
            effect,
        });
        turn.jobs.push((self.next_job, job));
        turn.touched = true;
    }
}
