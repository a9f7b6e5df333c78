//! Answering an open: where the client stands, and where it goes on (`docs/protocol.md` section 8.1).

use std::sync::Arc;

use super::member::{MemberState, Stream, Writing};
use super::open::{Read, named_origins};
use super::pieces::Pieces;
use super::reconcile::Slot;
use super::{Room, RoomEvent};
use crate::history::{Cursor, EpochMode, Seq};
use crate::ids::{OriginId, SessionId};
use crate::planted::Bug;
use crate::registry::{DocumentMeta, StoredChange, Tail};
use crate::time::Time;
use crate::wire::{AccessLevel, Continuation, Message, Opened, Reset};

/// How an open continues, before it is known what has to be sent for that.
enum Verdict {
    /// From a position on; with rows of the log that have been read already.
    Resume(Seq, Vec<StoredChange>),
    Snapshot,
    Reset(Reset),
}

impl Room {
    /// Answers the open if everything that it waits for is there.
    pub(super) fn finish_open(&mut self, now: Time, key: (SessionId, u32)) {
        let current = self.current().map(|history| (history.epoch, history.read));
        let published = self.head();
        let (ignores_digest, has_memory) = (
            self.config.has(Bug::DigestIgnored),
            self.config.has(Bug::ResetFromMemory),
        );
        let Some(member) = self.live(key) else {
            return;
        };
        let MemberState::Opening(opening) = &mut member.state else {
            return;
        };
        let Some((number, meta)) = opening.meta.clone() else {
            return;
        };
        if opening.tail.is_pending() || opening.origins.is_pending() {
            return;
        }
        if current.is_none_or(|(epoch, read)| epoch != meta.epoch || number < read) {
            return self.start_open(key);
        }
        let cursor = member.open.cursor;
        let is_beyond = |cursor: Cursor| cursor.epoch == meta.epoch && cursor.seq > published;
        let verdict = match verdict(&meta, cursor, opening.tail.take(), ignores_digest) {
            Ok(_) if has_memory && cursor.is_some_and(is_beyond) => Verdict::Reset(Reset::Merge),
            Ok(verdict) => verdict,
            Err(HistoryChanged) => return self.start_open(key),
        };
        let can_write = member.open.access >= AccessLevel::Write;
        let must_wait = matches!(verdict, Verdict::Reset(Reset::Merge))
            && can_write
            && self.slot.as_ref().is_some_and(|slot| slot.member != key);
        let needs_snapshot = match verdict {
            Verdict::Resume(..) => false,
            Verdict::Snapshot => true,
            Verdict::Reset(_) => meta.snapshot_seq > Seq::ZERO && !must_wait,
        };
        if needs_snapshot
            && self
                .snapshot
                .as_ref()
                .is_none_or(|snapshot| snapshot.seq() < meta.snapshot_seq)
        {
            // The cursor is judged again then, on the same reads.
            if let Some(opening) = self.opening(key)
                && cursor.is_some_and(|cursor| cursor.epoch == meta.epoch)
            {
                opening.tail = Read::Done(retold(&verdict, &meta));
            }
            return self.read_snapshot(key);
        }
        self.answer_open(now, key, &meta, verdict, must_wait);
    }

    /// Queues `Opened` and puts the member at its place in the history.
    fn answer_open(
        &mut self,
        now: Time,
        key: (SessionId, u32),
        meta: &DocumentMeta,
        verdict: Verdict,
        must_wait: bool,
    ) {
        let snapshot = self
            .snapshot
            .as_ref()
            .filter(|_| meta.snapshot_seq > Seq::ZERO)
            .cloned();
        let total_bytes = snapshot.as_ref().map_or(0, |pieces| pieces.total_bytes());
        let Some(partial) = self.live(key).map(|member| member.open.partial) else {
            return;
        };
        let whole = |snapshot: Option<Arc<Pieces>>| match snapshot {
            Some(pieces) => {
                let mut stream = Stream::new(pieces.seq().next());
                let at = pieces.after(partial);
                stream.snapshot = Some((pieces, at));
                stream
            }
            None => Stream::new(Seq::ZERO.next()),
        };
        let mut takes_turn = false;
        let (next, state) = match verdict {
            _ if must_wait => (Continuation::Wait, MemberState::Waiting),
            Verdict::Resume(from, mut rows) => {
                // One change may be larger than what was asked for: it is read again when it can be sent.
                let bytes: usize = rows.iter().map(|row| row.bytes.len()).sum();
                if bytes > self.config.open_bytes() {
                    rows.clear();
                }
                let mut stream = Stream::new(from.next());
                stream.catch_up = self.encode_rows(from, rows).into();
                (Continuation::Resume, MemberState::Streaming(stream))
            }
            Verdict::Snapshot => (
                Continuation::Snapshot { total_bytes },
                MemberState::Streaming(whole(snapshot)),
            ),
            Verdict::Reset(reset) => {
                takes_turn = reset == Reset::Merge;
                (
                    Continuation::Reset { reset, total_bytes },
                    MemberState::Streaming(whole(snapshot)),
                )
            }
        };
        let Some(origins) = self.tell_origins(key) else {
            return;
        };
        let (channel, head) = (self.channel, meta.head.max(self.head()));
        let Some(member) = self.live(key) else {
            return;
        };
        let access = member.open.access;
        let opened = Opened {
            request: member.open.request,
            channel,
            epoch: meta.epoch,
            mode: meta.mode,
            head,
            access,
            next,
            origins,
        };
        let is_first = !std::mem::replace(&mut member.announced, true);
        let asked = member.asked.take();
        member.state = state;
        if !must_wait {
            member.writing = Writing::Open;
        }
        if must_wait {
            self.waiting.push_back(key);
        } else if takes_turn && access >= AccessLevel::Write {
            self.slot.get_or_insert(Slot {
                member: key,
                deadline: now + self.config.reconcile_timeout,
            });
        } else {
            self.leave_slot(now, key);
        }
        if let Some(asked) = asked {
            self.counts.totals.opens.record(now.since(asked));
        }
        self.prompt(key.0, &Message::Opened(opened));
        self.join_presence(key.0);
        if is_first {
            self.event(RoomEvent::Opened {
                session: key.0,
                access,
            });
        }
    }

    /// Numbers the origins of an open, and remembers what the registry said of them.
    fn tell_origins(
        &mut self,
        key: (SessionId, u32),
    ) -> Option<Vec<(OriginId, u64, crate::ids::Author)>> {
        let member = self.live(key)?;
        let MemberState::Opening(opening) = &mut member.state else {
            return None;
        };
        let entries = opening.origins.take()?;
        let user = member.open.user.clone();
        let named = named_origins(&member.open);
        let mut told = Vec::with_capacity(named.len());
        for (origin, entry) in named.into_iter().zip(entries) {
            let last = match entry {
                Some(entry) if entry.user == user => Some(entry.last),
                // Another user's: whatever is pushed under it will be refused.
                Some(_) => None,
                None => Some(0),
            };
            let author = self.author(origin);
            told.push((origin, last.unwrap_or(0), author));
            if let Some(member) = self.live(key) {
                member.origins.insert(origin, last);
            }
        }
        Some(told)
    }
}

struct HistoryChanged;

/// The table of `docs/protocol.md` section 8.1.
fn verdict(
    meta: &DocumentMeta,
    cursor: Option<Cursor>,
    tail: Option<Tail>,
    ignores_digest: bool,
) -> Result<Verdict, HistoryChanged> {
    let Some(cursor) = cursor else {
        return Ok(if meta.snapshot_seq > Seq::ZERO {
            Verdict::Snapshot
        } else {
            Verdict::Resume(Seq::ZERO, Vec::new())
        });
    };
    if cursor.epoch != meta.epoch && !meta.epoch.may_come_of(cursor.epoch) {
        // A copy took the place of what the client has, whatever the copy's own history was made for.
        return Ok(Verdict::Reset(Reset::Merge));
    }
    if cursor.epoch != meta.epoch {
        return Ok(Verdict::Reset(match meta.mode {
            EpochMode::New | EpochMode::Merge => Reset::Merge,
            EpochMode::Rebase => Reset::Rebase,
            EpochMode::Discard => Reset::Discard,
        }));
    }
    match tail {
        Some(
            Tail::Changes { epoch, .. }
            | Tail::Compacted { epoch, .. }
            | Tail::BeyondHead { epoch, .. },
        ) if epoch != meta.epoch => Err(HistoryChanged),
        Some(Tail::Changes {
            digest, changes, ..
        }) if digest == cursor.digest || ignores_digest => Ok(Verdict::Resume(cursor.seq, changes)),
        Some(Tail::Changes { .. } | Tail::BeyondHead { .. }) => Ok(Verdict::Reset(Reset::Merge)),
        Some(Tail::Compacted { .. }) if meta.snapshot_seq >= cursor.seq => Ok(Verdict::Snapshot),
        // Compacted since `meta` was read.
        Some(Tail::Compacted { .. }) | None => Err(HistoryChanged),
    }
}

/// A tail that leads to the same verdict again.
fn retold(verdict: &Verdict, meta: &DocumentMeta) -> Tail {
    match verdict {
        Verdict::Snapshot => Tail::Compacted {
            epoch: meta.epoch,
            log_start: meta.log_start,
        },
        Verdict::Reset(_) | Verdict::Resume(..) => Tail::BeyondHead {
            epoch: meta.epoch,
            head: meta.head,
        },
    }
}
