//! Documents of every engine, through a whole system: bad networks, lost servers, restored backups, orphans.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod registries;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sync_core::client::RefusedReason;
use sync_core::engine::suite::{Probe, TypedProbe};
use sync_core::engine::{Document, Engine, EngineError, Folder, ReplicaSeed};
use sync_core::history::{Epoch, EpochMode};
use sync_core::ids::{ChangeId, OriginId, User};
use sync_core::registry::{NewChange, NewDocument, Snapshot};
use sync_core::rng::Rng;
use sync_core::wire::Message;
use sync_server::registry::ServerRegistry;
use sync_sim::world::{CALM, ROUGH, Weather, World, WorldRegistry, id, wait};

const DOC: &str = "doc";

macro_rules! engines {
    ($($(#[$doc:meta])* $name:ident => $scenario:ident;)*) => {
        $(mod $name {
            $(#[$doc])*
            #[test]
            fn of_a_mergeable_document() {
                super::$scenario::<super::TypedProbe>(20);
            }

            $(#[$doc])*
            #[cfg(feature = "yrs")]
            #[test]
            fn of_a_yrs_document() {
                super::$scenario::<sync_core::engine::suite::YrsProbe>(10);
            }

            $(#[$doc])*
            #[cfg(feature = "loro")]
            #[test]
            fn of_a_loro_document() {
                super::$scenario::<sync_core::engine::suite::LoroProbe>(6);
            }

            $(#[$doc])*
            #[cfg(feature = "automerge")]
            #[test]
            fn of_an_automerge_document() {
                super::$scenario::<sync_core::engine::suite::AutomergeProbe>(2);
            }
        })*
    };
}

engines! {
    /// Scenarios 1, 36, 64, 65 and 67.
    bad_networks_and_folds_take_nothing => bad_networks_and_folds;
    /// Scenario 61.
    a_server_that_lost_everything_is_repopulated => lost_server;
    /// Scenarios 22 and 78.
    a_backup_that_was_overtaken_is_noticed_and_both_histories_are_kept => overtaken_backup;
    /// Scenario 23.
    an_orphan_is_read_again_once => orphan;
    /// Scenario 24: rewritten under a live room and live sessions.
    another_epoch_is_adopted_as_it_says_and_in_few_round_trips => another_epoch;
    /// Scenarios 64 and 66: by an old client and a fresh one.
    removals_after_a_fold_take_effect_everywhere => removals;
    /// Scenario 65.
    edits_older_than_the_snapshot_come_in => older_edits;
    /// Trimmed history: who was at its head goes on, also with work that is pending.
    a_trimmed_document_is_adopted => trimmed;
    /// Scenario 76.
    an_undo_reaches_everybody_and_undoes_nobody_else => undo;
}

fn world<P: Probe>(seed: u64, clients: usize, weather: Weather) -> World<P::Engine> {
    let mut world = World::on(registries::simulated(), seed, P::engine(), weather);
    for client in 0..clients {
        world.add_client();
        world.open(client, DOC);
    }
    world
}

fn add<P: Probe>(world: &mut World<P::Engine>, client: usize, number: u64) {
    assert!(world.edit(client, DOC, |edit| P::add(edit, number)));
}

fn has<P: Probe>(world: &World<P::Engine>, client: usize, number: u64) -> bool {
    world.read(client, DOC, |read| P::has(read, number))
}

/// Everybody has the same, and all these numbers.
fn assert_all<P: Probe>(world: &mut World<P::Engine>, numbers: impl Iterator<Item = u64>) {
    world.settle(DOC);
    world.assert_converged(DOC);
    let content = |world: &World<P::Engine>, client| world.read(client, DOC, P::content);
    for client in world.members(DOC) {
        assert_eq!(content(world, client), content(world, 0), "client {client}");
        assert_eq!(world.refused(client, DOC), [], "client {client}");
    }
    for number in numbers {
        assert!(has::<P>(world, 0, number), "{number} is gone");
    }
}

fn bad_networks_and_folds<P: Probe>(seeds: u64) {
    for seed in 1..=seeds {
        let mut world = world::<P>(seed, 0, ROUGH);
        world.folding = Some((4, usize::try_from(seed % 3 * 100).unwrap()));
        for client in 0..3 {
            world.add_client();
            world.give_store(client);
            world.open(client, DOC);
        }
        for n in 0..24 {
            let client = usize::try_from(world.below(3)).unwrap();
            let mut random = Rng::new(u128::from(world.below(1 << 40)));
            assert!(world.edit(client, DOC, |edit| {
                P::add(edit, n);
                P::edit(edit, &mut random);
            }));
            match world.below(10) {
                0 => world.cut(client),
                1 => world.set_online(client, false),
                2 => {
                    world.kill_server();
                    world.start_server();
                }
                3 => (0..3).for_each(|client| world.set_online(client, true)),
                4 => {
                    world.run_for(Duration::from_secs(2));
                    world.restart_client(client);
                    world.open(client, DOC);
                }
                _ => {
                    let pause = Duration::from_millis(world.below(600));
                    world.run_for(pause);
                }
            }
        }
        (0..3).for_each(|client| world.set_online(client, true));
        let late = world.add_client();
        world.open(late, DOC);
        assert_all::<P>(&mut world, 0..24);
        assert!(world.meta(DOC).snapshot_seq.0 > 0, "seed {seed}: folded");
    }
}

fn lost_server<P: Probe>(seeds: u64) {
    for seed in 1..=seeds {
        let mut world = world::<P>(seed, 3, ROUGH);
        for n in 0..12 {
            add::<P>(&mut world, usize::try_from(n % 3).unwrap(), n);
            let pause = Duration::from_millis(world.below(400));
            world.run_for(pause);
            if n == 7 {
                world.lose_everything();
            }
        }
        world.run_for(Duration::from_secs(90));
        assert_all::<P>(&mut world, 0..12);
    }
}

/// A registry as it was after the first `n` changes, under the same epoch.
fn backup<E: Engine>(world: &World<E>, engine: &E, n: usize) -> Arc<dyn WorldRegistry> {
    let registry = registries::simulated();
    let epoch = world.meta(DOC).epoch;
    let new = NewDocument::new(id(DOC), Engine::id(engine), epoch);
    wait(registry.create(new)).unwrap();
    let log = &world.log(DOC)[..n];
    let rows = log
        .iter()
        .map(|change| NewChange::new(change.id, author(world, change.id), change.bytes.clone()));
    append(&registry, epoch, rows.collect());
    registry
}

fn append(registry: &Arc<dyn WorldRegistry>, epoch: Epoch, rows: Vec<NewChange>) {
    let document = id(DOC);
    let appended = registry.append(&document, epoch, None, rows);
    wait(appended).unwrap();
}

fn overtaken_backup<P: Probe>(seeds: u64) {
    for seed in 1..=seeds.min(4) {
        let mut world = world::<P>(seed, 2, CALM);
        for n in 0..8 {
            add::<P>(&mut world, usize::try_from(n % 2).unwrap(), n);
            world.run_for(Duration::from_millis(100));
        }
        world.settle(DOC);
        (0..2).for_each(|client| world.set_online(client, false));
        let restored = backup(&world, &P::engine(), 4);
        world.restore(restored);
        let newcomer = world.add_client();
        world.open(newcomer, DOC);
        for n in 100..100 + 3 * seed {
            add::<P>(&mut world, newcomer, n);
            world.run_for(Duration::from_millis(100));
        }
        world.settle(DOC);
        add::<P>(&mut world, 1, 8);
        (0..2).for_each(|client| world.set_online(client, true));
        world.run_for(Duration::from_secs(120));
        assert_all::<P>(&mut world, (0..=8).chain(100..100 + 3 * seed));
    }
}

/// Gives the document another history while the server runs.
fn rewrite<E: Engine>(world: &World<E>, engine: &E, mode: EpochMode, epoch: u64, n: usize) {
    let mut new = NewDocument::new(id(DOC), Engine::id(engine), Epoch(epoch));
    new.mode = mode;
    let log = &world.log(DOC)[..n];
    let rows = log
        .iter()
        .map(|change| NewChange::new(change.id, author(world, change.id), change.bytes.clone()));
    world.registry.replace(new, rows.collect()).unwrap();
}

fn author<E: Engine>(world: &World<E>, id: ChangeId) -> User {
    let document = crate::id(DOC);
    let entries = wait(world.registry.origins(&document, &[id.origin])).unwrap();
    entries[0].as_ref().unwrap().user.clone()
}

fn another_epoch<P: Probe>(_: u64) {
    epochs::<P>();
    registries::with_disk(epochs::<P>);
}

fn epochs<P: Probe>() {
    for mode in [EpochMode::Merge, EpochMode::Rebase, EpochMode::Discard] {
        let mut world = world::<P>(5, 3, CALM);
        for n in 0..6 {
            add::<P>(&mut world, usize::try_from(n % 3).unwrap(), n);
            world.run_for(Duration::from_millis(100));
        }
        world.settle(DOC);
        world.set_online(0, false);
        add::<P>(&mut world, 0, 100);
        rewrite(&world, &P::engine(), mode, 77, 2);
        for traffic in &mut world.traffic {
            traffic.down.clear();
        }
        // Whoever appends finds out first; the others at their next open.
        add::<P>(&mut world, 1, 101);
        world.run_for(Duration::from_secs(5));
        world.set_online(0, true);
        world.run_for(Duration::from_secs(30));
        (0..3).for_each(|client| world.cut(client));
        world.settle(DOC);
        world.assert_converged(DOC);
        assert_eq!(world.meta(DOC).epoch, Epoch(77));

        let back: Vec<_> = (0..2)
            .flat_map(|client| world.refused(client, DOC))
            .map(|change| change.reason)
            .collect();
        let kept = if mode == EpochMode::Merge { 6 } else { 2 };
        for n in 0..6 {
            assert_eq!(has::<P>(&world, 0, n), n < kept, "{mode:?}: {n}");
        }
        // What was pending is there, or handed back.
        let pending = [100, 101].into_iter();
        let replayed = pending.filter(|&n| has::<P>(&world, 0, n)).count();
        assert_eq!(
            back,
            vec![RefusedReason::HistoryReset; 2 - replayed],
            "{mode:?}"
        );
        match mode {
            EpochMode::Merge => assert_eq!(replayed, 2),
            EpochMode::Discard => assert_eq!(replayed, 0),
            _ => {}
        }
        for client in 0..3 {
            let down = world.traffic[client].down.iter();
            let told = down.filter(|message| matches!(message, Message::Opened(_)));
            assert!(told.count() <= 5, "{mode:?}, client {client}");
        }
        // And life goes on.
        add::<P>(&mut world, 2, 200);
        world.settle(DOC);
        world.assert_converged(DOC);
        assert!(has::<P>(&world, 0, 200), "{mode:?}");
    }
}

/// A world with one client, in which the server folds every four changes and keeps none of them.
fn folding<P: Probe>(seed: u64) -> World<P::Engine> {
    let mut world = world::<P>(seed, 0, CALM);
    world.folding = Some((4, 0));
    world.add_client();
    world.open(0, DOC);
    world
}

fn add_all<P: Probe>(world: &mut World<P::Engine>, numbers: std::ops::Range<u64>) {
    for n in numbers {
        add::<P>(world, 0, n);
        world.run_for(Duration::from_secs(1));
    }
    world.settle(DOC);
}

fn removals<P: Probe>(_: u64) {
    let mut world = folding::<P>(9);
    add_all::<P>(&mut world, 0..8);
    let folded = world.meta(DOC).snapshot_seq;
    assert!(folded.0 > 0);
    let fresh = world.add_client();
    world.open(fresh, DOC);
    world.settle(DOC);
    for (client, number) in [(0, 1), (fresh, 6)] {
        let mut removed = false;
        world.edit(client, DOC, |edit| removed = P::remove(edit, number));
        assert!(removed);
    }
    world.settle(DOC);
    add_all::<P>(&mut world, 10..18);
    assert!(world.meta(DOC).snapshot_seq > folded);
    let late = world.add_client();
    world.open(late, DOC);
    assert_all::<P>(&mut world, (2..6).chain(10..18));
    for client in [0, fresh, late] {
        assert!(![1, 6].iter().any(|&n| has::<P>(&world, client, n)));
    }
}

fn older_edits<P: Probe>(_: u64) {
    let mut world = folding::<P>(10);
    add_all::<P>(&mut world, 0..2);
    let stale = world.add_client();
    world.open(stale, DOC);
    world.settle(DOC);
    world.set_online(stale, false);
    add::<P>(&mut world, stale, 100);
    // Newer values stay: this one is written by both.
    add::<P>(&mut world, stale, 5);
    world.run_for(Duration::from_secs(60));
    add_all::<P>(&mut world, 2..10);
    assert!(world.meta(DOC).snapshot_seq.0 >= 4);
    world.set_online(stale, true);
    let late = world.add_client();
    world.open(late, DOC);
    assert_all::<P>(&mut world, (0..10).chain([100]));
}

fn trimmed<P: Probe>(_: u64) {
    let mut world = world::<P>(11, 3, CALM);
    for n in 0..6 {
        add::<P>(&mut world, usize::try_from(n % 3).unwrap(), n);
        world.run_for(Duration::from_millis(100));
    }
    world.settle(DOC);
    let log: Vec<Bytes> = world.log(DOC).into_iter().map(|row| row.bytes).collect();
    let bytes = match P::engine().trim(None, &log, 0) {
        Err(error) => {
            assert!(
                matches!(error, EngineError::Unsupported { .. }),
                "{error:?}"
            );
            return;
        }
        Ok(bytes) => bytes,
    };
    world.set_online(0, false);
    add::<P>(&mut world, 0, 100);
    let before = world.meta(DOC);
    let mut new = NewDocument::new(id(DOC), Engine::id(&P::engine()), Epoch(77));
    new.mode = EpochMode::Rebase;
    new.snapshot = Some(Snapshot::new(before.head, before.digest, bytes));
    world.registry.replace(new, Vec::new()).unwrap();
    (0..3).for_each(|client| world.cut(client));
    world.set_online(0, true);
    world.run_for(Duration::from_secs(30));
    add::<P>(&mut world, 1, 101);
    let late = world.add_client();
    world.open(late, DOC);
    assert_all::<P>(&mut world, (0..6).chain(100..=101));
}

/// A change, and one that builds on it.
fn dependent_changes<P: Probe>() -> [Bytes; 2] {
    let engine = P::engine();
    let mut author = engine.create(ReplicaSeed(99)).unwrap();
    for number in [901, 902] {
        let edited = engine.edit(&mut author, usize::MAX, |edit| P::add(edit, number));
        edited.unwrap();
    }
    author.drain().local.try_into().unwrap()
}

fn orphan<P: Probe>(_: u64) {
    let [missing, orphan] = dependent_changes::<P>();
    let by = |origin, bytes| {
        let origin = OriginId(origin);
        NewChange::new(
            ChangeId { origin, number: 1 },
            User::new("elsewhere"),
            bytes,
        )
    };
    let mut probe = P::engine().create(ReplicaSeed(98)).unwrap();
    let waits = probe.import(std::slice::from_ref(&orphan)).unwrap().pending;
    let mut world = world::<P>(7, 2, CALM);
    add::<P>(&mut world, 0, 1);
    world.settle(DOC);
    world
        .traffic
        .iter_mut()
        .for_each(|traffic| traffic.down.clear());
    let epoch = world.meta(DOC).epoch;
    append(&world.registry, epoch, vec![by(1, orphan)]);
    for n in 2..5 {
        add::<P>(&mut world, usize::try_from(n % 2).unwrap(), n);
        world.run_for(Duration::from_secs(1));
    }
    world.run_for(Duration::from_secs(600));
    for client in 0..2 {
        let down = world.traffic[client].down.iter();
        let opened = down.filter(|message| matches!(message, Message::Opened(_)));
        assert_eq!(opened.count(), usize::from(waits), "client {client}");
        assert_eq!(world.sync_state(client, DOC).is_caught_up(), !waits);
        assert_eq!(has::<P>(&world, client, 902), !waits);
    }
    append(&world.registry, epoch, vec![by(2, missing)]);
    add::<P>(&mut world, 1, 5);
    assert_all::<P>(&mut world, (1..=5).chain(901..=902));
}

fn undo<P: Probe>(_: u64) {
    if !P::HAS_UNDO {
        return;
    }
    let mut world = world::<P>(8, 2, CALM);
    add::<P>(&mut world, 0, 1);
    world.settle(DOC);
    add::<P>(&mut world, 1, 2);
    world.settle(DOC);
    world.set_online(0, false);
    let undone = world.with_document(0, DOC, |document| document.undo());
    assert_eq!(undone, Ok(true));
    add::<P>(&mut world, 1, 3);
    world.set_online(0, true);
    assert_all::<P>(&mut world, 2..=3);
    assert!((0..2).all(|client| !has::<P>(&world, client, 1)));
    assert_eq!(
        world.with_document(0, DOC, |document| document.redo()),
        Ok(true)
    );
    assert_all::<P>(&mut world, 1..=3);
}
