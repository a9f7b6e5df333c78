//! The conformance suite: registries that keep the promises pass it, and those that break one do not.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::cell::Cell;
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use sync_core::history::{Cursor, Digest, Epoch, Seq};
use sync_core::ids::{DocumentId, OriginId, User};
use sync_server::registry::{
    DocumentMeta, Durability, FaultyRegistry, MemoryRegistry, NewChange, NewDocument, OriginEntry,
    Outcome, RegistryError, ServerRegistry, Snapshot, Tail, conformance,
};

/// Scenario 62: the registry in memory passes what a custom one has to pass.
#[tokio::test]
async fn the_memory_registry_keeps_every_promise() {
    let report = conformance::run(|| async { MemoryRegistry::new() })
        .await
        .unwrap();
    assert!(report.kept.len() > 30);
}

#[tokio::test]
async fn a_registry_behind_an_arc_is_a_registry() {
    conformance::run(|| async { Arc::new(MemoryRegistry::new()) })
        .await
        .unwrap();
    conformance::run(|| async {
        let registry: Arc<dyn ServerRegistry> = Arc::new(MemoryRegistry::new());
        registry
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_faulty_registry_without_faults_is_faultless() {
    conformance::run(|| async { FaultyRegistry::new(MemoryRegistry::new()) })
        .await
        .unwrap();
}

/// One that is as it was whenever it is opened again.
#[tokio::test]
async fn a_registry_that_outlives_its_handles_keeps_every_promise() {
    let place = async || Arc::new(MemoryRegistry::new());
    let report = conformance::run_with_crashes(place, async |place| place.clone())
        .await
        .unwrap();
    let name = "a_call_that_was_cut_short_is_carried_out_or_not";
    assert!(report.kept.contains(&name), "{report:?}");
}

/// What outlives a registry.
type Disk = Arc<Mutex<Arc<MemoryRegistry>>>;

#[tokio::test]
async fn a_registry_that_forgets_when_it_is_opened_again_fails_with_the_name_of_the_promise() {
    let closed = "what_was_answered_is_there_after_it_was_closed";
    let dropped = "what_was_answered_is_there_after_it_was_dropped";
    let repeated = "a_call_whose_answer_was_lost_changes_nothing_when_repeated";
    let cut = "a_call_that_was_cut_short_is_carried_out_or_not";
    let together = "appends_cut_short_together_leave_a_whole_log";
    for (first, again, promise) in [
        (Wrong::WritesWhenClosed, Wrong::WritesWhenClosed, dropped),
        (Wrong::Nothing, Wrong::RecreatesDeleted, closed),
        (Wrong::Nothing, Wrong::RecreatesDeleted, dropped),
        (Wrong::Nothing, Wrong::ForgetsOrigins, dropped),
        (Wrong::Nothing, Wrong::IgnoresEpoch, dropped),
        (Wrong::Nothing, Wrong::HeadsLag, dropped),
        (Wrong::Nothing, Wrong::AnswersRepeatsAsCommitted, repeated),
        (Wrong::AppendsOneByOne, Wrong::AppendsOneByOne, cut),
        (Wrong::AppendsOneByOne, Wrong::AppendsOneByOne, together),
    ] {
        // Each place with the number of times that it was opened.
        let place = async || (Disk::default(), Cell::new(0));
        let open = async |(disk, times): &(Disk, Cell<u32>)| {
            let stored = disk.lock().unwrap().clone();
            let writes_at_once = first != Wrong::WritesWhenClosed;
            times.set(times.get() + 1);
            Broken {
                inner: if writes_at_once {
                    stored
                } else {
                    Arc::new(stored.backup())
                },
                wrong: if times.get() == 1 { first } else { again },
                disk: Some(disk.clone()),
                first_epoch: OnceLock::new(),
            }
        };
        let failures = conformance::run_with_crashes(place, open)
            .await
            .unwrap_err();
        let is_named = failures.broken.iter().any(|(name, _)| *name == promise);
        assert!(is_named, "{again:?}, {promise}: {failures}");
    }
}

/// What a broken registry does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    WritesWhenClosed,
    CreatesOnRead,
    RecreatesDeleted,
    IgnoresEpoch,
    IgnoresExpect,
    IgnoresUsers,
    TakesFoldsOfStaleEpochs,
    TakesAnyDigest,
    TrimsWhateverTheHead,
    TrimsInTheOldHistory,
    DropsRowsThroughTheSnapshot,
    AppendsOneByOne,
    AnswersRepeatsAsCommitted,
    HidesReusedIds,
    ForgetsWhoReconciled,
    PagesWithoutBound,
    PagesMayBeEmpty,
    TellsTheDigestOfTheHead,
    ListsFromTheEnd,
    HeadsLag,
    HeadsOfTheFirstHistory,
    HeadsWithoutDigest,
    MissingHeadsAreZero,
    ForgetsOrigins,
    FailsToClose,
}

const ALL: [Wrong; 24] = [
    Wrong::CreatesOnRead,
    Wrong::RecreatesDeleted,
    Wrong::IgnoresEpoch,
    Wrong::IgnoresExpect,
    Wrong::IgnoresUsers,
    Wrong::TakesFoldsOfStaleEpochs,
    Wrong::TakesAnyDigest,
    Wrong::TrimsWhateverTheHead,
    Wrong::TrimsInTheOldHistory,
    Wrong::DropsRowsThroughTheSnapshot,
    Wrong::AppendsOneByOne,
    Wrong::AnswersRepeatsAsCommitted,
    Wrong::HidesReusedIds,
    Wrong::ForgetsWhoReconciled,
    Wrong::PagesWithoutBound,
    Wrong::PagesMayBeEmpty,
    Wrong::TellsTheDigestOfTheHead,
    Wrong::ListsFromTheEnd,
    Wrong::HeadsLag,
    Wrong::HeadsOfTheFirstHistory,
    Wrong::HeadsWithoutDigest,
    Wrong::MissingHeadsAreZero,
    Wrong::ForgetsOrigins,
    Wrong::FailsToClose,
];

#[tokio::test]
async fn a_registry_that_breaks_a_promise_fails() {
    for wrong in ALL {
        let run = conformance::run(|| async move { Broken::new(wrong) }).await;
        assert!(run.is_err(), "{wrong:?} was not noticed");
    }
}

#[tokio::test]
async fn failures_name_the_promise() {
    let wrong = Wrong::IgnoresExpect;
    let failures = conformance::run(|| async move { Broken::new(wrong) })
        .await
        .unwrap_err();
    let broken: Vec<_> = failures.broken.iter().map(|(name, _)| *name).collect();
    assert!(
        broken.contains(&"an_unexpected_head_is_a_conflict"),
        "{failures}"
    );
}

struct Broken {
    inner: Arc<MemoryRegistry>,
    wrong: Wrong,
    disk: Option<Disk>,
    /// Of the document that was created first.
    first_epoch: OnceLock<Epoch>,
}

impl Broken {
    fn new(wrong: Wrong) -> Self {
        Self {
            inner: Arc::default(),
            wrong,
            disk: None,
            first_epoch: OnceLock::new(),
        }
    }

    fn is(&self, wrong: Wrong) -> bool {
        self.wrong == wrong
    }
}

#[async_trait]
impl ServerRegistry for Broken {
    async fn create(&self, document: NewDocument) -> Result<DocumentMeta, RegistryError> {
        self.first_epoch.get_or_init(|| document.epoch);
        match self.inner.create(document.clone()).await {
            Err(RegistryError::Deleted) if self.is(Wrong::RecreatesDeleted) => {
                self.inner.replace(document, Vec::new())
            }
            other => other,
        }
    }

    async fn meta(&self, document: &DocumentId) -> Result<DocumentMeta, RegistryError> {
        match self.inner.meta(document).await {
            Err(RegistryError::NotFound) if self.is(Wrong::CreatesOnRead) => {
                let engine = sync_core::ids::EngineId::OPAQUE;
                self.inner
                    .create(NewDocument::new(document.clone(), engine, Epoch(1)))
                    .await
            }
            other => other,
        }
    }

    async fn append(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        mut changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        let epoch = if self.is(Wrong::IgnoresEpoch) {
            self.inner.meta(document).await?.epoch
        } else {
            epoch
        };
        let expect = expect.filter(|_| !self.is(Wrong::IgnoresExpect));
        if self.is(Wrong::IgnoresUsers) {
            changes
                .iter_mut()
                .for_each(|change| change.user = User::new("everybody"));
        }
        if self.is(Wrong::AppendsOneByOne) && expect.is_none() && !changes.is_empty() {
            let mut outcomes = Vec::new();
            for change in changes {
                tokio::task::yield_now().await;
                outcomes.extend(
                    self.inner
                        .append(document, epoch, None, vec![change])
                        .await?,
                );
            }
            return Ok(outcomes);
        }
        let mut outcomes = self.inner.append(document, epoch, expect, changes).await?;
        for outcome in &mut outcomes {
            match outcome {
                Outcome::Duplicate { seq: Some(seq), .. }
                    if self.is(Wrong::AnswersRepeatsAsCommitted) =>
                {
                    *outcome = Outcome::At(*seq);
                }
                Outcome::IdReused if self.is(Wrong::HidesReusedIds) => {
                    *outcome = Outcome::Duplicate { last: 1, seq: None };
                }
                _ => {}
            }
        }
        Ok(outcomes)
    }

    async fn tail(
        &self,
        document: &DocumentId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Tail, RegistryError> {
        let asked = if self.is(Wrong::PagesWithoutBound) {
            usize::MAX
        } else {
            max_bytes
        };
        let mut tail = self.inner.tail(document, after, asked).await?;
        if let Tail::Changes {
            digest, changes, ..
        } = &mut tail
        {
            if self.is(Wrong::ForgetsWhoReconciled) {
                let rows = changes.iter_mut();
                rows.for_each(|row| row.reconciling = false);
            }
            if self.is(Wrong::TellsTheDigestOfTheHead) {
                *digest = self.inner.meta(document).await?.digest;
            }
            if self.is(Wrong::PagesMayBeEmpty)
                && changes
                    .first()
                    .is_some_and(|row| row.bytes.len() > max_bytes)
            {
                changes.clear();
            }
        }
        Ok(tail)
    }

    async fn snapshot(&self, document: &DocumentId) -> Result<Option<Snapshot>, RegistryError> {
        self.inner.snapshot(document).await
    }

    async fn compact(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        mut snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<(), RegistryError> {
        let meta = self.inner.meta(document).await?;
        let epoch = if self.is(Wrong::TakesFoldsOfStaleEpochs) {
            meta.epoch
        } else {
            epoch
        };
        let keep_after = if self.is(Wrong::DropsRowsThroughTheSnapshot) {
            snapshot.seq
        } else {
            keep_after
        };
        if self.is(Wrong::TakesAnyDigest) {
            snapshot.digest = match self.inner.tail(document, snapshot.seq, 0).await? {
                Tail::Changes { digest, .. } => digest,
                Tail::Compacted { .. } | Tail::BeyondHead { .. } => Digest::EMPTY,
            };
        }
        self.inner
            .compact(document, epoch, snapshot, keep_after)
            .await
    }

    async fn trim(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        mut snapshot: Snapshot,
        next: Epoch,
    ) -> Result<(), RegistryError> {
        if self.is(Wrong::TrimsInTheOldHistory) {
            let through = snapshot.seq;
            return self.inner.compact(document, epoch, snapshot, through).await;
        }
        if self.is(Wrong::TrimsWhateverTheHead) {
            let meta = self.inner.meta(document).await?;
            (snapshot.seq, snapshot.digest) = (meta.head, meta.digest);
        }
        self.inner.trim(document, epoch, snapshot, next).await
    }

    async fn delete(&self, document: &DocumentId) -> Result<(), RegistryError> {
        self.inner.delete(document).await
    }

    async fn list(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentMeta>, RegistryError> {
        let mut metas = self.inner.list(after, limit).await?;
        if self.is(Wrong::ListsFromTheEnd) {
            metas.reverse();
        }
        Ok(metas)
    }

    async fn heads(&self, documents: &[DocumentId]) -> Result<Vec<Option<Cursor>>, RegistryError> {
        let mut heads = self.inner.heads(documents).await?;
        for head in &mut heads {
            if self.is(Wrong::HeadsLag) {
                *head = head.map(|head| Cursor {
                    seq: Seq(head.seq.0.saturating_sub(1)),
                    ..head
                });
            }
            if self.is(Wrong::HeadsWithoutDigest) {
                *head = head.map(|head| Cursor {
                    digest: Digest::EMPTY,
                    ..head
                });
            }
            if self.is(Wrong::HeadsOfTheFirstHistory) {
                *head = head.map(|head| Cursor {
                    epoch: *self.first_epoch.get().unwrap(),
                    ..head
                });
            }
            if self.is(Wrong::MissingHeadsAreZero) {
                *head = Some(head.unwrap_or(Cursor::start(Epoch(0))));
            }
        }
        Ok(heads)
    }

    async fn origins(
        &self,
        document: &DocumentId,
        origins: &[OriginId],
    ) -> Result<Vec<Option<OriginEntry>>, RegistryError> {
        let entries = self.inner.origins(document, origins).await?;
        Ok(if self.is(Wrong::ForgetsOrigins) {
            vec![None; entries.len()]
        } else {
            entries
        })
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    async fn close(&self) -> Result<(), RegistryError> {
        if let Some(disk) = &self.disk {
            *disk.lock().unwrap() = self.inner.clone();
        }
        if self.is(Wrong::FailsToClose) {
            Err(RegistryError::Unknown { source: None })
        } else {
            Ok(())
        }
    }
}
