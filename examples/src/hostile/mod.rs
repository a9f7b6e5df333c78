//! Bytes that are made to hurt, pushed to a server whose engines run in worker processes (scenario 51).

mod brittle;
mod corpus;
mod mutate;
mod peer;
mod run;

pub use self::brittle::Brittle;
pub use self::corpus::{KINDS, Sample, sample};
pub use self::mutate::mutate;
pub use self::peer::{Broken, HostilePeer, Said};
pub use self::run::{Plan, Report, run};

use sync_server::WorkerEngines;

/// The engines of the workers: all that there are, and [`Brittle`].
pub fn engines() -> WorkerEngines {
    WorkerEngines::default().validator(Brittle)
}
