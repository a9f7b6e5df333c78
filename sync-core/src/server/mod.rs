//! The server's half of the protocol, without IO.
//!
//! ```text
//!  connection ── frames ──▶ ServerSession ── Join, Push, Leave ──▶ Room ── RegistryRequest ──▶ registry
//!             ◀── Send ───                ◀── poll_member ────────      ◀── RegistryAnswer ───
//! ```
//!
//! A [`ServerSession`] is the protocol state over one connection; a [`Room`] is one live document. Feed either
//! with `handle_*`, drain `poll_output` until `None`, and call `handle_timeout` when `poll_timeout` has passed.
//! A [`HeadsPoll`] keeps the rooms of a node up with what other nodes do to the same registry.
//! None of them reads a clock or waits for anything, so both run the same in a server and in a simulation.

mod config;
mod grant;
mod heads;
mod registry;
mod room;
mod rooms;
mod session;
mod stats;

pub use config::{Engines, RoomConfig, SessionConfig};
pub use grant::Grant;
pub use heads::{HeadsConfig, HeadsOutput, HeadsPoll};
pub use registry::{RegistryAnswer, RegistryRequest, RequestNumber};
pub use room::{
    Allowance, AskRequest, CheckRequest, FoldError, FoldRequest, FoldedLog, MemberOutput, Occupied,
    OpenRequest, Room, RoomEvent, RoomOutput, RoomPhase, RoomUnloaded, UncheckedChange, Verdict,
};
pub use rooms::Rooms;
pub use session::{AuthenticateRequest, JoinRequest, ServerSession, SessionEvent, SessionOutput};
pub use stats::{Frequency, Latencies, MemberPhase, MemberStats, RoomCounters, RoomStats};
