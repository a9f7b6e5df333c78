//! What worlds can do, each thing by itself.

#![allow(
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "helpers of tests"
)]

mod chaos;
mod devices;
mod ephemeral;
mod network;
mod nodes;
mod operator;
mod permits;
mod registry_faults;
