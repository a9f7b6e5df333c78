//! The protocol over one connection (`docs/protocol.md` section 6).
//!
//! Here is what a session is fed with; what it does with a message is in `messages`.

mod credentials;
mod ephemeral;
mod handshake;
mod messages;
mod output;
mod pace;
mod presence;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use self::credentials::Validity;
use self::ephemeral::Buckets;
use self::handshake::Greeting;
use self::messages::name_of;
pub use self::output::{AuthenticateRequest, JoinRequest, SessionEvent, SessionOutput};
use self::pace::{Pace, Paced};
use crate::error::{ErrorCode, PeerError};
use crate::history::Seq;
use crate::ids::{Channel, DocumentId, OriginId, RequestId, ResumeToken, SessionId, User};
use crate::rate::TokenBucket;
use crate::server::config::SessionConfig;
use crate::server::grant::Grant;
use crate::server::room::OpenRequest;
use crate::time::Time;
use crate::wire::{
    AccessLevel, Compression, ErrorMessage, Fragment, GoAway, Message, Open, Pong, Reassembler,
    Reference, decode_frame, encode_frame, split,
};

/// The channel that means the session itself.
const SESSION_CHANNEL: Channel = Channel(0);

/// The server's half of the protocol over one connection.
///
/// ```text
///            Hello              handle_authenticated(Ok)
///  Greeting ───────▶ Authenticating ───────▶ Live
///     │ wrong protocol,    │ refused, too late  │ error, silence, takeover, shutdown
///     │ version, too late  ▼                    │
///     └──────────────▶ Closed ◀─────────────────┘
/// ```
///
/// Outputs are to be carried out in their order. After [`SessionOutput::Close`] there are none, and nothing fed
/// to the session does anything.
#[derive(Debug, Clone)]
pub struct ServerSession {
    config: SessionConfig,
    id: SessionId,
    phase: Phase,
    reassembler: Reassembler,
    /// When a byte arrived last.
    heard: Time,
    validity: Option<Validity>,
    /// Whether fresh credentials are being looked at.
    is_refreshing: bool,
    /// Opens waiting for `handle_authorized`; at most one for each document.
    opens: BTreeMap<RequestId, Open>,
    channels: BTreeMap<Channel, DocumentId>,
    /// The same, by document.
    documents: BTreeMap<DocumentId, Channel>,
    /// Charge of changes taken and not yet settled.
    unsettled: usize,
    /// Those of them that no room has been handed yet.
    pace: Pace,
    buckets: Buckets,
    /// How often the session may say something of itself.
    presences: TokenBucket,
    next_fragmented: u32,
    outputs: VecDeque<SessionOutput>,
}

#[derive(Debug, Clone)]
enum Phase {
    Greeting { deadline: Time },
    Authenticating { deadline: Time, greeting: Greeting },
    Live(Live),
    Closed,
}

#[derive(Debug, Clone)]
struct Live {
    origin: OriginId,
    connection: u64,
    user: User,
    compression: Compression,
    token: Option<ResumeToken>,
    /// Whether the client says that it was here before.
    is_resumed: bool,
}

impl ServerSession {
    /// A session on a connection that was just made.
    #[must_use]
    pub fn new(now: Time, config: SessionConfig, id: SessionId) -> Self {
        Self {
            phase: Phase::Greeting {
                deadline: now + config.limits.handshake_timeout,
            },
            reassembler: Reassembler::new(&config.limits),
            pace: Pace::new(&config.limits),
            buckets: Buckets::new(&config.limits),
            presences: TokenBucket::new(presence::rate(&config.limits)),
            config,
            id,
            heard: now,
            validity: None,
            is_refreshing: false,
            opens: BTreeMap::new(),
            channels: BTreeMap::new(),
            documents: BTreeMap::new(),
            unsettled: 0,
            next_fragmented: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Name of the session.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// How the client and this side may compress, once that is agreed.
    #[must_use]
    pub const fn compression(&self) -> Compression {
        match &self.phase {
            Phase::Live(live) => live.compression,
            _ => Compression::None,
        }
    }

    /// The channels open on the session, and those about to be.
    pub fn channels(&self) -> impl Iterator<Item = (Channel, &DocumentId)> {
        self.channels
            .iter()
            .map(|(channel, document)| (*channel, document))
    }

    /// Bytes that the session keeps: parts of messages that have not arrived whole, and changes that came too fast.
    #[must_use]
    pub const fn held_bytes(&self) -> usize {
        self.reassembler.bytes_held() + self.pace.held_bytes()
    }

    /// Whether the session has ended.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Takes a transport message from the client.
    pub fn handle_frame(&mut self, now: Time, frame: Bytes) {
        if self.is_closed() {
            return;
        }
        self.heard = now;
        let message = match decode_frame(frame, self.config.limits.message_bytes_max) {
            Ok(message) => message,
            Err(error) => return self.undecodable(error.into()),
        };
        match message {
            Message::Fragment(fragment) => self.on_fragment(now, fragment),
            message => self.on_message(now, message),
        }
    }

    /// Says who the client is, or why that is not told: `Unauthenticated` for an explicit no, else retryable.
    pub fn handle_authenticated(&mut self, now: Time, result: Result<User, PeerError>) {
        if self.is_refreshing {
            return self.refreshed(now, result);
        }
        let Phase::Authenticating { greeting, .. } = &self.phase else {
            return;
        };
        let greeting = *greeting;
        match result {
            Ok(user) => self.welcome(now, greeting, user),
            Err(error) => self.end(error),
        }
    }

    /// Says what the user may do with the document of an open, or why that is not told.
    pub fn handle_authorized(
        &mut self,
        now: Time,
        request: RequestId,
        result: Result<Grant, PeerError>,
    ) {
        let Phase::Live(live) = &self.phase else {
            return;
        };
        // Of several opens of one document in flight only the last is kept.
        let Some(open) = self.opens.remove(&request) else {
            return;
        };
        let granted = match result {
            Ok(grant) if grant.level == AccessLevel::None => {
                let error = PeerError::new(
                    ErrorCode::AccessDenied,
                    format!("{} may not open {}", live.user.id, open.document),
                );
                // Nor go on with it, if it is open.
                if let Some(channel) = self.documents.get(&open.document).copied() {
                    self.leave(channel);
                }
                return self.send_error(error, Reference::Request(request));
            }
            other => other,
        };
        match granted {
            Ok(granted) => {
                // Asking for write gives all that the user may do beyond it.
                let access_max = if open.access < AccessLevel::Write {
                    open.access
                } else {
                    AccessLevel::Maintain
                };
                let open_request = OpenRequest {
                    request,
                    engine: open.engine,
                    cursor: open.cursor,
                    partial: open.partial,
                    origins: open.origins,
                    access: granted.level.min(access_max),
                    access_max,
                    valid_until: granted.valid_for.map(|time| now + time),
                    create: open.create && granted.create,
                    user: live.user.clone(),
                    origin: live.origin,
                    connection: live.connection,
                    compression: live.compression,
                    token: live.token,
                    is_resumed: live.is_resumed,
                };
                self.outputs.push_back(SessionOutput::Join(JoinRequest {
                    document: open.document,
                    open: open_request,
                }));
            }
            Err(error) => self.send_error(error, Reference::Request(request)),
        }
    }

    /// Says which channel names a document that is being opened.
    pub fn handle_joined(&mut self, _now: Time, document: DocumentId, channel: Channel) {
        if let Some(earlier) = self.documents.insert(document.clone(), channel) {
            self.channels.remove(&earlier);
            // What waits was sent before the open, which tells the client what to send again.
            self.forget_pushes(earlier);
        }
        self.channels.insert(channel, document);
    }

    /// Says that a room has taken the session out.
    pub fn handle_left(&mut self, _now: Time, channel: Channel) {
        if let Some(document) = self.channels.remove(&channel) {
            self.documents.remove(&document);
        }
        self.reassembler.close_channel(channel);
        self.forget_pushes(channel);
    }

    /// Says that changes of this charge ([`push_charge`](crate::limits::push_charge)) have been answered.
    pub const fn handle_settled(&mut self, charge: usize) {
        self.unsettled = self.unsettled.saturating_sub(charge);
    }

    /// Has changes wait until then: what the client's user has cost is more than it may. If that is long, the client is
    /// told to try again later.
    pub fn handle_hold(&mut self, now: Time, until: Time) {
        self.pace.hold(until);
        self.release_pushes(now);
    }

    /// Gives the heads asked for by [`SessionOutput::Heads`].
    pub fn handle_heads(&mut self, _now: Time, nonce: u64, heads: Vec<(Channel, Seq)>) {
        if matches!(self.phase, Phase::Live(_)) {
            self.send(&Message::Pong(Pong { nonce, heads }));
        }
    }

    /// Tells the client to connect again somewhere within the window.
    pub fn handle_go_away(&mut self, _now: Time, reconnect_within: std::time::Duration) {
        if matches!(self.phase, Phase::Live(_)) {
            self.send(&Message::GoAway(GoAway { reconnect_within }));
        }
    }

    /// Ends the session for a reason that the client is told.
    pub fn handle_end(&mut self, _now: Time, reason: PeerError) {
        self.end(reason);
    }

    /// To be called when [`poll_timeout`](Self::poll_timeout) has passed. Early or repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: Time) {
        if self.poll_timeout().is_none_or(|deadline| now < deadline) {
            return;
        }
        if matches!(self.phase, Phase::Live(_)) {
            self.check_validity(now);
            self.release_pushes(now);
            if now < self.heard + self.config.limits.idle_timeout {
                return;
            }
        }
        let limits = &self.config.limits;
        let error = match self.phase {
            Phase::Greeting { .. } => PeerError::new(
                ErrorCode::HandshakeTimeout,
                format!("no Hello within {:?}", limits.handshake_timeout),
            ),
            Phase::Authenticating { .. } => PeerError::new(
                ErrorCode::HandshakeTimeout,
                format!(
                    "could not tell within {:?} who this is",
                    limits.handshake_timeout
                ),
            ),
            Phase::Live(_) => PeerError::new(
                ErrorCode::IdleTimeout,
                format!("nothing heard for {:?}", limits.idle_timeout),
            ),
            Phase::Closed => return,
        };
        self.end(error);
    }

    /// The next thing to do.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<SessionOutput> {
        self.outputs.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        match self.phase {
            Phase::Greeting { deadline } | Phase::Authenticating { deadline, .. } => Some(deadline),
            Phase::Live(_) => {
                let idle = self.heard + self.config.limits.idle_timeout;
                let validity = self.validity.map(Validity::deadline);
                let others = [validity, self.pace.next_at()];
                Some(others.into_iter().flatten().fold(idle, Time::min))
            }
            Phase::Closed => None,
        }
    }

    fn undecodable(&mut self, error: PeerError) {
        let error = match self.phase {
            Phase::Greeting { .. } => PeerError::new(
                ErrorCode::WrongProtocol,
                format!("not a Hello of this protocol: {}", error.message),
            ),
            _ => error,
        };
        self.violation(error);
    }

    fn on_fragment(&mut self, now: Time, fragment: Fragment) {
        if !matches!(self.phase, Phase::Live(_)) {
            return self.unexpected("Fragment");
        }
        match self.reassembler.handle(fragment) {
            Ok(Some(frame)) => match decode_frame(frame, self.config.limits.message_bytes_max) {
                Ok(message) => self.on_message(now, message),
                Err(error) => self.violation(error.into()),
            },
            Ok(None) => {}
            Err(error) => self.violation(error.into()),
        }
    }

    fn on_message(&mut self, now: Time, message: Message) {
        match (&self.phase, message) {
            (Phase::Greeting { .. }, Message::Hello(hello)) => self.on_hello(now, hello),
            (Phase::Live(_), message) => self.on_live(now, message),
            (_, message) => self.unexpected(name_of(&message)),
        }
    }

    fn unexpected(&mut self, message: &'static str) {
        let error = match self.phase {
            Phase::Greeting { .. } => PeerError::new(
                ErrorCode::WrongProtocol,
                format!("the first message must be Hello, found {message}"),
            ),
            Phase::Authenticating { .. } => PeerError::new(
                ErrorCode::UnexpectedMessage,
                format!("{message} before Welcome"),
            ),
            _ => PeerError::new(
                ErrorCode::UnexpectedMessage,
                format!("{message} is not for a server"),
            ),
        };
        self.violation(error);
    }

    fn violation(&mut self, error: PeerError) {
        if !self.is_closed() {
            self.event(SessionEvent::ProtocolError(error.clone()));
            self.end(error);
        }
    }

    fn end(&mut self, error: PeerError) {
        if !self.is_closed() {
            self.send_error(error.clone(), Reference::Session);
            self.close(error);
        }
    }

    fn close(&mut self, reason: PeerError) {
        self.phase = Phase::Closed;
        self.opens.clear();
        self.outputs.push_back(SessionOutput::Close {
            code: reason.code.close_code(),
            reason,
        });
    }

    fn send_error(&mut self, error: PeerError, reference: Reference) {
        if reference != Reference::Session {
            self.event(SessionEvent::ErrorSent(error.code));
        }
        self.send(&Message::Error(ErrorMessage::new(error, reference)));
    }

    fn send(&mut self, message: &Message) {
        // Compressing these would cost more than it saves.
        let frame = encode_frame(message, Compression::None);
        self.next_fragmented = self.next_fragmented.wrapping_add(1);
        for frame in split(frame, SESSION_CHANNEL, self.next_fragmented) {
            self.outputs.push_back(SessionOutput::Send(frame));
        }
    }

    fn event(&mut self, event: SessionEvent) {
        self.outputs.push_back(SessionOutput::Event(event));
    }
}
