//! Applications that edit documents together.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "scenarios are plain async functions"
)]

mod e2e;
mod registries;

use std::panic::{AssertUnwindSafe, catch_unwind};

use async_trait::async_trait;
use e2e::frames::{frame, hello_as, receive, send};
use e2e::tap::{Tap, Way};
use e2e::{Over, World, append, content, get, map, push, set, text, until, until_status, within};
use sync_client::transport::memory::MemoryNetwork;
use sync_client::transport::{DialError, Dialer, Transport};
use sync_client::{
    AccessLevel, Client, ClientEvent, DocumentEvent, EditError, EngineId, ErrorCode, OriginId,
    Source, Status, User, Yrs,
};
use sync_core::ids::RequestId;
use sync_core::wire::{Message, Open, Push};
use sync_server::registry::HoldPoint;
use sync_server::{
    Access, Auth, AuthError, Authenticator, ConnectRequest, Identity, Limits, ServerEvent,
    authorize_fn,
};

both! {
    /// Scenario 16.
    connecting_is_one_handshake_with_a_session_id => one_handshake
}

async fn one_handshake(world: World) {
    let mut server = world.server.events();
    let (client, tap) = world.tapped();
    let client = client.start().unwrap();
    let mut events = client.events();
    assert_eq!(client.status().get(), Status::Connecting);

    until_status(&client, "connected", Status::is_connected).await;
    assert_eq!(tap.names(Way::Up), ["Hello"]);
    assert_eq!(tap.names(Way::Down), ["Welcome"]);
    assert_eq!(
        events.next().await,
        Some(ClientEvent::StatusChanged(Status::Connecting))
    );
    let Some(ClientEvent::SessionStarted { session }) = events.next().await else {
        panic!("the session starts");
    };
    assert_eq!(
        events.next().await,
        Some(ClientEvent::StatusChanged(Status::Connected))
    );
    assert_eq!(events.try_next(), None);
    let opened = within("the server tells", server.next()).await;
    assert!(
        matches!(opened, Some(ServerEvent::SessionOpened { session: s, .. }) if s == session),
        "{opened:?}"
    );
}

both! {
    /// Scenario 30.
    an_edit_reaches_the_server_and_the_other_client_once => edit_reaches_everybody
}

async fn edit_reaches_everybody(world: World) {
    let (ann, tap) = world.tapped();
    let (ann, bob) = (ann.start().unwrap(), world.client());
    let (a, b) = (text(&ann, "notes").await, text(&bob, "notes").await);
    within("ann is there", a.caught_up()).await.unwrap();
    within("bob is there", b.caught_up()).await.unwrap();
    let (mut at_a, mut at_b) = (a.events(), b.events());
    tap.clear();

    push(&a, "hello");
    within("saved", a.saved()).await.unwrap();
    until(&b, "bob has it", |b, _| content(b) == "hello").await;
    within("caught up", b.caught_up()).await.unwrap();

    assert!(a.sync_state().get().is_saved());
    assert_eq!(world.log("notes").await.len(), 1);
    // The author is told where it stands, and does not get it back.
    assert_eq!(tap.names(Way::Up), ["Push"]);
    assert_eq!(tap.names(Way::Down), ["Ack"]);
    let acks = tap.pick(Way::Down, |message| match message {
        Message::Ack(ack) => Some((ack.check, ack.number, ack.count)),
        _ => None,
    });
    assert_eq!(acks, [(1, 1, 1)]);
    for (document, events, by) in [
        (&a, &mut at_a, Source::Local),
        (&b, &mut at_b, Source::Remote),
    ] {
        assert_eq!(document.revision().get(), 1);
        let changed = within("the event", events.next()).await;
        assert!(
            matches!(&changed, Some(DocumentEvent::Changed { source, .. }) if *source == by),
            "{changed:?}"
        );
        assert_eq!(events.try_next(), None);
    }
}

both! {
    /// Scenario 30: the ack comes after the commit, and so does everybody else's view.
    nobody_hears_of_an_edit_before_it_is_committed => commit_comes_first
}

async fn commit_comes_first(world: World) {
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (text(&ann, "notes").await, text(&bob, "notes").await);
    within("ann is there", a.caught_up()).await.unwrap();
    within("bob is there", b.caught_up()).await.unwrap();

    for (point, committed) in [(HoldPoint::BeforeCommit, 0), (HoldPoint::AfterCommit, 2)] {
        world.faults.hold_appends(point);
        let before = content(&b);
        push(&a, "x");
        within("the append is held", world.faults.held_appends(point, 1)).await;
        // Whatever the server had sent by now would arrive before the answers to these.
        for (client, name) in [(&ann, "ann's"), (&bob, "bob's")] {
            let other = text(client, &format!("{name} {committed}")).await;
            within("a round trip", other.caught_up()).await.unwrap();
        }
        assert_eq!(a.sync_state().get().unsaved, 1);
        assert_eq!(content(&b), before);
        assert_eq!(world.log("notes").await.len(), committed);

        world.faults.release_appends();
        within("saved", a.saved()).await.unwrap();
        until(&b, "bob has it", |b, _| content(b) == content(&a)).await;
    }
}

both! {
    /// Scenario 57.
    one_connection_carries_three_documents => three_documents
}

async fn three_documents(world: World) {
    let (ann, bob) = (world.client(), world.client());
    let a = [
        map(&ann, "1").await,
        map(&ann, "2").await,
        map(&ann, "3").await,
    ];
    let b = [
        map(&bob, "1").await,
        map(&bob, "2").await,
        map(&bob, "3").await,
    ];
    for (n, document) in a.iter().enumerate() {
        set(document, "n", &n.to_string());
    }
    for (n, document) in b.iter().enumerate() {
        until(document, "it arrives", |d, _| {
            get(d, "n") == Some(n.to_string())
        })
        .await;
    }
}

/// Dials connections on which nothing arrives for now.
struct HeldUp(MemoryNetwork);

#[async_trait]
impl Dialer for HeldUp {
    async fn dial(&self) -> Result<Box<dyn Transport>, DialError> {
        let transport = self.0.dialer().dial().await;
        self.0.stall(true);
        transport
    }
}

/// The user is the token.
struct Tokens;

#[async_trait]
impl Authenticator for Tokens {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        let token = request.credentials.clone().unwrap();
        Ok(User::new(String::from_utf8(token.to_vec()).unwrap()).into())
    }
}

async fn of_tokens(over: Over) -> World {
    let may = authorize_fn(|_, _| async { Ok(Access::write()) });
    World::assemble(over, Auth::new(Tokens, may), |builder| builder).await
}

both! {
    /// Scenario 53.
    sessions_have_ids_of_their_own_and_nobody_speaks_as_another => ids(super::of_tokens)
}

async fn ids(world: World) {
    let mut events = world.server.events();
    let (laptop, tap) = world.tapped();
    let laptop = laptop.token("ada").start().unwrap();
    until_status(&laptop, "connected", Status::is_connected).await;
    let phone = world.builder().token("ada").start().unwrap();
    until_status(&phone, "connected", Status::is_connected).await;
    let (a, b) = (text(&laptop, "notes").await, text(&phone, "notes").await);
    push(&a, "ada ");
    within("saved", a.saved()).await.unwrap();
    until(&b, "her phone has it", |b, _| content(b) == "ada ").await;

    // Somebody else who knows the name of her laptop's process.
    let hellos = tap.pick(Way::Up, |message| match message {
        Message::Hello(hello) => Some(hello.origin.0),
        _ => None,
    });
    let mut mallory = world.dial().await;
    send(&mut mallory, hello_as(hellos[0], Some("mallory"))).await;
    let welcome = receive(&mut mallory).await;
    assert!(
        matches!(&welcome, Some(Message::Welcome(welcome)) if welcome.user == "mallory"),
        "{welcome:?}"
    );
    send(&mut mallory, frame(&open_notes())).await;
    let Some(Message::Opened(opened)) = receive(&mut mallory).await else {
        panic!("it opens");
    };
    // Of another's changes nothing is told, not even how many there are.
    assert!(opened.origins.iter().all(|(_, last, _)| *last == 0));
    let forged = Message::Push(Push {
        channel: opened.channel,
        origin: OriginId(hellos[0]),
        first_number: 2,
        changes: vec![world.log("notes").await[0].bytes.clone()],
        reconciling: false,
    });
    send(&mut mallory, frame(&forged)).await;
    let error = loop {
        match receive(&mut mallory).await {
            Some(Message::Error(error)) => break error,
            Some(Message::Changes(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(error.code, ErrorCode::ForeignOrigin);
    assert_eq!(world.log("notes").await.len(), 1);

    // Neither of her sessions has suffered.
    push(&a, "again");
    within("saved", a.saved()).await.unwrap();
    until(&b, "her phone has it", |b, _| content(b) == "ada again").await;
    let mut sessions = Vec::new();
    while let Some(event) = events.try_next() {
        match event {
            ServerEvent::SessionOpened { session, user, .. } => sessions.push((session, user)),
            ServerEvent::Committed { user, .. } => assert_eq!(user, User::new("ada")),
            ServerEvent::SessionClosed { .. } => panic!("{event:?}"),
            _ => {}
        }
    }
    let users: Vec<&str> = sessions.iter().map(|(_, user)| &*user.id).collect();
    assert_eq!(users, ["ada", "ada", "mallory"]);
    assert_ne!(sessions[0].0, sessions[1].0);
}

fn open_notes() -> Message {
    Message::Open(Open {
        request: RequestId(1),
        document: "notes".try_into().unwrap(),
        engine: EngineId::YRS,
        cursor: None,
        origins: Vec::new(),
        access: AccessLevel::Write,
        create: false,
        partial: None,
    })
}

/// What is in flight when somebody types.
#[derive(Debug, Clone, Copy)]
enum Moment {
    BeforeTheDial,
    HelloInFlight,
    OpenInFlight,
}

/// Scenario 28.
#[tokio::test(start_paused = true)]
async fn an_edit_made_while_the_handshake_is_in_flight_is_neither_lost_nor_doubled() {
    use Moment::{BeforeTheDial, HelloInFlight, OpenInFlight};
    for moment in [BeforeTheDial, HelloInFlight, OpenInFlight] {
        let world = World::memory().await;
        let tap = Tap::default();
        match moment {
            BeforeTheDial => world.network.set_online(false),
            HelloInFlight => {}
            OpenInFlight => world.faults.hold_reads(),
        }
        let ann = match moment {
            HelloInFlight => Client::with_dialer(tap.on(HeldUp(world.network.clone()))),
            _ => Client::with_dialer(tap.on(world.network.dialer())),
        };
        let ann = ann.start().unwrap();
        let a = text(&ann, "notes").await;
        match moment {
            BeforeTheDial => assert_eq!(world.network.connections(), 0),
            HelloInFlight => {
                while tap.names(Way::Up).is_empty() {
                    tokio::task::yield_now().await;
                }
                assert!(tap.names(Way::Down).is_empty());
            }
            OpenInFlight => {
                within("the open is held", world.faults.held_reads(1)).await;
                assert_eq!(tap.names(Way::Down), ["Welcome"]);
            }
        }
        push(&a, "typed");
        world.network.set_online(true);
        world.network.stall(false);
        world.faults.release_reads();

        within("saved", a.saved()).await.unwrap();
        assert_eq!(world.log("notes").await.len(), 1, "{moment:?}");
        let bob = world.client();
        let b = text(&bob, "notes").await;
        within("bob is there", b.caught_up()).await.unwrap();
        assert_eq!(content(&b), "typed", "{moment:?}");
    }
}

/// Scenario 33.
#[tokio::test(start_paused = true)]
async fn a_thousand_offline_edits_travel_as_few_frames() {
    let world = World::memory().await;
    let ((ann, at_ann), (bob, at_bob)) = (world.tapped(), world.tapped());
    let (ann, bob) = (ann.start().unwrap(), bob.start().unwrap());
    let (a, b) = (text(&ann, "notes").await, text(&bob, "notes").await);
    within("ann is there", a.caught_up()).await.unwrap();
    within("bob is there", b.caught_up()).await.unwrap();

    ann.disconnect();
    for _ in 0..1_000 {
        push(&a, "x");
    }
    assert_eq!(a.sync_state().get().unsaved, 1_000);
    ann.connect();
    within("saved", a.saved()).await.unwrap();
    until(&b, "bob has it", |b, _| content(b).len() == 1_000).await;

    let count = |names: Vec<&str>, name| names.iter().filter(|n| **n == name).count();
    assert!(count(at_ann.names(Way::Up), "Push") <= 20);
    assert!(count(at_ann.names(Way::Down), "Ack") <= 20);
    assert!(count(at_bob.names(Way::Down), "Changes") <= 20);
    assert_eq!(world.log("notes").await.len(), 1_000);
}

/// Scenario 34.
#[tokio::test(start_paused = true)]
async fn five_edits_in_one_closure_are_seen_whole_or_not_at_all() {
    let world = World::memory().await;
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (text(&ann, "notes").await, text(&bob, "notes").await);
    within("bob is there", b.caught_up()).await.unwrap();
    let (seen, watched) = (std::sync::Arc::default(), b.clone());
    let seen_by: std::sync::Arc<std::sync::Mutex<Vec<String>>> = std::sync::Arc::clone(&seen);
    let _watching = b
        .revision()
        .notify(move || seen_by.lock().unwrap().push(content(&watched)));

    for _ in 0..3 {
        a.edit(|txn| ["a", "b", "c", "d", "e"].map(|letter| append(txn, letter)))
            .unwrap();
        within("saved", a.saved()).await.unwrap();
    }
    until(&b, "bob has all", |b, _| content(b).len() == 15).await;
    assert_eq!(world.log("notes").await.len(), 3);
    let seen = seen.lock().unwrap().clone();
    assert!(
        seen.iter().all(|content| content.len() % 5 == 0),
        "{seen:?}"
    );
    assert_eq!(content(&b), "abcdeabcdeabcde");
}

/// Scenario 34.
#[tokio::test(start_paused = true)]
async fn an_edit_that_fails_leaves_no_trace() {
    let mut limits = Limits::default();
    limits.change_bytes_max = 1_000;
    let world = World::with(Over::Memory, |server| server.limits(limits)).await;
    let (ann, bob) = (world.client(), world.client());
    let a = text(&ann, "notes").await;
    push(&a, "kept");
    within("saved", a.saved()).await.unwrap();
    let b = bob.open("notes", Yrs::new()).read_only().await.unwrap();
    within("bob is there", b.caught_up()).await.unwrap();

    let refused = b.edit(|_| panic!("must not run"));
    assert_eq!(refused, Err(EditError::ReadOnly));
    let large = a.edit(|txn| {
        append(txn, "half");
        append(txn, &"x".repeat(1_000));
    });
    assert!(
        matches!(large, Err(EditError::TooLarge { max: 1_000, .. })),
        "{large:?}"
    );
    assert_eq!(content(&a), "kept");
    assert_eq!(a.sync_state().get().unsaved, 0);
    assert_eq!(a.refused().len(), 1);

    push(&a, "!");
    until(&b, "bob has it", |b, _| content(b) == "kept!").await;
    assert_eq!(world.log("notes").await.len(), 2);
}

/// Scenarios 34 and 90: what the closure had done stays with yrs, as its documentation says, and everybody sees the same.
#[tokio::test(start_paused = true)]
async fn a_closure_that_panics_leaves_the_document_usable_and_the_same_everywhere() {
    let world = World::memory().await;
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (text(&ann, "notes").await, text(&bob, "notes").await);
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        a.edit(|txn| {
            append(txn, "half");
            panic!("a fault of the application");
        })
    }));
    assert!(panicked.is_err());

    push(&a, " whole");
    within("saved", a.saved()).await.unwrap();
    within("bob is there", b.caught_up()).await.unwrap();
    until(&b, "bob has it", |b, _| content(b) == "half whole").await;
    assert_eq!(content(&a), "half whole");
}
