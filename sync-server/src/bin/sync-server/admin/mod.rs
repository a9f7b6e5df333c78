//! `sync-server admin`: speaks the admin API of a server that runs.

mod client;
mod tables;

use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use self::client::{Client, Query};
use crate::output::{Failure, line};
use crate::transfer::{Export, Import, Mode};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Where the server is [env: SYNC_ADMIN_URL] [default: http://127.0.0.1:8080]
    #[arg(long, global = true)]
    url: Option<String>,
    /// File with the token, or JWT, of an admin; the variable SYNC_ADMIN_TOKEN may hold the token itself
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the certificates, in PEM, that the server's has to come from; by default those that the system trusts
    #[arg(long, global = true, value_name = "FILE")]
    roots_file: Option<PathBuf>,
    /// Print JSON as the server answers it
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show how the server stands
    Stats,
    /// List the documents
    List {
        /// Only those that somebody has open, or had a short while ago
        #[arg(long)]
        live: bool,
        /// With the bytes of each, for which the server looks at each of them
        #[arg(long)]
        sizes: bool,
        /// Only those whose ids come after this one
        #[arg(long, value_name = "ID")]
        after: Option<String>,
        /// At most so many
        #[arg(long, value_name = "NUMBER")]
        limit: Option<usize>,
    },
    /// Show a document, and the sessions that have it open: where they stand, and how far behind they are
    Inspect {
        /// The document's id
        id: String,
    },
    /// List the sessions
    Sessions {
        /// Those of this user only
        #[arg(long)]
        user: Option<String>,
    },
    /// Print a document's content as JSON, if its engine can
    Read {
        /// The document's id
        id: String,
    },
    /// Write a document to a file
    Export(Export),
    /// Put a document from a file on the server, as a new history
    Import(Import),
    /// Make a new document of what another one is now
    Fork {
        /// The document's id
        id: String,
        /// The new one's
        to: String,
    },
    /// Fold a document's log into a new snapshot now
    Compact {
        /// The document's id
        id: String,
    },
    /// Unload a document, so that it is loaded afresh; its sessions come back to it
    Evict {
        /// The document's id
        id: String,
    },
    /// Send something to every session that has a document open; it is stored nowhere
    Broadcast {
        /// The document's id
        id: String,
        /// What it is about
        topic: String,
        /// What is sent
        text: String,
    },
    /// Delete a document for good: clients cannot bring it back
    Delete {
        /// The document's id
        id: String,
    },
    /// End the sessions that a user has now
    Disconnect {
        /// The user's id
        user: String,
    },
    /// Print what happens on the server, until it ends
    Events,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let client = Client::new(
        arguments.url.as_deref(),
        arguments.token_file.as_deref(),
        arguments.roots_file.as_deref(),
    )?;
    let as_json = arguments.json;
    let print = |answer: &Value, table: fn(&Value) -> Result<(), Failure>| {
        if as_json { line(answer) } else { table(answer) }
    };
    match &arguments.command {
        Command::Stats => print(&client.get(&["stats"], &[])?, tables::stats),
        Command::List {
            live,
            sizes,
            after,
            limit,
        } => {
            let which = [("live", live.to_string()), ("sizes", sizes.to_string())];
            list(&client, as_json, &which, after.clone(), *limit)
        }
        Command::Inspect { id } => print(&client.get(&["documents", id], &[])?, tables::inspected),
        Command::Sessions { user } => {
            let query: Vec<_> = user.iter().map(|user| ("user", user.clone())).collect();
            print(&client.get(&["sessions"], &query)?, tables::sessions)
        }
        Command::Read { id } => line(client.text(&["documents", id, "json"])?),
        Command::Export(to) => export(&client, to),
        Command::Import(from) => {
            let mode = match from.mode {
                Mode::Merge => "merge",
                Mode::Discard => "discard",
            };
            let query = [
                ("mode", mode.to_owned()),
                ("replace", from.replace.to_string()),
            ];
            let bytes =
                std::fs::read(&from.file).map_err(|error| Failure::file(&from.file, &error))?;
            let answer = client.put(&["documents", &from.id, "import"], &query, &bytes)?;
            print(&answer, tables::stored)
        }
        Command::Fork { id, to } => {
            let answer = client.post(&["documents", id, "fork"], &[("to", to.clone())])?;
            print(&answer, tables::stored)
        }
        Command::Compact { id } => {
            let answer = client.post(&["documents", id, "compact"], &[])?;
            print(&answer, tables::folded)
        }
        Command::Evict { id } => {
            let answer = client.post(&["documents", id, "evict"], &[])?;
            print(&answer, tables::evicted)?;
            match answer.get("unloaded").and_then(Value::as_bool) {
                Some(true) => Ok(()),
                _ => Err(Failure::Other("the document is still live".to_owned())),
            }
        }
        Command::Broadcast { id, topic, text } => {
            let (path, query) = (["documents", id, "broadcast"], [("topic", topic.clone())]);
            let answer = client.post_with(&path, &query, text.as_bytes())?;
            print(&answer, tables::broadcast)
        }
        Command::Delete { id } => {
            let answer = client.delete(&["documents", id])?;
            if as_json { line(answer) } else { Ok(()) }
        }
        Command::Disconnect { user } => {
            let answer = client.post(&["users", user, "disconnect"], &[])?;
            print(&answer, tables::disconnected)
        }
        Command::Events => events(&client, as_json),
    }
}

/// Documents asked for at once.
const PAGE: usize = 500;

/// Prints page after page.
fn list(
    client: &Client,
    as_json: bool,
    which: &[(&'static str, String)],
    mut after: Option<String>,
    limit: Option<usize>,
) -> Result<(), Failure> {
    if !as_json {
        tables::documents_head()?;
    }
    let mut left = limit.unwrap_or(usize::MAX);
    while left > 0 {
        let page = left.min(PAGE);
        let mut query: Query = vec![("limit", page.to_string())];
        query.extend_from_slice(which);
        query.extend(after.map(|after| ("after", after)));
        let answer = client.get(&["documents"], &query)?;
        let documents = answer.get("documents").and_then(Value::as_array);
        for document in documents.into_iter().flatten() {
            left -= 1;
            if as_json {
                line(document)?;
            } else {
                tables::document(document)?;
            }
        }
        let next = answer.get("next").and_then(Value::as_str);
        let Some(next) = next else { break };
        after = Some(next.to_owned());
    }
    Ok(())
}

fn export(client: &Client, to: &Export) -> Result<(), Failure> {
    to.check()?;
    let mut answer = client.reader(&["documents", &to.id, "export"])?;
    to.write(|out| io::copy(&mut answer, out).map(drop))
}

/// Longest line of a stream of events.
const EVENT_BYTES_MAX: u64 = 1 << 20;

fn events(client: &Client, as_json: bool) -> Result<(), Failure> {
    let mut answer = BufReader::new(client.reader(&["events"])?);
    loop {
        let mut text = String::new();
        let read = answer.by_ref().take(EVENT_BYTES_MAX).read_line(&mut text);
        let read = read.map_err(|error| Failure::Unreachable(error.to_string()))?;
        if read == 0 {
            return Ok(());
        }
        let Some(data) = text.strip_prefix("data: ") else {
            continue;
        };
        if as_json {
            line(data.trim_end())?;
        } else {
            tables::event(&serde_json::from_str(data).unwrap_or_default())?;
        }
    }
}
