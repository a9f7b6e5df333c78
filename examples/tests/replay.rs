//! A replay ends with the text that the history's authors had, whatever order changes arrive in and whatever breaks.

#![allow(
    clippy::unwrap_used,
    reason = "a test says that it failed by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use sync_examples::replay::{DOCUMENT, Options, Trace, run};
use sync_server::registry::{DocumentId, MemoryRegistry, ServerRegistry};
use sync_server::{Anonymous, Server};

/// Two authors who write at once, delete the same character, and then know of each other. Positions are right only for
/// who holds exactly what the author held.
const CONCURRENT: &str = r#"{
    "kind": "concurrent", "numAgents": 2, "endContent": "hEY, you 🦀!",
    "txns": [
        {"parents": [], "agent": 0, "patches": [[0, 0, "hello  world"]]},
        {"parents": [0], "agent": 0, "patches": [[1, 4, "EY,"]]},
        {"parents": [0], "agent": 1, "patches": [[6, 1, ""]]},
        {"parents": [2], "agent": 1, "patches": [[6, 5, "you 🦀"]]},
        {"parents": [1, 3], "agent": 1, "patches": [[9, 1, "🦀!"]]},
        {"parents": [1], "agent": 0, "patches": [[5, 1, ""]]},
        {"parents": [4, 5], "agent": 0, "patches": []}
    ]
}"#;

/// One character at a time, by whoever has the turn, with corrections.
fn sequential(n_changes: usize) -> String {
    let mut text = String::new();
    let mut txns = Vec::new();
    for n in 0..n_changes {
        let at = n * 7 % (text.len() + 1);
        let patch = if n % 5 == 4 && at < text.len() {
            text.remove(at);
            format!(r#"[{at}, 1, ""]"#)
        } else {
            let letter = char::from(b'a' + u8::try_from(n % 26).unwrap());
            text.insert(at, letter);
            format!(r#"[{at}, 0, "{letter}"]"#)
        };
        txns.push(format!(r#"{{"patches": [{patch}]}}"#));
    }
    format!(
        r#"{{"startContent": "", "endContent": "{text}", "txns": [{}]}}"#,
        txns.join(",")
    )
}

/// Replays on a server of its own, and expects that everybody ends with the right text, and the server with each
/// change once.
async fn replay(json: &str, writers: usize, options: Options) {
    let trace = Trace::parse(json.as_bytes(), writers).unwrap();
    let n_changes = trace.n_changes();
    let registry = Arc::new(MemoryRegistry::new());
    let server = Server::builder(registry.clone(), Anonymous::read_write())
        .build()
        .unwrap();
    let listener = server.listen_websocket("127.0.0.1:0").await.unwrap();
    let address = format!("ws://{}", listener.local_addr().unwrap());

    let report = run(&address, trace, options).await.unwrap();

    assert!(report.converged(), "{report}");
    let document = DocumentId::new(DOCUMENT).unwrap();
    let heads = registry.heads(&[document]).await.unwrap();
    let logged = heads.first().copied().flatten().unwrap();
    assert_eq!(logged.seq.0, u64::try_from(n_changes).unwrap());
}

fn options() -> Options {
    Options {
        patience: Duration::from_secs(60),
        ..Options::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn authors_who_type_at_once_see_what_they_saw_then() {
    replay(CONCURRENT, 1, options()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_take_turns_while_readers_join_and_connections_break() {
    let mut options = options();
    options.joiners = 3;
    options.cut_every = Some(200);
    replay(&sequential(5_000), 3, options).await;
}

#[test]
fn a_history_that_nobody_could_have_typed_is_refused() {
    for (what, txns) in [
        (
            "a parent that comes later",
            r#"{"parents": [1], "agent": 0, "patches": [[0, 0, "a"]]}"#,
        ),
        (
            "an author too many",
            r#"{"parents": [], "agent": 1, "patches": [[0, 0, "a"]]}"#,
        ),
        (
            "an author in two places",
            r#"{"parents": [], "agent": 0, "patches": [[0, 0, "a"]]},
               {"parents": [], "agent": 0, "patches": [[0, 0, "b"]]}"#,
        ),
        (
            "no patch",
            r#"{"parents": [], "agent": 0, "patches": [[0]]}"#,
        ),
    ] {
        let json = format!(r#"{{"numAgents": 1, "endContent": "", "txns": [{txns}]}}"#);
        assert!(Trace::parse(json.as_bytes(), 1).is_err(), "{what}");
    }
}
