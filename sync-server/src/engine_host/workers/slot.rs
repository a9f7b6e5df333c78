//! A worker that documents share, and whose replicas it has.

use std::collections::BTreeMap;

use super::batch::Batch;
use super::job::{Job, Stop, load};
use super::process::{Death, Process, Settings};
use crate::engine_host::host::Content;

/// A worker that documents share.
#[derive(Default)]
pub(super) struct Slot {
    process: Option<Process>,
    replicas: BTreeMap<u32, Replica>,
    uses: u64,
}

struct Replica {
    name: u64,
    bytes: u64,
    used: u64,
}

impl Slot {
    /// A worker that can be asked something.
    pub(super) async fn ready(
        &mut self,
        settings: &Settings,
        requests_max: u64,
    ) -> Result<(), Death> {
        let is_fit = self
            .process
            .as_ref()
            .is_some_and(|process| process.is_usable() && process.n_requests < requests_max);
        if !is_fit {
            self.replicas.clear();
            self.process = None;
            self.process = Some(Process::start(settings).await?);
        }
        Ok(())
    }

    pub(super) fn forget_process(&mut self) {
        self.process = None;
        self.replicas.clear();
    }

    pub(super) fn has(&mut self, room: u32, name: u64) -> bool {
        self.uses += 1;
        let uses = self.uses;
        match self.replicas.get_mut(&room) {
            Some(replica) if replica.name == name => {
                replica.used = uses;
                true
            }
            _ => false,
        }
    }

    /// Asks about all that is left; nothing, if the replica is gone and there is nothing to make another of.
    pub(super) async fn check(
        &mut self,
        job: &Job,
        batch: &mut Batch,
        content: Option<&Content>,
    ) -> Result<(), Stop> {
        let (room, name) = (job.room, job.request.replica);
        let is_there = self.has(room, name);
        // Put back if it is still there afterwards.
        let mut bytes = self
            .replicas
            .remove(&room)
            .map_or(0, |replica| replica.bytes);
        let Some(process) = &mut self.process else {
            return Err(Stop::NotNow);
        };
        if !is_there {
            let Some(content) = content else {
                return Ok(());
            };
            bytes = load(process, job, content, batch).await?;
        }
        if let Some((_, changes)) = batch.next(usize::MAX) {
            let found = process.check(room, changes).await?;
            let found = found.map_err(|_| Stop::NotNow)?;
            bytes = found.bytes;
            batch.take(found.findings);
            if found.is_spent {
                return Ok(());
            }
        }
        let used = self.uses;
        self.replicas.insert(room, Replica { name, bytes, used });
        Ok(())
    }

    /// Lets go of the replicas that were used longest ago, until the others fit.
    pub(super) async fn make_room(&mut self, keep: u32, bytes_max: u64) -> Result<(), Death> {
        let mut bytes: u64 = self.replicas.values().map(|replica| replica.bytes).sum();
        while bytes > bytes_max {
            let oldest = self
                .replicas
                .iter()
                .filter(|(room, _)| **room != keep)
                .min_by_key(|(_, replica)| replica.used)
                .map(|(room, replica)| (*room, replica.bytes));
            let (Some((room, freed)), Some(process)) = (oldest, &mut self.process) else {
                break;
            };
            self.replicas.remove(&room);
            bytes = bytes.saturating_sub(freed);
            process.forget(room).await?;
        }
        Ok(())
    }
}
