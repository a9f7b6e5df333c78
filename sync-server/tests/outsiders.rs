//! What somebody tries who has no business here: tokens that are none, ids that look like paths, and reading logs.
#![cfg(all(feature = "bin", feature = "http", feature = "jwt"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

mod asking;
mod e2e;
mod embedded;
mod registries;
mod tokens;

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use asking::ask_upgrade;
use e2e::{content, push, text, until, until_status, within};
use embedded::Directory;
use serde_json::{Value, json};
use sync_client::{Client, ClientEvent, EndReason, ErrorCode, FailedReason, OpenError, Status};
use sync_server::http::{Routes, routes};
use sync_server::registry::{FaultyRegistry, ServerRegistry};
use sync_server::{
    Access, Anonymous, Auth, EmbeddedRegistry, Jwt, MemoryRegistry, Server, authorize_fn,
};
use tokens::{Ed25519, SECRET, from_now, hs256, signed};
use tokio::net::TcpListener;
use tracing_subscriber::fmt::MakeWriter;

const ISSUER: &str = "https://id.example";

fn jwt() -> Jwt {
    Jwt::hs256(SECRET).unwrap().issuer(ISSUER).audience("sync")
}

fn claims(more: Value) -> Value {
    let mut claims = json!({ "sub": "ada", "exp": from_now(3_600), "iss": ISSUER, "aud": "sync" });
    let Value::Object(more) = more else { panic!() };
    claims.as_object_mut().unwrap().extend(more);
    claims
}

/// What nobody is let in with.
fn bad_tokens() -> Vec<(&'static str, String)> {
    let good = hs256(&claims(json!({})));
    let (text, signature) = good.rsplit_once('.').unwrap();
    let with = |header: Value| signed(&header, &claims(json!({})), SECRET.as_bytes());
    let unsigned = with(json!({ "alg": "none" }));
    let bare = unsigned.rsplit_once('.').unwrap().0;
    let stranger = Ed25519::new(7);
    vec![
        (
            "expired",
            hs256(&claims(json!({ "exp": from_now(-3_600) }))),
        ),
        (
            "too early",
            hs256(&claims(json!({ "nbf": from_now(3_600) }))),
        ),
        ("alg none", format!("{bare}.")),
        ("alg none, signed", unsigned),
        (
            "forged",
            signed(
                &json!({ "alg": "HS256" }),
                &claims(json!({})),
                b"another secret of thirty-two bytes",
            ),
        ),
        (
            "of another kind of key",
            stranger.token(&json!({ "alg": "EdDSA" }), &claims(json!({}))),
        ),
        (
            "signature cut",
            format!("{text}.{}", signature.split_at(10).0),
        ),
        (
            "of another audience",
            hs256(&claims(json!({ "aud": "other" }))),
        ),
        ("of no audience", hs256(&claims(json!({ "aud": [] })))),
        (
            "of another issuer",
            hs256(&claims(json!({ "iss": "https://evil.example" }))),
        ),
        ("of nobody", hs256(&claims(json!({ "sub": "" })))),
        ("garbage", "garbage".to_owned()),
    ]
}

async fn serve(routes: Routes) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = routes.sync("/").into_router::<()>();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Scenario 52: before the upgrade, and in a hello; no room, no document and no registry is touched.
#[tokio::test]
async fn bad_tokens_get_nowhere_by_any_way_in() {
    let registry = Arc::new(FaultyRegistry::new(MemoryRegistry::new()));
    let may = authorize_fn(|_, _| async { panic!("somebody has been let in") });
    let server = Server::builder(registry.clone(), Auth::new(jwt(), may))
        .build()
        .unwrap();
    let address = serve(routes(server.clone()).cookie("session").token_in_query()).await;
    for (what, token) in bad_tokens() {
        let (header, cookie) = (
            format!("Authorization: Bearer {token}"),
            format!("Cookie: session={token}"),
        );
        for (path, line) in [
            ("/", header),
            ("/", cookie),
            (&*format!("/?token={token}"), String::new()),
        ] {
            let lines: &[&str] = if line.is_empty() { &[] } else { &[&line] };
            let answer = ask_upgrade(address, path, lines).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{what}: {answer}");
            assert!(!answer.contains(&token), "{what}: {answer}");
        }
        let nobody = Client::builder(format!("ws://{address}"))
            .token(token)
            .start()
            .unwrap();
        let _document = text(&nobody, "notes").await;
        until_status(&nobody, what, |status| {
            matches!(status, Status::Failed(FailedReason::Server(error)) if error.code == ErrorCode::Unauthenticated)
        })
        .await;
    }
    assert!(registry.calls().is_empty());
    assert_eq!(server.stats().n_documents, 0);
}

/// Every file below a directory.
fn files(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.to_string_lossy().into_owned());
        }
    }
    found
}

/// Ids are data: whatever they look like, they name one document each, in the registry and nowhere else.
#[tokio::test]
async fn ids_that_look_like_paths_are_ids() {
    let directory = Directory::new();
    let [ours, others] = ["ours", "others"].map(|name| directory.path().join(name));
    let other = EmbeddedRegistry::open(&others).unwrap();
    other.close().await.unwrap();
    drop(other);
    let registry = Arc::new(EmbeddedRegistry::open(&ours).unwrap());
    let outside: BTreeSet<_> = files(directory.path())
        .into_iter()
        .filter(|file| !Path::new(file).starts_with(&ours))
        .collect();
    let server = Server::builder(registry.clone(), Anonymous::read_write())
        .build()
        .unwrap();
    let listener = server.listen_websocket("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let (ada, bob) = (
        Client::builder(&url).start().unwrap(),
        Client::builder(&url).start().unwrap(),
    );
    let absolute = others.join("x").to_string_lossy().into_owned();
    let ids = [
        "../../etc/passwd",
        "..",
        ".",
        "/",
        "//",
        "../others/sync.db",
        &absolute,
        "a/../b",
        "b",
        "B",
        "b ",
        "b\0",
        "\0",
        "b\n",
        "%2e%2e%2fb",
        "C:\\windows",
        "'; drop table documents; --",
        "*",
        "{user}",
        "\u{202e}b",
        "b\u{301}",
        "é",
        "e\u{301}",
        &"x".repeat(255),
        &"x".repeat(254),
    ];
    for (n, id) in ids.iter().enumerate() {
        let document = text(&ada, id).await;
        push(&document, &format!("{n}"));
        within("saved", document.saved()).await.unwrap();
    }
    for (n, id) in ids.iter().enumerate() {
        let document = text(&bob, id).await;
        until(&document, id, |document, _| {
            content(document) == format!("{n}")
        })
        .await;
    }
    let listed = registry.list(None, 100).await.unwrap();
    let listed: BTreeSet<_> = listed.iter().map(|meta| meta.id.as_str()).collect();
    assert_eq!(listed, ids.into_iter().collect());
    for id in [String::new(), "x".repeat(256)] {
        let opened = ada.open(id, sync_client::Yrs::new()).await.map(drop);
        assert!(matches!(opened, Err(OpenError::Id(_))), "{opened:?}");
    }
    let now: BTreeSet<_> = files(directory.path())
        .into_iter()
        .filter(|file| !Path::new(file).starts_with(&ours))
        .collect();
    assert_eq!(now, outside);
}

/// What has been logged by anybody in this process.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// At the finest level, of both sides and all below: whichever way a token comes, and whatever becomes of it.
#[tokio::test]
async fn tokens_are_in_no_log_and_in_nothing_that_can_be_printed() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    // Other tests of this binary are heard too, and have tokens of their own.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let may = authorize_fn(|_, _| async { Ok(Access::write()) });
    let server = Server::builder(MemoryRegistry::new(), Auth::new(jwt(), may))
        .build()
        .unwrap();
    let mut events = server.events();
    let address = serve(routes(server.clone()).cookie("session").token_in_query()).await;
    let url = format!("ws://{address}");
    let good = |n: u32| hs256(&claims(json!({ "sub": "ada", "n": format!("secret-{n}") })));
    let bad = |n: u32| {
        signed(
            &json!({ "alg": "HS256" }),
            &claims(json!({ "n": n })),
            b"not the secret of this server, no",
        )
    };
    let mut given = Vec::new();
    let mut printed = Vec::new();
    for token in [good(1), bad(1)] {
        for (path, line) in [
            ("/".to_owned(), format!("Authorization: Bearer {token}")),
            ("/".to_owned(), format!("Cookie: session={token}")),
            (format!("/?token={token}"), "X-Nothing: x".to_owned()),
        ] {
            ask_upgrade(address, &path, &[&line]).await;
        }
        given.push(token);
    }
    for token in [good(2), bad(2)] {
        let builder = Client::builder(&url).token(token.clone());
        printed.push(format!("{builder:?}"));
        let client = builder.start().unwrap();
        let decided = |status: &Status| matches!(status, Status::Connected | Status::Failed(_));
        until_status(&client, "decided", decided).await;
        printed.push(format!("{client:?} {:?}", client.status().get()));
        given.push(token);
    }
    // Fresh ones, which come in the session; the second ones are refused.
    let fresh = [good(3), bad(3)];
    let next = Mutex::new(fresh.clone().into_iter());
    let ask = move || {
        let token = next.lock().unwrap().next();
        async move { token.ok_or("no more") }
    };
    let client = Client::builder(&url).credentials(ask).start().unwrap();
    let document = text(&client, "notes").await;
    push(&document, "in");
    within("saved", document.saved()).await.unwrap();
    let mut happened = client.events();
    server.disconnect("ada");
    // Told to go, refused with the second one, and then there are no more: that is logged.
    while !matches!(
        within("no more", happened.next()).await,
        Some(ClientEvent::SessionEnded(EndReason::Lost { .. }))
    ) {}
    given.extend(fresh);
    while let Some(event) = events.try_next() {
        printed.push(format!("{event:?} {event}"));
    }
    printed.push(format!("{server:?} {:?}", jwt()));
    let printed = printed.join("\n");
    let logged = log.text();
    assert!(logged.contains("no credentials"), "{logged}");
    for token in given {
        for part in token.split('.').skip(1) {
            assert!(!printed.contains(part), "{part} is printed");
            if let Some(line) = logged.lines().find(|line| line.contains(part)) {
                panic!("a token is logged: {line}");
            }
        }
    }
    assert!(!printed.contains("secret-") && !logged.contains("secret-"));
    assert!(!printed.contains(SECRET) && !logged.contains(SECRET));
}
