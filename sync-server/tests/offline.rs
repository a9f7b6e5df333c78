//! Working without a server, and what a store keeps of it from one process to the next.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "scenarios are plain async functions"
)]

mod e2e;
mod registries;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use e2e::{Over, World, content, get, map, push, set, text, until, until_status, within};
use sync_client::store::{OutboxChange, StoreWrite, StoredDocument};
use sync_client::{
    Client, ClientStore, DocumentId, EmbeddedStore, EngineId, MemoryStore, SaveError, StartError,
    Status, StoreError,
};
use tokio::sync::Semaphore;

/// A device that keeps its documents over restarts of the application.
trait Device {
    type Store: ClientStore + Clone;

    /// The store as the next process finds it when this one is killed now.
    async fn killed(&self, store: &Self::Store) -> Self::Store;

    fn first(&self) -> Self::Store;
}

struct InMemory;

impl Device for InMemory {
    type Store = MemoryStore;

    async fn killed(&self, store: &MemoryStore) -> MemoryStore {
        store.backup()
    }

    fn first(&self) -> MemoryStore {
        MemoryStore::new()
    }
}

/// A directory for each process: the next one's is a copy of the files, taken while the one before has them open.
struct OnDisk {
    directory: PathBuf,
    processes: AtomicU32,
}

impl OnDisk {
    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let made = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("offline-{}-{made}", std::process::id());
        Self {
            directory: std::env::temp_dir().join(name),
            processes: AtomicU32::new(0),
        }
    }

    fn process(&self, number: u32) -> PathBuf {
        self.directory.join(number.to_string())
    }
}

impl Device for OnDisk {
    type Store = EmbeddedStore;

    async fn killed(&self, _: &EmbeddedStore) -> EmbeddedStore {
        let number = self.processes.fetch_add(1, Ordering::Relaxed);
        let (from, to) = (self.process(number), self.process(number + 1));
        std::fs::create_dir_all(&to).unwrap();
        // Without the index of the log, which SQLite makes anew from the log after a crash.
        for file in ["app.db", "app.db-wal"] {
            std::fs::copy(from.join(file), to.join(file)).unwrap();
        }
        EmbeddedStore::open(to.join("app.db")).unwrap()
    }

    fn first(&self) -> EmbeddedStore {
        std::fs::create_dir_all(self.process(0)).unwrap();
        EmbeddedStore::open(self.process(0).join("app.db")).unwrap()
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Runs a scenario in memory under virtual time, and with files at both ends and WebSockets between them.
macro_rules! devices {
    ($(#[$doc:meta])* $name:ident => $scenario:ident) => {
        mod $name {
            $(#[$doc])*
            #[tokio::test(start_paused = true)]
            async fn in_memory() {
                super::$scenario(super::World::memory().await, super::InMemory).await;
            }

            $(#[$doc])*
            #[tokio::test]
            async fn on_disk() {
                crate::registries::on_disk(async {
                    let world = super::World::new(super::Over::WebSocket).await;
                    super::$scenario(world, super::OnDisk::new()).await;
                })
                .await;
            }
        }
    };
}

fn start(world: &World, store: impl ClientStore) -> Client {
    world.builder().store(store).account("ada").start().unwrap()
}

devices! {
    /// Scenarios 32 and 43.
    what_was_edited_offline_survives_a_restart_and_is_delivered_once => offline_edits_survive
}

async fn offline_edits_survive(mut world: World, device: impl Device) {
    let store = device.first();
    let client = start(&world, store.clone());
    let (notes, settings) = (text(&client, "notes").await, map(&client, "settings").await);
    push(&notes, "online");
    within("saved", notes.saved()).await.unwrap();
    // Until the store knows that, too.
    within("caught up", notes.caught_up()).await.unwrap();
    within("stored", notes.saved_locally()).await.unwrap();
    world.stop().await;
    until_status(&client, "offline", |s| !s.is_connected()).await;
    push(&notes, ", offline");
    push(&notes, " and on");
    set(&settings, "volume", "7");
    assert_eq!(notes.sync_state().get().unsaved, 2);
    assert_eq!(client.unsaved().get().len(), 2);
    // Staged within the edit: nothing else has run since.
    let next = device.killed(&store).await;
    drop((client, notes, settings));

    // Still offline.
    let client = start(&world, next.clone());
    let notes = text(&client, "notes").await;
    assert_eq!(content(&notes), "online, offline and on");
    assert_eq!(notes.sync_state().get().unsaved, 2);
    push(&notes, "; again");
    within("stored", notes.saved_locally()).await.unwrap();
    let next = device.killed(&next).await;
    drop((client, notes));

    world.start().await;
    let client = start(&world, next.clone());
    let (notes, settings) = (text(&client, "notes").await, map(&client, "settings").await);
    assert_eq!(content(&notes), "online, offline and on; again");
    assert_eq!(get(&settings, "volume").as_deref(), Some("7"));
    within("saved", notes.saved()).await.unwrap();
    within("saved", settings.saved()).await.unwrap();
    assert_eq!(world.log("notes").await.len(), 4);
    assert_eq!(world.log("settings").await.len(), 1);

    // Whoever starts from nothing sees the same.
    let other = world.client();
    let theirs = text(&other, "notes").await;
    within("caught up", theirs.caught_up()).await.unwrap();
    assert_eq!(content(&theirs), "online, offline and on; again");

    // What was delivered is not delivered again.
    within("stored", notes.saved_locally()).await.unwrap();
    assert!(within("ended", client.shutdown(Duration::from_secs(30))).await);
    let next = device.killed(&next).await;
    drop((client, notes, settings));
    assert!(
        next.list()
            .await
            .unwrap()
            .iter()
            .all(|(_, outbox)| *outbox == 0)
    );
    let client = start(&world, next);
    let notes = text(&client, "notes").await;
    assert_eq!(content(&notes), "online, offline and on; again");
    assert!(client.unsaved().get().is_empty());
    within("caught up", notes.caught_up()).await.unwrap();
    assert_eq!(world.log("notes").await.len(), 4);
}

devices! {
    /// Scenario 93.
    outboxes_of_documents_that_are_not_open_are_delivered => unopened_outboxes_are_delivered
}

async fn unopened_outboxes_are_delivered(mut world: World, device: impl Device) {
    let store = device.first();
    world.stop().await;
    let client = start(&world, store.clone());
    for number in 0..3 {
        let notes = text(&client, &format!("notes/{number}")).await;
        push(&notes, "a");
        push(&notes, "b");
    }
    set(&map(&client, "settings").await, "volume", "7");
    let next = device.killed(&store).await;
    drop(client);

    let client = start(&world, next.clone());
    let mut unsaved = client.unsaved();
    within("they show", unsaved.wait_for(|unsaved| unsaved.len() == 4))
        .await
        .unwrap();
    world.start().await;
    client.connect();
    within("all saved", unsaved.wait_for(|unsaved| unsaved.is_empty()))
        .await
        .unwrap();
    for number in 0..3 {
        assert_eq!(world.log(&format!("notes/{number}")).await.len(), 2);
    }
    assert_eq!(world.log("settings").await.len(), 1);
    assert!(within("ended", client.shutdown(Duration::from_secs(30))).await);
    let next = device.killed(&next).await;

    // What was delivered is still here, without the server.
    world.stop().await;
    let client = start(&world, next);
    for number in 0..3 {
        let notes = text(&client, &format!("notes/{number}")).await;
        assert_eq!(content(&notes), "ab");
    }
    let settings = map(&client, "settings").await;
    assert_eq!(get(&settings, "volume").as_deref(), Some("7"));
}

devices! {
    /// Scenario 92.
    another_account_gets_nothing_of_a_store => another_account_is_refused
}

async fn another_account_is_refused(mut world: World, device: impl Device) {
    let store = device.first();
    world.stop().await;
    let client = start(&world, store.clone());
    push(&text(&client, "notes").await, "mine");
    let next = device.killed(&store).await;
    drop(client);
    world.start().await;
    let other = world.builder().store(next.clone()).account("grace").start();
    match other {
        Err(StartError::Store(StoreError::WrongAccount { bound, asked })) => {
            assert_eq!((bound.as_str(), asked.as_str()), ("ada", "grace"));
        }
        other => panic!("{other:?}"),
    }
    // Nothing is lost for whom it belongs to.
    let client = start(&world, next);
    let notes = text(&client, "notes").await;
    assert_eq!(content(&notes), "mine");
    within("saved", notes.saved()).await.unwrap();
}

/// Scenario 92: the second process, as far as one test is one.
#[tokio::test]
async fn a_store_that_a_client_has_open_is_in_use_until_it_is_closed() {
    let world = World::new(Over::WebSocket).await;
    let device = OnDisk::new();
    let store = device.first();
    let path = device.process(0).join("app.db");
    let client = start(&world, store.clone());
    let notes = text(&client, "notes").await;
    push(&notes, "typed");
    let second = EmbeddedStore::open(&path);
    assert!(matches!(second, Err(StoreError::InUse)), "{second:?}");
    assert!(within("ended", client.shutdown(Duration::from_secs(30))).await);
    within("closed", store.close()).await;
    let again = EmbeddedStore::open(&path).unwrap();
    let client = start(&world, again);
    assert_eq!(content(&text(&client, "notes").await), "typed");
}

/// Scenario 43: without a store, too.
#[tokio::test(start_paused = true)]
async fn edits_are_taken_and_counted_before_there_was_ever_a_connection() {
    let mut world = World::memory().await;
    world.stop().await;
    let client = world.client();
    let notes = text(&client, "notes").await;
    for count in 1..=5 {
        push(&notes, "x");
        assert_eq!(notes.sync_state().get().unsaved, count);
    }
    assert_eq!(content(&notes), "xxxxx");
    assert_eq!(client.unsaved().get().len(), 1);
    let stored = within("an answer", notes.saved_locally()).await;
    assert_eq!(stored, Err(SaveError::NoStore));
    client.disconnect();
    until_status(&client, "offline", |s| *s == Status::Offline).await;
    push(&notes, "y");
    world.start().await;
    client.connect();
    within("saved", notes.saved()).await.unwrap();
    until(&notes, "none", |_, state| state.unsaved == 0).await;
    assert_eq!(world.log("notes").await.len(), 6);
}

/// Commits when it is let to.
#[derive(Clone)]
struct Held {
    store: MemoryStore,
    commits: Arc<Semaphore>,
    /// Outboxes after each commit.
    committed: Arc<Mutex<Vec<usize>>>,
}

#[async_trait]
impl ClientStore for Held {
    fn bind(&self, account: &str) -> Result<(), StoreError> {
        self.store.bind(account)
    }

    async fn load(&self, document: &DocumentId) -> Result<Option<StoredDocument>, StoreError> {
        self.store.load(document).await
    }

    async fn commit(&self, document: &DocumentId, write: &StoreWrite) -> Result<(), StoreError> {
        self.commits.acquire().await.unwrap().forget();
        self.store.commit(document, write).await?;
        let stored = self.store.load(document).await?.unwrap();
        self.committed.lock().unwrap().push(stored.outbox.len());
        Ok(())
    }

    async fn remove(&self, document: &DocumentId) -> Result<(), StoreError> {
        self.store.remove(document).await
    }

    async fn list(&self) -> Result<Vec<(DocumentId, usize)>, StoreError> {
        self.store.list().await
    }

    fn stage(
        &self,
        document: &DocumentId,
        engine: &EngineId,
        change: &OutboxChange,
    ) -> Result<bool, StoreError> {
        self.store.stage(document, engine, change)
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_was_shut_down_has_finished_writing() {
    let mut world = World::memory().await;
    world.stop().await;
    let store = Held {
        store: MemoryStore::new(),
        commits: Arc::new(Semaphore::new(0)),
        committed: Arc::default(),
    };
    let client = start(&world, store.clone());
    let notes = text(&client, "notes").await;
    push(&notes, "a");
    push(&notes, "b");
    let ended = client.shutdown(Duration::ZERO);
    let mut ended = std::pin::pin!(ended);
    // The disk is slow: ten virtual seconds pass without an answer.
    let early = tokio::time::timeout(Duration::from_secs(10), &mut ended).await;
    assert!(early.is_err(), "ended before anything was committed");
    assert!(store.committed.lock().unwrap().is_empty());
    store.commits.add_permits(100);
    assert!(!within("it ends", ended).await);
    assert_eq!(store.committed.lock().unwrap().last(), Some(&2));
}
