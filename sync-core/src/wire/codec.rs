//! Messages to MessagePack and back (`docs/protocol.md` sections 3 and 4): the only place that knows byte layout.

mod decode;
mod encode;
mod reader;
mod writer;

pub use self::decode::decode;
pub(in crate::wire) use self::decode::kind_of;
pub use self::encode::encode;
pub(in crate::wire) use self::encode::{size_hint, write_changes, write_message};
pub use self::reader::LIST_ENTRIES_MAX;
pub(in crate::wire) use self::writer::{Writer, array_len, bin_len, negative_len, uint_len};

use super::message::{AccessLevel, Compression, Reset};
use crate::error::Action;
use crate::history::EpochMode;

/// First type that is ignored when unknown.
const FIRST_IGNORED: u64 = 64;
/// Last type.
const LAST_KIND: u64 = 255;

/// The type of each message.
pub(in crate::wire) mod kind {
    pub(in crate::wire) const HELLO: u8 = 1;
    pub(in crate::wire) const WELCOME: u8 = 2;
    pub(in crate::wire) const OPEN: u8 = 3;
    pub(in crate::wire) const OPENED: u8 = 4;
    pub(in crate::wire) const PUSH: u8 = 5;
    pub(in crate::wire) const CHANGES: u8 = 6;
    pub(in crate::wire) const ACK: u8 = 7;
    pub(in crate::wire) const REFUSE: u8 = 8;
    pub(in crate::wire) const SNAPSHOT: u8 = 9;
    pub(in crate::wire) const FOLD_REQUEST: u8 = 10;
    pub(in crate::wire) const FOLD_OFFER: u8 = 11;
    pub(in crate::wire) const PRESENCE: u8 = 12;
    pub(in crate::wire) const BROADCAST: u8 = 13;
    pub(in crate::wire) const AUTH: u8 = 14;
    pub(in crate::wire) const ACCESS: u8 = 15;
    pub(in crate::wire) const CLOSE: u8 = 16;
    pub(in crate::wire) const CLOSED: u8 = 17;
    pub(in crate::wire) const PING: u8 = 18;
    pub(in crate::wire) const PONG: u8 = 19;
    pub(in crate::wire) const GO_AWAY: u8 = 20;
    pub(in crate::wire) const ERROR: u8 = 21;
    pub(in crate::wire) const FRAGMENT: u8 = 22;
    pub(in crate::wire) const AUTHOR: u8 = 23;
}

/// Writes down once which number means which variant, for both directions.
macro_rules! numbered {
    ($to:ident, $from:ident, $type:ty { $($variant:ident = $number:literal),+ $(,)? }) => {
        const fn $to(value: $type) -> u8 {
            match value {
                $(<$type>::$variant => $number,)+
            }
        }

        const fn $from(number: u64) -> Option<$type> {
            match number {
                $($number => Some(<$type>::$variant),)+
                _ => None,
            }
        }
    };
}

numbered!(compression_number, compression_from, Compression { None = 0, Gzip = 1 });
numbered!(access_number, access_from, AccessLevel { None = 0, Read = 1, Write = 2, Maintain = 3 });
numbered!(reset_number, reset_from, Reset { Merge = 0, Rebase = 1, Discard = 2 });
numbered!(mode_number, mode_from, EpochMode { New = 0, Merge = 1, Rebase = 2, Discard = 3 });
numbered!(action_number, action_from, Action {
    Retry = 0,
    RefreshAuth = 1,
    Resync = 2,
    Refuse = 3,
    Upgrade = 4,
    Stop = 5,
});

/// Number of each kind of [`super::Continuation`].
mod continuation {
    pub(super) const RESUME: u8 = 0;
    pub(super) const SNAPSHOT: u8 = 1;
    pub(super) const RESET: u8 = 2;
    pub(super) const WAIT: u8 = 3;
}

/// Number of each kind of [`super::Reference`].
mod reference {
    pub(super) const SESSION: u8 = 0;
    pub(super) const REQUEST: u8 = 1;
    pub(super) const CHANNEL: u8 = 2;
    pub(super) const CHANGE: u8 = 3;
}
