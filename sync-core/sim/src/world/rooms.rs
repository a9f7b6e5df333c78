//! The rooms of each node, and what they want done.

use std::sync::Arc;

use bytes::Bytes;
use sync_core::engine::{Engine, Validator};
use sync_core::history::Seq;
use sync_core::ids::{Channel, DocumentId, EngineId};
use sync_core::registry::{DocumentMeta, RegistryError, Snapshot, StoredChange, Tail};
use sync_core::server::{
    Engines, FoldError, FoldRequest, FoldedLog, RegistryRequest, Room, RoomConfig, RoomEvent,
    RoomOutput,
};

use super::calls::Step;
use super::{Target, World, id, wait};

impl<E: Engine + Validator> World<E> {
    /// What the registry knows of a document.
    pub fn meta(&self, document: &str) -> DocumentMeta {
        wait(self.registry.meta(&id(document))).unwrap()
    }

    /// The whole kept log.
    pub fn log(&self, document: &str) -> Vec<StoredChange> {
        let after = self.meta(document).log_start;
        match wait(self.registry.tail(&id(document), after, usize::MAX)).unwrap() {
            Tail::Changes { changes, .. } => changes,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn engines(&self) -> Engines {
        let mut engines = Engines::new();
        match &self.validator {
            Some(validator) => engines.insert(validator.clone()),
            None if self.is_relayed() => engines.insert_relay(Engine::id(&self.engine)),
            None => engines.insert(Arc::new(self.engine.clone())),
        }
        if self.checks && self.new_ledger().is_some() {
            engines.check(Engine::id(&self.engine));
        }
        engines
    }

    /// Whether only clients can read the documents, and fold them.
    pub(super) fn is_relayed(&self) -> bool {
        Engine::id(&self.engine) == EngineId::OPAQUE
    }

    /// Sees to it that a node has a room for a document.
    pub(super) fn room(&mut self, node: usize, document: &DocumentId) {
        if self.nodes[node].rooms.contains_key(document) {
            return;
        }
        let mut config = RoomConfig::new(self.limits.clone(), self.engines(), self.rng.next_u64());
        let (changes, keep) = self.folding.unwrap_or((u64::MAX, 0));
        config.fold_changes = changes;
        config.fold_bytes = usize::MAX;
        config.keep_bytes = keep;
        config.snapshot_piece_bytes = self.piece_bytes;
        config.keep_age = std::time::Duration::ZERO;
        config.keep_relayed_age = std::time::Duration::ZERO;
        config.ring_bytes_max = self.ring_bytes;
        config.catch_up_bytes = self.catch_up_bytes;
        config.planted = self.planted;
        config.asks = self.permits.vetoes.is_some();
        let it = &mut self.nodes[node];
        let channel = Channel(it.next_channel);
        it.next_channel += 1;
        let room = Room::new(document.clone(), channel, config);
        it.rooms.insert(document.clone(), room);
        it.channels.insert(channel, document.clone());
        self.count("room", "begun");
    }

    pub(super) fn run_room(&mut self, node: usize, document: &DocumentId) {
        if let Some(room) = self.nodes[node].rooms.get_mut(document) {
            room.handle_timeout(self.now);
            self.perform_room(node, document);
        }
    }

    pub(super) fn perform_room(&mut self, node: usize, document: &DocumentId) {
        while let Some(output) = self.nodes[node]
            .rooms
            .get_mut(document)
            .and_then(Room::poll_output)
        {
            match output {
                RoomOutput::Authorize(number, user) => {
                    self.call_of(node, document, Step::Ask(number, user));
                }
                RoomOutput::Registry(number, request) => {
                    if let RegistryRequest::Append { changes, .. } = &request {
                        self.check_append(changes);
                    }
                    self.call_of(node, document, Step::Execute(number, request));
                }
                RoomOutput::Fold(request) => {
                    self.call_of(node, document, Step::Fold(request));
                }
                RoomOutput::Ask(number, request) => {
                    self.call_of(node, document, Step::Vet(number, request));
                }
                RoomOutput::Check(number, request) => {
                    self.call_of(node, document, Step::Check(number, request));
                }
                RoomOutput::Wake(session) => self.wake(session, document),
                RoomOutput::Settled(session, charge) => {
                    if let Some(link) = self.links.get_mut(&session) {
                        link.session.handle_settled(charge);
                    }
                }
                RoomOutput::Superseded(session) => self.supersede(session),
                RoomOutput::Event(event) => self.on_room_event(&event),
                RoomOutput::Unloaded => {
                    let it = &mut self.nodes[node];
                    if let Some(room) = it.rooms.remove(document) {
                        it.channels.remove(&room.channel());
                        it.hot.remove(document);
                        it.uncommitted.remove(document);
                    }
                    self.count("room", "unloaded");
                }
                _ => {}
            }
        }
        let room = self.nodes[node].rooms.get(document);
        let next = room.and_then(Room::poll_timeout);
        self.schedule(next, Target::Room(node, document.clone()));
    }

    fn on_room_event(&mut self, event: &RoomEvent) {
        match event {
            RoomEvent::Loaded { .. } => self.count("room", "loaded"),
            RoomEvent::Opened { .. } => self.count("room", "opened"),
            RoomEvent::AccessChanged { .. } => self.count("room", "access changed"),
            RoomEvent::Left { .. } => self.count("room", "left"),
            RoomEvent::PresenceJoined { instead_of, .. } => self.count(
                "room",
                match instead_of {
                    Some(_) => "presence resumed",
                    None => "presence joined",
                },
            ),
            RoomEvent::PresenceLeft { .. } => self.count("room", "presence left"),
            RoomEvent::Committed { .. } => self.count("room", "committed"),
            RoomEvent::Refused { code, .. } => self.count("refused", code.name()),
            RoomEvent::Broadcast { .. } => self.count("room", "broadcast"),
            RoomEvent::BroadcastsMissed { .. } => self.count("room", "broadcasts missed"),
            RoomEvent::HistoryReplaced { .. } => self.count("room", "history replaced"),
            RoomEvent::SnapshotRead { .. } => self.count("room", "snapshot read"),
            RoomEvent::NearLimit { .. } => self.count("room", "near limit"),
            RoomEvent::Folded { .. } => self.count("room", "folded"),
            RoomEvent::FoldFailed { .. } => self.count("room", "fold failed"),
            RoomEvent::RegistryFailed { call, .. } => self.count("registry failed", call),
            _ => {}
        }
    }

    /// As the server folds: what the registry has of a log, in a replica that never imported anything else.
    pub(super) fn fold(
        &self,
        document: &DocumentId,
        request: &FoldRequest,
        uncommitted: &[Bytes],
    ) -> Result<FoldedLog, FoldError> {
        let meta = wait(self.registry.meta(document)).map_err(FoldError::Registry)?;
        if meta.epoch != request.epoch || meta.head < request.through {
            return Err(FoldError::HistoryReplaced);
        }
        let snapshot = wait(self.registry.snapshot(document)).map_err(FoldError::Registry)?;
        let from = snapshot.as_ref().map_or(Seq::ZERO, |snapshot| snapshot.seq);
        if from > request.after {
            return Err(FoldError::Newer { seq: from });
        }
        let mut rows = self.log(document.as_str());
        rows.retain(|row| row.seq <= request.through);
        let Some(digest) = rows.last().map(|row| row.digest) else {
            let what = "the log ends before its head".into();
            return Err(FoldError::Registry(RegistryError::Damaged { what }));
        };
        let new = rows.iter().filter(|row| row.seq > from);
        let mut changes: Vec<_> = new.map(|row| row.bytes.clone()).collect();
        changes.extend_from_slice(uncommitted);
        let bytes = match &request.offered {
            Some(offered) => offered.clone(),
            None => {
                let engines = self.engines();
                let validator = engines.validator(&request.engine).flatten().unwrap();
                let snapshot = snapshot.as_ref().map(|found| &*found.bytes);
                let folded = validator.folder().unwrap().fold(snapshot, &changes);
                folded.map_err(FoldError::Engine)?
            }
        };
        Ok(FoldedLog::new(
            Snapshot::new(request.through, digest, bytes),
            rows.iter().map(|row| row.bytes.len()).collect(),
        ))
    }
}
