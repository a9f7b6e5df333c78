//! A room that is told anything in any order, with a registry that mostly tells the truth.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sync_core::engine::Engine;
use sync_core::error::{ErrorCode, PeerError};
use sync_core::history::{Cursor, Digest, Epoch, EpochMode, Seq};
use sync_core::ids::{
    ChangeId, Channel, DocumentId, EngineId, OriginId, RequestId, SessionId, User,
};
use sync_core::limits::Limits;
use sync_core::registry::{
    DocumentMeta, DocumentSize, OriginEntry, Outcome, RegistryError, Snapshot, StoredChange, Tail,
};
use sync_core::server::{
    CheckRequest, Engines, FoldError, FoldRequest, Grant, MemberOutput, OpenRequest,
    RegistryAnswer, RegistryRequest, RequestNumber, Room, RoomConfig, RoomOutput, RoomPhase,
    ServerSession, SessionConfig, SessionOutput, Verdict,
};
use sync_core::time::Time;
use sync_core::wire::{
    AccessLevel, Broadcast, Compression, FoldOffer, Hello, Message, Open, PROTOCOL_VERSIONS,
    PartialSnapshot, Push, decode_frame, encode_frame,
};
use sync_server::registry::{MemoryRegistry, ServerRegistry};

use crate::client::{Map, id, is_near, samples};
use crate::input::Input;
use crate::registry::{execute, failed, fold, now};

const TURNS_MAX: usize = 400;
const OUTPUTS_MAX: usize = 10_000;

/// What the room has asked and nobody has answered.
enum Call {
    Registry(RequestNumber, RegistryRequest),
    Authorize(RequestNumber),
    Ask(RequestNumber, usize),
    Check(RequestNumber, CheckRequest),
    Fold(FoldRequest),
}

struct World {
    now: Time,
    room: Room,
    registry: MemoryRegistry,
    document: DocumentId,
    calls: Vec<Call>,
    /// An open request as a session makes it.
    open: OpenRequest,
    samples: Vec<Bytes>,
    /// Number of the next change, of each session.
    numbers: [u64; 4],
}

/// Opens, pushes, answers of the registry that are right or not, timeouts and closes.
pub fn room(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new(input.byte());
    for _ in 0..TURNS_MAX {
        if input.is_empty() || world.room.phase() == RoomPhase::Unloaded {
            break;
        }
        world.turn(&mut input);
        world.perform();
    }
    world.end();
}

/// What a session asks of a room.
fn open_request() -> OpenRequest {
    let mut config = SessionConfig::new(Limits::default());
    config.user = Some(User::new("ada"));
    let mut session = ServerSession::new(Time::from_micros(1), config, SessionId(1));
    let hello = Message::Hello(Hello {
        versions: PROTOCOL_VERSIONS,
        software: String::new(),
        origin: OriginId(1),
        connection: 1,
        credentials: None,
        compression: vec![Compression::Gzip],
        resume: None,
    });
    let open = Message::Open(Open {
        request: RequestId(1),
        document: id("a"),
        engine: Map::new().id(),
        cursor: None,
        origins: Vec::new(),
        access: AccessLevel::Write,
        create: true,
        partial: None,
    });
    for message in [hello, open] {
        let frame = encode_frame(&message, Compression::None);
        session.handle_frame(Time::from_micros(1), frame);
    }
    loop {
        match session.poll_output().expect("an open comes to a join") {
            SessionOutput::Authorize { request, .. } => {
                let grant = Ok(Grant::from(AccessLevel::Maintain));
                session.handle_authorized(Time::from_micros(1), request, grant);
            }
            SessionOutput::Join(join) => return join.open,
            _ => {}
        }
    }
}

impl World {
    fn new(settings: u8) -> Self {
        let mut limits = Limits::default();
        limits.change_bytes_max = 1 << 12;
        let mut engines = Engines::new();
        let engine = Map::new();
        if settings & 1 == 1 {
            engines.insert_relay(engine.id());
        } else {
            engines.insert(Arc::new(engine));
        }
        if settings & 2 == 2 {
            engines.check(engine.id());
        }
        let mut config = RoomConfig::new(limits, engines, 7);
        config.asks = settings & 4 == 4;
        config.fold_changes = 4;
        config.keep_bytes = 64;
        config.keep_age = Duration::ZERO;
        config.keep_relayed_age = Duration::ZERO;
        config.ring_bytes_max = 128;
        config.catch_up_bytes = 256;
        config.snapshot_piece_bytes = 16;
        config.append_changes_max = 3;
        config.append_interval_members_min = 2;
        let document = id("a");
        Self {
            now: Time::from_micros(1_000),
            room: Room::new(document.clone(), Channel(3), config),
            registry: MemoryRegistry::new(),
            document,
            calls: Vec::new(),
            open: open_request(),
            samples: samples().0,
            numbers: [1; 4],
        }
    }

    fn turn(&mut self, input: &mut Input<'_>) {
        let at = self.now;
        let n = input.below(4);
        let session = SessionId(u64::from(n) + 1);
        match input.below(20) {
            0 | 1 => {
                let open = self.open_of(n, input);
                self.room.handle_open(at, session, open).unwrap();
            }
            2..=5 => {
                let push = self.push_of(n, input);
                self.room.handle_push(at, session, push);
            }
            6..=9 => {
                let call = usize::from(input.byte());
                if !self.calls.is_empty() {
                    let call = self.calls.remove(call % self.calls.len());
                    self.answer(call, input);
                }
            }
            10 => self.elapse(input.byte()),
            11 => self.room.handle_close(at, session),
            12 => self.room.handle_lost(at, session),
            13 => match input.below(8) {
                0 => self.room.handle_head(at, Seq(input.byte().into())),
                1 => self.room.handle_replaced(at),
                2 => {
                    let reason = PeerError::new(ErrorCode::ShuttingDown, "moves");
                    self.room.handle_evict(at, &reason);
                }
                3 => {
                    let until = at + Duration::from_millis(input.byte().into());
                    self.room.hold_appends(at, until);
                }
                4 => self.room.release_appends(at),
                5 => self.room.handle_trimmed(at, Epoch(input.byte().into())),
                6 => {
                    let user = User::new(["ada", "bob"][usize::from(n & 1)]);
                    self.room.handle_reauthorize(at, Some(&user));
                }
                _ => self.room.handle_reauthorize(at, None),
            },
            14 => {
                let error = PeerError::new(ErrorCode::RateLimited, "too fast");
                self.room.handle_stop_push(at, session, error);
            }
            15 => {
                let user = User::new(["ada", "bob", "eve"][usize::from(input.below(3))]);
                self.room.handle_user(at, session, user);
            }
            16 => {
                let state = input.flag().then(|| Bytes::copy_from_slice(input.take(4)));
                self.room.handle_presence(at, session, state);
            }
            17 => {
                let broadcast = Broadcast {
                    channel: Channel(3),
                    topic: "topic".into(),
                    bytes: Bytes::copy_from_slice(input.take(4)),
                    sender: None,
                    missed: 0,
                };
                self.room.handle_broadcast(session, broadcast);
            }
            18 => {
                let meta = self.meta();
                let offer = FoldOffer {
                    channel: Channel(3),
                    epoch: meta.epoch,
                    seq: Seq(meta.head.0.wrapping_add(u64::from(input.below(2)))),
                    digest: meta.digest,
                    bytes: Bytes::copy_from_slice(input.take(8)),
                };
                self.room.handle_fold_offer(at, session, offer);
            }
            // What nobody has asked.
            _ => {
                let number = RequestNumber(u64::MAX - u64::from(input.byte()));
                let answer = self.forged(input.below(8), input);
                self.room.handle_registry(at, number, answer);
            }
        }
    }

    fn meta(&self) -> DocumentMeta {
        now(self.registry.meta(&self.document)).unwrap_or_else(|_| {
            let engine = Map::new().id();
            DocumentMeta::new(self.document.clone(), engine, Epoch(1), EpochMode::New)
        })
    }

    fn open_of(&self, n: u8, input: &mut Input<'_>) -> OpenRequest {
        let how = input.byte();
        let mut open = self.open.clone();
        open.user = User::new(["ada", "bob"][usize::from(n & 1)]);
        open.origin = OriginId(u128::from(n) + 1);
        open.connection = u64::from(input.byte());
        open.request = RequestId(input.byte().into());
        let meta = self.meta();
        open.cursor = match how % 4 {
            0 => None,
            1 => Some(Cursor {
                epoch: meta.epoch,
                seq: meta.head,
                digest: meta.digest,
            }),
            2 => Some(Cursor {
                epoch: meta.epoch,
                seq: Seq(input.byte().into()),
                digest: Digest(input.byte().into()),
            }),
            _ => Some(Cursor {
                epoch: Epoch(input.byte().into()),
                seq: Seq(u64::MAX),
                digest: Digest(1),
            }),
        };
        let levels = [AccessLevel::Read, AccessLevel::Write, AccessLevel::Maintain];
        open.access = levels[usize::from(how >> 2 & 3).min(2)];
        open.access_max = open.access;
        open.valid_until = (how & 16 == 16).then(|| self.now + Duration::from_secs(5));
        open.create = how & 32 == 0;
        if how & 64 == 64 {
            open.origins = vec![(open.origin, input.byte().into()), (OriginId(9), 1)];
            open.partial = Some(PartialSnapshot {
                seq: meta.snapshot_seq,
                offset: input.byte().into(),
                digest: Digest(0),
            });
        }
        if how & 128 == 128 {
            open.engine = EngineId::YRS;
        }
        open
    }

    fn push_of(&mut self, n: u8, input: &mut Input<'_>) -> Push {
        let how = input.byte();
        let next = &mut self.numbers[usize::from(n)];
        let changes: Vec<Bytes> = (0..how % 5)
            .map(|at| match how >> 4 & 3 {
                0 => Bytes::copy_from_slice(input.take(usize::from(at) * 3)),
                _ => self.samples[usize::from(at) % self.samples.len()].clone(),
            })
            .collect();
        let first_number = if how & 8 == 0 {
            *next
        } else {
            u64::from(input.byte())
        };
        *next = first_number.saturating_add(changes.len() as u64);
        Push {
            channel: Channel(3),
            origin: OriginId(u128::from(n) + 1),
            first_number,
            changes,
            reconciling: how & 64 == 64,
        }
    }

    fn answer(&mut self, call: Call, input: &mut Input<'_>) {
        let at = self.now;
        let how = input.byte();
        match call {
            Call::Registry(number, request) => {
                let answer = match how % 8 {
                    0 => failed(&request, false),
                    1 => {
                        let failed = failed(&request, true);
                        execute(&self.registry, &self.document, request);
                        failed
                    }
                    2 => self.forged(kind_of(&request), input),
                    _ => execute(&self.registry, &self.document, request),
                };
                self.room.handle_registry(at, number, answer);
            }
            Call::Authorize(number) => {
                let answer = match how % 4 {
                    0 => Err(PeerError::new(ErrorCode::StorageUnavailable, "not now")),
                    1 => Ok(Grant::from(AccessLevel::None)),
                    2 => Ok(Grant::from(AccessLevel::Read)),
                    _ => Ok(Grant::from(AccessLevel::Maintain)),
                };
                self.room.handle_authorized(at, number, answer);
            }
            Call::Ask(number, n) => {
                let error = match how % 4 {
                    0 => Some(PeerError::new(ErrorCode::Vetoed, "no")),
                    1 => Some(PeerError::new(ErrorCode::StorageUnavailable, "not now")),
                    _ => None,
                };
                let accepted = match (how & 4, &error) {
                    (0, None) => n,
                    (0, Some(_)) => n.saturating_sub(1),
                    _ => usize::from(how >> 3),
                };
                self.room.handle_asked(at, number, accepted, error);
            }
            Call::Check(number, request) => {
                let refused = |code| Verdict::Refused(PeerError::new(code, "no"));
                let mut verdicts: Vec<Verdict> = request
                    .changes
                    .iter()
                    .map(|_| match input.below(8) {
                        0 => refused(ErrorCode::InvalidChange),
                        1 => Verdict::Unknown(PeerError::new(
                            ErrorCode::StorageUnavailable,
                            "not now",
                        )),
                        2 => Verdict::Skipped,
                        n => Verdict::Accepted { is_new: n & 1 == 1 },
                    })
                    .collect();
                if how.is_multiple_of(8) {
                    verdicts.pop();
                }
                self.room.handle_checked(at, number, verdicts);
            }
            Call::Fold(request) => {
                let folded = match how % 4 {
                    0 => Err(FoldError::HistoryReplaced),
                    1 => Err(FoldError::Newer {
                        seq: Seq(input.byte().into()),
                    }),
                    _ => fold(&self.registry, &self.document, &request),
                };
                self.room.handle_folded(at, folded);
            }
        }
    }

    /// An answer that no registry should give.
    fn forged(&self, kind: u8, input: &mut Input<'_>) -> RegistryAnswer {
        let mut meta = self.meta();
        let mut small = || u64::from(input.byte());
        let nudged = |value: u64, by: u64| value.wrapping_add(by).wrapping_sub(128);
        match kind {
            0 | 1 => {
                match small() % 4 {
                    0 => meta.head = Seq(nudged(meta.head.0, small())),
                    1 => meta.epoch = Epoch(small()),
                    2 => meta.log_start = Seq(small()),
                    _ => meta.snapshot_seq = Seq(small()),
                }
                if kind == 0 {
                    RegistryAnswer::Create(Ok(meta))
                } else {
                    RegistryAnswer::Meta(Ok(meta))
                }
            }
            2 => RegistryAnswer::Size(Ok(DocumentSize::new(
                Seq(small()),
                Seq(small()),
                u64::MAX - small(),
                u64::MAX - small(),
            ))),
            3 => RegistryAnswer::Append(match small() % 4 {
                0 => Err(RegistryError::Fenced {
                    current: Epoch(small()),
                }),
                1 => Err(RegistryError::Conflict { head: Seq(small()) }),
                _ => Ok((0..small() % 4)
                    .map(|_| match small() % 5 {
                        0 => Outcome::At(Seq(nudged(meta.head.0, small()))),
                        1 => Outcome::Duplicate {
                            last: small(),
                            seq: Some(Seq(small())),
                        },
                        2 => Outcome::Gap { expected: small() },
                        3 => Outcome::ForeignOrigin,
                        _ => Outcome::IdReused,
                    })
                    .collect()),
            }),
            4 => RegistryAnswer::Tail(Ok(match small() % 4 {
                0 => Tail::Compacted {
                    epoch: meta.epoch,
                    log_start: Seq(small()),
                },
                1 => Tail::BeyondHead {
                    epoch: Epoch(small()),
                    head: Seq(small()),
                },
                _ => {
                    let changes = (0..small() % 4)
                        .map(|_| {
                            let id = ChangeId {
                                origin: OriginId(small().into()),
                                number: small(),
                            };
                            let bytes = self.samples[0].clone();
                            let seq = Seq(nudged(meta.head.0, small()));
                            StoredChange::new(seq, id, bytes, Digest(small()))
                        })
                        .collect();
                    Tail::Changes {
                        epoch: meta.epoch,
                        digest: Digest(small()),
                        changes,
                        head: Seq(nudged(meta.head.0, small())),
                    }
                }
            })),
            5 => {
                let bytes = self.samples[0].clone();
                let found = Snapshot::new(Seq(small()), Digest(small()), bytes);
                RegistryAnswer::Snapshot(Ok(Some(found)))
            }
            6 => RegistryAnswer::Origins(Ok((0..small() % 4)
                .map(|_| {
                    let user = User::new("ada");
                    let entry = OriginEntry::new(OriginId(1), user, small(), Seq(small()));
                    (small() % 2 == 0).then_some(entry)
                })
                .collect())),
            _ => RegistryAnswer::Compact(Err(RegistryError::NotFound)),
        }
    }

    fn elapse(&mut self, how: u8) {
        match (how & 1, self.room.poll_timeout()) {
            (0, Some(at)) if is_near(self.now, at) => self.now = self.now.max(at),
            _ => self.now = self.now + Duration::from_millis(u64::from(how) * 20),
        }
        self.room.handle_timeout(self.now);
        self.perform();
        let next = self.room.poll_timeout();
        assert!(
            next.is_none_or(|at| at > self.now),
            "something is due for ever: {next:?} at {:?}",
            self.now
        );
    }

    fn perform(&mut self) {
        for n in 0.. {
            assert!(n < OUTPUTS_MAX, "outputs without end");
            let Some(output) = self.room.poll_output() else {
                break;
            };
            match output {
                RoomOutput::Registry(number, request) => {
                    self.calls.push(Call::Registry(number, request));
                }
                RoomOutput::Authorize(number, _) => self.calls.push(Call::Authorize(number)),
                RoomOutput::Ask(number, request) => {
                    self.calls.push(Call::Ask(number, request.changes.len()));
                }
                RoomOutput::Check(number, request) => {
                    self.calls.push(Call::Check(number, request));
                }
                RoomOutput::Fold(request) => self.calls.push(Call::Fold(request)),
                RoomOutput::Wake(session) => self.drain(session),
                _ => {}
            }
        }
        let stats = self.room.stats(self.now);
        assert!(stats.n_sessions <= 4);
        assert!(self.calls.len() < 200, "calls without end");
    }

    fn drain(&mut self, session: SessionId) {
        for n in 0.. {
            assert!(n < OUTPUTS_MAX, "outputs without end");
            match self.room.poll_member(self.now, session) {
                Some(MemberOutput::Frame(frame)) => {
                    decode_frame(frame, usize::MAX - 1).expect("a room sends frames");
                }
                Some(_) => {}
                None => break,
            }
        }
    }

    /// When everybody has left and everything is answered as it should be, the room comes to its end.
    fn end(mut self) {
        for session in 1..=4 {
            self.room.handle_close(self.now, SessionId(session));
        }
        self.perform();
        for _ in 0..2_000 {
            if self.room.phase() == RoomPhase::Unloaded {
                return;
            }
            if self.calls.is_empty() {
                match self.room.poll_timeout() {
                    Some(at) => self.now = self.now.max(at),
                    None => break,
                }
                self.room.handle_timeout(self.now);
            } else {
                let call = self.calls.remove(0);
                self.answer(call, &mut Input::new(&[7; 64]));
            }
            self.perform();
        }
        panic!("the room never unloads: {:?}", self.room.stats(self.now));
    }
}

fn kind_of(request: &RegistryRequest) -> u8 {
    match request {
        RegistryRequest::Create(_) => 0,
        RegistryRequest::Meta => 1,
        RegistryRequest::Size => 2,
        RegistryRequest::Append { .. } => 3,
        RegistryRequest::Tail { .. } => 4,
        RegistryRequest::Snapshot => 5,
        RegistryRequest::Origins(_) => 6,
        _ => 7,
    }
}
