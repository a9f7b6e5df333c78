//! Guests sign a book that is kept by an engine of the application's own.
//!
//!     cargo run -p sync-examples --bin custom_engine
//!
//! The engine is `examples/src/guests.rs`.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::time::Duration;

use sync_client::Client;
use sync_examples::guests::{Book, Guests};
use sync_server::{Anonymous, InProcess, MemoryRegistry, Server};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    // The server checks what guests write, and folds long books. One that does not know the engine refuses to open its
    // documents; one that knows only its name relays them.
    let server = Server::builder(MemoryRegistry::new(), Anonymous::read_write())
        .engines(InProcess::default().engine(Guests))
        .fold_after(2, usize::MAX)
        .build()?;
    let listener = server.listen_websocket("127.0.0.1:0").await?;
    let address = format!("ws://{}", listener.local_addr().ok_or("no address")?);

    let ada = Client::builder(&address).start()?;
    let ada = ada.open("guests", Guests).await?;
    let bob = Client::builder(&address).start()?;
    let bob = bob.open("guests", Guests).await?;
    ada.edit(|book| book.write("Ada"))?;
    bob.edit(|book| {
        book.write("Bob");
        book.write("Ada");
    })?;
    timeout(PATIENCE, ada.saved()).await??;
    timeout(PATIENCE, bob.saved()).await??;

    let late = Client::builder(&address).start()?;
    let late = late.open("guests", Guests).await?;
    let mut revision = late.revision();
    while !late.read(|book| book.has("Ada") && book.has("Bob")) {
        timeout(PATIENCE, revision.changed()).await??;
    }
    println!("signed: {}", late.read(names));
    Ok(())
}

fn names(book: &Book) -> String {
    book.names().collect::<Vec<_>>().join(", ")
}
