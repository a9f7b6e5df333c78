//! Every example that can run by itself does, and says with its exit code that it went well.

#![allow(
    clippy::unwrap_used,
    reason = "a test says that it failed by panicking"
)]

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

/// Far more than any of them takes; a hang is a failure and not a test that never ends.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs a program without input, and returns what it printed.
async fn run(program: &str, args: &[&str]) -> String {
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, child).await.unwrap().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn grid_shows_three_players_the_same() {
    let printed = run(env!("CARGO_BIN_EXE_grid"), &["--demo"]).await;
    assert_eq!(printed.matches(" 1 X O +").count(), 3, "{printed}");
    assert!(
        printed.contains("here: ada (you) at a1, bob at b1, cyd at c1"),
        "{printed}"
    );
    assert!(
        printed.contains("here: ada at a1, bob at b1, cyd (you) at c1"),
        "{printed}"
    );
}

#[tokio::test]
async fn dictionary_merges_what_was_done_offline() {
    let printed = run(env!("CARGO_BIN_EXE_dictionary"), &["--demo"]).await;
    assert!(
        printed.contains("epoch: the name of a history"),
        "{printed}"
    );
}

#[tokio::test]
async fn board_shows_two_processes_the_same() {
    let printed = run(env!("CARGO_BIN_EXE_board"), &["--demo"]).await;
    assert!(printed.ends_with("both see the same\n"), "{printed}");
    assert!(printed.contains("1 write docs +0 [easy text]"), "{printed}");
}

#[tokio::test]
async fn rooms_have_a_text_a_chat_and_guests() {
    let printed = run(env!("CARGO_BIN_EXE_rooms"), &["--demo"]).await;
    for line in [
        "ben finds: garden",
        "ben reads: plant tulips",
        "ben is digging",
        "ada to ben: shall we begin?",
        "ben to ada: I have",
        "ada reads: plant tulips, water them",
        "ada sees: ada is writing\n",
    ] {
        assert!(printed.contains(line), "no {line} in {printed}");
    }
}

#[tokio::test]
async fn encrypted_keeps_the_server_and_a_wrong_key_out() {
    let printed = run(env!("CARGO_BIN_EXE_encrypted"), &[]).await;
    for line in [
        "bob reads: attack at dawn",
        "mallory: the key is wrong",
        "the server has",
    ] {
        assert!(printed.contains(line), "no {line} in {printed}");
    }
}

#[tokio::test]
async fn events_prints_both_streams() {
    let printed = run(env!("CARGO_BIN_EXE_events"), &[]).await;
    for line in [
        "client Refused",
        "server Refused",
        "client SessionEnded",
        "server Committed",
    ] {
        assert!(printed.contains(line), "no {line} in {printed}");
    }
}

#[tokio::test]
async fn custom_engine_lets_guests_sign() {
    let printed = run(env!("CARGO_BIN_EXE_custom_engine"), &[]).await;
    assert_eq!(printed, "signed: Ada, Bob\n");
}

#[cfg(feature = "loro")]
#[tokio::test]
async fn notes_are_moved_undone_and_looked_back_at() {
    let printed = run(env!("CARGO_BIN_EXE_notes"), &[]).await;
    let (met, undone) = printed.split_once("takes her last edit back").unwrap();
    let (undone, began) = undone.split_once("how it began").unwrap();
    assert!(met.contains("Bob was here"), "{printed}");
    assert!(met.contains("Call Bob"), "{printed}");
    assert!(undone.contains("Bob was here"), "{printed}");
    assert!(!undone.contains("Call Bob"), "{printed}");
    assert!(began.contains("to buy: milk, bread, tea"), "{printed}");
    assert!(!began.contains("Bob"), "{printed}");
}

#[tokio::test]
async fn custom_registry_keeps_its_promises() {
    let printed = run(env!("CARGO_BIN_EXE_custom_registry"), &["--check"]).await;
    assert!(printed.contains("kept: "), "{printed}");
}

#[tokio::test]
async fn hello_client_saves_on_hello_server() {
    let mut server = Command::new(env!("CARGO_BIN_EXE_hello_server"))
        .args(["--listen", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut printed = BufReader::new(server.stdout.take().unwrap()).lines();
    let line = timeout(PATIENCE, printed.next_line()).await.unwrap();
    let line = line.unwrap().unwrap();
    let address = line.strip_prefix("listening on ").unwrap();
    let printed = run(env!("CARGO_BIN_EXE_hello_client"), &[address, "one", "two"]).await;
    assert_eq!(printed, "saved 2 lines\n");
}
