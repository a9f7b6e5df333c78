//! Which core a process runs on, so that the server and what loads it do not take each other's time.

use crate::Failure;

/// The cores of a measurement; `None` where nothing is pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cores {
    pub(crate) server: Option<usize>,
    pub(crate) generator: Option<usize>,
}

impl Cores {
    /// The first core for the server and the second for the generator, of those that this process may use. Nothing is
    /// pinned if there is only one, or where processes cannot be.
    pub(crate) fn assign() -> Self {
        let mut cores = available().into_iter();
        match (cores.next(), cores.next()) {
            (server @ Some(_), generator @ Some(_)) => Self { server, generator },
            _ => Self {
                server: None,
                generator: None,
            },
        }
    }
}

/// Keeps this thread, and those that it starts from here on, on one core.
#[cfg(target_os = "linux")]
pub(crate) fn pin(core: usize) -> Result<(), Failure> {
    use rustix::thread::{CpuSet, sched_setaffinity};

    if core >= CpuSet::MAX_CPU {
        return Err(format!("there is no core {core}").into());
    }
    let mut cores = CpuSet::new();
    cores.set(core);
    Ok(sched_setaffinity(None, &cores)?)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(_core: usize) -> Result<(), Failure> {
    Err("processes are pinned to cores on Linux only".into())
}

#[cfg(target_os = "linux")]
fn available() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};

    let Ok(cores) = sched_getaffinity(None) else {
        return Vec::new();
    };
    (0..CpuSet::MAX_CPU)
        .filter(|core| cores.is_set(*core))
        .collect()
}

#[cfg(not(target_os = "linux"))]
fn available() -> Vec<usize> {
    Vec::new()
}
