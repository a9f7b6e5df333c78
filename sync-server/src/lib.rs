//! Placeholder while the workspace is being laid out.

pub mod registry;

pub use registry::{MemoryRegistry, ServerRegistry};
