//! Opening: the reads of the registry that an answer is computed from (`docs/protocol.md` section 7.1).

use super::member::{Member, MemberState};
use super::{OpenRequest, Purpose, Room, RoomOutput, absence};
use crate::error::{ErrorCode, PeerError};
use crate::history::{Epoch, Seq};
use crate::ids::{OriginId, SessionId};
use crate::registry::{DocumentMeta, NewDocument, OriginEntry, RegistryError, Tail};
use crate::server::registry::{RegistryRequest, RequestNumber};
use crate::time::Time;
use crate::wire::{AccessLevel, Message};

/// Times that an open is started over because the document got another history between two of its reads.
const OPEN_ATTEMPTS_MAX: u32 = 4;

/// The reads that an open waits for.
#[derive(Debug, Clone, Default)]
pub(super) struct Opening {
    pub(super) attempts: u32,
    pub(super) meta: Option<(RequestNumber, DocumentMeta)>,
    pub(super) tail: Read<Tail>,
    pub(super) origins: Read<Vec<Option<OriginEntry>>>,
}

#[derive(Debug, Clone, Default)]
pub(super) enum Read<T> {
    #[default]
    NotNeeded,
    Pending,
    Done(T),
}

impl<T> Read<T> {
    pub(super) const fn is_pending(&self) -> bool {
        matches!(self, Self::Pending)
    }

    pub(super) fn take(&mut self) -> Option<T> {
        match std::mem::take(self) {
            Self::Done(value) => Some(value),
            Self::NotNeeded | Self::Pending => None,
        }
    }
}

impl Room {
    pub(super) fn open(&mut self, now: Time, session: SessionId, open: OpenRequest) {
        let key = (open.origin, open.user.clone());
        if let Some(other) = self.by_origin.get(&key).copied()
            && other != session
        {
            let is_newer = self
                .members
                .get(&other)
                .is_some_and(|member| member.open.connection > open.connection);
            if is_newer {
                // A straggler of a connection that the client has given up.
                return self.outputs.push_back(RoomOutput::Superseded(session));
            }
            self.presence.lose(now, other);
            self.remove(now, other);
            self.outputs.push_back(RoomOutput::Superseded(other));
        }
        self.by_origin.insert(key, session);
        self.offers.joined(session, open.access);
        self.last_generation = self.last_generation.wrapping_add(1);
        let generation = self.last_generation;
        if let Some(member) = self.members.get_mut(&session) {
            member.prompt.clear();
        }
        self.reset_member(session);
        if let Some(member) = self.members.get_mut(&session) {
            let earlier = (session, member.generation);
            member.open = open;
            member.generation = generation;
            member.state = MemberState::Stopped;
            self.leave_slot(now, earlier);
        } else {
            let member = Member::new(open, Opening::default(), generation);
            self.members.insert(session, member);
        }
        if let Some(member) = self.members.get_mut(&session) {
            member.asked = Some(now);
        }
        self.begin_permit(now, session);
        self.start_open((session, generation));
    }

    /// Reads everything about an open from the start.
    pub(super) fn start_open(&mut self, key: (SessionId, u32)) {
        let head = self.head();
        let Some(member) = self.live(key) else {
            return;
        };
        let attempts = match &member.state {
            MemberState::Opening(opening) => opening.attempts + 1,
            _ => 1,
        };
        member.state = MemberState::Opening(Box::new(Opening {
            attempts,
            ..Opening::default()
        }));
        if attempts > OPEN_ATTEMPTS_MAX {
            let error = PeerError::new(
                ErrorCode::StorageUnavailable,
                "the document's history keeps changing",
            )
            .retry_after(self.config.retry_delay_max);
            // The slot, if it is this member's, ends with its time.
            return self.fail_open(key, error);
        }
        self.request(
            Purpose::OpenMeta { member: key, head },
            RegistryRequest::Meta,
        );
    }

    /// Ends an open that found no answer, without touching anything else.
    fn fail_open(&mut self, key: (SessionId, u32), error: PeerError) {
        let Some(member) = self.live(key) else {
            return;
        };
        let request = member.open.request;
        member.state = MemberState::Ended;
        self.counts.told(error.code);
        let error = crate::wire::ErrorMessage::new(error, crate::wire::Reference::Request(request));
        self.prompt(key.0, &Message::Error(error));
    }

    pub(super) fn opening(&mut self, key: (SessionId, u32)) -> Option<&mut Opening> {
        match &mut self.live(key)?.state {
            MemberState::Opening(opening) => Some(opening),
            _ => None,
        }
    }

    pub(super) fn on_open_meta(
        &mut self,
        now: Time,
        number: RequestNumber,
        key: (SessionId, u32),
        head_before: Seq,
        result: Result<DocumentMeta, RegistryError>,
    ) {
        if self.opening(key).is_none() {
            return;
        }
        let meta = match result {
            Ok(meta) => meta,
            Err(error) => return self.on_open_failed(now, key, error),
        };
        if self.config.engines.validator(&meta.engine).is_none() {
            let error = PeerError::new(
                ErrorCode::UnknownEngine,
                format!("this server does not know the engine {}", meta.engine),
            );
            return self.refuse_open(now, key, error);
        }
        match &self.history {
            _ if self.outdated_reads.is_some_and(|last| number <= last) => {
                return self.start_open(key);
            }
            Some(history) if number < history.read => return self.start_open(key),
            Some(history)
                if !history.is_stale
                    && history.epoch == meta.epoch
                    && meta.head >= head_before
                    && (meta.head != history.head || meta.digest == history.digest) => {}
            // Nothing has been published yet, or something that is not the document's history any more.
            _ => self.adopt(now, number, &meta),
        }
        self.seen = self.seen.max(meta.head);
        self.folding.learn(meta.snapshot_seq);
        let Some(member) = self.live(key) else {
            return;
        };
        if member.open.engine != meta.engine {
            let error = PeerError::new(
                ErrorCode::EngineMismatch,
                format!(
                    "the document is of engine {}, not {}",
                    meta.engine, member.open.engine
                ),
            );
            return self.refuse_open(now, key, error);
        }
        self.read_open(now, key, number, meta);
    }

    /// Reads what depends on the document's history.
    fn read_open(
        &mut self,
        now: Time,
        key: (SessionId, u32),
        number: RequestNumber,
        meta: DocumentMeta,
    ) {
        // A session may open many documents at once. Who lacks more is sent the rest when its turn comes.
        let max_bytes = self.config.open_bytes();
        let Some(member) = self.live(key) else {
            return;
        };
        let after = member
            .open
            .cursor
            .filter(|cursor| cursor.epoch == meta.epoch)
            .map(|cursor| cursor.seq);
        let origins = named_origins(&member.open);
        if let MemberState::Opening(opening) = &mut member.state {
            opening.meta = Some((number, meta));
            opening.origins = Read::Pending;
            if after.is_some() {
                opening.tail = Read::Pending;
            }
        }
        if let Some(after) = after {
            self.request(
                Purpose::OpenTail { member: key },
                RegistryRequest::Tail { after, max_bytes },
            );
        }
        self.request(
            Purpose::OpenOrigins { member: key },
            RegistryRequest::Origins(origins),
        );
        self.finish_open(now, key);
    }

    pub(super) fn on_open_tail(
        &mut self,
        now: Time,
        key: (SessionId, u32),
        result: Result<Tail, RegistryError>,
    ) {
        match (result, self.opening(key)) {
            (_, None) => {}
            (Ok(tail), Some(opening)) => {
                opening.tail = Read::Done(tail);
                self.finish_open(now, key);
            }
            (Err(error), Some(_)) => self.on_open_failed(now, key, error),
        }
    }

    pub(super) fn on_open_origins(
        &mut self,
        now: Time,
        key: (SessionId, u32),
        result: Result<Vec<Option<OriginEntry>>, RegistryError>,
    ) {
        match (result, self.opening(key)) {
            (_, None) => {}
            (Ok(origins), Some(opening)) => {
                opening.origins = Read::Done(origins);
                self.finish_open(now, key);
            }
            (Err(error), Some(_)) => self.on_open_failed(now, key, error),
        }
    }

    fn on_open_failed(&mut self, now: Time, key: (SessionId, u32), error: RegistryError) {
        let Some(absence) = absence(&error) else {
            let error = self.registry_failed("open", error);
            return self.refuse_open(now, key, error);
        };
        if absence.code == ErrorCode::Deleted {
            self.end(now, key.0, absence.clone());
            return self.gone(now, &absence);
        }
        let Some(member) = self.live(key) else {
            return;
        };
        if !member.open.create || member.open.access < AccessLevel::Write {
            return self.refuse_open(now, key, absence);
        }
        let engine = member.open.engine.clone();
        if self.config.engines.validator(&engine).is_none() {
            let error = PeerError::new(
                ErrorCode::UnknownEngine,
                format!("this server does not know the engine {engine}"),
            );
            return self.refuse_open(now, key, error);
        }
        self.n_epochs += 1;
        let epoch = twox_hash::XxHash3_64::oneshot_with_seed(
            self.config.seed,
            &self.n_epochs.to_le_bytes(),
        );
        let document = NewDocument::new(self.document.clone(), engine, Epoch::first(epoch));
        self.request(
            Purpose::OpenCreate { member: key },
            RegistryRequest::Create(document),
        );
    }

    pub(super) fn refuse_open(&mut self, now: Time, key: (SessionId, u32), error: PeerError) {
        self.fail_open(key, error);
        self.leave_slot(now, key);
    }
}

/// The session's own origin and those in its outbox.
pub(super) fn named_origins(open: &OpenRequest) -> Vec<OriginId> {
    let mut origins: Vec<_> = open.origins.iter().map(|(origin, _)| *origin).collect();
    if !origins.contains(&open.origin) {
        origins.push(open.origin);
    }
    origins
}
