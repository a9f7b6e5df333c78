//! What clients have met with since a phase began.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sync_client::transport::DialError;
use sync_client::{ClientEvent, EndReason, ErrorCode};
use tokio::sync::watch;

/// What all clients write to.
#[derive(Debug)]
pub(super) struct Board {
    phase: Mutex<Phase>,
    /// How many are there in this phase.
    n_back: watch::Sender<usize>,
}

/// From one moment on.
#[derive(Debug)]
pub(super) struct Phase {
    began: Instant,
    /// How each client came back, by its number.
    back: BTreeMap<usize, Back>,
    /// Why sessions and attempts ended, and how often.
    pub(super) ended: BTreeMap<String, usize>,
    /// What nobody should have been told.
    pub(super) surprises: BTreeMap<String, usize>,
}

#[derive(Debug, Clone, Copy)]
struct Back {
    /// From the beginning of the phase.
    since_began: Duration,
    /// From the dial that succeeded.
    since_dialed: Duration,
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            phase: Mutex::new(Phase::new()),
            n_back: watch::channel(0).0,
        }
    }

    /// Begins a phase, and hands out what there was of the last one.
    pub(super) fn begin(&self) -> Phase {
        let mut phase = self.lock();
        self.n_back.send_replace(0);
        std::mem::replace(&mut *phase, Phase::new())
    }

    /// Notes what a client tells.
    pub(super) fn note(&self, client: usize, dialed: Option<Instant>, event: &ClientEvent) {
        let mut phase = self.lock();
        match event {
            ClientEvent::SessionEnded(reason) => {
                let counts = match is_of_a_reconnection(reason) {
                    true => &mut phase.ended,
                    false => &mut phase.surprises,
                };
                *counts.entry(format!("{reason:?}")).or_default() += 1;
            }
            ClientEvent::DocumentOpened { .. } => {
                let back = Back {
                    since_began: phase.began.elapsed(),
                    since_dialed: dialed.map(|at| at.elapsed()).unwrap_or_default(),
                };
                // The first time only: later ones are after another end, which is counted.
                phase.back.entry(client).or_insert(back);
                self.n_back.send_replace(phase.back.len());
            }
            ClientEvent::Refused { .. }
            | ClientEvent::DocumentError { .. }
            | ClientEvent::Lagged { .. } => {
                *phase.surprises.entry(format!("{event:?}")).or_default() += 1;
            }
            _ => {}
        }
    }

    /// Notes why a dial came to nothing; a lost session is told of as well.
    pub(super) fn note_dial(&self, error: &DialError) {
        let cause = error
            .source()
            .map_or_else(|| error.to_string(), ToString::to_string);
        let mut phase = self.lock();
        *phase.ended.entry(format!("dial: {cause}")).or_default() += 1;
    }

    /// Waits until so many are back in this phase.
    pub(super) async fn back(&self, n: usize) -> bool {
        let mut n_back = self.n_back.subscribe();
        let waiting = n_back.wait_for(|back| *back >= n);
        tokio::time::timeout(super::PATIENCE, waiting).await.is_ok()
    }

    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Phase {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            back: BTreeMap::new(),
            ended: BTreeMap::new(),
            surprises: BTreeMap::new(),
        }
    }

    /// Times until clients were back, from the beginning, in order.
    pub(super) fn since_began(&self) -> Vec<Duration> {
        let mut times: Vec<_> = self.back.values().map(|back| back.since_began).collect();
        times.sort_unstable();
        times
    }

    /// Times from dials until documents were open, in order.
    pub(super) fn since_dialed(&self) -> Vec<Duration> {
        let mut times: Vec<_> = self.back.values().map(|back| back.since_dialed).collect();
        times.sort_unstable();
        times
    }
}

/// Whether this is what a client is told that has to come back, and nothing worse.
fn is_of_a_reconnection(reason: &EndReason) -> bool {
    match reason {
        EndReason::Local => true,
        EndReason::Lost { close_code } => matches!(close_code, None | Some(1012)),
        EndReason::Server(error) => error.code == ErrorCode::ShuttingDown,
        _ => false,
    }
}
