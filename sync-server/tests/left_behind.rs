//! What is deleted stays deleted, what is reclaimed comes back for nobody, and who reads slowly arrives all the same.

#![allow(clippy::unwrap_used, reason = "scenarios are plain async functions")]

mod e2e;
mod registries;

use std::collections::BTreeSet;
use std::time::Duration;

use e2e::slow::Slow;
use e2e::tap::{Tap, Way};
use e2e::{Over, World, content, get, map, push, set, text, until, within};
use sync_client::yrs::{Text, WriteTxn};
use sync_client::{Client, DocumentHandle, Engine, MemoryStore, SyncPhase, Yrs};
use sync_core::wire::Message;
use sync_server::registry::{DocumentId, RegistryError, Seq, ServerRegistry};

fn id(name: &str) -> DocumentId {
    DocumentId::new(name).unwrap()
}

async fn saved<E: Engine>(document: &DocumentHandle<E>) {
    within("saved", document.saved()).await.unwrap();
}

async fn caught_up<E: Engine>(document: &DocumentHandle<E>) {
    within("caught up", document.caught_up()).await.unwrap();
}

/// A world whose server folds every so many changes, and keeps no more of the log than somebody needs.
async fn folding(changes: u64) -> World {
    World::with(Over::Memory, |builder| {
        let builder = builder.fold_after(changes, usize::MAX);
        builder.keep_log(0, Duration::ZERO).gzip(false)
    })
    .await
}

async fn folded(world: &World, document: &str, through: u64) {
    while world
        .registry
        .meta(&id(document))
        .await
        .unwrap()
        .snapshot_seq
        < Seq(through)
    {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

both! {
    /// Scenario 63.
    a_deleted_document_is_gone_for_everybody_and_comes_back_for_nobody => deleted
}

async fn deleted(world: World) {
    let (ann, bob) = (world.client(), world.client());
    let cem = world.builder().store(MemoryStore::new()).start().unwrap();
    let (hers, his, away) = (
        text(&ann, "gone").await,
        text(&bob, "gone").await,
        text(&cem, "gone").await,
    );
    let kept = text(&ann, "kept").await;
    push(&hers, "secret");
    push(&kept, "stays");
    saved(&hers).await;
    saved(&kept).await;
    until(&away, "cem has it", |d, _| content(d) == "secret").await;
    cem.disconnect();
    push(&away, ", and more of it");

    world.registry.delete(&id("gone")).await.unwrap();
    world
        .registry
        .maintain(Duration::from_secs(60))
        .await
        .unwrap();
    push(&hers, "!");
    for document in [&hers, &his] {
        until(document, "told", |_, state| {
            state.phase == SyncPhase::Deleted
        })
        .await;
    }
    // Who was away has it, and changes of it, and asks for it to be created if it is not there.
    cem.connect();
    until(&away, "told", |_, state| state.phase == SyncPhase::Deleted).await;
    let dan = world.client();
    let new = text(&dan, "gone").await;
    until(&new, "told", |_, state| state.phase == SyncPhase::Deleted).await;
    assert_eq!(content(&new), "");

    let meta = world.registry.meta(&id("gone")).await;
    assert!(matches!(meta, Err(RegistryError::Deleted)), "{meta:?}");
    let list = world.registry.list(None, 10).await.unwrap();
    let listed: Vec<_> = list.iter().map(|meta| meta.id.as_str()).collect();
    assert_eq!(listed, ["kept"]);
    push(&kept, ".");
    saved(&kept).await;
    assert_eq!(world.log("kept").await.len(), 2);
}

registries! {
    /// Scenario 68, for the content of what was deleted.
    what_was_deleted_is_reclaimed_by_folding_and_comes_back_with_nobody => reclaimed
}

async fn reclaimed() {
    let world = folding(4).await;
    let (ann, bob) = (world.client(), world.client());
    let (hers, his) = (text(&ann, "notes").await, text(&bob, "notes").await);
    let (mine, yours) = (map(&ann, "map").await, map(&bob, "map").await);
    push(&hers, &"x".repeat(100_000));
    set(&mine, "large", &"x".repeat(100_000));
    set(&mine, "small", "s");
    saved(&hers).await;
    saved(&mine).await;
    until(&his, "bob has it", |d, _| content(d).len() == 100_000).await;
    until(&yours, "bob has it", |d, _| get(d, "small").is_some()).await;
    // Away, with all of it, and with work on it.
    bob.disconnect();
    push(&his, "bob's");
    set(&yours, "large", "changed before it was removed");
    tokio::time::advance(Duration::from_secs(60)).await;

    let delete = |txn: &mut sync_client::yrs::TransactionMut<'_>| {
        txn.get_or_insert_text("body").remove_range(txn, 0, 100_000);
    };
    hers.edit(delete).unwrap();
    mine.edit(|map| map.remove(&"large".to_owned()))
        .unwrap()
        .unwrap();
    for n in 0..4 {
        push(&hers, "a");
        saved(&hers).await;
        set(&mine, "n", &n.to_string());
        saved(&mine).await;
    }
    for document in ["notes", "map"] {
        folded(&world, document, 4).await;
        let snapshot = world.registry.snapshot(&id(document)).await.unwrap();
        let bytes = snapshot.unwrap().bytes.len();
        assert!(bytes < 2_000, "{bytes} bytes of {document}");
    }
    bob.connect();
    saved(&his).await;
    saved(&yours).await;
    caught_up(&his).await;
    caught_up(&yours).await;
    let late = world.client();
    let (last, theirs) = (text(&late, "notes").await, map(&late, "map").await);
    caught_up(&last).await;
    caught_up(&theirs).await;
    for document in [&hers, &his, &last] {
        until(document, "the same for all", |d, _| {
            holds(d, "aaaa", "bob's")
        })
        .await;
    }
    for document in [&mine, &yours, &theirs] {
        until(document, "the same for all", |d, _| {
            get(d, "large").is_none() && get(d, "n").as_deref() == Some("3")
        })
        .await;
    }
}

/// What each wrote, in either order, and nothing else.
fn holds(document: &DocumentHandle<Yrs>, one: &str, other: &str) -> bool {
    let text = content(document);
    text == format!("{one}{other}") || text == format!("{other}{one}")
}

registries! {
    /// Scenario 82.
    a_slow_reader_of_a_large_document_that_many_write_to_arrives_with_two_snapshots_at_most => slow_reader
}

async fn slow_reader() {
    const MEGABYTES: u64 = 20;
    let world = folding(50).await;
    let ann = world.client();
    let hers = map(&ann, "large").await;
    for key in 0..MEGABYTES {
        set(&hers, &key.to_string(), &"v".repeat(1_000_000));
        saved(&hers).await;
    }
    for key in MEGABYTES..50 {
        set(&hers, &key.to_string(), "v");
    }
    saved(&hers).await;
    folded(&world, "large", 50).await;

    let tap = Tap::default();
    let slow = Slow {
        dialer: world.network.dialer(),
        pause: Duration::from_millis(60),
    };
    let late = Client::with_dialer(tap.on(slow)).start().unwrap();
    let theirs = map(&late, "large").await;
    // Twenty seconds of snapshot, and a fold every five.
    let mut written = 0;
    while !theirs.sync_state().get().is_caught_up() {
        assert!(written < 2_000, "it never arrives");
        set(&hers, "hot", &format!("{written} {}", "h".repeat(20_000)));
        written += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    saved(&hers).await;
    let last = get(&hers, "hot");
    until(&theirs, "the last of it", |d, _| get(d, "hot") == last).await;
    assert!(written > 100, "{written} changes met the snapshot");
    let snapshots: BTreeSet<Seq> = tap
        .pick(Way::Down, |message| match message {
            Message::Snapshot(snapshot) => Some(snapshot.seq),
            _ => None,
        })
        .into_iter()
        .collect();
    assert!((1..=2).contains(&snapshots.len()), "{snapshots:?}");
    let head = world.registry.meta(&id("large")).await.unwrap();
    assert!(head.snapshot_seq >= Seq(100), "folded meanwhile: {head:?}");
}
