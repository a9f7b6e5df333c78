//! The wire format (`docs/protocol.md` sections 2 to 5).

mod message;

pub use message::*;
