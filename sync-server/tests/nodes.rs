//! Several servers over one registry: what one of them does reaches the clients of the others.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "scenarios are plain async functions"
)]

mod common;
mod e2e;
mod registries;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use common::Peer;
use e2e::{content, push, text, until, within};
use sync_client::transport::memory::MemoryNetwork;
use sync_client::transport::{DialError, Dialer, Transport};
use sync_client::{Client, DocumentHandle, ErrorCode, SyncPhase, Yrs};
use sync_core::wire::{Continuation, Message};
use sync_server::registry::{
    Call, DocumentId, EngineId, Epoch, EpochMode, Existing, FaultyRegistry, HoldPoint,
    MemoryRegistry, NewDocument, Seq, ServerRegistry, Tail,
};
use sync_server::{Anonymous, Listener, Server, ServerBuilder, ServerEvent};
use tokio::time::{Instant, sleep};

const NOTES: &str = "notes/42";

/// A poll that never comes in a test's time.
const NEVER: Duration = Duration::from_secs(1_000_000);

/// One of the servers, with what can go wrong between it and the registry, and between it and its clients.
struct Node {
    server: Server,
    faults: Arc<FaultyRegistry<Arc<MemoryRegistry>>>,
    network: MemoryNetwork,
    _listener: Listener,
}

impl Node {
    fn client(&self) -> Client {
        Client::with_dialer(self.network.dialer()).start().unwrap()
    }

    fn n_polls(&self) -> usize {
        let calls = self.faults.calls();
        calls.iter().filter(|call| **call == Call::Heads).count()
    }
}

/// Two servers over one registry.
fn two(configure: impl Fn(ServerBuilder) -> ServerBuilder) -> (Arc<MemoryRegistry>, [Node; 2]) {
    let registry = Arc::new(MemoryRegistry::shared());
    let node = |seed| {
        let faults = Arc::new(FaultyRegistry::new(Arc::clone(&registry)));
        let builder = Server::builder(Arc::clone(&faults), Anonymous::read_write()).seed(seed);
        let server = configure(builder).build().unwrap();
        let network = MemoryNetwork::new();
        Node {
            _listener: server.listen(network.acceptor()),
            server,
            faults,
            network,
        }
    };
    let nodes = [node(1), node(2)];
    (registry, nodes)
}

async fn log(registry: &MemoryRegistry) -> Vec<Vec<u8>> {
    let document = DocumentId::new(NOTES).unwrap();
    match registry.tail(&document, Seq::ZERO, usize::MAX).await {
        Ok(Tail::Changes { changes, .. }) => {
            changes.into_iter().map(|row| row.bytes.to_vec()).collect()
        }
        other => panic!("no log: {other:?}"),
    }
}

/// How long it takes until the document has this text.
async fn takes(document: &DocumentHandle<Yrs>, expected: &str) -> Duration {
    let began = Instant::now();
    until(document, expected, |document, _| {
        content(document) == expected
    })
    .await;
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn edits_cross_at_once_where_the_registry_gives_hints() {
    let (_, [one, two]) = two(|builder| builder.heads_poll(NEVER));
    let (ann, bob) = (one.client(), two.client());
    let (a, b) = (text(&ann, NOTES).await, text(&bob, NOTES).await);
    within("ann is there", a.caught_up()).await.unwrap();
    within("bob is there", b.caught_up()).await.unwrap();
    let mut written = String::new();
    for n in 0..20 {
        let (from, to) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        push(from, "x");
        written.push('x');
        let took = takes(to, &written).await;
        assert!(took < Duration::from_millis(50), "{took:?}");
    }
    assert_eq!((one.n_polls(), two.n_polls()), (0, 0));
}

/// Scenario 85.
#[tokio::test(start_paused = true)]
async fn edits_cross_within_a_second_though_all_hints_are_lost() {
    let (_, [one, two]) = two(|builder| builder);
    let (ann, bob) = (one.client(), two.client());
    let (a, b) = (text(&ann, NOTES).await, text(&bob, NOTES).await);
    within("ann is there", a.caught_up()).await.unwrap();
    within("bob is there", b.caught_up()).await.unwrap();
    let mut written = String::new();
    let mut longest = Duration::ZERO;
    for n in 0..60 {
        // At any time between two polls; the first ones, and the last one, with hints before it.
        for node in [&one, &two] {
            node.faults.drop_hints(n > 5);
        }
        sleep(Duration::from_millis(137)).await;
        let (from, to) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        push(from, "x");
        written.push('x');
        longest = longest.max(takes(to, &written).await);
    }
    assert!(longest <= Duration::from_secs(1), "{longest:?}");
    assert!(longest > Duration::from_millis(100), "no hint was lost");
}

#[tokio::test(start_paused = true)]
async fn hints_that_end_are_asked_for_again_and_polls_repair_meanwhile() {
    let (_, [one, two]) = two(|builder| builder);
    let (ann, bob) = (one.client(), two.client());
    let (a, b) = (text(&ann, NOTES).await, text(&bob, NOTES).await);
    within("bob is there", b.caught_up()).await.unwrap();
    push(&a, "a");
    assert!(takes(&b, "a").await < Duration::from_millis(50));
    two.faults.cut_hints();
    push(&a, "b");
    assert!(takes(&b, "ab").await <= Duration::from_secs(1));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(two.faults.n_watched(), 2);
    push(&a, "c");
    assert!(takes(&b, "abc").await < Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn polls_that_fail_are_repeated_until_they_do_not() {
    let (_, [one, two]) = two(|builder| builder);
    let (ann, bob) = (one.client(), two.client());
    let (a, b) = (text(&ann, NOTES).await, text(&bob, NOTES).await);
    within("ann is there", a.caught_up()).await.unwrap();
    within("bob is there", b.caught_up()).await.unwrap();
    two.faults.drop_hints(true);
    two.faults.fail_reads(usize::MAX);
    push(&a, "a");
    within("saved", a.saved()).await.unwrap();
    let before = two.n_polls();
    sleep(Duration::from_secs(60)).await;
    let n_polls = two.n_polls() - before;
    assert!((4..15).contains(&n_polls), "{n_polls}");
    assert_eq!(content(&b), "");
    let failed = two.server.stats();
    let heads = failed.registry.iter().find(|calls| calls.call == "heads");
    assert_eq!(heads.unwrap().failures, u64::try_from(n_polls).unwrap());
    two.faults.fail_reads(0);
    assert!(takes(&b, "a").await <= Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_polled_while_nobody_has_a_document_open_or_nobody_else_writes() {
    let (_, [one, _]) = two(|builder| builder);
    sleep(Duration::from_secs(60)).await;
    assert_eq!((one.n_polls(), one.faults.n_watched()), (0, 0));
    let ann = one.client();
    let a = text(&ann, NOTES).await;
    within("ann is there", a.caught_up()).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    let polls = one.n_polls();
    assert!((60..=81).contains(&polls), "{polls}");
    a.close();
    sleep(Duration::from_secs(2)).await;
    let polls = one.n_polls();
    sleep(Duration::from_secs(60)).await;
    assert_eq!((one.n_polls(), one.faults.n_watched()), (polls, 1));
    // Somebody is there again.
    let a = text(&ann, NOTES).await;
    sleep(Duration::from_secs(10)).await;
    assert!(one.n_polls() >= polls + 9);
    drop(a);

    let faults = Arc::new(FaultyRegistry::new(MemoryRegistry::new()));
    let server = Server::builder(Arc::clone(&faults), Anonymous::read_write())
        .build()
        .unwrap();
    let mut peer = Peer::welcomed(&server, 1).await;
    peer.open(NOTES).await;
    sleep(Duration::from_secs(60)).await;
    assert!(!faults.calls().contains(&Call::Heads));
    assert_eq!(faults.n_watched(), 0);
}

#[tokio::test(start_paused = true)]
async fn both_fold_and_the_others_go_on() {
    let (registry, [one, two]) = two(|builder| {
        builder
            .fold_after(20, usize::MAX)
            .keep_log(0, Duration::ZERO)
    });
    two.faults.drop_hints(true);
    let (ann, bob) = (one.client(), two.client());
    let (a, b) = (text(&ann, NOTES).await, text(&bob, NOTES).await);
    let mut expected = 0;
    for n in 0..200 {
        let (from, _) = if n % 3 == 0 { (&b, &a) } else { (&a, &b) };
        push(from, "x");
        expected += 1;
        sleep(Duration::from_millis(40)).await;
    }
    for document in [&a, &b] {
        within("saved", document.saved()).await.unwrap();
        until(document, "all of it", |document, _| {
            content(document).len() == expected
        })
        .await;
    }
    let meta = registry
        .meta(&DocumentId::new(NOTES).unwrap())
        .await
        .unwrap();
    assert_eq!(meta.head, Seq(200));
    assert!(meta.snapshot_seq > Seq(150), "{meta:?}");
    assert!(meta.log_start > Seq(150), "{meta:?}");
    // Whoever comes now is sent the snapshot, wherever it was made.
    for node in [&one, &two] {
        let cyd = node.client();
        let c = text(&cyd, NOTES).await;
        within("caught up", c.caught_up()).await.unwrap();
        assert_eq!(content(&c).len(), expected);
    }
    for document in [&a, &b] {
        assert!(document.refused().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn another_history_by_one_nodes_operator_reaches_the_clients_of_the_others() {
    // In the last case only the epoch tells: the new history has as many changes, and the same ones.
    for (mode, is_older, expected) in [
        (EpochMode::Merge, true, "kept newer"),
        (EpochMode::Discard, true, "kept "),
        (EpochMode::Discard, false, "kept newer"),
    ] {
        let (registry, [one, two]) = two(|builder| builder);
        let third = Server::builder(registry, Anonymous::read_write());
        let third = third.build().unwrap();
        let document = DocumentId::new(NOTES).unwrap();
        let (ann, bob) = (one.client(), two.client());
        let (a, b) = (text(&ann, NOTES).await, text(&bob, NOTES).await);
        push(&a, "kept ");
        within("saved", a.saved()).await.unwrap();
        takes(&b, "kept ").await;
        let older = third.export(&document).await.unwrap();
        push(&b, "newer");
        takes(&a, "kept newer").await;
        let newer = third.export(&document).await.unwrap();
        two.faults.drop_hints(true);
        let mut events = two.server.events();
        let export = if is_older { older } else { newer };
        third
            .import(document, export, mode, Existing::Replace)
            .await
            .unwrap();
        let began = Instant::now();
        within("noticed", async {
            while !matches!(
                events.next().await,
                Some(ServerEvent::HistoryReplaced { .. })
            ) {}
        })
        .await;
        assert!(began.elapsed() <= Duration::from_secs(1));
        for document in [&a, &b] {
            within("caught up", document.caught_up()).await.unwrap();
            takes(document, expected).await;
            assert!(document.refused().is_empty());
        }
        push(&b, "!");
        takes(&a, &format!("{expected}!")).await;
    }
}

/// Scenario 63, on another node.
#[tokio::test(start_paused = true)]
async fn a_deletion_on_one_node_reaches_the_clients_of_the_other() {
    for hints_are_dropped in [false, true] {
        let (registry, [one, two]) = two(|builder| builder);
        let (ann, bob) = (one.client(), two.client());
        let (a, b) = (text(&ann, NOTES).await, text(&bob, NOTES).await);
        push(&a, "a");
        takes(&b, "a").await;
        two.faults.drop_hints(hints_are_dropped);
        let document = DocumentId::new(NOTES).unwrap();
        one.server.delete(&document).await.unwrap();
        let began = Instant::now();
        until(&b, "told", |_, state| state.phase == SyncPhase::Deleted).await;
        assert!(began.elapsed() <= Duration::from_secs(1));
        until(&a, "told", |_, state| state.phase == SyncPhase::Deleted).await;
        assert!(registry.meta(&document).await.is_err());
        // Nothing of it is kept in memory either.
        sleep(Duration::from_secs(1)).await;
        assert_eq!(two.server.stats().n_documents, 0);
    }
}

/// Dials the node that it is told to.
#[derive(Debug, Clone)]
struct Balancer {
    networks: [MemoryNetwork; 2],
    which: Arc<AtomicUsize>,
}

#[async_trait]
impl Dialer for Balancer {
    async fn dial(&self) -> Result<Box<dyn Transport>, DialError> {
        let network = &self.networks[self.which.load(Ordering::SeqCst)];
        network.dialer().dial().await
    }
}

/// Scenario 31, with another node in the place of the one that was killed.
#[tokio::test(start_paused = true)]
async fn a_node_that_is_killed_loses_nothing_while_its_clients_move_to_the_other_one() {
    for n_calls in [1, 3, 8] {
        for point in [HoldPoint::BeforeCommit, HoldPoint::AfterCommit] {
            let (registry, [one, two]) = two(|builder| builder);
            let which = Arc::new(AtomicUsize::new(0));
            let balancer = Balancer {
                networks: [one.network.clone(), two.network.clone()],
                which: Arc::clone(&which),
            };
            let ann = Client::with_dialer(balancer.clone()).start().unwrap();
            let bob = two.client();
            let (a, b) = (text(&ann, NOTES).await, text(&bob, NOTES).await);
            within("ann is there", a.caught_up()).await.unwrap();
            within("bob is there", b.caught_up()).await.unwrap();
            one.faults.crash_at(n_calls, point);
            let mut words = BTreeSet::new();
            for n in 0..40 {
                let (document, word) = if n % 2 == 0 {
                    (&a, format!("<a{n}>"))
                } else {
                    (&b, format!("<b{n}>"))
                };
                push(document, &word);
                words.insert(word);
                sleep(Duration::from_millis(10)).await;
                if n == 20 {
                    within("crashed", one.faults.crashed()).await;
                    one.network.close();
                    which.store(1, Ordering::SeqCst);
                    one.network.cut();
                }
            }
            for document in [&a, &b] {
                within("saved", document.saved()).await.unwrap();
                within("caught up", document.caught_up()).await.unwrap();
                assert!(document.refused().is_empty());
            }
            until(&a, "converged", |a, _| content(a) == content(&b)).await;
            let text = content(&a);
            for word in &words {
                assert_eq!(text.matches(word.as_str()).count(), 1, "{word} in {text}");
            }
            assert_eq!(log(&registry).await.len(), words.len(), "{point:?}");
        }
    }
}

/// Scenario 86: a room that has heard of nothing since it was loaded.
#[tokio::test(start_paused = true)]
async fn a_node_that_lags_answers_what_the_registry_says() {
    let (registry, [one, two]) = two(|builder| builder.heads_poll(NEVER));
    one.faults.drop_hints(true);
    let document = DocumentId::new(NOTES).unwrap();
    let mut kept = Peer::welcomed(&one.server, 1).await;
    let lagging = kept.open(NOTES).await;
    let mut writer = Peer::welcomed(&two.server, 2).await;
    let mut doc = writer.open(NOTES).await;
    for number in 1..=5 {
        writer.push_acked(&doc, number, "change").await;
        doc.cursor = doc.cursor.with(number, b"change");
    }
    assert_eq!(kept.quiet().await, None, "the room lags");

    // It has a cursor beyond what the room has published.
    let mut moved = Peer::welcomed(&one.server, 3).await;
    let mut opened = moved.open_at(NOTES, doc.cursor).await;
    assert_eq!(opened.opened.next, Continuation::Resume);
    assert_eq!(opened.opened.head, Seq(5));
    moved.push_acked(&opened, 1, "moved").await;
    opened.cursor = opened.cursor.with(1, b"moved");

    // A document that the node has never heard of is there, and one that it has is as it was replaced elsewhere.
    let mut elsewhere = Peer::welcomed(&two.server, 6).await;
    elsewhere.open("other").await;
    let mut open = moved.open_message("other");
    open.create = false;
    assert_eq!(moved.open_with(open).await.opened.head, Seq::ZERO);
    let mut new = NewDocument::new(document.clone(), EngineId::OPAQUE, Epoch(99));
    new.mode = EpochMode::Discard;
    registry.replace(new, Vec::new()).unwrap();
    let mut late = Peer::welcomed(&one.server, 4).await;
    let reset = late.open_at(NOTES, opened.cursor).await.opened;
    assert_eq!(reset.epoch, Epoch(99));
    assert!(matches!(reset.next, Continuation::Reset { .. }));

    // It believes the document deleted, and it has been brought back.
    registry.delete(&document).await.unwrap();
    let mut refused = Peer::welcomed(&one.server, 5).await;
    let open = refused.open_message(NOTES);
    refused.send(&Message::Open(open)).await;
    assert_eq!(refused.error().await.code, ErrorCode::Deleted);
    let new = NewDocument::new(document, EngineId::OPAQUE, Epoch(100));
    registry.replace(new, Vec::new()).unwrap();
    assert_eq!(refused.open(NOTES).await.opened.epoch, Epoch(100));
    drop(lagging);
}

#[tokio::test(start_paused = true)]
async fn two_nodes_write_one_document_at_once_and_nobody_is_turned_away() {
    let (registry, [one, two]) = two(|builder| builder);
    let (ann, bob) = (one.client(), two.client());
    let (a, b) = (text(&ann, NOTES).await, text(&bob, NOTES).await);
    within("ann is there", a.caught_up()).await.unwrap();
    within("bob is there", b.caught_up()).await.unwrap();
    for _ in 0..300 {
        push(&a, "a");
        push(&b, "b");
        sleep(Duration::from_millis(3)).await;
    }
    for document in [&a, &b] {
        within("saved", document.saved()).await.unwrap();
        until(document, "all of it", |document, _| {
            content(document).len() == 600
        })
        .await;
        assert!(document.refused().is_empty());
    }
    assert_eq!(content(&a), content(&b));
    assert!(log(&registry).await.len() <= 600);
    for node in [&one, &two] {
        assert_eq!(node.server.stats().errors, BTreeMap::new());
    }
}

/// The registry is a network away, and calls overtake each other.
#[tokio::test(start_paused = true)]
async fn nodes_far_from_the_registry_write_one_document_at_once() {
    for seed in 0..8 {
        let (registry, [one, two]) = two(|builder| builder);
        for (node, seed) in [(&one, seed), (&two, seed + 100)] {
            node.faults.slow_calls(Duration::from_millis(8), seed);
            node.faults.drop_hints(seed % 2 == 1);
        }
        let clients: Vec<_> = [&one, &two, &one, &two]
            .into_iter()
            .map(Node::client)
            .collect();
        let mut documents = Vec::new();
        for client in &clients {
            documents.push(text(client, NOTES).await);
        }
        for n in 0..100 {
            for document in &documents {
                push(document, "x");
                sleep(Duration::from_millis(n % 7)).await;
            }
        }
        for document in &documents {
            within("saved", document.saved()).await.unwrap();
            until(document, "all of it", |document, _| {
                content(document).len() == 400
            })
            .await;
            assert!(document.refused().is_empty());
        }
        assert!(log(&registry).await.len() <= 400);
        for node in [&one, &two] {
            assert_eq!(node.server.stats().errors, BTreeMap::new());
        }
    }
}

/// One node appends all the time; whoever writes on the other one gets its turn too.
#[tokio::test(start_paused = true)]
async fn a_node_that_writes_all_the_time_does_not_keep_the_others_from_writing() {
    for way in [1, 8] {
        let (_, [one, two]) = two(|builder| builder);
        for (node, seed) in [(&one, 1), (&two, 2)] {
            node.faults.slow_calls(Duration::from_millis(way), seed);
        }
        let (ann, bob) = (one.client(), two.client());
        let (a, b) = (text(&ann, NOTES).await, text(&bob, NOTES).await);
        within("ann is there", a.caught_up()).await.unwrap();
        within("bob is there", b.caught_up()).await.unwrap();
        let busy = tokio::spawn(async move {
            loop {
                push(&a, "a");
                sleep(Duration::from_millis(2)).await;
            }
        });
        let mut longest = Duration::ZERO;
        for _ in 0..10 {
            sleep(Duration::from_millis(50)).await;
            push(&b, "b");
            let began = Instant::now();
            tokio::time::timeout(Duration::from_secs(5), b.saved())
                .await
                .expect("its turn")
                .unwrap();
            longest = longest.max(began.elapsed());
        }
        busy.abort();
        assert!(longest <= Duration::from_secs(1), "{longest:?}");
        for node in [&one, &two] {
            assert_eq!(node.server.stats().errors, BTreeMap::new());
        }
    }
}
