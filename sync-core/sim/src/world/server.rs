//! The server of a world: its rooms, its registry, and the end of both.

use std::sync::Arc;
use std::time::Duration;

use super::{Call, Step, Target, World, WorldRegistry, id, wait};
use sync_core::engine::{Engine, Validator};
use sync_core::history::Seq;
use sync_core::ids::{Channel, DocumentId, EngineId, SessionId};
use sync_core::registry::{DocumentMeta, Outcome, Snapshot, StoredChange, Tail};
use sync_core::server::{
    Engines, FoldError, FoldRequest, FoldedLog, MemberOutput, RegistryAnswer, RegistryRequest,
    Room, RoomConfig, RoomOutput,
};

impl<E: Engine + Validator> World<E> {
    /// The server's process is killed: connections, rooms and calls under way are gone; the registry stays.
    pub fn kill_server(&mut self) {
        self.server_up = false;
        self.rooms.clear();
        self.channels.clear();
        self.calls.clear();
        self.owners.clear();
        for (_, link) in std::mem::take(&mut self.links) {
            let it = &mut self.clients[link.client];
            if link.gone_at.is_none() {
                it.link = None;
                it.state.handle_lost(self.now, link.attempt, None);
                self.perform_client(link.client);
            }
        }
    }

    /// After it was killed.
    pub fn start_server(&mut self) {
        self.server_up = true;
    }

    /// A new, empty registry in the place of the old one.
    pub fn lose_everything(&mut self) {
        self.restore(self.registry.empty());
    }

    /// The server starts again on another registry.
    pub fn restore(&mut self, registry: Arc<dyn WorldRegistry>) {
        self.kill_server();
        self.registry = registry;
        self.start_server();
    }

    /// What the registry says of a document that exists.
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
        engines
    }

    /// Whether only clients can read the documents, and fold them.
    pub(super) fn is_relayed(&self) -> bool {
        Engine::id(&self.engine) == EngineId::OPAQUE
    }

    pub(super) fn call(&mut self, call: Call) {
        let at = self.soon(self.weather.registry_delay_max);
        let number = self.fresh_id();
        self.calls.insert(number, call);
        self.schedule(Some(at), Target::Call(number));
    }

    pub(super) fn room(&mut self, document: &DocumentId) {
        if !self.rooms.contains_key(document) {
            let channel = Channel(u32::try_from(self.fresh_id()).unwrap());
            let mut config =
                RoomConfig::new(self.limits.clone(), self.engines(), self.rng.next_u64());
            let (changes, keep) = self.folding.unwrap_or((u64::MAX, 0));
            config.fold_changes = changes;
            config.fold_bytes = usize::MAX;
            config.keep_bytes = keep;
            config.snapshot_piece_bytes = self.piece_bytes;
            config.keep_age = Duration::ZERO;
            config.keep_relayed_age = Duration::ZERO;
            self.rooms.insert(
                document.clone(),
                Room::new(document.clone(), channel, config),
            );
            self.channels.insert(channel, document.clone());
        }
    }

    pub(super) fn perform_room(&mut self, document: &DocumentId) {
        while let Some(output) = self.rooms.get_mut(document).and_then(Room::poll_output) {
            match output {
                RoomOutput::Authorize(number, user) => {
                    self.call(Call {
                        document: document.clone(),
                        number,
                        step: Step::Ask(user),
                    });
                }
                RoomOutput::Registry(number, request) => {
                    if let RegistryRequest::Append { changes, .. } = &request {
                        self.check_append(changes.iter().map(|change| &change.user));
                    }
                    self.call(Call {
                        document: document.clone(),
                        number,
                        step: Step::Execute(request),
                    });
                }
                RoomOutput::Fold(request) => {
                    let folded = self.fold(document, &request);
                    if let Some(room) = self.rooms.get_mut(document) {
                        room.handle_folded(self.now, folded);
                    }
                }
                RoomOutput::Wake(session) => self.poll_member(document, session),
                RoomOutput::Settled(session, charge) => {
                    if let Some(link) = self.links.get_mut(&session) {
                        link.session.handle_settled(charge);
                    }
                }
                RoomOutput::Unloaded => {
                    if let Some(room) = self.rooms.remove(document) {
                        self.channels.remove(&room.channel());
                    }
                }
                _ => {}
            }
        }
        let next = self.rooms.get(document).and_then(Room::poll_timeout);
        self.schedule(next, Target::Room(document.clone()));
    }

    /// At once: what takes time is the compaction that follows.
    pub(super) fn fold(
        &self,
        document: &DocumentId,
        request: &FoldRequest,
    ) -> Result<FoldedLog, FoldError> {
        let meta = self.meta(document.as_str());
        if meta.epoch != request.epoch {
            return Err(FoldError::HistoryReplaced);
        }
        let snapshot = wait(self.registry.snapshot(document));
        let snapshot = snapshot.unwrap();
        let from = snapshot.as_ref().map_or(Seq::ZERO, |snapshot| snapshot.seq);
        if from > request.after {
            return Err(FoldError::Newer { seq: from });
        }
        let mut rows = self.log(document.as_str());
        rows.retain(|row| row.seq <= request.through);
        let new = rows.iter().filter(|row| row.seq > from);
        let changes: Vec<_> = new.map(|row| row.bytes.clone()).collect();
        let fold = || {
            let engines = self.engines();
            let validator = engines.validator(&request.engine).flatten().unwrap();
            let snapshot = snapshot.as_ref().map(|found| &*found.bytes);
            validator.folder().unwrap().fold(snapshot, &changes)
        };
        let bytes = match &request.offered {
            Some(offered) => offered.clone(),
            None => fold().map_err(FoldError::Engine)?,
        };
        let digest = rows.last().unwrap().digest;
        Ok(FoldedLog::new(
            Snapshot::new(request.through, digest, bytes),
            rows.iter().map(|row| row.bytes.len()).collect(),
        ))
    }

    pub(super) fn poll_member(&mut self, document: &DocumentId, session: SessionId) {
        let now = self.now;
        while let Some(output) = self
            .rooms
            .get_mut(document)
            .and_then(|room| room.poll_member(now, session))
        {
            match output {
                MemberOutput::Frame(frame) => self.send_down(session, frame),
                MemberOutput::Settled(charge) => {
                    if let Some(link) = self.links.get_mut(&session) {
                        link.session.handle_settled(charge);
                    }
                }
                MemberOutput::Left => {
                    let channel = self.rooms[document].channel();
                    if let Some(link) = self.links.get_mut(&session) {
                        link.documents.remove(document);
                        link.session.handle_left(now, channel);
                    }
                }
                _ => {}
            }
        }
        self.perform_session(session);
    }

    pub(super) fn run_call(&mut self, call: Call) {
        match call.step {
            Step::Ask(user) => {
                let answer = self.answer_question(&user);
                self.call(Call {
                    step: Step::Said(answer),
                    ..call
                });
            }
            Step::Said(answer) => {
                if let Some(room) = self.rooms.get_mut(&call.document) {
                    room.handle_authorized(self.now, call.number, answer);
                    self.perform_room(&call.document);
                }
            }
            Step::Execute(request) => {
                let appended = match &request {
                    RegistryRequest::Append { changes, .. } => changes.clone(),
                    _ => Vec::new(),
                };
                let answer = self.execute(&call.document, request);
                if let RegistryAnswer::Append(Ok(outcomes)) = &answer {
                    for (change, outcome) in appended.into_iter().zip(outcomes) {
                        if let Outcome::At(seq) = outcome {
                            self.note_commit(&call.document, *seq, change.bytes);
                        }
                    }
                }
                self.call(Call {
                    step: Step::Answer(answer),
                    ..call
                });
            }
            Step::Answer(answer) => {
                if let Some(room) = self.rooms.get_mut(&call.document) {
                    room.handle_registry(self.now, call.number, answer);
                    self.perform_room(&call.document);
                }
            }
        }
    }

    pub(super) fn execute(
        &self,
        document: &DocumentId,
        request: RegistryRequest,
    ) -> RegistryAnswer {
        let registry = &self.registry;
        let call = async {
            match request {
                RegistryRequest::Create(new) => RegistryAnswer::Create(registry.create(new).await),
                RegistryRequest::Meta => RegistryAnswer::Meta(registry.meta(document).await),
                RegistryRequest::Size => RegistryAnswer::Size(registry.size(document).await),
                RegistryRequest::Append { epoch, changes, .. } => {
                    RegistryAnswer::Append(registry.append(document, epoch, None, changes).await)
                }
                RegistryRequest::Tail { after, max_bytes } => {
                    RegistryAnswer::Tail(registry.tail(document, after, max_bytes).await)
                }
                RegistryRequest::Compact {
                    epoch,
                    snapshot,
                    keep_after,
                } => RegistryAnswer::Compact(
                    registry
                        .compact(document, epoch, snapshot, keep_after)
                        .await,
                ),
                RegistryRequest::Snapshot => {
                    RegistryAnswer::Snapshot(registry.snapshot(document).await)
                }
                RegistryRequest::Origins(origins) => {
                    RegistryAnswer::Origins(registry.origins(document, &origins).await)
                }
                other => panic!("{other:?}"),
            }
        };
        wait(call)
    }
}
