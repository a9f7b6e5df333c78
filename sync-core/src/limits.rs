//! Everything that a peer controls in size or time, and how much of it is taken.

use std::time::Duration;

use bytes::Bytes;

/// Bytes of a message above which it is cut into fragments. Also the most that a merged `Changes` frame holds.
pub const FRAGMENT_BYTES: usize = 64 * 1024;

/// Bytes of state that one `Snapshot` message carries at most: with its other fields it fits into a transport message.
pub const SNAPSHOT_PIECE_BYTES: usize = FRAGMENT_BYTES - 64;

/// Frames below this many bytes are never compressed.
pub const COMPRESS_BYTES_MIN: usize = 512;

/// What a change counts for in the push window at least, in bytes: the bookkeeping for tiny changes is not free.
pub const CHANGE_CHARGE_MIN: usize = 32;

/// What a change counts for in the push window.
#[must_use]
pub fn change_charge(change: &[u8]) -> usize {
    change.len().max(CHANGE_CHARGE_MIN)
}

/// What changes count for in the push window.
#[must_use]
pub fn push_charge(changes: &[Bytes]) -> usize {
    changes.iter().map(|change| change_charge(change)).sum()
}

/// Limits of a session. A server's are told to its clients in `Welcome`; a client accepts whatever the server
/// does, because frames are shared.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one message, put together and inflated. Default 64 MiB.
    pub message_bytes_max: usize,
    /// Bytes of one change. Default 1 MiB. A reconciling change (design 2.3) may fill a message.
    pub change_bytes_max: usize,
    /// Unacknowledged changes on one session, in bytes of [`change_charge`]. Default 1 MiB; one larger change may always travel alone.
    pub push_window_bytes: usize,
    /// Bytes of the log in memory for one session that is behind, beyond what several of a document's sessions share and the
    /// first 16 KiB for each document. Default 1 MiB; what is read at once, and one larger change, may always be there alone.
    pub catch_up_bytes_max: usize,
    /// Documents open on one session. Default 1,000.
    pub documents_per_session_max: usize,
    /// Connections at once. Default 100,000.
    pub connections_max: usize,
    /// Fragmented messages being put together at once on one session. Default 4.
    pub fragmented_messages_max: usize,
    /// Time from connection to `Hello` or `Welcome`. Default 10 s.
    pub handshake_timeout: Duration,
    /// How often a client pings. Default 15 s.
    pub ping_interval: Duration,
    /// Silence after which the other side is gone. Default 35 s.
    pub idle_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 * 1024 * 1024,
            change_bytes_max: 1024 * 1024,
            push_window_bytes: 1024 * 1024,
            catch_up_bytes_max: 1024 * 1024,
            documents_per_session_max: 1_000,
            connections_max: 100_000,
            fragmented_messages_max: 4,
            handshake_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(35),
        }
    }
}
