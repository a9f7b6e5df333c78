//! Everything that a peer controls in size or time, and how much of it is taken.

use std::time::Duration;

use bytes::Bytes;

use crate::rate::Rate;

/// Bytes of a message above which it is cut into fragments. Also the most that a merged `Changes` frame holds.
pub const FRAGMENT_BYTES: usize = 64 * 1024;

/// Bytes of state that one `Snapshot` message carries at most: with its other fields it fits into a transport message.
pub const SNAPSHOT_PIECE_BYTES: usize = FRAGMENT_BYTES - 64;

/// Frames below this many bytes are never compressed.
pub const COMPRESS_BYTES_MIN: usize = 512;

/// What a change counts for in the push window at least, in bytes: the bookkeeping for tiny changes is not free.
pub const CHANGE_CHARGE_MIN: usize = 32;

/// Bytes of a broadcast's topic at most.
pub const TOPIC_BYTES_MAX: usize = 255;

/// What a broadcast that waits for a session counts for at least, in bytes.
pub const BROADCAST_CHARGE_MIN: usize = 256;
/// Bytes of one session's presence at most, whatever [`Limits::presence_bytes_max`] says: several of them fit into a frame.
pub const PRESENCE_BYTES_MAX: usize = FRAGMENT_BYTES / 2;

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

/// The value of one of the [`Limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitValue {
    /// A number of things or of bytes.
    Number(usize),
    /// A time.
    Time(Duration),
    /// So much each second, and so much at once.
    Rate(Rate),
}

/// Why a limit was not set. Nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// There is none of that name.
    #[error("there is no such limit")]
    Unknown,
    /// It is of another kind.
    #[error("the limit is {0}")]
    Kind(&'static str),
}

impl LimitValue {
    const fn kind(self) -> &'static str {
        match self {
            Self::Number(_) => "a number",
            Self::Time(_) => "a time",
            Self::Rate(_) => "a rate",
        }
    }
}

macro_rules! limit_values {
    ($($variant:ident($type:ty);)+) => {
        $(
            impl From<$type> for LimitValue {
                fn from(value: $type) -> Self {
                    Self::$variant(value)
                }
            }

            impl TryFrom<LimitValue> for $type {
                type Error = ();

                fn try_from(value: LimitValue) -> Result<Self, ()> {
                    match value {
                        LimitValue::$variant(value) => Ok(value),
                        _ => Err(()),
                    }
                }
            }
        )+
    };
}

limit_values! {
    Number(usize);
    Time(Duration);
    Rate(Rate);
}

/// The struct, its defaults, and its fields by name, so that a new one is in the configuration of programs at once.
macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $type:ty = $default:expr;)+) => {
        /// Limits of a session. A server's are told to its clients in `Welcome`; a client accepts whatever the server
        /// does, because frames are shared.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Limits {
            $($(#[$doc])* pub $name: $type,)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl Limits {
            /// The names of all fields.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)+];

            /// A field by its name.
            #[must_use]
            pub fn get(&self, name: &str) -> Option<LimitValue> {
                match name {
                    $(stringify!($name) => Some(self.$name.into()),)+
                    _ => None,
                }
            }

            /// Sets a field by its name.
            ///
            /// # Errors
            /// [`LimitError`].
            pub fn set(&mut self, name: &str, value: LimitValue) -> Result<(), LimitError> {
                match name {
                    $(stringify!($name) => {
                        let kind = LimitValue::from(self.$name).kind();
                        self.$name = value.try_into().map_err(|()| LimitError::Kind(kind))?;
                    })+
                    _ => return Err(LimitError::Unknown),
                }
                Ok(())
            }
        }
    };
}

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

limits! {
    /// Bytes of one message, put together and inflated. Default 64 MiB.
    message_bytes_max: usize = 64 * MIB;
    /// Bytes of one change. Default 1 MiB. A reconciling change (design 2.3) may fill a message.
    change_bytes_max: usize = MIB;
    /// Unacknowledged changes on one session, in bytes of [`change_charge`]. Default 1 MiB; one larger change may always travel alone.
    push_window_bytes: usize = MIB;
    /// Changes from one session. Default 10,000 each second, 100,000 at once. Faster ones wait, and so do their
    /// acknowledgements; a client that does not care is told [`RateLimited`](crate::error::ErrorCode::RateLimited).
    push_changes: Rate = Rate::new(10_000, 100_000);
    /// The same in bytes of [`change_charge`]. Default 8 MiB each second, 64 MiB at once.
    push_bytes: Rate = Rate::new(8 * 1024 * 1024, 64 * 1024 * 1024);
    /// Bytes of one document: of its snapshot and the changes after it. Default 256 MiB. Nobody's change is taken beyond
    /// that, and nobody loses one. Changes that make it smaller are no exception, because nobody can tell.
    document_bytes_max: usize = 256 * MIB;
    /// Bytes of the log in memory for one session that is behind, beyond what several of a document's sessions share and the
    /// first 16 KiB for each document. Default 1 MiB; what is read at once, and one larger change, may always be there alone.
    catch_up_bytes_max: usize = MIB;
    /// Bytes that all sessions of one user are sent, on this server. Default 64 MiB each second, 1 GiB at once. Beyond that
    /// the user's sessions wait, and nobody else's. Users without a name are told apart by address.
    user_bytes: Rate = Rate::new(64 * 1024 * 1024, 1024 * 1024 * 1024);
    /// Microseconds that engines spend on the changes of one user, on this server: checking them, and their share of folds.
    /// Default half of the time, and a minute at once. Beyond that the user's changes wait up to ten seconds; what would
    /// have to wait longer is told [`QuotaExceeded`](crate::error::ErrorCode::QuotaExceeded).
    user_engine_micros: Rate = Rate::new(500_000, 60_000_000);
    /// Documents open on one session. Default 1,000.
    documents_per_session_max: usize = 1_000;
    /// Bytes of one broadcast, without its topic. Default 64 KiB.
    broadcast_bytes_max: usize = 64 * KIB;
    /// Broadcasts of one session. Default 20 each second, 50 at once. A server takes twice as many at once as it tells its
    /// clients, because they arrive in other intervals than they were sent in.
    broadcast_rate: Rate = Rate::new(20, 50);
    /// Bytes of broadcasts that wait for one session that does not read them; of more, the oldest are dropped, and the session
    /// is told how many. Each counts for [`BROADCAST_CHARGE_MIN`] at least. Default 256 KiB.
    broadcast_queue_bytes_max: usize = 256 * KIB;
    /// Bytes of one extension message. Default 64 KiB.
    extension_bytes_max: usize = 64 * KIB;
    /// Extension messages of one session, likewise. Default 20 each second, 50 at once.
    extension_rate: Rate = Rate::new(20, 50);
    /// Bytes of what a session says of itself in a document, as it travels. Default 4 KiB, at most [`PRESENCE_BYTES_MAX`].
    presence_bytes_max: usize = 4 * KIB;
    /// How often a session says something of itself, in all its documents together. Default 60 each second, 120 at once. A
    /// server takes twice as many at once as it tells its clients, because they arrive in other intervals than they were
    /// sent in.
    presence_rate: Rate = Rate::new(60, 120);
    /// Time between two messages about who is in a document, at least, to each session and from each session: what changes
    /// in between travels together, the last of it. Default 50 ms.
    presence_interval: Duration = Duration::from_millis(50);
    /// How long a session that was cut off stays in the eyes of the others, in case it comes back, and they in its own.
    /// Default 10 s; zero: not at all.
    presence_grace: Duration = Duration::from_secs(10);
    /// Connections at once. Default 100,000.
    connections_max: usize = 100_000;
    /// Connections at once from one address: an IPv4 address, or a /64 network of IPv6. Default 10,000. Loopback
    /// addresses and transports without addresses are not counted; behind a proxy everybody has the proxy's.
    connections_per_address_max: usize = 10_000;
    /// Fragmented messages being put together at once on one session. Default 4.
    fragmented_messages_max: usize = 4;
    /// Time from connection to `Hello` or `Welcome`. Default 10 s.
    handshake_timeout: Duration = Duration::from_secs(10);
    /// How often a client pings. Default 15 s.
    ping_interval: Duration = Duration::from_secs(15);
    /// Silence after which the other side is gone. Default 35 s.
    idle_timeout: Duration = Duration::from_secs(35);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_can_be_set_by_its_name_and_to_its_own_kind_only() {
        let kinds = [
            LimitValue::Number(7),
            LimitValue::Time(Duration::from_secs(7)),
            LimitValue::Rate(Rate::new(7, 7)),
        ];
        let mut limits = Limits::default();
        for name in Limits::NAMES {
            let kind = limits.get(name).map(LimitValue::kind);
            let mut n_set = 0;
            for value in kinds {
                match limits.set(name, value) {
                    Ok(()) => {
                        assert_eq!(limits.get(name), Some(value));
                        n_set += 1;
                    }
                    Err(error) => assert_eq!(Some(error), kind.map(LimitError::Kind)),
                }
            }
            assert_eq!(n_set, 1, "{name}");
        }
        assert_eq!(limits.set("no_such", kinds[0]), Err(LimitError::Unknown));
        assert_eq!(limits.get("no_such"), None);
    }
}
