//! What the room asks of the registry, and who is handed the answer.

use std::sync::Arc;

use super::{Room, RoomEvent, RoomOutput};
use crate::error::{ErrorCode, PeerError};
use crate::history::Seq;
use crate::ids::SessionId;
use crate::registry::RegistryError;
use crate::server::registry::{RegistryAnswer, RegistryRequest, RequestNumber};
use crate::time::Time;

/// What a registry answer is for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    OpenMeta {
        member: (SessionId, u32),
        head: Seq,
    },
    Size,
    OpenCreate {
        member: (SessionId, u32),
    },
    OpenTail {
        member: (SessionId, u32),
    },
    OpenOrigins {
        member: (SessionId, u32),
    },
    Snapshot,
    CatchUp {
        after: Seq,
    },
    Append,
    /// After an append of unknown outcome.
    Settle,
    Fill {
        attempt: u32,
    },
    Compact,
}

impl Room {
    /// Takes the answer to a [`RoomOutput::Registry`].
    pub fn handle_registry(&mut self, now: Time, number: RequestNumber, answer: RegistryAnswer) {
        let Some(purpose) = self.pending.remove(&number) else {
            return;
        };
        match (purpose, answer) {
            (Purpose::OpenMeta { member, head }, RegistryAnswer::Meta(result)) => {
                self.on_open_meta(now, number, member, head, result);
            }
            (Purpose::OpenCreate { member }, RegistryAnswer::Create(result)) => {
                self.on_open_meta(now, number, member, Seq::ZERO, result);
            }
            (Purpose::OpenTail { member }, RegistryAnswer::Tail(result)) => {
                self.on_open_tail(now, member, result);
            }
            (Purpose::OpenOrigins { member }, RegistryAnswer::Origins(result)) => {
                self.on_open_origins(now, member, result);
            }
            (Purpose::Size, RegistryAnswer::Size(result)) => self.on_size(number, result),
            (Purpose::Snapshot, RegistryAnswer::Snapshot(result)) => {
                self.on_snapshot(now, number, result);
            }
            (Purpose::CatchUp { after }, RegistryAnswer::Tail(result)) => {
                self.on_catch_up(now, number, after, result);
            }
            (Purpose::Append, RegistryAnswer::Append(result)) => self.on_append(now, result),
            (Purpose::Settle, RegistryAnswer::Tail(result)) => self.on_settle(now, result),
            (Purpose::Compact, RegistryAnswer::Compact(result)) => self.on_compact(now, result),
            (Purpose::Fill { attempt }, RegistryAnswer::Tail(result)) => {
                self.on_fill(now, number, attempt, result);
            }
            _ => debug_assert!(false, "the answer is to another request"),
        }
        self.turn(now);
    }

    pub(super) fn request(&mut self, purpose: Purpose, request: RegistryRequest) -> RequestNumber {
        self.next_request += 1;
        let number = RequestNumber(self.next_request);
        self.pending.insert(number, purpose);
        self.outputs
            .push_back(RoomOutput::Registry(number, request));
        number
    }

    /// What is being read of the history and has not been answered may say what was. Whatever is asked for from now on says
    /// what is.
    pub(super) const fn outdate_reads(&mut self) {
        self.outdated_reads = Some(RequestNumber(self.next_request));
    }

    pub(super) fn registry_failed(
        &mut self,
        call: &'static str,
        error: RegistryError,
    ) -> PeerError {
        let retry_after = match &error {
            RegistryError::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        };
        self.event(RoomEvent::RegistryFailed {
            call,
            error: Arc::new(error),
        });
        // What exactly is wrong with the storage is nothing that clients need to know.
        PeerError::new(ErrorCode::StorageUnavailable, "storage is unavailable")
            .retry_after(retry_after.unwrap_or(self.config.retry_delay_max))
    }
}

/// The error for a document that is not there, if that is what the registry says.
pub(super) fn absence(error: &RegistryError) -> Option<PeerError> {
    match error {
        RegistryError::NotFound => Some(PeerError::new(
            ErrorCode::NotFound,
            "there is no such document",
        )),
        RegistryError::Deleted => Some(PeerError::new(
            ErrorCode::Deleted,
            "the document has been deleted",
        )),
        _ => None,
    }
}
