//! What a disk may do to a process: fail, and forget what was not synced.
//!
//! `shim.c` stands between a child process and the files of one directory. It writes down all that the child does to them
//! and makes calls fail; from the record, [`Disk`] puts together what the disk may hold if the power is cut at any moment.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::as_conversions,
    reason = "test harness"
)]

mod image;
mod record;

use std::env;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

pub(crate) use image::Disk;
pub(crate) use record::Recording;

use crate::embedded::Directory;

/// The library to preload; `None`, and a word about it, where there is no C compiler. There has to be one in CI.
fn shim() -> Option<&'static Path> {
    static SHIM: OnceLock<Option<PathBuf>> = OnceLock::new();
    SHIM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/disk/shim.c");
        let name = format!("disk-shim-{}.so", std::process::id());
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let compiler = env::var_os("CC").unwrap_or_else(|| "cc".into());
        let built = Command::new(compiler)
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .status();
        match built {
            Ok(status) => {
                assert!(status.success(), "the shim does not compile");
                Some(library)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let in_ci = env::var_os("CI").is_some_and(|ci| ci == "true");
                assert!(!in_ci, "no C compiler: {error}");
                println!("skipped: no C compiler");
                None
            }
            Err(error) => panic!("{error}"),
        }
    })
    .as_deref()
}

/// Which calls fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// `sync`, `sync-directory`, `write`, `read` or `truncate`.
    pub(crate) kind: &'static str,
    /// The first that fails, counted from 1.
    pub(crate) first: u64,
    /// How many fail, one after the other.
    pub(crate) count: u64,
    /// With this error of the system.
    pub(crate) error: i32,
}

pub(crate) const EIO: i32 = 5;
pub(crate) const ENOSPC: i32 = 28;
/// The process is killed instead.
pub(crate) const KILLED: i32 = 0;
/// For a fault that stays.
pub(crate) const FOR_EVER: u64 = 1 << 40;

/// A directory whose files are watched. What the children write to is below [`data`](Self::data); what they say is in a
/// file beside it, so that the record has both in one order.
pub(crate) struct Watched {
    shim: &'static Path,
    root: Directory,
    record: Directory,
}

impl Watched {
    /// `None` where that cannot be done: then there is nothing to test with.
    pub(crate) fn new() -> Option<Self> {
        let watched = Self {
            shim: shim()?,
            root: Directory::new(),
            record: Directory::new(),
        };
        fs::create_dir(watched.data()).unwrap();
        Some(watched)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.root().join("data")
    }

    fn root(&self) -> PathBuf {
        // As the system names the files in it.
        fs::canonicalize(self.root.path()).unwrap()
    }

    /// This test binary again, to run one of its tests as a child on the directory.
    pub(crate) fn child(&self, test: &str, fault: Option<Fault>) -> Command {
        let says = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.root().join(record::SAID))
            .unwrap();
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", test, "--nocapture"])
            .env("LD_PRELOAD", self.shim)
            .env("DISK_ROOT", self.root())
            .env("DISK_RECORD", self.record.path().join("record"))
            .stdout(says)
            .stderr(Stdio::null());
        if let Some(Fault {
            kind,
            first,
            count,
            error,
        }) = fault
        {
            command.env("DISK_FAIL", format!("{kind} {first} {count} {error}"));
        }
        command
    }

    /// All that the children have said.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.root().join(record::SAID)).unwrap()
    }

    /// All that the children have done.
    pub(crate) fn recording(&self) -> Recording {
        let bytes = fs::read(self.record.path().join("record")).unwrap_or_default();
        Recording::new(bytes, &self.root())
    }
}
