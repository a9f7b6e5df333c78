//! What everybody keeps in memory.

use sync_core::engine::{Engine, Validator};
use sync_core::ids::SessionId;

use super::{World, id};

impl<E: Engine + Validator> World<E> {
    /// Bytes that the server keeps for a session, and for nobody else: what its connection has taken and not delivered, its
    /// answers, parts of messages, and what its rooms have for it.
    pub fn bytes_for(&self, session: SessionId) -> usize {
        let Some(link) = self.links.get(&session).filter(|link| link.has_server) else {
            return 0;
        };
        let rooms = link.rooms.values();
        let rooms = rooms.filter_map(|document| self.nodes[link.node].rooms.get(document));
        let in_rooms: usize = rooms.map(|room| room.held_for(session)).sum();
        link.down_bytes + link.writer.bytes() + link.session.held_bytes() + in_rooms
    }

    /// The same for every session that the server has.
    pub fn bytes_by_session(&self) -> impl Iterator<Item = (SessionId, usize)> {
        let sessions = self.links.iter().filter(|(_, link)| link.has_server);
        sessions.map(|(session, _)| (*session, self.bytes_for(*session)))
    }

    /// Bytes that a node's room of a document keeps.
    pub fn bytes_of_room(&self, node: usize, document: &str) -> usize {
        let room = self.nodes[node].rooms.get(&id(document));
        room.map_or(0, sync_core::server::Room::held_bytes)
    }

    /// Bytes of changes that a client keeps: pending, handed back, and on their way into its store.
    pub fn bytes_of_client(&self, client: usize) -> usize {
        let it = &self.clients[client];
        let documents = it.replicas.keys();
        let pending = documents.flat_map(|document| it.state.outbox_bytes(document));
        let documents = it.replicas.keys();
        let refused = documents.flat_map(|document| it.state.refused(document));
        let writing = it.store.iter().flat_map(|store| &store.writing);
        let writing = writing.map(|(_, _, _, write)| {
            let snapshot = write.snapshot.iter().map(|bytes| bytes.len());
            let imported = write.imported.iter().map(|bytes| bytes.len());
            let added = write.outbox_add.iter().map(|change| change.bytes.len());
            snapshot.chain(imported).chain(added).sum::<usize>()
        });
        pending.map(|bytes| bytes.len()).sum::<usize>()
            + refused.map(|change| change.bytes.len()).sum::<usize>()
            + writing.sum::<usize>()
    }

    /// Bytes of the log that the registry keeps of a document.
    pub fn bytes_of_log(&self, document: &str) -> usize {
        self.log(document).iter().map(|row| row.bytes.len()).sum()
    }
}
