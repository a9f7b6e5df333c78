//! The server: sessions, the room, its calls, and what may become of them.

use std::collections::BTreeMap;
use std::time::Duration;

use sync_core::error::{ErrorCode, PeerError};
use sync_core::ids::{Channel, OriginId, User};
use sync_core::limits::Limits;
use sync_core::registry::Outcome;
use sync_core::server::{
    Engines, Grant, MemberOutput, RegistryRequest, Room, RoomConfig, RoomOutput, RoomPhase,
    SessionEvent, SessionOutput,
};
use sync_core::wire::{AccessLevel, Message, decode_frame};

use super::{Changes, Pending, State, Step, session};
use crate::explorer::Part;
use crate::notes;
use crate::registry::{Failure, Reply, call};

impl Changes {
    pub(super) fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        // Nothing is to happen because somebody was silent for long.
        limits.idle_timeout = Duration::from_secs(3_000_000);
        limits
    }

    /// A room's seed is drawn, and nothing else tells two of them apart.
    fn make_room(&self, state: &mut State) {
        let is_over = |room: &Part<Room>| room.phase() == RoomPhase::Unloaded;
        if state.room.as_ref().is_none_or(is_over) {
            state.rooms += 1;
            let mut engines = Engines::new();
            engines.insert(self.censor.clone());
            let mut config = RoomConfig::new(self.limits(), engines, u64::from(state.rooms));
            config.fold_changes = u64::MAX;
            config.planted = self.planted;
            let channel = Channel(state.rooms);
            let room = Room::new(self.document.clone(), channel, config);
            state.room = Some(Part::new(room));
        }
    }

    pub(super) fn up(&self, state: &mut State, id: u64) -> Result<(), String> {
        let link = state.links.get_mut(&id).unwrap();
        let frame = link.up.pop_front().unwrap();
        link.session.handle_frame(state.now, frame);
        self.perform_session(state, id)
    }

    pub(super) fn perform_session(&self, state: &mut State, id: u64) -> Result<(), String> {
        let now = state.now;
        while let Some(link) = state.links.get_mut(&id)
            && let Some(output) = link.session.poll_output()
        {
            match output {
                SessionOutput::Send(frame) if link.is_left => drop(frame),
                SessionOutput::Send(frame) => link.down.push_back(frame),
                SessionOutput::Authorize { request, .. } => {
                    let grant = Grant::from(AccessLevel::Write);
                    link.session.handle_authorized(now, request, Ok(grant));
                }
                SessionOutput::Join(join) => {
                    self.make_room(state);
                    let room = state.room.as_mut().unwrap();
                    let link = state.links.get_mut(&id).unwrap();
                    link.session
                        .handle_joined(now, join.document, room.channel());
                    link.channel = Some(room.channel());
                    link.refused = None;
                    room.handle_open(now, session(id), join.open)
                        .map_err(|error| error.to_string())?;
                    self.perform_room(state)?;
                }
                SessionOutput::Push(push) => {
                    let room = state.room.as_mut();
                    if let Some(room) = room.filter(|room| room.channel() == push.channel) {
                        room.handle_push(now, session(id), push);
                        self.perform_room(state)?;
                    }
                }
                SessionOutput::StopPush { channel, error } => {
                    let room = state.room.as_mut();
                    if let Some(room) = room.filter(|room| room.channel() == channel) {
                        room.handle_stop_push(now, session(id), error);
                        self.perform_room(state)?;
                    }
                }
                SessionOutput::Leave(_) => self.leave_room(state, id, false)?,
                SessionOutput::Heads { nonce } => {
                    let room = state.room.as_ref();
                    let head =
                        room.and_then(|room| Some((room.channel(), room.head_for(session(id))?)));
                    link.session
                        .handle_heads(now, nonce, head.into_iter().collect());
                }
                SessionOutput::Event(SessionEvent::Opened {
                    user,
                    origin,
                    connection,
                }) => {
                    state.opened(id, (origin, user), connection);
                    let ids: Vec<u64> = state.links.keys().copied().collect();
                    for other in ids.into_iter().filter(|other| *other != id) {
                        self.perform_session(state, other)?;
                    }
                }
                SessionOutput::Event(SessionEvent::ProtocolError(error)) => {
                    return Err(format!("the server was told nonsense: {error}"));
                }
                SessionOutput::Event(SessionEvent::PeerReported(error)) => {
                    return Err(format!("the client was told nonsense: {error:?}"));
                }
                SessionOutput::Close { code, .. } => self.end(state, id, code)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The server is done with a connection.
    fn end(&self, state: &mut State, id: u64, code: u16) -> Result<(), String> {
        self.leave_room(state, id, true)?;
        state.owners.retain(|_, (_, owner)| *owner != id);
        let link = state.links.get_mut(&id).unwrap();
        link.up.clear();
        link.is_ready = false;
        link.closed = Some(code);
        if link.is_left {
            state.links.remove(&id);
        }
        Ok(())
    }

    pub(super) fn lose(&self, state: &mut State, id: u64) -> Result<(), String> {
        if state.links[&id].closed.is_none() {
            self.leave_room(state, id, true)?;
        }
        state.owners.retain(|_, (_, owner)| *owner != id);
        state.links.remove(&id);
        Ok(())
    }

    fn leave_room(&self, state: &mut State, id: u64, is_lost: bool) -> Result<(), String> {
        let link = state.links.get_mut(&id).unwrap();
        let channel = link.channel.take();
        if let Some(room) = &mut state.room
            && Some(room.channel()) == channel
        {
            if is_lost {
                room.handle_lost(state.now, session(id));
            } else {
                room.handle_close(state.now, session(id));
            }
            self.perform_room(state)?;
        }
        Ok(())
    }

    pub(super) fn perform_room(&self, state: &mut State) -> Result<(), String> {
        while let Some(room) = &mut state.room
            && let Some(output) = room.poll_output()
        {
            match output {
                RoomOutput::Registry(number, request) => {
                    if let RegistryRequest::Append { changes, .. } = &request {
                        self.check_append(state, changes)?;
                    }
                    let step = Step::Asked(request);
                    state.calls.insert(number.0, Pending { number, step });
                }
                RoomOutput::Wake(session) => {
                    if let Some(link) = state.links.get_mut(&session.0) {
                        link.is_ready = true;
                    }
                }
                RoomOutput::Settled(session, charge) => {
                    if let Some(link) = state.links.get_mut(&session.0) {
                        link.session.handle_settled(charge);
                    }
                }
                RoomOutput::Superseded(session) => {
                    if let Some(link) = state.links.get_mut(&session.0) {
                        link.channel = None;
                        link.session.handle_end(state.now, superseded());
                        self.perform_session(state, session.0)?;
                    }
                }
                RoomOutput::Fold(_) | RoomOutput::Check(..) | RoomOutput::Ask(..) => {
                    return Err("the room asks for what it was not told to".into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn write(&self, state: &mut State, id: u64) -> Result<(), String> {
        let link = state.links.get_mut(&id).unwrap();
        link.is_ready = false;
        let Some(room) = &mut state.room else {
            return Ok(());
        };
        while let Some(output) = room.poll_member(state.now, session(id)) {
            match output {
                MemberOutput::Frame(frame) => {
                    let message = decode_frame(frame.clone(), 1 << 20);
                    if let Message::Refuse(refuse) = message.map_err(|error| error.to_string())? {
                        link.refused = Some(sync_core::ids::ChangeId {
                            origin: refuse.origin,
                            number: refuse.number,
                        });
                    }
                    if !link.is_left {
                        link.down.push_back(frame);
                    }
                }
                MemberOutput::Settled(charge) => link.session.handle_settled(charge),
                MemberOutput::Left => {
                    if let Some(channel) = link.channel.take() {
                        link.session.handle_left(state.now, channel);
                    }
                }
                _ => {}
            }
        }
        self.perform_room(state)?;
        self.perform_session(state, id)
    }

    pub(super) fn execute(&self, state: &mut State, id: u64) -> Result<(), String> {
        let pending = state.calls.get_mut(&id).unwrap();
        let Step::Asked(request) = pending.step.clone() else {
            return Ok(());
        };
        let appended = match &request {
            RegistryRequest::Append { changes, .. } => changes.clone(),
            _ => Vec::new(),
        };
        let reply = state.registry.execute(request);
        if let Reply::Append(outcomes) = &reply {
            for (change, outcome) in appended.iter().zip(outcomes) {
                if matches!(outcome, Outcome::At(_)) {
                    let notes = notes::read(&change.bytes).unwrap();
                    let labels = notes.into_iter().map(|note| note.label);
                    state.committed.extend(labels);
                }
            }
        }
        pending.step = Step::Answered(reply);
        Ok(())
    }

    pub(super) fn blur(&self, state: &mut State, id: u64) -> Result<(), String> {
        self.execute(state, id)?;
        state.left.faults -= 1;
        let pending = state.calls.get_mut(&id).unwrap();
        let reply = Reply::Failed(crate::registry::Call::Append, Failure::Unknown);
        pending.step = Step::Answered(reply);
        Ok(())
    }

    pub(super) fn fail(&self, state: &mut State, id: u64, failure: Failure) {
        state.left.faults -= 1;
        let pending = state.calls.get_mut(&id).unwrap();
        if let Step::Asked(request) = &pending.step {
            pending.step = Step::Answered(Reply::Failed(call(request), failure));
        }
    }

    pub(super) fn answer(&self, state: &mut State, id: u64) -> Result<(), String> {
        let pending = state.calls.remove(&id).unwrap();
        if let (Step::Answered(reply), Some(room)) = (pending.step, &mut state.room) {
            room.handle_registry(state.now, pending.number, reply.answer());
        }
        self.perform_room(state)
    }

    /// The server's process is gone, with its rooms and calls, and another one there.
    pub(super) fn crash(&self, state: &mut State) {
        state.room = None;
        state.calls.clear();
        state.owners.clear();
        for link in std::mem::take(&mut state.links).into_values() {
            let client = &mut *state.clients[link.client];
            if !link.is_left {
                client.link = None;
                client.state.handle_lost(state.now, link.attempt, None);
                self.perform_client(state, link.client);
            }
        }
    }
}

impl State {
    /// Of two sessions of one client process the one with the newer connection stays (protocol 6.2).
    fn opened(&mut self, id: u64, owner: (OriginId, User), connection: u64) {
        let older = match self.owners.get(&owner) {
            Some((theirs, _)) if *theirs > connection => Some(id),
            _ => self
                .owners
                .insert(owner, (connection, id))
                .map(|(_, id)| id),
        };
        if let Some(link) = older.and_then(|older| self.links.get_mut(&older)) {
            link.up.clear();
            link.session.handle_end(self.now, superseded());
        }
    }
}

/// Which of a client process's connections is its session.
pub(super) type Owners = BTreeMap<(OriginId, User), (u64, u64)>;

fn superseded() -> PeerError {
    PeerError::new(ErrorCode::Superseded, "a newer connection took over")
}
