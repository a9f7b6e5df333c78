//! A board of cards that several people work on: an application's own struct as a document.
//!
//!     cargo run -p sync-examples --bin board                           # a server, and a first person
//!     cargo run -p sync-examples --bin board -- ws://127.0.0.1:PORT    # another one, in another process
//!     cargo run -p sync-examples --bin board -- --demo                 # two processes, by themselves

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::process::Stdio;
use std::time::Duration;

use sync_client::{
    Client, Counter, Dictionary, DocumentHandle, Mergeable, OrSet, Register, Sequence, Typed,
};
use sync_examples::local::LocalServer;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

type Failure = Box<dyn Error + Send + Sync>;

/// The document. Whatever two people do to it at the same time, both their boards end up the same.
#[derive(Debug, Clone, Default, Mergeable)]
struct Board {
    /// Of two titles the later stays.
    title: Register<String>,
    /// In the order in which they are shown. A lane that was removed stays removed.
    lanes: Sequence<String>,
    /// A card that was deleted stays deleted, also if somebody edits it meanwhile.
    cards: Dictionary<u32, Card>,
}

#[derive(Debug, Clone, Default, Mergeable)]
struct Card {
    lane: Register<String>,
    /// Both can type into it.
    text: Sequence<char>,
    /// Every vote counts.
    votes: Counter,
    /// Adding a label wins over removing it.
    labels: OrSet<String>,
}

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(20);

const HELP: &str = "title TEXT, lane NAME, card NUMBER TEXT, move NUMBER LANE, append NUMBER TEXT, vote NUMBER, \
                    label NUMBER NAME, delete NUMBER, show, offline, online, merge, quit";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    match std::env::args().nth(1).as_deref() {
        Some("--demo") => demo().await,
        Some(address) => prompt(address).await,
        None => {
            let server = LocalServer::start().await?;
            let address = server.address();
            println!("join from another terminal:");
            println!("    cargo run -p sync-examples --bin board -- {address}");
            println!("{HELP}");
            prompt(address).await
        }
    }
}

/// Reads lines, and answers each with one or more, the last of which is a dot.
async fn prompt(address: &str) -> Result<(), Failure> {
    let person = Person::open(address).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if line.trim() == "quit" {
            break;
        }
        match person.say(&line).await {
            Ok(answer) => println!("{answer}\n."),
            Err(error) => println!("{error}\n."),
        }
    }
    person.client.shutdown(PATIENCE).await;
    Ok(())
}

struct Person {
    client: Client,
    board: DocumentHandle<Typed<Board>>,
}

impl Person {
    async fn open(address: &str) -> Result<Self, Failure> {
        let client = Client::builder(address).start()?;
        let board = client.open("board", Typed::<Board>::new()).await?;
        Ok(Self { client, board })
    }

    /// Does what a line says, and answers.
    async fn say(&self, line: &str) -> Result<String, Failure> {
        let (verb, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let (number, text) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "title" => self
                .board
                .edit(|board| board.title.set(rest.to_owned()))??,
            "lane" => self
                .board
                .edit(|board| board.lanes.push(rest.to_owned()))??,
            "card" => {
                let (id, text) = (number.parse()?, text.to_owned());
                // One closure is one change: nobody sees a card without its text.
                self.board.edit(|board| {
                    let lane = board.lanes.get(0).unwrap_or_default();
                    let card = board.cards.insert(id)?;
                    card.lane.set(lane)?;
                    card.text.insert_str(0, &text)
                })??;
            }
            "move" => self.edit_card(number, |card| card.lane.set(text.to_owned()))??,
            "append" => {
                self.edit_card(number, |card| card.text.insert_str(card.text.len(), text))??;
            }
            "vote" => self.edit_card(number, |card| card.votes.add(1))?,
            "label" => drop(self.edit_card(number, |card| card.labels.insert(text.to_owned()))??),
            "delete" => {
                let id = number.parse::<u32>()?;
                if !self.board.edit(|board| board.cards.remove(&id))? {
                    return Err("there is no such card".into());
                }
            }
            "show" => return Ok(self.board.read(show)),
            "offline" => self.client.disconnect(),
            "online" => self.client.connect(),
            "merge" => return self.merge().await,
            _ => return Ok(HELP.to_owned()),
        }
        let unsaved = self.board.sync_state().get().unsaved;
        Ok(format!("done ({unsaved} changes not on the server yet)"))
    }

    fn edit_card<R>(&self, number: &str, f: impl FnOnce(&mut Card) -> R) -> Result<R, Failure> {
        let id = number.parse::<u32>()?;
        let outcome = self.board.edit(|board| board.cards.get_mut(&id).map(f))?;
        outcome.ok_or_else(|| "there is no such card".into())
    }

    /// Merging happens by itself while online. To be up to date at this very moment, connect anew: a server begins with
    /// everything that it has.
    async fn merge(&self) -> Result<String, Failure> {
        self.client.disconnect();
        self.client.connect();
        let (saved, caught_up) = (self.board.saved(), self.board.caught_up());
        timeout(PATIENCE, async { saved.await.and(caught_up.await) }).await??;
        Ok(self.board.read(show))
    }
}

fn show(board: &Board) -> String {
    let title = board.title.get().cloned().unwrap_or_default();
    let mut lines = vec![format!("{title}: {} cards", board.cards.len())];
    for lane in &board.lanes {
        lines.push(format!("  {lane}"));
        for (id, card) in board.cards.iter() {
            if card.lane.get() == Some(&lane) {
                let labels: Vec<&str> = card.labels.iter().map(String::as_str).collect();
                let (text, votes) = (card.text.to_string(), card.votes.value());
                lines.push(format!("    {id} {text} +{votes} [{}]", labels.join(" ")));
            }
        }
    }
    lines.join("\n")
}

/// Another process with a prompt of its own.
struct Other {
    _process: Child,
    input: ChildStdin,
    output: tokio::io::Lines<BufReader<ChildStdout>>,
}

impl Other {
    fn start(address: &str) -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = process.stdin.take().ok_or("no input")?;
        let output = process.stdout.take().ok_or("no output")?;
        Ok(Self {
            _process: process,
            input,
            output: BufReader::new(output).lines(),
        })
    }

    async fn say(&mut self, line: &str) -> Result<String, Failure> {
        self.input.write_all(format!("{line}\n").as_bytes()).await?;
        let mut answer = Vec::new();
        loop {
            let line = timeout(PATIENCE, self.output.next_line()).await??;
            match line.ok_or("the other process is gone")? {
                line if line == "." => return Ok(answer.join("\n")),
                line => answer.push(line),
            }
        }
    }
}

/// Two people in two processes, both offline for a while.
async fn demo() -> Result<(), Failure> {
    let server = LocalServer::start().await?;
    let (mut ada, mut ben) = (
        Other::start(server.address())?,
        Other::start(server.address())?,
    );
    let script = [
        (true, "title Release"),
        (true, "lane todo"),
        (true, "lane done"),
        (true, "card 1 write docs"),
        (true, "card 2 fix bugs"),
        (true, "card 3 buy cake"),
        (true, "merge"),
        (false, "merge"),
        (true, "offline"),
        (false, "offline"),
        (true, "move 1 done"),
        (true, "append 2 , all of them"),
        (true, "vote 2"),
        (true, "delete 3"),
        (true, "label 1 text"),
        (false, "append 2 ; slowly"),
        (false, "vote 2"),
        (false, "vote 2"),
        (false, "vote 3"),
        (false, "label 1 easy"),
        (false, "title Release 1.0"),
        (true, "merge"),
        (false, "merge"),
        (true, "merge"),
    ];
    for (is_ada, line) in script {
        let (name, person) = if is_ada {
            ("ada", &mut ada)
        } else {
            ("ben", &mut ben)
        };
        println!("{name}> {line}");
        println!("{}", person.say(line).await?);
    }
    let (hers, his) = (ada.say("show").await?, ben.say("show").await?);
    let parts = [
        "Release 1.0: 2 cards",
        "+3",
        "[easy text]",
        ", all of them",
        "; slowly",
    ];
    if hers == his && parts.iter().all(|part| hers.contains(part)) {
        println!("both see the same");
        Ok(())
    } else {
        Err(format!("the boards differ, or lack something:\n{hers}\n{his}").into())
    }
}
