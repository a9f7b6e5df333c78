//! Bytes that are made to hurt, pushed to a server whose engines run in worker processes (scenario 51).

mod brittle;

pub use self::brittle::Brittle;

use sync_server::WorkerEngines;

/// The engines of the workers: all that there are, and [`Brittle`].
pub fn engines() -> WorkerEngines {
    WorkerEngines::default().validator(Brittle)
}
