//! Connections that are lost, refused or never answered, and what clients make of them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "scenarios are plain async functions"
)]

mod e2e;
mod registries;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use e2e::frames::{frame, hello, receive, rest, send, welcome};
use e2e::proxy::Proxy;
use e2e::tap::Way;
use e2e::{Over, World, content, map, push, set, text, until, until_status, within};
use registries::{Registry, registry};
use sync_client::transport::memory::MemoryAcceptor;
use sync_client::{
    Client, ClientEvent, EndReason, ErrorCode, Events, FailedReason, PeerError, SessionId, Status,
    SyncPhase,
};
use sync_core::transport::Acceptor;
use sync_core::wire::{ErrorMessage, Message, Reference};
use sync_server::registry::HoldPoint;
use sync_server::{Anonymous, CloseReason, Limits, Server, ServerEvent};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

const HOUR: Duration = Duration::from_secs(3_600);

// ---- the handshake

/// Scenario 26.
#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_answered_too_late_is_given_up_and_the_next_attempt_is_clean() {
    let mut world = World::memory().await;
    let mut silent = world.network.acceptor();
    let client = world.client();
    let mut events = client.events();
    let document = text(&client, "notes").await;
    push(&document, "typed");
    let begun = Instant::now();
    let (held, peer) = silent.accept().await.unwrap().unwrap();
    world.listen().await;

    until_status(&client, "it gives up", |s| {
        matches!(s, Status::Reconnecting { attempt: 1, .. })
    })
    .await;
    assert_eq!(begun.elapsed().as_secs(), 10);
    assert_eq!(ended(&mut events).await, EndReason::HandshakeTimeout);
    within("saved", document.saved()).await.unwrap();
    let session = started(&mut events).await;

    // Now the first server wakes up, reads the first Hello, and answers.
    let mut server = world.server.events();
    tokio::spawn(world.server.serve(held, peer));
    let late = loop {
        match within("the late one ends", server.next()).await {
            Some(ServerEvent::SessionClosed { session, .. }) => break Some(session),
            Some(ServerEvent::ConnectionFailed { .. }) => break None,
            _ => {}
        }
    };
    assert_ne!(late, Some(session));
    push(&document, " on");
    within("saved", document.saved()).await.unwrap();
    assert!(client.status().get().is_connected());
    assert_eq!(events.try_next(), None);
    assert_eq!(world.log("notes").await.len(), 2);
}

/// Scenario 27: who answers at the address and is no sync server.
#[tokio::test]
async fn a_port_that_speaks_something_else_fails_the_client_for_good() {
    for answer in [
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 426 Upgrade Required\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dials: Arc<AtomicUsize> = Arc::default();
        let counted = Arc::clone(&dials);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let _ = stream.read(&mut [0; 1024]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        let client = Client::builder(format!("ws://{address}")).start().unwrap();
        until_status(&client, "it fails", |s| {
            matches!(s, Status::Failed(FailedReason::Refused(_)))
        })
        .await;
        assert_eq!(dials.load(Ordering::Relaxed), 1, "{answer:?}");
        // Asked to, it tries all the same.
        client.connect();
        until_status(&client, "it tries", |s| *s == Status::Connecting).await;
        until_status(&client, "it fails", |s| matches!(s, Status::Failed(_))).await;
        assert_eq!(dials.load(Ordering::Relaxed), 2, "{answer:?}");
    }
}

/// Scenario 27: a WebSocket server of another kind.
#[tokio::test]
async fn a_websocket_server_that_speaks_something_else_fails_the_client_for_good() {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let client = Client::builder(format!("ws://{address}")).start().unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let mut chat = tokio_tungstenite::accept_async(stream).await.unwrap();
    chat.send(tungstenite::Message::text("welcome to the chat"))
        .await
        .unwrap();
    until_status(&client, "it fails", |s| {
        matches!(s, Status::Failed(FailedReason::Server(error)) if error.code == ErrorCode::WrongProtocol)
    })
    .await;
    // The other side is told as well.
    let told = loop {
        match within("it is told", chat.next()).await {
            Some(Ok(tungstenite::Message::Close(frame))) => break frame,
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(u16::from(told.unwrap().code), 1003);
}

/// Scenario 27.
#[tokio::test(start_paused = true)]
async fn a_server_with_which_there_is_nothing_in_common_is_not_tried_again() {
    let too_old = PeerError::new(ErrorCode::UnsupportedVersion, "this server speaks 7 to 9");
    let refusal = Message::Error(ErrorMessage::new(too_old, Reference::Session));
    let refusal = frame(&refusal);
    for (answer, code) in [
        (refusal, ErrorCode::UnsupportedVersion),
        (
            Bytes::from_static(b"+OK POP3 ready\r\n"),
            ErrorCode::WrongProtocol,
        ),
        (Bytes::new(), ErrorCode::WrongProtocol),
    ] {
        let world = World::memory().await;
        let mut acceptor = world.network.acceptor();
        let client = world.client();
        let (mut transport, _) = acceptor.accept().await.unwrap().unwrap();
        send(&mut transport, answer).await;
        until_status(
            &client,
            "it fails",
            |s| matches!(s, Status::Failed(FailedReason::Server(error)) if error.code == code),
        )
        .await;
        sleep(10 * HOUR).await;
        assert_eq!(world.network.dials(), 1);
    }
    let world = World::memory().await;
    world.network.set_refusing(true);
    let client = world.client();
    until_status(&client, "it fails", |s| matches!(s, Status::Failed(_))).await;
    sleep(10 * HOUR).await;
    assert_eq!(world.network.dials(), 1);
}

/// Scenario 27: the server's side, while others use it.
#[tokio::test]
async fn strangers_on_the_port_are_told_what_it_is_and_nobody_else_notices() {
    let world = World::new(Over::WebSocket).await;
    let (ann, tap) = world.tapped();
    let (ann, bob) = (ann.start().unwrap(), world.client());
    let (a, b) = (text(&ann, "notes").await, text(&bob, "notes").await);
    within("ann is there", a.caught_up()).await.unwrap();
    within("bob is there", b.caught_up()).await.unwrap();
    let mut events = ann.events();
    tap.clear();
    let address: SocketAddr = world.address().trim_start_matches("ws://").parse().unwrap();

    for (request, expected) in [
        (
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "HTTP/1.1 426 Upgrade Required",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", ""),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("an answer", stream.read_to_string(&mut answer))
            .await
            .unwrap();
        assert!(answer.starts_with(expected), "{answer:?}");
        assert_eq!(answer.is_empty(), expected.is_empty(), "{answer:?}");
    }
    let mut stranger = world.dial().await;
    send(&mut stranger, Bytes::from_static(b"{\"type\":\"hello\"}")).await;
    let (errors, close_code) = rest(&mut stranger).await;
    assert!(
        matches!(&errors[..], [Message::Error(error)] if error.code == ErrorCode::WrongProtocol),
        "{errors:?}"
    );
    assert_eq!(close_code, Some(4406));

    push(&a, "undisturbed");
    within("saved", a.saved()).await.unwrap();
    until(&b, "bob has it", |b, _| content(b) == "undisturbed").await;
    assert_eq!(tap.names(Way::Down), ["Ack"]);
    assert_eq!(events.try_next(), None);
}

// ---- losses

/// Scenario 31.
#[tokio::test(start_paused = true)]
async fn a_connection_cut_after_the_send_and_before_the_ack_delivers_once() {
    for point in [HoldPoint::BeforeCommit, HoldPoint::AfterCommit] {
        let world = World::memory().await;
        let (ann, tap) = world.tapped();
        let (ann, bob) = (ann.start().unwrap(), world.client());
        let (a, b) = (map(&ann, "grid").await, map(&bob, "grid").await);
        within("ann is there", a.caught_up()).await.unwrap();
        within("bob is there", b.caught_up()).await.unwrap();
        let mut changed = b.events();

        world.faults.hold_appends(point);
        set(&a, "cell", "x");
        within("the append is held", world.faults.held_appends(point, 1)).await;
        assert_eq!(world.network.cut(), 2);
        until_status(&ann, "ann notices", |s| !s.is_connected()).await;
        assert_eq!(a.sync_state().get().unsaved, 1);
        world.faults.release_appends();

        within("saved", a.saved()).await.unwrap();
        until(&b, "bob has it", |b, _| {
            e2e::get(b, "cell").as_deref() == Some("x")
        })
        .await;
        within("bob is there", b.caught_up()).await.unwrap();
        assert_eq!(world.log("grid").await.len(), 1, "{point:?}");
        assert!(within("an event", changed.next()).await.is_some());
        assert_eq!(changed.try_next(), None, "{point:?}");
        // A client that has been told has nothing to send again.
        let pushes = tap.names(Way::Up).iter().filter(|n| **n == "Push").count();
        assert!(pushes <= 2, "{point:?}");
    }
}

both! {
    /// Scenario 37.
    a_server_that_closes_cleanly_is_left_at_once_and_found_again => clean_close
}

async fn clean_close(mut world: World) {
    let (ann, tap) = world.tapped();
    let ann = ann
        .reconnect_max(Duration::from_millis(20))
        .start()
        .unwrap();
    let bob = world.builder().reconnect_max(Duration::from_millis(20));
    let bob = bob.start().unwrap();
    let (a, b) = (text(&ann, "notes").await, text(&bob, "notes").await);
    push(&a, "before ");
    until(&b, "bob has it", |b, _| content(b) == "before ").await;
    let mut events = ann.events();
    let begun = Instant::now();
    world.stop().await;
    // Told, not found out by silence.
    let told = PeerError::new(ErrorCode::ShuttingDown, "the server is shutting down");
    let reason = ended(&mut events).await;
    assert!(
        reason == EndReason::Server(told) || reason == EndReason::Local,
        "{reason:?}"
    );
    until_status(&ann, "ann left", |s| !s.is_connected()).await;
    until(&a, "nothing is current", |_, s| {
        s.phase == SyncPhase::Offline
    })
    .await;
    if world.is_virtual() {
        assert_eq!(begun.elapsed().as_secs(), 0);
    }
    push(&a, "ann ");
    push(&b, "bob ");

    world.start().await;
    within("saved", a.saved()).await.unwrap();
    within("saved", b.saved()).await.unwrap();
    for document in [&a, &b] {
        until(document, "all is everywhere", |document, _| {
            content(document).len() == "before ann bob ".len()
        })
        .await;
    }
    assert_eq!(content(&a), content(&b));
    let hellos = tap.pick(Way::Up, |message| match message {
        Message::Hello(hello) => Some(hello.connection),
        _ => None,
    });
    let welcomes = tap.pick(Way::Down, |message| match message {
        Message::Welcome(welcome) => Some(welcome.session),
        _ => None,
    });
    assert_eq!((hellos.len(), welcomes.len()), (2, 2));
    assert!(hellos.is_sorted() && welcomes.first() != welcomes.last());
}

/// Scenario 38.
#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_is_noticed_at_once() {
    let world = World::memory().await;
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (text(&ann, "notes").await, text(&bob, "notes").await);
    within("ann is there", a.caught_up()).await.unwrap();
    within("bob is there", b.caught_up()).await.unwrap();
    let (mut events, mut server) = (ann.events(), world.server.events());
    let begun = Instant::now();
    assert!(world.network.cut_nth(0));
    assert_eq!(
        ended(&mut events).await,
        EndReason::Lost { close_code: None }
    );
    let reason = closed(&mut server).await;
    assert!(matches!(reason, CloseReason::Lost { .. }), "{reason:?}");
    assert_eq!(begun.elapsed(), Duration::ZERO);

    push(&a, "x");
    until(&b, "bob has it", |b, _| content(b) == "x").await;
}

/// Scenario 38: nothing arrives any more, and nothing fails.
#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_noticed_within_the_ping_timeout_by_both_sides() {
    let world = World::memory().await;
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (text(&ann, "notes").await, text(&bob, "notes").await);
    within("ann is there", a.caught_up()).await.unwrap();
    within("bob is there", b.caught_up()).await.unwrap();
    let (mut events, mut server) = (ann.events(), world.server.events());
    let begun = Instant::now();
    world.network.links()[0].stall(true);
    push(&a, "typed into the void");
    assert_eq!(ended(&mut events).await, EndReason::Silence);
    // The interval of the pings, and the time for an answer.
    assert!(begun.elapsed() <= Duration::from_secs(15 + 10));
    until(&b, "bob has it", |b, _| content(b) == "typed into the void").await;
    within("saved", a.saved()).await.unwrap();
    assert_eq!(world.log("notes").await.len(), 1);
    // The server need not wait for its own timeout: the same client is back.
    let reason = closed(&mut server).await;
    assert!(
        matches!(&reason, CloseReason::Ended(error) if error.code == ErrorCode::Superseded),
        "{reason:?}"
    );

    // A client that is gone for good, of which nothing tells.
    let begun = Instant::now();
    world.network.stall(true);
    world.network.set_online(false);
    drop((a, ann));
    let reason = closed(&mut server).await;
    assert!(
        matches!(&reason, CloseReason::Ended(error) if error.code == ErrorCode::IdleTimeout),
        "{reason:?}"
    );
    assert!(begun.elapsed() <= Duration::from_secs(35));
}

/// Scenario 38: over real sockets, through something that swallows what it is given.
#[tokio::test]
async fn a_half_open_websocket_is_noticed() {
    let mut limits = Limits::default();
    limits.ping_interval = Duration::from_millis(50);
    let world = World::with(Over::WebSocket, |server| server.limits(limits)).await;
    let proxy = Proxy::start(&world).await;
    let client = Client::builder(&proxy.url)
        .ping_timeout(Duration::from_millis(100))
        .reconnect_max(Duration::from_millis(20))
        .start()
        .unwrap();
    let document = text(&client, "notes").await;
    within("caught up", document.caught_up()).await.unwrap();
    let mut events = client.events();
    proxy.swallow();
    push(&document, "typed into the void");
    assert_eq!(ended(&mut events).await, EndReason::Silence);
    within("saved", document.saved()).await.unwrap();
    assert_eq!(world.log("notes").await.len(), 1);
}

/// Scenario 38: everything that the server was is gone from one moment to the next, except its registry.
#[tokio::test]
async fn a_killed_server_is_noticed_and_its_successor_found() {
    let registry = registry();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let killable = Killable::start(Arc::clone(&registry), any);
    let address = killable.address;
    let client = Client::builder(format!("ws://{address}"))
        .reconnect_max(Duration::from_millis(20))
        .start()
        .unwrap();
    let document = text(&client, "notes").await;
    push(&document, "before ");
    within("saved", document.saved()).await.unwrap();
    let mut events = client.events();

    killable.kill();
    assert_eq!(
        ended(&mut events).await,
        EndReason::Lost { close_code: None }
    );
    push(&document, "meanwhile ");
    let successor = Killable::start(registry, address);
    within("saved", document.saved()).await.unwrap();
    let other = Client::builder(format!("ws://{address}")).start().unwrap();
    let joined = text(&other, "notes").await;
    within("caught up", joined.caught_up()).await.unwrap();
    assert_eq!(content(&joined), "before meanwhile ");
    successor.kill();
}

// ---- attempts

/// Scenarios 39 and 41: delays drawn evenly from windows of up to 30 s make one attempt every 15 s, for ever.
#[tokio::test(start_paused = true)]
async fn attempts_go_on_for_ever_at_a_bounded_rate_from_the_first_connect_on() {
    for was_connected in [false, true] {
        let world = World::memory().await;
        world.network.set_online(was_connected);
        let client = world.client();
        let document = text(&client, "notes").await;
        if was_connected {
            within("connected", document.caught_up()).await.unwrap();
            world.network.set_online(false);
            world.network.cut();
        }
        let before = world.network.dials();
        sleep(10 * HOUR).await;
        let dials = world.network.dials() - before;
        // On average 2,400; their spread is about 30.
        assert!((2_200..=2_600).contains(&dials), "{dials}");
        let status = client.status().get();
        assert!(
            matches!(status, Status::Reconnecting { attempt, next_in }
                if attempt > 2_000 && next_in <= Duration::from_secs(30)),
            "{status:?}"
        );

        // Nothing is waited for once the network says that it is back.
        world.network.set_online(true);
        client.on_network_change();
        let begun = Instant::now();
        within("back", document.caught_up()).await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        // After a healthy session, it begins with short delays again.
        world.network.set_online(false);
        world.network.cut();
        until_status(&client, "waiting", |s| {
            matches!(s, Status::Reconnecting { attempt: 1, next_in }
                if *next_in <= Duration::from_millis(500))
        })
        .await;
    }
}

/// Scenario 39: a server that welcomes everybody and then fails is not stormed.
#[tokio::test(start_paused = true)]
async fn a_welcome_alone_does_not_reset_the_delays() {
    let world = World::memory().await;
    tokio::spawn(welcome_and_drop(world.network.acceptor()));
    let client = world.client();
    let mut started = client.events();
    let document = text(&client, "notes").await;
    push(&document, "x");
    sleep(10 * HOUR).await;
    let dials = world.network.dials();
    assert!((2_200..=2_600).contains(&dials), "{dials}");
    let mut sessions = 0;
    while let Some(event) = started.try_next() {
        sessions += usize::from(matches!(event, ClientEvent::SessionStarted { .. }));
    }
    assert!(sessions > 100, "{sessions}");
    assert_eq!(document.sync_state().get().unsaved, 1);
}

/// Scenario 40.
#[tokio::test(start_paused = true)]
async fn nothing_is_dialed_after_a_disconnect_or_the_clients_end() {
    for end in ["disconnect", "shutdown", "drop"] {
        let world = World::memory().await;
        world.network.set_online(false);
        let client = world.client();
        let document = text(&client, "notes").await;
        push(&document, "x");
        until_status(&client, "a retry is pending", |s| {
            matches!(s, Status::Reconnecting { attempt: 5.., .. })
        })
        .await;
        let kept = match end {
            "disconnect" => {
                client.disconnect();
                until_status(&client, "offline", |s| *s == Status::Offline).await;
                Some((client, document))
            }
            "shutdown" => {
                assert!(!client.shutdown(Duration::ZERO).await, "it is not saved");
                Some((client, document))
            }
            _ => {
                drop((client, document));
                None
            }
        };
        world.network.set_online(true);
        let dials = world.network.dials();
        sleep(10 * HOUR).await;
        assert_eq!(world.network.dials(), dials, "{end}");

        // A disconnect, and only that, is undone by connecting.
        if let Some((client, document)) = kept {
            client.connect();
            let saved = within("an answer", document.saved()).await;
            assert_eq!(saved.is_ok(), end == "disconnect", "{saved:?}");
        }
    }
}

/// Scenario 43.
#[tokio::test(start_paused = true)]
async fn offline_edits_are_accepted_counted_and_listed() {
    let world = World::memory().await;
    world.network.set_online(false);
    let client = world.client();
    let (notes, grid) = (text(&client, "notes").await, map(&client, "grid").await);
    let clean = text(&client, "clean").await;
    assert!(client.unsaved().get().is_empty());
    for n in 1..=3 {
        push(&notes, "x");
        assert_eq!(notes.sync_state().get().unsaved, n);
        assert!(!notes.sync_state().get().is_saved());
    }
    set(&grid, "cell", "x");
    assert_eq!(grid.sync_state().get().unsaved, 1);
    assert!(clean.sync_state().get().is_saved());
    let listed = |client: &Client| -> Vec<String> {
        let unsaved = client.unsaved().get();
        unsaved.iter().map(|id| id.as_str().to_owned()).collect()
    };
    assert_eq!(listed(&client), ["grid", "notes"]);
    // A closed document is still listed, and still delivered.
    grid.close();
    sleep(HOUR).await;
    assert_eq!(listed(&client), ["grid", "notes"]);
    assert_eq!(content(&notes), "xxx");

    world.network.set_online(true);
    within("saved", notes.saved()).await.unwrap();
    within(
        "nothing is unsaved",
        client.unsaved().wait_for(|unsaved| unsaved.is_empty()),
    )
    .await
    .unwrap();
    assert_eq!(notes.sync_state().get().unsaved, 0);
    assert_eq!(world.log("notes").await.len(), 3);
    assert_eq!(world.log("grid").await.len(), 1);
}

both! {
    /// Scenario 44.
    after_a_restart_every_document_and_sequence_is_what_it_was => restart_restores
}

async fn restart_restores(mut world: World) {
    let client = world.client();
    let mut logs = Vec::new();
    for (n, id) in ["a", "b", "c"].into_iter().enumerate() {
        let document = text(&client, id).await;
        for _ in 0..=n {
            push(&document, id);
            within("saved", document.saved()).await.unwrap();
        }
        logs.push((id, world.log(id).await));
    }
    assert!(client.shutdown(Duration::from_secs(1)).await);
    world.restart().await;

    let client = world.client();
    for (n, (id, before)) in logs.into_iter().enumerate() {
        let document = client.open(id, sync_client::Yrs::new()).must_exist();
        let document = document.await.unwrap();
        within("caught up", document.caught_up()).await.unwrap();
        assert_eq!(content(&document), id.repeat(n + 1));
        push(&document, "!");
        within("saved", document.saved()).await.unwrap();
        let after = world.log(id).await;
        assert_eq!(after[..=n], before);
        assert_eq!(after.len(), n + 2);
    }
}

/// Scenario 44: over real sockets.
#[tokio::test]
async fn a_shutdown_closes_every_websocket_with_a_code_that_says_try_again() {
    let mut world = World::new(Over::WebSocket).await;
    let mut peers = Vec::new();
    for origin in 1..=3 {
        let mut peer = world.dial().await;
        send(&mut peer, hello(origin)).await;
        let welcome = receive(&mut peer).await;
        assert!(matches!(welcome, Some(Message::Welcome(_))), "{welcome:?}");
        peers.push(peer);
    }
    let stopping = tokio::spawn(async move { world.stop().await });
    for peer in &mut peers {
        let (messages, close_code) = rest(peer).await;
        let Some(Message::Error(error)) = messages.last() else {
            panic!("{messages:?}");
        };
        assert_eq!(error.code, ErrorCode::ShuttingDown);
        assert_eq!(close_code, Some(1012));
    }
    within("the server ends", stopping).await.unwrap();
}

// ---- helpers

/// Why the next session, or attempt at one, ended.
async fn ended(events: &mut Events<ClientEvent>) -> EndReason {
    loop {
        match within("a session ends", events.next()).await {
            Some(ClientEvent::SessionEnded(reason)) => return reason,
            Some(_) => {}
            None => panic!("no more events"),
        }
    }
}

async fn started(events: &mut Events<ClientEvent>) -> SessionId {
    let session = loop {
        match within("a session starts", events.next()).await {
            Some(ClientEvent::SessionStarted { session }) => break session,
            Some(_) => {}
            None => panic!("no more events"),
        }
    };
    while events.try_next().is_some() {}
    session
}

/// Why the server's next session ended.
async fn closed(events: &mut Events<ServerEvent>) -> CloseReason {
    loop {
        match within("the server's session ends", events.next()).await {
            Some(ServerEvent::SessionClosed { reason, .. }) => return reason,
            Some(_) => {}
            None => panic!("no more events"),
        }
    }
}

/// A server that welcomes whoever comes, and breaks the connection.
async fn welcome_and_drop(mut acceptor: MemoryAcceptor) {
    while let Some(Ok((mut transport, _))) = acceptor.accept().await {
        if receive(&mut transport).await.is_some() {
            send(&mut transport, welcome()).await;
        }
    }
}

/// A server on a runtime of its own, which can end without a goodbye.
struct Killable {
    address: SocketAddr,
    kill: tokio::sync::oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Killable {
    fn start(registry: Arc<Registry>, address: SocketAddr) -> Self {
        let (kill, killed) = tokio::sync::oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let server = Server::builder(registry, Anonymous::read_write());
                let server = server.build().unwrap();
                let listener = server.listen_websocket(address).await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let _ = killed.await;
            });
        });
        Self {
            address: told.recv().unwrap(),
            kill,
            thread,
        }
    }

    fn kill(self) {
        self.kill.send(()).unwrap();
        self.thread.join().unwrap();
    }
}
