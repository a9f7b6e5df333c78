//! Who may write, and what becomes of edits of those who may not, or not now.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]

mod e2e;
mod registries;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use e2e::{Over, World, content, get, map, push, set, text, until, until_status, within};
use sync_client::yrs::{Text, Transact};
use sync_client::{
    AccessLevel, Client, ClientEvent, DocumentEvent, DocumentHandle, EditError, Engine, ErrorCode,
    RefusedReason, SaveError, Status, SyncPhase,
};
use sync_server::registry::HoldPoint;
use sync_server::{
    Access, Auth, AuthError, Authenticator, Authorizer, ConnectRequest, DocumentId, Identity, User,
};

const DOC: &str = "doc";
const DENIED: RefusedReason = RefusedReason::Code(ErrorCode::AccessDenied);

/// What the application behind the server says just now; the user is the token.
#[derive(Clone, Default)]
struct Office(Arc<Mutex<Rules>>);

#[derive(Default)]
struct Rules {
    readers: Vec<&'static str>,
    strangers: Vec<&'static str>,
    /// How the next questions of each kind are not answered.
    who: Vec<Trouble>,
    may: Vec<Trouble>,
}

#[derive(Debug, Clone, Copy)]
enum Trouble {
    Unavailable,
    Refused,
    Silent,
}

impl Office {
    fn set<R>(&self, change: impl FnOnce(&mut Rules) -> R) -> R {
        change(&mut self.0.lock().unwrap())
    }
}

async fn trouble(trouble: Option<Trouble>) -> Result<(), AuthError> {
    match trouble {
        None => Ok(()),
        Some(Trouble::Unavailable) => Err(AuthError::unavailable("the database is away")),
        Some(Trouble::Refused) => Err(AuthError::refused("not now")),
        Some(Trouble::Silent) => std::future::pending().await,
    }
}

#[async_trait]
impl Authenticator for Office {
    async fn authenticate(&self, request: &ConnectRequest) -> Result<Identity, AuthError> {
        trouble(self.set(|rules| rules.who.pop())).await?;
        let token = request.credentials.clone().unwrap();
        Ok(User::new(String::from_utf8(token.to_vec()).unwrap()).into())
    }
}

#[async_trait]
impl Authorizer for Office {
    async fn authorize(&self, user: &User, _: &DocumentId) -> Result<Access, AuthError> {
        trouble(self.set(|rules| rules.may.pop())).await?;
        Ok(self.set(|rules| {
            let is_in = |list: &[&str]| list.iter().any(|name| *name == &*user.id);
            if is_in(&rules.strangers) {
                Access::none()
            } else if is_in(&rules.readers) {
                Access::read()
            } else {
                Access::write()
            }
        }))
    }
}

async fn world_over(over: Over) -> (World, Office) {
    let office = Office::default();
    let auth = Auth::new(office.clone(), office.clone());
    (World::assemble(over, auth, |builder| builder).await, office)
}

async fn world() -> (World, Office) {
    world_over(Over::Memory).await
}

fn client(world: &World, user: &'static str) -> Client {
    world.builder().token(user).start().unwrap()
}

async fn caught_up<E: Engine>(document: &DocumentHandle<E>) {
    within("caught up", document.caught_up()).await.unwrap();
}

async fn saved<E: Engine>(document: &DocumentHandle<E>) {
    within("saved", document.saved()).await.unwrap();
}

fn reasons<E: Engine>(document: &DocumentHandle<E>) -> Vec<RefusedReason> {
    let refused = document.refused();
    refused.iter().map(|change| change.reason).collect()
}

both! {
    /// Scenario 54.
    a_reader_receives_and_its_edits_are_refused_before_they_are_made => reader(super::world_over)
}

async fn reader((world, office): (World, Office)) {
    office.set(|rules| rules.readers.push("bob"));
    let (ann, bob) = (client(&world, "ann"), client(&world, "bob"));
    let a = text(&ann, DOC).await;
    push(&a, "one ");
    saved(&a).await;
    let b = text(&bob, DOC).await;
    let mut events = b.events();
    until(&b, "bob reads", |b, _| content(b) == "one ").await;
    caught_up(&b).await;

    let mut ran = false;
    assert_eq!(b.edit(|_| ran = true), Err(EditError::ReadOnly));
    assert!(!ran);
    let state = b.sync_state().get();
    assert_eq!(
        (state.access, state.unsaved, state.refused),
        (AccessLevel::Read, 0, 0)
    );
    let mut told = Vec::new();
    while let Some(event) = events.try_next() {
        if let DocumentEvent::AccessChanged(access) = event {
            told.push(access);
        }
    }
    assert_eq!(told, [AccessLevel::Read]);

    // It goes on receiving, and so does a writer who asked for no more than reading.
    let modest = client(&world, "cem");
    let c = modest
        .open(DOC, sync_client::Yrs::new())
        .read_only()
        .await
        .unwrap();
    assert_eq!(c.edit(|_| ()), Err(EditError::ReadOnly));
    push(&a, "two");
    for reader in [&b, &c] {
        until(reader, "everybody reads", |reader, _| {
            content(reader) == "one two"
        })
        .await;
    }
}

/// Scenario 54: offline nobody knows yet.
#[tokio::test(start_paused = true)]
async fn edits_made_before_a_client_knew_that_it_may_only_read_come_back() {
    let (world, office) = world().await;
    office.set(|rules| rules.readers.push("bob"));
    let ann = client(&world, "ann");
    let (a_text, a_map) = (text(&ann, "text").await, map(&ann, "map").await);
    push(&a_text, "one");
    set(&a_map, "k", "one");
    saved(&a_text).await;
    saved(&a_map).await;

    world.network.set_online(false);
    let bob = client(&world, "bob");
    let (b_text, b_map) = (text(&bob, "text").await, map(&bob, "map").await);
    for n in ["1", "2", "3"] {
        push(&b_text, n);
        set(&b_map, n, n);
    }
    let (text_saved, map_saved) = (b_text.saved(), b_map.saved());
    world.network.set_online(true);
    bob.on_network_change();
    for answer in [
        within("an answer", text_saved).await,
        within("an answer", map_saved).await,
    ] {
        let Err(SaveError::Refused(ids)) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(ids.len(), 3);
    }
    caught_up(&b_text).await;
    caught_up(&b_map).await;
    assert_eq!(reasons(&b_text)[0], DENIED);
    assert_eq!(reasons(&b_map)[0], DENIED);
    assert_eq!((reasons(&b_text).len(), reasons(&b_map).len()), (3, 3));
    assert_eq!(content(&b_text), "one");
    assert_eq!(
        (get(&b_map, "k").unwrap(), get(&b_map, "1")),
        ("one".to_owned(), None)
    );
    assert_eq!(
        world.log("text").await.len() + world.log("map").await.len(),
        2
    );
    within(
        "nothing unsaved",
        bob.unsaved().wait_for(|it| it.is_empty()),
    )
    .await
    .unwrap();
}

both! {
    /// Scenario 54: what is done through the engine's own handle cannot be refused beforehand.
    a_readers_native_edits_come_back => native_edits(super::world_over)
}

async fn native_edits((world, office): (World, Office)) {
    office.set(|rules| rules.readers.push("bob"));
    let b = text(&client(&world, "ann"), DOC).await;
    push(&b, "one");
    saved(&b).await;
    let b = text(&client(&world, "bob"), DOC).await;
    caught_up(&b).await;
    let native = b.native();
    let body = native.get_or_insert_text("body");
    body.push(&mut native.transact_mut(), "mine");
    let answer = within("an answer", b.saved()).await;
    assert!(matches!(answer, Err(SaveError::Refused(_))), "{answer:?}");
    assert_eq!(reasons(&b), [DENIED]);
    until(&b, "as before", |b, state| {
        state.is_caught_up() && content(b) == "one"
    })
    .await;
}

/// Scenarios 54 and 56: access that went and came back.
#[tokio::test(start_paused = true)]
async fn work_of_a_client_that_lost_its_access_meanwhile_comes_back_and_later_edits_are_taken_again()
 {
    let (world, office) = world().await;
    let ann = client(&world, "ann");
    let a = text(&ann, DOC).await;
    push(&a, "one ");
    saved(&a).await;
    ann.disconnect();
    until_status(&ann, "offline", |status| *status == Status::Offline).await;
    push(&a, "offline");
    let offline = a.saved();
    office.set(|rules| rules.readers.push("ann"));
    ann.connect();
    assert!(matches!(
        within("an answer", offline).await,
        Err(SaveError::Refused(_))
    ));
    caught_up(&a).await;
    assert_eq!(
        (content(&a), reasons(&a)),
        ("one ".to_owned(), vec![DENIED])
    );
    assert_eq!(a.edit(|_| ()), Err(EditError::ReadOnly));

    office.set(|rules| rules.readers.clear());
    world.network.cut();
    until(&a, "may write again", |_, state| {
        state.access == AccessLevel::Write
    })
    .await;
    assert!(a.drop_refused(a.refused()[0].id));
    push(&a, "two");
    saved(&a).await;
    assert_eq!(content(&a), "one two");
}

both! {
    /// Scenario 55: no access to one document is no access to that one.
    a_document_that_is_not_for_this_user_says_so_and_keeps_what_was_written => not_for_this_user(super::world_over)
}

async fn not_for_this_user((world, office): (World, Office)) {
    office.set(|rules| rules.strangers.push("bob"));
    let bob = client(&world, "bob");
    let b = text(&bob, DOC).await;
    push(&b, "mine");
    let denied = Err(SaveError::Denied(ErrorCode::AccessDenied));
    assert_eq!(within("an answer", b.saved()).await, denied);
    assert_eq!(within("an answer", b.caught_up()).await, denied);
    let state = b.sync_state().get();
    assert_eq!(state.phase, SyncPhase::Refused(ErrorCode::AccessDenied));
    assert_eq!((state.unsaved, content(&b)), (1, "mine".to_owned()));
    assert!(bob.status().get().is_connected());
    office.set(|rules| rules.strangers.clear());
    let again = text(&bob, DOC).await;
    saved(&again).await;
    saved(&b).await;
}

// ---- scenario 83: what cannot be answered now is no answer

both! {
    /// Scenario 83, authorization.
    authorization_that_fails_or_hangs_takes_nothing_from_an_outbox => failing_authorization(std::future::ready)
}

async fn failing_authorization(over: Over) {
    for how in [Trouble::Unavailable, Trouble::Refused, Trouble::Silent] {
        let times = match (over, how) {
            (Over::Memory, _) => 3,
            // Over real sockets it would take its time.
            (Over::WebSocket, Trouble::Silent) => continue,
            (Over::WebSocket, _) => 1,
        };
        let (world, office) = world_over(over).await;
        office.set(|rules| rules.may = vec![how; times]);
        let ann = client(&world, "ann");
        let a = text(&ann, DOC).await;
        push(&a, "one ");
        push(&a, "two");
        until(&a, "saved", |_, state| {
            assert_eq!(state.refused, 0, "{how:?}");
            if office.set(|rules| rules.may.len()) > 0 {
                assert_eq!(state.unsaved, 2, "{how:?}");
            }
            state.is_saved()
        })
        .await;
        assert_eq!(
            (content(&a).as_str(), a.refused().len()),
            ("one two", 0),
            "{how:?}"
        );
        assert_eq!(world.log(DOC).await.len(), 2, "{how:?}");
    }
}

both! {
    /// Scenario 83, authentication.
    authentication_that_fails_or_hangs_takes_nothing_from_an_outbox => failing_authentication(std::future::ready)
}

async fn failing_authentication(over: Over) {
    for how in [Trouble::Unavailable, Trouble::Silent, Trouble::Refused] {
        if over == Over::WebSocket && matches!(how, Trouble::Silent) {
            // Over real sockets it would take its time.
            continue;
        }
        let (world, office) = world_over(over).await;
        office.set(|rules| rules.who = vec![how; 2]);
        let ann = client(&world, "ann");
        let mut events = ann.events();
        let a = text(&ann, DOC).await;
        push(&a, "one");
        let done = a.saved();
        if let Trouble::Refused = how {
            // Only other credentials help, or asking again.
            for left in [1, 0] {
                let failed = async {
                    use ClientEvent::StatusChanged;
                    while !matches!(
                        events.next().await.unwrap(),
                        StatusChanged(Status::Failed(_))
                    ) {}
                };
                within("failed", failed).await;
                assert_eq!(office.set(|rules| rules.who.len()), left);
                let state = a.sync_state().get();
                assert_eq!((state.unsaved, state.refused), (1, 0));
                ann.connect();
            }
        }
        within("saved", done).await.unwrap();
        assert_eq!(a.refused().len(), 0, "{how:?}");
    }
}

registries! {
    /// Scenario 83, storage.
    storage_that_fails_loses_answers_or_hangs_takes_nothing_from_an_outbox => failing_storage
}

async fn failing_storage() {
    type Fault = (&'static str, fn(&World));
    let faults: [Fault; 5] = [
        ("appends fail", |world| world.faults.fail_appends(4)),
        ("answers are lost", |world| world.faults.lose_answers(4)),
        ("reads fail", |world| world.faults.fail_reads(4)),
        ("appends hang before", |world| {
            world.faults.hold_appends(HoldPoint::BeforeCommit);
        }),
        ("appends hang after", |world| {
            world.faults.hold_appends(HoldPoint::AfterCommit);
        }),
    ];
    for (what, fault) in faults {
        for while_live in [false, true] {
            let world = World::memory().await;
            let (ann, bob) = (world.client(), world.client());
            let (a, b) = (text(&ann, DOC).await, map(&bob, "map").await);
            if while_live {
                push(&a, "0");
                saved(&a).await;
                caught_up(&b).await;
            }
            fault(&world);
            for n in 1..=5 {
                push(&a, &n.to_string());
                set(&b, &n.to_string(), "x");
                tokio::time::sleep(Duration::from_millis(300)).await;
                if n == 3 {
                    world.network.cut();
                }
            }
            let (a_saved, b_saved) = (a.saved(), b.saved());
            tokio::time::sleep(Duration::from_secs(90)).await;
            let unsaved = (a.sync_state().get().unsaved, b.sync_state().get().unsaved);
            if what.contains("hang") {
                assert!(unsaved.0 > 0 && unsaved.1 > 0, "{what}: {unsaved:?}");
            } else {
                assert_eq!(unsaved, (0, 0), "{what}");
            }
            world.faults.release_appends();
            within(what, a_saved).await.unwrap();
            within(what, b_saved).await.unwrap();
            let letters = if while_live { "012345" } else { "12345" };
            assert_eq!(content(&a), letters, "{what}");
            assert_eq!((a.refused().len(), b.refused().len()), (0, 0), "{what}");
            assert_eq!(
                world.log(DOC).await.len(),
                letters.len(),
                "{what}: once each"
            );
            assert_eq!(world.log("map").await.len(), 5, "{what}: once each");
        }
    }
}
