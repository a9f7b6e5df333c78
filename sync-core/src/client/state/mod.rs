//! The client's machine: documents and their outboxes, which outlive connections, and the connection's life.

mod connection;
mod ephemeral;
mod messages;
mod presence;
mod turns;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::ephemeral::Buckets;
pub use self::presence::PresenceRefusal;
use super::backoff::Backoff;
use super::broadcast::{Broadcast, Extension};
use super::config::ClientConfig;
use super::document::{DocumentState, EditRefusal, Me, OpenOptions};
use super::event::{
    ClientEvent, DocumentEvent, EndReason, FailedReason, RefusedChange, RefusedReason, Status,
    SyncState,
};
use super::replica::{Job, JobOutcome, PendingWork};
use super::session::ClientSession;
use super::store::{OutboxChange, StoreWrite, StoredDocument};
use crate::engine::{Sealer, Unreadable};
use crate::history::Cursor;
use crate::ids::{ChangeId, Channel, DocumentId, EngineId, OriginId, RequestId};
use crate::rate::TokenBucket;
use crate::rng::Rng;
use crate::time::Time;
use crate::wire::{Auth, Message, WelcomeLimits};

/// The channel that means the session itself.
const SESSION_CHANNEL: Channel = Channel(0);

/// Names one attempt at a connection; what belongs to an earlier one is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttemptId(u64);

/// What the machine asks of its driver, to be started in this order.
#[derive(Debug, Clone)]
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
    /// A broadcast arrived.
    Broadcast {
        /// The document.
        document: DocumentId,
        /// What, and from whom.
        broadcast: Broadcast,
    },
    /// An extension message arrived.
    Extension(Extension),
    /// Get fresh credentials, and answer with [`ClientState::handle_credentials`]: the server says that those it has end soon.
    Credentials,
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
    /// The document's [roster](ClientState::roster) has changed.
    Presence(DocumentId),
    /// The document was closed and has nothing left to deliver: its replica can go.
    Forgotten(DocumentId),
}

/// The client's machine. It outlives connections, and drives itself from what it is told:
///
/// - **feed it** with `handle_*`, each with the time now;
/// - **command it** with `connect`, `disconnect`, `open`, `close`, `handle_edit`;
/// - **drain** [`poll_output`](Self::poll_output) until `None` after each of these;
/// - then sleep until [`poll_timeout`](Self::poll_timeout) and call [`handle_timeout`](Self::handle_timeout).
#[derive(Debug, Clone)]
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
    /// Forgotten documents in which the server may still have something that this client said of itself.
    said: BTreeSet<DocumentId>,
    outputs: VecDeque<Output>,
    /// Documents that may want to be opened, or forgotten.
    due: BTreeSet<DocumentId>,
    /// When documents are due by themselves. Some may be out of date: then nothing comes of it.
    timers: BTreeSet<(Time, DocumentId)>,
    next_request: u32,
    /// The server's wall clock in milliseconds, and when it was told.
    server_clock: Option<(Time, u64)>,
    /// This client's session, or the last one, and who the server takes it for.
    me: Option<Me>,
    /// By which the server knows that this client was there before.
    resume: Option<Bytes>,
    /// Until when others are thought to be where they were before the connection was lost.
    stale_until: Option<Time>,
}

/// ```text
/// Offline ◀── disconnect ── any          Failed ◀── Stop, Upgrade, RefreshAuth (unless that can be done) ── any
///    └ connect ▶ Dialing ── connected ──▶ Greeting ── Welcome ──▶ Live ── lost ──▶ Waiting ── delay ──▶ Dialing
/// ```
#[derive(Debug, Clone)]
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

#[derive(Debug, Clone)]
struct Up {
    session: ClientSession,
    welcomed: Option<WelcomeLimits>,
    /// How often the session may say something of itself.
    presences: TokenBucket,
    channels: BTreeMap<Channel, DocumentId>,
    requests: BTreeMap<RequestId, DocumentId>,
    /// After `GoAway`: when to move.
    leave_at: Option<Time>,
    /// Documents that may have something to push, in turn, and the same without order.
    pushing: VecDeque<DocumentId>,
    is_pushing: BTreeSet<DocumentId>,
    /// What the changes sent and not acknowledged, of all documents, count for in the push window.
    in_flight: usize,
    /// What is left of the server's rates.
    buckets: Buckets,
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
            said: BTreeSet::new(),
            outputs: VecDeque::new(),
            due: BTreeSet::new(),
            timers: BTreeSet::new(),
            next_request: 0,
            server_clock: None,
            me: None,
            resume: None,
            stale_until: None,
            config,
        }
    }

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
        own.into_iter()
            .chain(documents)
            .chain(self.stale_until)
            .min()
    }

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

    /// Credentials for connections from now on.
    pub fn set_credentials(&mut self, credentials: Bytes) {
        self.config.credentials = Some(credentials);
    }

    /// Fresh credentials, as [`Output::Credentials`] asked for: sent to the server if it is still there.
    pub fn handle_credentials(&mut self, credentials: Bytes) {
        self.set_credentials(credentials.clone());
        if matches!(&self.link, Link::Up(up) if up.welcomed.is_some()) {
            self.send(&Message::Auth(Auth { credentials }), Channel(0), true);
        }
    }

    /// Ends the connection, and makes no other until [`connect`](Self::connect).
    pub fn disconnect(&mut self) {
        self.end(EndReason::Local, 1000);
        self.backoff.reset();
        self.forget_presence();
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
        self.open_sealed(now, document, engine, options, stored, None)
    }

    /// As [`open`](Self::open), with what seals the document's changes for their ids.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_sealed(
        &mut self,
        now: Time,
        document: &DocumentId,
        engine: &EngineId,
        options: OpenOptions,
        stored: Option<StoredDocument>,
        sealer: Option<Arc<dyn Sealer>>,
    ) -> Result<(), EngineId> {
        let theirs = self.documents.get(document).map(DocumentState::engine);
        let theirs = theirs.or_else(|| stored.as_ref().map(|stored| &stored.state.engine));
        if let Some(theirs) = theirs.filter(|theirs| *theirs != engine) {
            return Err(theirs.clone());
        }
        if self.documents.contains_key(document) {
            self.turn_only(document, |state, _, turn| state.reopen(options, turn));
        } else {
            self.insert(document, engine, options, stored);
        }
        if let Some(sealer) = sealer {
            let origin = OriginId(self.rng.next_u128());
            self.turn_only(document, |state, _, _| state.set_sealer(sealer, origin));
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
        let engine = stored.state.engine.clone();
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
            self.config.planted(),
        );
        if let Some(stored) = stored {
            state.restore(stored);
        }
        if self.said.remove(document) {
            state.take_back_presence();
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

    /// What of the log the document's replica cannot read now. To be called under the replica's lock, before the job is
    /// answered that found it.
    pub fn handle_unreadable(&mut self, now: Time, document: &DocumentId, unreadable: Unreadable) {
        self.turn(now, document, |state, _, turn| {
            state.set_unreadable(unreadable, turn);
        });
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
}
