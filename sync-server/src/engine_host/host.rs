//! What the rooms' tasks ask: check this batch, fold this log, read this document.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use sync_core::engine::{EngineError, Ledger, Validator};
use sync_core::ids::{ChangeId, EngineId, User};
use sync_core::server::{CheckRequest, Engines, Verdict};

use super::check::{self, not_now};
use super::guard::{caught, on_large_stack};
use super::local;
use super::meter::Meter;
#[cfg(all(feature = "workers", unix))]
use super::workers::Reading;

/// A document's committed rows: the snapshot, and those after it.
#[derive(Debug, Default)]
pub(crate) struct Content {
    pub(crate) snapshot: Option<Bytes>,
    /// Each with its author, if that is known, and the work in it is that user's own.
    pub(crate) rows: Vec<(Option<User>, Bytes)>,
}

impl Content {
    /// Has a ledger begin with this.
    pub(super) fn load_into(&self, ledger: &mut dyn Ledger) -> Result<(), EngineError> {
        if let Some(snapshot) = &self.snapshot {
            ledger.load(snapshot)?;
        }
        for (author, bytes) in &self.rows {
            ledger.admit(bytes, author.as_ref())?;
        }
        Ok(())
    }

    pub(super) fn changes(&self) -> Vec<Bytes> {
        self.rows.iter().map(|(_, bytes)| bytes.clone()).collect()
    }
}

/// Reads the committed rows that a check begins with; `None` if that cannot be done now.
pub(crate) type Load = dyn Fn() -> BoxFuture<'static, Option<Arc<Content>>> + Send + Sync;

/// What is kept of a document between two checks.
pub(crate) enum Hot {
    /// Of this name ([`CheckRequest::replica`]).
    Ledger(u64, Box<dyn Ledger>),
    /// What is stored cannot be checked against: the document is relayed.
    Relayed,
    /// The document has killed a worker, and has one to itself.
    #[cfg(all(feature = "workers", unix))]
    Isolated(Box<super::workers::Isolated>),
}

impl fmt::Debug for Hot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ledger(replica, _) => f.debug_tuple("Ledger").field(replica).finish(),
            Self::Relayed => f.write_str("Relayed"),
            #[cfg(all(feature = "workers", unix))]
            Self::Isolated(_) => f.write_str("Isolated"),
        }
    }
}

/// A batch to be checked.
pub(crate) struct CheckJob {
    /// Number of the document's room, which no other has or had.
    #[cfg_attr(
        not(all(feature = "workers", unix)),
        expect(dead_code, reason = "only worker processes are told of it")
    )]
    pub(crate) room: u32,
    pub(crate) request: CheckRequest,
    pub(crate) hot: Option<Hot>,
    pub(crate) load: Box<Load>,
    /// Counts what engines take for it.
    pub(crate) meter: Meter,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Checks {
    pub(crate) verdicts: Vec<Verdict>,
    pub(crate) hot: Option<Hot>,
    /// Refused because the engine panicked at it.
    pub(crate) panicked: Vec<ChangeId>,
    /// Why the document is relayed from now on, if it is.
    pub(crate) relayed: Option<String>,
    /// How workers ended meanwhile.
    pub(crate) deaths: Vec<String>,
}

impl Checks {
    pub(crate) const fn new(verdicts: Vec<Verdict>, hot: Option<Hot>) -> Self {
        Self {
            verdicts,
            hot,
            panicked: Vec::new(),
            relayed: None,
            deaths: Vec::new(),
        }
    }
}

/// Why there is no answer from an engine.
#[derive(Debug)]
pub(crate) enum HostError {
    Engine(EngineError),
    /// The worker.
    #[cfg(all(feature = "workers", unix))]
    Died(String),
}

impl From<EngineError> for HostError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

/// The engines of a server, and where they run.
#[derive(Debug)]
pub(crate) struct Host {
    engines: Engines,
    #[cfg(all(feature = "workers", unix))]
    workers: Option<super::workers::Pool>,
}

impl Host {
    pub(super) fn in_process(mut engines: Engines) -> Self {
        let checked: Vec<_> = engines
            .iter()
            .filter(|(_, validator)| validator.is_some_and(|found| new_ledger(found).is_some()))
            .map(|(engine, _)| engine.clone())
            .collect();
        for engine in checked {
            engines.check(engine);
        }
        Self {
            engines,
            #[cfg(all(feature = "workers", unix))]
            workers: None,
        }
    }

    #[cfg(all(feature = "workers", unix))]
    pub(super) fn with_workers(engines: Engines, workers: super::workers::Pool) -> Self {
        let mut host = Self::in_process(engines);
        host.workers = Some(workers);
        host
    }

    /// The engines, for rooms.
    pub(crate) fn engines(&self) -> Engines {
        self.engines.clone()
    }

    fn validator(&self, engine: &EngineId) -> Option<&Arc<dyn Validator>> {
        self.engines.validator(engine).flatten()
    }

    /// Checks a batch at once, if that takes no more than reading it.
    pub(crate) fn check_now(
        &self,
        hot: &mut Option<Hot>,
        request: &CheckRequest,
    ) -> Option<Vec<Verdict>> {
        let mut verdicts = Vec::with_capacity(request.changes.len());
        match hot {
            Some(Hot::Relayed) => {
                let relayed = Verdict::Accepted { is_new: false };
                verdicts.resize(request.changes.len(), relayed);
            }
            Some(Hot::Ledger(replica, ledger)) if *replica == request.replica && ledger.scans() => {
                let changes = request.changes.iter().map(Into::into);
                let mut closed = std::collections::BTreeSet::new();
                let checked = caught(|| {
                    check::check(&mut **ledger, changes, &mut closed, &mut verdicts);
                    Ok(())
                });
                if checked.is_err() || ledger.is_spent() {
                    *hot = None;
                }
                if verdicts.len() < request.changes.len() {
                    // Begun again, where there is time to find out what was wrong.
                    return None;
                }
            }
            _ => return None,
        }
        Some(verdicts)
    }

    /// Checks a batch.
    ///
    /// # Cancellation
    /// What is kept of the document is lost.
    pub(crate) async fn check(&self, job: CheckJob) -> Checks {
        match self.validator(&job.request.engine) {
            #[cfg(all(feature = "workers", unix))]
            Some(validator)
                if let Some(workers) = &self.workers
                    && !scans(validator) =>
            {
                workers.check(job).await
            }
            Some(validator) => local::check(Arc::clone(validator), job).await,
            None => Checks::new(vec![not_now(); job.request.changes.len()], None),
        }
    }

    /// Folds committed rows into a snapshot.
    pub(crate) async fn fold(
        &self,
        engine: &EngineId,
        content: Content,
    ) -> Result<Bytes, HostError> {
        let validator = self.folding(engine, "folding")?;
        #[cfg(all(feature = "workers", unix))]
        if let Some(workers) = &self.workers {
            return workers.read(engine, &content, Reading::Fold).await;
        }
        let folded = tokio::task::spawn_blocking(move || fold(&*validator, &content));
        Ok(folded.await.unwrap_or(Err(EngineError::Poisoned))?)
    }

    /// Folds committed rows into a snapshot without the history before the last `keep` of them.
    pub(crate) async fn trim(
        &self,
        engine: &EngineId,
        content: Content,
        keep: usize,
    ) -> Result<Bytes, HostError> {
        let validator = self.folding(engine, "trimming")?;
        #[cfg(all(feature = "workers", unix))]
        if let Some(workers) = &self.workers {
            let what = Reading::Trim { keep };
            return workers.read(engine, &content, what).await;
        }
        let trimmed = tokio::task::spawn_blocking(move || {
            let folder = validator
                .folder()
                .ok_or(EngineError::Unsupported { what: "trimming" })?;
            let snapshot = content.snapshot.as_deref();
            on_large_stack(|| folder.trim(snapshot, &content.changes(), keep))
        });
        Ok(trimmed.await.unwrap_or(Err(EngineError::Poisoned))?)
    }

    /// Reads committed rows as JSON.
    pub(crate) async fn read_json(
        &self,
        engine: &EngineId,
        content: Content,
    ) -> Result<String, HostError> {
        let validator = self.folding(engine, "reading as JSON")?;
        #[cfg(all(feature = "workers", unix))]
        if let Some(workers) = &self.workers {
            let json = workers.read(engine, &content, Reading::Json).await?;
            let json = String::from_utf8(json.into());
            return json.map_err(|_| HostError::Died("the answer is no text".into()));
        }
        let read = tokio::task::spawn_blocking(move || read_json(&*validator, &content));
        Ok(read.await.unwrap_or(Err(EngineError::Poisoned))?)
    }

    fn folding(
        &self,
        engine: &EngineId,
        what: &'static str,
    ) -> Result<Arc<dyn Validator>, EngineError> {
        self.validator(engine)
            .filter(|validator| validator.folder().is_some())
            .cloned()
            .ok_or(EngineError::Unsupported { what })
    }
}

/// Whether an engine's ledger may be asked in this process, whatever the bytes.
#[cfg(all(feature = "workers", unix))]
fn scans(validator: &Arc<dyn Validator>) -> bool {
    new_ledger(validator).is_some_and(|ledger| ledger.scans())
}

/// An empty ledger of an engine, if it has any.
pub(super) fn new_ledger(validator: &Arc<dyn Validator>) -> Option<Box<dyn Ledger>> {
    caught(|| Ok(validator.ledger())).unwrap_or(None)
}

/// Blocks.
pub(super) fn fold(validator: &dyn Validator, content: &Content) -> Result<Bytes, EngineError> {
    let folder = validator
        .folder()
        .ok_or(EngineError::Unsupported { what: "folding" })?;
    on_large_stack(|| folder.fold(content.snapshot.as_deref(), &content.changes()))
}

/// Blocks.
pub(super) fn read_json(
    validator: &dyn Validator,
    content: &Content,
) -> Result<String, EngineError> {
    let folder = validator.folder().ok_or(EngineError::Unsupported {
        what: "reading as JSON",
    })?;
    on_large_stack(|| folder.read_json(content.snapshot.as_deref(), &content.changes()))
}
