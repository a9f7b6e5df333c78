//! Who is in a document, and what the application says of itself there (protocol.md section 7.7).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::{DocumentState, Link};
use crate::ids::{Channel, SessionId, User};
use crate::rate::TokenBucket;
use crate::time::Time;
use crate::wire::{Presence as PresenceMessage, PresenceDelta};

/// Stands for everybody in a message: whoever was known before is gone.
const EVERYBODY: SessionId = SessionId(0);

/// Somebody who is in a document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerState {
    /// Their session, as the server calls it; 0 for this client before its first.
    pub session: SessionId,
    /// Who the server takes them for.
    pub user: User,
    /// What they say of themselves.
    pub state: Bytes,
    /// Whether it is this client.
    pub is_me: bool,
}

/// Which sessions are this client's.
#[derive(Debug, Clone)]
pub(crate) struct Me {
    pub(crate) session: SessionId,
    pub(crate) user: User,
    /// Those before it that the server may not have forgotten yet.
    pub(crate) before: VecDeque<SessionId>,
}

impl Me {
    fn is(&self, session: SessionId) -> bool {
        self.session == session || self.before.contains(&session)
    }
}

/// One document's presence.
///
/// Only the latest of what the application says is kept, here as everywhere; it is said at most once in an interval, and
/// again on every new session. What is known of others stays for a while when the connection is lost, and is replaced by
/// what the next session is told.
#[derive(Debug, Clone, Default)]
pub(super) struct Presence {
    own: Option<Bytes>,
    /// The server may have something of ours.
    was_said: bool,
    /// It was taken back on this connection: the server may not hear of it, if the connection is lost.
    is_taken_back: bool,
    unsaid: bool,
    /// When it may be said, and whether the session's rate allows that then.
    next_at: Time,
    is_allowed: bool,
    others: BTreeMap<SessionId, (User, Bytes)>,
    /// Parts of a table that has not arrived whole.
    arriving: Vec<PresenceDelta>,
    /// What is known of others is from before a loss of the connection.
    is_stale: bool,
    /// Counts what can be seen.
    revision: u64,
}

/// What is to be done about the application's own state.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Saying {
    Nothing,
    At(Time),
    Now(Channel, Option<Bytes>),
}

impl DocumentState {
    /// Whether the application may say something here.
    pub(crate) const fn takes_presence(&self) -> bool {
        !self.closed
    }

    pub(crate) fn set_presence(&mut self, state: Option<Bytes>) {
        let presence = &mut self.presence;
        presence.unsaid = state.is_some() || presence.was_said;
        presence.own = state;
        presence.revision += 1;
    }

    /// What of it is to be sent now, within the rate of the session.
    pub(crate) fn say_presence(
        &mut self,
        now: Time,
        interval: Duration,
        rate: &mut TokenBucket,
    ) -> Saying {
        let Link::Streaming(stream) = &self.link else {
            return Saying::Nothing;
        };
        let presence = &mut self.presence;
        if !presence.unsaid {
            return Saying::Nothing;
        }
        if !std::mem::replace(&mut presence.is_allowed, true) {
            // Taken ahead: of many documents each gets its own turn.
            presence.next_at = presence.next_at.max(now + rate.wait(now, 1));
            rate.take(now, 1);
        }
        if now < presence.next_at {
            return Saying::At(presence.next_at);
        }
        presence.unsaid = false;
        presence.is_allowed = false;
        presence.was_said = presence.own.is_some();
        presence.is_taken_back = !presence.was_said;
        presence.next_at = now + interval;
        Saying::Now(stream.channel, presence.own.clone())
    }

    /// The server did not take what was said last.
    pub(crate) fn say_presence_again(&mut self, at: Time) {
        let presence = &mut self.presence;
        presence.unsaid = true;
        presence.is_allowed = false;
        presence.next_at = presence.next_at.max(at);
    }

    /// Takes what the server says of who is here, also after the document was closed: it is not said again if it is opened
    /// before the channel is left. Whether anything can be seen of it.
    pub(crate) fn handle_presence(&mut self, message: PresenceMessage, me: &Me) -> bool {
        let presence = &mut self.presence;
        if !matches!(self.link, Link::Streaming(_)) {
            return false;
        }
        presence.arriving.extend(message.deltas);
        if message.table_version == 0 {
            return false;
        }
        for delta in std::mem::take(&mut presence.arriving) {
            match delta.state {
                None if delta.session == EVERYBODY => presence.others.clear(),
                None => drop(presence.others.remove(&delta.session)),
                Some(_) if me.is(delta.session) => {}
                Some(state) => {
                    // A copy of its own: it may be a small part of a large frame.
                    let state = Bytes::copy_from_slice(&state);
                    let known = presence.others.get(&delta.session);
                    let user = known
                        .filter(|_| delta.user.is_empty())
                        .map_or_else(|| User::new(delta.user), |(user, _)| user.clone());
                    presence.others.insert(delta.session, (user, state));
                }
            }
        }
        presence.is_stale = false;
        presence.revision += 1;
        !self.closed
    }

    /// Whoever was here may still be; whether they are is not told any more.
    pub(super) fn lose_presence(&mut self) {
        let presence = &mut self.presence;
        presence.was_said |= std::mem::take(&mut presence.is_taken_back);
        presence.is_stale = true;
        presence.arriving.clear();
        presence.next_at = Time::ZERO;
        presence.is_allowed = false;
    }

    /// There is a channel to say it on.
    pub(super) fn open_presence(&mut self) {
        self.presence.unsaid = self.presence.own.is_some() || self.presence.was_said;
    }

    /// Says nothing any more. Nobody is seen as long as the document is closed.
    pub(super) fn close_presence(&mut self) {
        self.set_presence(None);
    }

    /// Whether the server may have something of ours, which the next session of this client would find there.
    pub(crate) const fn has_said(&self) -> bool {
        self.presence.was_said
    }

    /// The server may have something of ours from before the document was forgotten: it is taken back.
    pub(crate) const fn take_back_presence(&mut self) {
        self.presence.was_said = true;
    }

    /// Whoever is here is seen again.
    pub(super) fn reopen_presence(&mut self) {
        self.presence.revision += 1;
    }

    /// Forgets what is known of others from before a loss of the connection. Whether that could be seen.
    pub(crate) fn expire_presence(&mut self) -> bool {
        self.presence.is_stale && self.forget_others()
    }

    /// Forgets the others. Whether there were any.
    pub(super) fn forget_others(&mut self) -> bool {
        let presence = &mut self.presence;
        presence.arriving.clear();
        let had = !std::mem::take(&mut presence.others).is_empty();
        presence.revision += u64::from(had);
        had
    }

    /// This client is another session now. Whether that can be seen.
    pub(crate) fn welcome_presence(&mut self) -> bool {
        self.presence.revision += 1;
        self.presence.own.is_some() || !self.presence.others.is_empty()
    }

    /// Who is here, by session, and a number that says whether that has changed.
    pub(crate) fn roster(&self, me: Option<&Me>) -> (u64, Vec<PeerState>) {
        let presence = &self.presence;
        let others = presence
            .others
            .iter()
            .map(|(session, (user, state))| PeerState {
                session: *session,
                user: user.clone(),
                state: state.clone(),
                is_me: false,
            });
        let mut peers: Vec<_> = others.filter(|_| !self.closed).collect();
        if let Some(state) = &presence.own {
            let (session, user) = me.map_or_else(
                || (EVERYBODY, User::new("")),
                |me| (me.session, me.user.clone()),
            );
            let at = peers.partition_point(|peer| peer.session < session);
            let own = PeerState {
                session,
                user,
                state: state.clone(),
                is_me: true,
            };
            peers.insert(at, own);
        }
        (presence.revision, peers)
    }
}
