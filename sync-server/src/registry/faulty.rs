//! A registry that misbehaves on request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::stream::BoxStream;
use futures_util::{StreamExt, future};
use sync_core::BoxError;
use sync_core::history::{Cursor, Epoch, Seq};
use sync_core::ids::{ChangeId, DocumentId, OriginId};
use sync_core::rng::Rng;
use tokio::sync::watch;

use super::{
    DocumentMeta, DocumentSize, Durability, NewChange, NewDocument, OriginEntry, Outcome,
    RegistryError, RegistryEvent, ServerRegistry, Snapshot, Tail,
};

/// Wraps a registry and fails, loses or holds its answers when a test asks for it.
///
/// Wrap an `Arc<MemoryRegistry>` and keep a clone of it: what was committed outlives a server that the test kills.
///
/// - A registry in trouble: [`fail_appends`](Self::fail_appends), [`fail_reads`](Self::fail_reads),
///   [`fail_compactions`](Self::fail_compactions).
/// - A timeout in the commit: [`lose_answers`](Self::lose_answers), [`lose_trims`](Self::lose_trims).
/// - A crash between commit and ack: [`hold_appends`](Self::hold_appends) at [`HoldPoint::AfterCommit`], wait for
///   [`held_appends`](Self::held_appends), drop the server.
/// - A crash at every step: [`crash_at`](Self::crash_at), wait for [`crashed`](Self::crashed), drop the server,
///   [`reopen`](Self::reopen), start another.
/// - Hints between servers that share a registry: [`drop_hints`](Self::drop_hints), [`cut_hints`](Self::cut_hints).
/// - A registry far away: [`slow_calls`](Self::slow_calls).
/// - A slow load: [`hold_reads`](Self::hold_reads); a slow compaction: [`hold_compactions`](Self::hold_compactions).
#[derive(Debug)]
pub struct FaultyRegistry<R> {
    inner: R,
    plan: Mutex<Plan>,
    before_commit: Gate,
    after_commit: Gate,
    reads: Gate,
    compactions: Gate,
    crashed: watch::Sender<bool>,
    hints: watch::Sender<Hints>,
}

/// What becomes of hints.
#[derive(Debug, Default)]
struct Hints {
    are_dropped: bool,
    n_cuts: usize,
    n_streams: usize,
}

/// Where appends are held, or a registry crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldPoint {
    /// Nothing has been done yet.
    BeforeCommit,
    /// What was asked is committed, and nobody has been told.
    AfterCommit,
}

/// A call that reached the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Call {
    /// [`ServerRegistry::create`].
    Create(DocumentId),
    /// [`ServerRegistry::meta`].
    Meta(DocumentId),
    /// [`ServerRegistry::append`].
    Append {
        /// The document.
        document: DocumentId,
        /// The changes handed in.
        changes: Vec<ChangeId>,
    },
    /// [`ServerRegistry::tail`].
    Tail {
        /// The document.
        document: DocumentId,
        /// The sequence asked for.
        after: Seq,
    },
    /// [`ServerRegistry::snapshot`].
    Snapshot(DocumentId),
    /// [`ServerRegistry::compact`].
    Compact {
        /// The document.
        document: DocumentId,
        /// Sequence of the snapshot handed in.
        seq: Seq,
        /// Rows through this one were to be dropped.
        keep_after: Seq,
    },
    /// [`ServerRegistry::trim`].
    Trim {
        /// The document.
        document: DocumentId,
        /// Sequence of the snapshot handed in.
        seq: Seq,
    },
    /// [`ServerRegistry::delete`].
    Delete(DocumentId),
    /// [`ServerRegistry::list`].
    List,
    /// [`ServerRegistry::heads`].
    Heads,
    /// [`ServerRegistry::origins`].
    Origins(DocumentId),
}

#[derive(Debug, Default)]
struct Plan {
    fail_appends: usize,
    lose_answers: usize,
    lose_trims: usize,
    fail_reads: usize,
    fail_compactions: usize,
    /// How long calls take on their way there and back, at most.
    slow: Option<(Duration, Rng)>,
    /// Calls that write until the crash, and where that is.
    crash: Option<(usize, HoldPoint)>,
    calls: Vec<Call>,
}

impl<R> FaultyRegistry<R> {
    /// Passes everything on, for now.
    #[must_use]
    pub fn new(inner: R) -> Self {
        Self {
            inner,
            plan: Mutex::default(),
            before_commit: Gate::default(),
            after_commit: Gate::default(),
            reads: Gate::default(),
            compactions: Gate::default(),
            crashed: watch::Sender::default(),
            hints: watch::Sender::default(),
        }
    }

    /// The registry inside, to look at it past the faults.
    pub const fn inner(&self) -> &R {
        &self.inner
    }

    /// The next `n` appends do nothing and answer [`RegistryError::Unavailable`]; `usize::MAX`: all, 0: none any more.
    pub fn fail_appends(&self, n: usize) {
        self.plan().fail_appends = n;
    }

    /// The next `n` appends that are not failed are carried out and answer [`RegistryError::Unknown`].
    pub fn lose_answers(&self, n: usize) {
        self.plan().lose_answers = n;
    }

    /// The next `n` trims are carried out and answer [`RegistryError::Unknown`].
    pub fn lose_trims(&self, n: usize) {
        self.plan().lose_trims = n;
    }

    /// The next `n` calls of `create`, `meta`, `tail`, `snapshot`, `origins`, `heads` or `list` do nothing and answer
    /// [`RegistryError::Unavailable`]; `usize::MAX`: all, 0: none any more.
    pub fn fail_reads(&self, n: usize) {
        self.plan().fail_reads = n;
    }

    /// The next `n` compactions do nothing and answer [`RegistryError::Unavailable`]; `usize::MAX`: all, 0: none any
    /// more.
    pub fn fail_compactions(&self, n: usize) {
        self.plan().fail_compactions = n;
    }

    /// At the `n`th call from now, from 1, of `create`, `append`, `compact`, `trim` or `delete`, the registry crashes: before that is
    /// carried out, or after, without an answer. Everything then fails until it is opened again.
    pub fn crash_at(&self, n: usize, point: HoldPoint) {
        self.plan().crash = Some((n, point));
    }

    /// Resolves once it has crashed.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn crashed(&self) {
        // Fails only when the sender is gone, which `self` holds.
        let _ = self.crashed.subscribe().wait_for(|crashed| *crashed).await;
    }

    /// Opens it again after a crash, with everything that was committed.
    pub fn reopen(&self) {
        self.plan().crash = None;
        self.crashed.send_replace(false);
    }

    /// From now on calls of `create`, `meta`, `append`, `tail`, `snapshot`, `compact`, `trim`, `delete`, `heads` and `origins` take
    /// up to `way` to the registry, and as long back: differently long, so that they overtake each other. On tokio's clock.
    pub fn slow_calls(&self, way: Duration, seed: u64) {
        self.plan().slow = Some((way, Rng::new(seed.into())));
    }

    /// Appends that reach this point wait there until released.
    pub fn hold_appends(&self, point: HoldPoint) {
        self.gate(point).close();
    }

    /// Resolves once at least `n` appends wait at this point.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn held_appends(&self, point: HoldPoint, n: usize) {
        self.gate(point).waiting(n).await;
    }

    /// Lets all appends go, those held and those to come.
    pub fn release_appends(&self) {
        self.before_commit.open();
        self.after_commit.open();
    }

    /// Calls of `create`, `meta`, `tail`, `snapshot` and `origins` wait, before anything is read, until released.
    pub fn hold_reads(&self) {
        self.reads.close();
    }

    /// Resolves once at least `n` reads wait.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn held_reads(&self, n: usize) {
        self.reads.waiting(n).await;
    }

    /// Lets all reads go, those held and those to come.
    pub fn release_reads(&self) {
        self.reads.open();
    }

    /// Compactions and trims wait, before anything is done, until released.
    pub fn hold_compactions(&self) {
        self.compactions.close();
    }

    /// Resolves once at least `n` compactions wait.
    ///
    /// # Cancellation
    /// Safe.
    pub async fn held_compactions(&self, n: usize) {
        self.compactions.waiting(n).await;
    }

    /// Lets all compactions go, those held and those to come.
    pub fn release_compactions(&self) {
        self.compactions.open();
    }

    /// From now on no hint arrives, or every one again. Nothing tells of those that were lost.
    pub fn drop_hints(&self, are_dropped: bool) {
        self.hints
            .send_modify(|hints| hints.are_dropped = are_dropped);
    }

    /// Ends all streams of hints that there are.
    pub fn cut_hints(&self) {
        self.hints.send_modify(|hints| hints.n_cuts += 1);
    }

    /// How often hints were asked for.
    #[must_use]
    pub fn n_watched(&self) -> usize {
        self.hints.borrow().n_streams
    }

    /// The calls so far, in the order in which they came; also those that were failed or are held.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.plan().calls.clone()
    }

    const fn gate(&self, point: HoldPoint) -> &Gate {
        match point {
            HoldPoint::BeforeCommit => &self.before_commit,
            HoldPoint::AfterCommit => &self.after_commit,
        }
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        // Counters and a list: whole after every step, whoever panicked.
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, call: Call) {
        self.plan().calls.push(call);
    }

    async fn read(&self, call: Call) -> Result<(), RegistryError> {
        self.fail_read(call)?;
        self.reads.pass().await;
        self.travel().await;
        Ok(())
    }

    /// Lets the time pass that a call takes one way.
    async fn travel(&self) {
        let time = {
            let mut plan = self.plan();
            plan.slow.as_mut().map(|(way, rng)| rng.up_to(*way))
        };
        if let Some(time) = time {
            tokio::time::sleep(time).await;
        }
    }

    /// An answer's way back.
    async fn back<T>(&self, call: impl Future<Output = T>) -> T {
        let answer = call.await;
        self.travel().await;
        answer
    }

    /// Carries out a call that writes, unless it is the one at which the registry crashes.
    async fn write<T>(
        &self,
        call: impl Future<Output = Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        self.travel().await;
        if *self.crashed.borrow() {
            return Err(unavailable());
        }
        let point = match &mut self.plan().crash {
            Some((n @ 2.., _)) => {
                *n -= 1;
                None
            }
            Some((_, point)) => Some(*point),
            None => None,
        };
        let Some(point) = point else {
            return self.back(call).await;
        };
        if point == HoldPoint::AfterCommit {
            // Nobody hears how it went.
            drop(call.await);
        }
        self.crashed.send_replace(true);
        Err(RegistryError::unknown(injected()))
    }

    fn fail_read(&self, call: Call) -> Result<(), RegistryError> {
        let mut plan = self.plan();
        plan.calls.push(call);
        if *self.crashed.borrow() || take(&mut plan.fail_reads) {
            Err(unavailable())
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl<R: ServerRegistry> ServerRegistry for FaultyRegistry<R> {
    async fn create(&self, document: NewDocument) -> Result<DocumentMeta, RegistryError> {
        self.read(Call::Create(document.id.clone())).await?;
        self.write(self.inner.create(document)).await
    }

    async fn meta(&self, document: &DocumentId) -> Result<DocumentMeta, RegistryError> {
        self.read(Call::Meta(document.clone())).await?;
        self.back(self.inner.meta(document)).await
    }

    async fn append(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        let lost = {
            let mut plan = self.plan();
            let changes = changes.iter().map(|change| change.id).collect();
            plan.calls.push(Call::Append {
                document: document.clone(),
                changes,
            });
            if take(&mut plan.fail_appends) {
                return Err(unavailable());
            }
            take(&mut plan.lose_answers)
        };
        self.before_commit.pass().await;
        let append = self.inner.append(document, epoch, expect, changes);
        let outcomes = self.write(append).await;
        self.after_commit.pass().await;
        if lost {
            Err(RegistryError::unknown(injected()))
        } else {
            outcomes
        }
    }

    async fn tail(
        &self,
        document: &DocumentId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Tail, RegistryError> {
        self.read(Call::Tail {
            document: document.clone(),
            after,
        })
        .await?;
        self.back(self.inner.tail(document, after, max_bytes)).await
    }

    async fn snapshot(&self, document: &DocumentId) -> Result<Option<Snapshot>, RegistryError> {
        self.read(Call::Snapshot(document.clone())).await?;
        self.back(self.inner.snapshot(document)).await
    }

    async fn compact(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<(), RegistryError> {
        {
            let mut plan = self.plan();
            plan.calls.push(Call::Compact {
                document: document.clone(),
                seq: snapshot.seq,
                keep_after,
            });
            if take(&mut plan.fail_compactions) {
                return Err(unavailable());
            }
        }
        self.compactions.pass().await;
        let compact = self.inner.compact(document, epoch, snapshot, keep_after);
        self.write(compact).await
    }

    async fn trim(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        next: Epoch,
    ) -> Result<(), RegistryError> {
        let lost = {
            let mut plan = self.plan();
            plan.calls.push(Call::Trim {
                document: document.clone(),
                seq: snapshot.seq,
            });
            take(&mut plan.lose_trims)
        };
        self.compactions.pass().await;
        let trim = self.inner.trim(document, epoch, snapshot, next);
        let trimmed = self.write(trim).await;
        if lost {
            Err(RegistryError::unknown(injected()))
        } else {
            trimmed
        }
    }

    async fn delete(&self, document: &DocumentId) -> Result<(), RegistryError> {
        self.note(Call::Delete(document.clone()));
        self.write(self.inner.delete(document)).await
    }

    async fn list(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentMeta>, RegistryError> {
        self.fail_read(Call::List)?;
        self.inner.list(after, limit).await
    }

    /// Never fails by itself, and is not among the [`calls`](Self::calls): nothing but a limit depends on it.
    async fn size(&self, document: &DocumentId) -> Result<DocumentSize, RegistryError> {
        self.inner.size(document).await
    }

    async fn heads(&self, documents: &[DocumentId]) -> Result<Vec<Option<Cursor>>, RegistryError> {
        self.fail_read(Call::Heads)?;
        self.travel().await;
        self.back(self.inner.heads(documents)).await
    }

    async fn origins(
        &self,
        document: &DocumentId,
        origins: &[OriginId],
    ) -> Result<Vec<Option<OriginEntry>>, RegistryError> {
        self.read(Call::Origins(document.clone())).await?;
        self.back(self.inner.origins(document, origins)).await
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    fn is_shared(&self) -> bool {
        self.inner.is_shared()
    }

    fn watch(&self) -> Option<BoxStream<'static, RegistryEvent>> {
        let hints = self.inner.watch()?;
        self.hints.send_modify(|hints| hints.n_streams += 1);
        let mut cut = self.hints.subscribe();
        let n_cuts = cut.borrow().n_cuts;
        let faults = cut.clone();
        let passed = hints.filter(move |_| future::ready(!faults.borrow().are_dropped));
        let cut = async move {
            // Fails only when the registry is gone, and its hints with it.
            let _ = cut.wait_for(|hints| hints.n_cuts > n_cuts).await;
        };
        Some(passed.take_until(Box::pin(cut)).boxed())
    }

    async fn maintain(&self, budget: Duration) -> Result<(), RegistryError> {
        self.inner.maintain(budget).await
    }

    async fn close(&self) -> Result<(), RegistryError> {
        self.inner.close().await
    }
}

/// Open, or closed with some waiting in front of it.
#[derive(Debug, Default)]
struct Gate {
    closed: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Gate {
    fn close(&self) {
        self.closed.send_replace(true);
    }

    fn open(&self) {
        self.closed.send_replace(false);
    }

    async fn pass(&self) {
        let mut closed = self.closed.subscribe();
        if *closed.borrow() {
            let _waiting = Waiting::new(&self.waiting);
            // Fails only when the sender is gone, which `self` holds.
            let _ = closed.wait_for(|closed| !closed).await;
        }
    }

    async fn waiting(&self, n: usize) {
        let _ = self
            .waiting
            .subscribe()
            .wait_for(|waiting| *waiting >= n)
            .await;
    }
}

/// Counts as waiting until dropped, also when the call is abandoned.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|n| *n += 1);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

fn take(n: &mut usize) -> bool {
    let any = *n > 0;
    if *n != usize::MAX {
        *n = n.saturating_sub(1);
    }
    any
}

fn unavailable() -> RegistryError {
    RegistryError::unavailable(injected())
}

fn injected() -> BoxError {
    "a fault that a test asked for".into()
}
