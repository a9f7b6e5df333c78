//! One worker process, as the server sees it.

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::limits::{VARIABLE, WorkerLimits};
use super::protocol::{Answer, Change, FRAME_BYTES_MAX, Failure, Finding, HELLO, Request, Row};
use crate::engine_host::host::Content;

/// How long a process that has closed its pipes may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of rows in one request.
const ROWS_BYTES_MAX: usize = 1024 * 1024;

/// Signals that a process brings upon itself: what aborts, overflows its stack, or is out of processor time. One that
/// somebody sends, such as the system when memory is short, is none.
const OWN_SIGNALS: [i32; 8] = [4, 5, 6, 7, 8, 10, 11, 24];

/// How workers are started.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    pub(super) program: PathBuf,
    pub(super) limits: WorkerLimits,
    /// Time for one request, however long the process waits for the processor.
    pub(super) deadline: Duration,
}

/// How a worker ended.
#[derive(Debug)]
pub(super) enum Death {
    /// Of what it was given.
    Crashed(String),
    /// Of something else, or nobody knows: it took too long, could not be started, was killed.
    Lost(String),
}

impl Death {
    pub(super) fn what(&self) -> &str {
        match self {
            Self::Crashed(what) | Self::Lost(what) => what,
        }
    }
}

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    deadline: Duration,
    /// Whether an answer is outstanding: also after a question that was not waited for.
    is_busy: bool,
    pub(super) n_requests: u64,
}

/// What a worker found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) findings: Vec<Finding>,
    pub(super) is_spent: bool,
    pub(super) bytes: u64,
}

impl Process {
    pub(super) async fn start(settings: &Settings) -> Result<Self, Death> {
        // Nothing of the server's environment is a worker's business.
        let spawned = Command::new(&settings.program)
            .env_clear()
            .env(VARIABLE, settings.limits.to_variable())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let mut child =
            spawned.map_err(|error| Death::Lost(format!("could not be started: {error}")))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Death::Lost("has no pipes".into()));
        };
        let mut process = Self {
            child,
            stdin,
            stdout,
            deadline: settings.deadline,
            is_busy: false,
            n_requests: 0,
        };
        let hello = tokio::time::timeout(settings.deadline, process.read()).await;
        match hello {
            Ok(Ok(Answer::Hello(hello))) if hello == HELLO => Ok(process),
            // Also a program that does not begin with `worker_main`.
            _ => Err(Death::Lost("is no worker".into())),
        }
    }

    /// Whether it can be asked something.
    pub(super) const fn is_usable(&self) -> bool {
        !self.is_busy
    }

    /// After an error the process is no more.
    async fn ask(&mut self, request: &Request) -> Result<Answer, Death> {
        self.is_busy = true;
        self.n_requests += 1;
        let deadline = self.deadline;
        let exchange = async {
            self.write(request).await?;
            self.read().await
        };
        match tokio::time::timeout(deadline, exchange).await {
            Ok(Ok(answer)) => {
                self.is_busy = false;
                Ok(answer)
            }
            Ok(Err(_)) => Err(self.death().await),
            Err(_) => {
                // Ends with the handle, in any case.
                let _ = self.child.start_kill();
                Err(Death::Lost(format!("took longer than {deadline:?}")))
            }
        }
    }

    async fn write(&mut self, request: &Request) -> std::io::Result<()> {
        let bytes = rmp_serde::to_vec(request).map_err(std::io::Error::other)?;
        let length = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
        self.stdin.write_all(&length.to_le_bytes()).await?;
        self.stdin.write_all(&bytes).await?;
        self.stdin.flush().await
    }

    async fn read(&mut self) -> std::io::Result<Answer> {
        let length = self.stdout.read_u32_le().await?;
        if usize::try_from(length).map_or(true, |length| length > FRAME_BYTES_MAX) {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        // Grows with what comes, not with what is claimed.
        let mut bytes = Vec::new();
        let mut frame = (&mut self.stdout).take(length.into());
        frame.read_to_end(&mut bytes).await?;
        rmp_serde::from_slice(&bytes).map_err(std::io::Error::other)
    }

    /// Finds out what a process died of that does not answer any more.
    async fn death(&mut self) -> Death {
        match tokio::time::timeout(END_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) if is_own(status) => Death::Crashed(status.to_string()),
            Ok(Ok(status)) => Death::Lost(status.to_string()),
            _ => Death::Lost("does not answer".into()),
        }
    }

    /// Hands a document over, in pieces.
    async fn stage(&mut self, content: &Content) -> Result<(), Death> {
        if let Some(snapshot) = &content.snapshot {
            self.ask(&Request::Snapshot(snapshot.clone())).await?;
        }
        let mut rows = Vec::new();
        let mut bytes = 0;
        for (author, change) in &content.rows {
            bytes += change.len();
            rows.push(Row {
                author: author.as_ref().map(|user| user.id.to_string()),
                bytes: change.clone(),
            });
            if bytes >= ROWS_BYTES_MAX {
                bytes = 0;
                self.ask(&Request::Rows(std::mem::take(&mut rows))).await?;
            }
        }
        if !rows.is_empty() {
            self.ask(&Request::Rows(rows)).await?;
        }
        Ok(())
    }

    /// Has it keep a replica; the inner error says why the engine cannot load the document.
    pub(super) async fn load(
        &mut self,
        engine: &str,
        replica: u32,
        content: &Content,
    ) -> Result<Result<Found, Failure>, Death> {
        self.stage(content).await?;
        let request = Request::Load {
            engine: engine.to_owned(),
            replica,
        };
        self.found(&request).await
    }

    pub(super) async fn check(
        &mut self,
        replica: u32,
        changes: Vec<Change>,
    ) -> Result<Result<Found, Failure>, Death> {
        let n = changes.len();
        let found = self.found(&Request::Check { replica, changes }).await?;
        Ok(found.and_then(|found| {
            if found.findings.len() > n || found.findings.len() < n && !found.is_spent {
                return Err(Failure::Other("does not answer what was asked".into()));
            }
            Ok(found)
        }))
    }

    async fn found(&mut self, request: &Request) -> Result<Result<Found, Failure>, Death> {
        Ok(match self.ask(request).await? {
            Answer::Checked {
                findings,
                is_spent,
                bytes,
            } => Ok(Found {
                findings,
                is_spent,
                bytes,
            }),
            Answer::Failed(failure) => Err(failure),
            _ => Err(Failure::Other("does not answer what was asked".into())),
        })
    }

    pub(super) async fn forget(&mut self, replica: u32) -> Result<(), Death> {
        self.ask(&Request::Forget { replica }).await.map(drop)
    }

    /// Folds or trims the document, or reads it.
    pub(super) async fn read_content(
        &mut self,
        content: &Content,
        request: &Request,
    ) -> Result<Result<bytes::Bytes, Failure>, Death> {
        self.stage(content).await?;
        Ok(match self.ask(request).await? {
            Answer::Bytes(bytes) => Ok(bytes),
            Answer::Failed(failure) => Err(failure),
            _ => Err(Failure::Other("does not answer what was asked".into())),
        })
    }
}

fn is_own(status: ExitStatus) -> bool {
    match status.signal() {
        Some(signal) => OWN_SIGNALS.contains(&signal),
        None => true,
    }
}
