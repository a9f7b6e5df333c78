//! A server against peers that send anything, while one honest client keeps to the protocol: nothing that the others do
//! keeps it from ending where the registry is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sync_core::client::ClientConfig;
use sync_core::engine::Engine;
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::{Cursor, Seq};
use sync_core::ids::{Channel, DocumentId, OriginId, SessionId, User};
use sync_core::limits::Limits;
use sync_core::server::{
    Engines, Grant, MemberOutput, RegistryAnswer, RegistryRequest, RequestNumber, Room, RoomConfig,
    RoomOutput, ServerSession, SessionConfig, SessionEvent, SessionOutput,
};
use sync_core::time::Time;
use sync_core::wire::{AccessLevel, Compression, Message, decode, decode_frame, encode_frame};
use sync_server::registry::{MemoryRegistry, ServerRegistry};

use crate::client::{Client, Map, id, is_near, samples};
use crate::input::Input;
use crate::mend::{channel, epoch};
use crate::registry::{execute, failed, fold, now};

const TURNS_MAX: usize = 300;
const PEERS_MAX: usize = 4;
const OUTPUTS_MAX: usize = 10_000;
/// The one that keeps to the protocol.
const HONEST: &str = "honest";
const DOCUMENTS: [&str; 2] = ["a", "b"];

struct Peer {
    session: ServerSession,
    user: User,
    origin: OriginId,
    connection: u64,
    /// Number of its next change.
    number: u64,
    documents: Vec<DocumentId>,
}

enum Call {
    Ask(RequestNumber, User),
    Execute(RequestNumber, RegistryRequest),
    Answer(RequestNumber, RegistryAnswer),
}

struct Server {
    now: Time,
    limits: Limits,
    registry: MemoryRegistry,
    peers: BTreeMap<SessionId, Peer>,
    rooms: BTreeMap<DocumentId, Room>,
    channels: BTreeMap<Channel, DocumentId>,
    owners: BTreeMap<(OriginId, User), (u64, SessionId)>,
    calls: VecDeque<(DocumentId, Call)>,
    /// Sent to the honest client.
    down: VecDeque<Bytes>,
    honest: Option<SessionId>,
    /// What everybody but the honest client may do.
    level: AccessLevel,
    next: u64,
    samples: Vec<Bytes>,
}

/// Peers that send anything to sessions, rooms and a registry, and an honest client among them.
pub fn server_session(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut server = Server::new(&mut input);
    let mut honest = honest_client();
    server.connect_honest(&mut honest);
    server.settle(&mut honest);
    for _ in 0..TURNS_MAX {
        if input.is_empty() {
            break;
        }
        server.turn(&mut input, &mut honest);
        server.exchange(&mut honest);
    }
    // The others leave, and it has its way.
    for session in server.peers.keys().copied().collect::<Vec<_>>() {
        if Some(session) != server.honest {
            server.end_link(session, false);
        }
    }
    honest.edit(&id("a"), 1, 200);
    server.settle(&mut honest);
    server.assert_converged(&honest);
}

fn honest_client() -> Client {
    let mut config = ClientConfig::new(OriginId(1), 42);
    config.outbox_max = 50;
    let mut honest = Client::new(config, false);
    honest.state.connect(honest.now);
    honest.open(&id("a"), 1);
    honest.edit(&id("a"), 0, 100);
    honest
}

impl Server {
    fn new(input: &mut Input<'_>) -> Self {
        let settings = input.byte();
        let mut limits = Limits::default();
        limits.message_bytes_max = 1 << 16;
        limits.change_bytes_max = 1 << 12;
        limits.fragmented_messages_max = 4;
        if settings & 1 == 1 {
            limits.push_window_bytes = 256;
        }
        Self {
            now: Time::from_micros(1_000),
            limits,
            registry: MemoryRegistry::new(),
            peers: BTreeMap::new(),
            rooms: BTreeMap::new(),
            channels: BTreeMap::new(),
            owners: BTreeMap::new(),
            calls: VecDeque::new(),
            down: VecDeque::new(),
            honest: None,
            level: [AccessLevel::Write, AccessLevel::Maintain][usize::from(settings >> 1 & 1)],
            next: 10,
            samples: samples().0,
        }
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn turn(&mut self, input: &mut Input<'_>, honest: &mut Client) {
        let at = usize::from(input.byte());
        let others: Vec<SessionId> = self
            .peers
            .keys()
            .copied()
            .filter(|session| Some(*session) != self.honest)
            .collect();
        let peer = others.get(at % others.len().max(1)).copied();
        let document = id(DOCUMENTS[usize::from(input.below(2))]);
        match (input.below(24), peer) {
            (0 | 1, _) => self.connect(input),
            (2..=11, Some(peer)) => self.receive_mended(peer, &document, input),
            (12, Some(peer)) => {
                let frame = Bytes::copy_from_slice(input.piece());
                self.receive(peer, frame);
            }
            (13 | 14, _) => self.call(usize::from(input.byte()), input.byte()),
            (15, _) => self.elapse(input.byte(), honest),
            (16, Some(peer)) => {
                let answer = match input.below(3) {
                    0 => Err(PeerError::new(ErrorCode::Unauthenticated, "no")),
                    1 => Err(PeerError::new(ErrorCode::StorageUnavailable, "not now")),
                    _ => Ok(self.peers[&peer].user.clone()),
                };
                let now = self.now;
                let peer_of = self.peers.get_mut(&peer).unwrap();
                peer_of.session.handle_authenticated(now, answer);
                self.perform_session(peer);
            }
            (17, Some(peer)) => self.end_link(peer, input.flag()),
            (18, _) => {
                honest.edit(&id("a"), input.byte(), input.byte());
            }
            (19, _) => {
                // The honest client's connection is cut.
                if let Some(session) = self.honest.take() {
                    self.down.clear();
                    self.end_link(session, input.flag());
                    let attempt = honest.attempt.unwrap();
                    honest.state.handle_lost(honest.now, attempt, None);
                    honest.settle();
                }
            }
            (20, _) => {
                self.level = match input.below(4) {
                    0 => AccessLevel::None,
                    1 => AccessLevel::Read,
                    2 => AccessLevel::Write,
                    _ => AccessLevel::Maintain,
                };
                let now = self.now;
                if let Some(room) = self.rooms.get_mut(&document) {
                    room.handle_reauthorize(now, None);
                }
                self.perform_room(&document);
            }
            (21, _) => {
                let now = self.now;
                if let Some(room) = self.rooms.get_mut(&document) {
                    match input.below(5) {
                        0 => room.handle_head(now, Seq(input.byte().into())),
                        1 => room.handle_replaced(now),
                        2 => {
                            let reason = PeerError::new(ErrorCode::StorageUnavailable, "moves");
                            room.handle_evict(now, &reason);
                        }
                        3 => room.hold_appends(now, now + Duration::from_millis(500)),
                        _ => room.release_appends(now),
                    }
                }
                self.perform_room(&document);
            }
            (22, Some(peer)) => {
                let (now, until) = (self.now, self.now + Duration::from_millis(200));
                let peer_of = self.peers.get_mut(&peer).unwrap();
                peer_of.session.handle_hold(now, until);
                self.perform_session(peer);
            }
            _ => {}
        }
    }

    fn connect(&mut self, input: &mut Input<'_>) {
        if self.peers.len() > PEERS_MAX {
            return;
        }
        let how = input.byte();
        // The honest client's origin too, and its name is somebody else's.
        let origin = OriginId(u128::from(how % 4) + 1);
        let user = User::new(["eve", "mallory"][usize::from(how >> 2 & 1)]);
        let given = how & 8 == 0;
        let session = self.accept(origin, user, given);
        if how & 16 == 0 {
            // It begins as it should.
            let connection = self.peers[&session].connection;
            let hello = Message::Hello(sync_core::wire::Hello {
                versions: sync_core::wire::PROTOCOL_VERSIONS,
                software: String::new(),
                origin,
                connection,
                credentials: None,
                compression: vec![Compression::Gzip],
                resume: None,
            });
            self.receive(session, encode_frame(&hello, Compression::None));
        }
    }

    fn accept(&mut self, origin: OriginId, user: User, given: bool) -> SessionId {
        let session = SessionId(self.fresh());
        let mut config = SessionConfig::new(self.limits.clone());
        config.user = given.then(|| user.clone());
        let connection = self.fresh();
        let peer = Peer {
            session: ServerSession::new(self.now, config, session),
            user,
            origin,
            connection,
            number: 1,
            documents: Vec::new(),
        };
        self.peers.insert(session, peer);
        session
    }

    fn receive(&mut self, from: SessionId, frame: Bytes) {
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.session.handle_frame(now, frame);
        }
        self.perform_session(from);
    }

    /// A message whose fields are such that it is about something, if the input says so.
    fn receive_mended(&mut self, from: SessionId, document: &DocumentId, input: &mut Input<'_>) {
        let mends = input.byte();
        let Ok(mut message) = decode(Bytes::copy_from_slice(input.piece())) else {
            return;
        };
        let meta = now(self.registry.meta(document)).ok();
        let room = self.rooms.get(document);
        if mends & 1 == 1
            && let (Some(channel), Some(room)) = (channel(&mut message), room)
        {
            *channel = room.channel();
        }
        if mends & 2 == 2
            && let (Some(epoch), Some(meta)) = (epoch(&mut message), &meta)
        {
            *epoch = meta.epoch;
        }
        let Some(peer) = self.peers.get_mut(&from) else {
            return;
        };
        let right = mends & 4 == 4;
        let is_honest_work = mends & 8 == 8;
        match &mut message {
            Message::Hello(hello) if right => {
                hello.versions = sync_core::wire::PROTOCOL_VERSIONS;
                hello.origin = peer.origin;
                hello.connection = peer.connection;
            }
            Message::Open(open) if right => {
                open.document = document.clone();
                open.engine = Map::new().id();
                open.create = true;
                if is_honest_work {
                    open.access = AccessLevel::Write;
                    open.cursor = meta
                        .map(|meta| Cursor {
                            epoch: meta.epoch,
                            seq: meta.head,
                            digest: meta.digest,
                        })
                        .filter(|_| mends & 16 == 16);
                    for (origin, _) in &mut open.origins {
                        *origin = peer.origin;
                    }
                }
            }
            Message::Push(push) if right => {
                push.origin = peer.origin;
                push.first_number = peer.number;
                peer.number += push.changes.len() as u64;
                if is_honest_work {
                    for (n, change) in push.changes.iter_mut().enumerate() {
                        *change = self.samples[n % self.samples.len()].clone();
                    }
                }
            }
            Message::FoldOffer(offer) if right => {
                if let Some(meta) = meta {
                    (offer.seq, offer.digest) = (meta.head, meta.digest);
                }
            }
            _ => {}
        }
        let compression = if mends & 128 == 128 {
            Compression::Gzip
        } else {
            Compression::None
        };
        self.receive(from, encode_frame(&message, compression));
    }

    // ---- the honest client

    fn connect_honest(&mut self, honest: &mut Client) {
        if !honest.dials {
            return;
        }
        honest.dials = false;
        let session = self.accept(OriginId(1), User::new(HONEST), true);
        self.honest = Some(session);
        self.down.clear();
        let attempt = honest.attempt.unwrap();
        honest.state.handle_connected(honest.now, attempt);
        honest.settle();
    }

    /// Frames go both ways, until nobody has anything to say.
    fn exchange(&mut self, honest: &mut Client) {
        for n in 0.. {
            assert!(n < OUTPUTS_MAX, "an exchange without end");
            honest.now = self.now;
            honest.settle();
            if honest.hung_up {
                honest.hung_up = false;
                if let Some(session) = self.honest.take() {
                    self.end_link(session, false);
                }
            }
            self.connect_honest(honest);
            if let Some(frame) = honest.sent.pop_front() {
                if let Some(session) = self.honest {
                    self.receive(session, frame);
                }
            } else if let Some(frame) = self.down.pop_front() {
                self.look_at(&frame);
                honest.receive(frame);
            } else if self
                .honest
                .is_some_and(|session| !self.peers.contains_key(&session))
            {
                // The server has closed it.
                self.honest = None;
                let attempt = honest.attempt.unwrap();
                honest.state.handle_lost(honest.now, attempt, None);
            } else {
                return;
            }
        }
    }

    /// Whoever is named in a frame, is who the session belongs to.
    fn look_at(&self, frame: &Bytes) {
        let named = match decode_frame(frame.clone(), usize::MAX - 1).unwrap() {
            Message::Broadcast(broadcast) => broadcast.sender.into_iter().collect(),
            Message::Presence(presence) => presence
                .deltas
                .into_iter()
                .filter(|delta| delta.state.is_some())
                .map(|delta| (delta.session, delta.user))
                .collect(),
            _ => Vec::new(),
        };
        for (session, user) in named {
            if let Some(peer) = self.peers.get(&session) {
                assert_eq!(*user, *peer.user.id, "somebody speaks as another");
            }
        }
    }

    /// Lets everything happen until the honest client has what the registry has.
    fn settle(&mut self, honest: &mut Client) {
        for _ in 0..3_000 {
            self.exchange(honest);
            if !self.calls.is_empty() {
                self.call(0, 0);
                continue;
            }
            if self.is_settled(honest) {
                return;
            }
            let Some(at) = self.next_time(honest) else {
                break;
            };
            self.now = self.now.max(at);
            self.time_out(honest);
        }
        panic!(
            "the honest client does not arrive: {:?} {:?}, {:?} of {:?}",
            honest.state.status(),
            honest.state.sync_state(&id("a")),
            honest.state.cursor(&id("a")),
            now(self.registry.meta(&id("a"))),
        );
    }

    fn is_settled(&self, honest: &Client) -> bool {
        let Ok(meta) = now(self.registry.meta(&id("a"))) else {
            return false;
        };
        let state = honest.state.sync_state(&id("a"));
        state.is_some_and(|state| state.is_caught_up() && state.is_saved())
            && honest
                .state
                .cursor(&id("a"))
                .is_some_and(|cursor| cursor.seq == meta.head)
    }

    fn assert_converged(&self, honest: &Client) {
        let meta = now(self.registry.meta(&id("a"))).unwrap();
        let cursor = honest.state.cursor(&id("a")).unwrap();
        assert_eq!(
            (cursor.epoch, cursor.seq, cursor.digest),
            (meta.epoch, meta.head, meta.digest)
        );
        assert_eq!(honest.state.refused(&id("a")), []);
    }

    // ---- time

    fn next_time(&self, honest: &Client) -> Option<Time> {
        let peers = self.peers.values().map(|peer| peer.session.poll_timeout());
        let rooms = self.rooms.values().map(Room::poll_timeout);
        peers
            .chain(rooms)
            .chain([honest.state.poll_timeout()])
            .flatten()
            .min()
    }

    fn elapse(&mut self, how: u8, honest: &mut Client) {
        match (how & 1, self.next_time(honest)) {
            (0, Some(at)) if is_near(self.now, at) => self.now = self.now.max(at),
            _ => self.now = self.now + Duration::from_millis(u64::from(how) * 20),
        }
        self.time_out(honest);
    }

    fn time_out(&mut self, honest: &mut Client) {
        let at = self.now;
        for session in self.peers.keys().copied().collect::<Vec<_>>() {
            if let Some(peer) = self.peers.get_mut(&session) {
                peer.session.handle_timeout(at);
            }
            self.perform_session(session);
            if let Some(peer) = self.peers.get(&session) {
                let next = peer.session.poll_timeout();
                assert!(
                    next.is_none_or(|next| next > at),
                    "a session is due for ever"
                );
            }
        }
        for document in self.rooms.keys().cloned().collect::<Vec<_>>() {
            if let Some(room) = self.rooms.get_mut(&document) {
                room.handle_timeout(at);
            }
            self.perform_room(&document);
            if let Some(room) = self.rooms.get(&document) {
                let next = room.poll_timeout();
                assert!(next.is_none_or(|next| next > at), "a room is due for ever");
            }
        }
        honest.now = at;
        honest.time_out();
    }

    // ---- what sessions and rooms ask for

    fn room(&mut self, document: &DocumentId) {
        if self.rooms.contains_key(document) {
            return;
        }
        let channel = Channel(u32::try_from(self.fresh()).unwrap());
        let mut engines = Engines::new();
        engines.insert(Arc::new(Map::new()));
        let seed = self.fresh();
        let mut config = RoomConfig::new(self.limits.clone(), engines, seed);
        config.fold_changes = 6;
        config.keep_bytes = 64;
        config.keep_age = Duration::ZERO;
        config.ring_bytes_max = 256;
        config.catch_up_bytes = 512;
        config.snapshot_piece_bytes = 64;
        self.rooms.insert(
            document.clone(),
            Room::new(document.clone(), channel, config),
        );
        self.channels.insert(channel, document.clone());
    }

    fn of_channel(&mut self, channel: Channel) -> Option<(DocumentId, &mut Room)> {
        let document = self.channels.get(&channel)?.clone();
        let room = self.rooms.get_mut(&document)?;
        Some((document, room))
    }

    fn perform_session(&mut self, session: SessionId) {
        let now = self.now;
        for n in 0.. {
            assert!(n < OUTPUTS_MAX, "outputs without end");
            let Some(peer) = self.peers.get_mut(&session) else {
                return;
            };
            let Some(output) = peer.session.poll_output() else {
                return;
            };
            match output {
                SessionOutput::Send(frame) => self.send(session, frame),
                SessionOutput::Authorize { request, .. } => {
                    let grant = self.grant(session);
                    let peer = self.peers.get_mut(&session).unwrap();
                    peer.session.handle_authorized(now, request, grant);
                }
                SessionOutput::Join(join) => {
                    let document = join.document.clone();
                    self.room(&document);
                    let room = self.rooms.get_mut(&document).unwrap();
                    let peer = self.peers.get_mut(&session).unwrap();
                    peer.session
                        .handle_joined(now, document.clone(), room.channel());
                    peer.documents.push(document.clone());
                    room.handle_open(now, session, join.open).unwrap();
                    self.perform_room(&document);
                }
                SessionOutput::Push(push) => {
                    if let Some((document, room)) = self.of_channel(push.channel) {
                        room.handle_push(now, session, push);
                        self.perform_room(&document);
                    }
                }
                SessionOutput::StopPush { channel, error } => {
                    if let Some((document, room)) = self.of_channel(channel) {
                        room.handle_stop_push(now, session, error);
                        self.perform_room(&document);
                    }
                }
                SessionOutput::FoldOffer(offer) => {
                    if let Some((document, room)) = self.of_channel(offer.channel) {
                        room.handle_fold_offer(now, session, offer);
                        self.perform_room(&document);
                    }
                }
                SessionOutput::Broadcast(broadcast) => {
                    if let Some((document, room)) = self.of_channel(broadcast.channel) {
                        room.handle_broadcast(session, broadcast);
                        self.perform_room(&document);
                    }
                }
                SessionOutput::Presence { channel, state } => {
                    if let Some((document, room)) = self.of_channel(channel) {
                        room.handle_presence(now, session, state);
                        self.perform_room(&document);
                    }
                }
                SessionOutput::Leave(channel) => {
                    if let Some((document, room)) = self.of_channel(channel) {
                        room.handle_close(now, session);
                        self.perform_room(&document);
                    }
                }
                SessionOutput::Heads { nonce } => {
                    let heads = peer
                        .session
                        .channels()
                        .filter_map(|(channel, document)| {
                            Some((channel, self.rooms.get(document)?.head_for(session)?))
                        })
                        .collect();
                    peer.session.handle_heads(now, nonce, heads);
                }
                SessionOutput::Event(SessionEvent::Opened {
                    user,
                    origin,
                    connection,
                }) => self.take_over((origin, user), connection, session),
                SessionOutput::Close { .. } => self.end_link(session, false),
                _ => {}
            }
        }
    }

    /// Protocol 6.2.
    fn take_over(&mut self, owner: (OriginId, User), connection: u64, session: SessionId) {
        let older = match self.owners.get(&owner).copied() {
            Some((theirs, _)) if theirs > connection => session,
            other => {
                self.owners.insert(owner, (connection, session));
                let Some((_, older)) = other else { return };
                older
            }
        };
        let now = self.now;
        if let Some(peer) = self.peers.get_mut(&older) {
            let error = PeerError::new(ErrorCode::Superseded, "a newer connection took over");
            peer.session.handle_end(now, error);
        }
        if older != session {
            self.perform_session(older);
        }
    }

    fn end_link(&mut self, session: SessionId, may_return: bool) {
        let Some(peer) = self.peers.remove(&session) else {
            return;
        };
        self.owners.retain(|_, (_, owner)| *owner != session);
        for document in peer.documents {
            if let Some(room) = self.rooms.get_mut(&document) {
                if may_return {
                    room.handle_lost(self.now, session);
                } else {
                    room.handle_close(self.now, session);
                }
            }
            self.perform_room(&document);
        }
    }

    fn send(&mut self, session: SessionId, frame: Bytes) {
        if Some(session) == self.honest {
            self.down.push_back(frame);
        } else {
            decode_frame(frame, usize::MAX - 1).expect("a server sends frames");
        }
    }

    fn grant(&self, session: SessionId) -> Result<Grant, PeerError> {
        self.grant_of(&self.peers[&session].user)
    }

    fn grant_of(&self, user: &User) -> Result<Grant, PeerError> {
        let level = if &*user.id == HONEST {
            AccessLevel::Write
        } else {
            self.level
        };
        let mut grant = Grant::from(level);
        grant.valid_for = Some(Duration::from_secs(60));
        Ok(grant)
    }

    fn perform_room(&mut self, document: &DocumentId) {
        for n in 0.. {
            assert!(n < OUTPUTS_MAX, "outputs without end");
            let Some(output) = self.rooms.get_mut(document).and_then(Room::poll_output) else {
                return;
            };
            match output {
                RoomOutput::Authorize(number, user) => {
                    let call = Call::Ask(number, user);
                    self.calls.push_back((document.clone(), call));
                }
                RoomOutput::Registry(number, request) => {
                    let call = Call::Execute(number, request);
                    self.calls.push_back((document.clone(), call));
                }
                RoomOutput::Fold(request) => {
                    let folded = fold(&self.registry, document, &request);
                    if let Some(room) = self.rooms.get_mut(document) {
                        room.handle_folded(self.now, folded);
                    }
                }
                RoomOutput::Wake(session) => self.poll_member(document, session),
                RoomOutput::Settled(session, charge) => {
                    if let Some(peer) = self.peers.get_mut(&session) {
                        peer.session.handle_settled(charge);
                    }
                }
                RoomOutput::Unloaded => {
                    if let Some(room) = self.rooms.remove(document) {
                        self.channels.remove(&room.channel());
                    }
                }
                _ => {}
            }
        }
    }

    fn poll_member(&mut self, document: &DocumentId, session: SessionId) {
        let now = self.now;
        for n in 0.. {
            assert!(n < OUTPUTS_MAX, "outputs without end");
            let room = self.rooms.get_mut(document);
            let Some(room) = room else { break };
            let channel = room.channel();
            let Some(output) = room.poll_member(now, session) else {
                break;
            };
            match output {
                MemberOutput::Frame(frame) => self.send(session, frame),
                MemberOutput::Settled(charge) => {
                    if let Some(peer) = self.peers.get_mut(&session) {
                        peer.session.handle_settled(charge);
                    }
                }
                MemberOutput::Left => {
                    if let Some(peer) = self.peers.get_mut(&session) {
                        peer.documents.retain(|opened| opened != document);
                        peer.session.handle_left(now, channel);
                    }
                }
                _ => {}
            }
        }
        self.perform_session(session);
    }

    // ---- the registry

    /// Carries out one step of one call; it may fail.
    fn call(&mut self, at: usize, how: u8) {
        if self.calls.is_empty() {
            return;
        }
        let Some((document, call)) = self.calls.remove(at % self.calls.len()) else {
            return;
        };
        let now = self.now;
        match call {
            Call::Ask(number, user) => {
                let answer = match how % 4 {
                    1 => Err(PeerError::new(ErrorCode::StorageUnavailable, "not now")),
                    _ => self.grant_of(&user),
                };
                if let Some(room) = self.rooms.get_mut(&document) {
                    room.handle_authorized(now, number, answer);
                }
            }
            Call::Execute(number, request) => {
                let answer = match how % 8 {
                    1 => failed(&request, false),
                    // Nobody knows whether it has been done: it has.
                    2 => {
                        let failed = failed(&request, true);
                        execute(&self.registry, &document, request);
                        failed
                    }
                    _ => execute(&self.registry, &document, request),
                };
                let call = Call::Answer(number, answer);
                self.calls.push_back((document.clone(), call));
            }
            Call::Answer(number, answer) => {
                if let Some(room) = self.rooms.get_mut(&document) {
                    room.handle_registry(now, number, answer);
                }
            }
        }
        self.perform_room(&document);
    }
}
