//! Changes that are checked against what the document holds, before they are logged.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "scenarios are plain async functions"
)]

mod common;
mod registries;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use common::{Peer, document, event};
use sync_core::wire::{Message, Refuse};
use sync_server::registry::{
    ChangeId, Epoch, FaultyRegistry, MemoryRegistry, NewChange, NewDocument, OriginId,
    ServerRegistry,
};
use sync_server::{
    EngineError, EngineHost, EngineId, ErrorCode, InProcess, Ledger, ReadError, Server,
    ServerEvent, Taken, User, ValidateLimits, Validator,
};

/// Documents are words. `b<a` may follow only once `a` is there, and `mine:x` belongs to whom said `mine:` first.
#[derive(Debug, Clone, Default)]
struct Words {
    scans: bool,
    /// Ledgers that were made.
    made: Arc<AtomicUsize>,
    /// Times that it was asked about `flaky`.
    flaky: Arc<AtomicUsize>,
}

impl Validator for Words {
    fn engine(&self) -> EngineId {
        EngineId::OPAQUE
    }

    fn validate(&self, _: &[u8], _: &ValidateLimits) -> Result<(), EngineError> {
        Ok(())
    }

    fn ledger(&self) -> Option<Box<dyn Ledger>> {
        self.made.fetch_add(1, Ordering::Relaxed);
        Some(Box::new(WordLedger {
            scans: self.scans,
            flaky: Arc::clone(&self.flaky),
            ..WordLedger::default()
        }))
    }
}

#[derive(Default)]
struct WordLedger {
    scans: bool,
    words: BTreeSet<String>,
    owner: Option<User>,
    is_spent: bool,
    flaky: Arc<AtomicUsize>,
}

impl WordLedger {
    fn take(&mut self, text: &str, author: Option<&User>) -> Taken {
        if text.starts_with("mine:") && self.owner.is_none() {
            self.owner = author.cloned();
        }
        if self.words.insert(text.to_owned()) {
            Taken::New
        } else {
            Taken::Known
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

impl Ledger for WordLedger {
    fn scans(&self) -> bool {
        self.scans
    }

    fn load(&mut self, snapshot: &[u8]) -> Result<(), EngineError> {
        for line in text(snapshot).lines() {
            self.take(line, None);
        }
        Ok(())
    }

    fn admit(&mut self, change: &Bytes, author: Option<&User>) -> Result<(), EngineError> {
        assert_ne!(&**change, b"unloadable", "a bug in an engine");
        self.take(&text(change), author);
        Ok(())
    }

    fn check(&mut self, change: &Bytes, author: &User, _: bool) -> Result<Taken, EngineError> {
        assert!(!self.is_spent, "not asked any more");
        let text = text(change);
        assert_ne!(text, "bug", "a bug in an engine");
        let is_first = text == "flaky" && self.flaky.fetch_add(1, Ordering::Relaxed) == 0;
        assert!(!is_first, "once");
        let is_foreign = self.owner.as_ref().is_some_and(|owner| owner != author);
        if text.starts_with("mine:") && is_foreign {
            return Err(EngineError::Rejected {
                what: "somebody else's",
            });
        }
        match text.split_once('<') {
            Some((_, before)) if !self.words.contains(before) => {
                self.is_spent = !self.scans;
                Err(EngineError::Incomplete)
            }
            _ => Ok(self.take(&text, Some(author))),
        }
    }

    fn is_spent(&self) -> bool {
        self.is_spent
    }

    fn bytes(&self) -> usize {
        self.words.len()
    }
}

fn server(words: &Words) -> (Server, Arc<FaultyRegistry<Arc<MemoryRegistry>>>) {
    let registry = Arc::new(FaultyRegistry::new(Arc::new(MemoryRegistry::new())));
    let server = common::builder(Arc::clone(&registry))
        .engines(InProcess::default().engine(words.clone()))
        .build()
        .unwrap();
    (server, registry)
}

/// Ledgers that scan are asked in the room's turn, others beside it: the same is seen of both.
fn both() -> [Words; 2] {
    [true, false].map(|scans| Words {
        scans,
        ..Words::default()
    })
}

async fn refusal(peer: &mut Peer) -> Refuse {
    match peer.next().await {
        Message::Refuse(refuse) => refuse,
        other => panic!("expected Refuse, got {other:?}"),
    }
}

async fn logged(registry: &impl ServerRegistry) -> Vec<String> {
    let notes = document("notes");
    let tail = registry.tail(&notes, sync_server::Seq(0), usize::MAX);
    match tail.await.unwrap() {
        sync_server::registry::Tail::Changes { changes, .. } => {
            changes.iter().map(|row| text(&row.bytes)).collect()
        }
        other => panic!("{other:?}"),
    }
}

/// Scenarios 46 and 88.
#[tokio::test(start_paused = true)]
async fn what_refers_to_nothing_is_refused_by_id_and_reaches_nobody() {
    for words in both() {
        let (server, registry) = server(&words);
        let mut ada = Peer::welcomed(&server, 1).await;
        let mut bob = Peer::welcomed(&server, 2).await;
        let ours = ada.open("notes").await;
        let mut theirs = bob.open("notes").await;
        ada.push(&ours, 1, &["a", "b<a", "x<nothing", "c"]).await;
        ada.ack().await;
        let refuse = refusal(&mut ada).await;
        assert_eq!(
            (refuse.number, refuse.code),
            (3, ErrorCode::MissingDependency)
        );
        bob.follow(&mut theirs, 2).await;
        bob.push_acked(&theirs, 1, "d<b<a").await;
        assert_eq!(theirs.content, ["a", "b<a"]);
        assert_eq!(logged(&registry).await, ["a", "b<a", "d<b<a"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_document_is_checked_against_what_is_stored_and_by_whom() {
    for words in both() {
        let (_, registry) = server(&words);
        {
            let first = common::builder(Arc::clone(&registry)).build().unwrap();
            let mut ada = Peer::connect(&first, 1);
            ada.hello().await;
            let ours = ada.open("notes").await;
            ada.push_acked(&ours, 1, "mine:1").await;
        }
        let server = common::builder(Arc::clone(&registry))
            .engines(InProcess::default().engine(words))
            .build()
            .unwrap();
        let mut bob = Peer::welcomed(&server, 2).await;
        let mut theirs = bob.open("notes").await;
        // All of these are the same anonymous user.
        bob.follow(&mut theirs, 1).await;
        bob.push_acked(&theirs, 1, "mine:2<mine:1").await;

        let (transport, other) = sync_core::transport::memory::pair(common::CAPACITY);
        let eve = User::new("eve");
        tokio::spawn(server.serve_as(other, sync_core::transport::PeerInfo::default(), eve));
        let mut eve = Peer::over(transport, 3);
        eve.hello().await;
        let hers = eve.open("notes").await;
        eve.push(&hers, 1, &["mine:3"]).await;
        let refuse = loop {
            match eve.next().await {
                Message::Refuse(refuse) => break refuse,
                Message::Changes(_) => {}
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(refuse.code, ErrorCode::InvalidChange);
        assert_eq!(refuse.message, "somebody else's");
    }
}

/// Somebody who brings what a server lacked claims none of it, also after the server has been started again.
#[tokio::test(start_paused = true)]
async fn what_was_pushed_to_repair_a_server_is_nobodys_own() {
    for reconciling in [true, false] {
        let [words, _] = both();
        let (server, registry) = server(&words);
        let notes = document("notes");
        let new = NewDocument::new(notes.clone(), EngineId::OPAQUE, Epoch(1));
        registry.create(new).await.unwrap();
        let id = ChangeId {
            origin: OriginId(9),
            number: 1,
        };
        let change = NewChange::new(id, User::new("repairer"), "mine:1".into());
        let change = change.with_reconciling(reconciling);
        let appended = registry.append(&notes, Epoch(1), None, vec![change]);
        appended.await.unwrap();
        let mut owner = Peer::welcomed(&server, 1).await;
        let mut doc = owner.open("notes").await;
        owner.follow(&mut doc, 1).await;
        if reconciling {
            owner.push_acked(&doc, 1, "mine:2").await;
        } else {
            owner.push(&doc, 1, &["mine:2"]).await;
            assert_eq!(refusal(&mut owner).await.message, "somebody else's");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_ledger_is_loaded_once_and_again_after_a_failed_append() {
    for words in both() {
        let (server, registry) = server(&words);
        let made = || words.made.load(Ordering::Relaxed);
        let before = made();
        let mut ada = Peer::welcomed(&server, 1).await;
        let ours = ada.open("notes").await;
        for number in 1..=5 {
            ada.push_acked(&ours, number, "a").await;
        }
        assert_eq!(made() - before, 1);
        registry.fail_appends(1);
        ada.push(&ours, 6, &["b"]).await;
        assert_eq!(ada.error().await.code, ErrorCode::StorageUnavailable);
        let ours = ada.open("notes").await;
        while ada.quiet().await.is_some() {}
        ada.push(&ours, 6, &["c<b"]).await;
        let refuse = refusal(&mut ada).await;
        assert_eq!(refuse.code, ErrorCode::MissingDependency);
        assert_eq!(made() - before, 2);
    }
}

/// Scenario 83.
#[tokio::test(start_paused = true)]
async fn a_registry_that_cannot_be_read_for_a_check_refuses_nothing() {
    let words = Words::default();
    let (server, registry) = server(&words);
    let mut ada = Peer::welcomed(&server, 1).await;
    let ours = ada.open("notes").await;
    registry.fail_reads(1);
    ada.push(&ours, 1, &["a"]).await;
    assert_eq!(ada.error().await.code, ErrorCode::CheckUnavailable);
    let ours = ada.open("notes").await;
    ada.push_acked(&ours, 1, "a").await;
}

#[tokio::test(start_paused = true)]
async fn a_change_at_which_the_engine_always_panics_is_refused_and_one_at_which_it_did_once_is_not()
{
    for words in both() {
        let (server, registry) = server(&words);
        let mut events = server.events();
        let mut ada = Peer::welcomed(&server, 1).await;
        let mut bob = Peer::welcomed(&server, 2).await;
        let ours = ada.open("notes").await;
        let theirs = bob.open("notes").await;
        ada.push(&ours, 1, &["flaky", "bug"]).await;
        ada.ack().await;
        let refuse = refusal(&mut ada).await;
        assert_eq!((refuse.number, refuse.code), (2, ErrorCode::InvalidChange));
        let panicked = event(&mut events, |event| match event {
            ServerEvent::ValidatorPanicked { change, .. } => Some(change),
            _ => None,
        });
        assert_eq!(panicked.await.number, 2);
        bob.next().await;
        bob.push_acked(&theirs, 1, "b<flaky").await;
        assert_eq!(logged(&registry).await, ["flaky", "b<flaky"]);
    }
}

/// What is stored did not come through here.
#[tokio::test(start_paused = true)]
async fn a_document_that_cannot_be_loaded_is_relayed_and_reported() {
    for words in both() {
        let (server, registry) = server(&words);
        let notes = document("notes");
        let new = NewDocument::new(notes.clone(), EngineId::OPAQUE, Epoch(7));
        registry.create(new).await.unwrap();
        let id = ChangeId {
            origin: OriginId(99),
            number: 1,
        };
        let change = NewChange::new(id, User::new("eve"), "unloadable".into());
        let appended = registry.append(&notes, Epoch(7), None, vec![change]);
        appended.await.unwrap();
        let mut events = server.events();
        let mut ada = Peer::welcomed(&server, 1).await;
        let mut ours = ada.open("notes").await;
        ada.follow(&mut ours, 1).await;
        for number in 1..=3 {
            ada.push_acked(&ours, number, "x<nothing").await;
        }
        let relayed = event(&mut events, |event| match event {
            ServerEvent::DocumentRelayed { document, .. } => Some(document),
            _ => None,
        });
        assert_eq!(relayed.await, notes);
        let stats = server.inspect(&notes).unwrap().stats;
        assert!(stats.relayed.is_some() && server.stats().n_relayed == 1);
        while let Some(event) = events.try_next() {
            assert!(!matches!(event, ServerEvent::DocumentRelayed { .. }));
        }
        // Others are not.
        let other = ada.open("other").await;
        ada.push(&other, 1, &["x<nothing"]).await;
        assert_eq!(refusal(&mut ada).await.code, ErrorCode::MissingDependency);
        assert_eq!(
            server.inspect(&document("other")).unwrap().stats.relayed,
            None
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_writer_that_is_refused_holds_up_nobody_else_in_its_batch() {
    let words = Words::default();
    let (server, registry) = server(&words);
    let mut peers = Vec::new();
    for origin in 1..=8 {
        let mut peer = Peer::welcomed(&server, origin).await;
        let opened = peer.open("notes").await;
        peers.push((peer, opened));
    }
    // Lines up while the first is being checked.
    for (n, (peer, opened)) in peers.iter_mut().enumerate() {
        let change = if n % 2 == 0 { "good" } else { "x<nothing" };
        peer.push(opened, 1, &[change]).await;
    }
    let (mut refused, mut later) = (0, 0);
    for (peer, _) in peers.iter_mut().skip(1).step_by(2) {
        loop {
            match peer.next().await {
                Message::Changes(_) => {}
                Message::Refuse(refuse) => {
                    assert_eq!(refuse.code, ErrorCode::MissingDependency);
                    refused += 1;
                    break;
                }
                Message::Error(error) => {
                    assert_eq!(error.code, ErrorCode::CheckUnavailable);
                    later += 1;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(refused + later, 4);
    assert!(refused > 0);
    assert!(logged(&registry).await.iter().all(|text| text == "good"));
}

#[tokio::test(start_paused = true)]
async fn a_server_without_an_engine_host_relays_whatever_comes() {
    let registry = Arc::new(FaultyRegistry::new(Arc::new(MemoryRegistry::new())));
    let server = common::builder(Arc::clone(&registry))
        .engines(EngineHost::None)
        .build()
        .unwrap();
    let mut ada = Peer::welcomed(&server, 1).await;
    let mut open = ada.open_message("notes");
    open.engine = EngineId::YRS;
    let ours = ada.open_with(open).await;
    ada.push_acked(&ours, 1, "no yrs change").await;
    assert_eq!(logged(&registry).await, ["no yrs change"]);
    let read = server.read_json(&document("notes")).await;
    assert!(matches!(
        read,
        Err(ReadError::Engine(EngineError::Unsupported { .. }))
    ));
    let missing = server.read_json(&document("missing")).await;
    assert!(matches!(missing, Err(ReadError::NotFound)));
}
