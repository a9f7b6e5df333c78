//! What a test has people do with documents.

use bytes::Bytes;
use sync_core::client::{OpenOptions, RefusedChange, Replica, StoredDocument, SyncState};
use sync_core::engine::{Document, Engine, Validator, Version};
use sync_core::history::Cursor;
use sync_core::ids::{ChangeId, DocumentId};

use super::{World, id};

impl<E: Engine + Validator> World<E> {
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
            .and_then(|store| store.documents.get(&id(document)).cloned());
        let replica = it.replicas.entry(id(document));
        replica.or_insert_with(|| match &stored {
            Some(stored) => Replica::load(engine, seed, stored).unwrap(),
            None => Replica::new(engine, seed).unwrap(),
        });
        it.state
            .open_sealed(self.now, &id(document), &engine_id, options, stored, sealer)
            .unwrap();
        self.perform_client(client);
    }

    /// Closes a document. What is in its outbox is delivered all the same.
    pub fn close(&mut self, client: usize, document: &str) {
        let state = &mut self.clients[client].state;
        state.close(self.now, &id(document));
        self.perform_client(client);
    }

    /// Whether a client has a document open.
    pub fn has_open(&self, client: usize, document: &str) -> bool {
        let it = &self.clients[client];
        it.state.sync_state(&id(document)).is_some() && it.replicas.contains_key(&id(document))
    }

    /// One edit, by the clock that the client goes by. Whether it was allowed.
    pub fn edit(
        &mut self,
        client: usize,
        document: &str,
        f: impl FnOnce(&mut E::Edit<'_>),
    ) -> bool {
        let it = &self.clients[client];
        let device = it.clock.wall_ms(self.now);
        let wall_ms = it.state.wall_time(self.now).unwrap_or(device);
        self.edit_at(client, document, wall_ms, f)
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
        let Some(replica) = it.replicas.get_mut(&document) else {
            return false;
        };
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
                let new = StoredDocument::new(Engine::id(&self.engine));
                store.stage(document, new, change);
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

    /// Drops a change that was handed back.
    pub fn drop_refused(&mut self, client: usize, document: &str, change: ChangeId) {
        let state = &mut self.clients[client].state;
        state.drop_refused(&id(document), change);
        self.perform_client(client);
    }

    /// Ends a client's connection, and makes no other until [`reconnect`](Self::reconnect).
    pub fn disconnect(&mut self, client: usize) {
        self.clients[client].state.disconnect();
        self.perform_client(client);
    }

    /// Has a client connect, now.
    pub fn reconnect(&mut self, client: usize) {
        self.clients[client].state.connect(self.now);
        self.perform_client(client);
    }
}
