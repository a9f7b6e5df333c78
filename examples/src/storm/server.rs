//! The server, as a process.

use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use sync_server::registry::EmbeddedRegistry;
use sync_server::{Anonymous, Server};

use super::{PATIENCE, Plan};

/// A directory for the server, removed in the end.
pub(super) struct Home(PathBuf);

impl Home {
    pub(super) fn new() -> Result<Self, Box<dyn Error>> {
        let home = std::env::temp_dir().join(format!("sync-storm-{}", std::process::id()));
        fs::create_dir_all(&home)?;
        Ok(Self(home))
    }

    pub(super) fn data(&self) -> PathBuf {
        self.0.join("data")
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // Left behind only if the system does not let go of it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A server that listens.
pub(super) struct Process {
    child: Child,
    address: String,
}

impl Process {
    pub(super) fn start(plan: &Plan, home: &Home, address: &str) -> Result<Self, Box<dyn Error>> {
        let data = home.data();
        let data = data.to_str().ok_or("a path that is no text")?;
        let drain = plan.drain.as_secs().to_string();
        let mut command = match &plan.program {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(["--listen", address, "--data", data, "--anonymous"]);
                command.args(["--drain-seconds", &drain, "--log", "warn"]);
                command
            }
            None => {
                let mut command = Command::new(&plan.own);
                command.args(["serve", address, data, &drain]);
                command
            }
        };
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let out = child.stdout.take().ok_or("no output")?;
        BufReader::new(out).read_line(&mut line)?;
        let address = line.trim_end().rsplit("://").next().unwrap_or_default();
        if address.is_empty() {
            return Err("the server does not listen".into());
        }
        Ok(Self {
            address: address.to_owned(),
            child,
        })
    }

    pub(super) fn address(&self) -> &str {
        &self.address
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to leave.
    pub(super) fn terminate(&self) -> Result<(), Box<dyn Error>> {
        Ok(kill_process(Pid::from_child(&self.child), Signal::TERM)?)
    }

    /// Waits until it has ended in order; says how long that took.
    pub(super) async fn ended(&mut self) -> Result<Duration, Box<dyn Error>> {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(started.elapsed()),
                Some(status) => return Err(format!("the server ended with {status}").into()),
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
        Err("the server does not end".into())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing outlives the storm. It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves a directory until SIGTERM, and then until clients have left.
///
/// # Errors
/// If the directory or the address cannot be used.
pub fn serve(address: &str, directory: &str, drain: &str) -> Result<(), Box<dyn Error>> {
    let drain = Duration::from_secs(drain.parse()?);
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let registry = EmbeddedRegistry::open(Path::new(directory))?;
        let server = Server::builder(registry, Anonymous::read_write()).build()?;
        let mut signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let listener = server.listen_websocket(address).await?;
        let address = listener.local_addr().ok_or("no address")?;
        writeln!(std::io::stdout(), "listening on ws://{address}")?;
        signal.recv().await;
        server.shutdown(drain).await;
        Ok(())
    })
}

/// Lets this process, and those that it starts, have as many file descriptors as the system allows: a connection is one.
pub(super) fn allow_many_connections() -> Result<(), Box<dyn Error>> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    Ok(setrlimit(Resource::Nofile, raised)?)
}

/// Connections that the system has dropped because nobody accepted them, so far. 0 where it does not say.
pub(super) fn accept_failures() -> u64 {
    let text = fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .filter(|(name, _)| *name == "ListenDrops")
        .filter_map(|(_, value)| value.parse::<u64>().ok())
        .sum()
}

/// Resident memory of a process. 0 where the system does not say.
pub(super) fn resident_bytes(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let kilobytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().split(' ').next()?.parse::<u64>().ok());
    kilobytes.unwrap_or_default() * 1024
}
