//! The server of the demonstration: the `sync-server` program with a folder of its own, or the same inside this process.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use sync_server::{Access, Auth, Jwt, Listener, MemoryRegistry, Server, authorize_fn};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::Failure;

/// Whoever has this may sign tokens.
pub const SECRET: &str = "only for the demonstration, 32 bytes and more";

/// A server that knows users by their tokens. It ends when dropped.
#[derive(Debug)]
pub struct Serving {
    address: String,
    _kept: Kept,
}

#[derive(Debug)]
enum Kept {
    Inside { _listener: Listener },
    Program { _child: Child, _folder: Folder },
}

/// Deleted when dropped.
#[derive(Debug)]
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is in the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Serving {
    /// Starts the program at this path.
    ///
    /// # Errors
    /// If it does not start, or does not say where it listens.
    pub async fn program(path: &Path) -> Result<Self, Failure> {
        let folder = std::env::temp_dir().join(format!("sync-rooms-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let folder = Folder(folder);
        let secret = folder.0.join("secret");
        std::fs::write(&secret, SECRET)?;
        let mut child = Command::new(path)
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(folder.0.join("data"))
            .arg("--jwt-secret-file")
            .arg(&secret)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let printed = child.stdout.take().ok_or("no output")?;
        let line = BufReader::new(printed).lines().next_line().await?;
        let line = line.ok_or("the program ended")?;
        let address = line.rsplit_once(' ').ok_or("no address")?.1.to_owned();
        let _kept = Kept::Program {
            _child: child,
            _folder: folder,
        };
        Ok(Self { address, _kept })
    }

    /// Starts one in this process.
    ///
    /// # Errors
    /// If there is no free port.
    pub async fn inside() -> Result<Self, Failure> {
        let everybody = authorize_fn(|_, _| async { Ok(Access::write()) });
        let auth = Auth::new(Jwt::hs256(SECRET)?, everybody);
        let server = Server::builder(MemoryRegistry::new(), auth).build()?;
        let listener = server.listen_websocket("127.0.0.1:0").await?;
        let address = listener.local_addr().ok_or("no address")?;
        Ok(Self {
            address: format!("ws://{address}"),
            _kept: Kept::Inside {
                _listener: listener,
            },
        })
    }

    /// The address to connect to.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}
