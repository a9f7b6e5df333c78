//! Messages of plugins, both ways.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod e2e;
mod registries;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use e2e::slow::Slow;
use e2e::{Over, World, text, within};
use sync_client::{Client, ClientEvent, ErrorCode, Events, Extension, ExtensionError, SessionId};
use sync_core::rate::Rate;
use sync_server::hooks::{ExtensionContext, HookFailure};
use sync_server::{DocumentId, Limits, SendError, ServerEvent, ServerHooks};

const ROOM: &str = "room";
const ECHO: u8 = 200;
const SLOW: u8 = 201;
const BROKEN: u8 = 255;

type Seen = (u8, Option<DocumentId>, Vec<u8>);

/// Answers what it gets; one type takes for ever, another panics.
#[derive(Clone, Default)]
struct Echo(Arc<Mutex<Vec<Seen>>>);

#[async_trait]
impl ServerHooks for Echo {
    async fn extension(&self, extension: &ExtensionContext<'_>) {
        assert_ne!(extension.kind, BROKEN, "a fault of the hook");
        if extension.kind == SLOW {
            return std::future::pending().await;
        }
        let bytes = extension.bytes.to_vec();
        let document = extension.document.cloned();
        self.0
            .lock()
            .unwrap()
            .push((extension.kind, document, bytes));
        let answer = format!(
            "{} said {}",
            extension.user.id,
            String::from_utf8_lossy(extension.bytes)
        );
        match extension.document {
            None => extension
                .server
                .send_extension(extension.session, extension.kind, answer)
                .unwrap(),
            Some(document) => {
                let n = extension.server.broadcast_extension(document, ECHO, answer);
                assert_eq!(n, Ok(2));
            }
        }
    }
}

fn id() -> DocumentId {
    ROOM.try_into().unwrap()
}

async fn received(extensions: &mut Events<Extension>) -> Seen {
    match within("an extension message", extensions.next())
        .await
        .unwrap()
    {
        Extension::Received {
            kind,
            document,
            bytes,
        } => (kind, document, bytes.to_vec()),
        other => panic!("{other:?}"),
    }
}

async fn session(events: &mut Events<ClientEvent>) -> SessionId {
    loop {
        if let Some(ClientEvent::SessionStarted { session }) =
            within("a session", events.next()).await
        {
            return session;
        }
    }
}

async fn both_ways(over: Over) {
    let echo = Echo::default();
    let hooks = echo.clone();
    let world = World::with(over, |builder| builder.hooks(hooks)).await;
    let (ann, bob) = (world.client(), world.client());
    let mut events = ann.events();
    let mut server = world.server.events();
    let (mut a_gets, mut b_gets) = (ann.extensions(), bob.extensions());
    let session = session(&mut events).await;
    let (a, b) = (text(&ann, ROOM).await, text(&bob, ROOM).await);
    for document in [&a, &b] {
        within("caught up", document.caught_up()).await.unwrap();
    }

    // A hook that panics kills nothing.
    ann.extend(BROKEN, "").unwrap();
    ann.extend(ECHO, "hello").unwrap();
    let answer = (ECHO, None, b"anonymous said hello".to_vec());
    assert_eq!(received(&mut a_gets).await, answer);
    a.extend(ECHO, "to all").unwrap();
    let answer = (ECHO, Some(id()), b"anonymous said to all".to_vec());
    assert_eq!(received(&mut a_gets).await, answer);
    assert_eq!(received(&mut b_gets).await, answer, "of what it has open");
    assert_eq!(
        *echo.0.lock().unwrap(),
        [
            (ECHO, None, b"hello".to_vec()),
            (ECHO, Some(id()), b"to all".to_vec())
        ]
    );

    let failed = async {
        while !matches!(
            server.next().await,
            Some(ServerEvent::HookFailed {
                failure: HookFailure::Panicked,
                ..
            })
        ) {}
    };
    within("it is told", failed).await;

    // Unasked, by whoever has the server.
    world.server.send_extension(session, 128, "psst").unwrap();
    assert_eq!(received(&mut a_gets).await, (128, None, b"psst".to_vec()));
    assert!(b_gets.try_next().is_none());
    assert!(world.log(ROOM).await.is_empty());
    ann.disconnect();
    assert_eq!(a.extend(ECHO, "too late"), Err(ExtensionError::Offline));
    assert_eq!(ann.extend(ECHO, "too late"), Err(ExtensionError::Offline));
}

/// Scenario 71.
#[tokio::test(start_paused = true)]
async fn messages_of_plugins_go_both_ways() {
    both_ways(Over::Memory).await;
}

/// Scenario 71.
#[tokio::test]
async fn messages_of_plugins_over_websockets() {
    both_ways(Over::WebSocket).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_over_a_limit_is_an_error_at_once_on_both_sides() {
    let world = World::with(Over::Memory, |builder| {
        let mut limits = Limits::default();
        limits.extension_bytes_max = 1_000;
        limits.extension_rate = Rate::new(1, 2);
        builder.limits(limits).hooks(Echo::default())
    })
    .await;
    let client = world.client();
    let mut events = client.events();
    let mut gets = client.extensions();
    let session = session(&mut events).await;
    assert_eq!(
        client.extend(127, ""),
        Err(ExtensionError::WrongKind { kind: 127 })
    );
    assert_eq!(
        client.extend(ECHO, vec![0; 1_001]),
        Err(ExtensionError::TooLarge {
            bytes: 1_001,
            max: 1_000
        })
    );
    for n in ["1", "2"] {
        client.extend(ECHO, n).unwrap();
    }
    let Err(ExtensionError::TooFast { retry_in }) = client.extend(ECHO, "3") else {
        panic!("the rate is 2 at once");
    };
    tokio::time::sleep(retry_in).await;
    client.extend(ECHO, "3").unwrap();
    for n in ["1", "2", "3"] {
        let answer = format!("anonymous said {n}").into_bytes();
        assert_eq!(received(&mut gets).await, (ECHO, None, answer));
    }

    let server = &world.server;
    let send = |kind, bytes: usize| server.send_extension(session, kind, vec![0; bytes]);
    assert_eq!(send(127, 0), Err(SendError::WrongKind { kind: 127 }));
    assert!(matches!(send(200, 1_001), Err(SendError::TooLarge { .. })));
    let nobody = SessionId(session.0.wrapping_add(1));
    assert_eq!(
        server.send_extension(nobody, 200, ""),
        Err(SendError::NoSession)
    );
    assert_eq!(server.broadcast_extension(&id(), 200, ""), Ok(0));
}

#[tokio::test(start_paused = true)]
async fn what_a_session_does_not_read_is_bounded_and_what_waits_arrives() {
    let world = World::memory().await;
    let slow = Client::with_dialer(Slow {
        dialer: world.network.dialer(),
        pause: std::time::Duration::from_secs(1),
    });
    let slow = slow.compression(false).start().unwrap();
    let mut events = slow.events();
    let mut gets = slow.extensions();
    let session = session(&mut events).await;
    let mut sent = 0;
    let full = loop {
        match world.server.send_extension(session, ECHO, vec![0; 60_000]) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        tokio::task::yield_now().await;
        assert!(sent < 100, "without bound");
    };
    assert_eq!(full, SendError::Full);
    for _ in 0..sent {
        received(&mut gets).await;
    }
    world.server.send_extension(session, ECHO, "again").unwrap();
    assert_eq!(received(&mut gets).await.2, b"again");
}

/// Scenario 71: a hook that hangs or panics costs its own session what it asked for, and nothing else.
#[tokio::test(start_paused = true)]
async fn a_plugin_that_hangs_or_panics_kills_nothing() {
    let world = World::with(Over::Memory, |builder| {
        let mut limits = Limits::default();
        limits.extension_rate = Rate::new(1_000, 1_000);
        builder.limits(limits).hooks(Echo::default())
    })
    .await;
    let (ann, bob) = (world.client(), world.client());
    let (mut a_events, mut b_events) = (ann.events(), bob.events());
    let mut server = world.server.events();
    let (mut a_gets, mut b_gets) = (ann.extensions(), bob.extensions());
    session(&mut a_events).await;
    session(&mut b_events).await;
    ann.extend(SLOW, "").unwrap();
    ann.extend(BROKEN, "").unwrap();
    ann.extend(ECHO, "after").unwrap();
    // Only so many wait; who sends more is told.
    for _ in 0..100 {
        ann.extend(BROKEN, "").unwrap();
    }
    bob.extend(ECHO, "meanwhile").unwrap();
    let started = tokio::time::Instant::now();
    assert_eq!(received(&mut b_gets).await.2, b"anonymous said meanwhile");
    assert!(started.elapsed().is_zero(), "nobody else waits");
    assert_eq!(received(&mut a_gets).await.2, b"anonymous said after");
    let mut n_refused = 0;
    while let Some(event) = a_events.try_next() {
        match event {
            ClientEvent::SessionError { error } => {
                assert_eq!(error.code, ErrorCode::ExtensionTooFast);
                n_refused += 1;
            }
            ClientEvent::SessionEnded(reason) => panic!("{reason:?}"),
            _ => {}
        }
    }
    assert_eq!(n_refused, 103 - 1 - 64);
    let mut failures = Vec::new();
    while failures.len() < 2 {
        if let Some(ServerEvent::HookFailed { call, failure }) =
            within("an event", server.next()).await
        {
            failures.push(format!("{call} {failure}"));
        }
    }
    assert_eq!(failures, ["extension took too long", "extension panicked"]);
}

/// A server without plugins ignores their messages, and says so.
#[tokio::test(start_paused = true)]
async fn without_a_plugin_messages_are_ignored() {
    let world = World::memory().await;
    let client = world.client();
    let mut events = client.events();
    session(&mut events).await;
    let mut server = world.server.events();
    client.extend(ECHO, "anybody?").unwrap();
    let told = within("an event", server.next()).await;
    assert!(
        matches!(
            told,
            Some(ServerEvent::MessageIgnored {
                message: "Extension",
                ..
            })
        ),
        "{told:?}"
    );
}
