//! Accepts connections at a Unix socket.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use sync_core::transport::{Acceptor, PeerInfo, Transport, TransportError};
use tokio::net::{UnixListener, UnixSocket};

use super::incoming::{BACKLOG, Incoming};
use super::stream;

/// Accepts connections at a Unix socket. Runs on tokio.
///
/// Who may connect is up to the permissions of the socket, and of the directories above it. A socket that a process left behind
/// which is gone is replaced; one that answers is not, nor anything that is no socket. Dropping the acceptor removes its own.
#[derive(Debug)]
pub struct UnixAcceptor {
    incoming: Incoming<UnixListener>,
    /// Removed after the listener is closed.
    file: SocketFile,
}

impl UnixAcceptor {
    /// Listens at this path, for processes of this user only.
    ///
    /// # Errors
    /// [`AddrInUse`](io::ErrorKind::AddrInUse) if somebody listens there, or something is there that is no socket; others if it
    /// cannot be bound.
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::bind_with_mode(path, 0o600)
    }

    /// The same for whom these permissions let in, such as `0o660` for a group: who may write may connect. They are set before
    /// anybody can.
    ///
    /// # Errors
    /// As for [`bind`](Self::bind).
    pub fn bind_with_mode(path: impl AsRef<Path>, mode: u32) -> io::Result<Self> {
        let path = path.as_ref();
        remove_stale(path)?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        let file = SocketFile::new(path)?;
        fs::set_permissions(path, Permissions::from_mode(mode & 0o777))?;
        Ok(Self {
            incoming: Incoming::new(socket.listen(BACKLOG)?),
            file,
        })
    }

    /// The path that it listens at.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Time from the connection to the end of its opening handshake. Default 10 s.
    #[must_use]
    pub const fn handshake_timeout(mut self, value: Duration) -> Self {
        self.incoming.handshake_timeout = value;
        self
    }

    /// Opening handshakes at once, at least one. Default 1,024; more let more silent peers hold a socket. Who comes then has the
    /// place of the oldest.
    #[must_use]
    pub fn handshakes_max(mut self, value: usize) -> Self {
        self.incoming.handshakes_max = value.max(1);
        self
    }
}

#[async_trait]
impl Acceptor for UnixAcceptor {
    async fn accept(&mut self) -> Option<Result<(Box<dyn Transport>, PeerInfo), TransportError>> {
        Some(self.incoming.accept(stream::handshake).await)
    }
}

/// The file of a socket that was bound here.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and number, to know it by.
    id: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            id: (found.dev(), found.ino()),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // By now it may be another server's.
        let is_ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == self.id);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the socket was left behind");
        }
    }
}

/// Removes the socket of a process that is gone.
fn remove_stale(path: &Path) -> io::Result<()> {
    let in_use = |what: &str| io::Error::new(io::ErrorKind::AddrInUse, what);
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(in_use("something is there that is no socket"));
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(in_use("somebody listens there")),
    }
}
