//! Notes that the server cannot read: two people with the key, one with a wrong one, and what the server has of it.
//!
//!     cargo run -p sync-examples --bin encrypted

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use sync_client::{Client, DocumentHandle, EditError, Encrypted, Key, LwwMap, SyncPhase, Typed};
use sync_server::registry::{DocumentId, Seq, ServerRegistry, Tail};
use sync_server::{Anonymous, MemoryRegistry, Server};
use tokio::time::timeout;

type Failure = Box<dyn Error + Send + Sync>;

type Notes = Typed<LwwMap<String, String>>;

const DOCUMENT: &str = "notes";

/// How long the server may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let registry = Arc::new(MemoryRegistry::new());
    // Whoever may maintain a document is asked to fold it: the server cannot.
    let server = Server::builder(Arc::clone(&registry), Anonymous::maintain()).build()?;
    let listener = server.listen_websocket("127.0.0.1:0").await?;
    let address = listener.local_addr().ok_or("no address")?;
    let address = format!("ws://{address}");

    // An application would take it from the system's key store, or share it in a way that the server has no part in.
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    let ada = open(&address, Key::from_bytes(secret)).await?;
    let bob = open(&address, Key::from_bytes(secret)).await?;

    ada.edit(|notes| notes.insert("plan".into(), "attack at dawn".into()))??;
    timeout(PATIENCE, ada.saved()).await??;
    timeout(
        PATIENCE,
        bob.revision()
            .wait_for(|_| bob.read(|notes| !notes.is_empty())),
    )
    .await??;
    let plan = bob.read(|notes| notes.get("plan").cloned());
    println!("bob reads: {}", plan.unwrap_or_default());

    let mallory = open(&address, Key::from_bytes([0; 32])).await?;
    let mut state = mallory.sync_state();
    timeout(
        PATIENCE,
        state.wait_for(|state| state.phase == SyncPhase::WrongKey),
    )
    .await??;
    let edited = mallory.edit(|notes| notes.insert("plan".into(), "sleep".into()));
    if !matches!(edited, Err(EditError::WrongKey)) {
        return Err("a wrong key was good enough".into());
    }
    println!("mallory: the key is wrong");

    let id = DocumentId::new(DOCUMENT)?;
    let Tail::Changes { changes, .. } = registry.tail(&id, Seq::ZERO, usize::MAX).await? else {
        return Err("no log".into());
    };
    for change in changes {
        let shown: String = change.bytes.iter().take(24).map(hex).collect();
        println!("the server has {} bytes: {shown}...", change.bytes.len());
        if change.bytes.windows(6).any(|bytes| bytes == b"attack") {
            return Err("the server can read it".into());
        }
    }
    Ok(())
}

fn hex(byte: &u8) -> String {
    format!("{byte:02x}")
}

async fn open(address: &str, key: Key) -> Result<DocumentHandle<Encrypted<Notes>>, Failure> {
    let client = Client::builder(address).start()?;
    let engine = Encrypted::new(Notes::new(), key);
    Ok(client.open(DOCUMENT, engine).await?)
}
