//! Documents beside each other, clients beside each other, and documents that nobody has open for a while.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod e2e;
mod registries;

use std::time::Duration;

use e2e::tap::Way;
use e2e::{Over, World, content, get, map, push, set, text, until, until_status, within};
use sync_client::{
    Client, DocumentEvent, DocumentHandle, Engine, ErrorCode, MemoryStore, RefusedReason, Status,
    SyncPhase,
};
use sync_core::history::{Epoch, EpochMode};
use sync_core::registry::NewDocument;
use sync_core::wire::{Continuation, Message};
use sync_server::registry::ServerRegistry;
use sync_server::{EngineId, ServerEvent};

const A: &str = "a";
const B: &str = "b";

async fn saved<E: Engine>(document: &DocumentHandle<E>) {
    within("saved", document.saved()).await.unwrap();
}

async fn caught_up<E: Engine>(document: &DocumentHandle<E>) {
    within("caught up", document.caught_up()).await.unwrap();
}

fn id(name: &str) -> sync_client::DocumentId {
    name.try_into().unwrap()
}

// ---- documents beside each other

both! {
    /// Scenario 58.
    nothing_that_happens_to_one_document_shows_in_another => nothing_shows
}

async fn nothing_shows(world: World) {
    let ann = world.client();
    let (bob, tap) = world.tapped();
    let bob = bob.start().unwrap();
    let (a, b) = (text(&ann, A).await, text(&ann, B).await);
    push(&b, "of b");
    saved(&b).await;
    let only_b = text(&bob, B).await;
    until(&only_b, "bob has b", |b, _| content(b) == "of b").await;
    caught_up(&only_b).await;
    caught_up(&b).await;
    let (mut events, revision) = (b.events(), b.revision().get());
    tap.clear();

    // Edits, a change that is refused here, another history, and its end.
    push(&a, "of a");
    saved(&a).await;
    assert!(
        a.edit(|txn| e2e::append(txn, &"x".repeat(2 << 20)))
            .is_err()
    );
    let mut other = NewDocument::new(id(A), EngineId::YRS, Epoch(7));
    other.mode = EpochMode::Discard;
    world.registry.replace(other, Vec::new()).await.unwrap();
    push(&a, "fenced");
    until(&a, "empty again", |a, state| {
        state.is_caught_up() && content(a).is_empty()
    })
    .await;
    world.registry.delete(&id(A)).await.unwrap();
    push(&a, "never");
    until(&a, "deleted", |_, state| state.phase == SyncPhase::Deleted).await;

    assert_eq!(
        (content(&b).as_str(), b.revision().get()),
        ("of b", revision)
    );
    assert!(events.try_next().is_none(), "nothing happened to b");
    let state = b.sync_state().get();
    assert_eq!(
        (state.phase, state.unsaved, state.refused),
        (SyncPhase::Live, 0, 0)
    );
    push(&b, " and more");
    until(&only_b, "bob has more", |b, _| {
        content(b) == "of b and more"
    })
    .await;
    assert_eq!(tap.names(Way::Down), ["Changes"], "and nothing else");
    assert_eq!(content(&only_b), "of b and more");
}

/// Scenarios 57 and 58: engines, too, are each document's own.
#[tokio::test(start_paused = true)]
async fn one_name_in_two_engines_is_two_errors_and_not_a_mixture() {
    let world = World::memory().await;
    let (ann, bob) = (world.client(), world.client());
    let a = text(&ann, A).await;
    push(&a, "text");
    saved(&a).await;
    assert!(
        ann.open(A, e2e::Map::new()).await.is_err(),
        "open as a text on this client"
    );
    let b = map(&bob, A).await;
    set(&b, "k", "v");
    let answer = within("an answer", b.saved()).await;
    assert_eq!(
        answer,
        Err(sync_client::SaveError::Denied(ErrorCode::EngineMismatch))
    );
    assert_eq!(
        (get(&b, "k").unwrap().as_str(), content(&a).as_str()),
        ("v", "text")
    );
    push(&a, "!");
    saved(&a).await;
    assert_eq!(world.log(A).await.len(), 2);
}

// ---- clients beside each other

/// Scenario 49.
#[tokio::test(start_paused = true)]
async fn recipients_that_break_or_stop_reading_keep_nothing_from_the_others() {
    let world = World::memory().await;
    let author = world.client();
    let a = text(&author, A).await;
    push(&a, "0");
    saved(&a).await;
    let mut others = Vec::new();
    for _ in 0..9 {
        let client = world.client();
        let document = text(&client, A).await;
        until(&document, "the start", |d, _| content(d) == "0").await;
        others.push(document);
    }
    // In the order of dialing, the author first.
    let links = world.network.links();
    for (n, link) in links.iter().enumerate().skip(1) {
        match n % 3 {
            0 => link.stall(true),
            1 => link.cut(),
            _ => {}
        }
        // Some before, some while the broadcast is under way.
        push(&a, &n.to_string());
    }
    saved(&a).await;
    let all = content(&a);
    for (n, document) in (1..).zip(&others) {
        if n % 3 == 2 {
            until(document, "an unhurt one has it", |d, _| content(d) == all).await;
        }
    }
    links.iter().for_each(|link| link.stall(false));
    for document in &others {
        until(document, "the others follow", |d, _| content(d) == all).await;
    }
    assert_eq!(world.log(A).await.len(), 10);
}

// ---- documents that nobody has open

registries! {
    /// Scenario 59, from the clients' side.
    a_document_that_was_unloaded_meanwhile_goes_on_where_it_was_and_one_in_use_never_is => unloaded
}

async fn unloaded() {
    let world = World::memory().await;
    let mut events = world.server.events();
    let (ann, tap) = world.tapped();
    let ann = ann.start().unwrap();
    let a = text(&ann, A).await;
    push(&a, "1");
    saved(&a).await;
    // A day with nothing to do.
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert!(a.sync_state().get().is_caught_up());
    assert_eq!(unloads(&mut events), 0, "somebody has it open");

    ann.disconnect();
    until_status(&ann, "offline", |status| *status == Status::Offline).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(unloads(&mut events), 1);
    push(&a, "2");
    tap.clear();
    ann.connect();
    saved(&a).await;
    caught_up(&a).await;
    let next = tap.pick(Way::Down, |message| match message {
        Message::Opened(opened) => Some(opened.next),
        _ => None,
    });
    assert_eq!(next, [Continuation::Resume]);
    assert_eq!(
        tap.names(Way::Down),
        ["Welcome", "Opened", "Ack"],
        "nothing again"
    );
    let newcomer = text(&world.client(), A).await;
    until(&newcomer, "all of it", |d, _| content(d) == "12").await;
    assert_eq!(unloads(&mut events), 0);
}

fn unloads(events: &mut sync_client::Events<ServerEvent>) -> usize {
    std::iter::from_fn(|| events.try_next())
        .filter(|event| matches!(event, ServerEvent::RoomUnloaded { .. }))
        .count()
}

registries! {
    on_threads
    /// Scenario 59: clients come and go while the room does.
    clients_that_come_and_go_while_the_room_unloads_lose_and_double_nothing => coming_and_going
}

async fn coming_and_going() {
    let at_once = |builder: sync_server::ServerBuilder| builder.unload_after(Duration::ZERO);
    let world = World::with(Over::Memory, at_once).await;
    let rounds = |client: Client, name: &'static str| async move {
        for n in 0..40 {
            let document = map(&client, A).await;
            set(&document, &format!("{name}-{n}"), "x");
            if n % 3 > 0 {
                saved(&document).await;
            }
        }
        let document = map(&client, A).await;
        saved(&document).await;
        document.refused().len()
    };
    let tasks = ["ann", "bob", "cem"].map(|name| tokio::spawn(rounds(world.client(), name)));
    for task in tasks {
        assert_eq!(within("a client is done", task).await.unwrap(), 0);
    }
    let newcomer = map(&world.client(), A).await;
    caught_up(&newcomer).await;
    assert_eq!(newcomer.read(|map| map.len()), 120);
    assert_eq!(world.log(A).await.len(), 120, "once each");
}

// ---- documents that an application closes and opens again

registries! {
    /// Scenario 32, within one process.
    a_document_that_is_closed_and_opened_again_goes_on_where_it_was => closed_and_opened
}

async fn closed_and_opened() {
    for with_store in [false, true] {
        let world = World::memory().await;
        let mut builder = world.builder();
        if with_store {
            builder = builder.store(MemoryStore::new());
        }
        let (ann, bob) = (builder.start().unwrap(), world.client());
        let b = text(&bob, A).await;
        let mut length = 0;
        for n in 0..7 {
            let a = text(&ann, A).await;
            let word = format!("<{n}>");
            push(&a, &word);
            length += word.len();
            if n % 2 == 0 {
                saved(&a).await;
            }
            drop(a);
            tokio::time::sleep(Duration::from_secs([0, 1, 60][n % 3])).await;
        }
        until(&b, "everything", |b, _| content(b).len() == length).await;
        let a = text(&ann, A).await;
        caught_up(&a).await;
        assert_eq!(content(&a), content(&b));
        assert_eq!(a.refused().len(), 0);
        assert_eq!(world.log(A).await.len(), 7, "with a store: {with_store}");
    }
}

registries! {
    /// Scenario 79: the application had closed the document when the answer came.
    what_is_refused_after_a_document_was_closed_waits_for_its_next_opening => refused_after_close
}

async fn refused_after_close() {
    for with_store in [false, true] {
        let mut limits = sync_server::Limits::default();
        limits.change_bytes_max = 1_000;
        let strict = |builder: sync_server::ServerBuilder| builder.limits(limits);
        let world = World::with(Over::Memory, strict).await;
        world.network.set_online(false);
        let mut builder = world.builder();
        if with_store {
            builder = builder.store(MemoryStore::new());
        }
        let ann = builder.start().unwrap();
        let a = text(&ann, A).await;
        push(&a, "good");
        push(&a, &"x".repeat(2_000));
        push(&a, "behind");
        drop(a);
        world.network.set_online(true);
        ann.on_network_change();
        tokio::time::sleep(Duration::from_secs(60)).await;

        let a = text(&ann, A).await;
        caught_up(&a).await;
        until(&a, "rebuilt", |a, state| {
            content(a) == "good" && state.unsaved == 0
        })
        .await;
        let reasons: Vec<_> = a.refused().iter().map(|change| change.reason).collect();
        let too_large = RefusedReason::Code(ErrorCode::TooLarge);
        assert_eq!(
            reasons,
            [too_large, RefusedReason::Behind],
            "with a store: {with_store}"
        );
        push(&a, "!");
        until(&a, "saved", |_, state| state.is_saved()).await;
        drop(a);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let a = text(&ann, A).await;
        assert_eq!(a.refused().len(), 2);
        let mut events = a.events();
        let ids: Vec<_> = a.refused().iter().map(|change| change.id).collect();
        assert!(ids.into_iter().all(|id| a.drop_refused(id)));
        drop(a);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let a = text(&ann, A).await;
        caught_up(&a).await;
        assert_eq!((a.refused().len(), content(&a).as_str()), (0, "good!"));
        let replaced = |event| matches!(event, DocumentEvent::Replaced);
        assert!(!std::iter::from_fn(|| events.try_next()).any(replaced));
    }
}
