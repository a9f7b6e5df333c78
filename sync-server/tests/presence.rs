//! Who has a document open, and what they say of themselves.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "scenarios are plain async functions"
)]

mod e2e;
mod registries;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use e2e::frames::{Peer as Scripted, frame, hello, receive, send};
use e2e::proxy::Proxy;
use e2e::tap::{Tap, Way};
use e2e::{Over, World, content, map, push, set, text, until, until_status, within};
use sync_client::transport::WebSocketDialer;
use sync_client::{
    Client, ClientEvent, Closed, DocumentHandle, EngineId, ErrorCode, Peer, Presence,
    PresenceError, SessionId, Status, Watch, Yrs,
};
use sync_core::ids::{Channel, RequestId};
use sync_core::rate::Rate;
use sync_core::wire::{
    AccessLevel, Message, Open, Presence as PresenceMessage, PresenceDelta, Reference,
};
use sync_server::{
    Access, Auth, AuthError, Authenticator, ConnectRequest, DocumentId, Identity, Limits,
    ServerEvent, User, authorize_fn,
};
use tokio::time::{Instant, sleep};

const NOTES: &str = "notes";
const GRACE: Duration = Duration::from_secs(10);
const TICK: Duration = Duration::from_millis(50);

/// A name and a place.
type Cursor = (String, u32);
type Roster = Watch<Arc<[Peer<Cursor>]>>;

fn at(name: &str, place: u32) -> Cursor {
    (name.to_owned(), place)
}

/// The others, by what they say.
fn others(peers: &[Peer<Cursor>]) -> Vec<Cursor> {
    let others = peers.iter().filter(|peer| !peer.is_me);
    let mut said: Vec<_> = others.filter_map(|peer| peer.state.clone()).collect();
    said.sort();
    said
}

async fn sees(roster: &mut Roster, wanted: &[Cursor]) -> Arc<[Peer<Cursor>]> {
    let what = format!("{wanted:?} are there");
    let seen = roster.wait_for(|peers| others(peers) == wanted);
    within(&what, seen).await.unwrap()
}

struct Seat {
    client: Client,
    document: DocumentHandle<Yrs>,
    presence: Presence<Cursor>,
    roster: Roster,
}

async fn seat(client: Client) -> Seat {
    let document = text(&client, NOTES).await;
    let presence = document.presence();
    let roster = presence.roster();
    Seat {
        client,
        document,
        presence,
        roster,
    }
}

// ---- coming, saying something, going

both! {
    /// Scenario 69.
    who_comes_says_something_and_goes_is_seen => seen
}

async fn seen(world: World) {
    let mut ada = seat(world.client()).await;
    let mut bob = seat(world.client()).await;
    ada.presence.set(&at("ada", 1)).unwrap();
    let peers = sees(&mut bob.roster, &[at("ada", 1)]).await;
    assert_eq!(&*peers[0].user.id, "anonymous");
    bob.presence.set(&at("bob", 7)).unwrap();
    let peers = sees(&mut ada.roster, &[at("bob", 7)]).await;
    assert_eq!(peers.len(), 2, "and she sees herself");
    let me = peers.iter().find(|peer| peer.is_me).unwrap();
    assert_eq!(me.state, Some(at("ada", 1)));
    // Of a burst, the last.
    for place in [4, 3, 2] {
        ada.presence.set(&at("ada", place)).unwrap();
    }
    sees(&mut bob.roster, &[at("ada", 2)]).await;

    // Who comes later sees at once who is there.
    let mut cyd = seat(world.client()).await;
    sees(&mut cyd.roster, &[at("ada", 2), at("bob", 7)]).await;

    bob.presence.clear();
    sees(&mut ada.roster, &[]).await;
    sees(&mut cyd.roster, &[at("ada", 2)]).await;
    let Seat {
        client,
        document,
        presence,
        ..
    } = ada;
    drop((document, presence));
    // Her last handle is gone: the document is closed, the client is not.
    sees(&mut cyd.roster, &[]).await;
    assert!(client.status().get().is_connected());
    assert!(world.log(NOTES).await.is_empty(), "nothing of it is stored");
}

/// Scenario 69: each of these is seen within one tick.
#[tokio::test(start_paused = true)]
async fn what_happens_is_seen_within_one_tick() {
    let world = World::memory().await;
    let mut bob = seat(world.client()).await;
    let ada = seat(world.client()).await;
    within("connected", ada.document.caught_up()).await.unwrap();
    within("connected", bob.document.caught_up()).await.unwrap();

    let begun = Instant::now();
    ada.presence.set(&at("ada", 1)).unwrap();
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    ada.presence.set(&at("ada", 2)).unwrap();
    sees(&mut bob.roster, &[at("ada", 2)]).await;
    assert!(begun.elapsed() <= 2 * TICK, "{:?}", begun.elapsed());
    let begun = Instant::now();
    ada.client.disconnect();
    sees(&mut bob.roster, &[]).await;
    assert!(begun.elapsed() <= TICK, "{:?}", begun.elapsed());
}

/// Scenario 69: the last value of a burst wins, and nobody is sent more than one message in a tick.
#[tokio::test(start_paused = true)]
async fn of_a_burst_the_last_value_arrives_in_one_message_for_each_tick() {
    const WRITERS: u32 = 8;
    let world = World::memory().await;
    let (builder, tap) = world.tapped();
    let mut watcher = seat(builder.start().unwrap()).await;
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        let writer = seat(world.client()).await;
        within("connected", writer.document.caught_up())
            .await
            .unwrap();
        writers.push(writer);
    }
    within("connected", watcher.document.caught_up())
        .await
        .unwrap();
    tap.clear();
    let begun = Instant::now();
    for place in 0..=1_000 {
        for (name, writer) in writers.iter().enumerate() {
            writer.presence.set(&at(&name.to_string(), place)).unwrap();
        }
        sleep(Duration::from_millis(1)).await;
    }
    let last: Vec<_> = (0..WRITERS).map(|n| at(&n.to_string(), 1_000)).collect();
    sees(&mut watcher.roster, &last).await;
    let ticks = begun.elapsed().as_millis() / TICK.as_millis() + 1;
    let messages = tap.pick(Way::Down, |message| match message {
        Message::Presence(presence) => Some(presence),
        _ => None,
    });
    let n = u128::try_from(messages.len()).unwrap();
    assert!(n <= ticks, "{n} messages in {ticks} ticks");
    assert!(n * 2 >= ticks, "{n} messages in {ticks} ticks");
    let versions: Vec<_> = messages.iter().map(|m| m.table_version).collect();
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    // A user is named once.
    let named = messages.iter().flat_map(|message| &message.deltas);
    let named = named.filter(|delta| !delta.user.is_empty()).count();
    assert_eq!(named, usize::try_from(WRITERS).unwrap());
}

/// Scenario 69.
#[tokio::test(start_paused = true)]
async fn two_documents_have_nothing_to_do_with_each_other() {
    let world = World::memory().await;
    let (ada, bob) = (world.client(), world.client());
    let open = async |client: &Client, id| {
        let document = text(client, id).await;
        within("connected", document.caught_up()).await.unwrap();
        document.presence::<Cursor>()
    };
    let (one, two) = (open(&ada, "one").await, open(&ada, "two").await);
    let (bobs_one, bobs_two) = (open(&bob, "one").await, open(&bob, "two").await);
    one.set(&at("ada", 1)).unwrap();
    two.set(&at("ada", 2)).unwrap();
    sees(&mut bobs_one.roster(), &[at("ada", 1)]).await;
    sees(&mut bobs_two.roster(), &[at("ada", 2)]).await;
    one.clear();
    sees(&mut bobs_one.roster(), &[]).await;
    assert_eq!(others(&bobs_two.roster().get()), [at("ada", 2)]);
}

#[tokio::test(start_paused = true)]
async fn what_one_says_of_oneself_is_seen_at_once_also_offline() {
    let world = World::memory().await;
    world.network.set_online(false);
    let ada = seat(world.client()).await;
    assert!(ada.roster.get().is_empty());
    ada.presence.set(&at("ada", 1)).unwrap();
    let peers = ada.roster.get();
    assert!(peers[0].is_me);
    assert_eq!(peers[0].state, Some(at("ada", 1)));
    assert_eq!(peers.len(), 1);
    world.network.set_online(true);
    ada.client.on_network_change();
    let mut bob = seat(world.client()).await;
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    ada.presence.clear();
    assert!(ada.roster.get().is_empty());
    sees(&mut bob.roster, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn dropping_a_presence_takes_nothing_back_and_keeps_the_document_open_until_then() {
    let world = World::memory().await;
    let Seat {
        client,
        document,
        presence,
        roster: ada,
    } = seat(world.client()).await;
    let mut bob = seat(world.client()).await;
    document.presence().set(&at("ada", 1)).unwrap();
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    drop(document);
    sleep(GRACE * 2).await;
    assert_eq!(others(&bob.roster.get()), [at("ada", 1)]);
    presence.set(&at("ada", 2)).unwrap();
    sees(&mut bob.roster, &[at("ada", 2)]).await;
    drop(presence);
    sees(&mut bob.roster, &[]).await;
    let mut ada = ada;
    while let Ok(peers) = within("nobody changes it", ada.changed()).await {
        drop(peers);
    }
    assert_eq!(ada.changed().await.err(), Some(Closed));
    drop(client);
}

/// What an application does not understand of another version is no error.
#[tokio::test(start_paused = true)]
async fn somebody_who_says_something_else_is_there_without_a_state() {
    let world = World::memory().await;
    let mut ada = seat(world.client()).await;
    let bob = seat(world.client()).await;
    bob.document
        .presence::<Vec<bool>>()
        .set(&vec![true])
        .unwrap();
    let peers = ada.roster.wait_for(|peers| !peers.is_empty());
    let peers = within("bob is there", peers).await.unwrap();
    assert_eq!((peers.len(), &peers[0].state), (1, &None));
    let same = ada.document.presence::<Vec<bool>>().roster().get();
    assert_eq!(same[0].state, Some(vec![true]));
    bob.presence.set(&at("bob", 1)).unwrap();
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    assert_eq!(
        ada.document.presence::<Vec<bool>>().roster().get()[0].state,
        None
    );
}

/// A fault in the application's own code for reading costs that state.
#[tokio::test(start_paused = true)]
async fn a_panic_while_a_state_is_read_leaves_the_client_alive() {
    #[derive(Debug)]
    struct Faulty;
    impl serde::Serialize for Faulty {
        fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_unit()
        }
    }
    impl<'de> serde::Deserialize<'de> for Faulty {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            panic!("a fault of the application")
        }
    }
    let world = World::memory().await;
    let ada = seat(world.client()).await;
    let mut bob = seat(world.client()).await;
    let mut faulty = bob.document.presence::<Faulty>().roster();
    ada.presence.set(&at("ada", 1)).unwrap();
    let peers = faulty.wait_for(|peers| !peers.is_empty());
    let peers = within("ada is there", peers).await.unwrap();
    assert!(peers[0].state.is_none());
    sees(&mut bob.roster, &[at("ada", 1)]).await;
}

// ---- whose it is

struct Tokens;

#[async_trait]
impl Authenticator for Tokens {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        let token = request.credentials.clone().unwrap_or_default();
        Ok(User::new(String::from_utf8(token.to_vec()).unwrap()).into())
    }
}

fn auth() -> Auth {
    Auth::new(
        Tokens,
        authorize_fn(|_: User, _: DocumentId| async { Ok::<_, AuthError>(Access::read()) }),
    )
}

/// Whoever may read may be seen; the server says who it is.
#[tokio::test(start_paused = true)]
async fn the_server_says_who_somebody_is() {
    let world = World::with_auth(auth()).await;
    let document = DocumentId::new(NOTES).unwrap();
    let new = sync_server::registry::NewDocument::new(
        document,
        EngineId::YRS,
        sync_server::registry::Epoch(1),
    );
    sync_server::registry::ServerRegistry::create(&*world.registry, new)
        .await
        .unwrap();
    let ada = seat(world.builder().token("ada").start().unwrap()).await;
    let mut bob = seat(world.builder().token("bob").start().unwrap()).await;
    ada.presence.set(&at("I am bob", 1)).unwrap();
    let peers = sees(&mut bob.roster, &[at("I am bob", 1)]).await;
    assert_eq!(&*peers[0].user.id, "ada");
    bob.presence.set(&at("bob", 1)).unwrap();
    let me = bob.roster.wait_for(|peers| peers.len() == 2);
    let peers = within("both", me).await.unwrap();
    let me = peers.iter().find(|peer| peer.is_me).unwrap();
    assert_eq!(&*me.user.id, "bob");
}

/// Who may not read any more is not seen, and sees nobody.
#[tokio::test(start_paused = true)]
async fn who_loses_the_right_to_read_is_gone_at_once() {
    let denied = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let may = denied.clone();
    let auth = Auth::new(
        Tokens,
        authorize_fn(move |user: User, _: DocumentId| {
            let is_denied = &*user.id == "bob" && may.load(std::sync::atomic::Ordering::Relaxed);
            async move {
                Ok::<_, AuthError>(if is_denied {
                    Access::none()
                } else {
                    Access::write()
                })
            }
        }),
    );
    let world = World::with_auth(auth).await;
    let mut ada = seat(world.builder().token("ada").start().unwrap()).await;
    let mut bob = seat(world.builder().token("bob").start().unwrap()).await;
    ada.presence.set(&at("ada", 1)).unwrap();
    bob.presence.set(&at("bob", 1)).unwrap();
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    denied.store(true, std::sync::atomic::Ordering::Relaxed);
    let begun = Instant::now();
    world
        .server
        .reauthorize(&DocumentId::new(NOTES).unwrap())
        .await;
    ada.presence.set(&at("ada", 2)).unwrap();
    bob.presence.set(&at("bob", 2)).unwrap();
    sees(&mut ada.roster, &[]).await;
    assert!(begun.elapsed() <= 2 * TICK, "{:?}", begun.elapsed());
    // What she said since never reaches him.
    loop {
        let seen = others(&bob.roster.get());
        assert_ne!(seen, [at("ada", 2)]);
        if seen.is_empty() {
            break;
        }
        within("he sees nobody", bob.roster.changed())
            .await
            .unwrap();
    }
    sleep(GRACE).await;
    assert!(others(&ada.roster.get()).is_empty());
    assert!(others(&bob.roster.get()).is_empty());
}

async fn scripted(world: &World, origin: u128) -> (Scripted, SessionId, Channel) {
    let mut peer = world.dial().await;
    send(&mut peer, hello(origin)).await;
    let Some(Message::Welcome(welcome)) = receive(&mut peer).await else {
        panic!("not welcome");
    };
    let open = Message::Open(Open {
        request: RequestId(1),
        document: DocumentId::new(NOTES).unwrap(),
        engine: EngineId::YRS,
        cursor: None,
        origins: Vec::new(),
        access: AccessLevel::Write,
        create: true,
        partial: None,
    });
    send(&mut peer, frame(&open)).await;
    let channel = loop {
        if let Some(Message::Opened(opened)) = receive(&mut peer).await {
            break opened.channel;
        }
    };
    (peer, welcome.session, channel)
}

fn says(channel: Channel, deltas: &[(SessionId, &'static [u8])]) -> bytes::Bytes {
    let delta = |(session, state): &(SessionId, &'static [u8])| PresenceDelta {
        session: *session,
        user: "root".into(),
        state: (!state.is_empty()).then(|| bytes::Bytes::from_static(state)),
    };
    frame(&Message::Presence(PresenceMessage {
        channel,
        deltas: deltas.iter().map(delta).collect(),
        table_version: 0,
    }))
}

both! {
    /// Scenario 69: never settable for another session.
    nobody_says_anything_of_another_session => another_session
}

async fn another_session(world: World) {
    let mut events = world.server.events();
    let ada = seat(world.client()).await;
    let mut bob = seat(world.client()).await;
    ada.presence.set(&at("ada", 1)).unwrap();
    let peers = sees(&mut bob.roster, &[at("ada", 1)]).await;
    let adas = peers[0].session;

    let (mut mallory, own, channel) = scripted(&world, 666).await;
    // Of another, of nobody, of everybody: nothing comes of it.
    let lie: &[u8] = &[0x92, 0xa3, b'l', b'i', b'e', 3];
    for session in [adas, SessionId(12), SessionId(0)] {
        send(&mut mallory, says(channel, &[(session, lie)])).await;
        send(&mut mallory, says(channel, &[(session, b"")])).await;
        send(&mut mallory, says(channel, &[])).await;
    }
    // Of several only its own, the last of it, and as the user that it is.
    let truth: &[u8] = &[0x92, 0xa1, b'm', 9];
    send(
        &mut mallory,
        says(
            channel,
            &[(own, lie), (adas, lie), (own, truth), (SessionId(0), b"")],
        ),
    )
    .await;
    let peers = sees(&mut bob.roster, &[at("ada", 1), at("m", 9)]).await;
    for peer in &*peers {
        assert_eq!(&*peer.user.id, "anonymous");
    }
    let mut ignored = 0;
    while let Some(event) = events.try_next() {
        if let ServerEvent::MessageIgnored { session, message } = event {
            assert_eq!((session, message), (own, "Presence"));
            ignored += 1;
        }
    }
    assert_eq!(ignored, 9);
}

/// Who has not opened the document is told so and does no harm.
#[tokio::test(start_paused = true)]
async fn nobody_says_anything_in_a_document_that_is_not_open() {
    let world = World::memory().await;
    let mut bob = seat(world.client()).await;
    let (mut mallory, own, channel) = scripted(&world, 666).await;
    send(
        &mut mallory,
        says(Channel(channel.0 + 1), &[(own, b"\xc0")]),
    )
    .await;
    let answer = receive(&mut mallory).await;
    assert!(
        matches!(&answer, Some(Message::Error(e)) if e.code == ErrorCode::ChannelNotOpen),
        "{answer:?}"
    );
    send(&mut mallory, says(channel, &[(own, b"\xa1x")])).await;
    let peers = bob.roster.wait_for(|peers| !peers.is_empty());
    assert_eq!(within("it goes on", peers).await.unwrap().len(), 1);
}

// ---- limits

fn limited(bytes: usize, rate: Rate) -> Limits {
    let mut limits = Limits::default();
    limits.presence_bytes_max = bytes;
    limits.presence_rate = rate;
    limits
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_an_error_before_it_is_sent() {
    let limits = limited(100, Rate::new(60, 120));
    let world = World::with(Over::Memory, |server| server.limits(limits)).await;
    world.network.set_online(false);
    let ada = seat(world.client()).await;
    let long = |bytes: usize| (String::from_utf8(vec![b'x'; bytes]).unwrap(), 1);
    // Nobody has said what the limit is.
    let refused = ada.presence.set(&long(5_000));
    assert!(
        matches!(
            refused,
            Err(PresenceError::TooLarge {
                bytes: 5_005,
                max: 4_096
            })
        ),
        "{refused:?}"
    );
    world.network.set_online(true);
    ada.client.on_network_change();
    until_status(&ada.client, "connected", Status::is_connected).await;
    let mut bob = seat(world.client()).await;
    // An array, a text with its length, a number: four bytes more.
    ada.presence.set(&long(96)).unwrap();
    sees(&mut bob.roster, &[long(96)]).await;
    let refused = ada.presence.set(&long(97));
    assert!(
        matches!(
            refused,
            Err(PresenceError::TooLarge {
                bytes: 101,
                max: 100
            })
        ),
        "{refused:?}"
    );
    // What was said before stays.
    sleep(TICK * 4).await;
    assert_eq!(others(&bob.roster.get()), [long(96)]);
    assert_eq!(ada.roster.get().iter().filter(|p| p.is_me).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_refuses_what_is_too_large_and_goes_on() {
    let limits = limited(3, Rate::new(60, 120));
    let world = World::with(Over::Memory, |server| server.limits(limits)).await;
    let mut bob = seat(world.client()).await;
    let (mut mallory, own, channel) = scripted(&world, 666).await;
    send(&mut mallory, says(channel, &[(own, b"four")])).await;
    let answer = receive(&mut mallory).await;
    assert!(
        matches!(&answer, Some(Message::Error(e)) if e.code == ErrorCode::PresenceTooLarge && e.reference == Reference::Channel(channel)),
        "{answer:?}"
    );
    assert!(bob.roster.get().is_empty());
    send(&mut mallory, says(channel, &[(own, b"3by")])).await;
    let peers = bob.roster.wait_for(|peers| !peers.is_empty());
    within("as much as allowed", peers).await.unwrap();
}

/// What was said too large while offline for a server that turns out to take less is reported, and harms nothing.
#[tokio::test(start_paused = true)]
async fn a_client_learns_that_its_server_takes_less() {
    let limits = limited(5, Rate::new(60, 120));
    let world = World::with(Over::Memory, |server| server.limits(limits)).await;
    world.network.set_online(false);
    let ada = seat(world.client()).await;
    let mut events = ada.client.events();
    ada.presence.set(&at("much too long", 1)).unwrap();
    world.network.set_online(true);
    ada.client.on_network_change();
    loop {
        let event = within("it is told", events.next()).await.unwrap();
        if let ClientEvent::DocumentError { error, .. } = event {
            assert_eq!(error.code, ErrorCode::PresenceTooLarge);
            break;
        }
    }
    push(&ada.document, "it goes on");
    within("saved", ada.document.saved()).await.unwrap();
}

/// A client keeps to the rate it is told; the last value arrives all the same.
#[tokio::test(start_paused = true)]
async fn a_client_keeps_to_the_servers_rate() {
    let limits = limited(4_096, Rate::new(2, 3));
    let world = World::with(Over::Memory, |server| server.limits(limits)).await;
    let (builder, tap) = world.tapped();
    let ada = seat(builder.start().unwrap()).await;
    let mut bob = seat(world.client()).await;
    within("connected", ada.document.caught_up()).await.unwrap();
    let begun = Instant::now();
    for place in 0..=100 {
        ada.presence.set(&at("ada", place)).unwrap();
        sleep(TICK).await;
    }
    sees(&mut bob.roster, &[at("ada", 100)]).await;
    let sent = tap.pick(Way::Up, |message| {
        matches!(message, Message::Presence(_)).then_some(())
    });
    let allowed = 3 + 2 * begun.elapsed().as_secs() + 1;
    let n = u64::try_from(sent.len()).unwrap();
    assert!((allowed - 2..=allowed).contains(&n), "{n} of {allowed}");
    let errors = tap.pick(Way::Down, |message| {
        matches!(message, Message::Error(_)).then_some(())
    });
    assert!(errors.is_empty());
}

/// With many documents there is a turn for each.
#[tokio::test(start_paused = true)]
async fn many_documents_take_turns_within_the_rate() {
    const DOCUMENTS: u32 = 40;
    let limits = limited(4_096, Rate::new(10, 10));
    let world = World::with(Over::Memory, |server| server.limits(limits)).await;
    let (ada, bob) = (world.client(), world.client());
    let (mut said, mut heard) = (Vec::new(), Vec::new());
    for n in 0..DOCUMENTS {
        let id = format!("notes/{n}");
        let presence = text(&ada, &id).await.presence::<Cursor>();
        presence.set(&at("ada", n)).unwrap();
        said.push(presence);
        // A roster alone keeps nothing open.
        let theirs = text(&bob, &id).await.presence::<Cursor>();
        heard.push(theirs.roster());
        said.push(theirs);
    }
    let begun = Instant::now();
    for (n, roster) in (0..).zip(&mut heard) {
        sees(roster, &[at("ada", n)]).await;
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(2), "{took:?}");
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_drops_what_comes_too_fast_and_says_when_to_try_again() {
    let limits = limited(4_096, Rate::new(2, 3));
    let world = World::with(Over::Memory, |server| server.limits(limits)).await;
    let bob = seat(world.client()).await;
    let (mut mallory, own, channel) = scripted(&world, 666).await;
    // Twice the burst that clients are told.
    for _ in 0..6 {
        send(&mut mallory, says(channel, &[(own, b"\xa1a")])).await;
    }
    send(&mut mallory, says(channel, &[(own, b"\xa1b")])).await;
    let error = loop {
        match receive(&mut mallory).await {
            Some(Message::Error(error)) => break error,
            Some(_) => {}
            None => panic!("it ended"),
        }
    };
    assert_eq!(error.code, ErrorCode::PresenceTooFast);
    assert_eq!(error.reference, Reference::Channel(channel));
    let wait = error.retry_after.unwrap();
    assert_eq!(wait, Duration::from_millis(500));
    let names = bob.document.presence::<String>();
    let mut roster = names.roster();
    let a = roster.wait_for(|p| !p.is_empty());
    assert_eq!(within("a", a).await.unwrap()[0].state.as_deref(), Some("a"));
    sleep(wait).await;
    send(&mut mallory, says(channel, &[(own, b"\xa1b")])).await;
    let b = roster.wait_for(|p| p[0].state.as_deref() == Some("b"));
    within("b", b).await.unwrap();
}

// ---- connections that are lost

/// Scenario 42: a reconnect within the grace window keeps presence from flickering.
#[tokio::test(start_paused = true)]
async fn a_cut_connection_that_comes_back_in_time_is_not_seen_by_anybody() {
    let world = World::memory().await;
    let mut events = world.server.events();
    let mut watcher = seat(world.client()).await;
    within("connected", watcher.document.caught_up())
        .await
        .unwrap();
    let mut ada = seat(world.client()).await;
    let mut bob = seat(world.client()).await;
    ada.presence.set(&at("ada", 1)).unwrap();
    bob.presence.set(&at("bob", 1)).unwrap();
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    let both = [at("ada", 1), at("bob", 1)];
    let before = sees(&mut watcher.roster, &both).await;
    assert_eq!(world.server.documents()[0].n_present, 2);

    for round in 0..3 {
        // What they know already. The watcher was the first to connect.
        let _ = watcher.roster.take_changed();
        assert!(world.network.cut_nth(1) && world.network.cut_nth(1));
        // All that anybody sees meanwhile is complete.
        let (mut resumed, mut n_seen) = (0, 0);
        let deadline = Instant::now() + GRACE + 20 * TICK;
        loop {
            tokio::select! {
                peers = watcher.roster.changed() => {
                    assert_eq!(others(&peers.unwrap()), both);
                    n_seen += 1;
                }
                peers = ada.roster.changed() => assert_eq!(others(&peers.unwrap()), [at("bob", 1)]),
                peers = bob.roster.changed() => assert_eq!(others(&peers.unwrap()), [at("ada", 1)]),
                event = events.next() => match event.unwrap() {
                    ServerEvent::PresenceJoined { instead_of, .. } => {
                        resumed += usize::from(instead_of.is_some());
                    }
                    ServerEvent::PresenceLeft { .. } => panic!("somebody left"),
                    _ => {}
                },
                () = tokio::time::sleep_until(deadline) => break,
            }
        }
        assert_eq!(resumed, 2, "round {round}");
        assert!(n_seen <= 2, "{n_seen}");
    }
    let after = watcher.roster.get();
    let sessions = |peers: &[Peer<Cursor>]| peers.iter().map(|p| p.session).collect::<Vec<_>>();
    assert_ne!(sessions(&before), sessions(&after));
    // And it still says what it says.
    ada.presence.set(&at("ada", 2)).unwrap();
    sees(&mut bob.roster, &[at("ada", 2)]).await;
}

/// Scenario 42: over real sockets; and what was missed is all that is sent.
#[tokio::test]
async fn a_cut_websocket_that_comes_back_in_time_is_not_seen_and_is_sent_what_it_missed() {
    let world = World::new(Over::WebSocket).await;
    let (proxy, tap) = (Proxy::start(&world).await, Tap::default());
    let dialer = tap.on(WebSocketDialer::new(&proxy.url).unwrap());
    let ada = Client::with_dialer(dialer).reconnect_max(TICK);
    let mut ada = seat(ada.start().unwrap()).await;
    let mut bob = seat(world.client()).await;
    ada.presence.set(&at("ada", 1)).unwrap();
    bob.presence.set(&at("bob", 1)).unwrap();
    push(&bob.document, "known");
    until(&ada.document, "known", |d, _| content(d) == "known").await;
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    let mut events = world.server.events();
    for round in 1..=3 {
        tap.clear();
        proxy.cut();
        push(&bob.document, ".");
        // All that anybody sees meanwhile is complete.
        let back = async {
            loop {
                tokio::select! {
                    peers = ada.roster.changed() => assert_eq!(others(&peers.unwrap()), [at("bob", 1)]),
                    peers = bob.roster.changed() => assert_eq!(others(&peers.unwrap()), [at("ada", 1)]),
                    event = events.next() => match event.unwrap() {
                        ServerEvent::PresenceJoined { instead_of, .. } => break instead_of,
                        ServerEvent::PresenceLeft { .. } => panic!("somebody left"),
                        _ => {}
                    },
                }
            }
        };
        let instead_of = within("she is back", back).await;
        assert!(instead_of.is_some(), "as somebody new");
        let all = format!("known{}", ".".repeat(round));
        until(&ada.document, "all of it", |d, _| content(d) == all).await;
        let sent = tap.pick(Way::Down, |message| match message {
            Message::Changes(changes) => Some(changes.changes.len()),
            Message::Snapshot(_) => panic!("she has most of it"),
            _ => None,
        });
        assert_eq!(sent, [1]);
    }
    // And it still says what it says.
    ada.presence.set(&at("ada", 2)).unwrap();
    sees(&mut bob.roster, &[at("ada", 2)]).await;
}

/// Scenario 69: gone when a client dies, over real sockets.
#[tokio::test]
async fn whose_websocket_dies_is_gone_when_the_time_to_come_back_is_over() {
    let world = World::new(Over::WebSocket).await;
    let proxy = Proxy::start(&world).await;
    let ada = Client::builder(&proxy.url).reconnect_max(TICK);
    let mut ada = seat(ada.start().unwrap()).await;
    let mut bob = seat(world.client()).await;
    ada.presence.set(&at("ada", 1)).unwrap();
    bob.presence.set(&at("bob", 1)).unwrap();
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    let mut events = world.server.events();
    proxy.set_online(false);
    let closed =
        async { while !matches!(events.next().await, Some(ServerEvent::SessionClosed { .. })) {} };
    within("the server has noticed", closed).await;
    until_status(&ada.client, "and so has she", |s| !s.is_connected()).await;
    assert_eq!(others(&bob.roster.get()), [at("ada", 1)]);
    assert_eq!(others(&ada.roster.get()), [at("bob", 1)]);
    world.pass(GRACE).await;
    sees(&mut bob.roster, &[]).await;
    sees(&mut ada.roster, &[]).await;
    proxy.set_online(true);
    ada.client.on_network_change();
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    sees(&mut ada.roster, &[at("bob", 1)]).await;
}

/// Scenario 69: gone when a client dies, after the grace and not before; its own others stay as long.
#[tokio::test(start_paused = true)]
async fn who_dies_is_gone_when_the_time_to_come_back_is_over() {
    let world = World::memory().await;
    let mut ada = seat(world.client()).await;
    let mut bob = seat(world.client()).await;
    ada.presence.set(&at("ada", 1)).unwrap();
    bob.presence.set(&at("bob", 1)).unwrap();
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    world.network.set_online(false);
    assert!(world.network.cut_nth(0));
    let begun = Instant::now();
    sees(&mut bob.roster, &[]).await;
    let took = begun.elapsed();
    assert!(took >= GRACE && took <= GRACE + TICK, "{took:?}");
    sees(&mut ada.roster, &[]).await;
    let peers = ada.roster.get();
    assert_eq!(
        (peers.len(), peers[0].is_me),
        (1, true),
        "she is still there for herself"
    );
    let took = begun.elapsed();
    assert!(took >= GRACE && took <= GRACE + TICK, "{took:?}");
    // She comes back all the same, as somebody new.
    world.network.set_online(true);
    ada.client.on_network_change();
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    sees(&mut ada.roster, &[at("bob", 1)]).await;
}

/// Whoever leaves in order is not expected back.
#[tokio::test(start_paused = true)]
async fn who_says_goodbye_is_gone_at_once_and_sees_nobody() {
    let world = World::memory().await;
    let mut ada = seat(world.client()).await;
    let mut bob = seat(world.client()).await;
    ada.presence.set(&at("ada", 1)).unwrap();
    bob.presence.set(&at("bob", 1)).unwrap();
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    let begun = Instant::now();
    ada.client.disconnect();
    sees(&mut ada.roster, &[]).await;
    sees(&mut bob.roster, &[]).await;
    assert!(begun.elapsed() <= TICK, "{:?}", begun.elapsed());
    ada.client.connect();
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    let client = ada.client.clone();
    assert!(within("it ends", client.shutdown(GRACE)).await);
    sees(&mut bob.roster, &[]).await;
    assert!(matches!(
        ada.presence.set(&at("ada", 2)),
        Err(PresenceError::Closed)
    ));
}

both! {
    /// Scenario 69: restored after a reconnection, also to a server that knows nothing of it.
    what_was_said_is_said_again_to_a_server_that_was_restarted => said_again
}

async fn said_again(mut world: World) {
    let mut ada = seat(world.client()).await;
    let mut bob = seat(world.client()).await;
    ada.presence.set(&at("ada", 1)).unwrap();
    bob.presence.set(&at("bob", 1)).unwrap();
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    world.restart().await;
    let new = seat(world.client()).await;
    let mut roster = new.roster.clone();
    sees(&mut roster, &[at("ada", 1), at("bob", 1)]).await;
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    sees(&mut bob.roster, &[at("ada", 1)]).await;
    if !world.is_virtual() {
        return;
    }
    // Taken back while the connection was lost.
    world.network.set_online(false);
    world.network.cut();
    until_status(&ada.client, "lost", |s| !s.is_connected()).await;
    ada.presence.clear();
    world.network.set_online(true);
    sees(&mut roster, &[at("bob", 1)]).await;
}

/// A client that comes back finds out also that everybody has left.
#[tokio::test(start_paused = true)]
async fn who_comes_back_sees_who_has_left_meanwhile() {
    let world = World::memory().await;
    let mut ada = seat(world.client()).await;
    let bob = seat(world.client()).await;
    bob.presence.set(&at("bob", 1)).unwrap();
    sees(&mut ada.roster, &[at("bob", 1)]).await;
    world.network.set_online(false);
    assert!(world.network.cut_nth(0));
    until_status(&ada.client, "lost", |s| !s.is_connected()).await;
    bob.client.disconnect();
    sleep(TICK).await;
    assert_eq!(others(&ada.roster.get()), [at("bob", 1)], "she cannot know");
    let begun = Instant::now();
    world.network.set_online(true);
    ada.client.on_network_change();
    sees(&mut ada.roster, &[]).await;
    assert!(begun.elapsed() < Duration::from_secs(1));
}

/// The secret, not the name, makes a client the same that it was.
#[tokio::test(start_paused = true)]
async fn nobody_takes_the_place_of_a_client_that_was_cut_off() {
    let world = World::memory().await;
    let mut bob = seat(world.client()).await;
    let (mut victim, own, channel) = scripted(&world, 1).await;
    let state: &[u8] = &[0x92, 0xa1, b'v', 1];
    send(&mut victim, says(channel, &[(own, state)])).await;
    sees(&mut bob.roster, &[at("v", 1)]).await;
    drop(victim);
    // The same origin and user, and no token.
    let (mut thief, own, channel) = scripted(&world, 1).await;
    let state: &[u8] = &[0x92, 0xa1, b't', 1];
    send(&mut thief, says(channel, &[(own, state)])).await;
    let begun = Instant::now();
    sees(&mut bob.roster, &[at("t", 1), at("v", 1)]).await;
    sees(&mut bob.roster, &[at("t", 1)]).await;
    assert!(begun.elapsed() >= GRACE - TICK, "{:?}", begun.elapsed());
}

// ---- slow readers

/// A session that does not read costs the table's size at most, and is sent the latest when it reads again.
#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_sent_the_latest_and_no_queue() {
    const WRITERS: u32 = 20;
    let world = World::memory().await;
    let (builder, tap) = world.tapped();
    let mut slow = seat(builder.start().unwrap()).await;
    within("connected", slow.document.caught_up())
        .await
        .unwrap();
    let mut writers = Vec::new();
    for n in 0..WRITERS {
        let writer = seat(world.client()).await;
        writer.presence.set(&at(&"x".repeat(3_000), n)).unwrap();
        writers.push(writer);
    }
    within(
        "all are there",
        slow.roster.wait_for(|p| p.len() == writers.len()),
    )
    .await
    .unwrap();
    let link = &world.network.links()[0];
    link.stall(true);
    tap.clear();
    for round in 0..200 {
        for (n, writer) in (0..).zip(&writers) {
            writer
                .presence
                .set(&at(&"x".repeat(3_000), round * WRITERS + n))
                .unwrap();
        }
        sleep(TICK).await;
    }
    // 12 MB of states have gone by.
    link.stall(false);
    let last: Vec<_> = (0..WRITERS)
        .map(|n| at(&"x".repeat(3_000), 199 * WRITERS + n))
        .collect();
    sees(&mut slow.roster, &last).await;
    let bytes: usize = tap
        .all()
        .iter()
        .filter(|seen| seen.way == Way::Down)
        .map(|seen| seen.bytes)
        .sum();
    // What the connection held when it stalled, which is 256 KiB, and the table once.
    assert!(bytes < 500_000, "{bytes} bytes");
}

/// A document's changes and its presence share a slow connection.
#[tokio::test(start_paused = true)]
async fn presence_that_never_rests_does_not_hold_up_changes_nor_they_it() {
    let world = World::memory().await;
    let slow = e2e::slow::Slow {
        dialer: world.network.dialer(),
        pause: 2 * TICK,
    };
    let reader = Client::with_dialer(slow).start().unwrap();
    let document = map(&reader, NOTES).await;
    let mut roster = document.presence::<Cursor>().roster();
    let keep = document.presence::<Cursor>();
    let writer = world.client();
    let theirs = map(&writer, NOTES).await;
    let presence = theirs.presence::<Cursor>();
    for round in 0..100 {
        presence.set(&at("writer", round)).unwrap();
        set(&theirs, "round", &round.to_string());
        sleep(TICK).await;
    }
    let begun = Instant::now();
    until(&document, "the last change", |d, _| {
        e2e::get(d, "round").as_deref() == Some("99")
    })
    .await;
    sees(&mut roster, &[at("writer", 99)]).await;
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    drop(keep);
}

// ---- events

/// Scenario 72.
#[tokio::test(start_paused = true)]
async fn the_server_tells_who_joined_and_left_once_each() {
    let world = World::memory().await;
    let mut events = world.server.events();
    let ada = seat(world.client()).await;
    let mut bob = seat(world.client()).await;
    let mut told = Vec::new();
    let mut tell = |events: &mut sync_client::Events<ServerEvent>| {
        while let Some(event) = events.try_next() {
            match event {
                ServerEvent::PresenceJoined {
                    document,
                    session,
                    user,
                    instead_of,
                } => {
                    assert_eq!((document.as_str(), &*user.id), (NOTES, "anonymous"));
                    told.push((session, true, instead_of));
                }
                ServerEvent::PresenceLeft { document, session } => {
                    assert_eq!(document.as_str(), NOTES);
                    told.push((session, false, None));
                }
                _ => {}
            }
        }
        std::mem::take(&mut told)
    };
    ada.presence.set(&at("ada", 1)).unwrap();
    let first = sees(&mut bob.roster, &[at("ada", 1)]).await[0].session;
    ada.presence.set(&at("ada", 2)).unwrap();
    sees(&mut bob.roster, &[at("ada", 2)]).await;
    assert_eq!(tell(&mut events), [(first, true, None)]);
    assert!(world.network.cut_nth(0));
    let second = bob.roster.wait_for(|p| p[0].session != first);
    let second = within("she is back", second).await.unwrap()[0].session;
    assert_eq!(tell(&mut events), [(second, true, Some(first))]);
    ada.presence.clear();
    sees(&mut bob.roster, &[]).await;
    assert_eq!(tell(&mut events), [(second, false, None)]);
    // Said and taken back in one tick: nothing has happened.
    sleep(2 * TICK).await;
    ada.presence.set(&at("ada", 3)).unwrap();
    sees(&mut bob.roster, &[at("ada", 3)]).await;
    assert_eq!(tell(&mut events), [(second, true, None)]);
    world.network.set_online(false);
    assert!(world.network.cut_nth(1), "hers is the newer one now");
    sees(&mut bob.roster, &[]).await;
    assert_eq!(tell(&mut events), [(second, false, None)]);
}
