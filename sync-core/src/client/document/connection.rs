//! Opening a document on a connection, and what makes it open again (protocol.md sections 7.1 and 8.1).

use super::{DocumentState, Effect, Fresh, Link, Plan, Stream, Turn};
use crate::client::event::DocumentEvent;
use crate::client::outbox::Standing;
use crate::client::replica::Job;
use crate::error::{Action, ErrorCode, PeerError};
use crate::history::{Cursor, Seq};
use crate::ids::{Channel, EngineId, OriginId, RequestId};
use crate::planted::Bug;
use crate::rng::Rng;
use crate::time::Time;
use crate::wire::{AccessLevel, Close, Continuation, Message, Open, Opened, Reset};

impl DocumentState {
    /// The connection is gone.
    pub(crate) fn handle_lost(&mut self, turn: &mut Turn) {
        match self.link {
            // What one session may not, the next one may: it may come with other credentials.
            Link::Blocked(code) if code != ErrorCode::AccessDenied => {}
            Link::Damaged(_) => {}
            _ => self.link = Link::Idle,
        }
        self.outbox.requeue();
        self.lose_presence();
        turn.touched = true;
    }

    /// The application asks for another try of everything.
    pub(crate) fn unblock(&mut self) {
        if matches!(self.link, Link::Blocked(_) | Link::Delayed(_)) {
            self.link = Link::Idle;
        }
    }

    /// Whether an `Open` should be sent now. Not while a job runs: the cursor must say exactly what is imported.
    pub(crate) fn wants_open(&self, now: Time) -> bool {
        let due = match self.link {
            Link::Idle => true,
            Link::Delayed(at) => at <= now,
            _ => false,
        };
        // Rebuilding takes a replica.
        let is_parked = self.headless && self.fresh.is_some();
        due && !is_parked && self.jobs.is_empty() && !(self.closed && self.unsaved() == 0)
    }

    pub(crate) fn open(&mut self, request: RequestId, turn: &mut Turn) {
        self.outbox.requeue();
        self.link = Link::Opening(request);
        turn.touched = true;
        turn.messages.push(Message::Open(Open {
            request,
            document: self.id.clone(),
            engine: self.engine.clone(),
            cursor: if self.fresh.is_some() {
                None
            } else {
                self.cursor
            },
            origins: self.outbox.origins(),
            access: self.options.access,
            create: self.options.create,
            partial: self.partial.claim(),
        }));
    }

    pub(crate) fn handle_opened(&mut self, opened: Opened, rng: &mut Rng, turn: &mut Turn) -> bool {
        let (Link::Opening(request) | Link::Waiting(request)) = self.link else {
            return false;
        };
        if request != opened.request {
            return false;
        }
        turn.touched = true;
        self.handle_access(opened.access, turn);
        let is_reset = matches!(opened.next, Continuation::Reset { .. } | Continuation::Wait);
        if self.headless && is_reset {
            return self.park(opened.channel, turn);
        }
        if opened.next == Continuation::Wait {
            self.link = Link::Waiting(request);
            return true;
        }
        let last: Vec<(OriginId, u64)> = opened
            .origins
            .iter()
            .map(|(origin, last, _)| (*origin, *last))
            .collect();
        let standing = if self.ignores_standing(&opened) {
            Standing::Known
        } else {
            self.outbox.reconcile_with(&last)
        };
        if standing == Standing::Forgotten {
            if self.headless && self.engine == EngineId::OPAQUE {
                // They may be sealed for their ids, and the key is the application's.
                return self.park(opened.channel, turn);
            }
            self.outbox.reissue(OriginId(rng.next_u128()));
            self.keep_renamed();
        }
        if self
            .cursor
            .is_some_and(|cursor| cursor.epoch != opened.epoch)
        {
            // What it was made on may not be there any more.
            self.ahead = None;
        }
        let start = Cursor::start(opened.epoch);
        let (plan, received, awaits_snapshot) = self.plan(opened.next, start);
        let is_followed = plan == Plan::Follow;
        // Opaque documents are told where in the log their own changes are.
        let own_are_imported = is_followed && self.engine != EngineId::OPAQUE;
        if plan != Plan::Follow {
            self.queue(Job::StartShadow, Effect::Shadow { first: Seq::ZERO }, turn);
        }
        self.link = Link::Streaming(Box::new(Stream {
            channel: opened.channel,
            received,
            open_head: opened.head,
            head: opened.head,
            authors: opened
                .origins
                .iter()
                .map(|(origin, _, author)| (*author, *origin))
                .collect(),
            plan,
            awaits_snapshot,
            own_are_imported,
        }));
        self.open_presence();
        if is_followed && !awaits_snapshot && self.cursor.is_none() {
            self.cursor = Some(start);
        }
        if awaits_snapshot {
            let (held, of) = self.partial.progress();
            let total = total_bytes(opened.next);
            let received = if of == total { held } else { 0 };
            self.progress.snapshot(Seq::ZERO, received, total);
        } else {
            self.partial.forget();
        }
        self.update_progress();
        self.finish_if_complete(turn);
        self.bring_what_is_owed(turn);
        true
    }

    /// Bugs that can be planted: what the registry has of the outbox does not count.
    fn ignores_standing(&self, opened: &Opened) -> bool {
        let is_rebase = matches!(
            opened.next,
            Continuation::Reset {
                reset: Reset::Rebase,
                ..
            }
        );
        let is_less = |(origin, known): &(OriginId, u64)| {
            let told = opened.origins.iter().find(|(told, ..)| told == origin);
            told.is_some_and(|(_, last, _)| last < known)
        };
        (is_rebase && self.planted.has(Bug::LostAckReplayed))
            || (self.planted.has(Bug::EvictedOriginRefused)
                && self.outbox.origins().iter().any(is_less))
    }

    /// Leaves the channel until the application opens the document.
    fn park(&mut self, channel: Channel, turn: &mut Turn) -> bool {
        turn.messages.push(Message::Close(Close { channel }));
        turn.left = Some(channel);
        self.link = Link::Parked;
        true
    }

    /// Protocol 8.1 to 8.3, from the client's side.
    fn plan(&self, next: Continuation, start: Cursor) -> (Plan, Cursor, bool) {
        // What was trimmed away, or removed on purpose, must not be merged back.
        let fresh = match next {
            Continuation::Reset {
                reset: Reset::Rebase | Reset::Discard,
                ..
            } => self.fresh.filter(|fresh| *fresh != Fresh::Merge),
            _ => self.fresh,
        };
        match (fresh, next) {
            (
                Some(fresh),
                Continuation::Resume | Continuation::Snapshot { .. } | Continuation::Reset { .. },
            ) => {
                let plan = match fresh {
                    Fresh::Replace => Plan::Replace { replay: true },
                    Fresh::Merge => Plan::Merge { turn: false },
                };
                (plan, start, snapshot_follows(next))
            }
            (
                None,
                Continuation::Reset {
                    reset: Reset::Merge,
                    ..
                },
            ) => (
                Plan::Merge {
                    turn: self.access >= AccessLevel::Write,
                },
                start,
                snapshot_follows(next),
            ),
            (None, Continuation::Reset { reset, .. }) => (
                Plan::Replace {
                    replay: reset == Reset::Rebase,
                },
                start,
                snapshot_follows(next),
            ),
            // State from a server is here already: a snapshot that lacks some of it is repaired (design 2.3).
            (None, Continuation::Snapshot { .. }) if self.cursor.is_some() && !self.headless => {
                (Plan::Merge { turn: false }, start, true)
            }
            (None, Continuation::Snapshot { .. }) => (Plan::Follow, start, true),
            (_, Continuation::Resume | Continuation::Wait) => {
                (Plan::Follow, self.cursor.unwrap_or(start), false)
            }
        }
    }

    /// An error about this document's open request.
    pub(crate) fn handle_request_error(
        &mut self,
        now: Time,
        error: &PeerError,
        action: Action,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        turn.touched = true;
        self.link = match action {
            Action::Retry | Action::Resync | Action::RefreshAuth => self.delayed(now, error, rng),
            Action::Refuse | Action::Upgrade | Action::Stop => {
                self.partial.forget();
                Link::Blocked(error.code)
            }
        };
        if error.code == ErrorCode::AccessDenied {
            self.handle_access(AccessLevel::None, turn);
        }
        if error.code == ErrorCode::AuthorizationUnavailable
            && self.planted.has(Bug::AuthorizeErrorRefuses)
        {
            self.refuse_pending(error.code, turn);
        }
        if error.code == ErrorCode::Deleted {
            turn.events.push(DocumentEvent::Deleted);
        }
    }

    fn delayed(&mut self, now: Time, error: &PeerError, rng: &mut Rng) -> Link {
        let drawn = self.backoff.next(rng);
        Link::Delayed(now + error.retry_after.unwrap_or(drawn))
    }

    /// An error about this document's channel.
    pub(crate) fn handle_channel_error(
        &mut self,
        now: Time,
        error: &PeerError,
        action: Action,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        self.forget_channel(turn);
        if action == Action::Resync {
            self.resync(now, rng);
        } else {
            self.handle_request_error(now, error, action, rng, turn);
        }
    }

    pub(super) fn forget_channel(&mut self, turn: &mut Turn) {
        if let Link::Streaming(stream) = &self.link {
            turn.left = Some(stream.channel);
            self.link = Link::Idle;
            turn.shows_presence |= self.forget_others();
        }
        turn.touched = true;
    }

    /// Opens again: at once the first time, later with growing delays until something has worked.
    fn resync(&mut self, now: Time, rng: &mut Rng) {
        self.link = if self.backoff.attempts() == 0 {
            self.backoff.next(rng);
            Link::Idle
        } else {
            Link::Delayed(now + self.backoff.next(rng))
        };
    }

    /// The stream and what is here do not fit: open again.
    pub(super) fn out_of_step(&mut self, now: Time, rng: &mut Rng, turn: &mut Turn) {
        self.forget_channel(turn);
        self.resync(now, rng);
    }

    pub(crate) fn handle_closed(
        &mut self,
        now: Time,
        reason: Option<ErrorCode>,
        rng: &mut Rng,
        turn: &mut Turn,
    ) {
        let Some(code) = reason else { return };
        let error = PeerError::new(code, String::new());
        self.handle_channel_error(now, &error, code.action(), rng, turn);
    }

    pub(crate) fn handle_access(&mut self, access: AccessLevel, turn: &mut Turn) {
        if self.access != access {
            self.access = access;
            turn.events.push(DocumentEvent::AccessChanged(access));
            turn.touched = true;
        }
        self.bring_what_is_owed(turn);
    }

    /// What the server was found to lack when it could not be told is found and told now, if it may be.
    fn bring_what_is_owed(&mut self, turn: &mut Turn) {
        let follows = matches!(&self.link, Link::Streaming(stream) if stream.plan == Plan::Follow);
        if self.owes && follows && self.access >= AccessLevel::Write && self.fresh.is_none() {
            self.owes = false;
            self.fresh = Some(Fresh::Merge);
            self.forget_channel(turn);
        }
    }
}

const fn total_bytes(next: Continuation) -> u64 {
    match next {
        Continuation::Snapshot { total_bytes } | Continuation::Reset { total_bytes, .. } => {
            total_bytes
        }
        Continuation::Resume | Continuation::Wait => 0,
    }
}

const fn snapshot_follows(next: Continuation) -> bool {
    match next {
        Continuation::Snapshot { .. } => true,
        Continuation::Reset { total_bytes, .. } => total_bytes > 0,
        Continuation::Resume | Continuation::Wait => false,
    }
}
