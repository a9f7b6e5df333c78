//! The clients of a world: what a test has them do, and what their machines ask for.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use sync_core::client::{
    ClientConfig, ClientState, Job, OpenOptions, Output, RefusedChange, Replica, Status,
    StoredDocument, SyncState,
};
use sync_core::engine::{Document, Engine, Validator, Version};
use sync_core::history::Cursor;
use sync_core::ids::{DocumentId, OriginId, User};
use sync_core::wire::decode_frame;

use super::{SimClient, Target, Traffic, World, id};

impl<E: Engine + Validator> World<E> {
    /// A client that connects at once. Returns its index.
    pub fn add_client(&mut self) -> usize {
        let index = self.clients.len();
        self.add_client_of(&format!("user-{index}"))
    }

    /// The same, of this user.
    pub fn add_client_of(&mut self, user: &str) -> usize {
        let config = ClientConfig::new(OriginId(self.rng.next_u128()), self.rng.next_u128());
        let mut state = ClientState::new(config);
        state.connect(self.now);
        self.clients.push(SimClient {
            state,
            replicas: BTreeMap::new(),
            events: Vec::new(),
            online: true,
            store: None,
            writing: VecDeque::new(),
            user: User::new(user),
            link: None,
            dialing: None,
        });
        self.traffic.push(Traffic::default());
        let index = self.clients.len() - 1;
        self.perform_client(index);
        index
    }

    /// Opens a document.
    pub fn open(&mut self, client: usize, document: &str) {
        self.open_with(client, document, OpenOptions::default());
    }

    /// Opens a document.
    pub fn open_with(&mut self, client: usize, document: &str, options: OpenOptions) {
        let seed = self.rng.next_u128();
        let engine = self.engine.clone().bind(&id(document));
        let (engine_id, sealer) = (engine.id(), engine.sealer());
        let it = &mut self.clients[client];
        let stored = it
            .store
            .as_ref()
            .and_then(|store| store.get(&id(document)).cloned());
        it.replicas
            .entry(id(document))
            .or_insert_with(|| match &stored {
                Some(stored) => Replica::load(engine, seed, stored).unwrap(),
                None => Replica::new(engine, seed).unwrap(),
            });
        it.state
            .open_sealed(self.now, &id(document), &engine_id, options, stored, sealer)
            .unwrap();
        self.perform_client(client);
    }

    /// One edit. Whether it was allowed.
    pub fn edit(
        &mut self,
        client: usize,
        document: &str,
        f: impl FnOnce(&mut E::Edit<'_>),
    ) -> bool {
        self.edit_at(client, document, self.now.as_micros() / 1000, f)
    }

    /// One edit by this wall clock. Whether it was allowed.
    pub fn edit_at(
        &mut self,
        client: usize,
        document: &str,
        wall_ms: u64,
        f: impl FnOnce(&mut E::Edit<'_>),
    ) -> bool {
        let document = id(document);
        let it = &mut self.clients[client];
        if it.state.edit_refusal(&document).is_some() {
            return false;
        }
        let replica = it.replicas.get_mut(&document).unwrap();
        replica.document().set_wall_time(wall_ms);
        replica.edit(usize::MAX, f).unwrap();
        self.drain(client, &document);
        true
    }

    /// Does something to a document that may change it, whether edits are allowed or not.
    pub fn with_document<R>(
        &mut self,
        client: usize,
        document: &str,
        f: impl FnOnce(&mut E::Document) -> R,
    ) -> R {
        let document = id(document);
        let it = &mut self.clients[client];
        let result = f(it.replicas.get_mut(&document).unwrap().document());
        self.drain(client, &document);
        result
    }

    fn drain(&mut self, client: usize, document: &DocumentId) {
        let it = &mut self.clients[client];
        let drained = it.replicas.get_mut(document).unwrap().drain();
        for bytes in drained.main.local {
            let staged = it.state.handle_edit(self.now, document, bytes);
            if let (Some(store), Some(change)) = (&mut it.store, staged) {
                let new = || StoredDocument::new(Engine::id(&self.engine));
                store
                    .entry(document.clone())
                    .or_insert_with(new)
                    .stage(change);
            }
        }
        self.perform_client(client);
    }

    /// Hands a change to the client's machine that no engine made.
    pub fn inject(&mut self, client: usize, document: &str, bytes: Bytes) {
        self.clients[client]
            .state
            .handle_edit(self.now, &id(document), bytes);
        self.perform_client(client);
    }

    /// Reads what a client has.
    pub fn read<R>(&self, client: usize, document: &str, f: impl FnOnce(&E::Read<'_>) -> R) -> R {
        self.clients[client].replicas[&id(document)]
            .read(f)
            .unwrap()
    }

    /// Of a client's replica.
    pub fn version(&mut self, client: usize, document: &str) -> Version {
        self.clients[client]
            .replicas
            .get_mut(&id(document))
            .unwrap()
            .document()
            .version()
    }

    /// Of a document that the client has open.
    pub fn sync_state(&self, client: usize, document: &str) -> SyncState {
        self.clients[client]
            .state
            .sync_state(&id(document))
            .unwrap()
    }

    /// How far the client is.
    pub fn cursor(&self, client: usize, document: &str) -> Option<Cursor> {
        self.clients[client].state.cursor(&id(document))
    }

    /// What was handed back to the client.
    pub fn refused(&self, client: usize, document: &str) -> Vec<RefusedChange> {
        self.clients[client].state.refused(&id(document))
    }

    /// Loses the client's connection: it notices now, the server some time later. What is under way may still arrive there.
    pub fn cut(&mut self, client: usize) {
        let Some(session) = self.clients[client].link.take() else {
            return;
        };
        let attempt = self.links[&session].attempt;
        self.leave(session);
        self.clients[client]
            .state
            .handle_lost(self.now, attempt, None);
        self.perform_client(client);
    }

    /// Gives the client a network, or takes it.
    pub fn set_online(&mut self, client: usize, online: bool) {
        self.clients[client].online = online;
        if online {
            self.clients[client].state.network_changed(self.now);
            self.perform_client(client);
        } else {
            self.cut(client);
        }
    }

    /// Gives a client that has opened nothing yet a store.
    pub fn give_store(&mut self, client: usize) {
        self.clients[client].store = Some(BTreeMap::new());
        self.start_client(client);
    }

    /// The client's process is killed: what is not in its store is gone with it. Another one starts on the store, and
    /// delivers what is in it; it has no document open.
    pub fn restart_client(&mut self, client: usize) {
        if let Some(session) = self.clients[client].link.take() {
            self.leave(session);
        }
        self.clients[client].writing.clear();
        self.clients[client].replicas.clear();
        self.clients[client].dialing = None;
        self.start_client(client);
    }

    pub(super) fn start_client(&mut self, client: usize) {
        let mut config = ClientConfig::new(OriginId(self.rng.next_u128()), self.rng.next_u128());
        let it = &mut self.clients[client];
        config.store = it.store.is_some();
        it.state = ClientState::new(config);
        for (document, stored) in it.store.iter().flatten() {
            if !stored.outbox.is_empty() {
                it.state.deliver(self.now, document, stored.clone());
            }
        }
        it.state.connect(self.now);
        self.perform_client(client);
    }

    pub(super) fn run_client(&mut self, client: usize) {
        self.clients[client].state.handle_timeout(self.now);
        self.run_store(client);
        self.perform_client(client);
        if let Some((_, attempt)) = self.clients[client]
            .dialing
            .take_if(|(at, _)| *at <= self.now)
        {
            self.connect(client, attempt);
        }
    }

    pub(super) fn run_store(&mut self, client: usize) {
        let it = &mut self.clients[client];
        while let Some((at, document, number, write)) = it.writing.pop_front() {
            if at > self.now {
                it.writing.push_front((at, document, number, write));
                return;
            }
            let engine = write.state.engine.clone();
            let store = it.store.as_mut().unwrap();
            store
                .entry(document.clone())
                .or_insert_with(|| StoredDocument::new(engine))
                .apply(write);
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
                Output::Send { attempt, frame, .. } => {
                    self.traffic[client]
                        .up
                        .push(decode_frame(frame.clone(), usize::MAX - 1).unwrap());
                    let Some(session) = self.clients[client].link else {
                        continue;
                    };
                    let last = self
                        .links
                        .get(&session)
                        .and_then(|link| link.up.back().map(|(at, _)| *at));
                    let at = self.arrival(last);
                    if let Some(link) = self
                        .links
                        .get_mut(&session)
                        .filter(|link| link.attempt == attempt)
                    {
                        link.up.push_back((at, frame));
                    }
                    self.schedule(Some(at), Target::Link(session));
                }
                Output::Hangup { attempt, .. } => {
                    let it = &mut self.clients[client];
                    it.dialing.take_if(|(_, dialing)| *dialing == attempt);
                    let links = &self.links;
                    if let Some(session) = it.link.take_if(|session| {
                        links
                            .get(session)
                            .is_some_and(|link| link.attempt == attempt)
                    }) {
                        self.leave(session);
                    }
                }
                Output::Job {
                    document,
                    number,
                    job,
                } => self.run_job(client, &document, number, &job),
                Output::DocumentEvent { document, event } => {
                    self.clients[client].events.push((document, event));
                }
                Output::Store {
                    document,
                    number,
                    write,
                } => {
                    let last = self.clients[client].writing.back().map(|(at, ..)| *at);
                    let at = self.soon(self.weather.registry_delay_max);
                    let at = last.map_or(at, |last| at.max(last));
                    self.clients[client]
                        .writing
                        .push_back((at, document, number, *write));
                }
                _ => {}
            }
        }
        let it = &self.clients[client];
        let dialing = it.dialing.map(|(at, _)| at);
        let writing = it.writing.front().map(|(at, ..)| *at);
        let next = it
            .state
            .poll_timeout()
            .into_iter()
            .chain(dialing)
            .chain(writing)
            .min();
        self.schedule(next, Target::Client(client));
    }

    pub(super) fn run_job(&mut self, client: usize, document: &DocumentId, number: u64, job: &Job) {
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

    /// Of the client's connection.
    pub fn status(&self, client: usize) -> Status {
        self.clients[client].state.status()
    }
}
