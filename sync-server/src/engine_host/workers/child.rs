//! The worker itself: reads requests, runs engines, answers, and dies of whatever it cannot bear.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use sync_core::engine::{EngineError, Ledger, Validator};
use sync_core::ids::{EngineId, User};
use sync_core::server::{Engines, Verdict};

use super::limits::WorkerLimits;
use super::protocol::{Answer, Change, FRAME_BYTES_MAX, HELLO, Request};
use crate::engine_host::check::{Asked, check};
use crate::engine_host::guard::ENGINE_STACK_BYTES;
use crate::engine_host::host::{Content, new_ledger};

/// Serves until the other end of the pipe is gone. Not caught: a panic ends the process, as everything else does that an
/// engine can do to it.
pub(super) fn run(engines: Engines, limits: WorkerLimits) -> io::Result<()> {
    let stack = u64::try_from(ENGINE_STACK_BYTES).unwrap_or(u64::MAX);
    limit(Resource::Core, 0)?;
    limit(Resource::As, limits.memory_bytes.saturating_add(stack))?;
    let worker = Worker {
        engines,
        cpu: limits.cpu,
        staged: Content::default(),
        replicas: BTreeMap::new(),
    };
    let thread = std::thread::Builder::new().stack_size(ENGINE_STACK_BYTES);
    match thread.spawn(|| worker.serve())?.join() {
        Ok(result) => result,
        Err(_) => Err(io::Error::other("the engine panicked")),
    }
}

fn limit(resource: Resource, to: u64) -> io::Result<()> {
    let limit = Rlimit {
        current: Some(to),
        maximum: Some(to),
    };
    Ok(setrlimit(resource, limit)?)
}

struct Worker {
    engines: Engines,
    cpu: Duration,
    staged: Content,
    replicas: BTreeMap<u32, Box<dyn Ledger>>,
}

impl Worker {
    fn serve(mut self) -> io::Result<()> {
        let (mut stdin, mut stdout) = (io::stdin().lock(), io::stdout().lock());
        write(&mut stdout, &Answer::Hello(HELLO.into()))?;
        while let Some(request) = read(&mut stdin)? {
            self.limit_cpu()?;
            let answer = self.answer(request);
            write(&mut stdout, &answer)?;
        }
        Ok(())
    }

    /// The processor time until now, and what one request may take: beyond that the system ends the process.
    fn limit_cpu(&self) -> io::Result<()> {
        let now = clock_gettime(ClockId::ProcessCPUTime);
        let used = u64::try_from(now.tv_sec).unwrap_or_default();
        // In whole seconds, and never less than asked for.
        let more = self.cpu.as_secs().saturating_add(1);
        let limit = Rlimit {
            current: Some(used.saturating_add(more)),
            maximum: None,
        };
        Ok(setrlimit(Resource::Cpu, limit)?)
    }

    fn answer(&mut self, request: Request) -> Answer {
        let answer = match request {
            Request::Snapshot(bytes) => {
                self.staged.snapshot = Some(bytes);
                Ok(Answer::Done)
            }
            Request::Rows(rows) => {
                let rows = rows.into_iter();
                let rows = rows.map(|row| (row.author.map(User::new), row.bytes));
                self.staged.rows.extend(rows);
                Ok(Answer::Done)
            }
            Request::Load { engine, replica } => self.load(&engine, replica),
            Request::Check { replica, changes } => self.check(replica, &changes),
            Request::Forget { replica } => {
                self.replicas.remove(&replica);
                Ok(Answer::Done)
            }
            Request::Fold { engine } => self.read(&engine, |validator, content| {
                let folder = validator
                    .folder()
                    .ok_or(EngineError::Unsupported { what: "folding" })?;
                folder.fold(content.snapshot.as_deref(), &content.changes())
            }),
            Request::Trim { engine, keep } => self.read(&engine, |validator, content| {
                let folder = validator
                    .folder()
                    .ok_or(EngineError::Unsupported { what: "trimming" })?;
                let keep = usize::try_from(keep).unwrap_or(usize::MAX);
                folder.trim(content.snapshot.as_deref(), &content.changes(), keep)
            }),
            Request::Json { engine } => self.read(&engine, |validator, content| {
                let folder = validator
                    .folder()
                    .ok_or(EngineError::Unsupported { what: "reading" })?;
                let json = folder.read_json(content.snapshot.as_deref(), &content.changes())?;
                Ok(json.into())
            }),
        };
        answer.unwrap_or_else(|error| Answer::Failed(error.into()))
    }

    fn validator(&self, engine: &str) -> Result<Arc<dyn Validator>, EngineError> {
        let unknown = EngineError::Unsupported { what: "the engine" };
        let engine = EngineId::new(engine.to_owned()).ok_or_else(|| unknown.clone())?;
        self.engines
            .validator(&engine)
            .flatten()
            .cloned()
            .ok_or(unknown)
    }

    fn load(&mut self, engine: &str, replica: u32) -> Result<Answer, EngineError> {
        let content = std::mem::take(&mut self.staged);
        let validator = self.validator(engine)?;
        let mut ledger =
            new_ledger(&validator).ok_or(EngineError::Unsupported { what: "checking" })?;
        content.load_into(&mut *ledger)?;
        let bytes = u64::try_from(ledger.bytes()).unwrap_or(u64::MAX);
        self.replicas.insert(replica, ledger);
        Ok(Answer::Checked {
            findings: Vec::new(),
            is_spent: false,
            bytes,
        })
    }

    fn check(&mut self, replica: u32, changes: &[Change]) -> Result<Answer, EngineError> {
        let ledger = self
            .replicas
            .get_mut(&replica)
            .ok_or(EngineError::Unsupported {
                what: "the replica",
            })?;
        let users: Vec<_> = changes
            .iter()
            .map(|change| User::new(change.user.as_str()))
            .collect();
        let asked = changes.iter().zip(&users).map(|(change, user)| Asked {
            writer: change.writer,
            user,
            bytes: &change.bytes,
            reconciling: change.reconciling,
        });
        let mut verdicts: Vec<Verdict> = Vec::with_capacity(changes.len());
        check(&mut **ledger, asked, &mut BTreeSet::new(), &mut verdicts);
        let bytes = u64::try_from(ledger.bytes()).unwrap_or(u64::MAX);
        let is_spent = ledger.is_spent();
        if is_spent {
            self.replicas.remove(&replica);
        }
        Ok(Answer::Checked {
            findings: verdicts.into_iter().map(Into::into).collect(),
            is_spent,
            bytes,
        })
    }

    fn read(
        &mut self,
        engine: &str,
        run: impl FnOnce(&dyn Validator, &Content) -> Result<Bytes, EngineError>,
    ) -> Result<Answer, EngineError> {
        let content = std::mem::take(&mut self.staged);
        let validator = self.validator(engine)?;
        run(&*validator, &content).map(Answer::Bytes)
    }
}

/// The next request; `None` at the end.
fn read(from: &mut impl Read) -> io::Result<Option<Request>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        result => result?,
    }
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > FRAME_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    rmp_serde::from_slice(&bytes)
        .map(Some)
        .map_err(io::Error::other)
}

fn write(to: &mut impl Write, answer: &Answer) -> io::Result<()> {
    let bytes = rmp_serde::to_vec(answer).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&bytes)?;
    to.flush()
}
