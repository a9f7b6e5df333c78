//! The processes of clients: what their machines ask for.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use sync_core::client::{
    AttemptId, Broadcast, ClientConfig, ClientEvent, ClientState, DocumentEvent, EndReason,
    Extension, Job, Output, Replica, Status,
};
use sync_core::engine::{Engine, Validator};
use sync_core::ids::{DocumentId, OriginId, SessionId, User};
use sync_core::time::Time;
use sync_core::transport::DialError;

use super::devices::{Store, WallClock};
use super::links::Up;
use super::{Target, Traffic, World};

/// Delay before a write that failed is made again.
const RETRY_STORE: Duration = Duration::from_secs(1);

/// A client's process, and its device.
#[derive(Debug)]
pub struct SimClient<E: Engine> {
    /// The machine.
    pub state: ClientState,
    /// Of the documents that are open.
    pub replicas: BTreeMap<DocumentId, Replica<E>>,
    /// Everything that happened to its documents.
    pub events: Vec<(DocumentId, DocumentEvent)>,
    /// Broadcasts that it received, and was told of that it did not.
    pub broadcasts: Vec<(DocumentId, Broadcast)>,
    /// Extension messages that it received.
    pub extensions: Vec<Extension>,
    /// Whether it can reach the server.
    pub online: bool,
    /// What survives the process, if anything does.
    pub store: Option<Store>,
    /// What its device takes the time to be.
    pub clock: WallClock,
    /// Whether there is a process.
    pub is_running: bool,
    pub(super) user: User,
    pub(super) link: Option<SessionId>,
    pub(super) dialing: Option<(Time, AttemptId)>,
    /// Jobs on replicas that have not been run.
    pub(super) jobs: VecDeque<(Time, DocumentId, u64, Job)>,
    /// Fresh credentials, and when it has them.
    pub(super) asking: Option<Time>,
    /// The only node that it connects to.
    pub(super) dials: Option<usize>,
    pub(super) next_dial: Option<DialError>,
    pub(super) trickle: Duration,
}

impl<E: Engine> SimClient<E> {
    /// Who it is.
    pub const fn user(&self) -> &User {
        &self.user
    }

    /// When something happens by itself.
    fn next_time(&self) -> Option<Time> {
        let writing = self.store.as_ref().and_then(|store| store.writing.front());
        let times = [
            self.state.poll_timeout(),
            self.dialing.map(|(at, _)| at),
            writing.map(|(at, ..)| *at),
            self.jobs.front().map(|(at, ..)| *at),
            self.asking,
        ];
        times.into_iter().flatten().min()
    }
}

impl<E: Engine + Validator> World<E> {
    /// A client that connects at once. Returns its index.
    pub fn add_client(&mut self) -> usize {
        let index = self.clients.len();
        self.add_client_of(&format!("user-{index}"))
    }

    /// The same, of this user.
    pub fn add_client_of(&mut self, user: &str) -> usize {
        self.clients.push(SimClient {
            state: ClientState::new(ClientConfig::new(OriginId(0), 0)),
            replicas: BTreeMap::new(),
            events: Vec::new(),
            broadcasts: Vec::new(),
            extensions: Vec::new(),
            online: true,
            store: None,
            clock: WallClock::default(),
            is_running: false,
            user: User::new(user),
            link: None,
            dialing: None,
            jobs: VecDeque::new(),
            asking: None,
            dials: None,
            next_dial: None,
            trickle: Duration::ZERO,
        });
        self.traffic.push(Traffic::default());
        let index = self.clients.len() - 1;
        self.start_client(index);
        index
    }

    pub(super) fn configure(&self, config: &mut ClientConfig) {
        config.refreshes = self.permits.credentials.is_some();
        config.limits = self.limits.clone();
        config.planted = self.planted;
    }

    pub(super) fn run_client(&mut self, client: usize) {
        let now = self.now;
        self.clients[client].state.handle_timeout(now);
        self.run_store(client);
        self.perform_client(client);
        while let Some((_, document, number, job)) = self.clients[client]
            .jobs
            .pop_front_if(|(at, ..)| *at <= now)
        {
            self.run_job(client, &document, number, &job);
            self.perform_client(client);
        }
        let it = &mut self.clients[client];
        if it.asking.take_if(|at| *at <= now).is_some() {
            let credentials = Bytes::copy_from_slice(it.user.id.as_bytes());
            it.state.handle_credentials(credentials);
            self.perform_client(client);
        }
        let it = &mut self.clients[client];
        if let Some((_, attempt)) = it.dialing.take_if(|(at, _)| *at <= now) {
            if self.permits.credentials.is_some() {
                let credentials = Bytes::copy_from_slice(it.user.id.as_bytes());
                it.state.set_credentials(credentials);
            }
            self.connect(client, attempt);
        }
    }

    fn run_store(&mut self, client: usize) {
        let it = &mut self.clients[client];
        let Some(store) = &mut it.store else { return };
        while let Some((at, document, number, write)) = store.writing.pop_front() {
            if at > self.now {
                store.writing.push_front((at, document, number, write));
                return;
            }
            if store.fails {
                // Nothing may overtake it.
                let again = self.now + RETRY_STORE;
                store.writing.push_front((again, document, number, write));
                return self.count("fault", "store failed");
            }
            store.apply(document.clone(), write);
            it.state.handle_stored(self.now, &document, number);
        }
    }

    pub(super) fn perform_client(&mut self, client: usize) {
        while let Some(output) = self.clients[client].state.poll_output() {
            match output {
                Output::Dial(attempt) => {
                    let at = self.soon(self.weather.delay_max);
                    self.clients[client].dialing = Some((at, attempt));
                }
                Output::Send { attempt, frame, .. } => self.send_up(client, attempt, frame),
                Output::Hangup { attempt, code } => self.hang_up(client, attempt, code),
                Output::Job {
                    document,
                    number,
                    job,
                } => self.take_job(client, document, number, job),
                Output::DocumentEvent { document, event } => {
                    self.count("client", name_of(&event));
                    self.clients[client].events.push((document, event));
                }
                Output::Event(event) => self.on_client_event(&event),
                Output::Broadcast {
                    document,
                    broadcast,
                } => {
                    let it = &mut self.clients[client];
                    it.broadcasts.push((document, broadcast));
                }
                Output::Extension(extension) => {
                    self.clients[client].extensions.push(extension);
                }
                Output::Credentials => {
                    let at = self.soon(self.weather.delay_max);
                    self.clients[client].asking = Some(at);
                }
                Output::Store {
                    document,
                    number,
                    write,
                } => {
                    let at = self.soon(self.weather.registry_delay_max);
                    if let Some(store) = &mut self.clients[client].store {
                        let last = store.writing.back().map(|(at, ..)| *at);
                        let at = last.map_or(at, |last| at.max(last));
                        store.writing.push_back((at, document, number, *write));
                    }
                }
                Output::Forgotten(document) => {
                    let it = &mut self.clients[client];
                    // It may have been opened again meanwhile.
                    if it.state.sync_state(&document).is_none() {
                        it.replicas.remove(&document);
                    }
                }
                _ => {}
            }
        }
        let next = self.clients[client].next_time();
        self.schedule(next, Target::Client(client));
    }

    fn on_client_event(&mut self, event: &ClientEvent) {
        match event {
            ClientEvent::StatusChanged(status) => self.count("status", status_name(status)),
            ClientEvent::SessionEnded(reason) => match reason {
                EndReason::Lost { .. } => self.count("ended", "lost"),
                EndReason::Untrusted(_) => self.count("ended", "untrusted"),
                EndReason::Silence => self.count("ended", "silence"),
                EndReason::HandshakeTimeout => self.count("ended", "handshake timeout"),
                EndReason::Server(error) => self.count("ended by server", error.code.name()),
                EndReason::Protocol(error) => {
                    self.count("ended for protocol", error.code.name());
                    assert!(
                        self.takes_nonsense,
                        "a client says that the server broke the protocol: {error:?}"
                    );
                }
                EndReason::Local => self.count("ended", "local"),
                _ => self.count("ended", "otherwise"),
            },
            ClientEvent::GoingAway { .. } => self.count("client", "going away"),
            ClientEvent::DocumentError { error, .. } => {
                self.count("document error", error.code.name());
            }
            ClientEvent::SessionError { error } => self.count("session error", error.code.name()),
            _ => {}
        }
    }

    fn hang_up(&mut self, client: usize, attempt: AttemptId, code: u16) {
        let it = &mut self.clients[client];
        it.dialing.take_if(|(_, dialing)| *dialing == attempt);
        let links = &self.links;
        let is_it = |session: &mut SessionId| {
            let link = links.get(session);
            link.is_some_and(|link| link.attempt == attempt)
        };
        if let Some(session) = it.link.take_if(is_it) {
            self.put_up(session, attempt, Up::Close(code));
            self.forget_client_end(session);
        }
    }

    fn take_job(&mut self, client: usize, document: DocumentId, number: u64, job: Job) {
        if self.weather.job_delay_max.is_zero() && self.clients[client].jobs.is_empty() {
            return self.run_job(client, &document, number, &job);
        }
        let at = self.soon(self.weather.job_delay_max);
        let jobs = &mut self.clients[client].jobs;
        let last = jobs.back().map(|(at, ..)| *at);
        let at = last.map_or(at, |last| at.max(last));
        jobs.push_back((at, document, number, job));
    }

    fn run_job(&mut self, client: usize, document: &DocumentId, number: u64, job: &Job) {
        let it = &mut self.clients[client];
        let Some(replica) = it.replicas.get_mut(document) else {
            return;
        };
        let state = std::cell::RefCell::new(&mut it.state);
        let outcome = replica.run(
            job,
            || state.borrow().outbox_bytes(document),
            || state.borrow_mut().take_for_replacement(document),
        );
        let outcome = outcome.unwrap();
        let drained = replica.drain();
        assert!(
            drained.main.local.is_empty(),
            "an import never comes out as a local change"
        );
        let unreadable = replica.unreadable();
        it.state.handle_unreadable(self.now, document, unreadable);
        it.state.handle_job(self.now, document, number, outcome);
    }

    /// Where a client's connection stands.
    pub fn status(&self, client: usize) -> Status {
        self.clients[client].state.status()
    }
}

const fn name_of(event: &DocumentEvent) -> &'static str {
    match event {
        DocumentEvent::Changed { .. } => "changed",
        DocumentEvent::Refused { .. } => "refused",
        DocumentEvent::Replaced => "replaced",
        DocumentEvent::AccessChanged(_) => "access changed",
        DocumentEvent::Deleted => "deleted",
        _ => "another event",
    }
}

const fn status_name(status: &Status) -> &'static str {
    match status {
        Status::Connecting => "connecting",
        Status::Connected => "connected",
        Status::Reconnecting { .. } => "reconnecting",
        Status::Offline => "offline",
        Status::Failed(_) => "failed",
        _ => "another status",
    }
}
