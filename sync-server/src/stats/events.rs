//! Events, and how many of each kind there were.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use sync_core::events::{EventSender, Events};

use crate::event::ServerEvent;

/// Sends events and counts them, whether anybody listens or not.
#[derive(Debug)]
pub(crate) struct CountedEvents {
    sender: EventSender<ServerEvent>,
    counts: EventCounts,
}

impl CountedEvents {
    /// As [`EventSender::new`].
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            sender: EventSender::new(capacity),
            counts: EventCounts::default(),
        }
    }

    pub(crate) fn send(&self, event: ServerEvent) {
        self.counts.of(&event).fetch_add(1, Ordering::Relaxed);
        self.sender.send(event);
    }

    pub(crate) fn subscribe(&self) -> Events<ServerEvent> {
        self.sender.subscribe()
    }

    pub(crate) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.read()
    }
}

macro_rules! event_names {
    ($($name:ident: $variant:ident,)+) => {
        #[derive(Debug, Default)]
        struct EventCounts {
            $($name: AtomicU64,)+
        }

        impl EventCounts {
            const fn of(&self, event: &ServerEvent) -> &AtomicU64 {
                match event {
                    $(ServerEvent::$variant { .. } => &self.$name,)+
                }
            }

            fn read(&self) -> BTreeMap<&'static str, u64> {
                let counts = [$((stringify!($name), self.$name.load(Ordering::Relaxed)),)+];
                counts.into()
            }
        }

        impl ServerEvent {
            /// Name of the kind of event, as in statistics and metrics.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant { .. } => stringify!($name),)+
                }
            }
        }
    };
}

event_names! {
    session_opened: SessionOpened,
    session_closed: SessionClosed,
    connection_failed: ConnectionFailed,
    protocol_error: ProtocolError,
    message_ignored: MessageIgnored,
    document_opened: DocumentOpened,
    access_changed: AccessChanged,
    document_closed: DocumentClosed,
    presence_joined: PresenceJoined,
    presence_left: PresenceLeft,
    room_loaded: RoomLoaded,
    room_unloaded: RoomUnloaded,
    committed: Committed,
    refused: Refused,
    broadcast: Broadcast,
    broadcasts_missed: BroadcastsMissed,
    hook_failed: HookFailed,
    validator_panicked: ValidatorPanicked,
    worker_died: WorkerDied,
    document_relayed: DocumentRelayed,
    history_replaced: HistoryReplaced,
    snapshot_read: SnapshotRead,
    document_near_limit: DocumentNearLimit,
    folded: Folded,
    fold_failed: FoldFailed,
    registry_failed: RegistryFailed,
    lagged: Lagged,
}
