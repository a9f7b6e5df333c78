//! A registry of your own: a directory with a file for each document, and in it a line for each call that changed it.
//!
//! [`MemoryRegistry`] knows the rules (duplicates, gaps, digests). What is left is that nobody hears of anything before it
//! is on the disk, and that the lines are carried out again when the directory is opened. A registry for many documents
//! would not hold them in memory, would shorten files when it compacts, and would serve many appends with one sync.
//! Only one process at a time may have a directory open.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sync_server::registry::*;
use tokio::sync::RwLock;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T, E = RegistryError> = std::result::Result<T, E>;

/// The registry. A writer holds the lock until its line is on the disk, so that readers see nothing that may be lost.
#[derive(Debug)]
pub struct FileRegistry(RwLock<Open>);

#[derive(Debug, Default)]
struct Open {
    memory: MemoryRegistry,
    directory: PathBuf,
    files: HashMap<DocumentId, PathBuf>,
    n_files: usize,
    /// After a failed write, what is on the disk is not known until the directory is opened again.
    has_failed: bool,
}

/// A call that was carried out, as a file has it. The first one creates the document.
#[derive(Serialize, Deserialize)]
enum Line {
    Create(String, String, u64, u8, Option<State>),
    Append(u64, Vec<Change>),
    Compact(u64, State, u64),
    Trim(u64, State, u64),
    Delete,
}

/// Sequence, digest and bytes of a snapshot.
type State = (u64, u64, Vec<u8>);
/// Origin, number, user and bytes of a change, and whether it is reconciling.
type Change = (u128, u64, String, Vec<u8>, bool);

impl FileRegistry {
    /// Opens a directory, or makes it.
    ///
    /// # Errors
    /// Those of the file system. A damaged file is an error too, and never a document that lacks something.
    pub async fn open(directory: impl AsRef<Path>) -> Result<Self, Error> {
        let mut open = Open {
            directory: directory.as_ref().to_owned(),
            ..Open::default()
        };
        fs::create_dir_all(&open.directory)?;
        for entry in fs::read_dir(&open.directory)? {
            open.read(entry?.path()).await?;
        }
        Ok(Self(RwLock::new(open)))
    }
}

impl Open {
    fn memory(&self) -> Result<&MemoryRegistry> {
        let memory = (!self.has_failed).then_some(&self.memory);
        memory.ok_or_else(|| RegistryError::unavailable("a write failed: open it again"))
    }

    /// Writes what was just done in memory. Nobody waits in between: a caller that goes away leaves no half.
    fn write(&mut self, id: &DocumentId, line: &Line) -> Result<()> {
        self.try_write(id, line).map_err(|error| {
            self.has_failed = true;
            RegistryError::unknown(error)
        })
    }

    fn try_write(&mut self, id: &DocumentId, line: &Line) -> io::Result<()> {
        let path = self.files.entry(id.clone()).or_insert_with(|| {
            self.n_files += 1;
            self.directory.join(self.n_files.to_string())
        });
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(&[&serde_json::to_vec(line)?[..], b"\n"].concat())?;
        file.sync_all()?;
        if matches!(line, Line::Create(..)) {
            File::open(&self.directory)?.sync_all()?; // the file's name
        }
        Ok(())
    }

    /// Does again what the lines of a file tell of.
    async fn read(&mut self, path: PathBuf) -> Result<(), Error> {
        // What follows the last end of a line was never answered: the crash came before its sync. The rest is synced once
        // more: the crash may have come before the sync of the last line, and now it counts.
        let mut lines = fs::read(&path)?;
        let end = lines.iter().rposition(|byte| *byte == b'\n');
        lines.truncate(end.map_or(0, |end| end + 1));
        let file = OpenOptions::new().write(true).open(&path)?;
        file.set_len(u64::try_from(lines.len())?)?;
        file.sync_all()?;
        let mut document = None;
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            match (serde_json::from_slice(line)?, &document) {
                (Line::Create(name, engine, epoch, mode, start), None) => {
                    let id = DocumentId::new(name)?;
                    let engine = EngineId::new(engine).ok_or("no engine")?;
                    let mut new = NewDocument::new(id.clone(), engine, Epoch(epoch));
                    new.mode = EpochMode::from_code(mode).ok_or("no mode")?;
                    new.snapshot = start.map(snapshot);
                    self.memory.create(new).await?;
                    document = Some(id);
                }
                (Line::Append(epoch, changes), Some(id)) => {
                    let changes = changes.into_iter().map(change).collect();
                    let done = self.memory.append(id, Epoch(epoch), None, changes).await?;
                    if !done.iter().all(is_at) {
                        return Err(format!("{id} cannot have had these changes: {done:?}").into());
                    }
                }
                (Line::Compact(epoch, state, keep), Some(id)) => {
                    let (epoch, folded, keep) = (Epoch(epoch), snapshot(state), Seq(keep));
                    self.memory.compact(id, epoch, folded, keep).await?;
                }
                (Line::Trim(epoch, state, next), Some(id)) => {
                    let (epoch, trimmed, next) = (Epoch(epoch), snapshot(state), Epoch(next));
                    self.memory.trim(id, epoch, trimmed, next).await?;
                }
                (Line::Delete, Some(id)) => self.memory.delete(id).await?,
                _ => return Err("a file is of one document".into()),
            }
        }
        self.files.extend(document.map(|id| (id, path)));
        self.n_files += 1;
        Ok(())
    }
}

#[async_trait]
impl ServerRegistry for FileRegistry {
    async fn create(&self, new: NewDocument) -> Result<DocumentMeta> {
        let mut open = self.0.write().await;
        let (exists, id) = (open.files.contains_key(&new.id), new.id.clone());
        let meta = open.memory()?.create(new.clone()).await?;
        if !exists {
            let (engine, start) = (new.engine.to_string(), new.snapshot.map(state));
            let (epoch, mode) = (new.epoch.0, new.mode.code());
            let line = Line::Create(id.to_string(), engine, epoch, mode, start);
            open.write(&id, &line)?;
        }
        Ok(meta)
    }

    async fn append(
        &self,
        id: &DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>> {
        let mut open = self.0.write().await;
        let memory = open.memory()?;
        let outcomes = memory.append(id, epoch, expect, changes.clone()).await?;
        let judged = changes.iter().zip(&outcomes);
        let committed = judged.filter(|(_, outcome)| is_at(outcome));
        let committed: Vec<_> = committed.map(|(change, _)| fields(change)).collect();
        if !committed.is_empty() {
            open.write(id, &Line::Append(epoch.0, committed))?;
        }
        Ok(outcomes)
    }

    async fn compact(&self, id: &DocumentId, epoch: Epoch, new: Snapshot, keep: Seq) -> Result<()> {
        let mut open = self.0.write().await;
        open.memory()?.compact(id, epoch, new.clone(), keep).await?;
        open.write(id, &Line::Compact(epoch.0, state(new), keep.0))
    }

    async fn trim(&self, id: &DocumentId, epoch: Epoch, new: Snapshot, next: Epoch) -> Result<()> {
        let mut open = self.0.write().await;
        open.memory()?.trim(id, epoch, new.clone(), next).await?;
        open.write(id, &Line::Trim(epoch.0, state(new), next.0))
    }

    async fn delete(&self, id: &DocumentId) -> Result<()> {
        let mut open = self.0.write().await;
        open.memory()?.delete(id).await?;
        open.write(id, &Line::Delete)
    }

    async fn meta(&self, id: &DocumentId) -> Result<DocumentMeta> {
        self.0.read().await.memory()?.meta(id).await
    }

    async fn tail(&self, id: &DocumentId, after: Seq, max: usize) -> Result<Tail> {
        self.0.read().await.memory()?.tail(id, after, max).await
    }

    async fn snapshot(&self, id: &DocumentId) -> Result<Option<Snapshot>> {
        self.0.read().await.memory()?.snapshot(id).await
    }

    async fn list(&self, after: Option<&DocumentId>, limit: usize) -> Result<Vec<DocumentMeta>> {
        self.0.read().await.memory()?.list(after, limit).await
    }

    async fn heads(&self, ids: &[DocumentId]) -> Result<Vec<Option<Cursor>>> {
        self.0.read().await.memory()?.heads(ids).await
    }

    async fn origins(&self, id: &DocumentId, of: &[OriginId]) -> Result<Vec<Option<OriginEntry>>> {
        self.0.read().await.memory()?.origins(id, of).await
    }

    fn is_shared(&self) -> bool {
        false
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }
}

fn is_at(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::At(_))
}

fn state(snapshot: Snapshot) -> State {
    (snapshot.seq.0, snapshot.digest.0, snapshot.bytes.into())
}

fn snapshot((seq, digest, bytes): State) -> Snapshot {
    Snapshot::new(Seq(seq), Digest(digest), bytes.into())
}

fn fields(change: &NewChange) -> Change {
    let (id, user) = (change.id, change.user.id.to_string());
    let bytes = change.bytes.to_vec();
    (id.origin.0, id.number, user, bytes, change.reconciling)
}

fn change((origin, number, user, bytes, reconciling): Change) -> NewChange {
    let origin = OriginId(origin);
    let id = ChangeId { origin, number };
    NewChange::new(id, User::new(user), bytes.into()).with_reconciling(reconciling)
}
