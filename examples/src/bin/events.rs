//! Prints what happens, as the client tells it and as the server tells it, in a small scene: a client connects, edits,
//! is refused a change, is cut off, comes back, and goes.
//!
//!     cargo run -p sync-examples --bin events
//!
//! Nothing that matters is only an event. What a client must know stays readable: `status()`, `sync_state()`, `refused()`.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::fmt::Debug;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use sync_client::transport::WebSocketDialer;
use sync_client::yrs::{Text, TransactionMut, WriteTxn};
use sync_client::{Client, DocumentEvent, Yrs};
use sync_examples::link::Links;
use sync_server::{
    Anonymous, EngineError, EngineId, InProcess, MemoryRegistry, Server, ServerEvent,
    ValidateLimits, Validator,
};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::builder(MemoryRegistry::new(), Anonymous::read_write())
        .engines(InProcess::default().engine(Brief(Yrs::new())))
        .build()?;
    tokio::spawn(print("server", server.events()));
    let listener = server.listen_websocket("127.0.0.1:0").await?;
    let address = listener.local_addr().ok_or("no address")?;

    scene("the client connects and opens a document");
    // Through a dialer whose connections can be cut. `Client::builder(address)` does without.
    let links = Links::new();
    let dialer = links.dialer(WebSocketDialer::new(&format!("ws://{address}"))?);
    let client = Client::with_dialer(dialer)
        .reconnect_max(Duration::from_millis(100))
        .start()?;
    tokio::spawn(print("client", client.events()));
    let notes = client.open("notes", Yrs::new()).await?;
    let mut notes_events = notes.events();
    tokio::spawn(print("notes ", notes.events()));
    timeout(PATIENCE, notes.caught_up()).await??;

    scene("an edit, and the server's registry has it");
    notes.edit(|txn| write(txn, "hello"))?;
    timeout(PATIENCE, notes.saved()).await??;

    scene("a change that the server does not take");
    notes.edit(|txn| write(txn, &"lorem ipsum ".repeat(20)))?;
    // Until the content is the server's again, what is typed builds on the refused change and is refused with it.
    wait_for(&mut notes_events, |event| *event == DocumentEvent::Replaced).await?;
    for change in notes.refused() {
        let bytes = change.bytes.len();
        println!("       taken back: {bytes} bytes, {}", change.message);
        notes.drop_refused(change.id);
    }

    scene("the connection breaks; an edit meanwhile waits until it is back");
    links.cut_one(|_| 0).await;
    notes.edit(|txn| write(txn, ", again"))?;
    timeout(PATIENCE, notes.saved()).await??;

    scene("the client goes");
    let mut server_events = server.events();
    drop(notes);
    drop(client);
    let is_last = |event: &ServerEvent| matches!(event, ServerEvent::SessionClosed { .. });
    wait_for(&mut server_events, is_last).await?;
    server.shutdown(Duration::ZERO).await;
    Ok(())
}

fn write(txn: &mut TransactionMut<'_>, text: &str) {
    txn.get_or_insert_text("body").push(txn, text);
}

async fn wait_for<T>(
    events: &mut (impl Stream<Item = T> + Unpin),
    is_it: impl Fn(&T) -> bool,
) -> Result<(), Elapsed> {
    timeout(PATIENCE, async {
        while let Some(event) = events.next().await {
            if is_it(&event) {
                break;
            }
        }
    })
    .await
}

fn scene(what: &str) {
    println!("\n{what}");
}

async fn print(whose: &str, mut events: impl Stream<Item = impl Debug> + Unpin) {
    while let Some(event) = events.next().await {
        println!("{whose} {event:?}");
    }
}

/// What yrs takes, and no more than 100 bytes of it: an application's own rule.
struct Brief(Yrs);

impl Validator for Brief {
    fn engine(&self) -> EngineId {
        Validator::engine(&self.0)
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        let mut limits = *limits;
        limits.bytes_max = limits.bytes_max.min(100);
        Validator::validate(&self.0, change, &limits)
    }
}
