//! Finding out which changes of a batch kill workers.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::batch::Batch;
use super::job::{Job, Stop, load};
use super::process::{Death, Process, Settings};
use crate::engine_host::host::Content;

/// Batches after which a document that has killed a worker may share one with others again.
const PROBATION: u32 = 256;

/// Kills by one change, alone in fresh workers, after which it is the culprit.
pub(super) const KILLS_MAX: u32 = 2;

/// Workers that the search for culprits in one batch, and their documents' loading, may take.
const SEARCH_MAX: u32 = 24;

/// What a document has to itself, because it has killed a worker.
#[derive(Debug)]
pub(crate) struct Isolated {
    /// With a replica of this name.
    process: Option<Kept>,
    /// Batches to go.
    pub(super) probation: u32,
}

/// A worker between two batches.
#[derive(Debug)]
struct Kept {
    process: Process,
    /// Of the replica that it has.
    name: u64,
    _permit: OwnedSemaphorePermit,
}

impl Isolated {
    pub(super) const fn new() -> Self {
        Self {
            process: None,
            probation: PROBATION,
        }
    }
}

/// The search for the changes of a batch that kill workers: one by one, in workers of the document's own.
pub(super) struct Search<'a> {
    pub(super) settings: &'a Settings,
    /// Workers that may be kept between two batches.
    pub(super) kept: &'a Arc<Semaphore>,
    pub(super) job: &'a Job,
    pub(super) deaths: &'a mut Vec<String>,
}

impl Search<'_> {
    pub(super) async fn run(
        self,
        batch: &mut Batch,
        content: &mut Option<Arc<Content>>,
        isolated: &mut Isolated,
    ) -> Result<(), Stop> {
        let name = self.job.request.replica;
        // The change at which the last worker died, and how often one did that had been given nothing else.
        let mut suspect = (0, 0);
        let mut n_unloadable = 0;
        for _ in 0..SEARCH_MAX {
            let mut is_fresh = false;
            let mut worker = match isolated.process.take() {
                Some(kept) if kept.name == name && kept.process.is_usable() => kept.process,
                _ => match self.begin(batch, content).await {
                    Ok(worker) => {
                        is_fresh = true;
                        worker
                    }
                    Err(Stop::Death(Death::Crashed(what))) => {
                        self.deaths.push(what.clone());
                        n_unloadable += 1;
                        if n_unloadable < KILLS_MAX {
                            continue;
                        }
                        // What was accepted did no harm by itself.
                        let is_stored = batch.accepted().is_empty();
                        return Err(if is_stored {
                            Stop::Unloadable(what)
                        } else {
                            Stop::NotNow
                        });
                    }
                    Err(stop) => return Err(stop),
                },
            };
            loop {
                let Some((at, changes)) = batch.next(1) else {
                    isolated.probation = isolated.probation.saturating_sub(1);
                    // Without one, the next batch begins with another worker.
                    let permit = Arc::clone(self.kept).try_acquire_owned().ok();
                    isolated.process = permit.map(|permit| Kept {
                        process: worker,
                        name,
                        _permit: permit,
                    });
                    return Ok(());
                };
                match worker.check(self.job.room, changes).await {
                    Ok(Ok(found)) => {
                        batch.take(found.findings);
                        is_fresh = false;
                        if found.is_spent {
                            break;
                        }
                    }
                    Ok(Err(_)) => return Err(Stop::NotNow),
                    Err(Death::Crashed(what)) => {
                        self.deaths.push(what);
                        isolated.probation = PROBATION;
                        let kills = if suspect.0 == at { suspect.1 } else { 0 };
                        suspect = (at, kills + u32::from(is_fresh));
                        if suspect.1 == KILLS_MAX {
                            batch.refuse("a worker process died of the change");
                        }
                        break;
                    }
                    Err(death) => {
                        self.deaths.push(death.what().to_owned());
                        return Err(death.into());
                    }
                }
            }
            if batch.is_done() {
                // The next batch begins with a worker of its own.
                return Ok(());
            }
        }
        Ok(())
    }

    /// A fresh worker that has been given what is stored, and what has been accepted.
    async fn begin(
        &self,
        batch: &Batch,
        content: &mut Option<Arc<Content>>,
    ) -> Result<Process, Stop> {
        let content = match content {
            Some(content) => Arc::clone(content),
            None => Arc::clone(content.insert((self.job.load)().await.ok_or(Stop::NotNow)?)),
        };
        let mut worker = Process::start(self.settings).await?;
        load(&mut worker, self.job, &content, batch).await?;
        Ok(worker)
    }
}
