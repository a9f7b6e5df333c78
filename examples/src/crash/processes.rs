//! The processes, as their parent sees them.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

/// Clients at once.
pub(super) const N_CLIENTS: usize = 3;

/// How long a process may take to say what is expected of it.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, its clients, and what they have told.
pub(super) struct Fleet {
    program: PathBuf,
    home: PathBuf,
    address: String,
    server: Process,
    clients: Vec<Process>,
    edits: BTreeSet<String>,
    acknowledged: BTreeSet<String>,
}

struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing outlives the test. It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(program: &Path, arguments: &[&str]) -> Result<Self, Box<dyn Error>> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()?;
        let out = child.stdout.take().ok_or("no output")?;
        let (sender, lines): (Sender<String>, _) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// SIGKILL, and everything that it told before.
    fn kill(&mut self) -> Result<Vec<String>, Box<dyn Error>> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.lines.iter().collect())
    }

    fn expect(&self, what: &str, others: &mut Vec<String>) -> Result<(), Box<dyn Error>> {
        loop {
            let line = self
                .lines
                .recv_timeout(PATIENCE)
                .map_err(|_| format!("no {what:?} within {PATIENCE:?}"))?;
            if line.starts_with(what) {
                return Ok(());
            }
            others.push(line);
        }
    }
}

impl Fleet {
    pub(super) fn start(program: &Path) -> Result<Self, Box<dyn Error>> {
        let home = std::env::temp_dir().join(format!("sync-crash-{}", std::process::id()));
        fs::create_dir_all(home.join("stores"))?;
        // A port that is free now: the server takes it again after each kill.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let server = start_server(program, &home, &address)?;
        let mut fleet = Self {
            program: program.to_owned(),
            home,
            address,
            server,
            clients: Vec::new(),
            edits: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
        };
        for client in 0..N_CLIENTS {
            let process = fleet.start_client(client, "edit")?;
            fleet.clients.push(process);
        }
        Ok(fleet)
    }

    pub(super) fn directory(&self) -> PathBuf {
        self.home.join("data")
    }

    fn start_client(&self, client: usize, purpose: &str) -> Result<Process, Box<dyn Error>> {
        let store = self.home.join("stores").join(format!("{client}.db"));
        let address = format!("ws://{}", self.address);
        let store = store.to_str().ok_or("a path that is no text")?;
        let name = format!("c{client}");
        Process::start(&self.program, &["client", &address, store, &name, purpose])
    }

    fn note(&mut self, lines: impl IntoIterator<Item = String>) {
        for line in lines {
            match line.split_once(' ') {
                Some(("edit", key)) => drop(self.edits.insert(key.to_owned())),
                Some(("ack", key)) => drop(self.acknowledged.insert(key.to_owned())),
                _ => {}
            }
        }
    }

    pub(super) fn kill_server(&mut self) -> Result<(), Box<dyn Error>> {
        self.server.kill()?;
        self.server = start_server(&self.program, &self.home, &self.address)?;
        Ok(())
    }

    pub(super) fn kill_client(&mut self, client: usize) -> Result<(), Box<dyn Error>> {
        let next = {
            let process = self.clients.get_mut(client).ok_or("no such client")?;
            let lines = process.kill()?;
            self.note(lines);
            self.start_client(client, "edit")?
        };
        if let Some(process) = self.clients.get_mut(client) {
            *process = next;
        }
        Ok(())
    }

    /// A copy of the server's directory, file by file, while it stands still.
    pub(super) fn copy_directory(&mut self) -> Result<(), Box<dyn Error>> {
        self.server.kill()?;
        copy(&self.directory(), &self.home.join("copy"))?;
        self.server = start_server(&self.program, &self.home, &self.address)?;
        Ok(())
    }

    /// The server's disk is lost, and an older copy is put in its place.
    pub(super) fn put_copy_back(&mut self) -> Result<(), Box<dyn Error>> {
        self.server.kill()?;
        copy(&self.home.join("copy"), &self.directory())?;
        self.server = start_server(&self.program, &self.home, &self.address)?;
        Ok(())
    }

    /// Lets everybody get done, and gives the keys that each client has.
    pub(super) fn finish(&mut self) -> Result<Vec<BTreeSet<String>>, Box<dyn Error>> {
        for client in 0..N_CLIENTS {
            let lines = self
                .clients
                .get_mut(client)
                .ok_or("no such client")?
                .kill()?;
            self.note(lines);
        }
        self.clients.clear();
        // Once until everybody has delivered, and once more for what the others delivered: a client is caught up with the
        // head that it was told, and the last one to deliver moves the head after that.
        self.exchange()?;
        let contents = self.exchange()?;
        self.server.kill()?;
        Ok(contents)
    }

    /// Starts every client to exchange everything with the server, waits for its end, and gives the keys that it has.
    fn exchange(&self) -> Result<Vec<BTreeSet<String>>, Box<dyn Error>> {
        let clients = (0..N_CLIENTS)
            .map(|client| self.start_client(client, "finish"))
            .collect::<Result<Vec<_>, _>>()?;
        let mut contents = Vec::new();
        for client in &clients {
            let mut lines = Vec::new();
            client.expect("done", &mut lines)?;
            contents.push(
                lines
                    .iter()
                    .filter_map(|line| line.strip_prefix("key "))
                    .map(str::to_owned)
                    .collect(),
            );
        }
        Ok(contents)
    }

    /// Keys whose edits have returned, and those that have been acknowledged.
    pub(super) fn told(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        (self.edits.clone(), self.acknowledged.clone())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Left behind only if the system does not let go of it.
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn start_server(program: &Path, home: &Path, address: &str) -> Result<Process, Box<dyn Error>> {
    let directory = home.join("data");
    let directory = directory.to_str().ok_or("a path that is no text")?;
    let server = Process::start(program, &["server", directory, address])?;
    server.expect("ready", &mut Vec::new())?;
    Ok(server)
}

fn copy(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
