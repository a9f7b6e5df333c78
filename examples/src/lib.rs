//! Parts of the example programs that are worth reading, and testing, on their own.

pub mod file_registry;
