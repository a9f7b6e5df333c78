//! The presence table: the latest of what each session says of itself.

mod telling;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub(in super::super) use self::telling::Told;
use self::telling::{Piece, Place};
use super::super::RoomEvent;
use crate::ids::{OriginId, ResumeToken, SessionId, User};
use crate::limits::Limits;
use crate::time::Time;

/// Those gone that are remembered in any case, for members that have not heard of it.
const GONE_MIN: usize = 64;

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
}

impl Change {
    const fn instead_of(&self) -> Option<SessionId> {
        match self {
            Self::State { instead_of, .. } => *instead_of,
            Self::Gone => None,
        }
    }
}
