//! Where measurements are made: cores, folders, and servers that are started for one of them each.

use std::cell::{Cell, OnceCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::history::History;
use crate::Failure;
use crate::cli::{RelayMode, RunOptions};
use crate::clients::{Client, Who};
use crate::cores::{Cores, pin};
use crate::generator::Format;
use crate::process::ServerProcess;
use crate::report::Setting;
use crate::subject::Subject;

/// A server that has done next to nothing for so long has come to rest.
const SETTLE_STEP: Duration = Duration::from_millis(200);
const SETTLE_MAX: Duration = Duration::from_secs(60);

/// Everything that measurements have in common.
pub(crate) struct Lab {
    pub(crate) options: RunOptions,
    program: PathBuf,
    cores: Cores,
    folder: Folder,
    n_started: Cell<u32>,
    history: OnceCell<History>,
    /// How everything is measured.
    pub(crate) setting: Setting,
}

/// A server that runs, and the folder that is its own.
pub(crate) struct Running {
    pub(crate) subject: Subject,
    pub(crate) process: ServerProcess,
    folder: Folder,
}

impl Lab {
    /// Takes its core, if there are two.
    pub(crate) fn new(options: &RunOptions) -> Result<Self, Failure> {
        let cores = Cores::assign();
        let setting = Setting::now(cores.server.is_some());
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
            history: OnceCell::new(),
            setting,
        })
    }

    /// Where the folders of all servers are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder.path
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

    /// A long document, which is typed when somebody first needs it.
    pub(crate) fn history(&self) -> &History {
        self.history
            .get_or_init(|| History::typed(self.options.changes))
    }

    /// Starts a server that nobody has used yet.
    pub(crate) fn start(&self, subject: Subject) -> Result<Running, Failure> {
        self.n_started.set(self.n_started.get() + 1);
        let folder = Folder::make(self.folder.path.join(self.n_started.get().to_string()))?;
        Ok(Running {
            subject,
            process: self.start_in(subject, &folder.path)?,
            folder,
        })
    }

    /// Starts a server on a folder that may have been used.
    fn start_in(&self, subject: Subject, folder: &Path) -> Result<ServerProcess, Failure> {
        let args = subject.args(self.options.runtime, self.cores.server, folder);
        ServerProcess::start(&self.program, &args)
    }
}

impl Running {
    /// A client that has said who it is. Numbers differ between the clients of a server.
    pub(crate) fn dial(&self, who: Who, document: &str) -> Result<Client, Failure> {
        Client::dial(self.process.address(), self.subject.format(), document, who)
    }

    /// A client whose document is open, and who takes plain frames only.
    pub(crate) fn client(&self, number: usize, document: &str) -> Result<Client, Failure> {
        let who = Who {
            number,
            gzip: false,
        };
        let mut client = self.dial(who, document)?;
        if self.subject.format() == Format::Sync {
            client.open(document, None)?;
        }
        Ok(client)
    }

    /// Waits until it has nothing to do any more, such as folding what was written.
    pub(crate) fn settle(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        let mut before = self.process.usage()?;
        while begun.elapsed() < SETTLE_MAX {
            std::thread::sleep(SETTLE_STEP);
            let after = self.process.usage()?;
            if after.since(&before).total() < SETTLE_STEP.as_secs_f64() / 100.0 {
                return Ok(());
            }
            before = after;
        }
        Err("the server does not come to rest".into())
    }

    /// Kills it, and starts another one on the same folder.
    pub(crate) fn kill_and_restart(&mut self, lab: &Lab) -> Result<(), Failure> {
        self.process.kill()?;
        self.process = lab.start_in(self.subject, &self.folder.path)?;
        Ok(())
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
