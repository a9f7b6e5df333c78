//! The wire format (`docs/protocol.md` sections 2 to 5): messages, their bytes, frames and fragments.
//!
//! ```text
//! send:    Message ── encode_frame ──▶ frame ── split ──▶ transport messages
//! receive: Message ◀── decode_frame ── frame ◀── Reassembler::handle ── Fragment ◀── decode_frame
//! ```

mod codec;
mod error;
mod fragment;
mod frame;
mod message;

pub use codec::{LIST_ENTRIES_MAX, decode, encode};
pub use error::DecodeError;
pub use fragment::{Fragments, Reassembler, abort_frame, split};
pub use frame::{
    CHANGES_OVERHEAD_BYTES_MAX, change_bytes, changes_frame, compress_frame, decode_frame,
    encode_frame,
};
pub use message::*;
