//! A grid of 3 by 3 cells that everybody may write, in the terminal. The last writer of a cell wins.
//!
//!     cargo run -p sync-examples --bin grid                           # a server, and a first player
//!     cargo run -p sync-examples --bin grid -- ws://127.0.0.1:PORT ada  # another one, with the address that was printed
//!     cargo run -p sync-examples --bin grid -- --demo                 # three players without anybody at the keyboard
//!
//! `b2 X` writes X into the middle cell, `b2` clears it, `offline` and `online` do what they say. Below the grid is who is
//! there, and in which cell they are.

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::select_all;
use serde::{Deserialize, Serialize};
use sync_client::{Client, DocumentHandle, LwwMap, Peer, Typed};
use sync_examples::local::LocalServer;
use tokio::io::{AsyncBufReadExt, BufReader};

type Failure = Box<dyn Error + Send + Sync>;

/// Column and row, from 0.
type Cell = (u8, u8);

/// The marks.
type Grid = LwwMap<Cell, char>;

/// What players say of themselves.
#[derive(Serialize, Deserialize)]
struct Player {
    name: String,
    /// The one that they wrote last.
    cell: Option<Cell>,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let address = args.next();
    let name = args
        .next()
        .unwrap_or_else(|| format!("player {}", std::process::id()));
    match address.as_deref() {
        Some("--demo") => demo().await,
        Some(address) => play(address, name).await,
        None => {
            let server = LocalServer::start().await?;
            let address = server.address();
            println!("join from another terminal:");
            println!("    cargo run -p sync-examples --bin grid -- {address} NAME");
            play(address, name).await
        }
    }
}

async fn play(address: &str, name: String) -> Result<(), Failure> {
    let client = Client::builder(address).start()?;
    let grid = client.open("grid", Typed::<Grid>::new()).await?;
    let presence = grid.presence();
    let mut me = Player { name, cell: None };
    presence.set(&me)?;
    let (mut revision, mut status, mut roster) =
        (grid.revision(), client.status(), presence.roster());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            status = status.changed() => println!("# {:?}", status?),
            changed = revision.changed() => {
                changed?;
                println!("{}", show(&grid));
            }
            peers = roster.changed() => println!("{}", who(&peers?)),
            line = lines.next_line() => match line?.as_deref().map(str::trim) {
                None => break,
                Some("offline") => client.disconnect(),
                Some("online") => client.connect(),
                Some(line) => match parse(line) {
                    Some((cell, mark)) => {
                        match mark {
                            Some(mark) => grid.edit(|cells| cells.insert(cell, mark))??,
                            None => drop(grid.edit(|cells| cells.remove(&cell))??),
                        }
                        me.cell = Some(cell);
                        presence.set(&me)?;
                    }
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
fn parse(line: &str) -> Option<(Cell, Option<char>)> {
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

/// Who is there, and where.
fn who(peers: &[Peer<Player>]) -> String {
    let mut names: Vec<_> = peers
        .iter()
        .filter_map(|peer| {
            let Player { name, cell } = peer.state.as_ref()?;
            let you = if peer.is_me { " (you)" } else { "" };
            let place =
                cell.map(|(column, row)| format!(" at {}{}", char::from(b'a' + column), row + 1));
            Some(format!("{name}{you}{}", place.unwrap_or_default()))
        })
        .collect();
    names.sort();
    format!("here: {}", names.join(", "))
}

/// Three players write into a cell each, and all of them into the middle. In the end all see the same, and each other.
async fn demo() -> Result<(), Failure> {
    let server = LocalServer::start().await?;
    let mut grids = Vec::new();
    let mut rosters = Vec::new();
    for (player, (mark, name)) in (0..).zip([('X', "ada"), ('O', "bob"), ('+', "cyd")]) {
        let client = Client::builder(server.address()).start()?;
        let grid = client.open("grid", Typed::<Grid>::new()).await?;
        grid.edit(|cells| {
            cells.insert((player, 0), mark)?;
            cells.insert((1, 1), mark)
        })??;
        let presence = grid.presence();
        presence.set(&Player {
            name: name.to_owned(),
            cell: Some((player, 0)),
        })?;
        rosters.push(presence.roster());
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
    for roster in &mut rosters {
        let all = roster.wait_for(|peers| peers.len() == 3);
        tokio::time::timeout(Duration::from_secs(30), all).await??;
    }
    for ((player, grid), roster) in (1..).zip(&grids).zip(&rosters) {
        println!("player {player}\n{}\n{}", show(grid), who(&roster.get()));
    }
    equal.map_err(|_| "the grids differ".into())
}
