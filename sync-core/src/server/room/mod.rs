//! One live document: who has it open, what they are sent, and the one line in which changes are appended.
//!
//! Here are the room's parts, what it is fed with, and its life; each concern has a file of its own.

mod access;
mod ages;
mod append;
mod ask;
mod broadcast;
mod check;
mod fold;
mod held;
mod history;
mod member;
mod membership;
mod offer;
mod open;
mod opened;
mod outcome;
mod output;
mod pieces;
mod presence;
mod publish;
mod push;
mod reconcile;
mod requests;
mod ring;
mod size;
mod snapshot;
mod stats;
mod stream;
mod trim;
mod withhold;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::access::Questions;
use self::append::InFlight;
pub use self::ask::AskRequest;
use self::ask::Asks;
use self::check::Checks;
pub use self::check::{CheckRequest, UncheckedChange, Verdict};
use self::fold::Folding;
pub use self::fold::{FoldError, FoldRequest, FoldedLog};
use self::history::History;
use self::member::{Member, MemberState};
use self::offer::Offers;
pub use self::output::{MemberOutput, OpenRequest, RoomEvent, RoomOutput, RoomUnloaded};
use self::pieces::Pieces;
use self::presence::Table;
use self::push::Item;
use self::reconcile::Slot;
use self::requests::{Purpose, absence};
use self::ring::Ring;
use self::size::Size;
use self::stats::Counts;
pub use self::stream::{Allowance, Occupied};
use self::trim::Standstill;
use super::config::RoomConfig;
use super::registry::RequestNumber;
use super::stats::{MemberPhase, MemberStats, RoomCounters, RoomStats};
use crate::error::PeerError;
use crate::history::{Cursor, Seq};
use crate::ids::{Author, Channel, DocumentId, OriginId, SessionId, User};
use crate::limits::push_charge;
use crate::planted::Bug;
use crate::time::Time;

/// One live document (design 2 and 8).
///
/// Its truth is the registry; what it keeps itself is a bounded [ring](RoomConfig::ring_bytes_max) of recent frames,
/// a position for each member, and the changes that are being appended. Members behind the ring are served from
/// the registry, so a slow one costs one read at a time and nothing to the others.
#[derive(Debug, Clone)]
pub struct Room {
    config: RoomConfig,
    document: DocumentId,
    channel: Channel,
    phase: RoomPhase,
    /// What the room publishes; `None` until the first open has read the registry.
    history: Option<History>,
    ring: Ring,
    /// Kept while a member is being sent it.
    snapshot: Option<Arc<Pieces>>,
    members: BTreeMap<SessionId, Member>,
    by_origin: BTreeMap<(OriginId, User), SessionId>,
    last_generation: u32,
    authors: BTreeMap<OriginId, Author>,
    next_author: u32,
    next_fragmented: u32,
    n_epochs: u64,
    /// What may be appended, in order.
    queue: VecDeque<Item>,
    checks: Checks,
    asks: Asks,
    in_flight: Option<InFlight>,
    /// When the last append began.
    last_append: Option<Time>,
    /// Time that the last append took which was answered.
    append_took: Duration,
    fill: Fill,
    /// The highest sequence known to exist; beyond the head if somebody else appends too.
    seen: Seq,
    /// What that was when the log was last read from the head on.
    seen_before: Seq,
    /// Somebody said that the document has another history, and the log has not been read since.
    is_doubted: bool,
    slot: Option<Slot>,
    waiting: VecDeque<(SessionId, u32)>,
    pending: BTreeMap<RequestNumber, Purpose>,
    /// Members waiting for the log after a sequence, which is being read once for all of them.
    reads: BTreeMap<Seq, (RequestNumber, Vec<(SessionId, u32)>)>,
    snapshot_request: Option<RequestNumber>,
    snapshot_waiters: Vec<(SessionId, u32)>,
    folding: Folding,
    size: Size,
    offers: Offers,
    counts: Counts,
    /// To be unloaded once nobody is here.
    is_evicted: bool,
    questions: Questions,
    standstill: Standstill,
    presence: Table,
    /// Reads of what there is to open say what was, up to this one.
    outdated_reads: Option<RequestNumber>,
    next_request: u64,
    outputs: VecDeque<RoomOutput>,
}

/// ```text
///  Loading ── first answer ──▶ Live ◀── open ──┐
///     │                         │ nobody, and nothing under way
///     │ nobody is left          ▼              │
///     └───────▶ Unloaded ◀── Draining ─────────┘
///                      after a while
/// ```
///
/// A room that is [`Unloaded`](Self::Unloaded) stays so: it has nothing under way, and another one may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoomPhase {
    /// The registry has not been read yet.
    Loading,
    /// Somebody is here, or something is under way.
    Live,
    /// Nobody is here.
    Draining {
        /// When the room unloads.
        until: Time,
    },
    /// The room is no more.
    Unloaded,
}

/// Reading what others appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fill {
    Idle,
    Reading(RequestNumber),
    /// After so many failures.
    Waiting {
        until: Time,
        attempt: u32,
    },
}

impl Room {
    /// A room that nobody is in. The channel is a number that names no other document on this node.
    #[must_use]
    pub fn new(document: DocumentId, channel: Channel, config: RoomConfig) -> Self {
        Self {
            ring: Ring::new(config.ring_bytes_max),
            presence: Table::new(&config.limits),
            config,
            document,
            channel,
            phase: RoomPhase::Loading,
            history: None,
            snapshot: None,
            members: BTreeMap::new(),
            by_origin: BTreeMap::new(),
            last_generation: 0,
            authors: BTreeMap::new(),
            next_author: 0,
            next_fragmented: 0,
            n_epochs: 0,
            queue: VecDeque::new(),
            checks: Checks::default(),
            asks: Asks::default(),
            in_flight: None,
            last_append: None,
            append_took: Duration::ZERO,
            fill: Fill::Idle,
            seen: Seq::ZERO,
            seen_before: Seq::ZERO,
            is_doubted: false,
            slot: None,
            waiting: VecDeque::new(),
            pending: BTreeMap::new(),
            reads: BTreeMap::new(),
            snapshot_request: None,
            snapshot_waiters: Vec::new(),
            folding: Folding::new(),
            size: Size::default(),
            offers: Offers::default(),
            counts: Counts::default(),
            is_evicted: false,
            questions: Questions::default(),
            standstill: Standstill::default(),
            outdated_reads: None,
            next_request: 0,
            outputs: VecDeque::new(),
        }
    }

    /// The document.
    #[must_use]
    pub const fn document(&self) -> &DocumentId {
        &self.document
    }

    /// Its number in frames.
    #[must_use]
    pub const fn channel(&self) -> Channel {
        self.channel
    }

    /// Where the room is in its life.
    #[must_use]
    pub const fn phase(&self) -> RoomPhase {
        self.phase
    }

    /// Sessions in the room.
    #[must_use]
    pub fn n_members(&self) -> usize {
        self.members.len()
    }

    /// The last sequence published, if this session is being sent the history.
    #[must_use]
    pub fn head_for(&self, session: SessionId) -> Option<Seq> {
        let member = self.members.get(&session)?;
        matches!(member.state, MemberState::Streaming(_)).then(|| self.head())
    }

    /// What has been published: what a room of the same document on another node has too, once both have heard of
    /// everything. `None` until the registry has been read, and while what was published is known to be of another history.
    #[must_use]
    pub fn position(&self) -> Option<Cursor> {
        self.current().map(|history| Cursor {
            epoch: history.epoch,
            seq: history.head,
            digest: history.digest,
        })
    }

    /// Takes an open: of a session that is not here, or again of one that is.
    ///
    /// # Errors
    /// [`RoomUnloaded`] if the room is no more; nothing happened.
    pub fn handle_open(
        &mut self,
        now: Time,
        session: SessionId,
        open: OpenRequest,
    ) -> Result<(), RoomUnloaded> {
        if self.phase == RoomPhase::Unloaded {
            return Err(RoomUnloaded);
        }
        self.is_evicted = false;
        self.open(now, session, open);
        self.turn(now);
        Ok(())
    }

    /// Takes changes from a session.
    pub fn handle_push(&mut self, now: Time, session: SessionId, push: crate::wire::Push) {
        let charge = push_charge(&push.changes);
        if let Some(member) = self.members.get_mut(&session) {
            let bytes = push.changes.iter().map(Bytes::len).sum();
            stats::add(&mut member.bytes_in, bytes);
            self.counts.pushed(bytes);
            self.push(now, session, push);
        } else if charge > 0 {
            self.outputs.push_back(RoomOutput::Settled(session, charge));
        }
        self.turn(now);
    }

    /// Takes nothing more from a session until it opens the document again. It is told why once everything that it sent
    /// before has been answered; its outbox stays as it is.
    pub fn handle_stop_push(&mut self, now: Time, session: SessionId, error: PeerError) {
        self.stop_push(now, session, error);
        self.turn(now);
    }

    /// Takes a session out: it closed the document, or ended, and does not come back ([`handle_lost`](Self::handle_lost)
    /// if it may). What it pushed before is appended all the same.
    pub fn handle_close(&mut self, now: Time, session: SessionId) {
        self.remove(now, session);
        self.turn(now);
    }

    /// Says that somebody else appended through this sequence. Only a hint: wrong ones do no harm.
    ///
    /// Without members the room does not look: whoever comes next has it read the registry.
    pub fn handle_head(&mut self, now: Time, head: Seq) {
        if self.history.is_some() && !self.members.is_empty() {
            self.seen = self.seen.max(head);
            self.turn(now);
        }
    }

    /// Says that somebody gave the document another history, or deleted it: the registry is asked. Only a hint, too.
    pub fn handle_replaced(&mut self, now: Time) {
        if self.current().is_some() {
            self.is_doubted = true;
            self.turn(now);
        }
    }

    /// Has the room end as soon as nothing is under way any more: tells every member to leave, for a reason after which it
    /// may come back. If one does before, the room stays.
    pub fn handle_evict(&mut self, now: Time, reason: &PeerError) {
        self.is_evicted = true;
        self.end_all(now, reason);
        self.turn(now);
    }

    /// To be called when [`poll_timeout`](Self::poll_timeout) has passed. Early or repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: Time) {
        if let RoomPhase::Draining { until } = self.phase
            && until <= now
        {
            // Before anything that is due as well begins a call: nobody is here who needs it.
            return self.unload();
        }
        if self.slot.as_ref().is_some_and(|slot| slot.deadline <= now) {
            self.release_slot(now);
        }
        self.ask_due(now);
        self.retry_append(now);
        if let Fill::Waiting { until, attempt } = self.fill
            && until <= now
        {
            self.read_fill(attempt);
        }
        self.turn(now);
    }

    /// The next thing to do.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<RoomOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let draining = match self.phase {
            RoomPhase::Draining { until } => Some(until),
            _ => None,
        };
        let filling = match self.fill {
            Fill::Waiting { until, .. } => Some(until),
            Fill::Idle | Fill::Reading(_) => None,
        };
        let appending = self.in_flight.as_ref().and_then(InFlight::retry_at);
        let slot = self.slot.as_ref().map(|slot| slot.deadline);
        let paced = self.paced_until();
        let offered = self.offers.deadline();
        let questions = self.questions.deadline();
        let held = self.standstill.until();
        let presence = self.presence.next_deadline();
        [
            draining, filling, appending, slot, paced, offered, questions, held, presence,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What follows from anything that was handled: appends, reads, the phase.
    fn turn(&mut self, now: Time) {
        if self.phase == RoomPhase::Unloaded {
            return;
        }
        self.end_standstill(now);
        self.read_ahead();
        self.start_asks();
        self.start_check(now);
        self.start_append(now);
        self.wake_leaving();
        self.tick_presence(now);
        self.start_fold(now);
        let is_idle = self.members.is_empty()
            && self.queue.is_empty()
            && self.checks.is_idle()
            && self.asks.is_empty()
            && self.in_flight.is_none()
            && !self.folding.is_running()
            && self.pending.is_empty();
        match (is_idle, &self.history, self.phase) {
            (true, None, _) => self.unload(),
            (true, Some(_), _) if self.is_evicted => self.unload(),
            (true, Some(_), RoomPhase::Draining { .. }) => {}
            (true, Some(_), _) => {
                self.phase = RoomPhase::Draining {
                    until: now + self.config.unload_after,
                };
            }
            (false, None, _) => self.phase = RoomPhase::Loading,
            (false, Some(_), _) => self.phase = RoomPhase::Live,
        }
    }

    fn unload(&mut self) {
        self.phase = RoomPhase::Unloaded;
        self.fill = Fill::Idle;
        self.ring.clear();
        self.clear_presence();
        self.outputs.push_back(RoomOutput::Unloaded);
    }

    fn event(&mut self, event: RoomEvent) {
        self.outputs.push_back(RoomOutput::Event(event));
    }

    /// The channel of what is cut.
    fn fragment_channel(&self) -> Channel {
        if self.config.has(Bug::FragmentIdsCollide) {
            Channel(0)
        } else {
            self.channel
        }
    }

    const fn fragmented_id(&mut self) -> u32 {
        self.next_fragmented = self.next_fragmented.wrapping_add(1);
        self.next_fragmented
    }

    /// Number by which frames name an origin.
    fn author(&mut self, origin: OriginId) -> Author {
        if let Some(author) = self.authors.get(&origin) {
            return *author;
        }
        if self.authors.len() >= AUTHORS_MAX {
            // Those that no member was told of may have another number next time.
            let members = &self.members;
            self.authors.retain(|origin, _| {
                members
                    .values()
                    .any(|member| member.origins.contains_key(origin))
            });
        }
        let author = Author(self.next_author);
        self.next_author = self.next_author.wrapping_add(1);
        self.authors.insert(origin, author);
        author
    }
}

/// Origins that a room has numbers for before it looks for some to forget.
const AUTHORS_MAX: usize = 16 * 1024;
