//! What the driver and the handles share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use sync_core::client::{ClientEvent, ClientState, Extension, Status};
use sync_core::events::EventSender;
use sync_core::ids::DocumentId;
use sync_core::time::Time;
use sync_core::watch::{Watch, WatchSender, watch};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broadcasts::EPHEMERAL_MAX;
use crate::cell::{EVENTS_MAX, Entry, lock};
use crate::store::{ClientStore, StoreError};

/// What the driver and the handles share. Locks are taken in this order: a replica's, `documents`, `core`; none is held
/// across an await.
pub(crate) struct Shared {
    core: Mutex<Core>,
    pub(crate) documents: Mutex<BTreeMap<DocumentId, Arc<Entry>>>,
    /// Documents whose replicas have something to drain.
    woken: Mutex<BTreeSet<DocumentId>>,
    pub(crate) store: Option<Arc<dyn ClientStore>>,
    /// Where the driver runs, and what blocks.
    pub(crate) runtime: Handle,
    /// Wakes the driver.
    pub(crate) wake: Notify,
    pub(crate) status: WatchSender<Status>,
    pub(crate) unsaved: WatchSender<Arc<[DocumentId]>>,
    pub(crate) events: EventSender<ClientEvent>,
    pub(crate) extensions: EventSender<Extension>,
    /// Bytes that the connection has not taken yet.
    pub(crate) backlog: AtomicUsize,
    /// The client was dropped or shut down: the driver ends.
    stopped: AtomicBool,
    /// Time that a shutdown leaves for the outbox, until the driver has taken note of it.
    ending: Mutex<Option<Duration>>,
    /// Whether everything had been saved when the driver ended.
    pub(crate) ended: WatchSender<Option<bool>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) state: ClientState,
    /// The machine's time 0.
    start: Instant,
}

impl Core {
    /// The machine's time. Asked under the lock, it never runs backwards for the machine.
    pub(crate) fn now(&self) -> Time {
        let micros = self.start.elapsed().as_micros();
        Time::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    pub(crate) fn instant(&self, time: Time) -> Instant {
        self.start + Duration::from_micros(time.as_micros())
    }
}

impl Shared {
    pub(crate) fn new(
        state: ClientState,
        store: Option<Arc<dyn ClientStore>>,
        runtime: Handle,
    ) -> Self {
        Self {
            store,
            runtime,
            status: watch(state.status()).0,
            core: Mutex::new(Core {
                state,
                start: Instant::now(),
            }),
            documents: Mutex::default(),
            woken: Mutex::default(),
            wake: Notify::new(),
            unsaved: watch(Arc::from([])).0,
            events: EventSender::new(EVENTS_MAX),
            extensions: EventSender::new(EPHEMERAL_MAX),
            backlog: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            ending: Mutex::default(),
            ended: watch(None).0,
        }
    }

    pub(crate) fn core(&self) -> MutexGuard<'_, Core> {
        lock(&self.core)
    }

    /// Runs a command on the machine, then lets the driver do what it asks for.
    pub(crate) fn command<R>(&self, f: impl FnOnce(&mut ClientState, Time) -> R) -> R {
        let result = {
            let mut core = self.core();
            let now = core.now();
            f(&mut core.state, now)
        };
        self.wake.notify_one();
        result
    }

    pub(crate) fn entry(&self, document: &DocumentId) -> Option<Arc<Entry>> {
        lock(&self.documents).get(document).cloned()
    }

    /// The document's entry, unless the machine has forgotten the document and the driver not yet heard of it.
    pub(crate) fn live_entry(
        &self,
        documents: &BTreeMap<DocumentId, Arc<Entry>>,
        document: &DocumentId,
    ) -> Option<Arc<Entry>> {
        let is_known = self.core().state.sync_state(document).is_some();
        documents.get(document).filter(|_| is_known).cloned()
    }

    /// This document's replica has something to drain.
    pub(crate) fn woken(&self, document: &DocumentId) {
        lock(&self.woken).insert(document.clone());
        self.wake.notify_one();
    }

    pub(crate) fn take_woken(&self) -> BTreeSet<DocumentId> {
        std::mem::take(&mut lock(&self.woken))
    }

    pub(crate) fn store_failed(&self, error: &StoreError) {
        let error: &dyn std::error::Error = error;
        tracing::warn!(error, "the store failed");
        let cause = error
            .source()
            .map(|source| format!(": {source}"))
            .unwrap_or_default();
        let message = format!("{error}{cause}").into();
        self.events.send(ClientEvent::StoreFailed { message });
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Ends the driver when everything is saved, or after `deadline`.
    pub(crate) fn end_within(&self, deadline: Duration) -> Watch<Option<bool>> {
        *lock(&self.ending) = Some(deadline);
        self.wake.notify_one();
        self.ended.watch()
    }

    pub(crate) fn take_ending(&self) -> Option<Duration> {
        lock(&self.ending).take()
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

impl Shared {
    /// Publishes which documents are not saved.
    pub(crate) fn update_unsaved(&self) {
        // As in `update`.
        loop {
            let unsaved: Arc<[DocumentId]> = self.core().state.unsaved().cloned().collect();
            if !self.unsaved.set(unsaved) {
                break;
            }
        }
    }

    /// Publishes where the document stands, and has those look again who wait for it to get somewhere.
    pub(crate) fn update(&self, entry: &Entry) {
        self.show(entry);
        entry.turns.send_if_changed(|turns| {
            *turns += 1;
            true
        });
    }

    /// Publishes where the document stands.
    pub(crate) fn show(&self, entry: &Entry) {
        // Whoever has set it looks again: of two threads, the one with the older state must not have the last word.
        loop {
            let state = self.core().state.sync_state(&entry.id);
            let is_new = state.is_some_and(|state| entry.sync_state.set(state));
            if !is_new {
                break;
            }
        }
    }
}
