//! Documents that only holders of a key can read, and what a server can do to them.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "scenarios are plain async functions"
)]

mod common;
mod e2e;
mod registries;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{document, event};
use e2e::tap::Way;
use e2e::{Map, Over, World, append, until, within};
use registries::Registry;
use sync_client::yrs::{GetString, ReadTxn, Transaction};
use sync_client::{
    Client, ClientStore, DocumentHandle, EditError, Encrypted, Engine, Key, LwwMap, MemoryStore,
    Opaque, OpaqueEdit, OpaqueLog, OpenError, RefusedReason, SaveError, SyncPhase, SyncState,
    Typed, Yrs,
};
use sync_core::engine::suite::{OpaqueProbe, Probe, Suite, TypedProbe, YrsProbe};
use sync_core::engine::{EngineError, ValidateLimits, Validator};
use sync_core::error::ErrorCode;
use sync_core::history::{Epoch, Seq};
use sync_core::ids::{ChangeId, EngineId, OriginId, User};
use sync_core::registry::{NewChange, NewDocument, StoredChange};
use sync_core::rng::Rng;
use sync_core::wire::Message;
use sync_server::registry::{FaultyRegistry, ServerRegistry};
use sync_server::{Anonymous, InProcess, ServerEvent};
use sync_sim::world::{CALM, ROUGH, Weather, World as Simulation};

const DOC: &str = "doc";

/// What no server may ever read.
const SECRET: &str = "attack at dawn";

fn key(n: u8) -> Key {
    Key::from_bytes([n; 32])
}

fn sealed() -> Encrypted<Map> {
    Encrypted::new(Map::new(), key(1))
}

async fn open(client: &Client) -> DocumentHandle<Encrypted<Map>> {
    client.open(DOC, sealed()).await.unwrap()
}

fn put(document: &DocumentHandle<Encrypted<Map>>, key: &str, value: &str) {
    document
        .edit(|map| map.insert(key.to_owned(), value.to_owned()))
        .unwrap()
        .unwrap();
}

fn value(document: &DocumentHandle<Encrypted<Map>>, key: &str) -> Option<String> {
    document.read(|map| map.get(key).cloned())
}

async fn put_saved(document: &DocumentHandle<Encrypted<Map>>, key: &str, value: &str) {
    put(document, key, value);
    within("saved", document.saved()).await.unwrap();
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes.windows(word.len()).any(|at| at == word.as_bytes())
}

/// What is sealed with a change says under which id it was logged.
#[track_caller]
fn assert_bound(log: &[StoredChange]) {
    for row in log {
        let origin = u128::from_be_bytes(row.bytes[12..28].try_into().unwrap());
        let number = u64::from_be_bytes(row.bytes[28..36].try_into().unwrap());
        assert_eq!((OriginId(origin), number), (row.id.origin, row.id.number));
    }
}

macro_rules! sealed_probe {
    ($name:ident, $probe:ty, $engine:ty, $edit:ty, $read:ty) => {
        struct $name;

        impl Probe for $name {
            type Engine = Encrypted<$engine>;

            const HAS_UNDO: bool = <$probe>::HAS_UNDO;
            const HAS_HISTORY: bool = <$probe>::HAS_HISTORY;

            fn engine() -> Self::Engine {
                Encrypted::new(<$probe>::engine(), key(1)).bind(&document(DOC))
            }

            fn edit(edit: &mut $edit, random: &mut Rng) {
                <$probe>::edit(edit, random);
            }

            fn add(edit: &mut $edit, number: u64) {
                <$probe>::add(edit, number);
            }

            fn has(read: &$read, number: u64) -> bool {
                <$probe>::has(read, number)
            }

            fn content(read: &$read) -> String {
                <$probe>::content(read)
            }
        }
    };
}

type Numbers = LwwMap<u64, u64>;

sealed_probe!(SealedTyped, TypedProbe, Typed<Numbers>, Numbers, Numbers);
sealed_probe!(
    SealedYrs,
    YrsProbe,
    Yrs,
    sync_client::yrs::TransactionMut<'_>,
    Transaction<'_>
);
sealed_probe!(SealedOpaque, OpaqueProbe, Opaque, OpaqueEdit<'_>, OpaqueLog);

/// Scenario 1.
#[test]
fn sealed_documents_pass_the_suite_of_the_engines_inside() {
    Suite::<SealedTyped>::new().cases(40).run();
    Suite::<SealedYrs>::new().cases(20).run();
    Suite::<SealedOpaque>::new().cases(40).run();
}

both! {
    /// Whoever has the key sees everything, whoever has none nothing: not in the log, nor in the snapshot, nor on the way.
    the_server_relays_what_it_cannot_read => relayed
}

async fn relayed(world: World) {
    let (ada, tap) = world.tapped();
    let (ada, bob) = (ada.start().unwrap(), world.client());
    let (ours, theirs) = (open(&ada).await, open(&bob).await);
    for n in 0..5 {
        put(&ours, &format!("ours {n}"), SECRET);
        put(&theirs, &format!("theirs {n}"), SECRET);
    }
    within("saved", ours.saved()).await.unwrap();
    within("saved", theirs.saved()).await.unwrap();
    for document in [&ours, &theirs] {
        until(document, "all of it", |document, _| {
            document.read(LwwMap::len) == 10
        })
        .await;
    }
    let late = world.client();
    let late = open(&late).await;
    within("caught up", late.caught_up()).await.unwrap();
    assert_eq!(value(&late, "theirs 4").as_deref(), Some(SECRET));
    let state = late.sync_state().get();
    assert_eq!((state.unreadable, state.missing), (0, 0));
    let log = world.log(DOC).await;
    assert_eq!(log.len(), 10);
    assert_bound(&log);
    for row in &log {
        assert!(!contains(&row.bytes, SECRET) && !contains(&row.bytes, "ours"));
    }
    let pushed = tap.pick(Way::Up, |message| match message {
        Message::Push(push) => Some(push.changes),
        _ => None,
    });
    assert!(
        pushed
            .concat()
            .iter()
            .all(|change| !contains(change, SECRET))
    );
}

/// Scenario 17.
#[tokio::test(start_paused = true)]
async fn who_joins_late_reads_ten_thousand_sealed_changes() {
    let world = World::memory().await;
    let ada = world.client();
    let ours = ada
        .open(DOC, Encrypted::new(Typed::<Numbers>::new(), key(1)))
        .await
        .unwrap();
    for n in 0..10_000 {
        ours.edit(|map| map.insert(n, n)).unwrap().unwrap();
    }
    within("saved", ours.saved()).await.unwrap();
    let bob = world.client();
    let theirs = bob
        .open(DOC, Encrypted::new(Typed::<Numbers>::new(), key(1)))
        .await
        .unwrap();
    within("caught up", theirs.caught_up()).await.unwrap();
    assert_eq!(theirs.read(LwwMap::len), 10_000);
    let log = world.log(DOC).await;
    let nonces: BTreeSet<&[u8]> = log.iter().map(|row| &row.bytes[36..60]).collect();
    assert_eq!(nonces.len(), 10_000, "a nonce was used twice");
}

/// Scenario 66: a server that knows nothing of a document has it folded.
#[tokio::test(start_paused = true)]
async fn a_sealed_log_is_folded_by_a_client_and_the_snapshot_is_sealed() {
    let world = World::assemble(Over::Memory, Anonymous::maintain(), |builder| {
        builder.fold_after(5, usize::MAX)
    })
    .await;
    let mut events = world.server.events();
    let ada = world.client();
    let ours = ada
        .open(DOC, Encrypted::new(Yrs::new(), key(1)))
        .await
        .unwrap();
    for letter in ["a", "b", "c", "d", SECRET] {
        ours.edit(|txn| append(txn, letter)).unwrap();
        within("saved", ours.saved()).await.unwrap();
    }
    let folded = event(&mut events, |event| {
        matches!(event, ServerEvent::Folded { .. }).then_some(())
    });
    within("folded", folded).await;
    ours.edit(|txn| append(txn, "!")).unwrap();
    within("saved", ours.saved()).await.unwrap();
    let snapshot = world
        .registry
        .snapshot(&document(DOC))
        .await
        .unwrap()
        .unwrap();
    assert!(!contains(&snapshot.bytes, SECRET));
    let (late, tap) = world.tapped();
    let late = late.start().unwrap();
    let late = late
        .open(DOC, Encrypted::new(Yrs::new(), key(1)))
        .await
        .unwrap();
    within("caught up", late.caught_up()).await.unwrap();
    assert!(tap.names(Way::Down).contains(&"Snapshot"));
    let text = late.read(|txn| txn.get_text("body").unwrap().get_string(txn));
    assert_eq!(text, format!("abcd{SECRET}!"));
    let state = late.sync_state().get();
    assert_eq!((state.unreadable, state.missing), (0, 0));
}

/// Nobody takes a document for an empty one because the key is wrong, nor adds to it with that key.
#[tokio::test(start_paused = true)]
async fn a_wrong_key_is_said_and_nothing_is_sent_with_it() {
    let world = World::memory().await;
    let ada = world.client();
    let ours = open(&ada).await;
    put_saved(&ours, "one", SECRET).await;
    let mallory = world.builder().store(MemoryStore::new()).start().unwrap();
    mallory.disconnect();
    let wrong = || Encrypted::new(Map::new(), key(2));
    let theirs = mallory.open(DOC, wrong()).await.unwrap();
    put(&theirs, "made", "before anything could be known");
    mallory.connect();
    until(&theirs, "the key is wrong", |_, state| {
        state.phase == SyncPhase::WrongKey
    })
    .await;
    let refused = theirs.edit(|map| map.insert("two".into(), "2".into()));
    assert_eq!(refused.unwrap_err(), EditError::WrongKey);
    assert_eq!(theirs.saved().await, Err(SaveError::WrongKey));
    assert_eq!(theirs.caught_up().await, Err(SaveError::WrongKey));
    assert_eq!(value(&theirs, "one"), None);
    put_saved(&ours, "three", "3").await;
    assert_eq!(world.log(DOC).await.len(), 2);
}

/// What the device holds says so at once.
#[tokio::test(start_paused = true)]
async fn a_store_is_sealed_and_does_not_open_with_another_key() {
    let world = World::memory().await;
    let store = MemoryStore::new();
    let start = || world.builder().store(store.clone()).start().unwrap();
    let ada = start();
    let ours = open(&ada).await;
    put_saved(&ours, "one", SECRET).await;
    ada.disconnect();
    put(&ours, "two", SECRET);
    within("kept", ours.saved_locally()).await.unwrap();
    let stored = store.load(&document(DOC)).await.unwrap().unwrap();
    let tail = stored.tail.iter().chain(&stored.snapshot);
    let outbox = stored.outbox.iter().map(|change| &change.bytes);
    assert!(tail.clone().count() + outbox.clone().count() >= 2);
    assert!(tail.chain(outbox).all(|bytes| !contains(bytes, SECRET)));
    drop((ours, ada));
    let again = start();
    let wrong = again.open(DOC, Encrypted::new(Map::new(), key(2))).await;
    assert!(matches!(wrong, Err(OpenError::WrongKey)), "{wrong:?}");
    let ours = open(&again).await;
    assert_eq!(value(&ours, "two").as_deref(), Some(SECRET));
    within("saved", ours.saved()).await.unwrap();
    assert_bound(&world.log(DOC).await);
}

/// The new key writes, the old one reads; what waited under the old one is sealed with the new one.
#[tokio::test(start_paused = true)]
async fn keys_are_changed_without_losing_anything() {
    let world = World::memory().await;
    let store = MemoryStore::new();
    let ada = world.builder().store(store.clone()).start().unwrap();
    let ours = open(&ada).await;
    put_saved(&ours, "old", "1").await;
    // So that it is not in the outbox any more.
    within("caught up", ours.caught_up()).await.unwrap();
    within("kept", ours.saved_locally()).await.unwrap();
    ada.disconnect();
    put(&ours, "waits", "2");
    within("kept", ours.saved_locally()).await.unwrap();
    drop((ours, ada));
    let changed = || Encrypted::new(Map::new(), key(2)).also_reads(key(1));
    let ada = world.builder().store(store).start().unwrap();
    // Otherwise what waits would be delivered as it is, before the document is opened.
    ada.disconnect();
    let ours = ada.open(DOC, changed()).await.unwrap();
    ada.connect();
    put_saved(&ours, "new", "3").await;
    let bob = world.client();
    let theirs = bob.open(DOC, changed()).await.unwrap();
    within("caught up", theirs.caught_up()).await.unwrap();
    for (key, expected) in [("old", "1"), ("waits", "2"), ("new", "3")] {
        assert_eq!(value(&theirs, key).as_deref(), Some(expected));
    }
    let log = world.log(DOC).await;
    assert_bound(&log);
    let keys: Vec<&[u8]> = log.iter().map(|row| &row.bytes[4..12]).collect();
    assert!(keys[0] != keys[1] && keys[1] == keys[2]);
    // Who has only the old key reads what it can, and knows that there is more.
    let eve = world.client();
    let old = open(&eve).await;
    within("caught up", old.caught_up()).await.unwrap();
    assert_eq!(old.sync_state().get().unreadable, 2);
    assert_eq!(value(&old, "old").as_deref(), Some("1"));
    assert_eq!(value(&old, "new"), None);
}

/// A device that misses a key folds, and those that have it lose nothing.
#[tokio::test(start_paused = true)]
async fn a_fold_by_a_client_that_lacks_a_key_keeps_what_it_cannot_read() {
    let world = World::assemble(Over::Memory, Anonymous::maintain(), |builder| {
        builder.fold_after(4, usize::MAX)
    })
    .await;
    let mut events = world.server.events();
    let new = || Encrypted::new(Map::new(), key(2)).also_reads(key(1));
    let (ada, bob) = (world.client(), world.client());
    let old = open(&ada).await;
    put_saved(&old, "old", "1").await;
    let ours = bob.open(DOC, new()).await.unwrap();
    within("caught up", ours.caught_up()).await.unwrap();
    for name in ["new 1", "new 2"] {
        let inserted = ours.edit(|map| map.insert(name.into(), "2".into()));
        inserted.unwrap().unwrap();
        within("saved", ours.saved()).await.unwrap();
    }
    drop((ours, bob));
    let left = event(&mut events, |event| {
        matches!(event, ServerEvent::DocumentClosed { .. }).then_some(())
    });
    within("only one that lacks the new key is left", left).await;
    put_saved(&old, "old", "2").await;
    let folded = event(&mut events, |event| {
        matches!(event, ServerEvent::Folded { .. }).then_some(())
    });
    within("folded", folded).await;
    let (late, tap) = world.tapped();
    let late = late.start().unwrap();
    let late = late.open(DOC, new()).await.unwrap();
    within("caught up", late.caught_up()).await.unwrap();
    assert!(tap.names(Way::Down).contains(&"Snapshot"));
    for (key, expected) in [("old", "2"), ("new 1", "2"), ("new 2", "2")] {
        assert_eq!(value(&late, key).as_deref(), Some(expected));
    }
    assert_eq!(late.sync_state().get().unreadable, 0);
}

/// What a hostile server shows of a document: rows that honest clients made, tampered with.
async fn shown(rows: &[Bytes]) -> (String, SyncState) {
    let world = World::memory().await;
    let new = NewDocument::new(document(DOC), EngineId::OPAQUE, Epoch(1));
    let meta = world.registry.create(new).await.unwrap();
    let rows = rows.iter().zip(1..).map(|(bytes, number)| {
        let id = ChangeId {
            origin: OriginId(1),
            number,
        };
        NewChange::new(id, User::new("server"), bytes.clone())
    });
    world
        .registry
        .append(&document(DOC), meta.epoch, None, rows.collect())
        .await
        .unwrap();
    let client = world.client();
    let theirs = client
        .open(DOC, Encrypted::new(Opaque::new(), key(1)))
        .await
        .unwrap();
    let mut state = theirs.sync_state();
    let settled = state.wait_for(|state| {
        matches!(
            state.phase,
            SyncPhase::Live | SyncPhase::WrongKey | SyncPhase::Damaged { .. }
        )
    });
    let state = within("settled", settled).await.unwrap();
    let list = theirs.read(|log| {
        let all = log.changes().map(|it| String::from_utf8_lossy(it));
        all.collect::<Vec<_>>().join(" ")
    });
    (list, state)
}

/// Sealed rows of four changes by one client.
async fn honest(document: &str) -> Vec<Bytes> {
    let world = World::memory().await;
    let ada = world.client();
    let engine = Encrypted::new(Opaque::new(), key(1));
    let ours = ada.open(document, engine).await.unwrap();
    for word in ["a", "b", "c", "d"] {
        ours.edit(|log| log.push(word)).unwrap();
    }
    within("saved", ours.saved()).await.unwrap();
    let log = world.log(document).await;
    assert_bound(&log);
    log.into_iter().map(|row| row.bytes).collect()
}

/// Every byte matters, of the header too.
#[tokio::test(start_paused = true)]
async fn a_change_with_any_bit_flipped_is_passed_over_and_counted() {
    let rows = honest(DOC).await;
    for at in 0..rows[1].len() {
        let mut flipped = rows[1].to_vec();
        flipped[at] ^= 1 << (at % 8);
        let mut rows = rows.clone();
        rows[1] = flipped.into();
        let (list, state) = shown(&rows).await;
        assert_eq!(list, "a c d", "byte {at}");
        assert_eq!((state.unreadable, state.missing), (1, 1), "byte {at}");
        assert_eq!(state.phase, SyncPhase::Live);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_cut_off_or_of_another_document_is_passed_over_and_counted() {
    let (rows, others) = (honest(DOC).await, honest("other").await);
    let mut wrong: Vec<Bytes> = (0..rows[1].len())
        .step_by(7)
        .map(|n| rows[1].slice(..n))
        .collect();
    let longer = [&rows[1][..], b"x"].concat();
    wrong.extend([
        longer.into(),
        others[1].clone(),
        Bytes::from_static(b"plain"),
    ]);
    for wrong in wrong {
        let mut rows = rows.clone();
        rows[1] = wrong;
        let (list, state) = shown(&rows).await;
        assert_eq!(list, "a c d");
        assert_eq!((state.unreadable, state.missing), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_server_repeats_is_taken_once_and_what_it_withholds_shows() {
    let rows = honest(DOC).await;
    let picked = |indices: &[usize]| {
        indices
            .iter()
            .map(|at| rows[*at].clone())
            .collect::<Vec<_>>()
    };
    for (order, expected, missing) in [
        (&[0, 1, 2, 3][..], "a b c d", 0),
        (&[0, 1, 1, 2, 0, 3, 3], "a b c d", 0),
        (&[0, 2, 3], "a c d", 1),
        (&[3], "d", 3),
        (&[1, 0, 3, 2], "b a d c", 0),
        // What it withholds at the end, nobody can know.
        (&[0, 1], "a b", 0),
    ] {
        let (list, state) = shown(&picked(order)).await;
        assert_eq!((&*list, state.missing), (expected, missing), "{order:?}");
        assert_eq!(state.unreadable, 0);
    }
}

/// A document in which nothing opens is not an empty one.
#[tokio::test(start_paused = true)]
async fn nothing_that_opens_is_a_wrong_key() {
    for rows in [honest("other").await, vec![Bytes::from_static(b"plain")]] {
        let (list, state) = shown(&rows).await;
        assert_eq!((&*list, state.phase), ("", SyncPhase::WrongKey));
    }
}

/// What the server of this test takes of sealed changes: it sees no more than their length.
struct ShorterThan(usize);

impl Validator for ShorterThan {
    fn engine(&self) -> EngineId {
        EngineId::OPAQUE
    }

    fn validate(&self, change: &[u8], _limits: &ValidateLimits) -> Result<(), EngineError> {
        if change.len() < self.0 {
            return Ok(());
        }
        Err(EngineError::Unsupported { what: "length" })
    }
}

/// Scenario 46: what was made after a refused change is sealed anew, for the ids that it has then.
#[tokio::test(start_paused = true)]
async fn a_refused_change_is_handed_back_and_what_follows_is_sealed_again() {
    let world = World::with(Over::Memory, |builder| {
        builder.engines(InProcess::default().engine(ShorterThan(1_000)))
    })
    .await;
    let ada = world.client();
    let ours = open(&ada).await;
    put_saved(&ours, "before", "1").await;
    ada.disconnect();
    let long = "x".repeat(2_000);
    for (key, value) in [("kept", "2"), ("long", &long), ("after", "3")] {
        put(&ours, key, value);
    }
    ada.connect();
    let refused = within("refused", ours.saved()).await;
    assert!(matches!(refused, Err(SaveError::Refused(_))));
    until(&ours, "rebuilt", |ours, state| {
        state.unsaved == 0 && value(ours, "long").is_none()
    })
    .await;
    let refused = ours.refused();
    assert_eq!(refused.len(), 1);
    assert_eq!(
        refused[0].reason,
        RefusedReason::Code(ErrorCode::InvalidChange)
    );
    assert!(!contains(&refused[0].bytes, &long));
    let opened = sealed().open_change(&document(DOC), &refused[0].bytes);
    assert!(contains(&opened.unwrap(), &long));
    let bob = world.client();
    let theirs = open(&bob).await;
    within("caught up", theirs.caught_up()).await.unwrap();
    for document in [&ours, &theirs] {
        let all = ["before", "kept", "after"].map(|key| value(document, key));
        assert_eq!(all, ["1", "2", "3"].map(|it| Some(it.to_owned())));
        let state = document.sync_state().get();
        assert_eq!((state.unreadable, state.missing), (0, 0));
    }
    assert_bound(&world.log(DOC).await);
}

fn simulation(seed: u64, weather: Weather) -> Simulation<Encrypted<Typed<Numbers>>> {
    let engine = Encrypted::new(Typed::<Numbers>::new(), key(1));
    let mut world = Simulation::on(registries::simulated(), seed, engine, weather);
    for _ in 0..3 {
        let client = world.add_client();
        world.open(client, DOC);
    }
    world
}

/// Scenarios 61 and 67, at random: clients fold, connections break, the server restarts, loses everything.
#[test]
fn sealed_documents_survive_whatever_happens_to_the_server() {
    let mut n_folds = 0;
    for seed in 1..=150 {
        let mut world = simulation(seed, if seed % 2 == 0 { ROUGH } else { CALM });
        world.folding = Some((4, 0));
        for n in 0..30 {
            let client = usize::try_from(world.below(3)).unwrap();
            assert!(world.edit(client, DOC, |map| map.insert(n, n).unwrap()));
            match world.below(12) {
                0 => world.cut(client),
                1 => world.set_online(client, false),
                2 => {
                    world.kill_server();
                    world.start_server();
                }
                3 => (0..3).for_each(|client| world.set_online(client, true)),
                4 if n == 20 => world.lose_everything(),
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
        world.assert_converged(DOC);
        for client in 0..4 {
            assert_eq!(world.read(client, DOC, LwwMap::len), 30, "seed {seed}");
            let state = world.sync_state(client, DOC);
            assert_eq!((state.unreadable, state.missing), (0, 0), "seed {seed}");
        }
        assert_bound(&world.log(DOC));
        n_folds += u64::from(world.meta(DOC).snapshot_seq > Seq::ZERO);
    }
    assert!(n_folds > 100, "{n_folds} of 150 documents were ever folded");
}

/// Scenario 61.
#[tokio::test(start_paused = true)]
async fn a_server_that_lost_a_sealed_document_gets_it_back_sealed_for_its_new_ids() {
    let mut world = World::memory().await;
    let (ada, bob) = (world.client(), world.client());
    let (ours, theirs) = (open(&ada).await, open(&bob).await);
    put_saved(&ours, "one", "1").await;
    until(&theirs, "one", |theirs, _| value(theirs, "one").is_some()).await;
    world.stop().await;
    put(&theirs, "two", "2");
    let empty = Arc::new(Registry::of_this_test());
    world.registry = empty.clone();
    world.faults = Arc::new(FaultyRegistry::new(empty));
    world.start().await;
    within("saved", theirs.saved()).await.unwrap();
    let late = world.client();
    let late = open(&late).await;
    for document in [&ours, &theirs, &late] {
        until(document, "both", |document, state| {
            state.is_caught_up() && document.read(LwwMap::len) == 2
        })
        .await;
        let state = document.sync_state().get();
        assert_eq!((state.unreadable, state.missing), (0, 0));
    }
    assert_bound(&world.log(DOC).await);
}
