//! Publishing: committed changes go into the ring in log order, those of other nodes included.

use bytes::Bytes;

use super::member::MemberState;
use super::ring::{Encoded, RingFrame, Sole};
use super::stream::frame_len;
use super::{Fill, Purpose, Room, RoomEvent, RoomOutput};
use crate::history::Seq;
use crate::ids::{ChangeId, SessionId, User};
use crate::registry::{RegistryError, Tail};
use crate::server::registry::{RegistryRequest, RequestNumber};
use crate::time::Time;
use crate::wire::changes_frame;

/// A committed change on its way into the ring.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) seq: Seq,
    pub(super) id: ChangeId,
    pub(super) bytes: Bytes,
    /// Who pushed it; `None` if that was on another node, or is not known any more.
    pub(super) by: Option<((SessionId, u32), User)>,
    /// Starts a frame, because a member is told something right before it.
    pub(super) starts_frame: bool,
}

impl Room {
    pub(super) fn announce(&mut self, commits: &[Commit]) {
        let runs = commits.chunk_by(|a, b| a.id.origin == b.id.origin);
        for run in runs {
            if let (Some(first), Some(last)) = (run.first(), run.last())
                && let Some((_, user)) = &first.by
            {
                let (first_seq, last_seq) = (first.seq, last.seq);
                let (origin, user) = (first.id.origin, user.clone());
                self.event(RoomEvent::Committed {
                    first: first_seq,
                    last: last_seq,
                    origin,
                    user,
                });
            }
        }
    }

    /// Publishes what this room appended, in log order: not before what others appended in between.
    pub(super) fn publish_own(&mut self, now: Time, commits: Vec<Commit>) {
        let (Some(first), Some(last)) = (
            commits.first().map(|commit| commit.seq),
            commits.last().map(|commit| commit.seq),
        ) else {
            return;
        };
        self.seen = self.seen.max(last);
        let next = self.head().next();
        if first == next {
            self.publish(commits);
        } else if first < next {
            // The registry gave a sequence twice: it has lost something.
            self.mark_stale(now);
        }
        // Otherwise the log is read from the head on, these changes included.
    }

    /// Adds committed changes to the ring and tells every member.
    fn publish(&mut self, commits: Vec<Commit>) {
        let Some(history) = &mut self.history else {
            return;
        };
        for commit in &commits {
            history.head = commit.seq;
            history.digest = history.digest.with(commit.id.number, &commit.bytes);
        }
        self.seen = self.seen.max(self.head());
        let bytes = commits.iter().map(|commit| commit.bytes.len()).sum();
        self.grow(self.head(), bytes);
        let authors: Vec<_> = commits
            .iter()
            .map(|commit| self.author(commit.id.origin))
            .collect();
        let (mut rest, mut authors): (&[_], &[_]) = (&commits, &authors);
        while let Some(first) = rest.first() {
            let fits = frame_len(rest.iter().zip(authors).map(|(commit, author)| {
                (*author, commit.id.number, commit.seq, commit.bytes.len())
            }));
            let until_break = rest
                .iter()
                .skip(1)
                .position(|commit| commit.starts_frame)
                .map_or(rest.len(), |at| at + 1);
            let n = fits.min(until_break).min(rest.len());
            let (now, later) = rest.split_at(n);
            let (by, later_by) = authors.split_at(n.min(authors.len()));
            let changes: Vec<_> = now
                .iter()
                .zip(by)
                .map(|(commit, author)| (*author, commit.id.number, &*commit.bytes))
                .collect();
            let frame = changes_frame(self.channel, first.seq, changes);
            let (channel, id) = (self.fragment_channel(), self.fragmented_id());
            self.ring.push(RingFrame {
                first: first.seq,
                last: now.last().map_or(first.seq, |commit| commit.seq),
                sole: sole(now),
                encoded: Encoded::new(channel, id, frame),
            });
            (rest, authors) = (later, later_by);
        }
        for (session, member) in &mut self.members {
            if !member.awake && matches!(member.state, MemberState::Streaming(_)) {
                member.awake = true;
                self.outputs.push_back(RoomOutput::Wake(*session));
            }
        }
    }

    /// Reads what is known to be there and has not been published.
    pub(super) fn read_ahead(&mut self) {
        let is_behind = self
            .current()
            .is_some_and(|history| self.is_doubted || self.seen > history.head);
        if is_behind && self.in_flight.is_none() && self.fill == Fill::Idle {
            self.read_fill(0);
        }
    }

    pub(super) fn read_fill(&mut self, attempt: u32) {
        let after = self.begin_read();
        let max_bytes = self.config.append_bytes_max;
        let number = self.request(
            Purpose::Fill { attempt },
            RegistryRequest::Tail { after, max_bytes },
        );
        self.fill = Fill::Reading(number);
    }

    /// Notes what is heard while the log is read from the head on: the read may not show it.
    pub(super) fn begin_read(&mut self) -> Seq {
        self.is_doubted = false;
        self.seen_before = self.seen;
        self.head()
    }

    pub(super) fn on_fill(
        &mut self,
        now: Time,
        number: RequestNumber,
        attempt: u32,
        result: Result<Tail, RegistryError>,
    ) {
        if self.fill != Fill::Reading(number) {
            return;
        }
        self.fill = Fill::Idle;
        match result {
            Ok(tail) => {
                self.take_tail(now, tail);
            }
            Err(error) => {
                if let Err(error) = self.absent(now, error) {
                    self.registry_failed("tail", error);
                    let attempt = attempt.saturating_add(1);
                    self.fill = Fill::Waiting {
                        until: now + self.config.retry_delay(attempt),
                        attempt,
                    };
                }
            }
        }
    }

    /// Publishes rows read after the head. Anything but rows that continue what was published means that this was
    /// not the document's history.
    pub(super) fn take_tail(&mut self, now: Time, tail: Tail) {
        let Some((epoch, digest)) = self
            .current()
            .map(|history| (history.epoch, history.digest))
        else {
            return;
        };
        match tail {
            Tail::Changes {
                epoch: found,
                digest: found_digest,
                changes,
                head,
            } if found == epoch && found_digest == digest => {
                let published = self.head();
                let rows = changes.into_iter().filter(|row| row.seq > published);
                let commits: Vec<_> = rows
                    .map(|row| Commit {
                        seq: row.seq,
                        id: row.id,
                        bytes: row.bytes,
                        by: None,
                        starts_frame: false,
                    })
                    .collect();
                // A hint from before the read may have claimed more than there is.
                if self.seen <= self.seen_before {
                    self.seen = head;
                }
                if !commits.is_empty() {
                    self.drop_replica();
                    self.publish(commits);
                }
            }
            _ => self.mark_stale(now),
        }
    }
}

/// The member that pushed all of these, if they are of one origin and numbered without holes.
fn sole(commits: &[Commit]) -> Option<Sole> {
    let first = commits.first()?;
    let (member, _) = first.by.as_ref()?;
    let is_sole = (first.id.number..).zip(commits).all(|(number, commit)| {
        commit.id.origin == first.id.origin
            && commit.id.number == number
            && commit.by.as_ref().is_some_and(|(by, _)| by == member)
    });
    is_sole.then_some(Sole {
        session: member.0,
        generation: member.1,
        origin: first.id.origin,
        first_number: first.id.number,
    })
}
