//! The protocol over one connection (`docs/protocol.md` section 6).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::config::SessionConfig;
use super::room::OpenRequest;
use crate::error::{ErrorCode, PeerError};
use crate::history::Seq;
use crate::ids::{Channel, DocumentId, OriginId, RequestId, SessionId, User};
use crate::limits::push_charge;
use crate::time::Time;
use crate::wire::{
    AccessLevel, Closed, Compression, ErrorMessage, Fragment, GoAway, Hello, Message, Open,
    PROTOCOL_VERSIONS, Ping, Pong, Push, Reassembler, Reference, Welcome, WelcomeLimits,
    decode_frame, encode_frame, split,
};

/// Origins that one `Open` may name. Registries remember at most 100 of one user beside those in the log.
const OPEN_ORIGINS_MAX: usize = 10_000;

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
#[derive(Debug)]
pub struct ServerSession {
    config: SessionConfig,
    id: SessionId,
    phase: Phase,
    reassembler: Reassembler,
    /// When a byte arrived last.
    heard: Time,
    /// Opens waiting for `handle_authorized`; at most one for each document.
    opens: BTreeMap<RequestId, Open>,
    channels: BTreeMap<Channel, DocumentId>,
    /// The same, by document.
    documents: BTreeMap<DocumentId, Channel>,
    /// Charge of changes taken and not yet settled.
    unsettled: usize,
    next_fragmented: u32,
    outputs: VecDeque<SessionOutput>,
}

#[derive(Debug)]
enum Phase {
    Greeting { deadline: Time },
    Authenticating { deadline: Time, greeting: Greeting },
    Live(Live),
    Closed,
}

#[derive(Debug, Clone, Copy)]
struct Greeting {
    version: u16,
    origin: OriginId,
    connection: u64,
    compression: Compression,
}

#[derive(Debug)]
struct Live {
    origin: OriginId,
    connection: u64,
    user: User,
    compression: Compression,
}

/// What a session wants done.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionOutput {
    /// Send this frame, ahead of frames that rooms have for the session.
    Send(Bytes),
    /// Ask who the client is, and answer with [`ServerSession::handle_authenticated`].
    Authenticate(AuthenticateRequest),
    /// Ask what the user may do, and answer with [`ServerSession::handle_authorized`].
    Authorize {
        /// Names the answer.
        request: RequestId,
        /// What is to be opened.
        document: DocumentId,
    },
    /// Hand the open to the document's room, after [`ServerSession::handle_joined`] with the room's channel.
    Join(JoinRequest),
    /// Hand the changes to the channel's room.
    Push(Push),
    /// Take the session out of the channel's room.
    Leave(Channel),
    /// Collect the heads of the channels open on this session, and answer with [`ServerSession::handle_heads`].
    Heads {
        /// Names the answer.
        nonce: u64,
    },
    /// Something happened.
    Event(SessionEvent),
    /// Close the connection with this code once everything before has been sent. The last output.
    Close {
        /// Close code of the transport.
        code: u16,
        /// What ended the session.
        reason: PeerError,
    },
}

/// What is known of a client before anybody says who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthenticateRequest {
    /// The credentials of `Hello`.
    pub credentials: Option<Bytes>,
    /// Name and version of its software.
    pub software: String,
    /// Its process start.
    pub origin: OriginId,
}

/// An open that the user may make.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JoinRequest {
    /// What is to be opened.
    pub document: DocumentId,
    /// For [`Room::handle_open`](super::Room::handle_open).
    pub open: OpenRequest,
}

/// Something that happened on a session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// `Welcome` has been sent. Of two sessions of one user and origin the one with the higher connection number stays:
    /// end the other with [`ErrorCode::Superseded`], its unread frames discarded. The older one's `Hello` may well
    /// arrive last.
    Opened {
        /// Who it is.
        user: User,
        /// Its process start.
        origin: OriginId,
        /// Which of the origin's connections it is.
        connection: u64,
    },
    /// The client broke the protocol; the session ends.
    ProtocolError(PeerError),
    /// The client said that this side broke it; the session ends.
    PeerReported(ErrorMessage),
    /// A message that this version does not know or take was ignored or refused.
    Ignored {
        /// Its name.
        message: &'static str,
    },
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
            config,
            id,
            heard: now,
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
        _now: Time,
        request: RequestId,
        result: Result<AccessLevel, PeerError>,
    ) {
        let Phase::Live(live) = &self.phase else {
            return;
        };
        // Of several opens of one document in flight only the last is kept.
        let Some(open) = self.opens.remove(&request) else {
            return;
        };
        let granted = match result {
            Ok(AccessLevel::None) => Err(PeerError::new(
                ErrorCode::AccessDenied,
                format!("{} may not open {}", live.user.id, open.document),
            )),
            other => other,
        };
        match granted {
            Ok(granted) => {
                let open_request = OpenRequest {
                    request,
                    engine: open.engine,
                    cursor: open.cursor,
                    origins: open.origins,
                    // Asking for write gives all that the user may do beyond it.
                    access: if open.access < AccessLevel::Write {
                        open.access.min(granted)
                    } else {
                        granted
                    },
                    create: open.create,
                    user: live.user.clone(),
                    origin: live.origin,
                    connection: live.connection,
                    compression: live.compression,
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
        }
        self.channels.insert(channel, document);
    }

    /// Says that a room has taken the session out.
    pub fn handle_left(&mut self, _now: Time, channel: Channel) {
        if let Some(document) = self.channels.remove(&channel) {
            self.documents.remove(&document);
        }
        self.reassembler.close_channel(channel);
    }

    /// Says that changes of this charge ([`push_charge`]) have been answered.
    pub const fn handle_settled(&mut self, charge: usize) {
        self.unsettled = self.unsettled.saturating_sub(charge);
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
            Phase::Live(_) => Some(self.heard + self.config.limits.idle_timeout),
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
            (Phase::Live(_), message) => self.on_live(message),
            (_, message) => self.unexpected(name_of(&message)),
        }
    }

    fn on_live(&mut self, message: Message) {
        match message {
            Message::Open(open) => self.on_open(open),
            Message::Push(push) => self.on_push(push),
            Message::Close(close) => self.on_close(close.channel),
            Message::Ping(Ping { nonce }) => {
                self.outputs.push_back(SessionOutput::Heads { nonce });
            }
            Message::Presence(presence) => self.unsupported("Presence", presence.channel),
            Message::Broadcast(broadcast) => self.unsupported("Broadcast", broadcast.channel),
            Message::FoldOffer(offer) => self.unsupported("FoldOffer", offer.channel),
            Message::Error(error) if error.reference == Reference::Session => {
                self.event(SessionEvent::PeerReported(error.clone()));
                let reason = PeerError::new(error.code, error.message);
                self.close(reason);
            }
            // Nothing depends on them: a later version, a plugin that this server lacks, an answer to a ping that
            // this server never sends, a complaint about one document that is followed by an `Open`.
            Message::Ignored { .. }
            | Message::Extension(_)
            | Message::Auth(_)
            | Message::Pong(_)
            | Message::Error(_) => {
                self.event(SessionEvent::Ignored {
                    message: name_of(&message),
                });
            }
            Message::Hello(_)
            | Message::Welcome(_)
            | Message::Opened(_)
            | Message::Changes(_)
            | Message::Ack(_)
            | Message::Refuse(_)
            | Message::Snapshot(_)
            | Message::FoldRequest(_)
            | Message::Access(_)
            | Message::Closed(_)
            | Message::GoAway(_)
            | Message::Author(_)
            | Message::Fragment(_) => self.unexpected(name_of(&message)),
        }
    }

    fn on_hello(&mut self, now: Time, hello: Hello) {
        let Some(version) = PROTOCOL_VERSIONS.negotiate(hello.versions) else {
            let (ours, theirs) = (PROTOCOL_VERSIONS, hello.versions);
            return self.violation(PeerError::new(
                ErrorCode::UnsupportedVersion,
                format!(
                    "this server speaks versions {} to {}, the client {} to {}",
                    ours.min, ours.max, theirs.min, theirs.max
                ),
            ));
        };
        let compression = if self.config.gzip && hello.compression.contains(&Compression::Gzip) {
            Compression::Gzip
        } else {
            Compression::None
        };
        let greeting = Greeting {
            version,
            origin: hello.origin,
            connection: hello.connection,
            compression,
        };
        if let Some(user) = self.config.user.clone() {
            return self.welcome(now, greeting, user);
        }
        let Phase::Greeting { deadline } = self.phase else {
            return;
        };
        self.phase = Phase::Authenticating { deadline, greeting };
        self.outputs
            .push_back(SessionOutput::Authenticate(AuthenticateRequest {
                credentials: hello.credentials,
                software: hello.software,
                origin: hello.origin,
            }));
    }

    fn welcome(&mut self, now: Time, greeting: Greeting, user: User) {
        let limits = &self.config.limits;
        let now_ms = u64::try_from(now.since(Time::ZERO).as_millis()).unwrap_or(u64::MAX);
        let welcome = Welcome {
            version: greeting.version,
            session: self.id,
            user: user.id.to_string(),
            resume: None,
            compression: greeting.compression,
            limits: WelcomeLimits {
                message_bytes_max: wide(limits.message_bytes_max),
                change_bytes_max: wide(limits.change_bytes_max),
                push_window_bytes: wide(limits.push_window_bytes),
                documents_max: wide(limits.documents_per_session_max),
            },
            ping_interval: limits.ping_interval,
            server_time_ms: self.config.start_wall_ms.saturating_add(now_ms),
        };
        self.phase = Phase::Live(Live {
            origin: greeting.origin,
            connection: greeting.connection,
            user: user.clone(),
            compression: greeting.compression,
        });
        self.event(SessionEvent::Opened {
            user,
            origin: greeting.origin,
            connection: greeting.connection,
        });
        self.send(&Message::Welcome(welcome));
    }

    fn on_open(&mut self, open: Open) {
        if open.origins.len() > OPEN_ORIGINS_MAX {
            return self.violation(PeerError::new(
                ErrorCode::MalformedFrame,
                format!(
                    "open.origins has {} entries, the limit is {OPEN_ORIGINS_MAX}",
                    open.origins.len()
                ),
            ));
        }
        self.opens.retain(|request, earlier| {
            *request != open.request && earlier.document != open.document
        });
        let is_open = self.documents.contains_key(&open.document);
        let pending = self
            .opens
            .values()
            .filter(|pending| !self.documents.contains_key(&pending.document))
            .count();
        let max = self.config.limits.documents_per_session_max;
        if !is_open && self.channels.len() + pending >= max {
            let error = PeerError::new(
                ErrorCode::TooManyDocuments,
                format!("{max} documents are open, which is the limit"),
            );
            return self.send_error(error, Reference::Request(open.request));
        }
        self.outputs.push_back(SessionOutput::Authorize {
            request: open.request,
            document: open.document.clone(),
        });
        self.opens.insert(open.request, open);
    }

    fn on_push(&mut self, push: Push) {
        if !self.channels.contains_key(&push.channel) {
            return self.not_open(push.channel);
        }
        let limits = &self.config.limits;
        self.unsettled = self.unsettled.saturating_add(push_charge(&push.changes));
        // Generous, because both sides count at different moments.
        let max = limits
            .push_window_bytes
            .saturating_mul(2)
            .saturating_add(limits.message_bytes_max);
        if self.unsettled > max {
            return self.violation(PeerError::new(
                ErrorCode::WindowExceeded,
                format!(
                    "{} bytes of changes are not acknowledged, the window is {}",
                    self.unsettled, limits.push_window_bytes
                ),
            ));
        }
        self.outputs.push_back(SessionOutput::Push(push));
    }

    fn on_close(&mut self, channel: Channel) {
        let Some(document) = self.channels.remove(&channel) else {
            return self.not_open(channel);
        };
        self.documents.remove(&document);
        // One that was to open it again came before the close.
        self.opens.retain(|_, open| open.document != document);
        self.reassembler.close_channel(channel);
        self.outputs.push_back(SessionOutput::Leave(channel));
        self.send(&Message::Closed(Closed {
            channel,
            reason: None,
            message: String::new(),
        }));
    }

    fn not_open(&mut self, channel: Channel) {
        let error = PeerError::new(
            ErrorCode::ChannelNotOpen,
            format!("channel {channel} is not open on this session"),
        );
        self.send_error(error, Reference::Channel(channel));
    }

    fn unsupported(&mut self, message: &'static str, channel: Channel) {
        self.event(SessionEvent::Ignored { message });
        let error = PeerError::new(
            ErrorCode::Unsupported,
            format!("this server does not offer {message}"),
        );
        self.send_error(error, Reference::Channel(channel));
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

fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

const fn name_of(message: &Message) -> &'static str {
    match message {
        Message::Hello(_) => "Hello",
        Message::Welcome(_) => "Welcome",
        Message::Open(_) => "Open",
        Message::Opened(_) => "Opened",
        Message::Push(_) => "Push",
        Message::Changes(_) => "Changes",
        Message::Ack(_) => "Ack",
        Message::Refuse(_) => "Refuse",
        Message::Snapshot(_) => "Snapshot",
        Message::FoldRequest(_) => "FoldRequest",
        Message::FoldOffer(_) => "FoldOffer",
        Message::Presence(_) => "Presence",
        Message::Broadcast(_) => "Broadcast",
        Message::Auth(_) => "Auth",
        Message::Access(_) => "Access",
        Message::Close(_) => "Close",
        Message::Closed(_) => "Closed",
        Message::Ping(_) => "Ping",
        Message::Pong(_) => "Pong",
        Message::GoAway(_) => "GoAway",
        Message::Error(_) => "Error",
        Message::Fragment(_) => "Fragment",
        Message::Author(_) => "Author",
        Message::Extension(_) => "Extension",
        Message::Ignored { .. } => "a message of a later version",
    }
}
