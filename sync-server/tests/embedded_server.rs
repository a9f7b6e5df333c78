//! Servers on the registry on disk, one after the other. In real time: the registry's threads know no other.
#![cfg(feature = "embedded")]
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod e2e;
mod embedded;
mod registries;

use std::path::Path;
use std::time::Duration;

use sync_client::Client;
use sync_client::transport::memory::MemoryNetwork;
use sync_server::registry::{Durability, EmbeddedRegistry, ServerRegistry};
use sync_server::{Anonymous, Listener, Server};

use e2e::{content, get, map, push, set, text, until, within};
use embedded::{Directory, id};

fn serve(directory: &Path, network: &MemoryNetwork) -> (Server, Listener) {
    let registry = EmbeddedRegistry::open(directory).unwrap();
    let server = Server::builder(registry, Anonymous::read_write())
        .durability_min(Durability::Synced)
        .build()
        .unwrap();
    let listener = server.listen(network.acceptor());
    (server, listener)
}

fn client(network: &MemoryNetwork) -> Client {
    Client::with_dialer(network.dialer()).start().unwrap()
}

/// Scenario 62, without a kill: what was saved is what a server that starts later serves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_serves_what_was_saved() {
    let directory = Directory::new();
    let network = MemoryNetwork::new();
    let (server, listener) = serve(directory.path(), &network);
    let ada = client(&network);
    let (notes, settings) = (text(&ada, "notes").await, map(&ada, "settings").await);
    for word in ["Nothing ", "is ", "lost"] {
        push(&notes, word);
    }
    set(&settings, "colour", "green");
    within("notes are saved", notes.saved()).await.unwrap();
    within("settings are saved", settings.saved())
        .await
        .unwrap();
    server.shutdown(Duration::ZERO).await;
    within("the listener ends", listener.wait()).await.unwrap();

    // Made while nobody is there.
    push(&notes, ".");
    let (again, _listener) = serve(directory.path(), &network);
    ada.on_network_change();
    let bob = client(&network);
    let (his, theirs) = (text(&bob, "notes").await, map(&bob, "settings").await);
    until(&his, "the whole text arrives", |his, _| {
        content(his) == "Nothing is lost."
    })
    .await;
    until(&theirs, "the settings arrive", |map, _| {
        get(map, "colour").as_deref() == Some("green")
    })
    .await;
    within("the late edit is saved", notes.saved())
        .await
        .unwrap();
    again.shutdown(Duration::ZERO).await;

    // Shutting down has let go of the directory, with everything in it.
    let registry = EmbeddedRegistry::open(directory.path()).unwrap();
    let ids = registry.list(None, 10).await.unwrap();
    let ids: Vec<_> = ids.iter().map(|meta| meta.id.clone()).collect();
    assert_eq!(ids, [id("notes"), id("settings")]);
    assert_eq!(embedded::log(&registry, "notes").await.len(), 4);
}
