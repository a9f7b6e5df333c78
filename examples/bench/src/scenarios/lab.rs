//! Where measurements are made: cores, folders, and servers that are started for one of them each.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Failure;
use crate::cli::{RelayMode, RunOptions, name_of};
use crate::clients::{Client, Dialled, Who};
use crate::cores::{Cores, pin};
use crate::process::ServerProcess;
use crate::report::Setting;
use crate::subject::Subject;

/// Everything that measurements have in common.
pub(crate) struct Lab {
    pub(crate) options: RunOptions,
    program: PathBuf,
    cores: Cores,
    folder: Folder,
    n_started: Cell<u32>,
}

/// A server that runs, and the folder that is its own.
pub(crate) struct Running {
    pub(crate) subject: Subject,
    pub(crate) process: ServerProcess,
    _folder: Folder,
}

impl Lab {
    /// Takes its core, if there are two.
    pub(crate) fn new(options: &RunOptions) -> Result<Self, Failure> {
        let cores = Cores::assign();
        match cores.generator {
            Some(core) => pin(core)?,
            None => eprintln!(
                "bench: no two cores to be had: server and generator take time from each other"
            ),
        }
        let parent = options.directory.clone().unwrap_or_else(std::env::temp_dir);
        Ok(Self {
            options: options.clone(),
            program: std::env::current_exe()?,
            cores,
            folder: Folder::make(parent.join(format!("sync-bench-{}", std::process::id())))?,
            n_started: Cell::new(0),
        })
    }

    /// How long a load is measured.
    pub(crate) fn time(&self) -> Duration {
        Duration::try_from_secs_f64(self.options.seconds).unwrap_or_default()
    }

    /// What is compared under a load of changes. The first one is what the others are compared to: the relay that writes
    /// all that waits at once, and acknowledges, as the server does.
    pub(crate) fn subjects(&self) -> Vec<Subject> {
        let relays = [
            (RelayMode::Coalescing, true),
            (RelayMode::Coalescing, false),
            (RelayMode::Plain, false),
        ];
        let relays = relays.map(|(mode, acks)| Subject::relay(mode, acks));
        relays.into_iter().chain(self.servers()).collect()
    }

    /// The servers with each of the registries that were asked for.
    pub(crate) fn servers(&self) -> impl Iterator<Item = Subject> {
        self.options.registries.iter().map(|r| Subject::Sync(*r))
    }

    /// Starts a server that nobody has used yet.
    pub(crate) fn start(&self, subject: Subject) -> Result<Running, Failure> {
        self.n_started.set(self.n_started.get() + 1);
        let folder = Folder::make(self.folder.path.join(self.n_started.get().to_string()))?;
        Ok(Running {
            subject,
            process: self.start_in(subject, &folder.path)?,
            _folder: folder,
        })
    }

    /// Starts a server on a folder that may have been used.
    fn start_in(&self, subject: Subject, folder: &Path) -> Result<ServerProcess, Failure> {
        let args = subject.args(self.options.runtime, self.cores.server, folder);
        ServerProcess::start(&self.program, &args)
    }

    /// How everything was measured.
    pub(crate) fn setting(&self) -> Setting {
        Setting {
            runs: self.options.runs.max(1),
            seconds: self.options.seconds,
            runtime: name_of(self.options.runtime),
            is_pinned: self.cores.server.is_some(),
            is_optimised: !cfg!(debug_assertions),
        }
    }
}

impl Running {
    /// A client whose document is open. Numbers differ between the clients of a server.
    pub(crate) fn client(&self, number: usize, document: &str) -> Result<Client, Failure> {
        let who = Who {
            number,
            gzip: false,
        };
        let address = self.process.address();
        Dialled::dial(address, self.subject.format(), document, who)?.open(document)
    }
}

/// A folder that is removed when this is dropped.
#[derive(Debug)]
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn make(path: PathBuf) -> Result<Self, Failure> {
        fs::create_dir_all(&path)?;
        Ok(Self { path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is in a folder for temporary files.
        let _ = fs::remove_dir_all(&self.path);
    }
}
