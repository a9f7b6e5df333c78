//! The client's machine: documents and their outboxes, which outlive connections, and the connection's life.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::backoff::Backoff;
use super::config::ClientConfig;
use super::document::{DocumentState, EditRefusal, OpenOptions, Turn};
use super::event::{
    ClientEvent, DocumentEvent, EndReason, FailedReason, RefusedChange, RefusedReason, Status,
    SyncState,
};
use super::replica::{Job, JobOutcome, PendingWork};
use super::session::{ClientSession, Due, Received};
use super::store::{OutboxChange, StoreWrite, StoredDocument};
use crate::error::{Action, ErrorCode, PeerError};
use crate::history::Cursor;
use crate::ids::{ChangeId, Channel, DocumentId, EngineId, OriginId, RequestId};
use crate::limits::push_charge;
use crate::rng::Rng;
use crate::time::Time;
use crate::wire::{ErrorMessage, Hello, Message, Reference, Welcome, WelcomeLimits};

/// Names one attempt at a connection; what belongs to an earlier one is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttemptId(u64);

/// What the machine asks of its driver, to be started in this order.
#[derive(Debug)]
#[non_exhaustive]
pub enum Output {
    /// Make a connection, and answer with [`ClientState::handle_connected`] or
    /// [`ClientState::handle_dial_failed`].
    Dial(AttemptId),
    /// Send a frame. One that is urgent goes before what waits.
    Send {
        /// On this connection.
        attempt: AttemptId,
        /// The frame.
        frame: Bytes,
        /// Whether it goes first.
        urgent: bool,
    },
    /// Send what waits, if that is possible at once, then close and forget the connection.
    Hangup {
        /// The connection, or the attempt at one.
        attempt: AttemptId,
        /// The close code.
        code: u16,
    },
    /// Run a job on the document's replica, after those before it, and answer with [`ClientState::handle_job`].
    Job {
        /// The document.
        document: DocumentId,
        /// Number of the job, to be repeated by the answer.
        number: u64,
        /// The work.
        job: Job,
    },
    /// Write to the store, after what was to be written before, and answer with [`ClientState::handle_stored`].
    Store {
        /// The document.
        document: DocumentId,
        /// Number of the write, to be repeated by the answer.
        number: u64,
        /// What to write.
        write: Box<StoreWrite>,
    },
    /// Tell the application.
    Event(ClientEvent),
    /// Tell whoever watches the document.
    DocumentEvent {
        /// The document.
        document: DocumentId,
        /// What happened.
        event: DocumentEvent,
    },
    /// The document's [`SyncState`] may have changed.
    Touched(DocumentId),
    /// The document was closed and has nothing left to deliver: its replica can go.
    Forgotten(DocumentId),
}

/// The client's machine. It outlives connections, and drives itself from what it is told:
///
/// - **feed it** with `handle_*`, each with the time now;
/// - **command it** with `connect`, `disconnect`, `open`, `close`, `handle_edit`;
/// - **drain** [`poll_output`](Self::poll_output) until `None` after each of these;
/// - then sleep until [`poll_timeout`](Self::poll_timeout) and call [`handle_timeout`](Self::handle_timeout).
#[derive(Debug)]
pub struct ClientState {
    config: ClientConfig,
    rng: Rng,
    link: Link,
    /// The last status that was told.
    told: Status,
    backoff: Backoff,
    /// Counts attempts, so that answers to earlier ones can be told.
    attempt: u64,
    documents: BTreeMap<DocumentId, DocumentState>,
    /// Forgotten documents in which changes have been numbered under this client's origin.
    numbered: BTreeSet<DocumentId>,
    outputs: VecDeque<Output>,
    /// Documents that may want to be opened, or forgotten.
    due: BTreeSet<DocumentId>,
    /// When documents are due by themselves. Some may be out of date: then nothing comes of it.
    timers: BTreeSet<(Time, DocumentId)>,
    next_request: u32,
    /// The server's wall clock in milliseconds, and when it was told.
    server_clock: Option<(Time, u64)>,
}

/// ```text
/// Offline ◀── disconnect ── any          Failed ◀── Stop, Upgrade, RefreshAuth ── any
///    └ connect ▶ Dialing ── connected ──▶ Greeting ── Welcome ──▶ Live ── lost ──▶ Waiting ── delay ──▶ Dialing
/// ```
#[derive(Debug)]
enum Link {
    Offline,
    Failed(FailedReason),
    Waiting {
        until: Time,
        attempt: u32,
        next_in: Duration,
    },
    Dialing {
        deadline: Time,
    },
    Up(Box<Up>),
}

#[derive(Debug)]
struct Up {
    session: ClientSession,
    welcomed: Option<WelcomeLimits>,
    channels: BTreeMap<Channel, DocumentId>,
    requests: BTreeMap<RequestId, DocumentId>,
    /// After `GoAway`: when to move.
    leave_at: Option<Time>,
    /// Documents that may have something to push, in turn, and the same without order.
    pushing: VecDeque<DocumentId>,
    is_pushing: BTreeSet<DocumentId>,
    /// What the changes sent and not acknowledged, of all documents, count for in the push window.
    in_flight: usize,
}

impl ClientState {
    /// A client that has no documents and is offline.
    #[must_use]
    pub fn new(config: ClientConfig) -> Self {
        Self {
            rng: Rng::new(config.seed),
            link: Link::Offline,
            told: Status::Offline,
            backoff: Backoff::new(config.backoff),
            attempt: 0,
            documents: BTreeMap::new(),
            numbered: BTreeSet::new(),
            outputs: VecDeque::new(),
            due: BTreeSet::new(),
            timers: BTreeSet::new(),
            next_request: 0,
            server_clock: None,
            config,
        }
    }

    // ---- outputs

    /// The next thing to do.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if nothing else happens before.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let own = match &self.link {
            Link::Offline | Link::Failed(_) => None,
            Link::Waiting { until, .. } => Some(*until),
            Link::Dialing { deadline } => Some(*deadline),
            Link::Up(up) => up
                .leave_at
                .into_iter()
                .chain([up.session.next_deadline()])
                .min(),
        };
        let connected = matches!(&self.link, Link::Up(up) if up.welcomed.is_some());
        let documents = self.timers.first().filter(|_| connected).map(|(at, _)| *at);
        own.into_iter().chain(documents).min()
    }

    // ---- what is true now

    /// Where the connection stands.
    #[must_use]
    pub fn status(&self) -> Status {
        match &self.link {
            Link::Offline => Status::Offline,
            Link::Failed(reason) => Status::Failed(reason.clone()),
            Link::Waiting {
                attempt, next_in, ..
            } => Status::Reconnecting {
                attempt: *attempt,
                next_in: *next_in,
            },
            Link::Up(up) if up.welcomed.is_some() => Status::Connected,
            Link::Dialing { .. } | Link::Up(_) => match self.backoff.attempts() {
                0 => Status::Connecting,
                attempt => Status::Reconnecting {
                    attempt,
                    next_in: Duration::ZERO,
                },
            },
        }
    }

    /// Where a document stands.
    #[must_use]
    pub fn sync_state(&self, document: &DocumentId) -> Option<SyncState> {
        self.documents.get(document).map(DocumentState::sync_state)
    }

    /// The server's wall clock now, in milliseconds since 1970, once a server has told it: engines that order concurrent
    /// writes by time then do not depend on this device's clock being right.
    #[must_use]
    pub fn wall_time(&self, now: Time) -> Option<u64> {
        let (at, ms) = self.server_clock?;
        Some(ms.saturating_add(u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX)))
    }

    /// Documents with changes that the server is not known to hold.
    pub fn unsaved(&self) -> impl Iterator<Item = &DocumentId> {
        self.documents
            .iter()
            .filter(|(_, document)| document.has_unsaved())
            .map(|(id, _)| id)
    }

    /// What the document's main replica has imported of the server's log.
    #[must_use]
    pub fn cursor(&self, document: &DocumentId) -> Option<Cursor> {
        self.documents.get(document)?.cursor()
    }

    /// First and last ordinal of the edits that are pending now; `None` if everything is settled.
    #[must_use]
    pub fn pending_ordinals(&self, document: &DocumentId) -> Option<(u64, u64)> {
        self.documents.get(document)?.pending_ordinals()
    }

    /// What became of the edits with these ordinals; `None` while some are pending.
    #[must_use]
    pub fn settled(
        &self,
        document: &DocumentId,
        first: u64,
        last: u64,
    ) -> Option<Result<(), Vec<ChangeId>>> {
        self.documents.get(document)?.settled(first, last)
    }

    /// Changes of a document that the server will never take.
    #[must_use]
    pub fn refused(&self, document: &DocumentId) -> Vec<RefusedChange> {
        self.documents
            .get(document)
            .map(|document| document.refused().to_vec())
            .unwrap_or_default()
    }

    // ---- commands

    /// Connects, now. Does nothing if a connection is there or being made.
    pub fn connect(&mut self, now: Time) {
        if matches!(
            self.link,
            Link::Offline | Link::Failed(_) | Link::Waiting { .. }
        ) {
            for document in self.documents.values_mut() {
                document.unblock();
            }
            self.dial(now);
        }
    }

    /// Ends the connection, and makes no other until [`connect`](Self::connect).
    pub fn disconnect(&mut self) {
        self.end(EndReason::Local, 1000);
        self.backoff.reset();
        self.set_link(Link::Offline);
    }

    /// The device's network has changed: reconnect now if waiting, otherwise see whether the connection still lives.
    pub fn network_changed(&mut self, now: Time) {
        match &mut self.link {
            Link::Waiting { .. } => self.dial(now),
            Link::Up(up) => {
                if let Some(ping) = up.session.probe(now) {
                    self.send(&ping, Channel(0), true);
                }
            }
            Link::Offline | Link::Failed(_) | Link::Dialing { .. } => {}
        }
    }

    /// Opens a document, or a closed one that is still delivering its outbox. `stored` is what the store holds of it; it
    /// counts only if nothing of the document is here.
    ///
    /// # Errors
    /// The engine that the document is open with, or stored with, if it is another one.
    pub fn open(
        &mut self,
        now: Time,
        document: &DocumentId,
        engine: &EngineId,
        options: OpenOptions,
        stored: Option<StoredDocument>,
    ) -> Result<(), EngineId> {
        let theirs = self.documents.get(document).map(DocumentState::engine);
        let theirs = theirs.or_else(|| stored.as_ref().map(|stored| &stored.engine));
        if let Some(theirs) = theirs.filter(|theirs| *theirs != engine) {
            return Err(theirs.clone());
        }
        if self.documents.contains_key(document) {
            self.turn_only(document, |state, _, turn| state.reopen(options, turn));
        } else {
            self.insert(document, engine, options, stored);
        }
        self.touch(document);
        self.pump(now);
        Ok(())
    }

    /// Delivers the outbox that a store holds of a document that is not open.
    pub fn deliver(&mut self, now: Time, document: &DocumentId, stored: StoredDocument) {
        if self.documents.contains_key(document) {
            return;
        }
        let engine = stored.engine.clone();
        self.insert(document, &engine, OpenOptions::default(), Some(stored));
        if let Some(state) = self.documents.get_mut(document) {
            state.set_headless();
        }
        self.touch(document);
        self.pump(now);
    }

    fn insert(
        &mut self,
        document: &DocumentId,
        engine: &EngineId,
        options: OpenOptions,
        stored: Option<StoredDocument>,
    ) {
        // Numbers are never given twice, also after the document has been closed and opened again.
        let origin = if self.numbered.contains(document) {
            OriginId(self.rng.next_u128())
        } else {
            self.config.origin
        };
        let mut state = DocumentState::new(
            document.clone(),
            engine.clone(),
            options,
            origin,
            Backoff::new(self.config.backoff),
            self.config.store,
        );
        if let Some(stored) = stored {
            state.restore(stored);
        }
        self.documents.insert(document.clone(), state);
    }

    /// The application closed its last handle. The outbox is delivered all the same.
    pub fn close(&mut self, now: Time, document: &DocumentId) {
        self.turn(now, document, |state, _, turn| state.close(turn));
    }

    /// Largest change that may be made now, in bytes.
    #[must_use]
    pub fn change_bytes_max(&self) -> usize {
        let told = match &self.link {
            Link::Up(up) => up.welcomed.map(|limits| limits.change_bytes_max),
            _ => None,
        };
        told.map_or(self.config.limits.change_bytes_max, |max| {
            usize::try_from(max).unwrap_or(usize::MAX)
        })
    }

    /// Why an edit of this document cannot be made now, if so.
    #[must_use]
    pub fn edit_refusal(&self, document: &DocumentId) -> Option<EditRefusal> {
        match self.documents.get(document) {
            Some(document) => document.edit_refusal(self.config.outbox_max),
            None => Some(EditRefusal::Closed),
        }
    }

    /// A change was made on the document's main replica. To be called under the replica's lock, so that no job runs in
    /// between. Gives what a store can stage of it, if there is a store and the change is to be sent.
    pub fn handle_edit(
        &mut self,
        now: Time,
        document: &DocumentId,
        bytes: Bytes,
    ) -> Option<OutboxChange> {
        let max = self.change_bytes_max();
        let staged = self.turn(now, document, |state, _, turn| {
            if bytes.len() > max {
                let message = format!("the change has {} bytes, the limit is {max}", bytes.len());
                state.handle_oversized(bytes, message.into(), turn);
                None
            } else {
                state.handle_edit(bytes, turn)
            }
        });
        staged.flatten()
    }

    /// A change is in no replica: too large and taken back, or made through a handle of a replaced document.
    pub fn handle_taken_back(
        &mut self,
        now: Time,
        document: &DocumentId,
        bytes: Bytes,
        reason: RefusedReason,
    ) {
        let message: Arc<str> = match reason {
            RefusedReason::Code(code) => {
                format!("{code}: the change has {} bytes", bytes.len()).into()
            }
            _ => "made through a handle of a document that had been replaced".into(),
        };
        self.turn(now, document, |state, rng, turn| {
            state.handle_taken_back(bytes, reason, message, rng, turn);
        });
    }

    /// The document's main replica must be loaded afresh.
    pub fn handle_poisoned(&mut self, now: Time, document: &DocumentId) {
        self.turn(now, document, |state, _, turn| state.rebuild(turn));
    }

    /// Drops refused changes of this id. Whether there were any.
    pub fn drop_refused(&mut self, document: &DocumentId, id: ChangeId) -> bool {
        let dropped = self.turn_only(document, |state, _, turn| {
            let dropped = state.drop_refused(id);
            turn.touched |= dropped;
            dropped
        });
        dropped.unwrap_or(false)
    }

    // ---- what a job needs, under the replica's lock

    /// Bytes of everything in the document's outbox, oldest first.
    #[must_use]
    pub fn outbox_bytes(&self, document: &DocumentId) -> Vec<Bytes> {
        self.documents
            .get(document)
            .map(DocumentState::outbox_bytes)
            .unwrap_or_default()
    }

    /// Sorts what is pending for a replacement, and takes out of the document's outbox what cannot stay as it is.
    pub fn take_for_replacement(&mut self, document: &DocumentId) -> PendingWork {
        self.documents
            .get_mut(document)
            .map(DocumentState::take_for_replacement)
            .unwrap_or_default()
    }

    /// A job is done. To be called under the replica's lock.
    pub fn handle_job(
        &mut self,
        now: Time,
        document: &DocumentId,
        number: u64,
        outcome: JobOutcome,
    ) {
        self.turn(now, document, |state, rng, turn| {
            state.handle_job(now, number, outcome, rng, turn)
        });
    }

    // ---- the store

    /// The store holds everything of the document through this write, safely.
    pub fn handle_stored(&mut self, now: Time, document: &DocumentId, number: u64) {
        self.turn(now, document, |state, _, turn| {
            state.handle_stored(number);
            turn.touched = true;
        });
    }

    /// Number of the document's last write, and of the last one that the store holds safely, with all before it.
    #[must_use]
    pub fn writes(&self, document: &DocumentId) -> Option<(u64, u64)> {
        self.documents.get(document).map(DocumentState::writes)
    }

    // ---- the connection

    /// The connection asked for is there.
    pub fn handle_connected(&mut self, now: Time, attempt: AttemptId) {
        let Link::Dialing { deadline } = self.link else {
            return self.outputs.push_back(Output::Hangup {
                attempt,
                code: 1000,
            });
        };
        if attempt.0 != self.attempt {
            return self.outputs.push_back(Output::Hangup {
                attempt,
                code: 1000,
            });
        }
        let session = ClientSession::new(
            now,
            &self.config.limits,
            deadline.since(now),
            self.config.ping_timeout,
        );
        self.link = Link::Up(Box::new(Up {
            session,
            welcomed: None,
            channels: BTreeMap::new(),
            requests: BTreeMap::new(),
            leave_at: None,
            pushing: VecDeque::new(),
            is_pushing: BTreeSet::new(),
            in_flight: 0,
        }));
        let hello = Message::Hello(Hello {
            versions: self.config.versions,
            software: self.config.software.clone(),
            origin: self.config.origin,
            connection: self.attempt,
            credentials: self.config.credentials.clone(),
            compression: self.config.compression.clone(),
            resume: None,
        });
        self.send(&hello, Channel(0), false);
    }

    /// No connection could be made. `refused`: trying again makes no sense.
    pub fn handle_dial_failed(&mut self, now: Time, attempt: AttemptId, refused: Option<Arc<str>>) {
        if attempt.0 != self.attempt || !matches!(self.link, Link::Dialing { .. }) {
            return;
        }
        self.event(ClientEvent::SessionEnded(EndReason::Lost {
            close_code: None,
        }));
        match refused {
            Some(why) => self.set_link(Link::Failed(FailedReason::Refused(why))),
            None => self.wait(now, Duration::ZERO),
        }
    }

    /// A frame arrived.
    pub fn handle_frame(&mut self, now: Time, attempt: AttemptId, frame: Bytes) {
        if attempt.0 != self.attempt {
            return;
        }
        let Link::Up(up) = &mut self.link else { return };
        match up.session.handle_frame(now, frame) {
            Ok(Received::Nothing) => {}
            Ok(Received::Welcome(welcome)) => self.handle_welcome(now, &welcome),
            Ok(Received::Message(message)) => self.handle_message(now, message),
            Err(error) => self.protocol_error(now, error),
        }
        self.pump(now);
    }

    /// The connection closed or broke.
    pub fn handle_lost(&mut self, now: Time, attempt: AttemptId, close_code: Option<u16>) {
        if attempt.0 != self.attempt || !matches!(self.link, Link::Up(_)) {
            return;
        }
        match close_code.and_then(ErrorCode::from_close_code) {
            Some(code) => {
                let error = PeerError::new(code, "the server closed the connection");
                self.session_error(now, error, code.action());
            }
            None => self.lost(now, EndReason::Lost { close_code }, 1000),
        }
    }

    /// What arrived is nothing that the transport can carry: whoever is there does not speak this protocol
    /// ([`ErrorCode::WrongProtocol`]), or breaks its limits.
    pub fn handle_broken(&mut self, now: Time, attempt: AttemptId, error: PeerError) {
        if attempt.0 == self.attempt && matches!(self.link, Link::Up(_)) {
            self.protocol_error(now, error);
        }
    }

    /// Time has passed. Early or repeated calls do nothing.
    pub fn handle_timeout(&mut self, now: Time) {
        match &mut self.link {
            Link::Offline | Link::Failed(_) => {}
            Link::Waiting { until, .. } if *until <= now => self.dial(now),
            Link::Dialing { deadline } if *deadline <= now => {
                self.lost(now, EndReason::HandshakeTimeout, 1000)
            }
            Link::Up(up) if up.leave_at.is_some_and(|at| at <= now) => {
                self.end(EndReason::Local, 1000);
                self.dial(now);
            }
            Link::Up(up) => match up.session.handle_timeout(now) {
                Due::Nothing => {}
                Due::Ping(ping) => self.send(&ping, Channel(0), true),
                Due::HandshakeTimeout => self.lost(now, EndReason::HandshakeTimeout, 1000),
                Due::Silence => self.lost(now, EndReason::Silence, 1000),
            },
            Link::Waiting { .. } | Link::Dialing { .. } => {}
        }
        self.pump(now);
    }

    fn dial(&mut self, now: Time) {
        self.attempt += 1;
        self.set_link(Link::Dialing {
            deadline: now + self.config.handshake_timeout,
        });
        self.outputs
            .push_back(Output::Dial(AttemptId(self.attempt)));
    }

    /// The link is gone, and another one is tried after a delay.
    fn lost(&mut self, now: Time, reason: EndReason, code: u16) {
        self.end(reason, code);
        self.wait(now, Duration::ZERO);
    }

    /// Before the next attempt, for as long as is drawn, but no shorter than the server asked for.
    fn wait(&mut self, now: Time, at_least: Duration) {
        let next_in = self.backoff.next(&mut self.rng).max(at_least);
        self.set_link(Link::Waiting {
            until: now + next_in,
            attempt: self.backoff.attempts(),
            next_in,
        });
    }

    /// Ends the connection, or the attempt at one. What follows is the caller's.
    fn end(&mut self, reason: EndReason, code: u16) {
        if !matches!(self.link, Link::Up(_) | Link::Dialing { .. }) {
            return;
        }
        self.link = Link::Offline;
        self.outputs.push_back(Output::Hangup {
            attempt: AttemptId(self.attempt),
            code,
        });
        self.event(ClientEvent::SessionEnded(reason));
        let documents: Vec<DocumentId> = self.documents.keys().cloned().collect();
        for document in documents {
            self.turn_only(&document, |state, _, turn| state.handle_lost(turn));
        }
    }

    fn protocol_error(&mut self, now: Time, error: PeerError) {
        let message = Message::Error(ErrorMessage::new(error.clone(), Reference::Session));
        self.send(&message, Channel(0), false);
        let code = error.code.close_code();
        if error.code == ErrorCode::WrongProtocol {
            self.end(EndReason::Protocol(error.clone()), code);
            self.set_link(Link::Failed(FailedReason::Server(error)));
        } else {
            self.lost(now, EndReason::Protocol(error), code);
        }
    }

    // ---- messages

    fn handle_welcome(&mut self, now: Time, welcome: &Welcome) {
        self.server_clock = Some((now, welcome.server_time_ms));
        let Link::Up(up) = &mut self.link else { return };
        up.welcomed = Some(welcome.limits);
        self.due.extend(self.documents.keys().cloned());
        self.event(ClientEvent::SessionStarted {
            session: welcome.session,
        });
        self.tell_status();
    }

    fn handle_message(&mut self, now: Time, message: Message) {
        match message {
            Message::Opened(opened) => {
                let Link::Up(up) = &mut self.link else { return };
                let Some(document) = up.requests.get(&opened.request).cloned() else {
                    return;
                };
                if opened.next != crate::wire::Continuation::Wait {
                    up.requests.remove(&opened.request);
                    up.channels.insert(opened.channel, document.clone());
                }
                self.healthy();
                let access = opened.access;
                let opened = self.turn(now, &document, |state, rng, turn| {
                    state.handle_opened(opened, rng, turn)
                });
                if opened == Some(true) {
                    self.event(ClientEvent::DocumentOpened { document, access });
                }
            }
            Message::Changes(changes) => {
                self.on_channel(now, changes.channel, |state, rng, turn| {
                    state.handle_changes(now, changes, rng, turn);
                })
            }
            Message::Ack(ack) => {
                self.on_channel(now, ack.channel, |state, rng, turn| {
                    state.handle_ack(now, ack, rng, turn)
                });
            }
            Message::Author(author) => self.on_channel(now, author.channel, |state, _, _| {
                state.handle_author(author.origin, author.author);
            }),
            Message::Refuse(refuse) => {
                self.on_channel(now, refuse.channel, |state, _, turn| {
                    state.handle_refuse(refuse, turn)
                });
            }
            Message::Snapshot(snapshot) => {
                self.on_channel(now, snapshot.channel, |state, rng, turn| {
                    state.handle_snapshot(now, snapshot, rng, turn);
                })
            }
            Message::Access(access) => self.on_channel(now, access.channel, |state, _, turn| {
                state.handle_access(access.access, turn);
            }),
            Message::Closed(closed) => self.on_channel(now, closed.channel, |state, rng, turn| {
                state.handle_closed(now, closed.reason, rng, turn);
            }),
            Message::Pong(pong) => {
                if pong.heads.is_empty() {
                    self.healthy();
                }
                for (channel, head) in pong.heads {
                    self.on_channel(now, channel, |state, _, turn| state.handle_head(head, turn));
                }
            }
            Message::Ping(ping) => {
                let pong = Message::Pong(crate::wire::Pong {
                    nonce: ping.nonce,
                    heads: Vec::new(),
                });
                self.send(&pong, Channel(0), true);
            }
            Message::GoAway(go_away) => {
                let reconnect_in = self.rng.up_to(go_away.reconnect_within);
                if let Link::Up(up) = &mut self.link {
                    up.leave_at = Some(now + reconnect_in);
                }
                self.event(ClientEvent::GoingAway { reconnect_in });
            }
            Message::Error(error) => self.handle_error(now, error),
            Message::Ignored { kind } => self.event(ClientEvent::Ignored { kind }),
            Message::Extension(extension) => self.event(ClientEvent::Ignored {
                kind: extension.kind,
            }),
            // Later features of the server, which this client has not asked for.
            Message::Presence(_) | Message::Broadcast(_) | Message::FoldRequest(_) => {}
            message @ (Message::Hello(_)
            | Message::Welcome(_)
            | Message::Open(_)
            | Message::Push(_)
            | Message::FoldOffer(_)
            | Message::Auth(_)
            | Message::Close(_)
            | Message::Fragment(_)) => {
                let what = format!("{} is not for a client", message.name());
                self.protocol_error(now, PeerError::new(ErrorCode::UnexpectedMessage, what));
            }
        }
    }

    fn handle_error(&mut self, now: Time, message: ErrorMessage) {
        let mut error = PeerError::new(message.code, message.message);
        error.retry_after = message.retry_after;
        let action = message.action;
        match message.reference {
            Reference::Session => self.session_error(now, error, action),
            Reference::Request(request) => {
                let Link::Up(up) = &mut self.link else { return };
                let Some(document) = up.requests.remove(&request) else {
                    return;
                };
                self.turn(now, &document, |state, rng, turn| {
                    state.handle_request_error(now, &error, action, rng, turn);
                });
                self.event(ClientEvent::DocumentError { document, error });
            }
            Reference::Channel(channel) | Reference::Change(channel, _) => {
                let Link::Up(up) = &self.link else { return };
                let Some(document) = up.channels.get(&channel).cloned() else {
                    return;
                };
                self.on_channel(now, channel, |state, rng, turn| {
                    state.handle_channel_error(now, &error, action, rng, turn);
                });
                self.event(ClientEvent::DocumentError { document, error });
            }
        }
    }

    fn session_error(&mut self, now: Time, error: PeerError, action: Action) {
        let code = error.code.close_code();
        let retry_after = error.retry_after;
        self.end(EndReason::Server(error.clone()), code);
        match action {
            Action::Retry | Action::Resync => {
                self.wait(now, retry_after.unwrap_or_default());
            }
            Action::RefreshAuth | Action::Refuse | Action::Upgrade | Action::Stop => {
                let reason = match error.code {
                    ErrorCode::Superseded => FailedReason::Superseded,
                    _ => FailedReason::Server(error),
                };
                self.set_link(Link::Failed(reason));
            }
        }
    }

    /// Only a session that has got as far as a document resets the backoff: a server that accepts and then fails would be
    /// stormed otherwise.
    fn healthy(&mut self) {
        if matches!(self.link, Link::Up(_)) {
            self.backoff.reset();
        }
    }

    fn on_channel(
        &mut self,
        now: Time,
        channel: Channel,
        f: impl FnOnce(&mut DocumentState, &mut Rng, &mut Turn),
    ) {
        let Link::Up(up) = &self.link else { return };
        // A channel that we have left: what arrives was sent before the server knew.
        let Some(document) = up.channels.get(&channel).cloned() else {
            return;
        };
        self.turn(now, &document, f);
    }

    // ---- turns

    /// Runs something on a document's machine, carries out what it asks for, and moves on what has become possible.
    fn turn<R>(
        &mut self,
        now: Time,
        document: &DocumentId,
        f: impl FnOnce(&mut DocumentState, &mut Rng, &mut Turn) -> R,
    ) -> Option<R> {
        let result = self.turn_only(document, f);
        self.pump(now);
        result
    }

    fn turn_only<R>(
        &mut self,
        document: &DocumentId,
        f: impl FnOnce(&mut DocumentState, &mut Rng, &mut Turn) -> R,
    ) -> Option<R> {
        let state = self.documents.get_mut(document)?;
        let mut turn = Turn::default();
        let in_flight = state.in_flight_charge();
        let result = f(state, &mut self.rng, &mut turn);
        let channel = state.channel();
        if let Link::Up(up) = &mut self.link {
            up.in_flight = (up.in_flight + state.in_flight_charge()).saturating_sub(in_flight);
        }
        self.outputs
            .extend(turn.jobs.into_iter().map(|(number, job)| Output::Job {
                document: document.clone(),
                number,
                job,
            }));
        for event in turn.events {
            if let DocumentEvent::Refused { count } = event {
                self.event(ClientEvent::Refused {
                    document: document.clone(),
                    count,
                });
            }
            self.outputs.push_back(Output::DocumentEvent {
                document: document.clone(),
                event,
            });
        }
        for message in turn.messages {
            self.send(&message, channel.or(turn.left).unwrap_or(Channel(0)), false);
        }
        if let (Some(left), Link::Up(up)) = (turn.left, &mut self.link) {
            up.channels.remove(&left);
        }
        if let Some((number, write)) = self
            .documents
            .get_mut(document)
            .and_then(DocumentState::take_write)
        {
            let write = Box::new(write);
            self.outputs.push_back(Output::Store {
                document: document.clone(),
                number,
                write,
            });
        }
        if turn.touched {
            self.touch(document);
        }
        Some(result)
    }

    fn touch(&mut self, document: &DocumentId) {
        if let Link::Up(up) = &mut self.link
            && up.is_pushing.insert(document.clone())
        {
            up.pushing.push_back(document.clone());
        }
        if let Some(at) = self
            .documents
            .get(document)
            .and_then(DocumentState::next_deadline)
        {
            self.timers.insert((at, document.clone()));
        }
        self.due.insert(document.clone());
        self.outputs.push_back(Output::Touched(document.clone()));
    }

    /// Opens what is to be opened and pushes what the window allows. Forgets documents that are done.
    fn pump(&mut self, now: Time) {
        let window = match &self.link {
            Link::Up(up) => up.welcomed.map(|limits| limits.push_window_bytes),
            _ => None,
        };
        while let Some((_, document)) = pop_due(&mut self.timers, now) {
            self.due.insert(document);
        }
        for document in std::mem::take(&mut self.due) {
            let Some(state) = self.documents.get(&document) else {
                continue;
            };
            if state.is_done() {
                if state.has_numbered() {
                    self.numbered.insert(document.clone());
                }
                self.documents.remove(&document);
                self.outputs.push_back(Output::Forgotten(document));
            } else if window.is_some() && state.wants_open(now) {
                self.open_document(&document);
            }
        }
        if let Some(window) = window {
            self.push(usize::try_from(window).unwrap_or(usize::MAX));
        }
    }

    fn open_document(&mut self, document: &DocumentId) {
        self.next_request = self.next_request.wrapping_add(1);
        let request = RequestId(self.next_request);
        if let Link::Up(up) = &mut self.link {
            up.requests.insert(request, document.clone());
        }
        self.turn_only(document, |state, _, turn| state.open(request, turn));
    }

    /// Documents take turns, one frame each, while the session's window has room.
    fn push(&mut self, window: usize) {
        loop {
            let Link::Up(up) = &mut self.link else { return };
            let Some(id) = up.pushing.front() else { return };
            let document = self.documents.get_mut(id);
            let next = document
                .as_ref()
                .and_then(|document| document.next_push_charge());
            if next.is_some_and(|next| up.in_flight > 0 && up.in_flight + next > window) {
                return;
            }
            let room = window.saturating_sub(up.in_flight);
            let push = document
                .filter(|_| next.is_some())
                .and_then(|document| document.push(room));
            let Some(id) = up.pushing.pop_front() else {
                return;
            };
            let Some(push) = push else {
                up.is_pushing.remove(&id);
                continue;
            };
            up.pushing.push_back(id);
            up.in_flight += push_charge(&push.changes);
            let channel = push.channel;
            self.send(&Message::Push(push), channel, false);
        }
    }

    fn send(&mut self, message: &Message, channel: Channel, urgent: bool) {
        let Link::Up(up) = &mut self.link else { return };
        let attempt = AttemptId(self.attempt);
        self.outputs.extend(
            up.session
                .encode(message, channel)
                .into_iter()
                .map(|frame| Output::Send {
                    attempt,
                    frame,
                    urgent,
                }),
        );
    }

    fn event(&mut self, event: ClientEvent) {
        self.outputs.push_back(Output::Event(event));
    }

    fn set_link(&mut self, link: Link) {
        self.link = link;
        self.tell_status();
    }

    fn tell_status(&mut self) {
        let status = self.status();
        if self.told != status {
            self.told = status.clone();
            self.event(ClientEvent::StatusChanged(status));
        }
    }
}

fn pop_due(timers: &mut BTreeSet<(Time, DocumentId)>, now: Time) -> Option<(Time, DocumentId)> {
    timers
        .first()
        .is_some_and(|(at, _)| *at <= now)
        .then(|| timers.pop_first())
        .flatten()
}
