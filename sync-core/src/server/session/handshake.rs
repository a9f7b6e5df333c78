//! Hello and Welcome (`docs/protocol.md` section 6.1).

use bytes::Bytes;

use super::{AuthenticateRequest, Live, Phase, ServerSession, SessionEvent, SessionOutput};
use crate::error::{ErrorCode, PeerError};
use crate::ids::{OriginId, ResumeToken, User};
use crate::limits::PRESENCE_BYTES_MAX;
use crate::time::Time;
use crate::wire::{Compression, Hello, Message, PROTOCOL_VERSIONS, Welcome, WelcomeLimits};

#[derive(Debug, Clone, Copy)]
pub(super) struct Greeting {
    pub(super) version: u16,
    pub(super) origin: OriginId,
    pub(super) connection: u64,
    pub(super) compression: Compression,
    /// What the client says it was before.
    pub(super) resumed: Option<ResumeToken>,
}

impl ServerSession {
    pub(super) fn on_hello(&mut self, now: Time, hello: Hello) {
        let Some(version) = PROTOCOL_VERSIONS.negotiate(hello.versions) else {
            let (ours, theirs) = (PROTOCOL_VERSIONS, hello.versions);
            return self.violation(PeerError::new(
                ErrorCode::UnsupportedVersion,
                format!(
                    "this server speaks versions {} to {}, the client {} to {}",
                    ours.min, ours.max, theirs.min, theirs.max
                ),
            ));
        };
        let compression = if self.config.gzip && hello.compression.contains(&Compression::Gzip) {
            Compression::Gzip
        } else {
            Compression::None
        };
        let greeting = Greeting {
            version,
            origin: hello.origin,
            connection: hello.connection,
            compression,
            resumed: hello.resume.as_deref().and_then(ResumeToken::from_bytes),
        };
        if let Some(user) = self.config.user.clone() {
            return self.welcome(now, greeting, user);
        }
        let Phase::Greeting { deadline } = self.phase else {
            return;
        };
        self.phase = Phase::Authenticating { deadline, greeting };
        self.outputs
            .push_back(SessionOutput::Authenticate(AuthenticateRequest {
                credentials: hello.credentials,
                software: hello.software,
                origin: hello.origin,
            }));
    }

    pub(super) fn welcome(&mut self, now: Time, greeting: Greeting, user: User) {
        let limits = &self.config.limits;
        // The same as long as the client comes back, also when it has been here in between and opened nothing.
        let token = greeting
            .resumed
            .or(self.config.resume_token)
            .filter(|_| !limits.presence_grace.is_zero());
        let now_ms = u64::try_from(now.since(Time::ZERO).as_millis()).unwrap_or(u64::MAX);
        let welcome = Welcome {
            version: greeting.version,
            session: self.id,
            user: user.id.to_string(),
            resume: token.map(|token| Bytes::copy_from_slice(token.as_bytes())),
            compression: greeting.compression,
            limits: WelcomeLimits {
                message_bytes_max: wide(limits.message_bytes_max),
                change_bytes_max: wide(limits.change_bytes_max),
                push_window_bytes: wide(limits.push_window_bytes),
                documents_max: wide(limits.documents_per_session_max),
                broadcast_bytes_max: wide(limits.broadcast_bytes_max),
                broadcasts_per_second: limits.broadcast_rate.per_second,
                broadcasts_burst: limits.broadcast_rate.burst,
                extension_bytes_max: wide(limits.extension_bytes_max),
                extensions_per_second: limits.extension_rate.per_second,
                extensions_burst: limits.extension_rate.burst,
                presence_bytes_max: wide(limits.presence_bytes_max.min(PRESENCE_BYTES_MAX)),
                presence_interval: limits.presence_interval,
                presences_per_second: limits.presence_rate.per_second,
                presences_burst: limits.presence_rate.burst,
            },
            ping_interval: limits.ping_interval,
            server_time_ms: self.config.start_wall_ms.saturating_add(now_ms),
        };
        self.phase = Phase::Live(Live {
            origin: greeting.origin,
            connection: greeting.connection,
            user: user.clone(),
            compression: greeting.compression,
            token,
            is_resumed: greeting.resumed.is_some(),
        });
        self.event(SessionEvent::Opened {
            user,
            origin: greeting.origin,
            connection: greeting.connection,
        });
        self.send(&Message::Welcome(welcome));
    }
}

fn wide(value: usize) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
