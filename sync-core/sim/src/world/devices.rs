//! Clients' devices: what survives a process, and what the clock on the wall says.

use std::collections::{BTreeMap, VecDeque};

use sync_core::client::{ClientConfig, ClientState, OutboxChange, StoreWrite, StoredDocument};
use sync_core::engine::{Engine, Validator};
use sync_core::ids::{DocumentId, OriginId};
use sync_core::time::Time;

use super::World;

/// What a client's store holds, and what it is asked to write.
#[derive(Debug, Clone, Default)]
pub struct Store {
    /// What survives the end of the process.
    pub documents: BTreeMap<DocumentId, StoredDocument>,
    /// Staged since the last write that was synced, in order: the power may be lost before it is.
    unsynced: Vec<(DocumentId, OutboxChange)>,
    /// Writes that have not been carried out.
    pub(super) writing: VecDeque<(Time, DocumentId, u64, StoreWrite)>,
    /// A bug to be found: a write says where the document stands before it puts the document there, and a process that ends
    /// in between leaves that.
    pub saves_cursor_first: bool,
    /// Writes fail as long as this is so; they are made again.
    pub fails: bool,
}

impl Store {
    pub(super) fn stage(
        &mut self,
        document: &DocumentId,
        new: StoredDocument,
        change: OutboxChange,
    ) {
        self.unsynced.push((document.clone(), change.clone()));
        let stored = self.documents.entry(document.clone()).or_insert(new);
        stored.stage(change);
    }

    /// Carries out a write, and syncs it and all that was staged before.
    pub(super) fn apply(&mut self, document: DocumentId, write: StoreWrite) {
        let engine = write.state.engine.clone();
        let new = || StoredDocument::new(engine);
        self.documents
            .entry(document)
            .or_insert_with(new)
            .apply(write);
        self.unsynced.clear();
    }

    /// The process ends. Writes under way are lost, each of them wholly.
    fn crash(&mut self) {
        let first = self.writing.drain(..).next();
        if let Some((_, document, _, write)) = first.filter(|_| self.saves_cursor_first) {
            let new = || StoredDocument::new(write.state.engine.clone());
            let stored = self.documents.entry(document).or_insert_with(new);
            stored.state = write.state;
        }
    }

    /// The power is lost: of what was staged and not synced, only the first `kept` is there. Returns the rest.
    fn lose_power(&mut self, kept: usize) -> Vec<(DocumentId, OutboxChange)> {
        let lost = self.unsynced.split_off(kept.min(self.unsynced.len()));
        for (document, change) in &lost {
            if let Some(stored) = self.documents.get_mut(document) {
                stored.outbox.retain(|there| there.id != change.id);
            }
        }
        self.unsynced.clear();
        lost
    }
}

/// A clock on a wall.
#[derive(Debug, Clone, Copy, Default)]
pub struct WallClock {
    /// Milliseconds that it is ahead.
    pub ahead_ms: i64,
}

/// What right clocks say when a world begins: some day in 2023.
const START_MS: u64 = 1_700_000_000_000;

impl WallClock {
    /// Milliseconds since 1970.
    pub(super) fn wall_ms(self, now: Time) -> u64 {
        let right = START_MS + now.as_micros() / 1_000;
        right.saturating_add_signed(self.ahead_ms)
    }
}

impl<E: Engine + Validator> World<E> {
    /// Gives a client that has opened nothing yet a store.
    pub fn give_store(&mut self, client: usize) {
        self.clients[client].store = Some(Store::default());
        self.restart_client(client);
    }

    /// The client's process is killed: what is not in its store is gone with it. Another one starts on the store, and
    /// delivers what is in it; it has no document open.
    pub fn restart_client(&mut self, client: usize) {
        self.kill_client(client);
        self.start_client(client);
    }

    /// The client's process is killed, and no other starts. Whatever it still has open shows what it was.
    pub fn kill_client(&mut self, client: usize) {
        let it = &mut self.clients[client];
        if let Some(store) = &mut it.store {
            store.crash();
        }
        it.replicas.clear();
        it.jobs.clear();
        it.dialing = None;
        it.is_running = false;
        // Its outputs come to nothing.
        it.state = ClientState::new(ClientConfig::new(OriginId(0), 0));
        if let Some(session) = it.link.take() {
            self.lose_client_end(session);
        }
    }

    /// The device loses its power, and starts again. What was staged since the last write was synced may be gone, the last of
    /// it first. Returns that: nobody has it any more, unless it had reached the server.
    pub fn lose_power(&mut self, client: usize) -> Vec<(DocumentId, OutboxChange)> {
        self.count("fault", "power lost");
        let n = self.clients[client]
            .store
            .as_ref()
            .map_or(0, |store| store.unsynced.len());
        let kept = usize::try_from(self.below(u64::try_from(n).unwrap() + 1)).unwrap();
        self.kill_client(client);
        let store = self.clients[client].store.as_mut();
        let lost = store.map(|store| store.lose_power(kept));
        self.start_client(client);
        lost.unwrap_or_default()
    }

    /// A copy of what the client's store holds.
    pub fn backup_store(&self, client: usize) -> Option<Store> {
        let mut copy = self.clients[client].store.clone()?;
        copy.writing.clear();
        Some(copy)
    }

    /// The device is put back to an older copy of its store, and starts again.
    pub fn restore_store(&mut self, client: usize, backup: Store) {
        self.count("fault", "store restored");
        self.kill_client(client);
        self.clients[client].store = Some(backup);
        self.start_client(client);
    }

    /// A process starts on what the client's store holds, if there is none.
    pub fn start_client(&mut self, client: usize) {
        let mut config = ClientConfig::new(OriginId(self.rng.next_u128()), self.rng.next_u128());
        self.configure(&mut config);
        let it = &mut self.clients[client];
        config.store = it.store.is_some();
        it.is_running = true;
        it.state = ClientState::new(config);
        for (document, stored) in it.store.iter().flat_map(|store| &store.documents) {
            if !stored.outbox.is_empty() {
                it.state.deliver(self.now, document, stored.clone());
            }
        }
        it.state.connect(self.now);
        self.perform_client(client);
    }

    /// Sets the clock on a client's wall.
    pub fn set_clock(&mut self, client: usize, ahead_ms: i64) {
        self.clients[client].clock.ahead_ms = ahead_ms;
    }

    /// Sets the clock on a node's wall; sessions that begin from now on tell it to their clients.
    pub fn set_node_clock(&mut self, node: usize, ahead_ms: i64) {
        self.nodes[node].clock.ahead_ms = ahead_ms;
    }
}
