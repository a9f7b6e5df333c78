//! A store in a file, with SQLite.
//!
//! Two connections to one file in WAL mode: one writes, under a mutex, and syncs nothing by itself; the other reads and
//! checkpoints, on the store's thread. A commit is durable once the thread has synced the WAL file, which it does without
//! the mutex: so an edit that stages its change never waits for a disk.

mod database;
mod writer;

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use async_trait::async_trait;
use sync_core::ids::{DocumentId, EngineId};
use tokio::sync::{mpsc, oneshot};

use super::{ClientStore, OutboxChange, StoreError, StoreWrite, StoredDocument};
use crate::cell::lock;
use database::Database;
use writer::{Change, Request, Writer};

/// Requests that may wait for the store's thread. Whoever has another one waits.
const REQUESTS_MAX: usize = 256;

/// What staging a change adds to the WAL besides its bytes: a page or two.
const STAGE_BYTES: u64 = 8 * 1024;

/// A store in a file of this device, which one process at a time can use. Clones share it.
///
/// It is an SQLite database, with its `-wal` and `-shm` files and a `.lock` file next to it. What is committed survives a
/// loss of power; what is staged survives the end of the process. Dropping the last clone waits until everything asked for
/// is written, and closes the file; [`close`](Self::close) does so at once.
#[derive(Clone)]
pub struct EmbeddedStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    /// For what is written at once. `None` once the store is closed.
    database: Arc<Mutex<Option<Database>>>,
    /// Bytes written since the last checkpoint, about.
    wal_bytes: Arc<AtomicU64>,
    /// Taken when dropped.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl fmt::Debug for EmbeddedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedStore")
            .field("path", &self.inner.path)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // Its panic has been reported where it happened.
            let _ = thread.join();
        }
    }
}

impl EmbeddedStore {
    /// Opens the store at this path, or makes one there. Reads and writes files: a few milliseconds.
    ///
    /// ```
    /// use sync_client::{Client, EmbeddedStore};
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let directory = std::env::temp_dir().join(format!("sync-doc-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// let store = EmbeddedStore::open(directory.join("app.db"))?;
    /// let client = Client::builder("ws://127.0.0.1:8080").store(store).account("ada").start()?;
    /// # drop(client); std::fs::remove_dir_all(&directory)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError::InUse`] if it is open already, in this process or another; [`StoreError::NewerFormat`] and
    /// [`StoreError::Damaged`] for a file that this version cannot read, which is left as it is; [`StoreError::Failed`] if
    /// the operating system refuses.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref().to_owned();
        let lock = lock_file(&beside(&path, ".lock"))?;
        let io = |error: std::io::Error| StoreError::Failed(error.into());
        rewrite(&beside(&path, "-wal")).map_err(io)?;
        let database = Database::open(&path)?;
        let reader = Database::open(&path)?;
        sync_name(&path).map_err(io)?;
        let wal = OpenOptions::new()
            .write(true)
            .open(beside(&path, "-wal"))
            .map_err(io)?;
        let database = Arc::new(Mutex::new(Some(database)));
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let wal_bytes = Arc::new(AtomicU64::new(0));
        let writer = Writer::new(database.clone(), reader, wal, wal_bytes.clone(), lock);
        let thread = std::thread::Builder::new()
            .name("sync-store".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|error| StoreError::Failed(error.into()))?;
        Ok(Self {
            inner: Arc::new(Inner {
                path,
                database,
                wal_bytes,
                requests: Some(requests),
                thread: Some(thread),
            }),
        })
    }

    /// Finishes what was asked for before, and closes the file: it can be opened again, or copied, when this resolves. For
    /// every clone, so for a client that uses the store too: end that first, with
    /// [`Client::shutdown`](crate::Client::shutdown).
    ///
    /// # Cancellation
    /// The store may be closed all the same.
    pub async fn close(&self) {
        let Some(requests) = &self.inner.requests else {
            return;
        };
        let (reply, closed) = oneshot::channel();
        // Errors mean that it is closed already: the queue ends after the file.
        if requests.send(Request::Close(reply)).await.is_ok() {
            let _ = closed.await;
        }
    }

    /// Has the store's thread do something, and waits for it.
    async fn ask<T: Send>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request + Send,
    ) -> Result<T, StoreError> {
        let Some(requests) = &self.inner.requests else {
            return Err(closed());
        };
        let (reply, answer) = oneshot::channel();
        requests.send(request(reply)).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

#[cfg_attr(not(target_arch = "wasm32"), async_trait)]
#[cfg_attr(target_arch = "wasm32", async_trait(?Send))]
impl ClientStore for EmbeddedStore {
    fn bind(&self, account: &str) -> Result<(), StoreError> {
        let mut database = lock(&self.inner.database);
        database.as_mut().ok_or_else(closed)?.bind(account)
    }

    async fn load(&self, document: &DocumentId) -> Result<Option<StoredDocument>, StoreError> {
        let document = document.clone();
        self.ask(|reply| Request::Load(document, reply)).await
    }

    async fn commit(&self, document: &DocumentId, write: &StoreWrite) -> Result<(), StoreError> {
        let change = Change::Write(document.clone(), Box::new(write.clone()));
        self.ask(|reply| Request::Change(change, reply)).await
    }

    async fn remove(&self, document: &DocumentId) -> Result<(), StoreError> {
        let change = Change::Remove(document.clone());
        self.ask(|reply| Request::Change(change, reply)).await
    }

    async fn list(&self) -> Result<Vec<(DocumentId, usize)>, StoreError> {
        self.ask(Request::List).await
    }

    fn stage(
        &self,
        document: &DocumentId,
        engine: &EngineId,
        change: &OutboxChange,
    ) -> Result<bool, StoreError> {
        let mut database = lock(&self.inner.database);
        let database = database.as_mut().ok_or_else(closed)?;
        database.stage(document, engine, change)?;
        let bytes = u64::try_from(change.bytes.len()).unwrap_or(u64::MAX);
        let bytes = bytes.saturating_add(STAGE_BYTES);
        self.inner.wal_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(true)
    }
}

fn closed() -> StoreError {
    StoreError::Failed("the store has been closed".into())
}

/// The path with this at its end.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}

/// Makes durable what the process before this one may have left in the system's memory: it was killed before a sync, or a sync
/// failed. What is read from now on is taken for saved, and moved into the database, which the WAL must be able to repair.
/// Written once more, because syncing again what a sync has failed for does nothing.
fn rewrite(wal: &Path) -> std::io::Result<()> {
    let mut file = match OpenOptions::new().read(true).write(true).open(wal) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        file.seek(SeekFrom::Start(at))?;
        let length = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else {
            return file.sync_all();
        };
        file.seek(SeekFrom::Start(at))?;
        match file.write_all(bytes) {
            // Where writing in place takes room, a full disk can still be read.
            Err(error) if error.kind() == ErrorKind::StorageFull => return file.sync_all(),
            written => written?,
        }
        at = at.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
    }
}

/// Makes the names of files next to this one durable.
fn sync_name(path: &Path) -> std::io::Result<()> {
    let directory = path.parent().filter(|path| !path.as_os_str().is_empty());
    match File::open(directory.unwrap_or(Path::new("."))) {
        Ok(directory) => match directory.sync_all() {
            // Some systems cannot do it, and have no need to.
            Err(error) if error.kind() == ErrorKind::InvalidInput => Ok(()),
            synced => synced,
        },
        // Nor do they let anybody open a directory.
        Err(_) => Ok(()),
    }
}

/// What keeps other processes out.
struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing alone would not do: a process that is being forked elsewhere may have a copy for a moment.
        let _ = self.0.unlock();
    }
}

/// Locked until this is dropped, or the process ends, however it ends.
fn lock_file(path: &Path) -> Result<Lock, StoreError> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|error| StoreError::Failed(error.into()))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse),
        Err(TryLockError::Error(error)) => Err(StoreError::Failed(error.into())),
    }
}
