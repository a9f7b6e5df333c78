//! A grid of 3 by 3 cells that everybody may write, in the terminal. The last writer of a cell wins.
//!
//!     cargo run -p sync-examples --bin grid                           # a server, and a first player
//!     cargo run -p sync-examples --bin grid -- ws://127.0.0.1:PORT    # another one, with the address that was printed
//!     cargo run -p sync-examples --bin grid -- --demo                 # three players without anybody at the keyboard
//!
//! `b2 X` writes X into the middle cell, `b2` clears it, `offline` and `online` do what they say.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::select_all;
use sync_client::{Client, DocumentHandle, LwwMap, Typed};
use sync_examples::local::LocalServer;
use tokio::io::{AsyncBufReadExt, BufReader};

type Failure = Box<dyn Error + Send + Sync>;

/// Column and row, from 0, and the mark.
type Grid = LwwMap<(u8, u8), char>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    match std::env::args().nth(1).as_deref() {
        Some("--demo") => demo().await,
        Some(address) => play(address).await,
        None => {
            let server = LocalServer::start().await?;
            let address = server.address();
            println!("join from another terminal:");
            println!("    cargo run -p sync-examples --bin grid -- {address}");
            play(address).await
        }
    }
}

async fn play(address: &str) -> Result<(), Failure> {
    let client = Client::builder(address).start()?;
    let grid = client.open("grid", Typed::<Grid>::new()).await?;
    let (mut revision, mut status) = (grid.revision(), client.status());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            status = status.changed() => println!("# {:?}", status?),
            changed = revision.changed() => {
                changed?;
                println!("{}", show(&grid));
            }
            line = lines.next_line() => match line?.as_deref().map(str::trim) {
                None => break,
                Some("offline") => client.disconnect(),
                Some("online") => client.connect(),
                Some(line) => match parse(line) {
                    Some((cell, Some(mark))) => grid.edit(|cells| cells.insert(cell, mark))??,
                    Some((cell, None)) => drop(grid.edit(|cells| cells.remove(&cell))??),
                    None => println!("say `b2 X`, `b2`, `offline` or `online`"),
                },
            },
        }
    }
    if !client.shutdown(Duration::from_secs(5)).await {
        println!("# the server does not have everything");
    }
    Ok(())
}

/// `b2 X` is the middle cell and a mark for it, `b2` the middle cell and none.
fn parse(line: &str) -> Option<((u8, u8), Option<char>)> {
    let (cell, mark) = line.split_once(' ').unwrap_or((line, ""));
    let &[column @ b'a'..=b'c', row @ b'1'..=b'3'] = cell.as_bytes() else {
        return None;
    };
    let mut mark = mark.trim().chars();
    let parsed = ((column - b'a', row - b'1'), mark.next());
    mark.next().is_none().then_some(parsed)
}

fn show(grid: &DocumentHandle<Typed<Grid>>) -> String {
    grid.read(|cells| {
        let mut picture = "   a b c\n".to_owned();
        for row in 0..3 {
            let marks = [0, 1, 2].map(|column| cells.get(&(column, row)).copied().unwrap_or('.'));
            let [a, b, c] = marks;
            picture.push_str(&format!(" {} {a} {b} {c}\n", row + 1));
        }
        picture
    })
}

/// Three players write into a cell each, and all of them into the middle. In the end all see the same.
async fn demo() -> Result<(), Failure> {
    let server = LocalServer::start().await?;
    let mut grids = Vec::new();
    for (player, mark) in (0..).zip(['X', 'O', '+']) {
        let client = Client::builder(server.address()).start()?;
        let grid = client.open("grid", Typed::<Grid>::new()).await?;
        grid.edit(|cells| {
            cells.insert((player, 0), mark)?;
            cells.insert((1, 1), mark)
        })??;
        grids.push(grid);
    }
    // Each has a cell of its own, so all can be equal only once each has heard of everybody.
    let are_equal = || {
        let mut pictures = grids.iter().map(show);
        let first = pictures.next();
        pictures.all(|picture| Some(picture) == first)
    };
    let mut changes = select_all(grids.iter().map(|grid| grid.revision()));
    let equal = async {
        while !are_equal() {
            changes.next().await;
        }
    };
    let equal = tokio::time::timeout(Duration::from_secs(30), equal).await;
    for (player, grid) in (1..).zip(&grids) {
        println!("player {player}\n{}", show(grid));
    }
    equal.map_err(|_| "the grids differ".into())
}
