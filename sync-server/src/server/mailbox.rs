//! What others leave for a session's task.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use sync_core::error::PeerError;
use sync_core::ids::SessionId;
use sync_core::limits::BROADCAST_CHARGE_MIN;

use super::budget::Budget;
use super::lock;
use super::rooms::RoomHandle;
use super::statistics::SessionInfo;
use crate::stats::Traffic;

/// Left by rooms and by the server; emptied by the session's task. A session is woken once for all that is in it.
#[derive(Debug)]
pub(super) struct Mailbox {
    session: SessionId,
    /// Whose it is, once that is known.
    pub(super) info: OnceLock<SessionInfo>,
    pub(super) traffic: Traffic,
    mail: Mutex<Mail>,
    /// Extension messages of the server, oldest first, and their bytes.
    extensions: Mutex<(VecDeque<(u8, Bytes)>, usize)>,
    waker: AtomicWaker,
    /// Who pays for the session, once that is known.
    budget: OnceLock<Arc<Budget>>,
}

#[derive(Debug, Default)]
pub(super) struct Mail {
    /// Rooms with something for the session; each at most once, because rooms say so only when they had nothing.
    pub(super) ready: Vec<Arc<RoomHandle>>,
    /// Charge of changes that have been answered.
    pub(super) settled: usize,
    /// The session is to end.
    pub(super) end: Option<PeerError>,
    /// The client is to connect again within this window.
    pub(super) go_away: Option<Duration>,
}

impl Mailbox {
    pub(super) fn new(session: SessionId) -> Self {
        Self {
            session,
            info: OnceLock::new(),
            traffic: Traffic::default(),
            mail: Mutex::default(),
            extensions: Mutex::default(),
            waker: AtomicWaker::new(),
            budget: OnceLock::new(),
        }
    }

    pub(super) const fn session(&self) -> SessionId {
        self.session
    }

    pub(super) fn set_budget(&self, budget: Arc<Budget>) {
        // A session has one user.
        let _ = self.budget.set(budget);
    }

    pub(super) fn budget(&self) -> Option<&Arc<Budget>> {
        self.budget.get()
    }

    pub(super) fn ready(&self, room: &Arc<RoomHandle>) {
        lock(&self.mail).ready.push(Arc::clone(room));
        self.waker.wake();
    }

    /// Leaves an extension message, if no more than so many bytes of them wait then. Whether it did.
    pub(super) fn extend(&self, kind: u8, message: Bytes, bytes_max: usize) -> bool {
        let mut extensions = lock(&self.extensions);
        let (waiting, bytes) = &mut *extensions;
        let larger = bytes.saturating_add(message.len().max(BROADCAST_CHARGE_MIN));
        if !waiting.is_empty() && larger > bytes_max {
            return false;
        }
        *bytes = larger;
        waiting.push_back((kind, message));
        drop(extensions);
        self.waker.wake();
        true
    }

    /// Takes the oldest extension message.
    pub(super) fn next_extension(&self) -> Option<(u8, Bytes)> {
        let mut extensions = lock(&self.extensions);
        let (waiting, bytes) = &mut *extensions;
        let (kind, message) = waiting.pop_front()?;
        *bytes = bytes.saturating_sub(message.len().max(BROADCAST_CHARGE_MIN));
        Some((kind, message))
    }

    /// Not worth waking for: it matters when the client sends more.
    pub(super) fn settle(&self, charge: usize) {
        let mut mail = lock(&self.mail);
        mail.settled = mail.settled.saturating_add(charge);
    }

    pub(super) fn end(&self, reason: PeerError) {
        lock(&self.mail).end.get_or_insert(reason);
        self.waker.wake();
    }

    pub(super) fn go_away(&self, within: Duration) {
        lock(&self.mail).go_away = Some(within);
        self.waker.wake();
    }

    /// Takes everything, and sees to it that this task is woken for what comes after.
    pub(super) fn take(&self, waker: &Waker) -> Mail {
        self.waker.register(waker);
        std::mem::take(&mut *lock(&self.mail))
    }
}
