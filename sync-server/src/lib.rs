//! Placeholder while the workspace is being laid out.

pub mod registry;
pub mod transport;

pub use registry::{MemoryRegistry, ServerRegistry};
