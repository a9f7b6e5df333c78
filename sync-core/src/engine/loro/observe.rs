//! What happens to a `LoroDoc` behind our back: its subscriptions put it into a queue that the document drains.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use ::loro::event::DiffEvent;
use ::loro::{ContainerID, EventTriggerKind, LoroDoc, Subscription};
use bytes::Bytes;

use crate::engine::foreign::Shared;
use crate::engine::{EngineEvent, Source, Wake};

/// Where subscriptions leave what they saw. Cloning shares it. It holds no document, so subscriptions make no cycle.
pub(super) type Queue = Shared<Inner>;

#[derive(Default)]
pub(super) struct Inner {
    /// Local changes, oldest first.
    pub(super) local: Vec<Bytes>,
    /// Changes made to retired documents.
    pub(super) stray: Vec<Bytes>,
    pub(super) events: Vec<EngineEvent>,
    /// Roots that the import in progress touched; `None` while there is none.
    pub(super) importing: Option<BTreeSet<Arc<str>>>,
    /// Peer ids under which the live document was edited.
    pub(super) peers: BTreeSet<u64>,
    /// Counts the documents used so far; those before it are retired.
    pub(super) generation: u64,
    pub(super) wake: Option<Wake>,
}

impl Inner {
    /// Takes off the local changes after the first `n_changes` and the events after the first `n_events`. Returns the
    /// names of the roots that those touched, sorted.
    pub(super) fn forget(&mut self, n_changes: usize, n_events: usize) -> Vec<Arc<str>> {
        self.local.truncate(n_changes);
        let forgotten = self.events.split_off(n_events.min(self.events.len()));
        let names: BTreeSet<Arc<str>> = forgotten
            .into_iter()
            .flat_map(|event| event.roots)
            .collect();
        names.into_iter().collect()
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = self.lock();
        f.debug_struct("Queue")
            .field("local", &inner.local.len())
            .field("stray", &inner.stray.len())
            .finish_non_exhaustive()
    }
}

impl Queue {
    /// Watches a document for as long as the result lives.
    pub(super) fn watch(&self, doc: &LoroDoc, generation: u64) -> [Subscription; 3] {
        let (changes, events, peers) = (self.clone(), self.clone(), self.clone());
        [
            doc.subscribe_local_update(Box::new(move |change| {
                changes.changed(generation, Bytes::copy_from_slice(change));
                true
            })),
            doc.subscribe_root(Arc::new(move |event| events.saw(generation, &event))),
            doc.subscribe_peer_id_change(Box::new(move |id| {
                let mut inner = peers.lock();
                if inner.generation == generation {
                    inner.peers.insert(id.peer);
                }
                true
            })),
        ]
    }

    fn changed(&self, generation: u64, change: Bytes) {
        let mut inner = self.lock();
        if inner.generation == generation {
            inner.local.push(change);
        } else {
            inner.stray.push(change);
        }
        let wake = inner.wake.clone();
        drop(inner);
        if let Some(wake) = wake {
            wake();
        }
    }

    fn saw(&self, generation: u64, event: &DiffEvent<'_>) {
        let roots = roots(event);
        let mut inner = self.lock();
        if inner.generation != generation {
            return;
        }
        match (&mut inner.importing, event.triggered_by) {
            (Some(touched), EventTriggerKind::Import) => touched.extend(roots),
            // Of an import by the application, too, which comes out as a local change.
            (_, EventTriggerKind::Local | EventTriggerKind::Import) => {
                let roots = roots.into_iter().collect();
                inner.events.push(EngineEvent::new(Source::Local, roots));
            }
            (_, EventTriggerKind::Checkout) => {}
        }
        let is_foreign =
            event.triggered_by == EventTriggerKind::Import && inner.importing.is_none();
        let wake = is_foreign.then(|| inner.wake.clone()).flatten();
        drop(inner);
        if let Some(wake) = wake {
            wake();
        }
    }
}

/// Names of the roots that an event touched.
fn roots(event: &DiffEvent<'_>) -> BTreeSet<Arc<str>> {
    let mut names = BTreeSet::new();
    for diff in &event.events {
        let root = diff.path.first().map_or(diff.target, |(root, _)| root);
        if let ContainerID::Root { name, .. } = root {
            names.insert(Arc::from(name.as_str()));
        }
    }
    names
}
