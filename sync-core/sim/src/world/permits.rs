//! What the users of a world may do, and that nobody does anything else.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sync_core::engine::{Engine, Validator};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::Seq;
use sync_core::ids::{DocumentId, User};
use sync_core::server::Grant;
use sync_core::time::Time;
use sync_core::wire::{AccessLevel, Message};

use super::World;

/// Everybody may everything, for ever, unless something else is said.
#[derive(Debug, Default)]
pub struct Permits {
    levels: BTreeMap<User, AccessLevel>,
    /// How long an answer is good.
    pub valid_for: Option<Duration>,
    /// Whether nobody answers.
    pub is_away: bool,
    /// Until when a user could still be taken to be allowed to write, or to read, since it is not.
    lost: BTreeMap<(User, AccessLevel), Time>,
    /// When each change was committed.
    committed: BTreeMap<DocumentId, BTreeMap<Seq, (Time, Bytes)>>,
}

impl Permits {
    fn level(&self, user: &User) -> AccessLevel {
        let found = self.levels.get(user).copied();
        found.unwrap_or(AccessLevel::Maintain)
    }
}

impl<E: Engine + Validator> World<E> {
    /// Changes what a user may do. `is_told`: the server is told at once; otherwise it finds out in time.
    pub fn permit(&mut self, client: usize, level: AccessLevel, is_told: bool) {
        let user = self.clients[client].user.clone();
        self.permits.levels.insert(user.clone(), level);
        let known_until = match (is_told, self.permits.valid_for) {
            (true, _) => self.now,
            (false, Some(time)) => self.now + time,
            (false, None) => Time::from_micros(u64::MAX),
        };
        for wanted in [AccessLevel::Write, AccessLevel::Read] {
            let lost = (user.clone(), wanted);
            if level < wanted {
                let until = self.permits.lost.entry(lost).or_insert(known_until);
                *until = known_until.min(*until);
            } else {
                self.permits.lost.remove(&lost);
            }
        }
        if is_told {
            let documents: Vec<_> = self.rooms.keys().cloned().collect();
            for document in documents {
                let room = self.rooms.get_mut(&document).unwrap();
                room.handle_reauthorize(self.now, Some(&user));
                self.perform_room(&document);
            }
        }
    }

    pub(super) fn answer_question(&self, user: &User) -> Result<Grant, PeerError> {
        if self.permits.is_away {
            let code = ErrorCode::AuthorizationUnavailable;
            return Err(PeerError::new(code, "nobody is there"));
        }
        let max = if self.is_relayed() {
            AccessLevel::Maintain
        } else {
            AccessLevel::Write
        };
        let mut grant = Grant::from(self.permits.level(user).min(max));
        grant.valid_for = self.permits.valid_for;
        Ok(grant)
    }

    /// Nobody's changes are put on their way to the registry who may not write.
    pub(super) fn check_append<'a>(&self, users: impl Iterator<Item = &'a User>) {
        for user in users {
            let lost = self.permits.lost.get(&(user.clone(), AccessLevel::Write));
            assert!(
                lost.is_none_or(|until| self.now < *until),
                "{user:?} may not write, and a change of it is appended"
            );
        }
    }

    pub(super) fn note_commit(&mut self, document: &DocumentId, seq: Seq, bytes: Bytes) {
        let committed = self.permits.committed.entry(document.clone()).or_default();
        committed.insert(seq, (self.now, bytes));
    }

    /// Nobody is sent what was committed after they lost access.
    pub(super) fn check_sent(&self, client: usize, message: &Message) {
        let user = self.clients[client].user.clone();
        let Some(until) = self.permits.lost.get(&(user, AccessLevel::Read)) else {
            return;
        };
        let too_late = |at: &Time| at > until;
        for committed in self.permits.committed.values() {
            match message {
                Message::Changes(changes) => {
                    for (at, bytes) in committed.values() {
                        let is_sent = changes.changes.iter().any(|change| change.bytes == *bytes);
                        assert!(
                            !is_sent || !too_late(at),
                            "client {client} is sent a change"
                        );
                    }
                }
                Message::Snapshot(snapshot) => {
                    let last = committed.range(..=snapshot.seq).next_back();
                    let is_late = last.is_some_and(|(_, (at, _))| too_late(at));
                    assert!(!is_late, "client {client} is sent a snapshot");
                }
                _ => {}
            }
        }
    }
}
