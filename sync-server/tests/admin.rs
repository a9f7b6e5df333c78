//! The admin API, over real HTTP.
#![cfg(all(feature = "http", feature = "client", feature = "embedded"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod asking;
mod e2e;
mod registries;
mod requests;
#[cfg(feature = "jwt")]
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use asking::ask;
use e2e::{content, push, set, text, until, within};
use requests::{Caller, TOKEN, send, serve};
use serde_json::{Value, json};
use sync_client::{Client, DocumentHandle, SyncPhase, Yrs};
use sync_server::registry::{
    DocumentId, Epoch, Export, FaultyRegistry, NewDocument, ServerRegistry,
};
use sync_server::{Anonymous, EngineId, MemoryRegistry, Server, User, http};

fn token() -> http::AdminToken {
    http::AdminToken::new(TOKEN).unwrap()
}

struct World {
    registry: Arc<dyn ServerRegistry>,
    server: Server,
    admin: Caller,
}

impl World {
    async fn new() -> Self {
        Self::on(MemoryRegistry::new()).await
    }

    async fn on(registry: impl ServerRegistry) -> Self {
        let registry: Arc<dyn ServerRegistry> = Arc::new(registry);
        let server = Server::builder(Arc::clone(&registry), Anonymous::read_write())
            .keep_log(0, Duration::ZERO)
            .build()
            .unwrap();
        let routes = http::routes(server.clone()).sync("/").admin(token());
        let admin = Caller(serve(routes.into_router()).await);
        Self {
            registry,
            server,
            admin,
        }
    }

    fn client(&self) -> Client {
        Client::builder(format!("ws://{}", self.admin.0))
            .start()
            .unwrap()
    }

    /// A document with this text, and a client that has it open.
    async fn with_text(&self, id: &str, typed: &str) -> (Client, DocumentHandle<Yrs>) {
        let client = self.client();
        let document = text(&client, id).await;
        push(&document, typed);
        within("saved", document.saved()).await.unwrap();
        (client, document)
    }
}

#[tokio::test]
async fn without_the_permission_nothing_is_answered_not_even_which_routes_there_are() {
    let world = World::new().await;
    let (_ada, notes) = world.with_text("notes", "hello").await;
    let address = world.admin.0;
    for first in [
        "GET /admin/api/v1/stats",
        "GET /admin/api/v1/events",
        "GET /admin/api/v1/live",
        "GET /admin/api/v1/documents/notes",
        "DELETE /admin/api/v1/documents/notes",
        "GET /admin/openapi.json",
        "GET /admin/no/such/route",
        "PUT /admin/api/v1/stats",
    ] {
        for lines in [
            &[][..],
            &["Authorization: Bearer a token of nobody here"],
            &["Authorization: Bearer a token of an admin, and more"],
            &["Authorization: Bearer "],
            &["Authorization: Basic a token of an admin"],
            // Browsers send cookies along whoever made the page; so they prove nothing.
            &["Cookie: token=a token of an admin; Authorization=Bearer a token of an admin"],
        ] {
            let answer = send(address, first, lines, &[]).await;
            assert_eq!(answer.status, 401, "{first} {lines:?}: {answer:?}");
            assert_eq!(answer.code(), "unauthenticated");
            assert!(answer.head.contains("www-authenticate: Bearer"));
            assert!(answer.head.contains("cache-control: no-store"));
        }
    }
    // In the address it would end up in logs.
    let answer = send(
        address,
        "GET /admin/api/v1/stats?token=a%20token%20of%20an%20admin",
        &[],
        &[],
    )
    .await;
    assert_eq!(answer.status, 401);
    assert_eq!(content(&notes), "hello");
}

#[tokio::test]
async fn where_nobody_may_administer_there_is_nothing() {
    let server = Server::builder(MemoryRegistry::new(), Anonymous::read_write())
        .build()
        .unwrap();
    let address = serve(http::router(server)).await;
    for path in [
        "/admin/api/v1/stats",
        "/admin/openapi.json",
        "/admin",
        "/metrics",
    ] {
        let answer = ask(address, &format!("GET {path}"), &[]).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{path}: {answer}");
    }
}

#[cfg(feature = "jwt")]
#[tokio::test]
async fn a_token_that_names_a_user_makes_an_admin_only_if_it_says_so() {
    use sync_server::Jwt;
    use tokens::{SECRET, from_now, hs256, token_of};

    let server = Server::builder(MemoryRegistry::new(), Anonymous::read_write())
        .build()
        .unwrap();
    let routes = http::routes(server).admin(Jwt::hs256(SECRET).unwrap());
    let address = serve(routes.into_router()).await;
    let admin = |admin: Value, seconds| {
        hs256(&json!({ "sub": "ada", "exp": from_now(seconds), "admin": admin }))
    };
    for (token, status, code) in [
        (admin(json!(true), 60), 200, None),
        (admin(json!(false), 60), 403, Some("forbidden")),
        (admin(json!("true"), 60), 403, Some("forbidden")),
        (admin(json!(1), 60), 403, Some("forbidden")),
        (token_of("ada"), 403, Some("forbidden")),
        (admin(json!(true), -600), 401, Some("unauthenticated")),
        ("no token".to_owned(), 401, Some("unauthenticated")),
    ] {
        let credentials = format!("Authorization: Bearer {token}");
        let answer = send(address, "GET /admin/api/v1/stats", &[&credentials], &[]).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.json()["error"]["code"].as_str(), code);
    }
}

/// Scenario 73, as operators see it.
#[tokio::test]
async fn documents_are_listed_page_by_page_and_inspected_with_their_sessions() {
    let world = World::new().await;
    let (_ada, notes) = world.with_text("notes/1", "hello").await;
    for id in ["a", "b", "c"] {
        let id = DocumentId::new(id).unwrap();
        let new = NewDocument::new(id, EngineId::OPAQUE, Epoch(7));
        world.registry.create(new).await.unwrap();
    }
    let ids = |page: &Value| -> Vec<String> {
        let documents = page["documents"].as_array().unwrap().iter();
        documents
            .map(|found| found["document"].as_str().unwrap().to_owned())
            .collect()
    };
    let first = world.admin.json("GET /documents?limit=3").await;
    assert_eq!(ids(&first), ["a", "b", "c"]);
    assert_eq!(first["next"], "c");
    let second = world
        .admin
        .json("GET /documents?limit=3&after=c&sizes=true")
        .await;
    assert_eq!(ids(&second), ["notes/1"]);
    assert_eq!(second["next"], Value::Null);
    let found = &second["documents"][0];
    assert_eq!(found["engine"], "yrs");
    assert_eq!(
        (&found["head"], &found["log_changes"]),
        (&json!(1), &json!(1))
    );
    assert!(found["log_bytes"].as_u64().unwrap() > 0);
    assert_eq!(found["live"]["n_sessions"], 1);
    let live = world.admin.json("GET /documents?live=true").await;
    assert_eq!(ids(&live), ["notes/1"]);

    push(&notes, " world");
    within("saved", notes.saved()).await.unwrap();
    let inspected = world.admin.json("GET /documents/notes%2F1").await;
    assert_eq!(inspected["stored"]["head"], 2);
    let stats = &inspected["live"]["stats"];
    assert_eq!(
        (&stats["phase"], &stats["changes_total"]),
        (&json!("live"), &json!(2))
    );
    let session = &inspected["live"]["sessions"][0];
    assert_eq!((&session["sent"], &session["lag"]), (&json!(2), &json!(0)));
    assert_eq!(
        (&session["access"], &session["user"]),
        (&json!("write"), &json!("anonymous"))
    );
    assert!(session["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    let idle = world.admin.json("GET /documents/a").await;
    assert_eq!(idle["live"], Value::Null);

    let totals = world.admin.json("GET /stats").await;
    assert_eq!(
        (&totals["changes_total"], &totals["n_sessions"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(totals["commits"]["count"], 2);
    let sessions = world.admin.json("GET /sessions?user=anonymous").await;
    assert_eq!(sessions["n_sessions"], 1);
    assert_eq!(sessions["sessions"][0]["session"], session["session"]);
    assert_eq!(
        world.admin.json("GET /sessions?user=eve").await["n_sessions"],
        0
    );
}

/// A document's name is a name, never a path.
#[tokio::test]
async fn ids_are_taken_as_they_are_whatever_is_in_them() {
    let world = World::new().await;
    let odd = [
        "../../etc/passwd",
        "..",
        ".",
        "/etc/passwd",
        "C:\\windows\\..",
        "a?b=c&d#e",
        "%2e%2e%2f",
        "nul\0byte and\nline",
        "ünïcödé 文書 👩‍👩‍👧",
        "; DROP TABLE documents; --",
    ];
    let encoded = |id: &str| -> String { id.bytes().map(|byte| format!("%{byte:02x}")).collect() };
    for id in odd {
        let refused = world
            .admin
            .refused(&format!("GET /documents/{}", encoded(id)))
            .await;
        assert_eq!(refused, (404, "not_found".to_owned()), "{id:?}");
        let new = NewDocument::new(DocumentId::new(id).unwrap(), EngineId::OPAQUE, Epoch(7));
        world.registry.create(new).await.unwrap();
        let found = world
            .admin
            .json(&format!("GET /documents/{}", encoded(id)))
            .await;
        assert_eq!(found["stored"]["document"], id);
    }
    let all = world.admin.json("GET /documents").await;
    assert_eq!(all["documents"].as_array().unwrap().len(), odd.len());
    for id in odd {
        let deleted = world
            .admin
            .json(&format!("DELETE /documents/{}", encoded(id)))
            .await;
        assert_eq!(deleted["deleted"], true);
        let gone = world
            .admin
            .refused(&format!("GET /documents/{}", encoded(id)))
            .await;
        assert_eq!(gone, (410, "deleted".to_owned()));
    }
    let long = "x".repeat(256);
    for (what, status, code) in [
        ("GET /documents/%ff%fe", 400, "invalid"),
        (&format!("GET /documents/{long}"), 400, "invalid"),
        ("GET /documents?limit=many", 400, "invalid"),
        ("GET /documents?after=", 400, "invalid"),
        ("POST /documents/a/fork", 400, "invalid"),
        ("POST /documents/a/fork?to=", 400, "invalid"),
        // Not encoded, these are routes; and there are none.
        ("GET /documents/../../../etc/passwd", 404, "not_found"),
        ("GET /documents/../stats", 404, "not_found"),
        ("GET /documents/", 404, "not_found"),
        ("GET /../../openapi.json", 404, "not_found"),
        ("POST /documents", 405, "method_not_allowed"),
    ] {
        assert_eq!(
            world.admin.refused(what).await,
            (status, code.to_owned()),
            "{what}"
        );
    }
}

/// Scenario 63.
#[tokio::test]
async fn deleting_a_document_tells_its_sessions_and_it_does_not_come_back() {
    let world = World::new().await;
    let (_ada, notes) = world.with_text("notes", "hello").await;
    let mut state = notes.sync_state();
    world.admin.json("DELETE /documents/notes").await;
    let told = state.wait_for(|state| state.phase == SyncPhase::Deleted);
    within("told", told).await.unwrap();
    // Nobody is in the room any more, and it goes.
    while world
        .server
        .inspect(&DocumentId::new("notes").unwrap())
        .is_some()
    {
        tokio::task::yield_now().await;
    }
    let bob = world.client();
    let his = text(&bob, "notes").await;
    push(&his, "again");
    let saved = within("an answer", his.saved()).await;
    assert!(saved.is_err(), "{saved:?}");
    let gone = world.admin.refused("GET /documents/notes").await;
    assert_eq!(gone, (410, "deleted".to_owned()));
    // As often as one likes.
    world.admin.json("DELETE /documents/notes").await;
    let missing = world.admin.refused("DELETE /documents/other").await;
    assert_eq!(missing, (404, "not_found".to_owned()));
}

#[tokio::test]
async fn a_document_is_exported_imported_and_forked() {
    let world = World::new().await;
    let (ada, notes) = world.with_text("notes", "hello").await;
    let file = world.admin.call("GET /documents/notes/export").await;
    assert_eq!(file.status, 200);
    let export = Export::read_from(&file.body[..]).unwrap();
    assert_eq!((export.meta.id.as_str(), export.log.len()), ("notes", 1));

    // Under another name; then there is one.
    let put = world
        .admin
        .call_with("PUT /documents/copy/import", &file.body)
        .await;
    assert_eq!((put.status, &put.json()["head"]), (200, &json!(1)));
    let again = world
        .admin
        .call_with("PUT /documents/copy/import", &file.body)
        .await;
    assert_eq!((again.status, again.code().as_str()), (409, "exists"));
    let copy = text(&ada, "copy").await;
    until(&copy, "the copy arrives", |copy, _| {
        content(copy) == "hello"
    })
    .await;

    // What was typed since then is dropped where the operator says so.
    push(&notes, ", and a mistake");
    within("saved", notes.saved()).await.unwrap();
    let what = "PUT /documents/notes/import?replace=true&mode=discard";
    let put = world.admin.call_with(what, &file.body).await;
    assert_eq!((put.status, &put.json()["mode"]), (200, &json!("discard")));
    until(&notes, "the mistake goes", |notes, _| {
        content(notes) == "hello"
    })
    .await;

    let forked = world
        .admin
        .json("POST /documents/notes/fork?to=draft%2F1")
        .await;
    assert_eq!(
        (&forked["document"], &forked["mode"]),
        (&json!("draft/1"), &json!("new"))
    );
    let draft = text(&ada, "draft/1").await;
    until(&draft, "the fork arrives", |draft, _| {
        content(draft) == "hello"
    })
    .await;
    push(&draft, "!");
    within("saved", draft.saved()).await.unwrap();
    assert_eq!(content(&notes), "hello");
    let taken = world
        .admin
        .refused("POST /documents/notes/fork?to=draft%2F1")
        .await;
    assert_eq!(taken, (409, "exists".to_owned()));
    world.admin.json("DELETE /documents/draft%2F1").await;
    let taken = world
        .admin
        .refused("POST /documents/notes/fork?to=draft%2F1")
        .await;
    assert_eq!(taken, (410, "deleted".to_owned()));
    let nothing = world.admin.refused("POST /documents/other/fork?to=x").await;
    assert_eq!(nothing, (404, "not_found".to_owned()));
    let damaged = world
        .admin
        .call_with("PUT /documents/bad/import", b"SYNCDOC\nno")
        .await;
    assert_eq!((damaged.status, damaged.code().as_str()), (400, "invalid"));
}

#[tokio::test]
async fn a_document_is_read_and_compacted_where_its_engine_can() {
    let world = World::new().await;
    let (ada, notes) = world.with_text("notes", "hello").await;
    push(&notes, " world");
    within("saved", notes.saved()).await.unwrap();
    let read = world.admin.json("GET /documents/notes/json").await;
    assert_eq!(read, json!({ "body": "hello world" }));
    let fold = world.admin.json("POST /documents/notes/compact").await;
    assert_eq!(fold["seq"], 2);
    let inspected = world.admin.json("GET /documents/notes").await;
    assert_eq!(inspected["stored"]["snapshot_seq"], 2);
    assert_eq!(inspected["stored"]["log_changes"], 0);
    assert_eq!(inspected["stored"]["snapshot_bytes"], fold["bytes"]);
    assert_eq!(inspected["live"]["stats"]["last_fold"]["seq"], 2);
    // Whoever has it open goes on, and who comes then gets the snapshot.
    push(&notes, "!");
    within("saved", notes.saved()).await.unwrap();
    let bob = world.client();
    let his = text(&bob, "notes").await;
    until(&his, "the text arrives", |his, _| {
        content(his) == "hello world!"
    })
    .await;

    let new = NewDocument::new(
        DocumentId::new("bytes").unwrap(),
        EngineId::OPAQUE,
        Epoch(7),
    );
    world.registry.create(new).await.unwrap();
    for what in [
        "GET /documents/bytes/json",
        "GET /documents/notes/json/more",
    ] {
        let (status, _) = world.admin.refused(what).await;
        assert!(matches!(status, 404 | 409), "{what}");
    }
    let read = world.admin.refused("GET /documents/bytes/json").await;
    assert_eq!(read, (409, "unsupported".to_owned()));
    let missing = world.admin.refused("GET /documents/other/json").await;
    assert_eq!(missing, (404, "not_found".to_owned()));
    drop(ada);
}

#[tokio::test]
async fn an_evicted_document_is_loaded_afresh_and_its_sessions_come_back() {
    let world = World::new().await;
    let (_ada, notes) = world.with_text("notes", "hello").await;
    let mut events = world.admin.events().await;
    assert_eq!(
        world.admin.json("POST /documents/notes/evict").await["unloaded"],
        true
    );
    assert_eq!(events.next_of("room_unloaded").await["document"], "notes");
    assert_eq!(events.next_of("room_loaded").await["document"], "notes");
    push(&notes, " again");
    within("saved", notes.saved()).await.unwrap();
    // Nothing to do.
    assert_eq!(
        world.admin.json("POST /documents/other/evict").await["unloaded"],
        true
    );
}

#[tokio::test]
async fn a_broadcast_of_the_server_reaches_whoever_has_the_document_open() {
    let world = World::new().await;
    let (_ada, notes) = world.with_text("notes", "hello").await;
    let mut events = world.admin.events().await;
    let what = "POST /documents/notes/broadcast?topic=notice%20board";
    let sent = world.admin.call_with(what, b"closing soon").await;
    assert_eq!((sent.status, &sent.json()["n_sessions"]), (200, &json!(1)));
    let told = events.next_of("broadcast").await;
    assert_eq!(
        (&told["document"], &told["session"]),
        (&json!("notes"), &Value::Null)
    );
    let sent = world
        .admin
        .call_with("POST /documents/other/broadcast?topic=x", b"x")
        .await;
    assert_eq!((sent.status, &sent.json()["n_sessions"]), (200, &json!(0)));
    let large = vec![b'x'; 1 << 20];
    let refused = world.admin.call_with(what, &large).await;
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (413, "too_large")
    );
    let refused = world.admin.refused("POST /documents/notes/broadcast").await;
    assert_eq!(refused, (400, "invalid".to_owned()));
    push(&notes, "!");
    within("saved", notes.saved()).await.unwrap();
}

#[tokio::test]
async fn a_user_is_disconnected() {
    let world = World::new().await;
    let bot = world.server.client(User::new("a/bot")).unwrap();
    let board = e2e::map(&bot, "board").await;
    set(&board, "a", "1");
    within("saved", board.saved()).await.unwrap();
    let mut events = world.admin.events().await;
    let ended = world.admin.json("POST /users/a%2Fbot/disconnect").await;
    assert_eq!(ended["n_sessions"], 1);
    let closed = events.next_of("session_closed").await;
    assert_eq!(closed["code"], "Unauthenticated");
    let nobody = world.admin.json("POST /users/nobody/disconnect").await;
    assert_eq!(nobody["n_sessions"], 0);
}

#[tokio::test]
async fn events_are_streamed_until_the_server_ends() {
    let world = World::new().await;
    let mut events = world.admin.events().await;
    let (ada, _notes) = world.with_text("notes", "hello").await;
    let opened = events.next_of("session_opened").await;
    assert_eq!(opened["user"], "anonymous");
    let committed = events.next_of("committed").await;
    assert_eq!(committed["document"], "notes");
    assert_eq!(committed["user"], "anonymous");
    drop(ada);
    world.server.shutdown(Duration::ZERO).await;
    while events.next().await.is_some() {}
}

#[tokio::test]
async fn streams_of_events_are_bounded_and_make_room_when_they_end() {
    let world = World::new().await;
    let mut open = Vec::new();
    for _ in 0..32 {
        open.push(world.admin.events().await);
    }
    let refused = world.admin.refused("GET /events").await;
    assert_eq!(refused, (503, "unavailable".to_owned()));
    drop(open);
    // Noticed when something is to be sent.
    while world.admin.try_events().await.is_none() {
        world.with_text("notes", "x").await;
    }
}

#[tokio::test]
async fn a_registry_that_fails_is_told_from_a_document_that_is_not_there() {
    let faulty = Arc::new(FaultyRegistry::new(MemoryRegistry::new()));
    let world = World::on(Arc::clone(&faulty)).await;
    faulty.fail_reads(1);
    let failed = world.admin.refused("GET /documents/notes").await;
    assert_eq!(failed, (503, "unavailable".to_owned()));
    let missing = world.admin.refused("GET /documents/notes").await;
    assert_eq!(missing, (404, "not_found".to_owned()));
    // This one neither exports nor imports.
    let refused = world.admin.refused("GET /documents/notes/export").await;
    assert_eq!(refused, (409, "unsupported".to_owned()));
}

/// The description is made from the code, and this compares it with what is answered.
#[tokio::test]
async fn every_route_is_described() {
    let world = World::new().await;
    let credentials = format!("Authorization: Bearer {TOKEN}");
    let answer = send(
        world.admin.0,
        "GET /admin/openapi.json",
        &[&credentials],
        &[],
    )
    .await;
    let api = answer.json();
    assert_eq!(answer.text(), http::admin_openapi());
    let mut found = Vec::new();
    for (path, methods) in api["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(!operation["summary"].as_str().unwrap_or_default().is_empty());
            assert!(operation["responses"]["200"].is_object(), "{path}");
            assert!(operation["responses"]["default"].is_object(), "{path}");
            found.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    found.sort();
    let expected = [
        "DELETE /admin/api/v1/documents/{document}",
        "GET /admin/api/v1/documents",
        "GET /admin/api/v1/documents/{document}",
        "GET /admin/api/v1/documents/{document}/export",
        "GET /admin/api/v1/documents/{document}/json",
        "GET /admin/api/v1/events",
        "GET /admin/api/v1/live",
        "GET /admin/api/v1/sessions",
        "GET /admin/api/v1/stats",
        "POST /admin/api/v1/documents/{document}/broadcast",
        "POST /admin/api/v1/documents/{document}/compact",
        "POST /admin/api/v1/documents/{document}/evict",
        "POST /admin/api/v1/documents/{document}/fork",
        "POST /admin/api/v1/users/{user}/disconnect",
        "PUT /admin/api/v1/documents/{document}/import",
    ];
    assert_eq!(found, expected);
    // What is referred to is there.
    let mut left = vec![&api];
    while let Some(value) = left.pop() {
        if let Some(name) = value["$ref"].as_str() {
            let pointer = name.strip_prefix('#').unwrap();
            assert!(api.pointer(pointer).is_some(), "{name}");
        }
        match value {
            Value::Object(fields) => left.extend(fields.values()),
            Value::Array(items) => left.extend(items),
            _ => {}
        }
    }
    // What is answered has the fields that are described.
    let stats = world.admin.json("GET /stats").await;
    let described = &api["components"]["schemas"]["ServerStats"]["properties"];
    let keys =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys(described), keys(&stats));
    assert_eq!(api["security"], json!([{ "admin": [] }]));
}
