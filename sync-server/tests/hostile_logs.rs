//! What a hostile server does to clients, or one that checks nothing and logs what hostile clients send: forged changes and
//! snapshots, in real clients. A binary of its own, whose tests take turns: everything that its process allocates is
//! counted.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "scenarios are plain async functions"
)]

mod e2e;
mod registries;

use std::time::Duration;

use bytes::Bytes;
use e2e::{Over, World, get, map, set, until, within};
use peak_alloc::PeakAlloc;
use sync_client::{DocumentHandle, SyncPhase};
use sync_core::engine::suite::Probe;
use sync_core::engine::{Document, Engine, ReplicaSeed};
use sync_core::history::Digest;
use sync_server::EngineHost;
use sync_server::registry::{
    ChangeId, DocumentId, Epoch, NewChange, NewDocument, OriginId, Seq, ServerRegistry, Snapshot,
    User,
};
use tokio::sync::Mutex;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

static TURN: Mutex<()> = Mutex::const_new(());

const DOC: &str = "doc";

/// What a client may take for reading some bytes that are forged.
const GROWTH_MAX: usize = 32 * 1024 * 1024;

/// What a client may take for a snapshot of a format that inflates: 64 MiB, and what the buffer for it grows by.
const INFLATED_GROWTH_MAX: usize = 256 * 1024 * 1024;

/// Each scenario with each engine where it has something to say.
macro_rules! engines {
    ($($(#[$doc:meta])* $name:ident => $scenario:ident: $($case:ident of $probe:ident $(with $feature:literal)?),*;)*) => {
        $($(#[$doc])* mod $name {
            $(
                $(#[cfg(feature = $feature)])?
                #[tokio::test(start_paused = true)]
                async fn $case() {
                    super::$scenario::<sync_core::engine::suite::$probe>().await;
                }
            )*
        })*
    };
}

engines! {
    /// Scenario 51, on the client: what is known to ruin the engine, four and a hundred bytes among it.
    a_client_stops_at_a_logged_change_that_would_ruin_it => hostile_changes:
        mergeable of TypedProbe, yrs of YrsProbe with "yrs", loro of LoroProbe with "loro",
        automerge of AutomergeProbe with "automerge";
    /// Scenario 51, on the client.
    a_client_refuses_a_snapshot_that_would_ruin_it => hostile_snapshots:
        yrs of YrsProbe with "yrs", automerge of AutomergeProbe with "automerge";
    /// Scenarios 51 and 88, on the client: changes that wait for ever.
    a_flood_of_orphans_is_bounded_and_never_passed_over => orphans:
        mergeable of TypedProbe, opaque of OpaqueProbe, yrs of YrsProbe with "yrs",
        loro of LoroProbe with "loro", automerge of AutomergeProbe with "automerge";
}

/// A server that checks nothing.
async fn relay() -> World {
    World::with(Over::Memory, |builder| builder.engines(EngineHost::None)).await
}

async fn create<P: Probe>(world: &World, snapshot: Option<Bytes>) {
    let mut new = NewDocument::new(id(), P::engine().id(), Epoch(7));
    new.snapshot = snapshot.map(|bytes| Snapshot::new(Seq(1), Digest::default(), bytes));
    world.registry.create(new).await.unwrap();
}

async fn log(world: &World, changes: &[Bytes]) {
    let changes = changes.iter().zip(1..).map(|(bytes, number)| {
        let origin = OriginId(99);
        NewChange::new(ChangeId { origin, number }, User::new("eve"), bytes.clone())
    });
    let (document, changes) = (id(), changes.collect());
    let appended = world.registry.append(&document, Epoch(7), None, changes);
    appended.await.unwrap();
}

fn id() -> DocumentId {
    DocumentId::new(DOC).unwrap()
}

/// Changes that build on each other, each of which adds its number.
fn honest<P: Probe>(n: u64) -> Vec<Bytes> {
    let engine = P::engine();
    let mut author = engine.create(ReplicaSeed(99)).unwrap();
    for number in 1..=n {
        let edited = engine.edit(&mut author, usize::MAX, |edit| P::add(edit, number));
        edited.unwrap();
    }
    author.drain().local
}

fn has<P: Probe>(document: &DocumentHandle<P::Engine>, number: u64) -> bool {
    document.read(|read| P::has(read, number))
}

/// Opens the document and waits until it is found to be damaged there, with no more memory than this.
async fn assert_damaged<P: Probe>(what: &str, world: &World, sequence: u64, growth_max: usize) {
    let client = world.client();
    // Something that has nothing to do with it.
    let other = map(&client, "other").await;
    within("caught up", other.caught_up()).await.unwrap();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let document = client.open(DOC, P::engine()).await.unwrap();
    let damaged = SyncPhase::Damaged {
        sequence: Seq(sequence),
    };
    until(&document, what, |_, state| state.phase == damaged).await;
    let growth = MEMORY.peak_usage().saturating_sub(before);
    assert!(growth <= growth_max, "{what}: {growth} bytes");
    for number in 1..=2 {
        assert_eq!(has::<P>(&document, number), number < sequence, "{what}");
    }
    set(&other, "still", "here");
    within("saved", other.saved()).await.unwrap();
    assert_eq!(get(&other, "still").as_deref(), Some("here"));
    assert!(!document.sync_state().get().is_caught_up(), "{what}");
}

async fn hostile_changes<P: Probe>() {
    let _turn = TURN.lock().await;
    let all = P::hostile_changes();
    assert!(!all.is_empty());
    for hostile in all {
        let world = relay().await;
        create::<P>(&world, None).await;
        let [first, second] = honest::<P>(2).try_into().unwrap();
        log(&world, &[first, hostile.bytes, second]).await;
        assert_damaged::<P>(hostile.what, &world, 2, GROWTH_MAX).await;
    }
}

async fn hostile_snapshots<P: Probe>() {
    let _turn = TURN.lock().await;
    let all = P::hostile_snapshots();
    assert!(!all.is_empty());
    for hostile in all {
        let world = relay().await;
        create::<P>(&world, Some(hostile.bytes)).await;
        assert_damaged::<P>(hostile.what, &world, 1, INFLATED_GROWTH_MAX).await;
    }
}

const N_ORPHANS: u64 = 1_000;

/// An engine whose changes do not need each other has no orphans.
async fn orphans<P: Probe>() {
    let _turn = TURN.lock().await;
    let world = relay().await;
    create::<P>(&world, None).await;
    let mut changes = honest::<P>(N_ORPHANS);
    changes.remove(0);
    let mut probe = P::engine().create(ReplicaSeed(98)).unwrap();
    let waits = probe.import(&changes).unwrap().pending;
    drop(probe);
    log(&world, &changes).await;
    let client = world.client();
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let document = client.open(DOC, P::engine()).await.unwrap();
    if waits {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let state = document.sync_state().get();
        assert!(!state.is_caught_up(), "{state:?}");
        assert!((2..=N_ORPHANS).all(|number| !has::<P>(&document, number)));
    } else {
        within("caught up", document.caught_up()).await.unwrap();
    }
    let growth = MEMORY.peak_usage().saturating_sub(before);
    assert!(growth <= GROWTH_MAX, "{growth} bytes");
}
