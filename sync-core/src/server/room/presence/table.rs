//! The presence table: the latest of what each session says of itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::super::RoomEvent;
use super::super::ring::Encoded;
use crate::ids::{Channel, OriginId, ResumeToken, SessionId, User};
use crate::limits::{FRAGMENT_BYTES, Limits};
use crate::time::Time;
use crate::wire::{Compression, Message, Presence, PresenceDelta, encode_frame};

/// The session that means everybody: gone is whoever the receiver knew of.
const EVERYBODY: SessionId = SessionId(0);

/// Pieces kept for members at one place each. Most members share one.
const PIECES_MAX: usize = 64;

/// Those gone that are remembered in any case, for members that have not heard of it.
const GONE_MIN: usize = 64;

/// Bytes of a message beside its deltas, and of a delta beside its user and state, at most.
const MESSAGE_BYTES_MAX: usize = 32;
const DELTA_BYTES_MAX: usize = 24;

/// What has been said, published once for each tick.
///
/// Every tick that changes something makes a version. What a member has been told is a [`Place`] in the order in which
/// entries changed last, so a member that does not read misses versions, not states, and costs nothing.
#[derive(Debug, Clone)]
pub(in super::super) struct Table {
    interval: Duration,
    grace: Duration,
    version: u64,
    rows: BTreeMap<SessionId, Row>,
    /// Those gone, with the version that says so.
    gone: BTreeMap<SessionId, u64>,
    /// All of both, by their last change.
    order: BTreeSet<Place>,
    /// Of those gone before here some are not remembered.
    forgotten: Place,
    /// What the next tick publishes: the last of what each session said.
    pending: BTreeMap<SessionId, Change>,
    ticked: Option<Time>,
    /// Those cut off, with the time until which they may come back; the same by time, and by who they are.
    lost: BTreeMap<SessionId, Time>,
    lost_by_time: BTreeSet<(Time, SessionId)>,
    lost_by_client: BTreeMap<(OriginId, User), SessionId>,
    /// Of this version.
    pieces: BTreeMap<Place, Arc<Piece>>,
    events: VecDeque<RoomEvent>,
}

/// Whose a row is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) user: User,
    pub(super) origin: OriginId,
    pub(super) token: Option<ResumeToken>,
}

impl Owner {
    fn client(&self) -> (OriginId, User) {
        (self.origin, self.user.clone())
    }
}

#[derive(Debug, Clone)]
struct Row {
    owner: Owner,
    state: Bytes,
    /// Version in which it appeared.
    since: u64,
    /// Version in which it changed last.
    changed: u64,
}

#[derive(Debug, Clone)]
enum Change {
    State {
        owner: Owner,
        state: Bytes,
        instead_of: Option<SessionId>,
    },
    Gone,
}

/// How far a member has been told.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Told {
    place: Place,
    /// The version in which it was begun from the start: it has not heard of anybody who had gone by then.
    begun: u64,
}

impl Told {
    /// Everything is next, and whatever the member knows does not count.
    pub(in super::super) const NOTHING: Self = Self {
        place: Place::START,
        begun: 0,
    };
}

/// An entry in the order of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    version: u64,
    session: SessionId,
}

impl Place {
    /// Before all entries.
    const START: Self = Self {
        version: 0,
        session: SessionId(0),
    };

    /// After everything of this version.
    const fn through(version: u64) -> Self {
        Self {
            version,
            session: SessionId(u64::MAX),
        }
    }

    /// The version of which a member that stands here knows everything, if there is one.
    fn known(self) -> Option<u64> {
        (self == Self::through(self.version)).then_some(self.version)
    }
}

/// What members at one place are sent next.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    /// Their place after it.
    end: Place,
    /// The session, if it says nothing of any other.
    pub(super) only: Option<SessionId>,
    encoded: Encoded,
}

impl Piece {
    /// Its only frame: it is made so that it is not cut.
    pub(super) fn frame(&self, compression: Compression) -> Option<Bytes> {
        self.encoded.send(compression).next()
    }
}

impl Table {
    pub(in super::super) const fn new(limits: &Limits) -> Self {
        Self {
            interval: limits.presence_interval,
            grace: limits.presence_grace,
            // 0 says that a message is not the last of its version.
            version: 1,
            rows: BTreeMap::new(),
            gone: BTreeMap::new(),
            order: BTreeSet::new(),
            forgotten: Place::START,
            pending: BTreeMap::new(),
            ticked: None,
            lost: BTreeMap::new(),
            lost_by_time: BTreeSet::new(),
            lost_by_client: BTreeMap::new(),
            pieces: BTreeMap::new(),
            events: VecDeque::new(),
        }
    }

    /// Notes what a session says of itself.
    pub(super) fn set(&mut self, session: SessionId, owner: Owner, state: Option<Bytes>) {
        let Some(state) = state else {
            return self.leave(session);
        };
        let instead_of = match self.pending.get(&session) {
            Some(Change::State { instead_of, .. }) => *instead_of,
            _ => None,
        };
        // A copy of its own: it may be a small part of a large frame.
        let state = Bytes::copy_from_slice(&state);
        self.pending.insert(
            session,
            Change::State {
                owner,
                state,
                instead_of,
            },
        );
    }

    /// A session says nothing any more.
    pub(in super::super) fn leave(&mut self, session: SessionId) {
        if self.lost.contains_key(&session) {
            return;
        }
        if self.rows.contains_key(&session) {
            self.pending.insert(session, Change::Gone);
        } else {
            self.pending.remove(&session);
        }
    }

    /// A session was cut off: its place is kept for a while if it can come back.
    pub(in super::super) fn lose(&mut self, now: Time, session: SessionId) {
        if self.lost.contains_key(&session) {
            return;
        }
        let Some(owner) = self.owner(session) else {
            return;
        };
        if owner.token.is_none() || self.grace.is_zero() {
            return;
        }
        let until = now + self.grace;
        let earlier = self.lost_by_client.insert(owner.client(), session);
        self.lost.insert(session, until);
        self.lost_by_time.insert((until, session));
        if let Some(earlier) = earlier {
            self.give_up(earlier);
        }
    }

    /// Gives a session what the one said that it was before, if that one was cut off.
    pub(super) fn resume(&mut self, session: SessionId, owner: Owner) {
        let Some(earlier) = self.lost_by_client.get(&owner.client()).copied() else {
            return;
        };
        let is_same = self
            .owner(earlier)
            .is_some_and(|before| before.token == owner.token);
        if !is_same {
            return;
        }
        let state = self.state(earlier);
        let instead_of = match self.pending.get(&earlier) {
            Some(Change::State {
                instead_of: Some(before),
                ..
            }) => Some(*before),
            _ => self.rows.contains_key(&earlier).then_some(earlier),
        };
        self.give_up(earlier);
        if let Some(state) = state {
            self.pending.insert(
                session,
                Change::State {
                    owner,
                    state,
                    instead_of,
                },
            );
        }
    }

    /// Publishes what has been said since the last tick, if it is time. Whether there is a new version.
    pub(super) fn handle_timeout(&mut self, now: Time) -> bool {
        while let Some((until, session)) = self.lost_by_time.first().copied()
            && until <= now
        {
            self.give_up(session);
        }
        if self.pending.is_empty() || now < self.next_tick() {
            return false;
        }
        self.tick(now)
    }

    pub(in super::super) fn next_deadline(&self) -> Option<Time> {
        let tick = (!self.pending.is_empty()).then(|| self.next_tick());
        let lost = self.lost_by_time.first().map(|(until, _)| *until);
        tick.into_iter().chain(lost).min()
    }

    pub(super) fn poll_event(&mut self) -> Option<RoomEvent> {
        self.events.pop_front()
    }

    /// What a member has been told that has just come and shows nobody.
    pub(super) fn start(&self) -> Told {
        if self.rows.is_empty() {
            Told {
                place: Place::through(self.version),
                begun: self.version,
            }
        } else {
            Told::NOTHING
        }
    }

    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.rows.keys().copied().collect()
    }

    pub(in super::super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.pending.clear();
        self.lost.clear();
        self.lost_by_time.clear();
        self.lost_by_client.clear();
    }

    /// What a member that has been told so much is sent next; `None` if that was everything.
    pub(super) fn next_piece(&mut self, channel: Channel, told: &mut Told) -> Option<Arc<Piece>> {
        if told.place >= Place::through(self.version) {
            return None;
        }
        if told.place.max(Place::through(told.begun)) < self.forgotten {
            told.place = Place::START;
        }
        if told.place == Place::START {
            told.begun = self.version;
        }
        let piece = self.piece(channel, told.place);
        told.place = piece.end;
        Some(piece)
    }

    fn piece(&mut self, channel: Channel, place: Place) -> Arc<Piece> {
        if let Some(piece) = self.pieces.get(&place) {
            return Arc::clone(piece);
        }
        let piece = Arc::new(self.encode(channel, place));
        if self.pieces.len() < PIECES_MAX {
            self.pieces.insert(place, Arc::clone(&piece));
        }
        piece
    }

    /// A session that was cut off does not come back as such.
    fn give_up(&mut self, session: SessionId) {
        if let Some(until) = self.lost.remove(&session) {
            self.lost_by_time.remove(&(until, session));
        }
        if let Some(client) = self.owner(session).map(Owner::client)
            && self.lost_by_client.get(&client) == Some(&session)
        {
            self.lost_by_client.remove(&client);
        }
        self.leave(session);
    }

    fn owner(&self, session: SessionId) -> Option<&Owner> {
        match self.pending.get(&session) {
            Some(Change::State { owner, .. }) => Some(owner),
            Some(Change::Gone) => None,
            None => self.rows.get(&session).map(|row| &row.owner),
        }
    }

    fn state(&self, session: SessionId) -> Option<Bytes> {
        match self.pending.get(&session) {
            Some(Change::State { state, .. }) => Some(state.clone()),
            Some(Change::Gone) => None,
            None => self.rows.get(&session).map(|row| row.state.clone()),
        }
    }

    /// At once after a pause, and then at most once in an interval.
    fn next_tick(&self) -> Time {
        self.ticked.map_or(Time::ZERO, |last| last + self.interval)
    }

    fn tick(&mut self, now: Time) -> bool {
        let version = self.version + 1;
        let mut has_changed = false;
        let pending = std::mem::take(&mut self.pending);
        let replaced: BTreeSet<_> = pending.values().filter_map(Change::instead_of).collect();
        for (session, change) in pending {
            has_changed |= match change {
                Change::State {
                    owner,
                    state,
                    instead_of,
                } => self.publish(version, session, owner, state, instead_of),
                Change::Gone => self.retire(version, session, replaced.contains(&session)),
            };
        }
        if has_changed {
            self.version = version;
            self.ticked = Some(now);
            self.pieces.clear();
            self.forget();
        }
        has_changed
    }

    fn publish(
        &mut self,
        version: u64,
        session: SessionId,
        owner: Owner,
        state: Bytes,
        instead_of: Option<SessionId>,
    ) -> bool {
        let since = match self.rows.get(&session) {
            Some(row) if row.state == state => return false,
            Some(row) => {
                let changed = row.changed;
                self.order.remove(&Place {
                    version: changed,
                    session,
                });
                row.since
            }
            None => {
                if let Some(changed) = self.gone.remove(&session) {
                    self.order.remove(&Place {
                        version: changed,
                        session,
                    });
                }
                self.events.push_back(RoomEvent::PresenceJoined {
                    session,
                    user: owner.user.clone(),
                    instead_of,
                });
                version
            }
        };
        self.order.insert(Place { version, session });
        self.rows.insert(
            session,
            Row {
                owner,
                state,
                since,
                changed: version,
            },
        );
        true
    }

    fn retire(&mut self, version: u64, session: SessionId, is_replaced: bool) -> bool {
        let Some(row) = self.rows.remove(&session) else {
            return false;
        };
        self.order.remove(&Place {
            version: row.changed,
            session,
        });
        self.order.insert(Place { version, session });
        self.gone.insert(session, version);
        if !is_replaced {
            self.events.push_back(RoomEvent::PresenceLeft { session });
        }
        true
    }

    /// Forgets the oldest of those gone when they are more than those here: members that have not heard of them are sent
    /// the whole table, which is shorter.
    fn forget(&mut self) {
        let max = self.rows.len().max(GONE_MIN);
        if self.gone.len() <= max {
            return;
        }
        let mut oldest: Vec<_> = self
            .gone
            .iter()
            .map(|(session, version)| Place {
                version: *version,
                session: *session,
            })
            .collect();
        oldest.sort_unstable();
        // Half of them, so that it is not done each time.
        oldest.truncate(oldest.len() - max / 2);
        for place in oldest {
            self.gone.remove(&place.session);
            self.order.remove(&place);
            self.forgotten = self.forgotten.max(place);
        }
    }

    fn encode(&self, channel: Channel, place: Place) -> Piece {
        let known = place.known();
        let is_whole = place == Place::START;
        let mut deltas = Vec::new();
        let mut bytes = MESSAGE_BYTES_MAX;
        if is_whole {
            deltas.push(PresenceDelta {
                session: EVERYBODY,
                user: String::new(),
                state: None,
            });
            bytes += DELTA_BYTES_MAX;
        }
        let mut end = place;
        let mut is_last = true;
        for next in self.order.range((Bound::Excluded(place), Bound::Unbounded)) {
            let row = self.rows.get(&next.session);
            if row.is_none() && is_whole {
                end = *next;
                continue;
            }
            let user = row
                .filter(|row| known.is_none_or(|known| row.since > known))
                .map_or("", |row| &*row.owner.user.id);
            let state = row.map(|row| row.state.clone());
            bytes += DELTA_BYTES_MAX + user.len() + state.as_ref().map_or(0, Bytes::len);
            if bytes > FRAGMENT_BYTES && end != place {
                is_last = false;
                break;
            }
            deltas.push(PresenceDelta {
                session: next.session,
                user: user.to_owned(),
                state,
            });
            end = *next;
        }
        let only = match &deltas[..] {
            [delta] if known.is_some() && is_last => Some(delta.session),
            _ => None,
        };
        if is_last {
            end = Place::through(self.version);
        }
        let message = Message::Presence(Presence {
            channel,
            deltas,
            table_version: if is_last { self.version } else { 0 },
        });
        Piece {
            end,
            only,
            // Never cut, so the id that its pieces would have is nobody's.
            encoded: Encoded::new(channel, 0, encode_frame(&message, Compression::None)),
        }
    }
}

impl Change {
    const fn instead_of(&self) -> Option<SessionId> {
        match self {
            Self::State { instead_of, .. } => *instead_of,
            Self::Gone => None,
        }
    }
}
