//! The real program, as a process.

#![allow(
    dead_code,
    unreachable_pub,
    missing_debug_implementations,
    reason = "each test binary uses its own part"
)]

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::process::{Command, ExitStatus, Output, Stdio};

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::ChildStdout;

/// The program without what the environment of the tests says.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sync-server"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SYNC_") {
            command.env_remove(name);
        }
    }
    command
}

/// What it said, and how it ended.
pub fn run(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

/// Standard error of a program that has to end with this code.
pub fn fails(arguments: &[&str], code: i32) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// A server that is listening; killed when it is dropped.
pub struct Serving {
    child: tokio::process::Child,
    /// Host and port.
    pub address: String,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Serving {
    /// Starts it at a free port, and waits until it listens.
    pub async fn start(arguments: &[impl AsRef<OsStr>]) -> Self {
        let mut command = tokio::process::Command::from(program());
        command
            .args(["--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("it listens");
        let address = line.split_once("://").expect("an address").1.to_owned();
        Self {
            child,
            address,
            lines,
        }
    }

    /// The next address that it says it listens at.
    pub async fn next_url(&mut self) -> String {
        let line = self.lines.next_line().await.unwrap().expect("it listens");
        line.rsplit_once(' ').expect("an address").1.to_owned()
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// The same over TLS.
    pub fn secure_url(&self) -> String {
        format!("wss://{}", self.address)
    }

    pub fn socket(&self) -> SocketAddr {
        self.address.parse().unwrap()
    }

    /// Sends it a signal by name.
    pub fn signal(&self, name: &str) {
        let id = self.child.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.unwrap().success());
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        self.child.wait().await.unwrap()
    }
}
