//! The workers of a server: which of them has which replica, and what one takes with it when it dies.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sync_core::engine::EngineError;
use sync_core::ids::EngineId;
use sync_core::server::Verdict;
use tokio::sync::{Mutex, MutexGuard, Semaphore};

use super::batch::Batch;
use super::job::{Job, Stop};
use super::process::{Death, Process, Settings};
use super::protocol::{Failure, Request};
use super::search::{Isolated, KILLS_MAX, Search};
use super::slot::Slot;
use crate::engine_host::check::not_now;
use crate::engine_host::host::{CheckJob, Checks, Content, HostError, Hot};
use crate::engine_host::meter::Meter;

/// Replicas loaded for one batch, in a worker that others share.
const LOADS_MAX: u32 = 4;

/// The workers.
pub(crate) struct Pool {
    settings: Settings,
    /// How long a batch waits for its turn.
    patience: Duration,
    /// Requests after which a worker is replaced by a fresh one.
    requests_max: u64,
    /// Memory of the replicas in one worker, as far as they say.
    replica_bytes_max: u64,
    shared: Vec<Mutex<Slot>>,
    /// Batches that are searched at once for what kills.
    searches: Semaphore,
    /// Workers that documents have to themselves, between two batches.
    kept: Arc<Semaphore>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Pool {
    pub(super) fn new(
        settings: Settings,
        processes: usize,
        patience: Duration,
        requests_max: u64,
    ) -> Self {
        Self {
            replica_bytes_max: settings.limits.memory_bytes / 2,
            settings,
            patience,
            requests_max,
            shared: (0..processes.max(1)).map(|_| Mutex::default()).collect(),
            searches: Semaphore::new(processes.max(1)),
            kept: Arc::new(Semaphore::new(processes.max(1))),
        }
    }

    /// Checks a batch.
    pub(crate) async fn check(&self, job: CheckJob) -> Checks {
        let CheckJob {
            room,
            request,
            hot,
            load,
            meter,
        } = job;
        let job = Job {
            room,
            request,
            load,
        };
        let mut batch = Batch::new(&job.request);
        let mut content = None;
        let mut deaths = Vec::new();
        let mut isolated = match hot {
            Some(Hot::Isolated(isolated)) => Some(*isolated),
            _ => None,
        };
        let mut result = Ok(());
        if isolated.is_none() {
            result = self
                .check_shared(&job, &mut batch, &mut content, &meter)
                .await;
            if let Err(Stop::Death(death)) = &result {
                deaths.push(death.what().to_owned());
                isolated = Some(Isolated::new());
                if matches!(death, Death::Crashed(_)) {
                    batch.begin_again();
                    result = Ok(());
                }
            }
        }
        if let Some(isolated) = &mut isolated
            && result.is_ok()
        {
            let search = Search {
                settings: &self.settings,
                kept: &self.kept,
                job: &job,
                deaths: &mut deaths,
            };
            let turn = tokio::time::timeout(self.patience, self.searches.acquire()).await;
            result = match turn {
                Ok(_) => {
                    let search = search.run(&mut batch, &mut content, isolated);
                    meter.wait(search).await
                }
                Err(_) => Err(Stop::NotNow),
            };
        }
        let isolated = isolated.filter(|isolated| isolated.probation > 0);
        let hot = isolated.map(|isolated| Hot::Isolated(Box::new(isolated)));
        let n = batch.len();
        let mut checks = match result {
            Ok(()) => Checks::new(batch.finish(), hot),
            Err(Stop::Unloadable(what)) => {
                let relayed = Verdict::Accepted { is_new: false };
                let mut checks = Checks::new(vec![relayed; n], Some(Hot::Relayed));
                checks.relayed = Some(what);
                checks
            }
            // What had been accepted is in a replica that is gone.
            Err(Stop::Death(_) | Stop::NotNow) => Checks::new(vec![not_now(); n], hot),
        };
        checks.deaths = deaths;
        checks
    }

    async fn slot(&self, room: u32) -> Result<MutexGuard<'_, Slot>, Stop> {
        let slot = usize::try_from(room)
            .ok()
            .and_then(|room| room.checked_rem(self.shared.len()))
            .and_then(|at| self.shared.get(at))
            .ok_or(Stop::NotNow)?;
        let slot = tokio::time::timeout(self.patience, slot.lock()).await;
        slot.map_err(|_| Stop::NotNow)
    }

    /// All at once, in a worker that others share.
    async fn check_shared(
        &self,
        job: &Job,
        batch: &mut Batch,
        content: &mut Option<Arc<Content>>,
        meter: &Meter,
    ) -> Result<(), Stop> {
        let (room, name) = (job.room, job.request.replica);
        // Again, when a refused change has left traces in the replica. Whatever is left then is told to come again.
        for _ in 0..LOADS_MAX {
            if content.is_none() && !self.slot(room).await?.has(room, name) {
                // Not while others wait for the worker.
                *content = Some((job.load)().await.ok_or(Stop::NotNow)?);
            }
            let mut slot = self.slot(room).await?;
            slot.ready(&self.settings, self.requests_max).await?;
            let checked = slot.check(job, batch, content.as_deref());
            let result = meter.wait(checked).await;
            if let Ok(()) = result {
                slot.make_room(room, self.replica_bytes_max).await?;
            }
            if matches!(result, Err(Stop::Death(_))) {
                slot.forget_process();
            }
            result?;
            if batch.is_done() {
                break;
            }
        }
        Ok(())
    }

    /// Folds or trims the document, or reads it, in a worker of its own; a second time if it dies.
    pub(crate) async fn read(
        &self,
        engine: &EngineId,
        content: &Content,
        what: Reading,
    ) -> Result<Bytes, HostError> {
        let engine = engine.as_str().to_owned();
        let request = match what {
            Reading::Fold => Request::Fold { engine },
            Reading::Json => Request::Json { engine },
            Reading::Trim { keep } => Request::Trim {
                engine,
                keep: u64::try_from(keep).unwrap_or(u64::MAX),
            },
        };
        let mut died = String::new();
        for _ in 0..KILLS_MAX {
            let read = async {
                let mut process = Process::start(&self.settings).await?;
                process.read_content(content, &request).await
            };
            match read.await {
                Ok(Ok(bytes)) => return Ok(bytes),
                Ok(Err(failure)) => return Err(host_error(failure)),
                Err(death) => death.what().clone_into(&mut died),
            }
        }
        Err(HostError::Died(died))
    }
}

/// What a document is read for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Reading {
    Fold,
    Json,
    Trim { keep: usize },
}

fn host_error(failure: Failure) -> HostError {
    match failure {
        Failure::Incomplete => HostError::Engine(EngineError::Incomplete),
        Failure::Unproven => HostError::Engine(EngineError::Unproven),
        Failure::Unsupported => HostError::Engine(EngineError::Unsupported {
            what: "folding, trimming or reading",
        }),
        Failure::Other(what) => HostError::Died(what),
    }
}
