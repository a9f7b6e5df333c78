//! The database: its tables, how it is opened, and its errors.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use sync_core::BoxError;
use sync_core::history::{Epoch, EpochMode, Seq};
use sync_core::ids::EngineId;

use super::{EmbeddedOptions, disk};
use crate::registry::RegistryError;

/// What this code reads and writes. A directory of a newer one is refused.
const FORMAT: i32 = 2;
/// "Sync": says whose file it is, to `file(1)` too.
const APPLICATION: i32 = 0x5379_6e63;

/// Rows of `journal` are written by `append`, one per document and commit, in the order of commits: the pages that a
/// commit touches follow on each other. They are folded into `log` later, and only then `head`, `digest` and `origins`
/// follow. `log_start` and `start_digest` are those of the whole log, journal included.
const TABLES: &str = "
CREATE TABLE documents (
    doc INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    engine TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    mode INTEGER NOT NULL,
    head INTEGER NOT NULL,
    digest INTEGER NOT NULL,
    log_start INTEGER NOT NULL,
    start_digest INTEGER NOT NULL,
    snapshot INTEGER,
    snapshot_seq INTEGER NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE journal (
    row INTEGER PRIMARY KEY,
    doc INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    n INTEGER NOT NULL,
    digest INTEGER NOT NULL,
    changes BLOB NOT NULL
) STRICT;
CREATE TABLE log (
    doc INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    n INTEGER NOT NULL,
    digest INTEGER NOT NULL,
    changes BLOB NOT NULL,
    PRIMARY KEY (doc, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE origins (
    doc INTEGER NOT NULL,
    origin BLOB NOT NULL,
    user TEXT NOT NULL,
    last INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (doc, origin)
) STRICT, WITHOUT ROWID;
CREATE TABLE snapshots (
    snapshot INTEGER PRIMARY KEY,
    doc INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    digest INTEGER NOT NULL,
    length INTEGER NOT NULL,
    hash INTEGER NOT NULL
) STRICT;
CREATE TABLE parts (
    snapshot INTEGER NOT NULL,
    part INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (snapshot, part)
) STRICT, WITHOUT ROWID;
CREATE TABLE garbage (
    garbage INTEGER PRIMARY KEY,
    doc INTEGER,
    through INTEGER,
    snapshot INTEGER
) STRICT;
";

/// Why a directory was not opened. Nothing in it has been changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process, or another registry of this one, has it open.
    #[error("{} is in use by another process", .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// A newer version of this program wrote it. Use that one, or export its documents with it.
    #[error("the data has format {found}, this program reads up to {supported}")]
    Newer {
        /// The format found.
        found: i32,
        /// The newest that this program reads.
        supported: i32,
    },
    /// A version before the first release wrote it.
    #[error("the data has format {found}, this program reads {supported}")]
    Older {
        /// The format found.
        found: i32,
        /// The format that this program reads.
        supported: i32,
    },
    /// The database in it is not a registry's.
    #[error("{} is not a registry's database", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// What is stored cannot be read. Restore a copy, or repair it with SQLite's tools.
    #[error("stored data is damaged: {what}")]
    Damaged {
        /// What is damaged.
        what: String,
    },
    /// The directory or a file in it could not be opened, read or written.
    #[error("cannot open {}", .path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// What happened.
        #[source]
        source: BoxError,
    },
}

/// A directory that is ours until this is dropped.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    /// Locked, unless it is only looked into. The system lets go of it when the process ends, however it ends.
    lock: Option<File>,
    /// The database, to be synced. Closed after all connections: closing any handle of a file ends all locks that the
    /// process has on it, on Unix.
    database: OnceLock<File>,
}

impl Directory {
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let io = |error: std::io::Error| OpenError::Io {
            path: path.to_owned(),
            source: Box::new(error),
        };
        fs::create_dir_all(path).map_err(io)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path.join("lock"))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                lock: Some(lock),
                database: OnceLock::new(),
            }),
            Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }

    /// A directory that is somebody else's, to be read.
    pub(super) fn look(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            lock: None,
            database: OnceLock::new(),
        }
    }

    /// The database file.
    pub(super) fn database(&self) -> PathBuf {
        self.path.join("sync.db")
    }

    /// A connection that writes; makes the tables in an empty database.
    pub(super) fn open(&self, options: &EmbeddedOptions) -> Result<Connection, OpenError> {
        let path = self.database();
        let io = |path: PathBuf| {
            |error: std::io::Error| OpenError::Io {
                path,
                source: Box::new(error),
            }
        };
        // Before SQLite opens it: closing any handle of a file ends all locks that the process has on it, on Unix.
        let log = self.path.join("sync.db-wal");
        disk::rewrite(&log).map_err(io(log))?;
        let opening = |error| opening(&path, error);
        let connection = self.writing().map_err(opening)?;
        if self.format(&connection)?.is_none() {
            if self.was_filled() {
                return Err(OpenError::Damaged {
                    what: format!("{} is missing or empty", path.display()),
                });
            }
            self.create(&connection).map_err(opening)?;
        }
        let mode = switch(&connection).map_err(opening)?;
        if mode != "wal" {
            return Err(OpenError::Io {
                source: format!("the file system has no write-ahead log, only {mode}").into(),
                path,
            });
        }
        if let Some(bytes) = options.file_bytes_max {
            let page: i64 = connection
                .pragma_query_value(None, "page_size", |row| row.get(0))
                .map_err(opening)?;
            let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
            connection
                .query_row(
                    &format!("PRAGMA max_page_count = {}", pages.max(1)),
                    [],
                    |_| Ok(()),
                )
                .map_err(opening)?;
        }
        disk::sync_names(&self.path).map_err(io(self.path.clone()))?;
        self.note_filled().map_err(io(self.path.join("lock")))?;
        let file = OpenOptions::new().read(true).write(true).open(&path);
        // Set once: a directory is opened once.
        let _ = self.database.set(file.map_err(io(path))?);
        Ok(connection)
    }

    /// The format of the database, one that this program reads; `None` if it is empty.
    pub(super) fn format(&self, connection: &Connection) -> Result<Option<i32>, OpenError> {
        let path = self.database();
        let opening = |error| opening(&path, error);
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let format = pragma("user_version").map_err(opening)?;
        let application = pragma("application_id").map_err(opening)?;
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(opening)?;
        if (application, format, tables) == (0, 0, 0) {
            Ok(None)
        } else if application != APPLICATION || format < 1 {
            Err(OpenError::Foreign { path })
        } else if format > FORMAT {
            Err(OpenError::Newer {
                found: format,
                supported: FORMAT,
            })
        } else if format < FORMAT {
            Err(OpenError::Older {
                found: format,
                supported: FORMAT,
            })
        } else {
            Ok(Some(format))
        }
    }

    /// Whether there has been a database in this directory: if there is none any more, an empty one must not be taken for
    /// what there was.
    fn was_filled(&self) -> bool {
        let lock = self.lock.as_ref().map(File::metadata);
        lock.is_some_and(|found| found.is_ok_and(|lock| lock.len() > 0))
    }

    fn note_filled(&self) -> std::io::Result<()> {
        let Some(mut lock) = self.lock.as_ref().filter(|_| !self.was_filled()) else {
            return Ok(());
        };
        writeln!(
            lock,
            "A registry of format {FORMAT}. Locked while it is open."
        )?;
        lock.sync_all()
    }

    fn create(&self, connection: &Connection) -> Result<(), rusqlite::Error> {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {TABLES}
             PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; COMMIT"
        ))?;
        Ok(())
    }

    /// Waits until what was written to the database is on the disk.
    pub(super) fn sync(&self) -> Result<(), std::io::Error> {
        self.database.get().map_or(Ok(()), File::sync_data)
    }

    /// A connection that writes to what is there.
    pub(super) fn writing(&self) -> Result<Connection, rusqlite::Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.database(), flags)?;
        // Nobody else writes, unless an operator's tools do.
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;
             PRAGMA cache_size = -65536; PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = OFF",
        )?;
        // Checkpoints are ours to time.
        connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
        Ok(connection)
    }

    /// A connection that reads.
    pub(super) fn reading(&self) -> Result<Connection, rusqlite::Error> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(self.database(), flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.execute_batch("PRAGMA cache_size = -8192; PRAGMA query_only = ON")?;
        Ok(connection)
    }
}

/// Switches to a write-ahead log; the mode that there is then.
fn switch(connection: &Connection) -> Result<String, rusqlite::Error> {
    let mut statement = connection.prepare("PRAGMA journal_mode = WAL")?;
    let mut rows = statement.query([])?;
    let mode = rows.next()?.map_or(Ok(String::new()), |row| row.get(0))?;
    // The switch is committed after it has been answered.
    rows.next()?;
    // And the log is made by the first read.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    Ok(mode)
}

/// The error of an open that failed in SQLite.
pub(super) fn opening(path: &Path, error: rusqlite::Error) -> OpenError {
    if is_damage(&error) {
        OpenError::Damaged {
            what: format!("{}: {error}", path.display()),
        }
    } else {
        OpenError::Io {
            path: path.to_owned(),
            source: Box::new(error),
        }
    }
}

/// The error of a call that failed in SQLite before it changed anything.
pub(super) fn failed(error: rusqlite::Error) -> RegistryError {
    if is_damage(&error) {
        RegistryError::Damaged {
            what: error.to_string(),
        }
    } else {
        RegistryError::unavailable(error)
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(
        error,
        rusqlite::Error::FromSqlConversionFailure(..)
            | rusqlite::Error::IntegralValueOutOfRange(..)
            | rusqlite::Error::InvalidColumnType(..)
            | rusqlite::Error::Utf8Error(..)
    ) || matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
    )
}

/// SQLite has signed integers only. Epochs, digests and numbers use all 64 bits, and are stored as they are.
pub(super) const fn signed(value: u64) -> i64 {
    value.cast_signed()
}

pub(super) const fn unsigned(value: i64) -> u64 {
    value.cast_unsigned()
}

/// Sequences are compared in SQL, so that they have to keep their order.
///
/// # Errors
/// [`RegistryError::Refused`] beyond 2^63.
pub(super) fn seq_column(seq: Seq) -> Result<i64, RegistryError> {
    i64::try_from(seq.0).map_err(|_| RegistryError::Refused {
        what: "a sequence is beyond 2^63",
    })
}

pub(super) fn mode(column: i64) -> Option<EpochMode> {
    EpochMode::from_code(column.try_into().ok()?)
}

pub(super) fn engine(name: String) -> Option<EngineId> {
    EngineId::new(name)
}

pub(super) const fn epoch(column: i64) -> Epoch {
    Epoch(unsigned(column))
}
