//! A registry that survives its process: a [`MemoryRegistry`] for the rules (duplicates, gaps, digests), and a
//! journal, one JSON line for each thing that happened, from which it is built again.
//!
//! What is left to this file is that nobody hears of a change before its line is on the disk. What a real registry
//! would do better: documents need not fit in memory, the journal would be shortened, and one sync would serve many
//! appends. Only one process at a time may have a journal open.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sync_server::registry::*;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// The registry. A writer holds the lock until its line is on the disk, so that readers see nothing that may be lost.
/// `None` after a failed write: what the disk then holds is unknown until it is opened again.
#[derive(Debug)]
pub struct FileRegistry(RwLock<Option<Open>>);

#[derive(Debug)]
struct Open {
    documents: MemoryRegistry,
    journal: File,
}

#[derive(Serialize, Deserialize)]
enum Line {
    Created {
        document: String,
        engine: String,
        epoch: u64,
        mode: usize,
        snapshot: Option<State>,
    },
    Appended {
        document: String,
        epoch: u64,
        changes: Vec<Change>,
    },
    Compacted {
        document: String,
        epoch: u64,
        snapshot: State,
        keep_after: u64,
    },
    Deleted {
        document: String,
    },
}

/// Sequence, digest and bytes of a snapshot.
type State = (u64, u64, Vec<u8>);
/// Origin, number, user and bytes of a change.
type Change = (u128, u64, String, Vec<u8>);

const MODES: [EpochMode; 4] = [
    EpochMode::New,
    EpochMode::Merge,
    EpochMode::Rebase,
    EpochMode::Discard,
];

impl FileRegistry {
    /// Opens the registry whose journal is at this path, or starts one.
    ///
    /// # Errors
    /// Those of the file system. A damaged journal is an error too, and never a registry that lacks something.
    pub async fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let journal = OpenOptions::new().create(true).append(true).open(path)?;
        let content = fs::read(path)?;
        // A last line without its end was never answered: the crash came before its sync. The other lines are
        // synced once more: the crash may have come before the sync of the last one, and now it counts.
        let complete = content
            .split_inclusive(|b| *b == b'\n')
            .filter(|line| line.ends_with(b"\n"));
        let bytes: usize = complete.clone().map(<[u8]>::len).sum();
        journal.set_len(u64::try_from(bytes).map_err(io::Error::other)?)?;
        journal.sync_all()?;
        if let (true, Some(directory)) = (cfg!(unix), path.canonicalize()?.parent()) {
            File::open(directory)?.sync_all()?; // the file's name
        }
        let documents = MemoryRegistry::new();
        for line in complete {
            replay(&documents, serde_json::from_slice(line)?)
                .await
                .map_err(io::Error::other)?;
        }
        Ok(Self(RwLock::new(Some(Open { documents, journal }))))
    }

    async fn read(&self) -> Result<RwLockReadGuard<'_, MemoryRegistry>, RegistryError> {
        let open = self.0.read().await;
        RwLockReadGuard::try_map(open, |open| open.as_ref().map(|open| &open.documents))
            .map_err(|_| closed())
    }

    /// Writes and syncs. No `await` between this and the change in memory: a caller that goes away leaves no half.
    fn write(
        mut open: RwLockWriteGuard<'_, Option<Open>>,
        line: &Line,
    ) -> Result<(), RegistryError> {
        let written = serde_json::to_vec(line)
            .map_err(io::Error::other)
            .and_then(|mut bytes| {
                bytes.push(b'\n');
                let Open { journal, .. } = open.as_mut().ok_or(io::ErrorKind::NotConnected)?;
                journal.write_all(&bytes)?;
                journal.sync_data()
            });
        written.map_err(|error| {
            *open = None;
            RegistryError::Unknown {
                source: Some(error.into()),
            }
        })
    }
}

#[async_trait]
impl ServerRegistry for FileRegistry {
    async fn create(&self, new: NewDocument) -> Result<DocumentMeta, RegistryError> {
        let open = self.0.write().await;
        let documents = &open.as_ref().ok_or_else(closed)?.documents;
        match documents.meta(&new.id).await {
            Err(RegistryError::NotFound) => {}
            exists_or_deleted => return exists_or_deleted,
        }
        let meta = documents.create(new.clone()).await?;
        let line = Line::Created {
            document: new.id.to_string(),
            engine: new.engine.to_string(),
            epoch: new.epoch.0,
            mode: MODES
                .iter()
                .position(|mode| *mode == new.mode)
                .unwrap_or_default(),
            snapshot: new.snapshot.map(state),
        };
        Self::write(open, &line).map(|()| meta)
    }

    async fn append(
        &self,
        id: &DocumentId,
        epoch: Epoch,
        expect: Option<Seq>,
        changes: Vec<NewChange>,
    ) -> Result<Vec<Outcome>, RegistryError> {
        let open = self.0.write().await;
        let documents = &open.as_ref().ok_or_else(closed)?.documents;
        let outcomes = documents.append(id, epoch, expect, changes.clone()).await?;
        let committed = changes.into_iter().zip(&outcomes);
        let committed = committed.filter(|(_, outcome)| matches!(outcome, Outcome::At(_)));
        let changes: Vec<Change> = committed
            .map(|(c, _)| {
                (
                    c.id.origin.0,
                    c.id.number,
                    c.user.id.to_string(),
                    c.bytes.into(),
                )
            })
            .collect();
        if !changes.is_empty() {
            Self::write(
                open,
                &Line::Appended {
                    document: id.to_string(),
                    epoch: epoch.0,
                    changes,
                },
            )?;
        }
        Ok(outcomes)
    }

    async fn compact(
        &self,
        id: &DocumentId,
        epoch: Epoch,
        snapshot: Snapshot,
        keep_after: Seq,
    ) -> Result<(), RegistryError> {
        let open = self.0.write().await;
        let documents = &open.as_ref().ok_or_else(closed)?.documents;
        documents
            .compact(id, epoch, snapshot.clone(), keep_after)
            .await?;
        let (document, epoch, keep_after) = (id.to_string(), epoch.0, keep_after.0);
        Self::write(
            open,
            &Line::Compacted {
                document,
                epoch,
                snapshot: state(snapshot),
                keep_after,
            },
        )
    }

    async fn delete(&self, id: &DocumentId) -> Result<(), RegistryError> {
        let open = self.0.write().await;
        open.as_ref()
            .ok_or_else(closed)?
            .documents
            .delete(id)
            .await?;
        Self::write(
            open,
            &Line::Deleted {
                document: id.to_string(),
            },
        )
    }

    fn durability(&self) -> Durability {
        Durability::Synced
    }

    async fn meta(&self, id: &DocumentId) -> Result<DocumentMeta, RegistryError> {
        self.read().await?.meta(id).await
    }

    async fn tail(&self, id: &DocumentId, after: Seq, max: usize) -> Result<Tail, RegistryError> {
        self.read().await?.tail(id, after, max).await
    }

    async fn snapshot(&self, id: &DocumentId) -> Result<Option<Snapshot>, RegistryError> {
        self.read().await?.snapshot(id).await
    }

    async fn list(
        &self,
        after: Option<&DocumentId>,
        n: usize,
    ) -> Result<Vec<DocumentMeta>, RegistryError> {
        self.read().await?.list(after, n).await
    }

    async fn heads(&self, ids: &[DocumentId]) -> Result<Vec<Option<Seq>>, RegistryError> {
        self.read().await?.heads(ids).await
    }

    async fn origins(
        &self,
        id: &DocumentId,
        origins: &[OriginId],
    ) -> Result<Vec<Option<OriginEntry>>, RegistryError> {
        self.read().await?.origins(id, origins).await
    }
}

/// Does again what a line tells of. Each was done before, so it can be done again.
async fn replay(
    documents: &MemoryRegistry,
    line: Line,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    match line {
        Line::Created {
            document,
            engine,
            epoch,
            mode,
            snapshot,
        } => {
            let engine = EngineId::new(engine).ok_or("no engine")?;
            let mut new = NewDocument::new(DocumentId::new(document)?, engine, Epoch(epoch));
            new.mode = *MODES.get(mode).ok_or("no such mode")?;
            new.snapshot = snapshot
                .map(|(seq, digest, bytes)| Snapshot::new(Seq(seq), Digest(digest), bytes.into()));
            documents.create(new).await?;
        }
        Line::Appended {
            document,
            epoch,
            changes,
        } => {
            let changes = changes.into_iter().map(|(origin, number, user, bytes)| {
                NewChange::new(
                    ChangeId {
                        origin: OriginId(origin),
                        number,
                    },
                    User::new(user),
                    bytes.into(),
                )
            });
            let document = DocumentId::new(document)?;
            let outcomes = documents
                .append(&document, Epoch(epoch), None, changes.collect())
                .await?;
            if !outcomes
                .iter()
                .all(|outcome| matches!(outcome, Outcome::At(_)))
            {
                return Err(
                    format!("{document} cannot have had these changes: {outcomes:?}").into(),
                );
            }
        }
        Line::Compacted {
            document,
            epoch,
            snapshot: (seq, digest, bytes),
            keep_after,
        } => {
            let snapshot = Snapshot::new(Seq(seq), Digest(digest), bytes.into());
            documents
                .compact(
                    &DocumentId::new(document)?,
                    Epoch(epoch),
                    snapshot,
                    Seq(keep_after),
                )
                .await?;
        }
        Line::Deleted { document } => documents.delete(&DocumentId::new(document)?).await?,
    }
    Ok(())
}

fn state(snapshot: Snapshot) -> State {
    (snapshot.seq.0, snapshot.digest.0, snapshot.bytes.into())
}

fn closed() -> RegistryError {
    RegistryError::Unavailable {
        retry_after: None,
        source: Some("a write failed: open it again".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn after_a_failed_write_it_answers_nothing_until_opened_again() {
        // A handle that can only read: every write to it fails.
        let journal = File::open(std::env::current_exe().unwrap()).unwrap();
        let documents = MemoryRegistry::new();
        let registry = FileRegistry(RwLock::new(Some(Open { documents, journal })));
        let id = DocumentId::new("notes").unwrap();
        let new = || NewDocument::new(id.clone(), EngineId::YRS, Epoch(7));
        let failed = registry.create(new()).await;
        assert!(
            matches!(failed, Err(RegistryError::Unknown { .. })),
            "{failed:?}"
        );
        for refused in [registry.create(new()).await, registry.meta(&id).await] {
            assert!(
                matches!(refused, Err(RegistryError::Unavailable { .. })),
                "{refused:?}"
            );
        }
    }
}
