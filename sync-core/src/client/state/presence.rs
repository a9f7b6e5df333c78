//! Presence, in all documents (protocol.md section 7.7): saying it at the rate that the server allows, and what becomes of
//! it when the connection is lost.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{ClientState, Link, Output};
use crate::client::document::{Me, PeerState, Saying};
use crate::error::{ErrorCode, PeerError};
use crate::ids::{Channel, DocumentId, User};
use crate::rate::{Rate, TokenBucket};
use crate::time::Time;
use crate::wire::{Message, Presence, PresenceDelta, Welcome, WelcomeLimits};

/// Sessions of this client that are remembered as its own.
const SESSIONS_MAX: usize = 16;

/// Why something was not said. What was said before stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PresenceRefusal {
    /// The document was closed.
    Closed,
    /// It is over the limit.
    TooLarge {
        /// Bytes of it.
        bytes: usize,
        /// The limit.
        max: usize,
    },
}

impl ClientState {
    /// Says something of this client to all who have the document open, now and whenever it is connected, in the place of
    /// what it said before; `None`: nothing any more.
    ///
    /// # Errors
    /// [`PresenceRefusal`].
    pub fn set_presence(
        &mut self,
        now: Time,
        document: &DocumentId,
        state: Option<Bytes>,
    ) -> Result<(), PresenceRefusal> {
        let max = match &self.link {
            Link::Up(up) => up.welcomed.map(|limits| limits.presence_bytes_max),
            _ => None,
        };
        let max = max.map_or(self.config.limits.presence_bytes_max, |max| {
            usize::try_from(max).unwrap_or(usize::MAX)
        });
        let bytes = state.as_ref().map_or(0, Bytes::len);
        if bytes > max {
            return Err(PresenceRefusal::TooLarge { bytes, max });
        }
        let open = self.documents.get_mut(document);
        let open = open.filter(|document| document.takes_presence());
        open.ok_or(PresenceRefusal::Closed)?.set_presence(state);
        self.show_presence(document);
        self.say_presence(now, document);
        Ok(())
    }

    /// Who is in the document and says something of themselves, by session, with a number that grows with each change;
    /// `None` if the document is not here.
    #[must_use]
    pub fn roster(&self, document: &DocumentId) -> Option<(u64, Vec<PeerState>)> {
        let document = self.documents.get(document)?;
        Some(document.roster(self.me.as_ref()))
    }

    pub(super) fn handle_presence(&mut self, presence: Presence) {
        let Link::Up(up) = &self.link else { return };
        let Some(document) = up.channels.get(&presence.channel).cloned() else {
            return;
        };
        if let (Some(state), Some(me)) = (self.documents.get_mut(&document), &self.me)
            && state.handle_presence(presence, me)
        {
            self.show_presence(&document);
        }
    }

    /// If the server did not take what was said because it came too fast, it is said again.
    pub(super) fn handle_presence_error(&mut self, now: Time, channel: Channel, error: &PeerError) {
        let Link::Up(up) = &self.link else { return };
        let document = up.channels.get(&channel).cloned();
        if let Some(document) = document.filter(|_| error.code == ErrorCode::PresenceTooFast)
            && let Some(state) = self.documents.get_mut(&document)
        {
            state.say_presence_again(now + error.retry_after.unwrap_or_default());
            self.say_presence(now, &document);
        }
    }

    /// Sends what the application says of itself, if it is time.
    pub(super) fn say_presence(&mut self, now: Time, document: &DocumentId) {
        let Link::Up(up) = &mut self.link else { return };
        let (Some(limits), Some(state)) = (up.welcomed, self.documents.get_mut(document)) else {
            return;
        };
        match state.say_presence(now, limits.presence_interval, &mut up.presences) {
            Saying::Nothing => {}
            Saying::At(at) => {
                self.timers.insert((at, document.clone()));
            }
            Saying::Now(channel, state) => {
                let Some(session) = self.me.as_ref().map(|me| me.session) else {
                    return;
                };
                let message = Message::Presence(Presence {
                    channel,
                    deltas: vec![PresenceDelta {
                        session,
                        user: String::new(),
                        state,
                    }],
                    table_version: 0,
                });
                self.send(&message, channel, false);
            }
        }
    }

    /// The server has said who this client is.
    pub(super) fn welcome_presence(&mut self, welcome: &Welcome) {
        // What the server has of the session before, if it was cut off, is what this client said.
        let mut before = VecDeque::new();
        if let Some(me) = self.me.take().filter(|_| self.resume.is_some()) {
            before = me.before;
            before.push_front(me.session);
            before.truncate(SESSIONS_MAX);
        }
        self.resume = welcome.resume.clone();
        self.me = Some(Me {
            session: welcome.session,
            user: User::new(welcome.user.as_str()),
            before,
        });
        let mut seen = Vec::new();
        for (id, document) in &mut self.documents {
            if document.welcome_presence() {
                seen.push(id.clone());
            }
        }
        for document in seen {
            self.show_presence(&document);
        }
    }

    /// A connection was lost and another one is tried: for a while, whoever was there is thought to be there.
    pub(super) fn expect_presence(&mut self, now: Time) {
        if self.resume.is_none() {
            return self.forget_presence();
        }
        let grace = self.config.limits.presence_grace;
        self.stale_until.get_or_insert(now + grace);
    }

    /// There will be no other connection: nobody is known to be there, and this client is another one when it connects.
    pub(super) fn forget_presence(&mut self) {
        self.resume = None;
        self.expire_presence();
    }

    /// The while is over.
    pub(super) fn expire_presence(&mut self) {
        self.stale_until = None;
        let mut seen = Vec::new();
        for (id, document) in &mut self.documents {
            if document.expire_presence() {
                seen.push(id.clone());
            }
        }
        for document in seen {
            self.show_presence(&document);
        }
    }

    pub(super) fn show_presence(&mut self, document: &DocumentId) {
        self.outputs.push_back(Output::Presence(document.clone()));
    }
}

/// The rate that the server has told.
pub(super) const fn rate(limits: &WelcomeLimits) -> TokenBucket {
    TokenBucket::new(Rate::new(
        limits.presences_per_second,
        limits.presences_burst,
    ))
}
