//! What each process does until it is killed.

use std::collections::BTreeSet;
use std::error::Error;
use std::io::Write;

use sync_client::store::EmbeddedStore;
use sync_client::{Client, LwwMap, Typed};
use sync_server::registry::EmbeddedRegistry;
use sync_server::{Anonymous, Server};

use super::DOCUMENT;

type Keys = Typed<LwwMap<String, u64>>;

/// Edits that a client makes before it waits for them to be saved.
const BATCH: u64 = 5;

/// Serves a directory until killed.
///
/// # Errors
/// If the directory or the address cannot be used.
pub fn run_server(directory: &str, address: &str) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let server =
            Server::builder(EmbeddedRegistry::open(directory)?, Anonymous::read_write()).build()?;
        let listener = server.listen_websocket(address).await?;
        tell("ready", "server")?;
        Ok(listener.wait().await?)
    })
}

/// Edits until killed, telling of each edit that has returned and of each that has been acknowledged. With `finish`, makes no
/// edits: waits until everything is exchanged, tells every key that it has, and ends.
///
/// # Errors
/// If the store cannot be used, or the client gets no further.
pub fn run_client(
    address: &str,
    store: &str,
    name: &str,
    finish: bool,
) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let client = Client::builder(address)
            .store(EmbeddedStore::open(store)?)
            .reconnect_max(std::time::Duration::from_millis(200))
            .start()?;
        let document = client.open(DOCUMENT, Keys::new()).await?;
        let keys = || {
            document.read(|map| {
                map.iter()
                    .map(|(key, _)| key.clone())
                    .collect::<BTreeSet<_>>()
            })
        };
        if finish {
            document.caught_up().await?;
            document.saved().await?;
            document.saved_locally().await?;
            for key in keys() {
                tell("key", &key)?;
            }
            return tell("done", name);
        }
        tell("ready", name)?;
        let own = format!("{name}-");
        let last = keys()
            .iter()
            .filter_map(|key| key.strip_prefix(&own)?.parse::<u64>().ok())
            .max();
        let mut next = last.map_or(0, |last| last + 1);
        loop {
            let batch: Vec<String> = (next..next + BATCH).map(|n| format!("{own}{n}")).collect();
            for key in &batch {
                document.edit(|map| map.insert(key.clone(), next))??;
                tell("edit", key)?;
            }
            next += BATCH;
            document.saved().await?;
            for key in &batch {
                tell("ack", key)?;
            }
        }
    })
}

/// One line to the parent, at once: what has been told has happened.
fn tell(what: &str, which: &str) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{what} {which}")?;
    Ok(out.flush()?)
}
