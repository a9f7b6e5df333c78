//! The clients: their machines, their replicas, their ends of connections.

use std::collections::VecDeque;
use std::time::Duration;

use sync_core::client::{ClientConfig, ClientState, Job, OpenOptions, Output, Replica, Target};

use sync_core::ids::{EngineId, OriginId, User};
use sync_core::server::{ServerSession, SessionConfig};
use sync_core::wire::Compression;

use super::{Changes, Client, Link, State, session};
use crate::explorer::Part;
use crate::notes::{ENGINE, Notes};

impl Changes {
    pub(super) fn client(&self, state: &State, index: usize) -> Client {
        // What is drawn has the client in its first half.
        let seed = (index as u128 + 1) << 64;
        let mut config = ClientConfig::new(OriginId(index as u128 + 1), seed);
        config.compression = vec![Compression::None];
        config.planted = self.planted;
        config.backoff.min = Duration::from_millis(100);
        let mut machine = ClientState::new(config);
        let engine = Notes {
            rebases: self.bounds.rebases,
        };
        let id = EngineId::new(ENGINE).unwrap();
        machine.connect(state.now);
        machine
            .open(state.now, &self.document, &id, OpenOptions::default(), None)
            .unwrap();
        Client {
            state: machine,
            replica: Replica::new(engine, seed).unwrap(),
            jobs: VecDeque::new(),
            shadow: Vec::new(),
            dialing: None,
            link: None,
            links: 0,
            edits: 0,
            ordinals: Vec::new(),
            user: User::new(format!("user-{index}")),
        }
    }

    pub(super) fn edit(&self, state: &mut State, index: usize) {
        let client = &mut state.clients[index];
        client.edits += 1;
        let label = label(index, client.edits);
        client.replica.edit(usize::MAX, |it| *it = label).unwrap();
        for bytes in client.replica.drain().main.local {
            client.state.handle_edit(state.now, &self.document, bytes);
        }
        let (_, last) = client.state.pending_ordinals(&self.document).unwrap();
        client.ordinals.push(last);
        self.perform_client(state, index);
    }

    pub(super) fn dialed(&self, state: &mut State, index: usize) {
        let client = &mut state.clients[index];
        // Not numbered over all clients: who came first is to make no difference later.
        client.links += 1;
        let id = index as u64 * 100 + client.links;
        let attempt = client.dialing.take().unwrap();
        let mut config = SessionConfig::new(self.limits());
        config.user = Some(client.user.clone());
        config.gzip = false;
        let link = Link {
            client: index,
            attempt,
            session: ServerSession::new(state.now, config, session(id)),
            up: VecDeque::new(),
            down: VecDeque::new(),
            channel: None,
            is_ready: false,
            is_left: false,
            closed: None,
            refused: None,
        };
        state.links.insert(id, Part::new(link));
        client.link = Some(id);
        client.state.handle_connected(state.now, attempt);
        self.perform_client(state, index);
    }

    /// The client is without its connection; the server finds out.
    pub(super) fn cut(&self, state: &mut State, index: usize, code: Option<u16>) {
        let client = &mut state.clients[index];
        let Some(id) = client.link.take() else {
            return;
        };
        let link = state.links.get_mut(&id).unwrap();
        leave(link);
        let attempt = link.attempt;
        if link.closed.is_some() {
            state.links.remove(&id);
        }
        client.state.handle_lost(state.now, attempt, code);
        self.perform_client(state, index);
    }

    pub(super) fn down(&self, state: &mut State, id: u64) {
        let link = state.links.get_mut(&id).unwrap();
        let frame = link.down.pop_front().unwrap();
        let (index, attempt) = (link.client, link.attempt);
        let client = &mut state.clients[index];
        client.state.handle_frame(state.now, attempt, frame);
        self.perform_client(state, index);
    }

    pub(super) fn closed(&self, state: &mut State, id: u64) {
        let link = &state.links[&id];
        let (index, code) = (link.client, link.closed);
        self.cut(state, index, code);
    }

    pub(super) fn run_job(&self, state: &mut State, index: usize) {
        let client = &mut *state.clients[index];
        let (number, job) = client.jobs.pop_front().unwrap();
        match &job {
            Job::Import {
                target: Target::Shadow,
                changes,
                ..
            } => client.shadow.extend(changes.iter().cloned()),
            Job::StartShadow | Job::Merge { .. } | Job::Replace { .. } => client.shadow.clear(),
            _ => {}
        }
        let machine = std::cell::RefCell::new(&mut client.state);
        let outcome = client.replica.run(
            &job,
            || machine.borrow().outbox_bytes(&self.document),
            || machine.borrow_mut().take_for_replacement(&self.document),
        );
        let drained = client.replica.drain();
        assert!(drained.main.local.is_empty(), "a job makes no change");
        client
            .state
            .handle_job(state.now, &self.document, number, outcome.unwrap());
        self.perform_client(state, index);
    }

    pub(super) fn perform_client(&self, state: &mut State, index: usize) {
        let client = &mut *state.clients[index];
        while let Some(output) = client.state.poll_output() {
            match output {
                Output::Dial(attempt) => client.dialing = Some(attempt),
                Output::Send { attempt, frame, .. } => {
                    if let Some(link) = client.link.and_then(|id| state.links.get_mut(&id))
                        && link.attempt == attempt
                    {
                        link.up.push_back(frame);
                    }
                }
                Output::Hangup { attempt, .. } => {
                    client.dialing.take_if(|dialing| *dialing == attempt);
                    if let Some(id) = client.link.take() {
                        leave(state.links.get_mut(&id).unwrap());
                    }
                }
                Output::Job { number, job, .. } => client.jobs.push_back((number, job)),
                _ => {}
            }
        }
    }
}

fn leave(link: &mut Link) {
    link.down.clear();
    link.is_left = true;
}

/// Of a client's n-th note.
pub(super) fn label(client: usize, n: u8) -> u8 {
    client as u8 * 10 + n
}
