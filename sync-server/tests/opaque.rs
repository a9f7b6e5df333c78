//! Documents that only their clients read: relayed, and folded by one of them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "scenarios are plain async functions"
)]

mod common;
mod e2e;
mod registries;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use common::{Peer, document, event};
use e2e::tap::{Tap, Way};
use e2e::{Over, World, until, within};
use registries::Registry;
use sync_client::{Client, DocumentHandle, Opaque, OpaqueLog};
use sync_core::error::ErrorCode;
use sync_core::events::Events;
use sync_core::history::Seq;
use sync_core::wire::{AccessLevel, FoldOffer, Message};
use sync_server::registry::{FaultyRegistry, ServerRegistry, User};
use sync_server::{
    Access, Anonymous, Auth, AuthError, Authenticator, ConnectRequest, Identity, ServerEvent,
    authorize_fn,
};
use sync_sim::world::{CALM, ROUGH, Weather, World as Simulation};

const DOC: &str = "doc";

/// Snapshots are the words so far: nothing of the order is lost.
fn words() -> Opaque {
    Opaque::new().fold(|snapshots, changes| {
        let all: Vec<&[u8]> = snapshots.iter().chain(changes).map(|it| &**it).collect();
        all.join(&b' ').into()
    })
}

/// Everything, in order.
fn shown(log: &OpaqueLog) -> String {
    let all = log.snapshots().chain(log.changes()).chain(log.pending());
    let all: Vec<_> = all
        .map(|it| String::from_utf8(it.to_vec()).unwrap())
        .collect();
    all.join(" ")
}

fn content(document: &DocumentHandle<Opaque>) -> String {
    document.read(shown)
}

async fn open(client: &Client) -> DocumentHandle<Opaque> {
    client.open(DOC, words()).await.unwrap()
}

/// Pushes words, each saved before the next.
async fn push_all(document: &DocumentHandle<Opaque>, words: &str) {
    for word in words.split(' ') {
        document.edit(|log| log.push(word.to_owned())).unwrap();
        within("saved", document.saved()).await.unwrap();
    }
}

/// A world whose server asks for a fold every so many changes, and keeps nothing of the log beyond that.
async fn folding(auth: Auth, changes: u64) -> World {
    World::assemble(Over::Memory, auth, |builder| {
        builder.fold_after(changes, usize::MAX)
    })
    .await
}

async fn folded(events: &mut Events<ServerEvent>) -> u64 {
    let next = event(events, |event| match event {
        ServerEvent::Folded { seq, .. } => Some(seq.0),
        ServerEvent::FoldFailed { error, .. } => panic!("{error:?}"),
        _ => None,
    });
    within("the log is folded", next).await
}

/// The token is the user's name.
struct NameIsToken;

#[async_trait]
impl Authenticator for NameIsToken {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        let token = request.credentials.clone().unwrap();
        Ok(User::new(String::from_utf8(token.to_vec()).unwrap()).into())
    }
}

fn count(tap: &Tap, way: Way, name: &str) -> usize {
    tap.names(way).iter().filter(|it| **it == name).count()
}

both! {
    /// Scenario 60: everybody sees the same, in the order of the log.
    opaque_documents_converge => converge
}

async fn converge(world: World) {
    let (ada, bob) = (world.client(), world.client());
    let (ours, theirs) = (open(&ada).await, open(&bob).await);
    for n in 0..10 {
        ours.edit(|log| log.push(format!("a{n}"))).unwrap();
        theirs.edit(|log| log.push(format!("b{n}"))).unwrap();
    }
    within("saved", ours.saved()).await.unwrap();
    within("saved", theirs.saved()).await.unwrap();
    for document in [&ours, &theirs] {
        until(document, "all of it", |document, _| {
            document.read(|log| log.changes().count() == 20)
        })
        .await;
    }
    assert_eq!(content(&ours), content(&theirs));
    assert_eq!(ours.read(|log| log.pending().count()), 0);
    let late = world.client();
    let late = open(&late).await;
    within("caught up", late.caught_up()).await.unwrap();
    assert_eq!(content(&late), content(&ours));
}

/// What is in one edit is one change: everybody sees all of it or nothing.
#[tokio::test(start_paused = true)]
async fn an_edit_that_pushes_several_times_is_one_change() {
    let world = World::memory().await;
    let (ada, bob) = (world.client(), world.client());
    let (ours, theirs) = (open(&ada).await, open(&bob).await);
    ours.edit(|log| {
        log.push("one");
        log.push("two");
        assert_eq!(log.log().pending().count(), 0);
    })
    .unwrap();
    assert_eq!(content(&ours), "one two");
    within("saved", ours.saved()).await.unwrap();
    until(&theirs, "both", |theirs, _| content(theirs) == "one two").await;
    assert_eq!(world.log(DOC).await.len(), 1);
}

/// Scenarios 60 and 66: the server cannot read a byte, and whoever comes late gets the snapshot and the rest.
#[tokio::test(start_paused = true)]
async fn one_client_folds_and_who_joins_after_that_gets_the_snapshot_and_the_rest() {
    let world = folding(Anonymous::maintain(), 10).await;
    let mut events = world.server.events();
    let (ada, ada_tap) = world.tapped();
    let (bob, bob_tap) = world.tapped();
    let (ada, bob) = (ada.start().unwrap(), bob.start().unwrap());
    let (ours, theirs) = (open(&ada).await, open(&bob).await);
    within("caught up", theirs.caught_up()).await.unwrap();
    push_all(&ours, "0 1 2 3 4 5 6 7 8 9").await;
    assert_eq!(folded(&mut events).await, 10);
    push_all(&ours, "a b").await;
    let asked = |tap| count(tap, Way::Down, "FoldRequest");
    let offered = |tap| count(tap, Way::Up, "FoldOffer");
    assert_eq!(asked(&ada_tap) + asked(&bob_tap), 1);
    assert_eq!(offered(&ada_tap) + offered(&bob_tap), 1);

    let (late, tap) = world.tapped();
    let late = late.start().unwrap();
    let late = open(&late).await;
    within("caught up", late.caught_up()).await.unwrap();
    let mut names = tap.names(Way::Down);
    names.dedup();
    assert_eq!(names, ["Welcome", "Opened", "Snapshot", "Changes"]);
    assert_eq!(content(&late), "0 1 2 3 4 5 6 7 8 9 a b");
    assert_eq!(late.read(|log| log.snapshots().count()), 1);
    // It was folded twelve changes ago and is still there.
    assert_eq!(world.log(DOC).await.len(), 12);
}

/// Scenario 60.
#[tokio::test(start_paused = true)]
async fn nobody_is_asked_who_may_not_maintain_and_an_uncalled_offer_is_refused() {
    let auth = Auth::new(
        NameIsToken,
        authorize_fn(|user, _| async move {
            Ok(match &*user.id {
                "keeper" => Access::maintain(),
                _ => Access::write(),
            })
        }),
    );
    let world = folding(auth, 3).await;
    let mut events = world.server.events();
    let (ada, tap) = world.tapped();
    let ada = ada.token("ada").start().unwrap();
    let ours = open(&ada).await;
    push_all(&ours, "0 1 2 3 4").await;
    assert_eq!(count(&tap, Way::Down, "FoldRequest"), 0);

    let mut mallory = Peer::connect(&world.server, 77);
    let Message::Hello(mut hello) = mallory.hello_message() else {
        panic!("a hello");
    };
    hello.credentials = Some(Bytes::from_static(b"mallory"));
    mallory.send(&Message::Hello(hello)).await;
    assert!(matches!(mallory.next().await, Message::Welcome(_)));
    let mut doc = mallory.open(DOC).await;
    while doc.cursor.seq < Seq(5) {
        doc.cursor = match mallory.next().await {
            Message::Changes(changes) => changes.changes.iter().fold(doc.cursor, |at, change| {
                at.with(change.number.resolve(at.seq.next()).unwrap(), &change.bytes)
            }),
            other => panic!("{other:?}"),
        };
    }
    let offer = FoldOffer {
        channel: doc.channel,
        epoch: doc.cursor.epoch,
        seq: doc.cursor.seq,
        digest: doc.cursor.digest,
        bytes: Bytes::from_static(b"nothing at all"),
    };
    mallory.send(&Message::FoldOffer(offer)).await;
    assert_eq!(mallory.error().await.code, ErrorCode::AccessDenied);

    let keeper = world.builder().token("keeper").start().unwrap();
    let kept = open(&keeper).await;
    assert_eq!(folded(&mut events).await, 5);
    assert_eq!(kept.sync_state().get().access, AccessLevel::Maintain);
    let meta = world.registry.meta(&document(DOC)).await.unwrap();
    assert_eq!(meta.snapshot_seq, Seq(5));
}

/// Scenario 61.
#[tokio::test(start_paused = true)]
async fn a_server_that_lost_everything_is_repopulated_in_the_same_order() {
    let mut world = folding(Anonymous::maintain(), 4).await;
    let mut events = world.server.events();
    let (ada, bob) = (world.client(), world.client());
    let (ours, theirs) = (open(&ada).await, open(&bob).await);
    push_all(&ours, "0 1 2 3").await;
    folded(&mut events).await;
    push_all(&theirs, "4 5").await;
    until(&ours, "all", |ours, _| content(ours) == "0 1 2 3 4 5").await;
    world.stop().await;
    ours.edit(|log| log.push("6")).unwrap();
    world.faults = Arc::new(FaultyRegistry::new(Arc::new(Registry::of_this_test())));
    world.start().await;
    within("saved", ours.saved()).await.unwrap();
    for document in [&ours, &theirs] {
        until(document, "everything", |document, state| {
            state.is_caught_up() && content(document) == "0 1 2 3 4 5 6"
        })
        .await;
    }
    let late = world.client();
    let late = open(&late).await;
    within("caught up", late.caught_up()).await.unwrap();
    assert_eq!(content(&late), "0 1 2 3 4 5 6");
}

fn simulation(seed: u64, clients: usize, weather: Weather) -> Simulation<Opaque> {
    let mut world = Simulation::on(registries::simulated(), seed, words(), weather);
    for _ in 0..clients {
        let client = world.add_client();
        world.open(client, DOC);
    }
    world
}

fn say(world: &mut Simulation<Opaque>, client: usize, n: u64) {
    assert!(world.edit(client, DOC, |log| log.push(n.to_string())));
}

#[track_caller]
fn assert_same_list(world: &mut Simulation<Opaque>, n: u64, seed: u64) {
    world.assert_converged(DOC);
    let first = world.read(0, DOC, shown);
    let mut all: Vec<u64> = first.split(' ').map(|it| it.parse().unwrap()).collect();
    for client in 0..world.clients.len() {
        assert_eq!(world.read(client, DOC, shown), first, "seed {seed}");
    }
    all.sort_unstable();
    assert!(all.into_iter().eq(0..n), "seed {seed}: {first}");
}

/// Scenarios 60 and 67: at any moment clients are asked, edit meanwhile, leave, come back, and the server restarts.
#[test]
fn folds_by_clients_at_any_moment_take_nothing_from_anybody() {
    let mut n_folds = 0;
    for seed in 1..=300 {
        let mut world = simulation(seed, 3, if seed % 2 == 0 { ROUGH } else { CALM });
        world.folding = Some((3, 0));
        for n in 0..30 {
            let client = usize::try_from(world.below(3)).unwrap();
            say(&mut world, client, n);
            match world.below(10) {
                0 => world.cut(client),
                1 => world.set_online(client, false),
                2 => {
                    world.kill_server();
                    world.start_server();
                }
                3 => (0..3).for_each(|client| world.set_online(client, true)),
                _ => {
                    let pause = Duration::from_millis(world.below(1_500));
                    world.run_for(pause);
                }
            }
        }
        (0..3).for_each(|client| world.set_online(client, true));
        let late = world.add_client();
        world.open(late, DOC);
        world.settle(DOC);
        assert_same_list(&mut world, 30, seed);
        n_folds += u64::from(world.meta(DOC).snapshot_seq > Seq::ZERO);
    }
    assert!(n_folds > 200, "{n_folds} of 300 documents were ever folded");
}
