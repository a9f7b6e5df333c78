//! Sending and receiving what is kept for nobody: broadcasts and extension messages (protocol.md sections 6.6 and 7.5).

use std::sync::Arc;

use bytes::Bytes;

use super::{ClientState, Link, Output, SESSION_CHANNEL};
use crate::client::broadcast::{Broadcast, BroadcastError, Extension, ExtensionError, Sender};
use crate::client::document::DocumentState;
use crate::ids::DocumentId;
use crate::limits::TOPIC_BYTES_MAX;
use crate::rate::{Rate, TokenBucket};
use crate::time::Time;
use crate::wire::{self, AccessLevel, Message, WelcomeLimits};

/// What is left of the rates that the server told.
#[derive(Debug, Clone)]
pub(super) struct Buckets {
    broadcasts: TokenBucket,
    extensions: TokenBucket,
}

impl Buckets {
    pub(super) const fn new(limits: &WelcomeLimits) -> Self {
        let broadcasts = Rate::new(limits.broadcasts_per_second, limits.broadcasts_burst);
        let extensions = Rate::new(limits.extensions_per_second, limits.extensions_burst);
        Self {
            broadcasts: TokenBucket::new(broadcasts),
            extensions: TokenBucket::new(extensions),
        }
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Self {
            broadcasts: TokenBucket::new(Rate::UNLIMITED),
            extensions: TokenBucket::new(Rate::UNLIMITED),
        }
    }
}

impl ClientState {
    /// Sends a broadcast now, or not at all.
    ///
    /// # Errors
    /// [`BroadcastError`]: nothing was sent.
    pub fn broadcast(
        &mut self,
        now: Time,
        document: &DocumentId,
        topic: &str,
        bytes: Bytes,
    ) -> Result<(), BroadcastError> {
        let state = self.documents.get(document);
        let Some(channel) = state.and_then(DocumentState::channel) else {
            return Err(BroadcastError::Offline);
        };
        let Link::Up(up) = &mut self.link else {
            return Err(BroadcastError::Offline);
        };
        if state.is_some_and(|state| state.access() < AccessLevel::Write) {
            return Err(BroadcastError::Denied);
        }
        if topic.len() > TOPIC_BYTES_MAX {
            return Err(BroadcastError::TopicTooLong {
                bytes: topic.len(),
                max: TOPIC_BYTES_MAX,
            });
        }
        let max = up.welcomed.map_or(0, |limits| limits.broadcast_bytes_max);
        over(&bytes, max).map_err(|(bytes, max)| BroadcastError::TooLarge { bytes, max })?;
        up.buckets
            .broadcasts
            .try_take(now, 1)
            .map_err(|retry_in| BroadcastError::TooFast { retry_in })?;
        let message = Message::Broadcast(wire::Broadcast {
            channel,
            topic: topic.to_owned(),
            bytes,
            sender: None,
            missed: 0,
        });
        self.send(&message, channel, false);
        Ok(())
    }

    /// Sends an extension message now, or not at all: about a document, or about none.
    ///
    /// # Errors
    /// [`ExtensionError`]: nothing was sent.
    pub fn extend(
        &mut self,
        now: Time,
        document: Option<&DocumentId>,
        kind: u8,
        bytes: Bytes,
    ) -> Result<(), ExtensionError> {
        if kind < wire::FIRST_EXTENSION {
            return Err(ExtensionError::WrongKind { kind });
        }
        let channel = match document {
            None => None,
            Some(document) => {
                let state = self.documents.get(document);
                let channel = state.and_then(DocumentState::channel);
                Some(channel.ok_or(ExtensionError::Offline)?)
            }
        };
        let Link::Up(up) = &mut self.link else {
            return Err(ExtensionError::Offline);
        };
        let Some(limits) = up.welcomed else {
            return Err(ExtensionError::Offline);
        };
        over(&bytes, limits.extension_bytes_max)
            .map_err(|(bytes, max)| ExtensionError::TooLarge { bytes, max })?;
        up.buckets
            .extensions
            .try_take(now, 1)
            .map_err(|retry_in| ExtensionError::TooFast { retry_in })?;
        let message = Message::Extension(wire::Extension {
            kind,
            channel,
            bytes,
        });
        self.send(&message, channel.unwrap_or(SESSION_CHANNEL), false);
        Ok(())
    }

    pub(super) fn on_broadcast(&mut self, received: wire::Broadcast) {
        let Link::Up(up) = &self.link else { return };
        // A channel that we have left: what arrives was sent before the server knew.
        let Some(document) = up.channels.get(&received.channel).cloned() else {
            return;
        };
        let broadcast = if received.missed > 0 {
            Broadcast::Lagged {
                missed: received.missed,
            }
        } else {
            let sender = received.sender;
            Broadcast::Received {
                sender: sender.map(|(session, user)| Sender::new(session, user)),
                topic: Arc::from(received.topic),
                bytes: received.bytes,
            }
        };
        self.outputs.push_back(Output::Broadcast {
            document,
            broadcast,
        });
    }

    pub(super) fn on_extension(&mut self, received: wire::Extension) {
        let Link::Up(up) = &self.link else { return };
        let document = match received.channel {
            None => None,
            Some(channel) => match up.channels.get(&channel).cloned() {
                None => return,
                document => document,
            },
        };
        self.outputs
            .push_back(Output::Extension(Extension::Received {
                kind: received.kind,
                document,
                bytes: received.bytes,
            }));
    }
}

/// The payload's bytes and the limit, if it is over that.
fn over(bytes: &Bytes, max: u64) -> Result<(), (usize, usize)> {
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    if bytes.len() > max {
        return Err((bytes.len(), max));
    }
    Ok(())
}
