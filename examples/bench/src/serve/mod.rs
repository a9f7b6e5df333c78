//! The servers, each in a process that `bench run` starts: it says its address in a line, and serves until nobody holds its
//! standard input any more.

mod relay;
mod sync;

use std::io::{Write, stdout};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, stdin};

use crate::Failure;
use crate::cli::{ProcessOptions, Runtime, Serve, Switch};
use crate::cores;

/// Serves until nobody holds the standard input any more.
pub(crate) fn run(what: &Serve) -> Result<(), Failure> {
    let (Serve::Sync { process, .. } | Serve::Relay { process, .. }) = what;
    // Before there are other threads, which will be on the same core.
    if let Some(core) = process.core {
        cores::pin(core)?;
    }
    open_many_files()?;
    runtime(process)?.block_on(async {
        match what {
            Serve::Sync {
                registry,
                directory,
                ..
            } => {
                let listener = sync::start(*registry, directory.as_deref()).await?;
                say(listener.local_addr().ok_or("no address")?)?;
                until_alone().await
            }
            Serve::Relay {
                mode, acks, blob, ..
            } => {
                let acks = *acks == Switch::On;
                say(relay::start(*mode, acks, *blob).await?)?;
                until_alone().await
            }
        }
    })
}

fn runtime(process: &ProcessOptions) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = match process.runtime {
        Runtime::Current => tokio::runtime::Builder::new_current_thread(),
        // As many workers as there are cores for this process.
        Runtime::Multi => tokio::runtime::Builder::new_multi_thread(),
    };
    Ok(builder.enable_all().build()?)
}

fn say(address: SocketAddr) -> Result<(), Failure> {
    writeln!(stdout(), "{address}")?;
    Ok(())
}

async fn until_alone() -> Result<(), Failure> {
    stdin().read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// Takes as many open files as the system lets this process have: each connection is one.
pub(crate) fn open_many_files() -> Result<(), Failure> {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}
