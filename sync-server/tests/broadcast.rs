//! Broadcasts, from one application to the others.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod e2e;
mod registries;

use std::time::Duration;

use e2e::slow::Slow;
use e2e::tap::Way;
use e2e::{Over, World, map, push, text, until, within};
use sync_client::{
    Broadcast, BroadcastError, Client, ClientEvent, DocumentHandle, Engine, ErrorCode, Events,
};
use sync_core::rate::Rate;
use sync_core::wire::{self, Message};
use sync_server::{
    Access, AuthError, Authenticator, ConnectRequest, DocumentId, Identity, Limits, SendError,
    ServerEvent, User, authorize_fn,
};

const ROOM: &str = "room";
const CHAT: &str = "chat";

fn id() -> DocumentId {
    ROOM.try_into().unwrap()
}

async fn live<E: Engine>(document: &DocumentHandle<E>) {
    within("caught up", document.caught_up()).await.unwrap();
}

/// The next message: who, and what; `missed 3` for dropped ones.
async fn heard(chat: &mut Events<Broadcast>) -> (Option<String>, String) {
    match within("a broadcast", chat.next()).await.unwrap() {
        Broadcast::Received { sender, bytes, .. } => (
            sender.map(|sender| sender.user.to_string()),
            String::from_utf8(bytes.to_vec()).unwrap(),
        ),
        Broadcast::Lagged { missed } => (None, format!("missed {missed}")),
        other => panic!("{other:?}"),
    }
}

/// The user is the token.
struct Tokens;

#[async_trait::async_trait]
impl Authenticator for Tokens {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        let token = request.credentials.clone().unwrap_or_default();
        Ok(User::new(String::from_utf8(token.to_vec()).unwrap()).into())
    }
}

/// A server that knows its users; those called reader may only read.
async fn with_users(over: Over) -> World {
    let may = authorize_fn(|user, _| async move {
        Ok(if user.id.starts_with("reader") {
            Access::read()
        } else {
            Access::write()
        })
    });
    World::assemble(over, sync_server::Auth::new(Tokens, may), |builder| builder).await
}

fn user(world: &World, name: &str) -> Client {
    world.builder().token(name.to_owned()).start().unwrap()
}

async fn chats(world: World) {
    let (ann, bob, cyd) = (
        user(&world, "ann"),
        user(&world, "bob"),
        user(&world, "cyd"),
    );
    let (a, b) = (text(&ann, ROOM).await, text(&bob, ROOM).await);
    let other = text(&cyd, "another room").await;
    live(&a).await;
    live(&b).await;
    live(&other).await;
    let mut events = world.server.events();
    let (mut a_hears, mut b_hears) = (a.broadcasts(CHAT), b.broadcasts(CHAT));
    let mut elsewhere = (other.broadcasts(CHAT), b.broadcasts("another topic"));

    a.broadcast(CHAT, "hello").unwrap();
    a.broadcast("another", "what is not listened to").unwrap();
    assert_eq!(
        heard(&mut b_hears).await,
        (Some("ann".into()), "hello".into())
    );
    b.broadcast(CHAT, "hi").unwrap();
    b.broadcast(CHAT, "ann").unwrap();
    for expected in ["hi", "ann"] {
        assert_eq!(
            heard(&mut a_hears).await,
            (Some("bob".into()), expected.into())
        );
    }
    assert_eq!(
        world.server.broadcast(&id(), CHAT, "closing soon").unwrap(),
        2
    );
    for chat in [&mut a_hears, &mut b_hears] {
        assert_eq!(heard(chat).await, (None, "closing soon".into()));
    }
    assert!(elsewhere.0.try_next().is_none() && elsewhere.1.try_next().is_none());
    assert!(world.log(ROOM).await.is_empty(), "it is not stored");

    let told = within("an event", events.next()).await;
    assert!(
        matches!(
            told,
            Some(ServerEvent::Broadcast { sender: Some(_), n_recipients: 1, bytes, .. })
                if bytes < 100
        ),
        "{told:?}"
    );
}

/// Scenario 70.
#[tokio::test(start_paused = true)]
async fn a_chat_has_senders_and_reaches_the_room_and_nobody_else() {
    chats(with_users(Over::Memory).await).await;
}

/// Scenario 70.
#[tokio::test]
async fn a_chat_over_websockets() {
    chats(with_users(Over::WebSocket).await).await;
}

/// Scenario 49.
#[tokio::test(start_paused = true)]
async fn recipients_that_break_or_read_slowly_cost_the_others_nothing() {
    let world = World::with(Over::Memory, |builder| {
        let mut limits = Limits::default();
        limits.broadcast_rate = Rate::new(1_000, 1_000);
        limits.broadcast_queue_bytes_max = 64 * 1024;
        builder.limits(limits)
    })
    .await;
    let (ann, bob) = (world.client(), world.client());
    let slow = Client::with_dialer(Slow {
        dialer: world.network.dialer(),
        pause: Duration::from_secs(1),
    });
    let slow = slow.compression(false).start().unwrap();
    let dropped = world.client();
    let (a, b) = (text(&ann, ROOM).await, text(&bob, ROOM).await);
    let s = text(&slow, ROOM).await;
    let d = text(&dropped, ROOM).await;
    for document in [&a, &b, &s, &d] {
        live(document).await;
    }
    let mut events = world.server.events();
    let (mut b_hears, mut s_hears) = (b.broadcasts(CHAT), s.broadcasts(CHAT));
    drop((d, dropped));
    let payload = "x".repeat(10_000);
    for n in 0..200 {
        a.broadcast(CHAT, format!("{n} {payload}")).unwrap();
        let (_, text) = heard(&mut b_hears).await;
        assert_eq!(text.split_once(' ').unwrap().0, n.to_string());
    }
    push(&a, "and a change");
    within("saved", a.saved()).await.unwrap();
    until(&b, "the change", |b, _| !e2e::content(b).is_empty()).await;

    // The slow one has the first, then a gap of known size, then the newest, and is still connected.
    let (mut n_heard, mut n_missed) = (0, 0);
    while n_heard + n_missed < 200 {
        let (_, text) = heard(&mut s_hears).await;
        match text.strip_prefix("missed ") {
            Some(n) => n_missed += n.parse::<usize>().unwrap(),
            None => n_heard += 1,
        }
        if n_heard + n_missed == 200 {
            assert!(text.starts_with("199 "), "the newest is there");
        }
    }
    assert!(n_missed > 100, "{n_missed} missed");
    until(&s, "the change", |s, _| !e2e::content(s).is_empty()).await;
    let mut told = 0;
    while let Some(event) = events.try_next() {
        if let ServerEvent::BroadcastsMissed { missed, .. } = event {
            told += missed;
        }
    }
    assert_eq!(usize::try_from(told).unwrap(), n_missed);
    assert!(slow.status().get().is_connected());
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_a_stream_that_falls_behind_is_told_how_many_it_missed() {
    let world = World::with(Over::Memory, |builder| {
        let mut limits = Limits::default();
        limits.broadcast_rate = Rate::new(1_000, 1_000);
        builder.limits(limits)
    })
    .await;
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (text(&ann, ROOM).await, text(&bob, ROOM).await);
    live(&a).await;
    live(&b).await;
    let (mut lazy, mut eager) = (b.broadcasts(CHAT), b.broadcasts(CHAT));
    for n in 0..300 {
        a.broadcast(CHAT, n.to_string()).unwrap();
        assert_eq!(heard(&mut eager).await.1, n.to_string());
    }
    assert_eq!(heard(&mut lazy).await.1, "missed 44");
    assert_eq!(heard(&mut lazy).await.1, "44");
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_is_an_error_at_once_and_is_not_sent_later() {
    let world = World::with(Over::Memory, |builder| {
        let mut limits = Limits::default();
        limits.broadcast_rate = Rate::new(10, 2);
        limits.broadcast_bytes_max = 1_000;
        builder.limits(limits)
    })
    .await;
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (text(&ann, ROOM).await, text(&bob, ROOM).await);
    live(&a).await;
    live(&b).await;
    let mut hears = b.broadcasts(CHAT);
    assert_eq!(
        a.broadcast(CHAT, vec![0; 1_001]),
        Err(BroadcastError::TooLarge {
            bytes: 1_001,
            max: 1_000
        })
    );
    assert_eq!(
        a.broadcast(&"x".repeat(256), ""),
        Err(BroadcastError::TopicTooLong {
            bytes: 256,
            max: 255
        })
    );
    a.broadcast(CHAT, vec![b'1'; 1_000]).unwrap();
    a.broadcast(CHAT, "2").unwrap();
    let Err(BroadcastError::TooFast { retry_in }) = a.broadcast(CHAT, "too fast") else {
        panic!("the rate is 2 at once");
    };
    tokio::time::sleep(retry_in).await;
    a.broadcast(CHAT, "3").unwrap();

    ann.disconnect();
    assert_eq!(a.broadcast(CHAT, "offline"), Err(BroadcastError::Offline));
    ann.connect();
    live(&a).await;
    a.broadcast(CHAT, "4").unwrap();
    assert_eq!(heard(&mut hears).await.1.len(), 1_000);
    for expected in ["2", "3", "4"] {
        assert_eq!(heard(&mut hears).await.1, expected);
    }

    let too_large = world.server.broadcast(&id(), CHAT, vec![0; 1_001]);
    assert!(matches!(
        too_large,
        Err(SendError::TooLarge { max: 1_000, .. })
    ));
    let nobody = "nobody is here".try_into().unwrap();
    assert_eq!(world.server.broadcast(&nobody, CHAT, "?"), Ok(0));
}

/// The client knows that it may not; one that pretends otherwise is told by the server, and nothing else happens to it.
#[tokio::test(start_paused = true)]
async fn readers_hear_and_do_not_speak() {
    let world = with_users(Over::Memory).await;
    let ann = user(&world, "ann");
    let a = text(&ann, ROOM).await;
    live(&a).await;
    let reader = user(&world, "reader");
    let r = text(&reader, ROOM).await;
    live(&r).await;
    let mut hears = r.broadcasts(CHAT);
    assert_eq!(r.broadcast(CHAT, "me too"), Err(BroadcastError::Denied));
    a.broadcast(CHAT, "hello").unwrap();
    assert_eq!(heard(&mut hears).await.1, "hello");
}

/// Refusals by the server, as a client meets them that did not know better.
#[tokio::test(start_paused = true)]
async fn an_error_about_a_broadcast_leaves_the_document_as_it_is() {
    use e2e::frames::{frame, receive, send, welcome};
    use sync_client::transport::memory::MemoryNetwork;
    use sync_core::transport::Acceptor;
    let network = MemoryNetwork::new();
    let mut acceptor = network.acceptor();
    let client = Client::with_dialer(network.dialer()).start().unwrap();
    let mut events = client.events();
    let document = map(&client, ROOM).await;
    let (mut peer, _) = acceptor.accept().await.unwrap().unwrap();
    receive(&mut peer).await;
    send(&mut peer, welcome()).await;
    let Some(Message::Open(open)) = receive(&mut peer).await else {
        panic!("no open");
    };
    let channel = sync_core::ids::Channel(7);
    let opened = wire::Opened {
        request: open.request,
        channel,
        epoch: sync_core::history::Epoch(1),
        mode: sync_core::history::EpochMode::New,
        head: sync_core::history::Seq::ZERO,
        access: wire::AccessLevel::Write,
        next: wire::Continuation::Resume,
        origins: vec![],
    };
    send(&mut peer, frame(&Message::Opened(opened))).await;
    live(&document).await;
    let told = [
        ErrorCode::BroadcastRefused,
        ErrorCode::BroadcastTooLarge,
        ErrorCode::BroadcastTooFast,
        ErrorCode::BroadcastUnavailable,
        ErrorCode::ExtensionTooLarge,
        ErrorCode::ExtensionTooFast,
    ];
    for code in told {
        let error = sync_core::error::PeerError::new(code, "no");
        let error = wire::ErrorMessage::new(error, wire::Reference::Channel(channel));
        send(&mut peer, frame(&Message::Error(error))).await;
    }
    let mut seen = Vec::new();
    while seen.len() < told.len() {
        if let Some(ClientEvent::DocumentError { error, .. }) =
            within("an error", events.next()).await
        {
            seen.push(error.code);
        }
    }
    assert_eq!(seen, told);
    assert!(document.sync_state().get().is_caught_up());
    // A message of many that were dropped, before anybody can know of what.
    let mut hears = document.broadcasts("anything");
    let dropped = wire::Broadcast {
        channel,
        topic: String::new(),
        bytes: bytes::Bytes::new(),
        sender: None,
        missed: 3,
    };
    send(&mut peer, frame(&Message::Broadcast(dropped))).await;
    assert_eq!(heard(&mut hears).await.1, "missed 3");
}

/// What everybody is sent is compressed once for those who take gzip, and the same for all of them.
#[tokio::test(start_paused = true)]
async fn a_broadcast_is_compressed_for_those_who_take_that_and_plain_for_others() {
    let world = World::memory().await;
    let ann = world.client();
    let (bob, b_tap) = world.tapped();
    let (cyd, c_tap) = world.tapped();
    let bob = bob.start().unwrap();
    let cyd = cyd.compression(false).start().unwrap();
    let (a, b, c) = (
        text(&ann, ROOM).await,
        text(&bob, ROOM).await,
        text(&cyd, ROOM).await,
    );
    for document in [&a, &b, &c] {
        live(document).await;
    }
    let (mut b_hears, mut c_hears) = (b.broadcasts(CHAT), c.broadcasts(CHAT));
    let payload = "again and again ".repeat(1_000);
    a.broadcast(CHAT, payload.clone()).unwrap();
    assert_eq!(heard(&mut b_hears).await.1, payload);
    assert_eq!(heard(&mut c_hears).await.1, payload);
    let was_compressed = |tap: &e2e::tap::Tap| {
        let all = tap.all();
        let seen = all
            .iter()
            .find(|seen| seen.way == Way::Down && matches!(seen.message, Message::Broadcast(_)));
        seen.unwrap().compressed
    };
    assert_eq!(
        (was_compressed(&b_tap), was_compressed(&c_tap)),
        (true, false)
    );
}
