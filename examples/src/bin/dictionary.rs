//! A dictionary that several people keep, online or not, from a prompt.
//!
//!     cargo run -p sync-examples --bin dictionary                           # a server, and a first reader
//!     cargo run -p sync-examples --bin dictionary -- ws://127.0.0.1:PORT    # another one
//!     cargo run -p sync-examples --bin dictionary -- --demo                 # two of them, by themselves
//!
//! To see merging: say `offline` in one, add and remove words in both, then say `merge`.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::time::Duration;

use sync_client::{Client, DocumentHandle, LwwMap, Typed};
use sync_examples::local::LocalServer;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

type Failure = Box<dyn Error + Send + Sync>;

/// Words and their meanings. Of two writes to a word the later wins; a removal is a write.
type Words = LwwMap<String, String>;

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(10);

const HELP: &str = "add WORD MEANING, update WORD MEANING, remove WORD, lookup WORD, list, offline, online, merge, quit";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    match std::env::args().nth(1).as_deref() {
        Some("--demo") => demo().await,
        Some(address) => prompt(address).await,
        None => {
            let server = LocalServer::start().await?;
            let address = server.address();
            println!("join from another terminal:");
            println!("    cargo run -p sync-examples --bin dictionary -- {address}");
            prompt(address).await
        }
    }
}

async fn prompt(address: &str) -> Result<(), Failure> {
    let dictionary = Dictionary::open(address).await?;
    println!("{HELP}");
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if line.trim() == "quit" {
            break;
        }
        println!("{}", dictionary.say(&line).await?);
    }
    if !dictionary.client.shutdown(PATIENCE).await {
        println!("the server does not have everything");
    }
    Ok(())
}

struct Dictionary {
    client: Client,
    words: DocumentHandle<Typed<Words>>,
}

impl Dictionary {
    async fn open(address: &str) -> Result<Self, Failure> {
        let client = Client::builder(address).start()?;
        let words = client.open("dictionary", Typed::<Words>::new()).await?;
        Ok(Self { client, words })
    }

    /// Does what a line says, and answers.
    async fn say(&self, line: &str) -> Result<String, Failure> {
        let mut parts = line.trim().splitn(3, ' ');
        let (verb, word) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let meaning = parts.next().unwrap_or("").to_owned();
        let known = self.words.read(|words| words.get(word).cloned());
        Ok(match (verb, known) {
            ("add", Some(known)) => format!("{word} is there: {known}"),
            ("update" | "remove", None) => format!("{word} is not there"),
            ("add" | "update", _) => {
                let word = word.to_owned();
                self.words.edit(|words| words.insert(word, meaning))??;
                format!("done{}", self.unsaved())
            }
            ("remove", Some(_)) => {
                let word = word.to_owned();
                self.words.edit(|words| words.remove(&word))??;
                format!("done{}", self.unsaved())
            }
            ("lookup", known) => known.unwrap_or_else(|| format!("{word} is not there")),
            ("list", _) => self.list(),
            ("offline", _) => {
                self.client.disconnect();
                "offline; everything works on".to_owned()
            }
            ("online", _) => {
                self.client.connect();
                "online".to_owned()
            }
            ("merge", _) => {
                // Merging happens by itself while online. To be up to date at this very moment, connect anew: a server
                // begins with everything that it has.
                self.client.disconnect();
                self.client.connect();
                let (saved, caught_up) = (self.words.saved(), self.words.caught_up());
                match timeout(PATIENCE, async { (saved.await, caught_up.await) }).await {
                    Ok((saved, caught_up)) => saved.and(caught_up).map(|()| self.list())?,
                    Err(_) => "nobody answers; what is here stays here".to_owned(),
                }
            }
            _ => HELP.to_owned(),
        })
    }

    fn list(&self) -> String {
        let lines = self.words.read(|words| {
            let lines = words
                .iter()
                .map(|(word, meaning)| format!("{word}: {meaning}"));
            lines.collect::<Vec<_>>()
        });
        lines.join("\n")
    }

    fn unsaved(&self) -> String {
        let unsaved = self.words.sync_state().get().unsaved;
        format!(" ({unsaved} changes not on the server yet)")
    }
}

/// Two people, one of them on a train.
async fn demo() -> Result<(), Failure> {
    let server = LocalServer::start().await?;
    let ada = Dictionary::open(server.address()).await?;
    let ben = Dictionary::open(server.address()).await?;
    let script = [
        ("ada", &ada, "add outbox changes not acknowledged yet"),
        ("ada", &ada, "add epoch a number"),
        ("ada", &ada, "merge"),
        ("ben", &ben, "merge"),
        ("ben", &ben, "offline"),
        ("ben", &ben, "update epoch the name of a history"),
        ("ben", &ben, "add cursor where a client stands"),
        ("ada", &ada, "remove outbox"),
        ("ada", &ada, "lookup outbox"),
        ("ben", &ben, "lookup outbox"),
        ("ada", &ada, "merge"),
        ("ben", &ben, "merge"),
        ("ada", &ada, "merge"),
    ];
    for (name, person, line) in script {
        println!("{name}> {line}");
        println!("{}", person.say(line).await?);
    }
    if ada.list() == ben.list() && ada.list().contains("cursor") && !ada.list().contains("outbox") {
        Ok(())
    } else {
        Err("the dictionaries differ".into())
    }
}
