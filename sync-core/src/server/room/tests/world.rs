//! A room, a tiny registry, and clients that only look at what they are sent.

use super::*;

pub(super) const ADA: SessionId = SessionId(1);
pub(super) const BOB: SessionId = SessionId(2);
pub(super) const CYD: SessionId = SessionId(3);
pub(super) const CHANNEL: Channel = Channel(3_000);

pub(super) struct World {
    pub(super) now: Time,
    pub(super) room: Room,
    pub(super) registry: TestRegistry,
    /// Whether the registry answers appends; others it always does.
    pub(super) holds_appends: bool,
    pub(super) held: VecDeque<(RequestNumber, RegistryRequest)>,
    pub(super) ready: BTreeSet<SessionId>,
    pub(super) settled: BTreeMap<SessionId, usize>,
    /// Asked for and not answered.
    pub(super) folds: VecDeque<FoldRequest>,
    /// What checks changes, if the engine's are checked.
    pub(super) replica: Replica,
    /// Whether checks wait to be [answered](Self::release_checks).
    pub(super) holds_checks: bool,
    pub(super) held_checks: VecDeque<(RequestNumber, CheckRequest)>,
    /// Asked and not answered.
    pub(super) asks: VecDeque<(RequestNumber, AskRequest)>,
    pub(super) superseded: Vec<SessionId>,
    /// What users may do: asked and not answered.
    pub(super) questions: Vec<(RequestNumber, User)>,
    pub(super) events: Vec<RoomEvent>,
    pub(super) is_unloaded: bool,
    pub(super) reassemblers: BTreeMap<SessionId, Reassembler>,
    pub(super) compression: Compression,
    /// Presence that was sent among other things.
    pub(super) heard: BTreeMap<SessionId, Vec<crate::wire::Presence>>,
}

pub(super) fn document() -> DocumentId {
    DocumentId::new("notes/42").unwrap()
}

pub(super) fn user_of(session: SessionId) -> User {
    User::new(format!("user {}", session.0))
}

pub(super) fn origin_of(session: SessionId) -> OriginId {
    OriginId(session.0.into())
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut RoomConfig)) -> Self {
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
            replica: Replica::default(),
            holds_checks: false,
            held_checks: VecDeque::new(),
            asks: VecDeque::new(),
            superseded: Vec::new(),
            questions: Vec::new(),
            events: Vec::new(),
            is_unloaded: false,
            reassemblers: BTreeMap::new(),
            compression: Compression::None,
            heard: BTreeMap::new(),
        }
    }

    /// A document with these changes, by an origin that is nobody's here.
    pub(super) fn with_log(mut self, changes: impl IntoIterator<Item = String>) -> Self {
        self.create();
        for bytes in changes {
            self.foreign_append(&bytes);
        }
        self
    }

    pub(super) fn create(&mut self) {
        let new = NewDocument::new(document(), EngineId::YRS, Epoch(7));
        self.registry.answer(RegistryRequest::Create(new));
    }

    pub(super) fn foreign_append(&mut self, bytes: &str) {
        let origin = OriginId(99);
        let number = self.registry.entry(origin).map_or(0, |entry| entry.last) + 1;
        let change = NewChange::new(
            ChangeId { origin, number },
            User::new("elsewhere"),
            bytes.to_owned().into(),
        );
        assert!(matches!(self.registry.append_one(change), Outcome::At(_)));
    }

    pub(super) fn cursor(&self, seq: u64) -> Cursor {
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

    pub(super) fn request(&self, session: SessionId) -> OpenRequest {
        OpenRequest {
            request: RequestId(1),
            engine: EngineId::YRS,
            cursor: None,
            partial: None,
            origins: Vec::new(),
            access: AccessLevel::Write,
            access_max: AccessLevel::Maintain,
            valid_until: None,
            create: true,
            user: user_of(session),
            origin: origin_of(session),
            connection: session.0,
            compression: self.compression,
            token: None,
            is_resumed: false,
        }
    }

    pub(super) fn open(&mut self, session: SessionId) -> Opened {
        let request = self.request(session);
        self.open_with(session, request)
    }

    pub(super) fn open_at(&mut self, session: SessionId, cursor: Cursor) -> Opened {
        let mut request = self.request(session);
        request.cursor = Some(cursor);
        self.open_with(session, request)
    }

    pub(super) fn open_with(&mut self, session: SessionId, request: OpenRequest) -> Opened {
        self.room.handle_open(self.now, session, request).unwrap();
        self.run();
        match self.next(session) {
            Some(Message::Opened(opened)) => opened,
            other => panic!("expected Opened, got {other:?}"),
        }
    }

    pub(super) fn push(&mut self, session: SessionId, first_number: u64, changes: &[&str]) {
        self.push_with(session, first_number, changes, false);
    }

    pub(super) fn push_with(
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
    pub(super) fn run(&mut self) {
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
                RoomOutput::Authorize(number, user) => self.questions.push((number, user)),
                RoomOutput::Event(event) => self.events.push(event),
                RoomOutput::Ask(number, request) => self.asks.push_back((number, request)),
                RoomOutput::Fold(request) => self.folds.push_back(request),
                RoomOutput::Check(number, request) if self.holds_checks => {
                    self.held_checks.push_back((number, request));
                }
                RoomOutput::Check(number, request) => self.check(number, &request),
                RoomOutput::Unloaded => self.is_unloaded = true,
            }
        }
    }

    fn check(&mut self, number: RequestNumber, request: &CheckRequest) {
        let verdicts = self.replica.check(request, &self.registry);
        self.room.handle_checked(self.now, number, verdicts);
    }

    pub(super) fn release_checks(&mut self) {
        self.holds_checks = false;
        for (number, request) in std::mem::take(&mut self.held_checks) {
            self.check(number, &request);
        }
        self.run();
    }

    pub(super) fn release_appends(&mut self) {
        self.holds_appends = false;
        for (number, request) in std::mem::take(&mut self.held) {
            let answer = self.registry.answer(request);
            self.room.handle_registry(self.now, number, answer);
        }
        self.run();
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.room.handle_timeout(self.now);
        self.run();
    }

    pub(super) fn pass_to_timeout(&mut self) {
        let at = self.room.poll_timeout().expect("something to wait for");
        self.pass(at.since(self.now));
    }

    /// The next transport message, as it travels. As a driver does, it polls only a session that has been woken.
    pub(super) fn next_frame(&mut self, session: SessionId) -> Option<Bytes> {
        while self.ready.contains(&session) {
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
                }
            }
        }
        None
    }

    pub(super) fn next(&mut self, session: SessionId) -> Option<Message> {
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

    pub(super) fn all(&mut self, session: SessionId) -> Vec<Message> {
        std::iter::from_fn(|| self.next(session)).collect()
    }

    /// Everything that a session is sent, as its changes; checks that each frame starts right after the last one.
    pub(super) fn follow(&mut self, session: SessionId, cursor: u64) -> Vec<String> {
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

    pub(super) fn logged(&self) -> Vec<String> {
        let text =
            |(change, _): &(NewChange, Digest)| String::from_utf8(change.bytes.to_vec()).unwrap();
        self.registry.log.iter().map(text).collect()
    }
}

pub(super) fn texts(message: &Message) -> Vec<&[u8]> {
    match message {
        Message::Changes(Changes { changes, .. }) => changes.iter().map(|c| &*c.bytes).collect(),
        other => panic!("expected Changes, got {other:?}"),
    }
}

/// The state that arrives as pieces, and what comes after it.
pub(super) fn snapshot_in(messages: &[Message]) -> (Bytes, &[Message]) {
    let mut state = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        let Message::Snapshot(piece) = message else {
            panic!("expected Snapshot, got {message:?}");
        };
        assert_eq!(piece.offset, u64::try_from(state.len()).unwrap());
        state.extend_from_slice(&piece.bytes);
        if u64::try_from(state.len()).unwrap() == piece.total_bytes {
            return (state.into(), &messages[at + 1..]);
        }
    }
    panic!("the snapshot ends early");
}

pub(super) fn code_of(message: Option<Message>) -> ErrorCode {
    match message {
        Some(Message::Error(error)) => error.code,
        other => panic!("expected Error, got {other:?}"),
    }
}
