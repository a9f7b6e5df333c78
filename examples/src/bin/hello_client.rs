//! A client: sends lines of text, and prints what others send.
//!
//!     cargo run -p sync-examples --bin hello_client -- ws://127.0.0.1:8080
//!     cargo run -p sync-examples --bin hello_client -- ws://127.0.0.1:8080 'one line' 'and another'
//!
//! Lines come from the arguments, or else from standard input. With arguments, the program ends when the server has them.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::time::Duration;

use sync_client::yrs::{GetString, ReadTxn, Text, WriteTxn};
use sync_client::{Client, DocumentHandle, Yrs};
use sync_examples::progress;
use tokio::io::{AsyncBufReadExt, BufReader};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let address = args.next().ok_or("usage: hello_client ADDRESS [LINE...]")?;
    let lines: Vec<String> = args.collect();
    if lines.is_empty() {
        talk(&address).await
    } else {
        send(&address, &lines).await
    }
}

/// The shortest client: open, edit, wait until the server has it.
async fn send(address: &str, lines: &[String]) -> Result<(), Box<dyn Error>> {
    let client = Client::builder(address).start()?;
    let notes = client.open("hello", Yrs::new()).await?;
    for line in lines {
        notes.edit(|txn| {
            txn.get_or_insert_text("body")
                .push(txn, &format!("{line}\n"))
        })?;
    }
    notes.saved().await?;
    println!("saved {} lines", lines.len());
    Ok(())
}

/// Sends each line that is typed, and prints the text whenever it changes, whoever changed it.
async fn talk(address: &str) -> Result<(), Box<dyn Error>> {
    let client = Client::builder(address).start()?;
    let notes = client.open("hello", Yrs::new()).await?;
    // A bar, if there is much to receive.
    tokio::spawn(progress::show(notes.sync_state()));
    let (mut status, mut revision) = (client.status(), notes.revision());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut shown = String::new();
    loop {
        tokio::select! {
            // Offline is no error: lines wait, and are sent when the server is back.
            status = status.changed() => println!("# {:?}", status?),
            changed = revision.changed() => {
                changed?;
                let text = body(&notes);
                match text.strip_prefix(&shown) {
                    Some(news) => print!("{news}"),
                    None => print!("# now the text is\n{text}"),
                }
                shown = text;
            }
            line = lines.next_line() => {
                let Some(line) = line? else { break };
                notes.edit(|txn| txn.get_or_insert_text("body").push(txn, &format!("{line}\n")))?;
            }
        }
    }
    // The server may be away, so this wait has an end.
    if !client.shutdown(Duration::from_secs(5)).await {
        println!("# the server does not have everything");
    }
    Ok(())
}

fn body(notes: &DocumentHandle<Yrs>) -> String {
    notes.read(|txn| {
        let body = txn.get_text("body");
        body.map(|body| body.get_string(txn)).unwrap_or_default()
    })
}
