//! The thread that commits, loads and checkpoints.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use sync_core::ids::DocumentId;
use tokio::sync::mpsc::Receiver;
use tokio::sync::oneshot::Sender;

use super::Lock;
use super::database::Database;
use crate::cell::lock;
use crate::store::{StoreError, StoreWrite, StoredDocument};

/// Writes that share one transaction at most.
const BATCH_MAX: usize = 64;

/// Bytes in the WAL from which it is moved into the database.
const CHECKPOINT_BYTES: u64 = 4 * 1024 * 1024;

/// What a write adds to the WAL besides its bytes, about.
const WRITE_BYTES: u64 = 16 * 1024;

type Reply<T> = Sender<Result<T, StoreError>>;

pub(super) enum Request {
    Load(DocumentId, Reply<Option<StoredDocument>>),
    List(Reply<Vec<(DocumentId, usize)>>),
    Change(Change, Reply<()>),
    Close(Sender<()>),
}

/// Something to commit.
pub(super) enum Change {
    Write(DocumentId, Box<StoreWrite>),
    Remove(DocumentId),
}

impl Change {
    fn wal_bytes(&self) -> u64 {
        let Self::Write(_, write) = self else {
            return WRITE_BYTES;
        };
        let outbox = write.outbox_add.iter().map(|change| &change.bytes);
        let bytes: usize = write
            .snapshot
            .iter()
            .chain(&write.imported)
            .chain(outbox)
            .map(|bytes| bytes.len())
            .sum();
        u64::try_from(bytes).map_or(u64::MAX, |bytes| bytes.saturating_add(WRITE_BYTES))
    }
}

pub(super) struct Writer {
    database: Arc<Mutex<Option<Database>>>,
    /// Reads and checkpoints, neither of which holds up who writes.
    reader: Database,
    wal: File,
    /// Bytes written since the last checkpoint, about.
    wal_bytes: Arc<AtomicU64>,
    /// A sync failed: nobody can tell what the disk has, so nothing more is said to be safe.
    is_broken: bool,
    /// Held as long as the database is open.
    lock: Lock,
}

impl Writer {
    pub(super) const fn new(
        database: Arc<Mutex<Option<Database>>>,
        reader: Database,
        wal: File,
        wal_bytes: Arc<AtomicU64>,
        lock: Lock,
    ) -> Self {
        Self {
            database,
            reader,
            wal,
            wal_bytes,
            is_broken: false,
            lock,
        }
    }

    /// Until the store is closed or dropped; what is in the queue by then is still done.
    pub(super) fn run(mut self, mut queue: Receiver<Request>) {
        let mut closing = Vec::new();
        let mut next = None;
        loop {
            let queued = next.take().or_else(|| {
                if closing.is_empty() {
                    queue.blocking_recv()
                } else {
                    queue.try_recv().ok()
                }
            });
            let Some(request) = queued else {
                break;
            };
            // Whoever does not wait for an answer any more needs none.
            match request {
                Request::Load(document, reply) => drop(reply.send(self.reader.load(&document))),
                Request::List(reply) => drop(reply.send(self.reader.list())),
                Request::Close(reply) => closing.push(reply),
                Request::Change(change, reply) => {
                    let mut batch = vec![(change, reply)];
                    while next.is_none() && batch.len() < BATCH_MAX {
                        match queue.try_recv() {
                            Ok(Request::Change(change, reply)) => batch.push((change, reply)),
                            Ok(other) => next = Some(other),
                            Err(_) => break,
                        }
                    }
                    self.commit(batch);
                    self.checkpoint();
                }
            }
        }
        let Self {
            database,
            reader,
            is_broken,
            lock: lock_file,
            ..
        } = self;
        let database = lock(&database).take();
        if is_broken {
            for kept in database.iter().chain([&reader]) {
                if let Err(error) = kept.keep_wal() {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "the WAL is moved after a failed sync");
                }
            }
        }
        drop((reader, database));
        drop(lock_file);
        // After the file: whoever finds the queue gone may open the store again.
        drop(queue);
        for reply in closing {
            let _ = reply.send(());
        }
    }

    fn commit(&mut self, batch: Vec<(Change, Reply<()>)>) {
        let (changes, replies): (Vec<Change>, Vec<Reply<()>>) = batch.into_iter().unzip();
        let mut results = self.write(&changes);
        if results.iter().any(Result::is_ok)
            && let Err(error) = self.wal.sync_data()
        {
            self.is_broken = true;
            let error = Arc::new(error);
            for result in results.iter_mut().filter(|result| result.is_ok()) {
                *result = Err(StoreError::Failed(error.clone().into()));
            }
        }
        for (reply, result) in replies.into_iter().zip(results) {
            let _ = reply.send(result);
        }
    }

    /// Writes them in one transaction, or each by itself if one of them cannot be written.
    fn write(&self, changes: &[Change]) -> Vec<Result<(), StoreError>> {
        let one = |changes: &[Change]| -> Result<(), StoreError> {
            if self.is_broken {
                let what =
                    "the disk failed to keep what was written; the store must be opened again";
                return Err(StoreError::Failed(what.into()));
            }
            let mut database = lock(&self.database);
            let database = database.as_mut().ok_or_else(super::closed)?;
            let bytes = changes.iter().map(Change::wal_bytes).sum();
            self.wal_bytes.fetch_add(bytes, Ordering::Relaxed);
            database.write(changes)
        };
        match one(changes) {
            Ok(()) => changes.iter().map(|_| Ok(())).collect(),
            Err(error) if changes.len() == 1 => vec![Err(error)],
            Err(_) => changes
                .iter()
                .map(|change| one(std::slice::from_ref(change)))
                .collect(),
        }
    }

    /// Moves the WAL into the database if it has become long. Does not hold up who writes meanwhile.
    fn checkpoint(&mut self) {
        if self.is_broken || self.wal_bytes.load(Ordering::Relaxed) < CHECKPOINT_BYTES {
            return;
        }
        self.wal_bytes.store(0, Ordering::Relaxed);
        if let Err(error) = self.reader.checkpoint() {
            self.is_broken = true;
            let error: &dyn std::error::Error = &error;
            tracing::error!(
                error,
                "the store could not be checkpointed, and must be opened again"
            );
        }
    }
}
