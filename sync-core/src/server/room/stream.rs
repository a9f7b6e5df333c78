//! The stream: what each member is sent, from its own position (`docs/protocol.md` section 7.2).

use std::sync::Arc;

use super::member::{Member, MemberState};
use super::ring::{Encoded, Ring};
use super::{MemberOutput, Purpose, Room, RoomEvent, stats};
use crate::history::Seq;
use crate::ids::{Author, Channel, SessionId};
use crate::limits::FRAGMENT_BYTES;
use crate::planted::Bug;
use crate::registry::{RegistryError, StoredChange, Tail};
use crate::server::registry::{RegistryRequest, RequestNumber};
use crate::time::Time;
use crate::wire::{
    Ack, CHANGES_OVERHEAD_BYTES_MAX, Compression, Message, change_bytes, changes_frame, check_of,
    encode_frame,
};

/// What a room may do for a session at the moment, which has other rooms too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "made by whoever polls")]
pub struct Allowance {
    /// Begin a message of several frames. A client puts only a few of those together at once.
    pub large: bool,
    /// Read the log for the session, which then has up to [`RoomConfig::catch_up_bytes`] of it in memory.
    ///
    /// [`RoomConfig::catch_up_bytes`]: crate::server::RoomConfig::catch_up_bytes
    pub read: bool,
}

impl Allowance {
    /// Everything.
    pub const ALL: Self = Self {
        large: true,
        read: true,
    };
}

/// Where a session stands in a room, for its next [`Allowance`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Occupied {
    /// It has been sent a part of a message, and not yet all of it.
    pub in_message: bool,
    /// Rows of the log are being read for it, or are in memory and not sent yet.
    pub catching_up: bool,
}

/// What a member needs before it can be sent more.
pub(super) enum Need {
    Nothing,
    Tail(Seq),
    /// The session's leave to do what its [`Allowance`] does not hold.
    Leave,
    /// It may nothing, and has been sent what it may be sent.
    End,
}

impl Room {
    /// The next thing for a session, if there is one now; after `None`, [`Wake`](super::RoomOutput::Wake) says when
    /// there is again. May leave something in [`poll_output`](Room::poll_output).
    #[must_use]
    pub fn poll_member(&mut self, now: Time, session: SessionId) -> Option<MemberOutput> {
        self.poll_member_within(now, session, Allowance::ALL)
    }

    /// As [`poll_member`](Self::poll_member), but does only what is allowed: `None` may also mean that the session has
    /// to poll again with more, and nobody will say so.
    #[must_use]
    pub fn poll_member_within(
        &mut self,
        now: Time,
        session: SessionId,
        allowance: Allowance,
    ) -> Option<MemberOutput> {
        let (channel, head) = (self.channel, self.head());
        let allowance = if self.config.has(Bug::FragmentIdsCollide) {
            Allowance::ALL
        } else {
            allowance
        };
        let mut member = self.members.get_mut(&session)?;
        if member.permit.is_over(now) {
            self.stop_if_over(now, session);
            member = self.members.get_mut(&session)?;
        }
        let is_prompt = member.settled > 0 || member.has_prompt();
        if !is_prompt
            && !std::mem::replace(&mut member.presence_was_last, false)
            && let Some(output) = self.poll_presence(session)
        {
            return Some(output);
        }
        let member = self.members.get_mut(&session)?;
        let missed = member.waiting.missed();
        match member.poll(channel, session, head, &self.ring, allowance) {
            Ok(MemberOutput::Left) => {
                self.remove(now, session);
                self.turn(now);
                Some(MemberOutput::Left)
            }
            Ok(output) => {
                if let MemberOutput::Frame(frame) = &output {
                    stats::add(&mut member.bytes_out, frame.len());
                    self.counts.handed_out(frame.len());
                }
                if missed > member.waiting.missed() {
                    self.event(RoomEvent::BroadcastsMissed { session, missed });
                }
                self.drop_unused_snapshot();
                Some(output)
            }
            Err(Need::End) if self.end_denied(now, session) => {
                self.poll_member_within(now, session, allowance)
            }
            Err(need) => {
                let member = self.members.get_mut(&session)?;
                member.awake = false;
                let key = (session, member.generation);
                if let Need::Tail(after) = need {
                    if self.config.has(Bug::LaggingSessionSkipped) {
                        member.skip_to(head.next());
                        return self.poll_member_within(now, session, allowance);
                    }
                    if let Some(stream) = member.stream() {
                        stream.is_reading = true;
                    }
                    self.read_tail(key, after);
                }
                self.poll_presence(session)
            }
        }
    }

    /// What the session has under way here.
    #[must_use]
    pub fn occupied(&self, session: SessionId) -> Occupied {
        let member = self.members.get(&session);
        Occupied {
            in_message: member.is_some_and(|member| {
                member.begun_message().is_some() || member.waiting.is_in_message()
            }),
            catching_up: member.is_some_and(Member::is_catching_up),
        }
    }

    /// Reads the log after a sequence, once for all who wait for it.
    fn read_tail(&mut self, key: (SessionId, u32), after: Seq) {
        if let Some((_, waiters)) = self.reads.get_mut(&after) {
            return waiters.push(key);
        }
        let max_bytes = self.config.catch_up_bytes;
        let number = self.request(
            Purpose::CatchUp { after },
            RegistryRequest::Tail { after, max_bytes },
        );
        self.reads.insert(after, (number, vec![key]));
    }

    pub(super) fn on_catch_up(
        &mut self,
        now: Time,
        number: RequestNumber,
        after: Seq,
        result: Result<Tail, RegistryError>,
    ) {
        if self
            .reads
            .get(&after)
            .is_none_or(|(read, _)| *read != number)
        {
            return;
        }
        let (_, waiters) = self.reads.remove(&after).unwrap_or((number, Vec::new()));
        let behind: Vec<_> = waiters
            .into_iter()
            .filter(|key| {
                self.live(*key)
                    .and_then(Member::stream)
                    .is_some_and(|stream| stream.is_reading && stream.next == after.next())
            })
            .collect();
        if behind.is_empty() {
            return;
        }
        let epoch = self.current().map(|history| history.epoch);
        match result {
            Ok(Tail::Changes {
                epoch: found,
                changes,
                head,
                ..
            }) if Some(found) == epoch && !changes.is_empty() => {
                self.seen = self.seen.max(head);
                let frames = self.encode_rows(after, changes);
                for key in behind {
                    if let Some(stream) = self.live(key).and_then(Member::stream) {
                        stream.is_reading = false;
                        stream.catch_up.extend(frames.iter().cloned());
                        self.wake(key.0);
                    }
                }
            }
            Ok(Tail::Compacted { epoch: found, .. }) if Some(found) == epoch => {
                for key in behind {
                    self.read_snapshot(key);
                }
            }
            // Rows that were published are not there any more, or are of another history.
            Ok(_) => self.mark_stale(now),
            Err(error) => {
                if let Err(error) = self.absent(now, error) {
                    let error = self.registry_failed("tail", error);
                    for key in behind {
                        self.stop(now, key.0, error.clone());
                    }
                }
            }
        }
    }

    /// Encodes rows that follow on `after`, up to where members go on with the ring: never beyond what has been
    /// published, and no further than the first frame of the ring that starts among them.
    pub(super) fn encode_rows(
        &mut self,
        after: Seq,
        mut rows: Vec<StoredChange>,
    ) -> Vec<(Arc<Encoded>, Seq)> {
        let end = self
            .ring
            .next_boundary(after.next())
            .unwrap_or_else(|| self.head().next())
            .min(self.head().next());
        if self.ring.starting_at(after.next()).is_some() {
            return Vec::new();
        }
        rows.retain(|row| row.seq > after && row.seq < end);
        let authors: Vec<_> = rows.iter().map(|row| self.author(row.id.origin)).collect();
        let mut frames = Vec::new();
        let mut rest: &[_] = &rows;
        let mut authors: &[_] = &authors;
        while let Some(first) = rest.first().map(|row| row.seq) {
            let n = frame_len(
                rest.iter()
                    .zip(authors)
                    .map(|(row, author)| (*author, row.id.number, row.seq, row.bytes.len())),
            );
            let (now, later) = rest.split_at(n.min(rest.len()));
            let (by, later_by) = authors.split_at(n.min(authors.len()));
            let changes: Vec<_> = now
                .iter()
                .zip(by)
                .map(|(row, author)| (*author, row.id.number, &*row.bytes))
                .collect();
            let frame = changes_frame(self.channel, first, changes);
            let last = now.last().map_or(first, |row| row.seq);
            let id = self.fragmented_id();
            let encoded = Encoded::new(self.fragment_channel(), id, frame);
            frames.push((Arc::new(encoded), last));
            (rest, authors) = (later, later_by);
        }
        frames
    }
}

/// How many of these changes (author, number, sequence, length) make one frame; at least one.
pub(super) fn frame_len(changes: impl Iterator<Item = (Author, u64, Seq, usize)>) -> usize {
    let mut bytes = CHANGES_OVERHEAD_BYTES_MAX;
    let mut n = 0;
    for (author, number, seq, length) in changes {
        bytes = bytes.saturating_add(change_bytes(author, number, seq, length));
        if bytes > FRAGMENT_BYTES && n > 0 {
            break;
        }
        n += 1;
    }
    n.max(1)
}

impl Member {
    /// A bug that can be planted: it is sent nothing of what it lacks.
    fn skip_to(&mut self, next: Seq) {
        if let Some(stream) = self.stream() {
            stream.next = next;
        }
    }

    pub(super) fn poll_stream(
        &mut self,
        channel: Channel,
        session: SessionId,
        head: Seq,
        ring: &Ring,
        allowance: Allowance,
    ) -> Result<MemberOutput, Need> {
        if self.settled > 0 {
            return Ok(MemberOutput::Settled(std::mem::take(&mut self.settled)));
        }
        if let Some(frame) = self.abort.take().or_else(|| self.prompt.pop_front()) {
            return Ok(MemberOutput::Frame(frame));
        }
        if matches!(self.state, MemberState::Ended) {
            return Ok(MemberOutput::Left);
        }
        let (compression, generation) = (self.compression(), self.generation);
        let (limit, may_read) = (self.permit.limit(), self.may_read());
        let is_stopped = self.permit.is_stopped();
        // Where it may be sent no more.
        let beyond = || if may_read { Need::Nothing } else { Need::End };
        loop {
            let MemberState::Streaming(stream) = &mut self.state else {
                return Err(beyond());
            };
            if let Some((sending, last)) = &mut stream.sending {
                let last = *last;
                let frame = sending.next();
                if sending.is_done() {
                    stream.sending = None;
                    stream.next = last.next();
                    self.settle_through(last);
                }
                match frame {
                    Some(frame) => return Ok(MemberOutput::Frame(frame)),
                    None => continue,
                }
            }
            if let Some((pieces, at)) = &mut stream.snapshot {
                if pieces.seq() > limit {
                    return Err(beyond());
                }
                let Some((frame, is_last)) = pieces.frame(*at, compression) else {
                    stream.snapshot = None;
                    continue;
                };
                *at += 1;
                if is_last {
                    let last = pieces.seq();
                    stream.snapshot = None;
                    stream.next = last.next();
                    self.settle_through(last);
                }
                return Ok(MemberOutput::Frame(frame));
            }
            let next = stream.next;
            if self
                .controls
                .front()
                .is_some_and(|control| control.after < next)
                && let Some(control) = self.controls.pop_front()
            {
                self.settled = self.settled.saturating_add(control.charge);
                return Ok(MemberOutput::Frame(control.frame));
            }
            if let Some((encoded, last)) = stream.catch_up.front() {
                if *last > limit {
                    return Err(beyond());
                }
                let sending = encoded.send(compression);
                if !allowance.large && !sending.is_single() {
                    return Err(Need::Leave);
                }
                stream.sending = Some((sending, *last));
                stream.catch_up.pop_front();
                continue;
            }
            if next > head || next > limit {
                return Err(beyond());
            }
            let Some(frame) = ring.starting_at(next) else {
                return Err(if stream.is_reading || (is_stopped && may_read) {
                    Need::Nothing
                } else if allowance.read {
                    Need::Tail(Seq(next.0.saturating_sub(1)))
                } else {
                    Need::Leave
                });
            };
            if frame.last > limit {
                return Err(beyond());
            }
            let own = frame
                .sole
                .filter(|sole| sole.session == session && sole.generation == generation);
            let Some(own) = own else {
                let sending = frame.encoded.send(compression);
                if !allowance.large && !sending.is_single() {
                    return Err(Need::Leave);
                }
                stream.sending = Some((sending, frame.last));
                continue;
            };
            let ack = Ack {
                channel,
                check: check_of(frame.first),
                number: own.first_number,
                count: frame.last.0.saturating_sub(frame.first.0) + 1,
            };
            stream.next = frame.last.next();
            self.settle_through(frame.last);
            let frame = encode_frame(&Message::Ack(ack), Compression::None);
            return Ok(MemberOutput::Frame(frame));
        }
    }
}
