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
use std::process::ExitCode;
use std::sync::Arc;

use sync_examples::replay::{DOCUMENT, Options, Trace, run};
use sync_examples::server_process::ServerProcess;
use sync_server::registry::{DocumentId, MemoryRegistry, ServerRegistry};
use sync_server::{Anonymous, Limits, Rate, Server};
use tokio::io::{AsyncReadExt, stdin};

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
    println!("replaying  {} on {}", path.display(), server.address());
    let report = run(server.address(), trace, options).await?;
    println!("{report}");
    match server.cpu_time() {
        Some(time) => println!("server cpu {:.2} s", time.as_secs_f64()),
        None => println!("server cpu n/a"),
    }
    // Text that is right could still have been logged twice.
    let logged: usize = server.stop().await?.parse()?;
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
    let mut limits = Limits::default();
    // A session of years, at once.
    limits.push_changes = Rate::UNLIMITED;
    let server = Server::builder(registry.clone(), Anonymous::read_write())
        .limits(limits)
        .build()?;
    let listener = server.listen_websocket("127.0.0.1:0").await?;
    println!("ws://{}", listener.local_addr().ok_or("no address")?);
    stdin().read_to_end(&mut Vec::new()).await?;
    let heads = registry.heads(&[DocumentId::new(DOCUMENT)?]).await?;
    println!(
        "{}",
        heads
            .first()
            .copied()
            .flatten()
            .map_or(0, |head| head.seq.0)
    );
    Ok(ExitCode::SUCCESS)
}
