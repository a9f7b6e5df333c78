//! What the users of a world may do, and that nobody does anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use sync_core::engine::{Engine, Validator};
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::Seq;
use sync_core::ids::{ChangeId, DocumentId, User};
use sync_core::registry::NewChange;
use sync_core::server::{AskRequest, Grant};
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
    /// If clients have to say who they are: for how long that is known. Default: they need not.
    pub credentials: Option<Duration>,
    /// If hooks have a say in changes: of a thousand, so many are vetoed. Default: they have none.
    pub vetoes: Option<u64>,
    /// Whose credentials are refused.
    refused: BTreeSet<User>,
    /// Until when a user could still be taken to be allowed to write, or to read, since it is not.
    lost: BTreeMap<(User, AccessLevel), Time>,
    /// Changes of which an append was begun while that was allowed.
    begun: BTreeSet<ChangeId>,
    /// When each change was committed.
    committed: BTreeMap<DocumentId, BTreeMap<Seq, (Time, Bytes)>>,
}

/// What has been said to be out of date, for answers that were asked for before and come after. As `sync_server` notes it.
#[derive(Debug, Default)]
pub(super) struct Doubts(Vec<Doubt>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Doubt {
    User(User),
    Document(DocumentId),
}

impl Doubts {
    /// To be noted when something is asked.
    pub(super) fn count(&self) -> u64 {
        u64::try_from(self.0.len()).unwrap()
    }

    /// Whether what was asked then about this user and document may be out of date.
    pub(super) fn concern(&self, asked_at: u64, user: &User, document: &DocumentId) -> bool {
        let asked_at = usize::try_from(asked_at).unwrap();
        self.0.iter().skip(asked_at).any(|doubt| match doubt {
            Doubt::User(doubted) => doubted == user,
            Doubt::Document(doubted) => doubted == document,
        })
    }
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
            // It counts from when it is heard.
            (false, Some(time)) => self.now + self.weather.registry_delay_max + time,
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
            self.reauthorize(&Doubt::User(user));
        }
    }

    /// Tells the server that what anybody may do with a document may have changed.
    pub fn reauthorize_document(&mut self, document: &str) {
        self.reauthorize(&Doubt::Document(super::id(document)));
    }

    fn reauthorize(&mut self, doubt: &Doubt) {
        for node in 0..self.nodes.len() {
            self.nodes[node].doubts.0.push(doubt.clone());
            let documents: Vec<_> = self.nodes[node].rooms.keys().cloned().collect();
            for document in documents {
                let room = self.nodes[node].rooms.get_mut(&document).unwrap();
                match doubt {
                    Doubt::User(user) => room.handle_reauthorize(self.now, Some(user)),
                    Doubt::Document(doubted) if *doubted == document => {
                        room.handle_reauthorize(self.now, None);
                    }
                    Doubt::Document(_) => continue,
                }
                self.perform_room(node, &document);
            }
        }
    }

    /// Whether a client's credentials are taken from now on; those that are known to be good stay so until they expire.
    pub fn take_credentials(&mut self, client: usize, are_taken: bool) {
        let user = self.clients[client].user.clone();
        if are_taken {
            self.permits.refused.remove(&user);
        } else {
            self.permits.refused.insert(user);
        }
    }

    pub(super) fn user_of(
        &self,
        credentials: Option<&[u8]>,
    ) -> Result<(User, Duration), PeerError> {
        if self.permits.is_away {
            let code = ErrorCode::AuthorizationUnavailable;
            return Err(PeerError::new(code, "nobody is there"));
        }
        let name = credentials.and_then(|it| std::str::from_utf8(it).ok());
        let user = name.map(User::new);
        match user.filter(|user| !self.permits.refused.contains(user)) {
            Some(user) => Ok((user, self.permits.credentials.unwrap_or(Duration::MAX))),
            None => Err(PeerError::new(ErrorCode::Unauthenticated, "not you")),
        }
    }

    /// How many of the changes may go on, and what is the matter with the next one.
    pub(super) fn vet(&mut self, request: &AskRequest) -> (usize, Option<PeerError>) {
        let vetoes = self.permits.vetoes.unwrap_or(0);
        for at in 0..request.changes.len() {
            if self.happens(vetoes) {
                let code = ErrorCode::Vetoed;
                return (at, Some(PeerError::new(code, "a hook does not like it")));
            }
        }
        (request.changes.len(), None)
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

    /// Nobody's changes are put on their way to the registry who may not write; but an append whose outcome nobody knows is
    /// made again until somebody does.
    pub(super) fn check_append(&mut self, changes: &[NewChange]) {
        for change in changes {
            let lost = (change.user.clone(), AccessLevel::Write);
            let lost = self.permits.lost.get(&lost);
            if lost.is_none_or(|until| self.now < *until) {
                self.permits.begun.insert(change.id);
                continue;
            }
            assert!(
                self.permits.begun.contains(&change.id),
                "{:?} may not write, and a change of it is appended",
                change.user
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
