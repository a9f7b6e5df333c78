//! A room, a tiny registry, and clients that only look at what they are sent.

mod fold;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::engine::{EngineError, Folder, ValidateLimits, Validator};
use crate::history::EpochMode;
use crate::limits::{Limits, push_charge};
use crate::registry::{NewChange, NewDocument, OriginEntry, Outcome, Snapshot, StoredChange, Tail};
use crate::server::Engines;
use crate::wire::{
    Ack, Changes, Continuation, Opened, Push, Reassembler, Refuse, Reset, SnapshotMessage,
    check_of, decode_frame,
};

const ADA: SessionId = SessionId(1);
const BOB: SessionId = SessionId(2);
const CYD: SessionId = SessionId(3);
const CHANNEL: Channel = Channel(3_000);

/// The registry of one document, as small as its promises allow.
#[derive(Default)]
struct TestRegistry {
    meta: Option<DocumentMeta>,
    log: Vec<(NewChange, Digest)>,
    log_start: u64,
    snapshot: Option<Snapshot>,
    /// Errors for the next calls of append; `true` if the append is carried out all the same.
    append_errors: VecDeque<(RegistryError, bool)>,
    n_tails: usize,
}

impl TestRegistry {
    fn head(&self) -> u64 {
        self.log.len().try_into().unwrap()
    }

    fn digest(&self, seq: u64) -> Digest {
        match usize::try_from(seq).unwrap() {
            0 => Digest::EMPTY,
            n => self.log[n - 1].1,
        }
    }

    fn meta(&self) -> Result<DocumentMeta, RegistryError> {
        let mut meta = self.meta.clone().ok_or(RegistryError::NotFound)?;
        meta.head = Seq(self.head());
        meta.digest = self.digest(self.head());
        meta.log_start = Seq(self.log_start);
        meta.snapshot_seq = self.snapshot.as_ref().map_or(Seq::ZERO, |s| s.seq);
        Ok(meta)
    }

    fn entry(&self, origin: OriginId) -> Option<OriginEntry> {
        let at = self.log.iter().rposition(|(c, _)| c.id.origin == origin)?;
        let change = &self.log[at].0;
        let seq = Seq(u64::try_from(at).unwrap() + 1);
        Some(OriginEntry::new(
            origin,
            change.user.clone(),
            change.id.number,
            seq,
        ))
    }

    fn append(
        &mut self,
        epoch: Epoch,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        let current = self.meta()?.epoch;
        if current != epoch {
            return Err(RegistryError::Fenced { current });
        }
        Ok(changes
            .into_iter()
            .map(|change| self.append_one(change))
            .collect())
    }

    fn append_one(&mut self, change: NewChange) -> Outcome {
        let entry = self.entry(change.id.origin);
        let last = entry.as_ref().map_or(0, |entry| entry.last);
        if entry.is_some_and(|entry| entry.user != change.user) {
            return Outcome::ForeignOrigin;
        }
        if let Some(at) = self.log.iter().position(|(c, _)| c.id == change.id) {
            return if self.log[at].0.bytes == change.bytes {
                let seq = Some(Seq(u64::try_from(at).unwrap() + 1));
                Outcome::Duplicate { last, seq }
            } else {
                Outcome::IdReused
            };
        }
        if change.id.number != last + 1 {
            return Outcome::Gap { expected: last + 1 };
        }
        let digest = self
            .digest(self.head())
            .with(change.id.number, &change.bytes);
        self.log.push((change, digest));
        Outcome::At(Seq(self.head()))
    }

    fn tail(&mut self, after: Seq, max_bytes: usize) -> Result<Tail, RegistryError> {
        self.n_tails += 1;
        let (epoch, head) = (self.meta()?.epoch, Seq(self.head()));
        if after > head {
            return Ok(Tail::BeyondHead { epoch, head });
        }
        if after.0 < self.log_start {
            return Ok(Tail::Compacted {
                epoch,
                log_start: Seq(self.log_start),
            });
        }
        let mut changes: Vec<StoredChange> = Vec::new();
        let mut bytes = 0;
        for (at, (change, digest)) in self
            .log
            .iter()
            .enumerate()
            .skip(after.0.try_into().unwrap())
        {
            bytes += change.bytes.len();
            if bytes > max_bytes && !changes.is_empty() {
                break;
            }
            let seq = Seq(u64::try_from(at).unwrap() + 1);
            changes.push(StoredChange::new(
                seq,
                change.id,
                change.bytes.clone(),
                *digest,
            ));
        }
        Ok(Tail::Changes {
            epoch,
            digest: self.digest(after.0),
            changes,
            head,
        })
    }

    fn answer(&mut self, request: RegistryRequest) -> RegistryAnswer {
        match request {
            RegistryRequest::Create(document) => {
                self.meta.get_or_insert_with(|| {
                    DocumentMeta::new(document.id, document.engine, document.epoch, document.mode)
                });
                RegistryAnswer::Create(self.meta())
            }
            RegistryRequest::Meta => RegistryAnswer::Meta(self.meta()),
            RegistryRequest::Append { epoch, changes } => {
                RegistryAnswer::Append(match self.append_errors.pop_front() {
                    None => self.append(epoch, changes),
                    Some((error, is_done)) => {
                        if is_done {
                            self.append(epoch, changes).unwrap();
                        }
                        Err(error)
                    }
                })
            }
            RegistryRequest::Tail { after, max_bytes } => {
                RegistryAnswer::Tail(self.tail(after, max_bytes))
            }
            RegistryRequest::Snapshot => RegistryAnswer::Snapshot(Ok(self.snapshot.clone())),
            RegistryRequest::Origins(origins) => RegistryAnswer::Origins(Ok(origins
                .into_iter()
                .map(|origin| self.entry(origin))
                .collect())),
            RegistryRequest::Compact {
                snapshot,
                keep_after,
                ..
            } => {
                assert_eq!(snapshot.digest, self.digest(snapshot.seq.0));
                assert!(keep_after <= snapshot.seq);
                self.log_start = self.log_start.max(keep_after.0);
                self.snapshot = Some(snapshot);
                RegistryAnswer::Compact(Ok(()))
            }
        }
    }
}

/// Refuses changes that start with `!`, and panics (as its wrapper reports it) at `?`.
struct NoBang;

impl Validator for NoBang {
    fn engine(&self) -> EngineId {
        EngineId::YRS
    }

    fn validate(&self, change: &[u8], _: &ValidateLimits) -> Result<(), EngineError> {
        match change.first() {
            Some(b'!') => Err(EngineError::Malformed {
                what: "update",
                offset: 0,
            }),
            Some(b'?') => Err(EngineError::Poisoned),
            _ => Ok(()),
        }
    }

    fn folder(&self) -> Option<&dyn Folder> {
        Some(self)
    }
}

impl Folder for NoBang {
    fn fold(&self, snapshot: Option<&[u8]>, changes: &[Bytes]) -> Result<Bytes, EngineError> {
        let parts = snapshot
            .into_iter()
            .chain(changes.iter().map(AsRef::as_ref));
        Ok(parts.collect::<Vec<_>>().concat().into())
    }
}

struct World {
    now: Time,
    room: Room,
    registry: TestRegistry,
    /// Whether the registry answers appends; others it always does.
    holds_appends: bool,
    held: VecDeque<(RequestNumber, RegistryRequest)>,
    ready: BTreeSet<SessionId>,
    settled: BTreeMap<SessionId, usize>,
    /// Asked for and not answered.
    folds: VecDeque<FoldRequest>,
    superseded: Vec<SessionId>,
    events: Vec<RoomEvent>,
    is_unloaded: bool,
    reassemblers: BTreeMap<SessionId, Reassembler>,
    compression: Compression,
}

fn document() -> DocumentId {
    DocumentId::new("notes/42").unwrap()
}

fn user_of(session: SessionId) -> User {
    User::new(format!("user {}", session.0))
}

fn origin_of(session: SessionId) -> OriginId {
    OriginId(session.0.into())
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut RoomConfig)) -> Self {
        let mut engines = Engines::new();
        engines.insert(Arc::new(NoBang));
        engines.insert_relay(EngineId::OPAQUE);
        let mut config = RoomConfig::new(Limits::default(), engines, 7);
        change(&mut config);
        Self {
            now: Time::ZERO,
            room: Room::new(document(), CHANNEL, config),
            registry: TestRegistry::default(),
            holds_appends: false,
            held: VecDeque::new(),
            ready: BTreeSet::new(),
            settled: BTreeMap::new(),
            folds: VecDeque::new(),
            superseded: Vec::new(),
            events: Vec::new(),
            is_unloaded: false,
            reassemblers: BTreeMap::new(),
            compression: Compression::None,
        }
    }

    /// A document with these changes, by an origin that is nobody's here.
    fn with_log(mut self, changes: impl IntoIterator<Item = String>) -> Self {
        self.create();
        for bytes in changes {
            self.foreign_append(&bytes);
        }
        self
    }

    fn create(&mut self) {
        let new = NewDocument::new(document(), EngineId::YRS, Epoch(7));
        self.registry.answer(RegistryRequest::Create(new));
    }

    fn foreign_append(&mut self, bytes: &str) {
        let origin = OriginId(99);
        let number = self.registry.entry(origin).map_or(0, |entry| entry.last) + 1;
        let change = NewChange::new(
            ChangeId { origin, number },
            User::new("elsewhere"),
            bytes.to_owned().into(),
        );
        assert!(matches!(self.registry.append_one(change), Outcome::At(_)));
    }

    fn cursor(&self, seq: u64) -> Cursor {
        let epoch = self
            .registry
            .meta
            .as_ref()
            .map_or(Epoch(7), |meta| meta.epoch);
        Cursor {
            epoch,
            seq: Seq(seq),
            digest: self.registry.digest(seq),
        }
    }

    fn request(&self, session: SessionId) -> OpenRequest {
        OpenRequest {
            request: RequestId(1),
            engine: EngineId::YRS,
            cursor: None,
            origins: Vec::new(),
            access: AccessLevel::Write,
            create: true,
            user: user_of(session),
            origin: origin_of(session),
            connection: session.0,
            compression: self.compression,
        }
    }

    fn open(&mut self, session: SessionId) -> Opened {
        let request = self.request(session);
        self.open_with(session, request)
    }

    fn open_at(&mut self, session: SessionId, cursor: Cursor) -> Opened {
        let mut request = self.request(session);
        request.cursor = Some(cursor);
        self.open_with(session, request)
    }

    fn open_with(&mut self, session: SessionId, request: OpenRequest) -> Opened {
        self.room.handle_open(self.now, session, request).unwrap();
        self.run();
        match self.next(session) {
            Some(Message::Opened(opened)) => opened,
            other => panic!("expected Opened, got {other:?}"),
        }
    }

    fn push(&mut self, session: SessionId, first_number: u64, changes: &[&str]) {
        self.push_with(session, first_number, changes, false);
    }

    fn push_with(
        &mut self,
        session: SessionId,
        first_number: u64,
        changes: &[&str],
        reconciling: bool,
    ) {
        let push = Push {
            channel: CHANNEL,
            origin: origin_of(session),
            first_number,
            changes: changes
                .iter()
                .map(|c| Bytes::from((*c).to_owned()))
                .collect(),
            reconciling,
        };
        self.room.handle_push(self.now, session, push);
        self.run();
    }

    /// Carries out what the room wants.
    fn run(&mut self) {
        while let Some(output) = self.room.poll_output() {
            match output {
                RoomOutput::Registry(number, request) => {
                    let is_append = matches!(request, RegistryRequest::Append { .. });
                    if self.holds_appends && is_append {
                        self.held.push_back((number, request));
                    } else {
                        let answer = self.registry.answer(request);
                        self.room.handle_registry(self.now, number, answer);
                    }
                }
                RoomOutput::Wake(session) => {
                    self.ready.insert(session);
                }
                RoomOutput::Settled(session, charge) => {
                    *self.settled.entry(session).or_default() += charge;
                }
                RoomOutput::Superseded(session) => self.superseded.push(session),
                RoomOutput::Event(event) => self.events.push(event),
                RoomOutput::Fold(request) => self.folds.push_back(request),
                RoomOutput::Unloaded => self.is_unloaded = true,
            }
        }
    }

    fn release_appends(&mut self) {
        self.holds_appends = false;
        for (number, request) in std::mem::take(&mut self.held) {
            let answer = self.registry.answer(request);
            self.room.handle_registry(self.now, number, answer);
        }
        self.run();
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.room.handle_timeout(self.now);
        self.run();
    }

    fn pass_to_timeout(&mut self) {
        let at = self.room.poll_timeout().expect("something to wait for");
        self.pass(at.since(self.now));
    }

    /// The next transport message, as it travels.
    fn next_frame(&mut self, session: SessionId) -> Option<Bytes> {
        loop {
            match self.room.poll_member(self.now, session) {
                Some(MemberOutput::Frame(frame)) => {
                    self.run();
                    return Some(frame);
                }
                Some(MemberOutput::Settled(charge)) => {
                    *self.settled.entry(session).or_default() += charge;
                }
                Some(MemberOutput::Left) => {
                    self.run();
                    return None;
                }
                None => {
                    self.ready.remove(&session);
                    self.run();
                    if !self.ready.contains(&session) {
                        return None;
                    }
                }
            }
        }
    }

    fn next(&mut self, session: SessionId) -> Option<Message> {
        let max = Limits::default().message_bytes_max;
        loop {
            let frame = self.next_frame(session)?;
            match decode_frame(frame, max).unwrap() {
                Message::Fragment(fragment) => {
                    let reassembler = self
                        .reassemblers
                        .entry(session)
                        .or_insert_with(|| Reassembler::new(&Limits::default()));
                    if let Some(frame) = reassembler.handle(fragment).unwrap() {
                        return Some(decode_frame(frame, max).unwrap());
                    }
                }
                message => return Some(message),
            }
        }
    }

    fn all(&mut self, session: SessionId) -> Vec<Message> {
        std::iter::from_fn(|| self.next(session)).collect()
    }

    /// Everything that a session is sent, as its changes; checks that each frame starts right after the last one.
    fn follow(&mut self, session: SessionId, cursor: u64) -> Vec<String> {
        let mut next = Seq(cursor + 1);
        let mut texts = Vec::new();
        for message in self.all(session) {
            let Message::Changes(changes) = message else {
                panic!("expected Changes, got {message:?}");
            };
            assert_eq!(
                changes.check,
                check_of(next),
                "a frame does not start at the cursor"
            );
            for change in changes.changes {
                texts.push(String::from_utf8(change.bytes.to_vec()).unwrap());
                next = next.next();
            }
        }
        texts
    }

    fn logged(&self) -> Vec<String> {
        let text =
            |(change, _): &(NewChange, Digest)| String::from_utf8(change.bytes.to_vec()).unwrap();
        self.registry.log.iter().map(text).collect()
    }
}

fn texts(message: &Message) -> Vec<&[u8]> {
    match message {
        Message::Changes(Changes { changes, .. }) => changes.iter().map(|c| &*c.bytes).collect(),
        other => panic!("expected Changes, got {other:?}"),
    }
}

fn code_of(message: Option<Message>) -> ErrorCode {
    match message {
        Some(Message::Error(error)) => error.code,
        other => panic!("expected Error, got {other:?}"),
    }
}

/// Scenario 30.
#[test]
fn a_change_is_shown_and_acknowledged_only_after_its_commit() {
    let mut world = World::new();
    let opened = world.open(ADA);
    assert_eq!((opened.next, opened.head), (Continuation::Resume, Seq(0)));
    world.open(BOB);
    world.holds_appends = true;
    world.push(ADA, 1, &["a"]);
    assert_eq!((world.all(ADA), world.all(BOB)), (vec![], vec![]));
    world.release_appends();
    let ack = Ack {
        channel: CHANNEL,
        check: 1,
        number: 1,
        count: 1,
    };
    assert_eq!(world.all(ADA), [Message::Ack(ack)]);
    let seen = world.all(BOB);
    assert_eq!((seen.len(), texts(&seen[0])), (1, vec![&b"a"[..]]));
}

#[test]
fn what_queues_up_during_an_append_leaves_as_one_frame_with_the_same_bytes_for_all() {
    let mut world = World::new();
    for session in [ADA, BOB, CYD] {
        world.open(session);
    }
    world.holds_appends = true;
    world.push(ADA, 1, &["a1"]);
    world.push(ADA, 2, &["a2"]);
    world.push(BOB, 1, &["b1"]);
    world.push(ADA, 3, &["a3"]);
    world.release_appends();
    assert_eq!(world.logged(), ["a1", "a2", "b1", "a3"]);
    // The first append was alone, and all its own: an ack. The second is mixed: the frame that all get.
    assert!(matches!(
        world.next(ADA),
        Some(Message::Ack(Ack {
            number: 1,
            count: 1,
            ..
        }))
    ));
    let (ada, bob, cyd) = (
        world.next_frame(ADA),
        world.next_frame(BOB),
        world.next_frame(CYD),
    );
    assert_eq!(bob, cyd);
    let (bob, cyd) = (
        world.next_frame(BOB).unwrap(),
        world.next_frame(CYD).unwrap(),
    );
    assert_eq!((ada.as_ref(), bob.as_ptr()), (Some(&bob), cyd.as_ptr()));
    let ready = world.all(CYD);
    assert_eq!(ready, []);
}

#[test]
fn a_busy_room_of_many_gathers_what_comes_within_a_millisecond_and_an_idle_one_waits_for_nothing() {
    let mut world = World::new();
    let sessions: Vec<_> = (1..=16).map(SessionId).collect();
    for session in &sessions {
        world.open(*session);
    }
    world.push(ADA, 1, &["at once"]);
    assert_eq!(world.logged().len(), 1);
    for (number, session) in (1..).zip([BOB, CYD, BOB]) {
        world.push(session, number / 3 + 1, &["gathered"]);
    }
    assert_eq!(world.logged().len(), 1);
    world.pass_to_timeout();
    assert_eq!(world.now, Time::from_micros(1_000));
    assert_eq!(world.logged().len(), 4);
    let frames = world.all(sessions[9]);
    assert_eq!(
        frames
            .iter()
            .map(|frame| texts(frame).len())
            .collect::<Vec<_>>(),
        [1, 3]
    );
    assert_eq!(world.room.poll_timeout(), None);
    world.pass(Duration::from_millis(2));
    world.push(ADA, 2, &["at once"]);
    assert_eq!(world.logged().len(), 5);
}

/// Scenario 46, and 79 for what follows the refused change.
#[test]
fn a_bad_change_is_refused_after_what_came_before_it_and_what_follows_waits_for_a_new_open() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.push(ADA, 1, &["one", "!two", "three"]);
    world.push(ADA, 4, &["four"]);
    assert_eq!(world.logged(), ["one"]);
    let told = world.all(ADA);
    assert!(
        matches!(
            told[0],
            Message::Ack(Ack {
                number: 1,
                count: 1,
                ..
            })
        ),
        "{told:?}"
    );
    assert!(
        matches!(
            &told[1],
            Message::Refuse(Refuse {
                number: 2,
                code: ErrorCode::InvalidChange,
                ..
            })
        ),
        "{told:?}"
    );
    assert_eq!(told.len(), 2);
    world.open(ADA);
    world.push(ADA, 2, &["another two"]);
    assert_eq!(world.logged(), ["one", "another two"]);
    let everything = push_charge(&["one".into(), "!two".into(), "three".into(), "four".into()]);
    assert_eq!(world.settled[&ADA], everything);
    assert_eq!(world.follow(BOB, 0), ["one", "another two"]);
}

#[test]
fn a_validator_that_panics_refuses_the_change_and_is_reported() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["?"]);
    let code = ErrorCode::InvalidChange;
    assert!(matches!(world.next(ADA), Some(Message::Refuse(refuse)) if refuse.code == code));
    let panicked = |event: &RoomEvent| matches!(event, RoomEvent::ValidatorPanicked { .. });
    assert!(world.events.iter().any(panicked));
}

/// Scenario 47, the limit of a change.
#[test]
fn a_change_over_the_limit_is_too_large_unless_it_reconciles() {
    let mut world = World::with(|config| config.limits.change_bytes_max = 4);
    world.open(ADA);
    world.push_with(ADA, 1, &["12345"], true);
    world.push(ADA, 2, &["1234"]);
    world.push(ADA, 3, &["12345"]);
    assert_eq!(world.logged(), ["12345", "1234"]);
    let refused = world.all(ADA).pop();
    assert!(
        matches!(refused, Some(Message::Refuse(r)) if r.code == ErrorCode::TooLarge && r.number == 3)
    );
}

/// Scenario 54.
#[test]
fn a_reader_receives_and_its_writes_are_refused() {
    let mut world = World::new();
    world.open(ADA);
    let mut request = world.request(BOB);
    request.access = AccessLevel::Read;
    assert_eq!(world.open_with(BOB, request).access, AccessLevel::Read);
    world.push(BOB, 1, &["b"]);
    world.push(ADA, 1, &["a"]);
    let told = world.all(BOB);
    let denied = ErrorCode::AccessDenied;
    assert!(
        matches!(&told[0], Message::Refuse(r) if r.code == denied && r.number == 1),
        "{told:?}"
    );
    assert_eq!(texts(&told[1]), [b"a"]);
    assert_eq!(world.logged(), ["a"]);
}

/// Scenario 48.
#[test]
fn a_reader_that_fell_off_the_ring_catches_up_from_the_registry_in_one_bounded_read_at_a_time() {
    let mut world = World::with(|config| {
        config.ring_bytes_max = 2_000;
        config.catch_up_bytes = 1_000;
    });
    world.open(ADA);
    world.open(BOB);
    for number in 1..=200 {
        world.push(ADA, number, &[&format!("{number:0>100}")]);
        world.all(ADA);
    }
    assert_eq!(world.registry.n_tails, 0);
    // Nothing is read for somebody who does not take what there is.
    let first = world.next_frame(BOB).unwrap();
    assert_eq!(world.registry.n_tails, 1);
    assert!(matches!(
        decode_frame(first, 1 << 20),
        Ok(Message::Changes(_))
    ));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.registry.n_tails, 1);
    let mut world_again = world;
    let rest = world_again.follow_from_any(BOB);
    assert_eq!(rest, 200 - 10);
    assert!(
        world_again.registry.n_tails < 25,
        "{}",
        world_again.registry.n_tails
    );
    // And then it is on the ring again.
    let reads = world_again.registry.n_tails;
    world_again.push(ADA, 201, &["on the ring"]);
    assert_eq!(world_again.follow(BOB, 200), ["on the ring"]);
    assert_eq!(world_again.registry.n_tails, reads);
}

impl World {
    /// Follows a session that has taken one frame; gives the number of changes after that.
    fn follow_from_any(&mut self, session: SessionId) -> usize {
        let messages = self.all(session);
        messages.iter().map(|message| texts(message).len()).sum()
    }
}

#[test]
fn whoever_stands_inside_a_frame_of_the_ring_is_sent_its_rest_from_the_registry() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["1", "2", "3", "4", "5"]);
    world.push(ADA, 6, &["6"]);
    for cursor in 0..=6 {
        let opened = world.open_at(BOB, world.cursor(cursor));
        assert_eq!(opened.next, Continuation::Resume);
        let expected: Vec<_> = (cursor + 1..=6).map(|n| n.to_string()).collect();
        assert_eq!(world.follow(BOB, cursor), expected, "from {cursor}");
    }
}

#[test]
fn many_who_stand_at_one_place_share_a_read() {
    let mut world = World::new().with_log((1..=50).map(|n| n.to_string()));
    let sessions: Vec<_> = (10..60).map(SessionId).collect();
    for session in &sessions {
        world.open(*session);
    }
    // All ask before the registry answers.
    for session in &sessions {
        assert_eq!(world.room.poll_member(world.now, *session), None);
    }
    world.run();
    assert_eq!(world.registry.n_tails, 1);
    for session in &sessions {
        assert_eq!(world.follow(*session, 0).len(), 50);
    }
    assert_eq!(world.registry.n_tails, 1);
}

/// Scenarios 21 and 29.
#[test]
fn a_cursor_older_than_the_log_gets_the_snapshot_and_the_rest_and_one_inside_it_no_snapshot_byte() {
    let mut world = World::new().with_log((1..=10).map(|n| n.to_string()));
    let state = Bytes::from(vec![7_u8; 200_000]);
    let cursor = world.cursor(6);
    world.registry.snapshot = Some(Snapshot::new(Seq(6), cursor.digest, state.clone()));
    world.registry.log_start = 4;
    let total_bytes = 200_000;
    for cursor in [None, Some(world.cursor(3))] {
        let mut request = world.request(ADA);
        request.cursor = cursor;
        let opened = world.open_with(ADA, request);
        assert_eq!(opened.next, Continuation::Snapshot { total_bytes });
        let messages = world.all(ADA);
        let Message::Snapshot(SnapshotMessage { seq, ref bytes, .. }) = messages[0] else {
            panic!("expected Snapshot, got {:?}", messages[0]);
        };
        assert_eq!((seq, bytes), (Seq(6), &state));
        assert_eq!(texts(&messages[1]), [&b"7"[..], b"8", b"9", b"10"]);
    }
    let opened = world.open_at(BOB, world.cursor(5));
    assert_eq!(opened.next, Continuation::Resume);
    assert_eq!(world.follow(BOB, 5), ["6", "7", "8", "9", "10"]);
    assert!(
        world.room.snapshot.is_none(),
        "nobody is being sent it any more"
    );
}

#[test]
fn a_slow_reader_whose_rows_are_compacted_meanwhile_is_sent_the_snapshot() {
    let mut world = World::with(|config| config.ring_bytes_max = 1);
    world.open(ADA);
    world.open(BOB);
    for number in 1..=9 {
        world.push(ADA, number, &[&number.to_string()]);
    }
    let digest = world.registry.digest(8);
    world.registry.snapshot = Some(Snapshot::new(Seq(8), digest, "state".into()));
    world.registry.log_start = 8;
    let messages = world.all(BOB);
    assert!(
        matches!(&messages[0], Message::Snapshot(s) if s.seq == Seq(8)),
        "{messages:?}"
    );
    assert_eq!(texts(&messages[1]), [b"9"]);
}

/// Scenario 24 and protocol section 8.1.
#[test]
fn a_cursor_of_another_history_is_reset_as_the_epoch_says() {
    let wrong = |world: &World, seq| Cursor {
        digest: Digest(1),
        ..world.cursor(seq)
    };
    let other = |world: &World, seq| Cursor {
        epoch: Epoch(1),
        ..world.cursor(seq)
    };
    type Make = fn(&World) -> Cursor;
    let cases: [(&str, EpochMode, Make, Reset); 6] = [
        (
            "wrong digest",
            EpochMode::New,
            |w| Cursor {
                digest: Digest(1),
                ..w.cursor(2)
            },
            Reset::Merge,
        ),
        (
            "beyond the head",
            EpochMode::New,
            |w| Cursor {
                seq: Seq(9),
                ..w.cursor(2)
            },
            Reset::Merge,
        ),
        (
            "new epoch",
            EpochMode::New,
            |w| Cursor {
                epoch: Epoch(1),
                ..w.cursor(2)
            },
            Reset::Merge,
        ),
        (
            "merge",
            EpochMode::Merge,
            |w| Cursor {
                epoch: Epoch(1),
                ..w.cursor(2)
            },
            Reset::Merge,
        ),
        (
            "rebase",
            EpochMode::Rebase,
            |w| Cursor {
                epoch: Epoch(1),
                ..w.cursor(2)
            },
            Reset::Rebase,
        ),
        (
            "discard",
            EpochMode::Discard,
            |w| Cursor {
                epoch: Epoch(1),
                ..w.cursor(2)
            },
            Reset::Discard,
        ),
    ];
    for (name, mode, cursor, reset) in cases {
        let mut world = World::new().with_log(["1".to_owned(), "2".to_owned()]);
        world.registry.meta.as_mut().unwrap().mode = mode;
        let cursor = cursor(&world);
        let opened = world.open_at(ADA, cursor);
        assert_eq!(
            opened.next,
            Continuation::Reset {
                reset,
                total_bytes: 0
            },
            "{name}"
        );
        assert_eq!(opened.epoch, Epoch(7), "{name}: a claim changes no epoch");
        assert_eq!(world.follow(ADA, 0), ["1", "2"], "{name}");
    }
    let world = World::new().with_log(["1".to_owned()]);
    assert_ne!(wrong(&world, 1), other(&world, 1));
}

#[test]
fn one_client_reconciles_at_a_time_and_the_next_is_told_when_it_is_its_turn() {
    let mut world = World::new().with_log(["1".to_owned()]);
    let elsewhere = Cursor::start(Epoch(1));
    let merge = Continuation::Reset {
        reset: Reset::Merge,
        total_bytes: 0,
    };
    assert_eq!(world.open_at(ADA, elsewhere).next, merge);
    assert_eq!(world.open_at(BOB, elsewhere).next, Continuation::Wait);
    assert_eq!(world.open_at(CYD, elsewhere).next, Continuation::Wait);
    // Who may only read needs no turn.
    let mut reader = world.request(SessionId(4));
    (reader.access, reader.cursor) = (AccessLevel::Read, Some(elsewhere));
    assert_eq!(world.open_with(SessionId(4), reader).next, merge);
    assert_eq!((world.all(BOB), world.all(CYD)), (vec![], vec![]));
    world.holds_appends = true;
    world.push_with(ADA, 1, &["lacking"], true);
    assert_eq!(world.all(BOB), []);
    world.release_appends();
    let Some(Message::Opened(opened)) = world.next(BOB) else {
        panic!("it is Bob's turn");
    };
    // Computed afresh: what Ada pushed is in it.
    assert_eq!(
        (opened.next, opened.head, opened.request),
        (merge, Seq(2), RequestId(1))
    );
    assert_eq!(world.follow(BOB, 0), ["1", "lacking"]);
    assert_eq!(world.all(CYD), []);
    world.pass(Duration::from_secs(59));
    assert_eq!(world.all(CYD), []);
    world.pass(Duration::from_secs(1));
    assert!(matches!(world.next(CYD), Some(Message::Opened(opened)) if opened.next == merge));
    world.room.handle_close(world.now, CYD);
    world.run();
    assert_eq!(world.open_at(ADA, elsewhere).next, merge);
}

#[test]
fn an_empty_reconciling_push_ends_the_turn() {
    let mut world = World::new().with_log(["1".to_owned()]);
    let elsewhere = Cursor::start(Epoch(1));
    world.open_at(ADA, elsewhere);
    assert_eq!(world.open_at(BOB, elsewhere).next, Continuation::Wait);
    world.push_with(ADA, 1, &[], true);
    assert!(matches!(world.next(BOB), Some(Message::Opened(_))));
}

/// Scenario 31, the server's side.
#[test]
fn a_newer_session_of_the_same_client_takes_over_before_anything_is_computed_for_it() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    let mut request = world.request(BOB);
    (request.user, request.origin) = (user_of(ADA), origin_of(ADA));
    let opened = world.open_with(BOB, request);
    assert_eq!(
        opened
            .origins
            .iter()
            .map(|o| (o.0, o.1))
            .collect::<Vec<_>>(),
        [(origin_of(ADA), 1)]
    );
    assert_eq!(world.superseded, [ADA]);
    world.push(ADA, 2, &["late"]);
    assert_eq!(world.logged(), ["a"]);
    assert_eq!(world.all(ADA), []);
    // A straggler of the older connection does not take over in turn.
    let request = world.request(ADA);
    world.room.handle_open(world.now, ADA, request).unwrap();
    world.run();
    assert_eq!(world.superseded, [ADA, ADA]);
    assert_eq!((world.all(ADA), world.room.n_members()), (vec![], 1));
    world.superseded.pop();
    // Another user with the same origin takes nothing over.
    let mut request = world.request(CYD);
    request.origin = origin_of(ADA);
    world.open_with(CYD, request);
    assert_eq!(world.superseded, [ADA]);
}

/// Scenario 31: pushed by a session that was cut, pushed again by the next one.
#[test]
fn a_repeat_is_answered_as_had_before_and_is_in_the_log_once() {
    let mut world = World::new();
    world.open(ADA);
    world.open(CYD);
    world.holds_appends = true;
    world.push(ADA, 1, &["a", "b"]);
    world.room.handle_close(world.now, ADA);
    let opened = world.open(ADA);
    assert_eq!(opened.origins[0].1, 0);
    world.push(ADA, 1, &["a", "b"]);
    world.push(ADA, 3, &["c"]);
    world.release_appends();
    assert_eq!(world.logged(), ["a", "b", "c"]);
    assert_eq!(world.follow(CYD, 0), ["a", "b", "c"]);
    let told = world.all(ADA);
    // What an earlier session pushed comes in the stream, never as an `Ack` with a count.
    assert!(
        matches!(
            told[0],
            Message::Ack(Ack {
                number: 2,
                count: 0,
                ..
            })
        ),
        "{told:?}"
    );
    assert_eq!(texts(&told[1]), [b"a", b"b"]);
    assert!(
        matches!(
            told[2],
            Message::Ack(Ack {
                number: 3,
                count: 1,
                ..
            })
        ),
        "{told:?}"
    );
    let charge = push_charge(&["a".into(), "b".into()]) * 2 + push_charge(&["c".into()]);
    assert_eq!(world.settled[&ADA], charge);
}

/// Scenario 84.
#[test]
fn a_reused_id_a_gap_and_a_foreign_origin_each_have_their_answer_and_close_the_channel() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    world.all(ADA);
    world.push(ADA, 1, &["other bytes", "b"]);
    world.push(ADA, 2, &["b"]);
    let refused = world.next(ADA);
    assert!(
        matches!(&refused, Some(Message::Refuse(r)) if r.code == ErrorCode::IdReused && r.number == 1),
        "{refused:?}"
    );
    world.open(ADA);
    world.all(ADA);
    world.push(ADA, 5, &["e", "f"]);
    assert_eq!(code_of(world.next(ADA)), ErrorCode::Gap);
    let mut request = world.request(BOB);
    request.origins = vec![(origin_of(ADA), 0)];
    let opened = world.open_with(BOB, request);
    assert_eq!(
        opened.origins[0].1, 0,
        "nothing is told about other users' origins"
    );
    world.all(BOB);
    let push = Push {
        channel: CHANNEL,
        origin: origin_of(ADA),
        first_number: 2,
        changes: vec!["stolen".into()],
        reconciling: false,
    };
    world.room.handle_push(world.now, BOB, push);
    world.run();
    assert_eq!(code_of(world.next(BOB)), ErrorCode::ForeignOrigin);
    assert_eq!(world.logged(), ["a"]);
}

#[test]
fn nothing_of_another_origin_overtakes_a_change_that_the_registry_refuses() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    let fresh = Push {
        channel: CHANNEL,
        origin: OriginId(77),
        first_number: 1,
        changes: vec!["builds on it".into()],
        reconciling: false,
    };
    world.holds_appends = true;
    world.push(ADA, 1, &["other bytes"]);
    world.room.handle_push(world.now, ADA, fresh);
    world.release_appends();
    assert_eq!(world.logged(), ["a"]);
}

#[test]
fn the_number_of_a_late_origin_is_told_before_it_is_used() {
    let mut world = World::new();
    let opened = world.open(ADA);
    let push = Push {
        channel: CHANNEL,
        origin: OriginId(77),
        first_number: 1,
        changes: vec!["fresh".into()],
        reconciling: false,
    };
    world.open(BOB);
    world.room.handle_push(world.now, ADA, push);
    world.run();
    let told = world.all(ADA);
    let Message::Author(author) = &told[0] else {
        panic!("expected Author, got {told:?}");
    };
    assert_eq!(author.origin, OriginId(77));
    assert_ne!(author.author, opened.origins[0].2);
    let Some(Message::Changes(seen)) = world.next(BOB) else {
        panic!("Bob sees the change");
    };
    assert_eq!(seen.changes[0].author, author.author);
}

#[test]
fn an_append_of_unknown_outcome_is_settled_by_the_log_whether_it_was_carried_out_or_not() {
    for is_done in [true, false] {
        let mut world = World::new();
        world.open(ADA);
        world.open(BOB);
        let error = RegistryError::Unknown { source: None };
        world.registry.append_errors.push_back((error, is_done));
        world.push(ADA, 1, &["a"]);
        world.push(ADA, 2, &["b"]);
        assert_eq!(world.all(ADA), [], "nothing is acknowledged on a guess");
        world.pass_to_timeout();
        assert_eq!(world.logged(), ["a", "b"], "carried out: {is_done}");
        assert_eq!(world.follow(BOB, 0), ["a", "b"]);
        let told = world.all(ADA);
        let acked = |message: &Message| matches!(message, Message::Ack(_));
        assert_eq!(told.iter().filter(|m| acked(m)).count(), 2, "{told:?}");
        assert_eq!(world.settled[&ADA], push_charge(&["a".into(), "b".into()]));
    }
}

/// Scenario 83, storage.
#[test]
fn storage_that_fails_closes_the_channel_with_a_delay_and_refuses_nothing() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    let retry_after = Some(Duration::from_secs(3));
    let error = RegistryError::Unavailable {
        retry_after,
        source: None,
    };
    world.registry.append_errors.push_back((error, false));
    world.push(ADA, 1, &["a"]);
    world.push(ADA, 2, &["b"]);
    world.push(BOB, 1, &["not affected"]);
    let told = world.all(ADA);
    let Message::Error(error) = &told[0] else {
        panic!("expected Error, got {told:?}");
    };
    assert_eq!(
        (error.code, error.retry_after),
        (ErrorCode::StorageUnavailable, retry_after)
    );
    assert_eq!(error.reference, Reference::Channel(CHANNEL));
    assert_eq!(texts(&told[1]), [b"not affected"]);
    world.open(ADA);
    world.push(ADA, 1, &["a", "b"]);
    assert_eq!(world.logged(), ["not affected", "a", "b"]);
}

#[test]
fn an_append_that_stays_unknown_is_given_up_after_its_attempts() {
    let mut world = World::new();
    world.open(ADA);
    for _ in 0..20 {
        let error = RegistryError::Unknown { source: None };
        world.registry.append_errors.push_back((error, false));
    }
    world.push(ADA, 1, &["a"]);
    while world.room.poll_timeout().is_some() {
        world.pass_to_timeout();
    }
    assert_eq!(code_of(world.next(ADA)), ErrorCode::StorageUnavailable);
    let done = 20 - world.registry.append_errors.len();
    assert_eq!(done, 7);
}

#[test]
fn what_others_append_is_published_in_log_order_before_ones_own() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.holds_appends = true;
    world.push(ADA, 1, &["mine"]);
    world.foreign_append("theirs");
    world.release_appends();
    assert_eq!(world.follow(BOB, 0), ["theirs", "mine"]);
    world.foreign_append("a hint tells");
    world.room.handle_head(world.now, Seq(3));
    // A hint that lies does no harm.
    world.room.handle_head(world.now, Seq(1_000));
    world.run();
    assert_eq!(world.follow(BOB, 2), ["a hint tells"]);
}

/// Scenario 78: restored under the same epoch, then overtaken.
#[test]
fn a_registry_that_went_back_is_noticed_by_the_next_append_or_open() {
    let mut world = World::new().with_log((1..=5).map(|n| n.to_string()));
    world.open(BOB);
    world.follow(BOB, 0);
    let cursor = world.cursor(5);
    world.registry.log.truncate(2);
    for n in 0..6 {
        world.foreign_append(&format!("other {n}"));
    }
    let merge = Continuation::Reset {
        reset: Reset::Merge,
        total_bytes: 0,
    };
    world.open(ADA);
    assert_eq!(code_of(world.next(ADA)), ErrorCode::Fenced);
    assert_eq!(code_of(world.next(BOB)), ErrorCode::Fenced);
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    assert_eq!(world.open_at(BOB, cursor).next, merge);
    assert_eq!(world.follow(BOB, 0).len(), world.registry.log.len());
}

/// Scenario 61, the server's side: everything is lost under a live room.
#[test]
fn a_document_that_is_lost_under_a_live_room_is_created_again_and_everybody_reconciles() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.push(ADA, 1, &["a"]);
    let cursor = Cursor {
        epoch: world.registry.meta.as_ref().unwrap().epoch,
        ..world.cursor(1)
    };
    world.all(ADA);
    world.all(BOB);
    world.registry = TestRegistry::default();
    world.push(ADA, 2, &["b"]);
    assert_eq!(code_of(world.next(ADA)), ErrorCode::Fenced);
    assert_eq!(code_of(world.next(BOB)), ErrorCode::Fenced);
    let opened = world.open_at(ADA, cursor);
    assert_eq!(
        opened.next,
        Continuation::Reset {
            reset: Reset::Merge,
            total_bytes: 0
        }
    );
    assert_ne!(opened.epoch, cursor.epoch);
    assert_eq!(opened.origins[0].1, 0);
    assert_eq!(world.open_at(BOB, cursor).next, Continuation::Wait);
}

#[test]
fn a_new_epoch_fences_everybody_and_the_next_open_starts_from_it() {
    let mut world = World::new().with_log(["1".to_owned()]);
    world.open(ADA);
    world.open(BOB);
    world.all(BOB);
    world.registry.meta.as_mut().unwrap().epoch = Epoch(8);
    world.registry.meta.as_mut().unwrap().mode = EpochMode::Discard;
    world.push(ADA, 1, &["a"]);
    assert_eq!(code_of(world.all(BOB).pop()), ErrorCode::Fenced);
    let opened = world.open_at(BOB, Cursor::start(Epoch(7)));
    assert_eq!(
        opened.next,
        Continuation::Reset {
            reset: Reset::Discard,
            total_bytes: 0
        }
    );
    assert_eq!(world.logged(), ["1"]);
}

/// Scenario 25.
#[test]
fn an_unknown_document_is_created_or_not_as_the_open_asks() {
    let mut world = World::new();
    let mut request = world.request(ADA);
    request.create = false;
    world
        .room
        .handle_open(world.now, ADA, request.clone())
        .unwrap();
    world.run();
    assert_eq!(code_of(world.next(ADA)), ErrorCode::NotFound);
    assert_eq!(world.next(ADA), None);
    assert!(
        world.is_unloaded,
        "asking for what is not there leaves nothing behind"
    );
    assert_eq!(
        world.room.handle_open(world.now, ADA, request),
        Err(RoomUnloaded)
    );

    let mut world = World::new();
    let mut request = world.request(ADA);
    request.access = AccessLevel::Read;
    world.room.handle_open(world.now, ADA, request).unwrap();
    world.run();
    assert_eq!(
        code_of(world.next(ADA)),
        ErrorCode::NotFound,
        "readers create nothing"
    );
    assert!(world.registry.meta.is_none());
}

#[test]
fn an_open_with_another_or_an_unknown_engine_is_refused() {
    let mut world = World::new().with_log(["1".to_owned()]);
    let mut request = world.request(ADA);
    request.engine = EngineId::OPAQUE;
    world.room.handle_open(world.now, ADA, request).unwrap();
    world.run();
    assert_eq!(code_of(world.next(ADA)), ErrorCode::EngineMismatch);
    let mut world = World::new();
    let mut request = world.request(ADA);
    request.engine = EngineId::new("loro").unwrap();
    world.room.handle_open(world.now, ADA, request).unwrap();
    world.run();
    assert_eq!(code_of(world.next(ADA)), ErrorCode::UnknownEngine);
}

/// Scenario 59.
#[test]
fn an_idle_room_unloads_and_a_busy_one_does_not() {
    let mut world = World::new();
    assert_eq!(world.room.phase(), RoomPhase::Loading);
    world.open(ADA);
    assert_eq!(world.room.phase(), RoomPhase::Live);
    world.holds_appends = true;
    world.push(ADA, 1, &["a"]);
    world.room.handle_close(world.now, ADA);
    assert_eq!(
        world.room.phase(),
        RoomPhase::Live,
        "an append is under way"
    );
    world.release_appends();
    assert!(matches!(world.room.phase(), RoomPhase::Draining { .. }));
    world.pass(Duration::from_secs(29));
    world.open(BOB);
    assert_eq!(world.room.phase(), RoomPhase::Live);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.room.phase(), RoomPhase::Live);
    world.room.handle_close(world.now, BOB);
    world.run();
    world.pass_to_timeout();
    assert!(world.is_unloaded);
    assert_eq!(
        (world.room.phase(), world.room.poll_timeout()),
        (RoomPhase::Unloaded, None)
    );
    assert_eq!(world.logged(), ["a"]);
}

/// Scenario 74, mixed clients in one room.
#[test]
fn clients_with_and_without_gzip_share_a_room_and_large_changes_come_in_pieces() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world.compression = Compression::Gzip;
    world.open(CYD);
    let repeating = "abcdefgh".repeat(200);
    world.push(ADA, 1, &[&repeating]);
    let plain = world.next_frame(BOB).unwrap();
    let gzip = world.next_frame(CYD).unwrap();
    assert!(
        gzip.len() * 5 < plain.len(),
        "{} {}",
        gzip.len(),
        plain.len()
    );
    assert_eq!(decode_frame(plain, 1 << 20), decode_frame(gzip, 1 << 20));
    let large: String = (0_u32..200_000)
        .map(|n| char::from(b' ' + u8::try_from(n % 311 * n % 89).unwrap()))
        .collect();
    world.push(ADA, 2, &[&large]);
    for session in [BOB, CYD] {
        let message = world.next(session).unwrap();
        assert_eq!(texts(&message), [large.as_bytes()]);
    }
}

#[test]
fn an_open_in_the_middle_of_a_message_gives_the_message_up() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    let large = "x".repeat(300_000);
    world.push(ADA, 1, &[&large]);
    assert!(matches!(
        decode_frame(world.next_frame(BOB).unwrap(), 1 << 20),
        Ok(Message::Fragment(_))
    ));
    world
        .room
        .handle_open(world.now, BOB, world.request(BOB))
        .unwrap();
    world.run();
    let Ok(Message::Fragment(abort)) = decode_frame(world.next_frame(BOB).unwrap(), 1 << 20) else {
        panic!("the rest of the message is not coming");
    };
    assert_eq!(abort.total, 0);
    assert!(matches!(world.next(BOB), Some(Message::Opened(_))));
    assert_eq!(texts(&world.next(BOB).unwrap()), [large.as_bytes()]);
}

#[test]
fn changes_are_settled_only_when_their_author_has_been_told() {
    let mut world = World::new();
    world.open(ADA);
    world.push(ADA, 1, &["a"]);
    assert_eq!(world.logged(), ["a"]);
    assert_eq!(world.settled.get(&ADA), None);
    world.all(ADA);
    assert_eq!(world.settled[&ADA], push_charge(&["a".into()]));
}

/// Scenario 63, who is in the room.
#[test]
fn a_deleted_document_is_closed_for_everybody() {
    let mut world = World::new();
    world.open(ADA);
    world.open(BOB);
    world
        .registry
        .append_errors
        .push_back((RegistryError::Deleted, false));
    world.push(ADA, 1, &["a"]);
    for session in [ADA, BOB] {
        let closed = world.next(session);
        assert!(
            matches!(&closed, Some(Message::Closed(c)) if c.reason == Some(ErrorCode::Deleted)),
            "{closed:?}"
        );
        assert_eq!(world.next(session), None);
    }
    assert_eq!(world.room.n_members(), 0);
}

/// Scenario 72, the room's part.
#[test]
fn each_event_is_told_once() {
    let mut world = World::new();
    world.open(ADA);
    world.open(ADA);
    world.push(ADA, 1, &["a", "b"]);
    world.push(ADA, 3, &["!"]);
    world.room.handle_close(world.now, ADA);
    world.run();
    let told: Vec<_> = world
        .events
        .iter()
        .map(|event| format!("{event:?}"))
        .collect();
    let expected = ["Loaded", "Opened", "Committed", "Refused", "Left"];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (event, name) in told.iter().zip(expected) {
        assert!(event.starts_with(name), "{event} is not {name}");
    }
}
