//! How long it stays known who the client is (`docs/protocol.md` section 6.5).

use std::time::Duration;

use bytes::Bytes;

use super::{AuthenticateRequest, Phase, ServerSession, SessionEvent, SessionOutput};
use crate::error::{ErrorCode, PeerError};
use crate::ids::User;
use crate::time::Time;
use crate::wire::{Auth, Message};

/// Time before the end at which fresh credentials are asked for; earlier half of the whole time.
const ASK_BEFORE: Duration = Duration::from_secs(30);
/// Time after which they are asked for again when nobody could tell whether they are good.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// Until when it is known who the client is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    until: Time,
    /// When to ask for fresh credentials; `None` once that is done.
    ask_at: Option<Time>,
}

impl Validity {
    /// When something is to be done.
    pub(super) fn deadline(self) -> Time {
        self.ask_at.map_or(self.until, |at| at.min(self.until))
    }
}

impl ServerSession {
    /// Says how long, from now on, it is to be believed who the client is; `None`: as long as the connection lives. The
    /// client is asked for fresh credentials before, and the session ends if none have come by then.
    pub fn handle_validity(&mut self, now: Time, valid_for: Option<Duration>) {
        self.validity = valid_for.map(|time| Validity {
            until: now + time,
            ask_at: Some(now + time.saturating_sub(ASK_BEFORE).max(time / 2)),
        });
    }

    /// The client sent fresh credentials.
    pub(super) fn on_auth(&mut self, credentials: Bytes) {
        let Phase::Live(live) = &self.phase else {
            return;
        };
        // One answer at a time: another one would say the same.
        if self.is_refreshing {
            return self.event(SessionEvent::Ignored { message: "Auth" });
        }
        let request = AuthenticateRequest {
            credentials: Some(credentials),
            software: String::new(),
            origin: live.origin,
        };
        self.is_refreshing = true;
        self.outputs.push_back(SessionOutput::Authenticate(request));
    }

    /// Somebody said whose the fresh credentials are.
    pub(super) fn refreshed(&mut self, now: Time, result: Result<User, PeerError>) {
        let Phase::Live(live) = &mut self.phase else {
            return;
        };
        self.is_refreshing = false;
        match result {
            Ok(user) if user == live.user => {
                let has_claims = user.has_claims() || live.user.has_claims();
                live.user = user.clone();
                if has_claims {
                    self.outputs.push_back(SessionOutput::Refreshed(user));
                }
            }
            Ok(_) => self.end(PeerError::new(
                ErrorCode::Unauthenticated,
                "the fresh credentials are another user's",
            )),
            Err(error) if error.code == ErrorCode::Unauthenticated => self.end(error),
            Err(_) => {
                if let Some(validity) = &mut self.validity {
                    validity.ask_at = Some(now + ASK_AGAIN);
                }
            }
        }
    }

    /// Asks for fresh credentials, or ends the session, if it is time to.
    pub(super) fn check_validity(&mut self, now: Time) {
        let Some(validity) = self.validity.as_mut() else {
            return;
        };
        if validity.until <= now {
            return self.end(PeerError::new(
                ErrorCode::Unauthenticated,
                "the credentials have expired",
            ));
        }
        if validity.ask_at.is_some_and(|at| at <= now) {
            validity.ask_at = None;
            self.send(&Message::Auth(Auth {
                credentials: Bytes::new(),
            }));
        }
    }
}
