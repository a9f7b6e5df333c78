//! Folds by clients: of documents that the server only relays, one client at a time is asked for a snapshot (design 2.4).
//!
//! The room decides when, as for folds of its own, and checks what is offered against the log; what is in the snapshot
//! only clients know. So only a client that may maintain the document is asked, and the rows stay for long.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::Room;
use super::fold::FoldRequest;
use super::member::{Control, Member, MemberState, Writing};
use crate::error::{ErrorCode, PeerError};
use crate::history::{Digest, Epoch, Seq};
use crate::ids::SessionId;
use crate::time::Time;
use crate::wire::{
    self, AccessLevel, Compression, ErrorMessage, FoldOffer, Message, Reference, encode_frame,
};

/// Who can be asked, and the client that has been, if one has.
#[derive(Debug, Clone, Default)]
pub(super) struct Offers {
    /// Sessions that may maintain the document: usually few of many.
    maintainers: BTreeSet<SessionId>,
    asked: Option<Asked>,
    /// Those that were asked for this fold and gave none.
    tried: BTreeSet<SessionId>,
}

#[derive(Debug, Clone)]
struct Asked {
    member: (SessionId, u32),
    epoch: Epoch,
    seq: Seq,
    digest: Digest,
    /// Changes and bytes that the log had when it was asked.
    log: (u64, usize),
    deadline: Time,
}

impl Offers {
    pub(super) fn joined(&mut self, session: SessionId, access: AccessLevel) {
        if access >= AccessLevel::Maintain {
            self.maintainers.insert(session);
        } else {
            self.maintainers.remove(&session);
        }
    }

    pub(super) fn left(&mut self, session: SessionId) {
        self.maintainers.remove(&session);
        self.tried.remove(&session);
    }

    pub(super) const fn is_asked(&self) -> bool {
        self.asked.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.asked.as_ref().map(|asked| asked.deadline)
    }
}

impl Room {
    /// Whether nobody here knows the engine of the document, so that only clients can fold it.
    pub(super) fn is_relayed(&self) -> bool {
        let engine = self.folding.engine.as_ref();
        engine.is_some_and(|engine| matches!(self.config.engines.validator(engine), Some(None)))
    }

    /// How long changes stay in the log after they have been folded, within bounds.
    pub(super) fn keep_age(&self) -> Duration {
        if self.is_relayed() {
            self.config.keep_age.max(self.config.keep_relayed_age)
        } else {
            self.config.keep_age
        }
    }

    /// Asks one member for a fold of everything published, if one is there that may be asked. Whether one has been.
    pub(super) fn ask_for_fold(&mut self, now: Time, log: (u64, usize)) {
        let Some((epoch, seq, digest)) = self
            .current()
            .map(|history| (history.epoch, history.head, history.digest))
        else {
            return;
        };
        let Some(member) = self.folding_member() else {
            if !self.offers.tried.is_empty() {
                // Everybody has been asked. Again once there is more to fold.
                self.offers.tried.clear();
                self.folding.is_due = false;
            }
            return;
        };
        self.folding.is_due = false;
        let request = wire::FoldRequest {
            channel: self.channel,
            seq,
        };
        if let Some(asked) = self.live(member) {
            // Right behind the last change that it is to fold, so that the client stands exactly there.
            asked.controls.push_back(Control {
                after: seq,
                frame: encode_frame(&Message::FoldRequest(request), Compression::None),
                charge: 0,
                repeat: None,
            });
        }
        self.offers.asked = Some(Asked {
            member,
            epoch,
            seq,
            digest,
            log,
            deadline: now + self.config.fold_offer_timeout,
        });
        self.wake(member.0);
    }

    /// The member that has been sent most, among those that may maintain the document, have nothing in the line, and have
    /// not been asked in vain.
    fn folding_member(&self) -> Option<(SessionId, u32)> {
        if self.offers.maintainers.is_empty() {
            return None;
        }
        let in_flight = self.in_flight.iter().flat_map(|batch| &batch.items);
        let writing: BTreeSet<_> = self
            .queue
            .iter()
            .chain(in_flight)
            .map(|item| item.member)
            .collect();
        let next = |member: &Member| match &member.state {
            MemberState::Streaming(stream)
                if member.writing == Writing::Open && !member.permit.is_stopped() =>
            {
                Some(stream.next)
            }
            _ => None,
        };
        let untried = self.offers.maintainers.difference(&self.offers.tried);
        untried
            .filter_map(|session| {
                let member = self.members.get(session)?;
                Some((next(member)?, (*session, member.generation)))
            })
            .filter(|(_, key)| !writing.contains(key))
            .max_by_key(|(next, _)| *next)
            .map(|(_, key)| key)
    }

    /// Gives up waiting for a member that has left, or that took too long.
    pub(super) fn end_vain_request(&mut self, now: Time) {
        let Some(asked) = &self.offers.asked else {
            return;
        };
        let (member, is_late) = (asked.member, asked.deadline <= now);
        let is_current = self
            .current()
            .is_some_and(|history| history.epoch == asked.epoch);
        let is_there = self
            .live(member)
            .is_some_and(|member| matches!(member.state, MemberState::Streaming(_)));
        if !is_there || !is_current {
            self.offers.asked = None;
            self.folding.is_due = true;
        } else if is_late {
            self.ask_another(member.0);
        }
    }

    fn ask_another(&mut self, session: SessionId) {
        self.offers.asked = None;
        self.offers.tried.insert(session);
        self.folding.is_due = true;
    }

    /// Takes a fold that a session offers.
    pub fn handle_fold_offer(&mut self, now: Time, session: SessionId, offer: FoldOffer) {
        if let Err(error) = self.take_offer(now, session, offer) {
            self.counts.told(error.code);
            let error = ErrorMessage::new(error, Reference::Channel(self.channel));
            self.prompt(session, &Message::Error(error));
        }
        self.turn(now);
    }

    fn take_offer(
        &mut self,
        now: Time,
        session: SessionId,
        offer: FoldOffer,
    ) -> Result<(), PeerError> {
        let Some(member) = self.members.get(&session) else {
            return Ok(());
        };
        if member.open.access < AccessLevel::Maintain {
            return Err(PeerError::new(
                ErrorCode::AccessDenied,
                format!("{} may not fold the document", member.open.user.id),
            ));
        }
        if member.permit.is_stopped() {
            return Err(refused("it is not known now who may fold the document"));
        }
        let key = (session, member.generation);
        let Some(asked) = self
            .offers
            .asked
            .take_if(|asked| asked.member == key && asked.deadline > now)
        else {
            return Err(refused("this session has not been asked for a fold"));
        };
        let checked = self.check_offer(&asked, &offer);
        if let Err(error) = checked {
            self.ask_another(session);
            return Err(error);
        }
        self.offers.tried.clear();
        self.fold_offered(now, asked.epoch, asked.seq, asked.log, offer.bytes);
        Ok(())
    }

    fn check_offer(&self, asked: &Asked, offer: &FoldOffer) -> Result<(), PeerError> {
        let is_current = self
            .current()
            .is_some_and(|history| history.epoch == asked.epoch);
        if !is_current || offer.epoch != asked.epoch {
            return Err(refused("the fold is of another history"));
        }
        if offer.seq != asked.seq {
            return Err(refused(format!(
                "the fold is of {}, asked for was {}",
                offer.seq, asked.seq
            )));
        }
        if offer.digest != asked.digest {
            return Err(refused("the fold is of other changes"));
        }
        let max = self.config.limits.message_bytes_max;
        if offer.bytes.is_empty() || offer.bytes.len() > max {
            return Err(refused(format!(
                "the fold has {} bytes, from 1 to {max} are taken",
                offer.bytes.len()
            )));
        }
        Ok(())
    }

    fn fold_offered(
        &mut self,
        now: Time,
        epoch: Epoch,
        through: Seq,
        log: (u64, usize),
        bytes: Bytes,
    ) {
        let Some(engine) = self.folding.engine.clone() else {
            return;
        };
        let request = FoldRequest {
            engine,
            epoch,
            after: self.folding.snapshot_seq,
            through,
            offered: Some(bytes),
        };
        self.begin_fold(now, request, log);
    }
}

fn refused(why: impl Into<String>) -> PeerError {
    PeerError::new(ErrorCode::FoldRefused, why)
}
