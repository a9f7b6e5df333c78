//! What sessions and rooms are told when they begin.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::Validator;
use crate::ids::{EngineId, ResumeToken, User};
use crate::limits::{Limits, SNAPSHOT_PIECE_BYTES};
use crate::planted::{Bug, Planted};

/// The engines that a server knows, each with what checks its changes.
#[derive(Clone, Default)]
pub struct Engines {
    validators: BTreeMap<EngineId, Option<Arc<dyn Validator>>>,
    checked: BTreeSet<EngineId>,
}

impl Engines {
    /// None at all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an engine whose changes are checked before they are logged; in the place of an earlier one of that name.
    pub fn insert(&mut self, validator: Arc<dyn Validator>) {
        self.validators.insert(validator.engine(), Some(validator));
    }

    /// Adds an engine whose changes are logged as they come.
    pub fn insert_relay(&mut self, engine: EngineId) {
        self.validators.insert(engine, None);
    }

    /// Has rooms ask for a [check](super::RoomOutput::Check) of this engine's changes, against what the document holds,
    /// after the validator.
    pub fn check(&mut self, engine: EngineId) {
        self.checked.insert(engine);
    }

    /// Whether [`check`](Self::check) was called for this engine.
    #[must_use]
    pub fn is_checked(&self, engine: &EngineId) -> bool {
        self.checked.contains(engine)
    }

    /// The engines, each with its validator, if it has one.
    pub fn iter(&self) -> impl Iterator<Item = (&EngineId, Option<&Arc<dyn Validator>>)> {
        self.validators
            .iter()
            .map(|(engine, validator)| (engine, validator.as_ref()))
    }

    /// What checks changes of this engine, if anything does; `None` if the engine is not known.
    #[must_use]
    pub fn validator(&self, engine: &EngineId) -> Option<Option<&Arc<dyn Validator>>> {
        self.validators.get(engine).map(Option::as_ref)
    }
}

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.validators.keys()).finish()
    }
}

/// Settings of a [`ServerSession`](super::ServerSession).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionConfig {
    /// What a client may take and send.
    pub limits: Limits,
    /// Whether frames may be gzip for clients that take it. Default true.
    pub gzip: bool,
    /// Who the client is, if something in front of this server has found out; then nobody is asked.
    pub user: Option<User>,
    /// Names the client to the server when it comes back, if it has no such token yet; different for every session, and
    /// nobody can guess it. Default none: nothing of a session that is cut off is kept.
    pub resume_token: Option<ResumeToken>,
    /// Wall clock at [`Time::ZERO`](crate::time::Time::ZERO), in milliseconds since 1970.
    pub start_wall_ms: u64,
}

impl SessionConfig {
    /// The defaults for these limits.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            gzip: true,
            user: None,
            resume_token: None,
            start_wall_ms: 0,
        }
    }
}

/// Settings of a [`Room`](super::Room).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RoomConfig {
    /// What a client may send.
    pub limits: Limits,
    /// The engines known.
    pub engines: Engines,
    /// Bytes of recent frames kept for all members together, whatever their number; the newest frame is always
    /// kept. Default 1 MiB. More lets slow members stay off the registry for longer.
    pub ring_bytes_max: usize,
    /// Bytes of changes read at once for one member that is behind the ring, which is also what it may pin.
    /// Default 256 KiB; one larger change is read alone.
    pub catch_up_bytes: usize,
    /// Bytes of a snapshot in one message, at most [`SNAPSHOT_PIECE_BYTES`], which is the default. Clients go on after a
    /// cut at such a piece.
    pub snapshot_piece_bytes: usize,
    /// Changes in one append at most. Default 1,024.
    pub append_changes_max: usize,
    /// Bytes of changes in one append at most; one larger change goes alone. Default 1 MiB.
    pub append_bytes_max: usize,
    /// Time between the beginnings of two appends of a room with many members, at least: what comes in between then
    /// costs each of them one frame and not several. Default 1 ms; the first after a pause goes at once.
    pub append_interval: Duration,
    /// Members from which on a room waits like that. Default 16; below it a change more in a frame saves little.
    pub append_interval_members_min: usize,
    /// Whether other nodes append to the document too. Default no. A room whose changes are
    /// [checked](super::RoomOutput::Check) then leaves them some time between two appends: as long as 14 calls of the registry take,
    /// at most half a second; the first append after a pause goes at once.
    pub is_shared: bool,
    /// Whether somebody has a say in each change before it is appended: [`RoomOutput::Ask`](super::RoomOutput::Ask). Default no.
    pub asks: bool,
    /// How long a client may reconcile before the next one gets its turn. Default 60 s.
    pub reconcile_timeout: Duration,
    /// How long a room without members stays. Default 30 s.
    pub unload_after: Duration,
    /// First delay before a failed registry call is repeated; doubles with each. Default 50 ms.
    pub retry_delay_min: Duration,
    /// Longest such delay, and what clients are told to wait when the registry names none. Default 2 s.
    pub retry_delay_max: Duration,
    /// How often an append of unknown outcome is repeated before its authors are told to try later. Default 6.
    pub append_attempts_max: u32,
    /// Changes since the last snapshot from which on the log is folded into a new one, if the engine can. Default
    /// 10,000.
    pub fold_changes: u64,
    /// Bytes of changes, likewise, and at least as
    /// many as the snapshot has. Default 4 MiB.
    pub fold_bytes: usize,
    /// Bytes of the newest changes that stay in the log when it has been folded: whoever comes back within them is
    /// sent what it missed, and no snapshot. Default 4 MiB.
    pub keep_bytes: usize,
    /// Age below which changes stay likewise, up to `pin_bytes_max`. By the room's own time: changes from before it was
    /// made count as new then. Default 1 hour.
    pub keep_age: Duration,
    /// The same for documents whose engine is relayed, if that is longer: clients fold those, and nobody here can tell
    /// whether they did it well. Default 30 days.
    pub keep_relayed_age: Duration,
    /// Bytes of changes that stay because of their age, or because a member has yet to be sent them, at most; twice the
    /// snapshot if that is more. Default 64 MiB.
    pub pin_bytes_max: usize,
    /// Time that a client has for a fold that it is asked for, before another one is asked. Default 30 s.
    pub fold_offer_timeout: Duration,
    /// Randomness for epochs; different for every room.
    pub seed: u64,
    /// A bug, for the simulator to find.
    #[cfg(feature = "planted-bugs")]
    #[doc(hidden)]
    pub planted: Option<Bug>,
}

impl RoomConfig {
    /// The defaults.
    #[must_use]
    pub const fn new(limits: Limits, engines: Engines, seed: u64) -> Self {
        Self {
            limits,
            engines,
            ring_bytes_max: 1024 * 1024,
            catch_up_bytes: 256 * 1024,
            snapshot_piece_bytes: SNAPSHOT_PIECE_BYTES,
            append_changes_max: 1_024,
            append_bytes_max: 1024 * 1024,
            append_interval: Duration::from_millis(1),
            append_interval_members_min: 16,
            is_shared: false,
            asks: false,
            reconcile_timeout: Duration::from_secs(60),
            unload_after: Duration::from_secs(30),
            retry_delay_min: Duration::from_millis(50),
            retry_delay_max: Duration::from_secs(2),
            append_attempts_max: 6,
            fold_changes: 10_000,
            fold_bytes: 4 * 1024 * 1024,
            keep_bytes: 4 * 1024 * 1024,
            keep_age: Duration::from_secs(3_600),
            keep_relayed_age: Duration::from_secs(30 * 24 * 3_600),
            pin_bytes_max: 64 * 1024 * 1024,
            fold_offer_timeout: Duration::from_secs(30),
            seed,
            #[cfg(feature = "planted-bugs")]
            planted: None,
        }
    }

    /// Whether this bug is planted.
    pub(super) fn has(&self, bug: Bug) -> bool {
        let planted = Planted {
            #[cfg(feature = "planted-bugs")]
            bug: self.planted,
        };
        planted.has(bug)
    }

    /// Bytes of changes read for a member before its open is answered; what it lacks beyond them, when its turn comes.
    pub(super) const fn open_bytes(&self) -> usize {
        self.catch_up_bytes / 16
    }

    /// Delay before attempt `n`, from 1.
    pub(super) fn retry_delay(&self, n: u32) -> Duration {
        let factor = 1_u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX);
        self.retry_delay_min
            .saturating_mul(factor)
            .min(self.retry_delay_max)
    }
}
