//! Broadcasts and extension messages of the client: their size and their rate (`docs/protocol.md` sections 7.5 and 6.6).

use super::{ServerSession, SessionOutput};
use crate::error::{ErrorCode, PeerError};
use crate::ids::Channel;
use crate::limits::{Limits, TOPIC_BYTES_MAX};
use crate::rate::{Rate, TokenBucket};
use crate::time::Time;
use crate::wire::{Broadcast, Extension, Reference};

/// What the session has left of the rates.
#[derive(Debug, Clone)]
pub(super) struct Buckets {
    broadcasts: TokenBucket,
    extensions: TokenBucket,
}

impl Buckets {
    pub(super) fn new(limits: &Limits) -> Self {
        // Twice what the client is told: what it sent over some time may arrive at once.
        let generous =
            |rate: Rate| TokenBucket::new(Rate::new(rate.per_second, rate.burst.saturating_mul(2)));
        Self {
            broadcasts: generous(limits.broadcast_rate),
            extensions: generous(limits.extension_rate),
        }
    }
}

impl ServerSession {
    pub(super) fn on_broadcast(&mut self, now: Time, broadcast: Broadcast) {
        let channel = broadcast.channel;
        if !self.channels.contains_key(&channel) {
            return self.not_open(channel);
        }
        let max = self.config.limits.broadcast_bytes_max;
        let (bytes, topic) = (broadcast.bytes.len(), broadcast.topic.len());
        let error = if bytes > max {
            too_large(ErrorCode::BroadcastTooLarge, "broadcast", bytes, max)
        } else if topic > TOPIC_BYTES_MAX {
            too_large(
                ErrorCode::BroadcastTooLarge,
                "topic",
                topic,
                TOPIC_BYTES_MAX,
            )
        } else if let Err(wait) = self.buckets.broadcasts.try_take(now, 1) {
            PeerError::new(ErrorCode::BroadcastTooFast, "too many broadcasts").retry_after(wait)
        } else {
            return self.outputs.push_back(SessionOutput::Broadcast(broadcast));
        };
        self.send_error(error, Reference::Channel(channel));
    }

    pub(super) fn on_extension(&mut self, now: Time, extension: Extension) {
        let channel = extension.channel;
        let document = channel.map(|channel| self.channels.get(&channel).cloned());
        let document = match (channel, document) {
            (Some(channel), Some(None)) => return self.not_open(channel),
            (_, document) => document.flatten(),
        };
        let max = self.config.limits.extension_bytes_max;
        let bytes = extension.bytes.len();
        let error = if bytes > max {
            too_large(
                ErrorCode::ExtensionTooLarge,
                "extension message",
                bytes,
                max,
            )
        } else if let Err(wait) = self.buckets.extensions.try_take(now, 1) {
            PeerError::new(ErrorCode::ExtensionTooFast, "too many extension messages")
                .retry_after(wait)
        } else {
            return self.outputs.push_back(SessionOutput::Extension {
                kind: extension.kind,
                channel,
                document,
                bytes: extension.bytes,
            });
        };
        self.refuse_extension(channel, error);
    }

    /// Tells the client that an extension message of its was not taken. The session goes on, and so does the document.
    pub fn refuse_extension(&mut self, channel: Option<Channel>, error: PeerError) {
        let channel = channel.unwrap_or(super::SESSION_CHANNEL);
        self.send_error(error, Reference::Channel(channel));
    }

    /// Sends an extension message that concerns no document.
    pub fn handle_extend(&mut self, kind: u8, bytes: bytes::Bytes) {
        if matches!(self.phase, super::Phase::Live(_)) {
            self.send(&crate::wire::Message::Extension(Extension {
                kind,
                channel: None,
                bytes,
            }));
        }
    }
}

fn too_large(code: ErrorCode, what: &str, bytes: usize, max: usize) -> PeerError {
    PeerError::new(
        code,
        format!("the {what} has {bytes} bytes, the limit is {max}"),
    )
}
