//! A server. Three lines of it are the server, the rest is about the address.
//!
//!     cargo run -p sync-examples --bin hello_server -- --listen 127.0.0.1:8080

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use sync_server::{Anonymous, MemoryRegistry, Server};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let address = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => "127.0.0.1:8080",
        ["--listen", address] => address,
        _ => return Err("usage: hello_server [--listen ADDRESS:PORT]".into()),
    };

    // Documents live in memory, and anybody may edit them: put a registry and an authenticator of yours here.
    let server = Server::builder(MemoryRegistry::new(), Anonymous::read_write()).build()?;
    let listener = server.listen_websocket(address).await?;

    if let Some(bound) = listener.local_addr() {
        println!("listening on ws://{bound}");
    }
    Ok(listener.wait().await?)
}
