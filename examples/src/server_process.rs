//! A server in a process of its own, so that its processor time can be told apart.

use std::error::Error;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

type Failure = Box<dyn Error + Send + Sync>;

/// This program again, with `--serve`: it tells its address in a line, serves until nobody holds its standard input any
/// more, and says something in another line when it ends.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    address: String,
}

impl ServerProcess {
    /// Starts it. It is killed when this is dropped.
    ///
    /// # Errors
    /// If the process cannot be started, or ends at once.
    pub async fn start() -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = child.stdin.take().ok_or("no input")?;
        let output = child.stdout.take().ok_or("no output")?;
        let mut output = BufReader::new(output).lines();
        let address = output
            .next_line()
            .await?
            .ok_or("the server did not start")?;
        Ok(Self {
            child,
            input,
            output,
            address,
        })
    }

    /// The address to connect to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Processor time that the server has used, where the system tells it as Linux does: `proc_pid_stat(5)`, fields 14
    /// and 15, in hundredths of a second.
    #[must_use]
    pub fn cpu_time(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()?)).ok()?;
        // The second field, the program's name in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(") ")?;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
        let ticks: u64 = ticks.sum::<Result<u64, _>>().ok()?;
        Some(Duration::from_millis(ticks * 10))
    }

    /// Stops it, and returns what it says.
    ///
    /// # Errors
    /// If it says nothing.
    pub async fn stop(mut self) -> Result<String, Failure> {
        drop(self.input);
        let line = self.output.next_line().await?;
        self.child.wait().await?;
        line.ok_or_else(|| "the server says nothing".into())
    }
}
