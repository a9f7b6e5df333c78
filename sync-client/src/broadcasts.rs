//! Broadcasts of one document, by topic, and what both they and extension messages are held to.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use sync_core::client::{Broadcast, ExtensionError};
use sync_core::events::{EventSender, Events};
use sync_core::ids::DocumentId;

use crate::cell::lock;
use crate::shared::Shared;

/// Messages that a slow reader may be behind before it loses the oldest.
pub(crate) const EPHEMERAL_MAX: usize = 256;

/// Bytes that the connection has not taken, beyond which nothing is added to them that may as well not be sent.
const BACKLOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// When to try again then.
const BACKLOG_RETRY: Duration = Duration::from_secs(1);

/// Who listens to which topic.
#[derive(Debug, Default)]
pub(crate) struct Broadcasts {
    topics: Mutex<BTreeMap<Box<str>, EventSender<Broadcast>>>,
}

impl Broadcasts {
    pub(crate) fn subscribe(&self, topic: &str) -> Events<Broadcast> {
        let mut topics = lock(&self.topics);
        topics.retain(|_, sender| sender.has_subscribers());
        topics
            .entry(topic.into())
            .or_insert_with(|| EventSender::new(EPHEMERAL_MAX))
            .subscribe()
    }

    pub(crate) fn deliver(&self, broadcast: Broadcast) {
        let topics = lock(&self.topics);
        match &broadcast {
            Broadcast::Received { topic, .. } => {
                if let Some(sender) = topics.get(&**topic) {
                    sender.send(broadcast);
                }
            }
            // The server dropped them before it looked at topics.
            _ => topics
                .values()
                .for_each(|sender| sender.send(broadcast.clone())),
        }
    }
}

impl Shared {
    /// When to try again, if the connection has so much to send that nothing ephemeral is added to it.
    pub(crate) fn backlog(&self) -> Option<Duration> {
        (self.backlog.load(Ordering::Relaxed) > BACKLOG_BYTES_MAX).then_some(BACKLOG_RETRY)
    }

    pub(crate) fn extend(
        &self,
        document: Option<&DocumentId>,
        kind: u8,
        bytes: Bytes,
    ) -> Result<(), ExtensionError> {
        if let Some(retry_in) = self.backlog() {
            return Err(ExtensionError::TooFast { retry_in });
        }
        self.command(|state, now| state.extend(now, document, kind, bytes))
    }
}
