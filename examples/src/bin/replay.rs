//! Replays a real editing history, with its real concurrency, over real WebSockets, and measures what that costs.
//!
//!     cargo run --release -p sync-examples --bin replay -- --trace friendsforever.json.gz
//!     cargo run --release -p sync-examples --bin replay -- --trace automerge-paper.json.gz --clients 3 --cut 200
//!
//! Traces are those of <https://github.com/josephg/editing-traces>: `concurrent_traces` has authors of its own, for
//! `sequential_traces` as many clients as `--clients` says take turns. `--joiners` is how many readers join at random
//! moments, `--cut` after how many changes a random connection breaks, `--seed` what all randomness comes from.
//!
//! The server is a process of its own, this program with `--serve`, so that its processor time can be told apart. The
//! program fails unless every replica ends with the trace's text.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use sync_examples::replay::{DOCUMENT, Options, Trace, run};
use sync_server::registry::{DocumentId, MemoryRegistry, ServerRegistry};
use sync_server::{Anonymous, Server};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines, stdin};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let mut args = std::env::args().skip(1);
    let (mut trace, mut clients, mut options) = (None, 1, Options::default());
    let mut joiners = None;
    while let Some(flag) = args.next() {
        if flag == "--serve" {
            return serve().await;
        }
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--trace" => trace = Some(PathBuf::from(value)),
            "--clients" => clients = value.parse()?,
            "--joiners" => joiners = Some(value.parse()?),
            "--cut" => options.cut_every = Some(value.parse()?),
            "--seed" => options.seed = value.parse()?,
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }
    let path = trace
        .ok_or("usage: replay --trace FILE [--clients N] [--joiners N] [--cut N] [--seed N]")?;
    let trace = Trace::read(&path, clients)?;
    options.joiners = joiners.unwrap_or(3);

    let server = ServerProcess::start().await?;
    println!("replaying  {} on {}", path.display(), server.address);
    let report = run(&server.address, trace, options).await?;
    println!("{report}");
    match server.cpu_time() {
        Some(time) => println!("server cpu {:.2} s", time.as_secs_f64()),
        None => println!("server cpu n/a"),
    }
    // Text that is right could still have been logged twice.
    let logged = server.stop().await?;
    println!("server log {logged} changes");
    Ok(if report.converged() && logged == report.n_changes {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The server's process: tells its address, serves until nobody holds its standard input any more, and tells how many
/// changes it has.
async fn serve() -> Result<ExitCode, Failure> {
    let registry = Arc::new(MemoryRegistry::new());
    let server = Server::builder(registry.clone(), Anonymous::read_write()).build()?;
    let listener = server.listen_websocket("127.0.0.1:0").await?;
    println!("ws://{}", listener.local_addr().ok_or("no address")?);
    stdin().read_to_end(&mut Vec::new()).await?;
    let heads = registry.heads(&[DocumentId::new(DOCUMENT)?]).await?;
    println!(
        "{}",
        heads.first().copied().flatten().map_or(0, |head| head.0)
    );
    Ok(ExitCode::SUCCESS)
}

struct ServerProcess {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    address: String,
}

impl ServerProcess {
    async fn start() -> Result<Self, Failure> {
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

    /// Processor time that the server has used, where the system tells it as Linux does: `proc_pid_stat(5)`, fields 14
    /// and 15, in hundredths of a second.
    fn cpu_time(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()?)).ok()?;
        // The second field, the program's name in parentheses, may hold anything.
        let (_, fields) = stat.rsplit_once(") ")?;
        let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
        let ticks: u64 = ticks.sum::<Result<u64, _>>().ok()?;
        Some(Duration::from_millis(ticks * 10))
    }

    /// Stops it, and returns how many changes it has.
    async fn stop(mut self) -> Result<usize, Failure> {
        drop(self.input);
        let line = self.output.next_line().await?;
        self.child.wait().await?;
        Ok(line.ok_or("the server says nothing")?.parse()?)
    }
}
