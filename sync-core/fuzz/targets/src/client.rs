//! A client against a server that says anything: frames of any bytes, and messages that are nearly right.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use sync_core::client::{
    AttemptId, ClientConfig, ClientState, Job, OpenOptions, Output, Replica, StoreWrite,
    StoredDocument,
};
use sync_core::engine::typed::Typed;
use sync_core::engine::{Engine, ReplicaSeed};
use sync_core::history::Seq;
use sync_core::ids::{Channel, DocumentId, OriginId, RequestId};
use sync_core::mergeable::LwwMap;
use sync_core::time::Time;
use sync_core::transport::DialError;
use sync_core::wire::{
    AccessLevel, Changes, Compression, Continuation, Message, WireNumber, check_of, decode,
    decode_frame, encode_frame,
};

use crate::input::Input;
use crate::mend::{channel, epoch};

pub(crate) type Map = Typed<LwwMap<u8, u8>>;

const DOCUMENTS: [&str; 2] = ["a", "b"];
/// Turns of one input.
const TURNS_MAX: usize = 400;
/// Nothing that is fed to a machine has it say more than this.
const OUTPUTS_MAX: usize = 10_000;

pub(crate) fn id(name: &str) -> DocumentId {
    DocumentId::new(name).unwrap()
}

/// Changes and a snapshot that are what they seem, made by somebody else.
pub(crate) fn samples() -> (Vec<Bytes>, Bytes) {
    let engine = Map::new();
    let mut document = engine.create(ReplicaSeed(99)).unwrap();
    for n in 0..4 {
        engine
            .edit(&mut document, usize::MAX, |map| map.insert(n, n).unwrap())
            .unwrap();
    }
    use sync_core::engine::Document;
    let changes = document.drain().local;
    (changes, document.snapshot().unwrap())
}

/// Whether a time comes at all: what is due in years is due when time stands still.
pub(crate) fn is_near(now: Time, at: Time) -> bool {
    at <= now + Duration::from_secs(7 * 24 * 3600)
}

pub(crate) struct Client {
    pub(crate) state: ClientState,
    pub(crate) now: Time,
    pub(crate) attempt: Option<AttemptId>,
    /// Frames that it has sent since somebody took them.
    pub(crate) sent: VecDeque<Bytes>,
    /// Whether it waits for its connection.
    pub(crate) dials: bool,
    /// Whether it has given its connection up.
    pub(crate) hung_up: bool,
    replicas: BTreeMap<DocumentId, Replica<Map>>,
    jobs: VecDeque<(DocumentId, u64, Job)>,
    writes: VecDeque<(DocumentId, u64, StoreWrite)>,
    store: Option<BTreeMap<DocumentId, StoredDocument>>,
    requests: Vec<RequestId>,
    /// Jobs and writes wait to be told to.
    holds: bool,
}

/// A client that does what its application wants, and is sent anything.
pub fn client_session(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut config = ClientConfig::new(OriginId(1), 42);
    let settings = input.byte();
    config.store = settings & 1 == 1;
    config.refreshes = settings & 2 == 2;
    config.limits.message_bytes_max = 1 << 16;
    config.limits.fragmented_messages_max = 4;
    config.outbox_max = 50;
    let mut client = Client::new(config, settings & 4 == 4);
    let (changes, snapshot) = samples();
    client.state.connect(client.now);
    client.settle();
    for _ in 0..TURNS_MAX {
        if input.is_empty() {
            break;
        }
        client.turn(&mut input, &changes, &snapshot);
        client.settle();
        client.sent.clear();
    }
    client.end();
}

impl Client {
    pub(crate) fn new(config: ClientConfig, holds: bool) -> Self {
        Self {
            store: config.store.then(BTreeMap::new),
            state: ClientState::new(config),
            now: Time::from_micros(1_000),
            attempt: None,
            sent: VecDeque::new(),
            dials: false,
            hung_up: false,
            replicas: BTreeMap::new(),
            jobs: VecDeque::new(),
            writes: VecDeque::new(),
            requests: Vec::new(),
            holds,
        }
    }

    fn turn(&mut self, input: &mut Input<'_>, changes: &[Bytes], snapshot: &Bytes) {
        let now = self.now;
        let document = id(DOCUMENTS[usize::from(input.below(2))]);
        match input.below(24) {
            0..=9 => self.receive_mended(input, &document, changes, snapshot),
            10 => self.receive(Bytes::copy_from_slice(input.piece())),
            11 => {
                if let Some(attempt) = self.attempt {
                    self.state.handle_connected(now, attempt);
                }
            }
            12 => self.open(&document, input.byte()),
            13 | 14 => self.edit(&document, input.byte(), input.byte()),
            15 => self.elapse(input.byte()),
            16 => {
                self.work();
                self.write();
            }
            17 => {
                if let Some(attempt) = self.attempt {
                    match input.below(4) {
                        0 => self.state.handle_lost(now, attempt, None),
                        1 => {
                            let code = 4000 + u16::from(input.byte());
                            self.state.handle_lost(now, attempt, Some(code));
                        }
                        2 => {
                            let error = DialError::Unreachable("nobody".into());
                            self.state.handle_dial_failed(now, attempt, error);
                        }
                        _ => {
                            let error = DialError::Unauthenticated("no".into());
                            self.state.handle_dial_failed(now, attempt, error);
                        }
                    }
                }
            }
            18 => self.state.close(now, &document),
            19 => {
                let refused = self.state.refused(&document);
                if let Some(first) = refused.first() {
                    assert!(self.state.drop_refused(&document, first.id));
                }
            }
            20 => {
                let state = input.flag().then(|| Bytes::copy_from_slice(input.take(8)));
                let _ = self.state.set_presence(now, &document, state);
            }
            21 => {
                let bytes = Bytes::copy_from_slice(input.take(8));
                let _ = self.state.broadcast(now, &document, "topic", bytes.clone());
                let _ = self.state.extend(now, Some(&document), 130, bytes);
            }
            22 => match input.below(4) {
                0 => self.state.disconnect(),
                1 => self.state.handle_credentials(Bytes::from_static(b"fresh")),
                _ => self.state.network_changed(now),
            },
            _ => self.state.connect(now),
        }
    }

    pub(crate) fn receive(&mut self, frame: Bytes) {
        if let Some(attempt) = self.attempt {
            self.state.handle_frame(self.now, attempt, frame);
        }
    }

    /// A message whose fields are such that it is about something, if the input says so.
    fn receive_mended(
        &mut self,
        input: &mut Input<'_>,
        document: &DocumentId,
        samples: &[Bytes],
        state: &Bytes,
    ) {
        let mends = input.byte();
        let Ok(mut message) = decode(Bytes::copy_from_slice(input.piece())) else {
            return;
        };
        let cursor = self.state.cursor(document);
        let at = cursor.map_or(Seq::ZERO, |cursor| cursor.seq);
        let of_document = Channel(if document.as_str() == "a" { 1 } else { 2 });
        if mends & 1 == 1
            && let Some(channel) = channel(&mut message)
        {
            *channel = of_document;
        }
        if mends & 2 == 2
            && let Some(epoch) = epoch(&mut message)
        {
            epoch.0 = cursor.map_or(7, |cursor| cursor.epoch.0);
        }
        let right = mends & 4 == 4;
        match &mut message {
            Message::Opened(opened) if right => {
                if let Some(request) = self.requests.last() {
                    opened.request = *request;
                }
                opened.access = opened.access.max(AccessLevel::Read);
                if mends & 8 == 8 {
                    opened.next = match opened.next {
                        Continuation::Snapshot { .. } => Continuation::Snapshot {
                            total_bytes: state.len() as u64,
                        },
                        Continuation::Reset { reset, .. } => Continuation::Reset {
                            reset,
                            total_bytes: if mends & 16 == 16 {
                                state.len() as u64
                            } else {
                                0
                            },
                        },
                        next => next,
                    };
                    opened.head.0 %= 8;
                }
                for (n, (origin, last, _)) in opened.origins.iter_mut().enumerate() {
                    origin.0 = n as u128 + 1;
                    *last %= 8;
                }
            }
            Message::Changes(Changes { check, changes, .. }) => {
                if right {
                    *check = check_of(at.next());
                }
                if mends & 8 == 8 {
                    for (n, change) in changes.iter_mut().enumerate() {
                        change.bytes = samples[n % samples.len()].clone();
                        change.number = WireNumber::Number(at.0 + n as u64 + 1);
                        change.author.0 %= 4;
                    }
                }
            }
            Message::Ack(ack) if right => {
                ack.check = check_of(at.next());
                ack.number %= 8;
                ack.count %= 4;
            }
            Message::Refuse(refuse) if right => {
                refuse.origin = OriginId(1);
                refuse.number %= 8;
            }
            Message::Snapshot(piece) if right => {
                piece.seq.0 %= 8;
                piece.offset = 0;
                piece.codec = 0;
                piece.total_bytes = state.len() as u64;
                piece.bytes = state.clone();
                if mends & 8 == 8 {
                    let half = state.len() / 2;
                    (piece.offset, piece.bytes) = if mends & 16 == 16 {
                        (half as u64, state.slice(half..))
                    } else {
                        (0, state.slice(..half))
                    };
                }
            }
            Message::Welcome(welcome) if right => {
                welcome.version = 1;
                welcome.limits.message_bytes_max |= 1 << 16;
                welcome.limits.push_window_bytes |= 1 << 12;
                welcome.limits.change_bytes_max |= 1 << 10;
                welcome.limits.documents_max |= 2;
                welcome.ping_interval = welcome.ping_interval.max(Duration::from_millis(100));
            }
            _ => {}
        }
        let compression = if mends & 128 == 128 {
            Compression::Gzip
        } else {
            Compression::None
        };
        self.receive(encode_frame(&message, compression));
    }

    pub(crate) fn open(&mut self, document: &DocumentId, how: u8) {
        let stored = self.store.as_ref().and_then(|store| store.get(document));
        let stored = stored.cloned();
        let engine = Map::new();
        let replica = match &stored {
            Some(stored) => Replica::load(engine, 5, stored),
            None => Replica::new(engine, 5),
        };
        self.replicas
            .entry(document.clone())
            .or_insert_with(|| replica.expect("what a client stores, it loads"));
        let mut options = OpenOptions::default();
        options.create = how & 1 == 1;
        let engine = Map::new().id();
        let _ = self
            .state
            .open(self.now, document, &engine, options, stored);
    }

    pub(crate) fn edit(&mut self, document: &DocumentId, key: u8, value: u8) {
        if self.state.edit_refusal(document).is_some() {
            return;
        }
        let Some(replica) = self.replicas.get_mut(document) else {
            return;
        };
        replica
            .edit(usize::MAX, |map| map.insert(key % 8, value).unwrap())
            .unwrap();
        for bytes in replica.drain().main.local {
            let staged = self.state.handle_edit(self.now, document, bytes);
            if let (Some(store), Some(change)) = (&mut self.store, staged) {
                store
                    .entry(document.clone())
                    .or_insert_with(|| StoredDocument::new(Map::new().id()))
                    .stage(change);
            }
        }
    }

    fn elapse(&mut self, how: u8) {
        match (how & 1, self.state.poll_timeout()) {
            (0, Some(at)) if is_near(self.now, at) => self.now = self.now.max(at),
            _ => self.now = self.now + Duration::from_millis(u64::from(how) * 20),
        }
        self.time_out();
    }

    /// What is due is done once, and is not due again.
    pub(crate) fn time_out(&mut self) {
        self.state.handle_timeout(self.now);
        self.settle();
        let next = self.state.poll_timeout();
        if next.is_some_and(|at| at <= self.now) {
            self.state.handle_timeout(self.now);
            let next = self.state.poll_timeout();
            assert!(
                next.is_none_or(|at| at > self.now),
                "something is due for ever: {next:?} at {:?}",
                self.now
            );
        }
    }

    pub(crate) fn settle(&mut self) {
        let mut n_outputs = 0;
        while let Some(output) = self.state.poll_output() {
            n_outputs += 1;
            assert!(n_outputs < OUTPUTS_MAX, "outputs without end");
            match output {
                Output::Dial(attempt) => {
                    self.attempt = Some(attempt);
                    self.dials = true;
                }
                Output::Hangup { .. } => self.hung_up = true,
                Output::Send { frame, .. } => {
                    let message = decode_frame(frame.clone(), usize::MAX - 1).unwrap();
                    self.sent.push_back(frame);
                    if let Message::Open(open) = message {
                        self.requests.push(open.request);
                    }
                }
                Output::Job {
                    document,
                    number,
                    job,
                } => self.jobs.push_back((document, number, job)),
                Output::Store {
                    document,
                    number,
                    write,
                } => self.writes.push_back((document, number, *write)),
                Output::Forgotten(document) => {
                    self.replicas.remove(&document);
                }
                _ => {}
            }
            if !self.holds {
                while self.work() || self.write() {}
            }
        }
        for document in DOCUMENTS.map(id) {
            let _ = (
                self.state.sync_state(&document),
                self.state.roster(&document),
                self.state.writes(&document),
                self.state.status(),
            );
        }
    }

    /// Runs the next job.
    fn work(&mut self) -> bool {
        let Some((document, number, job)) = self.jobs.pop_front() else {
            return false;
        };
        let Some(replica) = self.replicas.get_mut(&document) else {
            return true;
        };
        let state = RefCell::new(&mut self.state);
        let outcome = replica.run(
            &job,
            || state.borrow().outbox_bytes(&document),
            || state.borrow_mut().take_for_replacement(&document),
        );
        let drained = replica.drain();
        assert!(
            drained.main.local.is_empty(),
            "an import never comes out as a local change"
        );
        self.state
            .handle_job(self.now, &document, number, outcome.unwrap());
        true
    }

    /// Carries out the next write.
    fn write(&mut self) -> bool {
        let Some((document, number, write)) = self.writes.pop_front() else {
            return false;
        };
        let engine = write.state.engine.clone();
        self.store
            .as_mut()
            .expect("only a client with a store writes")
            .entry(document.clone())
            .or_insert_with(|| StoredDocument::new(engine))
            .apply(write);
        self.state.handle_stored(self.now, &document, number);
        true
    }

    /// Whatever has happened: what is stored can be loaded, and time goes on.
    fn end(mut self) {
        self.holds = false;
        while self.work() || self.write() {
            self.settle();
        }
        for _ in 0..20 {
            let Some(at) = self.state.poll_timeout() else {
                break;
            };
            if !is_near(self.now, at) {
                break;
            }
            self.now = self.now.max(at);
            self.time_out();
        }
        for stored in self.store.iter().flat_map(BTreeMap::values) {
            Replica::load(Map::new(), 6, stored).expect("what a client stores, it loads");
        }
    }
}
