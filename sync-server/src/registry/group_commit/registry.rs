//! What async callers see.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sync_core::history::{Cursor, Epoch, Seq};
use sync_core::ids::{DocumentId, OriginId};
use tokio::sync::oneshot;

use super::queue::Work;
use super::{BlockingReader, BlockingRegistry, GroupCommit, UNIT, end, received, stopped};
use crate::registry::{
    DocumentMeta, DocumentSize, Durability, NewChange, NewDocument, OriginEntry, Outcome,
    RegistryError, ServerRegistry, Snapshot, Tail,
};

impl<B: BlockingRegistry> GroupCommit<B> {
    /// Step by step.
    async fn carry_out(&self, mut plan: Option<B::Plan>) -> Result<(), RegistryError> {
        while let Some(step) = plan {
            plan = self.with_writer(|engine| engine.apply(step)).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl<B: BlockingRegistry> ServerRegistry for GroupCommit<B> {
    async fn create(&self, document: NewDocument) -> Result<DocumentMeta, RegistryError> {
        self.with_writer(|engine| engine.create(document)).await
    }

    async fn meta(&self, document: &DocumentId) -> Result<DocumentMeta, RegistryError> {
        let document = document.clone();
        self.with_reader(move |reader| reader.meta(&document)).await
    }

    async fn append(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        self.shared.check()?;
        let bytes: usize = changes.iter().map(|change| change.bytes.len()).sum();
        let units = u32::try_from(bytes.div_ceil(UNIT))
            .unwrap_or(u32::MAX)
            .clamp(1, self.room_max);
        let room = Arc::clone(&self.room)
            .acquire_many_owned(units)
            .await
            .map_err(|_| stopped())?;
        self.shared.answers.use_runtime();
        let (answer, answered) = oneshot::channel();
        self.shared.queue.push(Work::Append {
            document: document.clone(),
            epoch,
            expect,
            changes,
            bytes,
            answer,
            _room: room,
        })?;
        received(answered.await)
    }

    async fn tail(
        &self,
        document: &DocumentId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<Tail, RegistryError> {
        let document = document.clone();
        self.with_reader(move |reader| reader.tail(&document, after, max_bytes))
            .await
    }

    async fn snapshot(&self, document: &DocumentId) -> Result<Option<Snapshot>, RegistryError> {
        let document = document.clone();
        self.with_reader(move |reader| reader.snapshot(&document))
            .await
    }

    async fn compact(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<(), RegistryError> {
        let document = document.clone();
        let plan = self.with_reader(move |reader| {
            reader.plan_compaction(&document, epoch, snapshot, keep_after)
        });
        self.carry_out(plan.await?).await
    }

    async fn trim(
        &self,
        document: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        next: Epoch,
    ) -> Result<(), RegistryError> {
        let document = document.clone();
        let plan =
            self.with_reader(move |reader| reader.plan_trim(&document, epoch, snapshot, next));
        self.carry_out(plan.await?).await
    }

    async fn delete(&self, document: &DocumentId) -> Result<(), RegistryError> {
        let document = document.clone();
        self.with_writer(move |engine| engine.delete(&document))
            .await
    }

    async fn size(&self, document: &DocumentId) -> Result<DocumentSize, RegistryError> {
        let document = document.clone();
        self.with_reader(move |reader| reader.size(&document)).await
    }

    async fn list(
        &self,
        after: Option<&DocumentId>,
        limit: usize,
    ) -> Result<Vec<DocumentMeta>, RegistryError> {
        let after = after.cloned();
        self.with_reader(move |reader| reader.list(after.as_ref(), limit))
            .await
    }

    async fn heads(&self, documents: &[DocumentId]) -> Result<Vec<Option<Cursor>>, RegistryError> {
        let documents = documents.to_vec();
        self.with_reader(move |reader| reader.heads(&documents))
            .await
    }

    async fn origins(
        &self,
        document: &DocumentId,
        origins: &[OriginId],
    ) -> Result<Vec<Option<OriginEntry>>, RegistryError> {
        let (document, origins) = (document.clone(), origins.to_vec());
        self.with_reader(move |reader| reader.origins(&document, &origins))
            .await
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    /// No: an engine has one writer, and this is it.
    fn is_shared(&self) -> bool {
        false
    }

    /// Tidies up thoroughly. What is due is tidied up without being asked.
    async fn maintain(&self, budget: Duration) -> Result<(), RegistryError> {
        self.shared.check()?;
        let (done, finished) = oneshot::channel();
        self.shared.upkeep.ask(budget, done)?;
        finished.await.map_err(|_| stopped())?;
        self.shared.check()
    }

    async fn close(&self) -> Result<(), RegistryError> {
        let threads = self.take_threads();
        if !threads.is_empty() {
            let shared = Arc::clone(&self.shared);
            let (done, ended) = oneshot::channel();
            let waiting = std::thread::Builder::new()
                .name("registry-close".to_owned())
                .spawn(move || {
                    end(&shared, threads);
                    let _ = done.send(());
                });
            waiting.map_err(RegistryError::unavailable)?;
            // Dropped without an answer only if the thread panicked, and nothing is open then either.
            let _ = ended.await;
        }
        self.shared.check()
    }
}
