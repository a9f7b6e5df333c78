//! What has to be made durable when a directory is opened.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Makes durable what the process before this one may have left in the system's memory: it was killed between a write and
/// its sync, or a sync failed. What is read from now on is told to clients as committed, and copied into the database,
/// which the log must be able to repair. Written once more, because syncing again what a sync has failed for does nothing.
pub(super) fn rewrite(log: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().read(true).write(true).open(log) {
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

/// SQLite syncs its own files; that they have names is for us to make durable: each time, for the process before this
/// one may have been killed before it did.
pub(super) fn sync_names(directory: &Path) -> io::Result<()> {
    for path in [Some(directory), directory.parent()] {
        let Some(path) = path else { continue };
        let is_here = path.as_os_str().is_empty();
        let path = if is_here { Path::new(".") } else { path };
        match File::open(path).map(|directory| directory.sync_all()) {
            Ok(Ok(())) => {}
            // Some systems cannot do it, and have no need to.
            Err(error) => tracing::debug!(%error, "a directory was not synced"),
            Ok(Err(error)) if error.kind() == ErrorKind::InvalidInput => {
                tracing::debug!(%error, "a directory was not synced");
            }
            Ok(Err(error)) => return Err(error),
        }
    }
    Ok(())
}
