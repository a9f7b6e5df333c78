//! What the fuzz targets do: plain functions of any bytes, which return unless something is wrong.
//!
//! `sync-core/fuzz` gives them to libFuzzer, and `tests/replay.rs` replays the committed corpus with them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::missing_panics_doc,
    reason = "this is test code: a panic is a finding"
)]

mod client;
mod export;
mod input;
mod memory;
mod mend;
mod mergeable;
mod registry;
mod room;
mod server;
mod wire;
mod world;
mod yrs_documents;

pub use client::client_session;
pub use export::export_file;
pub use mergeable::{mergeable, opaque};
pub use room::room;
pub use server::server_session;
pub use wire::{frame, gzip, reassembly};
pub use world::world;
pub use yrs_documents::{yrs_ledger, yrs_update};

/// One of the targets.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of its corpus and of its program.
    pub name: &'static str,
    /// What it does.
    pub run: fn(&[u8]),
}

macro_rules! targets {
    ($($name:ident),+ $(,)?) => {
        /// All of them.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $name }),+];
    };
}

targets![
    frame,
    reassembly,
    gzip,
    client_session,
    server_session,
    room,
    world,
    yrs_update,
    yrs_ledger,
    mergeable,
    opaque,
    export_file,
];
