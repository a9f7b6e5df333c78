//! Compaction: logs that the server folds into snapshots while documents are in use.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "scenarios are plain async functions"
)]

mod common;
mod e2e;
mod embedded;
mod registries;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Peer, document, event};
use e2e::tap::Way;
use e2e::{Over, World, content, get, map, push, set, text, within};
use registries::{Registry, registry};
use sync_client::transport::memory::MemoryNetwork;
use sync_client::yrs::{Text, WriteTxn};
use sync_client::{Client, LwwMap, Typed, Yrs};
use sync_core::engine::{Document, Engine, ReplicaSeed};
use sync_core::events::Events;
use sync_core::wire::Message;
use sync_server::registry::{
    Call, ChangeId, DocumentMeta, EmbeddedRegistry, EngineId, Epoch, FaultyRegistry, NewChange,
    NewDocument, OriginId, Seq, ServerRegistry, User,
};
use sync_server::{
    Anonymous, EngineError, FoldError, Folder, InProcess, Server, ServerEvent, ValidateLimits,
    Validator,
};

/// A world whose server folds every so many changes, and keeps so many bytes of the log.
async fn world(changes: u64, keep: usize) -> World {
    World::with(Over::Memory, |builder| {
        builder
            .fold_after(changes, usize::MAX)
            .keep_log(keep, Duration::ZERO)
    })
    .await
}

/// The next fold: its sequence, and the one through which rows are gone.
async fn folded(events: &mut Events<ServerEvent>) -> (u64, u64) {
    let next = event(events, |event| match event {
        ServerEvent::Folded {
            seq,
            keep_after,
            bytes,
            ..
        } => {
            assert!(bytes > 0);
            Some((seq.0, keep_after.0))
        }
        ServerEvent::FoldFailed { error, .. } => panic!("{error:?}"),
        _ => None,
    });
    within("the log is folded", next).await
}

/// The next fold that fails: where it would have been, and why not.
async fn not_folded(events: &mut Events<ServerEvent>) -> (u64, Arc<FoldError>) {
    let next = event(events, |event| match event {
        ServerEvent::Folded { seq, .. } => panic!("folded at {seq}"),
        ServerEvent::FoldFailed { through, error, .. } => Some((through.0, error)),
        _ => None,
    });
    within("folding fails", next).await
}

async fn meta(world: &World, name: &str) -> DocumentMeta {
    world.registry.meta(&document(name)).await.unwrap()
}

/// What a client was sent; any number of changes in a row counts once.
fn names(tap: &e2e::tap::Tap) -> Vec<&'static str> {
    let mut names = tap.names(Way::Down);
    names.dedup();
    names
}

/// Types one change at a time, each saved before the next.
async fn type_all(document: &sync_client::DocumentHandle<Yrs>, what: &str) {
    for letter in what.chars() {
        push(document, &letter.to_string());
        within("saved", document.saved()).await.unwrap();
    }
}

registries! {
    /// Scenario 21: the log is folded by the server itself.
    who_joins_after_a_fold_gets_the_snapshot_and_the_rest => join_after_fold
}

async fn join_after_fold() {
    let world = world(10, 0).await;
    let mut events = world.server.events();
    let ada = world.client();
    let ours = text(&ada, "notes").await;
    type_all(&ours, "0123456789").await;
    let (seq, keep_after) = folded(&mut events).await;
    assert_eq!(seq, 10);
    type_all(&ours, "abc").await;

    let (late, tap) = world.tapped();
    let late = late.start().unwrap();
    let theirs = text(&late, "notes").await;
    within("caught up", theirs.caught_up()).await.unwrap();
    assert_eq!(content(&theirs), "0123456789abc");
    assert_eq!(names(&tap), ["Welcome", "Opened", "Snapshot", "Changes"]);
    let meta = meta(&world, "notes").await;
    assert_eq!(
        (meta.snapshot_seq, meta.log_start),
        (Seq(10), Seq(keep_after))
    );
    assert_eq!(meta.head, Seq(13));
}

/// Scenario 21: within the kept log no byte of a snapshot travels; before it, the snapshot and the rest do.
#[tokio::test(start_paused = true)]
async fn who_comes_back_after_a_fold_gets_changes_if_they_were_kept_and_else_the_snapshot() {
    for (keep, expected) in [
        (1 << 20, &["Welcome", "Opened", "Changes"][..]),
        (0, &["Welcome", "Opened", "Snapshot", "Changes"]),
    ] {
        let world = world(10, keep).await;
        let mut events = world.server.events();
        let ada = world.client();
        let ours = text(&ada, "notes").await;
        let (bob, tap) = world.tapped();
        let bob = bob.start().unwrap();
        let theirs = text(&bob, "notes").await;
        type_all(&ours, "01234").await;
        within(
            "caught up",
            e2e::until(&theirs, "five", |theirs, _| content(theirs) == "01234"),
        )
        .await;
        bob.disconnect();
        let left = event(&mut events, |event| {
            matches!(event, ServerEvent::DocumentClosed { .. }).then_some(())
        });
        within("bob has left", left).await;
        type_all(&ours, "56789").await;
        assert_eq!(folded(&mut events).await.0, 10);
        type_all(&ours, "ab").await;
        tap.clear();
        bob.connect();
        e2e::until(&theirs, "all of it", |theirs, _| {
            content(theirs) == "0123456789ab"
        })
        .await;
        within("caught up", theirs.caught_up()).await.unwrap();
        assert_eq!(names(&tap), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_is_folded_by_its_bytes_and_not_before_it_is_as_long_as_the_snapshot() {
    let world = World::with(Over::Memory, |builder| {
        builder
            .fold_after(u64::MAX, 2_500)
            .keep_log(0, Duration::ZERO)
    })
    .await;
    let mut events = world.server.events();
    let ada = world.client();
    let ours = text(&ada, "notes").await;
    let mut n = 0;
    // At three thousand bytes, then each time the document has doubled.
    for expected in [3, 6, 12, 24] {
        while n < expected {
            push(&ours, &"x".repeat(1_000));
            within("saved", ours.saved()).await.unwrap();
            n += 1;
        }
        assert_eq!(folded(&mut events).await.0, expected);
    }
}

registries! {
    /// Scenario 64.
    removals_after_a_fold_take_effect_everywhere => removals
}

async fn removals() {
    let world = world(4, 0).await;
    let mut events = world.server.events();
    let ada = world.client();
    let ours = map(&ada, "map").await;
    for key in ["a", "b", "c", "d"] {
        set(&ours, key, "set");
        within("saved", ours.saved()).await.unwrap();
    }
    folded(&mut events).await;
    let fresh = world.client();
    let theirs = map(&fresh, "map").await;
    within("caught up", theirs.caught_up()).await.unwrap();
    tokio::time::advance(Duration::from_secs(1)).await;
    ours.edit(|map| map.remove(&"a".to_owned()))
        .unwrap()
        .unwrap();
    theirs
        .edit(|map| map.remove(&"b".to_owned()))
        .unwrap()
        .unwrap();
    let left =
        |map: &LwwMap<String, String>| map.iter().map(|(k, _)| k.clone()).collect::<Vec<_>>();
    for document in [&ours, &theirs] {
        e2e::until(document, "both removed", |document, _| {
            document.read(left) == ["c", "d"]
        })
        .await;
    }
    // Folded away with the values, and still beating them.
    set(&ours, "e", "set");
    set(&ours, "f", "set");
    folded(&mut events).await;
    let last = world.client();
    let last = map(&last, "map").await;
    within("caught up", last.caught_up()).await.unwrap();
    assert_eq!(last.read(left), ["c", "d", "e", "f"]);
}

registries! {
    /// Scenario 64, with texts.
    deletions_in_texts_after_a_fold_take_effect_everywhere => deletions
}

async fn deletions() {
    let world = world(5, 0).await;
    let mut events = world.server.events();
    let ada = world.client();
    let ours = text(&ada, "notes").await;
    type_all(&ours, "12345").await;
    folded(&mut events).await;
    let fresh = world.client();
    let theirs = text(&fresh, "notes").await;
    within("caught up", theirs.caught_up()).await.unwrap();
    let delete = |at| {
        move |txn: &mut sync_client::yrs::TransactionMut<'_>| {
            txn.get_or_insert_text("body").remove_range(txn, at, 1);
        }
    };
    ours.edit(delete(0)).unwrap();
    theirs.edit(delete(4)).unwrap();
    for document in [&ours, &theirs] {
        e2e::until(document, "both gone", |document, _| {
            content(document) == "234"
        })
        .await;
    }
    type_all(&ours, "abc").await;
    folded(&mut events).await;
    let last = world.client();
    let last = text(&last, "notes").await;
    within("caught up", last.caught_up()).await.unwrap();
    assert_eq!(content(&last), "234abc");
}

registries! {
    /// Scenario 65.
    edits_older_than_the_snapshot_come_in_and_newer_values_stay => older_edits
}

async fn older_edits() {
    let world = world(4, 0).await;
    let mut events = world.server.events();
    let (ada, bob) = (world.client(), world.client());
    let (ours, theirs) = (map(&ada, "map").await, map(&bob, "map").await);
    within("caught up", theirs.caught_up()).await.unwrap();
    bob.disconnect();
    set(&theirs, "both", "old");
    set(&theirs, "bob's", "kept");
    tokio::time::advance(Duration::from_secs(60)).await;
    for value in ["1", "2", "3", "new"] {
        set(&ours, "both", value);
        within("saved", ours.saved()).await.unwrap();
    }
    assert_eq!(folded(&mut events).await.0, 4);
    bob.connect();
    within("saved", theirs.saved()).await.unwrap();
    let late = world.client();
    let late = map(&late, "map").await;
    within("caught up", late.caught_up()).await.unwrap();
    for document in [&ours, &theirs, &late] {
        e2e::until(document, "converged", |document, _| {
            get(document, "both").as_deref() == Some("new")
                && get(document, "bob's").as_deref() == Some("kept")
        })
        .await;
    }
}

registries! {
    /// Scenario 66: the server has never heard of either type.
    a_server_that_does_not_know_the_types_loses_nothing_of_them => unknown_types
}

async fn unknown_types() {
    type Numbers = Typed<LwwMap<(u8, u8), Vec<bool>>>;
    let world = world(4, 0).await;
    let mut events = world.server.events();
    let (ada, bob) = (world.client(), world.client());
    let words = map(&ada, "both").await;
    let numbers = bob.open("both", Numbers::new()).await.unwrap();
    for n in 0..2 {
        set(&words, &format!("word {n}"), "w");
        numbers
            .edit(|map| map.insert((n, n), vec![true]))
            .unwrap()
            .unwrap();
        within("saved", words.saved()).await.unwrap();
        within("saved", numbers.saved()).await.unwrap();
    }
    assert_eq!(folded(&mut events).await.0, 4);
    let fresh = world.client();
    let (late, tap) = world.tapped();
    let late = late.start().unwrap();
    let words = map(&fresh, "both").await;
    let numbers = late.open("both", Numbers::new()).await.unwrap();
    within("caught up", words.caught_up()).await.unwrap();
    within("caught up", numbers.caught_up()).await.unwrap();
    assert_eq!(names(&tap), ["Welcome", "Opened", "Snapshot"]);
    assert_eq!(words.read(LwwMap::len), 2);
    assert_eq!(get(&words, "word 1").as_deref(), Some("w"));
    assert_eq!(
        numbers.read(|map| map.get(&(1, 1)).cloned()),
        Some(vec![true])
    );
}

registries! {
    /// Scenario 67: two servers fold one document at once.
    two_servers_that_fold_at_once_lose_nothing_of_either => two_folds
}

async fn two_folds() {
    let world = world(10, 0).await;
    let other = Server::builder(world.faults.clone(), Anonymous::read_write())
        .fold_after(10, usize::MAX)
        .keep_log(0, Duration::ZERO)
        .build()
        .unwrap();
    let network = MemoryNetwork::new();
    let _listener = other.listen(network.acceptor());
    let (mut events, mut other_events) = (world.server.events(), other.events());
    let ada = world.client();
    let bob = Client::with_dialer(network.dialer()).start().unwrap();
    let (ours, theirs) = (text(&ada, "notes").await, text(&bob, "notes").await);
    within("caught up", ours.caught_up()).await.unwrap();
    within("caught up", theirs.caught_up()).await.unwrap();
    world.faults.hold_compactions();
    type_all(&ours, "aaaaa").await;
    type_all(&theirs, "bbbbb").await;
    within("one", world.faults.held_compactions(1)).await;
    type_all(&ours, "a").await;
    within("both", world.faults.held_compactions(2)).await;
    world.faults.release_compactions();
    let one = folded(&mut other_events).await.0;
    let two = folded(&mut events).await.0;
    assert!(one.min(two) >= 10);
    assert_eq!(meta(&world, "notes").await.snapshot_seq, Seq(one.max(two)));
    type_all(&theirs, "b").await;
    for network in [&world.network, &network] {
        let late = Client::with_dialer(network.dialer()).start().unwrap();
        let late = text(&late, "notes").await;
        within("caught up", late.caught_up()).await.unwrap();
        let (a, b): (Vec<_>, Vec<_>) = content(&late).chars().partition(|c| *c == 'a');
        assert_eq!((a.len(), b.len()), (6, 6));
    }
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_does_not_compact_leaves_everything_as_it_was() {
    let world = world(5, 0).await;
    let mut events = world.server.events();
    world.faults.fail_compactions(1);
    let ada = world.client();
    let ours = text(&ada, "notes").await;
    type_all(&ours, "01234").await;
    let (through, error) = not_folded(&mut events).await;
    assert_eq!(through, 5);
    assert!(matches!(&*error, FoldError::Registry(_)), "{error:?}");
    let before = meta(&world, "notes").await;
    assert_eq!((before.snapshot_seq, before.log_start), (Seq(0), Seq(0)));
    // Not again at once, but when the log is twice as long.
    type_all(&ours, "56789").await;
    assert_eq!(folded(&mut events).await.0, 10);
    let late = world.client();
    let late = text(&late, "notes").await;
    within("caught up", late.caught_up()).await.unwrap();
    assert_eq!(content(&late), "0123456789");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_read_is_not_compacted() {
    let world = world(5, 0).await;
    let mut events = world.server.events();
    let ada = world.client();
    let ours = text(&ada, "notes").await;
    type_all(&ours, "0123").await;
    world.faults.fail_reads(1);
    type_all(&ours, "4").await;
    let (through, error) = not_folded(&mut events).await;
    assert_eq!(through, 5);
    assert!(matches!(&*error, FoldError::Registry(_)), "{error:?}");
    assert!(!compacts(&world.faults));
}

fn compacts(faults: &FaultyRegistry<Arc<Registry>>) -> bool {
    let calls = faults.calls();
    calls
        .iter()
        .any(|call| matches!(call, Call::Compact { .. }))
}

/// A change that nobody can use, because the one before it never came.
fn orphan() -> Bytes {
    let engine = Yrs::new();
    let mut replica = engine.create(ReplicaSeed(99)).unwrap();
    for letter in ["a", "b"] {
        engine
            .edit(&mut replica, usize::MAX, |txn| e2e::append(txn, letter))
            .unwrap();
    }
    replica.drain().local.remove(1)
}

#[tokio::test(start_paused = true)]
async fn a_log_with_an_orphan_is_relayed_and_tried_ever_more_seldom() {
    let world = world(5, 0).await;
    let mut events = world.server.events();
    let notes = document("notes");
    let new = NewDocument::new(notes.clone(), EngineId::YRS, Epoch(7));
    world.registry.create(new).await.unwrap();
    let id = ChangeId {
        origin: OriginId(99),
        number: 1,
    };
    let change = NewChange::new(id, User::new("eve"), orphan());
    let appended = world.registry.append(&notes, Epoch(7), None, vec![change]);
    appended.await.unwrap();

    let (ada, bob) = (world.client(), world.client());
    let (ours, theirs) = (text(&ada, "notes").await, text(&bob, "notes").await);
    // With the orphan the log is one longer.
    for (more, expected) in [(4, 5), (5, 10), (10, 20), (20, 40)] {
        type_all(&ours, &"x".repeat(more)).await;
        let (through, error) = not_folded(&mut events).await;
        assert_eq!(through, expected);
        assert!(
            matches!(&*error, FoldError::Engine(EngineError::Incomplete)),
            "{error:?}"
        );
    }
    e2e::until(&theirs, "relayed", |theirs, _| content(theirs).len() == 39).await;
    assert!(!compacts(&world.faults));
}

#[tokio::test(start_paused = true)]
async fn a_room_does_not_unload_before_its_fold_is_over() {
    let world = World::with(Over::Memory, |builder| {
        builder
            .fold_after(5, usize::MAX)
            .keep_log(0, Duration::ZERO)
            .unload_after(Duration::from_secs(1))
    })
    .await;
    let mut events = world.server.events();
    world.faults.hold_compactions();
    let ada = world.client();
    let ours = text(&ada, "notes").await;
    type_all(&ours, "01234").await;
    within("compacting", world.faults.held_compactions(1)).await;
    drop(ours);
    ada.shutdown(Duration::ZERO).await;
    tokio::time::advance(Duration::from_secs(60)).await;
    tokio::task::yield_now().await;
    while let Some(event) = events.try_next() {
        assert!(!matches!(event, ServerEvent::RoomUnloaded { .. }));
    }
    world.faults.release_compactions();
    assert_eq!(folded(&mut events).await.0, 5);
    let unloaded = event(&mut events, |event| {
        matches!(event, ServerEvent::RoomUnloaded { .. }).then_some(())
    });
    within("unloaded", unloaded).await;
}

/// An engine whose documents are lines, one for each change; `?` makes its folds panic.
struct Lines;

impl Validator for Lines {
    fn engine(&self) -> EngineId {
        EngineId::OPAQUE
    }

    fn validate(&self, _: &[u8], _: &ValidateLimits) -> Result<(), EngineError> {
        Ok(())
    }

    fn folder(&self) -> Option<&dyn Folder> {
        Some(self)
    }
}

impl Folder for Lines {
    fn fold(&self, snapshot: Option<&[u8]>, changes: &[Bytes]) -> Result<Bytes, EngineError> {
        let mut folded = snapshot.unwrap_or_default().to_vec();
        for change in changes {
            assert_ne!(change.as_ref(), b"?", "a bug in an engine");
            folded.extend_from_slice(change);
            folded.push(b'\n');
        }
        Ok(folded.into())
    }
}

fn lines(changes: u64) -> (Server, Arc<Registry>) {
    let registry = registry();
    let server = common::builder(Arc::clone(&registry))
        .engines(InProcess::default().engine(Lines))
        .fold_after(changes, usize::MAX)
        .keep_log(0, Duration::ZERO)
        .ring_bytes_max(16 * 1024)
        .build()
        .unwrap();
    (server, registry)
}

registries! {
    /// Scenario 48: what a slow reader still needs is kept for it.
    a_reader_behind_the_ring_is_sent_changes_however_often_the_log_is_folded => reader_behind_the_ring
}

async fn reader_behind_the_ring() {
    let (server, registry) = lines(50);
    let mut events = server.events();
    let mut slow = Peer::connect_with(&server, 9, 1024);
    slow.hello().await;
    let mut followed = slow.open("notes").await;
    let mut ada = Peer::welcomed(&server, 1).await;
    let ours = ada.open("notes").await;
    for number in 1..=200_u64 {
        ada.push_acked(&ours, number, &format!("{number:01000}"))
            .await;
        if number % 50 == 0 {
            let (seq, keep_after) = folded(&mut events).await;
            assert_eq!(seq, number);
            assert!(keep_after < 50, "{keep_after}");
        }
    }
    slow.follow(&mut followed, 200).await;
    assert_eq!(followed.content.len(), 200, "one by one, and no snapshot");
    // Nobody needs them any more.
    for number in 201..=250_u64 {
        ada.push_acked(&ours, number, "next").await;
        slow.follow(&mut followed, number).await;
    }
    let (seq, keep_after) = folded(&mut events).await;
    assert_eq!(seq, 250);
    // The last frame may have been on its way.
    assert!(keep_after >= 249, "{keep_after}");
    let meta = registry.meta(&document("notes")).await.unwrap();
    assert_eq!(meta.log_start, Seq(keep_after));
    assert_eq!(meta.snapshot_seq, Seq(250));
    let mut late = Peer::welcomed(&server, 3).await;
    let mut joined = late.open("notes").await;
    late.follow(&mut joined, 250).await;
    assert_eq!(joined.cursor, followed.cursor);
    assert_eq!(joined.content[0].lines().count(), 250);
}

#[tokio::test(start_paused = true)]
async fn a_fold_that_panics_is_a_fold_that_failed() {
    let (server, _) = lines(2);
    let mut events = server.events();
    let mut ada = Peer::welcomed(&server, 1).await;
    let ours = ada.open("notes").await;
    ada.push_acked(&ours, 1, "?").await;
    ada.push_acked(&ours, 2, "x").await;
    let (through, error) = not_folded(&mut events).await;
    assert_eq!(through, 2);
    assert!(
        matches!(&*error, FoldError::Engine(EngineError::Poisoned)),
        "{error:?}"
    );
    ada.push_acked(&ours, 3, "served all the same").await;
    let other = ada.open("other").await;
    ada.push_acked(&other, 1, "a").await;
    ada.push_acked(&other, 2, "b").await;
    assert_eq!(folded(&mut events).await.0, 2);
}

registries! {
    /// An open that began before a compaction and is answered after it.
    who_is_joining_while_the_log_is_compacted_gets_everything => join_while_compacting
}

async fn join_while_compacting() {
    let world = world(5, 0).await;
    let mut events = world.server.events();
    let ada = world.client();
    let ours = text(&ada, "notes").await;
    world.faults.hold_compactions();
    type_all(&ours, "01234").await;
    within("compacting", world.faults.held_compactions(1)).await;
    world.faults.hold_reads();
    let (late, tap) = world.tapped();
    let late = late.start().unwrap();
    let theirs = text(&late, "notes").await;
    within("reading", world.faults.held_reads(1)).await;
    world.faults.release_compactions();
    folded(&mut events).await;
    world.faults.release_reads();
    within("caught up", theirs.caught_up()).await.unwrap();
    assert_eq!(content(&theirs), "01234");
    let snapshots = tap.pick(Way::Down, |message| match message {
        Message::Snapshot(snapshot) => Some(snapshot.seq),
        _ => None,
    });
    assert_eq!(snapshots, [Seq(5)]);
}

/// Scenario 21, with what is on the disk: folded, closed, opened again.
#[tokio::test]
async fn a_folded_log_on_the_disk_is_all_there_after_a_restart() {
    let directory = embedded::Directory::new();
    let typed = "0123456789abcdefghijklmno";
    for restarted in [false, true] {
        let registry = Arc::new(EmbeddedRegistry::open(directory.path()).unwrap());
        let server = Server::builder(Arc::clone(&registry), Anonymous::read_write())
            .fold_after(10, usize::MAX)
            .keep_log(0, Duration::ZERO)
            .build()
            .unwrap();
        let mut events = server.events();
        let network = MemoryNetwork::new();
        let _listener = server.listen(network.acceptor());
        let client = Client::with_dialer(network.dialer()).start().unwrap();
        let notes = text(&client, "notes").await;
        if restarted {
            within("caught up", notes.caught_up()).await.unwrap();
            assert_eq!(content(&notes), typed);
            let meta = registry.meta(&document("notes")).await.unwrap();
            assert!(
                meta.snapshot_seq >= Seq(10) && meta.log_start > Seq(0),
                "{meta:?}"
            );
        } else {
            type_all(&notes, typed).await;
            folded(&mut events).await;
        }
        server.shutdown(Duration::ZERO).await;
    }
}

/// Relays never fold: the server does not know what their changes mean.
#[tokio::test(start_paused = true)]
async fn opaque_documents_are_not_folded() {
    let registry = Arc::new(FaultyRegistry::new(registry()));
    let server = common::builder(Arc::clone(&registry))
        .fold_after(2, 2)
        .build()
        .unwrap();
    let mut ada = Peer::welcomed(&server, 1).await;
    let ours = ada.open("notes").await;
    for number in 1..=10 {
        ada.push_acked(&ours, number, "x").await;
    }
    assert_eq!(ada.quiet().await, None);
    assert!(!compacts(&registry));
}
