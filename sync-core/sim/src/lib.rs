//! A deterministic simulator: the machines of `sync-core` in seeded worlds under virtual time. Nothing is mocked but IO.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::missing_panics_doc,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a harness: what cannot be is a failure of the run"
)]

pub mod campaign;
pub mod content;
pub mod coverage;
pub mod model;
pub mod plan;
pub mod planted;
mod quiet;
pub mod record;
pub mod run;
pub mod shrink;
pub mod world;
