//! Rooms with a text, a chat, and a list of who is there, in the terminal, on the `sync-server` program.
//!
//!     cargo run -p sync-server --features bin -- --data ./data --anonymous        # a server that asks nobody who they are
//!     cargo run -p sync-examples --bin rooms -- ws://127.0.0.1:8080 --name ada --anonymous
//!
//!     cargo run -p sync-server --features bin -- --data ./data --jwt-secret-file secret
//!     cargo run -p sync-examples --bin rooms -- ws://127.0.0.1:8080 --name ada --secret-file secret    # signs a token itself
//!     cargo run -p sync-examples --bin rooms -- ws://127.0.0.1:8080 --name ada --token TOKEN           # one of your login
//!
//!     cargo run -p sync-examples --bin rooms -- --demo [--program PATH]           # without anybody at the keyboard

#![expect(clippy::print_stdout, reason = "a program for the terminal")]

use std::path::Path;
use std::time::Duration;

use sync_client::Client;
use sync_examples::rooms::serve::Serving;
use sync_examples::rooms::{Failure, Happening, House, Room, demo, tokens};
use tokio::io::{AsyncBufReadExt, BufReader};

const USAGE: &str = "rooms ADDRESS --name NAME (--anonymous | --token TOKEN | --secret-file FILE)
rooms --demo [--program PATH]";

const HELP: &str = "/rooms: the rooms that there are     /join ROOM: go into one, or make it
/who: who is here                    /write LINE: add a line to the text
/show: the text                      /doing WHAT: tell others what you are doing
/quit: leave                         anything else is said to whoever is here";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--demo"] => demo::play(&Serving::inside().await?, |line| println!("{line}")).await,
        ["--demo", "--program", path] => {
            let server = Serving::program(Path::new(path)).await?;
            demo::play(&server, |line| println!("{line}")).await
        }
        [address, "--name", name, ref login @ ..] => {
            let client = Client::builder(address);
            let client = match *login {
                ["--anonymous"] => client,
                ["--token", token] => client.token(token.to_owned()),
                ["--secret-file", file] => {
                    let secret = std::fs::read(file)?;
                    client.token(tokens::sign(name, secret.trim_ascii()))
                }
                _ => return Err(USAGE.into()),
            };
            let house = House::enter(client, name).await?;
            visit(&house).await
        }
        _ => Err(USAGE.into()),
    }
}

async fn visit(house: &House) -> Result<(), Failure> {
    println!("{HELP}");
    let mut status = house.client().status();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut room: Option<Room> = None;
    loop {
        tokio::select! {
            status = status.changed() => println!("# {:?}", status?),
            happened = next(&mut room) => show(&happened),
            line = lines.next_line() => match line?.as_deref().map(str::trim) {
                None | Some("/quit") => break,
                Some("") => {}
                Some(line) => {
                    if let Some(joined) = obey(house, room.as_ref(), line).await {
                        room = Some(joined);
                    }
                }
            },
        }
    }
    if !house.client().shutdown(Duration::from_secs(5)).await {
        println!("# the server does not have everything");
    }
    Ok(())
}

/// What happens in the room, if one is in any.
async fn next(room: &mut Option<Room>) -> Happening {
    let happened = match room {
        Some(room) => room.next().await,
        None => None,
    };
    match happened {
        Some(happened) => happened,
        None => std::future::pending().await,
    }
}

fn show(happened: &Happening) {
    match happened {
        Happening::Said { who, text } => println!("{who}: {text}"),
        Happening::Missed(n) => println!("# {n} lines were missed"),
        Happening::Roster(who) => println!("# here: {}", who.join(", ")),
        Happening::Written => println!("# the text has changed: /show"),
    }
}

/// Does what a line says. Returns a room that was joined.
async fn obey(house: &House, room: Option<&Room>, line: &str) -> Option<Room> {
    let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
    match (verb, room) {
        ("/rooms", _) => println!("{}", house.rooms().join("\n")),
        ("/join", _) => match house.join(rest).await {
            Ok(room) => {
                println!("# in {}", room.name);
                return Some(room);
            }
            Err(error) => println!("# {error}"),
        },
        (_, None) => println!("# first /join ROOM"),
        ("/who", Some(room)) => println!("{}", room.who().join("\n")),
        ("/show", Some(room)) => print!("{}", room.text()),
        (verb, Some(room)) => {
            let done = match verb {
                "/write" => room.write(rest),
                "/doing" => room.doing(rest),
                _ if verb.starts_with('/') => Err(HELP.into()),
                _ => room.say(line),
            };
            if let Err(error) = done {
                println!("# {error}");
            }
        }
    }
    None
}
