//! A server in a process of its own, and what that process has used.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Failure;

/// A server that is killed when this is dropped. Should this process end without that, the server ends by itself, because
/// nobody holds its standard input any more.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    child: Child,
    address: SocketAddr,
}

impl ServerProcess {
    /// Starts `program` with these arguments, and waits for the line that says its address.
    pub(crate) fn start(program: &Path, args: &[String]) -> Result<Self, Failure> {
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        // Whatever fails from here on, it is killed.
        let mut server = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let output = server.child.stdout.take().ok_or("no standard output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        server.address = line
            .trim_end()
            .parse()
            .map_err(|_| format!("the server did not start: {args:?}"))?;
        Ok(server)
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has used so far.
    pub(crate) fn usage(&self) -> Result<Usage, Failure> {
        Usage::of(&self.child.id().to_string())
    }

    /// Kills it, as `kill -9` does. Returns when it is gone.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // It fails if it is gone already.
        let _ = self.kill();
    }
}

/// What a process has used, as Linux tells it (`proc_pid_stat(5)`, `proc_pid_status(5)`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Processor time of all threads that live, exactly.
    pub(crate) cpu: Duration,
    /// In hundredths of a second.
    user_ticks: u64,
    system_ticks: u64,
    /// Resident memory, in bytes.
    pub(crate) rss: u64,
    /// The most that it ever was.
    pub(crate) rss_peak: u64,
}

impl Usage {
    /// Of this process.
    pub(crate) fn own() -> Result<Self, Failure> {
        Self::of("self")
    }

    fn of(process: &str) -> Result<Self, Failure> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The second field, the program's name in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(") ").ok_or("an odd stat file")?;
        let mut ticks = fields.split(' ').skip(11).map(str::parse::<u64>);
        let user_ticks = ticks.next().ok_or("no user time")??;
        let system_ticks = ticks.next().ok_or("no system time")??;
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        Ok(Self {
            cpu: exact_cpu(process)
                .unwrap_or_else(|| Duration::from_millis((user_ticks + system_ticks) * 10)),
            user_ticks,
            system_ticks,
            rss: status_bytes(&status, "VmRSS:")?,
            rss_peak: status_bytes(&status, "VmHWM:")?,
        })
    }

    /// What was used between an earlier look and this one.
    pub(crate) fn since(&self, earlier: &Self) -> Spent {
        let ticks = |now: u64, then: u64| now.saturating_sub(then);
        let user = ticks(self.user_ticks, earlier.user_ticks);
        let system = ticks(self.system_ticks, earlier.system_ticks);
        let cpu = self.cpu.saturating_sub(earlier.cpu).as_secs_f64();
        // Ticks are coarse, and only their proportion is taken.
        let share = crate::report::ratio(user, user + system);
        Spent {
            user: cpu * share,
            system: cpu * (1.0 - share),
        }
    }
}

/// Processor time between two looks, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spent {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Spent {
    pub(crate) fn total(&self) -> f64 {
        self.user + self.system
    }
}

/// The first field of `schedstat`, in nanoseconds, of all threads; `None` where the kernel does not count it.
fn exact_cpu(process: &str) -> Option<Duration> {
    let mut total = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task")).ok()? {
        // A thread may end in between.
        let Ok(line) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else {
            continue;
        };
        total += line.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(total))
}

fn status_bytes(status: &str, field: &str) -> Result<u64, Failure> {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.ok_or("no memory in the status file")?.parse::<u64>()? * 1024)
}
