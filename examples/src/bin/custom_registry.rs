//! A server whose documents are in files, by a registry of its own: `examples/src/file_registry.rs`.
//!
//!     cargo run -p sync-examples --bin custom_registry -- documents
//!     cargo run -p sync-examples --bin custom_registry -- --check
//!
//! The first keeps documents in a directory of that name. With `--check` it serves nobody, and holds the registry to a
//! registry's promises instead.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::cell::Cell;
use std::error::Error;
use std::path::PathBuf;

use sync_examples::file_registry::FileRegistry;
use sync_server::registry::conformance;
use sync_server::{Anonymous, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    match std::env::args().nth(1).as_deref() {
        Some("--check") => check().await,
        Some(path) if !path.starts_with('-') => serve(path).await,
        _ => Err("usage: custom_registry DIRECTORY | --check".into()),
    }
}

async fn serve(path: &str) -> Result<(), Box<dyn Error + Send + Sync>> {
    let registry = FileRegistry::open(path).await?;
    let server = Server::builder(registry, Anonymous::read_write()).build()?;
    let listener = server.listen_websocket("127.0.0.1:8080").await?;
    println!("listening on ws://127.0.0.1:8080, documents are in {path}");
    Ok(listener.wait().await?)
}

async fn check() -> Result<(), Box<dyn Error + Send + Sync>> {
    let directory =
        Directory(std::env::temp_dir().join(format!("custom-registry-{}", std::process::id())));
    let n_places = Cell::new(0);
    // The suite takes an empty place for each promise, and opens the registry there again and again.
    let place = async || {
        n_places.set(n_places.get() + 1);
        directory.0.join(n_places.get().to_string())
    };
    #[expect(
        clippy::expect_used,
        reason = "a directory that takes no files is no fault of the registry"
    )]
    let open = async |place: &PathBuf| FileRegistry::open(place).await.expect("files can be made");
    for promise in conformance::run_with_crashes(place, open).await?.kept {
        println!("kept: {promise}");
    }
    Ok(())
}

/// Goes away with everything in it.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
