//! Hello and Welcome (`docs/protocol.md` section 6.1).

use super::{AuthenticateRequest, Live, Phase, ServerSession, SessionEvent, SessionOutput};
use crate::error::{ErrorCode, PeerError};
use crate::ids::{OriginId, User};
use crate::time::Time;
use crate::wire::{Compression, Hello, Message, PROTOCOL_VERSIONS, Welcome, WelcomeLimits};

#[derive(Debug, Clone, Copy)]
pub(super) struct Greeting {
    pub(super) version: u16,
    pub(super) origin: OriginId,
    pub(super) connection: u64,
    pub(super) compression: Compression,
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
        let now_ms = u64::try_from(now.since(Time::ZERO).as_millis()).unwrap_or(u64::MAX);
        let welcome = Welcome {
            version: greeting.version,
            session: self.id,
            user: user.id.to_string(),
            resume: None,
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
            },
            ping_interval: limits.ping_interval,
            server_time_ms: self.config.start_wall_ms.saturating_add(now_ms),
        };
        self.phase = Phase::Live(Live {
            origin: greeting.origin,
            connection: greeting.connection,
            user: user.clone(),
            compression: greeting.compression,
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
