//! What happens to a `yrs::Doc` behind our back: its observers put it into a queue that the document drains.

use std::fmt;
use std::sync::Arc;

use ::yrs::block::ClientID;
use ::yrs::{BranchID, Out, ReadTxn, StateVector, TransactionMut, UpdateEvent};
use bytes::Bytes;

use super::history::Steps;
use super::import::LIMITS;
use super::pairs::{self, Pairs};
use super::validate::{Block, Id, Visitor, scan};
use crate::engine::foreign::Shared;
use crate::engine::{EngineEvent, Source, Wake};

/// The key of our observer, and the origin of our imports.
pub(super) const OURS: &str = "\0sync-core";

/// Roots that nobody has given a type report no changes, so they are named whenever anything changed; a document with
/// more than this many roots may leave some out.
const UNTYPED_ROOTS_MAX: usize = 64;

/// Where observers leave what they saw. Cloning shares it. It holds no document, so observers make no cycle.
pub(super) type Queue = Shared<Inner>;

#[derive(Default)]
pub(super) struct Inner {
    /// Local changes, oldest first.
    pub(super) local: Vec<Bytes>,
    /// Changes made to retired documents.
    pub(super) stray: Vec<Bytes>,
    pub(super) events: Vec<EngineEvent>,
    /// Where the live document has characters of two elements.
    pub(super) pairs: Pairs,
    /// Whether the live document has a cut character, so that it must be loaded afresh.
    pub(super) is_cut: bool,
    /// Whether the live document was edited through a handle of a retired one, so that it must be loaded afresh.
    pub(super) is_mixed: bool,
    /// Whether handles of a retired document may be used with the live one.
    pub(super) has_predecessor: bool,
    /// What can be undone, where that is kept.
    pub(super) steps: Option<Steps>,
    /// Counts the documents used so far; those before it are retired.
    pub(super) generation: u64,
    pub(super) wake: Option<Wake>,
}

impl Inner {
    /// Forgets the local changes after the first `n`, and what they reported.
    pub(super) fn forget_local(&mut self, n: usize) {
        let n_forgotten = self.local.len().saturating_sub(n);
        self.local.truncate(n);
        if let Some(steps) = &mut self.steps {
            steps.forget(n_forgotten);
        }
        // Each local change came with one event, and no import ran meanwhile.
        self.events
            .truncate(self.events.len().saturating_sub(n_forgotten));
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
    /// Watches the transaction's document from this commit on. Watching twice is watching once.
    pub(super) fn watch(&self, txn: &mut TransactionMut<'_>, generation: u64) {
        let queue = self.clone();
        txn.observe_update_v1(
            OURS,
            move |txn: &TransactionMut<'_>, event: &UpdateEvent| {
                if txn.origin().map(AsRef::as_ref) != Some(OURS.as_bytes()) {
                    queue.push(txn, generation, Bytes::copy_from_slice(&event.update));
                }
            },
        );
    }

    /// Runs an import. If nobody else watches, nobody does meanwhile, so that yrs does not encode what it imports.
    pub(super) fn unwatched<R>(
        &self,
        txn: &mut TransactionMut<'_>,
        generation: u64,
        import: impl FnOnce(&mut TransactionMut<'_>) -> R,
    ) -> R {
        let mut n_watching = 0;
        // Calls nobody.
        txn.events_mut()
            .update_v1_events
            .trigger(|_| n_watching += 1);
        let parked =
            (n_watching == 1).then(|| std::mem::take(&mut txn.events_mut().update_v1_events));
        let imported = import(txn);
        match parked {
            Some(parked) => txn.events_mut().update_v1_events = parked,
            // `Doc::destroy` and a panic in somebody's observer take all observers off.
            None => self.watch(txn, generation),
        }
        imported
    }

    /// Adds a local change, as an observer does.
    pub(super) fn push(&self, txn: &TransactionMut<'_>, generation: u64, change: Bytes) {
        let mut inner = self.lock();
        let is_live = inner.generation == generation;
        if is_live && (inner.is_mixed || inner.has_predecessor && is_mixed(txn, &change)) {
            // And so is what is built on it.
            inner.is_mixed = true;
            inner.stray.push(change);
        } else if is_live {
            inner.pairs.note(pairs::in_update(&change).into_iter());
            let mended = inner.pairs.mend(&change);
            inner.is_cut |= mended.is_some();
            let change = mended.map_or(change, Bytes::from);
            inner.local.push(change);
            if let Some(steps) = &mut inner.steps {
                steps.made(txn);
            }
            inner
                .events
                .push(EngineEvent::new(Source::Local, roots(txn)));
        } else {
            inner.stray.push(change);
        }
        let wake = inner.wake.clone();
        drop(inner);
        if let Some(wake) = wake {
            wake();
        }
    }
}

/// Whether a committed transaction touched a root that is not of its document, or refers to what is not in its document: a
/// handle of a retired document was used with it. yrs then puts pieces of that one into this one.
fn is_mixed(txn: &TransactionMut<'_>, change: &[u8]) -> bool {
    struct Unknown<'a> {
        known: &'a StateVector,
        is_found: bool,
    }
    impl Visitor for Unknown<'_> {
        fn block(&mut self, block: Block) {
            let links = [block.left, block.right].into_iter().flatten();
            for id in links.map(|link| link.id).chain(block.parent) {
                self.is_found |= id.clock >= self.known.get(&ClientID::new(id.client));
            }
        }

        fn deleted(&mut self, _: Id, _: u32) {}
    }
    let touches_another = txn.changed_parent_types().iter().any(|branch| {
        let id = branch.id();
        matches!(id, BranchID::Root(_)) && id.get_branch(txn) != Some(*branch)
    });
    let known = txn.state_vector();
    let mut unknown = Unknown {
        known: &known,
        is_found: false,
    };
    // What cannot be scanned is found out elsewhere.
    touches_another || scan(change, &LIMITS, &mut unknown).is_ok() && unknown.is_found
}

/// Names of the roots that a committed transaction touched, sorted.
pub(super) fn roots(txn: &TransactionMut<'_>) -> Vec<Arc<str>> {
    let mut names = Vec::new();
    for branch in txn.changed_parent_types() {
        if let BranchID::Root(name) = branch.id() {
            names.push(name);
        }
    }
    for (name, root) in txn.root_refs().take(UNTYPED_ROOTS_MAX) {
        if matches!(root, Out::UndefinedRef(_)) {
            names.push(Arc::from(name));
        }
    }
    names.sort_unstable();
    names.dedup();
    names
}
