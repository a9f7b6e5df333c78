//! A client machine with a replica, and a server that is a script: the test says what arrives.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "each test binary uses its own part of the harness"
)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    reason = "test harness"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use sync_core::client::{
    AttemptId, ClientConfig, ClientEvent, ClientState, DocumentEvent, Job, JobOutcome, OpenOptions,
    Output, Replica, StoredDocument,
};
use sync_core::engine::typed::Typed;
use sync_core::history::{Epoch, EpochMode, Seq};
use sync_core::ids::{Author, Channel, DocumentId, EngineId, OriginId, RequestId, SessionId};
use sync_core::limits::Limits;
use sync_core::mergeable::LwwMap;
use sync_core::time::Time;
use sync_core::wire::{
    AccessLevel, AuthoredChange, Changes, Compression, Continuation, Message, Open, Opened,
    Welcome, WelcomeLimits, WireNumber, check_of, decode_frame, encode_frame,
};

type Map = Typed<LwwMap<String, String>>;

pub const EPOCH: Epoch = Epoch(77);
pub const CHANNEL: Channel = Channel(5);

pub struct Harness {
    pub state: ClientState,
    pub now: Time,
    pub dials: u32,
    pub events: Vec<ClientEvent>,
    pub document_events: Vec<DocumentEvent>,
    pub replicas: BTreeMap<DocumentId, Replica<Map>>,
    /// Jobs wait here if `hold_jobs`.
    pub held_jobs: Vec<(DocumentId, u64, Job)>,
    pub hold_jobs: bool,
    /// What the client's store holds, if it has one.
    pub stored: BTreeMap<DocumentId, StoredDocument>,
    /// Writes that the store has not confirmed, if `hold_writes`.
    pub held_writes: Vec<(DocumentId, u64)>,
    pub hold_writes: bool,
    /// What was handed to the application, or asked of it, beside events.
    pub handed: Vec<Output>,
    /// How often the application was told to look where a document stands.
    pub touched: usize,
    /// Who the server says that the client is, and the token with which it may come back.
    pub session: SessionId,
    pub resume: Option<Bytes>,
    /// What the server says that the client may do.
    pub granted: AccessLevel,
    /// The history that it answers with.
    pub epoch: Epoch,
    /// Bytes of changes that it takes before it has acknowledged some.
    pub push_window: u64,
    attempt: Option<AttemptId>,
    sent: Vec<Message>,
    opens: Vec<Open>,
}

pub fn id(name: &str) -> DocumentId {
    DocumentId::new(name).unwrap()
}

impl Harness {
    /// A client that has just been told to connect.
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ClientConfig)) -> Self {
        let mut config = ClientConfig::new(OriginId(1), 42);
        change(&mut config);
        let mut harness = Self {
            state: ClientState::new(config),
            now: Time::from_micros(1_000),
            dials: 0,
            events: Vec::new(),
            document_events: Vec::new(),
            replicas: BTreeMap::new(),
            held_jobs: Vec::new(),
            hold_jobs: false,
            stored: BTreeMap::new(),
            held_writes: Vec::new(),
            hold_writes: false,
            handed: Vec::new(),
            touched: 0,
            session: SessionId(9),
            resume: None,
            granted: AccessLevel::Write,
            epoch: EPOCH,
            push_window: 2_000,
            attempt: None,
            sent: Vec::new(),
            opens: Vec::new(),
        };
        harness.state.connect(harness.now);
        harness.settle();
        harness
    }

    pub fn connected() -> Self {
        let mut harness = Self::new();
        harness.dialed();
        harness.welcome();
        harness
    }

    /// A client with a store, which holds this; its process is the n-th that has it.
    pub fn with_store(n: u128, stored: BTreeMap<DocumentId, StoredDocument>) -> Self {
        let mut harness = Self::with(|config| {
            config.store = true;
            (config.origin, config.seed) = (OriginId(n), n);
        });
        harness.stored = stored;
        harness
    }

    /// The attempt that the client made last.
    pub fn attempt(&self) -> AttemptId {
        self.attempt.unwrap()
    }

    pub fn drain_outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.state.poll_output()).collect()
    }

    /// Does what the machine asks for.
    pub fn settle(&mut self) {
        while let Some(output) = self.state.poll_output() {
            match output {
                Output::Dial(attempt) => {
                    self.dials += 1;
                    self.attempt = Some(attempt);
                }
                Output::Send { frame, .. } => {
                    let message = decode_frame(frame, usize::MAX - 1).unwrap();
                    if let Message::Open(open) = &message {
                        self.opens.push(open.clone());
                    }
                    self.sent.push(message);
                }
                Output::Job {
                    document,
                    number,
                    job,
                } if self.hold_jobs => {
                    self.held_jobs.push((document, number, job));
                }
                Output::Job {
                    document,
                    number,
                    job,
                } => self.run(&document, number, &job),
                Output::Event(event) => self.events.push(event),
                Output::DocumentEvent { event, .. } => self.document_events.push(event),
                Output::Store {
                    document,
                    number,
                    write,
                } => {
                    let engine = write.state.engine.clone();
                    let stored = self.stored.entry(document.clone());
                    stored
                        .or_insert_with(|| StoredDocument::new(engine))
                        .apply(*write);
                    if self.hold_writes {
                        self.held_writes.push((document, number));
                    } else {
                        self.state.handle_stored(self.now, &document, number);
                    }
                }
                Output::Touched(_) => self.touched += 1,
                Output::Hangup { .. } => {}
                output => self.handed.push(output),
            }
        }
    }

    fn run(&mut self, document: &DocumentId, number: u64, job: &Job) {
        let replica = self.replicas.get_mut(document).unwrap();
        let state = std::cell::RefCell::new(&mut self.state);
        let outcome = replica.run(
            job,
            || state.borrow().outbox_bytes(document),
            || state.borrow_mut().take_for_replacement(document),
        );
        let outcome = outcome.unwrap();
        self.state.handle_job(self.now, document, number, outcome);
    }

    pub fn finish_job(&mut self, outcome: JobOutcome) {
        let (document, number, _) = self.held_jobs.remove(0);
        self.state.handle_job(self.now, &document, number, outcome);
        self.settle();
    }

    /// Messages sent since the last call.
    pub fn sent(&mut self) -> Vec<Message> {
        self.settle();
        std::mem::take(&mut self.sent)
    }

    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(at) = self.state.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.state.handle_timeout(self.now);
            self.settle();
        }
        self.now = end;
    }

    pub fn dialed(&mut self) {
        self.state.handle_connected(self.now, self.attempt());
        self.settle();
    }

    pub fn welcome(&mut self) {
        self.welcome_on(self.attempt());
    }

    pub fn welcome_on(&mut self, attempt: AttemptId) {
        let limits = Limits::default();
        let welcome = Message::Welcome(Welcome {
            version: 1,
            session: self.session,
            user: "ann".to_owned(),
            resume: self.resume.clone(),
            compression: Compression::None,
            limits: WelcomeLimits {
                message_bytes_max: limits.message_bytes_max.try_into().unwrap(),
                change_bytes_max: 1000,
                push_window_bytes: self.push_window,
                documents_max: 10,
                broadcast_bytes_max: 100,
                broadcasts_per_second: 2,
                broadcasts_burst: 3,
                extension_bytes_max: 100,
                extensions_per_second: 2,
                extensions_burst: 3,
                presence_bytes_max: 100,
                presence_interval: Duration::from_millis(50),
                presences_per_second: 10,
                presences_burst: 20,
            },
            ping_interval: limits.ping_interval,
            server_time_ms: 1_000_000,
        });
        self.state
            .handle_frame(self.now, attempt, encode_frame(&welcome, Compression::None));
        self.settle();
    }

    pub fn lost(&mut self) {
        self.state.handle_lost(self.now, self.attempt(), None);
        self.settle();
    }

    /// Loses the connection, and makes another one.
    pub fn reconnect(&mut self) {
        let dials = self.dials;
        self.lost();
        while self.dials == dials {
            self.advance(Duration::from_millis(100));
        }
        self.dialed();
        self.welcome();
    }

    pub fn receive(&mut self, message: &Message) {
        self.state.handle_frame(
            self.now,
            self.attempt(),
            encode_frame(message, Compression::None),
        );
        self.settle();
    }

    pub fn receive_if_up(&mut self, message: &Message) {
        if self.state.status().is_connected() {
            self.receive(message);
        }
    }

    pub fn receive_bytes(&mut self, bytes: &[u8]) {
        self.state
            .handle_frame(self.now, self.attempt(), Bytes::copy_from_slice(bytes));
        self.settle();
    }

    // ---- one document

    /// Opens what the store holds of it.
    pub fn open(&mut self, name: &str) {
        self.open_with(name, OpenOptions::default());
    }

    pub fn open_with(&mut self, name: &str, options: OpenOptions) {
        let stored = self.stored.get(&id(name)).cloned();
        let replica = match &stored {
            Some(stored) => Replica::load(Map::new(), 1, stored),
            None => Replica::new(Map::new(), 1),
        };
        self.replicas.insert(id(name), replica.unwrap());
        self.state
            .open(self.now, &id(name), &EngineId::MERGEABLE, options, stored)
            .unwrap();
        self.settle();
    }

    /// The last `Open` sent.
    pub fn last_open(&self) -> Open {
        self.opens.last().unwrap().clone()
    }

    pub fn n_opens(&self) -> usize {
        self.opens.len()
    }

    /// Answers the last `Open`: a document that is where the client is.
    pub fn opened(&mut self, _name: &str) {
        let head = self
            .last_open()
            .cursor
            .map_or(Seq::ZERO, |cursor| cursor.seq);
        self.opened_with(head, Continuation::Resume, &[]);
    }

    /// Answers the last `Open`; `last` are the registry's numbers of the outbox's origins, in order.
    pub fn opened_with(&mut self, head: Seq, next: Continuation, last: &[u64]) {
        let open = self.last_open();
        self.answer(open.request, head, next, last);
    }

    /// Answers the last `Open` of a client that has nothing to send.
    pub fn opened_as(&mut self, access: AccessLevel, head: Seq, next: Continuation) {
        self.granted = access;
        self.opened_with(head, next, &[]);
    }

    pub fn answer(&mut self, request: RequestId, head: Seq, next: Continuation, last: &[u64]) {
        let open = self
            .opens
            .iter()
            .find(|open| open.request == request)
            .unwrap();
        let origins = open
            .origins
            .iter()
            .zip(0_u32..)
            .map(|((origin, _), n)| {
                (
                    *origin,
                    last.get(n as usize).copied().unwrap_or(0),
                    Author(n),
                )
            })
            .collect();
        let opened = Opened {
            request,
            channel: CHANNEL,
            epoch: self.epoch,
            mode: EpochMode::New,
            head,
            access: self.granted,
            next,
            origins,
        };
        self.receive(&Message::Opened(opened));
    }

    /// A connected client with this document open and caught up.
    pub fn live(name: &str) -> Self {
        let mut harness = Self::connected();
        harness.open(name);
        harness.opened(name);
        harness.sent();
        harness
    }

    pub fn edit(&mut self, name: &str, key: &str, value: &str) {
        let replica = self.replicas.get_mut(&id(name)).unwrap();
        replica
            .edit(usize::MAX, |map| {
                map.insert(key.to_owned(), value.to_owned()).unwrap()
            })
            .unwrap();
        for bytes in replica.drain().main.local {
            let staged = self.state.handle_edit(self.now, &id(name), bytes);
            if let Some(staged) = staged {
                let stored = self.stored.entry(id(name));
                stored
                    .or_insert_with(|| StoredDocument::new(EngineId::MERGEABLE))
                    .stage(staged);
            }
        }
        self.settle();
    }

    pub fn get(&self, name: &str, key: &str) -> Option<String> {
        self.replicas[&id(name)]
            .read(|map| map.get(key).cloned())
            .unwrap()
    }

    /// Changes of another client, starting at this sequence.
    pub fn changes(&mut self, first: u64, changes: &[Bytes]) {
        let changes = changes
            .iter()
            .zip(first..)
            .map(|(bytes, seq)| AuthoredChange {
                author: Author(99),
                number: WireNumber::new(seq, Seq(seq)),
                bytes: bytes.clone(),
            })
            .collect();
        self.receive(&Message::Changes(Changes {
            channel: CHANNEL,
            check: check_of(Seq(first)),
            changes,
        }));
    }
}

/// An empty replica of somebody else.
pub fn replica() -> Replica<Map> {
    Replica::new(Map::new(), 999).unwrap()
}

/// Changes of another replica, each setting one key.
pub fn foreign_changes(keys: &[&str]) -> Vec<Bytes> {
    let mut replica = replica();
    for key in keys {
        replica
            .edit(usize::MAX, |map| {
                map.insert((*key).to_owned(), "theirs".to_owned()).unwrap()
            })
            .unwrap();
    }
    replica.drain().main.local
}
