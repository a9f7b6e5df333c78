//! A server in a process of its own, and what that process has used.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::Failure;
use crate::report::{number, ratio};

/// What the kernel counts in.
const TICK_SECONDS: f64 = 0.01;
/// How far ticks may be off: up to one, of user and system time, at either end.
const COARSENESS: f64 = 4.0 * TICK_SECONDS;

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
    /// Processor time of all threads, in hundredths of a second.
    user_ticks: u64,
    system_ticks: u64,
    /// Processor time of the threads that live, in nanoseconds, where the kernel counts it.
    exact: Option<u64>,
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
            user_ticks,
            system_ticks,
            exact: exact_nanos(process),
            rss: status_bytes(&status, "VmRSS:")?,
            rss_peak: status_bytes(&status, "VmHWM:")?,
        })
    }

    /// What was used between an earlier look and this one.
    pub(crate) fn since(&self, earlier: &Self) -> Spent {
        let user = self.user_ticks.saturating_sub(earlier.user_ticks);
        let system = self.system_ticks.saturating_sub(earlier.system_ticks);
        let coarse = number(user + system) * TICK_SECONDS;
        let exact = earlier.exact.zip(self.exact);
        let exact = exact.and_then(|(then, now)| now.checked_sub(then));
        let total = match exact.map(|nanos| number(nanos) / 1e9) {
            Some(exact) if (exact - coarse).abs() <= COARSENESS => exact,
            // A thread has ended and taken its time with it.
            _ => coarse,
        };
        // Ticks are coarse, and only their proportion is taken.
        let share = ratio(user, user + system);
        Spent {
            user: total * share,
            system: total * (1.0 - share),
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

/// The first fields of `schedstat` of all threads.
fn exact_nanos(process: &str) -> Option<u64> {
    let mut total = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task")).ok()? {
        // A thread may end in between.
        let Ok(line) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else {
            continue;
        };
        total += line.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(total)
}

fn status_bytes(status: &str, field: &str) -> Result<u64, Failure> {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(kib.ok_or("no memory in the status file")?.parse::<u64>()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(user_ticks: u64, system_ticks: u64, exact: Option<u64>) -> Usage {
        Usage {
            user_ticks,
            system_ticks,
            exact,
            ..Usage::default()
        }
    }

    #[test]
    fn the_exact_time_is_split_in_the_proportion_of_the_coarse_one() {
        let spent = usage(4, 2, Some(70_000_000)).since(&usage(1, 1, Some(30_000_000)));
        assert_eq!((spent.user, spent.system), (0.03, 0.01));
    }

    #[test]
    fn the_coarse_time_counts_where_a_thread_has_ended() {
        let before = usage(10, 10, Some(200_000_000));
        // It had used 150 ms.
        for exact in [Some(250_000_000), Some(100_000_000), None] {
            let spent = usage(20, 20, exact).since(&before);
            assert_eq!(spent.total(), 0.2, "{exact:?}");
        }
    }

    #[test]
    fn a_process_has_used_something() {
        let usage = Usage::own().unwrap();
        assert!(usage.rss > 0 && usage.rss <= usage.rss_peak);
    }
}
