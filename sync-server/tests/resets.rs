//! Histories that broke: what the server lost, restored or rewrote, with documents of yrs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod registries;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sync_core::engine::yrs::Yrs;
use sync_core::engine::{Document, Engine, ReplicaSeed};
use sync_core::history::{Epoch, EpochMode};
use sync_core::ids::{ChangeId, EngineId, OriginId, User};
use sync_core::registry::{NewChange, NewDocument, Snapshot, StoredChange};
use sync_core::wire::{Continuation, Message, Reset};
use sync_core::yrs::{GetString, ReadTxn, Text, TransactionMut, WriteTxn};
use sync_server::registry::ServerRegistry;
use sync_sim::world::{CALM, ROUGH, Weather, World, WorldRegistry, id, wait};

type Texts = World<Yrs>;

const DOC: &str = "doc";

fn texts(seed: u64, clients: usize, weather: Weather) -> Texts {
    let mut world = World::on(registries::simulated(), seed, Yrs::new(), weather);
    for client in 0..clients {
        world.add_client();
        world.open(client, DOC);
    }
    world
}

fn append(txn: &mut TransactionMut<'_>, word: &str) {
    let body = txn.get_or_insert_text("body");
    body.push(txn, &format!("{word} "));
}

fn write(world: &mut Texts, client: usize, word: &str) {
    assert!(world.edit(client, DOC, |txn| append(txn, word)));
}

fn words(world: &Texts, client: usize) -> BTreeSet<String> {
    let text = world.read(client, DOC, |txn| {
        txn.get_text("body")
            .map(|body| body.get_string(txn))
            .unwrap_or_default()
    });
    let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let set: BTreeSet<String> = words.iter().cloned().collect();
    assert_eq!(words.len(), set.len(), "a word is there twice: {text}");
    set
}

fn set_of<const N: usize>(words: [&str; N]) -> BTreeSet<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// What the opens of a client were told since the last look.
fn continuations(world: &mut Texts, client: usize) -> Vec<Continuation> {
    let down = std::mem::take(&mut world.traffic[client].down);
    let opened = down.into_iter().filter_map(|message| match message {
        Message::Opened(opened) => Some(opened.next),
        _ => None,
    });
    opened.collect()
}

fn forget_traffic(world: &mut Texts) {
    for traffic in &mut world.traffic {
        traffic.up.clear();
        traffic.down.clear();
    }
}

fn rows(world: &Texts, log: &[StoredChange]) -> Vec<NewChange> {
    let user = |origin| {
        let entries = wait(world.registry.origins(&id(DOC), &[origin]));
        entries.unwrap()[0].as_ref().unwrap().user.clone()
    };
    log.iter()
        .map(|change| NewChange::new(change.id, user(change.id.origin), change.bytes.clone()))
        .collect()
}

/// A registry as it was after the first `n` changes, under the same epoch.
fn backup(world: &Texts, n: usize) -> Arc<dyn WorldRegistry> {
    let registry = registries::simulated();
    let meta = world.meta(DOC);
    let new = NewDocument::new(id(DOC), EngineId::YRS, meta.epoch);
    wait(registry.create(new)).unwrap();
    log(&registry, meta.epoch, rows(world, &world.log(DOC)[..n]));
    registry
}

/// Appends what comes from elsewhere.
fn log(registry: &Arc<dyn WorldRegistry>, epoch: Epoch, rows: Vec<NewChange>) {
    let document = id(DOC);
    let appended = registry.append(&document, epoch, None, rows);
    wait(appended).unwrap();
}

/// Gives the document another history while the server runs.
fn rewrite(world: &Texts, mode: EpochMode, epoch: u64, log: Vec<NewChange>) {
    let mut new = NewDocument::new(id(DOC), EngineId::YRS, Epoch(epoch));
    new.mode = mode;
    world.registry.replace(new, log).unwrap();
}

seeds! {
    /// Scenario 61.
    a_server_that_lost_everything_is_repopulated_once_and_pending_work_follows => repopulated, 40, 4
}

fn repopulated(seed: u64) {
    let mut world = texts(seed, 3, ROUGH);
    let mut all = BTreeSet::new();
    for n in 0..12 {
        let word = format!("<{n}>");
        write(&mut world, n % 3, &word);
        all.insert(word);
        let pause = Duration::from_millis(world.below(400));
        world.run_for(pause);
        if n == 7 {
            world.lose_everything();
        }
    }
    world.run_for(Duration::from_secs(90));
    world.settle(DOC);
    world.assert_converged(DOC);
    for client in 0..3 {
        assert_eq!(words(&world, client), all, "seed {seed}");
        assert_eq!(world.refused(client, DOC), [], "seed {seed}");
    }
}

registries! {
    in_a_world
    /// Scenario 81.
    a_thousand_clients_that_meet_a_server_that_lost_a_text_grow_the_log_by_at_most_twice_the_text => thousand_clients
}

fn thousand_clients() {
    let mut world = texts(2, 1, CALM);
    for n in 0..20 {
        write(&mut world, 0, &format!("<{n}>"));
    }
    world.settle(DOC);
    for client in 1..1_000 {
        world.add_client();
        world.open(client, DOC);
    }
    world.settle(DOC);
    let bytes = |world: &Texts| world.log(DOC).iter().map(|c| c.bytes.len()).sum::<usize>();
    let (before, all) = (bytes(&world), words(&world, 0));
    world.lose_everything();
    world.run_for(Duration::from_secs(120));
    world.settle(DOC);
    world.assert_converged(DOC);
    assert_eq!(words(&world, 999), all);
    let after = bytes(&world);
    assert!(
        after <= 2 * before,
        "{after} bytes of log for {before} of text"
    );
}

registries! {
    in_a_world
    /// Scenario 78: fewer, as many, and more new changes than were lost.
    a_backup_that_was_overtaken_by_new_changes_is_noticed_and_both_histories_are_kept => overtaken
}

fn overtaken() {
    for new_changes in [2, 6, 9] {
        for pending in [false, true] {
            let mut world = texts(3, 3, CALM);
            let mut all = BTreeSet::new();
            for n in 0..10 {
                if n == 3 {
                    world.settle(DOC);
                    world.set_online(2, false);
                }
                let word = format!("<old-{n}>");
                write(&mut world, n % 2, &word);
                all.insert(word);
                world.run_for(Duration::from_millis(100));
            }
            world.settle(DOC);
            (0..2).for_each(|client| world.set_online(client, false));
            let restored = backup(&world, 4);
            world.restore(restored);
            let newcomer = world.add_client();
            world.open(newcomer, DOC);
            for n in 0..new_changes {
                let word = format!("<new-{n}>");
                write(&mut world, newcomer, &word);
                all.insert(word);
                world.run_for(Duration::from_millis(100));
            }
            world.settle(DOC);
            assert_eq!(world.meta(DOC).head.0, 4 + new_changes);
            if pending {
                for client in 0..3 {
                    let word = format!("<pending-{client}>");
                    write(&mut world, client, &word);
                    all.insert(word);
                }
            }
            forget_traffic(&mut world);
            (0..3).for_each(|client| world.set_online(client, true));
            world.run_for(Duration::from_secs(120));
            world.settle(DOC);
            world.assert_converged(DOC);
            let case = format!("{new_changes} new changes, pending: {pending}");
            for client in 0..4 {
                assert_eq!(words(&world, client), all, "{case}");
                assert_eq!(world.refused(client, DOC), [], "{case}");
            }
            for client in 0..2 {
                let told = continuations(&mut world, client);
                let reset = |next: &Continuation| {
                    matches!(
                        next,
                        Continuation::Reset {
                            reset: Reset::Merge,
                            ..
                        }
                    )
                };
                assert_eq!(
                    told.iter().filter(|next| reset(next)).count(),
                    1,
                    "{case}: {told:?}"
                );
                assert!(told.len() <= 2, "{case}: {told:?}");
            }
            // This one had left before the histories parted.
            assert_eq!(
                continuations(&mut world, 2),
                [Continuation::Resume],
                "{case}"
            );
        }
    }
}

registries! {
    in_a_world
    /// Scenario 80.
    pending_work_is_issued_again_when_the_table_of_origins_went_back_or_was_lost => issued_again
}

fn issued_again() {
    for table_only in [false, true] {
        let mut world = texts(4, 2, CALM);
        for n in 0..6 {
            write(&mut world, n % 2, &format!("<{n}>"));
            world.run_for(Duration::from_millis(100));
        }
        world.settle(DOC);
        (0..2).for_each(|client| world.set_online(client, false));
        for client in 0..2 {
            write(&mut world, client, &format!("<pending-{client}-1>"));
            write(&mut world, client, &format!("<pending-{client}-2>"));
        }
        let restored = if table_only {
            folded(&mut world)
        } else {
            backup(&world, 3)
        };
        world.restore(restored);
        (0..2).for_each(|client| world.set_online(client, true));
        world.run_for(Duration::from_secs(120));
        world.settle(DOC);
        world.assert_converged(DOC);
        for client in 0..2 {
            assert_eq!(
                words(&world, client).len(),
                10,
                "only the table: {table_only}"
            );
            assert_eq!(
                world.refused(client, DOC),
                [],
                "only the table: {table_only}"
            );
        }
    }
}

/// The document as a snapshot at its head, with nobody's numbers.
fn folded(world: &mut Texts) -> Arc<dyn WorldRegistry> {
    let meta = world.meta(DOC);
    let engine = Yrs::new();
    let mut fold = engine.create(ReplicaSeed(1)).unwrap();
    let log: Vec<Bytes> = world.log(DOC).into_iter().map(|c| c.bytes).collect();
    fold.import(&log).unwrap();
    let mut new = NewDocument::new(id(DOC), EngineId::YRS, meta.epoch);
    new.snapshot = Some(Snapshot::new(
        meta.head,
        meta.digest,
        fold.snapshot().unwrap(),
    ));
    let registry = registries::simulated();
    wait(registry.create(new)).unwrap();
    registry
}

/// A change, and one that builds on it.
fn dependent_changes() -> [Bytes; 2] {
    let engine = Yrs::new();
    let mut author = engine.create(ReplicaSeed(99)).unwrap();
    for word in ["<missing>", "<orphan>"] {
        let edited = engine.edit(&mut author, usize::MAX, |txn| append(txn, word));
        edited.unwrap();
    }
    author.drain().local.try_into().unwrap()
}

fn by(origin: u128, bytes: Bytes) -> NewChange {
    let id = ChangeId {
        origin: OriginId(origin),
        number: 1,
    };
    NewChange::new(id, User::new("elsewhere"), bytes)
}

/// Scenario 23.
#[test]
fn a_log_that_holds_an_orphan_is_read_again_once_and_nobody_claims_to_have_it_all() {
    let [missing, orphan] = dependent_changes();
    for reset in [false, true] {
        let mut world = World::on(registries::simulated(), 6, Yrs::new(), CALM);
        for client in 0..2 {
            world.add_client();
            if reset {
                world.open(client, DOC);
            }
        }
        if reset {
            write(&mut world, 0, "<before>");
            world.settle(DOC);
        }
        rewrite(&world, EpochMode::Merge, 5, vec![by(1, orphan.clone())]);
        if reset {
            (0..2).for_each(|client| world.cut(client));
        } else {
            (0..2).for_each(|client| world.open(client, DOC));
        }
        world.run_for(Duration::from_secs(30));
        forget_traffic(&mut world);
        write(&mut world, 0, "<a>");
        world.run_for(Duration::from_secs(600));
        let mut there = set_of(["<a>"]);
        if reset {
            there.insert("<before>".to_owned());
        }
        for client in 0..2 {
            let state = world.sync_state(client, DOC);
            assert!(!state.is_caught_up(), "reset: {reset}: {state:?}");
            assert!(state.is_saved(), "reset: {reset}: {state:?}");
            assert_eq!(
                continuations(&mut world, client),
                [],
                "reset: {reset}: no loop"
            );
            assert_eq!(words(&world, client), there, "reset: {reset}");
        }
        // What was missing arrives after all.
        let epoch = world.meta(DOC).epoch;
        log(&world.registry, epoch, vec![by(2, missing.clone())]);
        write(&mut world, 1, "<b>");
        world.settle(DOC);
        world.assert_converged(DOC);
        assert!(words(&world, 0).is_superset(&set_of(["<missing>", "<orphan>", "<a>", "<b>"])));
    }
}

/// Scenario 23: it is read again once.
#[test]
fn an_orphan_that_arrives_live_makes_each_client_open_the_document_once_more() {
    let [_, orphan] = dependent_changes();
    let mut world = texts(7, 2, CALM);
    write(&mut world, 0, "<before>");
    world.settle(DOC);
    forget_traffic(&mut world);
    let epoch = world.meta(DOC).epoch;
    log(&world.registry, epoch, vec![by(1, orphan)]);
    for n in 0..5 {
        write(&mut world, n % 2, &format!("<{n}>"));
        world.run_for(Duration::from_secs(1));
    }
    world.run_for(Duration::from_secs(600));
    for client in 0..2 {
        assert_eq!(continuations(&mut world, client).len(), 1);
        assert!(!world.sync_state(client, DOC).is_caught_up());
        assert_eq!(words(&world, client).len(), 6);
    }
}
