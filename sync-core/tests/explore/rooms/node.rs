//! The node: rooms, their tasks, and their calls.

use std::collections::BTreeSet;

use sync_core::error::{ErrorCode, PeerError};
use sync_core::ids::{Channel, User};
use sync_core::registry::NewChange;
use sync_core::server::{Engines, RegistryRequest, Room, RoomConfig, RoomOutput, RoomPhase};

use super::visitor::{change, id};
use super::{Call, Life, Live, State, Step};
use crate::explorer::Part;
use crate::registry::{Failure, Reply, call};

impl Life {
    pub(super) fn make_room(&self, channel: Channel) -> Part<Live> {
        let mut engines = Engines::new();
        engines.insert(self.censor.clone());
        let mut config = RoomConfig::new(Self::limits(), engines, u64::from(channel.0));
        config.fold_changes = u64::MAX;
        Part::new(Live {
            room: Room::new(self.document.clone(), channel, config),
            requests: Vec::new(),
            calls: BTreeSet::new(),
            is_told: false,
            forgets: false,
            is_over: false,
        })
    }

    /// As `RoomHandle::turn`.
    pub(super) fn turn<R>(
        &self,
        state: &mut State,
        channel: Channel,
        f: impl FnOnce(&mut Room) -> R,
    ) -> Result<R, String> {
        let live = &mut **state.all.get_mut(&channel).unwrap();
        let result = f(&mut live.room);
        while let Some(output) = live.room.poll_output() {
            match output {
                RoomOutput::Registry(number, request) => live.requests.push((number, request)),
                RoomOutput::Wake(session) => {
                    let visitor = &mut state.visitors[visitor(session.0)];
                    visitor.ready.push_back(channel);
                }
                RoomOutput::Settled(session, charge) => {
                    let visitor = &mut state.visitors[visitor(session.0)];
                    visitor.settled_charge += charge;
                    visitor.session.handle_settled(charge);
                }
                RoomOutput::Unloaded => {
                    if std::mem::replace(&mut live.is_told, true) {
                        return Err("a room is unloaded twice".into());
                    }
                    live.forgets = true;
                }
                _ => {}
            }
        }
        Ok(result)
    }

    /// As `Shared::forget_room`.
    pub(super) fn forget_room(&self, state: &mut State, channel: Channel) {
        state.rooms.forget(&self.document, channel, |_| {});
    }

    /// The task picks up what the room wants, and ends when that is over.
    pub(super) fn take(&self, state: &mut State, channel: Channel) {
        let live = state.all.get_mut(&channel).unwrap();
        for (number, request) in std::mem::take(&mut live.requests) {
            // Of the few that a room makes here.
            let id = u64::from(channel.0) * 1_000 + number.0;
            live.calls.insert(id);
            let step = Step::Asked(request);
            let call = Call {
                channel,
                number,
                step,
            };
            state.calls.insert(id, call);
        }
        live.is_over = live.room.phase() == RoomPhase::Unloaded && live.calls.is_empty();
    }

    pub(super) fn execute(&self, state: &mut State, id: u64) {
        let call = state.calls.get_mut(&id).unwrap();
        if let Step::Asked(request) = call.step.clone() {
            call.step = Step::Answered(state.registry.execute(request));
        }
    }

    pub(super) fn fail(&self, state: &mut State, id: u64, failure: Failure) {
        state.left.faults -= 1;
        state.has_failed = true;
        let pending = state.calls.get_mut(&id).unwrap();
        let kind = match &pending.step {
            Step::Asked(request) => call(request),
            // Of an append that was carried out.
            Step::Answered(_) => crate::registry::Call::Append,
        };
        pending.step = Step::Answered(Reply::Failed(kind, failure));
    }

    pub(super) fn answer(&self, state: &mut State, id: u64) -> Result<(), String> {
        let call = state.calls.remove(&id).unwrap();
        let live = state.all.get_mut(&call.channel).unwrap();
        live.calls.remove(&id);
        let now = state.now;
        let Step::Answered(reply) = call.step else {
            return Ok(());
        };
        self.turn(state, call.channel, |room| {
            room.handle_registry(now, call.number, reply.answer());
        })
    }

    pub(super) fn append_elsewhere(&self, state: &mut State) -> Result<(), String> {
        state.left.elsewhere -= 1;
        let document = state.registry.document.as_mut().unwrap();
        let number = u64::from(self.bounds.elsewhere - state.left.elsewhere);
        let (id, user) = (id(ELSEWHERE, number), User::new("elsewhere"));
        let change = NewChange::new(id, user, change(ELSEWHERE, number));
        let head = document.meta.head.next();
        let request = RegistryRequest::Append {
            epoch: document.meta.epoch,
            expect: None,
            changes: vec![change],
        };
        state.registry.execute(request);
        let now = state.now;
        match state.rooms.get(&self.document).copied() {
            Some(channel) => self.turn(state, channel, |room| room.handle_head(now, head)),
            None => Ok(()),
        }
    }

    pub(super) fn evict(&self, state: &mut State, channel: Channel) -> Result<(), String> {
        let now = state.now;
        let reason = PeerError::new(ErrorCode::ShuttingDown, "evicted");
        self.turn(state, channel, |room| room.handle_evict(now, &reason))
    }
}

/// In the place of a visitor's index: who pushes to another node.
const ELSEWHERE: usize = 1_000;

fn visitor(session: u64) -> usize {
    usize::try_from(session).unwrap() - 1
}
