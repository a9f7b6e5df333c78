//! What a worker may take, and how it is told.

use std::time::Duration;

/// Set for workers, to their limits. Nobody else's business, and not an interface.
pub(super) const VARIABLE: &str = "SYNC_SERVER_WORKER";

/// What a worker process may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WorkerLimits {
    /// Address space, without the engine's stack.
    pub(super) memory_bytes: u64,
    /// Processor time for one request.
    pub(super) cpu: Duration,
}

impl WorkerLimits {
    /// As the variable's value.
    pub(super) fn to_variable(self) -> String {
        format!("{},{}", self.memory_bytes, self.cpu.as_secs())
    }

    pub(super) fn from_variable(value: &str) -> Option<Self> {
        let (memory, cpu) = value.split_once(',')?;
        Some(Self {
            memory_bytes: memory.parse().ok()?,
            cpu: Duration::from_secs(cpu.parse().ok()?),
        })
    }
}
