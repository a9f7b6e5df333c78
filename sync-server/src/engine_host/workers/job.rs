//! A batch to be checked by a worker, and what there is to it before its changes.

use super::batch::Batch;
use super::process::{Death, Process};
use super::protocol::Failure;
use crate::engine_host::host::{Content, Load};
use sync_core::server::CheckRequest;

pub(super) struct Job {
    /// Number of the document's replica.
    pub(super) room: u32,
    pub(super) request: CheckRequest,
    pub(super) load: Box<Load>,
}

/// Why a batch was not finished.
pub(super) enum Stop {
    /// Of the worker's death.
    Death(Death),
    /// The engine cannot load what is stored.
    Unloadable(String),
    /// What is stored could not be read, there was no worker in time, or one does not make sense.
    NotNow,
}

impl From<Death> for Stop {
    fn from(death: Death) -> Self {
        Self::Death(death)
    }
}

/// Has a worker keep a replica of what is stored, and of what has been accepted on top of that. Says about what it takes.
pub(super) async fn load(
    process: &mut Process,
    job: &Job,
    content: &Content,
    batch: &Batch,
) -> Result<u64, Stop> {
    let engine = job.request.engine.as_str();
    let found = match process.load(engine, job.room, content).await? {
        Ok(found) => found,
        Err(Failure::Other(what)) => return Err(Stop::Unloadable(what)),
        Err(_) => return Err(Stop::NotNow),
    };
    let accepted = batch.accepted();
    let n = accepted.len();
    if n == 0 {
        return Ok(found.bytes);
    }
    match process.check(job.room, accepted).await? {
        Ok(found) if !found.is_spent && found.findings.len() == n => Ok(found.bytes),
        _ => Err(Stop::NotNow),
    }
}
