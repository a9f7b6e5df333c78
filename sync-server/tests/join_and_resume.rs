//! What joining and coming back transfers, and how histories that broke are mended.

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
use std::sync::Mutex;

use common::Peer;
use e2e::tap::{Tap, Way};
use e2e::{World, content, push, text, until, until_status, within};
use registries::registry;
use sync_client::yrs::updates::decoder::Decode;
use sync_client::yrs::{Doc, GetString, ReadTxn, StateVector, Text, Transact, Update};
use sync_client::{Client, DocumentHandle, ErrorCode, OriginId, SaveError, Status, SyncPhase, Yrs};
use sync_core::history::{Cursor, Digest};
use sync_core::wire::{Continuation, Message, Reset};
use sync_server::registry::{
    ChangeId, DocumentId, EngineId, Epoch, EpochMode, FaultyRegistry, NewChange, NewDocument,
    RegistryError, Seq, ServerRegistry, Snapshot, StoredChange, User,
};
use sync_server::{Anonymous, Server};

const NOTES: &str = "notes";

both! {
    /// Scenario 17.
    a_late_joiner_of_a_long_log_is_caught_up_exactly_when_it_has_all_of_it => late_joiner
}

async fn late_joiner(world: World) {
    const CHANGES: usize = 10_000;
    let author = Doc::with_client_id(1);
    let body = author.get_or_insert_text("body");
    let log = (1..=CHANGES).map(|_| {
        let mut txn = author.transact_mut();
        // In front of what is there, so that a change that is missing shows in what comes after it.
        body.insert(&mut txn, 0, "x");
        txn.encode_update_v1()
    });
    world
        .registry
        .replace(
            NewDocument::new(notes(), EngineId::YRS, Epoch(7)),
            rows(OriginId(1), log),
        )
        .await
        .unwrap();

    let client = world.client();
    let document = text(&client, NOTES).await;
    let at_first: Arc<Mutex<Option<usize>>> = Arc::default();
    let (state, seen, watched) = (
        document.sync_state(),
        Arc::clone(&at_first),
        document.clone(),
    );
    let _watching = state.clone().notify(move || {
        if state.get().is_caught_up() {
            seen.lock()
                .unwrap()
                .get_or_insert_with(|| content(&watched).len());
        }
    });
    within("caught up", document.caught_up()).await.unwrap();
    assert_eq!(content(&document).len(), CHANGES);
    until(&document, "the state says so", |_, s| s.is_caught_up()).await;
    assert_eq!(*at_first.lock().unwrap(), Some(CHANGES));
}

both! {
    /// Scenarios 21 and 29.
    what_an_open_transfers_depends_on_where_the_client_stands => transfers
}

async fn transfers(world: World) {
    let ann = world.client();
    let a = text(&ann, NOTES).await;
    let (old, recent) = (Absent::new(&world).await, Absent::new(&world).await);
    type_and_save(&a, 4).await;
    old.leave_at(4).await;
    type_and_save(&a, 6).await;
    recent.leave_at(10).await;
    type_and_save(&a, 4).await;
    let snapshot = fold(&world, 12).await;
    let bytes = snapshot.bytes.clone();
    let epoch = world.registry.meta(&notes()).await.unwrap().epoch;
    world
        .registry
        .compact(&notes(), epoch, snapshot, Seq(7))
        .await
        .unwrap();

    // Its position is in the kept log: what it missed, and no byte of the snapshot.
    recent.come_back().await;
    assert_eq!(recent.opened(), [Continuation::Resume]);
    assert_eq!(recent.snapshots(), [0_u8; 0]);
    assert_eq!(recent.changes(), 4);

    // Its position is gone: state, and what follows it.
    old.come_back().await;
    let total_bytes = u64::try_from(bytes.len()).unwrap();
    assert_eq!(old.opened(), [Continuation::Snapshot { total_bytes }]);
    assert_eq!(old.snapshots(), bytes);
    assert_eq!(old.changes(), 2);

    // One that was never here: the same.
    let new = Absent::new(&world).await;
    assert_eq!(new.opened(), [Continuation::Snapshot { total_bytes }]);
    assert_eq!(new.changes(), 2);

    for client in [&old, &recent, &new] {
        assert_eq!(content(&client.document), content(&a));
        assert!(!client.tap.names(Way::Up).contains(&"Push"));
    }
}

/// Scenarios 18, 19 and 20: who lacks what decides what travels, and it travels once.
#[tokio::test(start_paused = true)]
async fn who_comes_back_and_the_server_exchange_exactly_what_they_lack() {
    for (missed_by_server, missed_by_client) in [(3, 0), (0, 4), (3, 4)] {
        let case = format!("{missed_by_server} and {missed_by_client}");
        let world = World::memory().await;
        let (away, there) = (Absent::new(&world).await, Absent::new(&world).await);
        type_and_save(&there.document, 2).await;
        away.leave_at(2).await;
        for _ in 0..missed_by_server {
            push(&away.document, "x");
        }
        type_and_save(&there.document, missed_by_client).await;
        there.tap.clear();

        away.come_back().await;
        within("saved", away.document.saved()).await.unwrap();
        let all = 2 + missed_by_server + missed_by_client;
        for client in [&away, &there] {
            until(&client.document, "it has all", |d, state| {
                content(d).len() == all && state.is_caught_up()
            })
            .await;
        }
        let pushed = away.tap.pick(Way::Up, |message| match message {
            Message::Push(push) => Some(push.changes.len()),
            _ => None,
        });
        let expected: &[usize] = match missed_by_server {
            0 => &[],
            _ => &[missed_by_server],
        };
        assert_eq!(pushed, expected, "{case}");
        assert_eq!(away.opened(), [Continuation::Resume], "{case}");
        assert_eq!(away.changes(), missed_by_client, "{case}");
        assert_eq!(there.changes(), missed_by_server, "{case}");
        assert_eq!(world.log(NOTES).await.len(), all, "{case}");
    }
}

/// Scenario 22: the server's document was restored from elsewhere while clients with other content, seen and unseen by
/// the old server, were away.
#[tokio::test(start_paused = true)]
async fn local_state_of_an_older_epoch_and_the_servers_end_up_everywhere() {
    let world = World::memory().await;
    let (ann, bob) = (world.client(), world.client());
    let (a, b) = (text(&ann, NOTES).await, text(&bob, NOTES).await);
    push(&a, "old ");
    within("saved", a.saved()).await.unwrap();
    until(&b, "bob has it", |b, _| content(b) == "old ").await;
    ann.disconnect();
    bob.disconnect();
    push(&a, "ann's ");
    push(&b, "bob's ");

    let elsewhere = Doc::with_client_id(9);
    let mut txn = elsewhere.transact_mut();
    elsewhere_text(&mut txn, "restored ");
    let log = rows(OriginId(9), [txn.encode_update_v1()]);
    drop(txn);
    let mut restored = NewDocument::new(notes(), EngineId::YRS, Epoch(99));
    restored.mode = EpochMode::Merge;
    world.registry.replace(restored, log).await.unwrap();

    ann.connect();
    bob.connect();
    let carol = world.client();
    let c = text(&carol, NOTES).await;
    for document in [&a, &b, &c] {
        until(document, "everything is everywhere", |document, state| {
            let content = content(document);
            let all = ["restored ", "old ", "ann's ", "bob's "];
            state.is_caught_up()
                && state.is_saved()
                && all.iter().all(|part| content.contains(part))
        })
        .await;
    }
    assert_eq!(content(&a), content(&b));
    assert_eq!(content(&a), content(&c));
    // Nothing is there twice.
    assert_eq!(content(&a).len(), "restored old ann's bob's ".len());
    assert_eq!(
        world.registry.meta(&notes()).await.unwrap().epoch,
        Epoch(99)
    );
}

/// What became of the server while a client was away.
#[derive(Debug, Clone, Copy)]
enum Restored {
    /// To a point before the client's cursor, under the same epoch.
    Behind,
    /// The same, and then overtaken by other changes.
    Overtaken,
    /// Under another epoch.
    Renamed,
}

registries! {
    /// Scenarios 24 and 78: the server's history is not the client's. One open, one reset, one reconciliation.
    a_cursor_that_is_not_of_the_servers_history_is_reconciled_once_and_for_all => other_history
}

async fn other_history() {
    for how in [Restored::Behind, Restored::Overtaken, Restored::Renamed] {
        let mut world = World::memory().await;
        let (ann, tap) = world.tapped();
        let ann = ann.start().unwrap();
        let a = text(&ann, NOTES).await;
        for letter in ["a", "b", "c", "d"] {
            push(&a, letter);
            within("saved", a.saved()).await.unwrap();
        }
        ann.disconnect();
        world.stop().await;
        let old = world.registry.meta(&notes()).await.unwrap().epoch;
        let kept = world.log(NOTES).await[..2].to_vec();
        let epoch = match how {
            Restored::Renamed => Epoch(1),
            _ => old,
        };
        restore(&mut world, epoch, &kept).await;
        world.start().await;

        // Somebody whose history is the server's.
        let (bob, at_bob) = world.tapped();
        let bob = bob.start().unwrap();
        let b = text(&bob, NOTES).await;
        within("bob is there", b.caught_up()).await.unwrap();
        if let Restored::Overtaken = how {
            for letter in ["x", "y", "z"] {
                push(&b, letter);
            }
            within("saved", b.saved()).await.unwrap();
        }
        let (pushed_before, head) = (content(&b), world.log(NOTES).await.len());
        at_bob.clear();
        tap.clear();

        ann.connect();
        until(&b, "bob has ann's", |b, _| {
            content(b).contains('c') && content(b).contains('d')
        })
        .await;
        until(&a, "ann is done", |_, s| s.is_caught_up() && s.is_saved()).await;
        // Time for whoever would go round in circles.
        tokio::time::sleep(std::time::Duration::from_secs(100)).await;

        assert_eq!(content(&a), content(&b), "{how:?}");
        assert!(content(&a).len() == 4 + pushed_before.len() - 2, "{how:?}");
        assert_eq!(tap.names(Way::Up), ["Hello", "Open", "Push"], "{how:?}");
        assert!(
            matches!(
                opened(&tap)[..],
                [Continuation::Reset {
                    reset: Reset::Merge,
                    ..
                }]
            ),
            "{how:?}"
        );
        // What was lost came back as one change, and that is all that anybody else heard of it.
        assert_eq!(world.log(NOTES).await.len(), head + 1, "{how:?}");
        assert_eq!(at_bob.names(Way::Down), ["Changes"], "{how:?}");
        assert_eq!(world.registry.meta(&notes()).await.unwrap().epoch, epoch);
    }
}

/// Scenario 24: a false claim of a client changes nothing for others.
#[tokio::test(start_paused = true)]
async fn a_false_claim_of_where_one_stands_changes_nothing_for_others() {
    let world = World::memory().await;
    let (ann, tap) = world.tapped();
    let ann = ann.start().unwrap();
    let a = text(&ann, NOTES).await;
    type_and_save(&a, 3).await;
    let before = world.registry.meta(&notes()).await.unwrap();
    tap.clear();

    let honest = Cursor {
        epoch: before.epoch,
        seq: before.head,
        digest: before.digest,
    };
    for (n, claim) in [
        Cursor {
            epoch: Epoch(before.epoch.0 ^ 1),
            ..honest
        },
        Cursor {
            digest: Digest(before.digest.0 ^ 1),
            ..honest
        },
        Cursor {
            seq: Seq(1_000),
            ..honest
        },
    ]
    .into_iter()
    .enumerate()
    {
        let mut liar = Peer::welcomed(&world.server, 100 + u128::try_from(n).unwrap()).await;
        let mut open = liar.open_message(NOTES);
        open.engine = EngineId::YRS;
        open.cursor = Some(claim);
        let opened = liar.open_with(open).await.opened;
        let reset = Continuation::Reset {
            reset: Reset::Merge,
            total_bytes: 0,
        };
        // It is told the truth, and can take its time without anybody waiting for it.
        assert_eq!((opened.next, opened.epoch), (reset, before.epoch));
        push(&a, "x");
        within("saved", a.saved()).await.unwrap();
    }
    assert_eq!(a.sync_state().get().phase, SyncPhase::Live);
    let mut down = tap.names(Way::Down);
    down.dedup();
    assert_eq!((tap.names(Way::Up), down), (vec!["Push"; 3], vec!["Ack"]));
    let after = world.registry.meta(&notes()).await.unwrap();
    assert_eq!((after.epoch, after.head), (before.epoch, Seq(6)));
}

/// Scenario 25.
#[tokio::test(start_paused = true)]
async fn opening_an_unknown_document_is_an_error_at_once_or_creates_it_as_asked() {
    let world = World::memory().await;
    let client = world.client();
    let asked = client.open(NOTES, Yrs::new()).must_exist().await.unwrap();
    let missing = within("an answer", asked.caught_up()).await;
    assert_eq!(missing, Err(SaveError::Denied(ErrorCode::NotFound)));
    assert_eq!(
        asked.sync_state().get().phase,
        SyncPhase::Refused(ErrorCode::NotFound)
    );
    let in_registry = world.registry.meta(&notes()).await;
    assert!(matches!(in_registry, Err(RegistryError::NotFound)));

    let other = world.client();
    let created = text(&other, NOTES).await;
    within("created", created.caught_up()).await.unwrap();
    assert!(world.registry.meta(&notes()).await.is_ok());

    let third = world.client();
    let there = third.open(NOTES, Yrs::new()).must_exist().await.unwrap();
    within("it exists", there.caught_up()).await.unwrap();
}

/// Scenario 25: as the server allows.
#[tokio::test(start_paused = true)]
async fn who_may_only_read_creates_nothing() {
    let mut world = World::memory().await;
    world.stop().await;
    world.server = Server::builder(world.faults.clone(), Anonymous::read_only())
        .build()
        .unwrap();
    let _listener = world.server.listen(world.network.acceptor());
    let client = world.client();
    let asked = text(&client, NOTES).await;
    let missing = within("an answer", asked.caught_up()).await;
    assert_eq!(missing, Err(SaveError::Denied(ErrorCode::NotFound)));
    let in_registry = world.registry.meta(&notes()).await;
    assert!(matches!(in_registry, Err(RegistryError::NotFound)));
}

// ---- helpers

fn notes() -> DocumentId {
    DocumentId::new(NOTES).unwrap()
}

/// A client that goes away and comes back, with what it is sent.
struct Absent {
    client: Client,
    document: DocumentHandle<Yrs>,
    tap: Tap,
}

impl Absent {
    async fn new(world: &World) -> Self {
        let (client, tap) = world.tapped();
        let client = client.start().unwrap();
        let document = text(&client, NOTES).await;
        within("caught up", document.caught_up()).await.unwrap();
        Self {
            client,
            document,
            tap,
        }
    }

    async fn leave_at(&self, len: usize) {
        until(&self.document, "it has all", |d, _| content(d).len() == len).await;
        self.client.disconnect();
        until_status(&self.client, "offline", |s| *s == Status::Offline).await;
        self.tap.clear();
    }

    async fn come_back(&self) {
        self.client.connect();
        within("caught up", self.document.caught_up())
            .await
            .unwrap();
    }

    fn opened(&self) -> Vec<Continuation> {
        opened(&self.tap)
    }

    fn snapshots(&self) -> Vec<u8> {
        let snapshots = self.tap.pick(Way::Down, |message| match message {
            Message::Snapshot(snapshot) => Some(snapshot.bytes),
            _ => None,
        });
        snapshots.concat()
    }

    /// Number of changes received.
    fn changes(&self) -> usize {
        let counts = self.tap.pick(Way::Down, |message| match message {
            Message::Changes(changes) => Some(changes.changes.len()),
            _ => None,
        });
        counts.iter().sum()
    }
}

fn opened(tap: &Tap) -> Vec<Continuation> {
    tap.pick(Way::Down, |message| match message {
        Message::Opened(opened) => Some(opened.next),
        _ => None,
    })
}

async fn type_and_save(document: &DocumentHandle<Yrs>, letters: usize) {
    for _ in 0..letters {
        push(document, "x");
        within("saved", document.saved()).await.unwrap();
    }
}

fn elsewhere_text(txn: &mut sync_client::yrs::TransactionMut<'_>, what: &str) {
    use sync_client::yrs::WriteTxn;
    let body = txn.get_or_insert_text("body");
    body.push(txn, what);
}

fn rows(origin: OriginId, log: impl IntoIterator<Item = Vec<u8>>) -> Vec<NewChange> {
    let row = |(number, bytes): (u64, Vec<u8>)| {
        NewChange::new(
            ChangeId { origin, number },
            User::new("anonymous"),
            bytes.into(),
        )
    };
    (1..).zip(log).map(row).collect()
}

/// A snapshot of everything through a sequence, made by a replica that imported nothing else.
async fn fold(world: &World, through: usize) -> Snapshot {
    let log = world.log(NOTES).await;
    let replica = Doc::new();
    let mut txn = replica.transact_mut();
    for change in &log[..through] {
        txn.apply_update(Update::decode_v1(&change.bytes).unwrap())
            .unwrap();
    }
    assert_eq!(
        txn.get_text("body").unwrap().get_string(&txn).len(),
        through
    );
    let bytes = txn.encode_state_as_update_v1(&StateVector::default());
    let last = &log[through - 1];
    Snapshot::new(last.seq, last.digest, bytes.into())
}

/// Another registry in the place of the world's, with these rows only.
async fn restore(world: &mut World, epoch: Epoch, log: &[StoredChange]) {
    let registry = registry();
    let document = NewDocument::new(notes(), EngineId::YRS, epoch);
    registry.create(document).await.unwrap();
    let changes = log
        .iter()
        .map(|row| NewChange::new(row.id, User::new("anonymous"), row.bytes.clone()))
        .collect();
    registry
        .append(&notes(), epoch, None, changes)
        .await
        .unwrap();
    world.faults = Arc::new(FaultyRegistry::new(registry.clone()));
    world.registry = registry;
}
