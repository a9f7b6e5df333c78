//! Visitors: what their clients send, and what their sessions do about it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use sync_core::ids::{ChangeId, EngineId, OriginId, RequestId, SessionId, User};
use sync_core::limits::{Limits, push_charge};
use sync_core::server::{Grant, MemberOutput, ServerSession, SessionConfig, SessionOutput};
use sync_core::time::Time;
use sync_core::wire::{
    AccessLevel, Close, Compression, Hello, Message, Open, PROTOCOL_VERSIONS, Push, Reference,
    decode_frame, encode_frame,
};

use super::{Join, Life, State, Visitor};
use crate::notes::ENGINE;

impl Life {
    pub(super) fn limits() -> Limits {
        let mut limits = Limits::default();
        limits.idle_timeout = Duration::from_secs(3_000_000);
        limits
    }

    pub(super) fn visitor(&self, now: Time, index: usize) -> Visitor {
        let mut config = SessionConfig::new(Self::limits());
        config.user = Some(User::new(format!("user-{index}")));
        config.gzip = false;
        let mut session = ServerSession::new(now, config, session(index));
        let hello = Hello {
            versions: PROTOCOL_VERSIONS,
            software: String::new(),
            origin: origin(index),
            connection: 1,
            credentials: None,
            compression: Vec::new(),
            resume: None,
        };
        session.handle_frame(now, encode_frame(&Message::Hello(hello), Compression::None));
        while session.poll_output().is_some() {}
        Visitor {
            session,
            opens: 0,
            pushes: 0,
            join: None,
            rooms: BTreeSet::new(),
            ready: VecDeque::new(),
            asked: None,
            writes_to: None,
            unanswered: BTreeSet::new(),
            pushed_charge: 0,
            settled_charge: 0,
            is_gone: false,
        }
    }

    pub(super) fn ask_to_open(&self, state: &mut State, index: usize) -> Result<(), String> {
        let visitor = &mut *state.visitors[index];
        visitor.opens += 1;
        let request = u32::from(visitor.opens);
        visitor.asked = Some(request);
        visitor.writes_to = None;
        // What was pushed before is judged by the answer.
        visitor.unanswered.clear();
        let open = Message::Open(Open {
            request: RequestId(request),
            document: self.document.clone(),
            engine: EngineId::new(ENGINE).unwrap(),
            cursor: None,
            origins: Vec::new(),
            access: AccessLevel::Write,
            create: true,
            partial: None,
        });
        self.receive(state, index, &open)
    }

    pub(super) fn push(&self, state: &mut State, index: usize) -> Result<(), String> {
        let visitor = &mut *state.visitors[index];
        visitor.pushes += 1;
        let number = u64::from(visitor.pushes);
        let changes = vec![change(index, number)];
        visitor.unanswered.insert(number);
        visitor.pushed_charge += push_charge(&changes);
        let push = Message::Push(Push {
            channel: visitor.writes_to.unwrap(),
            origin: origin(index),
            first_number: number,
            changes,
            reconciling: false,
        });
        self.receive(state, index, &push)
    }

    pub(super) fn close(&self, state: &mut State, index: usize) -> Result<(), String> {
        let visitor = &mut *state.visitors[index];
        let channel = visitor.writes_to.take().unwrap();
        visitor.unanswered.clear();
        self.receive(state, index, &Message::Close(Close { channel }))
    }

    pub(super) fn lose(&self, state: &mut State, index: usize) -> Result<(), String> {
        let (now, visitor) = (state.now, &mut *state.visitors[index]);
        visitor.is_gone = true;
        visitor.unanswered.clear();
        for channel in std::mem::take(&mut visitor.rooms) {
            self.turn(state, channel, |room| room.handle_lost(now, session(index)))?;
        }
        Ok(())
    }

    fn receive(&self, state: &mut State, index: usize, message: &Message) -> Result<(), String> {
        let now = state.now;
        let frame = encode_frame(message, Compression::None);
        state.visitors[index].session.handle_frame(now, frame);
        self.carry_out(state, index)
    }

    /// As `Connection::carry_out`.
    fn carry_out(&self, state: &mut State, index: usize) -> Result<(), String> {
        let now = state.now;
        while let Some(output) = state.visitors[index].session.poll_output() {
            let visitor = &mut *state.visitors[index];
            match output {
                SessionOutput::Authorize { request, .. } => {
                    let grant = Grant::from(AccessLevel::Write);
                    visitor.session.handle_authorized(now, request, Ok(grant));
                }
                SessionOutput::Join(join) => visitor.join = Some((join, Join::Look)),
                SessionOutput::Push(push) if visitor.rooms.contains(&push.channel) => {
                    let channel = push.channel;
                    self.turn(state, channel, |room| {
                        room.handle_push(now, session(index), push);
                    })?;
                }
                SessionOutput::Leave(channel) if visitor.rooms.remove(&channel) => {
                    self.turn(state, channel, |room| {
                        room.handle_close(now, session(index));
                    })?;
                }
                SessionOutput::Send(frame) => self.read(state, index, frame)?,
                SessionOutput::Close { reason, .. } => return Err(reason.to_string()),
                _ => {}
            }
        }
        Ok(())
    }

    /// As `Shared::room`.
    pub(super) fn look(&self, state: &mut State, index: usize) -> Result<(), String> {
        let before = state.all.len();
        let mut made = None;
        let channel = *state.rooms.enter(&self.document, |channel| {
            made = Some(channel);
            channel
        });
        if let Some(channel) = made {
            let live = self.make_room(channel);
            if state.all.insert(channel, live).is_some() || before != state.all.len() - 1 {
                return Err(format!("{channel:?} names two rooms"));
            }
        }
        state.visitors[index].set_join(Join::Enter(channel));
        Ok(())
    }

    /// As `RoomHandle::open`, and what `Connection::join` does when it has worked.
    pub(super) fn enter(&self, state: &mut State, index: usize) -> Result<(), String> {
        let (now, visitor) = (state.now, &mut *state.visitors[index]);
        let Some((join, Join::Enter(channel))) = visitor.join.clone() else {
            return Ok(());
        };
        let opened = self.turn(state, channel, |room| {
            room.handle_open(now, session(index), join.open)
        })?;
        let visitor = &mut *state.visitors[index];
        if opened.is_err() {
            visitor.set_join(Join::Forget(channel));
            return Ok(());
        }
        visitor.join = None;
        visitor.session.handle_joined(now, join.document, channel);
        visitor.rooms.insert(channel);
        self.carry_out(state, index)
    }

    pub(super) fn forget(&self, state: &mut State, index: usize) {
        if let Some((_, Join::Forget(channel))) = state.visitors[index].join {
            self.forget_room(state, channel);
            state.visitors[index].set_join(Join::Look);
        }
    }

    /// As `RoomHandle::poll`, and what `Connection::write_room` does with that.
    pub(super) fn poll(&self, state: &mut State, index: usize) -> Result<(), String> {
        let now = state.now;
        let Some(channel) = state.visitors[index].ready.pop_front() else {
            return Ok(());
        };
        let mut outputs = Vec::new();
        self.turn(state, channel, |room| {
            while let Some(output) = room.poll_member(now, session(index)) {
                outputs.push(output);
            }
        })?;
        for output in outputs {
            let visitor = &mut *state.visitors[index];
            match output {
                MemberOutput::Frame(frame) => self.read(state, index, frame)?,
                MemberOutput::Settled(charge) => {
                    visitor.settled_charge += charge;
                    visitor.session.handle_settled(charge);
                }
                MemberOutput::Left => {
                    visitor.session.handle_left(now, channel);
                    visitor.rooms.remove(&channel);
                }
                _ => {}
            }
        }
        self.carry_out(state, index)
    }

    /// What the client makes of a frame.
    fn read(&self, state: &mut State, index: usize, frame: Bytes) -> Result<(), String> {
        let visitor = &mut *state.visitors[index];
        let message = decode_frame(frame, 1 << 20).map_err(|error| error.to_string())?;
        match message {
            Message::Opened(opened) if visitor.asked == Some(opened.request.0) => {
                visitor.asked = None;
                visitor.writes_to = Some(opened.channel);
                // It would push anew what is lacking.
                let (_, last, _) = opened.origins[0];
                visitor.pushes = u8::try_from(last).unwrap();
            }
            Message::Ack(ack) => {
                let through = ack.number + ack.count.saturating_sub(1);
                visitor.unanswered.retain(|number| *number > through);
            }
            Message::Changes(changes) => {
                // It knows its own by their bytes, and does not push anew what it has seen there.
                for change in changes.changes {
                    let is_its = |number: &u64| self::change(index, *number) == change.bytes;
                    if let Some(number) = (1..=u64::from(self.bounds.pushes)).find(is_its) {
                        visitor.unanswered.remove(&number);
                        visitor.pushes = visitor.pushes.max(number as u8);
                    }
                }
            }
            Message::Refuse(_) | Message::Closed(_) => visitor.stop(),
            Message::Error(error) => match error.reference {
                Reference::Request(request) if visitor.asked == Some(request.0) => {
                    visitor.asked = None;
                    state.has_failed = true;
                }
                Reference::Channel(_) => {
                    visitor.stop();
                    state.has_failed = true;
                }
                _ => {}
            },
            _ => {}
        }
        Ok(())
    }
}

impl Visitor {
    pub(super) fn set_join(&mut self, next: Join) {
        if let Some((_, join)) = &mut self.join {
            *join = next;
        }
    }

    fn stop(&mut self) {
        self.unanswered.clear();
        self.writes_to = None;
    }
}

pub(super) const fn session(index: usize) -> SessionId {
    SessionId(index as u64 + 1)
}

const fn origin(index: usize) -> OriginId {
    OriginId(index as u128 + 1)
}

pub(super) const fn id(index: usize, number: u64) -> ChangeId {
    ChangeId {
        origin: origin(index),
        number,
    }
}

/// One note that knew nothing.
pub(super) fn change(index: usize, number: u64) -> Bytes {
    let mut bytes = (index as u64).to_be_bytes().to_vec();
    bytes.extend([number as u8, number as u8, 0]);
    bytes.into()
}
