//! One connection: the task that owns its transport.

mod hooked;
mod outputs;
mod writing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use sync_core::error::{ErrorCode, PeerError};
use sync_core::ids::{Channel, OriginId, RequestId, User};
use sync_core::server::{Grant, MemberOutput, ServerSession};
use sync_core::time::Time;
use sync_core::transport::{PeerInfo, Transport, TransportError};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Shared;
use super::line::Line;
use super::mailbox::Mailbox;
use super::rooms::RoomHandle;
use crate::auth::Identity;
use crate::event::{CloseReason, ServerEvent};

/// Frames read before anything is written, so that reading does not starve writing.
const READS_MAX: usize = 32;
/// Rounds of reading and writing before other tasks get their turn.
const ROUNDS_MAX: usize = 16;
/// Bytes of the session's own answers beyond which nothing is read: only who asks and does not read gets there.
const ANSWERS_BYTES_MAX: usize = 256 * 1024;

/// Owns a transport and the session over it; shares nothing but the mailbox, and the rooms that it visits.
pub(super) struct Connection<T: Transport> {
    server: Arc<Shared>,
    transport: T,
    session: ServerSession,
    mailbox: Arc<Mailbox>,
    peer: PeerInfo,
    /// Who it is, once welcomed.
    client: Option<(OriginId, User)>,
    is_anonymous: bool,
    /// Until when the session has been told to hold changes back.
    held_until: Time,
    /// When rooms are asked again for what they have; set while the user's budget is used up.
    paced_until: Option<Time>,
    /// The session's own frames, which go ahead of those of rooms.
    answers: VecDeque<Bytes>,
    answers_bytes: usize,
    rooms: BTreeMap<Channel, Arc<RoomHandle>>,
    /// Rooms that have something; each gets its turn.
    ready: VecDeque<Arc<RoomHandle>>,
    /// Which of them is sending a message of several frames: one at a time, so that the client never has to put many
    /// together.
    in_message: Option<Channel>,
    /// Those that are reading the log for the session, or have rows of it in memory.
    catching_up: BTreeSet<Channel>,
    /// Rooms that may be waiting for leave to do either.
    held: BTreeMap<Channel, Arc<RoomHandle>>,
    polled: Vec<MemberOutput>,
    /// When the last answer was asked for that an open waited for.
    asked_at: u64,
    calls: FuturesUnordered<BoxFuture<'static, Answer>>,
    /// What waits for hooks, if there are any.
    line: Option<Box<Line>>,
    /// Who it is, if somebody has found out and hooks have yet to be asked.
    known: Option<Identity>,
    timer: Pin<Box<Sleep>>,
    is_flushed: bool,
    has_left: bool,
    closing: Option<Closing>,
}

/// Of the user's own code.
enum Answer {
    Authenticated(Result<Identity, PeerError>),
    /// With what [`Doubts`](super::permission::Doubts) said when it was asked.
    Authorized(RequestId, u64, Result<Grant, PeerError>),
}

struct Closing {
    code: u16,
    reason: PeerError,
    deadline: Instant,
}

/// Why the task ends.
enum End {
    Closed,
    ByClient,
    Transport(TransportError),
}

impl<T: Transport> Connection<T> {
    pub(super) fn new(
        server: Arc<Shared>,
        transport: T,
        peer: PeerInfo,
        known: Option<Identity>,
    ) -> Self {
        let (mailbox, refusal) = server.admit(&peer);
        let now = server.clock.now();
        let is_anonymous = known.as_ref().is_some_and(|known| known.is_anonymous);
        let line =
            (!server.hooks.is_empty()).then(|| Box::new(Line::new(&server, mailbox.session())));
        // With hooks, the session asks who it is in any case, since that takes time.
        let (known, told) = if line.is_some() {
            (known, None)
        } else {
            (None, known)
        };
        let (user, valid_for) = told.map(|known| (known.user, known.valid_for)).unzip();
        let mut session = ServerSession::new(now, server.session_config(user), mailbox.session());
        session.handle_validity(now, valid_for.flatten());
        if let Some(refusal) = refusal {
            session.handle_end(now, refusal);
        }
        Self {
            timer: Box::pin(sleep_until(Instant::now())),
            server,
            transport,
            session,
            mailbox,
            peer,
            client: None,
            is_anonymous,
            held_until: Time::ZERO,
            paced_until: None,
            answers: VecDeque::new(),
            answers_bytes: 0,
            rooms: BTreeMap::new(),
            ready: VecDeque::new(),
            in_message: None,
            catching_up: BTreeSet::new(),
            held: BTreeMap::new(),
            polled: Vec::new(),
            asked_at: 0,
            calls: FuturesUnordered::new(),
            line,
            known,
            is_flushed: true,
            has_left: false,
            closing: None,
        }
    }

    pub(super) async fn run(mut self) {
        let end = poll_fn(|cx| self.poll(cx)).await;
        let reason = match (end, self.closing.take()) {
            (_, Some(closing)) => CloseReason::Ended(closing.reason),
            (End::Transport(error), None) => CloseReason::Lost {
                error: error.to_string(),
            },
            (End::Closed | End::ByClient, None) => CloseReason::ByClient {
                code: self.transport.close_code(),
            },
        };
        self.leave(reason);
    }

    /// Leaves everything; once.
    fn leave(&mut self, reason: CloseReason) {
        if std::mem::replace(&mut self.has_left, true) {
            return;
        }
        if let CloseReason::Ended(error) = &reason {
            self.server.count_error(error.code);
        }
        let session = self.session.id();
        let may_return = may_return(&reason);
        for room in std::mem::take(&mut self.rooms).into_values() {
            if may_return {
                room.lose(session);
            } else {
                room.close(session);
            }
        }
        let line = self.line.take();
        let client = self.client.take();
        self.server.events.send(if client.is_some() {
            ServerEvent::SessionClosed { session, reason }
        } else {
            ServerEvent::ConnectionFailed {
                peer: self.peer.clone(),
                reason,
            }
        });
        if let Some(line) = line {
            line.finish();
        }
        self.server.dismiss(session, &self.peer, client);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        for _ in 0..ROUNDS_MAX {
            self.take_mail(cx);
            self.hold_changes();
            let mut is_busy = match self.read(cx) {
                Ok(is_busy) => is_busy,
                Err(end) => return Poll::Ready(end),
            };
            is_busy |= self.poll_calls(cx);
            is_busy |= self.poll_line(cx);
            is_busy |= self.poll_timer(cx);
            self.carry_out();
            match self.write(cx) {
                Ok(wrote) => is_busy |= wrote,
                Err(error) => return Poll::Ready(End::Transport(error)),
            }
            if self.poll_close(cx).is_ready() {
                return Poll::Ready(End::Closed);
            }
            if !is_busy {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn take_mail(&mut self, cx: &Context<'_>) {
        let mail = self.mailbox.take(cx.waker());
        let now = self.server.clock.now();
        self.ready.extend(mail.ready);
        self.session.handle_settled(mail.settled);
        if let Some(within) = mail.go_away {
            self.session.handle_go_away(now, within);
        }
        // One at a time, when the client has been sent what there was: what it does not read waits in the mailbox.
        if self.answers.is_empty()
            && let Some((kind, bytes)) = self.mailbox.next_extension()
        {
            self.session.handle_extend(kind, bytes);
            self.carry_out();
        }
        if let Some(reason) = mail.end {
            self.session.handle_end(now, reason);
        }
    }

    /// Has the session hold changes back while its user's budget is used up.
    fn hold_changes(&mut self) {
        if let Some(budget) = self.mailbox.budget() {
            let until = budget.checks_at();
            if until != self.held_until {
                self.held_until = until;
                self.session.handle_hold(self.server.clock.now(), until);
            }
        }
    }

    /// Whether rooms are asked for what they have; not while the user's budget is used up.
    fn may_serve(&self, now: Time) -> bool {
        self.closing.is_none()
            && self
                .mailbox
                .budget()
                .is_none_or(|budget| budget.serves_at() <= now)
    }

    /// Reads some frames; true if there may be more.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        for _ in 0..READS_MAX {
            // What a client sends after its session ended is not processed.
            let is_full = self.line.as_ref().is_some_and(|line| line.is_full());
            if self.session.is_closed() || self.answers_bytes > ANSWERS_BYTES_MAX || is_full {
                return Ok(false);
            }
            let frame = match self.transport.poll_receive(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(Some(Err(error))) => return Err(self.broken(error)),
                Poll::Ready(None) => return Err(End::ByClient),
                Poll::Pending => return Ok(false),
            };
            self.mailbox.traffic.received(frame.len());
            self.session.handle_frame(self.server.clock.now(), frame);
            self.carry_out();
        }
        Ok(true)
    }

    fn broken(&self, error: TransportError) -> End {
        if !matches!(error, TransportError::Lost(_)) {
            let error = PeerError::new(ErrorCode::WrongProtocol, error.to_string());
            self.server.events.send(ServerEvent::ProtocolError {
                session: self.session.id(),
                error,
            });
        }
        End::Transport(error)
    }

    fn poll_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let mut is_busy = false;
        while let Poll::Ready(Some(answer)) = self.calls.poll_next_unpin(cx) {
            is_busy = true;
            let now = self.server.clock.now();
            match answer {
                Answer::Authenticated(Ok(identity)) => {
                    self.is_anonymous = identity.is_anonymous;
                    if let Some(line) = &mut self.line {
                        line.connected(identity.user.clone());
                    }
                    self.session.handle_authenticated(now, Ok(identity.user));
                    self.session.handle_validity(now, identity.valid_for);
                }
                Answer::Authenticated(Err(error)) => {
                    self.session.handle_authenticated(now, Err(error));
                }
                Answer::Authorized(request, asked_at, access) => {
                    self.asked_at = asked_at;
                    self.session.handle_authorized(now, request, access);
                    self.carry_out();
                }
            }
        }
        is_busy
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let timeout = self
            .session
            .poll_timeout()
            .map(|time| self.server.clock.instant(time));
        let closing = self.closing.as_ref().map(|closing| closing.deadline);
        let paced = self.paced_until.map(|time| self.server.clock.instant(time));
        let Some(deadline) = timeout.into_iter().chain(closing).chain(paced).min() else {
            return false;
        };
        // Most deadlines only move away. The timer is left where it is then, and set again when it has fired.
        if self.timer.deadline() > deadline {
            self.timer.as_mut().reset(deadline);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                self.paced_until = None;
                let was_closed = self.session.is_closed();
                self.session.handle_timeout(self.server.clock.now());
                return !was_closed;
            }
            self.timer.as_mut().reset(deadline);
        }
        false
    }

    /// Says goodbye once everything has been handed over; gives up after a while.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(closing) = &self.closing else {
            return Poll::Pending;
        };
        if Instant::now() >= closing.deadline {
            return Poll::Ready(());
        }
        if !self.answers.is_empty() {
            return Poll::Pending;
        }
        self.transport.poll_close(cx, closing.code)
    }
}

/// Whether the client may be back soon, as the same to others: it was cut off, or has another connection already. Who
/// says goodbye, or has not been heard for the idle time, is gone.
const fn may_return(reason: &CloseReason) -> bool {
    match reason {
        CloseReason::Ended(error) => matches!(error.code, ErrorCode::Superseded),
        CloseReason::ByClient { code } => !matches!(code, Some(NORMAL | GOING_AWAY)),
        CloseReason::Lost { .. } | CloseReason::Dropped => true,
    }
}

/// Close codes of a client that ends its session, and of a web page that is left.
const NORMAL: u16 = 1000;
const GOING_AWAY: u16 = 1001;

impl<T: Transport> Drop for Connection<T> {
    fn drop(&mut self) {
        self.leave(CloseReason::Dropped);
    }
}
