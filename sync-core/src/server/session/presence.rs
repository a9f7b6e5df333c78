//! What a session says of itself (`docs/protocol.md` section 7.7).

use super::{Phase, ServerSession, SessionEvent, SessionOutput};
use crate::error::{ErrorCode, PeerError};
use crate::limits::{FRAGMENT_BYTES, Limits, PRESENCE_BYTES_MAX};
use crate::rate::Rate;
use crate::time::Time;
use crate::wire::{Presence, Reference};

/// Twice the burst that clients are told: messages do not arrive in the intervals in which they were sent.
pub(super) const fn rate(limits: &Limits) -> Rate {
    let Rate { per_second, burst } = limits.presence_rate;
    Rate::new(per_second, burst.saturating_mul(2))
}

impl ServerSession {
    pub(super) fn on_presence(&mut self, now: Time, message: Presence) {
        let channel = message.channel;
        if !self.channels.contains_key(&channel) {
            return self.not_open(channel);
        }
        if let Err(wait) = self.presences.try_take(now, 1) {
            let error = PeerError::new(
                ErrorCode::PresenceTooFast,
                format!(
                    "more than {} presence messages each second",
                    self.presences.rate().per_second
                ),
            );
            return self.send_error(error.retry_after(wait), Reference::Channel(channel));
        }
        // What it says of others is nobody's.
        let own = message
            .deltas
            .into_iter()
            .rfind(|delta| delta.session == self.id);
        let Some(own) = own else {
            return self.event(SessionEvent::Ignored {
                message: "Presence",
            });
        };
        let bytes = own.state.as_ref().map_or(0, bytes::Bytes::len);
        let max = self
            .config
            .limits
            .presence_bytes_max
            .min(PRESENCE_BYTES_MAX);
        let user = match &self.phase {
            Phase::Live(live) => live.user.id.len(),
            _ => 0,
        };
        let with_user = bytes.saturating_add(user);
        if bytes > max || with_user > FRAGMENT_BYTES - OVERHEAD_BYTES_MAX {
            let error = PeerError::new(
                ErrorCode::PresenceTooLarge,
                format!("the presence has {bytes} bytes, the limit is {max}"),
            );
            return self.send_error(error, Reference::Channel(channel));
        }
        self.outputs.push_back(SessionOutput::Presence {
            channel,
            state: own.state,
        });
    }
}

/// Bytes of a message with one state, beside the state and its user.
const OVERHEAD_BYTES_MAX: usize = 128;
