//! Every event is told once, with its data.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "scenarios are plain async functions"
)]

mod e2e;
mod registries;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use e2e::frames::{Peer, frame, hello, receive, rest, send, welcome};
use e2e::tap::{Tap, Way};
use e2e::{Over, World, content, map, push, set, text, until_status, within};
use sync_client::store::{StoreWrite, StoredDocument};
use sync_client::transport::memory::MemoryAcceptor;
use sync_client::{
    AccessLevel, ClientEvent, ClientStore, DocumentEvent, EndReason, ErrorCode, Events,
    FailedReason, MemoryStore, OriginId, PeerError, RefusedReason, SaveError, SessionId, Source,
    Status, StoreError, Yrs,
};
use sync_core::engine::{EngineError, ValidateLimits, Validator};
use sync_core::ids::EngineId;
use sync_core::registry::RegistryError;
use sync_core::transport::{Acceptor, PeerInfo};
use sync_core::wire::{ErrorMessage, Extension, Message, Reference};
use sync_server::registry::{
    ChangeId, DocumentId, Epoch, EpochMode, NewDocument, Seq, ServerRegistry,
};
use sync_server::{Access, Auth, CloseReason, InProcess, Server, ServerEvent, User, authorize_fn};

const NOTES: &str = "notes";

/// The next event, which must be this one.
macro_rules! told {
    ($events:expr, $pattern:pat $(if $guard:expr)?) => {
        let event = within(stringify!($pattern), $events.next()).await.unwrap();
        assert!(matches!(&event, $pattern $(if $guard)?), "{event:?}");
    };
}

/// Validates as yrs does, refuses what is forbidden, and has a fault.
struct Censor;

const FORBIDDEN: &str = "#forbidden";
const FAULT: &str = "#fault";

impl Validator for Censor {
    fn engine(&self) -> EngineId {
        EngineId::YRS
    }

    fn validate(&self, change: &[u8], limits: &ValidateLimits) -> Result<(), EngineError> {
        let contains = |word: &str| change.windows(word.len()).any(|at| at == word.as_bytes());
        assert!(!contains(FAULT), "a fault of the validator");
        if contains(FORBIDDEN) {
            return Err(EngineError::Unsupported {
                what: "such a word",
            });
        }
        Validator::validate(&Yrs::new(), change, limits)
    }
}

async fn censored(over: Over) -> World {
    World::with(over, |server| {
        server.engines(InProcess::default().engine(Censor))
    })
    .await
}

// ---- the client's

/// Scenario 72.
#[tokio::test(start_paused = true)]
async fn a_client_tells_of_its_connection_once_and_in_order() {
    use ClientEvent::{SessionEnded, SessionStarted, StatusChanged};
    let world = World::memory().await;
    let client = world.client();
    let mut events = client.events();
    let mut server = world.server.events();
    told!(events, StatusChanged(Status::Connecting));
    let session = next_session(&mut events).await;
    told!(server, ServerEvent::SessionOpened { session: s, .. } if *s == session);
    told!(events, StatusChanged(Status::Connected));

    world.network.cut();
    told!(events, SessionEnded(EndReason::Lost { close_code: None }));
    let Some(StatusChanged(Status::Reconnecting {
        attempt: 1,
        next_in: drawn,
    })) = events.next().await
    else {
        panic!("it waits");
    };
    assert!(drawn <= Duration::from_millis(500));
    told!(
        events,
        StatusChanged(Status::Reconnecting {
            attempt: 1,
            next_in: Duration::ZERO
        })
    );
    assert_ne!(next_session(&mut events).await, session);
    told!(events, StatusChanged(Status::Connected));

    client.disconnect();
    told!(events, SessionEnded(EndReason::Local));
    told!(events, StatusChanged(Status::Offline));

    // An attempt that fails counts as ended too.
    world.network.set_refusing(true);
    client.connect();
    told!(events, StatusChanged(Status::Connecting));
    told!(events, SessionEnded(EndReason::Lost { close_code: None }));
    told!(
        events,
        StatusChanged(Status::Failed(FailedReason::Refused(_)))
    );
    world.network.set_refusing(false);
    client.connect();
    told!(events, StatusChanged(Status::Connecting));
    told!(events, SessionStarted { .. });
    told!(events, StatusChanged(Status::Connected));

    let drain = Duration::from_secs(30);
    let stopping = world.server.clone();
    tokio::spawn(async move { stopping.shutdown(drain).await });
    told!(events, ClientEvent::GoingAway { reconnect_in } if *reconnect_in <= drain);
    told!(events, SessionEnded(EndReason::Local));
    drop(client);
    drop(world);
}

/// Scenario 72: each way in which a session can end is told apart.
#[tokio::test(start_paused = true)]
async fn a_client_tells_why_a_session_ended() {
    let fault = PeerError::new(ErrorCode::Internal, "out of order");
    let broken = Message::Error(ErrorMessage::new(fault.clone(), Reference::Session));
    let broken = frame(&broken);
    let garbage = Bytes::from_static(b"\0garbage");
    for (how, expected) in [
        ("cut", EndReason::Lost { close_code: None }),
        (
            "close",
            EndReason::Lost {
                close_code: Some(1001),
            },
        ),
        ("stall", EndReason::Silence),
        ("disconnect", EndReason::Local),
        ("error", EndReason::Server(fault)),
        (
            "garbage",
            EndReason::Protocol(PeerError::new(ErrorCode::MalformedFrame, "")),
        ),
    ] {
        let world = World::memory().await;
        let mut acceptor = world.network.acceptor();
        let client = world.client();
        let mut events = client.events();
        let mut server = welcomed(&mut acceptor).await;
        until_status(&client, "connected", Status::is_connected).await;
        match how {
            "cut" => drop(world.network.cut()),
            "close" => poll_fn(|cx| server.poll_close(cx, 1001)).await,
            "stall" => world.network.stall(true),
            "disconnect" => client.disconnect(),
            "error" => send(&mut server, broken.clone()).await,
            _ => send(&mut server, garbage.clone()).await,
        }
        let reason = loop {
            match within("it ends", events.next()).await {
                Some(ClientEvent::SessionEnded(reason)) => break reason,
                Some(_) => {}
                None => panic!("no more events"),
            }
        };
        match (&reason, &expected) {
            (EndReason::Protocol(error), EndReason::Protocol(expected)) => {
                assert_eq!(error.code, expected.code);
            }
            _ => assert_eq!(reason, expected, "{how}"),
        }
    }
}

both! {
    /// Scenario 72.
    a_client_tells_of_its_documents_once => client_of_documents(super::censored)
}

async fn client_of_documents(world: World) {
    let client = world.client();
    until_status(&client, "connected", Status::is_connected).await;
    let mut events = client.events();
    let document = text(&client, NOTES).await;
    told!(events, ClientEvent::DocumentOpened { document, access: AccessLevel::Write }
        if document.as_str() == NOTES);

    push(&document, "fine");
    push(&document, FORBIDDEN);
    push(&document, "behind");
    told!(events, ClientEvent::Refused { document, count: 1 } if document.as_str() == NOTES);
    // What was made behind it comes back when the replica has been rebuilt.
    told!(events, ClientEvent::DocumentOpened { .. });
    told!(events, ClientEvent::Refused { document, count: 1 } if document.as_str() == NOTES);

    world.faults.fail_reads(1);
    let other = text(&client, "other").await;
    told!(events, ClientEvent::DocumentError { document, error }
        if document.as_str() == "other" && error.code == ErrorCode::StorageUnavailable);
    told!(events, ClientEvent::DocumentOpened { document, .. } if document.as_str() == "other");
    within("caught up", other.caught_up()).await.unwrap();
    assert_eq!(events.try_next(), None);
}

/// Scenario 72: once for each write that fails, until one does not.
#[tokio::test(start_paused = true)]
async fn a_client_tells_that_its_store_failed() {
    let world = World::memory().await;
    let store = Failing {
        inner: MemoryStore::new(),
        failures: AtomicUsize::new(3),
    };
    let client = world.builder().store(store).start().unwrap();
    let mut events = client.events();
    let document = text(&client, NOTES).await;
    push(&document, "x");
    within("on the device", document.saved_locally())
        .await
        .unwrap();
    within("and on the server", document.saved()).await.unwrap();
    let mut failures = Vec::new();
    while let Some(event) = events.try_next() {
        if let ClientEvent::StoreFailed { message } = event {
            failures.push(message);
        }
    }
    assert_eq!(
        failures,
        vec![Arc::from("the store failed: no space left"); 3]
    );
}

/// Scenario 72: messages of a newer version, and of plugins that this client does not have.
#[tokio::test(start_paused = true)]
async fn a_client_tells_what_it_ignored() {
    let world = World::memory().await;
    let mut acceptor = world.network.acceptor();
    let client = world.client();
    let mut events = client.events();
    let mut server = welcomed(&mut acceptor).await;
    // MessagePack: an array of one value, the type.
    send(&mut server, Bytes::from_static(&[0, 0x91, 100])).await;
    let extension = Message::Extension(Extension {
        kind: 200,
        channel: None,
        bytes: Bytes::new(),
    });
    send(&mut server, frame(&extension)).await;
    until_status(&client, "connected", Status::is_connected).await;
    told!(events, ClientEvent::StatusChanged(Status::Connecting));
    told!(events, ClientEvent::SessionStarted { .. });
    told!(events, ClientEvent::StatusChanged(Status::Connected));
    told!(events, ClientEvent::Ignored { kind: 100 });
    told!(events, ClientEvent::Ignored { kind: 200 });
    assert_eq!(events.try_next(), None);
}

// ---- a document's

both! {
    /// Scenario 72.
    a_document_tells_of_changes_here_and_elsewhere_once => document_of_changes
}

async fn document_of_changes(world: World) {
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (text(&ann, NOTES).await, text(&bob, NOTES).await);
    let (mut at_a, mut at_b) = (a.events(), b.events());
    a.edit(|txn| {
        use sync_client::yrs::{Map, WriteTxn};
        e2e::append(txn, "x");
        let meta = txn.get_or_insert_map("meta");
        meta.insert(txn, "title", "y");
    })
    .unwrap();
    let names = |roots: &[Arc<str>]| {
        roots
            .iter()
            .map(|root| root.to_string())
            .collect::<Vec<_>>()
    };
    told!(at_a, DocumentEvent::Changed { source: Source::Local, roots }
        if names(roots) == ["body", "meta"]);
    told!(at_b, DocumentEvent::Changed { source: Source::Remote, roots }
        if names(roots) == ["body", "meta"]);

    let (c, d) = (map(&ann, "grid").await, map(&bob, "grid").await);
    let (mut at_c, mut at_d) = (c.events(), d.events());
    set(&c, "cell", "x");
    told!(at_c, DocumentEvent::Changed { source: Source::Local, roots } if roots.is_empty());
    told!(at_d, DocumentEvent::Changed { source: Source::Remote, roots } if roots.is_empty());

    within("saved", a.saved()).await.unwrap();
    within("saved", c.saved()).await.unwrap();
    for events in [&mut at_a, &mut at_b, &mut at_c, &mut at_d] {
        assert_eq!(events.try_next(), None);
    }
}

both! {
    /// Scenario 72.
    a_document_tells_of_a_refusal_and_its_replacement_once => document_of_a_refusal(super::censored)
}

async fn document_of_a_refusal(world: World) {
    let client = world.client();
    let document = text(&client, NOTES).await;
    within("caught up", document.caught_up()).await.unwrap();
    let mut events = document.events();
    for word in ["fine", FORBIDDEN, "behind"] {
        push(&document, word);
        told!(
            events,
            DocumentEvent::Changed {
                source: Source::Local,
                ..
            }
        );
    }
    told!(events, DocumentEvent::Refused { count: 1 });
    told!(events, DocumentEvent::Replaced);
    told!(events, DocumentEvent::Refused { count: 1 });
    within("caught up", document.caught_up()).await.unwrap();
    assert_eq!(events.try_next(), None);
    assert_eq!(content(&document), "fine");
    let refused = document.refused();
    let reasons: Vec<RefusedReason> = refused.iter().map(|change| change.reason).collect();
    let code = RefusedReason::Code(ErrorCode::InvalidChange);
    assert_eq!(reasons, [code, RefusedReason::Behind]);
}

/// Scenario 72.
#[tokio::test(start_paused = true)]
async fn a_document_tells_of_its_access_and_its_end_once() {
    let auth = Auth::new(
        Named("ada"),
        authorize_fn(|_, document| async move {
            Ok(match document.as_str() {
                NOTES => Access::read(),
                _ => Access::write(),
            })
        }),
    );
    let mut world = World::memory().await;
    let writer = world.client();
    let written = text(&writer, NOTES).await;
    push(&written, "x");
    within("saved", written.saved()).await.unwrap();
    world.stop().await;
    world.server = Server::builder(world.faults.clone(), auth).build().unwrap();
    world.listen().await;

    let client = world.client();
    let document = text(&client, NOTES).await;
    let mut events = document.events();
    told!(events, DocumentEvent::AccessChanged(AccessLevel::Read));
    told!(
        events,
        DocumentEvent::Changed {
            source: Source::Remote,
            ..
        }
    );
    within("caught up", document.caught_up()).await.unwrap();
    assert_eq!(document.sync_state().get().access, AccessLevel::Read);

    client.disconnect();
    world.registry.delete(&notes()).await.unwrap();
    client.connect();
    told!(events, DocumentEvent::Deleted);
    let saved = within("it is over", document.caught_up()).await;
    assert_eq!(saved, Err(SaveError::Deleted));
    assert_eq!(events.try_next(), None);
}

// ---- the server's

/// Scenario 72.
#[tokio::test(start_paused = true)]
async fn a_server_tells_of_a_documents_life_once_and_in_order() {
    use ServerEvent as E;
    let world = censored(Over::Memory).await;
    let mut events = world.server.events();
    let (client, tap) = world.tapped();
    let client = client.start().unwrap();
    let mut at_client = client.events();
    let document = text(&client, NOTES).await;
    let user = User::new("anonymous");

    told!(at_client, ClientEvent::StatusChanged(_));
    let session = next_session(&mut at_client).await;
    told!(events, E::SessionOpened { session: s, user: u, peer }
        if *s == session && *u == user && *peer == PeerInfo::default());
    told!(events, E::RoomLoaded { document, head: Seq::ZERO } if *document == notes());
    told!(events, E::DocumentOpened { session: s, document, access: AccessLevel::Write }
        if *s == session && *document == notes());

    push(&document, "one");
    within("saved", document.saved()).await.unwrap();
    let origin = origin_of(&tap);
    told!(events, E::Committed { document, first: Seq(1), last: Seq(1), origin: o, user: u }
        if *document == notes() && *o == origin && *u == user);

    push(&document, FORBIDDEN);
    let refused = within("refused", document.saved()).await;
    let change = ChangeId { origin, number: 2 };
    assert_eq!(refused, Err(SaveError::Refused(vec![change])));
    told!(events, E::Refused { document, change: c, user: u, code: ErrorCode::InvalidChange }
        if *document == notes() && *c == change && *u == user);
    within("rebuilt", document.caught_up()).await.unwrap();
    assert!(document.drop_refused(change));

    push(&document, FAULT);
    let refused = within("refused", document.saved()).await;
    let change = document.refused()[0].id;
    assert_eq!(refused, Err(SaveError::Refused(vec![change])));
    told!(events, E::ValidatorPanicked { document, change: c }
        if *document == notes() && *c == change);
    told!(events, E::Refused { change: c, code: ErrorCode::InvalidChange, .. } if *c == change);
    within("rebuilt", document.caught_up()).await.unwrap();
    assert!(document.drop_refused(change));

    let old = world.registry.meta(&notes()).await.unwrap().epoch;
    let mut restored = NewDocument::new(notes(), EngineId::YRS, Epoch(99));
    restored.mode = EpochMode::Merge;
    world.registry.replace(restored, Vec::new()).await.unwrap();
    push(&document, " two");
    within("saved", document.saved()).await.unwrap();
    told!(events, E::HistoryReplaced { document, epoch }
        if *document == notes() && *epoch == old);
    // What the new history lacked, and what was pending.
    told!(
        events,
        E::Committed {
            first: Seq(1),
            last: Seq(1),
            ..
        }
    );
    told!(
        events,
        E::Committed {
            first: Seq(2),
            last: Seq(2),
            ..
        }
    );

    world.faults.fail_reads(1);
    let other = text(&client, "other").await;
    within("caught up", other.caught_up()).await.unwrap();
    told!(events, E::RegistryFailed { document, call: "open", error }
        if document.as_str() == "other" && matches!(**error, RegistryError::Unavailable { .. }));
    told!(events, E::RoomLoaded { document, .. } if document.as_str() == "other");
    told!(events, E::DocumentOpened { document, .. } if document.as_str() == "other");

    document.close();
    told!(events, E::DocumentClosed { session: s, document }
        if *s == session && *document == notes());
    told!(events, E::RoomUnloaded { document } if *document == notes());
    client.disconnect();
    told!(events, E::DocumentClosed { session: s, document }
        if *s == session && document.as_str() == "other");
    told!(events, E::SessionClosed { session: s, reason: CloseReason::ByClient { code: Some(1000) } }
        if *s == session);
    told!(events, E::RoomUnloaded { document } if document.as_str() == "other");
    assert!(events.try_next().is_none());
}

both! {
    /// Scenario 72.
    a_server_tells_of_peers_that_misbehave_once => server_of_peers
}

async fn server_of_peers(world: World) {
    use ServerEvent as E;
    let mut events = world.server.events();
    let mut peer = world.dial().await;
    send(&mut peer, hello(1)).await;
    let Some(Message::Welcome(welcome)) = receive(&mut peer).await else {
        panic!("it is welcomed");
    };
    told!(events, E::SessionOpened { session, .. } if *session == welcome.session);
    let extension = Message::Extension(Extension {
        kind: 200,
        channel: None,
        bytes: Bytes::new(),
    });
    send(&mut peer, frame(&extension)).await;
    told!(events, E::MessageIgnored { session, message: "Extension" }
        if *session == welcome.session);
    send(&mut peer, Bytes::from_static(b"\0garbage")).await;
    let (messages, _) = rest(&mut peer).await;
    let Some(Message::Error(error)) = messages.last() else {
        panic!("{messages:?}");
    };
    let error = PeerError::new(error.code, error.message.clone());
    told!(events, E::ProtocolError { session, error: e }
        if *session == welcome.session && *e == error);
    told!(events, E::SessionClosed { session, reason: CloseReason::Ended(e) }
        if *session == welcome.session && *e == error);

    drop(world.dial().await);
    told!(events, E::ConnectionFailed { peer, reason: CloseReason::Lost { .. } }
        if peer.address.is_none() == world.is_virtual());
    assert!(events.try_next().is_none());
}

// ---- who falls behind

/// Scenario 72: what a slow reader lost is counted, nothing that it still gets is.
#[tokio::test(start_paused = true)]
async fn whoever_falls_behind_is_told_how_much_was_missed() {
    const EDITS: u64 = 1_500;
    let world = World::memory().await;
    let (mut at_server, mut in_time) = (world.server.events(), world.server.events());
    let client = world.client();
    let document = text(&client, NOTES).await;
    let mut at_document = document.events();
    let mut committed = 0;
    for _ in 0..EDITS {
        push(&document, "x");
        within("saved", document.saved()).await.unwrap();
        while let Some(event) = in_time.try_next() {
            committed += u64::from(matches!(event, ServerEvent::Committed { .. }));
        }
    }
    assert_eq!(committed, EDITS);
    let first = at_document.try_next();
    let Some(DocumentEvent::Lagged { missed }) = first else {
        panic!("{first:?}");
    };
    assert_eq!(missed + drained(&mut at_document), EDITS);
    let first = at_server.try_next();
    let Some(ServerEvent::Lagged { missed }) = first else {
        panic!("{first:?}");
    };
    // Three more: the session, the room, the document.
    assert_eq!(missed + drained(&mut at_server), EDITS + 3);

    let mut at_client = client.events();
    let mut changes = 0;
    for _ in 0..500 {
        client.disconnect();
        until_status(&client, "offline", |s| *s == Status::Offline).await;
        client.connect();
        until_status(&client, "connected", Status::is_connected).await;
        changes += 3;
    }
    let first = at_client.try_next();
    let Some(ClientEvent::Lagged { missed }) = first else {
        panic!("{first:?}");
    };
    assert!(missed + drained(&mut at_client) >= changes);
}

// ---- helpers

/// A store whose disk is full for so many writes.
struct Failing {
    inner: MemoryStore,
    failures: AtomicUsize,
}

#[async_trait]
impl ClientStore for Failing {
    fn bind(&self, account: &str) -> Result<(), StoreError> {
        self.inner.bind(account)
    }

    async fn load(&self, document: &DocumentId) -> Result<Option<StoredDocument>, StoreError> {
        self.inner.load(document).await
    }

    async fn commit(&self, document: &DocumentId, write: &StoreWrite) -> Result<(), StoreError> {
        let left = self.failures.load(Ordering::Relaxed);
        if left > 0 {
            self.failures.store(left - 1, Ordering::Relaxed);
            return Err(StoreError::Failed("no space left".into()));
        }
        self.inner.commit(document, write).await
    }

    async fn remove(&self, document: &DocumentId) -> Result<(), StoreError> {
        self.inner.remove(document).await
    }

    async fn list(&self) -> Result<Vec<(DocumentId, usize)>, StoreError> {
        self.inner.list().await
    }
}

/// Everybody is this user.
struct Named(&'static str);

#[async_trait]
impl sync_server::Authenticator for Named {
    async fn authenticate(
        &self,
        _: &sync_server::ConnectRequest,
    ) -> Result<sync_server::Identity, sync_server::AuthError> {
        Ok(User::new(self.0).into())
    }
}

fn notes() -> DocumentId {
    DocumentId::new(NOTES).unwrap()
}

async fn next_session(events: &mut Events<ClientEvent>) -> SessionId {
    match within("a session starts", events.next()).await {
        Some(ClientEvent::SessionStarted { session }) => session,
        other => panic!("{other:?}"),
    }
}

fn origin_of(tap: &Tap) -> OriginId {
    let hellos = tap.pick(Way::Up, |message| match message {
        Message::Hello(hello) => Some(hello.origin),
        _ => None,
    });
    hellos[0]
}

fn drained<T: sync_core::events::Event>(events: &mut Events<T>) -> u64 {
    let mut count = 0;
    while events.try_next().is_some() {
        count += 1;
    }
    count
}

/// A scripted server that has welcomed its first client.
async fn welcomed(acceptor: &mut MemoryAcceptor) -> Peer {
    let (mut client, _) = acceptor.accept().await.unwrap().unwrap();
    let hello = receive(&mut client).await;
    assert!(matches!(hello, Some(Message::Hello(_))), "{hello:?}");
    send(&mut client, welcome()).await;
    client
}
