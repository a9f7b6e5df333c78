//! Taking changes: what is checked before they are put into the line (`docs/protocol.md` section 7.3).

use bytes::Bytes;

use super::check::Checked;
use super::member::Writing;
use super::{Room, RoomEvent};
use crate::engine::{EngineError, ValidateLimits};
use crate::error::{ErrorCode, PeerError};
use crate::ids::{ChangeId, SessionId};
use crate::limits::{change_charge, push_charge};
use crate::planted::Bug;
use crate::registry::NewChange;
use crate::time::Time;
use crate::wire::{AccessLevel, AuthorMessage, Message, Push};

/// Changes below this size are copied out of the frame they came in, so that a kept one does not pin it all.
const COPY_BYTES_MAX: usize = 64 * 1024;

/// Something in the line.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) member: (SessionId, u32),
    /// When its push came.
    pub(super) received: Time,
    pub(super) kind: ItemKind,
    pub(super) charge: usize,
    /// Until when it was known that the member may push it; for when the member has left.
    pub(super) until: Option<Time>,
}

impl Item {
    /// The same, to be checked again.
    pub(super) fn unchecked(mut self) -> Self {
        if let ItemKind::Change { checked, .. } = &mut self.kind {
            *checked = Checked::No;
        }
        self
    }

    /// Refuses a change for this reason. What is none stays what it is.
    pub(super) fn refused(self, error: &PeerError) -> Self {
        let kind = match self.kind {
            ItemKind::Change { change, .. } => ItemKind::Refuse {
                change: change.id,
                error: error.clone(),
            },
            kind @ (ItemKind::Refuse { .. } | ItemKind::Error(_) | ItemKind::Reconciled) => kind,
        };
        Self { kind, ..self }
    }
}

#[derive(Debug, Clone)]
pub(super) enum ItemKind {
    Change {
        change: NewChange,
        /// The registry may answer otherwise than `At`: nothing of this member follows in the same append.
        is_doubtful: bool,
        reconciling: bool,
        checked: Checked,
    },
    /// Everything before it is committed: tell the member.
    Refuse { change: ChangeId, error: PeerError },
    /// Likewise, about the channel.
    Error(PeerError),
    /// The end of a reconciling push.
    Reconciled,
}

impl Room {
    /// Takes a push of a member: checks it, and puts it into the line.
    pub(super) fn push(&mut self, now: Time, session: SessionId, push: Push) {
        self.stop_if_over(now, session);
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        let key = (session, member.generation);
        let until = member.permit.until();
        let is_let_through = push.first_number == 1 && self.config.has(Bug::RefusalOvertaken);
        if member.writing == Writing::Closed && !is_let_through {
            member.settled = member.settled.saturating_add(push_charge(&push.changes));
            return self.wake(session);
        }
        if !push.changes.is_empty() && !member.origins.contains_key(&push.origin) {
            let author = self.author(push.origin);
            self.tell_author(session, &push, author);
        }
        let Push {
            origin,
            first_number,
            changes,
            reconciling,
            ..
        } = push;
        let mut left = push_charge(&changes);
        for (offset, bytes) in (0_u64..).zip(changes) {
            let id = ChangeId {
                origin,
                number: first_number.saturating_add(offset),
            };
            let charge = change_charge(&bytes);
            match self.check(session, id, &bytes, reconciling) {
                Ok(is_doubtful) => {
                    left = left.saturating_sub(charge);
                    self.enqueue(now, key, id, bytes, charge, is_doubtful, reconciling);
                }
                Err(error) => {
                    // What follows on the channel is ignored, this push's rest included.
                    let kind = if error.code.is_final() {
                        ItemKind::Refuse { change: id, error }
                    } else {
                        ItemKind::Error(error)
                    };
                    self.hand_in(Item {
                        member: key,
                        received: now,
                        kind,
                        charge: left,
                        until,
                    });
                    if let Some(member) = self.members.get_mut(&session) {
                        member.writing = Writing::Closed;
                    }
                    return;
                }
            }
        }
        if reconciling {
            self.hand_in(Item {
                member: key,
                received: now,
                kind: ItemKind::Reconciled,
                charge: 0,
                until,
            });
        }
    }

    /// Takes nothing more of a member until it opens again, and tells it why, after what came before.
    pub(super) fn stop_push(&mut self, now: Time, session: SessionId, error: PeerError) {
        let Some(member) = self.members.get_mut(&session) else {
            return;
        };
        if member.writing == Writing::Closed {
            return;
        }
        member.writing = Writing::Closed;
        let member = (session, member.generation);
        self.hand_in(Item {
            member,
            kind: ItemKind::Error(error),
            charge: 0,
            received: now,
            until: None,
        });
    }

    fn tell_author(&mut self, session: SessionId, push: &Push, author: crate::ids::Author) {
        if let Some(member) = self.members.get_mut(&session) {
            member.origins.insert(push.origin, None);
        }
        let message = AuthorMessage {
            channel: self.channel,
            origin: push.origin,
            author,
        };
        self.prompt(session, &Message::Author(message));
    }

    /// Checks a change; says whether the registry may answer otherwise than `At`.
    fn check(
        &mut self,
        session: SessionId,
        id: ChangeId,
        bytes: &Bytes,
        reconciling: bool,
    ) -> Result<bool, PeerError> {
        let Some(member) = self.members.get_mut(&session) else {
            return Ok(true);
        };
        if member.open.access < AccessLevel::Write && !member.permit.is_stopped() {
            return Err(member.denied());
        }
        if id.number == 0 || id.number == u64::MAX {
            return Err(PeerError::new(
                ErrorCode::Gap,
                "changes are numbered from 1",
            ));
        }
        let limits = &self.config.limits;
        let bytes_max = if reconciling {
            limits.message_bytes_max
        } else {
            limits.change_bytes_max
        };
        if bytes.len() > bytes_max {
            return Err(PeerError::new(
                ErrorCode::TooLarge,
                format!(
                    "the change has {} bytes, the limit is {bytes_max}",
                    bytes.len()
                ),
            ));
        }
        self.make_room(bytes.len())?;
        let Some(member) = self.members.get_mut(&session) else {
            return Ok(true);
        };
        let engine = &member.open.engine;
        if let Some(Some(validator)) = self.config.engines.validator(engine) {
            // The same limits everywhere: whether a logged change is valid must not depend on who reads it.
            if let Err(error) = validator.validate(bytes, &ValidateLimits::default()) {
                let message = error.to_string();
                if error == EngineError::Poisoned {
                    self.event(RoomEvent::ValidatorPanicked { change: id });
                }
                return Err(PeerError::new(ErrorCode::InvalidChange, message));
            }
        }
        // If this one is not committed, the registry commits none of the origin that follow it.
        let before = member.origins.insert(id.origin, Some(id.number)).flatten();
        Ok(before.and_then(|last| last.checked_add(1)) != Some(id.number))
    }

    fn enqueue(
        &mut self,
        now: Time,
        key: (SessionId, u32),
        id: ChangeId,
        bytes: Bytes,
        charge: usize,
        is_doubtful: bool,
        reconciling: bool,
    ) {
        let Some((user, until)) = self.live(key).map(|member| {
            let user = member.open.user.without_claims();
            (user, member.permit.until())
        }) else {
            return;
        };
        if self.config.has(Bug::AckBeforeCommit) {
            self.repeat(key, id, id.number, 0);
        }
        let bytes = if bytes.len() <= COPY_BYTES_MAX {
            Bytes::copy_from_slice(&bytes)
        } else {
            bytes
        };
        self.hand_in(Item {
            member: key,
            received: now,
            kind: ItemKind::Change {
                change: NewChange::new(id, user, bytes).with_reconciling(reconciling),
                is_doubtful,
                reconciling,
                checked: Checked::No,
            },
            charge,
            until,
        });
    }
}
